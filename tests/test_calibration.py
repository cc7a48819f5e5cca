"""Probabilities against scikit-learn, the parts of Brier's score, thresholds, and the coverage of conformal sets."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from bids_app.errors import BadInputError
from bids_app.recommended import calibration
from bids_app.recommended.calibration import brier, calibrate, cuts, platt, probability, sets


def drawn(n: int = 300, seed: int = 0, gap: float = 1.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decision values, groups and participants; two scans in three of the former are one participant's."""
    rng = np.random.default_rng(seed)
    person = np.sort(rng.integers(0, n // 2, n))
    person = np.unique(person, return_inverse=True)[1]
    groups = rng.random(person.max() + 1) < 0.6
    own = rng.normal(size=len(groups))
    return gap * groups[person] - 1 + own[person] + 0.3 * rng.normal(size=n), groups[person], person


def test_platt_is_logistic_regression_on_softened_targets() -> None:
    values, positive, person = drawn()
    weights = 1 / np.bincount(person)[person]
    n_positive, n_negative = weights[positive].sum(), weights[~positive].sum()
    target = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    each = np.concatenate([values, values])[:, None]
    oracle = LogisticRegression(C=1e12, tol=1e-12, max_iter=10_000).fit(
        each,
        np.repeat([1, 0], len(values)),
        sample_weight=np.concatenate([weights * target, weights * (1 - target)]),
    )
    slope, offset = platt(values, positive, weights)
    assert slope == pytest.approx(oracle.coef_[0, 0], rel=1e-4)
    assert offset == pytest.approx(oracle.intercept_[0], rel=1e-4)


def test_perfectly_told_groups_get_no_certainty() -> None:
    values = np.linspace(-1, 1, 20)
    by = calibrate(values, values > 0, np.arange(20), np.zeros(20, bool), 0.0)
    assert 0.5 < probability(by, np.array([1.0]))[0] < 1
    assert np.isfinite([by.slope, by.offset]).all()


def test_another_prevalence_is_bayes_rule() -> None:
    values, positive, person = drawn()
    by = calibrate(values, positive, person, np.zeros(len(values), bool), 0.0)
    p = probability(by, values)
    likelihood = p / (1 - p) / (by.prevalence / (1 - by.prevalence))
    wanted = likelihood * 0.95 / (likelihood * 0.95 + 0.05)
    np.testing.assert_allclose(probability(by, values, 0.95), wanted, rtol=1e-9)
    np.testing.assert_allclose(probability(by, values, by.prevalence), p, rtol=1e-12)
    with pytest.raises(BadInputError, match="prevalence"):
        probability(by, values, 1.0)


def test_parts_of_the_brier_score_sum_to_it() -> None:
    values, positive, person = drawn()
    weights = 1 / np.bincount(person)[person]
    p = probability(calibrate(values, positive, person, np.zeros(len(values), bool), 0.0), values)
    found = brier(p, positive, weights)
    assert found.value == pytest.approx(np.average((p - positive) ** 2, weights=weights))
    assert found.value == pytest.approx(
        found.reliability - found.resolution + found.uncertainty + found.within, abs=1e-12
    )
    base = brier(np.full(len(p), np.average(positive, weights=weights)), positive, weights)
    assert base.skill == pytest.approx(0) and base.resolution == pytest.approx(0, abs=1e-15)
    points = calibration.reliability_curve(p, positive, weights)
    assert sum(mass for *_, mass in points) == pytest.approx(1)


def test_thresholds_do_what_they_are_called() -> None:
    values, positive, person = drawn()
    by = calibrate(values, positive, person, np.zeros(len(values), bool), 0.0)
    found = cuts(by, 0.85)
    share = {
        key: (np.average(values[positive] >= cut, weights=by.weights[positive]),
              np.average(values[~positive] < cut, weights=by.weights[~positive]))
        for key, cut in found.items()
    }  # fmt: skip
    assert probability(by, np.array([found["half"]]))[0] == pytest.approx(0.5)
    assert abs(share["equal"][0] - share["equal"][1]) < 0.02
    assert share["sensitivity"][0] >= 0.85
    higher = values[(values > found["sensitivity"]) & positive].min() + 1e-9
    assert np.average(values[positive] >= higher, weights=by.weights[positive]) < 0.85


def test_sets_cover_as_often_as_asked_on_new_participants() -> None:
    """Over many draws the share of each group's participants whose set holds their group is the coverage."""
    held: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(60):
        values, positive, person = drawn(400, seed)
        known = person < 100
        by = calibrate(values[known], positive[known], person[known], np.zeros(known.sum(), bool), -9.0)
        found = sets(by, values[~known], np.zeros((~known).sum(), bool), 0.9)
        weights = (1 / np.bincount(person)[person])[~known]
        for column, group in enumerate((True, False)):
            rows = positive[~known] == group
            held[group].append(np.average(found[rows, column], weights=weights[rows]))
    for group in (True, False):
        error = np.std(held[group]) / np.sqrt(len(held[group]))
        assert abs(np.mean(held[group]) - 0.9) < 3 * error + 0.01


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_scans_without_lesions_do_not_spoil_the_coverage_of_the_others(share: float) -> None:
    held, undecided = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        positive = rng.random(600) < 0.5
        free = rng.random(600) < np.where(positive, share, 0.5)
        values = np.where(free, -0.7, rng.normal(size=600) + positive)
        known = np.arange(600) < 300
        by = calibrate(values[known], positive[known], np.arange(300), free[known], -0.7)
        found = sets(by, values[~known], free[~known], 0.9)
        rows = positive[~known] if share < 0.1 else positive[~known] & ~free[~known]
        held.append(found[rows, 0].mean())
        undecided.append(len({tuple(each) for each in found[free[~known]].tolist()}))
    assert abs(np.mean(held) - 0.9) < 0.02
    assert set(undecided) == {1}  # all scans without lesions get the same set


def test_scans_without_lesions_are_compared_by_their_own_value_where_none_ties() -> None:
    """Belief or covariates tell them apart: calibration then knows of no scan without lesions."""
    rng = np.random.default_rng(3)
    positive = np.arange(80) % 2 == 0
    values = rng.normal(size=80) + positive
    by = calibrate(values, positive, np.arange(80), np.zeros(80, bool), 0.0)
    new = np.linspace(-3, 4, 15)
    free, others = (sets(by, new, np.full(15, flag), 0.8) for flag in (True, False))
    np.testing.assert_array_equal(free, others)
    assert len(np.unique(free, axis=0)) == 3


def test_a_larger_coverage_never_takes_a_group_out() -> None:
    values, positive, person = drawn()
    by = calibrate(values, positive, person, np.zeros(len(values), bool), 0.0)
    before = np.zeros((len(values), 2), bool)
    for coverage in (0.5, 0.8, 0.9, 0.99):
        found = sets(by, values, np.zeros(len(values), bool), coverage)
        assert (found >= before).all()
        before = found
    with pytest.raises(BadInputError, match="coverage"):
        sets(by, values, np.zeros(len(values), bool), 1.0)


def test_one_group_alone_is_refused() -> None:
    with pytest.raises(BadInputError, match="both groups"):
        calibrate(np.zeros(3), np.ones(3, bool), np.arange(3), np.zeros(3, bool), 0.0)
