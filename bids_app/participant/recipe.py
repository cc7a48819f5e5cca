"""The participant level: every FLAIR of the data set to derivatives and a report."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from bids_app import __version__
from bids_app.bids.dataset import describe
from bids_app.bids.names import Scan, set_output
from bids_app.bids.query import find_scans, read_filters
from bids_app.bids.validation import validate
from bids_app.files import formats
from bids_app.lesions import kinds
from bids_app.machine import parallel, software
from bids_app.machine.process import Ending, Workplace, workplace
from bids_app.machine.progress import told
from bids_app.options import Options, method
from bids_app.participant import given, lesion_table, marks, worker
from bids_app.records.results import StoredModel, StoredPredictor
from bids_app.records.scan import Failure, Outcome, Summary
from bids_app.report import page as report

log = logging.getLogger("bids_app")
MANY = 20  # reports that are worth several processes
TABLE_SECONDS = 30.0  # the table grows with every finished scan, but is not written more often


class Found(NamedTuple):
    """The scans asked for, the participants without any, and what is to be said of the filter file."""

    scans: list[Scan]
    without: list[str]
    said: list[str]


def run(options: Options, tell: Callable[[str], None], warn: Callable[[str], None]) -> Ending:
    """Do the whole participant level; ``tell`` shows the table of scans, and ``warn`` warns, before there is a log."""
    found = _find(options)
    tell(_table_of(found))
    if options.dry_run:
        for line in found.said:
            warn(f"warning: {line}")
        return Ending(0, f"dry run: {len(found.scans)} scans would be processed")
    with workplace(options.output_dir, options.work_dir, options.verbose) as place:
        log.info("bids_app %s, participant level, %s -> %s", __version__, options.bids_dir, options.output_dir)
        for line in found.said:
            log.warning("%s", line)
        if options.reports_only or options.boilerplate_only:
            for path in write_reports(options, found.scans, []):
                log.info("report: %s, %.1f MB", path, path.stat().st_size / 1e6)
            return Ending(0, "reports written")
        if not options.skip_bids_validation:
            log.info("validating %s", options.bids_dir)
            for line in validate(options.bids_dir):
                log.warning("%s", line)
        return _summary(options, found, process(options, found.scans, place))


def _find(options: Options) -> Found:
    filters, said = read_filters(options.bids_filter_file) if options.bids_filter_file else ({}, [])
    scans, without = find_scans(
        options.bids_dir,
        participants=options.participant_label,
        sessions=options.session_label,
        filters=filters,
        database=options.bids_database_dir,
    )
    return Found(scans, without, said)


def _table_of(found: Found) -> str:
    width = max(len(scan.name) for scan in found.scans)
    lines = [f"{len(found.scans)} FLAIR scans of {len({s.participant for s in found.scans})} participants:"]
    lines += [f"  {scan.name:<{width}}  {scan.path}" for scan in found.scans]
    lines += [f"  {name:<{width}}  no FLAIR" for name in found.without]
    return "\n".join(lines)


def _summary(options: Options, found: Found, outcomes: Sequence[Outcome]) -> Ending:
    """Say how every scan ended; a participant asked for by name who has no scan is a failure."""
    failed = [outcome.line for outcome in outcomes if outcome.status == "failed"]
    for name in found.without:
        line = f"{name}: no FLAIR scan"
        if options.participant_label:
            failed.append(f"{line}, though asked for by name")
        log.warning("%s", line)
    for name in sorted({scan.participant for scan in found.scans}):
        log.info("report: %s", options.output_dir / set_output("report", participant=name))
    for outcome in sorted(outcomes, key=lambda each: each.scan.name):
        log.info("  %-24s %-9s %6.1f s", outcome.scan.name, outcome.status, outcome.seconds)
    counts = {status: sum(o.status == status for o in outcomes) for status in ("done", "unchanged", "failed")}
    for line in failed:
        log.error("%s", line)
    said = f"{counts['done']} scans done, {counts['unchanged']} unchanged, {counts['failed']} failed"
    return Ending(1 if failed else 0, said)


def process(options: Options, scans: Sequence[Scan], place: Workplace) -> list[Outcome]:
    """Process all scans, write the data set's files, tables and reports, and return how each scan ended."""
    output = options.output_dir
    model = _load(options.model, options.bids_dir, scans) if options.model else None
    write_dataset_files(output, options.bids_dir)
    masks = _given(options, scans)
    tasks = [_task(options, scan, place, masks.get(scan.name)) for scan in scans]
    workers = parallel.Workers(
        options.nprocs, options.mem_mb, options.dask_scheduler, options.dask_scheduler_file, isolated=True
    )
    outcomes: list[Outcome] = []
    written = time.monotonic()
    try:
        # no name for what runs: where the loop is left, its workers end with it
        for outcome in told(parallel.run(worker.process, tasks, workers, worker.lost), len(tasks), "scans", _failed):
            outcomes.append(outcome)
            log.info("[%d/%d] %s: %s", len(outcomes), len(tasks), outcome.scan.name, outcome.line or outcome.status)
            if time.monotonic() - written > TABLE_SECONDS:
                lesion_table.write(output, outcomes)
                written = time.monotonic()
            if outcome.status == "failed" and options.stop_on_first_crash:
                log.error("stopped at the first failure, as asked")
                break
    finally:  # also where the run is interrupted: what is finished is in the table
        ended = {outcome.scan for outcome in outcomes}
        lesion_table.write(output, outcomes, [scan for scan in scans if scan not in ended])
    outcomes = [_still_there(outcome, output) for outcome in outcomes]
    if model:
        finished = [outcome.scan for outcome in outcomes if outcome.status != "failed"]
        _predict(options, model, sorted(finished, key=lambda scan: scan.path), place.work_dir)
    failures = {outcome.scan.name: outcome.line for outcome in outcomes if outcome.status == "failed"}
    formats.write_json(place.log_file.parent / "failures.json", failures)
    write_reports(options, scans, outcomes)
    return outcomes


def _failed(outcome: Outcome) -> bool:
    return outcome.status == "failed"


def _given(options: Options, scans: Sequence[Scan]) -> dict[str, given.MaskFile]:
    """Return the lesion masks that somebody made, by scan."""
    if not options.lesion_derivatives:
        return {}
    folder = options.lesion_derivatives.absolute()  # workers of a cluster may have been started elsewhere
    masks, said = given.find(folder, scans)
    for line in said:
        log.warning("%s", line)
    return {name: given.MaskFile(path, folder, options.accept_empty_masks) for name, path in masks.items()}


def _task(options: Options, scan: Scan, place: Workplace, mask: given.MaskFile | None) -> worker.Task:
    return worker.Task(  # absolute: workers of a cluster may have been started elsewhere
        scan=scan,
        bids_dir=options.bids_dir.absolute(),
        output_dir=options.output_dir.absolute(),
        place=replace(place, log_file=place.log_file.absolute(), work_dir=place.work_dir.absolute()),
        parameters=_parameters(options) | (given.parameters(mask) if mask else {}),
        small_output=options.small_output,
        mask=mask,
    )


def _parameters(options: Options) -> dict[str, Any]:
    """Return the options that a scan's outputs depend on, by name."""
    return {**method(options, "participant"), "lesion_threshold": options.participant_threshold}


def _still_there(outcome: Outcome, output: Path) -> Outcome:
    """Return the outcome; failed, where somebody removed what the scan had written."""
    if outcome.status == "failed" or marks.mark_path(output, outcome.scan.name).is_file():
        return outcome
    line = f"{outcome.scan.name}: its outputs were removed while the app was running; run again"
    return replace(outcome, status="failed", line=line)


def _load(path: Path, bids_dir: Path, scans: Sequence[Scan]) -> StoredModel | StoredPredictor:
    """Return the stored model; covariates that it looks at are looked for before anything long begins."""
    from bids_app.model import prediction, stored  # their libraries take seconds to import: only where needed

    found = stored.load(path)
    prediction.cells_of(found, scans, bids_dir)
    return found


def _predict(options: Options, model: StoredModel | StoredPredictor, scans: Sequence[Scan], work_dir: Path) -> None:
    """Predict the group of every finished scan, and say it."""
    from bids_app.model import prediction
    from bids_app.participant import reasons

    if not scans:
        return
    output = options.output_dir
    place = output, work_dir / "maps", options.nprocs
    table = prediction.predict(model, scans, *place, options.prevalence, options.bids_dir)
    path = prediction.write(table, output)
    reasons.write(model, scans, *place, options.bids_dir)
    for row in table.itertuples():
        log.info("%s: %s (decision value %+.3f)", row.scan, row.prediction, row.decision_value)
    log.info("predictions: %s", path)


def write_dataset_files(output: Path, bids_dir: Path) -> None:
    """Write dataset_description.json, README and .bidsignore of the derivatives."""
    describe(output, "RRMS against NMOSD by brain FLAIR: lesion maps", bids_dir)
    formats.write_text(
        output / "README",
        f"Derivatives of bids_app {__version__}: tissues, gray matter belief maps and lesion maps of FLAIR scans.\n"
        "Open index.html for all scans, sub-*.html for the report of a participant.\n"
        "Research software, no medical device.\n",
    )


def write_reports(options: Options, scans: Sequence[Scan], outcomes: Sequence[Outcome]) -> list[Path]:
    """Write ``sub-X.html`` of every participant touched, and the method text; return the reports' paths.

    ``outcomes`` are those of this run; of other finished scans the marks are read.
    """
    from bids_app.participant import index, reports  # matplotlib takes a second to import: only where it is needed

    output = options.output_dir
    failures = [Failure(outcome.scan, outcome.line) for outcome in outcomes if outcome.status == "failed"]
    known = [outcome.summary for outcome in outcomes if outcome.status != "failed" and outcome.summary]
    finished = reports.finished(output, {scan.participant for scan in scans}, known)
    texts = report.method_text("participant", _facts(finished, scans))
    formats.write_text(output / set_output("method"), texts)
    formats.write_text(output / set_output("references"), report.bibliography())
    method = report.method_html(texts)
    predictions = _predictions(output)
    tasks = [
        reports.Task(
            participant=participant,
            summaries=summaries,
            output=output.absolute(),
            failures=tuple(f for f in failures if f.scan.participant == participant),
            predictions=tuple(row for row in predictions if row["participant_id"] == participant),
            method_html=method,
            report_viewer=options.report_viewer,
        )
        for participant, summaries in sorted(finished.items())
    ]
    # processes take seconds to start, a report takes one
    workers = parallel.Workers(options.nprocs if len(tasks) > MANY else 1, options.mem_mb)
    written = sorted(told(parallel.run(reports.write, tasks, workers, reports.lost), len(tasks), "reports"))
    sizes = {path.stat().st_size / 1e6: path for path in written}
    if sizes:
        largest = max(sizes)
        log.info("%d reports, the largest has %.1f MB: %s", len(written), largest, sizes[largest])
    overview = index.write(output, options.bids_dir)
    return [*written, overview] if overview else written


def _predictions(output: Path) -> list[dict[str, object]]:
    if not (output / "phenotype").is_dir():
        return []
    from bids_app.model import prediction

    return prediction.read(output)


def _facts(finished: Mapping[str, Sequence[Summary]], scans: Sequence[Scan]) -> dict[str, Any]:
    names = {scan.name for scan in scans}
    summaries = [summary for each in finished.values() for summary in each if summary.scan.name in names]
    return {
        "version": __version__,
        "software": software.software("participant"),
        "n_scans": len(summaries),
        "n_participants": len({summary.scan.participant for summary in summaries}),
        "lesion_threshold": summaries[0].origin.parameters["lesion_threshold"] if summaries else None,
        "random_seed": summaries[0].origin.parameters["random_seed"] if summaries else None,
        "bright": kinds.BRIGHT,
    }
