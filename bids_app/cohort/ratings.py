"""Human raters: a blinded sheet of the test scans, the filled sheet read back, and decisions read for Table 2."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bids_app.bids.names import group_output
from bids_app.cohort.covariates import identifiers, prefixed
from bids_app.errors import BadInputError
from bids_app.files import formats

SHOWN = ("age", "age_at_onset", "sex", "disease_duration", "time_since_first", "time_since_latest")
IDENTIFIERS = {"participant_id": "sub", "session_id": "ses", "run_id": "run"}  # column and prefix
REPEAT = "_repeat"
_KEY = "use the key that was written with the sheet"
FORMULA = ("=", "+", "-", "@")  # how a formula may begin
TWICE = 0.10  # share of the scans that is read twice, as published
DETAILS = ("sureness", "seconds", "note")  # what a rating page tells of a reading beside the decision
ONE_RATER = "rater"  # name of the only rater, who has the column ``decision``


def read_decisions(
    path: Path, scans: Sequence[str], levels: tuple[str, str]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return first and second reads of scans by rater: 1 positive, 0 negative, nan not read.

    The table has one row a scan: ``participant_id``, where needed ``session_id``, ``run_id`` and ``scan``,
    and for every rater a column, and another that ends in ``_repeat`` for second reads. Rows of scans that
    are not among ``scans`` are passed over.

    Parameters
    ----------
    scans : sequence of str
        N names.
    levels : (str, str)
        Positive and negative group; upper and lower case are alike.

    Returns
    -------
    raters, repeats : dict of str to ndarray of float, shape (N,)
        Both empty where no row is of one of the scans.

    Raises
    ------
    MissingInputError
        No such file.
    BadInputError
        A value is no level, a row fits several scans or a scan several rows.
    """
    table = formats.read_tsv(path, required=("participant_id",))
    columns = [str(name) for name in table.columns if name not in (*IDENTIFIERS, "scan")]
    if not columns:
        raise BadInputError("no column of a rater", path, "add one a rater beside participant_id and session_id")
    values = {name: np.full(len(scans), np.nan) for name in columns}
    seen: set[int] = set()
    known: dict[str, list[tuple[int, dict[str, str]]]] = {}  # row and identifiers by participant
    for row, name in enumerate(scans):
        known.setdefault(name.partition("_")[0], []).append((row, {"scan": name, **identifiers(name)}))
    for line, record in enumerate(table.to_dict("records"), start=2):
        rows = _rows_of(record, known)
        if len(rows) > 1:
            named = ", ".join(scans[row] for row in rows[:3])
            raise BadInputError(f"line {line} fits several scans ({named})", path, "add session_id, run_id or scan")
        if seen & set(rows):
            raise BadInputError(f"line {line}: {scans[rows[0]]} has a row already", path, "one row a scan")
        seen |= set(rows)
        for name in columns:
            read = _read(record[name], levels, f"line {line} (column {name!r})", path)
            if rows:
                values[name][rows[0]] = read
    if not seen:
        return {}, {}
    repeats = {name.removesuffix(REPEAT): reads for name, reads in values.items() if name.endswith(REPEAT)}
    return {name: reads for name, reads in values.items() if not name.endswith(REPEAT)}, repeats


def write_sheet(
    scans: Sequence[str], table: pd.DataFrame, rows: Sequence[int] | np.ndarray, folder: Path, seed: int
) -> tuple[Path, Path]:
    """Write ``rating_sheet.tsv`` for the raters and, apart, ``key/rating_key.tsv``; return both paths.

    The sheet has one reading a row in random order, a random tenth of the scans (at least one) twice under
    another code, and an empty column ``decision`` to fill with a group's name; for several raters give it one
    column ``decision_<rater>`` each. It holds neither names nor groups.

    Parameters
    ----------
    scans : sequence of str
        N names.
    table : pandas.DataFrame, N rows
        Covariates; those of age, sex and disease duration are shown.
    rows : sequence of int
        The scans to read.
    seed : int

    Raises
    ------
    BadInputError
        No scans to read.
    """
    chosen = np.asarray(rows, dtype=int)
    if not chosen.size:
        raise BadInputError("no scans to read", folder)
    rng = np.random.default_rng(seed)
    twice = rng.choice(chosen, max(1, int(TWICE * len(chosen) + 0.5)), replace=False)
    order = rng.permutation(np.concatenate([chosen, twice]))
    # codes say nothing: drawn without replacement, unrelated to the order
    codes = [f"R{number:06d}" for number in rng.choice(10**6, len(order), replace=False)]
    sheet = pd.DataFrame({"reading": np.arange(1, len(order) + 1), "code": codes})
    for name, column in shown(table.columns).items():
        sheet[name] = [_shielded(value) for value in table[column].to_numpy()[order]]
    sheet["decision"] = None
    key = pd.DataFrame([identifiers(scans[row]) for row in order])
    key.insert(0, "code", codes)
    key.insert(1, "scan", [scans[row] for row in order])
    key["read"] = np.where(pd.Series(order).duplicated(), "repeat", "first")
    sheet_name, key_name = (Path(group_output(name)) for name in ("rating_sheet", "rating_key"))
    sheet_path, key_path = folder / sheet_name.name, folder / key_name.relative_to(sheet_name.parent)
    formats.write_tsv(sheet_path, sheet)
    formats.write_tsv(key_path, key)
    return sheet_path, key_path


def read_sheets(filled: Sequence[Path], key: Path, levels: tuple[str, str]) -> pd.DataFrame:
    """Return filled sheets as rows of ``phenotype/rater_decisions.tsv``, one a scan.

    Parameters
    ----------
    filled : sequence of Path
        Sheets, each with ``decision_<rater>`` for every rater, or ``decision`` for the only one. What one rater
        filled in may stand in several sheets: empty cells are filled from the others.
    key : Path
        ``rating_key.tsv``.
    levels : (str, str)

    Returns
    -------
    pandas.DataFrame
        ``participant_id``, ``session_id``, (``run_id``, ``scan`` where these do not tell scans apart,) and
        ``<rater>``, ``<rater>_repeat`` of level names, None where not read.

    Raises
    ------
    MissingInputError
        No such file.
    BadInputError
        Codes of sheet and key differ or come twice, the key is not one that was written, a decision is no level,
        there is no such column, or two sheets disagree on what a rater decided.
    """
    keys = _read_key(key)
    reads: dict[str, pd.Series] = {}
    for path in filled:
        for rater, said in _decisions(path, keys, levels).items():
            known = reads.get(rater, said)
            differing = known.notna() & said.notna() & (known != said)
            if differing.any():
                code = differing.index[differing][0]
                raise BadInputError(f"rater {rater} decided otherwise on {code} in another sheet", path, "keep one")
            reads[rater] = known.where(known.notna(), said)
    merged = keys.join(pd.DataFrame(reads), on="code")
    first, again = (merged[merged["read"] == read].set_index("scan") for read in ("first", "repeat"))
    names = sorted(first.index)
    result = _identified(names)
    for rater in reads:
        result[rater] = first[rater].reindex(names).to_numpy()
        result[f"{rater}{REPEAT}"] = again[rater].reindex(names).to_numpy()
    return result.astype(object).where(result.notna(), None)


def read_details(filled: Sequence[Path], key: Path) -> pd.DataFrame:
    """Return every reading of filled sheets that tell more than the decision, as the rating page's do.

    Returns
    -------
    pandas.DataFrame
        ``scan``, ``read`` (first or repeat), ``rater``, ``decision``, and what there is of `DETAILS`; rows of
        readings without a decision are left out.
    """
    keys, parts = _read_key(key), []
    for path in filled:
        filled_in = formats.read_tsv(path, required=("code",)).drop(columns=["scan", "read"], errors="ignore")
        sheet = keys.merge(filled_in, on="code")
        for column in map(str, sheet.columns):
            more = {name: f"{name}_{_rater(column)}" for name in DETAILS if f"{name}_{_rater(column)}" in sheet}
            if _rater(column) and more:
                part = sheet[["scan", "read"]].assign(rater=_rater(column), decision=sheet[column])
                parts.append(part.assign(**{name: sheet[found] for name, found in more.items()}))
    if not parts:
        return pd.DataFrame()
    table = pd.concat(parts).dropna(subset="decision").drop_duplicates()
    return table.sort_values(["rater", "scan", "read"], ignore_index=True)


def _read_key(key: Path) -> pd.DataFrame:
    keys = formats.read_tsv(key, required=("code", "scan", "read"))[["code", "scan", "read"]]
    if keys.isna().any(axis=None) or not set(keys["read"]) <= {"first", "repeat"}:
        raise BadInputError("a row lacks code, scan or read, or read is neither first nor repeat", key, _KEY)
    if keys["code"].duplicated().any() or keys.duplicated(["scan", "read"]).any():
        raise BadInputError("a code, or a reading of a scan, comes twice", key, _KEY)
    return keys


def _decisions(path: Path, keys: pd.DataFrame, levels: tuple[str, str]) -> dict[str, pd.Series]:
    """Return one filled sheet's decisions by rater, level names by code, None where not read."""
    sheet = formats.read_tsv(path, required=("code",))
    for what, names in (
        ("are not in the key", sorted(set(sheet["code"].dropna()) - set(keys["code"]))),
        ("are missing", sorted(set(keys["code"]) - set(sheet["code"].dropna()))),
        ("come twice", sorted(set(sheet.loc[sheet["code"].duplicated(), "code"].dropna()))),
    ):
        if names:
            raise BadInputError(f"codes {', '.join(names[:5])} {what}", path, "fill in the sheet that was written")
    columns = {_rater(name): name for name in map(str, sheet.columns) if _rater(name)}
    if not columns:
        raise BadInputError("no column decision or decision_<rater>", path, "add it")
    sheet = sheet.dropna(subset="code")
    found = {}
    for rater, column in columns.items():
        reads = [
            _read(value, levels, f"line {i} (column {column!r})", path) for i, value in enumerate(sheet[column], 2)
        ]
        named = [None if np.isnan(read) else levels[0] if read else levels[1] for read in reads]
        found[rater] = pd.Series(named, index=sheet["code"], dtype=object)
    return found


def _identified(names: Sequence[str]) -> pd.DataFrame:
    """Return the fewest columns that tell scans apart, participant and session always."""
    table = pd.DataFrame([identifiers(name) for name in names]).reindex(columns=list(IDENTIFIERS)).assign(scan=names)
    for count in (2, 3):
        if not table.iloc[:, :count].duplicated().any():
            return table.iloc[:, :count].copy()
    return table


def _rows_of(record: dict, known: Mapping[str, list[tuple[int, dict[str, str]]]]) -> list[int]:
    """Return the scans that a row's identifiers fit; what the row does not say, it does not ask."""
    wanted = {name: prefixed(record.get(name), prefix) for name, prefix in IDENTIFIERS.items()}
    if isinstance(record.get("scan"), str):
        wanted["scan"] = record["scan"].strip()
    asked = {name: value for name, value in wanted.items() if value}
    fits = known.get(asked.get("participant_id") or "", [])
    return [row for row, names in fits if asked.items() <= names.items()]


def _read(value: object, levels: tuple[str, str], place: str, path: Path) -> float:
    """Return 1 for the positive level, 0 for the negative, nan for an empty cell."""
    if not isinstance(value, str) or not value.strip():
        return np.nan
    word = value.strip()
    exact, alike = ([level == word for level in levels], [level.lower() == word.lower() for level in levels])
    for fits in (exact, alike):
        if sum(fits) == 1:
            return float(fits[0])
    raise BadInputError(f"{word!r} in {place} is neither {levels[0]} nor {levels[1]}", path, "correct it or empty it")


def _rater(column: str) -> str:
    """Return the rater of a sheet's column, or nothing."""
    return ONE_RATER if column == "decision" else column.partition("decision_")[2] if column[:9] == "decision_" else ""


def _shielded(value: object) -> object:
    """Return a cell that no spreadsheet takes for a formula: the sheet is made to be opened in one.

    Only the sheet's covariates are changed, which nobody reads back; all other tables are data and stay as they are.
    """
    return f"'{value}" if isinstance(value, str) and value.strip()[:1] in FORMULA else value


def shown(columns: Iterable[object]) -> dict[str, str]:
    """Return the columns a rater may see, by the name they are shown under.

    >>> shown(["Age", "site", "time_since_first_episode"])
    {'age': 'Age', 'time_since_first': 'time_since_first_episode'}
    """
    plain = {str(column).strip().lower().replace(" ", "_"): str(column) for column in columns}
    found = {}
    for name in SHOWN:
        fits = [column for column in plain if column == name or (name[:5] == "time_" and column.startswith(name))]
        if fits:
            found[name] = plain[fits[0]]
    return found
