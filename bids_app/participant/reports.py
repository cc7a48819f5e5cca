"""One participant's report: from the derivatives on disk to the page."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
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

PAGE_MB = 100  # of one page, figures and viewers together: browsers open that in seconds
FRAME = 100_000  # bytes that a page with viewers has beside them: scripts, styles, headings
LESSER = {"full": ("full", "light"), "light": ("light",), "none": ()}  # what is tried, by what was asked for


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
    sections = [report.Section(summary, _images(task.output, summary)) for summary in task.summaries]
    bare = len(_page(task, sections, ""))
    views, note = fitting(task, int(1e6 * PAGE_MB) - bare - FRAME)
    shown = [replace(section, view=views.get(section.summary.scan.name, "")) for section in sections]
    page = _page(task, shown, note)
    path = task.output / set_output("report", participant=task.participant)
    formats.write_text(path, page)
    return path


def _page(task: Task, sections: Sequence[report.Section], note: str) -> str:
    return report.participant_page(
        task.participant, sections, task.failures, task.method_html, __version__, task.predictions, note
    )


def fitting(task: Task, room: int) -> tuple[dict[str, str], str]:
    """Return the viewers' data by scan that fit into ``room`` bytes, and the sentence that says what was left out.

    Belief maps go first; then the viewers of the scans that are last on the page.
    """
    views: dict[str, str] = {}
    left = 0
    for choice in LESSER[task.report_viewer]:
        views, left = _views(task, choice, room)
        if not left:
            return views, "" if choice == task.report_viewer else _told("the belief maps in the viewers")
    return views, _told(f"the viewers of {left} of {len(task.summaries)} scans") if left else ""


def _views(task: Task, choice: str, room: int) -> tuple[dict[str, str], int]:
    """Return the data of the first viewers that fit, and for how many scans none was made."""
    views: dict[str, str] = {}
    for done, summary in enumerate(task.summaries):
        view = view_of(task.output, summary.scan, choice)
        room -= len(view)
        if room < 0:
            return views, len(task.summaries) - done
        if view:
            views[summary.scan.name] = view
    return views, 0


def _told(what: str) -> str:
    return (
        f"A page holds up to {PAGE_MB} MB, so {what} were left out here. The maps themselves are complete: open the "
        "NIfTI files in the anat folders in any viewer of images."
    )


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
