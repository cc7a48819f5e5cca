"""Maps as small volumes for a network: cut to the brain's box, standardised, and moved a little at random."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bids_app.recommended.features import box_of

SHIFT = 2  # voxels: the farthest that a scan is moved along each axis


class Maps(NamedTuple):
    """Maps of n scans over the V voxels of a brain.

    ``mask`` (X, Y, Z) bool; ``lesions`` (n, V) bool or shares; ``belief`` (n, V) float where it is asked for.
    """

    mask: np.ndarray
    lesions: np.ndarray
    belief: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Maps:
        """Return the maps of some scans."""
        return Maps(self.mask, self.lesions[rows], None if self.belief is None else self.belief[rows])


class Scale(NamedTuple):
    """What belief is measured from and in: its mean (V,) over training participants, and its SD about that."""

    mean: np.ndarray
    sd: float


def scale(maps: Maps, person: np.ndarray) -> Scale:
    """Return the scale of belief over scans (n,) of these participants, each weighing the same.

    Examples
    --------
    >>> belief = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    >>> found = scale(Maps(np.ones((2, 1, 1), bool), belief > 2, belief), np.array([0, 0, 1]))
    >>> found.mean.tolist()
    [0.5, 0.0]
    """
    if maps.belief is None:
        return Scale(np.zeros(int(maps.mask.sum()), np.float32), 1.0)
    weights = 1 / np.bincount(person)[person]
    weights /= weights.sum()
    mean = (weights @ maps.belief).astype(np.float32)
    squares = sum(w * float(np.mean((row - mean) ** 2)) for w, row in zip(weights, maps.belief, strict=True))
    return Scale(mean, float(np.sqrt(squares)) or 1.0)


def away(maps: Maps, by: Scale) -> np.ndarray:
    """Return how far each scan's belief is from the mean, root mean square in SD (n,); none where it is not seen."""
    belief = by.mean[None][:0] if maps.belief is None else maps.belief
    return np.array([float(np.sqrt(np.mean((row - by.mean) ** 2))) / by.sd for row in belief])


def volumes(maps: Maps, by: Scale) -> np.ndarray:
    """Return the box about the brain, (n, channels, x, y, z) float32: lesions, then belief on its scale; 0 outside."""
    inside = maps.mask[box_of(maps.mask)]
    found = np.zeros((len(maps.lesions), 1 if maps.belief is None else 2, *inside.shape), np.float32)
    found[:, 0][:, inside] = maps.lesions
    if maps.belief is not None:
        found[:, 1][:, inside] = (maps.belief - by.mean) / np.float32(by.sd)
    return found


def moved(of: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return volumes (n, channels, x, y, z), each shifted by up to `SHIFT` voxels an axis, every second mirrored.

    Zeros enter at the side that a shift leaves, and what leaves at the other is lost.
    """
    wide = np.pad(of, [(0, 0), (0, 0), *[(SHIFT, SHIFT)] * 3])
    found = np.empty_like(of)
    for row, volume in enumerate(wide):
        starts = rng.integers(0, 2 * SHIFT + 1, 3)
        place = tuple(slice(start, start + n) for start, n in zip(starts, of.shape[2:], strict=True))
        cut = volume[(slice(None), *place)]
        found[row] = cut[:, ::-1] if rng.random() < 0.5 else cut
    return found
