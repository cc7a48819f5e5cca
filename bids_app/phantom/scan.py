"""A made-up FLAIR: every voxel is mapped to the template, where a head with lesions is sampled.

The map is affine and a smooth warp; the truth masks go through the same map. The head is richer than the
registration's target on purpose: face, neck, textured scalp, lesions, bias field, noise and thick slices are not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bids_app.image import atlas
from bids_app.phantom import cohort
from bids_app.phantom.records import Blob, PhantomMap, PhantomScan
from bids_app.records.scan import Volume

NECK = 30  # mm that the head continues below the template's grid
FOV = 232.0  # mm, in plane
SNR, BIAS, GAIN = 30.0, 0.25, 300.0
# ellipsoids that fill what the shells around the brain leave out: centre and semi-axes, mm
FACE, NASAL, ORBIT, NECK_TRUNK = (
    ((0, 34, -62), (58, 48, 58)),
    ((0, 58, -52), (13, 24, 26)),
    ((31, 60, -38), (13, 13, 13)),
    ((0, -40, -100), (62, 58, 75)),
)
VENTRICLE = np.array([[18.0, 26.0, 10.0], [26.0, -42.0, 16.0]])  # from frontal to occipital horn, right side


@cache
def head() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the FLAIR head (GM = 1), the share of tissue that is not fluid, and the template's origin, mm.

    The arrays (197, 233, 189 + NECK) are at 1 mm, grown downwards.
    """
    maps, below = atlas.load(), ((0, 0), (0, 0), (NECK, 0))
    # squared shares: a template is a mean of many people, and one person's borders are sharper
    squares = {name: getattr(maps, name).data ** 2 for name in atlas.FLAIR_SIGNAL}
    total = np.maximum(sum(squares.values()), 1e-6)
    inside = sum(signal * squares[name] for name, signal in atlas.FLAIR_SIGNAL.items()) / total
    mask = np.pad(maps.mask.data > 0.5, below)
    origin = maps.mask.affine[:3, 3] - [0, 0, NECK]
    coarse = _outside(mask[::2, ::2, ::2], origin)
    outside = ndimage.zoom(coarse, np.array(mask.shape) / coarse.shape, order=1)  # odd sizes: ends coincide
    tissue = np.pad((squares["gm"] + squares["wm"]) / total, below).astype(np.float32)
    return np.where(mask, np.pad(inside, below), outside).astype(np.float32), tissue, origin


def _outside(brain: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Fluid, bone, scalp, face and neck around a brain mask (X, Y, Z) at 2 mm."""
    near = ndimage.distance_transform_edt(~brain, sampling=2.0) <= 16
    closed = ndimage.distance_transform_edt(near, sampling=2.0) > 16  # bridges fissures, as skulls do
    away = ndimage.distance_transform_edt(~(closed | brain), sampling=2.0)
    rng = np.random.default_rng(0)  # one head for all: what differs between people is the map
    fine, rough = (_texture(rng, brain.shape, sigma) for sigma in (1.0, 2.5))
    x, y, z = (axis * 2.0 + start for axis, start in zip(np.indices(brain.shape), origin, strict=True))

    def soft(shape: Any, width: float = 0.06) -> np.ndarray:
        (cx, cy, cz), (rx, ry, rz) = shape
        radius = np.sqrt(((np.abs(x) - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2)
        return np.clip((1 - radius) / width + 0.5, 0, 1)

    spots = np.clip(fine - 1.6, 0, 1) * 2.5  # vessels and fat, brighter than any brain
    scalp = (np.clip(0.66 + 0.12 * fine, 0.45, 0.9) + spots) * np.interp(away, [6, 8, 11, 13], [0, 1, 1, 0])
    head = 0.25 * np.interp(away, [1, 3], [1, 0]) + 0.06 * np.interp(away, [1, 3, 6, 8], [0, 1, 1, 0]) + scalp
    flesh = np.clip(0.3 + 0.16 * rough + 0.06 * fine, 0.04, 0.9)
    for part in (FACE, NECK_TRUNK):
        share = soft(part) * np.interp(away, [5, 8], [0, 1])
        head += share * (flesh - head) * (head < flesh)
    for part, signal in ((NASAL, 0.04), (ORBIT, 0.18)):
        head += soft(part, 0.15) * (away > 5) * (signal - head)
    return head.astype(np.float32)


def _texture(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """Smooth noise of mean 0 and SD 1."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), sigma, mode="wrap")
    scaled: np.ndarray = (noise - noise.mean()) / max(float(noise.std()), 1e-12)
    return scaled


def draw_blobs(rng: np.random.Generator, number: int, group: int) -> list[Blob]:
    """Draw lesions at the sites of a group (0 RRMS, 1 NMOSD); near the ventricles ovoid and pointing away."""
    grid = atlas.brain_grid(3)
    voxels, radii = cohort.draw_spots(rng, number, group, effect=1.5)
    blobs = []
    for index, radius in zip(np.argwhere(grid.data)[voxels], radii, strict=True):
        centre = 3.0 * index + grid.affine[:3, 3] + rng.uniform(-1.5, 1.5, 3)
        start, end = VENTRICLE * np.array([1.0 if centre[0] > 0 else -1.0, 1, 1])
        along = np.clip(np.dot(centre - start, end - start) / np.dot(end - start, end - start), 0, 1)
        away = centre - (start + along * (end - start))
        ovoid = group == 0 and np.linalg.norm(away) < 22
        direction = away if ovoid else rng.standard_normal(3)
        stretch = rng.uniform(1.4, 2.0) if ovoid else rng.uniform(1.0, 1.3)
        unit = direction / np.linalg.norm(direction)
        blobs.append(Blob(centre, unit, radius, stretch, rng.uniform(1.45, 1.8), int(rng.integers(2**31))))
    return blobs


def paint(blobs: Sequence[Blob]) -> tuple[np.ndarray, np.ndarray]:
    """Return the head with these lesions, and the lesion mask, on the grid of `head`."""
    plain, tissue, origin = head()
    signal, mask = plain.copy(), np.zeros(plain.shape, bool)
    for blob in blobs:
        reach = int(np.ceil(blob.radius * blob.elongation)) + 4
        low = np.maximum(np.rint(blob.centre - origin).astype(int) - reach, 0)
        box = tuple(slice(a, a + 2 * reach + 1) for a in low)
        offset = np.moveaxis(np.indices(plain[box].shape), 0, -1) + low + origin - blob.centre
        squared = (offset**2).sum(-1) - (1 - blob.elongation**-2) * (offset @ blob.direction) ** 2
        ragged = 0.15 * _texture(np.random.default_rng(blob.seed), squared.shape, 2.0)
        radius = blob.radius * blob.elongation ** (-1 / 3)  # same volume
        share = np.clip((1 + ragged) * radius - np.sqrt(np.maximum(squared, 0)) + 0.5, 0, 1)
        share = ndimage.gaussian_filter(share, 0.8) * tissue[box]
        signal[box] += share * (blob.signal - signal[box])
        mask[box] |= share >= 0.5
    return signal, mask


def draw_map(rng: np.random.Generator) -> PhantomMap:
    """Draw a head: size 0.85-1.1 of the template's, turned by up to 8 degrees, shifted, warped by up to 3 mm.

    The warp's derivative is at most 4 x 0.75 x 2 pi / 100 = 0.19 in each of nine entries, 0.57 as a matrix,
    and the affine shrinks no vector below 1 / 1.1 = 0.91: their sum is injective, so the map can be inverted.
    """
    size = (0.87 + 0.2 * rng.beta(1.5, 3)) * rng.uniform(0.98, 1.02, 3)  # mostly small: the template is large
    number = 2 * np.pi / rng.uniform(100, 220, (4, 3))
    warp = rng.uniform(-0.75, 0.75, (4, 3)), number, rng.uniform(0, 2 * np.pi, (4, 3))
    return repose(PhantomMap(np.diag(1 / size), np.zeros(3), *warp), rng)


def repose(place: PhantomMap, rng: np.random.Generator) -> PhantomMap:
    """Turn and shift a head anew, as between two sessions."""
    axis = rng.standard_normal(3)
    turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * rng.uniform(0, 4), degrees=True)
    return replace(place, matrix=place.matrix @ turn.as_matrix(), centre=place.centre + rng.uniform(-8, 8, 3))


def to_template(place: PhantomMap, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Map the points of a rectangular grid, world mm along each axis, to the template: (3, X, Y, Z) mm."""
    axes = (x, y, z)
    straight = np.stack(np.meshgrid(*(a - c for a, c in zip(axes, place.centre, strict=True)), indexing="ij"))
    waves = (np.cos(place.number[:, k, None] * a + place.phase[:, k, None]) for k, a in enumerate(axes))
    warp = np.einsum("ji,jx,jy,jz->ixyz", place.amplitude, *waves, optimize=True)
    moved: np.ndarray = np.einsum("ik,kxyz->ixyz", place.matrix, straight) + warp
    return moved


def scan(
    blobs: Sequence[Blob], place: PhantomMap, spacing: tuple[float, float, float], rng: np.random.Generator
) -> PhantomScan:
    """Make an axial FLAIR, stored as LPS; a voxel is the mean over its slice's thickness.

    ``spacing`` in mm. A mask holds the voxels of which at least half, through the slice, is inside.
    """
    signal, lesion = paint(blobs)
    origin = head()[2]
    brain = np.pad(atlas.load().mask.data > 0.5, ((0, 0), (0, 0), (NECK, 0)))
    tall = 190 / place.matrix[2, 2]  # from the foramen magnum to the vertex
    shape = [round(FOV / spacing[0]), round(FOV / spacing[1]), round(tall / spacing[2])]
    corner = np.array([FOV / 2, FOV / 2 - 12, -88 / place.matrix[2, 2]])
    first = place.centre + corner + rng.uniform(-2, 2, 3)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = first.round(2)
    x, y, z = (affine[i, 3] + affine[i, i] * np.arange(n) for i, n in enumerate(shape))
    parts = int(np.ceil(spacing[2] / 1.5))
    through = ((np.arange(parts) + 0.5) / parts - 0.5) * spacing[2]
    image, masks = np.zeros(shape, np.float32), np.zeros((2, *shape), bool)
    for k, level in enumerate(z):
        index = to_template(place, x, y, level + through) - origin[:, None, None, None]
        image[..., k] = ndimage.map_coordinates(signal, index, np.float32, order=1).mean(axis=-1)
        near = np.rint(index).astype(int)
        held = [near[i].clip(0, n - 1) for i, n in enumerate(signal.shape)]
        for mask, truth in zip(masks, (brain, lesion), strict=True):
            mask[..., k] = truth[tuple(held)].mean(axis=-1) >= 0.5  # the grid's border is never in a mask
    stored = Volume(_acquire(image, rng), affine)
    grid = atlas.brain_grid(3).data
    return PhantomScan(stored, masks[0], masks[1], (atlas.at_3mm(lesion[..., NECK:], grid.shape) >= 0.5) & grid)


def _acquire(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add texture, coil bias field and Rician noise, and store as a scanner does."""
    coarse = _texture(rng, tuple(n // 4 + 2 for n in image.shape), 0.7)
    grain = ndimage.zoom(coarse, np.array(image.shape) / coarse.shape, order=1)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in image.shape), indexing="ij", sparse=True)
    a = rng.uniform(-1, 1, 6)
    field = a[0] * x + a[1] * y + a[2] * z + a[3] * x * y + a[4] * (x**2 + y**2) + a[5] * z**2
    field = BIAS * (field - field.mean()) / np.ptp(field)
    clean = image * (1 + 0.06 * grain) * np.exp(field)
    noise = rng.standard_normal((2, *image.shape), np.float32) / SNR
    magnitude = np.hypot(clean + noise[0], noise[1])
    if rng.random() < 0.5:  # some scanners store no air
        magnitude *= ndimage.uniform_filter(image, (5, 5, 1)) > 0.02
    stored = np.int16 if rng.random() < 0.5 else np.uint16
    return np.rint(GAIN * rng.uniform(0.7, 1.4) * magnitude).astype(stored)
