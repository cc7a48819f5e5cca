"""The text of a BIDS table: between a data frame and tab-separated lines, and strict about what is no table."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable
from io import StringIO
from typing import Any

import numpy as np
import pandas as pd

MISSING = ("n/a", "")


def render(table: pd.DataFrame) -> str:
    """Return a table as text: missing values ``n/a``, floats with 10 significant digits, no quotes.

    Tabs and line ends inside a cell become blanks, since TSV has no way to write them. Nothing else is changed,
    and so a cell may begin with ``=``: tables are data, and a spreadsheet must import such columns as text.
    """
    # cell by cell: rows kept from an earlier run are text, which pandas' float_format would leave out with its column
    shown = table.map(_cell).rename(columns=_cell)
    text: str = shown.to_csv(
        sep="\t", index=False, na_rep=MISSING[0], lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None
    )
    return text


def _cell(value: Any) -> Any:
    if isinstance(value, float) and not np.isnan(value):
        return f"{value:.10g}"
    return re.sub(r"[\t\r\n]", " ", value) if isinstance(value, str) else value


def parse(text: str) -> pd.DataFrame:
    """Return the table in a text: every cell a string, or missing where it is ``n/a`` or empty.

    Raises
    ------
    ValueError
        NUL characters, no line, a column twice, or a line with more or fewer cells than the first.
    """
    if "\0" in text:
        raise ValueError("it holds NUL bytes")
    # pandas would take the first column for an index where lines are one cell longer than the header
    head, *lines = re.split(r"\r\n|\r|\n", text.lstrip("\r\n"))
    names = head.split("\t")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"column {some(map(repr, twice))} comes twice")
    for number, line in enumerate(lines, start=2):
        width = line.count("\t") + 1
        if width != len(names) and line.strip(" "):
            raise ValueError(f"line {number} has {width} cells, the first line {len(names)}")
    table: pd.DataFrame = pd.read_csv(
        StringIO(text),
        sep="\t",
        dtype=str,
        index_col=False,
        keep_default_na=False,
        na_values=list(MISSING),
        quoting=csv.QUOTE_NONE,
    )
    return table


def some(names: Iterable[object]) -> str:
    """Return the first ten of some names, each to 40 characters, and how many more there are."""
    words = [str(name) for name in names]
    return ", ".join(word[:40] for word in words[:10]) + (f" and {len(words) - 10} more" if len(words) > 10 else "")
