"""Arrays in the format of skops, in equal bytes for equal arrays, and vetted before anything is built from them.

skops stores a zip of ``.npy`` files and a schema that names what to build. We build a dictionary of arrays and
nothing else: a schema that asks for any other type, class or loader is refused before skops sees it.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import skops.io

from bids_app.errors import BadInputError, BidsAppError, MissingInputError

MOST_BYTES = 512 << 20  # of all members of the zip together
MOST_RATIO = 100  # unpacked to packed; ours are stored unpacked
EPOCH = (1980, 1, 1, 0, 0, 0)  # the zip format's first moment, instead of the clock's
# module, class and loader of every node that a dictionary of arrays needs
ALLOWED = {
    ("builtins", "dict", "DictNode"),
    ("builtins", "list", "ListNode"),
    ("builtins", "str", "TypeNode"),
    ("numpy", "ndarray", "NdArrayNode"),
}
SCHEMA = "schema.json"
REMEDY = "train the model again, or copy the file again"


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return a skops file of named arrays.

    skops names members after memory addresses and stamps them with the time; both are replaced, so that
    equal arrays are equal bytes.
    """
    made = io.BytesIO(skops.io.dumps({name: np.ascontiguousarray(array) for name, array in arrays.items()}))
    target = io.BytesIO()
    with zipfile.ZipFile(made) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as zipped:
        schema = json.loads(source.read(SCHEMA))
        members = {}
        for name, node in schema["content"].items():
            members[f"{name}.npy"] = source.read(node["file"])
            node["file"] = f"{name}.npy"
        numbers: dict[int, int] = {}
        _renumber(schema, numbers)
        members[SCHEMA] = json.dumps(schema, indent=2, sort_keys=True).encode()
        for name, content in members.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o644 << 16
            zipped.writestr(entry, content)
    return target.getvalue()


def unpack(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a skops file.

    Raises
    ------
    MissingInputError
        No such file.
    BadInputError
        The file is broken, unpacks to too much, or holds anything but a dictionary of arrays.
    """
    if not path.exists():
        raise MissingInputError("no such file", path, "copy the model's folder again")
    if path.stat().st_size > MOST_BYTES:
        raise BadInputError("is larger than any model", path, REMEDY)
    content = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as zipped:
            _check_size(zipped, path)
            schema = json.loads(zipped.read(SCHEMA))
            _vet(schema, path)
            for name in zipped.namelist():
                if name != SCHEMA:
                    _check_array(zipped.read(name), name)
        loaded = skops.io.loads(content, trusted=[])
    except BidsAppError:
        raise
    except Exception as error:  # zipfile, zlib, json, numpy and skops each raise their own on a broken file
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        raise BadInputError(f"not a readable skops file ({reason})", path, REMEDY) from error
    if not isinstance(loaded, dict) or not all(isinstance(array, np.ndarray) for array in loaded.values()):
        raise BadInputError("holds no dictionary of arrays", path, REMEDY)
    return loaded


def _renumber(node: Any, numbers: dict[int, int]) -> None:
    """Replace memory addresses by numbers in order of appearance."""
    if isinstance(node, dict):
        if "__id__" in node:
            node["__id__"] = numbers.setdefault(node["__id__"], len(numbers) + 1)
        for value in node.values():
            _renumber(value, numbers)
    elif isinstance(node, list):
        for value in node:
            _renumber(value, numbers)


def _check_size(zipped: zipfile.ZipFile, path: Path) -> None:
    """Refuse a zip bomb by what its directory claims; zipfile reads no member beyond its claim."""
    entries = zipped.infolist()
    total = sum(entry.file_size for entry in entries)
    if total > MOST_BYTES:
        raise BadInputError(f"unpacks to {total / 2**20:.0f} MB", path, REMEDY)
    if any(entry.file_size > MOST_RATIO * max(entry.compress_size, 1) for entry in entries):
        raise BadInputError(f"unpacks to more than {MOST_RATIO} times its size", path, REMEDY)
    if len({entry.filename for entry in entries}) != len(entries):
        raise BadInputError("holds two members of one name", path, REMEDY)


def _vet(node: Any, path: Path) -> None:
    """Refuse every node whose module, class and loader are not on the fixed list."""
    if isinstance(node, list):
        for value in node:
            _vet(value, path)
        return
    if not isinstance(node, dict):
        return
    if {"__module__", "__class__", "__loader__"} & set(node):
        kind = node.get("__module__"), node.get("__class__"), node.get("__loader__")
        if kind not in ALLOWED or (kind[1] == "ndarray" and node.get("type") != "numpy"):
            raise BadInputError(f"holds a foreign type ({kind[0]}.{kind[1]}, {kind[2]})", path, REMEDY)
    for value in node.values():
        _vet(value, path)


def _check_array(content: bytes, name: str) -> None:
    """Raise ValueError where a ``.npy`` claims another size than it has, before memory is asked for."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"{name} is .npy version {version}")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    size = int(np.prod([int(length) for length in shape], dtype=object)) * dtype.itemsize
    if dtype.hasobject or size != len(content) - stream.tell():
        raise ValueError(f"{name} claims {shape} of {dtype}")
