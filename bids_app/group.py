"""The group level: from lesion maps to the evaluation report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bids_app import (
    baseline,
    engine,
    files,
    maps,
    marks,
    permutation,
    protocols,
    ratings,
    tables,
)
from bids_app.agreement import table2
from bids_app.cohort import divide
from bids_app.errors import BadInputError, UsageError
from bids_app.evaluation import optimism
from bids_app.group_outputs import write_everything
from bids_app.lesion import threshold_of
from bids_app.marks import software
from bids_app.options import Options
from bids_app.protocols import HONEST, PUBLISHED, Plan
from bids_app.records import Cohort, Division, GroupResult, Labelled, Moments, Nested, Threshold

log = logging.getLogger("bids_app")
METHOD = (  # options that results depend on; the others must not change a byte
    "lesion_threshold",
    "random_seed",
    "group_column",
    "positive",
    "negative",
    "lesion_map",
    "exclude",
    "test_percent",
    "cv_folds",
    "nested_folds",
    "refine_limit",
    "permutations",
    "bootstrap_draws",
    "solver",
)


def run(options: Options, log_file: Path, work_dir: Path) -> Path:
    """Do the whole group level and return the path of what the user should open."""
    output = options.output_dir
    if options.read_ratings:
        return _read_ratings(options)
    scans = tables.find_maps(output, options.lesion_map)
    unfinished = [scan.name for scan in scans if marks.interrupted(output, scan.name)]
    labelled = tables.label(
        [scan for scan in scans if scan.name not in unfinished],
        options.bids_dir,
        output,
        group_column=options.group_column,
        positive=options.positive,
        negative=options.negative,
        exclude=options.exclude,
    )
    cut = [(name, "its participant level was interrupted; run it again") for name in unfinished]
    labelled = replace(labelled, left_out=(*labelled.left_out, *cut))
    for name, reason in labelled.left_out:
        log.warning("left out: %s (%s)", name, reason)
    divisions = _divisions(options, labelled)
    names = [scan.name for scan in labelled.scans]
    files.write_tsv(output / "group" / "division.tsv", tables.division_table(names, divisions))
    if options.rating_sheet:
        return _write_sheet(options, labelled, divisions[PUBLISHED])
    result = _evaluate(options, labelled, divisions, work_dir)
    write_everything(result, output, options.bids_dir, options.lesion_map)
    return output / "group.html"


def _divisions(options: Options, labelled: Labelled) -> dict[str, Division]:
    names = [scan.name for scan in labelled.scans]
    if options.division_file:
        return tables.read_division(options.division_file, names)
    draw = partial(
        divide,
        labelled.positive,
        labelled.participants,
        test_fraction=options.test_percent / 100,
        seed=options.random_seed,
    )
    return {PUBLISHED: draw(by="scan"), HONEST: draw(by="participant")}


def _evaluate(options: Options, labelled: Labelled, divisions: dict[str, Division], work_dir: Path) -> GroupResult:
    positive, participants = labelled.positive, labelled.participants
    maps_for = _maps_for(options, labelled)
    plan = Plan(
        options.cv_folds,
        options.refine_limit,
        options.solver,
        options.bootstrap_draws,
        options.random_seed,
        _progress(options.verbose),
    )
    evaluations, thresholds = {}, {}
    for name, protocol in ((PUBLISHED, protocols.published), (HONEST, protocols.leakage_free)):
        log.info(
            "evaluation %s: %d training and %d test scans",
            name,
            *map(len, (divisions[name].train, divisions[name].test)),
        )
        evaluations[name], thresholds[name] = protocol(maps_for, positive, participants, divisions[name], plan)
    nested: dict[str, Nested] = {}
    if options.nested_folds:
        log.info("nested cross-validation, %d folds", options.nested_folds)
        nested[HONEST] = protocols.nested(maps_for, positive, participants, options.nested_folds, plan)
    lesions = maps_for(divisions[PUBLISHED].train)[0]
    cohort = Cohort(
        tuple(scan.name for scan in labelled.scans),
        participants,
        positive,
        lesions,
        labelled.table,
        (options.positive, options.negative),
    )
    tests = {name: evaluations[name].test_curve[evaluations[name].chosen] for name in evaluations}
    flagged = maps.flags(labelled.scans, options.output_dir, options.lesion_map)
    gaps = {
        key: optimism(getattr(tests[PUBLISHED], key), getattr(tests[HONEST], key))
        for key in ("auc", "accuracy", "sensitivity", "specificity")
    }
    groups = np.where(positive, options.positive, options.negative)
    parts = np.full(len(positive), "training", object)
    parts[divisions[PUBLISHED].test] = "test"
    result = GroupResult(
        cohort=cohort,
        evaluations=evaluations,
        thresholds=thresholds,
        nested=nested,
        optimism=gaps,
        permutation={},
        tables={
            "table1": baseline.table1(
                labelled.table, participants, groups, levels=(options.positive, options.negative)
            ),
            "table_s1": baseline.table_s1(labelled.table, parts, groups),
        },
        raters={},
        left_out=labelled.left_out,
        warnings=(*labelled.warnings, *_doubts(flagged, len(labelled.scans))),
        parameters={name: getattr(options, name) for name in METHOD},
        software=software(),
        flagged=flagged,
    )
    result = replace(result, raters=_raters(options, result))
    return replace(result, permutation=_permutation(options, result, plan, work_dir))


def _permutation(options: Options, result: GroupResult, plan: Plan, work_dir: Path) -> dict[str, object]:
    if not options.permutations:
        return {}
    if not result.nested:
        raise UsageError("--permutations repeats the nested cross-validation", remedy="set --nested-folds to 2 or more")
    area = result.nested[HONEST].performance.auc
    return permutation.test(
        result.cohort,
        area.value if area else float("nan"),
        engine.Workers(options.nprocs, options.mem_mb),
        plan,
        n_folds=options.nested_folds,
        n=options.permutations,
        work_dir=work_dir,
    )


def _doubts(flagged: Sequence[tuple[str, str]], n: int) -> list[str]:
    """Return the warning that flagged scans are among the inputs, having told each in the log."""
    for name, reason in flagged:
        log.warning("flagged: %s (%s)", name, reason)
    remedy = "see the list under Scans and the participants' reports; leave out those that are wrong with --exclude"
    return [f"{len(flagged)} of the {n} scans are flagged by the quality checks: {remedy}"] if flagged else []


def _progress(verbose: int) -> Callable[[str], None]:
    """Return what tells how far the work is: outer folds and the published sweep's counts; with -v all counts."""

    def tell(line: str) -> None:
        (log.info if line.startswith(("nested", "ranking 1 of 1:")) else log.debug)("%s", line)

    return tell


def _maps_for(options: Options, labelled: Labelled) -> protocols.MapsFor:
    """Return the function from training rows to all lesion maps at these rows' threshold."""
    given = options.lesion_threshold
    load = partial(
        maps.load,
        labelled.scans,
        options.output_dir,
        lesion_map=options.lesion_map,
        cache_dir=options.output_dir / "group" / "cache",
        nprocs=options.nprocs,
    )
    if options.lesion_map == "cleaned":
        fixed = load(threshold=None), Threshold(options.participant_threshold, "given")
        return lambda rows: fixed
    sums = maps.sums(labelled.scans, options.output_dir)
    if given is not None:
        pooled = [found for found in sums if found is not None]
        fixed = load(threshold=given, given=True), _described(given, "given", pooled)
        return lambda rows: fixed
    missing = [scan.name for scan, found in zip(labelled.scans, sums, strict=True) if found is None]
    if missing:
        raise BadInputError(
            f"{len(missing)} scans have no belief map to estimate the threshold from, first {missing[0]}",
            options.output_dir,
            "run the participant level, or take the lesion maps as they are with --lesion-threshold 0.32",
        )

    def of_training(rows: np.ndarray) -> tuple[np.ndarray, Threshold]:
        pooled = [found for k in rows if (found := sums[k]) is not None]
        threshold = _described(threshold_of(sum(pooled, Moments(0, 0.0, 0.0))), "training", pooled)
        log.info("threshold %.4f (belief %.4f, SD %.4f of %d training scans)", *_numbers(threshold))
        return load(threshold=threshold.value), threshold

    return of_training


def _described(value: float, origin: str, pooled: list[Moments]) -> Threshold:
    if not pooled:
        return Threshold(value, origin)
    total = sum(pooled, Moments(0, 0.0, 0.0))
    return Threshold(value, origin, total.mean, total.sd, len(pooled))


def _numbers(threshold: Threshold) -> tuple[float, float, float, int]:
    return threshold.value, threshold.mean or 0.0, threshold.sd or 0.0, threshold.n_scans


# -- raters --------------------------------------------------------------------------------------


def _raters(options: Options, result: GroupResult) -> dict[str, Any]:
    """Return Table 2 of each evaluation's test set, where the data set holds raters' decisions."""
    path = options.bids_dir / "phenotype" / "rater_decisions.tsv"
    if not path.exists():
        return {}
    found = {}
    for name, evaluation in result.evaluations.items():
        rows = evaluation.division.test
        try:
            raters, repeats = ratings.read_decisions(path, [result.cohort.scans[k] for k in rows], result.cohort.levels)
        except BadInputError as error:
            if "no row" not in str(error):
                raise
            log.warning("%s", error)
            continue
        found[name] = table2(result.cohort.positive[rows], evaluation.test_decisions >= 0, raters, repeats)
    return found


def _write_sheet(options: Options, labelled: Labelled, division: Division) -> Path:
    names = [scan.name for scan in labelled.scans]
    folder = options.output_dir / "group" / "rating"
    sheet, key = ratings.write_sheet(names, labelled.table, division.test, folder, options.random_seed)
    log.info("sheet for the raters: %s; keep the key from them: %s", sheet, key)
    return sheet


def _read_ratings(options: Options) -> Path:
    if options.read_ratings is None:
        raise UsageError("--read-ratings needs the filled sheet")
    key = options.output_dir / "group" / "rating" / "key" / "rating_key.tsv"
    table = ratings.read_sheet(options.read_ratings, key, (options.positive, options.negative))
    path = options.output_dir / "phenotype" / "rater_decisions.tsv"
    files.write_tsv(path, table)
    log.info("copy %s to the data set's phenotype folder", path)
    return path
