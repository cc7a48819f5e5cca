"""One participant's report: from the derivatives on disk to the page."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_app import __version__
from bids_app.bids.names import Scan, set_output
from bids_app.errors import WriteFailedError
from bids_app.files import formats
from bids_app.participant import index, marks
from bids_app.records.scan import Failure, Summary, Volume
from bids_app.report import assets
from bids_app.report import page as report

LESIONS = {  # key in the table of outputs: name and colour, as in the figures
    "lesion": ("Lesion map", "#e69f00"),
    "normative": ("Normative lesion map", "#56b4e9"),
    "network": ("Network's lesion map", "#f0e442"),
    "external": ("Given lesion map", "#d55e00"),
}


@dataclass(frozen=True)
class Task:
    """What one report is made of, beside what is on disk; small enough to be sent to another process."""

    participant: str
    summaries: tuple[Summary, ...]
    output: Path
    failures: tuple[Failure, ...]
    predictions: tuple[Mapping[str, object], ...]
    method_html: str
    report_viewer: str


def write(task: Task) -> Path:
    """Write ``sub-X.html`` and return its path."""
    for summary in task.summaries:
        index.write_picture(task.output, summary.scan)
    sections = [
        report.Section(summary, _images(task.output, summary), view_of(task.output, summary.scan, task.report_viewer))
        for summary in task.summaries
    ]
    page = report.participant_page(
        task.participant, sections, task.failures, task.method_html, __version__, task.predictions
    )
    path = task.output / set_output("report", participant=task.participant)
    formats.write_text(path, page)
    return path


def _images(output: Path, summary: Summary) -> dict[str, bytes]:
    """Return the figures of a scan, and that of a prediction's reasons where there is one."""
    paths = {**summary.figures, "reasons": summary.scan.figure("reasons")}
    return {key: (output / path).read_bytes() for key, path in paths.items() if (output / path).is_file()}


def lost(task: Task, reason: str) -> Path:
    """Say that the process which wrote a report died."""
    raise WriteFailedError(f"the report of {task.participant} was not written ({reason})", task.output, "run again")


def finished(
    output: Path, participants: Collection[str], known: Sequence[Summary] = ()
) -> dict[str, tuple[Summary, ...]]:
    """Return the finished scans of each participant, also those of earlier runs.

    ``known`` are summaries of this run; the marks of other scans are read, each once.
    """
    told = {summary.scan.name: summary for summary in known}
    found: dict[str, list[Summary]] = {name: [] for name in participants}
    for path in sorted((output / "logs" / "scans").glob("sub-*.json")):
        participant = path.stem.split("_")[0]
        if participant not in found:
            continue
        summary = told.get(path.stem) or marks.read_mark(output, path.stem)
        if summary and all((output / place).is_file() for place in summary.figures.values()):
            found[participant].append(summary)
    return {name: tuple(summaries) for name, summaries in found.items()}


def view_of(output: Path, scan: Scan, report_viewer: str) -> str:
    """Return the viewer's data of a scan, or nothing where it is not wanted or its images were not kept."""
    from bids_app.drawing import slices  # 30 MB: not in the command, where workers write the reports

    if report_viewer == "none":
        return ""
    read = {key: _read(output / scan.output(key)) for key in ("preproc", "dseg", "belief", *LESIONS)}
    flair, tissues = read["preproc"], read["dseg"]
    if flair is None or tissues is None:
        return ""
    lesions = {name: (mask, colour) for key, (name, colour) in LESIONS.items() if (mask := read[key]) is not None}
    belief = read["belief"] if report_viewer == "full" else None
    return assets.data(slices.reported(flair, tissues, lesions, belief, _contribution(output, scan, flair)))


def _contribution(output: Path, scan: Scan, flair: Volume) -> Volume | None:
    """Return what each voxel added to the prediction, on the scan's grid; None where there is no such map."""
    found, transform = _read(output / scan.output("contribution")), output / scan.output("inverse")
    if found is None or not transform.is_file():
        return None
    from bids_app.image import registration  # antspyx takes seconds to import: only where there is a prediction

    return flair.like(registration.to_scan(str(transform), found, flair))


def _read(path: Path) -> Volume | None:
    if not path.is_file():
        return None
    data, affine = formats.read_nifti(path)
    return Volume(data.astype(np.float32) if data.dtype.kind == "f" else data, affine)
