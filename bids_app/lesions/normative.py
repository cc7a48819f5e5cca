"""Belief against the norm of its place: the published idea, mean + 2.54 SD, at every place of the brain.

The norm is the median and the MAD of other people's belief at each place of the template, with the mirror image of
everybody added: a lesion that few have is left out by the median, and few have it on both sides. A scan is compared on
its own grid (or on the template's), after the median offset of its white matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from typing import IO, NamedTuple

import numpy as np
from scipy import ndimage

from bids_app.errors import BadInputError
from bids_app.image import atlas, lesion, registration
from bids_app.lesions.kinds import BRIGHT, CUT
from bids_app.records.lesions import Norm
from bids_app.records.scan import Priors, Volume

FILE = "norm.npz"
RESOLUTION = 2  # mm, of the norm in the package
SD_PER_MAD = 1.4826  # of a normal distribution
SMOOTH_MM = 1.0  # SD of the norm's smoothing
LEAST_SHARE = 0.5  # of the people: where fewer were seen nothing is known
STEP, LOWEST = np.float32(0.0075), np.float32(-1.0)  # of the stored median, in 8 bits
STEP_SPREAD = np.float32(0.0025)

SCAN_SMOOTH_MM = 0.7  # SD of the difference's smoothing: less than a voxel on most scans
GROW, SEED = CUT["normative"], 0.4  # difference that belongs to a lesion, and that some voxel of it must reach
LEAST_SPREAD = 0.03  # of the belief at a place: less is chance in a few people
WHITE = 0.8  # atlas share of white matter whose median offset is taken off
NEAR = 0.15  # white matter farther from its median is lesion, or none
SLAB = 8  # planes worked on at a time


def estimate(beliefs: Sequence[np.ndarray], grid: Volume) -> Norm:
    """Return the norm of people's belief, everybody once and once mirrored.

    Parameters
    ----------
    beliefs : sequence of ndarray, shape (X, Y, Z)
        Of one person each, on the template's ``grid``; nan where it was not seen.
    grid : Volume
        Upright; x = 0 mm is the plane between the halves.

    Raises
    ------
    BadInputError
        There is nobody.
    """
    if not beliefs:
        raise BadInputError("a norm needs somebody's belief map", "normative", "give scans")
    shape = grid.data.shape
    centre, spread, seen = (np.zeros(shape, np.float32) for _ in range(3))
    both = [each for belief in beliefs for each in (belief, mirrored(belief, grid))]
    for start in range(0, shape[2], SLAB):
        slab = (slice(None), slice(None), slice(start, start + SLAB))
        values = np.ma.masked_invalid(np.stack([each[slab] for each in both]))
        middle = np.ma.median(values, axis=0)
        centre[slab] = middle.filled(0)
        spread[slab] = SD_PER_MAD * np.ma.median(np.abs(values - middle), axis=0).filled(0)
        seen[slab] = values.count(axis=0) / len(both)
    known = (seen >= LEAST_SHARE) & grid.data.astype(bool)
    sigma = SMOOTH_MM / grid.spacing
    return Norm(grid.like(_smoothed(centre, known, sigma)), grid.like(_smoothed(spread, known, sigma)), known)


def mirrored(belief: np.ndarray, grid: Volume) -> np.ndarray:
    """Return the mirror image at x = 0 mm, linear, nan where it is not known.

    Examples
    --------
    >>> grid = Volume(np.ones((3, 1, 1)), np.diag([2.0, 2, 2, 1]) - np.eye(4, k=3) * 2)
    >>> mirrored(np.array([[[1.0]], [[2]], [[5]]]), grid).ravel().tolist()
    [5.0, 2.0, 1.0]
    """
    step, first = grid.affine[0, 0], grid.affine[0, 3]
    index = -2 * first / step - np.arange(len(belief))  # of the mirror image's voxels
    low = np.floor(index + 1e-6).astype(int)
    share = (index - low).astype(np.float32).reshape(-1, 1, 1)
    padded = np.concatenate([belief, np.full((1, *belief.shape[1:]), np.nan, belief.dtype)])

    def taken(at: np.ndarray) -> np.ndarray:
        rows: np.ndarray = padded[np.where((at >= 0) & (at < len(belief)), at, len(belief))]
        return rows

    whole = np.abs(share) < 1e-4
    found: np.ndarray = np.where(whole, taken(low), (1 - share) * taken(low) + share * taken(low + 1))
    return found


def _smoothed(values: np.ndarray, known: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    weight = ndimage.gaussian_filter(known.astype(np.float32), sigma)
    smooth = ndimage.gaussian_filter(np.where(known, values, 0), sigma)
    found: np.ndarray = np.where(known, smooth / np.maximum(weight, 1e-6), 0).astype(np.float32)
    return found


# -- one scan ------------------------------------------------------------------------------------


def difference(belief: np.ndarray, centre: np.ndarray, white: np.ndarray) -> np.ndarray:
    """Return how far belief is over the norm, after the median offset of white matter.

    Parameters
    ----------
    belief, centre : ndarray, same shape
    white : ndarray of bool
        Voxels of white matter in the brain. Lesions among them do not move the offset: it is the median of what
        lies near it.
    """
    over = belief - centre
    values = over[white]
    offset = np.median(values) if values.size else np.float32(0)
    for _ in range(10):
        near = values[np.abs(values - offset) < NEAR]
        offset = np.median(near) if near.size else offset
    found: np.ndarray = over - offset
    return found


def z_of(over: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return the difference in standard deviations of its place."""
    z: np.ndarray = over / np.maximum(spread, LEAST_SPREAD)
    return z


class Over(NamedTuple):
    """How far belief is over the norm on a scan's grid, smoothed, (X, Y, Z), and where there is a norm, bool."""

    difference: np.ndarray
    known: np.ndarray


def over_norm(belief: Volume, brain: np.ndarray, priors: Priors, inverse: str, norm: Norm) -> Over:
    """Return how far a scan's belief is over the norm.

    Parameters
    ----------
    belief : Volume
    brain : ndarray, shape (X, Y, Z), bool
        Where the scan is compared.
    priors : Priors
        Atlas maps on the same grid.
    inverse : str
        File of the transform from template to scan.
    norm : Norm
    """
    centre, known = (
        registration.carried(inverse, each, belief, brain)
        for each in (norm.centre, norm.centre.like(norm.known.astype(np.float32)))
    )
    inside = brain & (known > 0.5)
    over = np.where(inside, difference(belief.data, centre, inside & (priors.wm > WHITE)), 0)
    return Over(ndimage.gaussian_filter(over, SCAN_SMOOTH_MM / belief.spacing), inside)


def lesions(
    over: Over, belief: Volume, possible: np.ndarray, priors: Priors, inverse: str, norm: Norm
) -> tuple[np.ndarray, float]:
    """Return the normative lesion map of a scan, bool (X, Y, Z), and the median z in it (0 where it is empty).

    Left out are components under 10 mm3, those of little white matter by the atlas (`lesion.whole`), and those without
    a voxel that is far over the norm and brighter than gray matter.

    Parameters
    ----------
    over : Over
    belief : Volume
    possible : ndarray, shape (X, Y, Z), bool
        Where a lesion may be (`lesion.possible`).
    priors, inverse, norm
        As in `over_norm`.
    """
    found = lesion.whole(over.known & (over.difference > GROW) & possible, belief.voxel_ml, priors.wm)
    found = with_seed(found, seeds(over.difference, belief.data))
    if not found.any():
        return found, 0.0
    spread = registration.carried(inverse, norm.spread, belief, found)
    return found, float(np.median(z_of(over.difference[found], spread[found])))


def seeds(difference: np.ndarray, belief: np.ndarray) -> np.ndarray:
    """Return where a lesion may start, bool: far over the norm, and brighter than gray matter.

    Where the template is a little off, tissue lies at a place of fluid and beats its norm without being bright.
    """
    found: np.ndarray = (difference > SEED) & (belief > BRIGHT)
    return found


def with_seed(found: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Return the components of a map (26 neighbours) that hold a seed."""
    labels, count = ndimage.label(found, lesion.NEIGHBOURS)
    keep = np.zeros(count + 1, bool)
    keep[np.unique(labels[found & seeds])] = True
    keep[0] = False
    kept: np.ndarray = keep[labels]
    return kept


# -- the norm in the package ---------------------------------------------------------------------


def packed(norm: Norm) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays that a norm is stored as, by name, in 8 bits; the inverse of `unpacked`."""
    known = norm.known
    yield "known", np.packbits(known)
    yield "shape", np.array(known.shape, np.int16)
    yield "centre", np.clip(np.round((norm.centre.data[known] - LOWEST) / STEP), 0, 255).astype(np.uint8)
    yield "spread", np.clip(np.round(norm.spread.data[known] / STEP_SPREAD), 0, 255).astype(np.uint8)


def unpacked(stream: IO[bytes]) -> Norm:
    """Return a norm on the template's 2 mm grid from the stream of an ``.npz`` file.

    Raises
    ------
    BadInputError
        It lies on another grid.
    """
    grid = atlas.brain_grid(RESOLUTION)
    with np.load(stream, allow_pickle=False) as stored:
        shape = tuple(int(n) for n in stored["shape"])
        if shape != grid.data.shape:
            raise BadInputError(f"the norm lies on a grid of {shape}", FILE, "make it anew: python -m training norm")
        known = np.unpackbits(stored["known"], count=grid.data.size).astype(bool).reshape(shape)
        values = (LOWEST + STEP * stored["centre"], STEP_SPREAD * stored["spread"])
    maps = [np.zeros(shape, np.float32) for _ in values]
    for each, own in zip(maps, values, strict=True):
        each[known] = own
    return Norm(grid.like(maps[0]), grid.like(maps[1]), known)


@cache
def shipped() -> Norm:
    """Return the norm in the package, read once a process."""
    with resources.files("bids_app").joinpath("weights", FILE).open("rb") as stream:
        return unpacked(stream)
