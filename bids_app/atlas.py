"""The template: MNI152NLin2009aSym tissue maps from nilearn's wheel, and the synthetic FLAIR head made of them.

Registration aims at a synthetic FLAIR head rather than at the T1w template: the contrasts agree, and the
skull and scalp around the brain tell the optimiser where the brain ends.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from nilearn import datasets
from scipy import ndimage

from bids_app.records import Atlas, Volume

FLAIR_SIGNAL = {"gm": 1.0, "wm": 0.8, "csf": 0.25}  # relative to GM
SHELLS = ((2.0, 0.25), (7.0, 0.08), (12.0, 0.5))  # outer radius (mm) and signal: fluid, bone, scalp


def _volume(image: object) -> Volume:
    return Volume(np.asarray(image.get_fdata(dtype=np.float32)), np.asarray(image.affine))  # type: ignore[attr-defined]


@cache
def brain_grid(resolution: int = 3) -> Volume:
    """Return the brain mask (bool) on the template's grid: 67 x 79 x 64 with 69,765 voxels at 3 mm."""
    mask = _volume(datasets.load_mni152_brain_mask(resolution=resolution))
    return mask.like(mask.data > 0.5)


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
    head = synthetic_head(gm, wm, csf, brain)
    return Atlas(*(mask.like(data.astype(np.float32)) for data in (head, gm, wm, csf, brain)))


def synthetic_head(gm: np.ndarray, wm: np.ndarray, csf: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Return a FLAIR head (GM = 1) of tissue shares (X, Y, Z) at 1 mm: brain, fluid rim, bone and scalp."""
    head = brain_signal(gm, wm, csf)
    reach = int(SHELLS[-1][0]) + 1  # no shell leaves the brain's box and this margin: half the image
    near = tuple(
        slice(max(box.start - reach, 0), box.stop + reach) for box in ndimage.find_objects(brain.astype(np.uint8))[0]
    )
    distance = ndimage.distance_transform_edt(~brain[near])
    inner = 0.0
    for outer, signal in SHELLS:
        head[near][(distance > inner) & (distance <= outer)] = signal
        inner = outer
    return head


def brain_signal(gm: np.ndarray, wm: np.ndarray, csf: np.ndarray) -> np.ndarray:
    """Return the synthetic FLAIR (GM = 1) of tissue shares, any shape."""
    return FLAIR_SIGNAL["gm"] * gm + FLAIR_SIGNAL["wm"] * wm + FLAIR_SIGNAL["csf"] * csf
