"""The recommended recipe: linear machines on smoothed, folded lesion maps, everything chosen over participants.

Every participant counts once: machines are trained on the mean features of each participant's scans, and AUC, cost
and kind of features are judged on participants. The choices are (smoothing, folding, weight of the log volume, C);
the decision is the mean of the ``BEST`` choices with the highest AUC within the inner folds, each in units of the
standard deviation of its out-of-fold values: no single one is much better than the next, and picking it anew in
every fold costs about 0.015 of AUC. A mean of linear machines is one linear machine.

The dual problem knows sum beta = 0, so ``K_ij`` and ``1 - |x_i - x_j|^2 / 2`` have one solution: with ones on its
diagonal, the latter fits our solver, which trains all C at once. The machines that are kept come from LIBSVM.

One kernel is in memory at a time: machines for all labels, folds and C are trained on it, and of these their weights
and AUC stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bids_app.errors import BadInputError
from bids_app.learning.division import by_participant, folds
from bids_app.learning.solver import Path, solve_path
from bids_app.learning.starts import Problem
from bids_app.recommended.calibration import calibrate
from bids_app.recommended.features import CHUNK, project, projection
from bids_app.recommended.kernels import Dual, Kernel, Parts
from bids_app.recommended.products import Products
from bids_app.records.cohort import Fold
from bids_app.records.recommended import Calibration, LinearModel, Setting

COSTS = (0.01, 0.1, 1.0, 10.0, 100.0)
BEST = 10  # machines whose mean decides
TOL = 1e-3  # of the solver while choosing, LIBSVM's default
REFIT_TOL = 1e-5  # of the machines that are kept
NEAR_BOUND = 1e-6  # relative: weights this near to their bound are on it


class Trained(NamedTuple):
    """What training gives: the machine, the choices it is the mean of, and how far to trust it."""

    dual: Dual
    settings: tuple[Setting, ...]
    calibration: Calibration


def labels_of(positive: np.ndarray, participants: np.ndarray) -> np.ndarray:
    """Return the group (P,) of each participant, in the order of `Products.person`."""
    _, _, groups = by_participant(positive, participants)
    return groups


def train(of: Products, positive: np.ndarray, people: np.ndarray, inner_folds: int, seed: int) -> Trained:
    """Choose, train and calibrate on some participants; nothing of the others is looked at.

    Parameters
    ----------
    of : Products
    positive : ndarray of bool, shape (P,)
        Group of each participant; only those of ``people`` count.
    people : ndarray of int
        Numbers of the training participants, ascending.
    inner_folds, seed : int

    Raises
    ------
    BadInputError
        A group has fewer than two participants.
    """
    ((inner, best),) = _best(of, [positive[people]], people, inner_folds, seed)
    rows = np.flatnonzero(np.isin(of.person, people))
    held = [np.flatnonzero(np.isin(of.person[rows], people[fold.validate])) for fold in inner]
    values = np.zeros(len(rows))
    for each in best:
        for own, (beta, bias) in zip(held, each.by_fold, strict=True):
            values[own] += decide(of, each.kernel.dual(of, people, beta, bias), rows[own])
    values, dual = values / len(best), _mean(of, people, best)
    known = calibrate(values, positive[of.person[rows]], of.person[rows], of.lesion_free[rows], dual.intercept)
    return Trained(dual, tuple(each.setting for each in best), known)


def train_duals(
    of: Products, labelled: Sequence[np.ndarray], people: np.ndarray, inner_folds: int, seed: int
) -> list[Dual]:
    """Return the machine of `train` alone, uncalibrated, for each labelling (P,): what permutations ask for.

    Kernels know no labels: each is made once for all labellings.
    """
    found = _best(of, [positive[people] for positive in labelled], people, inner_folds, seed, by_fold=False)
    return [_mean(of, people, best) for _, best in found]


def decide(of: Products, dual: Dual, rows: np.ndarray) -> np.ndarray:
    """Return the decision values of some scans, positive group if >= 0."""
    values = dual.volume * of.volume[rows] + dual.intercept
    if of.extra is not None and dual.extra is not None:
        values = values + of.extra[rows] @ dual.extra
    for which in np.flatnonzero(dual.people.any(axis=1)):
        used = np.flatnonzero(dual.people[which])
        values = values + of.scans[which][np.ix_(rows, used)] @ dual.people[which, used]
    return values


def model_of(trained: Trained, of: Products, maps: np.ndarray, mask: np.ndarray, affine: np.ndarray) -> LinearModel:
    """Return the machine by features instead of participants: what is stored, and what a decision is made of.

    ``maps`` are those that ``of`` was made from.
    """
    counts = np.bincount(of.person)
    kinds, weights = [], []
    for kind, coefficients in zip(of.kinds, trained.dual.people, strict=True):
        if not coefficients.any():
            continue
        plan = projection(mask, affine, kind)
        share = coefficients[of.person] / counts[of.person]
        weight = np.zeros(int(plan.inside.sum()))
        for start in range(0, len(maps), CHUNK):
            rows = np.flatnonzero(share[start : start + CHUNK]) + start
            if rows.size:
                weight += share[rows] @ np.sqrt(project(plan, maps[rows])).astype(np.float64)
        kinds.append(kind)
        weights.append(weight)
    return LinearModel(tuple(kinds), tuple(weights), trained.dual.volume, trained.dual.intercept, trained.settings)


# -- machines ------------------------------------------------------------------------------------


class _Found(NamedTuple):
    """Of one kernel, every C: AUC within folds, out-of-fold values (n_C, T), and machines by fold."""

    auc: np.ndarray
    values: np.ndarray
    betas: list[np.ndarray]
    biases: list[np.ndarray]


class _Machine(NamedTuple):
    """One of the best, in units of the SD: weights (T,) and intercept, on all and by inner fold; and its choice."""

    setting: Setting
    kernel: Kernel
    beta: np.ndarray
    intercept: float
    by_fold: list[tuple[np.ndarray, float]]


def _best(
    of: Products, labelled: Sequence[np.ndarray], people: np.ndarray, inner_folds: int, seed: int, by_fold: bool = True
) -> list[tuple[Sequence[Fold], list[_Machine]]]:
    """Return inner folds and the best machines, best first, for each labelling (T,) of the training participants.

    Without ``by_fold`` only machines on all of them are kept.
    """
    inner = [folds(labels, people, inner_folds, by="participant", seed=seed) for labels in labelled]
    kernels: list[Kernel] = []
    searched: list[list[_Found]] = []  # by kernel and labelling
    for which in range(len(of.kinds)):
        for kernel, found in _searched(Parts.of(of, people, which), labelled, inner):
            kernels.append(kernel)
            searched.append(found if by_fold else [each._replace(betas=[], biases=[]) for each in found])
    auc = np.array([[each.auc for each in found] for found in searched]).transpose(1, 0, 2).reshape(len(labelled), -1)
    best = np.argsort(-auc, axis=1, kind="stable")[:, :BEST]
    made: dict[tuple[int, int], _Machine] = {}
    parts: Parts | None = None
    for number in np.unique(best // len(COSTS)):
        kernel = kernels[number]
        if parts is None or parts.which != kernel.which:  # kernels of one kind follow each other
            parts = None  # before the next is made
            parts = Parts.of(of, people, kernel.which)
        matrix = parts.matrix(kernel)
        for k, c in np.argwhere(best // len(COSTS) == number):
            cost = int(best[k, c]) % len(COSTS)
            made[k, c] = _machine(kernel, matrix, labelled[k], searched[number][k], cost)
        del matrix  # the next one is made while it would still be here
    return [(own, [made[k, c] for c in range(best.shape[1])]) for k, own in enumerate(inner)]


def _searched(
    parts: Parts, labelled: Sequence[np.ndarray], inner: Sequence[Sequence[Fold]]
) -> list[tuple[Kernel, list[_Found]]]:
    """Train the kernels of one kind for each labelling (T,), one kernel after the other."""
    found = []
    for kernel in parts.kernels():
        unit = parts.unit(kernel)
        found.append((kernel, [_search(unit, labels, own) for labels, own in zip(labelled, inner, strict=True)]))
        del unit  # as in `_best`
    return found


def _machine(kernel: Kernel, matrix: np.ndarray, labels: np.ndarray, found: _Found, cost: int) -> _Machine:
    """Train on all training participants with one C, by its number."""
    sd = float(np.std(found.values[cost])) or 1.0
    beta, intercept = _libsvm(matrix, labels, COSTS[cost])
    by_fold = [
        (betas[cost] / sd, _plain_bias(matrix, betas[cost], bias[cost]) / sd)
        for betas, bias in zip(found.betas, found.biases, strict=True)
    ]
    auc = float(found.auc[cost])
    setting = Setting(kernel.kind, kernel.volume_weight, COSTS[cost], auc, kernel.extra_weight)
    return _Machine(setting, kernel, beta / sd, intercept / sd, by_fold)


def _search(unit: np.ndarray, positive: np.ndarray, inner: Sequence[Fold]) -> _Found:
    """Train one kernel (T, T), with ones on its diagonal, with every C on every fold."""
    n, costs = len(positive), np.array(COSTS)
    sign, opposite = np.where(positive, 1.0, -1.0), np.full(n, -1)
    values, won, pairs, betas, biases = np.zeros((len(costs), n)), np.zeros(len(costs)), 0, [], []
    for fold in inner:
        copies = np.zeros(n)
        for group in (True, False):  # both groups weigh the same, as class_weight="balanced"
            rows = fold.train[positive[fold.train] == group]
            copies[rows] = len(fold.train) / (2 * len(rows))
        beta, gradient, bias = np.empty((len(costs), n)), np.empty((len(costs), n)), np.empty(len(costs))
        problem = Problem(unit, sign, opposite, copies)
        if solve_path(problem, costs, TOL, 0, Path(beta, gradient, bias)) < 0:
            raise BadInputError("no convergence", "recommended", "look at the maps of the training scans")
        seen = fold.train
        for c, C in enumerate(costs):
            bias[c] = _intercept(gradient[c, seen], beta[c, seen], C * copies[seen], positive[seen])
        found = (sign - gradient + bias[:, None])[:, fold.validate]
        values[:, fold.validate] = found
        groups = positive[fold.validate]
        a, b = found[:, groups, None], found[:, None, ~groups]
        # compared rather than subtracted: a byte for each pair instead of eight
        won += np.count_nonzero(a > b, axis=(1, 2)) + np.count_nonzero(a == b, axis=(1, 2)) / 2
        pairs += int(groups.sum()) * int((~groups).sum())
        betas.append(beta)
        biases.append(bias)
    return _Found(won / pairs, values, betas, biases)


def _plain_bias(matrix: np.ndarray, beta: np.ndarray, bias: float) -> float:
    """Return the bias for the kernel itself of a machine trained with `kernels.Parts.unit`."""
    return float(bias - beta @ np.diag(matrix) / 2 + beta.sum())


def _libsvm(matrix: np.ndarray, positive: np.ndarray, C: float) -> tuple[np.ndarray, float]:
    """Return signed weights (T,) and intercept of LIBSVM's machine, both groups weighing the same."""
    from sklearn import config_context  # late: predicting needs no scikit-learn
    from sklearn.svm import SVC

    with config_context(assume_finite=True, skip_parameter_validation=True):  # a third of its time on small kernels
        svc = SVC(C=C, kernel="precomputed", class_weight="balanced", tol=REFIT_TOL).fit(matrix, positive)
    beta = np.zeros(len(positive))
    beta[svc.support_] = svc.dual_coef_[0]
    bound = C * svc.class_weight_[positive.astype(int)]
    return beta, _intercept(np.where(positive, 1.0, -1.0) - matrix @ beta, beta, bound, positive)


def _intercept(gradient: np.ndarray, beta: np.ndarray, bound: np.ndarray, positive: np.ndarray) -> float:
    """Return the mean gradient of the free weights, or, without any, the middle of its range.

    Solvers leave one weight a rounding error from its bound and take it for free: any intercept of the range.
    """
    free = (np.abs(beta) > NEAR_BOUND * bound) & (np.abs(beta) < bound * (1 - NEAR_BOUND))
    if free.any():
        return float(gradient[free].mean())
    grows = positive == (np.abs(beta) < bound / 2)  # a positive one at 0, a negative one at its bound
    return float(gradient[grows].max() + gradient[~grows].min()) / 2


def _mean(of: Products, people: np.ndarray, machines: Sequence[_Machine]) -> Dual:
    """Return the mean of machines, which is one machine."""
    total, n = Dual(np.zeros((len(of.kinds), len(of.volume_people))), 0.0, 0.0), len(machines)
    for each in machines:
        total = _added(total, each.kernel.dual(of, people, each.beta, each.intercept))
    extra = None if total.extra is None else total.extra / n
    return Dual(total.people / n, total.volume / n, total.intercept / n, extra)


def _added(a: Dual, b: Dual) -> Dual:
    extra = b.extra if a.extra is None or b.extra is None else a.extra + b.extra
    return Dual(a.people + b.people, a.volume + b.volume, a.intercept + b.intercept, extra)
