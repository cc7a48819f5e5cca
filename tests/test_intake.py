"""Every bad image is refused in one line before the heavy work; good ones come through as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bids_app.errors import ScanError
from bids_app.files import formats
from bids_app.image.intake import HEAD_AREA_MM2, HEAD_HEIGHT_MM, check_header, to_volume
from bids_app.records.scan import Volume

SIZE = (4.0, 4.0, 8.0)
AFFINE = np.diag([*SIZE, 1.0])


def head(shape: tuple[int, int, int] = (48, 56, 20), *, seed: int = 0) -> np.ndarray:
    """A textured ellipsoid that fills most of its field of view."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij", sparse=True)
    inside = sum(axis**2 for axis in axes) < 0.8
    return np.where(inside, np.random.default_rng(seed).integers(50, 900, shape), 0).astype(np.int16)


def image_of(data: np.ndarray, affine: np.ndarray = AFFINE) -> Any:
    return nib.Nifti1Image.from_bytes(nib.Nifti1Image(data, affine).to_bytes())


def by_header(**values: Any) -> Any:
    """An image of an edited header and hardly any voxels: only a reader of the header can judge it."""
    header = nib.Nifti1Image(np.zeros((16, 16, 16), np.int16), AFFINE).header
    header["vox_offset"], header["magic"] = 352, b"n+1"
    for key, value in values.items():
        header[key] = value
    return nib.Nifti1Image.from_bytes(header.binaryblock + bytes(20))


def take(image: Any) -> tuple[Volume, bool, list[str]]:
    check_header(image)
    return to_volume(image, np.asanyarray(image.dataobj))


def spoilt(value: float, where: tuple[int, int, int] = (20, 20, 10)) -> np.ndarray:
    data = head().astype(np.float32)
    data[where] = value
    return data


def sheared(slope: float = 0.3) -> np.ndarray:
    affine = AFFINE.copy()
    affine[0, 1] = slope * SIZE[1]
    return affine


def colours() -> np.ndarray:
    data = np.zeros((16, 16, 16), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    data["R"] = 7
    return data


def with_affine(affine: np.ndarray) -> Any:
    rows = {f"srow_{axis}": affine[i] for i, axis in enumerate("xyz")}
    return by_header(sform_code=1, **rows)


# -- refused -------------------------------------------------------------------------------------

BAD: dict[str, tuple[Any, str]] = {
    "4D": (lambda: image_of(np.stack([head()] * 3, axis=-1)), r"4D.*give one 3D"),
    "2D": (lambda: image_of(head()[:, :, 10]), r"2D"),
    "single slice": (lambda: image_of(head()[:, :, 10:11]), "only 1 voxels"),
    "2 x 2 x 2": (lambda: image_of(np.arange(8, dtype=np.int16).reshape(2, 2, 2)), "only 2 voxels"),
    "complex": (lambda: image_of(head().astype(np.complex64)), "magnitude"),
    "RGB": (lambda: image_of(colours()), "not real numbers"),
    "sheared": (lambda: image_of(head(), sheared()), "sheared"),
    "singular affine": (lambda: with_affine(np.diag([4.0, 0.0, 8.0, 1.0])), "singular"),
    "NaN in the affine": (lambda: with_affine(np.diag([4.0, np.nan, 8.0, 1.0])), "singular"),
    "huge dimensions": (lambda: by_header(dim=[3, 32000, 32000, 32000, 1, 1, 1, 1]), "damaged"),
    "all zero": (lambda: image_of(np.zeros_like(head())), "above zero"),
    "nothing positive": (lambda: image_of(-1 - head()), "above zero"),
    "constant": (lambda: image_of(np.full_like(head(), 300)), "constant"),
    "a mask": (lambda: image_of((head() > 0).astype(np.uint8)), "constant"),
    "NaN": (lambda: image_of(spoilt(np.nan)), "1 voxels are NaN"),
    "infinity": (lambda: image_of(spoilt(np.inf)), "infinite"),
    "minus infinity": (lambda: image_of(spoilt(-np.inf)), "infinite"),
    "NaN in the air": (lambda: image_of(spoilt(np.nan, (0, 0, 0))), "NaN"),
    "a mouse": (lambda: image_of(head(), np.diag([0.4, 0.4, 0.8, 1.0])), "field of view"),
    "a building": (lambda: image_of(head(), np.diag([40.0, 40.0, 80.0, 1.0])), "field of view"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_refused_in_one_line(name: str) -> None:
    make, says = BAD[name]
    with pytest.raises(ScanError, match=says) as caught:
        take(make())
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 200
    assert caught.value.remedy


def test_bad_images_are_bad_from_disk_too(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    nib.save(image_of(np.stack([head()] * 2, axis=-1)), path)
    with pytest.raises(ScanError, match="4D"):
        check_header(formats.open_nifti(path))


def test_the_header_alone_refuses_what_does_not_fit_into_memory() -> None:
    image = by_header(dim=[3, 32000, 32000, 32000, 1, 1, 1, 1])
    assert image.shape == (32000, 32000, 32000)
    with pytest.raises(ScanError):
        check_header(image)  # 65 TB: reading them would raise something else


# -- taken ---------------------------------------------------------------------------------------


def test_a_good_scan_comes_as_it_is() -> None:
    volume, known, warnings = take(image_of(head()))
    assert np.array_equal(volume.data, head())
    assert volume.data.dtype == np.float32
    assert np.allclose(volume.affine, AFFINE)
    assert known
    assert warnings == []


def test_one_volume_with_a_fourth_axis_is_3d() -> None:
    volume, _, _ = take(image_of(head()[..., None]))
    assert np.array_equal(volume.data, head())


def test_a_slight_shear_is_rounding() -> None:
    assert take(image_of(head(), sheared(0.002)))[0].data.shape == head().shape


def test_counts_come_back_whole_from_a_scale_factor() -> None:
    rounded = head().astype(np.float32) + np.random.default_rng(1).uniform(-0.04, 0.04, head().shape)
    assert np.array_equal(take(image_of(rounded.astype(np.float32)))[0].data, head())


def test_fractions_stay() -> None:
    scaled = head().astype(np.float32) / 1000  # below 100: not counts
    assert np.array_equal(take(image_of(scaled))[0].data, scaled)
    halves = head() * np.float32(0.5)  # 0.5 from whole: no rounding
    assert np.array_equal(take(image_of(halves))[0].data, halves)


def test_negative_voxels_count_as_zero_and_are_told_where_many() -> None:
    few, many = head(), head()
    few[0, 0, 0] = -5
    many[:4] = -5
    for data, told in ((few, False), (many, True)):
        volume, _, warnings = take(image_of(data))
        assert np.array_equal(volume.data, np.maximum(data, 0))
        assert any("negative" in line for line in warnings) == told


def test_two_orientations_that_disagree_warn() -> None:
    image = nib.Nifti1Image(head(), AFFINE)
    moved = AFFINE.copy()
    moved[0, 3] = 5
    image.set_qform(moved, 1)
    image.set_sform(AFFINE, 1)
    volume, known, warnings = take(image)
    assert known
    assert [line for line in warnings if "disagree" in line]
    assert np.allclose(volume.affine, AFFINE)  # the sform, as told
    image.set_qform(AFFINE, 1)
    assert take(image)[2] == []


def without_orientation(data: np.ndarray, zooms: tuple[float, float, float]) -> Any:
    image = nib.Nifti1Image(data, None)
    image.header.set_zooms(zooms)
    image.header["qform_code"] = image.header["sform_code"] = 0
    return nib.Nifti1Image.from_bytes(image.to_bytes())


def test_voxel_sizes_without_orientation_are_kept() -> None:
    volume, known, warnings = take(without_orientation(head(), SIZE))
    assert not known
    assert np.allclose(volume.spacing, SIZE)
    assert [line for line in warnings if "left and right" in line]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_lost_voxel_sizes_are_guessed_from_the_size_of_a_head(axis: int) -> None:
    radius, size, slices = 0.5, 1.6, 24  # a cylinder whose cut has the area of an adult head at 1.6 mm
    n = int(np.sqrt(HEAD_AREA_MM2 / np.pi) / size / radius)
    x, y = np.meshgrid(*(np.arange(n) - (n - 1) / 2,) * 2, indexing="ij")
    disc = np.hypot(x, y) * size < np.sqrt(HEAD_AREA_MM2 / np.pi)
    texture = np.random.default_rng(0).integers(400, 900, (n, n, slices))
    data = np.moveaxis((disc[..., None] * texture).astype(np.int16), 2, axis)
    volume, known, warnings = take(without_orientation(data, (1.0, 1.0, 1.0)))
    assert not known
    assert [line for line in warnings if "voxel size cannot be right" in line]
    expected = np.full(3, size)
    expected[axis] = HEAD_HEIGHT_MM / slices
    assert np.allclose(volume.spacing, expected, rtol=0.03)
    middle = volume.affine @ [*(np.array(data.shape) - 1) / 2, 1]
    assert np.allclose(middle[:3], 0)
