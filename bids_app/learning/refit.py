"""The best cell of every voxel count trained once on the whole training set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bids_app.errors import BadInputError
from bids_app.learning.classifier import SupportVectors, train_svc
from bids_app.learning.ranking import check_groups, check_maps
from bids_app.learning.sweep import check_counts
from bids_app.records.cohort import Cell

REFIT_TOL = 1e-6  # of the final models: a decision value nearer 0 could have the other sign
ROWS = 256  # of a kernel, filled at a time
FEW = 4  # one in so many voxels chosen, or fewer: picking them takes less time than packing all


@dataclass(frozen=True)
class Refit:
    """A cell trained on the whole training set, and its decision values of training (N,) and test (M,) scans."""

    cell: Cell
    trained: SupportVectors
    train: np.ndarray
    test: np.ndarray


def refit(
    train_lesions: np.ndarray,
    train_positive: np.ndarray,
    test_lesions: np.ndarray,
    cells: Sequence[Cell],
    order: np.ndarray,
) -> list[Refit]:
    """Train every cell on the training rows and decide training and test rows, in the order of the cells.

    Parameters
    ----------
    train_lesions, test_lesions : ndarray of bool, shapes (N, V) and (M, V)
    train_positive : ndarray of bool, shape (N,)
    cells : sequence of Cell
        In any order; each uses the first ``n_voxels`` of ``order``.
    order : ndarray of int, shape (V,)
        Voxels, most significant first, ranked on the training rows.

    Returns
    -------
    list of Refit
        Positive group where a decision value is >= 0; `classifier.model_of` makes a model of it.
    """
    from bids_app.learning.kernels import nested_distances, pack_by_scan, pack_by_voxel

    check_maps(train_lesions, train_positive, "sweep")
    check_groups(train_positive, "sweep")
    check_maps(test_lesions, np.zeros(len(test_lesions), bool), "sweep")
    n_train, n_voxels = train_lesions.shape
    if test_lesions.shape[1] != n_voxels or len(order) > n_voxels:
        raise BadInputError(f"training maps and order have {n_voxels} voxels, test maps others", "sweep")
    if not cells:
        return []
    tried = check_counts([cell.n_voxels for cell in cells], len(order))
    chosen = np.asarray(order[: tried[-1]], np.int64)
    both = (train_lesions, test_lesions)
    if len(chosen) < n_voxels // FEW:  # only they are packed
        both, chosen = (train_lesions[:, chosen], test_lesions[:, chosen]), np.arange(len(chosen))
    by_scan = np.concatenate([pack_by_scan(pack_by_voxel(maps), chosen, len(maps)) for maps in both])
    made: dict[int, Refit] = {}
    for n, lower in nested_distances(by_scan, tried):
        for k, cell in enumerate(cells):
            if cell.n_voxels == n:
                kernel = _kernel(lower, n_train, cell)
                trained = train_svc(kernel[:n_train], train_positive, cell.C, REFIT_TOL)
                values = trained.decide(kernel)
                made[k] = Refit(cell, trained, values[:n_train], values[n_train:])
                del kernel  # the next one is made while it would still be here
    return [made[k] for k in range(len(cells))]


def _kernel(lower: np.ndarray, n_train: int, cell: Cell) -> np.ndarray:
    """Return the kernel (N + M, N) of all scans with the training scans, from distances (N + M, N + M).

    Distances are integers below the diagonal, so each value is looked up, and no full copy of them is made.
    """
    rbf = np.exp(-cell.gamma * np.arange(cell.n_voxels + 1))
    kernel = np.empty((len(lower), n_train))
    for start in range(0, len(lower), ROWS):
        rows = slice(start, start + ROWS)
        kernel[rows] = rbf[lower[rows, :n_train] + lower[:n_train, rows].T]
    return kernel
