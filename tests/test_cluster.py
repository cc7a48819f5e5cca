"""A Dask cluster that already runs: a real scheduler and real workers, each a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import quick_app

from bids_app.bids.query import find_scans
from bids_app.files import formats
from bids_app.participant import marks

HERE = Path(__file__).parent
PATIENCE = 180  # seconds for what should take a few: machines are shared
LABELS = ("01", "02", "03", "04")


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


class Cluster:
    """A scheduler on a loopback port, and workers."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder, self.env = folder, {**os.environ, **env, "QUICK_NOTES": str(folder)}
        self.file = folder / "scheduler.json"
        self.processes: list[subprocess.Popen[bytes]] = []
        self._start("scheduler", "--scheduler-file", str(self.file), "--host", "127.0.0.1", "--no-dashboard")
        until(self.file.exists)

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / "cluster.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *words], env=self.env, cwd=self.folder, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def add_worker(self, threads: int = 1, harm: str = "") -> subprocess.Popen[bytes]:
        self.env["QUICK_HARM"] = harm
        words = ("--nthreads", str(threads), "--no-dashboard", "--no-nanny", "--preload", str(HERE / "quick_app.py"))
        return self._start("worker", "--scheduler-file", str(self.file), "--host", "127.0.0.1", *words)

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=PATIENCE)


@pytest.fixture
def cluster(tiny: tuple[Path, Path], done: Path, tmp_path: Path) -> Iterator[Cluster]:
    folder = tmp_path / "cluster"
    folder.mkdir()
    made = Cluster(folder, {"QUICK_FOUND": str(quick_app.prepare(tiny[0], done, folder / "found"))})
    yield made
    made.stop()


@pytest.fixture
def raw(tiny: tuple[Path, Path], tmp_path: Path) -> Path:
    scan = tiny[0] / find_scans(tiny[0])[0][0].path
    root = tmp_path / "raw"
    formats.write_json(root / "dataset_description.json", {"Name": "four", "BIDSVersion": "1.10.0"})
    for label in LABELS:
        path = root / f"sub-{label}" / "anat" / f"sub-{label}_FLAIR.nii.gz"
        path.parent.mkdir(parents=True)
        shutil.copyfile(scan, path)
    return root


def start(raw: Path, out: Path, *words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bids_app", raw, out, "participant", "--skip-bids-validation", *words]
    return subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_worker_of_a_cluster_killed_loses_nothing(cluster: Cluster, raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    doomed = cluster.add_worker(harm="sub-01:wait:1")  # the first scan; it holds it until it is killed
    process = start(raw, out, "--dask-scheduler-file", cluster.file)
    until(lambda: bool(list(cluster.folder.glob("harm-*"))))
    doomed.kill()
    cluster.add_worker()
    cluster.add_worker()
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said + (cluster.folder / "cluster.log").read_text()
    assert "4 scans done, 0 unchanged, 0 failed" in said
    assert all(marks.mark_path(out, f"sub-{label}").exists() for label in LABELS)
    assert len(formats.read_tsv(out / "participants_lesions.tsv")) == len(LABELS)
    address = formats.read_json(cluster.file)["address"]
    again = start(raw, out, "--dask-scheduler", address)  # the same scheduler, by address, takes a second run
    assert "0 scans done, 4 unchanged" in again.communicate(timeout=PATIENCE)[0]


def test_workers_that_run_several_scans_in_one_process_are_refused(cluster: Cluster, raw: Path, tmp_path: Path) -> None:
    cluster.add_worker(threads=2)
    until(lambda: "Registered to" in (cluster.folder / "cluster.log").read_text())
    process = start(raw, tmp_path / "out", "--dask-scheduler-file", cluster.file)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 64, said
    assert "--nthreads 1" in said and "Traceback" not in said


@pytest.mark.parametrize(
    "words",
    [
        ("--dask-scheduler-file", "absent.json"),
        pytest.param(("--dask-scheduler", "tcp://127.0.0.1:9"), marks=pytest.mark.long),
        ("--dask-scheduler", "nonsense::"),
    ],
)
def test_no_scheduler_is_missing_input(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple
) -> None:
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "2s")
    process = start(raw, tmp_path / "out", *words)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 66, said
    assert "no Dask scheduler answers" in said and "Traceback" not in said
    assert said.strip().splitlines()[-1].split("exit code ")[1].startswith("66:")
