"""From the options to what competes: lesion maps, covariates, sites, other phases and groups; then the contest."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bids_app.bids.names import Scan
from bids_app.cohort import beliefs, labels, lesion_maps, selected
from bids_app.group import contest, entrants, further, kept, rival_models
from bids_app.group.maps import Maps, as_stored
from bids_app.learning.protocols import Plan
from bids_app.machine import parallel
from bids_app.options import Options
from bids_app.recommended.nested import Wanted
from bids_app.records.cohort import Labelled
from bids_app.records.fitted import Recommended
from bids_app.records.further import Acute, Further, Several
from bids_app.records.recommended import Contest, Permutation, Purpose
from bids_app.records.results import Evaluation

log = logging.getLogger("bids_app")


class Chosen(NamedTuple):
    """All finished scans, and the cohort after ``--max-days-since-relapse``: who stays, who goes, and the counts.

    All of the cohort stay where that is not asked for.
    """

    finished: tuple[Scan, ...]
    stay: Labelled
    go: Labelled | None = None
    acute: Acute | None = None


def chosen(options: Options, finished: Sequence[Scan], labelled: Labelled) -> Chosen:
    """Return the scans of the acute phase where that is asked for; who goes is told in the log, in numbers."""
    if options.max_days_since_relapse is None:
        return Chosen(tuple(finished), labelled)
    levels = (options.positive, options.negative)
    found = selected.acute(labelled, options.max_days_since_relapse, options.relapse_column, levels, options.bids_dir)
    stay, go = selected.divided(labelled, found)
    for part, counts in found.counts.items():
        words = ", ".join(f"{n} scans of {people} participants with {level}" for level, (n, people) in counts.items())
        log.info("%s, %g days since a relapse: %s", part, found.days, words)
    return Chosen(tuple(finished), stay, go, found)


def check(options: Options, labelled: Labelled) -> None:
    """Refuse covariates and sites that cannot be used, before anything long begins."""
    if options.covariates:
        selected.covariates(labelled.table, options.covariates)
    if options.site_column:
        selected.sites(labelled, options.site_column, (options.positive, options.negative))


def run(
    options: Options, cohort: Chosen, maps: Maps, plan: Plan, published: tuple[Evaluation, float], work_dir: Path
) -> Recommended:
    """Return the recommended recipe and its contest; all recipes see maps at the participant level's threshold.

    ``published`` is the published evaluation, one more row of the contest, with its CPU seconds.
    """
    prepared = contest.prepare(_entry(options, cohort, maps), work_dir)
    trained = contest.train_whole(prepared, _rules(options), plan)
    found = Recommended(
        prepared.entry.purpose,
        trained.model,
        trained.calibration,
        trained.seen,
        trained.thresholds,
        further=Further(cohort.acute),
    )
    if not options.nested_folds:
        return found
    verdict, permutation, beside = _compared(options, cohort, prepared, plan, published, work_dir)
    rounds = entrants.Rounds(plan, options.nested_folds, options.omp_nthreads)
    rivals = rival_models.train(prepared, trained.seen, rounds, workers_of(options))
    return replace(found, contest=verdict, permutation=permutation, further=beside, kept=rivals)


def workers_of(options: Options) -> parallel.Workers:
    """Return where the tasks of the group level run."""
    return parallel.Workers(options.nprocs, options.mem_mb, options.dask_scheduler, options.dask_scheduler_file)


def _rules(options: Options) -> contest.Rules:
    wanted = Wanted(options.coverage, options.sensitivity, options.prevalence)
    return contest.Rules(options.nested_folds, options.repeats, wanted, options.permutations, options.omp_nthreads)


def _compared(
    options: Options,
    cohort: Chosen,
    prepared: contest.Prepared,
    plan: Plan,
    published: tuple[Evaluation, float],
    work_dir: Path,
) -> tuple[Contest, Permutation | None, Further]:
    """Return the contest, its permutation test, and what was asked for beside it."""
    entry, rules, workers = prepared.entry, _rules(options), workers_of(options)
    ran = contest.run(prepared, rules, plan, workers)
    asked = further.Asked(options.nested_folds, options.repeats, rules.wanted, plan, workers)
    evaluation, seconds = published
    rows, confounding = [contest.published_row(evaluation, entry.labelled, plan, seconds)], None
    if entry.more.sites is not None:
        log.info("sites of %s: %s", entry.more.sites.column, ", ".join(entry.more.sites.names))
        confounding, row = further.confounding(entry, entry.more.sites, asked, work_dir)
        rows = [row, *rows]
    several = _several(options, entry, cohort.finished, asked, work_dir) if len(options.groups) > 2 else None
    verdict = contest.judge(ran, entry, plan, rows)
    return verdict, ran.permutation, Further(cohort.acute, confounding, several)


def _entry(options: Options, cohort: Chosen, maps: Maps) -> entrants.Entry:
    entry = _entry_as_stored(options, cohort, maps)
    return entry if options.norm == "shipped" else _by_own_norm(options, entry, cohort, maps)


def _by_own_norm(options: Options, entry: entrants.Entry, cohort: Chosen, maps: Maps) -> entrants.Entry:
    """Return the entry with what a norm of the cohort's own scans gives, and how to make it by that of other scans."""
    go = cohort.go
    gone = beliefs.load(go.scans, options.output_dir) if go is not None and entry.more.beyond is not None else None

    def of_rows(rows: np.ndarray) -> entrants.Entry:
        made = entry._replace(rows=rows, of_rows=of_rows)
        if "normative" not in (entry.purpose.lesion_map, options.lesion_map):
            return made
        found = maps.by_norm(rows)
        if options.lesion_map == "normative":
            made = made._replace(others=found.lesions, of_others=replace(entry.of_others, norm=found.norm))
        if entry.purpose.lesion_map != "normative":
            return made
        made = made._replace(maps=found.lesions, purpose=replace(entry.purpose, norm=found.norm))
        if gone is None or found.norm is None or entry.more.beyond is None:
            return made
        beyond = (beliefs.over_norm(gone, found.norm), *entry.more.beyond[1:])
        return made._replace(more=entry.more._replace(beyond=beyond))

    return of_rows(np.arange(len(cohort.stay.scans)))


def _entry_as_stored(options: Options, cohort: Chosen, maps: Maps) -> entrants.Entry:
    labelled, wanted = cohort.stay, options.recommended_map
    everybody = (*labelled.scans, *(cohort.go.scans if cohort.go else ()))
    name = lesion_maps.best(everybody, options.output_dir, options.lesion_map) if wanted == "best" else wanted
    levels = (options.positive, options.negative)
    purpose, of_others = (
        Purpose(levels, lesion_maps.own_threshold(each, options.participant_threshold), each)
        for each in (name, options.lesion_map)
    )
    lesions, others = maps.lesions(name), maps.lesions(options.lesion_map)
    if not options.nested_folds:
        return entrants.Entry(labelled, purpose, lesions, others, of_others)
    beyond = None
    if cohort.go is not None and cohort.go.scans:
        gone = as_stored(options, cohort.go.scans, name)
        beyond = (gone, cohort.go.participants, cohort.go.positive)
    more = entrants.More(
        compare=options.compare,
        covariates=selected.covariates(labelled.table, options.covariates) if options.covariates else None,
        sites=selected.sites(labelled, options.site_column, levels) if options.site_column else None,
        beyond=beyond,
        belief=maps.beliefs if options.features == "belief" else None,
    )
    return entrants.Entry(labelled, purpose, lesions, others, of_others, more)


def _several(
    options: Options, entry: entrants.Entry, scans: Sequence[Scan], asked: further.Asked, work_dir: Path
) -> Several:
    """Return the comparison of all groups among the finished scans; the pair's are those of the contest."""
    names = options.groups
    maps, people = [entry.maps], [entry.labelled.participants]
    groups = [np.where(entry.labelled.positive, 0, 1)]
    for number, level in enumerate(names[2:], 2):
        tables = labels.Tables(options.bids_dir, options.output_dir, options.group_column, (names[0], level))
        both = labels.label(scans, tables, exclude=options.exclude)
        own = selected.of_group(both, positive=False)
        if options.max_days_since_relapse is not None:
            found = selected.acute(
                both, options.max_days_since_relapse, options.relapse_column, tables.levels, options.bids_dir
            )
            own = selected.of_group(selected.divided(both, found)[0], positive=False)
        maps.append(as_stored(options, own.scans, entry.purpose.lesion_map))
        people.append(own.participants)
        groups.append(np.full(len(own.scans), number))
    log.info("one against the rest: %s", ", ".join(names))
    folder = work_dir / "several"
    kept.lay(folder, np.concatenate(maps), np.concatenate(people))
    return further.groups(folder, np.concatenate(groups), names, asked)
