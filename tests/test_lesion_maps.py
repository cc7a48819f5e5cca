"""The lesion maps beside the published one: the norm, its laws, regions that part a map, lesions lost on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from bids_app.bids.query import find_scans
from bids_app.errors import BadInputError
from bids_app.files import formats
from bids_app.image import atlas
from bids_app.lesions import maps, normative, regions
from bids_app.lesions.kinds import REGIONS
from bids_app.records.lesions import Norm
from bids_app.records.scan import Volume


@pytest.fixture(scope="module")
def grid() -> Volume:
    return atlas.brain_grid(3)


def people(grid: Volume, number: int, seed: int = 0) -> list[np.ndarray]:
    """Belief of so many people: one smooth map for all, and everybody's noise."""
    rng = np.random.default_rng(seed)
    common = ndimage.gaussian_filter(rng.normal(0, 3, grid.data.shape), 4)
    common = (common + normative.mirrored(common, grid)) / 2
    return [np.where(grid.data, common + rng.normal(0, 0.03, grid.data.shape), np.nan) for _ in range(number)]


def ball(grid: Volume, centre: tuple[float, float, float], radius: float) -> np.ndarray:
    index = np.moveaxis(np.indices(grid.data.shape), 0, -1)
    world = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return np.linalg.norm(world - centre, axis=-1) <= radius


def test_the_mirror_image_twice_is_the_image_where_the_grid_is_symmetric() -> None:
    symmetric = atlas.brain_grid(2)
    image = np.random.default_rng(1).normal(size=symmetric.data.shape)
    once = normative.mirrored(image, symmetric)
    np.testing.assert_array_equal(once, image[::-1])
    np.testing.assert_array_equal(normative.mirrored(once, symmetric), image)


def test_the_norm_is_the_median_and_leaves_out_lesions_that_few_have(grid: Volume) -> None:
    plain, ill = people(grid, 7), people(grid, 7)
    for k in range(3):  # three of seven, at one place: six of fourteen with the mirror images would hide nothing
        ill[k] = np.where(ball(grid, (27, -20, 27), 9), ill[k] + 0.6, ill[k])
    without, norm = normative.estimate(plain, grid), normative.estimate(ill, grid)
    assert norm.known.sum() > 0.9 * grid.data.sum()
    assert np.abs(norm.centre.data - without.centre.data)[norm.known].max() < 0.1
    middle = norm.known & ball(grid, (0, -20, 30), 30)
    expected = np.nanmedian([*plain, *(normative.mirrored(each, grid) for each in plain)], axis=0)
    assert np.abs(without.centre.data - expected)[middle].mean() < 0.02


def test_lesions_in_white_matter_do_not_move_the_offset() -> None:
    rng = np.random.default_rng(2)
    belief = rng.normal(0.3, 0.05, 10000)
    ill = belief.copy()
    ill[:4000] += 0.5
    white = np.ones(10000, bool)
    plain = normative.difference(belief, np.zeros(10000), white)
    assert abs(np.median(plain)) < 1e-3  # what lies farther than 0.15 on either side is left out
    assert abs(np.median(normative.difference(ill, np.zeros(10000), white)[4000:])) < 0.02


def test_a_norm_comes_back_as_it_was_stored(tmp_path) -> None:  # type: ignore[no-untyped-def]
    two = atlas.brain_grid(2)
    rng = np.random.default_rng(3)
    known = two.data & (rng.random(two.data.shape) < 0.9)
    centre, spread = rng.uniform(-0.9, 0.9, two.data.shape), rng.uniform(0, 0.6, two.data.shape)
    norm = Norm(two.like(np.where(known, centre, 0)), two.like(np.where(known, spread, 0)), known)
    path = tmp_path / "norm.npz"
    np.savez_compressed(path, **dict(normative.packed(norm)))
    with path.open("rb") as stream:
        again = normative.unpacked(stream)
    np.testing.assert_array_equal(again.known, known)
    assert np.abs(again.centre.data - norm.centre.data).max() <= normative.STEP / 2 + 1e-6
    assert np.abs(again.spread.data - norm.spread.data).max() <= normative.STEP_SPREAD / 2 + 1e-6
    with pytest.raises(BadInputError, match="somebody"):
        normative.estimate([], two)


def test_the_shipped_norm_is_of_a_brain_and_symmetric() -> None:
    norm = normative.shipped()
    assert norm.known.sum() > 0.9 * atlas.brain_grid(2).data.sum()
    both = norm.known & norm.known[::-1]
    assert np.abs(norm.centre.data - norm.centre.data[::-1])[both].mean() < 0.005
    maps_ = atlas.load()
    gray, fluid = (getattr(maps_, name).data[::2, ::2, ::2] > 0.95 for name in ("gm", "csf"))
    assert abs(np.median(norm.centre.data[norm.known & gray])) < 0.1  # belief is about 0 in gray matter
    assert np.median(norm.centre.data[norm.known & fluid]) < -0.2


# -- regions -------------------------------------------------------------------------------------


def test_regions_part_the_brain_and_are_where_they_should_be() -> None:
    labels, mask = regions.template(), atlas.brain_grid(2).data
    assert np.array_equal(labels.data > 0, mask)
    names = list(REGIONS)

    def at(*point: float) -> str:
        index = np.rint((np.array(point) - labels.affine[:3, 3]) / 2).astype(int)
        return names[labels.data[tuple(index)] - 1]

    assert at(0, -28, -30) == at(20, -64, -40) == "infratentorial"
    assert at(0, -34, 16) == "corpus_callosum" or at(0, -36, 20) == "corpus_callosum"
    assert at(26, -20, 36) == "deep_white_matter"
    assert at(12, -18, 8) == "elsewhere"  # thalamus
    assert at(44, 30, 26) == "juxtacortical"


@pytest.mark.parametrize("seed", range(5))
def test_volumes_and_counts_by_region_sum_to_those_of_the_map(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = ndimage.gaussian_filter(rng.normal(size=(40, 40, 12)), 1) > 0.25
    where = rng.integers(0, len(REGIONS), (10, 10, 3)).repeat(4, 0).repeat(4, 1).repeat(4, 2)
    told = regions.measures(found, where, 0.003)
    count = ndimage.label(found, np.ones((3, 3, 3)))[1]
    assert sum(told[f"{name}_count"] for name in REGIONS) == count > 5
    assert sum(told[f"{name}_volume_ml"] for name in REGIONS) == pytest.approx(found.sum() * 0.003)
    nothing = regions.measures(np.zeros_like(found), where, 0.003)
    assert not any(nothing.values())


# -- what is lost on the way ---------------------------------------------------------------------


def test_a_lesion_is_lost_where_no_voxel_of_the_normalised_map_comes_from_it() -> None:
    native = np.zeros((12, 12, 12), bool)
    native[1:5, 1:5, 1:5] = native[9, 9, 9] = True
    grid = np.stack(np.meshgrid(*(np.arange(0, 12, 3.0),) * 3, indexing="ij"))
    mni = ndimage.map_coordinates(native.astype(float), grid, order=1) >= 0.5
    assert maps.lost(native, mni, grid) == 0  # (9, 9, 9) falls on a voxel
    native[9, 9, 9], native[7, 7, 7] = False, True
    mni = ndimage.map_coordinates(native.astype(float), grid, order=1) >= 0.5
    assert maps.lost(native, mni, grid) == 1
    assert maps.lost(np.zeros_like(native), np.zeros_like(mni), grid) == 0


# -- planted lesions -----------------------------------------------------------------------------


def test_planted_lesions_are_found_and_a_lesion_free_scan_stays_free(tiny: tuple[Path, Path], done: Path) -> None:
    planted = {}
    for scan in find_scans(tiny[0])[0]:
        truth, grown = (formats.read_nifti(tiny[1] / scan.output("lesion"))[0] > 0, {})
        for key in ("normative", "network"):
            grown[key] = formats.read_nifti(done / scan.output(key))[0] > 0
        labels, count = ndimage.label(truth, np.ones((3, 3, 3)))
        planted[scan.name] = count
        for key, found in grown.items():
            assert len(set(np.unique(labels[found])) - {0}) == count, f"{scan.name}: {key} misses lesions"
        if not count:
            assert not grown["normative"].any()
            assert not grown["network"].any()
    assert max(planted.values()) >= 5 and min(planted.values()) == 0
