"""Lesion masks made by another tool or by hand: checked, and brought to the scan's grid and to the template's."""

from __future__ import annotations

import numpy as np

from bids_app.errors import ScanError
from bids_app.image import atlas, registration
from bids_app.image.geometry import points, sample
from bids_app.records.lesions import Given
from bids_app.records.scan import Anatomy, Volume

LEAST_INSIDE = 0.5  # share of a mask that lies in the brain, else it is not of this scan
HALF = 0.5  # share of a voxel that is lesion
EMPTY = "the given lesion mask is empty: taken as a scan without lesions"
REMEDY = "is it of this scan, and is its affine right?"


def onto_grids(given: Given, anatomy: Anatomy) -> tuple[np.ndarray, np.ndarray]:
    """Return a given mask on the scan's grid, bool (X, Y, Z), and on the template's at 3 mm.

    Parameters
    ----------
    given : Given
        In the chain's frame, on any grid; or on any grid of the template.
    anatomy : Anatomy

    Raises
    ------
    ScanError
        Less than half of it lies in the brain.
    """
    scan, brain, alignment = anatomy.belief.native, anatomy.fit.tissues.mask, anatomy.fit.alignment
    grid, mask = atlas.brain_grid(3), given.mask.like(given.mask.data.astype(np.float32))
    if not mask.data.any():
        return np.zeros(brain.shape, bool), np.zeros(grid.data.shape, bool)
    home = grid if given.on_template else scan
    _refuse_elsewhere(mask, home.like((grid.data if given.on_template else brain).astype(np.float32)))
    if given.on_template:
        native = registration.carried(alignment.inverse, mask, scan, brain) >= HALF
        return native, _resampled(mask, grid)
    native = _resampled(mask, scan)
    return native, registration.mask_to_template(alignment.forward, scan.like(native), grid)


def _refuse_elsewhere(mask: Volume, brain: Volume) -> None:
    """Refuse a mask most of which lies outside the brain, by the world points of its voxels."""
    where = np.argwhere(mask.data > HALF) @ mask.affine[:3, :3].T + mask.affine[:3, 3]
    inside = float((sample(brain, where) >= HALF).mean())
    if inside < LEAST_INSIDE:
        what = f"{1 - inside:.0%} of the given lesion mask lies outside the brain"
        raise ScanError(what, remedy=REMEDY)


def _resampled(mask: Volume, grid: Volume) -> np.ndarray:
    """Return a mask on another grid of the same world, linear, at least one half; slice by slice to spare memory."""
    found = np.zeros(grid.data.shape, bool)
    for z in range(grid.data.shape[2]):
        affine = grid.affine.copy()
        affine[:3, 3] += grid.affine[:3, 2] * z
        part = Volume(found[:, :, z : z + 1], affine)
        # a hair below: headers keep seven digits, and a mask on the scan's own grid stays what it is
        found[:, :, z] = (sample(mask, points(part)) >= HALF - 1e-6).reshape(found.shape[:2])
    return found
