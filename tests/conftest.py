"""What tests share: a tiny made-up data set, the participant level run once on it, and real scans where they are."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import realdata
from anatomies import good, patient, scan  # noqa: F401
from chromium import axe, chromium, visit  # noqa: F401

from bids_app.__main__ import main
from bids_app.phantom import dataset
from bids_app.phantom.records import Design

LONG = bool(os.environ.get("LONG_TESTS"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: runs where LONG_TESTS is set")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("long") and not LONG:
            item.add_marker(pytest.mark.skip(reason="takes long; set LONG_TESTS=1"))


def _run_app(*words: object) -> int:
    before, temporary, log = dict(os.environ), tempfile.gettempdir(), logging.getLogger("bids_app")
    try:
        return main([str(word) for word in words])
    finally:
        for handler in list(log.handlers):
            handler.close()
            log.removeHandler(handler)
        log.propagate = True
        os.environ.clear()
        os.environ.update(before)
        tempfile.tempdir = temporary


def _checksums(folder: Path) -> dict[str, str]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.fixture(scope="session")
def run_app() -> Callable[..., int]:
    """The command line in this process: returns the exit code, and puts log and environment back."""
    return _run_app


@pytest.fixture(scope="session")
def checksums() -> Callable[[Path], dict[str, str]]:
    """SHA-256 of every file of a folder, by relative path."""
    return _checksums


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Raw data set and truth: one participant with RRMS and one, lesion-free, with NMOSD; a scan each."""
    folder = tmp_path_factory.mktemp("tiny")
    raw, truth = folder / "raw", folder / "truth"
    design = Design(n_positive=1, n_negative=1, sessions=(1,), spacing=(2.0, 2.0, 4.0))
    dataset.make_dataset(raw, truth, design, seed=1)
    return raw, truth


@pytest.fixture(scope="session")
def tiny_before(tiny: tuple[Path, Path]) -> dict[str, str]:
    """Checksums of the raw data set before anything ran on it."""
    return _checksums(tiny[0])


@pytest.fixture(scope="session")
def done(tiny: tuple[Path, Path], tiny_before: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of the participant level, run once on `tiny`: the slowest thing in the suite."""
    output = tmp_path_factory.mktemp("done") / "out"
    code = _run_app(tiny[0], output, "participant", "--nprocs", 2)
    assert code == 0
    return output


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with ``raw`` and ``expert`` of five real scans, or a skip."""
    if not realdata.THERE:
        pytest.skip(
            f"no real scans at {realdata.FOLDER}; set BIDS_APP_REAL_DATA to the folder that holds raw/ and expert/"
        )
    return realdata.FOLDER


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what containers were built and run, and why not: the log is where their size and time are read."""
    for outcome in ("passed", "failed", "skipped"):
        for report in terminalreporter.getreports(outcome):
            for name, value in getattr(report, "user_properties", ()):
                if name == "containers" and report.when == "call":
                    terminalreporter.write_line(f"{name}: {value}")
