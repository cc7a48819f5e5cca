"""Areas under the ROC curve with DeLong's interval: of all pairs of scans, or of pairs of the same fold."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm, rankdata

from bids_app.errors import BadInputError
from bids_app.records.cohort import Measure

_NAN = float("nan")


def checked(positive: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (N,) and values (N,) as arrays; refuse what is no boolean, of another length, or nan."""
    positive, values = np.asarray(positive), np.asarray(values, dtype=float)
    if positive.dtype != bool or positive.ndim != 1 or values.shape != positive.shape:
        raise BadInputError(f"{positive.shape} boolean labels do not fit values of shape {values.shape}")
    if np.isnan(values).any():
        raise BadInputError("a decision value or volume is nan", where=f"row {int(np.argmax(np.isnan(values)))}")
    return positive, values


def auc(positive: np.ndarray, decisions: np.ndarray, alpha: float = 0.05) -> Measure:
    """Give the area under the ROC curve with DeLong's interval.

    Area and structural components come from midranks in O(N log N) (DeLong, DeLong and Clarke-Pearson
    1988; Sun and Xu 2014). The interval is the plain normal one, clipped to [0, 1]; it is nan when a group
    has fewer than two scans, and of no width when the groups are perfectly separated.
    """
    positive, decisions = checked(positive, decisions)
    if not (positive.any() and not positive.all()):
        return Measure(_NAN, _NAN, _NAN, "DeLong")
    area, variance = _area(positive, decisions)
    return _interval(area, variance, alpha, "DeLong")


def _area(positive: np.ndarray, decisions: np.ndarray) -> tuple[float, float]:
    """Return the area under the ROC curve and DeLong's variance of it (nan where a group has one scan only)."""
    x, y = decisions[positive], decisions[~positive]
    ranks = rankdata(np.concatenate([x, y]))
    # Share of the other group that each scan outdoes, ties counting one half.
    over_y = (ranks[: len(x)] - rankdata(x)) / len(y)
    under_x = 1 - (ranks[len(x) :] - rankdata(y)) / len(x)
    if min(len(x), len(y)) < 2:
        return float(over_y.mean()), _NAN
    return float(over_y.mean()), float(over_y.var(ddof=1) / len(x) + under_x.var(ddof=1) / len(y))


def _interval(area: float, variance: float, alpha: float, method: str) -> Measure:
    """Return an area with its plain normal interval, clipped to [0, 1]; nan where the variance is."""
    reach = float(norm.ppf(1 - alpha / 2) * np.sqrt(variance))
    if np.isnan(reach):
        return Measure(area, _NAN, _NAN, method)
    return Measure(area, max(area - reach, 0.0), min(area + reach, 1.0), method)


def auc_within(positive: np.ndarray, decisions: np.ndarray, fold: np.ndarray, alpha: float = 0.05) -> Measure:
    """Give the AUC of out-of-fold decision values that compares scans of the same fold only.

    Pairs won over pairs of the same fold, summed over folds; equally the mean of the folds' areas, each weighed by
    its pairs. Values of different folds come from different models and have different scales: over all pairs the same
    classifier scores less. DeLong's variance of each fold's area, folds taken as independent, gives the interval.

    Parameters
    ----------
    positive : ndarray of bool, shape (N,)
    decisions : ndarray of float, shape (N,)
    fold : ndarray of int, shape (N,)
        A fold with one group only has no pair and does not count.

    Examples
    --------
    >>> scaled = np.array([2.0, 1.0, 20.0, 10.0])  # each fold is in order, on a scale of its own
    >>> auc_within(np.array([True, False, True, False]), scaled, np.array([0, 0, 1, 1])).value
    1.0
    """
    positive, decisions = checked(positive, decisions)
    parts = [np.flatnonzero(fold == k) for k in np.unique(fold)]
    pairs = np.array([positive[rows].sum() * (~positive[rows]).sum() for rows in parts], float)
    method = "DeLong, within folds"
    if not pairs.sum():
        return Measure(_NAN, _NAN, _NAN, method)
    found = [_area(positive[rows], decisions[rows]) for rows, n in zip(parts, pairs, strict=True) if n]
    share = pairs[pairs > 0] / pairs.sum()
    area = float(share @ [value for value, _ in found])
    return _interval(area, float(share**2 @ [variance for _, variance in found]), alpha, method)
