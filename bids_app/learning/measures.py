"""How well a classifier did: measures with their intervals, bootstrap over participants, baselines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm, t
from statsmodels.stats.proportion import proportion_confint

from bids_app.errors import BadInputError
from bids_app.learning.division import by_participant
from bids_app.learning.roc import auc, auc_within, checked
from bids_app.records.cohort import Measure, Performance

_NAN = float("nan")


def performance(positive: np.ndarray, decisions: np.ndarray, alpha: float = 0.05) -> Performance:
    """Measure a classifier by its decision values.

    Parameters
    ----------
    positive : ndarray of bool, shape (N,)
        True group of each scan.
    decisions : ndarray of float, shape (N,)
        Called positive where ``>= 0``.
    alpha : float
        1 - coverage of the intervals.

    Returns
    -------
    Performance
        Proportions with Wilson's interval without continuity correction; area under the ROC curve with
        DeLong's. What a missing group leaves undefined is nan.

    Raises
    ------
    BadInputError
        When lengths differ or a decision value is nan.

    Examples
    --------
    >>> performance(np.array([True, True, False]), np.array([0.5, -1.0, -2.0])).sensitivity.value
    0.5
    """
    positive, decisions = checked(positive, decisions)
    return _measured(positive, decisions >= 0, auc(positive, decisions, alpha), alpha)


def called(positive: np.ndarray, called_positive: np.ndarray, alpha: float = 0.05) -> Performance:
    """Measure calls (N,) of bool, such as a human rater's, as :func:`performance` does; no AUC."""
    called_positive = np.asarray(called_positive)
    if called_positive.dtype != bool:
        raise BadInputError(f"calls are {called_positive.dtype}", remedy="give one boolean a scan")
    positive, _ = checked(positive, called_positive)
    return _measured(positive, called_positive, None, alpha)


def wilson(count: int, total: int, alpha: float = 0.05) -> Measure:
    """Give a proportion with Wilson's score interval, no continuity correction (Wilson 1927).

    Examples
    --------
    >>> m = wilson(131, 228)
    >>> round(m.value, 3), round(m.low, 3), round(m.high, 3)
    (0.575, 0.51, 0.637)
    """
    if total == 0:
        return Measure(_NAN, _NAN, _NAN, "Wilson")
    low, high = proportion_confint(count, total, alpha=alpha, method="wilson")
    return Measure(count / total, float(low), float(high), "Wilson")


def bootstrap(
    positive: np.ndarray,
    decisions: np.ndarray,
    participants: np.ndarray,
    n_draws: int = 2000,
    seed: int = 0,
    fold: np.ndarray | None = None,
) -> dict[str, Measure]:
    """Give intervals that know that the scans of one participant are not independent.

    Participants are drawn with replacement within their group, each with all of its scans (the cluster
    bootstrap, Field and Welsh 2007). The interval is that of the expanded percentiles (Hesterberg 2015), since
    plain ones are too narrow where a group has few participants.

    Parameters
    ----------
    positive : ndarray of bool, shape (N,)
    decisions : ndarray of float, shape (N,)
        Called positive where ``>= 0``.
    participants : ndarray of str, shape (N,)
    n_draws, seed : int
    fold : ndarray of int, shape (N,), optional
        The AUC then compares scans of the same fold only (:func:`auc_within`).

    Returns
    -------
    dict
        ``sensitivity``, ``specificity``, ``accuracy``, ``auc``: the values of :func:`performance`. An
        interval is nan when a group it draws from has fewer than two participants.

    Raises
    ------
    BadInputError
        When a participant stands in two groups, or ``n_draws`` is below 1.
    """
    if n_draws < 1:
        raise BadInputError(f"{n_draws} bootstrap draws are asked for", remedy="ask for 1 or more")
    positive, decisions = checked(positive, decisions)
    _, index, is_positive = by_participant(positive, participants)
    sizes = np.bincount(index, minlength=len(is_positive))
    hits = np.bincount(index, weights=(decisions >= 0) == positive, minlength=len(is_positive))
    # A draw weighs whole participants, so sums over each one's scans, taken once, are all it needs.
    rng = np.random.default_rng(seed)
    drawn, drawn_negative = (_draw(int(np.sum(is_positive == level)), n_draws, rng) for level in (True, False))
    tp, n_positive = drawn @ hits[is_positive], drawn @ sizes[is_positive]
    tn, n_negative = drawn_negative @ hits[~is_positive], drawn_negative @ sizes[~is_positive]
    wins, pairs = (
        np.sum((drawn @ each) * drawn_negative, axis=1) for each in _wins(index, is_positive, decisions, fold)
    )
    units, units_negative = drawn.shape[1], drawn_negative.shape[1]
    fewest = min(units, units_negative)
    ratios = {
        "sensitivity": (tp, n_positive, units),
        "specificity": (tn, n_negative, units_negative),
        "accuracy": (tp + tn, n_positive + n_negative, fewest),
        "auc": (wins, pairs, fewest),
    }
    whole = performance(positive, decisions)
    values = {key: getattr(whole, key).value for key in ratios}
    if fold is not None:
        values["auc"] = auc_within(positive, decisions, fold).value
    method = f"bootstrap over participants, {n_draws} draws"
    result = {}
    for key, (share, total, n) in ratios.items():
        tail = _expanded(n) / 2 if n > 1 else _NAN
        known = total > 0  # a draw without any pair of one fold tells nothing
        ends = np.quantile(share[known] / total[known], [tail, 1 - tail]) if n > 1 and known.any() else [_NAN, _NAN]
        result[key] = Measure(values[key], float(ends[0]), float(ends[1]), method)
    return result


def _expanded(n: int, alpha: float = 0.05) -> float:
    """Return the alpha at which percentiles of ``n`` drawn units are as wide as a t interval of their mean.

    ``2 Phi(-sqrt(n / (n - 1)) t)`` with t the quantile of Student's distribution with n - 1 degrees of freedom
    (Hesterberg, Am Stat 2015, doi:10.1080/00031305.2015.1089789).
    """
    quantile = t.isf(alpha / 2, n - 1)
    return float(2 * norm.sf(np.sqrt(n / (n - 1)) * quantile))


def optimism(published: Measure, honest: Measure) -> float:
    """Give how much the published evaluation exceeds the leakage-free one."""
    return published.value - honest.value


def permutation_p(observed: float, permuted: Sequence[float]) -> float:
    """Give the p value of a permutation test, ``(1 + #{permuted >= observed}) / (1 + n)``.

    One is added so that p is never 0 (Phipson and Smyth 2010).

    Raises
    ------
    BadInputError
        When a value is nan: it would count as below the observed one.
    """
    values = np.asarray(permuted, dtype=float)
    if np.isnan(observed) or np.isnan(values).any():
        raise BadInputError("a value of the permutation test is undefined", remedy="each run needs both groups")
    return float((1 + np.sum(values >= observed)) / (1 + values.size))


def lesion_free(cohort_lesions_sum: np.ndarray, positive: np.ndarray, decisions: np.ndarray) -> dict[str, int]:
    """Count how the scans without any lesion were classified (published: 44 of 47 NMOSD ones as NMOSD).

    ``cohort_lesions_sum`` is the number of lesion voxels of each scan, (N,). Keys ``positive`` and
    ``negative`` count the scans without lesion in each group; ``tp``, ``fn``, ``tn``, ``fp`` how they were
    called.
    """
    positive, decisions = checked(positive, decisions)
    volumes = np.asarray(cohort_lesions_sum)
    if volumes.shape != positive.shape:
        raise BadInputError(f"{len(positive)} scans need {len(positive)} lesion sums, not {volumes.shape}")
    found = _counts(positive[volumes == 0], decisions[volumes == 0] >= 0)
    return {"positive": found["tp"] + found["fn"], "negative": found["tn"] + found["fp"], **found}


def majority(positive_train: np.ndarray, positive_test: np.ndarray) -> Performance:
    """Measure the baseline that calls every scan the larger training group (positive on a tie)."""
    train, test = np.asarray(positive_train, dtype=bool), np.asarray(positive_test, dtype=bool)
    if not train.size:
        raise BadInputError("the training set is empty")
    return performance(test, np.full(test.shape, 1.0 if 2 * train.sum() >= train.size else -1.0))


def lesion_volume(
    volume_train: np.ndarray, positive_train: np.ndarray, volume_test: np.ndarray, positive_test: np.ndarray
) -> Performance:
    """Measure the baseline that knows only how large the lesions are.

    One threshold, midway between two neighbouring training volumes, and its direction have the highest
    training accuracy; on ties the lower threshold, then "more is positive". The decision value is the
    signed distance to the threshold.

    Parameters
    ----------
    volume_train, volume_test : ndarray of float, shape (N_train,), (N_test,)
        Lesion volume of each scan, in any unit.
    positive_train, positive_test : ndarray of bool, same shapes

    Raises
    ------
    BadInputError
        When the training set is empty, lengths differ or a volume is nan.
    """
    positive_train, volume_train = checked(positive_train, volume_train)
    positive_test, volume_test = checked(positive_test, volume_test)
    if not volume_train.size:
        raise BadInputError("the training set is empty")
    values = np.unique(volume_train)
    # One volume only: no threshold helps, and one below it allows to call all scans either way.
    cuts = (values[:-1] + values[1:]) / 2 if len(values) > 1 else values - 1
    # Positive scans below each cut, and negative ones.
    below = np.searchsorted(np.sort(volume_train[positive_train]), cuts)
    below_negative = np.searchsorted(np.sort(volume_train[~positive_train]), cuts)
    more_is_positive = positive_train.sum() - below + below_negative
    correct = np.stack([more_is_positive, len(positive_train) - more_is_positive], axis=1)
    cut, direction = np.unravel_index(np.argmax(correct), correct.shape)
    distance = volume_test - cuts[cut]
    return performance(positive_test, distance if direction == 0 else -distance)


def _counts(positive: np.ndarray, called_positive: np.ndarray) -> dict[str, int]:
    return {
        "tp": int(np.sum(positive & called_positive)),
        "fn": int(np.sum(positive & ~called_positive)),
        "tn": int(np.sum(~positive & ~called_positive)),
        "fp": int(np.sum(~positive & called_positive)),
    }


def _measured(positive: np.ndarray, called_positive: np.ndarray, area: Measure | None, alpha: float) -> Performance:
    n = _counts(positive, called_positive)
    tp, fn, tn, fp = n["tp"], n["fn"], n["tn"], n["fp"]
    shares = wilson(tp, tp + fn, alpha), wilson(tn, tn + fp, alpha), wilson(tp + tn, len(positive), alpha)
    return Performance(tp, fn, tn, fp, *shares, auc=area)


def _draw(n: int, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draw n of n with replacement: how often each was drawn, (n_draws, n)."""
    if n == 0:
        return np.zeros((n_draws, 0))
    return rng.multinomial(n, np.full(n, 1 / n), size=n_draws).astype(float)


def _wins(
    index: np.ndarray, is_positive: np.ndarray, decisions: np.ndarray, fold: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Count the scan pairs that each positive participant wins over each negative one, ties one half, and all pairs.

    With ``fold`` only pairs of scans of the same fold count.
    """
    folds = np.zeros(len(index), int) if fold is None else fold
    n, m = int(is_positive.sum()), int((~is_positive).sum())
    wins, pairs = np.zeros((n, m)), np.zeros((n, m))
    for column, participant in enumerate(np.flatnonzero(~is_positive)):
        for part in np.unique(folds[index == participant]):
            other = np.sort(decisions[(index == participant) & (folds == part)])
            rows = np.flatnonzero(is_positive[index] & (folds == part))
            score = np.searchsorted(other, decisions[rows], "left") + np.searchsorted(other, decisions[rows], "right")
            for total, weights in ((wins, score / 2), (pairs, np.full(len(rows), float(len(other))))):
                counted = np.bincount(index[rows], weights=weights, minlength=len(is_positive))
                total[:, column] += counted[is_positive]
    return wins, pairs
