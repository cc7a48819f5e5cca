"""Transform files: in the scan's own world, the way there and back, and equal bytes."""

from __future__ import annotations

from pathlib import Path

import ants
import h5py
import numpy as np
import pandas as pd
import pytest

from bids_app.errors import BadInputError
from bids_app.image.geometry import Frame
from bids_app.image.itk import LPS, to_ants
from bids_app.participant import transforms as transformfile
from bids_app.records.scan import Volume


@pytest.fixture(scope="module")
def transforms(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small registration of two blobs: forward and inverse composite, as ANTs writes them."""
    folder = tmp_path_factory.mktemp("transform")
    x, y, z = np.indices((24, 26, 22)) - 11.0
    one = Volume(np.exp(-(x**2 + y**2 + z**2) / 60).astype(np.float32), np.diag([2.0, 2, 2, 1]))
    other = one.like(np.exp(-((x - 1.5) ** 2 + 1.2 * y**2 + z**2) / 60).astype(np.float32))
    start = folder / "start.mat"
    matrix = np.diag([1.05, 0.95, 1.0])
    affine = ants.create_ants_transform(
        transform_type="AffineTransform", precision="double", matrix=matrix, translation=(3, -2, 1)
    )
    ants.write_transform(affine, str(start))
    made = ants.registration(
        to_ants(one),
        to_ants(other),
        type_of_transform="SyNOnly",
        initial_transform=str(start),
        outprefix=str(folder / "t_"),
        reg_iterations=(5, 0, 0),
        write_composite_transform=True,
        singleprecision=False,
    )
    return Path(made["fwdtransforms"]), Path(made["invtransforms"])


def frame(*offset: float) -> Frame:
    """Frame of a scan whose middle lies there, mm."""
    affine = np.eye(4)
    affine[:3, 3] = np.array(offset) - 2
    return Frame(Volume(np.zeros((5, 5, 5)), affine))


def carry(path: Path, points: np.ndarray) -> np.ndarray:
    """Map points (N, 3), RAS+ mm."""
    frame = pd.DataFrame(points @ LPS, columns=list("xyz"))
    return ants.apply_transforms_to_points(3, frame, [str(path)])[["x", "y", "z"]].to_numpy() @ LPS


def test_the_offset_moves_the_scan_and_there_and_back_is_home(transforms: tuple[Path, Path], tmp_path: Path) -> None:
    forward, inverse = transforms
    offset = np.array([40.0, -25.0, 130.0])
    moved, back = tmp_path / "f.h5", tmp_path / "i.h5"
    transformfile.outward(forward, moved, frame(*offset), to_scan=True)
    transformfile.outward(inverse, back, frame(*offset), to_scan=False)
    points = np.random.default_rng(0).uniform(12, 36, (50, 3))
    there = carry(moved, points)
    assert np.allclose(there, carry(forward, points) + offset, atol=1e-6)
    assert np.allclose(carry(back, there), carry(inverse, there - offset), atol=1e-6)
    assert np.abs(carry(back, there) - points).max() < 0.5


def test_inward_undoes_outward(transforms: tuple[Path, Path], tmp_path: Path) -> None:
    points = np.random.default_rng(1).uniform(12, 36, (20, 3))
    for source, to_scan in zip(transforms, (True, False), strict=True):
        transformfile.outward(source, tmp_path / "out.h5", frame(40.0, -25.0, 130.0), to_scan=to_scan)
        transformfile.inward(tmp_path / "out.h5", tmp_path / "in.h5", frame(40.0, -25.0, 130.0), to_scan=to_scan)
        assert np.allclose(carry(tmp_path / "in.h5", points), carry(source, points), atol=1e-9)


def test_equal_transforms_are_equal_bytes(transforms: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        transformfile.outward(transforms[0], tmp_path / name, frame(0, 0, 0), to_scan=True)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_bytes_do_not_depend_on_when_an_object_is_freed(
    transforms: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks at a worker's frames, as Dask's profiler does, keeps their objects for a moment."""
    inverse = transforms[1]  # its field does not come last: something follows that could move
    transformfile.outward(inverse, tmp_path / "a.h5", frame(0, 0, 0), to_scan=False)
    kept, create = [], h5py.Group.create_dataset

    def keep(*arguments: object, **settings: object) -> object:
        kept.append(create(*arguments, **settings))
        return kept[-1]

    monkeypatch.setattr(h5py.Group, "create_dataset", keep)
    transformfile.outward(inverse, tmp_path / "b.h5", frame(0, 0, 0), to_scan=False)
    assert kept
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_file_without_an_affine_is_refused(transforms: tuple[Path, Path], tmp_path: Path) -> None:
    with h5py.File(tmp_path / "none.h5", "w") as stored:
        stored.create_group("TransformGroup")
    with pytest.raises(BadInputError, match="no affine"):
        transformfile.outward(tmp_path / "none.h5", tmp_path / "out.h5", frame(0, 0, 0), to_scan=True)
    assert not (tmp_path / "out.h5").exists()
