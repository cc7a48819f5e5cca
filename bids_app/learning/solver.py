"""Support vector machines of a whole (C, gamma) grid and all folds, by sequential minimal optimisation.

With labels s_i = +-1 and signed weights beta_i = s_i alpha_i, the dual problem of the SVM is

    maximise  s' beta - 1/2 beta' K beta
    subject to  sum_i beta_i = 0,  0 <= s_i beta_i <= C m_i,

m_i being how many training scans share pattern and label i. SMO improves two variables at a time, with the
gradient F = s - K beta kept up to date:

- i: the largest F among those that may grow; j: the smallest among those that may shrink, the pair that violates
  optimality most (Keerthi et al., Neural Comput 2001). LIBSVM's choice of j, by the gain it promises, takes fewer
  steps, but a second pass over all variables and a second matrix for each: slower in sum;
- step (F_i - F_j) / (K_ii + K_jj - 2 K_ij), cut at the bounds; beta_i grows, beta_j shrinks by it;
- stop when max F (may grow) - min F (may shrink) <= tol.

The decision value of variable t is (K beta)_t + bias = s_t - F_t + bias: F holds it for every variable, so
held-out scans take part with bound 0 and their decision values come free. What makes the grid cheap:

- scans with equal maps and label are one variable (few voxels: few patterns);
- each C starts from the solution of the previous C, the first C from that of the previous gamma;
- once exp(-gamma d) is 0 for all but a few close pairs, the gradients of all solutions of the previous gamma change by
  those pairs alone: then each C has two starts to choose from. Where none is left, a larger gamma has the same
  kernel: copied.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bids_app.errors import BadInputError
from bids_app.learning.kernels import fill_kernel, merge_scans, near_pairs, rbf_table
from bids_app.learning.starts import Problem, compiled, dual_objective, enlarge, move_gradients, set_gradient
from bids_app.records.cohort import Grid

# The positions of a maximum come packed into the low bits of the values (see _key): 16 bits number up to
# 65,536 scans and leave 36 of the 52 bits of a mantissa, 11 digits, to choose by. Steps and the stopping
# rule use the exact values.
INDEX = np.int64(0xFFFF)
VALUE = ~INDEX
MAX_VARIABLES = int(INDEX) + 1
SIGN_OFF = np.int64(0x7FFFFFFFFFFFFFFF)
FLAT = 1e-12  # least curvature: scans of one pattern go straight to their bounds
BARRED = 1e300  # added to the gradient of a variable that must not grow or shrink
MAX_STEPS = 10_000_000  # as LIBSVM
SAME_KERNEL = 1e-9  # kernels that differ by less count as one
FEW_PAIRS = 64  # one in so many entries of the kernel may differ for its old solutions to be worth starting from


class Path(NamedTuple):
    """Solutions for every C: betas and gradients (n_C, U), biases (n_C,).

    Decision values are ``sign - gradients + biases``.
    """

    betas: np.ndarray
    gradients: np.ndarray
    biases: np.ndarray


@compiled
def _key(value: float) -> np.int64:
    """Map a float to an integer of the same order: its bits, turned round where the sign bit is set.

    Integers, unlike (value, index) pairs, have a maximum that compiles to vector instructions; so the
    position of the largest value is found by replacing the low bits of its key by the index.
    """
    bits = np.float64(value).view(np.int64)
    return bits ^ ((bits >> np.int64(63)) & SIGN_OFF)


@compiled
def _step_and_ends(
    gradient: np.ndarray,
    row_i: np.ndarray,
    row_j: np.ndarray,
    step: float,
    no_growth: np.ndarray,
    no_shrinking: np.ndarray,
) -> tuple[np.int64, np.int64]:
    """Move the gradient by -step (K_i - K_j); return its packed maximum (may grow) and minimum (may shrink)."""
    top, bottom = -SIGN_OFF, SIGN_OFF
    for t in range(len(gradient)):
        f = gradient[t] - step * (row_i[t] - row_j[t])
        gradient[t] = f
        top = max(top, (_key(f + no_growth[t]) & VALUE) | np.int64(t))
        bottom = min(bottom, (_key(f + no_shrinking[t]) & VALUE) | np.int64(t))
    return top, bottom


@compiled
def _smo(
    kernel: np.ndarray, low: np.ndarray, high: np.ndarray, beta: np.ndarray, gradient: np.ndarray, tol: float
) -> int:
    """Optimise beta (U,) and its gradient in place; return the number of steps (MAX_STEPS: not converged)."""
    no_growth = np.where(beta < high, 0.0, -BARRED)
    no_shrinking = np.where(beta > low, 0.0, BARRED)
    top, bottom = _step_and_ends(gradient, kernel[0], kernel[0], 0.0, no_growth, no_shrinking)
    for steps in range(MAX_STEPS):
        i, j = top & INDEX, bottom & INDEX
        if no_growth[i] != 0.0 or no_shrinking[j] != 0.0 or gradient[i] - gradient[j] <= tol:
            return steps
        room_i, room_j = high[i] - beta[i], beta[j] - low[j]
        step = min((gradient[i] - gradient[j]) / max(2.0 - 2.0 * kernel[i, j], FLAT), min(room_i, room_j))
        beta[i] = high[i] if step == room_i else beta[i] + step  # exactly on the bound, or it would crawl
        beta[j] = low[j] if step == room_j else beta[j] - step
        no_growth[i] = 0.0 if beta[i] < high[i] else -BARRED
        no_shrinking[j] = 0.0 if beta[j] > low[j] else BARRED
        no_shrinking[i], no_growth[j] = 0.0, 0.0
        top, bottom = _step_and_ends(gradient, kernel[i], kernel[j], step, no_growth, no_shrinking)
    return MAX_STEPS


@compiled
def _bias(low: np.ndarray, high: np.ndarray, beta: np.ndarray, gradient: np.ndarray) -> float:
    """Return the bias: mean gradient of the free variables, or, without any, the middle of its range."""
    total, free, top, bottom = 0.0, 0, -BARRED, BARRED
    for t in range(len(beta)):
        may_grow, may_shrink = beta[t] < high[t], beta[t] > low[t]
        if may_grow and may_shrink:
            total += gradient[t]
            free += 1
        if may_grow:
            top = max(top, gradient[t])
        if may_shrink:
            bottom = min(bottom, gradient[t])
    return total / free if free else 0.5 * (top + bottom)


@compiled
def solve_path(problem: Problem, costs: np.ndarray, tol: float, n_known: int, path: Path) -> int:
    """Train one fold for every C, ascending.

    Parameters
    ----------
    problem : Problem
    costs : ndarray of float, shape (n_C,)
    tol : float
        Stopping tolerance on the gradient (LIBSVM's default is 1e-3).
    n_known : int
        The first n_known rows of ``path.betas`` hold solutions for a similar kernel, those of ``path.gradients``
        their gradients with this one. A C starts from there or from the solution of the C before, whichever has the
        higher dual objective.
    path : Path
        Written.

    Returns
    -------
    int
        Steps taken, or -1 if some C did not converge.
    """
    sign, copies = problem.sign, problem.copies
    betas, gradients = path.betas, path.gradients
    n = len(sign)
    low, high = np.zeros(n), np.zeros(n)
    total = 0
    for c in range(len(costs)):
        beta, gradient = betas[c], gradients[c]
        if c == 0 and n_known == 0:
            beta[:], gradient[:] = 0.0, sign
        elif c > 0:
            larger, its_gradient = betas[c - 1].copy(), gradients[c - 1].copy()
            enlarge(problem, larger, its_gradient, costs[c - 1], costs[c])
            if c >= n_known or dual_objective(larger, its_gradient, sign) > dual_objective(beta, gradient, sign):
                beta[:], gradient[:] = larger, its_gradient
        for t in range(n):
            bound = costs[c] * copies[t]
            high[t], low[t] = (bound, 0.0) if sign[t] > 0.0 else (0.0, -bound)
            if abs(beta[t]) > bound * (1.0 - 1e-12):  # rounding must not leave a step of 1e-17 to take
                beta[t] = sign[t] * bound
        steps = _smo(problem.kernel, low, high, beta, gradient, tol)
        if steps == MAX_STEPS:
            return -1
        total += steps
        path.biases[c] = _bias(low, high, beta, gradient)
    return total


@compiled
def _count_correct(
    gradients: np.ndarray, biases: np.ndarray, sign: np.ndarray, weights: np.ndarray, correct: np.ndarray
) -> None:
    """Write, for every C, the weight of the variables whose decision value is on their label's side."""
    for c in range(len(biases)):
        total = 0.0
        for t in range(len(sign)):
            if (sign[t] - gradients[c, t] + biases[c] >= 0.0) == (sign[t] > 0.0):
                total += weights[t]
        correct[c] = total


def cross_validate(
    distances: np.ndarray,
    positive: np.ndarray,
    train: np.ndarray,
    validate: np.ndarray,
    grid: Grid,
    tol: float = 1e-3,
) -> np.ndarray:
    """Count correct validation scans for every C, gamma and fold.

    Parameters
    ----------
    distances : ndarray of int32, shape (N, N)
        Squared distances, lower triangle.
    positive : ndarray of bool, shape (N,)
    train, validate : ndarray of int, shape (n_folds, N)
        How often each scan is in the training and in the validation part of each fold.
    grid : Grid, values ascending

    Returns
    -------
    ndarray of int64, shape (n_C, n_gamma, n_folds)
    """
    variables = merge_scans(distances, positive, (train + validate).any(axis=0))
    n, n_folds, costs = len(variables.sign), len(train), np.array(grid.C, float)
    if n > MAX_VARIABLES:
        raise BadInputError(f"{n} scans are too many", "sweep", f"use at most {MAX_VARIABLES}")
    copies, held_out = variables.sum(train), variables.sum(validate)
    betas, gradients = np.empty((2, n_folds, len(costs), n))
    biases, kernel = np.empty(len(costs)), np.empty((n, n), np.float32)
    correct = np.zeros((len(grid.gamma), n_folds, len(costs)), np.int64)
    rbf, pairs = rbf_table(variables, 0.0), None  # all pairs may still change
    for g, gamma in enumerate(grid.gamma):
        reach = int(np.count_nonzero(rbf >= SAME_KERNEL)) - 1  # the largest distance at which the kernel still changes
        if g and reach < variables.least:
            correct[g] = correct[g - 1]
            continue
        if pairs is not None:
            pairs = pairs[variables.distances[pairs[:, 0], pairs[:, 1]] <= reach]
        elif g:
            pairs = near_pairs(variables.distances, reach, n * n // FEW_PAIRS)
        before, rbf = rbf, rbf_table(variables, gamma)
        fill_kernel(variables.distances, rbf, kernel)
        n_known = 0 if g == 0 else 1 if pairs is None else len(costs)
        for f in range(n_folds):
            if pairs is not None:
                near = variables.distances[pairs[:, 0], pairs[:, 1]]
                move_gradients(pairs, before[near].astype(float) - rbf[near], betas[f], gradients[f])
            elif g:
                set_gradient(kernel, variables.sign, betas[f, 0], gradients[f, 0])
            problem = Problem(kernel, variables.sign, variables.opposite, copies[f])
            if solve_path(problem, costs, tol, n_known, Path(betas[f], gradients[f], biases)) < 0:
                raise BadInputError(f"no convergence at gamma {gamma:g}", "sweep", "use a smaller largest C")
            _count_correct(gradients[f], biases, variables.sign, held_out[f], correct[g, f])
    return correct.transpose(2, 0, 1)
