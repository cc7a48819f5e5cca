"""Ranking against scipy's chi-square test, exact fractions and laws."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency
from sklearn.feature_selection import chi2 as sklearn_chi2

from bids_app.errors import BadInputError
from bids_app.learning.ranking import rank_counts, rank_voxels, ties_at


def exact_scores(a: np.ndarray, b: np.ndarray, n1: int, n0: int) -> list[Fraction]:
    """Pearson chi-square as fractions; -1 where there is no table to test."""
    scores = []
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        k, n = x + y, n1 + n0
        spread = k * (n - k) * n1 * n0
        scores.append(Fraction(n * (x * n0 - y * n1) ** 2, spread) if spread else Fraction(-1))
    return scores


@st.composite
def cohorts(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Small lesion maps with many ties, and labels of both groups."""
    n, v = draw(st.integers(4, 30)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    positive = rng.random(n) < draw(st.floats(0.1, 0.9))
    positive[:2] = True, False
    return rng.random((n, v)) < rng.choice([0.0, 0.05, 0.4, 1.0], v), positive


@settings(max_examples=30, deadline=None)
@given(cohorts())
def test_statistic_is_scipys_without_correction(cohort: tuple[np.ndarray, np.ndarray]) -> None:
    lesions, positive = cohort
    ranking = rank_voxels(lesions, positive)
    for v, column in enumerate(lesions.T):
        a, b = column[positive].sum(), column[~positive].sum()
        table = np.array([[a, positive.sum() - a], [b, (~positive).sum() - b]])
        testable = table.sum(axis=0).all()
        expected = chi2_contingency(table, correction=False).statistic if testable else 0.0
        assert ranking.chi2[v] == pytest.approx(expected, rel=1e-12, abs=1e-12)
        assert ranking.sign[v] == np.sign(column[positive].mean() - column[~positive].mean())


@settings(max_examples=60, deadline=None)
@given(cohorts())
def test_order_and_ties_are_those_of_exact_fractions(cohort: tuple[np.ndarray, np.ndarray]) -> None:
    lesions, positive = cohort
    ranking = rank_voxels(lesions, positive)
    a, b = lesions[positive].sum(axis=0), lesions[~positive].sum(axis=0)
    scores = exact_scores(a, b, int(positive.sum()), int((~positive).sum()))
    assert ranking.order.tolist() == sorted(range(len(scores)), key=lambda v: (-scores[v], v))
    statistics = [max(score, Fraction(0)) for score in scores]
    for count in range(1, len(scores) + 1):
        assert ties_at(ranking, count) == statistics.count(statistics[ranking.order[count - 1]])


@pytest.mark.parametrize(("n1", "n0"), [(518, 204), (3600, 1400)])
def test_ties_are_exact_at_the_size_of_cohorts(n1: int, n0: int) -> None:
    rng = np.random.default_rng(n1)
    a, b = rng.binomial(n1, 0.01, 3000), rng.binomial(n0, 0.01, 3000)
    ranking = rank_counts(a, b, n1, n0)
    scores = exact_scores(a, b, n1, n0)
    assert ranking.order.tolist() == sorted(range(3000), key=lambda v: (-scores[v], v))
    assert len(np.unique(ranking.chi2)) == len({max(score, Fraction(0)) for score in scores})
    assert ties_at(ranking, 1500) > 1


def test_constant_voxels_come_after_voxels_without_difference() -> None:
    positive = np.array([True, True, False, False])
    never, always, same, different = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 1, 0], [1, 1, 0, 0]], bool)
    ranking = rank_voxels(np.stack([never, always, same, different], axis=1), positive)
    assert ranking.order.tolist() == [3, 2, 0, 1]
    assert ranking.chi2.tolist() == [0, 0, 0, 4]


def test_sklearn_chi2_is_another_test() -> None:
    rng = np.random.default_rng(5)
    lesions, positive = rng.random((90, 50)) < rng.uniform(0.2, 0.8, 50), rng.random(90) < 0.6
    ours = rank_voxels(lesions, positive).chi2
    np.testing.assert_allclose(sklearn_chi2(lesions, positive)[0], ours * (1 - lesions.mean(axis=0)), rtol=1e-10)


@settings(max_examples=25, deadline=None)
@given(cohorts())
def test_naming_the_groups_the_other_way_round_turns_only_the_sign(
    cohort: tuple[np.ndarray, np.ndarray],
) -> None:
    lesions, positive = cohort
    one, other = rank_voxels(lesions, positive), rank_voxels(lesions, ~positive)
    np.testing.assert_array_equal(one.order, other.order)
    np.testing.assert_array_equal(one.chi2, other.chi2)
    np.testing.assert_array_equal(one.sign, -other.sign)


@pytest.mark.parametrize(
    ("lesions", "positive", "message"),
    [
        (np.ones((4, 3), bool), np.ones(4, bool), "none of the 4 scans belongs to the negative group"),
        (np.ones((4, 3), bool), np.zeros(4, bool), "none of the 4 scans belongs to the positive group"),
        (np.ones((4, 3)), np.array([True, True, False, False]), "booleans"),
        (np.ones((4, 0), bool), np.array([True, True, False, False]), "shape"),
        (np.ones((4, 3), bool), np.array([True, False]), "labels"),
    ],
)
def test_bad_input_is_refused(lesions: np.ndarray, positive: np.ndarray, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        rank_voxels(lesions, positive)


@pytest.mark.parametrize("count", [0, 4])
def test_ties_need_a_count_of_voxels(count: int) -> None:
    ranking = rank_voxels(np.eye(4, 3, dtype=bool), np.array([True, True, False, False]))
    with pytest.raises(BadInputError, match="cannot be chosen"):
        ties_at(ranking, count)


def test_ranking_loads_neither_numba_nor_scikit_learn() -> None:
    code = "import sys, bids_app.learning.ranking; sys.exit(bool({'numba', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
