"""Order of voxels by the Pearson chi-square test of lesion x group.

At every voxel the scans of a training set form a 2 x 2 table::

                 lesion      no lesion
    positive       a          n1 - a        n1 scans
    negative       b          n0 - b        n0 scans

With k = a + b and N = n1 + n0, Pearson's statistic without continuity correction is

    chi2 = N (a n0 - b n1)^2 / (k (N - k) n1 n0).

N / (n1 n0) is the same at every voxel, so the order needs only ``(a n0 - b n1)^2 / (k (N - k))``:
one division of two exact integers, hence equal tables give equal scores and ties are ties.
`sklearn.feature_selection.chi2` is another test (it ignores the scans without lesion) with another order.
"""

from __future__ import annotations

import numpy as np

from bids_app.errors import BadInputError
from bids_app.records.cohort import Ranking

MAX_SCANS = 100_000  # (a n0 - b n1)^2 <= (N^2 / 4)^2 must fit in 63 bits


def check_groups(positive: np.ndarray, where: str) -> tuple[int, int]:
    """Return the number of positive and of negative scans.

    Raises
    ------
    BadInputError
        If one of the groups is empty, for then nothing can be told apart.
    """
    n1 = int(np.count_nonzero(positive))
    n0 = len(positive) - n1
    if n1 == 0 or n0 == 0:
        group = "positive" if n1 == 0 else "negative"
        raise BadInputError(
            f"none of the {len(positive)} scans belongs to the {group} group",
            where,
            "use fewer folds or more scans, so that both groups are in every training part",
        )
    return n1, n0


def check_maps(lesions: np.ndarray, positive: np.ndarray, where: str) -> None:
    """Check lesion maps (N, V) and labels (N,), both boolean; raise BadInputError otherwise."""
    if lesions.ndim != 2 or lesions.dtype != bool or lesions.shape[1] == 0:
        raise BadInputError(
            f"lesion maps are {lesions.dtype} of shape {lesions.shape}, not booleans, scans x voxels", where
        )
    if positive.shape != (len(lesions),) or positive.dtype != bool:
        raise BadInputError(
            f"labels are {positive.dtype} of shape {positive.shape}, not {len(lesions)} booleans", where
        )


def rank_counts(a: np.ndarray, b: np.ndarray, n1: int, n0: int) -> Ranking:
    """Rank voxels by how often they are lesioned in each group.

    Parameters
    ----------
    a, b : ndarray of int, shape (V,)
        Scans of the positive and of the negative group with a lesion in each voxel.
    n1, n0 : int
        Scans in the positive and in the negative group, at least 1 each.

    Returns
    -------
    Ranking
        Voxels never or always lesioned hold no table to test (k (N - k) = 0): statistic 0, at the end.
    """
    if n1 + n0 > MAX_SCANS:
        raise BadInputError(f"{n1 + n0} scans are too many", "ranking", f"use at most {MAX_SCANS}")
    a, b = np.asarray(a, np.int64), np.asarray(b, np.int64)
    lesioned = a + b
    difference = a * n0 - b * n1
    spread = lesioned * (n1 + n0 - lesioned)
    score = np.full(len(a), -1.0)
    np.divide(difference * difference, spread, out=score, where=spread > 0)
    return Ranking(
        order=np.argsort(-score, kind="stable"),
        chi2=np.maximum(score, 0.0) * ((n1 + n0) / (n1 * n0)),
        sign=np.sign(difference).astype(np.int8),
    )


def rank_voxels(lesions: np.ndarray, positive: np.ndarray) -> Ranking:
    """Rank voxels by the Pearson chi-square test of lesion x group, no continuity correction.

    Parameters
    ----------
    lesions : ndarray of bool, shape (N, V)
        Lesion maps of a training set.
    positive : ndarray of bool, shape (N,)
        True for the positive group.

    Raises
    ------
    BadInputError
        If shapes or types are wrong, or if all scans belong to one group.

    Examples
    --------
    >>> lesions = np.array([[1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]], bool)
    >>> ranking = rank_voxels(lesions, np.array([True, True, False, False]))
    >>> ranking.order.tolist(), ranking.chi2.round(2).tolist(), ranking.sign.tolist()
    ([0, 2, 1], [4.0, 0.0, 1.33], [1, 0, -1])
    """
    check_maps(lesions, positive, "ranking")
    n1, n0 = check_groups(positive, "ranking")
    a, total = np.zeros((2, lesions.shape[1]), np.int64)
    for scan, is_positive in zip(lesions, positive, strict=True):  # row by row: no copy of half the cohort
        total += scan
        if is_positive:
            a += scan
    return rank_counts(a, total - a, n1, n0)


def ties_at(ranking: Ranking, count: int) -> int:
    """Return how many voxels score as the last of the ``count`` chosen ones does (1: no tie).

    Raises
    ------
    BadInputError
        If ``count`` is not between 1 and V.
    """
    if not 1 <= count <= len(ranking.order):
        raise BadInputError(f"{count} voxels cannot be chosen of {len(ranking.order)}", "ranking")
    last = ranking.chi2[ranking.order[count - 1]]
    return int(np.count_nonzero(ranking.chi2 == last))
