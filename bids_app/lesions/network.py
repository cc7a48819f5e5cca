"""Lesions by a small network that looks at three neighbouring slices at a time, on any grid.

Slices are taken along the axis with the largest voxels, thin ones averaged to slabs as thick as a clinical slice, and
brought to 1 mm in their plane. The answers to each slice and to its mirror image are averaged and interpolated on the
scan's voxels. What the network sees is made here, so that training (`training/lesions`) makes the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from bids_app.records.scan import Priors, Volume

IN_PLANE = 1.0  # mm, of the network's grid
THIN_MM = 2.0  # slices thinner than this are averaged to slabs
SLAB_MM = 3.0  # of about this thickness
STRIDE_MM = 2.0  # thin slices: between the middles of slabs that the network sees; those between are interpolated
ANISOTROPIC = 1.25  # an axis with voxels larger by this than any other is that of the slices; else they are axial
MULTIPLE = 16  # the size of the network's grid is one of this
MARGIN = 6  # of its voxels about the brain
WHITE = 0.8  # atlas share of white matter where its belief is looked up
OUTSIDE, HIGHEST = -1.0, 1.3  # standardised belief outside the brain, and at most

Network = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Slabs:
    """How slices are cut: their ``axis``, voxels averaged to one slab (``thick``), and between slabs (``stride``)."""

    axis: int
    thick: int
    stride: int


def slabs_of(spacing: np.ndarray) -> Slabs:
    """Return how a scan with voxels of ``spacing`` (3,) mm is cut.

    >>> slabs_of(np.array([0.8, 0.8, 4.4])), slabs_of(np.ones(3))
    (Slabs(axis=2, thick=1, stride=1), Slabs(axis=2, thick=3, stride=2))
    """
    largest = int(np.argmax(spacing))
    axis = largest if spacing[largest] > ANISOTROPIC * np.sort(spacing)[1] else 2
    size = float(spacing[axis])
    if size >= THIN_MM:
        return Slabs(axis, 1, 1)
    return Slabs(axis, max(round(SLAB_MM / size), 1), max(round(STRIDE_MM / size), 1))


def standardised(belief: np.ndarray, wm: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Return the belief less its median over white matter, float32, cut at 1.3, -1 outside the brain."""
    white = belief[(wm > WHITE) & brain]
    level = float(np.median(white)) if white.size else 0.0
    return np.where(brain, np.clip(belief - level, OUTSIDE, HIGHEST), OUTSIDE).astype(np.float32)


def find_lesions(belief: Volume, priors: Priors, brain: np.ndarray, network: Network) -> np.ndarray:
    """Return the probability that a voxel is lesion.

    Parameters
    ----------
    belief : Volume
        Gray matter belief map; canonical (see `geometry`), so that the first axis is left-right.
    priors : Priors
        Atlas maps on the same grid, of which white matter and fluid are used.
    brain : ndarray, shape (X, Y, Z), bool
    network : callable
        From channels (6, A, B), float32, to logits (A, B): standardised belief of a slice and its two neighbours
        (before, it, after), shares of white matter and of fluid, and the brain. A and B are multiples of 16.

    Returns
    -------
    ndarray, shape (X, Y, Z), float32
        In [0, 1]; 0 outside the brain.
    """
    found = np.zeros(brain.shape, np.float32)
    if not brain.any():
        return found
    maps = (standardised(belief.data, priors.wm, brain), priors.wm, priors.csf, brain.astype(np.float32))
    cut = slabs_of(belief.spacing)
    for mirrored in (False, True):
        seen = [np.moveaxis(m[::-1] if mirrored else m, cut.axis, 2) for m in maps]
        answer = np.moveaxis(_answers(seen, np.delete(belief.spacing, cut.axis), cut, network), 2, cut.axis)
        found += (answer[::-1] if mirrored else answer) / 2
    return np.clip(found * brain, 0, 1)


def _answers(maps: list[np.ndarray], spacing: np.ndarray, cut: Slabs, network: Network) -> np.ndarray:
    """Return probabilities (X, Y, Z), slices along the last axis; ``spacing`` (2,) is that in the plane."""
    shape, box = maps[0].shape, ndimage.find_objects(maps[3].astype(np.uint8))[0]
    into = [to_plane(n, size, side) for n, size, side in zip(shape[:2], spacing, box[:2], strict=True)]
    back = [from_plane(n, size, side) for n, size, side in zip(shape[:2], spacing, box[:2], strict=True)]
    first, last = box[2].start, box[2].stop
    middles = sorted({*range(first, last, cut.stride), last - 1})

    @lru_cache(maxsize=3)  # of the belief, a slice is seen beside two others
    def belief(middle: int) -> np.ndarray:
        return brought(_slab(maps[0], middle, cut.thick, OUTSIDE), OUTSIDE)

    def brought(slab: np.ndarray, outside: float) -> np.ndarray:
        plane: np.ndarray = into[0] @ (slab - outside) @ into[1].T + outside
        return plane

    answers = []
    for middle in middles:
        parts = [belief(middle + side * cut.thick) for side in (-1, 0, 1)]
        parts += [brought(_slab(m, middle, cut.thick, 0.0), 0.0) for m in maps[1:]]
        logit = network(np.stack(parts))
        probability = 1 / (1 + np.exp(-np.clip(logit, -30, 30)))
        answers.append(back[0] @ probability @ back[1].T)
    whole = np.zeros(shape, np.float32)
    place = np.interp(np.arange(first, last), middles, np.arange(len(middles)))
    for z, where in zip(range(first, last), place, strict=True):
        low, share = int(where), where - int(where)
        whole[..., z] = answers[low] * (1 - share) + (answers[low + 1] * share if share else 0)
    return whole


def _slab(data: np.ndarray, middle: int, thick: int, outside: float) -> np.ndarray:
    """Return the mean (X, Y) of ``thick`` slices about ``middle``; ``outside`` where the image has none."""
    first = middle - (thick - 1) // 2
    part = data[..., max(first, 0) : max(first + thick, 0)]
    total = part.sum(axis=2, dtype=np.float32) + np.float32(outside * (thick - part.shape[2]))
    return total / np.float32(thick)


def to_plane(length: int, size: float, side: slice) -> np.ndarray:
    """Return the matrix (new, length) that brings ``length`` voxels of ``size`` mm to the network's grid.

    Linear where it refines, by triangles as wide as the new voxels where it coarsens. The grid has a multiple of
    `MULTIPLE` voxels about the middle of the brain's ``side``; rows beyond the image are 0.
    """
    place = _places(size, side)
    reach = max(IN_PLANE / size, 1.0)
    weight = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(length)) / reach)
    inside = (place > -0.5) & (place < length - 0.5)
    total = np.where(inside, np.maximum(weight.sum(1), 1e-6), np.inf)
    return (weight / total[:, None]).astype(np.float32)


def from_plane(length: int, size: float, side: slice) -> np.ndarray:
    """Return the matrix (length, new), linear, that brings the network's grid back; 0 where it does not reach."""
    place = _places(size, side)
    wanted = (np.arange(length) - place[0]) * size / IN_PLANE
    return np.maximum(0, 1 - np.abs(wanted[:, None] - np.arange(len(place)))).astype(np.float32)


def _places(size: float, side: slice) -> np.ndarray:
    """Return where the voxels of the network's grid lie, in voxels of the scan."""
    wide = (side.stop - side.start) * size / IN_PLANE + 2 * MARGIN
    number = int(np.ceil(wide / MULTIPLE)) * MULTIPLE
    middle = (side.start + side.stop - 1) / 2
    return middle + (np.arange(number) - (number - 1) / 2) * IN_PLANE / size
