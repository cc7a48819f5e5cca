"""The template: MNI152NLin2009aSym tissue maps from nilearn's wheel, and the synthetic FLAIR brain made of them.

Registration aims at a synthetic FLAIR rather than at the T1w template, since the contrasts agree; and at a brain
rather than at a head, since heads differ in their fat, and a brain registered to a brain does not see it.
"""

from __future__ import annotations

from dataclasses import fields
from functools import cache

import numpy as np
from nilearn import datasets
from scipy import ndimage

from bids_app.image.geometry import coarser, part
from bids_app.records.scan import Atlas, Volume

FLAIR_SIGNAL = {"gm": 1.0, "wm": 0.8, "csf": 0.25}  # relative to GM


def _volume(image: object) -> Volume:
    return Volume(np.asarray(image.get_fdata(dtype=np.float32)), np.asarray(image.affine))  # type: ignore[attr-defined]


@cache
def brain_grid(resolution: int = 3) -> Volume:
    """Return the brain mask (bool) on the template's grid: 67 x 79 x 64 with 69,765 voxels at 3 mm."""
    mask = _volume(datasets.load_mni152_brain_mask(resolution=resolution))
    return mask.like(mask.data > 0.5)


def on_grid(values: np.ndarray, outside: float = 0) -> Volume:
    """Return values (V,) of the brain's voxels at 3 mm as a volume of their type, ``outside`` elsewhere.

    The inverse of taking a volume's voxels by the mask of `brain_grid`.

    Examples
    --------
    >>> brain = brain_grid(3).data
    >>> ranks = np.arange(brain.sum())
    >>> bool((on_grid(ranks).data[brain] == ranks).all())
    True
    """
    grid = brain_grid(3)
    full = np.full(grid.data.shape, outside, values.dtype)
    full[grid.data] = values
    return grid.like(full)


@cache
def background(resolution: int = 1) -> Volume:
    """Return nilearn's T1w template, brain only, as a background for figures."""
    image = _volume(datasets.load_mni152_template(resolution=resolution))
    return image.like(image.data * brain_grid(resolution).data)


@cache
def load() -> Atlas:
    """Return the template maps at 1 mm, (197, 233, 189) voxels."""
    mask = brain_grid(1)
    brain = ndimage.binary_fill_holes(mask.data)
    gm = np.clip(_volume(datasets.load_mni152_gm_template(resolution=1)).data, 0, 1) * brain
    wm = np.clip(_volume(datasets.load_mni152_wm_template(resolution=1)).data, 0, 1) * brain
    over = np.maximum(gm + wm, 1)
    gm, wm = gm / over, wm / over
    csf = (1 - gm - wm) * brain
    flair = brain_signal(gm, wm, csf)
    return Atlas(*(mask.like(data.astype(np.float32)) for data in (flair, gm, wm, csf, brain)))


@cache
def target(spacing: float, margin: float = 4.0) -> Volume:
    """Return the synthetic FLAIR of the brain at ``spacing`` mm, cut to the brain's box and ``margin`` mm about it."""
    atlas = load()
    return coarser(part(atlas.flair, _brain_box(atlas.mask.data, int(np.ceil(margin)))), spacing)


@cache
def inner() -> Atlas:
    """Return the template maps at 1 mm in the box that holds what of them is not 0, half of their voxels."""
    atlas = load()
    box = _brain_box(atlas.mask.data, 2)
    return Atlas(*(part(getattr(atlas, each.name), box) for each in fields(Atlas)))


def _brain_box(mask: np.ndarray, margin: int) -> tuple[slice, ...]:
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    return tuple(
        slice(max(side.start - margin, 0), min(side.stop + margin, n))
        for side, n in zip(found, mask.shape, strict=True)
    )


def brain_signal(gm: np.ndarray, wm: np.ndarray, csf: np.ndarray) -> np.ndarray:
    """Return the synthetic FLAIR (GM = 1) of tissue shares, any shape."""
    return FLAIR_SIGNAL["gm"] * gm + FLAIR_SIGNAL["wm"] * wm + FLAIR_SIGNAL["csf"] * csf


def at_3mm(data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Mean of the 1 mm voxels in each 3 mm voxel; the two grids share the centre of their first voxel."""
    after = [3 * m - n - 1 for m, n in zip(shape, data.shape, strict=True)]
    padded = np.pad(data, [(1, extra) for extra in after])
    blocks = padded.reshape(shape[0], 3, shape[1], 3, shape[2], 3)
    mean: np.ndarray = blocks.mean(axis=(1, 3, 5), dtype=np.float32)
    return mean
