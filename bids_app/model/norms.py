"""The norm that a model's maps are measured against, stored beside the model where it is of its own cohort.

``norm.npz`` holds it over the template's brain voxels (a zip of ``.npy``; no pickle): of lesion maps its centre and
where it is known, of belief maps the limit. Its SHA-256 stands in ``model.json`` with those of the other files.
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
from bids_app.records.lesions import BeliefLimit, CohortNorm
from bids_app.records.recommended import BELIEF

FILE = "norm.npz"
RULE = "normalised belief over the median of the training participants at its place, as bids_app.lesions.cohort_norm"
LIMIT_RULE = "normalised belief above the median + 2.54 SD of the training participants at its place, 0 below"
KINDS: dict[str, dict[str, str]] = {  # arrays of a rule, and their types
    RULE: {"centre": "<f4", "known": "|b1"},
    LIMIT_RULE: {"limit": "<f8"},
}
Norm = CohortNorm | BeliefLimit


def files(norm: Norm | None) -> tuple[str, ...]:
    """Return the files that a norm is stored in; none where there is none."""
    return () if norm is None else (FILE,)


def save(norm: Norm | None, folder: Path) -> dict[str, object]:
    """Write a norm, and return what ``model.json`` says of it; nothing where there is none, and no file of another."""
    if norm is None:
        (folder / FILE).unlink(missing_ok=True)
        return {}
    rule = LIMIT_RULE if isinstance(norm, BeliefLimit) else RULE
    formats.write_bytes(folder / FILE, arrays.pack({name: getattr(norm, name) for name in KINDS[rule]}))
    return {"norm": {"participants": norm.people, "rule": rule}}


def load(content: Mapping[str, Any], folder: Path) -> Norm | None:
    """Return the norm that ``model.json`` tells of; None where it tells of none.

    Raises
    ------
    BadInputError
        Another rule, one of other maps, or arrays that are no norm.
    """
    of_belief = content["lesion_map"] == BELIEF
    if "norm" not in content:
        if of_belief:
            raise BadInputError("a model on belief lacks its norm", folder / "model.json", seal.AGAIN)
        return None
    about, path, rule = content["norm"], folder / FILE, LIMIT_RULE if of_belief else RULE
    if about["rule"] != rule:
        raise BadInputError(f"the norm's rule is {about['rule']!r}, not {rule!r}", folder / "model.json", seal.AGAIN)
    found, shape = arrays.unpack(path), (int(brain_grid(3).data.sum()),)
    kinds = {name: (each.dtype.str, each.shape) for name, each in found.items()}
    wanted = {name: (kind, shape) for name, kind in KINDS[rule].items()}
    if kinds != wanted or not all(np.isfinite(each).all() for each in found.values()):
        raise BadInputError("holds other arrays than a norm's", path, seal.AGAIN)
    return (BeliefLimit if of_belief else CohortNorm)(**found, people=int(about["participants"]))
