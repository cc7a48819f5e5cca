"""All lesion maps of one scan: the published one, those of the norm and of the network beside it, and a given one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

import numpy as np
from scipy import ndimage

from bids_app.image import atlas, lesion, quality, registration
from bids_app.image.geometry import part
from bids_app.image.networks import lesion_network
from bids_app.lesions import external, joint, network, normative, regions
from bids_app.lesions.kinds import BY_REGION, prefix
from bids_app.lesions.network import Network
from bids_app.records.lesions import Analysis, Given, LesionMap, Lesions
from bids_app.records.scan import Anatomy, Priors, Tissues, Volume

NONE_FOUND = "no lesion found: no voxel of the brain exceeds the threshold"
TOO_SMALL = "lesions are too small for the 3 mm grid: the normalised lesion map is empty"
DIGITS = 3  # of the probability that are kept
MARGIN = 2  # voxels about the brain: interpolation finds zeros there, as it would farther out


def find_lesions(
    anatomy: Anatomy, threshold: float, given: Given | None = None, found_by: Network | None = None
) -> Analysis:
    """Return the scan's lesion maps, in native and template space.

    Parameters
    ----------
    anatomy : Anatomy
    threshold : float
        Of the published map: lesion is where belief exceeds it.
    given : Given, optional
        A mask that another tool or a reader made.
    found_by : callable, optional
        The lesion network; the one in the package by default.

    Raises
    ------
    ScanError
        The given mask is not of this scan.
    """
    own = external.onto_grids(given, anatomy) if given else None
    brain = anatomy.fit.tissues.mask
    shape, box = brain.shape, _box(brain | own[0] if own else brain)
    inner = _cropped(anatomy, box)
    belief, brain, priors = inner.belief.native, inner.fit.tissues.mask, inner.fit.priors
    published = lesion.lesions(belief, threshold, brain)
    possible, inverse, norm = lesion.possible(belief, priors, brain), inner.fit.alignment.inverse, normative.shipped()
    over = normative.over_norm(belief, brain, priors, inverse, norm)
    by_norm, z = normative.lesions(over, belief, possible, priors, inverse, norm)
    by_network = network.find_lesions(belief, priors, brain, found_by or lesion_network())
    soft = np.round(joint.joint(by_network, over, possible), DIGITS)
    native = {
        "published": published,
        "cleaned": lesion.whole(published & possible, belief.voxel_ml, priors.wm),
        "normative": by_norm,
        "network": joint.lesions(soft, belief.data),
    }
    index = registration.indices(inner.fit.alignment.forward, belief, atlas.brain_grid(3))
    maps = _with_template(inner, native, index)
    if own:
        maps["external"] = LesionMap(own[0][box], own[1], lost(own[0][box], own[1], index))
    warped = registration.to_template(anatomy.fit.alignment.forward, belief.like(soft), atlas.brain_grid(3))
    warnings: tuple[str, ...] = ()
    if not published.any():
        warnings = (NONE_FOUND,)
    elif not maps["published"].mni.any():
        warnings = (TOO_SMALL,)
    if own and not own[0].any():
        warnings = (*warnings, external.EMPTY)
    lesions = Lesions(
        threshold=threshold,
        maps={name: replace(each, native=_whole(each.native, box, shape)) for name, each in maps.items()},
        soft=_whole(soft, box, shape),
        soft_mni=np.round(np.clip(warped, 0, 1), DIGITS),
        check=quality.check("share_over_threshold", float(published.sum() / max(brain.sum(), 1))),
        warnings=warnings,
        measures={**_measures(inner, maps), "normative_z": z},
        origin=given.origin if given else "",
    )
    return Analysis(anatomy, lesions)


def _box(brain: np.ndarray) -> tuple[slice, ...]:
    """Return the box of a mask (bool, (X, Y, Z)) with a margin: of a brain it holds a third of a head's voxels."""
    found = ndimage.find_objects(brain.astype(np.uint8))
    return tuple(slice(max(side.start - MARGIN, 0), side.stop + MARGIN) for side in found[0])


def _cropped(anatomy: Anatomy, box: tuple[slice, ...]) -> Anatomy:
    """Return what is known of the voxels in a box."""
    fit, tissues = anatomy.fit, anatomy.fit.tissues
    inner = replace(
        fit,
        flair=part(fit.flair, box),
        priors=Priors(*(getattr(fit.priors, each.name)[box] for each in fields(Priors))),
        tissues=Tissues(tissues.gm[box], tissues.wm[box], tissues.csf[box], tissues.mask[box], tissues.means),
    )
    return replace(anatomy, fit=inner, belief=replace(anatomy.belief, native=part(anatomy.belief.native, box)))


def _whole(inner: np.ndarray, box: tuple[slice, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Return a map of the whole scan that holds that of the box, and 0 elsewhere."""
    found = np.zeros(shape, inner.dtype)
    found[box] = inner
    return found


def _with_template(anatomy: Anatomy, native: Mapping[str, np.ndarray], index: np.ndarray) -> dict[str, LesionMap]:
    """Return the maps on both grids; masks are normalised after they were made, as published."""
    belief, forward, grid = anatomy.belief.native, anatomy.fit.alignment.forward, atlas.brain_grid(3)
    maps = {}
    for name, found in native.items():
        mni = registration.mask_to_template(forward, belief.like(found), grid)
        maps[name] = LesionMap(found, mni, lost(found, mni, index))
    return maps


def lost(native: np.ndarray, mni: np.ndarray, index: np.ndarray) -> int:
    """Return how many lesions (components, 26 neighbours) of a map have no voxel of the normalised map.

    Parameters
    ----------
    native : ndarray of bool, shape (X, Y, Z)
    mni : ndarray of bool, shape (A, B, C)
    index : ndarray, shape (3, A, B, C)
        Which voxel of the scan each voxel of the template falls on (`registration.indices`).
    """
    components, count = ndimage.label(native, lesion.NEIGHBOURS)
    low = np.floor(index[:, mni]).astype(int)
    seen: set[int] = set()
    for corner in np.ndindex(2, 2, 2):  # linear interpolation took the voxel from these eight
        at = low + np.reshape(corner, (3, 1))
        inside = ((at >= 0) & (at < np.reshape(native.shape, (3, 1)))).all(axis=0)
        seen |= set(np.unique(components[tuple(at[:, inside])]).tolist())
    return count - len(seen - {0})


def _measures(anatomy: Anatomy, maps: Mapping[str, LesionMap]) -> dict[str, float]:
    scan, grid = anatomy.belief.native, atlas.brain_grid(3)
    told: dict[str, float] = {}
    where = regions.on_scan(anatomy)
    for name, each in maps.items():
        told |= of_map(prefix(name), each, scan, grid)
        if name in BY_REGION:
            of_regions = regions.measures(each.native, where, scan.voxel_ml)
            told |= {f"{prefix(name)}_{key}": value for key, value in of_regions.items()}
    return told


def of_map(first: str, found: LesionMap, scan: Volume, grid: Volume) -> dict[str, float]:
    """Return volume, count, volume on the template and lesions lost on the way there, under names that begin so."""
    return {
        f"{first}_volume_ml": float(found.native.sum()) * scan.voxel_ml,
        f"{first}_count": lesion.count_lesions(found.native),
        f"{first}_volume_mni_ml": float(found.mni.sum()) * grid.voxel_ml,
        f"{first}_lost": found.lost,
    }
