"""Finds and reads lesion masks that somebody made: another tool's BIDS derivatives, or a reader's."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bids_app.bids.names import SPACE, Scan, parse_name
from bids_app.errors import BadInputError, BidsAppError, MissingInputError
from bids_app.files import formats
from bids_app.image.geometry import Frame
from bids_app.records.lesions import Given
from bids_app.records.scan import Volume

WANTED = ({"label": "L"}, {"label": "lesion"}, {"desc": "lesion"})
OWN = ("space", "res", "den", "label", "desc")  # entities that a derivative adds to the scan's
FORMS = "_label-L_mask, _label-lesion_mask or _desc-lesion_mask (.nii.gz)"
EMPTY_REMEDY = "remove it if nothing was outlined; where lesion-free is meant, give --accept-empty-masks"
WHOLE = 1e-3  # a mask's values may differ from 0 and 1 by this (scaled integers)


class MaskFile(NamedTuple):
    """A mask that somebody made of one scan: its path, and the options that it came by."""

    path: Path
    lesion_derivatives: Path
    accept_empty_masks: bool = False


def find(folder: Path, scans: Sequence[Scan]) -> tuple[dict[str, Path], list[str]]:
    """Return the mask of each scan that has one, by the scan's name, and what is to be said of the others.

    A mask is of the scan whose entities its own (but space, resolution, label and description) are, or are part of.

    Raises
    ------
    MissingInputError
        No such folder, or no mask in it.
    BadInputError
        No mask fits any scan, a mask fits several scans, or several masks fit one.
    """
    if not folder.is_dir():
        raise MissingInputError("no such folder", folder, "give the root of BIDS derivatives with lesion masks")
    masks = [path for path in sorted(folder.glob("sub-*/**/*_mask.nii.gz")) if _is_lesion(path)]
    if not masks:
        raise MissingInputError(f"no lesion mask {FORMS}", folder, "rename the masks as BIDS has them")
    found: dict[str, list[Path]] = defaultdict(list)
    said = []
    for path in masks:
        fitting = _fitting(path, scans)
        if len(fitting) > 1:
            raise BadInputError(f"fits {len(fitting)} scans, first {fitting[0]}", path, "name it like one scan")
        if fitting:
            found[fitting[0]].append(path)
        else:
            said.append(f"{path.relative_to(folder)}: no scan of this run has these entities; the mask is not used")
    for name, paths in found.items():
        if len(paths) > 1:
            raise BadInputError(
                f"{len(paths)} masks fit the scan {name}", paths[0], f"keep one; other: {paths[1].name}"
            )
    if not found:
        raise BadInputError(f"none of {len(masks)} lesion masks fits a scan of this run", folder, "check their names")
    said += [f"{scan.name}: no lesion mask in {folder}" for scan in scans if scan.name not in found]
    return {name: paths[0] for name, paths in found.items()}, said


def _is_lesion(path: Path) -> bool:
    return any(re.search(f"_{key}-{value}_", path.name) for each in WANTED for key, value in each.items())


def _fitting(path: Path, scans: Sequence[Scan]) -> list[str]:
    """Return the scans that a mask fits: the one with equal entities, else all that have its entities."""
    entities = {key: value for key, value in parse_name(path.name)[0].items() if key not in OWN}
    wanted = set(entities.items())
    equal = [scan.name for scan in scans if set(scan.entities) == wanted]
    return equal or [scan.name for scan in scans if wanted <= set(scan.entities)]


def parameters(mask: MaskFile) -> dict[str, Any]:
    """Return what a scan's outputs depend on: which mask, who made it, and its bytes."""
    return {
        "external_mask": f"{mask.path.relative_to(mask.lesion_derivatives)} ({_maker(mask.lesion_derivatives)})",
        "external_digest": hashlib.sha256(mask.path.read_bytes()).hexdigest(),
    }


def _maker(folder: Path) -> str:
    """Return who made the masks, as the derivatives say it."""
    try:
        about = formats.read_json(folder / "dataset_description.json")
        made = [str(each["Name"]) for each in about.get("GeneratedBy", [])]
        return ", ".join(made) or str(about["Name"])
    except (BidsAppError, KeyError, TypeError, AttributeError):
        return "origin not told"


def read(file: MaskFile, frame: Frame, origin: str) -> Given:
    """Return a mask in the frame of its scan; ``origin`` says who made it.

    Raises
    ------
    MissingInputError, BadInputError
        No such file; no mask; in the space of another template; empty, unless that is accepted.
    """
    path = file.path
    space = parse_name(path.name)[0].get("space", "")
    if space.startswith(("MNI", "ICBM")) and space != SPACE:
        raise BadInputError(f"space-{space} is not known here", path, f"give it in the scan's space or in {SPACE}")
    image = formats.open_nifti(path)
    if len(image.shape) != 3:
        raise BadInputError(f"a mask has 3 axes, this one {len(image.shape)}", path, "give one volume")
    data, affine = formats.read_nifti(path)
    mask = np.abs(data - 1) <= WHOLE
    if not (mask | (np.abs(data) <= WHOLE)).all():  # also where nan
        raise BadInputError("holds other values than 0 and 1, so it is no mask", path, "binarise it")
    if not (file.accept_empty_masks or mask.any()):
        raise BadInputError("the lesion mask is empty", path, EMPTY_REMEDY)
    of_template = space == SPACE
    return Given(Volume(mask, affine if of_template else frame.affine_inward(affine)), of_template, origin)
