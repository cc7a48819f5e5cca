"""Gray matter belief map, lesion map, and the sums that pool.

The belief map is the relative intensity of the published method, ``B(v) = (F(v) - m) / m`` with m the mean of F
over gray matter: unbounded, about 0 in gray matter. A lesion is where B exceeds a threshold inside the brain.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bids_app.errors import ScanError
from bids_app.records.scan import Moments, Priors, Tissues, Volume

GM_PRIOR = 0.7  # voxels whose atlas GM share exceeds this give the GM mean: no lesion can bias their choice
SD_FACTOR = 2.54  # threshold = mean + 2.54 SD, as published
BORDER_MM = 3.0
DEEP_MM = 20.0
WM_SHARE = 0.25
SMALLEST_MM3 = 10.0
NEIGHBOURS = np.ones((3, 3, 3), bool)


def gm_mean(scan: Volume, priors: Priors, tissues: Tissues) -> float:
    """Return the mean FLAIR intensity over gray matter.

    Raises
    ------
    ScanError
        No gray matter inside the field of view, or its mean is not positive.
    """
    gray = tissues.mask & (priors.gm > GM_PRIOR)
    mean = float(scan.data[gray].mean()) if gray.any() else 0.0
    if mean <= 0:
        raise ScanError("no gray matter in the field of view", remedy="is the scan a whole brain?")
    return mean


def belief(scan: Volume, mean: float, brain: np.ndarray) -> Volume:
    """Return the belief map (float32): ``(F - mean) / mean`` in the brain, 0 outside."""
    return scan.like(np.where(brain, (scan.data - mean) / mean, 0).astype(np.float32))


def moments(values: np.ndarray, tissues: np.ndarray) -> Moments:
    """Return count, sum and sum of squares of ``values`` over GM and WM (dseg 1 and 2).

    "Brain" must mean tissue here: with fluid the spread doubles and no longer resembles the published one.
    """
    inside = values[(tissues == 1) | (tissues == 2)].astype(np.float64)
    return Moments(int(inside.size), float(inside.sum()), float((inside**2).sum()))


def threshold_of(pooled: Moments) -> float:
    """Return the published threshold, mean + 2.54 SD of the pooled belief."""
    return pooled.mean + SD_FACTOR * pooled.sd


def lesions(belief_map: Volume, threshold: float, brain: np.ndarray) -> np.ndarray:
    """Return the published lesion map: belief above the threshold, inside the brain; bool, (X, Y, Z)."""
    found: np.ndarray = (belief_map.data > threshold) & brain
    return found


def possible(grid: Volume, priors: Priors, brain: np.ndarray) -> np.ndarray:
    """Return where a lesion may be, bool (X, Y, Z): not in the outermost 3 mm of the brain, nor in deep fluid.

    There lie choroid plexus, septum and flow. Not in the published method, whose authors blame false positives for the
    low sensitivity; of what is left, `whole` keeps the components that may be lesions.
    """
    depth = _depth(brain, grid.spacing)
    fluid = (priors.csf > 0.5) & (depth > DEEP_MM)
    found: np.ndarray = (depth > BORDER_MM) & ~fluid
    return found


def whole(candidates: np.ndarray, voxel_ml: float, wm: np.ndarray) -> np.ndarray:
    """Return the components (26 neighbours) of at least 10 mm3 and a quarter of white matter by the atlas."""
    labels, count = ndimage.label(candidates, NEIGHBOURS)
    if not count:
        return candidates
    size = np.bincount(labels.ravel(), minlength=count + 1)
    white = np.bincount(labels.ravel(), weights=wm.ravel().astype(float), minlength=count + 1)
    keep = (size * voxel_ml * 1000 >= SMALLEST_MM3) & (white >= WM_SHARE * size)
    keep[0] = False
    kept: np.ndarray = keep[labels]
    return kept


def _depth(brain: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Return the distance (mm, float32) of the brain's voxels to the nearest one outside it; 0 outside."""
    depth = np.zeros(brain.shape, np.float32)
    for box in ndimage.find_objects(brain.astype(np.uint8)):
        # one voxel more on each side holds a nearest voxel outside: the rest of the image need not be searched
        wide = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        depth[wide] = ndimage.distance_transform_edt(brain[wide], sampling=spacing)
    return depth


def count_lesions(lesion_map: np.ndarray) -> int:
    """Return the number of connected components (26 neighbours)."""
    return int(ndimage.label(lesion_map, NEIGHBOURS)[1])
