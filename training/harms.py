"""What scanners, anonymisers and other tools do to a scan: blur, thick slices, noise, cuts, defacing, stripping."""

from __future__ import annotations

import numpy as np

from bids_app.image.brain import SPACING
from training.sampling import along

STRIPPED, DEFACED = 0.24, 0.12  # of the draws


def gaussian(length: int, sigma: float) -> np.ndarray:
    """Return the matrix (length, length) that blurs by a Gaussian of ``sigma`` voxels; every row sums to 1."""
    place = np.arange(length)
    weight = np.exp(-0.5 * ((place[:, None] - place) / max(sigma, 1e-3)) ** 2)
    return (weight / weight.sum(1, keepdims=True)).astype(np.float32)


def slab(length: int, thick: float, phase: float) -> np.ndarray:
    """Return the matrix (length, length) of slices ``thick`` voxels deep, interpolated linearly between them.

    ``phase`` in [0, 1) moves the slices by that share of their thickness.
    """
    number = int(np.ceil(length / thick)) + 2
    middle = (np.arange(number) - 0.5 - phase) * thick
    place = np.arange(length)
    within = np.clip(thick / 2 + 0.5 - np.abs(place - middle[:, None]), 0, 1)  # share of a voxel inside the slice
    total = within.sum(1, keepdims=True)
    seen = total[:, 0] > 0
    middle, within = middle[seen], within[seen] / total[seen]
    between = np.maximum(0, 1 - np.abs(place[:, None] - middle) / thick)
    between /= np.maximum(between.sum(1, keepdims=True), 1e-6)
    return (between @ within).astype(np.float32)


def blur(image: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Return the image blurred by ``sigma`` (3,) voxels along its axes; axes under 0.2 stay."""
    for axis in range(3):
        if sigma[axis] >= 0.2:
            image = along(gaussian(image.shape[axis], float(sigma[axis])), image, axis)
    return image


def thick_slices(image: np.ndarray, share: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return image and brain as slices of 3-8 mm show them: mostly axial, else sagittal or coronal."""
    axis = 2 if rng.random() < 0.6 else int(rng.integers(2))
    matrix = slab(image.shape[axis], rng.uniform(3, 8) / SPACING, rng.random())
    return along(matrix, image, axis), along(matrix, share, axis)


def noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the magnitude of the image with complex noise (Rician), or with noise of one channel."""
    sd = np.float32(rng.uniform(0, 0.1))
    first = image + sd * rng.standard_normal(image.shape, np.float32)
    if rng.random() < 0.5:
        return np.abs(first)
    return np.sqrt(first**2 + (sd * rng.standard_normal(image.shape, np.float32)) ** 2)


def cut(image: np.ndarray, share: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return image and brain with nothing beyond a plane near the brain's edge: the field of view ends there."""
    where = np.argwhere(share[::2, ::2, ::2] > 0.5) * 2
    if len(where) == 0:
        return image, share
    axis = 2 if rng.random() < 0.8 else int(rng.integers(2))
    first, last = int(where[:, axis].min()), int(where[:, axis].max())
    keep = np.ones(image.shape[axis], np.float32)
    if rng.random() < 0.55:
        keep[: max(int(first + rng.uniform(-14, 6)), 0)] = 0
    else:
        keep[int(last + rng.uniform(-4, 6)) :] = 0
    keep = keep.reshape([-1 if k == axis else 1 for k in range(3)])
    return image * keep, share * keep


def strip(image: np.ndarray, share: np.ndarray, apart: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the image with exact zeros outside the brain, or outside a rim about it."""
    if rng.random() < 0.5:
        return image * (share > rng.uniform(0.2, 0.6))
    return image * ((apart < rng.uniform(0, 4)) | (share > 0.5))


def deface(image: np.ndarray, depth: np.ndarray, apart: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the image with the face removed or blurred, or with all that is no head set to zero."""
    way = rng.random()
    if way > 0.75:
        return image * (depth > 0)
    inside = np.argwhere(apart[::2, ::2, ::2] < 0) * 2
    if len(inside) == 0:
        return image
    front, bottom = inside[:, 1].max(), inside[:, 2].min()
    y, z = np.arange(image.shape[1])[:, None], np.arange(image.shape[2])
    plane = (y - front) * rng.uniform(0.5, 1.2) - (z - bottom) * rng.uniform(0.3, 1.0) > rng.uniform(-8, 8)
    face = plane & (apart > rng.uniform(1, 5))
    if way < 0.5:
        return np.where(face, np.float32(0), image)
    return np.where(face, blur(image, rng.uniform(2, 6, 3)), image)


def wrap(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the image with a faint copy of itself moved along one axis: aliasing or a ghost."""
    axis = int(rng.integers(3))
    half = image.shape[axis] * rng.uniform(0.3, 0.7)
    return image + np.float32(rng.uniform(0.05, 1.0) ** 2) * np.roll(image, int(half), axis)


def apply(
    image: np.ndarray, share: np.ndarray, depth: np.ndarray, apart: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return image and share of brain after a random choice of harms, each with its probability."""
    if rng.random() < 0.1:
        image = wrap(image, rng)
    how = rng.random()
    early = rng.random() < 0.5  # before the slices were made thick, as in a template's space, or after
    if how < STRIPPED and early:
        image = strip(image, share, apart, rng)
    elif how > 1 - DEFACED:
        image = deface(image, depth, apart, rng)
    if rng.random() < 0.5:
        image, share = thick_slices(image, share, rng)
    if rng.random() < 0.6:
        image = blur(image, rng.uniform(0, 0.9, 3) * (rng.random(3) < 0.5))
    if rng.random() < 0.85:
        image = noise(image, rng)
    if how < STRIPPED and not early:
        image = strip(image, share, apart, rng)
    if rng.random() < 0.25:
        image, share = cut(image, share, rng)
    if rng.random() < 0.08:
        top = max(float(image.max()), 1e-6)
        image = np.round(image / top * rng.uniform(30, 255)) * np.float32(top / 255)
    return np.ascontiguousarray(image, np.float32), np.ascontiguousarray(np.clip(share, 0, 1), np.float32)
