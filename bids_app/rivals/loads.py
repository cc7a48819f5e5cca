"""Regional lesion loads: how much of a lesion map lies where, as few numbers that trees can split."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bids_app.lesions.places import halves, lateral_ventricles, places

DISTANCES = (3.0, 7.0, 15.0, 30.0)  # mm from the lateral ventricles: upper ends of the rings, and beyond the last
INFRATENTORIAL = ("brainstem", "cerebellum")


def regions(mask: np.ndarray, affine: np.ndarray, gm: np.ndarray, wm: np.ndarray) -> dict[str, np.ndarray]:
    """Return where each region is, (V,) bool over the mask's voxels: regions overlap.

    Tissues (the largest share), rings of distance to the lateral ventricles, and the named places of
    `lesions.places`, among them the corpus callosum, each left and right; and all that is infratentorial.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
    affine : ndarray, shape (4, 4)
        From voxel to mm, upright.
    gm, wm : ndarray of float, shape (X, Y, Z)
        Shares of gray and white matter.
    """
    fluid = 1 - gm - wm
    named = places(mask, affine, gm, wm)
    ventricles = lateral_ventricles(mask, affine, gm + wm)
    away = ndimage.distance_transform_edt(~ventricles, sampling=np.diag(affine)[:3])[mask]
    whole = {
        "white matter": ((wm >= gm) & (wm >= fluid))[mask],
        "gray matter": ((gm > wm) & (gm >= fluid))[mask],
        "fluid": ((fluid > wm) & (fluid > gm))[mask],
    }
    low = 0.0
    for high in (*DISTANCES, np.inf):
        name = f"{low:g} to {high:g} mm from the ventricles" if np.isfinite(high) else f"beyond {low:g} mm"
        whole[name] = (away > low) & (away <= high) if low else away <= high
        low = high
    whole |= named
    sides = halves(mask, affine)
    found = {f"{name}, {side}": where & half for name, where in whole.items() for side, half in sides.items()}
    found["infratentorial"] = np.any([named[name] for name in INFRATENTORIAL], axis=0)
    return found


def loads(maps: np.ndarray, of: dict[str, np.ndarray]) -> np.ndarray:
    """Return log(1 + sum of the map) in each region and in all, (N + 1, R + 1); last a scan without lesions.

    ``maps`` (N, V): lesion maps, bool or shares from 0 to 1.
    """
    where = np.stack([*of.values(), np.ones(maps.shape[1], bool)]).astype(np.float32)
    sums = np.stack([where @ each.astype(np.float32) for each in maps])
    return np.log1p(np.concatenate([sums, np.zeros((1, len(where)), np.float32)]).astype(float))
