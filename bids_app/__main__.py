"""The command line: argv -> options -> one recipe -> exit code."""

from __future__ import annotations

import logging
import signal
import sys
import traceback
from collections.abc import Sequence
from functools import partial

from bids_app.errors import BidsAppError, UsageError
from bids_app.machine import process
from bids_app.options import Options
from bids_app.parser import parse

log = logging.getLogger("bids_app")
INTERNAL = 70  # an error of the program itself


class Terminated(KeyboardInterrupt):
    """SIGTERM: clusters send it before they kill."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the app and return its exit code."""
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
    except UsageError as error:
        print(f"bids_app: error: {error}", file=sys.stderr)
        return _say_end(error.exit_code, "usage")
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return _run(options)
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


def _run(options: Options) -> int:
    process.limit_threads(options.omp_nthreads)
    process.need_no_home(options.output_dir)
    # recipes are imported late: their libraries look for threads, home and work directory when they are imported
    if options.analysis_level == "group":
        with process.workplace(options.output_dir, options.work_dir, options.verbose) as place:
            from bids_app.group import recipe as group

            return _say_end(*group.run(options, place))
    from bids_app.participant import recipe as participant

    tell = partial(print, flush=True)
    return _say_end(*participant.run(options, tell, warn=partial(tell, file=sys.stderr)))


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
