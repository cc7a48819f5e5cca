"""Recipe against recipe: every fold of every recipe is a task of its own, on the workers that scans run on."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bids_app.errors import BadInputError
from bids_app.group import entrants, kept
from bids_app.group.entrants import RECOMMENDED, Entry
from bids_app.image.atlas import brain_grid
from bids_app.learning.division import permute
from bids_app.learning.measures import permutation_p
from bids_app.learning.protocols import HONEST, PUBLISHED, Plan, fold_numbers, silent
from bids_app.learning.roc import auc_within
from bids_app.machine import parallel
from bids_app.machine.progress import told
from bids_app.recommended import comparison, contest, neighbours
from bids_app.recommended.calibration import cuts
from bids_app.recommended.features import lesion_free
from bids_app.recommended.machine import decide, labels_of, model_of, train, train_duals
from bids_app.recommended.nested import Piece, Wanted, assemble, outer_folds, piece
from bids_app.recommended.products import Products
from bids_app.records.cohort import Fold, Labelled
from bids_app.records.recommended import Calibration, Contest, LinearModel, OutOfFold, Permutation, Row, Seen
from bids_app.records.results import Evaluation

log = logging.getLogger("bids_app")
DEFAULT_INNER = 5
SHARE = 10  # permutations in a task: kernels are made once for all of them


class Rules(NamedTuple):
    """Outer folds (0: no contest), repeats, what is asked of each recipe, permutations of the labels, and threads."""

    nested_folds: int
    repeats: int
    wanted: Wanted
    permutations: int
    omp_nthreads: int = 1


class Prepared(NamedTuple):
    """What recipes compete on, with the products of the recommended one in a folder, and the CPU seconds these took."""

    entry: Entry
    folder: Path
    made: Products
    seconds: float


class Trained(NamedTuple):
    """The recommended recipe trained on all scans, and the decision values from which it calls a scan positive."""

    model: LinearModel
    calibration: Calibration
    seen: Seen
    thresholds: dict[str, float]


class Ran(NamedTuple):
    """What came of the folds: out-of-fold values and CPU seconds by name of the recipe, and the permutation test."""

    out_of_fold: dict[str, OutOfFold]
    seconds: dict[str, float]
    permutation: Permutation | None


class _Task(NamedTuple):
    """One fold of one recipe; the plan's seed is that of the repeat."""

    folder: Path
    name: str
    place: tuple[int, int]
    fold: Fold
    plan: Plan
    rules: Rules


class _Shuffle(NamedTuple):
    """Some permutations of the labels inside the outer folds: all folds of the recommended recipe, a folder each."""

    folders: tuple[Path, ...]
    outer: tuple[Fold, ...]
    seeds: tuple[int, ...]
    plan: Plan
    rules: Rules


class _Done(NamedTuple):
    """What came of a task: its recipe, repeat and fold."""

    name: str
    place: tuple[int, int]
    piece: Piece
    seconds: float


def prepare(entry: Entry, work_dir: Path) -> Prepared:
    """Lay what training the recommended recipe needs in ``work_dir/contest``, and return it."""
    start, folder = time.process_time(), work_dir / "contest"
    made = kept.lay(folder, entry.maps, entry.labelled.participants)
    return Prepared(entry, folder, made, time.process_time() - start)


def train_whole(prepared: Prepared, rules: Rules, plan: Plan) -> Trained:
    """Train the recommended recipe on all scans.

    Raises
    ------
    BadInputError
        A group is too small for the inner folds.
    """
    entry, made, grid = prepared.entry, prepared.made, brain_grid(3)
    labels = labels_of(entry.labelled.positive, entry.labelled.participants)
    trained = train(made, labels, np.unique(made.person), _inner(rules), plan.random_seed)
    model = model_of(trained, made, entry.maps, grid.data, grid.affine)
    thresholds = cuts(trained.calibration, rules.wanted.sensitivity, rules.wanted.prevalence)
    return Trained(model, trained.calibration, seen_of(entry.maps, entry.labelled), thresholds)


def seen_of(maps: np.ndarray, labelled: Labelled) -> Seen:
    """Return what training saw of lesion maps (N, V)."""
    grid = brain_grid(3)
    sketches = neighbours.sketch(maps, grid.data, grid.affine)
    person = np.unique(labelled.participants, return_inverse=True)[1]
    return Seen(tuple(scan.name for scan in labelled.scans), sketches, neighbours.farthest(sketches, person))


def run(prepared: Prepared, rules: Rules, plan: Plan, workers: parallel.Workers) -> Ran:
    """Let all recipes compete on the same folds, and permute the labels of the recommended one.

    Parameters
    ----------
    prepared : Prepared
    rules : Rules
    plan : Plan
        Folds and seeds of the selection.
    workers : Workers

    Raises
    ------
    BadInputError
        A group is too small for the folds, or a fold was lost with its worker.
    """
    entry, labelled = prepared.entry, prepared.entry.labelled
    positive, participants = labelled.positive, labelled.participants
    outer = outer_folds(positive, participants, rules.nested_folds, rules.repeats, plan.random_seed)
    folders, seconds = _laid(entry, outer, prepared.folder)
    seconds[RECOMMENDED] = seconds.get(RECOMMENDED, 0.0) + prepared.seconds
    quiet = replace(plan, tell=silent, detail=silent)  # a task's progress is that of the run
    recipes = entrants.names(entry)
    tasks = [
        _Task(folders[r][k], name, (r, k), fold, replace(quiet, random_seed=plan.random_seed + r), rules)
        for name in recipes
        for r, repeat in enumerate(outer)
        for k, fold in enumerate(repeat)
    ]
    log.info("recipe against recipe: %s; %d folds, %d repeats", ", ".join(recipes), len(outer[0]), len(outer))
    done = list(told(parallel.run(_tested, tasks, workers, _lost), len(tasks), "folds of recipes"))
    found = {}
    for name in recipes:
        own = sorted((each for each in done if each.name == name), key=lambda each: each.place)
        found[name] = assemble(name, outer, [each.piece for each in own], len(positive))
        seconds[name] = seconds.get(name, 0.0) + sum(each.seconds for each in own)
    permuted = _permuted(folders[0], outer[0], quiet, rules, workers)
    return Ran(found, seconds, _permutation(found[RECOMMENDED], positive, permuted) if permuted else None)


def judge(ran: Ran, entry: Entry, plan: Plan, beside: Sequence[Row]) -> Contest:
    """Return the verdict on recipes that shared their folds, and rows of others ``beside``."""
    positive, participants = entry.labelled.positive, entry.labelled.participants
    draws = comparison.draw(positive, participants, plan.bootstrap_draws, plan.random_seed)
    people = (positive, participants, lesion_free(entry.maps))
    return contest.judge(ran.out_of_fold, ran.seconds, HONEST, people, draws, beside)


def _permuted(
    folders: tuple[Path, ...], outer: tuple[Fold, ...], plan: Plan, rules: Rules, workers: parallel.Workers
) -> tuple[float, ...]:
    """Return the AUCs of permuted labels in the order of their seeds."""
    seeds = range(plan.random_seed + 1, plan.random_seed + 1 + rules.permutations)
    shares = [tuple(seeds[start : start + SHARE]) for start in range(0, len(seeds), SHARE)]
    shuffles = [_Shuffle(folders, outer, share, plan, rules) for share in shares]
    found: dict[int, float] = {}
    for some in parallel.run(_shuffled, shuffles, workers, _lost_shuffle) if shuffles else ():
        found |= some
        log.info("permutations of the recommended recipe: %d of %d", len(found), len(seeds))
    return tuple(found[seed] for seed in sorted(found))


def _permutation(found: OutOfFold, positive: np.ndarray, permuted: tuple[float, ...]) -> Permutation:
    """Return the test: labels as they are on the folds of the first repeat, on which they were permuted."""
    observed = auc_within(positive, found.decisions[0], found.fold[0]).value
    return Permutation("nested AUC within folds, first repeat", observed, permutation_p(observed, permuted), permuted)


def _laid(
    entry: Entry, outer: tuple[tuple[Fold, ...], ...], folder: Path
) -> tuple[list[tuple[Path, ...]], dict[str, float]]:
    """Return where each fold of each repeat finds what it needs, and CPU seconds of preparing by name of the recipe.

    That is one folder for all, unless what scans are measured against is estimated on each fold's training rows.
    """
    if entry.of_rows is None:
        return [(folder,) * len(repeat) for repeat in outer], entrants.lay(folder, entry)
    places, seconds = [], dict.fromkeys(entrants.names(entry), 0.0)
    for r, repeat in enumerate(outer):
        places.append(tuple(folder / f"{r}-{k}" for k in range(len(repeat))))
        for place, fold in zip(places[-1], repeat, strict=True):
            start = time.process_time()
            own = entry.of_rows(fold.train)
            kept.lay(place, own.maps, own.labelled.participants)
            seconds[RECOMMENDED] += time.process_time() - start
            for name, more in entrants.lay(place, own).items():
                seconds[name] += more
    return places, seconds


def published_row(evaluation: Evaluation, labelled: Labelled, plan: Plan, seconds: float) -> Row:
    """Return the row of the published way, on its own division: it shares no folds, so nothing is paired.

    Nor is there a Brier score: the published way has no out-of-fold values to make probabilities of.
    """
    intervals = evaluation.test.bootstrap
    values = {key: getattr(evaluation.performance, key) for key in intervals}
    found = {key: replace(intervals[key], value=each.value) for key, each in values.items() if each}
    rows, decisions = evaluation.division.test, evaluation.test.decisions[None]
    positive, participants = labelled.positive[rows], labelled.participants[rows]
    if positive.any() and not positive.all():
        draws = comparison.draw(positive, participants, plan.bootstrap_draws, plan.random_seed)
        one_fold = OutOfFold(PUBLISHED, decisions, np.zeros(decisions.shape, int), np.zeros(decisions.shape))
        area = comparison.sample(one_fold, positive, participants, draws)["auc_participants"]
        found["auc_participants"] = comparison.measure(area, intervals["auc"].method)
    return Row(PUBLISHED, found, seconds)


def _inner(rules: Rules) -> int:
    """Return the inner folds: as many as outer ones."""
    return rules.nested_folds or DEFAULT_INNER


# -- tasks ---------------------------------------------------------------------------------------


def _tested(task: _Task) -> _Done:
    found = entrants.laid(task.folder)
    rounds = entrants.Rounds(task.plan, _inner(task.rules), task.rules.omp_nthreads)
    recipe, start = entrants.recipe(task.name, found, rounds), time.process_time()
    tested = piece(recipe, task.fold, task.plan.random_seed, found.made.lesion_free, task.rules.wanted)
    return _Done(task.name, task.place, tested, time.process_time() - start)


def _shuffled(task: _Shuffle) -> dict[int, float]:
    """Return the nested AUC within folds by seed, labels permuted inside the folds; kernels are made once for all."""
    found = entrants.laid(task.folders[0])
    made, positive = found.made, found.people.positive
    place = fold_numbers(task.outer)
    values = {seed: np.empty(len(positive)) for seed in task.seeds}
    labels = {seed: permute(positive, made.person, seed, within=place) for seed in task.seeds}
    for folder, fold in zip(task.folders, task.outer, strict=True):
        made = entrants.laid(folder).made
        people = np.unique(made.person[fold.train])
        groups = [labels_of(labels[seed], made.person) for seed in task.seeds]
        for each in groups:
            each[np.setdiff1d(made.person, people)] = False  # not even the labels of the others are handed over
        duals = train_duals(made, groups, people, _inner(task.rules), task.plan.random_seed)
        for seed, dual in zip(task.seeds, duals, strict=True):
            values[seed][fold.validate] = decide(made, dual, fold.validate)
    return {seed: auc_within(labels[seed], values[seed], place).value for seed in task.seeds}


def _lost(task: _Task, reason: str) -> _Done:
    raise BadInputError(f"fold {task.place} of {task.name} was lost ({reason})", remedy="lower --nprocs")


def _lost_shuffle(task: _Shuffle, reason: str) -> dict[int, float]:
    raise BadInputError(f"permutations {task.seeds} were lost ({reason})", remedy="lower --nprocs")
