"""Nested cross-validation of the leakage-free recipe, and its permutation test, fold by fold on the workers.

The permutation test repeats the nested selection with labels permuted over participants. Labels change places inside
the outer folds only. These then stay stratified, and their training parts the same, so that every permutation sees the
lesion maps of the observed value: those at the threshold of each fold's training part. What does not look at labels
(maps, their packing, distances on all voxels) is made once a task, for several permutations of one fold. Voxels are
ranked by labels, so kernels cannot be kept from one permutation to the next. Instead the search is a coarser one
(`protocols.Plan.coarser`), for the true labels and the permuted alike: a permutation test is exact whatever its
statistic.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bids_app.errors import BadInputError
from bids_app.learning import protocols
from bids_app.learning.division import permute
from bids_app.learning.measures import permutation_p
from bids_app.learning.protocols import MapsFor, OuterPart, Plan
from bids_app.learning.roc import auc_within
from bids_app.learning.sweep import Packed
from bids_app.machine import parallel
from bids_app.machine.progress import told
from bids_app.records.cohort import Cell, Fold
from bids_app.records.recommended import Permutation
from bids_app.records.results import Nested

log = logging.getLogger("bids_app")
STATISTIC = "nested AUC within folds of a coarser search"
SHARE = 5  # permutations of one fold in a task: few enough that workers end together


@dataclass(frozen=True)
class Laid:
    """Where workers find what every fold needs, and who is tested: labels (N,), participants (N,), outer folds."""

    folder: Path
    positive: np.ndarray
    participants: np.ndarray
    outer: Sequence[Fold]


class _Task(NamedTuple):
    """One outer fold and the seeds of its permutations; none: the labels as they are."""

    folder: Path
    number: int
    fold: Fold
    seeds: tuple[int, ...]
    plan: Plan


class _Done(NamedTuple):
    """Decision values of the fold's test scans and the chosen cell, for each seed in turn, or for the true labels."""

    number: int
    seeds: tuple[int, ...]
    found: list[tuple[np.ndarray, Cell]]


def lay(maps_for: MapsFor, positive: np.ndarray, participants: np.ndarray, outer: Sequence[Fold], folder: Path) -> Laid:
    """Lay the maps of every outer fold, packed, where workers find them; one fold's maps are in memory at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    people = np.unique(participants, return_inverse=True)[1]
    np.savez(folder / "people.npz", positive=positive, participants=people, fold=protocols.fold_numbers(outer))
    for number, fold in enumerate(outer):
        part = OuterPart.of(maps_for(fold.train).lesions, fold)
        np.savez(_maps(folder, number), **{name: packed.by_voxel for name, packed in part._asdict().items()})
    return Laid(folder, positive, participants, outer)


def nested(laid: Laid, workers: parallel.Workers, plan: Plan) -> Nested:
    """Test every scan once, out of fold, each outer fold a task.

    Raises
    ------
    BadInputError
        When a fold was lost with its worker; or as `protocols.decide_fold` raises.
    """
    quiet = replace(plan, tell=protocols.silent, detail=protocols.silent)
    tasks = [_Task(laid.folder, number, fold, (), quiet) for number, fold in enumerate(laid.outer)]
    found: dict[int, tuple[np.ndarray, Cell]] = {}
    for done in parallel.run(_tested, tasks, workers, _lost):
        found[done.number] = done.found[0]
        plan.tell(f"nested fold {len(found)} of {len(tasks)} done")
    in_order = [found[number] for number in sorted(found)]
    return protocols.assemble(in_order, laid.positive, laid.participants, laid.outer, plan)


def test(laid: Laid, n: int, workers: parallel.Workers, plan: Plan) -> Permutation:
    """Permute the labels ``n`` times, with the plan's seed plus 1, 2, ..., and compare with the labels as they are.

    Raises
    ------
    BadInputError
        When permutations were lost with their worker; or as `protocols.decide_fold` raises.
    """
    quiet = replace(plan.coarser(), tell=protocols.silent, detail=protocols.silent)  # its progress is its number
    seeds = range(plan.random_seed + 1, plan.random_seed + 1 + n)
    shares: list[tuple[int, ...]] = [(), *(tuple(seeds[start : start + SHARE]) for start in range(0, n, SHARE))]
    tasks = [_Task(laid.folder, k, fold, share, quiet) for share, (k, fold) in product(shares, enumerate(laid.outer))]
    place = protocols.fold_numbers(laid.outer)
    values: dict[int | None, dict[int, np.ndarray]] = defaultdict(dict)  # by seed and fold; None: the true labels
    found: dict[int, float] = {}
    observed = float("nan")
    for done in told(parallel.run(_tested, tasks, workers, _lost), len(tasks), "permuted folds"):
        for seed, (decisions, _) in zip(done.seeds or (None,), done.found, strict=True):
            values[seed][done.number] = decisions
            if len(values[seed]) < len(laid.outer):
                continue
            own = values.pop(seed)
            decided = protocols.out_of_fold([own[k] for k in sorted(own)], laid.outer)
            if seed is None:
                observed = auc_within(laid.positive, decided, place).value
                continue
            labels = permute(laid.positive, laid.participants, seed, within=place)
            found[seed] = auc_within(labels, decided, place).value
            log.info("permutation %d of %d: AUC %.3f", len(found), n, found[seed])
    every = tuple(found[seed] for seed in sorted(found))
    return Permutation(STATISTIC, observed, permutation_p(observed, every), every)


def _maps(folder: Path, number: int) -> Path:
    return folder / f"fold-{number}.npz"


def _tested(task: _Task) -> _Done:
    with np.load(task.folder / "people.npz", allow_pickle=False) as stored:
        positive, participants, place = stored["positive"], stored["participants"], stored["fold"]
    with np.load(_maps(task.folder, task.number), allow_pickle=False) as stored:
        sizes = {"train": len(task.fold.train), "test": len(task.fold.validate)}
        part = OuterPart(**{name: Packed(stored[name], n) for name, n in sizes.items()})
    rows = task.fold.train
    every = [permute(positive, participants, seed, within=place) for seed in task.seeds] or [positive]
    found = [protocols.decide_fold(part, labels[rows], participants[rows], task.plan) for labels in every]
    return _Done(task.number, task.seeds, found)


def _lost(task: _Task, reason: str) -> _Done:
    what = f"fold {task.number + 1} of the nested cross-validation was lost ({reason})"
    raise BadInputError(what, remedy="lower --nprocs or raise --mem-mb")
