"""Harm done to a good scan: ways to store or move it that must change nothing, and ways to make it worthless.

Each function takes voxels and affine of a good scan. `MOVED` gives an image and the matrix from the good scan's
voxel indices to the damaged one's; `DOUBTFUL` and `BAD` give images that must be refused or flagged.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import nibabel as nib
import numpy as np
from nibabel import orientations
from scipy import ndimage
from scipy.spatial.transform import Rotation

Moved = tuple[Any, np.ndarray]


def image_of(data: np.ndarray, affine: np.ndarray | None) -> Any:
    """An image as a reader of its file sees it."""
    return nib.Nifti1Image.from_bytes(nib.Nifti1Image(data, affine).to_bytes())


# -- moved or stored otherwise: the same head --------------------------------------------------------


def stored_as(codes: str) -> Callable[[np.ndarray, np.ndarray], Moved]:
    """Store the axes in another order and direction; the header says so."""

    def store(data: np.ndarray, affine: np.ndarray) -> Moved:
        turn = orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt(codes))
        back = orientations.inv_ornt_aff(turn, data.shape)
        return image_of(orientations.apply_orientation(data, turn), affine @ back), np.linalg.inv(back)

    return store


def mirrored(axis: int) -> Callable[[np.ndarray, np.ndarray], Moved]:
    """Reverse an axis of the data; the header does not say so, and so is wrong."""

    def mirror(data: np.ndarray, affine: np.ndarray) -> Moved:
        matrix = np.eye(4)
        matrix[axis, axis], matrix[axis, 3] = -1, data.shape[axis] - 1
        return image_of(np.flip(data, axis).copy(), affine), matrix

    return mirror


def in_world(matrix: np.ndarray) -> Callable[[np.ndarray, np.ndarray], Moved]:
    """Move the head in the scanner: same voxels, another affine."""
    return lambda data, affine: (image_of(data, matrix @ affine), np.eye(4))


def turned(axes: str, degrees: float | list[float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler(axes, degrees, degrees=True).as_matrix()
    return matrix


def shifted(*mm: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = mm
    return matrix


def scaled_integers(data: np.ndarray, affine: np.ndarray) -> Moved:
    """Values of another unit, stored as int16 with slope and intercept."""
    image = nib.Nifti1Image(data * np.float32(0.37) + np.float32(0.013), affine)
    image.set_data_dtype(np.int16)
    image = nib.Nifti1Image.from_bytes(image.to_bytes())
    assert image.dataobj.slope != 1
    return image, np.eye(4)


def without_orientation(data: np.ndarray, affine: np.ndarray) -> Moved:
    """Voxel sizes only: neither qform nor sform."""
    image = nib.Nifti1Image(data, None)
    image.header.set_zooms(nib.affines.voxel_sizes(affine))
    image.header["qform_code"] = image.header["sform_code"] = 0
    return nib.Nifti1Image.from_bytes(image.to_bytes()), np.eye(4)


def without_affine(data: np.ndarray, affine: np.ndarray) -> Moved:
    """Not even voxel sizes."""
    return without_orientation(data, np.eye(4))


def more_field_of_view(data: np.ndarray, affine: np.ndarray) -> Moved:
    """A neck of 80 mm below and air of 40 mm all round, stored as the scan itself is."""
    axis, sign = _upward(affine)
    size = nib.affines.voxel_sizes(affine)
    air = np.round(40 / size).astype(int)
    wide = [[int(n), int(n)] for n in air]
    neck = round(80 / size[axis])
    end = 0 if sign > 0 else 1
    wide[axis][end] += neck
    padded = np.pad(data, wide)
    last = np.take(data, 0 if sign > 0 else -1, axis)  # the lowest slice goes on as a neck, narrower
    shape = [n for k, n in enumerate(data.shape) if k != axis]
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij", sparse=True)
    throat = np.where(sum(g**2 for g in grid) < 0.35, last, 0)
    where: list[Any] = [slice(int(n), int(n) + length) for n, length in zip(air, data.shape, strict=True)]
    for k in range(neck):
        where[axis] = int(air[axis]) + k if sign > 0 else padded.shape[axis] - 1 - int(air[axis]) - k
        padded[tuple(where)] = throat
    matrix = np.eye(4)
    matrix[:3, 3] = [low for low, _ in wide]
    return image_of(padded, affine @ np.linalg.inv(matrix)), matrix


def forms_that_disagree(data: np.ndarray, affine: np.ndarray) -> Moved:
    """The sform right, the qform 20 mm and 10 degrees away."""
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, 1)
    image.set_qform(shifted(20, 0, 0) @ turned("x", 10) @ affine, 1)
    return nib.Nifti1Image.from_bytes(image.to_bytes()), np.eye(4)


def resliced(mm: float) -> Callable[[np.ndarray, np.ndarray], Moved]:
    """Other slice thickness: blurred where thicker, then linear."""

    def reslice(data: np.ndarray, affine: np.ndarray) -> Moved:
        axis, _ = _upward(affine)
        old = nib.affines.voxel_sizes(affine)[axis]
        step, n = mm / old, data.shape[axis]
        count = int((n - 1) / step) + 1
        sigma = [0.0, 0.0, 0.0]
        sigma[axis] = 0.4 * np.sqrt(max(step**2 - 1, 0))
        smooth = ndimage.gaussian_filter(data.astype(np.float32), sigma)
        zoom = np.eye(3)
        zoom[axis, axis] = step
        shape = [count if k == axis else m for k, m in enumerate(data.shape)]
        made = ndimage.affine_transform(smooth, zoom, output_shape=tuple(shape), order=1, mode="nearest")
        matrix = np.eye(4)
        matrix[axis, axis] = step
        return image_of(np.rint(made).astype(data.dtype), affine @ matrix), np.linalg.inv(matrix)

    return reslice


def _upward(affine: np.ndarray) -> tuple[int, int]:
    """Return the voxel axis that runs along the body, and whether it runs up."""
    turn = orientations.io_orientation(affine)
    axis = int(np.argmax(turn[:, 0] == 2))
    return axis, int(turn[axis, 1])


STORED: dict[str, Callable[[np.ndarray, np.ndarray], Moved]] = {
    "flipped x": stored_as("RPS"),
    "flipped y": stored_as("LAS"),
    "flipped z": stored_as("LPI"),
    "flipped all": stored_as("RAI"),
    "sagittal storage": stored_as("PSR"),
    "coronal storage": stored_as("LSP"),
    "shifted 300 mm": in_world(shifted(300, -20, 12.5)),
}
CHANGED: dict[str, Callable[[np.ndarray, np.ndarray], Moved]] = {
    "rotated 30 degrees oblique": in_world(turned("xyz", [20, -15, 25])),
    "mirrored x": mirrored(0),
    "mirrored y": mirrored(1),
    "mirrored z": mirrored(2),
    "no orientation": without_orientation,
    "no affine": without_affine,
    "big neck and field of view": more_field_of_view,
    "0.5 mm slices": resliced(0.5),
    "6 mm slices": resliced(6.0),
}
MORE_CHANGED: dict[str, Callable[[np.ndarray, np.ndarray], Moved]] = {  # less than one above, or tested bit by bit
    "rotated 30 degrees": in_world(turned("x", 30)),
    "int16 with scaling": scaled_integers,
    "sform and qform disagree": forms_that_disagree,
}
MOVED = STORED | CHANGED | MORE_CHANGED


# -- of doubtful worth: refused, or flagged -----------------------------------------------------------


def cut_at_vertex(share: float) -> Callable[[np.ndarray, np.ndarray], Any]:
    """Leave out the uppermost slices."""

    def cut(data: np.ndarray, affine: np.ndarray) -> Any:
        axis, sign = _upward(affine)
        n = data.shape[axis]
        gone = round(share * n)
        kept = [slice(None)] * 3
        kept[axis] = slice(0, n - gone) if sign > 0 else slice(gone, n)
        moved = affine.copy()
        moved[:3, 3] += affine[:3, axis] * (kept[axis].start or 0)
        return image_of(data[tuple(kept)].copy(), moved)

    return cut


def slab(data: np.ndarray, affine: np.ndarray) -> Any:
    """The middle quarter of the slices."""
    axis, _ = _upward(affine)
    n = data.shape[axis]
    first, count = round(0.4 * n), max(8, n // 4)
    moved = affine.copy()
    moved[:3, 3] += affine[:3, axis] * first
    return image_of(np.take(data, range(first, first + count), axis), moved)


def noise(data: np.ndarray, affine: np.ndarray) -> Any:
    return image_of(np.random.default_rng(0).integers(0, 1000, data.shape).astype(np.int16), affine)


def smooth_noise(data: np.ndarray, affine: np.ndarray) -> Any:
    """Noise of the coarseness of anatomy."""
    made = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(data.shape), 6 / _sizes(affine))
    return image_of(np.rint(500 + 200 * made / made.std()).clip(0, 4000).astype(np.int16), affine)


def sphere(data: np.ndarray, affine: np.ndarray, grain: float = 0.05) -> Any:
    """A bottle of 150 mm, as centres scan for calibration."""
    points = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in data.shape), indexing="ij"), axis=-1)
    inside = ((points * _sizes(affine)) ** 2).sum(axis=-1) < 75**2
    grained = 1 + grain * np.random.default_rng(0).standard_normal(data.shape)
    return image_of(np.rint(600 * inside * grained).clip(0).astype(np.int16), affine)


def smoothed(mm: float) -> Callable[[np.ndarray, np.ndarray], Any]:
    def smooth(data: np.ndarray, affine: np.ndarray) -> Any:
        made = ndimage.gaussian_filter(data.astype(np.float32), mm / 2.355 / _sizes(affine))
        return image_of(np.rint(made).astype(np.int16), affine)

    return smooth


def noisy(data: np.ndarray, affine: np.ndarray) -> Any:
    """The head is there, under noise as strong as its signal."""
    level = float(np.median(data[data > 0.5 * np.percentile(data, 98)]))
    more = level * np.random.default_rng(0).standard_normal((2, *data.shape))
    return image_of(np.rint(np.hypot(data + more[0], more[1])).astype(np.int16), affine)


def contrast(levels: dict[int, float]) -> Callable[[np.ndarray, np.ndarray, np.ndarray], Any]:
    """Another sequence's contrast, painted by tissue (0 outside, 1 GM, 2 WM, 3 CSF) onto the FLAIR's texture."""

    def paint(data: np.ndarray, affine: np.ndarray, labels: np.ndarray) -> Any:
        made = data.astype(np.float32)
        for label, factor in levels.items():
            inside = labels == label
            made[inside] *= factor / float(np.median(data[inside]))
        top = 900 / max(levels.values())
        outside = labels == 0
        made[outside] *= 1.0 / float(np.percentile(data[outside], 99))
        return image_of(np.rint(top * made).clip(0, 30000).astype(np.int16), affine)

    return paint


def header_scaled(factor: float) -> Callable[[np.ndarray, np.ndarray], Any]:
    """Voxel sizes all wrong by one factor."""
    return lambda data, affine: image_of(data, affine @ np.diag([factor, factor, factor, 1]))


def slices_scaled(factor: float) -> Callable[[np.ndarray, np.ndarray], Any]:
    """The slice thickness wrong, as where gaps or interpolation were lost on the way."""

    def scale(data: np.ndarray, affine: np.ndarray) -> Any:
        matrix = np.eye(4)
        axis, _ = _upward(affine)
        matrix[axis, axis] = factor
        return image_of(data, affine @ matrix)

    return scale


def _sizes(affine: np.ndarray) -> np.ndarray:
    sizes: np.ndarray = nib.affines.voxel_sizes(affine)
    return sizes


DOUBTFUL: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {
    "cut at the vertex, 20 %": cut_at_vertex(0.20),
    "slab": slab,
    "smooth noise": smooth_noise,
    "smoothed 8 mm": smoothed(8.0),
    "noisy": noisy,
    "header 0.8": header_scaled(0.8),
    "header 1.3": header_scaled(1.3),
    "slices 0.75": slices_scaled(0.75),
    "slices 1.5": slices_scaled(1.5),
}
MORE_DOUBTFUL: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {  # one of the same kind above is harder to see
    "cut at the vertex, 30 %": cut_at_vertex(0.30),
    "noise": noise,
    "sphere": sphere,
    "smoothed 15 mm": smoothed(15.0),
    "header half": header_scaled(0.5),
    "header double": header_scaled(2.0),
    "slices half": slices_scaled(0.5),
    "slices double": slices_scaled(2.0),
}
CONTRASTS = {  # by tissue label
    "T1w": contrast({1: 0.65, 2: 1.0, 3: 0.25}),
    "T2w": contrast({1: 0.7, 2: 0.5, 3: 1.4}),
    "PD": contrast({1: 1.0, 2: 0.9, 3: 1.0}),
}


# -- refused: files of one bad participant each --------------------------------------------------------

Make = Callable[[np.ndarray, np.ndarray], bytes]


def stored(image: Any) -> bytes:
    """The bytes of ``.nii.gz``."""
    return gzip.compress(image.to_bytes(), 1, mtime=0)


def with_header(**values: Any) -> Make:
    """The scan with fields of its header overwritten, whatever they then claim."""

    def make(data: np.ndarray, affine: np.ndarray) -> bytes:
        whole = nib.Nifti1Image(data, affine).to_bytes()
        header = nib.Nifti1Header(whole[:348])
        for key, value in values.items():
            header[key] = value
        return gzip.compress(header.binaryblock + whole[348:], 1, mtime=0)

    return make


def with_voxel(value: float) -> Make:
    def make(data: np.ndarray, affine: np.ndarray) -> bytes:
        spoilt = data.astype(np.float32)
        spoilt[tuple(n // 2 for n in data.shape)] = value
        return stored(nib.Nifti1Image(spoilt, affine))

    return make


def of_data(change: Callable[[np.ndarray], np.ndarray]) -> Make:
    return lambda data, affine: stored(nib.Nifti1Image(change(data), affine))


def of_bytes(change: Callable[[bytes], bytes]) -> Make:
    """A change of the good file's own bytes."""
    return lambda data, affine: change(stored(nib.Nifti1Image(data, affine)))


def flipped_bit(content: bytes) -> bytes:
    """One bit in the middle of the compressed stream: most such streams still unpack."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :]


def red(data: np.ndarray) -> np.ndarray:
    colours = np.zeros(data.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["R"] = data % 256
    return colours


def sheared_sform(data: np.ndarray, affine: np.ndarray) -> bytes:
    matrix = affine.copy()
    matrix[0, 1] = 0.3 * affine[1, 1]
    return stored(nib.Nifti1Image(data, matrix))


def sheared_by_qform_alone(data: np.ndarray, affine: np.ndarray) -> bytes:
    """A qform whose stored rotation is none: its quaternion is longer than 1."""
    return with_header(sform_code=0, qform_code=1, quatern_b=1.0, quatern_c=1.0, quatern_d=0.5)(data, affine)


MEMBER = gzip.compress(bytes(16 << 20), 9, mtime=0)  # 16 MB of zeros in 16 kB
ZERO_ROWS = {"srow_x": [0, 0, 0, 0], "srow_y": [0, 0, 0, 0], "srow_z": [0, 0, 0, 0]}
BAD: dict[str, tuple[Make, str]] = {  # label of the participant: the file, and what its line says
    "truncated": (of_bytes(lambda b: b[: len(b) // 2]), "cannot be read"),
    "truncatedearly": (of_bytes(lambda b: b[:200]), "again"),
    "empty": (of_bytes(lambda b: b""), "the file is empty"),
    "text": (of_bytes(lambda b: b"This is a text.\n" * 200), "not a readable NIfTI"),
    "textzipped": (of_bytes(lambda b: gzip.compress(b"This is a text.\n" * 200)), "not a readable NIfTI"),
    "bitflip": (of_bytes(flipped_bit), "cannot be read"),
    "checksum": (of_bytes(lambda b: b[:-6] + bytes([b[-6] ^ 1]) + b[-5:]), "CRC check failed"),
    "garbage": (of_bytes(lambda b: b + b"garbage"), "cannot be read"),
    "fourd": (of_data(lambda d: np.stack([d, d], axis=-1)), "4D"),
    "slice": (of_data(lambda d: d[:, :, d.shape[2] // 2][..., None]), "only 1 voxels"),
    "two": (of_data(lambda d: d[:2, :2, :2]), "only 2 voxels"),
    "zero": (of_data(np.zeros_like), "above zero"),
    "constant": (of_data(lambda d: np.full_like(d, 400)), "constant"),
    "negative": (of_data(lambda d: -1 - d.astype(np.int16)), "above zero"),
    "nan": (with_voxel(np.nan), "NaN"),
    "inf": (with_voxel(np.inf), "infinite"),
    "rgb": (of_data(red), "not real numbers"),
    "complex": (of_data(lambda d: d.astype(np.complex64)), "not real numbers"),
    "hugevoxels": (with_header(dim=[3, 32000, 32000, 32000, 1, 1, 1, 1]), "the header claims"),
    "largevoxels": (with_header(dim=[3, 600, 600, 600, 1, 1, 1, 1], datatype=64, bitpix=64), "more than the file can"),
    "negativedim": (with_header(dim=[3, 116, -116, 43, 1, 1, 1, 1]), "voxels along one axis"),
    "offset": (with_header(vox_offset=1e9), "more than the file can"),
    "bomb": (of_bytes(lambda b: b + 64 * MEMBER), "holds more than"),
    "slope": (with_header(scl_slope=1e37), "infinite"),
    "sheared": (sheared_sform, "sheared"),
    "qform": (sheared_by_qform_alone, "not a readable NIfTI|sheared|singular"),
    "zeroaffine": (with_header(**ZERO_ROWS), "singular"),
    "faraway": (with_header(srow_x=[-2, 0, 0, 1e30]), "from the scanner's centre"),
    "building": (with_header(srow_x=[40, 0, 0, 0], srow_y=[0, 40, 0, 0], srow_z=[0, 0, 40, 0]), "field of view"),
    "mouse": (with_header(srow_x=[0.2, 0, 0, 0], srow_y=[0, 0.2, 0, 0], srow_z=[0, 0, 0.2, 0]), "field of view"),
    "slab": (lambda data, affine: stored(slab(data, affine)), "field of view"),
}
