"""What other scanners, other centres and other tools would have made of a scan: pure functions of it and its brain.

Each takes a FLAIR stored along the axes right, anterior and superior (`geometry.canonical`) and its brain mask, and
returns both as they would be then. `HARMS` is the table; a harm that leaves the brain itself alone changes no voxel
of it, so that neither tissue nor lesion may change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from nibabel import orientations
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bids_app.records.scan import Volume

Harmed = tuple[Volume, np.ndarray]
Function = Callable[[Volume, np.ndarray], Harmed]
AIR = 0.15  # of the 99th percentile
SHELL_MM, RIM_MM = 12.0, 3.0  # fat lies in a shell below the skin; what is nearer to the brain than the rim stays
EYE_MM = 17.0  # radius of an orbit
EYES = (32.0, -11.0, -105.0)  # mm: aside from the brain's middle, back from its front, down from its top


class Harm(NamedTuple):
    """A harm, and whether it leaves the brain's voxels as they were."""

    apply: Function
    spares_brain: bool


# -- parts of the head -----------------------------------------------------------------------------


def head_of(scan: Volume) -> np.ndarray:
    """Return the head (bool): what is no air, closed and filled."""
    mask = scan.data > AIR * np.percentile(scan.data[scan.data > 0], 99)
    wide = np.maximum(np.round(4.0 / scan.spacing), 1).astype(int)
    closed = ndimage.binary_closing(np.pad(mask, 8), np.ones(2 * wide // 2 + 1), iterations=1)[8:-8, 8:-8, 8:-8]
    labels, count = ndimage.label(closed)
    largest = labels == np.bincount(labels.ravel())[1:].argmax() + 1 if count else closed
    return np.stack([ndimage.binary_fill_holes(largest[..., k]) for k in range(mask.shape[2])], axis=-1)


def away(mask: np.ndarray, scan: Volume) -> np.ndarray:
    """Return the distance (mm) of every voxel from the mask; 0 inside."""
    distance: np.ndarray = ndimage.distance_transform_edt(~mask, sampling=scan.spacing)
    return distance


def _fat(scan: Volume, brain: np.ndarray) -> np.ndarray:
    head = head_of(scan)
    depth = ndimage.distance_transform_edt(head, sampling=scan.spacing)
    return (depth < SHELL_MM) & head & (away(brain, scan) > RIM_MM)


def _eyes(scan: Volume, brain: np.ndarray) -> np.ndarray:
    where = np.argwhere(brain) * scan.spacing
    middle, top = (where.min(0) + where.max(0)) / 2, where.max(0)
    axes = np.meshgrid(*(np.arange(n) * s for n, s in zip(brain.shape, scan.spacing, strict=True)), indexing="ij")
    eyes = np.zeros(brain.shape, bool)
    for side in (-1, 1):
        centre = (middle[0] + side * EYES[0], top[1] + EYES[1], top[2] + EYES[2])
        eyes |= sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)) < EYE_MM**2
    return eyes & ~brain


def _level(scan: Volume, brain: np.ndarray) -> float:
    return float(np.median(scan.data[brain]))


# -- intensities -----------------------------------------------------------------------------------


def fat(factor: float) -> Function:
    """Scalp and marrow ``factor`` times as bright."""

    def harm(scan: Volume, brain: np.ndarray) -> Harmed:
        return scan.like(np.where(_fat(scan, brain), scan.data * np.float32(factor), scan.data)), brain

    return harm


def orbit(level: float) -> Function:
    """Orbits at ``level`` times the brain's median, with half of their own texture."""

    def harm(scan: Volume, brain: np.ndarray) -> Harmed:
        eyes, median = _eyes(scan, brain), _level(scan, brain)
        own = scan.data / max(float(scan.data[eyes].mean()), 1e-6) if eyes.any() else scan.data
        return scan.like(np.where(eyes, level * median * (0.5 + 0.5 * own), scan.data).astype(np.float32)), brain

    return harm


def bias(*slope: float) -> Function:
    """A field that runs from 1 - slope to 1 + slope along each axis."""

    def harm(scan: Volume, brain: np.ndarray) -> Harmed:
        lines = np.meshgrid(*(np.linspace(-1, 1, n) for n in brain.shape), indexing="ij", sparse=True)
        field = 1 + sum(s * line for s, line in zip(slope, lines, strict=True))
        return scan.like((scan.data * np.maximum(field, 0.1)).astype(np.float32)), brain

    return harm


def noise(share: float) -> Function:
    """Rician noise with an SD of ``share`` of the brain's median."""

    def harm(scan: Volume, brain: np.ndarray) -> Harmed:
        sd = share * _level(scan, brain)
        real, imaginary = np.random.default_rng(0).normal(0, sd, (2, *brain.shape)).astype(np.float32)
        return scan.like(np.hypot(scan.data + real, imaginary)), brain

    return harm


def curve(gamma: float) -> Function:
    """Intensities by another curve, fixed at 0 and at the brain's median."""

    def harm(scan: Volume, brain: np.ndarray) -> Harmed:
        level = _level(scan, brain)
        return scan.like((level * (scan.data / level) ** gamma).astype(np.float32)), brain

    return harm


def eight_bits(scan: Volume, brain: np.ndarray) -> Harmed:
    """256 levels up to the 99.9th percentile."""
    step = float(np.percentile(scan.data, 99.9)) / 255
    return scan.like(np.clip(np.round(scan.data / step), 0, 255).astype(np.float32)), brain


# -- grids -----------------------------------------------------------------------------------------


def regridded(scan: Volume, brain: np.ndarray, spacing: np.ndarray, turn: np.ndarray | None = None) -> Harmed:
    """Return both on voxels of ``spacing`` mm along the scan's axes turned by ``turn`` (3, 3), as acquired so."""
    turn = np.eye(3) if turn is None else turn
    axes = scan.affine[:3, :3] / scan.spacing @ turn
    extent = np.abs(axes.T @ (scan.affine[:3, :3] / scan.spacing)) @ (np.array(brain.shape) * scan.spacing)
    shape = np.maximum(np.round(extent / spacing), 1).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    middle = scan.affine[:3, :3] @ ((np.array(brain.shape) - 1) / 2) + scan.affine[:3, 3]
    affine[:3, 3] = middle - affine[:3, :3] @ ((shape - 1) / 2)
    matrix = np.linalg.inv(scan.affine) @ affine
    reach = np.abs(matrix[:3, :3]) @ np.ones(3)  # how far a new voxel reaches along the old axes
    sigma = 0.4 * np.sqrt(np.maximum(reach**2 - 1, 0))

    def carry(data: np.ndarray) -> np.ndarray:
        smooth = ndimage.gaussian_filter(data.astype(np.float32), sigma)
        found: np.ndarray = ndimage.affine_transform(
            smooth, matrix[:3, :3], matrix[:3, 3], output_shape=tuple(shape), order=1
        )
        return found

    return Volume(np.maximum(carry(scan.data), 0), affine), carry(brain) >= 0.5


def slices(mm: float) -> Function:
    """Axial slices of another thickness."""
    return lambda scan, brain: regridded(scan, brain, np.array([*scan.spacing[:2], mm]))


def isotropic(mm: float) -> Function:
    """Cubic voxels, as after resampling."""
    return lambda scan, brain: regridded(scan, brain, np.full(3, mm))


def oblique(*degrees: float) -> Function:
    """Acquired on axes turned about right, anterior and superior; the header says so."""
    turn = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    return lambda scan, brain: regridded(scan, brain, scan.spacing, turn)


def tilted(*degrees: float) -> Function:
    """The head lies tilted in the scanner: the same voxels, other axes."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    return lambda scan, brain: (Volume(scan.data, matrix @ scan.affine), brain)


def stored(codes: str) -> Function:
    """The axes stored in another order and direction; the header says so."""

    def harm(scan: Volume, brain: np.ndarray) -> Harmed:
        turn = orientations.ornt_transform(
            orientations.io_orientation(scan.affine), orientations.axcodes2ornt(tuple(codes))
        )
        affine = scan.affine @ orientations.inv_ornt_aff(turn, brain.shape)
        data, mask = (orientations.apply_orientation(array, turn) for array in (scan.data, brain))
        return Volume(np.ascontiguousarray(data), affine), np.ascontiguousarray(mask)

    return harm


# -- field of view ---------------------------------------------------------------------------------


def cut(mm: float, *, top: bool) -> Function:
    """The field of view ends ``mm`` inside the brain: its uppermost or lowest slices are gone."""

    def harm(scan: Volume, brain: np.ndarray) -> Harmed:
        levels = np.flatnonzero(brain.any((0, 1)))
        gone = round(mm / scan.spacing[2])
        kept = slice(0, levels[-1] + 1 - gone) if top else slice(levels[0] + gone, brain.shape[2])
        affine = scan.affine.copy()
        affine[:3, 3] += scan.affine[:3, 2] * (kept.start or 0)
        return Volume(scan.data[..., kept].copy(), affine), brain[..., kept].copy()

    return harm


def neck(mm: float) -> Function:
    """A neck below, made of the lowest slice, narrower and shifted back."""

    def harm(scan: Volume, brain: np.ndarray) -> Harmed:
        number = round(mm / scan.spacing[2])
        lowest = ndimage.gaussian_filter(scan.data[..., 0], 1.0)
        lines = np.meshgrid(*(np.linspace(-1, 1, n) for n in lowest.shape), indexing="ij", sparse=True)
        throat = np.where(lines[0] ** 2 + (lines[1] + 0.2) ** 2 < 0.3, lowest, 0)
        data = np.concatenate([np.repeat(throat[..., None], number, axis=2), scan.data], axis=2)
        mask = np.concatenate([np.zeros((*lowest.shape, number), bool), brain], axis=2)
        affine = scan.affine.copy()
        affine[:3, 3] -= number * scan.affine[:3, 2]
        return Volume(data.astype(np.float32), affine), mask

    return harm


def wrapped(share: float) -> Function:
    """The field of view too small along the nose: what is beyond its front appears behind."""

    def harm(scan: Volume, brain: np.ndarray) -> Harmed:
        ahead = brain.shape[1] - 1 - np.flatnonzero(brain.any((0, 2)))[-1]
        by = min(round(share * brain.shape[1]), max(int(ahead) - 1, 0))
        return scan.like(np.roll(scan.data, by, axis=1)), np.roll(brain, by, axis=1)

    return harm


# -- anonymised or stripped ------------------------------------------------------------------------


def _face(scan: Volume, brain: np.ndarray) -> np.ndarray:
    """Return what lies before a plane from the forehead down and back, and not within a rim of the brain."""
    where = np.argwhere(brain) * scan.spacing
    front, bottom = where[:, 1].max(), where[:, 2].min()
    y, z = (np.arange(brain.shape[axis]) * scan.spacing[axis] for axis in (1, 2))
    plane = 0.8 * (y[:, None] - front) - 0.6 * (z - bottom - 25.0) > 0
    return plane[None] & (away(brain, scan) > RIM_MM)


def defaced(way: str) -> Function:
    """The face removed, the face blurred, or everything outside the head set to 0."""

    def harm(scan: Volume, brain: np.ndarray) -> Harmed:
        if way == "air":
            return scan.like(scan.data * (head_of(scan) | brain)), brain
        face = _face(scan, brain)
        other = np.zeros_like(scan.data) if way == "removed" else ndimage.gaussian_filter(scan.data, 8 / scan.spacing)
        return scan.like(np.where(face, other, scan.data)), brain

    return harm


def stripped(rim: float) -> Function:
    """Zero but for the brain and ``rim`` mm about it."""
    return lambda scan, brain: (scan.like(scan.data * (away(brain, scan) <= rim)), brain)


HARMS: dict[str, Harm] = {
    "fat x 0.3": Harm(fat(0.3), True),
    "fat x 3": Harm(fat(3.0), True),
    "fat x 6": Harm(fat(6.0), True),
    "dark orbits": Harm(orbit(0.1), True),
    "bright orbits": Harm(orbit(2.5), True),
    "bias 40 % sideways": Harm(bias(0.4, 0, 0), False),
    "bias 40 % upwards": Harm(bias(0, 0, -0.4), False),
    "noise 10 %": Harm(noise(0.1), False),
    "5 mm slices": Harm(slices(5.0), False),
    "6 mm slices": Harm(slices(6.0), False),
    "1 mm isotropic": Harm(isotropic(1.0), False),
    "sagittal storage": Harm(stored("PSR"), True),
    "coronal storage": Harm(stored("LSP"), True),
    "oblique acquisition": Harm(oblique(15, 5, -10), False),
    "tilted 20 degrees": Harm(tilted(20, 0, 0), True),
    "vertex cut by 10 mm": Harm(cut(10, top=True), True),
    "base cut by 15 mm": Harm(cut(15, top=False), True),
    "neck of 80 mm": Harm(neck(80), True),
    "face removed": Harm(defaced("removed"), True),
    "face blurred": Harm(defaced("blurred"), True),
    "air set to zero": Harm(defaced("air"), True),
    "stripped": Harm(stripped(0.0), True),
    "stripped, 2 mm rim": Harm(stripped(2.0), True),
    "curve, gamma 0.6": Harm(curve(0.6), False),
    "curve, gamma 1.6": Harm(curve(1.6), False),
    "8 bits": Harm(eight_bits, False),
    "wrap-around": Harm(wrapped(0.1), True),
}
