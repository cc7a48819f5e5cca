"""The only opener of NIfTI, TSV and JSON files; every write is atomic (see `atomic`), equal data are equal bytes."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from bids_app.errors import BadInputError, MissingInputError
from bids_app.files import tsv
from bids_app.files.atomic import atomic

GZIP_LEVEL = 3  # 2 % larger than at 5, in two thirds of the time
GZIP_WINDOW = 31  # zlib's number for 32 KiB and a gzip header, which then holds no time stamp
BLOCK = 16  # voxels along the first axis
DEFLATE_RATIO = 1032  # no deflate stream unpacks to more than this many times its size
SURPLUS = 1 << 20  # bytes of padding that may follow an image


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, content.encode("utf-8"))


def write_nifti(path: Path, data: np.ndarray, affine: np.ndarray, *, noisy: bool = False) -> None:
    """Write a 3D array as gzipped NIfTI-1 in mm, both forms set, no time stamp in the gzip header.

    Parameters
    ----------
    path : Path
        Ends in ``.nii.gz``.
    data : ndarray, shape (X, Y, Z)
        Booleans are stored as uint8; other types as they are.
    affine : ndarray, shape (4, 4)
        Voxel to world, mm.
    noisy : bool
        Whether no patterns of values are expected beside runs of one: then only runs are looked for, which takes less
        than half the time and gives no larger a file.
    """
    stored = data.astype(np.uint8) if data.dtype == bool else data
    image = nib.Nifti1Image(_first_axis_fastest(stored), affine)
    image.header.set_xyzt_units("mm")
    strategy = zlib.Z_RLE if noisy else zlib.Z_DEFAULT_STRATEGY
    pack = zlib.compressobj(GZIP_LEVEL, wbits=GZIP_WINDOW, strategy=strategy)
    write_bytes(path, pack.compress(image.to_bytes()) + pack.flush())


def _first_axis_fastest(data: np.ndarray) -> np.ndarray:
    """Return an array in Fortran's order, as NIfTI stores it; in blocks that stay in the cache, a third of the time."""
    if data.flags.f_contiguous:
        return data
    turned = np.empty(data.shape, data.dtype, order="F")
    for start in range(0, len(data), BLOCK):
        turned[start : start + BLOCK] = data[start : start + BLOCK]
    return turned


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the array (scaled, as stored) and the affine of a NIfTI file.

    Raises
    ------
    MissingInputError
        No such file.
    BadInputError
        The file is empty, truncated, changed (gzip's checksum), no NIfTI image, or its header claims more or
        less than it holds.
    """
    image = open_nifti(path)
    try:
        _check_stream(Path(path), image)
        return np.asanyarray(image.dataobj), np.asarray(image.affine)
    except BadInputError:
        raise
    except Exception as error:  # nibabel, zlib, numpy and the OS each raise their own on a broken body
        raise BadInputError(f"image data cannot be read ({_reason(error)})", path, "copy the file again") from error


def _check_stream(path: Path, image: Any) -> None:
    """Refuse a file whose header claims what it cannot hold, before memory is asked for, or that has changed.

    nibabel asks for all the memory that the header claims, and stops before the end of the stream, where
    gzip's checksum stands: a flipped bit would go unnoticed.
    """
    proxy = image.dataobj
    claimed = int(proxy.offset) + int(np.prod(proxy.shape, dtype=object)) * proxy.dtype.itemsize
    packed = path.suffix == ".gz"
    if claimed > path.stat().st_size * (DEFLATE_RATIO if packed else 1):
        raise BadInputError(
            f"the header claims {claimed / 2**20:.1f} MB, more than the file can hold", path, "copy the file again"
        )
    held = 0
    with gzip.open(path) if packed else nullcontext() as stream:
        while stream and (block := stream.read(SURPLUS)):
            held += len(block)
            if held > claimed + SURPLUS:
                raise BadInputError(
                    f"holds more than the {claimed / 2**20:.1f} MB that its header claims",
                    path,
                    "the header is damaged; convert the scan again",
                )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long, a folder that may not be entered
        return False


def open_nifti(path: Path) -> Any:
    """Return the nibabel image of a file, header read and data still on disk."""
    path = Path(path)
    if not _exists(path):
        link = " (a link to content that is not here; run 'datalad get')" if path.is_symlink() else ""
        raise MissingInputError(f"no such file{link}", path)
    if path.stat().st_size == 0:
        raise BadInputError("the file is empty", path, "copy the file again")
    try:
        return nib.load(path)
    except Exception as error:
        raise BadInputError(f"not a readable NIfTI image ({_reason(error)})", path, "convert it again") from error


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]


def sidecar(path: Path) -> Path:
    """Return the path of an image's JSON sidecar."""
    return path.with_name(path.name.partition(".")[0] + ".json")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as JSON, keys in the order given; NaN and infinity become null."""
    write_text(path, json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """Return numpy values, tuples, records and paths as what JSON knows; non-finite numbers as None."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(vars(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises
    ------
    MissingInputError, BadInputError
        No such file; not UTF-8 JSON, or no object.
    """
    path = Path(path)
    if not _exists(path):
        raise MissingInputError("no such file", path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError, OSError) as error:
        raise BadInputError(f"not valid JSON ({_reason(error)})", path, "correct the file") from error
    if not isinstance(content, dict):
        raise BadInputError("the JSON holds no object", path, "correct the file")
    return content


def write_tsv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as BIDS TSV (see `tsv.render`)."""
    write_text(path, tsv.render(table))


def read_tsv(path: Path, required: tuple[str, ...] = ()) -> pd.DataFrame:
    """Return a TSV as a table of strings, with ``n/a`` and empty cells as missing.

    A byte order mark and Windows line ends are tolerated.

    Raises
    ------
    MissingInputError
        No such file.
    BadInputError
        Not UTF-8, NUL bytes, a column twice, rows of unequal length, or a required column is missing.
    """
    path = Path(path)
    if not _exists(path):
        raise MissingInputError("no such file", path)
    try:
        table = tsv.parse(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, OSError) as error:
        raise BadInputError(f"not a readable TSV ({_reason(error)})", path, "save it as UTF-8 with tabs") from error
    missing = [name for name in required if name not in table.columns]
    if missing:
        raise BadInputError(
            f"column {', '.join(missing)} is missing (there are: {tsv.some(table.columns)})",
            path,
            "add it or name another",
        )
    return table
