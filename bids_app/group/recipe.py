"""The group level: from lesion maps to the evaluation report."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from bids_app import __version__
from bids_app.bids.names import Scan, group_output
from bids_app.cohort import labels, lesion_maps, ratings
from bids_app.files import atomic, formats
from bids_app.group import competition, permutation, rating
from bids_app.group.maps import Maps
from bids_app.group.outputs import write_everything
from bids_app.learning import characteristics, protocols
from bids_app.learning.agreement import table2
from bids_app.learning.division import divide
from bids_app.learning.protocols import HONEST, PUBLISHED, MapsFor, Plan
from bids_app.machine.process import Ending, Workplace
from bids_app.machine.software import software
from bids_app.options import NETWORK, Options, method
from bids_app.participant import index, marks
from bids_app.records.cohort import Cohort, Division, Labelled
from bids_app.records.recommended import Permutation
from bids_app.records.results import Evaluation, GroupResult, Nested, Notes, Provenance, RaterTable

log = logging.getLogger("bids_app")
PROTOCOLS = {PUBLISHED: protocols.published, HONEST: protocols.leakage_free}


def run(options: Options, place: Workplace) -> Ending:
    """Do the whole group level, one run on an output at a time."""
    log.info("bids_app %s, group level, %s -> %s", __version__, options.bids_dir, options.output_dir)
    lock = options.output_dir / "logs" / "group.lock"
    with atomic.locked(lock, lambda: log.info("another run is at the group level here; waiting")):
        path = _run(options, place.work_dir)
    log.info("report: %s", path)
    return Ending(0, f"report {path}")


def _run(options: Options, work_dir: Path) -> Path:
    """Return the path of what the user should open."""
    if options.read_ratings:
        return rating.read(options)
    finished, labelled = _labelled(options)
    cohort = competition.chosen(options, finished, labelled)
    labelled = cohort.stay
    competition.check(options, labelled)
    divisions = _divisions(options, labelled)
    if options.rating_sheet:
        return rating.write(options, labelled, divisions[PUBLISHED])
    result = _evaluate(options, cohort, divisions, work_dir)
    write_everything(result, options.output_dir, options.bids_dir, options.lesion_map, options.report_viewer)
    index.write(options.output_dir, options.bids_dir)
    return options.output_dir / group_output("report")


def _evaluate(
    options: Options, chosen: competition.Chosen, divisions: Mapping[str, Division], work_dir: Path
) -> GroupResult:
    """Return what the group level finds: maps, evaluations, nested cross-validation, permutations, raters."""
    labelled = chosen.stay
    maps, plan = Maps(options, labelled), _plan(options)
    timed = {name: _protocol(name, maps.by_rows, labelled, division, plan) for name, division in divisions.items()}
    evaluations = {name: evaluation for name, (evaluation, _) in timed.items()}
    nested, permuted = _nested(options, maps.by_rows, labelled, plan, work_dir)
    cohort = _cohort(options, labelled, evaluations[PUBLISHED])
    recommended = competition.run(options, chosen, maps, plan, timed[PUBLISHED], work_dir)
    return GroupResult(
        cohort=cohort,
        evaluations=evaluations,
        nested=nested,
        permutation=permuted,
        tables=_tables(cohort, divisions[PUBLISHED]),
        raters=_raters(options, cohort, evaluations),
        notes=_notes(options, labelled),
        provenance=Provenance(
            method(options, "group"), software("group", ("torch",) if NETWORK in options.compare else ())
        ),
        recommended=recommended,
    )


# -- who -----------------------------------------------------------------------------------------


def _labelled(options: Options) -> tuple[list[Scan], Labelled]:
    """Return all finished scans, and those of the two groups; what is left out is told in the log, by name."""
    output = options.output_dir
    if "cleaned" in (options.lesion_map, options.recommended_map):
        log.warning("the cleaned lesion map is in its last release: use normative or network instead")
    scans = labels.find_maps(output, options.lesion_map)
    unfinished = [scan.name for scan in scans if marks.interrupted(output, scan.name)]
    finished = [scan for scan in scans if scan.name not in unfinished]
    found = labels.label(
        finished,
        labels.Tables(options.bids_dir, output, options.group_column, (options.positive, options.negative)),
        exclude=options.exclude,
    )
    cut = [(name, "its participant level was interrupted; run it again") for name in unfinished]
    found = found.without(cut)
    for name, reason in found.left_out:
        log.warning("left out: %s (%s)", name, reason)
    return finished, found


def _divisions(options: Options, labelled: Labelled) -> dict[str, Division]:
    """Return the division of each evaluation, drawn or read, and write them down."""
    names = [scan.name for scan in labelled.scans]
    if options.division_file:
        divisions = labels.read_division(options.division_file, names)
    else:
        draw = partial(
            divide,
            labelled.positive,
            labelled.participants,
            test_fraction=options.test_percent / 100,
            seed=options.random_seed,
        )
        divisions = {name: draw(by=unit) for name, unit in labels.UNITS.items()}
    formats.write_tsv(options.output_dir / group_output("division"), labels.division_table(names, divisions))
    return divisions


def _notes(options: Options, labelled: Labelled) -> Notes:
    """Return what the reader must know; flagged scans are told in the log."""
    flagged = lesion_maps.flags(labelled.scans, options.output_dir, options.lesion_map)
    for name, reason in flagged:
        log.warning("flagged: %s (%s)", name, reason)
    remedy = "see the list under Scans and the participants' reports; leave out those that are wrong with --exclude"
    doubt = f"{len(flagged)} of the {len(labelled.scans)} scans are flagged by the quality checks: {remedy}"
    return Notes(labelled.left_out, flagged, (*labelled.warnings, *([doubt] if flagged else [])))


def _tables(cohort: Cohort, division: Division) -> dict[str, pd.DataFrame]:
    groups = np.where(cohort.positive, *cohort.levels)
    parts = np.full(len(groups), "training", object)
    parts[division.test] = "test"
    return {
        "table1": characteristics.table1(cohort.table, cohort.participants, groups, levels=cohort.levels),
        "table_s1": characteristics.table_s1(cohort.table, parts, groups),
    }


# -- what is found -------------------------------------------------------------------------------


def _plan(options: Options) -> Plan:
    return Plan(
        options.cv_folds,
        options.refine_limit,
        options.solver,
        options.bootstrap_draws,
        options.random_seed,
        tell=log.info,
        detail=log.debug,
    )


def _protocol(
    name: str, maps_for: MapsFor, labelled: Labelled, division: Division, plan: Plan
) -> tuple[Evaluation, float]:
    """Return an evaluation and its CPU seconds."""
    log.info("evaluation %s: %d training and %d test scans", name, len(division.train), len(division.test))
    start = time.process_time()
    found = PROTOCOLS[name](maps_for, labelled.positive, labelled.participants, division, plan)
    return found, time.process_time() - start


def _nested(
    options: Options, maps_for: MapsFor, labelled: Labelled, plan: Plan, work_dir: Path
) -> tuple[dict[str, Nested], Permutation | None]:
    """Return the nested cross-validation and its permutation test, as far as they are asked for."""
    if not options.nested_folds:
        return {}, None
    log.info("nested cross-validation, %d folds", options.nested_folds)
    positive, participants = labelled.positive, labelled.participants
    outer = protocols.outer_folds(positive, participants, options.nested_folds, plan)
    laid = permutation.lay(maps_for, positive, participants, outer, work_dir / "nested")
    workers = competition.workers_of(options)
    found = permutation.nested(laid, workers, plan)
    if not options.permutations:
        return {HONEST: found}, None
    return {HONEST: found}, permutation.test(laid, options.permutations, workers, plan)


def _cohort(options: Options, labelled: Labelled, evaluation: Evaluation) -> Cohort:
    return Cohort(
        labelled.scans,
        labelled.participants,
        labelled.positive,
        evaluation.maps.lesions,
        labelled.table,
        (options.positive, options.negative),
    )


# -- raters --------------------------------------------------------------------------------------


def _raters(options: Options, cohort: Cohort, evaluations: Mapping[str, Evaluation]) -> dict[str, RaterTable]:
    """Return Table 2 of each evaluation's test set, where the data set holds raters' decisions of it."""
    path = options.bids_dir / group_output("rater_decisions")
    if not path.exists():
        return {}
    found = {}
    for name, evaluation in evaluations.items():
        rows = evaluation.division.test
        raters, repeats = ratings.read_decisions(path, [cohort.names[k] for k in rows], cohort.levels)
        if raters:
            found[name] = table2(cohort.positive[rows], evaluation.test.decisions >= 0, raters, repeats)
        else:
            log.warning("%s: no row is of one of the %d test scans of the %s evaluation; check participant_id and "
                        "session_id", path, len(rows), name)  # fmt: skip
    return found
