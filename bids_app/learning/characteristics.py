"""Baseline tables: groups (Table 1), training against test set (Supplementary Table 1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import chi2_contingency, ttest_ind

from bids_app.errors import BadInputError
from bids_app.learning.division import by_participant

CONTINUOUS_ABOVE = 5  # distinct numbers over which a column is continuous
MOST_LEVELS = 10  # levels over which a column of words is no characteristic but free text or an identifier
Row = tuple[object, ...]  # one of the result, in the order of its columns
_MISSING = ("", "n/a")
_COLUMNS = ("characteristic", "level", "unit", "test", "statistic", "p")
_IDENTIFIERS = ("participant", "session", "scan", "filename", "subject")


def compare(
    table: pd.DataFrame,
    groups: Sequence[str] | np.ndarray,
    columns: Sequence[str] | None = None,
    units: str | None = None,
    levels: tuple[str, str] | None = None,
) -> pd.DataFrame:
    """Compare the characteristics of two groups.

    Continuous ones as mean ± SD (ddof 1) with Student's t test (equal variances, two-sided), categorical
    ones as n (%) a level with Pearson's chi-square test, no continuity correction. Percentages and tests
    leave out missing values (nan, empty, ``n/a``), which are counted in a row of their own.

    Parameters
    ----------
    table : pandas.DataFrame, N rows
    groups : sequence of str, length N
        Exactly two values.
    columns : sequence of str, optional
        Characteristics. Default: numeric columns of more than 5 distinct values (continuous) and other
        columns of at most 10 levels, except identifiers and a copy of ``groups``.
    units : str, optional
        What a row is, ``participant`` or ``scan``; adds a column ``unit`` that says so.
    levels : (str, str), optional
        The two groups in the order of the columns. Default: order of first appearance.

    Returns
    -------
    pandas.DataFrame
        Columns ``characteristic``, ``level``, one a group, ``test``, ``statistic``, ``p``. A categorical
        characteristic has a row for each level, its test in the first. Nan where a test is undefined.

    Raises
    ------
    BadInputError
        When there are not exactly two groups, one is named like another column of the result, lengths
        differ, or a column does not exist.

    Examples
    --------
    >>> sex = pd.DataFrame({"sex": ["M"] * 44 + ["F"] * 128 + ["M"] * 12 + ["F"] * 85})
    >>> found = compare(sex, ["RRMS"] * 172 + ["NMOSD"] * 97)
    >>> found.loc[1, "RRMS"], round(found.loc[0, "p"], 3)
    ('44 (25.6 %)', np.float64(0.01))
    """
    labels, levels = _two_groups(groups, len(table), levels)
    names = list(columns) if columns is not None else _characteristics(table, [labels])
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise BadInputError(f"no column {missing[0]!r}", remedy=f"columns are {', '.join(map(str, table))}")
    rows: list[Row] = []
    for name in names:
        values = _clean(table[name])
        halves = tuple(values[labels == level] for level in levels)
        rows += _continuous(name, *halves) if _is_continuous(values) else _categorical(name, *halves)
        gone = [int(half.isna().sum()) for half in halves]
        if any(gone):
            rows.append((name, "missing", str(gone[0]), str(gone[1]), "", np.nan, np.nan))
    result = pd.DataFrame(rows, columns=["characteristic", "level", *levels, "test", "statistic", "p"])
    if units is not None:
        result.insert(2, "unit", units)
    return result


def table1(
    table: pd.DataFrame,
    participants: Sequence[str] | np.ndarray,
    groups: Sequence[str] | np.ndarray,
    columns: Sequence[str] | None = None,
    levels: tuple[str, str] | None = None,
) -> pd.DataFrame:
    """Make Table 1: the groups compared, column by column by participant or by scan.

    A column that never differs between the scans of a participant (sex, age at onset) is compared with one
    row a participant, so that no participant counts twice; a value missing from some of its scans is taken
    from the others. All other columns are compared by scan. The column ``unit`` says which.

    Parameters
    ----------
    table : pandas.DataFrame, N rows, one a scan
    participants, groups : sequence of str, length N
    columns, levels
        As in :func:`compare`.

    Raises
    ------
    BadInputError
        As :func:`compare`; and when a participant stands in two groups.
    """
    participants = np.asarray(participants)
    labels, levels = _two_groups(groups, len(table), levels)
    _, index, group_of = by_participant(labels, participants)
    names = list(columns) if columns is not None else _characteristics(table, [labels])
    parts = []
    for name in names:
        if name not in table.columns:
            raise BadInputError(f"no column {name!r}", remedy=f"columns are {', '.join(map(str, table))}")
        each = _clean(table[name]).groupby(index)
        if (each.nunique() <= 1).all():
            one = each.first().to_frame(name)  # in the order of group_of, nan where all are missing
            parts.append(compare(one, group_of, [name], "participant", levels))
        else:
            parts.append(compare(table, labels, [name], "scan", levels))
    return pd.concat(parts, ignore_index=True) if parts else compare(table, labels, [], "scan", levels)


def table_s1(
    table: pd.DataFrame,
    division_labels: Sequence[str] | np.ndarray,
    groups: Sequence[str] | np.ndarray,
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Make Supplementary Table 1: training against test scans, the group (row ``group``) first.

    Parameters
    ----------
    table : pandas.DataFrame, N rows, one a scan
    division_labels : sequence of str, length N
        ``training`` or ``test``.
    groups : sequence of str, length N
    columns
        As in :func:`compare`. The groups of the result are ``training set`` and ``test set``.
    """
    groups, parts = np.asarray(groups), np.asarray(division_labels)
    names = list(columns) if columns is not None else _characteristics(table, [groups, parts])
    names = [name for name in names if name != "group"]
    # "test" alone would name both the test set's column and that of the statistical test.
    sets = [f"{part} set" for part in parts]
    return compare(table.assign(group=groups), sets, ["group", *names], "scan", ("training set", "test set"))


def _two_groups(
    groups: Sequence[str] | np.ndarray, n_rows: int, levels: tuple[str, str] | None
) -> tuple[np.ndarray, tuple[str, str]]:
    labels = np.asarray(groups).astype(str)
    found = tuple(dict.fromkeys(labels.tolist()))
    if labels.shape != (n_rows,):
        raise BadInputError(f"{n_rows} rows need {n_rows} groups, not {labels.shape}")
    if len(found) != 2 or (levels is not None and set(levels) != set(found)):
        wanted = " and ".join(levels) if levels else "exactly two"
        raise BadInputError(f"groups are {', '.join(found) or 'none'}", remedy=f"{wanted} are needed")
    clash = set(found) & set(_COLUMNS)
    if clash:
        raise BadInputError(f"a group is called {clash.pop()!r}", remedy="rename it: a result column is too")
    return labels, levels or (found[0], found[1])


def _clean(values: pd.Series) -> pd.Series:
    """Make missing values nan, and numbers of a column that holds nothing else."""
    if pd.api.types.is_bool_dtype(values) or pd.api.types.is_numeric_dtype(values):
        return values
    words = values.astype(object).where(values.notna(), np.nan)
    words = words.mask(words.isin(_MISSING), np.nan)
    numbers = pd.to_numeric(words, errors="coerce")
    return numbers if numbers.notna().equals(words.notna()) else words.mask(words.notna(), words.astype(str))


def _is_continuous(values: pd.Series) -> bool:
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    return bool(numeric and values.nunique() > CONTINUOUS_ABOVE)


def _characteristics(table: pd.DataFrame, labels: Sequence[np.ndarray]) -> list[str]:
    """Choose the columns worth comparing: neither identifiers nor copies of one of the labels."""
    names = []
    for name in table.columns:
        values = _clean(table[name])
        identifier = str(name).lower() in _IDENTIFIERS or str(name).lower().endswith("_id")
        copied = any((values.astype(str).to_numpy() == each.astype(str)).all() for each in labels)
        described = _is_continuous(values) or 1 <= values.nunique() <= MOST_LEVELS
        if described and not identifier and not copied:
            names.append(name)
    return names


def _continuous(name: str, a: pd.Series, b: pd.Series) -> list[Row]:
    x, y = (half.dropna().to_numpy(dtype=float) for half in (a, b))
    statistic, p = np.nan, np.nan
    if min(len(x), len(y)) > 1 and (np.ptp(x) > 0 or np.ptp(y) > 0):
        statistic, p = ttest_ind(x, y, equal_var=True)
    return [(name, "", _mean_sd(x), _mean_sd(y), "Student's t", statistic, p)]


def _categorical(name: str, a: pd.Series, b: pd.Series) -> list[Row]:
    levels = sorted(pd.concat([a, b]).dropna().unique())
    counts = np.array([[(half == level).sum() for level in levels] for half in (a, b)]).reshape(2, -1)
    totals = counts.sum(axis=1)
    statistic, p = np.nan, np.nan
    if len(levels) > 1 and totals.all():
        statistic, p = chi2_contingency(counts, correction=False)[:2]
    rows = []
    for i, level in enumerate(levels):
        cells = [
            f"{n} ({100 * n / total:.1f} %)" if total else "0" for n, total in zip(counts[:, i], totals, strict=True)
        ]
        test = ("Pearson chi-square", statistic, p) if i == 0 else ("", np.nan, np.nan)
        rows.append((name, f"{level:g}" if isinstance(level, float) else str(level), *cells, *test))
    return rows


def _mean_sd(values: np.ndarray) -> str:
    """Write mean ± SD with one decimal, or as many as give the SD two digits."""
    if not values.size:
        return "n/a"
    sd = values.std(ddof=1) if len(values) > 1 else np.nan
    digits = 1 - int(np.floor(np.log10(sd))) if np.isfinite(sd) and sd > 0 else 1
    digits = min(max(digits, 1), 6)
    return f"{values.mean():.{digits}f} ± {sd:.{digits}f}" if np.isfinite(sd) else f"{values.mean():.{digits}f}"
