"""The participant level: every FLAIR of the data set to derivatives and a report."""

from __future__ import annotations

import logging
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from bids_app import (
    __version__,
    chain,
    derivatives,
    engine,
    files,
    intake,
    modelfile,
    prediction,
    report,
    rethreshold,
)
from bids_app.bids import BIDSIGNORE, OUTPUTS, SMALL, Scan, description
from bids_app.errors import BadInputError, BidsAppError
from bids_app.geometry import canonical, centred
from bids_app.options import Options
from bids_app.records import Failure, Outcome, StoredModel, Summary, Volume

log = logging.getLogger("bids_app")
TABLE = "participants_lesions"  # not in phenotype/: there BIDS allows one row a participant only
TABLE_SECONDS = 30.0  # the table grows with every finished scan, but is not written more often


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


def run(options: Options, scans: Sequence[Scan], log_file: Path, work_dir: Path) -> list[Outcome]:
    """Process all scans, write the data set's files, tables and reports, and return how each scan ended."""
    output = options.output_dir
    model = modelfile.load(modelfile.find(options.model)) if options.model else None
    write_dataset_files(output, options.bids_dir)
    tasks = [_task(options, scan, log_file, work_dir) for scan in scans]
    workers = engine.Workers(
        options.nprocs, options.mem_mb, options.dask_scheduler, options.dask_scheduler_file, isolated=True
    )
    outcomes: list[Outcome] = []
    written = time.monotonic()
    try:
        for outcome in engine.run(process, tasks, workers, _lost):
            outcomes.append(outcome)
            log.info("[%d/%d] %s: %s", len(outcomes), len(tasks), outcome.scan, outcome.line or outcome.status)
            if time.monotonic() - written > TABLE_SECONDS:
                write_table(output, scans)
                written = time.monotonic()
            if outcome.status == "failed" and options.stop_on_first_crash:
                log.error("stopped at the first failure, as asked")
                break
    finally:  # also where the run is interrupted: what is finished is in the table
        write_table(output, scans)
    outcomes = [_still_there(outcome, output) for outcome in outcomes]
    if model:
        finished = {o.scan for o in outcomes if o.status != "failed"}
        _predict(model, [scan for scan in scans if scan.name in finished], output, work_dir, options.nprocs)
    failures = [Failure(o.scan, o.line) for o in outcomes if o.status == "failed"]
    files.write_json(log_file.parent / "failures.json", {f.scan: f.line for f in failures})
    write_reports(output, scans, failures)
    return outcomes


def _task(options: Options, scan: Scan, log_file: Path, work_dir: Path) -> Task:
    # absolute: workers of a cluster may have been started elsewhere
    return Task(
        scan=scan,
        bids_dir=options.bids_dir.absolute(),
        output_dir=options.output_dir.absolute(),
        work_dir=work_dir.absolute(),
        threshold=options.participant_threshold,
        seed=options.random_seed,
        omp_nthreads=options.omp_nthreads,
        small_output=options.small_output,
        log_file=log_file.absolute(),
        verbose=options.verbose,
    )


def _still_there(outcome: Outcome, output: Path) -> Outcome:
    """Return the outcome; failed, where somebody removed what the scan had written."""
    if outcome.status == "failed" or derivatives.mark_path(output, outcome.scan).is_file():
        return outcome
    line = f"{outcome.scan}: its outputs were removed while the app was running; run again"
    return replace(outcome, status="failed", line=line)


def _predict(model: StoredModel, scans: Sequence[Scan], output: Path, work_dir: Path, nprocs: int) -> None:
    """Predict the group of every finished scan, and say it."""
    if not scans:
        return
    table = prediction.predict(model, scans, output, work_dir / "maps", nprocs)
    path = prediction.write(table, output)
    for row in table.itertuples():
        log.info("%s: %s (decision value %+.3f)", row.scan, row.prediction, row.decision_value)
    log.info("predictions: %s", path)


def process(task: Task) -> Outcome:
    """Process one scan; whatever goes wrong becomes the outcome's line."""
    engine.limit_threads(task.omp_nthreads)  # of use only in a worker that has not imported ITK yet
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
    lock = task.output_dir / "logs" / "scans" / f"{scan.name}.lock"
    with files.locked(lock, lambda: log.info("%s: another run is at it; waiting", scan.name)):
        digests = derivatives.digests(source, task.parameters)
        mark = derivatives.read_mark(task.output_dir, scan.name)
        outputs = [scan.output(key) for key in task.keys]
        if derivatives.finished(task.output_dir, mark, digests[0], outputs):
            return "unchanged"
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
    scan = task.scan
    keys = task.keys
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


def _lost(task: Task, reason: str) -> Outcome:
    line = f"{task.scan.path}: its process died twice ({reason}); lower --nprocs or raise --mem-mb"
    return Outcome(task.scan.name, task.scan.participant, "failed", line, 0.0)


def write_dataset_files(output: Path, bids_dir: Path) -> None:
    """Write dataset_description.json, README and .bidsignore of the derivatives."""
    files.write_json(
        output / "dataset_description.json",
        description("RRMS against NMOSD by brain FLAIR: lesion maps", {"raw": bids_dir.resolve().as_uri()}),
    )
    files.write_text(output / ".bidsignore", "\n".join(BIDSIGNORE) + "\n")
    files.write_text(
        output / "README",
        f"Derivatives of bids_app {__version__}: tissues, gray matter belief maps and lesion maps of FLAIR scans.\n"
        "Open sub-*.html for the report of a participant. Research software, no medical device.\n",
    )


def write_table(output: Path, scans: Sequence[Scan]) -> None:
    """Write the table of all finished scans: those of this run and those the table already holds."""
    with files.locked(output / "logs" / f"{TABLE}.lock"):
        _write_table(output, scans)


def _write_table(output: Path, scans: Sequence[Scan]) -> None:
    path = output / f"{TABLE}.tsv"
    rows = []
    for scan in scans:
        summary = derivatives.read_mark(output, scan.name)
        if summary:
            rows.append(derivatives.lesion_row(scan, summary))
    table = pd.DataFrame(rows)
    if path.exists():
        try:
            before = files.read_tsv(path, required=("scan",))
            mine = {scan.name for scan in scans}
            kept = [name not in mine and derivatives.mark_path(output, name).exists() for name in before["scan"]]
            table = pd.concat([before[kept], table])
        except BidsAppError as error:
            log.warning("%s; it is written anew", error)
    if table.empty:
        return
    files.write_tsv(path, table.sort_values("scan"))
    about = {name: {"Description": text} for name, text in _COLUMNS.items() if name in table}
    files.write_json(output / f"{TABLE}.json", about)


_COLUMNS = {
    "session_id": "Session",
    "scan": "Entities of the scan's file name",
    "brain_volume_ml": "Brain with its fluid, ml",
    "gm_volume_ml": "Gray matter, ml",
    "wm_volume_ml": "White matter, ml",
    "csf_volume_ml": "Fluid inside the brain mask, ml",
    "lesion_volume_ml": "Belief above the threshold, native space, ml",
    "lesion_count": "Connected components (26 neighbours)",
    "lesion_volume_mni_ml": "Normalised lesion map, ml of the template",
    "cleaned_volume_ml": "Cleaned lesion map, native space, ml",
    "cleaned_count": "Connected components of the cleaned map",
    "cleaned_volume_mni_ml": "Cleaned lesion map, normalised, ml of the template",
    "gm_mean": "FLAIR intensity of gray matter after bias correction",
    "belief_mean": "Mean belief over GM and WM",
    "belief_sd": "SD of the belief over GM and WM",
    "template_agreement": "Correlation of scan and synthetic FLAIR in the brain",
    "pose_similarity": "Correlation of scan and synthetic head before warping",
    "coverage": "Share of the template's brain in the field of view",
    "wm_to_gm": "Ratio of the class means",
    "csf_to_gm": "Ratio of the class means",
    "share_over_threshold": "Share of the brain taken for lesion",
    "lesion_free": "No voxel above the threshold",
    "flags": "Quality checks outside their normal range",
}


def write_reports(output: Path, scans: Sequence[Scan], failures: Sequence[Failure]) -> list[Path]:
    """Write ``sub-X.html`` of every participant touched, and the method text; return the reports' paths."""
    written = []
    texts = report.method_text("participant", _facts(output, scans))
    files.write_text(output / "logs" / "CITATION.md", texts)
    files.write_text(output / "logs" / "CITATION.bib", report.bibliography())
    method = report.method_html(texts)
    predictions = prediction.read(output)
    for participant in sorted({scan.participant for scan in scans}):
        summaries = _summaries(output, participant)
        images = {
            summary.scan: {key: (output / path).read_bytes() for key, path in summary.figures.items()}
            for summary in summaries
        }
        mine = [f for f in failures if f.scan.split("_")[0] == participant]
        predicted = [row for row in predictions if row["participant_id"] == participant]
        page = report.participant_page(participant, summaries, images, mine, method, __version__, predicted)
        path = output / f"{participant}.html"
        files.write_text(path, page)
        written.append(path)
    return written


def _summaries(output: Path, participant: str) -> list[Summary]:
    """Return all finished scans of a participant, also those of earlier runs."""
    names = sorted(path.stem for path in (output / "logs" / "scans").glob(f"{participant}*.json"))
    found = [derivatives.read_mark(output, name) for name in names if name.split("_")[0] == participant]
    return [
        summary for summary in found if summary and all((output / path).is_file() for path in summary.figures.values())
    ]


def _facts(output: Path, scans: Sequence[Scan]) -> dict[str, Any]:
    summaries = [s for scan in scans if (s := derivatives.read_mark(output, scan.name))]
    return {
        "version": __version__,
        "software": derivatives.software(),
        "n_scans": len(summaries),
        "n_participants": len({s.scan.split("_")[0] for s in summaries}),
        "threshold": summaries[0].parameters["lesion_threshold"] if summaries else None,
        "seed": summaries[0].parameters["random_seed"] if summaries else None,
    }
