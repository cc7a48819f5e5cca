"""Repeated nested cross-validation of any recipe, fold by fold, on folds that all recipes share.

A recipe is a function from training and test rows to decision values of the test rows, and a calibration from the
training rows' out-of-fold values: what is not handed over cannot leak. A fold is a task of its own, so that folds
and repeats can run side by side; whoever runs them puts the pieces together again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from bids_app.errors import BadInputError
from bids_app.learning.division import folds
from bids_app.recommended.calibration import cuts, probability, sets
from bids_app.records.cohort import Fold
from bids_app.records.fitted import MapModel
from bids_app.records.recommended import Calibration, OutOfFold

CALLS = ("half", "equal", "sensitivity")


def not_stored() -> MapModel:
    """Refuse to make a model of a recipe that has none to store."""
    raise BadInputError("no model is stored of this recipe", remedy="use that of another one")


class Tested(NamedTuple):
    """A recipe's decision values for the test rows, its calibration, and what it chose (plain values).

    ``model`` makes the machine by features of a map, which is what is stored of it.
    """

    decisions: np.ndarray
    calibration: Calibration
    chosen: object
    model: Callable[[], MapModel] = not_stored


class Wanted(NamedTuple):
    """What is asked of every recipe: coverage of its conformal sets, and a sensitivity to find a threshold for.

    ``prevalence`` is that of the threshold where the probability is one half; None: that of the training participants.
    """

    coverage: float
    sensitivity: float
    prevalence: float | None = None


class Piece(NamedTuple):
    """What one fold gives for its test rows: ``calls`` (len(CALLS), n) and ``sets`` (n, 2) are bool."""

    decisions: np.ndarray
    probability: np.ndarray
    calls: np.ndarray
    sets: np.ndarray
    chosen: object


Recipe = Callable[[np.ndarray, np.ndarray, int], Tested]


def outer_folds(
    positive: np.ndarray, participants: np.ndarray, n_folds: int, repeats: int, seed: int
) -> tuple[tuple[Fold, ...], ...]:
    """Return the folds of every repeat, over participants; repeat r has the seed ``seed + r``."""
    if repeats < 1:
        raise BadInputError(f"{repeats} repeats are asked for", "nested cross-validation", "ask for 1 or more")
    return tuple(folds(positive, participants, n_folds, by="participant", seed=seed + r) for r in range(repeats))


def piece(recipe: Recipe, fold: Fold, seed: int, lesion_free: np.ndarray, wanted: Wanted) -> Piece:
    """Train on one fold, test, and say what the recipe says of its test rows: probability, calls and sets.

    Parameters
    ----------
    recipe : callable
        From training rows, test rows and a seed to `Tested`.
    fold : Fold
    seed : int
    lesion_free : ndarray of bool, shape (N,)
    wanted : Wanted
    """
    tested = recipe(fold.train, fold.validate, seed)
    by = tested.calibration
    found = cuts(by, wanted.sensitivity, wanted.prevalence)
    calls = np.stack([tested.decisions >= found[key] for key in CALLS])
    groups = sets(by, tested.decisions, lesion_free[fold.validate], wanted.coverage)
    return Piece(tested.decisions, probability(by, tested.decisions), calls, groups, tested.chosen)


def assemble(name: str, outer: Sequence[Sequence[Fold]], pieces: Sequence[Piece], n: int) -> OutOfFold:
    """Put the pieces of one recipe together: N scans, pieces in the order of repeats and folds."""
    shape = (len(outer), n)
    decisions, chance, fold = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, int)
    calls, groups = np.zeros((len(CALLS), *shape), bool), np.zeros((*shape, 2), bool)
    left = iter(pieces)
    for r, repeat in enumerate(outer):
        for number, each in enumerate(repeat):
            rows, found = each.validate, next(left)
            decisions[r, rows], chance[r, rows], fold[r, rows] = found.decisions, found.probability, number
            calls[:, r, rows], groups[r, rows] = found.calls, found.sets
    chosen = tuple(each.chosen for each in pieces)
    return OutOfFold(name, decisions, fold, chance, chosen, dict(zip(CALLS, calls, strict=True)), groups)


def run(
    name: str,
    recipe: Recipe,
    outer: Sequence[Sequence[Fold]],
    lesion_free: np.ndarray,
    wanted: Wanted,
    seed: int,
) -> OutOfFold:
    """Test every scan once in every repeat, one fold after the other; ``seed + r`` is that of repeat r."""
    pieces = [piece(recipe, fold, seed + r, lesion_free, wanted) for r, repeat in enumerate(outer) for fold in repeat]
    return assemble(name, outer, pieces, len(lesion_free))
