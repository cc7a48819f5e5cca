"""The page of the whole data set, from what all runs on one output have finished."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from bids_app import __version__
from bids_app.bids.names import Scan, group_output, set_output
from bids_app.cohort import labels
from bids_app.errors import BidsAppError
from bids_app.files import atomic, formats
from bids_app.participant import marks
from bids_app.participant.lesion_table import TABLE
from bids_app.records.scan import Failure, Volume
from bids_app.report import index_page

log = logging.getLogger("bids_app")
PAGE = set_output("index")
GLANCE = "glance"  # the small picture of a scan


def write(output: Path, bids_dir: Path) -> Path | None:
    """Write ``index.html`` of all finished scans and return its path; nothing where no scan is finished."""
    with atomic.locked(output / "logs" / "index.lock"):
        table = output / TABLE
        failures = failed(output)
        if not table.exists() and not failures:
            return None
        finished = formats.read_tsv(table, required=("participant_id", "scan")) if table.exists() else pd.DataFrame()
        rejected, outcomes = _rejected(bids_dir, output), _outcomes(output)
        records = zip(_scans(finished), finished.to_dict("records"), strict=True)
        rows = [_row(output, scan, record, rejected, outcomes) for scan, record in records if scan]
        there = (output / group_output("report")).is_file()
        formats.write_text(output / PAGE, index_page.page(rows, failures, group_report=there, version=__version__))
    return output / PAGE


def _scans(finished: pd.DataFrame) -> list[Scan | None]:
    """Return the scan of each row; None, and a word in the log, where somebody wrote what is no scan."""
    found: list[Scan | None] = []
    for name in finished.get("scan", ()):
        try:
            found.append(Scan.named(str(name)))
        except BidsAppError:
            log.warning("%s: %s is no scan; it is not on the page of all scans", TABLE, name)
            found.append(None)
    return found


def write_picture(output: Path, scan: Scan) -> None:
    """Write a scan's small picture from its maps in template space, if they are there."""
    from bids_app.drawing import slices  # 30 MB: not in the command, where workers write the reports

    paths = [output / scan.output(key) for key in ("belief_mni", "lesion_mni")]
    if all(path.is_file() for path in paths):
        belief, lesion = (Volume(*formats.read_nifti(path)) for path in paths)
        formats.write_bytes(output / scan.figure(GLANCE), slices.glance(belief, lesion))


def failed(output: Path) -> list[Failure]:
    """Return the scans that failed in their latest run and are not finished, by name."""
    lines: dict[Scan, str] = {}
    for path in sorted((output / "logs").glob("*/failures.json")):  # folders are named by time
        try:
            lines |= {Scan.named(name): str(line) for name, line in formats.read_json(path).items()}
        except BidsAppError as error:
            log.warning("%s; its failures are not on the page of all scans", error)
    failures = [Failure(scan, lines[scan]) for scan in sorted(lines, key=lambda scan: scan.name)]
    return [each for each in failures if not marks.mark_path(output, each.scan.name).is_file()]


def _row(
    output: Path,
    scan: Scan,
    record: Mapping[str, object],
    rejected: set[tuple[str, str | None]],
    outcomes: Mapping[str, str],
) -> index_page.Row:
    values = {name: _value(record.get(name)) for name in index_page.NUMBERS}
    flags, picture = record.get("flags"), output / scan.figure(GLANCE)
    return index_page.Row(
        participant=scan.participant,
        session=scan.session or "",
        scan=scan.name,
        measures={key: value for key, value in values.items() if value is not None},
        flags=tuple(flags.split(",")) if isinstance(flags, str) else (),
        picture=picture.read_bytes() if picture.is_file() else b"",
        outcome=outcomes.get(scan.name, ""),
        left_out=bool({(scan.participant, scan.session), (scan.participant, None)} & rejected),
    )


def _value(cell: object) -> float | None:
    try:
        value = float(str(cell))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _rejected(*folders: Path) -> set[tuple[str, str | None]]:
    """Return the participants and sessions that a quality.tsv rejects; a table that cannot be read is the group's."""
    found: set[tuple[str, str | None]] = set()
    for folder in folders:
        path = folder / "phenotype" / "quality.tsv"
        try:
            found |= {key for key, _ in labels.rejections(path)} if path.exists() else set()
        except BidsAppError as error:
            log.warning("%s; the page of all scans does not show its marks", error)
    return found


def _outcomes(output: Path) -> dict[str, str]:
    """Return the prediction of each scan in words, where a model was used."""
    if not (output / "phenotype").is_dir():
        return {}
    from bids_app.model import prediction  # scikit-learn takes seconds to import: only where it is needed

    return {str(row["scan"]): str(row["prediction"]) for row in prediction.read(output)}
