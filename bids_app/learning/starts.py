"""Starts of the solver from solutions that are known: at another C, or of a similar kernel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

# Sums keep their order (no "reassoc"), so a machine gives the same numbers every time.
compiled = njit(cache=True, nogil=True, error_model="numpy", fastmath={"nnan", "ninf", "nsz", "contract"})


class Problem(NamedTuple):
    """The dual problem of one fold with U variables, patterns of one label each.

    Attributes
    ----------
    kernel : ndarray of float32, shape (U, U)
        With ones on the diagonal.
    sign : ndarray of float, shape (U,)
        +1 or -1.
    opposite : ndarray of int, shape (U,)
        Variable of the same pattern and the other label, or -1.
    copies : ndarray of float, shape (U,)
        Training scans in each variable; 0 for held-out ones. Both labels must occur.
    """

    kernel: np.ndarray
    sign: np.ndarray
    opposite: np.ndarray
    copies: np.ndarray


@compiled
def set_gradient(kernel: np.ndarray, sign: np.ndarray, beta: np.ndarray, gradient: np.ndarray) -> None:
    """Compute gradient = sign - kernel beta, over the support vectors only."""
    gradient[:] = sign
    for r in range(len(beta)):
        if beta[r] != 0.0:
            row = kernel[r]
            for t in range(len(beta)):
                gradient[t] -= beta[r] * row[t]


@compiled
def dual_objective(beta: np.ndarray, gradient: np.ndarray, sign: np.ndarray) -> float:
    """Return the dual objective s' beta - 1/2 beta' K beta, as K beta = s - gradient."""
    total = 0.0
    for t in range(len(beta)):
        total += 0.5 * beta[t] * (sign[t] + gradient[t])
    return total


@compiled
def enlarge(problem: Problem, beta: np.ndarray, gradient: np.ndarray, old: float, new: float) -> None:
    """Turn the solution at C = old into a start for C = new, the better of two, in place.

    Scaled by q = new / old, the dual objective is q s'beta - q^2/2 beta'K beta. Or beta is kept, and only
    pairs of opposite label on one pattern grow with the bound, which adds 2 for every unit and leaves
    K beta as it is.
    """
    sign, copies, opposite = problem.sign, problem.copies, problem.opposite
    q = new / old
    linear, quadratic, pairs = 0.0, 0.0, 0.0
    for t in range(len(beta)):
        linear += sign[t] * beta[t]
        quadratic += (sign[t] - gradient[t]) * beta[t]
        if sign[t] > 0.0 and opposite[t] >= 0:
            pairs += 2.0 * (new - old) * min(copies[t], copies[opposite[t]])
    if q * linear - 0.5 * q * q * quadratic > linear + pairs - 0.5 * quadratic:
        for t in range(len(beta)):
            beta[t] *= q
            gradient[t] = sign[t] - q * (sign[t] - gradient[t])
    else:
        for t in range(len(beta)):
            if sign[t] > 0.0 and opposite[t] >= 0:
                growth = (new - old) * min(copies[t], copies[opposite[t]])
                beta[t] += growth
                beta[opposite[t]] -= growth


@compiled
def move_gradients(pairs: np.ndarray, change: np.ndarray, betas: np.ndarray, gradients: np.ndarray) -> None:
    """Bring gradients = sign - kernel betas, (n_C, U) each, to a kernel lower by ``change`` at some pairs only."""
    for c in range(len(betas)):
        for p in range(len(pairs)):
            a, b = pairs[p]
            gradients[c, a] += change[p] * betas[c, b]
            gradients[c, b] += change[p] * betas[c, a]
