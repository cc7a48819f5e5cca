"""How far raters and the classifier agree: kappa, McNemar's test, Table 2 of the publication."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from scipy.stats import norm
from statsmodels.stats.contingency_tables import mcnemar as _mcnemar
from statsmodels.stats.inter_rater import cohens_kappa

from bids_app.errors import BadInputError
from bids_app.learning import measures
from bids_app.records.cohort import Measure
from bids_app.records.results import Agreement, McNemar, RaterTable

SVM = "SVM"
EXACT_BELOW = 25  # discordant pairs under which the chi-square approximation is not trusted


def kappa(a: np.ndarray, b: np.ndarray) -> Measure:
    """Give Cohen's kappa of two reads with its 95 % interval.

    The interval is the large-sample one (Fleiss, Cohen and Everitt 1969; statsmodels), clipped to
    [-1, 1]. Kappa is nan when there are no pairs, or when both reads give one and the same answer
    throughout: agreement by chance is then complete.

    Parameters
    ----------
    a, b : ndarray, shape (N,)
        Booleans, or 1.0, 0.0 and nan for missing; pairs with a missing read are left out.

    Raises
    ------
    BadInputError
        When shapes differ or a value is none of 0, 1 and nan.

    Examples
    --------
    >>> kappa(np.array([1.0, 1.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0, 0.0])).value
    0.5
    """
    x, y = _pairs(a, b)
    method = "Cohen's kappa, large-sample interval"
    if not x.size or (x.all() and y.all()) or not (x.any() or y.any()):
        return Measure(float("nan"), float("nan"), float("nan"), method)
    with np.errstate(invalid="ignore"):  # statsmodels' z value is 0 / 0 when one read is constant
        found = cohens_kappa(_square(x, y))
    # Not its kappa_low: rounding can leave the variance a hair below zero, and the interval nan.
    reach = float(norm.ppf(0.975) * np.sqrt(max(found.var_kappa, 0.0)))
    value = float(found.kappa)
    return Measure(value, max(value - reach, -1.0), min(value + reach, 1.0), method)


def strength(kappa: float) -> str:
    """Give the word for a kappa, as in the publication (after Landis and Koch 1977).

    Below 0.2 slight (also when negative), up to 0.4 fair, up to 0.6 moderate, up to 0.8 substantial, above
    0.8 almost perfect. The publication says "< 0.2" and "> 0.8", so 0.2 is fair and 0.8 substantial; it
    leaves 0.4 and 0.6 open: they take the stronger word, as 0.2 does. Nan is "undefined".

    Examples
    --------
    >>> [strength(k) for k in (0.279, 0.414, 0.680)]
    ['fair', 'moderate', 'substantial']
    """
    if np.isnan(kappa):
        return "undefined"
    if kappa > 0.8:
        return "almost perfect"
    bounds = ((0.6, "substantial"), (0.4, "moderate"), (0.2, "fair"))
    return next((word for bound, word in bounds if kappa >= bound), "slight")


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> McNemar:
    """Test whether two raters are equally often correct on the same scans (McNemar 1947).

    With fewer than 25 discordant pairs the exact binomial test, two-sided; else chi-square with one degree
    of freedom and continuity correction, ``(|b - c| - 1)^2 / (b + c)``, as statsmodels does by default.

    Parameters
    ----------
    correct_a, correct_b : ndarray, shape (N,)
        Booleans, or 1.0, 0.0 and nan for missing; pairs with a missing read are left out.
    """
    x, y = _pairs(correct_a, correct_b)
    table = _square(x, y)
    b, c = int(table[1, 0]), int(table[0, 1])
    exact = b + c < EXACT_BELOW
    found = _mcnemar(table, exact=exact, correction=True)
    return McNemar(b, c, float("nan") if exact else float(found.statistic), float(found.pvalue), exact)


def table2(
    positive: np.ndarray,
    svm_calls: np.ndarray,
    raters: Mapping[str, np.ndarray],
    repeats: Mapping[str, np.ndarray],
) -> RaterTable:
    """Compare human raters with the truth, with themselves, with each other and with the SVM.

    Parameters
    ----------
    positive : ndarray of bool, shape (N,)
        True group of each test scan.
    svm_calls : ndarray of bool, shape (N,)
        Called positive by the SVM.
    raters : mapping of str to ndarray of float, shape (N,)
        First read: 1 positive, 0 negative, nan not read.
    repeats : mapping of str to ndarray of float, shape (N,)
        Second read of some scans by some of the raters.

    Returns
    -------
    RaterTable
        A rater's performance is on the scans that rater read; the SVM's on all. Every agreement is on the
        scans that both read, and McNemar's test compares rater (``b``) and SVM (``c``) there.

    Raises
    ------
    BadInputError
        When shapes differ, a value is none of 0, 1 and nan, a repeat belongs to no rater, or a rater is
        called "SVM".
    """
    positive, svm_calls = np.asarray(positive), np.asarray(svm_calls)
    if SVM in raters:
        raise BadInputError(f"a rater is called {SVM!r}", remedy="give the rater another name")
    for name in repeats:
        if name not in raters:
            raise BadInputError("second reads without first ones", where=name, remedy="add the first reads")
    performance = {SVM: measures.called(positive, svm_calls)}
    reads = {name: _reads(values, len(positive), name) for name, values in raters.items()}
    again = {name: _reads(values, len(positive), name) for name, values in repeats.items()}
    for name, values in reads.items():
        seen = ~np.isnan(values)
        performance[name] = measures.called(positive[seen], values[seen] == 1)
    svm = []
    for name, values in reads.items():
        correct = np.where(np.isnan(values), np.nan, values == positive)
        test = mcnemar(correct, svm_calls == positive)
        svm.append(_agreement(name, SVM, values, svm_calls, test))
    return RaterTable(
        performance,
        tuple(_agreement(name, name, reads[name], values) for name, values in again.items()),
        tuple(_agreement(a, b, reads[a], reads[b]) for a, b in combinations(reads, 2)),
        tuple(svm),
    )


def _agreement(first: str, second: str, a: np.ndarray, b: np.ndarray, test: McNemar | None = None) -> Agreement:
    found = kappa(a, b)
    return Agreement(first, second, len(_pairs(a, b)[0]), found, strength(found.value), test)


def _reads(values: np.ndarray, n: int, where: str) -> np.ndarray:
    """Return reads as (n,) floats that are 0, 1 or nan."""
    values = np.asarray(values, dtype=float)
    if values.shape != (n,):
        raise BadInputError(f"reads have shape {values.shape}, not ({n},)", where=where)
    if not np.all(np.isnan(values) | (values == 0) | (values == 1)):
        raise BadInputError("a read is none of 1 (positive), 0 (negative) and missing", where=where)
    return values


def _pairs(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs in which neither is missing, as booleans."""
    x, y = _reads(a, len(a), "first read"), _reads(b, len(a), "second read")
    both = ~(np.isnan(x) | np.isnan(y))
    return x[both] == 1, y[both] == 1


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the 2 x 2 table of counts, [x][y]."""
    return np.array([[np.sum((x == i) & (y == j)) for j in (False, True)] for i in (False, True)])
