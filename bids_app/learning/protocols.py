"""The two evaluations: as published, and without leakage; and the parts of nested cross-validation.

All take their lesion maps from ``maps_for(rows)``, which thresholds every scan by the belief of these training
rows alone: a protocol sees no threshold that its test set had a say in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from bids_app.learning import measures, roc
from bids_app.learning.classifier import decide, model_of, near_zero
from bids_app.learning.division import folds as make_folds
from bids_app.learning.ranking import rank_voxels, ties_at
from bids_app.learning.refit import REFIT_TOL, Refit, refit
from bids_app.learning.sweep import Packed, Search, best_cell, best_count, merge, powers_of_two, refine_counts, sweep
from bids_app.records.cohort import Cell, Division, Fold, Grid, LesionMaps, Ranking, SweepResult
from bids_app.records.results import Evaluation, HeldOutScores, Nested, Scores, Selection

PUBLISHED, HONEST = "published", "leakage-free"
GRID = Grid(tuple(2.0**k for k in range(-3, 6)), tuple(2.0**k for k in range(-3, 6)))  # 0.125 ... 32
COARSE = Grid(GRID.C[::2], GRID.gamma[::2])
COARSE_FOLDS = 3

MapsFor = Callable[[np.ndarray], LesionMaps]


def silent(line: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Plan:
    """How the selection is made, by the names of the options, and who is told how far it is.

    ``tell`` hears of every outer fold and of the published sweep, ``detail`` of every other sweep. Without a
    ``refine_limit`` no voxel counts between powers of two are tried.
    """

    cv_folds: int
    refine_limit: int | None
    solver: str
    bootstrap_draws: int
    random_seed: int
    tell: Callable[[str], None] = silent
    detail: Callable[[str], None] = silent
    grid: Grid = GRID

    def coarser(self) -> Plan:
        """Return the plan of a search about ten times as fast: powers of two, every second C and gamma, fewer folds."""
        return replace(self, cv_folds=min(self.cv_folds, COARSE_FOLDS), refine_limit=None, grid=COARSE)

    def between(self, best: int, counts: Sequence[int]) -> tuple[int, ...]:
        """Return the voxel counts to try about the best of some."""
        return () if self.refine_limit is None else refine_counts(best, counts, self.refine_limit)


@dataclass(frozen=True)
class _Sides:
    """A division, the maps of all scans, and of its two sets labels (N,) and participants.

    Maps of a set are packed when they are asked for, not copied: many scans' maps are what needs memory.
    """

    division: Division
    maps: LesionMaps
    labels: np.ndarray
    wanted: np.ndarray
    participants: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, maps: LesionMaps, positive: np.ndarray, participants: np.ndarray, division: Division) -> _Sides:
        train, test = division.train, division.test
        return cls(division, maps, positive[train], positive[test], (participants[train], participants[test]))

    def packed(self, rows: np.ndarray) -> Packed:
        """Return the lesion maps of some scans as bits."""
        return Packed.of(self.maps.lesions, rows)

    def ranking(self) -> Ranking:
        """Return the voxels ranked on the whole training set."""
        return rank_voxels(self.maps.lesions[self.division.train], self.labels)


def published(
    maps_for: MapsFor, positive: np.ndarray, participants: np.ndarray, division: Division, plan: Plan
) -> Evaluation:
    """Evaluate exactly as published, leaks and all.

    Voxels are ranked once on the training set; (C, gamma) by 10-fold cross-validation over scans of that same
    set; the voxel count by the best AUC of the *test set*, among powers of two and then between the neighbours
    of the best.
    """
    maps = maps_for(division.train)
    sides = _Sides.of(maps, positive, participants, division)
    folds = make_folds(sides.labels, sides.participants[0], plan.cv_folds, by="scan", seed=plan.random_seed)
    ranking = sides.ranking()

    def tried(counts: tuple[int, ...]) -> tuple[SweepResult, list[Refit]]:
        how = Search(rerank=False, solver=plan.solver, progress=plan.tell)
        result = sweep(sides.packed(division.train), sides.labels, folds, counts, plan.grid, how)
        return result, _refitted(sides, ranking, result)

    def best(refits: Sequence[Refit]) -> int:
        return int(np.nanargmax([roc.auc(sides.wanted, each.test).value for each in refits]))

    counts = powers_of_two(maps.lesions.shape[1])
    result, refits = tried(counts)
    more = plan.between(refits[best(refits)].cell.n_voxels, counts)
    if more:
        finer, added = tried(more)
        result, refits = merge(result, finer), sorted([*refits, *added], key=lambda each: each.cell.n_voxels)
    selection = _selection(ranking, result, refits, best(refits))
    return _evaluation(PUBLISHED, sides, selection, refits, plan)


def leakage_free(
    maps_for: MapsFor, positive: np.ndarray, participants: np.ndarray, division: Division, plan: Plan
) -> Evaluation:
    """Evaluate without leakage: everything is chosen inside the training set, and the test set read once.

    Folds keep the scans of a participant together, and the ranking is made anew in every fold.
    """
    maps = maps_for(division.train)
    sides = _Sides.of(maps, positive, participants, division)
    result, cell = select(sides.packed(division.train), sides.labels, sides.participants[0], plan)
    ranking = sides.ranking()
    refits = _refitted(sides, ranking, result)
    chosen = int(np.flatnonzero(result.counts == cell.n_voxels)[0])
    selection = _selection(ranking, result, refits, chosen)
    return _evaluation(HONEST, sides, selection, refits, plan)


def select(
    lesions: np.ndarray | Packed, positive: np.ndarray, participants: np.ndarray, plan: Plan
) -> tuple[SweepResult, Cell]:
    """Choose voxel count, C and gamma by cross-validation over participants, ranking in every fold."""
    maps = lesions if isinstance(lesions, Packed) else Packed.of(lesions)
    folds = make_folds(positive, participants, plan.cv_folds, by="participant", seed=plan.random_seed)

    def tried(counts: tuple[int, ...]) -> SweepResult:
        how = Search(rerank=True, solver=plan.solver, progress=plan.detail)
        return sweep(maps, positive, folds, counts, plan.grid, how)

    counts = powers_of_two(maps.n_voxels)
    result = tried(counts)
    more = plan.between(best_count(result).n_voxels, counts)
    if more:
        result = merge(result, tried(more))
    return result, best_count(result)


def _refitted(sides: _Sides, ranking: Ranking, result: SweepResult) -> list[Refit]:
    """Train the best cell of every count, each once."""
    cells = [best_cell(result, i) for i in range(len(result.counts))]
    train, test = (sides.packed(rows) for rows in (sides.division.train, sides.division.test))
    return refit(train, sides.labels, test, cells, ranking.order)


def _selection(ranking: Ranking, result: SweepResult, refits: Sequence[Refit], chosen: int) -> Selection:
    ties = {int(n): ties_at(ranking, int(n)) for n in result.counts}
    return Selection(ranking, result, tuple(each.cell for each in refits), chosen, ties)


def _evaluation(name: str, sides: _Sides, selection: Selection, refits: Sequence[Refit], plan: Plan) -> Evaluation:
    cell, own = selection.cell, refits[selection.chosen]
    voxels = selection.ranking.order[: cell.n_voxels]
    lesions, train, test = sides.maps.lesions, sides.division.train, sides.division.test
    trained = own.trained._replace(rows=train[own.trained.rows])
    model = model_of(trained, lesions, voxels, cell.C, cell.gamma)
    decided = decide(model, lesions)  # as anybody who loads the model decides
    decisions, volume = decided[test], lesions.sum(axis=1)
    volumes, of_train = volume[test], volume[train]
    return Evaluation(
        name,
        sides.division,
        sides.maps,
        selection,
        model,
        Scores(tuple(measures.performance(sides.labels, each.train) for each in refits), decided[train]),
        HeldOutScores(
            tuple(measures.performance(sides.wanted, each.test) for each in refits),
            decisions,
            measures.bootstrap(sides.wanted, decisions, sides.participants[1], plan.bootstrap_draws, plan.random_seed),
            measures.lesion_free(volumes, sides.wanted, decisions),
            near_zero(decisions, REFIT_TOL),
            {
                "majority": measures.majority(sides.labels, sides.wanted),
                "lesion_volume": measures.lesion_volume(
                    of_train.astype(float), sides.labels, volumes.astype(float), sides.wanted
                ),
            },
        ),
    )


# -- nested cross-validation ---------------------------------------------------------------------


def outer_folds(positive: np.ndarray, participants: np.ndarray, n_folds: int, plan: Plan) -> tuple[Fold, ...]:
    """Return the outer folds of the nested cross-validation, over participants."""
    return make_folds(positive, participants, n_folds, by="participant", seed=plan.random_seed)


def fold_numbers(outer: Sequence[Fold]) -> np.ndarray:
    """Return the outer fold (N,) in which each scan is tested."""
    place = np.zeros(sum(len(fold.validate) for fold in outer), int)
    for number, fold in enumerate(outer):
        place[fold.validate] = number
    return place


class OuterPart(NamedTuple):
    """Lesion maps of an outer fold's two parts at the threshold of its training rows: whatever the labels."""

    train: Packed
    test: Packed

    @classmethod
    def of(cls, lesions: np.ndarray, fold: Fold) -> OuterPart:
        """Take the two parts of maps (N, V) of all scans."""
        return cls(Packed.of(lesions, fold.train), Packed.of(lesions, fold.validate))


def decide_fold(part: OuterPart, labels: np.ndarray, participants: np.ndarray, plan: Plan) -> tuple[np.ndarray, Cell]:
    """Return decision values (M,) of one outer fold's test scans, and the cell chosen in its training part.

    ``labels`` and ``participants`` (N,) are those of the training part: of the others nothing is handed over.
    """
    _, cell = select(part.train, labels, participants, plan)
    order = part.train.rank(labels, np.arange(len(labels))).order
    return refit(part.train, labels, part.test, [cell], order)[0].test, cell


def assemble(
    found: Sequence[tuple[np.ndarray, Cell]],
    positive: np.ndarray,
    participants: np.ndarray,
    outer: Sequence[Fold],
    plan: Plan,
) -> Nested:
    """Return the nested cross-validation of what `decide_fold` found in each outer fold, in their order."""
    values, place = out_of_fold([each for each, _ in found], outer), fold_numbers(outer)
    pooled = measures.performance(positive, values)
    return Nested(
        decisions=values,
        fold=place,
        cells=tuple(cell for _, cell in found),
        performance=replace(pooled, auc=roc.auc_within(positive, values, place)),
        bootstrap=measures.bootstrap(
            positive, values, participants, plan.bootstrap_draws, plan.random_seed, fold=place
        ),
        pooled_auc=roc.auc(positive, values),
    )


def out_of_fold(values: Sequence[np.ndarray], outer: Sequence[Fold]) -> np.ndarray:
    """Return the decision values (N,) of all scans from those of every outer fold's test scans."""
    every = np.full(sum(map(len, values)), np.nan)
    for fold, part in zip(outer, values, strict=True):
        every[fold.validate] = part
    return every
