"""The page of the whole data set: every scan as a row, the failures, and marks of scans to leave out."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bids_app.records.scan import Failure
from bids_app.report import assets
from bids_app.report.page import DISCLAIMER, environment

SCRIPT = ("index.js",)
NUMBERS = {  # columns of participants_lesions.tsv that are shown, with their heading and digits
    "lesion_volume_ml": ("Published, ml", 2),
    "lesion_count": ("Published lesions", 0),
    "normative_volume_ml": ("Normative, ml", 2),
    "network_volume_ml": ("Network, ml", 2),
    "network_count": ("Network lesions", 0),
    "brain_volume_ml": ("Brain, ml", 0),
}


@dataclass(frozen=True)
class Row:
    """One finished scan.

    ``measures`` holds what there is of `NUMBERS`, ``picture`` a small PNG, ``outcome`` a prediction in words, and
    ``left_out`` says that the data set's quality.tsv rejects it already.
    """

    participant: str
    session: str
    scan: str
    measures: Mapping[str, float]
    flags: tuple[str, ...]
    picture: bytes = b""
    outcome: str = ""
    left_out: bool = False


def page(rows: Sequence[Row], failures: Sequence[Failure], *, group_report: bool, version: str) -> str:
    """Return ``index.html``: self-contained, everything from the data set escaped.

    Parameters
    ----------
    rows : sequence of Row
    failures : sequence of Failure
        Scans that are not finished, with the line that says why.
    group_report : bool
        Whether ``group.html`` lies beside the page.
    version : str
    """
    shown = [name for name in NUMBERS if any(name in row.measures for row in rows)]
    scans = [
        {
            "row": row,
            "numbers": [_number(row.measures.get(name), NUMBERS[name][1]) for name in shown],
            "picture": b64encode(row.picture).decode(),
            "lesion_free": row.measures.get("lesion_count") == 0,
        }
        for row in rows
    ]
    flags = sorted({flag for row in rows for flag in row.flags})
    return environment().get_template("index.html.j2").render(
        scans=scans,
        headings=[NUMBERS[name][0] for name in shown],
        failures=failures,
        flags=flags,
        flagged=sum(bool(row.flags) for row in rows),
        outcomes=any(row.outcome for row in rows),
        participants=len({row.participant for row in rows}),
        group_report=group_report,
        disclaimer=DISCLAIMER,
        version=version,
        script=assets.joined(SCRIPT),
    )  # fmt: skip


def _number(value: float | None, digits: int) -> tuple[str, str]:
    """Return a number for sorting and for reading; nothing where there is none."""
    return ("", "–") if value is None else (f"{value:.10g}", f"{value:,.{digits}f}")
