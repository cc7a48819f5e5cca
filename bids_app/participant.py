"""The participant level: every FLAIR of the data set to derivatives and a report."""

from __future__ import annotations

import logging
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from bids_app import __version__, chain, derivatives, engine, files, intake, modelfile, prediction, report
from bids_app.bids import BIDSIGNORE, Scan, description
from bids_app.errors import BidsAppError
from bids_app.geometry import canonical, centred
from bids_app.options import Options
from bids_app.records import Failure, Outcome, StoredModel, Summary

log = logging.getLogger("bids_app")
TABLE = "participants_lesions"  # not in phenotype/: there BIDS allows one row a participant only


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
    log_file: Path
    verbose: int

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
    tasks = [
        Task(
            scan,
            options.bids_dir,
            output,
            work_dir,
            options.participant_threshold,
            options.random_seed,
            options.omp_nthreads,
            log_file,
            options.verbose,
        )
        for scan in scans
    ]
    outcomes: list[Outcome] = []
    for outcome in engine.run(process, tasks, nprocs=options.nprocs, mem_mb=options.mem_mb, lost=_lost):
        outcomes.append(outcome)
        log.info("[%d/%d] %s: %s", len(outcomes), len(tasks), outcome.scan, outcome.line or outcome.status)
        write_table(output, scans)
        if outcome.status == "failed" and options.stop_on_first_crash:
            log.error("stopped at the first failure, as asked")
            break
    if model:
        finished = {o.scan for o in outcomes if o.status != "failed"}
        _predict(model, [scan for scan in scans if scan.name in finished], output, work_dir, options.nprocs)
    failures = [Failure(o.scan, o.line) for o in outcomes if o.status == "failed"]
    files.write_json(log_file.parent / "failures.json", {f.scan: f.line for f in failures})
    write_reports(output, scans, failures)
    return outcomes


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
    image = files.open_nifti(source)
    wanted = derivatives.digest(source, task.parameters)
    if derivatives.finished(task.output_dir, scan.name, wanted):
        return "unchanged"
    intake.check_header(image)
    data, _ = files.read_nifti(source)
    volume, known, warnings = intake.to_volume(image, data)
    for warning in warnings:
        log.warning("%s: %s", scan.name, warning)
    task.work_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{scan.name}_", dir=task.work_dir) as folder:
        found = chain.analyse(
            centred(canonical(volume)),
            Path(folder),
            threshold=task.threshold,
            seed=task.seed,
            trust_header=known,
            warnings=tuple(warnings),
            step=lambda name: log.info("%s: %s", scan.name, name),
        )
        log.info("%s: writing", scan.name)
        summary = derivatives.write(
            scan, found, volume, task.output_dir, scan_digest=wanted, parameters=task.parameters
        )
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


def _lost(task: Task, reason: str) -> Outcome:
    line = f"{task.scan.path}: its process died twice ({reason}); out of memory? lower --nprocs"
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
    "head_shape": "Largest to smallest stretch of the head against the template",
    "left_right_known": "1 where the header tells left from right, else 0",
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
