"""Slabs cut out of a case: three neighbouring slices as a scanner of another slice thickness would have made them."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from scipy.spatial.transform import Rotation

from training.sampling import interpolation

SHAPE = (160, 192)  # of a draw, at 1 mm
PLANES = ((0, 1, 2), (1, 2, 0), (0, 2, 1))  # axes in the plane and across it: axial, sagittal, coronal
TURNED = 0.08  # of draws from isotropic scans are sagittal or coronal
ISOTROPIC_MM = 2.0  # thinner slices can be cut anew in any direction
THICK_MM = (1.0, 5.5)


def smooth(rng: np.random.Generator, nodes: int, sd: float) -> np.ndarray:
    """Return a smooth random field of `SHAPE`, float32: ``nodes`` normal values a side, interpolated."""
    values = rng.normal(0, sd, (nodes, nodes)).astype(np.float32)
    return interpolation(nodes, SHAPE[0]) @ values @ interpolation(nodes, SHAPE[1]).T


@dataclass(frozen=True)
class Slab:
    """Where a slab lies in a scan, in its voxels.

    Voxel (i, j) of the draw at ``height`` mm is ``start + i first + j second + height normal`` plus ``field`` (a, b, 2)
    along first and second. The three slices lie at -1, 0 and 1 ``step`` mm, each the mean over ``parts`` heights.
    """

    start: np.ndarray
    first: np.ndarray
    second: np.ndarray
    normal: np.ndarray
    field: np.ndarray
    step: float
    parts: np.ndarray

    def moved(self, shift: np.ndarray, scale: float) -> Slab:
        """Return the slab moved by ``shift`` (3,) voxels and scaled about its middle: what it shows is moved back."""
        middle = self.start + self.first * (SHAPE[0] - 1) / 2 + self.second * (SHAPE[1] - 1) / 2
        start = middle + (self.start - middle) * scale + shift
        first, second = self.first * scale, self.second * scale
        return Slab(start, first, second, self.normal * scale, self.field, self.step, self.parts)

    def cut(self, volume: np.ndarray, outside: float = 0.0, slices: tuple[int, ...] = (0,)) -> np.ndarray:
        """Return the volume (X, Y, Z) on the slices asked for: (len(slices), *SHAPE), float32, linear."""
        vectors = np.stack([self.start, self.first, self.second, self.normal]).astype(np.float32)
        heights = [(self.parts + side * self.step).astype(np.float32) for side in slices]
        return np.stack([_cut(volume, vectors, self.field, height, np.float32(outside)) for height in heights])


@numba.njit(fastmath=True)
def _cut(volume, vectors, field, heights, outside):  # type: ignore[no-untyped-def]
    a, b = field.shape[:2]
    out = np.zeros((a, b), np.float32)
    x, y, z = volume.shape
    flat, one = volume.ravel(), np.float32(1)
    share, half = one / np.float32(len(heights)), np.float32(0.5)
    top_x, top_y, top_z = np.float32(x - 1.001), np.float32(y - 1.001), np.float32(z - 1.001)
    for i in range(a):
        for j in range(b):
            u, v = np.float32(i) + field[i, j, 0], np.float32(j) + field[i, j, 1]
            p0 = vectors[0, 0] + u * vectors[1, 0] + v * vectors[2, 0]
            q0 = vectors[0, 1] + u * vectors[1, 1] + v * vectors[2, 1]
            r0 = vectors[0, 2] + u * vectors[1, 2] + v * vectors[2, 2]
            total = np.float32(0)
            for h in heights:
                p, q, r = p0 + h * vectors[3, 0], q0 + h * vectors[3, 1], r0 + h * vectors[3, 2]
                if p < -half or q < -half or r < -half or p > x - half or q > y - half or r > z - half:
                    total += outside
                    continue
                p, q, r = min(max(p, np.float32(0)), top_x), min(max(q, np.float32(0)), top_y), max(r, np.float32(0))
                r = min(r, top_z)
                i0, j0, k0 = int(p), int(q), int(r)
                fp, fq, fr = p - np.float32(i0), q - np.float32(j0), r - np.float32(k0)
                first = np.uint64((i0 * y + j0) * z + k0)
                next_j, next_i = first + np.uint64(z), first + np.uint64(y * z)
                both, up = next_i + np.uint64(z), np.uint64(1)
                low = (flat[first] * (one - fp) + flat[next_i] * fp) * (one - fq)
                low += (flat[next_j] * (one - fp) + flat[both] * fp) * fq
                high = (flat[first + up] * (one - fp) + flat[next_i + up] * fp) * (one - fq)
                high += (flat[next_j + up] * (one - fp) + flat[both + up] * fp) * fq
                total += low * (one - fr) + high * fr
            out[i, j] = share * total
    return out


def place(centre: np.ndarray, levels: tuple[np.ndarray, ...], spacing: np.ndarray, rng: np.random.Generator) -> Slab:
    """Return a random slab of a scan with voxels of ``spacing`` (3,) mm, its brain about the voxel ``centre`` (3,).

    ``levels`` are the voxels along each axis through which it may go. Thin slices are averaged to slabs of 1 to 5.5 mm
    in any tilt. Of thick slices (along the third axis) those at hand are taken, or, in half of the draws, mixtures of
    two neighbours: slices that are thicker still.
    """
    isotropic = spacing.max() < ISOTROPIC_MM
    axes = PLANES[int(rng.integers(1, 3)) if isotropic and rng.random() < TURNED else 0]
    middle = centre.copy()
    middle[axes[2]] = rng.choice(levels[axes[2]])
    angles = rng.normal(0, (12.0, 7.0, 7.0) if isotropic else (12.0, 0.0, 0.0))
    turn = Rotation.from_euler("ZXY", angles, degrees=True).as_matrix()
    scale = np.exp(rng.normal(0, 0.07) + rng.normal(0, [0.03, 0.03, 0.0]))
    scale[0] *= -1 if rng.random() < 0.5 else 1
    vectors = np.zeros((3, 3))
    vectors[:, list(axes)] = (turn * scale).T
    if isotropic:
        thick = rng.uniform(*THICK_MM)
        number = max(round(thick / 1.3), 1)
        parts, step = ((np.arange(number) + 0.5) / number - 0.5) * thick, thick * rng.uniform(1, 1.25)
    else:
        vectors[2] = (0, 0, 1)
        mixed = rng.random() < 0.5
        middle = middle + np.array([0, 0, rng.uniform(-0.5, 0.5) if mixed else 0])
        parts, step = np.zeros(1), spacing[2] * (rng.uniform(0.9, 1.5) if mixed else 1.0)
    vectors = vectors / spacing
    shift = rng.normal(0, 5, 2) - (np.array(SHAPE) - 1) / 2
    start = middle + vectors[0] * shift[0] + vectors[1] * shift[1]
    strength = rng.uniform(0, 3)
    field = np.stack([smooth(rng, 6, strength), smooth(rng, 6, strength)], -1)
    return Slab(start, vectors[0], vectors[1], vectors[2], field, float(step), parts)
