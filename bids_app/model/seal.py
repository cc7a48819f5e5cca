"""What every stored model says of itself, and how that is checked: version, rule, grid, and the seals of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bids_app import __version__
from bids_app.bids.names import SPACE
from bids_app.errors import BadInputError, BidsAppError, MissingInputError
from bids_app.files import formats
from bids_app.image.atlas import brain_grid

T = TypeVar("T")
RULE = "belief > threshold inside the brain mask; normalised to 3 mm, linear; lesion where at least 0.5"
MOST_BYTES = 512 << 20  # of the JSON
AGAIN = "train the model again with this version, or copy the folder again"


def read(folder: Path, version: int, assemble: Callable[[dict[str, Any], Path], T]) -> T:
    """Return what ``assemble`` makes of a model's words and folder, after the words were checked.

    Raises
    ------
    MissingInputError
        There is no ``model.json``.
    BadInputError
        Another version, grid or threshold rule, or a field that is missing or of the wrong kind.
    """
    path, content = folder / "model.json", words(folder)
    try:
        _check(content, path, version)
        return assemble(content, folder)
    except BidsAppError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        what = f"a field is missing or of the wrong kind ({type(error).__name__}: {error})"
        raise BadInputError(what, path, AGAIN) from error


def words(folder: Path) -> dict[str, Any]:
    """Return what a model's JSON says, unchecked.

    Raises
    ------
    MissingInputError, BadInputError
        It is not there; it is larger than any model's, or no JSON.
    """
    path = folder / "model.json"
    if path.exists() and path.stat().st_size > MOST_BYTES:
        raise BadInputError("is larger than any model", path, AGAIN)
    return formats.read_json(path)


def grid_of_models() -> dict[str, object]:
    """Return what a model says of the grid that it is on."""
    grid = brain_grid(3)
    return {
        "space": SPACE,
        "resolution_mm": 3,
        "shape": list(grid.data.shape),
        "affine": grid.affine.tolist(),
        "brain_voxels": int(grid.data.sum()),
        "brain_sha256": hashlib.sha256(np.packbits(grid.data).tobytes()).hexdigest(),
    }


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a model's file.

    Raises
    ------
    MissingInputError
        It is not there.
    """
    if not path.exists():
        raise MissingInputError("no such file", path, "copy the model's folder again")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a model's words, but for the digest itself."""
    rest = {key: value for key, value in content.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _check(content: dict[str, Any], path: Path, version: int) -> None:
    """Refuse what this version cannot use: format, version, threshold rule, grid."""
    found = content["format_version"]
    if found != version:
        older = isinstance(found, int) and found < version
        remedy = "run the group level again: it makes the model anew" if older else AGAIN
        raise BadInputError(f"format_version is {found}, this version reads {version}", path, remedy)
    if str(content["bids_app"]).split(".")[:2] != __version__.split(".")[:2]:
        raise BadInputError(f"made by bids_app {content['bids_app']}, this is {__version__}", path, AGAIN)
    if content["threshold_rule"] != RULE:
        raise BadInputError(f"threshold_rule is {content['threshold_rule']!r}, not {RULE!r}", path, AGAIN)
    if content["grid"] != grid_of_models():
        different = [key for key, value in grid_of_models().items() if content["grid"].get(key) != value]
        raise BadInputError(f"another grid ({', '.join(different) or 'more fields'})", path, AGAIN)
