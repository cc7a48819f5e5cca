"""Laws of the grids: back and forth is where we began, and no voxel moves in the world."""

from __future__ import annotations

from itertools import permutations, product

import ants
import numpy as np
import pytest
from nibabel import aff2axcodes
from scipy.spatial.transform import Rotation

from bids_app.image.geometry import Frame, canonical, centre, centred, coarser, finer, sample, stored_like
from bids_app.image.itk import LPS, to_ants
from bids_app.records.scan import Volume

SHAPE, SPACING = (7, 9, 5), (2.0, 3.0, 4.0)
ORDERS = list(permutations(range(3)))
SIGNS = list(product([1.0, -1.0], repeat=3))


def volume(order: tuple[int, ...] = (0, 1, 2), signs: tuple[float, ...] = (1, 1, 1), tilt: float = 0.0) -> Volume:
    """Noise whose stored axis j points along world axis ``order[j]`` with that sign, then tilted (degrees)."""
    linear = np.zeros((3, 3))
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        linear[world, axis] = sign * SPACING[axis]
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [tilt, -tilt, tilt / 2], degrees=True).as_matrix() @ linear
    affine[:3, 3] = [-12.5, 7.25, 40.75]
    return Volume(np.random.default_rng(0).normal(size=SHAPE).astype(np.float32), affine)


def world(of: Volume) -> np.ndarray:
    """World points (X, Y, Z, 3) of the voxel centres, mm."""
    index = np.moveaxis(np.indices(of.data.shape), 0, -1)
    return index @ of.affine[:3, :3].T + of.affine[:3, 3]


def ramp(points: np.ndarray) -> np.ndarray:
    return points @ [0.5, -0.25, 2.0] + 3.0


@pytest.mark.parametrize("tilt", [0.0, 11.0])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("signs", SIGNS)
def test_every_axis_order_goes_to_canonical_and_back(
    order: tuple[int, ...], signs: tuple[float, ...], tilt: float
) -> None:
    original = volume(order, signs, tilt)
    turned = canonical(original)
    assert aff2axcodes(turned.affine) == ("R", "A", "S")
    assert np.array_equal(stored_like(turned.data, original), original.data)
    # each value lies where it lay, to the rounding of the affine: 1e-4 a voxel and 0.01 mm
    lies = {value: point for value, point in zip(original.data.ravel(), world(original).reshape(-1, 3), strict=True)}
    now = np.array([lies[value] for value in turned.data.ravel()])
    assert np.abs(now - world(turned).reshape(-1, 3)).max() < 0.02


def test_stored_orders_of_one_scan_are_one_canonical_volume() -> None:
    straight = volume()
    wanted = canonical(straight)
    for axes, flips in product(ORDERS, SIGNS):
        steps = tuple(slice(None, None, int(flip)) for flip in flips)
        first = [0 if flip > 0 else n - 1 for flip, n in zip(flips, SHAPE, strict=True)]
        affine = straight.affine.copy()
        affine[:3, 3] = straight.affine[:3, :3] @ first + straight.affine[:3, 3]
        affine[:3, :3] = (straight.affine[:3, :3] * flips)[:, list(axes)]
        again = canonical(Volume(straight.data[steps].transpose(axes), affine))
        assert np.array_equal(again.data, wanted.data)
        assert np.array_equal(again.affine, wanted.affine)


@pytest.mark.parametrize("order", ORDERS)
def test_itk_sees_every_voxel_at_its_place(order: tuple[int, ...]) -> None:
    ours = volume(order, (1, -1, 1), tilt=9)
    image = to_ants(ours)
    assert np.array_equal(image.numpy(), ours.data)
    points = world(ours)
    for index in ([0, 0, 0], [6, 0, 4], [2, 8, 1], [3, 4, 2]):
        physical = ants.transform_index_to_physical_point(image, index)
        assert np.allclose(LPS @ physical, points[tuple(index)], atol=1e-4)


def test_itk_resamples_as_we_sample() -> None:
    fixed, moving = volume(), volume(tilt=6)
    warped = ants.resample_image_to_target(to_ants(moving), to_ants(fixed), interp_type="linear").numpy()
    ours = sample(moving, world(fixed))
    index = (world(fixed) - moving.affine[:3, 3]) @ np.linalg.inv(moving.affine[:3, :3]).T
    inside = ((index > 0.01) & (index < np.array(SHAPE) - 1.01)).all(axis=-1)  # ITK's border is half a voxel out
    assert inside.sum() > 20
    assert np.allclose(warped[inside], ours[inside], atol=1e-4)


def test_sampling_at_the_voxels_gives_the_voxels() -> None:
    ours = volume((2, 0, 1), (1, -1, -1), tilt=9)
    inner = (slice(1, -1),) * 3  # the outermost centres are inside or outside by rounding
    assert np.allclose(sample(ours, world(ours))[inner], ours.data[inner], atol=1e-5)
    assert sample(ours, np.array([[500.0, 0, 0]])) == 0


@pytest.mark.parametrize("spacing", [4.0, 6.0, 9.0])
def test_coarser_and_finer_keep_positions(spacing: float) -> None:
    grid = Volume(np.zeros((60, 40, 30)), volume((1, 0, 2), (-1, 1, 1), tilt=7).affine)
    linear = grid.like(ramp(world(grid)))
    coarse = coarser(linear, spacing)
    assert np.allclose(coarse.spacing, np.maximum(spacing, SPACING))
    assert np.allclose(centre(coarse), centre(grid), atol=1e-6)
    far = np.ceil(2 * spacing / coarse.spacing).astype(int)  # from the edge, where blurring sees no ramp
    inner = tuple(slice(n, -n) for n in far)
    assert coarse.data[inner].size
    assert np.allclose(coarse.data[inner], ramp(world(coarse))[inner], atol=1e-2)
    back = finer(coarse, grid)
    assert back.shape == grid.data.shape
    edge = tuple(slice(n, -n) for n in np.ceil(3 * spacing / grid.spacing).astype(int))
    assert np.allclose(back[edge], linear.data[edge], atol=1e-2)


def test_a_grid_already_coarse_stays() -> None:
    same = coarser(volume(tilt=5), 1.0)
    assert np.allclose(same.data, volume().data, atol=1e-6)
    assert np.allclose(same.affine, volume(tilt=5).affine)


def test_coarser_makes_no_pattern_of_a_fine_one() -> None:
    stripes = Volume(np.broadcast_to(np.arange(64) % 2, (64, 64, 64)).astype(float), np.eye(4))
    assert np.allclose(coarser(stripes, 8.0).data[:, :, 1:-1], 0.5, atol=0.01)


def test_centred_has_its_middle_at_the_origin_whatever_the_origin_was() -> None:
    ours = volume((2, 0, 1), (1, -1, 1), tilt=13)
    moved = Volume(ours.data, ours.affine + np.array([[0, 0, 0, shift] for shift in (300.5, -20.25, 7.125, 0)]))
    assert np.allclose(centre(centred(ours)), 0, atol=1e-5)
    assert np.array_equal(centred(moved).affine, centred(ours).affine)
    assert np.array_equal(centred(ours).affine[:3, :3], ours.affine[:3, :3])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("signs", SIGNS)
def test_inward_and_outward_undo_each_other(order: tuple[int, ...], signs: tuple[float, ...]) -> None:
    original = volume(order, signs, tilt=11)
    frame = Frame(original)
    assert np.array_equal(frame.outward(frame.inward(original.data)), original.data)
    assert np.array_equal(frame.inward(original.data), frame.grid.data)
    inside = np.random.default_rng(2).normal(size=frame.grid.data.shape)
    assert np.array_equal(frame.inward(frame.outward(inside)), inside)
    affine = volume(tilt=-7).affine
    for to_scan in (True, False):
        for one, other in (("inward", "outward"), ("outward", "inward")):
            there = getattr(frame, f"affine_{one}")(affine, to_scan=to_scan)
            assert np.abs(there - affine).max() > 1
            assert np.allclose(getattr(frame, f"affine_{other}")(there, to_scan=to_scan), affine, atol=1e-12)


def test_an_affine_goes_to_points_of_the_frame_or_comes_from_them() -> None:
    frame, affine = Frame(volume(tilt=11)), volume((1, 0, 2), tilt=5).affine
    point = np.array([3.0, -4.0, 5.0, 1.0])
    moved = np.array([*frame.offset, 0.0])
    assert np.allclose(frame.affine_outward(affine) @ point, affine @ point + moved)
    assert np.allclose(frame.affine_outward(affine, to_scan=False) @ (point + moved), affine @ point)
    assert np.allclose(frame.affine_inward(canonical(frame.original).affine), frame.grid.affine, atol=1e-5)
