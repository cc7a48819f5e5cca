"""Features of the recommended recipe: square roots of smoothed lesion maps, the left half folded on the right.

Smoothing and folding are one linear map A, a matrix along each axis, so a feature is ``sqrt((A m)_h)`` of a lesion
map m. The square root makes the product of two scans that of Hellinger's distance: what counts is where lesions
are, and a place with ten lesions counts less than ten times as much as one with a single lesion.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bids_app.errors import BadInputError
from bids_app.records.recommended import Kind

CHUNK = 64  # scans smoothed at a time: 40 MB in single precision
HALF = 0.5  # of a soft map: what is more probable is lesion
SD_PER_FWHM = 1 / np.sqrt(8 * np.log(2))


class Projection(NamedTuple):
    """The linear map A of one kind, from the V voxels of a brain mask to F places.

    ``mask`` (X, Y, Z) bool; ``box`` the slices that hold it; ``axes`` a matrix along each axis of the box;
    ``inside`` bool, the places that are kept, F of them.
    """

    mask: np.ndarray
    box: tuple[slice, ...]
    axes: tuple[np.ndarray, np.ndarray, np.ndarray]
    inside: np.ndarray


def projection(mask: np.ndarray, affine: np.ndarray, kind: Kind) -> Projection:
    """Return the linear map of a kind.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        The template's brain.
    affine : ndarray, shape (4, 4)
        From voxel to mm, without rotation; x = 0 is the plane between the halves, which need not be a voxel's.
    kind : Kind

    Raises
    ------
    BadInputError
        The mask is empty or the affine turns the axes.

    Examples
    --------
    >>> brain = np.ones((4, 3, 3), bool)
    >>> affine = np.diag([3.0, 3, 3, 1])
    >>> affine[0, 3] = -4.5
    >>> project(projection(brain, affine, Kind(0, True)), np.ones((1, 36), bool)).shape
    (1, 18)
    """
    scale = np.diag(affine)[:3]
    if not mask.any() or np.any(affine[:3, :3] != np.diag(scale)) or np.any(scale <= 0):
        raise BadInputError("features need a mask on an upright grid", remedy="use the template's grid")
    box = box_of(mask)
    places = [affine[k, 3] + scale[k] * np.arange(part.start, part.stop) for k, part in enumerate(box)]
    wanted = list(places)
    inside = mask[box]
    if kind.folded:
        reach = max(abs(places[0][0]), abs(places[0][-1]))
        first = places[0][places[0] >= 0][0]
        wanted[0] = np.arange(first, reach + scale[0] / 2, scale[0])
    axes = [_weights(at, of, step, kind.fwhm) for at, of, step in zip(wanted, places, scale, strict=True)]
    if kind.folded:
        axes[0] = (axes[0] + _weights(-wanted[0], places[0], scale[0], kind.fwhm)) / 2
        near = _weights(wanted[0], places[0], scale[0], 0) + _weights(-wanted[0], places[0], scale[0], 0)
        inside = np.tensordot(near > 0, inside, axes=1) > 0
    return Projection(mask, box, (axes[0], axes[1], axes[2]), inside)


def box_of(mask: np.ndarray) -> tuple[slice, ...]:
    """Return the smallest box (three slices) that holds a brain mask (X, Y, Z)."""
    return tuple(
        slice(int(found[0]), int(found[-1]) + 1)
        for axis in range(3)
        for found in [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))]
    )


def project(of: Projection, maps: np.ndarray, dtype: type = np.float32) -> np.ndarray:
    """Return A m of lesion maps (n, V), bool or shares from 0 to 1, as (n, F); no square root yet."""
    values = np.zeros((len(maps), *[part.stop - part.start for part in of.box]), dtype)
    values[:, of.mask[of.box]] = maps
    matrices: list[np.ndarray | None] = [None if _is_one(each) else np.asarray(each, dtype) for each in of.axes]
    along_x, along_y, along_z = matrices
    # products of whole matrices, which take half the time of those of a slice each
    if along_z is not None:
        values = (values.reshape(-1, len(along_z)) @ along_z.T).reshape(values.shape)
    if along_y is not None:
        values = along_y @ values
    if along_x is not None:
        values = (along_x @ values.reshape(len(maps), along_x.shape[1], -1)).reshape(len(maps), *of.inside.shape)
    # rounding may leave a hair below zero, which has no root
    return np.maximum(values[:, of.inside], 0)


def _is_one(matrix: np.ndarray) -> bool:
    """Return whether a matrix changes nothing."""
    return matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(len(matrix)))


def project_back(of: Projection, values: np.ndarray) -> np.ndarray:
    """Return A' u of values (n, F) as (n, V), in double precision: what each voxel of the map has a part in."""
    places = np.zeros((len(values), *of.inside.shape))
    places[:, of.inside] = values
    along_x, along_y, along_z = of.axes
    spread = np.einsum("hx,nhyz->nxyz", along_x, along_y.T @ (places @ along_z), optimize=True)
    back: np.ndarray = spread[:, of.mask[of.box]]
    return back


def roots(of: Projection, maps: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the features of scans chunk by chunk: rows, and ``sqrt(A m)`` (n, F) in single precision."""
    for start in range(0, len(maps), CHUNK):
        rows = slice(start, start + CHUNK)
        yield rows, np.sqrt(project(of, maps[rows]))


def lesion_free(maps: np.ndarray) -> np.ndarray:
    """Return which scans have no lesion, bool (N,): no voxel of a mask, or none as probable as not."""
    return np.asarray((maps < HALF).all(axis=1))


def log_volume(maps: np.ndarray) -> np.ndarray:
    """Return log(1 + sum of the map) of each scan, (N,): voxels of a mask, or expected ones of a soft map."""
    volume: np.ndarray = np.log1p(maps.sum(axis=1, dtype=np.float64))
    return volume


def _weights(at: np.ndarray, of: np.ndarray, step: float, fwhm: float) -> np.ndarray:
    """Return weights (len(at), len(of)) of samples ``of`` for values ``at``: Gaussian, or linear at width 0."""
    distance = np.abs(at[:, None] - of) / step
    if fwhm == 0:
        linear: np.ndarray = np.maximum(1 - distance, 0)
        return linear
    sd = fwhm * SD_PER_FWHM / step
    return np.exp(-(distance**2) / (2 * sd**2)) / (sd * np.sqrt(2 * np.pi))
