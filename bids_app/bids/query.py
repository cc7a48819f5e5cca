"""Finds the scans of a data set with pybids."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids_app.bids.names import ORDER, Scan, parse_name
from bids_app.errors import BadInputError, MissingInputError, NothingSelectedError
from bids_app.files.formats import read_json

# arguments of BIDSLayout.get that are no entities: they would change what is asked, not which scans
NOT_ENTITIES = ("return_type", "target", "scope", "regex_search", "absolute_paths", "invalid_filters", "self")


def find_scans(
    root: Path,
    *,
    participants: tuple[str, ...] = (),
    sessions: tuple[str, ...] = (),
    filters: Mapping[str, Any] | None = None,
    database: Path | None = None,
) -> tuple[list[Scan], list[str]]:
    """Return the FLAIR scans asked for, by name, and the participants (``sub-X``) that have none.

    Only the folders of participants asked for, and in them only FLAIR images, are indexed; with a ``database``,
    which later runs use again, all.

    Raises
    ------
    MissingInputError
        ``root`` is no folder, or holds no participants.
    NothingSelectedError
        No scan is left; a participant asked for who is not there counts as one without FLAIR.
    """
    root = Path(os.path.abspath(root))  # not resolved: links of DataLad must stay as they are
    present = participants_of(root)
    wanted = sorted(set(participants)) or present
    if not set(wanted) & set(present):
        raise NothingSelectedError(
            f"none of {_some(wanted)} is in the data set (there are: {_some(present)})",
            root,
            "check --participant-label",
        )
    scans = _query(root, wanted, bool(participants), sessions, dict(filters or {}), database)
    if not scans:
        what = f"no FLAIR scan of {_some(wanted)}"
        what += f" in session {', '.join(sessions)}" if sessions else ""
        what += f" under the filter {dict(filters)}" if filters else ""
        raise NothingSelectedError(what, root, "check the labels and filters; files must end in _FLAIR.nii.gz")
    having = {scan.participant for scan in scans}
    return scans, [f"sub-{label}" for label in wanted if f"sub-{label}" not in having]


def participants_of(root: Path) -> list[str]:
    """Return the labels of the ``sub-*`` folders of a data set, sorted."""
    if not root.is_dir():
        raise MissingInputError("no such folder", root, "give the root of a BIDS data set")
    found = sorted(entry.name[4:] for entry in root.iterdir() if entry.name.startswith("sub-") and entry.is_dir())
    if not found:
        raise MissingInputError("no folder sub-*", root, "give the root of a BIDS data set")
    return found


def _some(labels: list[str]) -> str:
    return ", ".join(f"sub-{label}" for label in labels[:10]) + (f" and {len(labels) - 10} more" * (len(labels) > 10))


def _query(
    root: Path,
    wanted: list[str],
    narrowed: bool,
    sessions: tuple[str, ...],
    filters: dict[str, Any],
    database: Path | None,
) -> list[Scan]:
    from bids import BIDSLayout, BIDSLayoutIndexer  # a second of imports: only where it is needed
    from bids.layout import Query

    ignore = [re.compile(r"^/(code|derivatives|sourcedata|models|stimuli|\.[^/]+)(/|$)")]
    ignore.append(re.compile(r"/(func|dwi|fmap|perf|eeg|meg|ieeg|pet|micr|nirs|motion|beh|mrs)(/|$)"))
    if database is None:  # pybids takes a millisecond a file; a database is kept for other questions too
        ignore.append(re.compile(r"/(?![^/]*_FLAIR\.nii(\.gz)?$)[^/]*\.[^/]*$"))
    if narrowed and database is None:
        ignore.append(re.compile(rf"^/sub-(?!({'|'.join(wanted)})(/|$))"))
    indexer = BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=ignore)
    try:
        layout = BIDSLayout(root, validate=False, indexer=indexer, database_path=database)
    except Exception as error:  # pybids raises whatever SQLite and the file system meet
        if database is None:
            raise
        what = " ".join(f"not a pybids database ({type(error).__name__}: {error})".split())[:200]
        raise BadInputError(what, database, "remove the folder, or name another") from error
    special = {None: Query.NONE, "*": Query.ANY, "Query.NONE": Query.NONE, "Query.ANY": Query.ANY}
    query: dict[str, Any] = {"suffix": "FLAIR", "extension": [".nii.gz", ".nii"], "subject": wanted}
    if sessions:
        query["session"] = list(sessions)
    for key, value in filters.items():
        query[key] = value if isinstance(value, list) else special.get(value, value)
    try:
        paths = layout.get(return_type="filename", **query)
    except Exception as error:  # pybids raises whatever its SQL layer meets
        raise BadInputError(f"pybids refuses the filter {filters} ({error})", remedy="correct it") from error
    scans = []
    for path in sorted(paths):
        relative = Path(path).relative_to(root)
        entities, _, _ = parse_name(relative.name)
        if f"sub-{entities['sub']}" == relative.parts[0]:
            scans.append(Scan(tuple((key, entities[key]) for key in ORDER if key in entities), relative.as_posix()))
    return sorted(scans, key=lambda scan: scan.path)


def read_filters(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the filters under ``flair`` of a filter file, and warnings about keys meant for others.

    Raises
    ------
    BadInputError
        The file has no key ``flair``, or it is no object, or an entity's value cannot be compared: an ignored
        filter would process the wrong scans.
    """
    content = read_json(path)
    keys = {key.lower(): key for key in content}
    if "flair" not in keys or not isinstance(content[keys["flair"]], dict):
        raise BadInputError(
            f"no object under the key 'flair' (keys: {', '.join(content) or 'none'})",
            path,
            'write {"flair": {...}}',
        )
    chosen = dict(content[keys["flair"]])
    fixed = {key: chosen.pop(key) for key in ("suffix", "datatype", "extension", "subject") if key in chosen}
    for key, value in chosen.items():
        if key in NOT_ENTITIES or not _is_value(value):
            raise BadInputError(
                f"{key!r} under 'flair' is {json.dumps(value)[:60]}",
                path,
                "write entities with a word, a number, null, '*', or a list of these that is not empty",
            )
    foreign = [key for key in content if key.lower() != "flair"]
    warnings = [f"{path}: keys {', '.join(foreign)} are for other programs and are not used"] if foreign else []
    if fixed:
        warnings.append(f"{path}: {', '.join(fixed)} under 'flair' cannot be changed and is not used")
    return chosen, warnings


def _is_value(value: object) -> bool:
    """Return whether pybids can compare an entity with this; it takes an empty list for no condition at all."""
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(each is None or isinstance(each, (str, int, float)) for each in values)
