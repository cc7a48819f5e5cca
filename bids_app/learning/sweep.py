"""The sweep: cross-validation of every number of top-ranked voxels and every (C, gamma).

    for every fold: rank voxels on its training part (or once, on all rows, as published)
        for every n: take the n top-ranked voxels
            for every (C, gamma): train on the training part, count correct scans in the other part

The rows given are a training set and nothing else is ever seen. ``solver="smo"`` is ours; ``"libsvm"``,
scikit-learn's SVC, is what it is checked against: the same folds, kernels and tolerance, dozens of times as
slow. Both stop within the tolerance of the optimum, so they may disagree on validation scans with a decision
value that near 0. At 1e-3, the default of LIBSVM and scikit-learn, that is a scan, at times three, in a few cells
of a thousand, and LIBSVM differs as often from itself at 1e-5. At our 1e-4 no cell differed from LIBSVM at 1e-5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from bids_app.errors import BadInputError
from bids_app.learning.classifier import train_svc
from bids_app.learning.ranking import check_groups, check_maps, rank_counts
from bids_app.records.cohort import Cell, Fold, Grid, Ranking, SweepResult

TOL = 1e-4  # stopping tolerance while searching
FEW = 4  # one in so many voxels, or fewer: picking them takes less time than packing all
DIGITS = 12  # mean accuracies that differ by rounding alone must tie

Solve = Callable[[np.ndarray, np.ndarray, Sequence[Fold], Grid, float], np.ndarray]


def powers_of_two(n_voxels: int) -> tuple[int, ...]:
    """Return the powers of two below ``n_voxels``, then ``n_voxels``.

    Examples
    --------
    >>> powers_of_two(10)
    (1, 2, 4, 8, 10)
    """
    if n_voxels < 1:
        raise BadInputError("there is no voxel to choose", "sweep", "check the brain mask")
    return (*(2**k for k in range((n_voxels - 1).bit_length())), n_voxels)


def refine_counts(best: int, counts: Sequence[int], limit: int) -> tuple[int, ...]:
    """Return the whole numbers strictly between the two neighbours of ``best`` that are not in ``counts``.

    Parameters
    ----------
    limit : int
        When there are more, this many of them, evenly spaced; 0 for all.

    Examples
    --------
    >>> refine_counts(4, (1, 2, 4, 8), 0)
    (3, 5, 6, 7)
    >>> refine_counts(4, (1, 2, 4, 8), 2)
    (5, 7)
    """
    if best not in counts:
        raise BadInputError(f"{best} is none of the voxel counts", "sweep")
    if limit < 0:
        raise BadInputError(f"at most {limit} voxel counts cannot be tried", "sweep", "use 0 for all")
    below = max((n for n in counts if n < best), default=best)
    above = min((n for n in counts if n > best), default=best)
    between = [n for n in range(below + 1, above) if n != best]
    if 0 < limit < len(between):
        between = [between[(2 * k + 1) * len(between) // (2 * limit)] for k in range(limit)]
    return tuple(between)


@dataclass(frozen=True)
class Search:
    """How a sweep searches.

    Attributes
    ----------
    rerank : bool
        False: voxels ranked once, on all N rows, as published (validation scans have a say in the choice
        of voxels). True: ranked on the training part of each fold.
    solver : {"smo", "libsvm"}
    tol : float
        Stopping tolerance on the gradient of the dual problem.
    progress : callable, optional
        Told, in words, how far the sweep is.
    """

    rerank: bool
    solver: str = "smo"
    tol: float = TOL
    progress: Callable[[str], None] | None = None


@dataclass(frozen=True)
class Packed:
    """Lesion maps as the sweep reads them: the same whatever the labels, so made once for many sweeps.

    ``by_voxel`` (V, W) are words as in `kernels`, of ``n_scans`` scans.
    """

    by_voxel: np.ndarray
    n_scans: int

    @classmethod
    def of(cls, lesions: np.ndarray, rows: np.ndarray | None = None, voxels: np.ndarray | None = None) -> Packed:
        """Pack maps (N, V), bool, or some rows and voxels of them, in their order."""
        from bids_app.learning.kernels import pack_by_voxel  # late: numba takes a moment to load

        if voxels is None:
            return cls(pack_by_voxel(lesions, rows), len(lesions) if rows is None else len(rows))
        if len(voxels) >= lesions.shape[1] // FEW:
            whole = cls.of(lesions, rows)
            return cls(whole.by_voxel[voxels], whole.n_scans)
        return cls.of(lesions[:, voxels] if rows is None else lesions[np.ix_(rows, voxels)])

    @property
    def n_voxels(self) -> int:
        """V."""
        return len(self.by_voxel)

    def and_an_empty_one(self) -> Packed:
        """Return these maps and one without lesions after them."""
        return Packed(np.pad(self.by_voxel, ((0, 0), (0, 1))), self.n_scans + 1)  # bits beyond the scans are 0

    def by_scan(self, voxels: np.ndarray) -> np.ndarray:
        """Return words by scan (N, ceil(n / 64)) of n voxels."""
        from bids_app.learning.kernels import pack_by_scan

        return pack_by_scan(self.by_voxel, voxels, self.n_scans)

    @cached_property
    def whole(self) -> np.ndarray:
        """Squared distances of the scans on all voxels, (N, N) int32, lower triangle."""
        return self.distances(np.arange(self.n_voxels))

    def distances(self, voxels: np.ndarray) -> np.ndarray:
        """Return the squared distances of the scans on some voxels, (N, N) int32, lower triangle."""
        from bids_app.learning.kernels import nested_distances

        return next((found for _, found in nested_distances(self.by_scan(voxels), [len(voxels)])))

    def rank(self, positive: np.ndarray, rows: np.ndarray) -> Ranking:
        """Rank voxels on some rows only, by their labels in ``positive`` (N,)."""
        from bids_app.learning.kernels import lesion_counts, row_mask

        groups = rows[positive[rows]], rows[~positive[rows]]
        a, b = (lesion_counts(self.by_voxel, row_mask(part, self.n_scans)) for part in groups)
        return rank_counts(a, b, len(groups[0]), len(groups[1]))


def sweep(
    lesions: np.ndarray | Packed,
    positive: np.ndarray,
    folds: Sequence[Fold],
    counts: Sequence[int],
    grid: Grid,
    search: Search,
) -> SweepResult:
    """Cross-validate every voxel count, C and gamma.

    Parameters
    ----------
    lesions : ndarray of bool, shape (N, V), or Packed
        Lesion maps of a training set.
    positive : ndarray of bool, shape (N,)
    folds : sequence of Fold
        Rows into these N; both groups in every training part.
    counts : sequence of int
        Numbers of top-ranked voxels, 1 to V; taken in ascending order, each once.
    grid : Grid
    search : Search

    Raises
    ------
    BadInputError
        If maps, labels, folds, counts or grid are wrong, or a fold trains on one group only.
    """
    if isinstance(lesions, np.ndarray):
        check_maps(lesions, positive, "sweep")
    _check_folds(folds, positive)
    _check_grid(grid)
    maps = lesions if isinstance(lesions, Packed) else Packed.of(lesions)
    tried = check_counts(counts, maps.n_voxels)
    solve, tell = _solver(search.solver), search.progress or (lambda message: None)
    correct = np.zeros((len(tried), len(grid.C), len(grid.gamma), len(folds)), np.int64)
    jobs = [(folds, slice(None), np.arange(len(positive)))]
    if search.rerank:
        jobs = [([fold], slice(k, k + 1), fold.train) for k, fold in enumerate(folds)]
    for number, (part, where, ranked_on) in enumerate(jobs, 1):
        order = maps.rank(positive, ranked_on).order
        for k, distances in enumerate(_nested(maps, order, tried)):
            correct[k, :, :, where] = solve(distances, positive, part, grid, search.tol)
            tell(f"ranking {number} of {len(jobs)}: {tried[k]} voxels done")
    sizes = np.array([len(fold.validate) for fold in folds])
    return SweepResult(np.array(tried), grid, correct, sizes)


def best_cell(result: SweepResult, i: int) -> Cell:
    """Return the best (C, gamma) at ``counts[i]``, by the rule of scikit-learn's GridSearchCV.

    Accuracy is the mean over folds of each fold's accuracy; on ties the first wins, C outer, gamma inner.
    """
    accuracy = (result.correct[i] / result.fold_sizes).mean(axis=-1)
    c, g = np.unravel_index(np.argmax(accuracy.round(DIGITS)), accuracy.shape)
    return Cell(int(result.counts[i]), result.grid.C[c], result.grid.gamma[g], float(accuracy[c, g]))


def best_count(result: SweepResult) -> Cell:
    """Return the best cell of all voxel counts; the smallest count on ties."""
    cells = [best_cell(result, i) for i in range(len(result.counts))]
    return max(cells, key=lambda cell: (round(cell.accuracy, DIGITS), -cell.n_voxels))


def merge(a: SweepResult, b: SweepResult) -> SweepResult:
    """Return both sweeps as one, counts ascending; where a count is in both, ``a`` is kept.

    Raises
    ------
    BadInputError
        If the two differ in grid or folds.
    """
    if a.grid != b.grid or not np.array_equal(a.fold_sizes, b.fold_sizes):
        raise BadInputError("two sweeps with different grids or folds cannot be merged", "sweep")
    counts, first = np.unique(np.concatenate([a.counts, b.counts]), return_index=True)
    return SweepResult(counts, a.grid, np.concatenate([a.correct, b.correct])[first], a.fold_sizes)


# -- steps of the sweep --------------------------------------------------------------------------


def _nested(maps: Packed, order: np.ndarray, counts: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield the distances of all scans (lower triangle) on the first voxels of an order, for each count.

    The last counts are had sooner by leaving out the voxels behind them: distances on all voxels need no ranking.
    """
    from bids_app.learning.kernels import nested_distances

    n_ahead = len(counts)
    while n_ahead and maps.n_voxels - counts[n_ahead - 1] < counts[n_ahead - 1] - (0, *counts)[n_ahead - 1]:
        n_ahead -= 1
    ahead = list(counts[:n_ahead])
    for _, distances in nested_distances(maps.by_scan(order[: max(ahead, default=0)]), ahead):
        yield distances
    for n in counts[n_ahead:]:
        if n == maps.n_voxels:
            yield maps.whole
        else:
            behind = maps.distances(order[n:])
            yield np.subtract(maps.whole, behind, out=behind)


def _solver(name: str) -> Solve:
    """Return the function from (distances, positive, folds, grid, tol) to correct (n_C, n_gamma, n_folds)."""
    if name not in ("smo", "libsvm"):
        raise BadInputError(f"solver {name!r} is not known", "sweep", "use smo or libsvm")
    return _solve_smo if name == "smo" else _solve_libsvm


def _solve_smo(
    distances: np.ndarray, positive: np.ndarray, folds: Sequence[Fold], grid: Grid, tol: float
) -> np.ndarray:
    from bids_app.learning.solver import cross_validate

    n_scans = len(positive)
    train = np.stack([np.bincount(fold.train, minlength=n_scans) for fold in folds])
    validate = np.stack([np.bincount(fold.validate, minlength=n_scans) for fold in folds])
    return cross_validate(distances, positive, train, validate, grid, tol)


def _solve_libsvm(
    distances: np.ndarray, positive: np.ndarray, folds: Sequence[Fold], grid: Grid, tol: float
) -> np.ndarray:
    full = distances + distances.T
    correct = np.zeros((len(grid.C), len(grid.gamma), len(folds)), np.int64)
    for f, fold in enumerate(folds):
        between, across = full[np.ix_(fold.train, fold.train)], full[np.ix_(fold.validate, fold.train)]
        for g, gamma in enumerate(grid.gamma):
            train, validate = np.exp(-gamma * between), np.exp(-gamma * across)
            for c, cost in enumerate(grid.C):
                called = train_svc(train, positive[fold.train], cost, tol).decide(validate) >= 0
                correct[c, g, f] = np.count_nonzero(called == positive[fold.validate])
    return correct


# -- checks --------------------------------------------------------------------------------------


def _check_folds(folds: Sequence[Fold], positive: np.ndarray) -> None:
    if not len(folds):
        raise BadInputError("there is no fold to cross-validate", "sweep")
    for number, fold in enumerate(folds, 1):
        where = f"fold {number} of {len(folds)}"
        for rows in (fold.train, fold.validate):
            if not len(rows) or rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= len(positive):
                raise BadInputError(f"rows must be numbers from 0 to {len(positive) - 1}", where)
        if np.intersect1d(fold.train, fold.validate).size:
            raise BadInputError("a scan is in both the training and the validation part", where)
        check_groups(positive[fold.train], where)


def _check_grid(grid: Grid) -> None:
    for name, values in (("C", grid.C), ("gamma", grid.gamma)):
        ascending = all(a < b for a, b in pairwise(values))
        if not values or not np.isfinite(values).all() or values[0] <= 0 or not ascending:
            raise BadInputError(f"{name} = {values} is not a list of ascending positive numbers", "grid")


def check_counts(counts: Sequence[int], n_voxels: int) -> list[int]:
    """Return the counts ascending, each once."""
    tried = sorted({int(n) for n in counts})
    if not tried or tried[0] < 1 or tried[-1] > n_voxels:
        raise BadInputError(f"voxel counts {tried} are not from 1 to {n_voxels}", "sweep")
    return tried
