"""Baseline tables against scipy and statsmodels, and the publication's own checks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency
from statsmodels.stats.weightstats import ttest_ind

from bids_app.errors import BadInputError
from bids_app.learning import characteristics


def column(counts: list[int], words: tuple[str, str]) -> list[str]:
    """Write out counts [a1, a2, b1, b2] of two words in groups a and b."""
    return [word for word, n in zip(words * 2, counts, strict=True) for _ in range(n)]


def made_up(n: int = 80, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """N scans of n/2 participants with characteristics of both, their participants and groups."""
    rng = np.random.default_rng(seed)
    person = np.arange(n) // 2
    onset = rng.normal(35, 9, n // 2)[person]
    table = pd.DataFrame(
        {
            "participant_id": [f"sub-{i:02d}" for i in person],
            "sex": rng.choice(["F", "M"], n // 2)[person],
            "age_at_onset": onset,
            "age": onset + rng.exponential(6, n),
            "attack": rng.choice([1, 2, 3], n),
            "note": [f"free text {i}" for i in range(n)],
        }
    )
    return table, table["participant_id"].to_numpy(), np.where(person < n // 3, "RRMS", "NMOSD")


@pytest.mark.parametrize(
    ("counts", "p"),
    [([44, 128, 12, 85], 0.010), ([121, 601, 60, 256], 0.384), ([518, 204, 228, 88], 0.893)],
)
def test_published_p_values(counts: list[int], p: float) -> None:
    groups = ["a"] * sum(counts[:2]) + ["b"] * sum(counts[2:])
    found = characteristics.compare(pd.DataFrame({"sex": column(counts, ("M", "F"))}), groups)
    assert round(found["p"].iloc[0], 3) == p
    males = found[found["level"] == "M"].iloc[0]
    assert males["a"] == f"{counts[0]} ({100 * counts[0] / sum(counts[:2]):.1f} %)"


def test_published_p_values_by_table_1_and_s1() -> None:
    """Sex of 172 and 97 patients with one scan or more each; groups of the division."""
    sex = np.array(column([44, 128, 12, 85], ("M", "F")))
    groups = np.array(["RRMS"] * 172 + ["NMOSD"] * 97)
    rows = np.repeat(np.arange(269), np.random.default_rng(0).integers(1, 9, 269))
    table = pd.DataFrame({"sex": sex[rows]})
    found = characteristics.table1(table, rows.astype(str), groups[rows], levels=("RRMS", "NMOSD"))
    assert round(found["p"].iloc[0], 3) == 0.010
    assert set(found["unit"]) == {"participant"}

    division = ["training"] * 722 + ["test"] * 316
    sex_of_scans = pd.DataFrame({"sex": column([121, 601, 60, 256], ("M", "F")), "set": division})
    group_of_scans = column([518, 204, 228, 88], ("RRMS", "NMOSD"))
    copies = sex_of_scans.assign(diagnosis=group_of_scans)  # neither copy is a characteristic of its own
    s1 = characteristics.table_s1(copies, division, group_of_scans)
    assert dict(s1.dropna(subset="p").set_index("characteristic")["p"].round(3)) == {
        "group": 0.893,
        "sex": 0.384,
    }
    assert list(s1.columns) == [
        "characteristic", "level", "unit", "training set", "test set", "test", "statistic", "p",
    ]  # fmt: skip
    assert s1.loc[s1["level"] == "RRMS", "test set"].item() == "228 (72.2 %)"


def test_continuous_columns_equal_students_t() -> None:
    table, _, groups = made_up()
    table.loc[[0, 60, 61], "age"] = np.nan
    found = characteristics.compare(table, groups, ["age"], levels=("RRMS", "NMOSD"))
    a, b = (table["age"][groups == level].dropna() for level in ("RRMS", "NMOSD"))
    statistic, p, _ = ttest_ind(a, b, usevar="pooled")
    assert (found["statistic"][0], found["p"][0]) == pytest.approx((statistic, p))
    assert found["RRMS"][0] == f"{a.mean():.1f} ± {a.std():.1f}"
    assert found["level"][1] == "missing"
    assert (found["RRMS"][1], found["NMOSD"][1]) == ("1", "2")


def test_categorical_columns_equal_pearsons_chi_square() -> None:
    table, _, groups = made_up()
    table["attack"] = table["attack"].astype(object)
    table.loc[3, "attack"] = "n/a"
    found = characteristics.compare(table, groups, ["attack"])
    known = table["attack"] != "n/a"
    counts = pd.crosstab(groups[known], table["attack"][known])
    wanted = chi2_contingency(counts, correction=False)
    assert (found["statistic"][0], found["p"][0]) == pytest.approx((wanted.statistic, wanted.pvalue))
    assert list(found["level"]) == ["1", "2", "3", "missing"]
    n = counts.loc["RRMS", 2]
    assert found["RRMS"][1] == f"{n} ({100 * n / counts.loc['RRMS'].sum():.1f} %)"
    assert found["p"][1:].isna().all()


def test_columns_are_chosen_without_identifiers_free_text_and_copies_of_the_group() -> None:
    table, _, groups = made_up()
    table["diagnosis"] = groups
    table["empty"] = "n/a"
    table["duration"] = [f"{x:.2f}" for x in table["age"] - table["age_at_onset"]]  # numbers read as words
    found = characteristics.compare(table, groups)
    assert list(dict.fromkeys(found["characteristic"])) == [
        "sex",
        "age_at_onset",
        "age",
        "attack",
        "duration",
    ]
    tests = dict(zip(found["characteristic"], found["test"], strict=True))
    assert tests["duration"] == tests["age"] == "Student's t"


def test_table1_counts_each_participant_once_for_what_belongs_to_the_participant() -> None:
    table, participants, groups = made_up()
    table.loc[0, "age_at_onset"] = np.nan  # known from the participant's other scan
    found = characteristics.table1(table, participants, groups, levels=("RRMS", "NMOSD"))
    units = dict(zip(found["characteristic"], found["unit"], strict=True))
    assert units == {"sex": "participant", "age_at_onset": "participant", "age": "scan", "attack": "scan"}
    one, group_of = table.iloc[1::2], groups[1::2]
    wanted = characteristics.compare(one, group_of, ["sex", "age_at_onset"], levels=("RRMS", "NMOSD"))
    got = found[found["unit"] == "participant"].drop(columns="unit").reset_index(drop=True)
    pd.testing.assert_frame_equal(got, wanted)
    shuffled = np.random.default_rng(1).permutation(len(table))
    again = characteristics.table1(
        table.iloc[shuffled], participants[shuffled], groups[shuffled], levels=("RRMS", "NMOSD")
    )
    pd.testing.assert_frame_equal(again, found)


def test_a_participant_without_any_value_is_counted_missing() -> None:
    table, participants, groups = made_up()
    table.loc[[0, 1], "age_at_onset"] = np.nan
    found = characteristics.table1(table, participants, groups, ["age_at_onset"], ("RRMS", "NMOSD"))
    assert found.loc[found["level"] == "missing", ["RRMS", "NMOSD"]].to_numpy().tolist() == [["1", "0"]]


@pytest.mark.filterwarnings("error")
def test_what_cannot_be_tested_is_nan() -> None:
    groups = ["a"] * 6 + ["b"] * 2
    table = pd.DataFrame(
        {
            "constant": [3.0] * 8,
            "sparse": [1.0, 2, 3, 4, 5, 6, 7, np.nan],
            "gone": [None] * 8,
            "one_sided": ["x", "y", "x", "y", "x", "y", None, None],
        }
    )
    found = characteristics.compare(table, groups, list(table))
    assert found["p"].isna().all()
    assert set(found["characteristic"]) == set(table)


def test_standard_deviation_keeps_two_digits() -> None:
    small = np.r_[np.linspace(0, 0.01, 8), np.linspace(0.5, 0.51, 8)]
    found = characteristics.compare(pd.DataFrame({"x": small}), ["a"] * 8 + ["b"] * 8)
    assert found["a"][0] == f"{small[:8].mean():.4f} ± {small[:8].std(ddof=1):.4f}"


@pytest.mark.parametrize(
    ("groups", "columns", "message"),
    [
        (["a", "a", "a"], None, "exactly two"),
        (["a", "b", "c"], None, "exactly two"),
        (["a", "b"], None, "3 rows"),
        (["test", "b", "b"], None, "rename"),
        (["a", "b", "b"], ["height"], "height"),
    ],
)
def test_bad_tables_are_refused(groups: list[str], columns: list[str] | None, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        characteristics.compare(pd.DataFrame({"sex": ["F", "M", "F"]}), groups, columns)


def test_table1_refuses_a_participant_in_two_groups_and_s1_other_sets() -> None:
    table = pd.DataFrame({"sex": ["F", "M", "F"]})
    with pytest.raises(BadInputError, match="sub-1"):
        characteristics.table1(table, ["sub-1", "sub-1", "sub-2"], ["a", "b", "b"])
    with pytest.raises(BadInputError, match="no column 'height'"):
        characteristics.table1(table, ["sub-1", "sub-3", "sub-2"], ["a", "b", "b"], ["height"])
    with pytest.raises(BadInputError, match="training set and test set"):
        characteristics.table_s1(table, ["train", "test", "test"], ["a", "b", "b"])
