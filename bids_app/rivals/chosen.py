"""A classifier whose setting is chosen and whose values are calibrated over the training participants alone.

Whatever learns can stand beside the other recipes: it says how it is trained with one setting on some rows, and gets
the rest here. The setting is the one with the highest AUC of participants within the inner folds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bids_app.learning.division import by_participant, folds
from bids_app.learning.protocols import fold_numbers
from bids_app.learning.roc import auc_within
from bids_app.recommended.calibration import calibrate
from bids_app.recommended.nested import Recipe, Tested, not_stored
from bids_app.records.fitted import MapModel

EMPTY = np.array([-1])  # the row of a scan without lesions: features end with it

Setting = Mapping[str, float | str]


class Machine(NamedTuple):
    """What was trained: from rows to their decision values, and what makes the model that is stored of it."""

    decide: Callable[[np.ndarray], np.ndarray]
    model: Callable[[], MapModel] = not_stored


class Rows(NamedTuple):
    """What a classifier is trained on: rows of its features, their labels, and how much each weighs."""

    rows: np.ndarray
    positive: np.ndarray
    weights: np.ndarray


Fit = Callable[[Rows, Setting, int], Machine]


class People(NamedTuple):
    """Label, participant's number and lack of any lesion of all scans, (N,) each."""

    positive: np.ndarray
    person: np.ndarray
    lesion_free: np.ndarray

    def untied(self) -> People:
        """Return them for recipes that tell scans without lesions apart, by belief or covariates: none ties."""
        return self._replace(lesion_free=np.zeros_like(self.lesion_free))


def recipe(fit: Fit, settings: Sequence[Setting], people: People, inner_folds: int) -> Recipe:
    """Return a classifier as a recipe.

    Parameters
    ----------
    fit : callable
        From training rows, a setting and a seed to a machine. It sees labels of training rows only.
    settings : sequence of mapping
        What is tried; the first wins ties.
    people : People
    inner_folds : int
    """

    def tested(training: np.ndarray, test: np.ndarray, seed: int) -> Tested:
        labels, person = people.positive[training], people.person[training]
        inner = folds(labels, person, inner_folds, by="participant", seed=seed)
        found = np.empty((len(settings), len(training)))
        for fold in inner:
            seen = rows_of(people, training[fold.train])
            for values, setting in zip(found, settings, strict=True):
                values[fold.validate] = fit(seen, setting, seed).decide(training[fold.validate])
        areas = [auc_of_participants(labels, person, values, fold_numbers(inner)) for values in found]
        best = int(np.argmax(areas))
        machine = fit(rows_of(people, training), settings[best], seed)
        at_zero = float(machine.decide(EMPTY)[0])
        known = calibrate(found[best], labels, person, people.lesion_free[training], at_zero)
        return Tested(machine.decide(test), known, {**settings[best], "auc": areas[best]}, machine.model)

    return tested


def rows_of(people: People, rows: np.ndarray) -> Rows:
    """Return training rows with labels and weights."""
    return Rows(rows, people.positive[rows], balanced(people.positive[rows], people.person[rows]))


def balanced(positive: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Return weights (n,) with which participants weigh the same within their group, and both groups too; mean 1.

    Examples
    --------
    >>> balanced(np.array([True, True, True, False]), np.array([0, 0, 1, 2])).tolist()
    [0.5, 0.5, 1.0, 2.0]
    """
    weights = 1 / np.bincount(person)[person]
    for group in (True, False):
        rows = positive == group
        weights[rows] *= len(positive) / (2 * weights[rows].sum())
    return weights


def auc_of_participants(positive: np.ndarray, person: np.ndarray, values: np.ndarray, place: np.ndarray) -> float:
    """Return the AUC within folds (``place``: each scan's) of the participants' mean values; all (n,)."""
    _, index, groups = by_participant(positive, person)
    mean = np.bincount(index, weights=values) / np.bincount(index)
    first = np.unique(index, return_index=True)[1]
    return auc_within(groups, mean, place[first]).value
