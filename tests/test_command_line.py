"""What the user types and what comes back: exit codes, and a last line that says the code and why."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bids_app import __version__
from bids_app.errors import BadInputError, CannotCreateError, MissingInputError, UsageError, WriteFailedError
from bids_app.files import formats
from bids_app.options import Options
from bids_app.parser import parse, parser

Run = Callable[..., int]
FLAIR = "sub-01/anat/sub-01_FLAIR.nii.gz"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """One participant whose only scan is all zero: refused at once, so a whole run takes no time."""
    root = tmp_path / "raw"
    about = {"Name": "zeros", "BIDSVersion": "1.10.0", "DatasetType": "raw", "License": "CC0", "Authors": ["A B"]}
    formats.write_json(root / "dataset_description.json", about)
    formats.write_text(root / "README", "All zero.\n")
    formats.write_nifti(root / FLAIR, np.zeros((64, 64, 20), np.int16), np.diag([3.0, 3.0, 7.0, 1.0]))
    return root


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def log_of(output: Path) -> str:
    (path,) = output.glob("logs/*/log.txt")
    return path.read_text(encoding="utf-8")


def snapshot(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


# -- usage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["{raw}", "{out}", "participant", "\u2013\u2013participant-label", "01"], "typographic dash"),
        (["{raw}", "{out}", "participant", "--participant-label", "sub\u201301"], "typographic dash"),
        (["{raw}", "{out}", "participant", "--participant-label", "0 1"], "letters and digits only"),
        (["{raw}", "{out}", "session"], "invalid choice"),
        (["{raw}", "{out}"], "analysis_level"),
        (["{raw}", "{out}", "participant", "--unknown"], "--unknown"),
        (["{raw}", "{out}", "participant", "--participant", "01"], "--participant"),  # no guessing
        (["{raw}", "{out}", "participant", "--nprocs", "0"], "at least 1"),
        (["{raw}", "{out}", "participant", "--lesion-threshold", "nan"], "0.32"),
        (["{raw}", "{out}", "group", "--test-percent", "100"], "between 5 and 90"),
        (["{raw}", "{out}", "group", "--cv-folds", "1"], "2 folds"),
        (["{raw}", "{raw}", "participant"], "inside the input"),
        (["{raw}", "{raw}/derivatives/app", "participant"], "inside the input"),
        (["{raw}", "{raw}/../raw/out", "participant"], "inside the input"),
        (["{raw}", "{out}", "participant", "-w", "{raw}/work"], "--work-dir"),
    ],
)
def test_usage_errors_are_64(
    run_app: Run, raw: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    before = snapshot(raw.parent)
    assert run_app(*(word.format(raw=raw, out=raw.parent / "out") for word in words)) == 64
    said = capsys.readouterr().err
    assert says in said
    assert last_line(said) == "exit code 64: usage"
    assert snapshot(raw.parent) == before


def test_output_through_a_link_into_the_input_is_refused(run_app: Run, raw: Path) -> None:
    (raw.parent / "link").symlink_to(raw)
    assert run_app(raw, raw.parent / "link" / "out", "participant") == 64


def test_missing_input_is_66(run_app: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(tmp_path / "absent", tmp_path / "out", "participant") == 66
    said = last_line(capsys.readouterr().err)
    assert said.startswith("exit code 66:")
    assert "absent" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words", [["--participant-label", "99"], ["--session-label", "7"], ["--bids-filter-file", "{filter}"]]
)
def test_nothing_selected_is_18(run_app: Run, raw: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    filters = raw.parent / "filter.json"
    filters.write_text(json.dumps({"flair": {"acquisition": "nowhere"}}))
    code = run_app(raw, raw.parent / "out", "participant", *(word.format(filter=filters) for word in words))
    assert code == 18
    assert last_line(capsys.readouterr().err).startswith("exit code 18:")


def test_filter_file_without_flair_is_65(run_app: Run, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filters = raw.parent / "filter.json"
    filters.write_text(json.dumps({"t1w": {"acquisition": "x"}}))
    assert run_app(raw, raw.parent / "out", "participant", "--bids-filter-file", filters) == 65
    assert "flair" in last_line(capsys.readouterr().err)


def test_an_invalid_data_set_is_16(run_app: Run, raw: Path) -> None:
    formats.write_json(raw / "dataset_description.json", {"BIDSVersion": "1.10.0"})
    assert run_app(raw, raw.parent / "out", "participant") == 16
    assert "exit code 16:" in last_line(log_of(raw.parent / "out"))
    assert not list((raw.parent / "out").glob("sub-*"))
    assert run_app(raw, raw.parent / "skipped", "participant", "--skip-bids-validation") == 1  # the scan's own fault


@pytest.mark.parametrize(
    ("error", "code"),
    [(UsageError, 64), (BadInputError, 65), (MissingInputError, 66), (CannotCreateError, 73), (WriteFailedError, 74)],
)
def test_codes_are_those_of_sysexits(error: type, code: int) -> None:
    assert error("x").exit_code == code


def test_an_output_that_cannot_be_made_is_73(run_app: Run, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (raw.parent / "file").touch()
    assert run_app(raw, raw.parent / "file" / "out", "participant") == 73
    assert last_line(capsys.readouterr().err).startswith("exit code 73:")


# -- running -------------------------------------------------------------------------------------


def test_dry_run_writes_nothing(run_app: Run, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(raw.parent)
    assert run_app(raw, raw.parent / "out", "participant", "--dry-run") == 0
    assert snapshot(raw.parent) == before
    said = capsys.readouterr()
    assert FLAIR in said.out
    assert last_line(said.err) == "exit code 0: dry run: 1 scans would be processed"


def test_the_last_line_and_the_log_agree(run_app: Run, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(raw)
    assert run_app(raw, raw.parent / "out", "participant") == 1
    said, logged = last_line(capsys.readouterr().err), last_line(log_of(raw.parent / "out"))
    assert said == logged
    assert re.fullmatch(r"[\d:]+ ERROR exit code 1: 0 scans done, 0 unchanged, 1 failed", said)
    assert snapshot(raw) == before
    assert not (raw.parent / "out" / ".work").exists()


def test_a_participant_asked_for_who_is_not_there_fails_the_run(run_app: Run, raw: Path) -> None:
    output = raw.parent / "out"
    assert run_app(raw, output, "participant", "--participant-label", "01", "sub-99") == 1
    assert re.search(r"ERROR sub-99: no FLAIR.*asked for by name", log_of(output))


def test_a_work_directory_given_is_kept_and_left_empty(run_app: Run, raw: Path) -> None:
    work = raw.parent / "work"
    work.mkdir()
    (work / "mine").touch()
    run_app(raw, raw.parent / "out", "participant", "--work_dir", work)
    assert (work / "mine").exists()


def test_version_in_a_process_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-m", "bids_app", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, f"bids_app {__version__}")


# -- spelling ------------------------------------------------------------------------------------


def read(*words: str) -> Options:
    return parse(["raw", "out", "participant", *words])


@pytest.mark.parametrize(
    "words",
    [
        ["--participant-label", "01", "02"],
        ["--participant_label", "sub-01", "sub-02"],
        ["--participant-label", "01", "sub-02"],
    ],
)
def test_labels_with_and_without_prefix(words: list[str]) -> None:
    assert read(*words) == read("--participant-label", "01", "02")
    assert read(*words).participant_label == ("01", "02")


@pytest.mark.parametrize("flag", ["--session-label", "--session_label", "--session-id"])
@pytest.mark.parametrize("label", ["1", "ses-1"])
def test_sessions_have_three_spellings(flag: str, label: str) -> None:
    assert read(flag, label).session_label == ("1",)


@pytest.mark.parametrize(
    ("dashed", "underscored"),
    [
        (["--n-cpus", "3"], ["--nprocs", "3"]),
        (["--skip-bids-validation"], ["--skip_bids_validation"]),
        (["--lesion-threshold", "0.3"], ["--lesion_threshold", "0.3"]),
        (["--omp-nthreads", "2"], ["--omp_nthreads", "2"]),
        (["-w", "here"], ["--work-dir", "here"]),
        (["--notrack"], ["--notrack"]),
    ],
)
def test_dashes_and_underscores_are_one(dashed: list[str], underscored: list[str]) -> None:
    assert read(*dashed) == read(*underscored) != read()


def test_the_default_of_an_option_is_told_once_at_most() -> None:
    told = {action.dest: (action.help or "").count("(default: ") for action in parser()._actions}
    assert max(told.values()) == 1, told
    assert told["test_percent"] == told["work_dir"] == 1  # made from the value; in words


def test_what_cannot_be_done_is_refused_before_any_recipe(tmp_path: Path) -> None:
    """The parser alone refuses it: whoever calls it, as the tests of the pages do, meets what a user meets."""
    for words, what in (
        ([tmp_path, tmp_path / "out", "participant"], "output_dir .* lies inside the input"),
        (
            [tmp_path / "raw", tmp_path / "out", "participant", "-w", tmp_path / "raw" / "w"],
            "--work-dir .* lies inside",
        ),
        (["raw", "out", "group", "--permutations", "9", "--nested-folds", "0"], "repeats the nested cross-validation"),
    ):
        with pytest.raises(UsageError, match=what):
            parse(list(map(str, words)))
