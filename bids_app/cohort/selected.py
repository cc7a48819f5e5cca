"""Columns of the cohort's table as the group level uses them: covariates, sites, and the time since a relapse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from bids_app.errors import BadInputError
from bids_app.files import formats
from bids_app.records.cohort import Labelled
from bids_app.records.further import Acute, Covariates, Sites

MOST_WORDS = 20  # different words of a covariate: with more it names people, not a property
LEAST_SITES, MOST_SITES = 2, 50
RELAPSE_COLUMNS = ("days_since_relapse", "time_since_relapse", "time_since_latest")
DAYS = {"day": 1.0, "d": 1.0, "week": 7.0, "month": 365.25 / 12, "year": 365.25, "a": 365.25}  # of a unit


def covariates(table: pd.DataFrame, names: Sequence[str]) -> Covariates:
    """Return columns of a cohort's table (`covariates.merge`) as covariates.

    Raises
    ------
    BadInputError
        There is no such column, it is empty or the same in all scans, or holds too many words.
    """
    names = tuple(dict.fromkeys(names))
    values, coded = np.full((len(table), len(names)), np.nan), [()] * len(names)
    for k, name in enumerate(names):
        column = _column(table, name, "--covariates")
        there = column.dropna()
        if there.nunique() < 2:
            what = "is empty" if there.empty else f"is {there.iloc[0]!r} wherever it is known"
            raise BadInputError(f"column {name!r} {what}, so it tells nothing", "--covariates", "leave it out")
        if column.dtype.kind != "f":
            words = coded[k] = tuple(sorted(set(there)))
            if len(words) > MOST_WORDS:
                what = f"column {name!r} holds {len(words)} different words, first {words[0]!r}"
                raise BadInputError(what, "--covariates", f"give numbers, or at most {MOST_WORDS} words")
            column = column.map({word: float(code) for code, word in enumerate(words)})
        values[:, k] = column.to_numpy(dtype=float)
    return Covariates(names, values, tuple(coded))


def sites(labelled: Labelled, column: str, levels: tuple[str, str]) -> Sites:
    """Return where the scans were made.

    Raises
    ------
    BadInputError
        No such column, a scan without a site, or a site whose scans are of one group only or of too few participants.
    """
    words = _column(labelled.table, column, "--site-column").map(_word)
    missing = words.index[words.isna()]
    if len(missing):
        what = f"{len(missing)} scans have no {column}, first {missing[0]}"
        raise BadInputError(what, "--site-column", "fill it in, or leave them out with --exclude")
    own = words.groupby(labelled.participants).agg(lambda each: each.value_counts(sort=True).sort_index().idxmax())
    place = own[labelled.participants].to_numpy()
    names = tuple(sorted(set(place)))
    if not LEAST_SITES <= len(names) <= MOST_SITES:
        what = f"column {column!r} names {len(names)} site(s), first {names[0]!r}"
        raise BadInputError(what, "--site-column", f"it must name {LEAST_SITES} to {MOST_SITES}")
    for name in names:
        for level, rows in zip(levels, (labelled.positive, ~labelled.positive), strict=True):
            n = len(set(labelled.participants[rows & (place == name)]))
            if n < 2:
                what = f"site {name!r} of column {column!r} has {n} participant(s) of group {level}"
                remedy = "each site needs 2 of either group: exclude its scans, or name it together with another"
                raise BadInputError(what, "--site-column", remedy)
    return Sites(column, names, np.array([names.index(each) for each in place]))


def acute(labelled: Labelled, days: float, column: str | None, levels: tuple[str, str], bids_dir: Path) -> Acute:
    """Return which scans were made at most so many days after a relapse; `Acute.stays` tells them apart.

    The column's unit is that of its name (``days_...``) or stands as ``Units`` in the data set's JSON files.

    Raises
    ------
    BadInputError
        No such column, no unit, something else than numbers, or no scan of a group that stays.
    """
    known = [name for name in RELAPSE_COLUMNS if name in labelled.table.columns]
    if column is None and not known:
        what = f"no column {' or '.join(map(repr, RELAPSE_COLUMNS))} in the sessions' tables"
        raise BadInputError(what, "--max-days-since-relapse", "name yours by --relapse-column")
    name = column or known[0]
    values = _column(labelled.table, name, "--relapse-column")
    if values.dtype.kind != "f":
        first = next(value for value in values.dropna() if pd.isna(pd.to_numeric(value, errors="coerce")))
        raise BadInputError(f"column {name!r} holds {first!r}, which is no number", "--relapse-column")
    since = values.to_numpy(dtype=float) * _days_of(name, bids_dir)
    stays = since <= days  # not where unknown
    stays &= since >= 0
    parts = {"stays": stays, "later": since > days, "unknown": ~stays & ~(since > days)}
    counts = {
        part: {
            level: (int((rows & group).sum()), len(set(labelled.participants[rows & group])))
            for level, group in zip(levels, (labelled.positive, ~labelled.positive), strict=True)
        }
        for part, rows in parts.items()
    }
    for level, (n, _) in counts["stays"].items():
        if not n:
            what = f"no scan of group {level} was made within {days:g} days of a relapse, by column {name!r}"
            raise BadInputError(what, "--max-days-since-relapse", "allow more days, or fill the column in")
    return Acute(name, days, counts, stays, since)


def divided(labelled: Labelled, found: Acute) -> tuple[Labelled, Labelled]:
    """Return the scans that stay, with those that go named among the left out, and those that go."""
    names = [scan.name for scan in labelled.scans]
    gone = [
        (names[k], f"{found.since[k]:.0f} days since a relapse, more than {found.days:g}" if found.since[k] > found.days
         else f"time since a relapse unknown ({found.column})")
        for k in np.flatnonzero(~found.stays)
    ]  # fmt: skip
    return _taken(labelled, found.stays).without(gone), _taken(labelled, ~found.stays)


def of_group(labelled: Labelled, *, positive: bool) -> Labelled:
    """Return the scans of one of the two groups."""
    return _taken(labelled, labelled.positive == positive)


def _taken(labelled: Labelled, rows: np.ndarray) -> Labelled:
    scans = tuple(scan for scan, taken in zip(labelled.scans, rows, strict=True) if taken)
    own, positive = labelled.participants[rows], labelled.positive[rows]
    return replace(labelled, scans=scans, participants=own, positive=positive, table=labelled.table[rows])


def _column(table: pd.DataFrame, name: str, option: str) -> pd.Series:
    if name not in table.columns:
        there = ", ".join(map(str, table.columns)) or "none"
        raise BadInputError(f"no column {name!r} in the data set's tables", option, f"there are: {there}")
    return table[name]


def _word(value: object) -> str | None:
    """Return a site's name as a word: some sites are numbers."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    return f"{value:g}" if isinstance(value, float) else str(value)


def _days_of(column: str, bids_dir: Path) -> float:
    """Return the days of the column's unit."""
    if column.startswith("days_") or column.endswith("_days"):
        return 1.0
    for path in (bids_dir / "sessions.json", bids_dir / "participants.json",
                 *sorted(bids_dir.glob("sub-*/sub-*_sessions.json"))[:1]):  # fmt: skip
        about = formats.read_json(path).get(column) if path.exists() else None
        unit = about.get("Units") if isinstance(about, dict) else None
        if unit is not None:
            days = DAYS.get(str(unit).lower()) or DAYS.get(str(unit).lower().removesuffix("s"))
            if days is None:
                raise BadInputError(f"column {column!r} is in {unit!r}", path, "use day, week, month or year")
            return days
    what = f"the unit of column {column!r} is not told"
    raise BadInputError(what, bids_dir / "sessions.json", "add its Units: day, week, month or year")
