"""What is bright and no lesion, painted into slabs as such: the network has to learn to leave it alone.

Rims and caps of the ventricles, haze, flow in fluid, choroid plexus and septum, bright cortex, what a brain mask takes
in at its border, ghosts of motion.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from training.lesions.slabs import SHAPE, smooth

FLUID = -0.35  # standardised belief: what is darker is fluid


@dataclass(frozen=True)
class Scene:
    """What lies where in the middle slice: standardised belief, atlas shares, brain; all (*SHAPE)."""

    belief: np.ndarray
    gm: np.ndarray
    wm: np.ndarray
    csf: np.ndarray
    brain: np.ndarray

    @cached_property
    def from_ventricles(self) -> np.ndarray:
        """Distance (mm) from fluid deep in the brain; large where the slice shows none."""
        fluid = (self.belief < FLUID) & (self.csf > 0.3) & (self.from_border > 15)
        return ndimage.distance_transform_edt(~fluid) if fluid.any() else np.full(SHAPE, 99.0)

    @cached_property
    def from_border(self) -> np.ndarray:
        """Distance (mm) of the brain's voxels from the nearest outside it."""
        return ndimage.distance_transform_edt(self.brain > 0.5)


def _patchy(rng: np.random.Generator, nodes: int, least: float = 0.0) -> np.ndarray:
    """Return a smooth field in [0, 1], 0 over about half of the slice (more with larger ``least``)."""
    return np.clip(smooth(rng, nodes, 0.8) - least, 0, 1)


def _blob(rng: np.random.Generator, where: np.ndarray, sizes: tuple[float, float]) -> np.ndarray:
    """Return a Gaussian, 1 at its middle, at one of ``where`` (n, 2), with drawn axes (mm)."""
    middle, turn = where[rng.integers(len(where))], rng.uniform(0, np.pi)
    i, j = (axis - m for axis, m in zip(np.ogrid[: SHAPE[0], : SHAPE[1]], middle, strict=True))
    u, v = i * np.cos(turn) + j * np.sin(turn), j * np.cos(turn) - i * np.sin(turn)
    a, b = rng.uniform(*sizes, 2)
    return np.exp(-0.5 * ((u / a) ** 2 + (v / b) ** 2))


def rim(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Return a thin bright line along the ventricles, patchy."""
    away = scene.from_ventricles
    line = np.exp(-(((away - rng.uniform(0.8, 1.6)) / rng.uniform(0.6, 1.2)) ** 2)) * (away > 0)
    return line * rng.uniform(0.15, 0.6) * _patchy(rng, 8, -0.4)


def haze(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Return a faint brightness that fades away from the ventricles, or anywhere in the white matter."""
    if rng.random() < 0.6:
        fading = np.exp(-scene.from_ventricles / rng.uniform(2.5, 9)) * (scene.from_ventricles > 0)
        return fading * rng.uniform(0.06, 0.3) * _patchy(rng, 6, -0.3)
    where = np.argwhere(scene.wm > 0.5)
    total = np.zeros(SHAPE)
    for _ in range(int(rng.integers(1, 4)) if len(where) else 0):
        total += rng.uniform(0.04, 0.18) * _blob(rng, where, (4, 16))
    return total


def flow(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Return bright patches in fluid: ventricles, cisterns, the posterior fossa."""
    fluid = np.clip((FLUID + 0.1 - scene.belief) / 0.2, 0, 1) * (scene.brain > 0.5)
    where, total = np.argwhere(fluid > 0.5), np.zeros(SHAPE)
    for _ in range(int(rng.integers(1, 4)) if len(where) else 0):
        total += _blob(rng, where, (1.5, 6)) * rng.uniform(0.3, 1.4)
    return np.minimum(total, 1.6) * fluid


def plexus(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Return bright threads and clumps in and at the ventricles: choroid plexus, septum."""
    near = scene.from_ventricles < 1.5
    where, total = np.argwhere(near), np.zeros(SHAPE)
    for _ in range(int(rng.integers(1, 4)) if len(where) else 0):
        total += _blob(rng, where, (0.7, 5)) * rng.uniform(0.3, 1.3)
    return total * near


def cortex(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Return brightness of gray matter, in parts of the slice: cortex, insula, deep nuclei."""
    return scene.gm * np.clip(0.4 + smooth(rng, 5, 0.6), 0, 1.2) * rng.uniform(0.05, 0.3)


def border(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Return what a generous mask takes in at its border: scalp, orbit, vessels."""
    depth = rng.uniform(1, 6)
    edge = np.clip(depth - scene.from_border + 0.5, 0, 1) * (scene.brain > 0.5)
    return edge * _patchy(rng, 6, 0.4) * rng.uniform(0.3, 2.0)


def fossa(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Return a broad brightness as of coils or of pulsation across the slice."""
    where = np.argwhere(scene.brain > 0.5)
    return _blob(rng, where, (10, 30)) * rng.uniform(0.05, 0.22) if len(where) else np.zeros(SHAPE)


def ghost(slices: np.ndarray, brain: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the slices with a faint copy of themselves moved along one axis, as motion leaves it."""
    axis, far = 1 + int(rng.integers(2)), int(rng.integers(8, 60)) * (1 if rng.random() < 0.5 else -1)
    moved = np.roll((slices + 1) * brain, far, axis)
    sharp = moved - ndimage.gaussian_filter(moved, (0, 6, 6)) if rng.random() < 0.5 else moved - 0.6 * brain
    return slices + np.float32(rng.uniform(0.03, 0.15)) * sharp


ADDED = ((rim, 0.3), (haze, 0.45), (flow, 0.35), (plexus, 0.3), (cortex, 0.35), (border, 0.35), (fossa, 0.25))


def add(slices: np.ndarray, scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Return slices (3, *SHAPE) with a random choice of artefacts, each with its probability, weaker in neighbours."""
    for artefact, probability in ADDED:
        if rng.random() < probability:
            there = rng.uniform(0.2, 1.1, 3)
            there[1] = 1
            slices = slices + (there[:, None, None] * artefact(scene, rng)).astype(np.float32)
    if rng.random() < 0.2:
        slices = ghost(slices, (scene.brain > 0.5).astype(np.float32), rng)
    return slices
