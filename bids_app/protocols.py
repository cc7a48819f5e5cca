"""The two evaluations: as published, and without leakage; nested cross-validation and the permutation test.

Both take their lesion maps from ``maps_for(rows)``, which thresholds every scan by the belief of these training
rows alone: a protocol sees no threshold that its test set had a say in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bids_app import evaluation as measures
from bids_app.classifier import fit, near_zero
from bids_app.cohort import folds as make_folds
from bids_app.ranking import rank_voxels, ties_at
from bids_app.records import Cell, Division, Evaluation, Grid, Nested, SweepResult, Threshold
from bids_app.sweep import best_cell, best_count, decisions, merge, powers_of_two, refine_counts, sweep

PUBLISHED, HONEST = "published", "leakage-free"
GRID = Grid(tuple(2.0**k for k in range(-3, 6)), tuple(2.0**k for k in range(-3, 6)))  # 0.125 ... 32
NEAR_ZERO = 1e-6  # the tolerance of the final fits: a smaller decision value could have the other sign

MapsFor = Callable[[np.ndarray], tuple[np.ndarray, Threshold]]


@dataclass(frozen=True)
class Plan:
    """How the selection is made: folds, refinement, solver, bootstrap draws and seed."""

    cv_folds: int
    refine_limit: int
    solver: str
    bootstrap_draws: int
    seed: int
    progress: Callable[[str], None] = lambda line: None


def published(
    maps_for: MapsFor, positive: np.ndarray, participants: np.ndarray, division: Division, plan: Plan
) -> tuple[Evaluation, Threshold]:
    """Evaluate exactly as published, leaks and all.

    Voxels are ranked once on the training set; (C, gamma) by 10-fold cross-validation over scans of that same
    set; the voxel count by the best AUC of the *test set*, among powers of two and then between the neighbours
    of the best.
    """
    lesions, threshold = maps_for(division.train)
    train, test = lesions[division.train], lesions[division.test]
    labels, wanted = positive[division.train], positive[division.test]
    folds = make_folds(labels, participants[division.train], plan.cv_folds, by="scan", seed=plan.seed)
    order = rank_voxels(train, labels).order

    def tried(counts: tuple[int, ...]) -> SweepResult:
        return sweep(train, labels, folds, counts, GRID, rerank=False, solver=plan.solver, progress=plan.progress)

    def test_auc(result: SweepResult) -> np.ndarray:
        cells = [best_cell(result, i) for i in range(len(result.counts))]
        _, values = decisions(train, labels, test, cells, order)
        return np.array([measures.auc(wanted, value).value for value in values])

    counts = powers_of_two(lesions.shape[1])
    result = tried(counts)
    best = int(result.counts[np.nanargmax(test_auc(result))])
    more = refine_counts(best, counts, plan.refine_limit)
    if more:
        result = merge(result, tried(more))
    chosen = int(np.nanargmax(test_auc(result)))
    return _evaluate(PUBLISHED, lesions, positive, participants, division, result, chosen, plan), threshold


def leakage_free(
    maps_for: MapsFor, positive: np.ndarray, participants: np.ndarray, division: Division, plan: Plan
) -> tuple[Evaluation, Threshold]:
    """Evaluate without leakage: everything is chosen inside the training set, and the test set read once.

    Folds keep the scans of a participant together, and the ranking is made anew in every fold.
    """
    lesions, threshold = maps_for(division.train)
    result, cell = select(lesions[division.train], positive[division.train], participants[division.train], plan)
    chosen = int(np.flatnonzero(result.counts == cell.n_voxels)[0])
    return _evaluate(HONEST, lesions, positive, participants, division, result, chosen, plan), threshold


def select(lesions: np.ndarray, positive: np.ndarray, participants: np.ndarray, plan: Plan) -> tuple[SweepResult, Cell]:
    """Choose voxel count, C and gamma by cross-validation over participants, ranking in every fold."""
    folds = make_folds(positive, participants, plan.cv_folds, by="participant", seed=plan.seed)

    def tried(counts: tuple[int, ...]) -> SweepResult:
        return sweep(lesions, positive, folds, counts, GRID, rerank=True, solver=plan.solver, progress=plan.progress)

    counts = powers_of_two(lesions.shape[1])
    result = tried(counts)
    more = refine_counts(best_count(result).n_voxels, counts, plan.refine_limit)
    if more:
        result = merge(result, tried(more))
    return result, best_count(result)


def _evaluate(
    name: str,
    lesions: np.ndarray,
    positive: np.ndarray,
    participants: np.ndarray,
    division: Division,
    result: SweepResult,
    chosen: int,
    plan: Plan,
) -> Evaluation:
    train, test = lesions[division.train], lesions[division.test]
    labels, wanted = positive[division.train], positive[division.test]
    ranking = rank_voxels(train, labels)
    cells = tuple(best_cell(result, i) for i in range(len(result.counts)))
    on_train, on_test = decisions(train, labels, test, cells, ranking.order)
    cell = cells[chosen]
    volumes = lesions.sum(axis=1)
    return Evaluation(
        name=name,
        division=division,
        ranking=ranking,
        sweep=result,
        cells=cells,
        train_curve=tuple(measures.performance(labels, value) for value in on_train),
        test_curve=tuple(measures.performance(wanted, value) for value in on_test),
        chosen=chosen,
        model=fit(train, labels, ranking.order[: cell.n_voxels], cell.C, cell.gamma, NEAR_ZERO),
        train_decisions=on_train[chosen],
        test_decisions=on_test[chosen],
        test_bootstrap=measures.bootstrap(
            wanted, on_test[chosen], participants[division.test], plan.bootstrap_draws, plan.seed
        ),
        lesion_free=measures.lesion_free(volumes[division.test], wanted, on_test[chosen]),
        ties={int(n): ties_at(ranking, int(n)) for n in result.counts},
        near_zero=near_zero(on_test[chosen], NEAR_ZERO),
        baselines={
            "majority": measures.majority(labels, wanted),
            "lesion_volume": measures.lesion_volume(
                volumes[division.train].astype(float), labels, volumes[division.test].astype(float), wanted
            ),
        },
    )


def nested(maps_for: MapsFor, positive: np.ndarray, participants: np.ndarray, n_folds: int, plan: Plan) -> Nested:
    """Test every scan once, out of fold: the whole leakage-free selection inside each outer training part."""
    values = np.full(len(positive), np.nan)
    place = np.zeros(len(positive), int)
    cells = []
    outer = make_folds(positive, participants, n_folds, by="participant", seed=plan.seed)
    for number, fold in enumerate(outer):
        plan.progress(f"nested fold {number + 1} of {len(outer)}")
        lesions, _ = maps_for(fold.train)
        train, labels = lesions[fold.train], positive[fold.train]
        _, cell = select(train, labels, participants[fold.train], plan)
        order = rank_voxels(train, labels).order
        values[fold.validate] = decisions(train, labels, lesions[fold.validate], [cell], order)[1][0]
        place[fold.validate] = number
        cells.append(cell)
    return Nested(
        decisions=values,
        fold=place,
        cells=tuple(cells),
        performance=measures.performance(positive, values),
        bootstrap=measures.bootstrap(positive, values, participants, plan.bootstrap_draws, plan.seed),
    )


def permuted_auc(
    lesions: np.ndarray, positive: np.ndarray, participants: np.ndarray, n_folds: int, plan: Plan
) -> float:
    """Return the nested AUC of already permuted labels; the lesion maps are those of the real labels' threshold.

    The threshold does not look at labels, so it need not be permuted with them.
    """
    fixed = Threshold(float("nan"), "given")
    found = nested(lambda rows: (lesions, fixed), positive, participants, n_folds, plan)
    return found.performance.auc.value if found.performance.auc else float("nan")
