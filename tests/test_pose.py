"""A synthetic head put somewhere by a known pose is found there: tilted, shifted, or with a header that lies."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bids_app import atlas
from bids_app.affine import refine
from bids_app.geometry import centre, coarser, sample
from bids_app.pose import find_pose
from bids_app.records import Pose, Volume


@cache
def head() -> Volume:
    return coarser(atlas.load().head, 4.0)


def brain_points() -> np.ndarray:
    mask = atlas.brain_grid(3)
    return np.argwhere(mask.data)[::50] @ mask.affine[:3, :3].T + mask.affine[:3, 3]


def posed(turn: Rotation, shift: tuple[float, float, float], size: float = 0.92) -> tuple[Volume, Pose]:
    """A scan (4 x 4 x 5 mm, 240 mm wide) of the head, noisy and without bias field, and its true pose."""
    matrix = size * turn.as_matrix()
    truth = Pose(matrix, np.array(shift) - matrix @ centre(head()), 1.0, turned=False)
    affine = np.diag([4.0, 4.0, 5.0, 1.0])
    affine[:3, 3] = -118.0
    points = np.moveaxis(np.indices((60, 60, 48)), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    data = sample(head(), (points - truth.translation) @ np.linalg.inv(matrix).T)
    noise = np.random.default_rng(0).normal(0, 0.05, data.shape)
    return Volume(np.maximum(data + noise, 0).astype(np.float32), affine), truth


def errors(found: Pose, truth: Pose) -> tuple[float, float]:
    """Largest distance over the brain, mm, and the angle between the rotations, degrees."""
    apart = brain_points() @ (found.matrix - truth.matrix).T + found.translation - truth.translation
    left, _, right = np.linalg.svd(found.matrix @ np.linalg.inv(truth.matrix))
    angle = float(np.degrees(Rotation.from_matrix(left @ right).magnitude()))
    return float(np.linalg.norm(apart, axis=1).max()), angle


def solved(scan: Volume, *, trust_header: bool = True) -> Pose:
    return refine(find_pose(scan, head(), trust_header=trust_header), scan, head())


@pytest.mark.parametrize(
    ("angles", "shift"),
    [
        ((0, 0, 0), (0, 0, 0)),
        ((6, -9, 14), (11, -7, 9)),
        ((30, 0, 0), (0, 15, -10)),  # chin on the chest
        ((0, 0, 30), (20, 0, 0)),
        ((0, -30, 10), (-15, 5, 0)),
    ],
)
def test_a_known_pose_is_recovered(angles: tuple[float, ...], shift: tuple[float, float, float]) -> None:
    scan, truth = posed(Rotation.from_euler("xyz", angles, degrees=True), shift)
    found = solved(scan)
    apart, angle = errors(found, truth)
    assert apart < 2
    assert angle < 2
    assert not found.turned
    assert found.similarity > 0.9


@pytest.mark.parametrize("trust_header", [False, True])
@pytest.mark.parametrize("rotvec", [(90, 0, 0), (0, 0, 180), (0, 90, 0)])
def test_a_right_angled_turn_is_recovered(rotvec: tuple[float, ...], trust_header: bool) -> None:
    turn = Rotation.from_rotvec(rotvec, degrees=True) * Rotation.from_euler("xyz", [5, 8, -6], degrees=True)
    scan, truth = posed(turn, (6, -4, 8))
    found = solved(scan, trust_header=trust_header)
    apart, angle = errors(found, truth)
    assert apart < 2
    assert angle < 2
    assert found.turned


def test_refining_climbs_and_stays_at_the_top() -> None:
    scan, _ = posed(Rotation.from_euler("xyz", [4, -5, 9], degrees=True), (5, 5, -5))
    start = find_pose(scan, head())
    top = refine(start, scan, head())
    again = refine(top, scan, head())
    assert again.similarity >= top.similarity - 1e-6
    assert errors(again, top)[0] < 0.1
    assert errors(start, top)[0] > errors(again, top)[0]


def test_quality_flags_what_is_no_head() -> None:
    scan, _ = posed(Rotation.identity(), (0, 0, 0))
    noise = scan.like(np.random.default_rng(0).uniform(0, 1, scan.data.shape).astype(np.float32))
    assert solved(noise).similarity < 0.8 < solved(scan).similarity  # normal is 0.8 to 1, see quality.checks
