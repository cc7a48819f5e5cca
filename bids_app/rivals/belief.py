"""Continuous hyperintensity instead of binary lesions: belief above the norm of its place, and how voxels are ranked.

The publication's authors name it as a wish. The chi-square test needs lesions that are there or not; for numbers,
Welch's t test takes its place, and the rest of their recipe stays: the top-ranked voxels, an RBF kernel, C and gamma
by cross-validation accuracy, here over participants and with the ranking made anew in every fold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bids_app.errors import BadInputError
from bids_app.learning.classifier import train_svc
from bids_app.learning.division import folds
from bids_app.learning.protocols import GRID, Plan
from bids_app.learning.refit import REFIT_TOL
from bids_app.learning.solver import Path, solve_path
from bids_app.learning.starts import Problem
from bids_app.learning.sweep import DIGITS
from bids_app.recommended.calibration import calibrate
from bids_app.recommended.nested import Recipe, Tested
from bids_app.records.cohort import Cell
from bids_app.records.machines import Radial
from bids_app.rivals.chosen import People

Z = 2.54  # SD above the median of a place that its norm reaches to, as published for the whole brain
SD_PER_MAD = 1.4826
LEAST_SD = 0.03  # of belief at a place: less is chance
COUNTS = (1, 4, 16, 64, 256, 1024, 4096)  # voxels tried: few, since every count costs a kernel a gamma
TOL = 1e-3
CHUNK = 4096  # voxels at a time


def limit(belief: np.ndarray, person: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """Return how far belief is normal at each place, float64 (V,).

    The norm is that of the cohort itself: median and MAD over the participants' mean maps, reaching to the median +
    2.54 SD. It looks at no label, so it is made once; or anew in every fold, from the training ``rows`` alone.

    Parameters
    ----------
    belief : ndarray of float, shape (N, V)
        Normalised belief maps over the mask's voxels.
    person : ndarray of int, shape (N,)
    rows : ndarray of int, optional
        Scans that the norm is of. None: all.
    """
    rows = np.arange(len(belief)) if rows is None else rows
    who = np.unique(person[rows], return_inverse=True)[1]
    found, counts = np.empty(belief.shape[1]), np.bincount(who)
    for start in range(0, belief.shape[1], CHUNK):
        part = slice(start, start + CHUNK)
        means = np.zeros((len(counts), belief[:, part].shape[1]))
        np.add.at(means, who, belief[rows, part])
        means /= counts[:, None]
        centre = np.median(means, axis=0)
        sd = np.maximum(SD_PER_MAD * np.median(np.abs(means - centre), axis=0), LEAST_SD)
        found[part] = centre + Z * sd
    return found


def above(belief: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Return what of belief (N, V) is above its limit (V,), float32, 0 below.

    Examples
    --------
    >>> belief = np.array([[0.0, 0.0], [0.1, 0.0], [-0.1, 0.0], [1.0, 0.0]])
    >>> above(belief, limit(belief, np.arange(4))).astype(float).round(2).tolist()
    [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.57, 0.0]]
    """
    found = np.empty(belief.shape, np.float32)
    for start in range(0, belief.shape[1], CHUNK):
        part = slice(start, start + CHUNK)
        found[:, part] = np.maximum(belief[:, part] - limit[part], 0)
    return found


def welch(values: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Return Welch's t of every column of (n, V), positive against negative rows; 0 where nothing varies."""
    sides = [values[rows].astype(np.float64) for rows in (positive, ~positive)]
    means = [each.mean(axis=0) for each in sides]
    errors = [each.var(axis=0, ddof=1) / len(each) for each in sides]
    error = np.sqrt(errors[0] + errors[1])
    t: np.ndarray = np.divide(means[0] - means[1], error, out=np.zeros(values.shape[1]), where=error > 0)
    return t


def ranked(values: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Return the voxels (V,) by the size of Welch's t, largest first; ties by voxel index."""
    return np.argsort(-np.abs(welch(values, positive)), kind="stable")


def welch_svm(values: np.ndarray, people: People, plan: Plan) -> Recipe:
    """Return the leakage-free published recipe on belief above its norm (N, V), ranked by Welch's t test."""
    counts = [n for n in COUNTS if n <= values.shape[1]]

    def recipe(training: np.ndarray, test: np.ndarray, seed: int) -> Tested:
        seen, labels, person = values[training], people.positive[training], people.person[training]
        for group in (True, False):
            if np.sum(labels == group) < 3:
                raise BadInputError("a group has fewer than 3 training scans", "Welch's t test", "use fewer folds")
        unit = _unit(seen)
        found = np.empty((len(counts), len(GRID.C), len(GRID.gamma), len(training)))
        for fold in folds(labels, person, plan.cv_folds, by="participant", seed=seed):
            order = ranked(seen[fold.train], labels[fold.train])
            copies = np.zeros(len(training))
            copies[fold.train] = 1
            for k, squared in enumerate(_nested(seen / unit, order, counts)):
                for g, gamma in enumerate(GRID.gamma):
                    kernel = np.exp(-gamma * squared)
                    np.fill_diagonal(kernel, 1)
                    found[k, :, g, fold.validate] = _path(kernel, labels, copies)[:, fold.validate].T
        accuracy = np.round(((found >= 0) == labels).mean(axis=-1), DIGITS)
        k, c, g = (int(each) for each in np.unravel_index(np.argmax(accuracy), accuracy.shape))
        cell = Cell(counts[k], GRID.C[c], GRID.gamma[g], float(accuracy[k, c, g]))
        voxels = ranked(seen, labels)[: cell.n_voxels]
        empty = np.zeros((1, len(voxels)), np.float32)
        all_rows = np.concatenate([seen[:, voxels], values[test][:, voxels], empty]) / unit
        kernel = np.exp(-cell.gamma * _squared(all_rows, all_rows[: len(training)]))
        trained = train_svc(kernel[: len(training)], labels, cell.C, REFIT_TOL)
        decisions = trained.decide(kernel[len(training) :])
        known = calibrate(found[k, c, g], labels, person, people.lesion_free[training], float(decisions[-1]))

        def model() -> Radial:
            support = seen[np.ix_(trained.rows, voxels)] / unit
            return Radial(voxels, support, trained.dual_coef, cell.gamma, float(unit), trained.intercept)

        return Tested(decisions[:-1], known, cell, model)

    return recipe


def decide(model: Radial, above: np.ndarray) -> np.ndarray:
    """Return decision values (n,), positive group if >= 0, of belief above its limit (n, V), in double precision."""
    values = np.empty(len(above))
    for row, scan in enumerate(above[:, model.voxels] / np.float32(model.unit)):
        squared = ((model.support - scan).astype(np.float64) ** 2).sum(axis=1)
        values[row] = float(np.exp(-model.gamma * squared) @ model.dual_coef) + model.intercept
    return values


def _unit(seen: np.ndarray) -> np.float32:
    """Return the root mean square of what is above the norm: the unit in which the grid of gamma is that of masks."""
    above = seen[seen > 0]
    return np.float32(np.sqrt(np.mean(above.astype(float) ** 2))) if above.size else np.float32(1)


def _nested(values: np.ndarray, order: np.ndarray, counts: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield squared distances (n, n) float32 over the first voxels of the order, for each count."""
    total, done = np.zeros((len(values), len(values)), np.float32), 0
    for n in counts:
        part = values[:, order[done:n]]
        total, done = total + _squared(part, part), n
        yield np.maximum(total, 0)


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    own, other = np.einsum("nv,nv->n", a, a), np.einsum("nv,nv->n", b, b)
    found: np.ndarray = np.maximum(own[:, None] + other - 2 * a @ b.T, 0).astype(np.float32)
    return found


def _path(kernel: np.ndarray, positive: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """Return the decision values (n_C, n) of machines trained on the rows that have copies."""
    n, costs = len(positive), np.array(GRID.C)
    path = Path(np.empty((len(costs), n)), np.empty((len(costs), n)), np.empty(len(costs)))
    sign = np.where(positive, 1.0, -1.0)
    if solve_path(Problem(kernel, sign, np.full(n, -1), copies), costs, TOL, 0, path) < 0:
        raise BadInputError("no convergence", "Welch's t test", "look at the belief maps of the training scans")
    found: np.ndarray = sign - path.gradients + path.biases[:, None]
    return found
