"""The recipes that stand beside each other: each a function of training and test rows, as `nested.Recipe`.

Every one calibrates on out-of-fold values of its training participants, found with what it chose, so that their
probabilities, calls and sets can be compared.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bids_app.learning.division import folds
from bids_app.learning.protocols import Plan, select
from bids_app.learning.refit import refit
from bids_app.learning.sweep import Packed
from bids_app.recommended.calibration import calibrate, platt
from bids_app.recommended.machine import Trained, decide, labels_of, train
from bids_app.recommended.nested import Recipe, Tested, not_stored
from bids_app.recommended.products import Products
from bids_app.records.recommended import LinearModel


def recommended(
    of: Products,
    positive: np.ndarray,
    participants: np.ndarray,
    inner_folds: int,
    by_maps: Callable[[Trained], LinearModel] | None = None,
) -> Recipe:
    """Return the recommended recipe on the products of all scans (`products.products`); ``by_maps`` makes its model."""
    groups = labels_of(positive, participants)

    def recipe(training: np.ndarray, test: np.ndarray, seed: int) -> Tested:
        people = np.unique(of.person[training])
        seen = np.zeros(len(groups), bool)  # not even the labels of the others are handed over
        seen[people] = groups[people]
        trained = train(of, seen, people, inner_folds, seed)
        model = (lambda: by_maps(trained)) if by_maps else not_stored
        return Tested(decide(of, trained.dual, test), trained.calibration, trained.settings, model)

    return recipe


def all_phases(of: Products, positive: np.ndarray, inner_folds: int) -> Recipe:
    """Return the recommended recipe trained on more scans than are tested: those of all phases of the disease.

    The first rows of ``of`` are the scans that folds are made of; of participants who are tested none is trained on.
    """
    groups = labels_of(positive, of.person)

    def recipe(training: np.ndarray, test: np.ndarray, seed: int) -> Tested:
        people = np.setdiff1d(of.person, of.person[test])
        seen = np.zeros(len(groups), bool)
        seen[people] = groups[people]
        trained = train(of, seen, people, inner_folds, seed)
        return Tested(decide(of, trained.dual, test), trained.calibration, trained.settings)

    return recipe


def volume(log_volume: np.ndarray, positive: np.ndarray, participants: np.ndarray) -> Recipe:
    """Return logistic regression on the log volume (N,) alone, participants and groups weighing the same."""
    person = np.unique(participants, return_inverse=True)[1]

    def recipe(training: np.ndarray, test: np.ndarray, seed: int) -> Tested:
        seen, labels = log_volume[training], positive[training]
        weights = 1 / np.bincount(person)[person[training]]
        for group in (True, False):
            weights[labels == group] /= weights[labels == group].sum() / 2
        slope, offset = platt(seen, labels, weights * len(np.unique(person[training])) / 4)
        values = slope * log_volume + offset
        known = calibrate(values[training], labels, person[training], log_volume[training] == 0, offset)
        model = LinearModel((), (), slope, offset, ())
        return Tested(values[test], known, {"slope": slope, "offset": offset}, lambda: model)

    return recipe


def chi_square(lesions: np.ndarray, positive: np.ndarray, participants: np.ndarray, plan: Plan) -> Recipe:
    """Return the published classifier without leakage: count, C and gamma chosen within the training rows.

    ``lesions`` (N, V) bool are maps at one threshold for all folds.
    """
    person, free = np.unique(participants, return_inverse=True)[1], np.asarray(~lesions.any(axis=1))

    def recipe(training: np.ndarray, test: np.ndarray, seed: int) -> Tested:
        labels, people = positive[training], participants[training]
        packed = Packed.of(lesions, training)
        _, cell = select(packed, labels, people, plan)
        chosen = np.arange(cell.n_voxels)

        def decided(rows: np.ndarray, held: np.ndarray) -> np.ndarray:
            """Return the decision values of the scans held out, and of one without lesions."""
            voxels = packed.rank(labels, rows).order[chosen]
            train, others = (Packed.of(lesions, of, voxels) for of in (training[rows], held))
            return refit(train, labels[rows], others.and_an_empty_one(), [cell], chosen)[0].test

        values = np.empty(len(training))
        for fold in folds(labels, people, plan.cv_folds, by="participant", seed=seed):
            values[fold.validate] = decided(fold.train, training[fold.validate])[:-1]
        found = decided(np.arange(len(training)), test)
        known = calibrate(values, labels, person[training], free[training], found[-1])
        return Tested(found[:-1], known, cell)

    return recipe
