"""Which scans enter the cohort, from tables as people write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bids_app.bids.names import Scan
from bids_app.cohort import labels
from bids_app.errors import BadInputError, MissingInputError
from bids_app.files import formats
from bids_app.learning import division as cohort
from bids_app.records.cohort import Division, Labelled


def scan(name: str) -> Scan:
    return Scan(tuple(tuple(part.split("-")) for part in name.split("_")), "")  # type: ignore[misc]


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        formats.write_text(root / path, "")


def tsv(path: Path, text: str) -> None:
    """Write a table whose cells are separated by blanks."""
    formats.write_text(path, "\n".join("\t".join(line.split()) for line in text.strip().splitlines()) + "\n")


def labelled(root: Path, names: str, *, group_column: str | None = None, exclude: tuple[str, ...] = ()) -> Labelled:
    return labels.label(
        [scan(name) for name in names.split()],
        labels.Tables(root, root / "derivatives", group_column, ("RRMS", "NMOSD")),
        exclude=exclude,
    )


def test_finds_every_map_and_nothing_else(tmp_path: Path) -> None:
    made = [scan(name) for name in ("sub-01", "sub-02_ses-1", "sub-02_ses-2_acq-ax_run-2", "sub-10_ses-b")]
    touch(tmp_path, *(each.output("lesion_mni") for each in made), made[2].output("cleaned_mni"))
    touch(tmp_path, scan("sub-03").output("lesion"), scan("sub-03").output("belief_mni"))
    touch(tmp_path, "tpl-MNI152NLin2009aSym/anat/tpl-MNI152NLin2009aSym_res-3_label-L_desc-RRMS_probseg.nii.gz")
    touch(tmp_path, ".work/" + made[0].output("lesion_mni"), "group/" + made[0].output("lesion_mni"))
    found = labels.find_maps(tmp_path, "published")
    assert [each.name for each in found] == [each.name for each in made]
    assert all(each.path == each.output("lesion_mni") for each in found)
    assert [each.name for each in labels.find_maps(tmp_path, "cleaned")] == [made[2].name]


def test_no_map_says_what_to_do_and_a_misplaced_one_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(MissingInputError, match="participant level first"):
            labels.find_maps(folder, "cleaned")
    touch(tmp_path, scan("sub-01").output("lesion_mni").replace("sub-01/", "sub-02/"))
    with pytest.raises(BadInputError, match=r"sub-02.*rename it to sub-01/anat/sub-01_space"):
        labels.find_maps(tmp_path, "published")


def test_labels_covariates_and_all_that_is_left_out(tmp_path: Path) -> None:
    tsv(
        tmp_path / "participants.tsv",
        """participant_id diagnosis sex age site
        sub-01 RRMS F 31 1
        02 NMOSD M n/a 2
        sub-03 MOGAD F 50 1
        sub-04 n/a F 51 NaN
        sub-05 NMOSD F 52 3
        sub-06 RRMS F 53 3""",
    )
    tsv(tmp_path / "sub-01/sub-01_sessions.tsv", "session_id age duration\nses-1 n/a 2\nses-2 33.5 4")
    tsv(tmp_path / "phenotype/edss.tsv", "participant_id session_id edss sex\nsub-01 ses-2 2.5 x\nsub-02 n/a 80+ y")
    for name in ("rater_decisions", "bids_app_predictions", "bids_app_lesions"):
        tsv(tmp_path / f"phenotype/{name}.tsv", "participant_id secret\nsub-01 1")
    tsv(tmp_path / "phenotype/wild.tsv", "participant_id item\nsub-01 1\nsub-01 2")
    touch(tmp_path, "sub-02/anat/sub-02_FLAIR.nii.gz", "sub-02/anat/sub-02_acq-x_FLAIR.nii.gz")
    found = labelled(tmp_path, "sub-01_ses-1 sub-01_ses-2 sub-02 sub-03 sub-04 sub-07 sub-06_ses-1 sub-06_ses-2",
                     exclude=("sub-06_ses-1", "sub-99"))  # fmt: skip
    names = ["sub-01_ses-1", "sub-01_ses-2", "sub-02", "sub-06_ses-2"]
    assert [each.name for each in found.scans] == names == found.table.index.tolist()
    assert found.participants.tolist() == ["sub-01", "sub-01", "sub-02", "sub-06"]
    assert found.positive.tolist() == [True, True, False, True]
    assert dict(found.left_out) == {
        "sub-03": "diagnosis is 'MOGAD', neither RRMS nor NMOSD",
        "sub-04": "no diagnosis",
        "sub-07": "not in participants.tsv",
        "sub-06_ses-1": "--exclude sub-06_ses-1",
        "sub-05": "no lesion map",
        "sub-02_acq-x": "no lesion map",
    }
    assert set(found.table) == {"sex", "age", "site", "duration", "edss", "edss_sex"}
    np.testing.assert_array_equal(found.table["age"], [31, 33.5, np.nan, 53])
    np.testing.assert_array_equal(found.table["duration"], [2, 4, np.nan, np.nan])
    assert found.table["edss"].dropna().tolist() == ["2.5", "80+"]
    assert found.table["edss_sex"].dropna().index.tolist() == ["sub-01_ses-2", "sub-02"]
    said = " ".join(found.warnings)
    assert "sub-99" in said and "wild.tsv" in said
    assert len(found.warnings) == 2


def test_a_session_may_have_its_own_group(tmp_path: Path) -> None:
    tsv(tmp_path / "participants.tsv", "participant_id age\nsub-01 1\nsub-02 2")
    tsv(tmp_path / "sub-01/sub-01_sessions.tsv", "session_id group\n1 RRMS\nses-2 MOGAD\nses-3 RRMS")
    tsv(tmp_path / "sub-02/sub-02_sessions.tsv", "session_id group\nses-1 NMOSD")
    found = labelled(tmp_path, "sub-01_ses-1 sub-01_ses-2 sub-02_ses-1 sub-02_ses-9")
    assert found.positive.tolist() == [True, False]
    assert dict(found.left_out) == {
        "sub-01_ses-2": "group is 'MOGAD', neither RRMS nor NMOSD",
        "sub-02_ses-9": "no group",
        "sub-01_ses-3": "no lesion map",
    }


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ("participant_id session_id exclude\nsub-01 ses-1 1\nsub-02 n/a no\nsub-03 n/a n/a", ["sub-01_ses-1"]),
        ("participant_id include\n01 False\nsub-02 TRUE", ["sub-01_ses-1", "sub-01_ses-2"]),
        ("participant_id session_id quality\n01 2 poor\nsub-02 n/a good", ["sub-01_ses-2"]),
        ("participant_id exclude quality\nsub-01 bad good\nsub-02 0 fair", ["sub-01_ses-1", "sub-01_ses-2"]),
    ],
)
@pytest.mark.parametrize("where", ["phenotype", "derivatives/phenotype"])
def test_quality_table_rejects(tmp_path: Path, text: str, out: list[str], where: str) -> None:
    tsv(tmp_path / "participants.tsv", "participant_id diagnosis\nsub-01 RRMS\nsub-02 NMOSD\nsub-03 RRMS")
    tsv(tmp_path / where / "quality.tsv", text)
    found = labelled(tmp_path, "sub-01_ses-1 sub-01_ses-2 sub-02_ses-1 sub-03_ses-1")
    assert [name for name, reason in found.left_out if reason.startswith("quality.tsv")] == out
    assert len(found.left_out) == len(out)


@pytest.mark.parametrize(
    ("people", "given", "message"),
    [
        ("participant_id dx age\nsub-01 RRMS 1", None, r"no column 'diagnosis' or 'group'; there are: dx, age"),
        ("participant_id dx age\nsub-01 RRMS 1", "Dx", r"no column 'Dx'; there are: dx, age"),
        ("participant_id group\nsub-01 RRMS\nsub-02 nmosd", None, r"no 'NMOSD'.*levels are RRMS, nmosd"),
        ("participant_id group\nsub-01 RRMS\n01 NMOSD", None, r"participants.tsv: sub-01 has rows that contradict"),
        ("participant_id group\nsub-01 RRMS\nsub-08 NMOSD", None, r"no scan of group NMOSD is left.*sub-02 \(not in"),
        ("subject group\nsub-01 RRMS", None, "participant_id"),
    ],
)
def test_wrong_tables_are_refused_by_name(tmp_path: Path, people: str, given: str | None, message: str) -> None:
    tsv(tmp_path / "participants.tsv", people)
    with pytest.raises(BadInputError, match=message):
        labelled(tmp_path, "sub-01 sub-02", group_column=given)


def test_missing_table_unknown_verdict_and_same_rows_twice(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"participants\.tsv"):
        labelled(tmp_path, "sub-01")
    tsv(tmp_path / "participants.tsv", "participant_id group\nsub-01 RRMS\n01 RRMS\nsub-02 NMOSD")
    found = labelled(tmp_path, "sub-01 sub-02")
    assert found.positive.tolist() == [True, False]
    assert len(found.warnings) == 1 and "sub-01 is given more than once" in found.warnings[0]
    tsv(tmp_path / "phenotype/quality.tsv", "participant_id quality\nsub-02 hmm")
    with pytest.raises(BadInputError, match=r"quality.tsv: sub-02 has 'hmm' in column 'quality'"):
        labelled(tmp_path, "sub-01 sub-02")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 4), min_size=4, max_size=12), st.integers(0, 99))
def test_divisions_round_trip_in_any_order(tmp_path: Path, sizes: list[int], seed: int) -> None:
    names = [f"sub-{p:02d}_ses-{s}" for p, n in enumerate(sizes) for s in range(n)]
    people = np.array([name.split("_")[0] for name in names])
    positive = np.array([int(name[4:]) % 2 == 0 for name in people])
    made = {"published": "participant", "leakage-free": "participant"}
    divisions = {name: cohort.divide(positive, people, 0.3, by, seed) for name, by in made.items()}
    table = labels.division_table(names, divisions)
    formats.write_tsv(tmp_path / "division.tsv", table.sample(frac=1, random_state=seed))
    read = labels.read_division(tmp_path / "division.tsv", names)
    assert {name: each.unit for name, each in read.items()} == {"published": "scan", "leakage-free": "participant"}
    for name, division in divisions.items():
        np.testing.assert_array_equal(read[name].train, division.train)
        np.testing.assert_array_equal(read[name].test, division.test)


def test_wrong_divisions_are_refused_by_name(tmp_path: Path) -> None:
    names = ["sub-01_ses-1", "sub-01_ses-2", "sub-02", "sub-03"]
    whole = Division(np.array([0, 1, 2]), np.array([3]), "scan")
    table = labels.division_table(names, {"published": whole, "leakage-free": whole})
    assert table["session_id"].tolist()[:2] == ["ses-1", "ses-2"]
    assert table["session_id"].isna().tolist() == [False, False, True, True]
    path = tmp_path / "division.tsv"

    def refused(changed: pd.DataFrame, message: str) -> None:
        formats.write_tsv(path, changed)
        with pytest.raises(BadInputError, match=message):
            labels.read_division(path, names)

    refused(table.iloc[1:], "sub-01_ses-1 is not in the file")
    refused(pd.concat([table, table.iloc[:1].assign(scan="sub-09")]), "sub-09 is not among the scans")
    refused(pd.concat([table, table.iloc[:1]]), "sub-01_ses-1 is given twice")
    refused(table.assign(published=["training", "x", "test", "test"]), "sub-01_ses-2 is 'x'")
    refused(table.assign(**{"leakage-free": ["training", "test", "test", "test"]}), "sub-01 is in training and test")
    refused(table.assign(published="test"), "empty training or test")
    refused(table.drop(columns="published"), "column published is missing")
    with pytest.raises(BadInputError, match="each of the 4 scans once"):
        labels.division_table(names, {"published": Division(np.array([0]), np.array([3]), "scan")})
