"""The recommended recipe: linear machines on smoothed, folded lesion maps, everything chosen over participants.

Every participant counts once: machines are trained on the mean features of each participant's scans, and AUC, cost
and kind of features are judged on participants. The choices are (smoothing, folding, weight of the log volume, C);
the decision is the mean of the ``BEST`` choices with the highest AUC within the inner folds, each in units of the
standard deviation of its out-of-fold values: no single one is much better than the next, and picking it anew in
every fold costs about 0.015 of AUC. A mean of linear machines is one linear machine.

The dual problem knows sum beta = 0, so ``K_ij`` and ``1 - |x_i - x_j|^2 / 2`` have one solution: with ones on its
diagonal, the latter fits our solver, which trains all C at once. The machines that are kept come from LIBSVM.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bids_app.errors import BadInputError
from bids_app.learning.division import by_participant, folds
from bids_app.learning.solver import Path, solve_path
from bids_app.learning.starts import Problem
from bids_app.recommended.calibration import calibrate
from bids_app.recommended.features import CHUNK, project, projection
from bids_app.recommended.products import Products
from bids_app.records.cohort import Fold
from bids_app.records.recommended import Calibration, Kind, LinearModel, Setting

VOLUME_WEIGHTS = (0.5, 0.0)
EXTRA_WEIGHTS = (0.0, 0.5, 2.0)  # of covariates, where there are
COSTS = (0.01, 0.1, 1.0, 10.0, 100.0)
BEST = 10  # machines whose mean decides
TOL = 1e-3  # of the solver while choosing, LIBSVM's default
REFIT_TOL = 1e-5  # of the machines that are kept
TINY = 1e-6  # of the largest product: a variance below is rounding
NEAR_BOUND = 1e-6  # relative: weights this near to their bound are on it


class Dual(NamedTuple):
    """A linear machine by participants: ``sum_k scans[k] @ people[k] + volume * log volume + intercept``.

    Where there are further features, plus ``extra @`` them, (D,).
    """

    people: np.ndarray
    volume: float
    intercept: float
    extra: np.ndarray | None = None


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
    labels = positive[people]
    kernels = kernels_of(of, people)
    inner, searched, auc, best = _chosen(kernels, labels, people, inner_folds, seed)
    rows = np.flatnonzero(np.isin(of.person, people))
    values, total = np.zeros(len(rows)), Dual(np.zeros((len(of.kinds), len(positive))), 0.0, 0.0)
    settings = []
    for number in best:
        which, cost = divmod(int(number), len(COSTS))
        kernel, found = kernels[which], searched[which]
        unit = float(np.std(found.values[cost])) or 1.0
        for fold, betas, bias in zip(inner, found.betas, found.biases, strict=True):
            held = np.flatnonzero(np.isin(of.person[rows], people[fold.validate]))
            part = kernel.dual(
                of, people, betas[cost] / unit, _plain_bias(kernel.matrix, betas[cost], bias[cost]) / unit
            )
            values[held] += decide(of, part, rows[held])
        beta, intercept = _libsvm(kernel.matrix, labels, COSTS[cost])
        total = _added(total, kernel.dual(of, people, beta / unit, intercept / unit))
        area = float(auc[number])
        settings.append(Setting(kernel.kind, kernel.volume_weight, COSTS[cost], area, kernel.extra_weight))
    n = len(best)
    dual = _over(total, n)
    known = calibrate(values / n, positive[of.person[rows]], of.person[rows], of.lesion_free[rows], dual.intercept)
    return Trained(dual, tuple(settings), known)


def train_dual(
    of: Products, kernels: Sequence[Kernel], positive: np.ndarray, people: np.ndarray, inner_folds: int, seed: int
) -> Dual:
    """Return the machine of `train` alone, uncalibrated: what a permutation of the labels asks for.

    ``kernels`` are those of `kernels_of` these people: the same whatever the labels.
    """
    labels = positive[people]
    _, searched, _, best = _chosen(kernels, labels, people, inner_folds, seed)
    total = Dual(np.zeros((len(of.kinds), len(positive))), 0.0, 0.0)
    for number in best:
        which, cost = divmod(int(number), len(COSTS))
        unit = float(np.std(searched[which].values[cost])) or 1.0
        beta, intercept = _libsvm(kernels[which].matrix, labels, COSTS[cost])
        total = _added(total, kernels[which].dual(of, people, beta / unit, intercept / unit))
    return _over(total, len(best))


def decide(of: Products, dual: Dual, rows: np.ndarray) -> np.ndarray:
    """Return the decision values of some scans, positive group if >= 0."""
    values = dual.volume * of.volume[rows] + dual.intercept
    if of.extra is not None and dual.extra is not None:
        values = values + of.extra[rows] @ dual.extra
    for scans, weights in zip(of.scans, dual.people, strict=True):
        used = np.flatnonzero(weights)
        if used.size:
            values = values + scans[np.ix_(rows, used)] @ weights[used]
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


class Kernel(NamedTuple):
    """A kernel over training participants (T, T), scaled so that the features' total variance is 1."""

    kind: Kind
    volume_weight: float
    extra_weight: float
    matrix: np.ndarray
    which: int
    scale: float
    volume_mean: float
    volume_sd: float

    def dual(self, of: Products, people: np.ndarray, beta: np.ndarray, bias: float) -> Dual:
        """Return the machine of coefficients beta (T,) on this kernel as one of unscaled products."""
        weights = np.zeros(of.people.shape[:2])
        weights[self.which, people] = beta / self.scale
        slope = self.volume_weight * float(beta @ (of.volume_people[people] - self.volume_mean)) / self.volume_sd**2
        further = of.extra_people
        extra = None if further is None else self.extra_weight * (beta @ further[people])
        return Dual(weights, slope, float(bias) - slope * self.volume_mean, extra)


class _Found(NamedTuple):
    """Of one kernel, every C: AUC within folds, out-of-fold values (n_C, T), and machines by fold."""

    auc: np.ndarray
    values: np.ndarray
    betas: list[np.ndarray]
    biases: list[np.ndarray]


class _Chosen(NamedTuple):
    """Inner folds, what every kernel gave, the AUC of every kernel and C, and the best of these by number."""

    inner: Sequence[Fold]
    searched: list[_Found]
    auc: np.ndarray
    best: np.ndarray


def _chosen(kernels: Sequence[Kernel], labels: np.ndarray, people: np.ndarray, inner_folds: int, seed: int) -> _Chosen:
    inner = folds(labels, people, inner_folds, by="participant", seed=seed)
    searched = [_search(kernel.matrix, labels, inner) for kernel in kernels]
    auc = np.array([[each.auc] for each in searched]).reshape(-1)
    return _Chosen(inner, searched, auc, np.argsort(-auc, kind="stable")[:BEST])


def kernels_of(of: Products, people: np.ndarray) -> tuple[Kernel, ...]:
    """Return the kernels over some participants; they know no labels."""
    return tuple(_kernels(of, people))


def _kernels(of: Products, people: np.ndarray) -> Iterator[Kernel]:
    volume = of.volume_people[people]
    mean, sd = float(volume.mean()), float(volume.std()) or 1.0
    outer = np.outer(volume - mean, volume - mean) / sd**2
    further = of.extra_people
    extra = 0.0 if further is None else further[people] @ further[people].T
    for which, kind in enumerate(of.kinds):
        matrix = of.people[which][np.ix_(people, people)]
        scale = float(np.trace(matrix) / len(people) - matrix.mean())
        scale = scale if scale > TINY * np.abs(matrix).max() else 1.0  # all maps alike: nothing to scale
        for weight in VOLUME_WEIGHTS:
            plain = matrix / scale + weight * outer
            for share in (0.0,) if further is None else EXTRA_WEIGHTS:
                yield Kernel(kind, weight, share, plain + share * extra, which, scale, mean, sd)


def _search(matrix: np.ndarray, positive: np.ndarray, inner: Sequence[Fold]) -> _Found:
    """Train one kernel with every C on every fold."""
    n, costs = len(positive), np.array(COSTS)
    unit = _unit_diagonal(matrix)
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
        higher = found[:, groups, None] - found[:, None, ~groups]
        won += (np.sign(higher) + 1).sum(axis=(1, 2)) / 2
        pairs += int(groups.sum()) * int((~groups).sum())
        betas.append(beta)
        biases.append(bias)
    return _Found(won / pairs, values, betas, biases)


def _unit_diagonal(matrix: np.ndarray) -> np.ndarray:
    own = np.diag(matrix)
    kernel: np.ndarray = (1 - (own[:, None] + own - 2 * matrix) / 2).astype(np.float32)
    return kernel


def _plain_bias(matrix: np.ndarray, beta: np.ndarray, bias: float) -> float:
    """Return the bias for the kernel itself of a machine trained with `_unit_diagonal`."""
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


def _added(a: Dual, b: Dual) -> Dual:
    extra = b.extra if a.extra is None or b.extra is None else a.extra + b.extra
    return Dual(a.people + b.people, a.volume + b.volume, a.intercept + b.intercept, extra)


def _over(total: Dual, n: int) -> Dual:
    return Dual(
        total.people / n, total.volume / n, total.intercept / n, None if total.extra is None else total.extra / n
    )
