"""How far a run is: a bar on a terminal; elsewhere a plain line from time to time, so that no log fills with bars."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
log = logging.getLogger("bids_app")
SECONDS = 30.0  # between two plain lines


def _none(result: object) -> bool:
    """Take no result for a failure."""
    return False


def told(results: Iterable[T], total: int, what: str, failed: Callable[[T], bool] = _none) -> Iterator[T]:
    """Yield results as they come, and tell how many of ``total`` are there, how many failed, and the time left.

    Parameters
    ----------
    results : iterable
    total : int
    what : str
        What the results are, in the plural, as in "scans".
    failed : callable
        Whether a result is a failure.
    """
    if total > 1 and sys.stderr.isatty():
        yield from _bar(results, total, what, failed)
        return
    began = said = time.monotonic()
    count = failures = 0
    for result in results:
        count, failures, now = count + 1, failures + failed(result), time.monotonic()
        if count < total and now - said >= SECONDS:
            said = now
            log.info("%s", line(count, total, what, failures, now - began))
        yield result


def _bar(results: Iterable[T], total: int, what: str, failed: Callable[[T], bool]) -> Iterator[T]:
    from tqdm import tqdm  # late: only on a terminal

    failures = 0
    with tqdm(total=total, desc=what, file=sys.stderr, leave=False, dynamic_ncols=True) as bar:
        for result in results:
            failures += failed(result)
            if failures:
                bar.set_postfix_str(f"{failures} failed", refresh=False)
            bar.update()
            yield result


def line(count: int, total: int, what: str, failures: int, seconds: float) -> str:
    """Return how far a run is, in words.

    Examples
    --------
    >>> line(10, 40, "scans", 1, 200.0)
    'scans: 10 of 40, 1 failed, about 10 min left'
    >>> line(3, 4, "folds", 0, 30.0)
    'folds: 3 of 4, about 10 s left'
    """
    left = seconds / count * (total - count)
    shown = f"{left:.0f} s" if left < 90 else f"{left / 60:.0f} min" if left < 5400 else f"{left / 3600:.1f} h"
    return f"{what}: {count} of {total}, " + (f"{failures} failed, " if failures else "") + f"about {shown} left"
