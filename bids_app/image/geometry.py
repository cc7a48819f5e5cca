"""Grids: coarser and back, and in axes and world coordinates that do not depend on how a scan is stored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from nibabel import orientations
from scipy import ndimage

from bids_app.records.scan import Volume

LINEAR_DIGITS = 4  # decimals of an affine's linear part that are kept
BLUR = 0.4  # Gaussian SD before subsampling, in units of sqrt(new^2 - old^2): keeps half the band, no aliasing


def coarser(volume: Volume, spacing: float) -> Volume:
    """Return the volume blurred and linearly resampled to at least ``spacing`` mm along every axis.

    The grid keeps the axes and the centre of the field of view; axes already coarser stay as they are.
    """
    old = volume.spacing
    step = np.maximum(spacing / old, 1.0)
    sigma = BLUR * np.sqrt(np.maximum((step * old) ** 2 - old**2, 0)) / old
    blurred = ndimage.gaussian_filter(volume.data.astype(np.float32), sigma, truncate=3, mode="nearest")
    shape = np.maximum(np.floor((np.array(volume.data.shape) - 1) / step).astype(int) + 1, 1)
    first = (np.array(volume.data.shape) - 1 - (shape - 1) * step) / 2
    data = ndimage.affine_transform(
        blurred, np.diag(step), offset=first, output_shape=tuple(shape), order=1, mode="nearest"
    )
    affine = volume.affine.copy()
    affine[:3, 3] = volume.affine[:3, :3] @ first + volume.affine[:3, 3]
    affine[:3, :3] = volume.affine[:3, :3] * step
    return Volume(data, affine)


def finer(coarse: Volume, grid: Volume) -> np.ndarray:
    """Return ``coarse`` (made by `coarser` from ``grid``) linearly interpolated on the grid, edges extended."""
    matrix = np.linalg.inv(coarse.affine) @ grid.affine
    data: np.ndarray = ndimage.affine_transform(
        coarse.data,
        matrix[:3, :3] * np.eye(3),
        offset=matrix[:3, 3],
        output_shape=grid.data.shape,
        order=1,
        mode="nearest",
    )
    return data


def part(volume: Volume, box: tuple[slice, ...]) -> Volume:
    """Return the voxels of a box, where they are."""
    affine = volume.affine.copy()
    affine[:3, 3] += volume.affine[:3, :3] @ [side.start for side in box]
    return Volume(volume.data[box], affine)


def points(volume: Volume) -> np.ndarray:
    """Return the world point (mm) of every voxel, shape (X * Y * Z, 3), in the order of ``data.ravel()``."""
    index = np.indices(volume.data.shape).reshape(3, -1).T
    world: np.ndarray = index @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    return world


def sample(volume: Volume, points: np.ndarray) -> np.ndarray:
    """Return the volume at world points (..., 3), linear, 0 outside."""
    inverse = np.linalg.inv(volume.affine)
    index = points.reshape(-1, 3) @ inverse[:3, :3].T + inverse[:3, 3]
    values: np.ndarray = ndimage.map_coordinates(volume.data, index.T, order=1, cval=0.0)
    return values.reshape(points.shape[:-1])


def upright(volume: Volume) -> Volume:
    """Return the same image with its axes stored nearest to right, anterior, superior: permuted and flipped only."""
    turn = orientations.io_orientation(volume.affine)
    affine = volume.affine @ orientations.inv_ornt_aff(turn, volume.data.shape)
    return Volume(orientations.apply_orientation(volume.data, turn), affine)


def canonical(volume: Volume) -> Volume:
    """Return the same image `upright`, with an affine that does not depend on how it was stored either.

    Whatever order a scanner stores its axes in, the chain then sees equal arrays. World coordinates stay to
    0.02 mm: the linear part is rounded, since headers keep 7 digits of it and registration is chaotic, so
    that without rounding a scan and its re-stored copy would differ in some per cent of their lesion voxels.
    """
    turned = upright(volume)
    affine = turned.affine.copy()
    affine[:3, :3] = np.round(affine[:3, :3], LINEAR_DIGITS)
    return Volume(np.ascontiguousarray(turned.data), affine)


def centre(volume: Volume) -> np.ndarray:
    """Return the world position (3,) of the middle of the field of view, mm."""
    middle: np.ndarray = volume.affine[:3, :3] @ ((np.array(volume.data.shape) - 1) / 2) + volume.affine[:3, 3]
    return middle


def centred(volume: Volume) -> Volume:
    """Return the volume with the middle of its field of view at the world's origin, to 1e-6 mm.

    ITK computes in world coordinates: only equal origins give equal last bits.
    """
    affine = volume.affine.copy()
    affine[:3, 3] = np.round(affine[:3, 3] - centre(volume), 6)
    return Volume(volume.data, affine)


def stored_like(data: np.ndarray, original: Volume) -> np.ndarray:
    """Return an array made on ``canonical(original)``'s grid in the axes of ``original``; the way back."""
    turn = orientations.io_orientation(original.affine)
    back = orientations.ornt_transform(np.array([[0, 1], [1, 1], [2, 1]]), turn)
    restored: np.ndarray = orientations.apply_orientation(data, back)
    return restored


@dataclass(frozen=True)
class Frame:
    """The frame in which a scan is analysed: see `canonical` and `centred`. Results do not depend on how it is stored.

    Arrays and affines go ``inward``, from the stored scan to the frame, and ``outward``; one undoes the other.

    Attributes
    ----------
    original : Volume
        The scan as it is stored.
    grid : Volume
        The same in the frame.
    offset : ndarray, shape (3,)
        World position (mm) of the frame's origin.
    """

    original: Volume

    @cached_property
    def grid(self) -> Volume:  # noqa: D102
        return centred(canonical(self.original))

    @cached_property
    def offset(self) -> np.ndarray:  # noqa: D102
        return centre(canonical(self.original))

    def inward(self, data: np.ndarray) -> np.ndarray:
        """Return an array on the original's grid in the frame's axes."""
        return canonical(self.original.like(data)).data

    def outward(self, data: np.ndarray) -> np.ndarray:
        """Return an array on the frame's grid in the axes of the original."""
        return stored_like(data, self.original)

    def affine_inward(self, affine: np.ndarray, *, to_scan: bool = True) -> np.ndarray:
        """Return an affine (4, 4) of the scan's world (RAS+, mm) as one of the frame's.

        ``to_scan`` says that it leads to points of the scan, as that of an image on its voxels does, and not from them.
        """
        return _moved(affine, -self.offset, to_scan)

    def affine_outward(self, affine: np.ndarray, *, to_scan: bool = True) -> np.ndarray:
        """Return an affine (4, 4) of the frame's world as one of the scan's; the way back of `Frame.affine_inward`."""
        return _moved(affine, self.offset, to_scan)


def _moved(affine: np.ndarray, offset: np.ndarray, to_scan: bool) -> np.ndarray:
    """Return an affine whose target (``to_scan``), or else whose source, is moved by ``offset`` (3,), mm."""
    moved = np.array(affine, float)
    moved[:3, 3] += offset if to_scan else -moved[:3, :3] @ offset
    return moved
