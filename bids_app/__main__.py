"""The command line: argv -> options -> one recipe -> exit code."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_app import __version__, engine
from bids_app.errors import BidsAppError, UsageError
from bids_app.options import Options, parse

if TYPE_CHECKING:
    from bids_app.bids import Scan

log = logging.getLogger("bids_app")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the app and return its exit code."""
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
        _check_places(options)
    except UsageError as error:
        print(f"bids_app: error: {error}", file=sys.stderr)
        return _say_end(error.exit_code, "usage")
    work_dir = options.work_dir or options.output_dir / ".work"
    try:
        return _run(options, work_dir)
    except BidsAppError as error:
        log.error("%s", error) if log.handlers else print(f"bids_app: error: {error}", file=sys.stderr)
        return _say_end(error.exit_code, str(error))
    except KeyboardInterrupt:
        return _say_end(130, "interrupted; finished scans stay, run again to go on")
    finally:
        if options.work_dir is None:
            shutil.rmtree(work_dir, ignore_errors=True)


def _run(options: Options, work_dir: Path) -> int:
    engine.limit_threads(options.omp_nthreads)
    if options.analysis_level == "group":
        return _group(options, work_dir)
    from bids_app import bids
    from bids_app.validation import validate

    said: list[str] = []
    filters: dict[str, Any] = {}
    if options.bids_filter_file:
        filters, said = bids.read_filters(options.bids_filter_file)
    scans, without = bids.find_scans(
        options.bids_dir,
        participants=options.participant_label,
        sessions=options.session_label,
        filters=filters,
        database=options.bids_database_dir,
    )
    print(_table(scans, without), flush=True)
    if options.dry_run:
        for line in said:
            print(f"warning: {line}", file=sys.stderr)
        return _say_end(0, f"dry run: {len(scans)} scans would be processed")
    log_file = _start(options, work_dir)
    for line in said:
        log.warning("%s", line)
    if not options.skip_bids_validation and not options.reports_only:
        log.info("validating %s", options.bids_dir)
        for line in validate(options.bids_dir):
            log.warning("%s", line)
    return _participant(options, scans, without, log_file, work_dir)


def _start(options: Options, work_dir: Path) -> Path:
    """Make the folders, open the log, and return its path."""
    from bids_app.files import make_folder

    make_folder(options.output_dir)
    make_folder(work_dir)
    engine.keep_to(work_dir)
    stamp = datetime.now().strftime("%Y%m%dT%H%M%S") + f"-{os.getpid()}"
    log_file = options.output_dir / "logs" / stamp / "log.txt"
    make_folder(log_file.parent)
    engine.log_to(log_file, options.verbose)
    log.info(
        "bids_app %s, %s level, %s -> %s",
        __version__,
        options.analysis_level,
        options.bids_dir,
        options.output_dir,
    )
    return log_file


def _participant(options: Options, scans: list[Scan], without: list[str], log_file: Path, work_dir: Path) -> int:
    from bids_app import participant

    if options.reports_only or options.boilerplate_only:
        for path in participant.write_reports(options.output_dir, scans, []):
            log.info("report: %s", path)
        return _say_end(0, "reports written")
    outcomes = participant.run(options, scans, log_file, work_dir)
    failed = [o.line for o in outcomes if o.status == "failed"]
    for name in without:
        line = f"{name}: no FLAIR scan"
        if options.participant_label:
            failed.append(f"{line}, though asked for by name")
        log.warning("%s", line)
    for name in sorted({scan.participant for scan in scans}):
        log.info("report: %s", options.output_dir / f"{name}.html")
    for outcome in sorted(outcomes, key=lambda each: each.scan):
        log.info("  %-24s %-9s %6.1f s", outcome.scan, outcome.status, outcome.seconds)
    counts = {status: sum(o.status == status for o in outcomes) for status in ("done", "unchanged", "failed")}
    summary = f"{counts['done']} scans done, {counts['unchanged']} unchanged, {counts['failed']} failed"
    for line in failed:
        log.error("%s", line)
    return _say_end(1 if failed else 0, summary)


def _group(options: Options, work_dir: Path) -> int:
    from bids_app import group

    log_file = _start(options, work_dir)
    path = group.run(options, log_file, work_dir)
    log.info("report: %s", path)
    return _say_end(0, f"report {path}")


def _table(scans: list[Scan], without: list[str]) -> str:
    """Return the table of resolved inputs."""
    width = max(len(scan.name) for scan in scans)
    lines = [f"{len(scans)} FLAIR scans of {len({s.participant for s in scans})} participants:"]
    lines += [f"  {scan.name:<{width}}  {scan.path}" for scan in scans]
    lines += [f"  {name:<{width}}  no FLAIR" for name in without]
    return "\n".join(lines)


def _check_places(options: Options) -> None:
    """Refuse an output or work directory inside the input: the input is never written to."""
    root = options.bids_dir.resolve()
    for place, flag in ((options.output_dir, "output_dir"), (options.work_dir, "--work-dir")):
        if place is not None and (place.resolve() == root or root in place.resolve().parents):
            raise UsageError(f"{flag} {place} lies inside the input {options.bids_dir}", remedy="choose another folder")


def _say_end(code: int, why: str) -> int:
    line = f"exit code {code}: {why}"
    if log.handlers:
        log.log(logging.INFO if code == 0 else logging.ERROR, "%s", line)
    else:
        print(line, file=sys.stderr)
    return code


def console() -> None:
    """Entry point of the ``bids_app`` command."""
    sys.exit(main())


if __name__ == "__main__":
    console()
