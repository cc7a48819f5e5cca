"""Rating sheets are blind, and come back as what the raters wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bids_app.cohort import ratings
from bids_app.errors import BadInputError, MissingInputError
from bids_app.files import formats

LEVELS = ("RRMS", "NMOSD")


def tsv(path: Path, text: str) -> Path:
    """Write a table whose cells are separated by blanks."""
    formats.write_text(path, "\n".join("\t".join(line.split()) for line in text.strip().splitlines()) + "\n")
    return path


def cohort(n: int) -> tuple[list[str], pd.DataFrame]:
    scans = [f"sub-{i // 2:03d}_ses-{i % 2}" for i in range(n)]
    rng = np.random.default_rng(0)
    columns = {"Age": rng.integers(20, 60, n), "sex": rng.choice(["F", "M"], n), "site": "x", "aqp4": "positive"}
    return scans, pd.DataFrame({**columns, "time_since_first_episode": rng.random(n)}, index=scans)


def test_decisions_by_rater_and_read(tmp_path: Path) -> None:
    path = tsv(
        tmp_path / "rater_decisions.tsv",
        """participant_id session_id ann ann_repeat Bo
        01 ses-1 RRMS nmosd NMOSD
        sub-01 2 n/a n/a rrms
        sub-09 ses-1 RRMS RRMS RRMS""",
    )
    raters, repeats = ratings.read_decisions(path, ["sub-01_ses-2", "sub-01_ses-1", "sub-02"], LEVELS)
    assert list(raters) == ["ann", "Bo"] and list(repeats) == ["ann"]
    np.testing.assert_array_equal(raters["ann"], [np.nan, 1, np.nan])
    np.testing.assert_array_equal(raters["Bo"], [1, 0, np.nan])
    np.testing.assert_array_equal(repeats["ann"], [np.nan, 0, np.nan])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("participant_id session_id ann\nsub-01 ses-1 MS", r"'MS' in line 2 \(column 'ann'\)"),
        ("participant_id session_id ann\nsub-07 ses-1 RRMS\nsub-08 ses-1 MS", r"'MS' in line 3"),
        ("participant_id ann\nsub-01 RRMS", r"line 2 fits several scans \(sub-01_ses-1, sub-01_ses-2\)"),
        ("participant_id ann\nsub-02 RRMS\n02 RRMS", r"line 3: sub-02_run-1 has a row already"),
        ("participant_id session_id\nsub-02 n/a", "no column of a rater"),
        ("subject ann\nsub-02 RRMS", "participant_id is missing"),
    ],
)
def test_wrong_decisions_are_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInputError, match=rf"decisions\.tsv.*{message}"):
        ratings.read_decisions(tsv(tmp_path / "decisions.tsv", text), ["sub-01_ses-1", "sub-01_ses-2", "sub-02_run-1"],
                               LEVELS)  # fmt: skip


@pytest.mark.parametrize(("n", "twice"), [(1, 1), (4, 1), (14, 1), (15, 2), (35, 4), (316, 32)])
def test_a_sheet_is_blind_and_a_tenth_is_read_twice(tmp_path: Path, n: int, twice: int) -> None:
    scans, table = cohort(n + 4)
    rows = np.random.default_rng(1).permutation(n + 4)[:n]
    sheet_path, key_path = ratings.write_sheet(scans, table, rows, tmp_path, seed=3)
    sheet, key = formats.read_tsv(sheet_path), formats.read_tsv(key_path)
    assert list(sheet) == ["reading", "code", "age", "sex", "time_since_first", "decision"]
    text = sheet_path.read_text()
    assert not any(word in text for word in ("sub-", "ses-", "positive", "RRMS", "NMOSD"))
    assert key_path.parent != sheet_path.parent
    assert sheet["code"].is_unique and sheet["code"].tolist() == key["code"].tolist()
    assert key["read"].value_counts().to_dict() == {"first": n, "repeat": twice}
    assert sorted(key.loc[key["read"] == "first", "scan"]) == sorted(scans[row] for row in rows)
    repeated = key[key["read"] == "repeat"]["scan"]
    assert repeated.is_unique
    for name in repeated:
        assert key.loc[key["scan"] == name, "read"].tolist() == ["first", "repeat"]
    np.testing.assert_allclose(sheet["age"].astype(float), table.loc[key["scan"], "Age"])
    assert sheet["decision"].isna().all()


def test_order_and_codes_depend_on_the_seed_alone(tmp_path: Path) -> None:
    scans, table = cohort(40)
    texts = []
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        paths = ratings.write_sheet(scans, table, range(40), tmp_path / folder, seed)
        texts.append([path.read_bytes() for path in paths])
    assert texts[0] == texts[1] != texts[2]
    assert formats.read_tsv(tmp_path / "c/key/rating_key.tsv")["scan"].drop_duplicates().tolist() != scans


@pytest.mark.parametrize("form", ["plain", "sessions", "runs", "acquisitions"])
def test_what_raters_write_comes_back_through_the_decisions_file(tmp_path: Path, form: str) -> None:
    extra = {"plain": "", "sessions": "_ses-{}", "runs": "_ses-1_run-{}", "acquisitions": "_acq-{}"}[form]
    scans = [f"sub-{i:02d}" + extra.format(k) for i in range(12) for k in ((1, 2) if extra else (0,))]
    rng = np.random.default_rng(5)
    sheet_path, key_path = ratings.write_sheet(scans, pd.DataFrame(index=scans), range(len(scans)), tmp_path, 0)
    sheet, key = formats.read_tsv(sheet_path), formats.read_tsv(key_path)
    truth: dict[str, dict[tuple[str, str], str]] = {}
    for rater in ("ann", "bo"):
        words = rng.choice(["RRMS", "nmosd", ""], len(sheet))
        sheet[f"decision_{rater}"] = words
        reads = zip(key["scan"], key["read"], strict=True)
        truth[rater] = {each: word for each, word in zip(reads, words, strict=True)}
    filled = tmp_path / "filled.tsv"
    formats.write_tsv(filled, sheet.drop(columns="decision").sample(frac=1, random_state=1))
    formats.write_tsv(tmp_path / "decisions.tsv", ratings.read_sheets([filled], key_path, LEVELS))
    raters, repeats = ratings.read_decisions(tmp_path / "decisions.tsv", scans, LEVELS)
    value = {"RRMS": 1.0, "nmosd": 0.0, "": np.nan}
    for rater, reads in truth.items():
        for read, found in (("first", raters[rater]), ("repeat", repeats[rater])):
            np.testing.assert_array_equal(found, [value[reads.get((name, read), "")] for name in scans])


def test_one_rater_needs_no_name_and_wrong_sheets_are_refused(tmp_path: Path) -> None:
    scans, table = cohort(20)
    sheet_path, key_path = ratings.write_sheet(scans, table, range(20), tmp_path, 0)
    sheet = formats.read_tsv(sheet_path).assign(decision="RRMS")
    filled = tmp_path / "filled.tsv"

    def read(changed: pd.DataFrame) -> pd.DataFrame:
        formats.write_tsv(filled, changed)
        return ratings.read_sheets([filled], key_path, LEVELS)

    result = read(sheet)
    assert list(result) == ["participant_id", "session_id", "rater", "rater_repeat"]
    assert (result["rater"] == "RRMS").all() and result["rater_repeat"].notna().sum() == 2
    for changed, message in (
        (sheet.iloc[1:], f"codes {sheet['code'][0]} are missing"),
        (sheet.assign(code=["Rx", *sheet["code"][1:]]), "codes Rx are not in the key"),
        (pd.concat([sheet, sheet.iloc[:1]]), f"codes {sheet['code'][0]} come twice"),
        (sheet.assign(decision=["maybe", *sheet["decision"][1:]]), r"'maybe' in line 2 \(column 'decision'\)"),
        (sheet.drop(columns="decision"), "no column decision"),
    ):
        with pytest.raises(BadInputError, match=message):
            read(changed)
    with pytest.raises(MissingInputError, match="rating_key"):
        ratings.read_sheets([filled], tmp_path / "rating_key.tsv", LEVELS)
    with pytest.raises(BadInputError, match="no scans to read"):
        ratings.write_sheet(scans, table, [], tmp_path, 0)


def test_sheets_of_one_rater_fill_each_other_and_may_not_disagree(tmp_path: Path) -> None:
    scans, table = cohort(20)
    sheet_path, key_path = ratings.write_sheet(scans, table, range(20), tmp_path, 0)
    sheet = formats.read_tsv(sheet_path).drop(columns="decision")
    half = np.arange(len(sheet)) < 11
    paths = []
    for name, columns in (
        ("one", {"decision_ann": np.where(half, "RRMS", None), "seconds_ann": "2.5", "sureness_ann": "4"}),
        ("two", {"decision_ann": np.where(half, None, "NMOSD"), "seconds_ann": "1.5", "sureness_ann": "2"}),
        ("bo", {"decision_bo": "NMOSD"}),
    ):
        paths.append(tmp_path / f"{name}.tsv")
        formats.write_tsv(paths[-1], sheet.assign(**columns))
    found = ratings.read_sheets(paths, key_path, LEVELS)
    key = formats.read_tsv(key_path)
    expected = dict(zip(key["scan"] + key["read"], np.where(half, "RRMS", "NMOSD"), strict=True))
    names = found["participant_id"] + "_" + found["session_id"]
    assert found["ann"].tolist() == [expected[f"{name}first"] for name in names]
    assert found["ann_repeat"].tolist() == [expected.get(f"{name}repeat") for name in names]
    assert (found["bo"] == "NMOSD").all()
    details = ratings.read_details(paths, key_path)
    assert len(details) == len(sheet) and set(details["rater"]) == {"ann"}
    assert (details["seconds"] == np.where(details["decision"] == "RRMS", "2.5", "1.5")).all()
    formats.write_tsv(paths[2], sheet.assign(decision_ann="NMOSD"))
    with pytest.raises(BadInputError, match=f"rater ann decided otherwise on {sheet['code'][0]}"):
        ratings.read_sheets(paths, key_path, LEVELS)
