"""From the options to what competes: lesion maps, covariates, sites, other phases and groups; then the contest."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bids_app.bids.names import Scan, group_output
from bids_app.cohort import beliefs, labels, lesion_maps, selected
from bids_app.group import contest, entrants, further
from bids_app.learning.protocols import Plan
from bids_app.machine import parallel
from bids_app.options import Options
from bids_app.recommended.nested import Wanted
from bids_app.records.cohort import Labelled
from bids_app.records.further import Acute, Further, Several
from bids_app.records.recommended import Recommended

log = logging.getLogger("bids_app")


class Chosen(NamedTuple):
    """The cohort after ``--max-days-since-relapse``: who stays, who goes, and the counts; all stay where not asked."""

    stay: Labelled
    go: Labelled | None = None
    acute: Acute | None = None


def chosen(options: Options, labelled: Labelled) -> Chosen:
    """Return the scans of the acute phase where that is asked for; who goes is told in the log, in numbers."""
    if options.max_days_since_relapse is None:
        return Chosen(labelled)
    levels = (options.positive, options.negative)
    found = selected.acute(labelled, options.max_days_since_relapse, options.relapse_column, levels, options.bids_dir)
    stay, go = selected.divided(labelled, found)
    for part, counts in found.counts.items():
        words = ", ".join(f"{n} scans of {people} participants with {level}" for level, (n, people) in counts.items())
        log.info("%s, %g days since a relapse: %s", part, found.days, words)
    return Chosen(stay, go, found)


def check(options: Options, labelled: Labelled) -> None:
    """Refuse covariates and sites that cannot be used, before anything long begins."""
    if options.covariates:
        selected.covariates(labelled.table, options.covariates)
    if options.site_column:
        selected.sites(labelled, options.site_column, (options.positive, options.negative))


def run(options: Options, cohort: Chosen, plan: Plan, work_dir: Path) -> Recommended:
    """Return the recommended recipe and its contest; all recipes see maps at the participant level's threshold."""
    entry, workers = _entry(options, cohort), _workers(options)
    wanted = Wanted(options.coverage, options.sensitivity, options.prevalence)
    rules = contest.Rules(options.nested_folds, options.repeats, wanted, options.permutations, options.omp_nthreads)
    found = contest.run(entry, rules, plan, workers, work_dir)
    if found.contest is None:
        return replace(found, further=Further(cohort.acute))
    asked = further.Asked(options.nested_folds, options.repeats, options.nested_folds, wanted, plan, workers)
    confounding = None
    if entry.more.sites is not None:
        log.info("sites of %s: %s", entry.more.sites.column, ", ".join(entry.more.sites.names))
        confounding, row = further.confounding(entry, entry.more.sites, asked, work_dir)
        found = replace(found, contest=replace(found.contest, rows=(*found.contest.rows, row)))
    several = _several(options, entry, asked, work_dir) if len(options.groups) > 2 else None
    return replace(found, further=Further(cohort.acute, confounding, several))


def _workers(options: Options) -> parallel.Workers:
    return parallel.Workers(options.nprocs, options.mem_mb, options.dask_scheduler, options.dask_scheduler_file)


def _entry(options: Options, cohort: Chosen) -> entrants.Entry:
    entry = _entry_as_stored(options, cohort)
    return entry if options.norm == "shipped" else _by_own_norm(options, entry, cohort)


def _by_own_norm(options: Options, entry: entrants.Entry, cohort: Chosen) -> entrants.Entry:
    """Return the entry with what a norm of the cohort's own scans gives, and how to make it by that of other scans."""
    own, go = entry.labelled, cohort.go
    stored = beliefs.load(own.scans, options.output_dir) if entry.more.belief is None else entry.more.belief
    gone = beliefs.load(go.scans, options.output_dir) if go is not None and entry.more.beyond is not None else None
    maps_for = beliefs.by_norm(stored, own.participants)

    def of_rows(rows: np.ndarray) -> entrants.Entry:
        made = entry._replace(rows=rows, of_rows=of_rows)
        if "normative" not in (entry.lesion_map, options.lesion_map):
            return made
        found = maps_for(rows)
        if options.lesion_map == "normative":
            made = made._replace(others=found.lesions)
        if entry.lesion_map != "normative":
            return made
        made = made._replace(maps=found.lesions, norm=found.norm)
        if gone is None or found.norm is None or entry.more.beyond is None:
            return made
        beyond = (beliefs.over_norm(gone, found.norm), *entry.more.beyond[1:])
        return made._replace(more=entry.more._replace(beyond=beyond))

    return of_rows(np.arange(len(own.scans)))


def _entry_as_stored(options: Options, cohort: Chosen) -> entrants.Entry:
    output, threshold, labelled = options.output_dir, options.participant_threshold, cohort.stay
    wanted = options.recommended_map
    everybody = (*labelled.scans, *(cohort.go.scans if cohort.go else ()))
    name = lesion_maps.best(everybody, output) if wanted == "best" else wanted
    source = _source(options, labelled.scans, name)
    maps = lesion_maps.load(source, threshold, given=True)
    same = name == options.lesion_map
    others = maps if same else lesion_maps.load(replace(source, lesion_map=options.lesion_map), threshold, given=True)
    if not options.nested_folds:
        return entrants.Entry(labelled, name, lesion_maps.own_threshold(name, threshold), maps, others)
    beyond = None
    if cohort.go is not None and cohort.go.scans:
        gone = lesion_maps.load(replace(source, scans=cohort.go.scans), threshold, given=True)
        beyond = (gone, cohort.go.participants, cohort.go.positive)
    levels = (options.positive, options.negative)
    more = entrants.More(
        compare=options.compare,
        covariates=selected.covariates(labelled.table, options.covariates) if options.covariates else None,
        sites=selected.sites(labelled, options.site_column, levels) if options.site_column else None,
        beyond=beyond,
        belief=beliefs.load(labelled.scans, output) if options.features == "belief" else None,
    )
    return entrants.Entry(labelled, name, lesion_maps.own_threshold(name, threshold), maps, others, more)


def _source(options: Options, scans: Sequence[Scan], name: str) -> lesion_maps.Source:
    return lesion_maps.Source(
        tuple(scans), options.output_dir, name, options.output_dir / group_output("cache"), options.nprocs
    )


def _several(options: Options, entry: entrants.Entry, asked: further.Asked, work_dir: Path) -> Several:
    """Return the comparison of all groups; the pair's scans are those of the contest."""
    names, scans = options.groups, labels.find_maps(options.output_dir, options.lesion_map)
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
        source = _source(options, own.scans, entry.lesion_map)
        maps.append(lesion_maps.load(source, options.participant_threshold, given=True))
        people.append(own.participants)
        groups.append(np.full(len(own.scans), number))
    log.info("one against the rest: %s", ", ".join(names))
    made = entrants.made_of(np.concatenate(maps), np.concatenate(people))
    return further.groups(made, np.concatenate(groups), names, asked, work_dir / "several")
