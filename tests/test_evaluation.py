"""Measures against scikit-learn, statsmodels and direct formulas; the bootstrap by its laws."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from sklearn.tree import DecisionTreeClassifier
from statsmodels.stats.proportion import proportion_confint

from bids_app.errors import BadInputError
from bids_app.learning import measures, roc
from bids_app.records.cohort import Measure


def made_up(n: int, seed: int, levels: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """N labels, and decisions that know a little about them; ``levels`` > 0 makes ties."""
    rng = np.random.default_rng(seed)
    positive = rng.permutation(np.arange(n) < round(0.7 * n))
    decisions = rng.normal(size=n) + 0.8 * positive
    return positive, np.round(decisions * levels) / levels if levels else decisions


def width(m: Measure) -> float:
    return m.high - m.low


def delong_by_pairs(positive: np.ndarray, decisions: np.ndarray) -> tuple[float, float, float]:
    """DeLong's interval from all pairs, as its paper defines it."""
    area, variance = delong_variance_by_pairs(positive, decisions)
    reach = norm.ppf(0.975) * np.sqrt(variance)
    return area, max(float(area - reach), 0.0), min(float(area + reach), 1.0)


def delong_variance_by_pairs(positive: np.ndarray, decisions: np.ndarray) -> tuple[float, float]:
    x, y = decisions[positive], decisions[~positive]
    psi = (x[:, None] > y) + 0.5 * (x[:, None] == y)
    area = psi.mean()
    s10 = np.sum((psi.mean(axis=1) - area) ** 2) / (len(x) - 1)
    s01 = np.sum((psi.mean(axis=0) - area) ** 2) / (len(y) - 1)
    return float(area), float(s10 / len(x) + s01 / len(y))


@settings(max_examples=60, deadline=None)
@given(st.integers(8, 60), st.integers(0, 10**6), st.sampled_from([0, 1, 3]))
def test_auc_equals_scikit_learn_and_delong_equals_all_pairs(n: int, seed: int, levels: int) -> None:
    positive, decisions = made_up(n, seed, levels)
    found = roc.auc(positive, decisions)
    assert found.value == pytest.approx(roc_auc_score(positive, decisions), abs=1e-12)
    assert (found.value, found.low, found.high) == pytest.approx(delong_by_pairs(positive, decisions), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 80), st.integers(1, 80), st.sampled_from([0.01, 0.05, 0.2]))
def test_wilson_interval_solves_the_score_equation(count: int, more: int, alpha: float) -> None:
    total = count + more
    found = measures.wilson(count, total, alpha)
    z = norm.ppf(1 - alpha / 2)
    for end in (found.low, found.high):
        assert (found.value - end) ** 2 == pytest.approx(z**2 * end * (1 - end) / total, abs=1e-12)
    assert (found.low, found.high) == pytest.approx(proportion_confint(count, total, alpha, "wilson"))


@pytest.mark.parametrize(("count", "total", "low", "high"), [(131, 228, 51.0, 63.7), (69, 88, 68.7, 85.7)])
def test_wilson_reproduces_the_published_table(count: int, total: int, low: float, high: float) -> None:
    positive, calls = np.ones(total, bool), np.arange(total) < count
    for found in (
        measures.called(positive, calls).sensitivity,
        measures.called(~positive, ~calls).specificity,
    ):
        assert (round(100 * found.low, 1), round(100 * found.high, 1)) == (low, high)


def test_performance_counts_by_hand() -> None:
    positive = np.array([True, True, True, False, False, False, False])
    decisions = np.array([0.0, 2.0, -1.0, -0.1, -3.0, 0.5, -2.0])  # a decision of 0 is positive
    found = measures.performance(positive, decisions)
    assert (found.tp, found.fn, found.tn, found.fp) == (2, 1, 3, 1)
    values = found.sensitivity.value, found.specificity.value, found.accuracy.value
    assert values == pytest.approx((2 / 3, 3 / 4, 5 / 7))
    from_calls = measures.called(positive, decisions >= 0)
    assert from_calls.auc is None
    assert (from_calls.sensitivity, from_calls.accuracy) == (found.sensitivity, found.accuracy)


def test_a_missing_group_gives_nan_and_no_crash() -> None:
    positive, decisions = np.ones(5, bool), np.linspace(-1, 1, 5)
    found = measures.performance(positive, decisions)
    assert found.auc is not None
    undefined = [found.specificity, found.auc]
    assert np.isnan([[m.value, m.low, m.high] for m in undefined]).all()
    assert found.sensitivity == measures.wilson(3, 5)
    drawn = measures.bootstrap(positive, decisions, np.arange(5).astype(str), 50)
    assert np.isnan([drawn["specificity"].value, drawn["auc"].low, drawn["accuracy"].low]).all()
    assert drawn["sensitivity"].low < drawn["sensitivity"].value < drawn["sensitivity"].high
    empty = measures.performance(np.zeros(0, bool), np.zeros(0))
    assert np.isnan([empty.sensitivity.value, empty.accuracy.low]).all()


def test_delong_is_undefined_for_a_single_scan_and_clipped_at_one() -> None:
    found = roc.auc(np.array([True, False, False]), np.array([1.0, 0.0, 2.0]))
    assert found.value == 0.5
    assert np.isnan([found.low, found.high]).all()
    near = roc.auc(np.arange(8) > 3, np.array([0.0, 1, 2, 5, 4, 6, 7, 8]))
    assert near.low < near.value < near.high == 1.0


@pytest.mark.parametrize("function", [measures.performance, roc.auc])
def test_nan_and_misfits_are_refused(function: object) -> None:
    for positive, decisions in [
        (np.array([True, False]), np.array([0.5, np.nan])),
        (np.array([True, False]), np.array([0.5])),
        (np.array([1, 0]), np.array([0.5, 0.1])),
    ]:
        with pytest.raises(BadInputError):
            function(positive, decisions)  # type: ignore[operator]
    with pytest.raises(BadInputError, match="boolean"):
        measures.called(np.array([True, False]), np.array([1.0, 0.0]))


def auc_by_pairs(positive: np.ndarray, decisions: np.ndarray, fold: np.ndarray) -> float:
    """Pairs of a positive and a negative scan of the same fold that are won over all of them, one by one."""
    pairs = [(i, j) for i in np.flatnonzero(positive) for j in np.flatnonzero(~positive) if fold[i] == fold[j]]
    return float(np.mean([(decisions[i] > decisions[j]) + 0.5 * (decisions[i] == decisions[j]) for i, j in pairs]))


@pytest.mark.parametrize("n_folds", [1, 2, 4])
def test_bootstrap_draws_have_the_measures_of_their_scans(n_folds: int) -> None:
    """One draw by the fast way equals the measures of the cohort with its drawn scans written out."""
    positive, decisions = made_up(30, 2, levels=2)
    names = np.array([f"{'p' if p else 'n'}{i % 5}" for i, p in enumerate(positive)])
    fold = np.arange(30) // 3 % n_folds
    decisions = decisions + 10 * fold  # folds have scales of their own
    found = measures.bootstrap(positive, decisions, names, n_draws=1, seed=4, fold=None if n_folds == 1 else fold)
    rng = np.random.default_rng(4)
    rows = []
    for level in (True, False):
        members = np.unique(names[positive == level])
        drawn = rng.multinomial(len(members), np.ones(len(members)) / len(members))
        for name, times in zip(members, drawn, strict=True):
            rows += list(np.flatnonzero(names == name)) * int(times)
    whole = measures.performance(positive[rows], decisions[rows])
    for key in ("sensitivity", "specificity", "accuracy"):
        assert found[key].low == found[key].high == pytest.approx(getattr(whole, key).value)
    assert found["auc"].low == pytest.approx(auc_by_pairs(positive[rows], decisions[rows], fold[rows]))
    assert found["auc"].value == pytest.approx(auc_by_pairs(positive, decisions, fold))
    if n_folds == 1:
        assert found["auc"].low == pytest.approx(roc_auc_score(positive[rows], decisions[rows]))


def test_the_interval_of_auc_within_folds_is_that_of_independent_folds() -> None:
    """Each fold's area and variance as DeLong's paper defines them, folds weighed by their pairs."""
    positive, decisions = made_up(60, 7, levels=3)
    fold = np.repeat([0, 1, 2], [14, 20, 26])
    found = roc.auc_within(positive, decisions + 5 * fold, fold)
    parts = [delong_variance_by_pairs(positive[fold == k], decisions[fold == k]) for k in range(3)]
    pairs = np.array([positive[fold == k].sum() * (~positive[fold == k]).sum() for k in range(3)])
    share = pairs / pairs.sum()
    area = share @ [each[0] for each in parts]
    reach = norm.ppf(0.975) * np.sqrt(share**2 @ [each[1] for each in parts])
    assert (found.value, found.low, found.high) == pytest.approx((area, area - reach, area + reach))
    assert found.low > 0 and found.high < 1  # not clipped, so both ends are tested


def test_with_one_scan_a_participant_bootstrap_is_as_wide_as_delong_and_wilson() -> None:
    positive, decisions = made_up(600, 11)
    found = measures.bootstrap(positive, decisions, np.arange(600).astype(str), 4000)
    plain = measures.performance(positive, decisions)
    assert plain.auc is not None
    assert width(found["auc"]) == pytest.approx(width(plain.auc), rel=0.08)
    for key in ("sensitivity", "specificity"):
        assert width(found[key]) == pytest.approx(width(getattr(plain, key)), rel=0.08)
    assert {key: m.value for key, m in found.items()} == {key: getattr(plain, key).value for key in found}
    assert {m.method for m in found.values()} == {"bootstrap over participants, 4000 draws"}


def test_copies_of_scans_leave_the_bootstrap_alone_and_narrow_delong() -> None:
    positive, decisions = made_up(80, 5)
    names = np.arange(80).astype(str)
    once = measures.bootstrap(positive, decisions, names, 500, seed=3)
    copies = np.repeat(positive, 4), np.repeat(decisions, 4), np.repeat(names, 4)
    four = measures.bootstrap(*copies, n_draws=500, seed=3)
    for key in once:
        assert (four[key].low, four[key].high) == pytest.approx((once[key].low, once[key].high), abs=1e-12)
    plain = roc.auc(positive, decisions)
    copied = roc.auc(copies[0], copies[1])
    assert width(copied) == pytest.approx(width(plain) / 2, rel=0.05)


def test_bootstrap_depends_on_the_seed_but_not_on_the_order_of_rows() -> None:
    positive, decisions = made_up(60, 8)
    names = np.array([f"{p}{i % 9}" for i, p in enumerate(positive)])
    order = np.random.default_rng(0).permutation(60)
    a = measures.bootstrap(positive, decisions, names, 200, seed=1)
    b = measures.bootstrap(positive[order], decisions[order], names[order], 200, seed=1)
    for key in a:
        assert (a[key].low, a[key].high) == pytest.approx((b[key].low, b[key].high))
    assert a["auc"] != measures.bootstrap(positive, decisions, names, 200, seed=2)["auc"]


def test_bootstrap_refuses_two_groups_and_no_draws_and_a_lone_participant_has_no_interval() -> None:
    positive, decisions = np.array([True, False, True]), np.array([1.0, -1.0, 0.3])
    with pytest.raises(BadInputError, match="sub-1"):
        measures.bootstrap(positive, decisions, np.array(["sub-1", "sub-1", "sub-2"]))
    with pytest.raises(BadInputError, match="draws"):
        measures.bootstrap(positive, decisions, np.array(["a", "b", "c"]), n_draws=0)
    found = measures.bootstrap(positive, decisions, np.array(["a", "b", "c"]), 50)
    assert np.isnan(found["specificity"].low)
    assert not np.isnan(found["sensitivity"].low)


def test_bootstrap_of_the_published_size_is_fast() -> None:
    positive, decisions = made_up(316, 0)
    names = np.array([f"{p}{i % 60}" for i, p in enumerate(positive)])
    start = time.process_time()
    measures.bootstrap(positive, decisions, names, 2000)
    assert time.process_time() - start < 1.0


def test_optimism_is_the_difference() -> None:
    a, b = measures.wilson(9, 10), measures.wilson(6, 10)
    assert measures.optimism(a, b) == pytest.approx(0.3)
    assert np.isnan(measures.optimism(a, measures.wilson(0, 0)))


def test_permutation_p_counts_itself() -> None:
    assert measures.permutation_p(0.9, [0.1] * 99) == 0.01
    assert measures.permutation_p(0.5, [0.5, 0.4, 0.6]) == 0.75
    assert measures.permutation_p(0.5, []) == 1.0
    with pytest.raises(BadInputError, match="undefined"):
        measures.permutation_p(0.5, [0.5, float("nan")])


def test_lesion_free_scans_are_counted() -> None:
    sums = np.array([0, 0, 0, 5, 0, 7])
    positive = np.array([True, True, False, False, False, True])
    decisions = np.array([0.2, -1.0, -1.0, -1.0, 0.3, 1.0])
    found = measures.lesion_free(sums, positive, decisions)
    assert found == {"positive": 2, "negative": 2, "tp": 1, "fn": 1, "tn": 1, "fp": 1}
    with pytest.raises(BadInputError, match="lesion sums"):
        measures.lesion_free(sums[:3], positive, decisions)


def test_majority_calls_the_larger_training_group() -> None:
    test = np.array([True, True, False])
    more, fewer = np.array([True, True, False]), np.array([True, False, False])
    assert measures.majority(more, test).accuracy.value == pytest.approx(2 / 3)
    assert measures.majority(fewer, test).accuracy.value == pytest.approx(1 / 3)
    assert measures.majority(np.array([True, False]), test).fp == 1
    area = measures.majority(more, test).auc
    assert area is not None
    assert area.value == 0.5
    with pytest.raises(BadInputError, match="empty"):
        measures.majority(np.zeros(0, bool), test)


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 40), st.integers(0, 10**6), st.booleans())
def test_lesion_volume_has_the_best_training_accuracy_of_any_threshold(n: int, seed: int, more: bool) -> None:
    rng = np.random.default_rng(seed)
    positive = np.r_[True, False, rng.random(n - 2) < 0.6]
    volume = rng.integers(0, 12, n).astype(float) + (3 if more else -3) * positive
    found = measures.lesion_volume(volume, positive, volume, positive)
    cuts = [(a + b) / 2 for a, b in pairwise(np.unique(volume))] or [-np.inf]
    right = [np.sum((volume > cut) == positive) for cut in cuts]
    assert found.tp + found.tn == max(*right, n - min(right), 0)
    assert found.auc is not None
    assert found.auc.value in (
        pytest.approx(roc_auc_score(positive, volume)),
        pytest.approx(roc_auc_score(positive, -volume)),
    )


def test_lesion_volume_cuts_where_a_decision_stump_does() -> None:
    rng = np.random.default_rng(7)
    positive = rng.random(200) < 0.5
    volume = rng.normal(size=200) + np.where(positive, 3.0, 0.0)
    fresh = np.linspace(-3, 6, 50)
    stump = DecisionTreeClassifier(max_depth=1).fit(volume[:, None], positive)
    # The stump minimises impurity, not errors; clean data make both choose nearly the same threshold.
    found = measures.lesion_volume(volume, positive, fresh, stump.predict(fresh[:, None]))
    assert found.accuracy.value > 0.9


@pytest.mark.parametrize("n_positive", [1, 4])
def test_lesion_volume_that_never_differs_is_the_majority(n_positive: int) -> None:
    positive = np.arange(5) < n_positive
    found = measures.lesion_volume(np.full(5, 2.0), positive, np.full(5, 2.0), positive)
    most = measures.majority(positive, positive)
    assert (found.tp, found.tn) == (most.tp, most.tn)
    assert found.tp + found.tn == 4
    with pytest.raises(BadInputError, match="empty"):
        measures.lesion_volume(np.zeros(0), np.zeros(0, bool), np.zeros(2), np.array([True, False]))
