"""Named places of the template, by tissue shares and coordinates: where in the brain a decision comes from.

No atlas of regions comes with the template, so places are rules in MNI coordinates (mm; x to the right, y forward,
z up) and tissue. They are disjoint and, with the two last ones, cover the mask; borders are good to a centimetre.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

VENTRICLE_MM = 7.0  # distance to the lateral ventricles that is periventricular
DEFINITIONS = {
    "brainstem": "within 18 mm of the midline, y from -44 to -12 mm, z from -70 to -8 mm",
    "cerebellum": "behind y = -36 mm below the tentorium, from z = -12 mm there down to -27 mm at y = -96 mm",
    "diencephalon": "within 16 mm of the midline, y from -26 to 6 mm, z from -16 to 16 mm: thalamus, hypothalamus",
    "corpus callosum": "white matter within 10 mm of the midline, y from -42 to 32 mm, z from 2 to 30 mm",
    "periventricular white matter": f"white matter within {VENTRICLE_MM:g} mm of the lateral ventricles",
    "temporal lobe": "more than 20 mm from the midline, y over -56 mm, below the line from the front of the Sylvian "
    "fissure (y 15, z -18 mm) up to its back (y -35, z 15 mm)",
    "other white matter": "more white than gray matter, nowhere above",
    "gray matter and fluid": "the rest",
}


def places(mask: np.ndarray, affine: np.ndarray, gm: np.ndarray, wm: np.ndarray) -> dict[str, np.ndarray]:
    """Return where each place is, (V,) bool over the mask's voxels, in the order of `DEFINITIONS`.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
    affine : ndarray, shape (4, 4)
        From voxel to mm, upright.
    gm, wm : ndarray of float, shape (X, Y, Z)
        Shares of gray and white matter.
    """
    x, y, z = (
        (affine[k, 3] + affine[k, k] * np.arange(n)).reshape([-1 if k == axis else 1 for axis in range(3)])
        for k, n in enumerate(mask.shape)
    )
    side, white = np.abs(x), wm > gm
    tentorium = -12 + 0.25 * (y + 36)
    fissure = np.minimum(-18 + 0.66 * (15 - y), 15)
    ventricle = lateral_ventricles(mask, affine, gm + wm)
    near = ndimage.distance_transform_edt(~ventricle, sampling=np.diag(affine)[:3]) <= VENTRICLE_MM
    rules = (
        (side <= 18) & (y >= -44) & (y <= -12) & (z >= -70) & (z <= -8),
        (y < -36) & (z < tentorium),
        (side <= 16) & (y >= -26) & (y <= 6) & (z >= -16) & (z <= 16) & (gm + wm > 0.5),
        white & (side <= 10) & (y >= -42) & (y <= 32) & (z >= 2) & (z <= 30),
        white & near & (z > -2),
        (side > 20) & (y > -56) & (z < fissure),
        white,
        np.ones((1, 1, 1), bool),
    )
    free, found = mask.copy(), {}
    for name, where in zip(DEFINITIONS, rules, strict=True):
        own = free & where
        found[name] = own[mask]
        free &= ~own
    return found


def lateral_ventricles(mask: np.ndarray, affine: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """Return the largest piece of deep fluid near the middle, (X, Y, Z) bool; ``tissue`` is gm + wm."""
    spacing = np.diag(affine)[:3]
    depth = ndimage.distance_transform_edt(mask, sampling=spacing)
    x, y, z = (
        (affine[k, 3] + affine[k, k] * np.arange(n)).reshape([-1 if k == axis else 1 for axis in range(3)])
        for k, n in enumerate(mask.shape)
    )
    box = (np.abs(x) < 40) & (y > -60) & (y < 40) & (z > -5) & (z < 32)
    pieces, count = ndimage.label(mask & (tissue < 0.6) & (depth > 15) & box)
    if not count:
        return np.zeros(mask.shape, bool)
    largest: np.ndarray = pieces == np.argmax(np.bincount(pieces.ravel())[1:]) + 1
    return largest


def halves(mask: np.ndarray, affine: np.ndarray) -> dict[str, np.ndarray]:
    """Return the left and the right half, (V,) bool over the mask's voxels; x = 0 mm is right."""
    x = affine[0, 3] + affine[0, 0] * np.argwhere(mask)[:, 0]
    return {"left": x < 0, "right": x >= 0}
