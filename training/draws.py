"""Domain randomisation: made-up scans of moved, stretched and repainted heads, with their brains.

A network that has seen every tissue in every brightness has to find the brain by its shape and its place. Most
draws keep the real intensities of the brain and change what lies around it; the others make up the brightness of
every tissue (Billot et al., SynthSeg, 2023). Everything random comes from one generator: equal seeds, equal draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from bids_app.image.brain import SHAPE, SPACING, brain_level, head_level, standardise
from training import harms
from training.heads import FIRST_OUTSIDE, OUTSIDE_CLASSES, Head
from training.sampling import spread, warp

CLASSES = FIRST_OUTSIDE + OUTSIDE_CLASSES
REAL = 0.65  # of the draws keep the brain's own intensities
FLAIR = 0.85  # of the others keep the order of a FLAIR: gray, white, fluid


class Shape:
    """A head on the network's grid: ``values``, ``share``, ``depth``, ``apart`` (float32) and ``classes`` (uint8)."""

    def __init__(self, maps: np.ndarray, classes: np.ndarray) -> None:
        self.values, self.share, self.depth, self.apart = (np.ascontiguousarray(maps[..., k]) for k in range(4))
        self.classes = classes
        self.brain = self.share > 0.5


def smooth(rng: np.random.Generator, nodes: int, sd: float) -> np.ndarray:
    """Return a smooth random field on the grid, float32, by so many nodes along each axis."""
    return spread(rng.normal(0, sd, (nodes, nodes, nodes)), SHAPE)


def pose(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a random linear map (3, 3) and shift (3,) in mm from the grid's middle to the brain's."""
    tilted = rng.random() < 0.25
    angles = rng.normal(0, (20, 12, 14) if tilted else (9, 5, 5))
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    stretch = np.diag(np.exp(rng.normal(-0.02, 0.09) + rng.normal(0, 0.05, 3)))
    if rng.random() < 0.5:
        stretch[0, 0] *= -1
    shear = np.eye(3) + np.triu(rng.normal(0, 0.05, (3, 3)), 1)
    far = 2.0 if rng.random() < 0.15 else 1.0  # as the first placing by the head's outline may be
    return turn @ stretch @ shear, rng.normal(0, (6 * far, 8 * far, 11 * far))


def move(head: Head, rng: np.random.Generator) -> Shape:
    """Return a head randomly moved, turned, stretched and warped on the network's grid."""
    linear, shift = pose(rng)
    to_voxel = np.diag(1 / head.spacing)
    matrix = to_voxel @ linear * SPACING
    middle = (np.array(SHAPE) - 1) / 2
    offset = head.centre + to_voxel @ linear @ shift - matrix @ middle
    nodes = int(rng.integers(4, 8))
    strength = rng.uniform(0, 5, 3) * (rng.random() < 0.8)
    field = rng.normal(0, 1, (nodes, nodes, nodes, 3)) * (strength / head.spacing)
    low = -1e9 if head.open_below and rng.random() < 0.5 else 0.0
    return Shape(*warp(head.maps, head.classes, matrix, offset, field, SHAPE, low))


def shells(image: np.ndarray, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Return the image with scalp, marrow and bone brighter or darker, as fat and its suppression make them."""
    if rng.random() < 0.55:  # a layer under the skin
        layer = (shape.depth > 0) & (shape.depth < rng.uniform(3, 14)) & (shape.apart > rng.uniform(0, 5))
        if rng.random() < 0.5:
            factor = rng.uniform(0.1, 1) if rng.random() < 0.3 else np.exp(rng.uniform(0, 2.2))
            image = np.where(layer, image * factor, image)
        else:
            level = np.exp(rng.uniform(-1, 1.6)) * np.exp(smooth(rng, 6, 0.3))
            image = np.where(layer, level * np.clip(image + 0.4, 0.4, 1), image)
    if rng.random() < 0.4:  # a layer about the brain: fluid, bone, marrow
        first = rng.uniform(0, 6)
        layer = (shape.apart > first) & (shape.apart < first + rng.uniform(1.5, 7)) & (shape.depth > 0)
        level = rng.uniform(0, 0.3) if rng.random() < 0.5 else np.exp(rng.uniform(-1.5, 1.2))
        image = np.where(layer, level * np.exp(smooth(rng, 8, 0.4)), image)
    return image.astype(np.float32)


def patches(image: np.ndarray, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Return the image with parts outside the brain in another brightness: orbit, nose, neck, sinus."""
    where = smooth(rng, int(rng.integers(5, 14)), 1.0) > rng.uniform(0.2, 1.0)
    where &= (shape.apart > rng.uniform(0.5, 3)) & (shape.depth > 0)
    if rng.random() < 0.5:
        return np.where(where, image * np.exp(rng.normal(0, 0.8)), image).astype(np.float32)
    return np.where(where, rng.uniform(0, 1.6) * np.exp(smooth(rng, 14, 0.2)), image).astype(np.float32)


def real(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Return the real intensities with the outside of the brain dimmed or lit, class by class and place by place."""
    factor = np.exp(rng.normal(0, 0.4) + smooth(rng, 4, 0.3))
    image = np.where(shape.brain, shape.values, shape.values * factor)
    if rng.random() < 0.4:
        table = np.exp(rng.normal(0, 0.7, CLASSES)).astype(np.float32)
        table[:FIRST_OUTSIDE] = 1
        image = image * table[shape.classes]
    curve = np.exp(rng.normal(0, 0.3))
    return np.power(np.maximum(image, 0), np.float32(curve)).astype(np.float32)


def made_up(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Return a head in which the brightness of every class is made up, with a share of the real texture."""
    level = rng.uniform(0, 2.5 if rng.random() < 0.5 else 1.3, CLASSES)
    level[0] = 0 if rng.random() < 0.9 else rng.uniform(0, 0.3)
    if rng.random() < FLAIR:
        level[1:4] = 1, rng.uniform(0.6, 1.1), rng.uniform(0.05, 0.7)
    else:
        level[1:4] = rng.uniform(0.1, 1.5, 3)
    count = np.maximum(np.bincount(shape.classes.ravel(), minlength=CLASSES), 1)
    mean = np.bincount(shape.classes.ravel(), shape.values.ravel(), minlength=CLASSES) / count
    texture = np.where(shape.brain, 1.0, rng.uniform(0.3, 1.5)).astype(np.float32) * np.float32(rng.uniform(0, 1))
    table, mean = level.astype(np.float32), mean.astype(np.float32)
    image = table[shape.classes] + texture * (shape.values - mean[shape.classes])
    return harms.blur(np.maximum(image, 0), np.full(3, rng.uniform(0, 0.7)))


def lesions(image: np.ndarray, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Return the image with bright (seldom dark) spots in the brain."""
    where = shape.brain & (smooth(rng, int(rng.integers(8, 18)), 1.0) > rng.uniform(1.2, 2.4))
    factor = rng.uniform(1.1, 1.9) if rng.random() < 0.85 else rng.uniform(0.3, 0.9)
    return np.where(where, image * np.float32(factor), image)


def paint(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a made-up scan as the network sees it, and the share of brain in each voxel; (*SHAPE) float32."""
    image = real(shape, rng) if rng.random() < REAL else made_up(shape, rng)
    image = shells(image, shape, rng)
    for _ in range(int(rng.integers(0, 3))):
        image = patches(image, shape, rng)
    if rng.random() < 0.4:
        image = lesions(image, shape, rng)
    image *= np.exp(smooth(rng, 3, rng.uniform(0, 0.4)))
    image, share = harms.apply(image, shape.share, shape.depth, shape.apart, rng)
    level = brain_level(image, share) if rng.random() < 0.6 else None
    level = head_level(image[::2, ::2, ::2]) if level is None else level
    return standardise(image, level * np.exp(rng.normal(0, 0.2))), share


def draws(heads: Sequence[Head], seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield scans and brains without end; every head is as likely as every other.

    Yields
    ------
    tuple of ndarray
        Standardised image in [0, 1) and share of brain in [0, 1], both (*SHAPE) float32.
    """
    rng = np.random.default_rng(seed)
    while True:
        shape = move(heads[int(rng.integers(len(heads)))], rng)
        yield paint(shape, rng)
