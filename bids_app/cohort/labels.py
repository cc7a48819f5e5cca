"""The tables and labels of a data set as rows: which scans enter the cohort, and by name which do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bids_app.bids.names import ORDER, SPACE, Scan, parse_name, row_of
from bids_app.cohort import covariates
from bids_app.cohort.covariates import Key, Rows, identifiers, key_of
from bids_app.errors import BadInputError, MissingInputError
from bids_app.files import formats
from bids_app.records.cohort import Division, Labelled

GROUP_COLUMNS = ("diagnosis", "group")
UNITS = {"published": "scan", "leakage-free": "participant"}  # what each protocol draws
SETS = ("training", "test")
MAPS = {  # lesion maps, and the key of each in the table of outputs
    "published": "lesion_mni",
    "normative": "normative_mni",
    "network": "network_mni",
    "probability": "probability_mni",
    "external": "external_mni",
    "cleaned": "cleaned_mni",
}
VERDICTS = ("exclude", "include", "quality")  # columns of quality.tsv
_TRUE, _FALSE = ("1", "1.0", "true", "yes", "y"), ("0", "0.0", "false", "no", "n")
_GOOD = ("good", "fair", "pass", "passed", "ok", "usable", "acceptable", "include")
_BAD = ("bad", "poor", "fail", "failed", "unusable", "reject", "rejected", "exclude")


def find_maps(output_dir: Path, lesion_map: str = "published") -> list[Scan]:
    """Return every scan that has a normalised lesion map, sorted by name; `Scan.path` is the map's.

    Nothing else of the participant level need be there. Only ``sub-*/[ses-*/]anat`` is looked at.

    Parameters
    ----------
    lesion_map : a key of `MAPS`

    Raises
    ------
    MissingInputError
        No such folder, or no map in it.
    BadInputError
        A map's name is no BIDS name, or does not fit its folder.
    """
    key = MAPS[lesion_map]
    wanted, suffix = dict(row_of(key).entities), row_of(key).suffix
    scans = []
    for folder in ("sub-*/anat", "sub-*/ses-*/anat"):
        for path in output_dir.glob(f"{folder}/*_space-{SPACE}_*label-L*_{suffix}.nii.gz"):
            entities = parse_name(path.name)[0]
            added = {name: entities.pop(name) for name in ("space", "res", "label", "desc") if name in entities}
            if added != wanted:
                continue
            relative = path.relative_to(output_dir).as_posix()
            scan = Scan(tuple((name, entities[name]) for name in ORDER if name in entities), relative)
            if scan.output(key) != relative:
                raise BadInputError("name and folder do not fit", path, f"rename it to {scan.output(key)}")
            scans.append(scan)
    if not scans:
        name = Path(Scan((("sub", "X"),), "").output(key)).name.removeprefix("sub-X")
        remedy = "run the participant level first, with the same output folder"
        raise MissingInputError(f"no {lesion_map} lesion map (sub-*{name})", output_dir, remedy)
    return sorted(scans, key=lambda scan: scan.name)


@dataclass(frozen=True)
class Tables:
    """Where labels are read.

    Attributes
    ----------
    bids_dir, output_dir : Path
        Data set with participants.tsv (its participants' folders are not needed), and derivatives.
    group_column : str, optional
        Default: the first of ``diagnosis`` and ``group`` that exists.
    levels : (str, str)
        The positive and the negative group, exactly as in the tables.
    """

    bids_dir: Path
    output_dir: Path
    group_column: str | None
    levels: tuple[str, str]


def label(scans: Sequence[Scan], tables: Tables, exclude: Sequence[str] = ()) -> Labelled:
    """Return the scans of the two groups with their covariates, and what was left out, by name and reason.

    The group stands in participants.tsv, or in ``sub-*/sub-*_sessions.tsv`` (a session's own wins). Left out
    are scans without a group or of a third level; labelled participants, sessions and raw FLAIR scans that
    have no lesion map; scans in ``exclude``; and those that ``phenotype/quality.tsv``, of the data set or
    the derivatives, rejects. That table has ``participant_id``, optionally ``session_id``, and a column
    ``exclude``, ``include`` or ``quality`` of words such as 1/0, true/false, yes/no, good/poor, pass/fail;
    an empty cell rejects nothing.

    Parameters
    ----------
    scans : sequence of Scan
        Those with lesion maps (`find_maps`).
    tables : Tables
    exclude : sequence of str
        Names of scans or what they begin with: ``sub-01``, ``sub-01_ses-2``.

    Raises
    ------
    MissingInputError
        No participants.tsv.
    BadInputError
        No such column or level, contradicting rows of one participant, a word in quality.tsv that says
        neither yes nor no, or a group of which no scan is left.
    """
    people, warnings = covariates.participants(tables.bids_dir)
    visits, said = covariates.sessions(tables.bids_dir)
    where = tables.bids_dir / "participants.tsv"
    column = _group_column(tables.group_column, covariates.columns_of(people, visits), where)
    groups = {key: group for rows in (people, visits) for key, row in rows.items() if (group := row.get(column))}
    _check_levels(groups, column, tables.levels, where)
    rejected = _rejected(scans, exclude, (tables.bids_dir, tables.output_dir))
    kept, left_out = [], []
    for scan in scans:
        group = groups.get(key_of(scan)) or groups.get((scan.participant, None))
        reason = rejected.get(scan.name) or _no_group(scan, group, column, tables.levels, people)
        kept.append((scan, group == tables.levels[0])) if not reason else left_out.append((scan.name, reason))
    labelled = {key for key, group in groups.items() if group in tables.levels}
    left_out += [(name, "no lesion map") for name in _without_map(scans, labelled, tables.bids_dir)]
    flags = np.array([flag for _, flag in kept], dtype=bool)
    _check_both(flags, tables.levels, left_out, where)
    own = [scan for scan, _ in kept]
    table, more = covariates.merge(own, people, visits, tables.bids_dir / "phenotype", column)
    said += more + [
        f"--exclude {entry} matches no scan that has a lesion map"
        for entry in exclude
        if not any(_matches(scan, entry) for scan in scans)
    ]
    names = np.array([scan.participant for scan in own])
    return Labelled(tuple(own), names, flags, table, tuple(left_out), (*warnings, *said))


def _check_both(
    positive: np.ndarray, levels: tuple[str, str], left_out: Sequence[tuple[str, str]], where: Path
) -> None:
    for level, n in zip(levels, (int(positive.sum()), int((~positive).sum())), strict=True):
        if n == 0:
            why = _some([f"{name} ({reason})" for name, reason in left_out])
            raise BadInputError(
                f"no scan of group {level} is left (left out: {why})", where, "check ids and exclusions"
            )


def read_division(path: Path, scans: Sequence[str]) -> dict[str, Division]:
    """Return the divisions of a file that `division_table` made, as rows of ``scans``.

    Raises
    ------
    MissingInputError
        No such file.
    BadInputError
        A scan is missing, unknown or given twice, stands in neither set, or a participant in both sets of
        the leakage-free division; or a set is empty.
    """
    table = formats.read_tsv(path, required=("scan", *UNITS))
    listed = table["scan"].fillna("n/a").tolist()
    for what, names in (
        ("is not in the file", sorted(set(scans) - set(listed))),
        ("is not among the scans of this run", sorted(set(listed) - set(scans))),
        ("is given twice", table.loc[table["scan"].duplicated(), "scan"].fillna("n/a").tolist()),
    ):
        if names:
            raise BadInputError(f"scan {_some(names)} {what}", path, "divide anew, or correct the file")
    rows = table.set_index("scan").loc[list(scans)]
    divisions = {}
    for name, unit in UNITS.items():
        values = rows[name].fillna("n/a").to_numpy(dtype=str)
        odd = np.flatnonzero(~np.isin(values, SETS))
        if odd.size:
            what = f"scan {scans[odd[0]]} is {str(values[odd[0]])!r} in column {name!r}"
            raise BadInputError(what, path, "write training or test")
        train, test = (np.flatnonzero(values == part) for part in SETS)
        if not train.size or not test.size:
            raise BadInputError(f"column {name!r} has an empty training or test set", path, "correct the file")
        sides = ({scans[i].partition("_")[0] for i in rows_of} for rows_of in (train, test))
        both = sorted(set.intersection(*sides))
        if unit == "participant" and both:
            what = f"{_some(both)} is in training and test set of column {name!r}"
            raise BadInputError(what, path, "put all scans of a participant into one")
        divisions[name] = Division(train, test, unit)
    return divisions


def division_table(scans: Sequence[str], divisions: Mapping[str, Division]) -> pd.DataFrame:
    """Return one row a scan: ``scan``, ``participant_id``, ``session_id``, and its set in each division.

    Raises
    ------
    BadInputError
        A division does not hold every scan once.
    """
    columns: dict[str, object] = {"scan": list(scans)}
    for column in ("participant_id", "session_id"):
        columns[column] = [identifiers(name).get(column) for name in scans]
    for name, division in divisions.items():
        if not np.array_equal(np.sort(np.r_[division.train, division.test]), np.arange(len(scans))):
            raise BadInputError(f"the {name} division does not hold each of the {len(scans)} scans once")
        columns[name] = np.where(np.isin(np.arange(len(scans)), division.test), SETS[1], SETS[0])
    return pd.DataFrame(columns)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _group_column(given: str | None, columns: Sequence[str], where: Path) -> str:
    for name in [given] if given else GROUP_COLUMNS:
        if name in columns:
            return name
    wanted = repr(given) if given else " or ".join(map(repr, GROUP_COLUMNS))
    raise BadInputError(f"no column {wanted}", where, f"there are: {', '.join(columns) or 'none'}; use --group-column")


def _check_levels(groups: Mapping[Key, str], column: str, levels: tuple[str, str], where: Path) -> None:
    found = sorted(set(groups.values()))
    remedy = f"levels are {', '.join(found) or 'none'}; name two by --positive and --negative"
    for level in levels:
        if level not in found:
            raise BadInputError(f"no {level!r} in column {column!r}", where, remedy)
    if levels[0] == levels[1]:
        raise BadInputError(f"both groups are {levels[0]!r}", where, remedy)


def _no_group(scan: Scan, group: str | None, column: str, levels: tuple[str, str], people: Rows) -> str:
    """Return why a scan is in neither group, or nothing."""
    if group in levels:
        return ""
    if group:
        return f"{column} is {group!r}, neither {levels[0]} nor {levels[1]}"
    return f"no {column}" if (scan.participant, None) in people else "not in participants.tsv"


def _without_map(scans: Sequence[Scan], labelled: set[Key], bids_dir: Path) -> list[str]:
    """Return labelled participants, sessions and raw FLAIR scans that have no lesion map; the widest name each."""
    mapped = {scan.name for scan in scans}
    having = {scan.participant for scan in scans}
    keys = {key_of(scan) for scan in scans}
    missing = {participant for participant, _ in labelled} - having
    visits = {f"{who}_{session}" for who, session in labelled if session and (who, session) not in keys}
    missing |= {name for name in visits if name.partition("_")[0] in having}
    for participant in {who for who, _ in labelled} & having:
        folder = bids_dir / participant
        for path in (*folder.glob("anat/*_FLAIR.nii*"), *folder.glob("ses-*/anat/*_FLAIR.nii*")):
            name = path.name.partition("_FLAIR.")[0]
            if name not in mapped and not any(name.startswith(f"{visit}_") or name == visit for visit in visits):
                missing.add(name)
    return sorted(missing)


def _matches(scan: Scan, entry: str) -> bool:
    wanted = entry if entry.startswith("sub-") else f"sub-{entry}"
    return f"{scan.name}_".startswith(f"{wanted}_")


def _rejected(scans: Sequence[Scan], exclude: Sequence[str], folders: Sequence[Path]) -> dict[str, str]:
    """Return the reason of every scan that is left out on purpose."""
    reasons = {scan.name: f"--exclude {entry}" for scan in scans for entry in exclude if _matches(scan, entry)}
    for path in [folder / "phenotype" / "quality.tsv" for folder in folders]:
        for (participant, session), said in rejections(path) if path.exists() else ():
            entry = f"{participant}_{session}" if session else participant
            for scan in scans:
                if scan.participant == participant and session in (None, key_of(scan)[1]):
                    reasons.setdefault(scan.name, f"quality.tsv: {said} for {entry}")
    return reasons


def rejections(path: Path) -> list[tuple[Key, str]]:
    """Return the participants and sessions that a quality.tsv rejects, and what it says of each.

    Raises
    ------
    BadInputError
        No column that tells, or a word in it that says neither yes nor no.
    """
    rows, _ = covariates.read_rows(path)
    columns = [name for name in VERDICTS if name in covariates.columns_of(rows)]
    if rows and not columns:
        raise BadInputError(f"no column {', '.join(VERDICTS)}", path, "add one of them")
    found = []
    for key, cells in rows.items():
        bad = [name for name in columns if not _keeps(name, cells[name], path, key[0])]
        if bad:
            found.append((key, f"{bad[0]} is {cells[bad[0]]}"))
    return found


def _keeps(column: str, cell: str | None, path: Path, participant: str) -> bool:
    word = (cell or "").lower()
    true, false = (_FALSE, _TRUE) if column == "exclude" else (_TRUE, _FALSE)
    if not word or word in (*_GOOD, *true):
        return True
    if word in (*_BAD, *false):
        return False
    known = ", ".join((*_TRUE, *_FALSE, *_GOOD, *_BAD))
    raise BadInputError(f"{participant} has {cell!r} in column {column!r}", path, f"use one of {known}")
