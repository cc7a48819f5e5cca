"""One scan, from its file to its derivatives: what runs in this process or in a worker's."""

from __future__ import annotations

import logging
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bids_app import __version__
from bids_app.bids.names import GIVEN, OUTPUTS, SMALL, Scan
from bids_app.errors import BadInputError, BidsAppError
from bids_app.files import atomic, formats
from bids_app.machine.process import Workplace, keep_freed_memory, keep_to, limit_threads, log_to
from bids_app.machine.software import software
from bids_app.participant import marks
from bids_app.participant.given import MaskFile
from bids_app.records.scan import Origin, Outcome, Summary, Volume

log = logging.getLogger("bids_app")


@dataclass(frozen=True)
class Task:
    """What one worker needs to process one scan."""

    scan: Scan
    bids_dir: Path
    output_dir: Path
    place: Workplace
    parameters: Mapping[str, Any]  # what the outputs depend on, beside the scan and the program's version
    small_output: bool
    mask: MaskFile | None = None  # of lesions, made by somebody
    version: str = __version__

    @property
    def keys(self) -> tuple[str, ...]:
        """The rows of the table of outputs that are wanted."""
        return (*(SMALL if self.small_output else OUTPUTS), *(GIVEN if self.mask else ()))


def process(task: Task) -> Outcome:
    """Process one scan; whatever goes wrong becomes the outcome's line."""
    limit_threads(task.parameters["omp_nthreads"])  # of use only in a worker that has not imported ITK yet
    keep_freed_memory()
    keep_to(task.place.work_dir)
    log_to(task.place.log_file, task.place.verbose)
    began = time.perf_counter()
    ended = partial(Outcome, task.scan)
    try:
        status, summary = _process(task)
        return ended(status, "", round(time.perf_counter() - began, 1), summary)
    except BidsAppError as error:
        where = task.scan.path if error.where in ("", str(task.bids_dir / task.scan.path)) else error.where
        line = str(type(error)(error.what, where, error.remedy))
        return ended("failed", line, round(time.perf_counter() - began, 1))
    except MemoryError:
        line = f"{task.scan.path}: out of memory; raise --mem-mb or lower --nprocs"
        return ended("failed", line, round(time.perf_counter() - began, 1))
    except Exception as error:
        trace = task.place.log_file.parent / f"{task.scan.name}.traceback.txt"
        formats.write_text(trace, traceback.format_exc())
        line = f"{task.scan.path}: unexpected {type(error).__name__} ({error}); please report {trace.name}"
        return ended("failed", " ".join(line.split()), round(time.perf_counter() - began, 1))


def _process(task: Task) -> tuple[str, Summary]:
    scan, source = task.scan, task.bids_dir / task.scan.path
    if task.version != __version__:
        what = f"this worker runs version {__version__}, the command {task.version}"
        raise BadInputError(what, scan.path, "install the same version everywhere")
    image = formats.open_nifti(source)
    with atomic.locked(
        marks.lock_path(task.output_dir, scan.name), lambda: log.info("%s: another run is at it; waiting", scan.name)
    ):
        digests = marks.digests(source, task.parameters)
        mark = marks.read_mark(task.output_dir, scan.name)
        outputs = [scan.output(key) for key in task.keys]
        if mark and marks.finished(task.output_dir, mark, digests[0], outputs):
            return "unchanged", mark
        from bids_app.image import intake  # ANTs and its kin take seconds to import: only where they are needed

        intake.check_header(image)
        data, _ = formats.read_nifti(source)
        volume, known, warnings = intake.to_volume(image, data)
        summary = _analyse(task, volume, known, warnings, digests, mark)
    for check in summary.checks:
        if not check.ok:
            log.warning(
                "%s: %s is %.3g, normal is %g to %g",
                scan.name,
                check.name,
                check.value,
                check.low,
                check.high,
            )
    return "done", summary


def _analyse(
    task: Task, volume: Volume, known: bool, warnings: list[str], digests: tuple[str, str], mark: Summary | None
) -> Summary:
    """Run the chain, or only what follows the threshold where ``mark`` says that the rest is finished, and write."""
    from bids_app.image import chain
    from bids_app.image.geometry import Frame
    from bids_app.lesions import maps
    from bids_app.participant import derivatives, given, rethreshold

    scan, keys, frame = task.scan, task.keys, Frame(volume)
    for warning in warnings:
        log.warning("%s: %s", scan.name, warning)
    origin_of_mask = str(task.parameters.get("external_mask", ""))
    # before the chain: a mask that is none need not wait for it
    mask = given.read(task.mask, frame, origin_of_mask) if task.mask else None
    again = mark if rethreshold.possible(task.output_dir, scan, mark, digests[1], keys) else None
    clock = _Clock(scan.name)
    with tempfile.TemporaryDirectory(prefix=f"{scan.name}_", dir=task.place.work_dir) as folder:
        if again:
            log.info("%s: another threshold; the rest is finished", scan.name)
            anatomy = rethreshold.restored(scan, frame, task.output_dir, again, Path(folder))
            keys = tuple(key for key in (*OUTPUTS, *GIVEN) if scan.output(key) in again.outputs)
        else:
            anatomy = chain.find_anatomy(
                frame.grid,
                Path(folder),
                seed=task.parameters["random_seed"],
                trust_header=known,
                step=clock.begin,
            )
            anatomy = replace(anatomy, warnings=(*warnings, *anatomy.warnings))
        seconds = again.origin.seconds if again else clock.stop()
        log.info("%s: lesions", scan.name)
        found = maps.find_lesions(anatomy, task.parameters["lesion_threshold"], mask)
        log.info("%s: writing", scan.name)
        origin = Origin(scan.path, *digests, dict(task.parameters), software("participant"), seconds)
        target = derivatives.Target(scan, task.output_dir, keys, mark.outputs if mark else ())
        return derivatives.write(target, found, frame, origin, lesions_only=again is not None)


class _Clock:
    """Wall seconds of the chain's steps, each told in the log as it begins."""

    def __init__(self, scan: str) -> None:
        self.scan, self.name, self.since = scan, "", 0.0
        self.seconds: dict[str, float] = {}

    def begin(self, name: str) -> None:
        self.stop()
        log.info("%s: %s", self.scan, name)
        self.name, self.since = name, time.perf_counter()

    def stop(self) -> dict[str, float]:
        if self.name:
            self.seconds[self.name] = round(time.perf_counter() - self.since, 2)
        return self.seconds


def lost(task: Task, reason: str) -> Outcome:
    """Return the outcome of a scan whose process died twice."""
    line = f"{task.scan.path}: its process died twice ({reason}); lower --nprocs or raise --mem-mb"
    return Outcome(task.scan, "failed", line, 0.0)
