"""Where lesions are: the regions that the criteria of multiple sclerosis speak of, as labels of the template.

Every voxel of the template's brain has one region, so volumes by region sum to the volume of the map; a lesion counts
where most of it lies. Borders are those of a template, good to some millimetres on a scan.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import ndimage

from bids_app.image import atlas, lesion, registration
from bids_app.lesions.kinds import CORTEX_MM, DEEP, REGIONS
from bids_app.lesions.places import DEFINITIONS as PLACES
from bids_app.lesions.places import lateral_ventricles, places
from bids_app.records.scan import Anatomy, Volume

RESOLUTION = 2  # mm, of the labels
OUTSIDE = len(REGIONS) - 1  # what no label reaches counts as elsewhere


@cache
def template() -> Volume:
    """Return the labels on the template's grid at 2 mm, uint8: 0 outside the brain, then `REGIONS` from 1."""
    grid, maps = atlas.brain_grid(RESOLUTION), atlas.load()
    every = (slice(None, None, RESOLUTION),) * 3  # the grids share their first voxel
    return grid.like(labels(grid.data, grid.affine, maps.gm.data[every], maps.wm.data[every]))


def labels(mask: np.ndarray, affine: np.ndarray, gm: np.ndarray, wm: np.ndarray) -> np.ndarray:
    """Return the region of every voxel of ``mask`` (X, Y, Z), uint8 from 1 in the order of `REGIONS`, else 0.

    ``gm`` and ``wm`` are shares of gray and white matter on the mask's grid, upright with ``affine``.
    """
    named = {name: np.zeros(mask.shape, bool) for name in PLACES}
    for name, inside in places(mask, affine, gm, wm).items():
        named[name][mask] = inside
    x, y, z = (
        (affine[k, 3] + affine[k, k] * np.arange(n)).reshape([-1 if k == axis else 1 for axis in range(3)])
        for k, n in enumerate(mask.shape)
    )
    within = [(low <= axis) & (axis <= high) for (low, high), axis in zip(DEEP, (x, y, z), strict=True)]
    white, tissue = mask & (wm > gm) & (wm > 1 - gm - wm), gm + wm
    cortex = mask & (gm >= wm) & (gm > 1 - tissue) & ~(within[0] & within[1] & within[2])
    near = ndimage.distance_transform_edt(~cortex, sampling=np.diag(affine)[:3]) <= CORTEX_MM
    rules = (
        named["brainstem"] | named["cerebellum"],
        named["corpus callosum"],
        named["periventricular white matter"] | lateral_ventricles(mask, affine, tissue),
        cortex | (white & near),
        white,
        mask,
    )
    found = np.zeros(mask.shape, np.uint8)
    for label, where in enumerate(rules, 1):
        found[mask & where & (found == 0)] = label
    return found


def on_scan(anatomy: Anatomy) -> np.ndarray:
    """Return the region of every voxel of a scan's brain, uint8 (X, Y, Z); nearest label, else `OUTSIDE`."""
    brain, scan = anatomy.fit.tissues.mask, anatomy.belief.native
    found = registration.carried(anatomy.fit.alignment.inverse, template(), scan, brain, nearest=True)
    return np.where(brain & (found > 0), found - 1, OUTSIDE).astype(np.uint8)


def measures(found: np.ndarray, where: np.ndarray, voxel_ml: float) -> dict[str, float]:
    """Return volume (ml) and number of lesions by region.

    Parameters
    ----------
    found : ndarray of bool, shape (X, Y, Z)
        Lesion map; its components (26 neighbours) are the lesions.
    where : ndarray of int, shape (X, Y, Z)
        Region of each voxel, from 0 in the order of `REGIONS`.

    Examples
    --------
    >>> two = np.array([[[True, True, True, False, True]]])
    >>> told = measures(two, np.array([[[0, 1, 1, 5, 5]]]), 0.5)
    >>> told["infratentorial_volume_ml"], told["corpus_callosum_volume_ml"], told["corpus_callosum_count"]
    (0.5, 1.0, 1)
    """
    n = len(REGIONS)
    components, count = ndimage.label(found, lesion.NEIGHBOURS)
    voxels = np.bincount(where[found].astype(int), minlength=n)
    shares = np.zeros((count + 1, n), int)
    np.add.at(shares, (components[found], where[found]), 1)
    most = np.bincount(shares[1:].argmax(axis=1), minlength=n)
    told: dict[str, float] = {}
    for name, volume, number in zip(REGIONS, voxels, most, strict=True):
        told |= {f"{name}_volume_ml": float(volume) * voxel_ml, f"{name}_count": int(number)}
    return told
