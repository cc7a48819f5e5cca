"""The command line: argv -> options -> one recipe -> exit code."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_app import __version__, engine
from bids_app.errors import BidsAppError, UsageError
from bids_app.options import Options, parse

if TYPE_CHECKING:
    from bids_app.bids import Scan

log = logging.getLogger("bids_app")
INTERNAL = 70  # an error of the program itself


class Terminated(KeyboardInterrupt):
    """SIGTERM: clusters send it before they kill."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the app and return its exit code."""
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
        _check_places(options)
    except UsageError as error:
        print(f"bids_app: error: {error}", file=sys.stderr)
        return _say_end(error.exit_code, "usage")
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        with ExitStack() as stack:
            return _run(options, stack)
    except BidsAppError as error:
        log.error("%s", error) if log.handlers else print(f"bids_app: error: {error}", file=sys.stderr)
        return _say_end(error.exit_code, str(error))
    except KeyboardInterrupt as stop:
        code = 143 if isinstance(stop, Terminated) else 130
        return _say_end(code, "interrupted; finished scans stay, run again to go on")
    except Exception as error:
        print(traceback.format_exc(), file=sys.stderr)
        return _say_end(INTERNAL, f"unexpected {type(error).__name__} ({error}); please report what stands above")
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(signum: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what follows is orderly
    raise Terminated


def _run(options: Options, stack: ExitStack) -> int:
    engine.limit_threads(options.omp_nthreads)
    engine.need_no_home(options.output_dir)
    if options.analysis_level == "group":
        return _group(options, stack)
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
    log_file, work_dir = _start(options, stack)
    for line in said:
        log.warning("%s", line)
    if not options.skip_bids_validation and not options.reports_only:
        log.info("validating %s", options.bids_dir)
        for line in validate(options.bids_dir):
            log.warning("%s", line)
    return _participant(options, scans, without, log_file, work_dir)


def _start(options: Options, stack: ExitStack) -> tuple[Path, Path]:
    """Make the folders, open the log, and return its path and the folder for temporary files."""
    from bids_app import places

    places.make_folder(options.output_dir)
    root = (options.work_dir or options.output_dir / ".work").absolute()
    if options.work_dir is None:
        stack.callback(_remove_empty, root)
    work_dir = stack.enter_context(places.temporary_folder(root))
    engine.keep_to(work_dir, caches=options.work_dir)
    stamp = datetime.now().strftime("%Y%m%dT%H%M%S") + f"-{os.getpid()}"
    log_file = options.output_dir / "logs" / stamp / "log.txt"
    places.make_folder(log_file.parent)
    engine.log_to(log_file, options.verbose)
    log.info(
        "bids_app %s, %s level, %s -> %s",
        __version__,
        options.analysis_level,
        options.bids_dir,
        options.output_dir,
    )
    return log_file, work_dir


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # another run is using it
        folder.rmdir()


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


def _group(options: Options, stack: ExitStack) -> int:
    log_file, work_dir = _start(options, stack)
    from bids_app import group, places  # late: their libraries look for the work directory when they are imported

    lock = options.output_dir / "logs" / "group.lock"
    with places.locked(lock, lambda: log.info("another run is at the group level here; waiting")):
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
