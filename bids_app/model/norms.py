"""The norm that a model's lesion maps are measured against, stored beside the model where it is of its own cohort.

``norm.npz`` holds the centre and where it is known, over the template's brain voxels (a zip of ``.npy``; no pickle).
Its SHA-256 stands in ``model.json`` with those of the model's other files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bids_app.errors import BadInputError
from bids_app.files import arrays, formats
from bids_app.image.atlas import brain_grid
from bids_app.model import seal
from bids_app.records.lesions import CohortNorm

FILE = "norm.npz"
RULE = "normalised belief over the median of the training participants at its place, as bids_app.lesions.cohort_norm"


def files(norm: CohortNorm | None) -> tuple[str, ...]:
    """Return the files that a norm is stored in; none where there is none."""
    return () if norm is None else (FILE,)


def save(norm: CohortNorm | None, folder: Path) -> dict[str, object]:
    """Write a norm, and return what ``model.json`` says of it; nothing where there is none, and no file of another."""
    if norm is None:
        (folder / FILE).unlink(missing_ok=True)
        return {}
    formats.write_bytes(folder / FILE, arrays.pack({"centre": norm.centre, "known": norm.known}))
    return {"norm": {"participants": norm.people, "rule": RULE}}


def load(content: Mapping[str, Any], folder: Path) -> CohortNorm | None:
    """Return the norm that ``model.json`` tells of; None where it tells of none.

    Raises
    ------
    BadInputError
        Another rule, or arrays that are no norm.
    """
    if "norm" not in content:
        return None
    about, path = content["norm"], folder / FILE
    if about["rule"] != RULE:
        raise BadInputError(f"the norm's rule is {about['rule']!r}, not {RULE!r}", folder / "model.json", seal.AGAIN)
    found, shape = arrays.unpack(path), (int(brain_grid(3).data.sum()),)
    kinds = {name: (each.dtype.str, each.shape) for name, each in found.items()}
    if kinds != {"centre": ("<f4", shape), "known": ("|b1", shape)} or not np.isfinite(found["centre"]).all():
        raise BadInputError("holds other arrays than a norm's", path, seal.AGAIN)
    return CohortNorm(found["centre"], found["known"], int(about["participants"]))
