"""What a scan's header and voxels say, and whether to believe them: refuses before the heavy work begins."""

from __future__ import annotations

from typing import Any

import numpy as np

from bids_app.errors import ScanError
from bids_app.records.scan import Volume

FEWEST_VOXELS = 8  # along every axis
MOST_VOXELS = 256_000_000  # a head at 0.4 mm isotropic is 200 million
FARTHEST_MM = 10_000.0  # of the first voxel from the world's origin: float32 then keeps 0.001 mm
SHEAR = 0.01  # largest cosine between two voxel axes
WHOLE_FROM, WHOLE_WITHIN = 100, 0.05  # images reaching 100 whose voxels lie this near to whole numbers are counts
HEAD_MM = (100.0, 600.0)  # a field of view outside this holds no whole head
HEAD_AREA_MM2 = 22_000.0  # of the largest axial cut of an adult head
HEAD_HEIGHT_MM = 145.0  # that clinical axial scans cover


def check_header(image: Any) -> None:
    """Refuse an image by its header alone, before its voxels are read.

    Parameters
    ----------
    image : nibabel image

    Raises
    ------
    ScanError
        Not one 3D volume of real numbers on a usable grid.
    """
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise ScanError(f"the image is {len(shape)}D with shape {shape}", remedy="give one 3D FLAIR volume")
    if np.prod([float(n) for n in shape]) > MOST_VOXELS:
        raise ScanError(f"the header claims {shape} voxels", remedy="the header is damaged; convert the scan again")
    if min(shape) < FEWEST_VOXELS:
        raise ScanError(f"only {min(shape)} voxels along one axis (shape {shape})", remedy="give a whole-brain scan")
    kind = image.get_data_dtype()
    if kind.fields is not None or kind.kind not in "biuf":
        raise ScanError(f"voxels are of type {kind}, not real numbers", remedy="export a magnitude image")
    affine = np.asarray(image.affine, dtype=float)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise ScanError("the header's affine is singular", remedy="convert the scan again from DICOM")
    if np.abs(affine[:3, 3]).max() > FARTHEST_MM:
        where = f"the header puts the scan {np.abs(affine[:3, 3]).max() / 1000:.3g} m from the scanner's centre"
        raise ScanError(where, remedy="the header is damaged; convert the scan again")
    axes = affine[:3, :3] / np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    if np.abs(axes.T @ axes - np.eye(3)).max() > SHEAR:
        raise ScanError("the header's affine is sheared", remedy="resample the scan to a grid with right angles")


def to_volume(image: Any, data: np.ndarray) -> tuple[Volume, bool, list[str]]:
    """Return the scan as a volume (float32), whether its orientation is known, and warnings.

    Parameters
    ----------
    image : nibabel image
        That has passed `check_header`.
    data : ndarray, shape (X, Y, Z) or with trailing axes of length 1
        Its voxels, scaled.

    Raises
    ------
    ScanError
        All zero, constant, or voxels that are not finite.
    """
    data = np.asarray(data, dtype=np.float32).reshape(data.shape[:3])
    warnings: list[str] = []
    bad = int(data.size - np.isfinite(data).sum())
    if bad:
        raise ScanError(f"{bad} voxels are NaN or infinite", remedy="export the scan again, or set them to 0")
    if data.max() <= 0:
        raise ScanError("no voxel is above zero", remedy="export the scan again")
    if np.unique(data[data > 0][:: max(1, data.size // 100_000)]).size < 8:
        raise ScanError("the image is constant or nearly so", remedy="is it a mask? give the FLAIR itself")
    whole = np.round(data)
    if data.max() >= WHOLE_FROM and np.abs(data - whole).max() < WHOLE_WITHIN:
        data = whole  # scanners count in whole numbers; what storing with a scale factor left of them is rounding
    negative = float((data < 0).mean())
    if negative > 0.01:
        warnings.append(f"{negative:.0%} of the voxels are negative and count as 0")
    affine = np.asarray(image.affine, dtype=float)
    known = int(image.header["qform_code"]) > 0 or int(image.header["sform_code"]) > 0
    warnings += _disagreement(image)
    if not known:
        warnings.append("the header holds no orientation: found from the image; left and right cannot be known")
    extent = np.array(data.shape) * Volume(data, affine).spacing
    unscaled = np.allclose(np.abs(affine[:3, :3]), np.eye(3)) and not HEAD_MM[0] <= extent.min() <= HEAD_MM[1]
    if unscaled:
        affine = _guessed_affine(data)
        size = " x ".join(f"{x:.2f}" for x in np.abs(np.diag(affine)[:3]))
        warnings.append(f"the header's voxel size cannot be right; {size} mm is assumed, volumes in ml are rough")
        known = False
    elif extent.min() < HEAD_MM[0] * 0.6 or extent.max() > 2 * HEAD_MM[1]:
        raise ScanError(
            f"the field of view is {' x '.join(f'{x:.0f}' for x in extent)} mm",
            remedy="give a whole-brain scan",
        )
    return Volume(np.maximum(data, 0), affine), known, warnings


def _disagreement(image: Any) -> list[str]:
    qform, qcode = image.get_qform(coded=True)
    sform, scode = image.get_sform(coded=True)
    if qcode and scode and np.abs(qform - sform).max() > 1.0:
        return ["the header's qform and sform disagree; the sform is used"]
    return []


def _guessed_affine(data: np.ndarray) -> np.ndarray:
    """Return an affine from the size of a head, for a header that has lost its voxel size.

    The axis with the fewest voxels is taken as the slice axis; in the plane, the largest cut of the head's
    foreground has the area of an adult head, and the slices cover what clinical axial scans cover.
    """
    foreground = data > 0.2 * np.percentile(data, 98)
    slices = int(np.argmin(data.shape))
    plane = tuple(axis for axis in range(3) if axis != slices)
    area = max(float(np.percentile(foreground.sum(axis=plane), 95)), 1.0)
    size = np.full(3, np.sqrt(HEAD_AREA_MM2 / area))
    size[slices] = HEAD_HEIGHT_MM / data.shape[slices]
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = -size * (np.array(data.shape) - 1) / 2
    return affine
