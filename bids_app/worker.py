"""One scan, from its file to its derivatives: what runs in this process or in a worker's."""

from __future__ import annotations

import logging
import tempfile
import time
import traceback
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bids_app import __version__, engine, files, marks, places
from bids_app.bids import OUTPUTS, SMALL, Scan
from bids_app.errors import BadInputError, BidsAppError
from bids_app.records import Outcome, Summary, Volume

log = logging.getLogger("bids_app")


@dataclass(frozen=True)
class Task:
    """What one worker needs to process one scan."""

    scan: Scan
    bids_dir: Path
    output_dir: Path
    work_dir: Path
    threshold: float
    seed: int
    omp_nthreads: int
    small_output: bool
    log_file: Path
    verbose: int
    version: str = __version__

    @property
    def keys(self) -> tuple[str, ...]:
        """The rows of the table of outputs that are wanted."""
        return SMALL if self.small_output else tuple(OUTPUTS)

    @property
    def parameters(self) -> dict[str, Any]:
        """What the outputs depend on, beside the scan and the program's version."""
        return {
            "lesion_threshold": self.threshold,
            "random_seed": self.seed,
            "omp_nthreads": self.omp_nthreads,
        }


def process(task: Task) -> Outcome:
    """Process one scan; whatever goes wrong becomes the outcome's line."""
    engine.limit_threads(task.omp_nthreads)  # of use only in a worker that has not imported ITK yet
    engine.keep_freed_memory()
    engine.keep_to(task.work_dir)
    engine.log_to(task.log_file, task.verbose)
    began = time.perf_counter()
    ended = partial(Outcome, task.scan.name, task.scan.participant)
    try:
        status = _process(task)
        return ended(status, "", round(time.perf_counter() - began, 1))
    except BidsAppError as error:
        where = task.scan.path if error.where in ("", str(task.bids_dir / task.scan.path)) else error.where
        line = str(type(error)(error.what, where, error.remedy))
        return ended("failed", line, round(time.perf_counter() - began, 1))
    except MemoryError:
        line = f"{task.scan.path}: out of memory; raise --mem-mb or lower --nprocs"
        return ended("failed", line, round(time.perf_counter() - began, 1))
    except Exception as error:
        trace = task.log_file.parent / f"{task.scan.name}.traceback.txt"
        files.write_text(trace, traceback.format_exc())
        line = f"{task.scan.path}: unexpected {type(error).__name__} ({error}); please report {trace.name}"
        return ended("failed", " ".join(line.split()), round(time.perf_counter() - began, 1))


def _process(task: Task) -> str:
    scan, source = task.scan, task.bids_dir / task.scan.path
    if task.version != __version__:
        what = f"this worker runs version {__version__}, the command {task.version}"
        raise BadInputError(what, scan.path, "install the same version everywhere")
    image = files.open_nifti(source)
    with places.locked(
        marks.lock_path(task.output_dir, scan.name), lambda: log.info("%s: another run is at it; waiting", scan.name)
    ):
        digests = marks.digests(source, task.parameters)
        mark = marks.read_mark(task.output_dir, scan.name)
        outputs = [scan.output(key) for key in task.keys]
        if marks.finished(task.output_dir, mark, digests[0], outputs):
            return "unchanged"
        from bids_app import intake, rethreshold  # ANTs and its kin take seconds to import: only where they are needed

        intake.check_header(image)
        data, _ = files.read_nifti(source)
        volume, known, warnings = intake.to_volume(image, data)
        again = mark if rethreshold.possible(task.output_dir, scan, mark, digests[1], task.keys) else None
        summary = _analyse(task, volume, known, warnings, digests, again)
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
    return "done"


def _analyse(
    task: Task, volume: Volume, known: bool, warnings: list[str], digests: tuple[str, str], again: Summary | None
) -> Summary:
    """Run the chain, or only what follows the threshold where the rest is finished (``again``), and write."""
    from bids_app import chain, derivatives, rethreshold
    from bids_app.geometry import canonical, centred

    scan, keys = task.scan, task.keys
    for warning in warnings:
        log.warning("%s: %s", scan.name, warning)
    with tempfile.TemporaryDirectory(prefix=f"{scan.name}_", dir=task.work_dir) as folder:
        if again:
            log.info("%s: another threshold; the rest is finished", scan.name)
            anatomy = rethreshold.restored(scan, volume, task.output_dir, again, Path(folder))
            keys = tuple(key for key in OUTPUTS if scan.output(key) in again.outputs)
        else:
            anatomy = chain.find_anatomy(
                centred(canonical(volume)),
                Path(folder),
                seed=task.seed,
                trust_header=known,
                warnings=tuple(warnings),
                step=lambda name: log.info("%s: %s", scan.name, name),
            )
        log.info("%s: lesions", scan.name)
        found = chain.find_lesions(anatomy, task.threshold)
        log.info("%s: writing", scan.name)
        return derivatives.write(
            scan,
            found,
            volume,
            task.output_dir,
            digests=digests,
            parameters=task.parameters,
            keys=keys,
            before=again,
        )


def lost(task: Task, reason: str) -> Outcome:
    """Return the outcome of a scan whose process died twice."""
    line = f"{task.scan.path}: its process died twice ({reason}); lower --nprocs or raise --mem-mb"
    return Outcome(task.scan.name, task.scan.participant, "failed", line, 0.0)
