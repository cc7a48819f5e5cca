"""Recipes compared: AUC within folds against scikit-learn, paired bootstrap, nothing but labels tells them apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from bids_app.recommended import comparison
from bids_app.recommended.comparison import difference, draw, measure, sample, shares
from bids_app.recommended.nested import outer_folds
from bids_app.records.recommended import OutOfFold


def drawn(seed: int = 0, people: int = 60, repeats: int = 2) -> tuple[OutOfFold, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    counts = 1 + rng.integers(0, 4, people)
    names = np.repeat([f"sub-{k:03d}" for k in range(people)], counts)
    positive = np.repeat(np.arange(people) % 3 > 0, counts)
    own = np.repeat(rng.normal(size=people), counts)
    values = np.stack([positive + own + rng.normal(size=len(names)) for _ in range(repeats)])
    fold = np.zeros(values.shape, int)
    for r, repeat in enumerate(outer_folds(positive, names, 5, repeats, 0)):
        for number, each in enumerate(repeat):
            fold[r, each.validate] = number
    return OutOfFold("some", values, fold, 1 / (1 + np.exp(-values))), positive, names


def auc(found: OutOfFold, positive: np.ndarray, names: np.ndarray) -> float:
    return sample(found, positive, names, draw(positive, names, 1, 0))["auc"].value


def test_auc_is_that_of_scikit_learn_fold_by_fold() -> None:
    found, positive, names = drawn()
    won = pairs = 0.0
    for values, folds in zip(found.decisions, found.fold, strict=True):
        for number in np.unique(folds):
            rows = folds == number
            n = positive[rows].sum() * (~positive[rows]).sum()
            won += roc_auc_score(positive[rows], values[rows]) * n
            pairs += n
    assert auc(found, positive, names) == pytest.approx(won / pairs, abs=1e-12)


def test_the_scale_of_a_fold_does_not_matter() -> None:
    found, positive, names = drawn()
    stretched = np.exp(found.decisions) * (1 + found.fold) + 5 * found.fold
    assert auc(replace(found, decisions=stretched), positive, names) == pytest.approx(auc(found, positive, names))


def test_ties_count_one_half() -> None:
    found, positive, names = drawn()
    assert auc(replace(found, decisions=np.zeros_like(found.decisions)), positive, names) == 0.5


def test_a_recipe_does_not_differ_from_itself() -> None:
    found, positive, names = drawn()
    draws = draw(positive, names, 200, 0)
    some = sample(found, positive, names, draws)
    for each in some.values():
        gap = measure(difference(each, each), "")
        assert (gap.value, gap.low, gap.high) == (0, 0, 0)


def test_a_paired_difference_is_narrower_than_an_unpaired_one() -> None:
    found, positive, names = drawn()
    rng = np.random.default_rng(1)
    near = OutOfFold("near", found.decisions + 0.1 * rng.normal(size=found.decisions.shape), found.fold,
                     found.probability)  # fmt: skip
    draws, others = (draw(positive, names, 500, seed) for seed in (0, 1))
    paired = difference(sample(found, positive, names, draws)["auc"], sample(near, positive, names, draws)["auc"])
    unpaired = difference(sample(found, positive, names, draws)["auc"], sample(near, positive, names, others)["auc"])
    assert np.std(paired.draws) < np.std(unpaired.draws) / 3


def test_calls_are_counted_over_scans() -> None:
    found, positive, names = drawn(repeats=1)
    called = found.decisions >= 0.4
    some = shares(called, positive, names, draw(positive, names, 10, 0))
    assert some["sensitivity"].value == pytest.approx(called[0][positive].mean())
    assert some["specificity"].value == pytest.approx((~called[0][~positive]).mean())
    assert some["accuracy"].value == pytest.approx((called[0] == positive).mean())


def test_intervals_cover_the_truth() -> None:
    """The true AUC of a known difference lies in nearly all intervals of small cohorts."""
    truth = norm.cdf(1 / np.sqrt(4))  # groups one apart, each the sum of two standard normal values
    inside = 0
    for seed in range(40):
        found, positive, names = drawn(seed)
        interval = measure(sample(found, positive, names, draw(positive, names, 300, seed))["auc"], "")
        inside += interval.low <= truth <= interval.high
    assert inside >= 34


def test_over_participants_weighs_each_once() -> None:
    positive, names = np.array([True, True, True, False]), np.array(["a", "a", "b", "c"])
    draws = comparison.Draws(np.ones((1, 2)), np.ones((1, 1)))
    rows = np.ones(4, bool)
    found = comparison.over_participants(np.array([1.0, 0, 1, 1]), rows, positive, names, draws)
    assert found.value == pytest.approx((0.5 + 1 + 1) / 3)
