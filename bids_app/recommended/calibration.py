"""From decision values to probabilities, thresholds and sets of groups; every participant weighs the same.

Probabilities are Platt's (in: Advances in Large Margin Classifiers, 1999; Newton's method of Lin, Lin and Weng,
Mach Learn 2007), fitted on out-of-fold values. Sets are class-conditional ("Mondrian") conformal ones (Vovk,
Gammerman and Shafer 2005), with the scans of one participant pooled as by Dunn, Wasserman and Ramdas (J Am Stat Assoc
2023): a group stays in the set unless the scan is less typical of it than nearly all of the group's participants.
"""

from __future__ import annotations

import numpy as np

from bids_app.errors import BadInputError
from bids_app.records.recommended import Brier, Calibration

NEWTON_STEPS = 100
CONVERGED = 1e-10
BINS = 10


def calibrate(
    decisions: np.ndarray, positive: np.ndarray, person: np.ndarray, lesion_free: np.ndarray, at_zero: float
) -> Calibration:
    """Return what turns further decision values of the same model into probabilities, calls and sets.

    Parameters
    ----------
    decisions : ndarray of float, shape (N,)
        Out of fold.
    positive, lesion_free : ndarray of bool, shape (N,)
    person : ndarray of int, shape (N,)
        Number of each scan's participant.
    at_zero : float
        The model's decision value for a scan without lesions.

    Raises
    ------
    BadInputError
        A group is missing, or a value is not finite.
    """
    if not np.isfinite(decisions).all() or positive.all() or not positive.any():
        raise BadInputError("calibration needs finite decision values of both groups", "calibration")
    weights = 1 / np.bincount(person)[person]
    slope, offset = platt(decisions, positive, weights)
    share = float(weights[positive].sum() / weights.sum())
    return Calibration(decisions, positive, lesion_free, weights, float(at_zero), slope, offset, share)


def platt(decisions: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Return slope and offset of Platt's sigmoid.

    Targets are (n+ + 1) / (n+ + 2) and 1 / (n- + 2) instead of 1 and 0, n being the sums of weights: it never
    claims certainty, however well the groups are told apart.

    Examples
    --------
    >>> slope, offset = platt(np.array([-1.0, 1, -1, 1]), np.array([False, True, True, True]), np.ones(4))
    >>> slope > 0
    True
    """
    n_positive, n_negative = weights[positive].sum(), weights[~positive].sum()
    target = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    unit = float(np.std(decisions)) or 1.0  # Newton's method likes values near 1
    design = np.stack([decisions / unit, np.ones(len(decisions))])
    found = np.array([0.0, np.log((n_positive + 1) / (n_negative + 1))])
    loss = _loss(found @ design, target, weights)
    for _ in range(NEWTON_STEPS):
        p = _sigmoid(found @ design)
        gradient = design @ (weights * (p - target))
        curvature = (design * (weights * p * (1 - p))) @ design.T + 1e-12 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while (tried := _loss((found - size * step) @ design, target, weights)) > loss and size > CONVERGED:
            size /= 2
        found, loss = found - size * step, tried
        if np.abs(size * step).max() < CONVERGED:
            break
    return float(found[0] / unit), float(found[1])


def probability(by: Calibration, decisions: np.ndarray, prevalence: float | None = None) -> np.ndarray:
    """Return P(positive group) of decision values, any shape.

    ``prevalence`` is the share of the positive group among those who are asked about; None: that of the training
    participants. Another one shifts the log odds by the difference of theirs, as Bayes' rule has it where the
    groups themselves look the same.
    """
    return _sigmoid(by.slope * decisions + by.offset + _shift(by, prevalence))


def moved(probability: np.ndarray, before: float, after: float) -> np.ndarray:
    """Return probabilities at the prevalence ``after`` of those at ``before``, any shape.

    Examples
    --------
    >>> moved(np.array([0.5]), 0.5, 0.95).round(3).tolist()
    [0.95]
    """
    odds = np.log(probability) - np.log1p(-probability)
    return _sigmoid(odds + _logit(after) - _logit(before))


def cuts(by: Calibration, sensitivity: float, prevalence: float | None = None) -> dict[str, float]:
    """Return decision values from which a scan is called positive, found on the calibration's values.

    ``half``: where the probability at this prevalence is 0.5; ``equal``: where sensitivity and specificity are nearest
    to each other; ``sensitivity``: the highest at which sensitivity is at least what is asked for.
    """
    values = np.unique(by.decisions)
    cut = np.concatenate([[values[0] - 1], (values[:-1] + values[1:]) / 2, [values[-1] + 1]])
    found, missed = (_share_at_least(by, group, cut) for group in (True, False))
    reached = np.flatnonzero(found >= sensitivity - 1e-12)
    return {
        "half": -(by.offset + _shift(by, prevalence)) / by.slope if by.slope else 0.0,
        "equal": float(cut[np.argmin(np.abs(found - (1 - missed)))]),
        "sensitivity": float(cut[reached[-1]]),
    }


def _share_at_least(by: Calibration, group: bool, cut: np.ndarray) -> np.ndarray:
    rows = by.positive == group
    order = np.argsort(by.decisions[rows])
    values, weights = by.decisions[rows][order], by.weights[rows][order]
    below = np.concatenate([[0.0], np.cumsum(weights)])[np.searchsorted(values, cut, "left")]
    share: np.ndarray = 1 - below / weights.sum()
    return share


def sets(by: Calibration, decisions: np.ndarray, lesion_free: np.ndarray, coverage: float) -> np.ndarray:
    """Return which groups each scan may belong to, (N, 2) bool: positive, negative.

    Of each group's scans the share ``coverage`` holds the group in its set. Scans without lesions all have the same
    decision value, one large tie: where they hold the group they do so all together, more often than asked for, and
    the others are then compared among themselves, so that theirs is the coverage asked for. Where calibration knows
    of no such scan, each is compared by its own decision value.

    Parameters
    ----------
    decisions : ndarray of float, shape (N,)
    lesion_free : ndarray of bool, shape (N,)
    coverage : float
        Between 0 and 1.

    Examples
    --------
    >>> values = np.linspace(-2, 2, 40)
    >>> by = calibrate(values, values > -1, np.arange(40), np.zeros(40, bool), 0.0)
    >>> sets(by, np.array([2.0, -2.0]), np.zeros(2, bool), 0.9).tolist()
    [[True, False], [False, True]]
    """
    if not 0 < coverage < 1:
        raise BadInputError(f"coverage is {coverage}", "conformal sets", "give a share between 0 and 1")
    found = np.zeros((len(decisions), 2), bool)
    for column, group in enumerate((True, False)):
        rows = by.positive == group
        sign = 1.0 if group else -1.0
        typical, weights, free = sign * by.decisions[rows], by.weights[rows], by.lesion_free[rows]
        # a scan without lesions ties with all others that have none, whatever fold those were decided in
        tied = weights[free | (typical <= sign * by.at_zero)].sum()
        free_stays = (1 + tied) / (1 + weights.sum()) > 1 - coverage
        among = ~free if free_stays else np.ones(len(free), bool)
        order = np.argsort(typical[among])
        less = np.concatenate([[0.0], np.cumsum(weights[among][order])])
        at_most = less[np.searchsorted(typical[among][order], sign * decisions, "right")]
        p = (1 + at_most) / (1 + weights[among].sum())
        found[:, column] = np.where(lesion_free & by.lesion_free.any(), free_stays, p > 1 - coverage)
    return found


def brier(probability: np.ndarray, positive: np.ndarray, weights: np.ndarray, bins: int = BINS) -> Brier:
    """Return the Brier score with its parts, from bins that hold equal weight.

    Parameters
    ----------
    probability, weights : ndarray of float, shape (N,)
    positive : ndarray of bool, shape (N,)

    Examples
    --------
    >>> found = brier(np.array([0.5, 0.5]), np.array([True, False]), np.ones(2))
    >>> found.value, found.uncertainty, found.skill
    (0.25, 0.25, 0.0)
    """
    share = weights / weights.sum()
    bin_of = _bins(probability, share, bins)
    rate = float(share[positive].sum())
    within = reliability = resolution = 0.0
    for k in np.unique(bin_of):
        rows = bin_of == k
        mass = share[rows].sum()
        p, y = probability[rows], positive[rows].astype(float)
        mean_p, mean_y = (float(share[rows] @ each / mass) for each in (p, y))
        reliability += mass * (mean_p - mean_y) ** 2
        resolution += mass * (mean_y - rate) ** 2
        within += float(share[rows] @ ((p - mean_p) ** 2 - 2 * (p - mean_p) * (y - mean_y)))
    value = float(share @ (probability - positive) ** 2)
    return Brier(value, float(reliability), float(resolution), rate * (1 - rate), within)


def reliability_curve(
    probability: np.ndarray, positive: np.ndarray, weights: np.ndarray, bins: int = BINS
) -> tuple[tuple[float, float, float], ...]:
    """Return, bin by bin, mean probability, share of the positive group, and the bin's share of all weight."""
    share = weights / weights.sum()
    bin_of = _bins(probability, share, bins)
    points = []
    for k in np.unique(bin_of):
        rows = bin_of == k
        mass = float(share[rows].sum())
        points.append((float(share[rows] @ probability[rows] / mass), float(share[rows & positive].sum() / mass), mass))
    return tuple(points)


def _bins(probability: np.ndarray, share: np.ndarray, bins: int) -> np.ndarray:
    """Return the bin (N,) of each probability; equal ones share a bin."""
    index = np.unique(probability, return_inverse=True)[1]
    mass = np.bincount(index, weights=share)
    middle = np.cumsum(mass) - mass / 2
    number: np.ndarray = np.minimum((middle * bins).astype(int), bins - 1)[index]
    return number


def _shift(by: Calibration, prevalence: float | None) -> float:
    """Return what another prevalence adds to the log odds."""
    return 0.0 if prevalence is None else _logit(prevalence) - _logit(by.prevalence)


def _sigmoid(odds: np.ndarray) -> np.ndarray:
    value: np.ndarray = np.exp(-np.logaddexp(0, -odds))
    return value


def _logit(share: float) -> float:
    if not 0 < share < 1:
        raise BadInputError(f"prevalence is {share}", "probability", "give a share between 0 and 1")
    return float(np.log(share / (1 - share)))


def _loss(odds: np.ndarray, target: np.ndarray, weights: np.ndarray) -> float:
    return float(weights @ (np.logaddexp(0, -odds) + (1 - target) * odds))
