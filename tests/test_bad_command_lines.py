"""Command lines that users and scripts get wrong, beyond `test_command_line`: a code and one line, no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bids_app.bids.query import read_filters
from bids_app.errors import BadInputError, UsageError
from bids_app.files import formats
from bids_app.parser import parse

Run = Callable[..., int]
DRY = "--dry-run"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two participants, each with a scan that is all zero."""
    root = tmp_path / "raw"
    about = {"Name": "zeros", "BIDSVersion": "1.10.0", "DatasetType": "raw", "License": "CC0", "Authors": ["A B"]}
    formats.write_json(root / "dataset_description.json", about)
    formats.write_text(root / "README", "All zero.\n")
    for label in ("01", "ab"):
        path = root / f"sub-{label}" / "anat" / f"sub-{label}_FLAIR.nii.gz"
        formats.write_nifti(path, np.zeros((64, 64, 20), np.int16), np.diag([3.0, 3.0, 7.0, 1.0]))
    return root


def last(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def snapshot(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns) for path in folder.rglob("*"))


@pytest.mark.parametrize("path", ["", "  ", "a\0b", "x" * 5000, "{loop}", "{loop}/below"])
@pytest.mark.parametrize("place", ["bids_dir", "output_dir", "--work-dir", "--bids-filter-file", "--model"])
def test_paths_that_are_none_are_64(
    run_app: Run, raw: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str, path: str
) -> None:
    """Above all the empty one, of a variable that is not set: it would mean the present folder."""
    (raw.parent / "loop").symlink_to("loop")
    here = raw.parent / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    before = snapshot(raw.parent)
    path = path.format(loop=raw.parent / "loop")
    words = {"bids_dir": str(raw), "output_dir": str(raw.parent / "out")}
    more = [] if place in words else [place, path]
    words |= {place: path} if place in words else {}
    assert run_app(words["bids_dir"], words["output_dir"], "participant", *more) == 64
    assert last(capsys) == "exit code 64: usage"
    assert snapshot(raw.parent) == before


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["{file}", "{out}", "participant"], 66, "no such folder"),
        (["{raw}", "{file}", "participant"], 73, "cannot be created"),
        (["{raw}", "{broken}", "participant"], 73, "cannot be created"),
        (["{raw}", "{out}", "participant", "-w", "{file}"], 73, "cannot be created"),
        (["{raw}", "{raw}/", "participant"], 64, "usage"),
        (["{raw}", "{raw}/.", "participant"], 64, "usage"),
        (["{raw}", "{raw}/sub-01/out", "participant"], 64, "usage"),
        (["{parent}", "{raw}", "participant"], 64, "usage"),
        (["{raw}", "{out}", "Participant"], 64, "usage"),
        (["{raw}", "{out}", ""], 64, "usage"),
        (["{raw}", "{out}", "participant", "\u2014dry-run"], 64, "usage"),
        (["{raw}", "{out}", "participant", "--participant-label"], 64, "usage"),
        (["{raw}", "{out}", "participant", "--participant-label", ""], 64, "usage"),
        (["{raw}", "{out}", "participant", "--participant-label", "*"], 64, "usage"),
        (["{raw}", "{out}", "participant", "--participant-label", "../raw"], 64, "usage"),
        (["{raw}", "{out}", "participant", "--participant-label", "nobody"], 18, "there are: sub-01, sub-ab"),
        (["{raw}", "{out}", "participant", "--random-seed", "9" * 30], 64, "usage"),
        (["{raw}", "{out}", "group", "--permutations", "5", "--nested-folds", "0"], 64, "usage"),
        (["{raw}", "{out}", "participant", "--nprocs", "9" * 5000], 64, "usage"),
        (["{raw}", "{out}", "participant", "--nprocs", "1.5"], 64, "usage"),
        (["{raw}", "{out}", "participant", "--bids-filter-file", "{absent}"], 66, "no such file"),
        (["{raw}", "{out}", "participant", "--bids-filter-file", "{raw}"], 65, "not valid JSON"),
        (["{raw}", "{out}", "participant", "--bids-database-dir", "{database}", DRY], 65, "not a pybids database"),
        (["{raw}", "{out}", "participant", "--bids-database-dir", "{file}", DRY], 65, "not a pybids database"),
        (["{raw}", "{out}", "participant", "--model", "{absent}", "--skip-bids-validation"], 66, "no model here"),
        (["{raw}", "{out}", "group"], 66, "run the participant level first"),
        (["{raw}", "{out}", "group", "--read-ratings", "{absent}"], 66, "no such file"),
    ],
)
def test_each_mistake_has_its_exit_code_and_leaves_the_input(
    run_app: Run, raw: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str
) -> None:
    places = {name: raw.parent / name for name in ("out", "file", "broken", "absent", "database")}
    places["file"].write_text("x")
    places["broken"].symlink_to("nowhere")
    formats.write_text(places["database"] / "layout_index.sqlite", "garbage" * 100)
    before = snapshot(raw)
    assert run_app(*(word.format(raw=raw, parent=raw.parent, **places) for word in words)) == code
    line = last(capsys)
    assert f"exit code {code}: " in line
    assert says in line
    assert snapshot(raw) == before


BAD_FILTERS: list[object] = [
    {"flair": {"acquisition": []}},  # pybids would take it for no condition
    {"flair": {"acquisition": {"a": 1}}},
    {"flair": {"acquisition": [["x"]]}},
    {"flair": {"nosuch": "x"}},
    {"flair": {"regex_search": True}},
    {"flair": {"return_type": "object"}},
    {"flair": {"target": "subject"}},
    {"flair": {"invalid_filters": "allow", "nosuch": "x"}},
    {"flair": None},
    {},
    [],
    "flair",
]


@pytest.mark.parametrize("content", BAD_FILTERS, ids=json.dumps)
def test_a_filter_that_cannot_be_meant_is_65_and_not_ignored(
    run_app: Run, raw: Path, capsys: pytest.CaptureFixture[str], content: object
) -> None:
    path = raw.parent / "filter.json"
    path.write_text(json.dumps(content))
    assert run_app(raw, raw.parent / "out", "participant", DRY, "--bids-filter-file", path) == 65
    assert last(capsys).startswith("exit code 65:")


def test_no_condition_is_no_condition_and_foreign_keys_are_told(
    run_app: Run, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = raw.parent / "filter.json"
    path.write_text(json.dumps({"flair": {}, "t1w": {"session": "1"}}))
    assert run_app(raw, raw.parent / "out", "participant", DRY, "--bids-filter-file", path) == 0
    said = capsys.readouterr()
    assert "2 FLAIR scans" in said.out
    assert "t1w are for other programs and are not used" in said.err
    assert read_filters(path)[0] == {}


@pytest.mark.parametrize("seed", ["0", str(2**31 - 1)])
def test_seeds_that_fit(seed: str) -> None:
    assert parse(["raw", "out", "participant", "--random-seed", seed]).random_seed == int(seed)
    with pytest.raises(UsageError, match="not within"):
        parse(["raw", "out", "participant", "--random-seed", str(2**31)])


def test_the_command_itself_ends_with_the_code_it_says(raw: Path) -> None:
    """As a process: the code that the shell sees, the last line, and no traceback."""
    out = str(raw.parent / "out")
    for words, code in (
        ([str(raw), out, "session"], 64),
        ([str(raw), out, "participant", "--participant-label", "nobody"], 18),
        ([str(raw.parent / "absent"), out, "participant"], 66),
        ([str(raw), out, "participant", DRY], 0),
    ):
        command = [sys.executable, "-m", "bids_app", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"LC_ALL": "C"})
        assert done.returncode == code
        assert done.stderr.strip().splitlines()[-1].startswith(f"exit code {code}")
        assert "Traceback" not in done.stderr
    assert not (raw.parent / "out").exists()


def test_a_database_of_another_kind_is_told_by_name(raw: Path) -> None:
    from bids_app.bids.query import find_scans

    folder = raw.parent / "database"
    formats.write_text(folder / "layout_index.sqlite", "SQLite format 3\0" + "x" * 5000)
    with pytest.raises(BadInputError, match=f"{folder}: not a pybids database"):
        find_scans(raw, database=folder)
