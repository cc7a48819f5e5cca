"""Division of a cohort into training and test set, folds, and permuted labels. Rows in, rows out."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedKFold

from bids_app.errors import BadInputError
from bids_app.records.cohort import Division, Fold

_UNITS = ("scan", "participant")


def by_participant(labels: np.ndarray, participants: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reduce labels of scans to labels of participants.

    Parameters
    ----------
    labels : ndarray, shape (N,)
        Group of each scan: booleans, or names.
    participants : ndarray of str, shape (N,)

    Returns
    -------
    names : ndarray of str, shape (P,)
        Participants in alphabetical order, so that nothing depends on the order of the scans.
    index : ndarray of int, shape (N,)
        Position of each scan's participant in ``names``.
    groups : ndarray, shape (P,)
        Group of each participant.

    Raises
    ------
    BadInputError
        When lengths differ, or when a participant stands in two groups.

    Examples
    --------
    >>> names, index, groups = by_participant(np.array([True, False, True]), np.array(["b", "a", "b"]))
    >>> names.tolist(), index.tolist(), groups.tolist()
    (['a', 'b'], [1, 0, 1], [False, True])
    """
    labels, participants = np.asarray(labels), np.asarray(participants)
    if labels.ndim != 1 or labels.shape != participants.shape:
        raise BadInputError(f"labels of shape {labels.shape} do not fit participants {participants.shape}")
    names, first, index = np.unique(participants, return_index=True, return_inverse=True)
    groups = labels[first]
    mixed = np.flatnonzero(labels != groups[index])
    if mixed.size:
        raise BadInputError(
            "the scans of this participant belong to two groups",
            where=names[index[mixed[0]]],
            remedy="correct the group in participants.tsv; a participant has one group",
        )
    return names, index, groups


def divide(
    positive: np.ndarray,
    participants: np.ndarray,
    test_fraction: float = 0.30,
    by: str = "scan",
    seed: int = 0,
) -> Division:
    """Divide at random, within each group, into a training and a test set.

    Of the n scans (or participants) of a group, ``(1 - test_fraction) * n`` go into training, rounded to
    the nearest whole number (halves up), with at least one on either side. 746 and 292 scans at 0.30 give
    522 + 204 for training and 224 + 88 for testing. The publication has 518 + 204 and 228 + 88: no single
    fraction with any one way of rounding gives both, so its first group was divided by another rule.

    Parameters
    ----------
    positive : ndarray of bool, shape (N,)
    participants : ndarray of str, shape (N,)
    test_fraction : float
        Share of the test set, between 0 and 1.
    by : {"scan", "participant"}
        What is drawn. By scan (as published) one participant's scans may stand on both sides; by
        participant they never do.
    seed : int

    Returns
    -------
    Division
        Rows in ascending order.

    Raises
    ------
    BadInputError
        When a group has fewer than two scans (or participants), the fraction is not between 0 and 1, or,
        by participant, when one stands in two groups.
    """
    if not 0 < test_fraction < 1:
        raise BadInputError(f"test fraction is {test_fraction}", remedy="give a number between 0 and 1")
    units, labels = _units(positive, participants, by)
    rng = np.random.default_rng(seed)
    in_training = np.zeros(len(labels), dtype=bool)
    for level in (True, False):
        members = np.flatnonzero(labels == level)
        _need_two(len(members), by, level)
        n_train = int(np.floor(len(members) * (1 - test_fraction) + 0.5))
        n_train = min(max(n_train, 1), len(members) - 1)
        in_training[rng.permutation(members)[:n_train]] = True
    rows = in_training[units]
    return Division(np.flatnonzero(rows), np.flatnonzero(~rows), by)


def folds(
    positive: np.ndarray,
    participants: np.ndarray,
    n_folds: int = 10,
    by: str = "scan",
    seed: int = 0,
) -> tuple[Fold, ...]:
    """Make cross-validation folds in which every part, training and validation, holds both groups.

    By participant, the folds are balanced within each group by number of scans (``GroupKFold``) and
    joined. ``StratifiedGroupKFold`` is not used: where one participant has hundreds of scans, it takes
    folds for equally good that are not, and leaves some without one of the groups. A group with fewer
    scans (or participants) than ``n_folds`` reduces the number of folds to what it has; the length of the
    result tells.

    Parameters
    ----------
    positive : ndarray of bool, shape (N,)
    participants : ndarray of str, shape (N,)
    n_folds : int
        At least 2.
    by : {"scan", "participant"}
        By participant, no participant is in training and validation of one fold.
    seed : int

    Returns
    -------
    tuple of Fold
        Each row is validated in exactly one of them. Rows ascend.

    Raises
    ------
    BadInputError
        When a group has fewer than two scans (or participants), ``n_folds`` is below 2, or, by
        participant, when one stands in two groups.
    """
    if n_folds < 2:
        raise BadInputError(f"{n_folds} folds are asked for", remedy="ask for 2 or more")
    positive = np.asarray(positive)
    units, labels = _units(positive, participants, by)
    for level in (True, False):
        n_units = int(np.sum(labels == level))
        _need_two(n_units, by, level)
        n_folds = min(n_folds, n_units)
    if by == "scan":
        splitter = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
        return _as_folds((validate for _, validate in splitter.split(positive, positive)), len(positive))
    # GroupKFold places participants largest first and orders equal ones by name; new names drawn at random
    # give every seed its own folds while the sizes stay balanced.
    renamed = np.random.default_rng(seed).permutation(len(labels))[units]
    parts: list[list[np.ndarray]] = [[] for _ in range(n_folds)]
    for level in (True, False):
        rows = np.flatnonzero(positive == level)
        for part, (_, held_out) in zip(parts, GroupKFold(n_folds).split(rows, groups=renamed[rows]), strict=True):
            part.append(rows[held_out])
    return _as_folds((np.concatenate(part) for part in parts), len(positive))


def permute(positive: np.ndarray, participants: np.ndarray, seed: int, within: np.ndarray | None = None) -> np.ndarray:
    """Permute the labels over participants: each keeps one label for all of its scans.

    Parameters
    ----------
    positive : ndarray of bool, shape (N,)
    participants : ndarray of str, shape (N,)
    seed : int
    within : ndarray of int, shape (N,), optional
        Fold of each scan, the same for all scans of a participant: labels then change places inside a fold only.

    Returns
    -------
    ndarray of bool, shape (N,)
        As many positive participants as before (not as many positive scans), with ``within`` in every fold.

    Raises
    ------
    BadInputError
        When a participant stands in two groups, or in two folds.
    """
    units, labels = _units(positive, participants, "participant")
    rng = np.random.default_rng(seed)
    if within is None:
        return rng.permutation(labels)[units]
    _, _, folds = by_participant(within, participants)
    for fold in np.unique(folds):
        labels[folds == fold] = rng.permutation(labels[folds == fold])
    return labels[units]


def _units(positive: np.ndarray, participants: np.ndarray, by: str) -> tuple[np.ndarray, np.ndarray]:
    """Give each row's unit (N,) and each unit's label (n_units,)."""
    if by not in _UNITS:
        raise BadInputError(f"unit is {by!r}", remedy=f"choose one of {', '.join(_UNITS)}")
    positive = np.asarray(positive)
    if positive.dtype != bool or positive.ndim != 1 or len(positive) != len(participants):
        raise BadInputError("labels must be one boolean a scan, and each scan needs a participant")
    if by == "scan":
        return np.arange(len(positive)), positive
    _, index, labels = by_participant(positive, participants)
    return index, labels


def _need_two(n_units: int, by: str, level: bool) -> None:
    if n_units < 2:
        raise BadInputError(
            f"the {'positive' if level else 'negative'} group has {n_units} {by}(s)",
            remedy=f"add data: each group needs at least 2 {by}s to train on one and test on another",
        )


def _as_folds(held_out: Iterable[np.ndarray], n_rows: int) -> tuple[Fold, ...]:
    result = []
    for rows in held_out:
        validate = np.sort(rows)
        result.append(Fold(np.setdiff1d(np.arange(n_rows), validate), validate))
    return tuple(result)
