"""The rating page: blinded scans in the order of the sheet, and what a human rater answers.

One file that is opened from disk, with the scans inside; where they are too many for one, several numbered pages. It
holds the sheet's codes, the covariates that raters may see, and pixels: no name, group, date or path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pandas as pd
from markupsafe import Markup

from bids_app.report import assets
from bids_app.report.page import DISCLAIMER, environment

LIMIT = 100_000_000  # bytes of a page: some 70 clinical scans, an hour or two of reading
TAKEN = "zfkt"  # keys that the page uses itself
LABELS = {
    "age": "Age at imaging",
    "age_at_onset": "Age at onset",
    "sex": "Sex",
    "disease_duration": "Disease duration",
    "time_since_first": "Since first episode",
    "time_since_latest": "Since latest episode",
}
NAME = "rating"
SCRIPTS = (*assets.VIEWER, "rating.js")
STYLES = ("theme.css", "viewer.css", "rating.css")


@dataclass(frozen=True)
class RatingPage:
    """One finished page: its file name without ``.html``, and content."""

    name: str
    html: str


def digest(sheet: pd.DataFrame) -> str:
    """Return what tells one sheet from another, 16 hexadecimal digits; raters' answers are kept under it."""
    return sha256(sheet.drop(columns="decision").to_csv(index=False).encode()).hexdigest()[:16]


def keys(levels: Sequence[str]) -> list[str]:
    """Return a key for each level: its first letter that is free, else any letter.

    >>> keys(["RRMS", "NMOSD"]), keys(["type A", "type B"])
    (['r', 'n'], ['y', 'p'])
    """
    chosen: list[str] = []
    for level in levels:
        letters = [letter for letter in (*level.lower(), *"abcdefghij") if letter.isascii() and letter.isalpha()]
        chosen.append(next(letter for letter in letters if letter not in (*TAKEN, *chosen)))
    return chosen


def pages(
    sheet: pd.DataFrame,
    scans: Iterable[Mapping[str, Any]],
    levels: tuple[str, str],
    units: Mapping[str, str] | None = None,
    limit: int = LIMIT,
) -> Iterator[RatingPage]:
    """Yield the pages, each below ``limit`` bytes unless a single scan is larger: ``rating.html``, or numbered.

    Parameters
    ----------
    sheet : pandas.DataFrame, one row a reading
        As `ratings.write_sheet` wrote it and `formats.read_tsv` reads it.
    scans : iterable of mapping
        `slices.blinded` of every row, in order; taken one after the other.
    levels : (str, str)
        Positive and negative group.
    units : mapping of str to str, optional
        Units of covariates, by the sheet's column.
    limit : int

    Examples
    --------
    >>> sheet = pd.DataFrame({"reading": ["1"], "code": ["R000001"], "sex": ["F"], "decision": [None]})
    >>> [page.name for page in pages(sheet, [{"layers": []}], ("RRMS", "NMOSD"))]
    ['rating']
    """
    gathered: list[str] = []
    first, number, size = 0, 1, 0
    for row, scan in enumerate(scans):
        written = assets.data(scan)
        if gathered and size + len(written) > limit:
            yield _page(sheet, gathered, first, levels, units or {}, number, following=True)
            gathered, first, number, size = [], row, number + 1, 0
        gathered.append(written)
        size += len(written)
    yield _page(sheet, gathered, first, levels, units or {}, number, following=False)


def _page(
    sheet: pd.DataFrame,
    scans: Sequence[str],
    first: int,
    levels: tuple[str, str],
    units: Mapping[str, str],
    number: int,
    *,
    following: bool,
) -> RatingPage:
    split = following or number > 1
    table = sheet.drop(columns="decision")
    rows = table.iloc[first : first + len(scans)].to_dict("records")
    readings = [{"reading": str(row["reading"]), "code": str(row["code"]), "shown": shown(row, units)} for row in rows]
    named = [{"name": level, "key": key} for level, key in zip(levels, keys(levels), strict=True)]
    content = {
        "digest": digest(sheet),
        "levels": named,
        "readings": readings,
        "columns": list(table.columns),
        "code": list(table.columns).index("code"),
        "rows": [["n/a" if pd.isna(value) else str(value) for value in row] for row in table.to_numpy(object)],
        "part": f"_{number}" if split else "",
    }
    code = assets.joined(SCRIPTS)
    head = environment().get_template("rating.html.j2").render(
        policy=assets.policy(code),
        style=Markup(assets.joined(STYLES)),
        disclaimer=DISCLAIMER,
        levels=named,
        readings=readings,
        part_words=f", page {number}" if split else "",
        following=f"{NAME}-{number + 1}.html" if following else "",
        sheet=Markup(assets.data(content)),
    )  # fmt: skip
    blocks = [assets.block(f"scan-{i}", scan) for i, scan in enumerate(scans)]
    name = f"{NAME}-{number}" if split else NAME
    return RatingPage(name, "".join([head, *blocks, assets.script(code), "</body>\n</html>\n"]))


def shown(row: Mapping[str, Any], units: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return what is known of a patient, as published, in words.

    >>> shown({"code": "R1", "age": "43.25", "sex": None}, {"age": "year"})
    [('Age at imaging', '43.2 years')]
    """
    return [
        (label, _value(row[column], units.get(column, "")))
        for column, label in LABELS.items()
        if column in row and not pd.isna(row[column])
    ]


def _value(value: object, unit: str) -> str:
    """Return a number with one decimal at most, and its unit; other words as they are."""
    try:
        number = float(str(value))
    except ValueError:
        return str(value)
    unit = unit.lower().rstrip("s")
    plural = f" {unit}{'s' if unit in ('year', 'month', 'week', 'day') else ''}" if unit else ""
    return f"{number:.1f}".removesuffix(".0") + plural
