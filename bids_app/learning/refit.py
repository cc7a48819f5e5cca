"""The best cell of every voxel count trained once on the whole training set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bids_app.errors import BadInputError
from bids_app.learning.classifier import SupportVectors, train_svc
from bids_app.learning.ranking import check_groups, check_maps
from bids_app.learning.sweep import Packed, check_counts
from bids_app.records.cohort import Cell

REFIT_TOL = 1e-6  # of the final models: a decision value nearer 0 could have the other sign
ROWS = 256  # of a kernel, filled at a time


@dataclass(frozen=True)
class Refit:
    """A cell trained on the whole training set, and its decision values of training (N,) and test (M,) scans."""

    cell: Cell
    trained: SupportVectors
    train: np.ndarray
    test: np.ndarray


def refit(
    train_lesions: np.ndarray | Packed,
    train_positive: np.ndarray,
    test_lesions: np.ndarray | Packed,
    cells: Sequence[Cell],
    order: np.ndarray,
) -> list[Refit]:
    """Train every cell on the training rows and decide training and test rows, in the order of the cells.

    Parameters
    ----------
    train_lesions, test_lesions : ndarray of bool, shapes (N, V) and (M, V), or Packed
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
    from bids_app.learning.kernels import nested_distances

    if isinstance(train_lesions, np.ndarray):
        check_maps(train_lesions, train_positive, "sweep")
    if isinstance(test_lesions, np.ndarray):
        check_maps(test_lesions, np.zeros(len(test_lesions), bool), "sweep")
    check_groups(train_positive, "sweep")
    both = [maps if isinstance(maps, Packed) else Packed.of(maps) for maps in (train_lesions, test_lesions)]
    n_train, n_voxels = both[0].n_scans, both[0].n_voxels
    if both[1].n_voxels != n_voxels or len(order) > n_voxels:
        raise BadInputError(f"training maps and order have {n_voxels} voxels, test maps others", "sweep")
    if not cells:
        return []
    tried = check_counts([cell.n_voxels for cell in cells], len(order))
    by_scan = np.concatenate([maps.by_scan(np.asarray(order[: tried[-1]], np.int64)) for maps in both])
    made: dict[int, Refit] = {}
    others = range(n_train, len(by_scan))
    for n, lower in nested_distances(by_scan, tried):
        for k, cell in enumerate(cells):
            if cell.n_voxels == n:
                kernel = _kernel(lower, range(n_train), n_train, cell)
                trained = train_svc(kernel, train_positive, cell.C, REFIT_TOL)
                train = trained.decide(kernel)
                del kernel  # the next one is made while it would still be here
                made[k] = Refit(cell, trained, train, trained.decide(_kernel(lower, others, n_train, cell)))
    return [made[k] for k in range(len(cells))]


def _kernel(lower: np.ndarray, some: range, n_train: int, cell: Cell) -> np.ndarray:
    """Return the kernel (n, N) of some scans with the training scans, from distances (N + M, N + M).

    Distances are integers below the diagonal, so each value is looked up, and no full copy of them is made.
    """
    rbf = np.exp(-cell.gamma * np.arange(cell.n_voxels + 1))
    kernel = np.empty((len(some), n_train))
    for start in range(0, len(some), ROWS):
        part = some[start : start + ROWS]
        rows = slice(part.start, part.stop)
        kernel[start : start + ROWS] = rbf[lower[rows, :n_train] + lower[:n_train, rows].T]
    return kernel
