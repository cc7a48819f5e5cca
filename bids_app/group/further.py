"""Beside the contest: sites left out one by one, what maps tell of the site, and more than two groups."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bids_app.errors import BadInputError
from bids_app.group import entrants, kept
from bids_app.group.entrants import RECOMMENDED, Entry
from bids_app.learning.protocols import Plan
from bids_app.machine import parallel
from bids_app.recommended import comparison
from bids_app.recommended.nested import Piece, Wanted, assemble, piece
from bids_app.records.cohort import Fold
from bids_app.records.further import Confounding, Several, Sites
from bids_app.records.recommended import OutOfFold, Row
from bids_app.rivals import several

LEFT_OUT = "recommended, one site left out"
GROUPS = "groups.npz"


class Asked(NamedTuple):
    """How it is evaluated: folds, outer and inner ones, repeats, what is asked of each recipe, the plan and workers."""

    nested_folds: int
    repeats: int
    wanted: Wanted
    plan: Plan
    workers: parallel.Workers


class _Group(NamedTuple):
    """One fold of one group against the rest, for every group."""

    folder: Path
    place: tuple[int, int]
    fold: Fold
    n_groups: int
    inner_folds: int
    seed: int


class _Site(NamedTuple):
    """One site left out."""

    folder: Path
    place: int
    fold: Fold
    rounds: entrants.Rounds
    wanted: Wanted


def confounding(entry: Entry, sites: Sites, asked: Asked, work_dir: Path) -> tuple[Confounding, Row]:
    """Return what the site has to do with groups and maps, and the row of the recipe tested on sites left out.

    ``work_dir`` holds what the contest laid in ``work_dir/contest``.
    """
    folder = work_dir / "contest"
    maps_tell = groups(folder, sites.of, sites.names, asked)
    positive, participants = entry.labelled.positive, entry.labelled.participants
    folds = [Fold(np.flatnonzero(sites.of != k), np.flatnonzero(sites.of == k)) for k in range(len(sites.names))]
    rounds = entrants.Rounds(asked.plan, asked.nested_folds)
    tasks = [_Site(folder, k, fold, rounds, asked.wanted) for k, fold in enumerate(folds)]
    done = sorted(parallel.run(_left_out, tasks, asked.workers, _lost_site), key=lambda each: each[0])
    found = assemble(LEFT_OUT, [folds], [each for _, each, _ in done], len(positive))
    method = f"bootstrap over participants, {asked.plan.bootstrap_draws} draws"
    draws = comparison.draw(positive, participants, asked.plan.bootstrap_draws, asked.plan.random_seed)
    sampled = comparison.sample(found, positive, participants, draws)
    row = Row(LEFT_OUT, {key: comparison.measure(each, method) for key, each in sampled.items()},
              sum(seconds for _, _, seconds in done))  # fmt: skip
    by_site = {}
    for name, fold in zip(sites.names, folds, strict=True):
        rows = fold.validate
        part = OutOfFold(name, found.decisions[:, rows], found.fold[:, rows], found.probability[:, rows])
        own = comparison.draw(positive[rows], participants[rows], asked.plan.bootstrap_draws, asked.plan.random_seed)
        area = comparison.sample(part, positive[rows], participants[rows], own)["auc"]
        n = int(positive[rows].sum())
        by_site[name] = (n, len(rows) - n, comparison.measure(area, method))
    return Confounding(sites.column, by_site, maps_tell), row


def groups(folder: Path, of: np.ndarray, names: Sequence[str], asked: Asked) -> Several:
    """Return how well the recommended recipe tells more than two groups apart, one against the rest.

    Parameters
    ----------
    folder : Path
        Where the products of N scans were laid (`kept.lay`); workers find there what else they need.
    of : ndarray of int, shape (N,)
        Number of each scan's group.
    names : sequence of str
    asked : Asked

    Raises
    ------
    BadInputError
        A group has too few participants, or a fold was lost with its worker.
    """
    plan, person = asked.plan, kept.read(folder).person
    outer = [
        several.outer_folds(of, person, names, asked.nested_folds, plan.random_seed + r) for r in range(asked.repeats)
    ]
    np.savez(folder / GROUPS, groups=of)
    tasks = [
        _Group(folder, (r, k), fold, len(names), asked.nested_folds, plan.random_seed + r)
        for r, repeat in enumerate(outer)
        for k, fold in enumerate(repeat)
    ]
    parts = dict(parallel.run(_tested, tasks, asked.workers, _lost))
    ordered = [[parts[r, k] for k in range(len(repeat))] for r, repeat in enumerate(outer)]
    draws = several.draw(of, person, plan.bootstrap_draws, plan.random_seed)
    return several.judged(names, of, person, outer, ordered, draws)


def _tested(task: _Group) -> tuple[tuple[int, int], several.Part]:
    with np.load(task.folder / GROUPS, allow_pickle=False) as stored:
        of = stored["groups"]
    return task.place, several.tested(kept.read(task.folder), of, task.n_groups, task.fold, task.inner_folds, task.seed)


def _left_out(task: _Site) -> tuple[int, Piece, float]:
    found, start = entrants.laid(task.folder), time.process_time()
    recipe = entrants.recipe(RECOMMENDED, found, task.rounds)
    tested = piece(recipe, task.fold, task.rounds.plan.random_seed, found.made.lesion_free, task.wanted)
    return task.place, tested, time.process_time() - start


def _lost(task: _Group, reason: str) -> tuple[tuple[int, int], several.Part]:
    raise BadInputError(f"fold {task.place} of several groups was lost ({reason})", remedy="lower --nprocs")


def _lost_site(task: _Site, reason: str) -> tuple[int, Piece, float]:
    raise BadInputError(f"site {task.place} was lost ({reason})", remedy="lower --nprocs")
