"""Another version of what computes redoes a scan, and each level names all that computes at it."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_architecture import ORDER, imports_of

from bids_app.bids.names import Scan
from bids_app.cohort import remade
from bids_app.machine import software
from bids_app.participant import marks

REAL = importlib.metadata.version


@pytest.fixture
def another(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Versions that packages claim to have, by name; the others keep theirs."""
    claimed: dict[str, str] = {}
    monkeypatch.setattr(importlib.metadata, "version", lambda name: claimed.get(name) or REAL(name))
    software._installed.cache_clear()
    yield claimed
    software._installed.cache_clear()


def imported(*rooms: str) -> set[str]:
    """Packages that rooms import, as they are called where they are installed; an extra need not be."""
    names = {name.split(".")[0] for module in ORDER if module.startswith(rooms) for _, name in imports_of(module)}
    installed = importlib.metadata.packages_distributions()
    return {installed.get(name, [name])[0].lower() for name in names - set(sys.stdlib_module_names) - {"bids_app"}}


@pytest.mark.parametrize("package", software.SCAN)
def test_another_version_of_what_computes_redoes_the_scan(
    package: str, another: dict[str, str], tmp_path: Path
) -> None:
    source = tmp_path / "scan.nii.gz"
    source.write_bytes(b"a scan")
    before = marks.digests(source, {"lesion_threshold": 0.32})
    assert marks.digests(source, {"lesion_threshold": 0.32}) == before
    another[package] = "99.0"
    software._installed.cache_clear()
    after = marks.digests(source, {"lesion_threshold": 0.32})
    assert after[0] != before[0]
    assert after[1] != before[1]  # nor is the anatomy taken from what the other version made


def test_another_version_of_what_computes_makes_kept_maps_anew(another: dict[str, str], tmp_path: Path) -> None:
    task = remade.Task(0, Scan.named("sub-01"), tmp_path, 0.32, tmp_path / "kept.npz")
    before = remade.identity(task)
    another["antspyx"] = "99.0"
    software._installed.cache_clear()
    assert remade.identity(task) != before


def test_another_version_of_what_only_draws_or_selects_redoes_nothing(another: dict[str, str], tmp_path: Path) -> None:
    source = tmp_path / "scan.nii.gz"
    source.write_bytes(b"a scan")
    before = marks.digests(source, {})
    another |= dict.fromkeys(("matplotlib", "jinja2", "pybids", "scikit-learn"), "99.0")
    software._installed.cache_clear()
    assert marks.digests(source, {}) == before


def test_other_weights_redo_the_scan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "scan.nii.gz"
    source.write_bytes(b"a scan")
    before = marks.digests(source, {})
    own = software.weights()
    assert own and all(len(sha) == 64 for sha in own.values())
    monkeypatch.setattr(software, "weights", lambda: {**own, next(iter(own)): "0" * 64})
    assert not set(marks.digests(source, {})) & set(before)


def test_the_lists_name_all_that_computes() -> None:
    assert imported("image", "participant.transforms") == set(software.SCAN)
    rooms = ("image", "lesions", "learning", "recommended", "rivals", "cohort", "model")
    assert imported(*rooms) - {"torch"} <= set(software.LEVELS["group"])  # torch is told where the network ran
    assert {"numba", "pandas", "scikit-learn", "statsmodels"} <= imported("learning")


@pytest.mark.parametrize("level", ["participant", "group"])
def test_versions_are_those_installed(level: str) -> None:
    said = software.software(level)
    assert json.loads(json.dumps(said)) == said
    for name in software.LEVELS[level]:
        assert said.pop(name) == REAL(name)
    assert set(said) == {"bids_app", "python"}
