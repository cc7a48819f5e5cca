"""Named arrays in one ``.npz`` file: equal bytes for equal arrays, and vetted before anything is built from them.

The format is numpy's own, a zip of ``.npy`` files. What we write is stored unpacked, so whatever is packed is not
ours, and nothing can unpack to more than the file's size.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bids_app.errors import BadInputError, BidsAppError, MissingInputError

MOST_BYTES = 512 << 20  # of the file
KINDS = "biuf"  # booleans, whole numbers, floating point; never objects, text or records
REMEDY = "train the model again, or copy the file again"


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return an ``.npz`` file of named arrays; numpy stamps its members with the zip format's first moment.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Names are made of small letters and underscores, arrays of booleans or numbers, of any shape.

    Examples
    --------
    >>> pack({"a": np.eye(2)}) == pack({"a": np.asfortranarray(np.eye(2))})
    True
    """
    target = io.BytesIO()
    # with another order in memory, equal arrays would be other bytes
    np.savez(target, **{name: np.ascontiguousarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]
    return target.getvalue()


def unpack(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an ``.npz`` file, by name.

    Raises
    ------
    MissingInputError
        No such file.
    BadInputError
        The file is broken, too large, packed, or holds anything but arrays of booleans and numbers.
    """
    if not path.exists():
        raise MissingInputError("no such file", path, "copy the model's folder again")
    if path.stat().st_size > MOST_BYTES:
        raise BadInputError("is larger than any model", path, REMEDY)
    content = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as zipped:
            _check_members(zipped.infolist(), len(content), path)
            for name in zipped.namelist():
                _check_array(zipped.read(name), name)
        with np.load(io.BytesIO(content), allow_pickle=False) as kept:
            return {name: kept[name] for name in kept.files}
    except BidsAppError:
        raise
    except Exception as error:  # zipfile, zlib and numpy each raise their own on a broken file
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        raise BadInputError(f"not a readable npz file ({reason})", path, REMEDY) from error


def _check_members(entries: list[zipfile.ZipInfo], size: int, path: Path) -> None:
    """Refuse, by what the zip's directory claims, what unpacks to more than the file holds, and other names."""
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries):
        raise BadInputError("holds packed members", path, REMEDY)
    if sum(entry.file_size for entry in entries) > size:
        raise BadInputError("claims more than it holds", path, REMEDY)
    names = [entry.filename for entry in entries]
    strange = [name for name in names if not re.fullmatch(r"[a-z_]+\.npy", name)]
    if strange:
        raise BadInputError(f"holds a member that is no array ({strange[0]!r})", path, REMEDY)
    if len(set(names)) != len(names):
        raise BadInputError("holds two members of one name", path, REMEDY)


def _check_array(content: bytes, name: str) -> None:
    """Raise ValueError where a ``.npy`` claims another size than it has, before memory is asked for, or objects."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"{name} is .npy version {version}")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    size = int(np.prod([int(length) for length in shape], dtype=object)) * dtype.itemsize
    if dtype.kind not in KINDS:
        raise ValueError(f"{name} holds {dtype}, no numbers")
    if size != len(content) - stream.tell():
        raise ValueError(f"{name} claims {shape} of {dtype}")
