"""The participant level: every FLAIR of the data set to derivatives and a report."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from bids_app import __version__, engine, files, marks, places, report, worker
from bids_app.bids import BIDSIGNORE, Scan, description
from bids_app.errors import BidsAppError
from bids_app.options import Options
from bids_app.records import Failure, Outcome, StoredModel, Summary

log = logging.getLogger("bids_app")
TABLE = "participants_lesions"  # not in phenotype/: there BIDS allows one row a participant only
TABLE_SECONDS = 30.0  # the table grows with every finished scan, but is not written more often


def run(options: Options, scans: Sequence[Scan], log_file: Path, work_dir: Path) -> list[Outcome]:
    """Process all scans, write the data set's files, tables and reports, and return how each scan ended."""
    output = options.output_dir
    model = _load(options.model) if options.model else None
    write_dataset_files(output, options.bids_dir)
    tasks = [_task(options, scan, log_file, work_dir) for scan in scans]
    workers = engine.Workers(
        options.nprocs, options.mem_mb, options.dask_scheduler, options.dask_scheduler_file, isolated=True
    )
    outcomes: list[Outcome] = []
    written = time.monotonic()
    try:
        for outcome in engine.run(worker.process, tasks, workers, worker.lost):
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


def _task(options: Options, scan: Scan, log_file: Path, work_dir: Path) -> worker.Task:
    # absolute: workers of a cluster may have been started elsewhere
    return worker.Task(
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
    if outcome.status == "failed" or marks.mark_path(output, outcome.scan).is_file():
        return outcome
    line = f"{outcome.scan}: its outputs were removed while the app was running; run again"
    return replace(outcome, status="failed", line=line)


def _load(folder: Path) -> StoredModel:
    from bids_app import modelfile  # scikit-learn and skops take seconds to import: only where they are needed

    return modelfile.load(modelfile.find(folder))


def _predict(model: StoredModel, scans: Sequence[Scan], output: Path, work_dir: Path, nprocs: int) -> None:
    """Predict the group of every finished scan, and say it."""
    from bids_app import prediction

    if not scans:
        return
    table = prediction.predict(model, scans, output, work_dir / "maps", nprocs)
    path = prediction.write(table, output)
    for row in table.itertuples():
        log.info("%s: %s (decision value %+.3f)", row.scan, row.prediction, row.decision_value)
    log.info("predictions: %s", path)


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
    with places.locked(output / "logs" / f"{TABLE}.lock"):
        _write_table(output, scans)


def _write_table(output: Path, scans: Sequence[Scan]) -> None:
    path = output / f"{TABLE}.tsv"
    rows = []
    for scan in scans:
        summary = marks.read_mark(output, scan.name)
        if summary:
            rows.append(marks.lesion_row(scan, summary))
    table = pd.DataFrame(rows)
    if path.exists():
        try:
            before = files.read_tsv(path, required=("scan",))
            mine = {scan.name for scan in scans}
            kept = [name not in mine and marks.mark_path(output, name).exists() for name in before["scan"]]
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
    predictions = _predictions(output)
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


def _predictions(output: Path) -> list[dict[str, object]]:
    if not (output / "phenotype").is_dir():
        return []
    from bids_app import prediction

    return prediction.read(output)


def _summaries(output: Path, participant: str) -> list[Summary]:
    """Return all finished scans of a participant, also those of earlier runs."""
    names = sorted(path.stem for path in (output / "logs" / "scans").glob(f"{participant}*.json"))
    found = [marks.read_mark(output, name) for name in names if name.split("_")[0] == participant]
    return [
        summary for summary in found if summary and all((output / path).is_file() for path in summary.figures.values())
    ]


def _facts(output: Path, scans: Sequence[Scan]) -> dict[str, Any]:
    summaries = [s for scan in scans if (s := marks.read_mark(output, scan.name))]
    return {
        "version": __version__,
        "software": marks.software(),
        "n_scans": len(summaries),
        "n_participants": len({s.scan.split("_")[0] for s in summaries}),
        "threshold": summaries[0].parameters["lesion_threshold"] if summaries else None,
        "seed": summaries[0].parameters["random_seed"] if summaries else None,
    }
