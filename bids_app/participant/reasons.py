"""Why each scan was predicted so: its contribution map, and the figure of its report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bids_app.bids.names import SPACE, Scan
from bids_app.cohort import labels
from bids_app.drawing.reasons_figure import reasons
from bids_app.files import formats
from bids_app.image import atlas
from bids_app.model import explanation, prediction
from bids_app.model.deciding import looks_at_belief
from bids_app.records.reasons import LeftOut, Reasons
from bids_app.records.results import StoredModel, StoredPredictor

MAP, FIGURE, BELIEF_MAP = "contribution", "reasons", "belief_mni"


def write(
    stored: StoredPredictor | StoredModel,
    scans: Sequence[Scan],
    output_dir: Path,
    cache_dir: Path,
    nprocs: int,
    bids_dir: Path | None = None,
) -> None:
    """Write map and figure of every scan; maps are taken as the model's own were made.

    Raises
    ------
    MissingInputError, BadInputError
        As `prediction.maps_of` and `prediction.beside_of`.
    """
    keys = [labels.MAPS[stored.purpose.lesion_map] if stored.purpose.norm is None else BELIEF_MAP]
    keys += [BELIEF_MAP] if looks_at_belief(stored.model) and BELIEF_MAP not in keys else []
    made = prediction.maps_of(stored, scans, output_dir, cache_dir, nprocs)
    beside = prediction.beside_of(stored, scans, output_dir, bids_dir)
    for k, (scan, lesions) in enumerate(zip(scans, made, strict=True)):
        found = explanation.why(stored.model, lesions, beside.of(k))
        path = output_dir / scan.output(MAP)
        volume = atlas.on_grid(found.parts.astype(np.float32), 0)
        formats.write_nifti(path, volume.data, volume.affine)
        about = {
            **_about(found),
            "SpatialReference": SPACE,
            "Resolution": "3 mm isotropic",
            "Sources": [f"bids::{scan.output(key)}" for key in keys],
            "DecisionValue": found.decision,
            "PlaceDefinitions": explanation.DEFINITIONS,
            "ModelDigest": stored.digest,
        }
        formats.write_json(formats.sidecar(path), about)
        picture = reasons(found, _belief(output_dir / scan.output(BELIEF_MAP)), stored.purpose.levels)
        formats.write_bytes(output_dir / scan.figure(FIGURE), picture)


def _about(found: Reasons | LeftOut) -> dict[str, object]:
    """Return what the values of a scan's map are, and their sums or the lesions behind them."""
    if isinstance(found, Reasons):
        more = {"Covariates": found.covariates} if found.covariates else {}
        rest = "VolumePart, Intercept and Covariates" if more else "VolumePart and Intercept"
        return {
            "Description": f"What each lesion voxel adds to the decision value of the model: with {rest} it sums to "
            "DecisionValue",
            "VolumePart": found.volume,
            "Intercept": found.intercept,
            "Places": found.places,
            **more,
        }
    lesions = [
        {"Place": each.place, "CentreMm": each.centre, "VolumeMl": each.volume_ml, "Change": each.change}
        for each in found.lesions
    ]
    return {
        "Description": f"Decision value minus that without the {found.kind} which the voxel belongs to; the changes of "
        "all of them do not sum to DecisionValue",
        "Lesions": lesions,
    }


def _belief(path: Path) -> np.ndarray | None:
    """Return the normalised belief over the template's brain voxels (V,); None where it was not kept."""
    grid = atlas.brain_grid(3)
    if not path.exists() or formats.open_nifti(path).shape != grid.data.shape:
        return None
    inside: np.ndarray = formats.read_nifti(path)[0][grid.data]
    return inside
