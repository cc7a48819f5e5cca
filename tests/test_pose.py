"""A synthetic brain put somewhere by a known pose is found there: tilted, shifted, turned."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bids_app.image import atlas
from bids_app.image.geometry import centre, coarser, points, sample
from bids_app.image.pose import find_pose, refine
from bids_app.records.scan import Pose, Volume


@cache
def head() -> Volume:
    return atlas.target(4.0, 15.0)


def brain_points() -> np.ndarray:
    mask = atlas.brain_grid(3)
    return np.argwhere(mask.data)[::50] @ mask.affine[:3, :3].T + mask.affine[:3, 3]


def posed(turn: Rotation, shift: tuple[float, float, float], size: float = 0.92) -> tuple[Volume, Pose]:
    """A scan (4 x 4 x 5 mm, 240 mm wide) of the brain, noisy and without bias field, and its true pose."""
    matrix = size * turn.as_matrix()
    truth = Pose(matrix, np.array(shift) - matrix @ centre(head()), 1.0, turned=False)
    affine = np.diag([4.0, 4.0, 5.0, 1.0])
    affine[:3, 3] = -118.0
    grid = Volume(np.zeros((60, 60, 48), np.float32), affine)
    data = sample(head(), (points(grid).reshape(60, 60, 48, 3) - truth.translation) @ np.linalg.inv(matrix).T)
    noise = np.random.default_rng(0).normal(0, 0.05, data.shape)
    return Volume(np.maximum(data + noise, 0).astype(np.float32), affine), truth


def errors(found: Pose, truth: Pose) -> tuple[float, float]:
    """Largest distance over the brain, mm, and the angle between the rotations, degrees."""
    apart = brain_points() @ (found.matrix - truth.matrix).T + found.translation - truth.translation
    left, _, right = np.linalg.svd(found.matrix @ np.linalg.inv(truth.matrix))
    angle = float(np.degrees(Rotation.from_matrix(left @ right).magnitude()))
    return float(np.linalg.norm(apart, axis=1).max()), angle


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
    found = find_pose(scan, head())
    apart, angle = errors(found, truth)
    assert apart < 2
    assert angle < 2
    assert not found.turned
    assert found.similarity > 0.9


@pytest.mark.parametrize("rotvec", [(90, 0, 0), (0, 0, 180), (0, 90, 0)])
def test_a_head_turned_by_known_axes_is_recovered(rotvec: tuple[float, ...]) -> None:
    turn = Rotation.from_rotvec(rotvec, degrees=True)
    scan, truth = posed(turn * Rotation.from_euler("xyz", [5, 8, -6], degrees=True), (6, -4, 8))
    found = find_pose(scan, head(), turn.as_matrix())
    apart, angle = errors(found, truth)
    assert apart < 2
    assert angle < 2
    assert found.turned
    assert find_pose(scan, head()).similarity < found.similarity - 0.02  # by the header alone it does not fit


def test_refining_climbs_and_stays_at_the_top() -> None:
    scan, truth = posed(Rotation.from_euler("xyz", [4, -5, 9], degrees=True), (5, 5, -5))
    start = Pose(truth.matrix @ Rotation.from_euler("z", 10, degrees=True).as_matrix(), truth.translation, 0.0, False)
    top = refine(start, scan, head())
    again = refine(top, scan, head())
    assert again.similarity >= top.similarity - 1e-6
    assert errors(again, top)[0] < 0.1
    assert errors(start, truth)[0] > 10 * errors(again, truth)[0]


def test_the_start_matters_not() -> None:
    """From 15 degrees off, which is farther than the tilts that are tried leave, the optimum is the same."""
    scan, truth = posed(Rotation.identity(), (3, -8, 4))
    small, wanted = coarser(scan, 8.0), coarser(head(), 8.0)
    best = refine(truth, small, wanted)
    for angles in ([15, 0, 0], [0, -15, 0], [0, 0, 15]):
        tilted = truth.matrix @ Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
        assert errors(refine(Pose(tilted, truth.translation, 0.0, False), small, wanted), best)[0] < 0.5


def test_noise_is_not_taken_for_a_brain() -> None:
    scan, _ = posed(Rotation.identity(), (0, 0, 0))
    noise = scan.like(np.random.default_rng(0).uniform(0, 1, scan.data.shape).astype(np.float32))
    assert find_pose(noise, head()).similarity < 0.8 < find_pose(scan, head()).similarity  # see quality.checks
