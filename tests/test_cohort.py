"""Laws of division, folds and permutation, on cohorts that Hypothesis makes up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from bids_app.errors import BadInputError
from bids_app.learning import division as cohort

SEEDS = st.integers(0, 2**31)
UNITS = st.sampled_from(["scan", "participant"])


@st.composite
def cohorts(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Between 2 and 12 participants a group with very unequal numbers of scans, rows shuffled."""
    sizes = st.lists(st.sampled_from([1, 1, 2, 3, 20]), min_size=2, max_size=12)
    scans = [draw(sizes), draw(sizes)]
    participants = [f"sub-{g}{i:02d}" for g in (0, 1) for i, n in enumerate(scans[g]) for _ in range(n)]
    order = np.random.default_rng(draw(SEEDS)).permutation(len(participants))
    names = np.array(participants)[order]
    return np.array([name[4] == "1" for name in names]), names


@settings(max_examples=60, deadline=None)
@given(cohorts(), UNITS, SEEDS, st.floats(0.05, 0.95))
def test_division_is_complete_disjoint_stratified_and_seeded(
    data: tuple[np.ndarray, np.ndarray], by: str, seed: int, fraction: float
) -> None:
    positive, names = data
    division = cohort.divide(positive, names, fraction, by, seed)
    assert division.unit == by
    np.testing.assert_array_equal(np.sort(np.r_[division.train, division.test]), np.arange(len(positive)))
    assert (np.diff(division.train) > 0).all()
    assert (np.diff(division.test) > 0).all()
    for level in (True, False):
        train, test = (names[rows[positive[rows] == level]] for rows in (division.train, division.test))
        if by == "participant":
            assert not set(train) & set(test)
            train, test = np.unique(train), np.unique(test)
        n = len(train) + len(test)
        wanted = (1 - fraction) * n
        assert abs(len(train) - wanted) <= 0.5 + 1e-9 or len(train) in (1, n - 1)
        assert min(len(train), len(test)) >= 1
    again = cohort.divide(positive, names, fraction, by, seed)
    np.testing.assert_array_equal(again.train, division.train)


@settings(max_examples=80, deadline=None)
@given(cohorts(), UNITS, SEEDS, st.integers(2, 12))
def test_every_fold_holds_both_groups_on_both_sides(
    data: tuple[np.ndarray, np.ndarray], by: str, seed: int, n_folds: int
) -> None:
    positive, names = data
    found = cohort.folds(positive, names, n_folds, by, seed)
    units = names if by == "participant" else np.arange(len(names))
    fewest = min(len(np.unique(units[positive])), len(np.unique(units[~positive])))
    assert len(found) == min(n_folds, fewest)
    np.testing.assert_array_equal(np.sort(np.concatenate([f.validate for f in found])), np.arange(len(names)))
    for fold in found:
        np.testing.assert_array_equal(np.sort(np.r_[fold.train, fold.validate]), np.arange(len(names)))
        assert not set(units[fold.train]) & set(units[fold.validate])
        assert set(positive[fold.train]) == set(positive[fold.validate]) == {True, False}
    again = cohort.folds(positive, names, n_folds, by, seed)
    assert all(np.array_equal(a.validate, b.validate) for a, b in zip(found, again, strict=True))


@settings(max_examples=40, deadline=None)
@given(cohorts(), SEEDS)
def test_permuted_labels_keep_participants_whole_and_their_number(
    data: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    positive, names = data
    permuted = cohort.permute(positive, names, seed)
    _, _, before = cohort.by_participant(positive, names)
    _, _, after = cohort.by_participant(permuted, names)  # raises if a participant were split
    assert permuted.dtype == bool
    assert after.sum() == before.sum()
    np.testing.assert_array_equal(permuted, cohort.permute(positive, names, seed))


@pytest.mark.parametrize("by", ["scan", "participant"])
def test_another_seed_gives_another_result(by: str) -> None:
    names = np.repeat([f"sub-{i:03d}" for i in range(60)], 2)
    positive = np.arange(120) < 70
    assert len({tuple(cohort.divide(positive, names, by=by, seed=s).test) for s in range(5)}) == 5
    assert len({tuple(cohort.folds(positive, names, by=by, seed=s)[0].validate) for s in range(5)}) == 5
    assert len({tuple(cohort.permute(positive, names, s)) for s in range(5)}) == 5


def test_sizes_of_the_published_cohort() -> None:
    positive = np.arange(746 + 292) < 746
    names = np.arange(len(positive)).astype(str)
    division = cohort.divide(positive, names, 0.30, "scan")
    # 0.7 x 746 = 522.2 and 0.7 x 292 = 204.4; the publication's 518 is no rounding of its own 70 %.
    assert (positive[division.train].sum(), (~positive[division.train]).sum()) == (522, 204)
    assert (positive[division.test].sum(), (~positive[division.test]).sum()) == (224, 88)


def test_no_one_fraction_gives_the_published_sizes() -> None:
    fractions = np.linspace(0.25, 0.35, 100_001)
    for to_whole in (np.round, np.floor, np.ceil):
        both = (to_whole(746 * fractions) == 228) & (to_whole(292 * fractions) == 88)
        assert not both.any()


def test_folds_by_scan_are_those_of_scikit_learn() -> None:
    positive = np.random.default_rng(3).random(97) < 0.6
    wanted = StratifiedKFold(10, shuffle=True, random_state=5).split(positive, positive)
    for fold, (train, validate) in zip(
        cohort.folds(positive, np.arange(97).astype(str), 10, "scan", 5), wanted, strict=True
    ):
        np.testing.assert_array_equal(fold.train, train)
        np.testing.assert_array_equal(fold.validate, validate)


def test_folds_by_participant_hold_both_groups_where_stratified_group_k_fold_does_not() -> None:
    sizes = np.array([1, 500, 500, 1, 1, 1, 1, 1, 500, 1, 1, 1, 1, 1, 1])
    names = np.repeat([f"sub-{i:02d}" for i in range(15)], sizes)
    positive = np.repeat(np.arange(15) >= 6, sizes)
    theirs = StratifiedGroupKFold(6, shuffle=True, random_state=3991).split(positive, positive, names)
    assert any(len(set(positive[validate])) < 2 for _, validate in theirs)
    for seed in range(20):
        for fold in cohort.folds(positive, names, 6, "participant", seed):
            assert set(positive[fold.validate]) == set(positive[fold.train]) == {True, False}


def test_folds_by_participant_are_balanced_by_scans() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 9, 120)
    names = np.repeat(np.arange(120).astype(str), sizes)
    positive = np.repeat(np.arange(120) < 80, sizes)
    for level in (True, False):
        held_out = [(positive[f.validate] == level).sum() for f in cohort.folds(positive, names, 10, "participant")]
        assert max(held_out) - min(held_out) <= sizes.max()


def test_participant_division_does_not_depend_on_the_order_of_rows() -> None:
    rng = np.random.default_rng(1)
    names = np.repeat(np.arange(40).astype(str), 3)
    positive = np.repeat(np.arange(40) < 25, 3)
    order = rng.permutation(len(names))
    straight = cohort.divide(positive, names, by="participant", seed=9)
    shuffled = cohort.divide(positive[order], names[order], by="participant", seed=9)
    assert set(names[straight.test]) == set(names[order][shuffled.test])


def test_a_participant_with_two_groups_is_named() -> None:
    positive, names = np.array([True, False, True, False]), np.array(["sub-1", "sub-1", "sub-2", "sub-3"])
    for call in (
        lambda: cohort.divide(positive, names, by="participant"),
        lambda: cohort.folds(positive, names, by="participant"),
        lambda: cohort.permute(positive, names, 0),
    ):
        with pytest.raises(BadInputError, match="sub-1"):
            call()
    assert len(cohort.divide(positive, names, 0.5, "scan").train) == 2  # as published: it does not matter


@pytest.mark.parametrize(
    ("positive", "names", "by", "message"),
    [
        ([True, False, False], ["a", "b", "c"], "scan", r"positive group has 1 scan\(s\)"),
        ([True, True, False, False], ["a", "b", "c", "c"], "participant", "negative group has 1"),
        ([True, True, False, False], ["a", "b", "c", "d"], "centre", "centre"),
        ([1, 1, 0, 0], ["a", "b", "c", "d"], "scan", "boolean"),
        ([True, True, False, False], ["a", "b", "c"], "scan", "participant"),
    ],
)
def test_what_cannot_be_divided_is_refused(positive: list[bool], names: list[str], by: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        cohort.divide(np.array(positive), np.array(names), by=by)
    with pytest.raises(BadInputError, match=message):
        cohort.folds(np.array(positive), np.array(names), by=by)


def test_impossible_fractions_and_folds_are_refused() -> None:
    positive, names = np.array([True, True, False, False]), np.array(list("abcd"))
    for fraction in (0.0, 1.0, float("nan")):
        with pytest.raises(BadInputError, match="between 0 and 1"):
            cohort.divide(positive, names, fraction)
    with pytest.raises(BadInputError, match="2 or more"):
        cohort.folds(positive, names, 1)
