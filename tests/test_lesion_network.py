"""The lesion network on any grid: slices, way there and back, and lesions planted where there were none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from bids_app.image.networks import lesion_network
from bids_app.lesions import network
from bids_app.records.scan import Priors, Volume

WEIGHTS = Path(__file__).parents[1] / "bids_app" / "weights"


def head(spacing: tuple[float, float, float]) -> tuple[Volume, Priors, np.ndarray]:
    """An ellipsoid of white matter in gray, with two dark ventricles: belief, priors and brain."""
    shape = tuple(int(n / s) for n, s in zip((170, 200, 140), spacing, strict=True))
    x, y, z = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij", sparse=True
    )
    radius = np.sqrt((x / 70) ** 2 + (y / 88) ** 2 + (z / 58) ** 2)
    fluid = np.sqrt(((np.abs(x) - 12) / 7) ** 2 + (y / 30) ** 2 + (z / 14) ** 2) < 1
    brain, white = radius < 1, (radius < 0.82) & ~fluid
    maps = [np.asarray(m, np.float32) for m in (brain & ~white & ~fluid, white, brain & fluid)]
    belief = np.where(fluid, -0.7, np.where(white, -0.12, 0.0)) * brain
    grain = np.random.default_rng(0).normal(0, 0.03, shape)
    smooth = ndimage.gaussian_filter(belief + grain, 0.6 / np.array(spacing)) * brain
    affine = np.diag([*spacing, 1.0])
    return Volume(smooth.astype(np.float32), affine), Priors(maps[0], *maps, brain.astype(np.float32)), brain


def ball(grid: Volume, middle: tuple[float, float, float], radius: float) -> np.ndarray:
    """True within ``radius`` mm of a point that is ``middle`` mm from the middle of the grid."""
    place = [
        (np.arange(n) - (n - 1) / 2) * s - m for n, s, m in zip(grid.data.shape, grid.spacing, middle, strict=True)
    ]
    x, y, z = np.meshgrid(*place, indexing="ij", sparse=True)
    return x**2 + y**2 + z**2 < radius**2


def bright(channels: np.ndarray) -> np.ndarray:
    """A network that finds what is bright on the middle slice."""
    return (channels[1] - 0.25) * 100


@pytest.mark.parametrize(
    ("spacing", "cut"),
    [
        ((0.8, 0.8, 4.4), network.Slabs(2, 1, 1)),
        ((5.0, 0.9, 0.9), network.Slabs(0, 1, 1)),
        ((1.0, 3.0, 1.0), network.Slabs(1, 1, 1)),
        ((1.0, 1.0, 1.0), network.Slabs(2, 3, 2)),
        ((0.5, 1.0, 1.0), network.Slabs(2, 3, 2)),
    ],
)
def test_slices_lie_across_the_largest_voxels(spacing: tuple[float, ...], cut: network.Slabs) -> None:
    assert network.slabs_of(np.array(spacing)) == cut


@pytest.mark.parametrize("size", [0.57, 0.8, 1.0, 1.3])
def test_the_way_to_the_plane_and_back_keeps_what_is_smooth(size: float) -> None:
    length, side = int(200 / size), slice(int(20 / size), int(180 / size))
    into, back = network.to_plane(length, size, side), network.from_plane(length, size, side)
    assert into.shape[0] % network.MULTIPLE == 0
    line = np.linspace(-1, 2, length)
    np.testing.assert_allclose((back @ (into @ line))[side], line[side], atol=0.02)
    np.testing.assert_allclose((into @ np.ones(length)), 1, atol=1e-5)


@pytest.mark.parametrize("spacing", [(0.8, 0.8, 4.4), (4.0, 1.0, 1.0), (1.0, 5.0, 0.9), (1.5, 1.5, 1.5)])
def test_what_the_network_sees_is_where_the_answer_goes(spacing: tuple[float, float, float]) -> None:
    grid, priors, brain = head(spacing)
    lesion = ball(grid, (35, 20, 5), 9) & brain
    belief = grid.like(np.where(lesion, np.float32(0.6), grid.data))
    found = network.find_lesions(belief, priors, brain, bright)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1
    assert not found[~brain].any()
    both = 2 * ((found > 0.5) & lesion).sum() / ((found > 0.5).sum() + lesion.sum())
    assert both > 0.8


def test_a_mirrored_scan_gives_the_mirrored_answer() -> None:
    grid, priors, brain = head((1.6, 1.6, 4.0))
    belief = grid.like(np.where(ball(grid, (30, -25, 8), 8), np.float32(0.5), grid.data))
    turned = Priors(*(getattr(priors, name)[::-1] for name in ("flair", "gm", "wm", "csf", "mask")))
    found = network.find_lesions(belief, priors, brain, lesion_network())
    again = network.find_lesions(belief.like(belief.data[::-1]), turned, brain[::-1], lesion_network())
    np.testing.assert_allclose(again[::-1], found, atol=1e-4)


def test_no_brain_no_lesion() -> None:
    grid, priors, brain = head((2.0, 2.0, 5.0))
    assert not network.find_lesions(grid, priors, np.zeros_like(brain), bright).any()


def test_planted_lesions_are_found_and_none_where_there_are_none() -> None:
    grid, priors, brain = head((0.9, 0.9, 3.0))
    clean = network.find_lesions(grid, priors, brain, lesion_network()) > 0.5
    assert clean.sum() * grid.voxel_ml < 0.1
    places = [((38, 10, 3), 6.0), ((-36, -25, 12), 4.0), ((34, 40, 0), 3.0), ((-30, 45, -6), 2.5)]
    lesions = [ball(grid, middle, radius) for middle, radius in places]
    share = ndimage.gaussian_filter(np.any(lesions, axis=0).astype(np.float32), (0.5, 0.5, 0.2))
    belief = grid.like((grid.data + share * (0.45 - grid.data)).astype(np.float32))
    found = network.find_lesions(belief, priors, brain, lesion_network()) > 0.5
    assert all(found[lesion].mean() > 0.2 for lesion in lesions)


def test_the_card_names_data_licence_and_scores() -> None:
    card = json.loads((WEIGHTS / "lesions.json").read_text(encoding="utf-8"))
    assert "CC-BY" in card["License"]
    assert card["Command"].startswith("python -m training lesions")
    assert len(card["Scans"]) == 12
    assert len(card["Painted"]) == 22
    assert set(card["DiceLeftOut"]) == {f"patient{n}{kind}" for n in ("07", "19", "26") for kind in ("", "_thick")}
    assert (WEIGHTS / "lesions.onnx").stat().st_size <= 5e6
