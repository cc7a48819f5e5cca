"""A head moved, stretched and warped on the network's grid: all its maps in one pass."""

from __future__ import annotations

import numba
import numpy as np


def interpolation(nodes: int, length: int) -> np.ndarray:
    """Return the matrix (length, nodes), float32, that interpolates evenly spaced nodes linearly.

    >>> interpolation(2, 3).tolist()
    [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    place = np.linspace(0, nodes - 1, length)
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(nodes))).astype(np.float32)


def along(matrix: np.ndarray, data: np.ndarray, axis: int) -> np.ndarray:
    """Return ``data`` (float32) with ``matrix`` (new, old) applied along one axis."""
    if axis == 0:
        return (matrix @ data.reshape(data.shape[0], -1)).reshape(matrix.shape[0], *data.shape[1:])
    if axis == 1:
        return np.matmul(matrix, data)
    return data @ matrix.T


def spread(nodes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return node values (a, b, c) interpolated linearly on a grid of ``shape`` that they span."""
    data = nodes.astype(np.float32)
    for axis in (2, 1, 0):
        data = along(interpolation(nodes.shape[axis], shape[axis]), data, axis)
    return data


@numba.njit(fastmath=True)
def _cell(place, size):  # type: ignore[no-untyped-def]
    first = int(np.floor(place))
    if first < 0:
        first = 0
    if first > size - 2:
        first = size - 2
    return first, np.float32(place - first)


@numba.njit(fastmath=True)
def _warp(maps, classes, matrix, offset, field, low, out, kinds):  # type: ignore[no-untyped-def]
    a, b, c, channels = out.shape
    x, y, z = maps.shape[:3]
    na, nb, nc = field.shape[:3]
    moved = np.empty(3, np.float32)
    for i in range(a):
        fi, ui = _cell(i * (na - 1) / (a - 1), na)
        for j in range(b):
            fj, uj = _cell(j * (nb - 1) / (b - 1), nb)
            for k in range(c):
                fk, uk = _cell(k * (nc - 1) / (c - 1), nc)
                for d in range(3):
                    v = matrix[d, 0] * i + matrix[d, 1] * j + matrix[d, 2] * k + offset[d]
                    for p in range(2):
                        for q in range(2):
                            for r in range(2):
                                w = (ui if p else 1 - ui) * (uj if q else 1 - uj) * (uk if r else 1 - uk)
                                v += w * field[fi + p, fj + q, fk + r, d]
                    moved[d] = v
                if moved[2] < 0 and moved[2] >= low:
                    moved[2] = 0  # below the field of view: its lowest slice again, as if a neck went on
                inside = 0 <= moved[0] <= x - 1 and 0 <= moved[1] <= y - 1 and 0 <= moved[2] <= z - 1
                if not inside:
                    for m in range(channels):
                        out[i, j, k, m] = 0
                    out[i, j, k, 3] = 99
                    kinds[i, j, k] = 0
                    continue
                fx, ux = _cell(moved[0], x)
                fy, uy = _cell(moved[1], y)
                fz, uz = _cell(moved[2], z)
                for m in range(channels):
                    out[i, j, k, m] = 0
                for p in range(2):
                    wp = ux if p else 1 - ux
                    for q in range(2):
                        wq = wp * (uy if q else 1 - uy)
                        for r in range(2):
                            w = wq * (uz if r else 1 - uz)
                            for m in range(channels):
                                out[i, j, k, m] += w * maps[fx + p, fy + q, fz + r, m]
                kinds[i, j, k] = classes[
                    fx + (1 if ux > 0.5 else 0), fy + (1 if uy > 0.5 else 0), fz + (1 if uz > 0.5 else 0)
                ]


def warp(
    maps: np.ndarray,
    classes: np.ndarray,
    matrix: np.ndarray,
    offset: np.ndarray,
    field: np.ndarray,
    shape: tuple[int, int, int],
    low: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return maps (linear) and classes (nearest) of a head at the voxels of a grid.

    Parameters
    ----------
    maps : ndarray, shape (X, Y, Z, 4), float32
        Intensity, brain share, depth below the head's surface, distance from the brain; 0, 0, 0 and 99 outside.
    classes : ndarray, shape (X, Y, Z), uint8
    matrix, offset : ndarray, shapes (3, 3) and (3,)
        Voxel of the grid to voxel of the head, before ``field`` is added.
    field : ndarray, shape (a, b, c, 3)
        Displacements at nodes that span the grid, in voxels of the head.
    shape : tuple
        Of the grid.
    low : float
        Voxels down to this (negative) third index show the lowest slice.

    Returns
    -------
    tuple of ndarray
        Maps (*shape, 4) float32 and classes (*shape) uint8.
    """
    out = np.empty((*shape, maps.shape[3]), np.float32)
    kinds = np.empty(shape, np.uint8)
    floats = [np.ascontiguousarray(a, np.float32) for a in (matrix, offset, field)]
    _warp(maps, classes, floats[0], floats[1], floats[2], np.float32(low), out, kinds)
    return out, kinds
