"""Rows of a data set's tables by participant and session, and the covariates of scans merged from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bids_app.bids.names import APP, Scan, parse_name
from bids_app.errors import BadInputError, BidsAppError, MissingInputError
from bids_app.files import formats

NO_COVARIATES = ("rater_decisions", "quality")  # phenotype tables that describe no participant
MISSING = ("nan", "NaN", "NA", "N/A")  # beside the standard's n/a, what other programs write

Key = tuple[str, str | None]  # participant and session, with prefixes; None: all sessions
Rows = dict[Key, dict[str, str | None]]


def identifiers(name: str) -> dict[str, str]:
    """Return participant, and session and run where there are, of a scan's name.

    >>> identifiers("sub-01_ses-1_acq-ax")
    {'participant_id': 'sub-01', 'session_id': 'ses-1'}
    """
    entities = parse_name(f"{name}_FLAIR.nii.gz")[0]
    columns = {"sub": "participant_id", "ses": "session_id", "run": "run_id"}
    return {column: f"{key}-{entities[key]}" for key, column in columns.items() if key in entities}


def key_of(scan: Scan) -> Key:
    """Return a scan's participant and session."""
    return scan.participant, identifiers(scan.name).get("session_id")


def prefixed(value: object, prefix: str) -> str | None:
    """Return an identifier with its prefix, whether it came with it or not; None where it is missing.

    >>> prefixed("01", "sub"), prefixed("sub-01", "sub")
    ('sub-01', 'sub-01')
    """
    if not isinstance(value, str) or not value.strip() or value.strip() in MISSING:
        return None
    return value.strip() if value.strip().startswith(f"{prefix}-") else f"{prefix}-{value.strip()}"


def read_rows(path: Path, *, participant: str | None = None, by_session: bool = True) -> tuple[Rows, list[str]]:
    """Return the cells of a table by participant and session, and warnings.

    Parameters
    ----------
    participant : str, optional
        Whose table it is (sessions.tsv); default: column ``participant_id``.
    by_session : bool
        False where a participant has one row whatever ``session_id`` says (participants.tsv).

    Raises
    ------
    MissingInputError
        No such file.
    BadInputError
        Not a table with these columns, or two rows of one key contradict each other.
    """
    table = formats.read_tsv(path, required=("session_id",) if participant else ("participant_id",))
    rows: Rows = {}
    warnings = []
    nobody = 0
    for record in table.to_dict("records"):
        named = prefixed(record.pop("participant_id", None), "sub")
        who = participant or named
        session = prefixed(record.pop("session_id", None), "ses") if by_session else None
        if who is None or (participant and session is None):
            nobody += 1
            continue
        cells = {str(column): _cell(value) for column, value in record.items()}
        name = f"{who}_{session}" if session else who
        if (who, session) in rows:
            if rows[who, session] != cells:
                raise BadInputError(f"{name} has rows that contradict each other", path, "keep the right one")
            warnings.append(f"{path}: {name} is given more than once, each time alike")
        rows[who, session] = cells
    if nobody:
        warnings.append(f"{path}: {nobody} rows name no participant or session and are not used")
    return rows, warnings


def participants(bids_dir: Path) -> tuple[Rows, list[str]]:
    """Return the rows of participants.tsv, and warnings."""
    path = bids_dir / "participants.tsv"
    if not path.exists():
        raise MissingInputError("no such file", path, "it says the group of each participant")
    return read_rows(path, by_session=False)


def sessions(bids_dir: Path) -> tuple[Rows, list[str]]:
    """Return the rows of all ``sub-*/sub-*_sessions.tsv``, and warnings."""
    rows: Rows = {}
    warnings: list[str] = []
    for path in sorted(bids_dir.glob("sub-*/sub-*_sessions.tsv")):
        more, said = read_rows(path, participant=path.parent.name)
        rows |= more
        warnings += said
    return rows, warnings


def columns_of(*tables: Rows) -> list[str]:
    """Return the columns of tables in order of first appearance."""
    return list(dict.fromkeys(column for rows in tables for cells in rows.values() for column in cells))


def merge(
    scans: Sequence[Scan], people: Rows, visits: Rows, phenotype: Path, without: str
) -> tuple[pd.DataFrame, list[str]]:
    """Return the covariates of scans, index = their names, and warnings.

    A session's value wins over the participant's. A column of ``phenotype/*.tsv`` that is there already is
    called ``<table>_<column>``; tables of this program and of ratings are left aside, and those with
    contradicting rows are not used. Columns that hold nothing but finite numbers become numbers.

    Parameters
    ----------
    phenotype : Path
        Folder; need not exist.
    without : str
        Column that is left out: the group, which is no covariate.
    """
    merged, warnings = _merged(scans, people, visits, phenotype)
    table = pd.DataFrame(merged, index=pd.Index([scan.name for scan in scans], name="scan"))
    return table.drop(columns=without, errors="ignore").apply(_numbers), warnings


def cells(scans: Sequence[Scan], bids_dir: Path, names: Sequence[str]) -> list[dict[str, str | None]]:
    """Return the cells of some columns, a mapping a scan, as `merge` has them before any becomes a number.

    Raises
    ------
    MissingInputError
        No participants.tsv.
    BadInputError
        There is no such column, or as `read_rows`.
    """
    rows, _ = _merged(scans, participants(bids_dir)[0], sessions(bids_dir)[0], bids_dir / "phenotype")
    there = {column for row in rows for column in row}
    for name in names:
        if name not in there:
            what = f"no column {name!r} in the tables of the data set, which the model looks at"
            raise BadInputError(what, bids_dir / "participants.tsv", "add it, n/a where it is unknown")
    return [{name: row.get(name) for name in names} for row in rows]


def _merged(
    scans: Sequence[Scan], people: Rows, visits: Rows, phenotype: Path
) -> tuple[list[dict[str, str | None]], list[str]]:
    """Return the cells of all columns, a mapping a scan, and warnings."""
    merged: list[dict[str, str | None]] = []
    for scan in scans:
        row = dict(people.get((scan.participant, None), {}))
        row |= {c: v for c, v in visits.get(key_of(scan), {}).items() if v is not None or c not in row}
        merged.append(row)
    taken = set(columns_of(people, visits))
    warnings = []
    for path in sorted(phenotype.glob("*.tsv")):
        if path.stem in NO_COVARIATES or path.stem.startswith(f"{APP}_"):
            continue
        try:
            rows, said = read_rows(path)
        except BidsAppError as error:
            warnings.append(f"{error}; the table is not used")
            continue
        warnings += said
        names = {column: f"{path.stem}_{column}" if column in taken else column for column in columns_of(rows)}
        taken |= set(names.values())
        for scan, row in zip(scans, merged, strict=True):
            own = rows.get((scan.participant, None), {}) | rows.get(key_of(scan), {})
            row |= {names[column]: value for column, value in own.items()}
    return merged, warnings


def _cell(value: object) -> str | None:
    text = value.strip() if isinstance(value, str) else ""
    return None if not text or text in MISSING else text


def _numbers(values: pd.Series) -> pd.Series:
    """Return a column as floats where every value that is there is a finite number, else as it is."""
    numbers = pd.to_numeric(values, errors="coerce").astype(float)
    return numbers if np.array_equal(np.isfinite(numbers), values.notna()) else values
