"""Tables and models as people, spreadsheets and enemies write them: kept as data or refused by name."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import netguard
import numpy as np
import pandas as pd
import pytest
from chromium import Visit, state
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bids_app.bids.names import Scan
from bids_app.cohort import covariates, labels, lesion_maps, ratings
from bids_app.drawing import group_figures
from bids_app.errors import BadInputError, BidsAppError
from bids_app.files import formats
from bids_app.phantom.cohort import draw_cohort
from bids_app.phantom.dataset import write_cohort
from bids_app.records.cohort import Cohort, Labelled
from bids_app.report import assets

Run = Callable[..., int]
long = pytest.mark.skipif(not os.environ.get("LONG_TESTS"), reason="takes long: set LONG_TESTS=1")
LEVELS = ("RRMS", "NMOSD")
NAMES = ("sub-01_ses-1", "sub-02_ses-1")
HEAD = "participant_id\tgroup\tage\n"
ROWS = "sub-01\tRRMS\t30\nsub-02\tNMOSD\t41.5\n"
FORMULA = '=cmd("calc")'
SCRIPT = "<script>alert(1)</script>"


def labelled(root: Path) -> Labelled:
    scans = [Scan((("sub", name[4:6]), ("ses", "1")), "") for name in NAMES]
    return labels.label(scans, labels.Tables(root, root / "derivatives", None, LEVELS))


# -- participants.tsv: what is read all the same -------------------------------------------------

AS_USUAL = {
    "plain": (HEAD + ROWS).encode(),
    "byte order mark": b"\xef\xbb\xbf" + (HEAD + ROWS).encode(),
    "Windows": (HEAD + ROWS).replace("\n", "\r\n").encode(),
    "old Macintosh": (HEAD + ROWS).replace("\n", "\r").encode(),
    "no last line end": (HEAD + ROWS).strip().encode(),
    "empty lines": (HEAD + "\n\n" + ROWS + "\n \n").encode(),
    "blanks around cells": HEAD.encode() + b" sub-01 \tRRMS \t 30\n02\t NMOSD\t41.5 \n",
    "numbers as text": HEAD.encode() + b"sub-01\tRRMS\t3.0e1\nsub-02\tNMOSD\t+41.50\n",
    "a row twice": (HEAD + ROWS + ROWS).encode(),
}


@pytest.mark.parametrize("name", AS_USUAL)
def test_tables_as_programs_write_them_are_the_same_table(tmp_path: Path, name: str) -> None:
    (tmp_path / "participants.tsv").write_bytes(AS_USUAL[name])
    found = labelled(tmp_path)
    assert found.positive.tolist() == [True, False]
    assert found.table["age"].tolist() == [30.0, 41.5]
    assert bool(found.warnings) == (name == "a row twice")


@pytest.mark.parametrize("missing", ["n/a", "", "NaN", "NA", "N/A", "nan"])
def test_what_is_missing_is_missing(tmp_path: Path, missing: str) -> None:
    formats.write_text(tmp_path / "participants.tsv", HEAD + ROWS.replace("41.5", missing))
    assert np.array_equal(labelled(tmp_path).table["age"], [30.0, np.nan], equal_nan=True)


def test_one_word_among_numbers_keeps_the_column_as_text(tmp_path: Path) -> None:
    for word in ("41,5", "inf", "80+", FORMULA):
        formats.write_text(tmp_path / "participants.tsv", HEAD + ROWS.replace("41.5", word))
        assert labelled(tmp_path).table["age"].tolist() == ["30", word]


# -- refused by name -----------------------------------------------------------------------------

REFUSED: dict[str, tuple[bytes, str]] = {
    "missing column": (b"participant_id\tage\nsub-01\t3\nsub-02\t4\n", "no column 'diagnosis' or 'group'"),
    "no participant_id": (b"subject\tgroup\nsub-01\tRRMS\n", "participant_id is missing"),
    "duplicated id": ((HEAD + ROWS + "sub-01\tNMOSD\t30\n").encode(), "sub-01 has rows that contradict"),
    "column twice": (b"participant_id\tgroup\tgroup\nsub-01\tRRMS\tNMOSD\n", "column 'group' comes twice"),
    "a cell too many": (HEAD.encode() + b"sub-01\tRRMS\t3\tx\nsub-02\tNMOSD\t4\ty\n", "line 2 has 4 cells"),
    "a tab at each end": ((HEAD + ROWS.replace("\n", "\t\n")).encode(), "line 2 has 4 cells"),
    "a cell too few": ((HEAD + ROWS + "sub-03\tRR").encode(), "line 4 has 2 cells, the first line 3"),
    "commas": ((HEAD + ROWS).replace("\t", ",").encode(), "participant_id is missing"),
    "UTF-16": ((HEAD + ROWS).encode("utf-16"), "save it as UTF-8"),
    "UTF-16 unmarked": ((HEAD + ROWS).encode("utf-16-le"), "NUL bytes"),
    "Latin-1": ((HEAD + ROWS + "sub-03\tRRMS\t\xe9\n").encode("latin-1"), "save it as UTF-8"),
    "NUL": ((HEAD + ROWS).replace("NMOSD", "NM\0OSD").encode(), "NUL bytes"),
    "surrogate": (HEAD.encode() + b"sub-01\t\xed\xa0\x80\t1\n", "save it as UTF-8"),
    "empty": (b"", "no line|No columns"),
    "header only": (HEAD.encode(), "no column 'diagnosis' or 'group'; there are: none"),
    "a spreadsheet": (b"PK\x03\x04\x14\0\x06\0" + bytes(200), "not a readable TSV"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_table_is_refused_by_name(tmp_path: Path, name: str) -> None:
    content, says = REFUSED[name]
    (tmp_path / "participants.tsv").write_bytes(content)
    with pytest.raises(BadInputError, match=says) as caught:
        labelled(tmp_path)
    assert "participants.tsv" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "sessions.tsv": ("session_id\tage", lambda path: covariates.read_rows(path, participant="sub-01")),
    "rater_decisions.tsv": ("participant_id\tann", lambda path: ratings.read_decisions(path, NAMES, LEVELS)),
    "rating_sheet.tsv": ("code\tdecision", lambda path: ratings.read_sheets([path], path, LEVELS)),
    "quality.tsv": ("participant_id\texclude", lambda path: covariates.read_rows(path)),
    "division.tsv": ("scan\tpublished\tleakage-free", lambda path: labels.read_division(path, NAMES)),
}
BROKEN = {
    "UTF-16": lambda text: text.encode("utf-16"),
    "Latin-1": lambda text: text.encode() + b"\xe9\n",
    "NUL": lambda text: text.encode() + b"\0\0\n",
    "column twice": lambda text: text.replace("\n", "\tx\tx\n", 1).encode(),
    "a cell too many": lambda text: (text + "\t".join(["1"] * (text.count("\t") + 2)) + "\n").encode(),
    "missing column": lambda text: text.replace("_id", "").replace("code", "x").replace("scan", "x").encode(),
    "empty": lambda text: b"",
}


@pytest.mark.parametrize("harm", BROKEN)
@pytest.mark.parametrize("name", READERS)
def test_every_other_table_is_refused_by_name_too(tmp_path: Path, name: str, harm: str) -> None:
    head, read = READERS[name]
    (tmp_path / name).write_bytes(BROKEN[harm](head + "\n"))
    with pytest.raises(BadInputError, match=re.escape(name)):
        read(tmp_path / name)


@pytest.mark.parametrize("name", READERS)
def test_a_folder_or_an_endless_name_in_place_of_a_table(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    for path in (tmp_path / name, tmp_path / ("x" * 5000)):
        with pytest.raises(BidsAppError, match=r"not a readable TSV|no such file"):
            READERS[name][1](path)


# -- large, and kept as data ---------------------------------------------------------------------


@pytest.mark.parametrize("count", [100_000, pytest.param(1_000_000, marks=long)])
def test_a_million_rows_end_soon_and_within_memory(tmp_path: Path, count: int) -> None:
    rows = (f"sub-x{n}\t{LEVELS[n % 2]}\t{n % 80}\n" for n in range(count))
    formats.write_text(tmp_path / "participants.tsv", HEAD + ROWS + "".join(rows))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    found = labelled(tmp_path)
    assert found.positive.tolist() == [True, False]
    assert len(found.left_out) == count
    assert time.process_time() - began < 60 * count / 1e6
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 3 * count  # kB: 3 GB for a million


def test_a_line_of_ten_million_characters_is_a_long_word(tmp_path: Path) -> None:
    formats.write_text(tmp_path / "participants.tsv", HEAD + ROWS.replace("41.5", "9" * 10_000_000 + "x"))
    assert len(labelled(tmp_path).table["age"].iloc[1]) == 10_000_001
    formats.write_text(tmp_path / "participants.tsv", "x" * 10_000_000 + "\n1\n")
    with pytest.raises(BadInputError) as caught:
        labelled(tmp_path)
    assert len(str(caught.value)) < 1000


CELLS = st.text(st.characters(exclude_characters="\t\r\n\0", exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(CELLS, CELLS), max_size=6))
def test_cells_come_back_as_they_were_written(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    """Formulas, quotes, markup and all; what is empty or n/a comes back as missing."""
    table = pd.DataFrame([("x", *row) for row in rows], columns=["key", '=a"', "<b>"], dtype=object)
    formats.write_tsv(tmp_path / "t.tsv", table)
    back = formats.read_tsv(tmp_path / "t.tsv")
    expected = table.where(~table.isin(["", "n/a"]), None)
    assert list(back.columns) == list(table.columns)
    assert back.astype(object).where(back.notna(), None).to_numpy().tolist() == expected.to_numpy().tolist()


def test_tabs_and_line_ends_in_a_cell_become_blanks(tmp_path: Path) -> None:
    formats.write_tsv(tmp_path / "t.tsv", pd.DataFrame({"a\tb": ["1\n2", "3\r4\t5"]}))
    assert (tmp_path / "t.tsv").read_text() == "a b\n1 2\n3 4 5\n"


def test_paths_in_tables_open_nothing(tmp_path: Path) -> None:
    """Identifiers are compared, never joined to a path."""
    outside = tmp_path / "outside" / "anat" / "sub-x_FLAIR.nii.gz"
    formats.write_text(outside, "x")
    root = tmp_path / "raw"
    tricks = ("../outside", "sub-../outside", "/etc", "sub-01/../..", "..\\..", "sub-01\x1b[2J")
    rows = "".join(f"{trick}\tRRMS\t1\n" for trick in tricks)
    formats.write_text(root / "participants.tsv", HEAD + ROWS + rows)
    found = labelled(root)
    assert [each.name for each in found.scans] == list(NAMES)
    assert {name for name, _ in found.left_out} == {f"sub-{trick.removeprefix('sub-')}" for trick in tricks}


def test_a_rating_sheet_holds_no_formula(tmp_path: Path) -> None:
    """It is made to be opened in a spreadsheet, and its covariates are not read back."""
    scans = [f"sub-{n:02d}" for n in range(5)]
    table = pd.DataFrame({"sex": [FORMULA, "+1+1", "@x", " =1", "F"], "age": [-1.0, 2.5, 3, 4, 5]}, index=scans)
    sheet, _ = ratings.write_sheet(scans, table, range(5), tmp_path, 0)
    read = formats.read_tsv(sheet)
    assert not [cell for cell in read["sex"] if cell.strip()[0] in "=+-@"]
    assert f"'{FORMULA}" in set(read["sex"])
    assert set(read["sex"]) >= {"F"}
    assert "-1" in set(read["age"])  # a number is no formula


# -- the whole group level on a hostile data set -------------------------------------------------


class Hostile:
    """A data set whose every text is hostile, and what the group level made of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bids, self.out = folder, folder / "bids", folder / "out"
        self.code, self.before, self.after = -1, set[str](), set[str]()
        self.reached: list[str] = []

    def files(self) -> set[str]:
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix() for path in found}

    @property
    def page(self) -> str:
        return (self.out / "group.html").read_text("utf-8")

    @property
    def metrics(self) -> dict[str, Any]:
        return json.loads((self.out / "group" / "metrics.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return draw_cohort(n_participants=(8, 8), n_scans=(16, 14), seed=2)


@pytest.fixture(scope="module")
def hostile(cohort: Cohort, run_app: Run, tmp_path_factory: pytest.TempPathFactory) -> Hostile:
    made = Hostile(tmp_path_factory.mktemp("hostile"))
    write_cohort(cohort, made.bids, made.out)
    people = formats.read_tsv(made.bids / "participants.tsv")
    people["remark" + SCRIPT] = [SCRIPT, FORMULA, "../../x"] * 5 + ["{{ 7 * 6 }}"]
    alone = people.iloc[[0]].assign(participant_id=f"sub-99{SCRIPT}")
    text = pd.concat([people, alone]).to_csv(sep="\t", index=False, na_rep="n/a", lineterminator="\r\n")
    (made.bids / "participants.tsv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    raters = made.bids / "phenotype" / "rater_decisions.tsv"
    formats.write_tsv(raters, formats.read_tsv(raters).rename(columns=lambda name: name.replace("rater", f"r{SCRIPT}")))
    for name, flags in ((cohort.names[0], ["coverage"]), (cohort.names[1], [SCRIPT, 7]), (cohort.names[2], {"a": 1})):
        path = sidecar(made.out, name)
        formats.write_json(path, formats.read_json(path) | {"Flags": flags})
    with pytest.MonkeyPatch.context() as patch, netguard.watch() as made.reached:
        patch.setattr(
            group_figures, "draw", lambda result, facts: {}
        )  # pictures take longest, and hold no text of these
        made.before = made.files()
        words = (
            "--lesion-threshold",
            "0.32",
            "--solver",
            "libsvm",
            "--cv-folds",
            "3",
            "--refine-limit",
            "0",
            "--bootstrap-draws",
            "50",
        )
        made.code = run_app(made.bids, made.out, "group", *words, "--nested-folds", "0")
    made.after = made.files()
    return made


def sidecar(out: Path, name: str) -> Path:
    return out / Scan.named(name).output("lesion_mni").replace(".nii.gz", ".json")


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)

    def handle_data(self, data: str) -> None:
        if self.names and self.names[-1] == "script":
            self.scripts.append(data)


def test_hostile_texts_are_shown_not_run(hostile: Hostile) -> None:
    assert hostile.code == 0
    own = assets.text("viewer.js")
    scripts = Tags(hostile.page).scripts
    assert any(own[:200] in script for script in scripts)  # the page's own are there, and no other
    assert not any("alert(1)" in script for script in scripts)
    assert hostile.page.count("&lt;script&gt;alert(1)") > 5
    card = (hostile.out / "group" / "model_card.md").read_text("utf-8")
    assert SCRIPT not in card
    assert "42" not in str(hostile.metrics["left_out"])


@pytest.mark.parametrize("name", ["group.html", "group/checklist.html"])
def test_hostile_texts_do_nothing_in_a_browser(hostile: Hostile, visit: Callable[..., Visit], name: str) -> None:
    seen = visit()
    page = seen.open(hostile.out / name)
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    if name == "group.html":
        page.wait_for_selector(".viewer[data-at]")
        state(page)
        assert SCRIPT in page.inner_text("body")  # read as a word
    own = {"application/json", ""}  # data for the viewer, and the page's own script
    assert {script.get_attribute("type") or "" for script in page.locator("script").all()} <= own
    assert seen.stayed_at_home(hostile.out / name)  # no dialog, no word in the console, no request


def test_hostile_texts_make_no_file_outside_the_output(hostile: Hostile) -> None:
    assert {path for path in hostile.after - hostile.before if not path.startswith("out/")} == set()
    assert not [path for path in hostile.after if "<" in path or ".." in path]


def test_the_group_level_reaches_nothing_beyond_this_machine(hostile: Hostile) -> None:
    assert hostile.reached == []


def test_flagged_scans_are_listed_at_the_group_level(hostile: Hostile, cohort: Cohort) -> None:
    listed = {each["name"]: each["flags"] for each in hostile.metrics["flagged"]}
    assert listed == {
        cohort.names[0]: "coverage",
        cohort.names[1]: f"{SCRIPT}, 7",
        cohort.names[2]: "{'a': 1}",
    }
    assert any(
        line.startswith(f"3 of the {len(cohort.scans)} scans are flagged") for line in hostile.metrics["warnings"]
    )
    after = hostile.page.partition("Flagged by the quality checks")[2].partition("<h3>Left out")[0]
    assert all(name in after for name in listed)
    log = next(hostile.out.glob("logs/*/log.txt")).read_text("utf-8")
    assert f"flagged: {cohort.names[0]} (coverage)" in log


@long
def test_flags_of_the_participant_level_reach_json_table_report_and_group(tiny: tuple[Path, Path], done: Path,
                                                                         tmp_path: Path) -> None:  # fmt: skip
    from bids_app.bids.query import find_scans

    scans = find_scans(tiny[0])[0]
    table = formats.read_tsv(done / "participants_lesions.tsv").set_index("scan")
    for scan in scans:
        about = formats.read_json(done / scan.output("preproc").replace(".nii.gz", ".json"))
        odd = [name for name, check in about["Quality"].items() if not check["Normal"]]
        assert formats.read_json(done / scan.output("lesion_mni").replace(".nii.gz", ".json"))["Flags"] == odd
        assert (table["flags"].fillna("")[scan.name] or "") == ",".join(odd)
        assert about["Quality"]["left_right_known"]["Value"] == 1
        page = (done / f"{scan.participant}.html").read_text("utf-8")
        assert all(name in page for name in about["Quality"])
    assert lesion_maps.flags(scans, done, "published") == ()
    shutil.copytree(done / scans[0].participant, tmp_path / scans[0].participant)
    path = tmp_path / scans[0].output("cleaned_mni").replace(".nii.gz", ".json")
    formats.write_json(path, formats.read_json(path) | {"Flags": ["coverage", "left_right_known"]})
    assert lesion_maps.flags(scans, tmp_path, "cleaned") == ((scans[0].name, "coverage, left_right_known"),)
