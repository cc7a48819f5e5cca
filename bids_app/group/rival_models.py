"""The rivals' models that are stored: each rival trained on all scans, its settings chosen there as in every fold."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bids_app.errors import BadInputError
from bids_app.group import contest, entrants
from bids_app.group.contest import Prepared
from bids_app.group.entrants import Rounds
from bids_app.learning.protocols import silent
from bids_app.machine import parallel
from bids_app.records.fitted import Kept, MapModel
from bids_app.records.recommended import Calibration, Seen

log = logging.getLogger("bids_app")


class _Task(NamedTuple):
    """One rival on all scans; the plan's seed is that of its inner folds."""

    folder: Path
    name: str
    rounds: Rounds


class _Done(NamedTuple):
    """What came of a task."""

    name: str
    model: MapModel
    calibration: Calibration
    chosen: object


def train(prepared: Prepared, seen: Seen, rounds: Rounds, workers: parallel.Workers) -> dict[str, Kept]:
    """Train the rivals of the contest that have a model on all scans.

    Parameters
    ----------
    prepared : Prepared
        With what the contest laid in its folder.
    seen : Seen
        Of the recommended recipe's maps.
    rounds : Rounds
    workers : Workers

    Returns
    -------
    dict of Kept
        By name, in the order of the table of recipes.

    Raises
    ------
    BadInputError
        A rival was lost with its worker.
    """
    entry = prepared.entry
    wanted = [name for name in entrants.names(entry) if name in entrants.STORED]
    log.info("models of rivals, trained on all scans: %s", ", ".join(wanted))
    if entry.of_rows is not None:  # the contest laid it by the norm of each fold, elsewhere
        entrants.lay(prepared.folder, entry)
    quiet = rounds._replace(plan=replace(rounds.plan, tell=silent, detail=silent))
    tasks = [_Task(prepared.folder, name, quiet) for name in wanted]
    done = {each.name: each for each in parallel.run(_trained, tasks, workers, _lost)}
    looked_at, there, found = {entry.purpose.lesion_map: seen}, entrants.laid(prepared.folder), {}
    for name in wanted:
        maps, purpose = entrants.STORED[name](entry, there)
        if purpose.lesion_map not in looked_at:
            looked_at[purpose.lesion_map] = contest.seen_of(maps, entry.labelled)
        own = done[name]
        found[name] = Kept(purpose, own.model, own.calibration, looked_at[purpose.lesion_map], own.chosen)
    return found


def _trained(task: _Task) -> _Done:
    found = entrants.laid(task.folder)
    everybody = np.arange(len(found.people.positive))
    recipe = entrants.recipe(task.name, found, task.rounds)
    tested = recipe(everybody, everybody[:1], task.rounds.plan.random_seed)
    return _Done(task.name, tested.model(), tested.calibration, tested.chosen)


def _lost(task: _Task, reason: str) -> _Done:
    raise BadInputError(f"the model of {task.name} was lost ({reason})", remedy="lower --nprocs")
