"""Bias, tissues, belief and lesions: on made-up brains whose truth is known, and by their laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage, stats

from bids_app.errors import ScanError
from bids_app.image import lesion, registration, tissue
from bids_app.records.scan import Moments, Priors, Tissues, Volume

TRUE = {"GM": (300.0, 25.0), "WM": (240.0, 18.0), "CSF": (90.0, 30.0)}  # mean and SD of FLAIR
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
VALUES = hnp.arrays(np.float64, st.integers(2, 60), elements=st.floats(-2, 5, allow_subnormal=False))


def brain(lesions: float = 0.01, seed: int = 0) -> tuple[Volume, Priors, np.ndarray]:
    """A ball of fluid in white matter in gray matter, its blurred priors, and the true tissue (1, 2, 3; 0 air)."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in (48, 48, 36)), indexing="ij", sparse=True)
    radius = np.sqrt(sum(axis**2 for axis in axes))
    truth = np.select([radius < 0.35, radius < 0.7, radius < 0.95], [3, 2, 1], 0)
    data = np.zeros(truth.shape)
    for label, (mean, sd) in enumerate(TRUE.values(), start=1):
        data[truth == label] = rng.normal(mean, sd, (truth == label).sum())
    bright = (truth == 2) & (rng.random(truth.shape) < lesions)
    data[bright] = rng.uniform(450, 520, bright.sum())
    gm, wm, csf = (ndimage.gaussian_filter((truth == label).astype(np.float32), 1.5) for label in (1, 2, 3))
    mask = ndimage.gaussian_filter((truth > 0).astype(np.float32), 0.5)
    return Volume(np.maximum(data, 0).astype(np.float32), AFFINE), Priors(mask, gm, wm, csf, mask), truth


def as_tissues(labels: np.ndarray) -> Tissues:
    gm, wm, csf = ((labels == label).astype(np.float32) for label in (1, 2, 3))
    return Tissues(gm, wm, csf, mask=labels > 0, means={"GM": 1.0, "WM": 0.8, "CSF": 0.3})


# -- tissues -------------------------------------------------------------------------------------


@pytest.mark.parametrize("lesions", [0.0, 0.03])
def test_the_means_of_a_mixture_are_recovered(lesions: float) -> None:
    scan, priors, truth = brain(lesions)
    found = tissue.segment(scan, priors, priors.mask > 0.5)
    for name, (mean, sd) in TRUE.items():
        assert abs(found.means[name] - mean) < 0.1 * sd, name
    inside = found.mask & (truth > 0)
    assert (found.labels[inside] == truth[inside])[scan.data[inside] < 400].mean() > 0.97
    assert not found.labels[~found.mask].any()


def test_posteriors_are_shares_and_lesions_belong_to_none() -> None:
    scan, priors, _ = brain(0.03)
    found = tissue.segment(scan, priors, priors.mask > 0.5)
    total = found.gm + found.wm + found.csf
    assert min(found.gm.min(), found.wm.min(), found.csf.min()) >= 0
    assert total.max() < 1 + 1e-5
    assert not total[~found.mask].any()
    bright = found.mask & (scan.data > 440)
    assert bright.sum() > 100
    assert total[bright].max() < 0.05
    assert np.median(total[found.mask & ~bright]) > 0.95


@pytest.mark.parametrize("gain", [0.01, 40.0])
def test_tissues_do_not_depend_on_the_scanners_unit(gain: float) -> None:
    scan, priors, _ = brain()
    one = tissue.segment(scan, priors, priors.mask > 0.5)
    other = tissue.segment(scan.like(scan.data * np.float32(gain)), priors, priors.mask > 0.5)
    assert np.allclose(one.gm, other.gm, atol=2e-3)
    assert other.means["GM"] == pytest.approx(gain * one.means["GM"], rel=1e-4)


def test_bright_voxels_are_capped_for_the_registration_only() -> None:
    scan, _, truth = brain(0.03)
    inside, before = truth > 0, scan.data.copy()
    only = registration.brain_only(scan, inside)
    assert np.allclose(only.spacing, registration.SPACING)
    top = registration.CAP * np.median(before[inside])
    assert only.data.max() <= top * (1 + 1e-6) and only.data[0, 0, 0] == 0
    assert np.array_equal(scan.data, before)
    dim = scan.like(np.minimum(before, np.float32(top)))  # what is capped already, and nowhere bright over a few mm
    np.testing.assert_allclose(registration.brain_only(dim, inside).data, only.data, rtol=1e-6)


def test_a_lesion_beside_the_ventricle_is_registered_as_if_it_were_tissue() -> None:
    scan, _, truth = brain(0.0)
    inside, places = truth > 0, np.argwhere(np.ones(truth.shape)).reshape(*truth.shape, 3) @ AFFINE[:3, :3]
    ball = (np.linalg.norm(places - [70, 46, 54], axis=-1) < 8) & (truth == 2)  # in white matter, close to the fluid
    assert ball.sum() > 80
    lesioned = scan.like(np.where(ball, np.float32(500), scan.data))
    without, filled = (registration.brain_only(each, inside) for each in (scan, lesioned))
    top = registration.CAP * np.median(scan.data[inside])
    core = registration.coarser(scan.like(ball.astype(np.float32)), registration.SPACING).data > 0.9
    assert core.sum() > 10 and without.data[core].max() < 0.9 * top
    assert abs(filled.data[core].mean() - TRUE["WM"][0]) < 30 and filled.data[core].max() < 0.95 * top
    far = ndimage.distance_transform_edt(~core, sampling=filled.spacing) > 20
    assert (np.abs(filled.data - without.data)[far] > 2).mean() < 0.001  # the median of the whole moves a little


def test_a_brain_ends_where_the_image_does_but_keeps_its_fluid() -> None:
    scan, _, truth = brain(0.0)
    data = scan.data.copy()
    data[22:26, 22:26, 18] = 0  # fluid so dark that it is stored as 0
    data[:, :, :6] = 0  # beyond the field of view
    seen = tissue.seen_brain(scan.like(data), truth > 0)
    assert np.array_equal(seen[..., 6:], (truth > 0)[..., 6:])
    assert not seen[..., :6].any()


def test_bright_fat_at_the_edge_is_no_brain_but_a_lesion_there_is() -> None:
    scan, _, truth = brain(0.0)
    inside, data = truth > 0, scan.data.copy()
    ball = ndimage.distance_transform_edt(~inside, sampling=scan.spacing)
    deep = ndimage.distance_transform_edt(inside, sampling=scan.spacing)
    rim = inside & (deep <= 2)
    data[(ball > 0) & (ball < 8)] = 1500  # scalp without bone between, and what of it the voxels of the edge hold
    half = np.indices(truth.shape)[0] < truth.shape[0] // 2
    data[rim & half] = 700
    lesion_there = inside & ~half & (deep < 9) & (deep > 4) & (np.indices(truth.shape)[2] == 18)
    data[lesion_there] = 600
    kept = tissue.without_fat(scan.like(data), inside)
    assert not kept[rim & half].any()
    assert kept[lesion_there].all()
    assert np.array_equal(kept[~half], inside[~half])
    assert np.array_equal(tissue.without_fat(scan, inside), inside)


@pytest.mark.parametrize("outside", [0.0, 3000.0])
def test_what_lies_outside_the_brain_changes_no_voxel_of_it(outside: float) -> None:
    """Fat and air do not reach the bias field, and so neither tissues nor belief."""
    scan, _, truth = brain(0.01)
    inside = truth > 0
    other = scan.like(np.where(inside, scan.data, np.float32(outside)))
    one, two = (tissue.correct_bias(volume, inside).data[inside] for volume in (scan, other))
    assert np.array_equal(one, two)


def test_the_field_of_view_changes_no_voxel_of_the_brain() -> None:
    """N4 lays its knots over the image that it is given: air around a head must not move them."""
    scan, *_ = brain(0.01)
    padded = np.pad(scan.data, [(20, 3), (0, 31), (7, 12)])
    one, two = (tissue.correct_bias(Volume(data, AFFINE), data > 0).data for data in (scan.data, padded))
    np.testing.assert_allclose(two[two > 0], one[one > 0], rtol=1e-3)


def test_bias_correction_takes_a_smooth_field_out() -> None:
    scan, _, truth = brain(0.0)
    along = np.linspace(-1, 1, scan.data.shape[0])[:, None, None]
    biased = scan.like((scan.data * np.exp(0.3 * along)).astype(np.float32))
    corrected = tissue.correct_bias(biased, truth > 0)
    slopes = [
        stats.linregress(np.broadcast_to(along, truth.shape)[truth == 2], np.log(v.data[truth == 2])).slope
        for v in (biased, corrected)
    ]
    assert slopes[0] == pytest.approx(0.3, abs=0.01)
    assert abs(slopes[1]) < 0.06
    assert not corrected.data[truth == 0].any()


# -- belief --------------------------------------------------------------------------------------


def test_belief_is_the_published_formula_in_the_brain_only() -> None:
    scan, priors, truth = brain()
    tissues = as_tissues(truth)
    mean = lesion.gm_mean(scan, priors, tissues)
    assert mean == pytest.approx(scan.data[(truth > 0) & (priors.gm > lesion.GM_PRIOR)].mean())
    assert mean == pytest.approx(TRUE["GM"][0], rel=0.01)
    belief = lesion.belief(scan, mean, tissues.mask)
    assert np.allclose(belief.data[tissues.mask], scan.data[tissues.mask] / mean - 1, atol=1e-6)
    assert not belief.data[~tissues.mask].any()
    assert belief.data[(priors.gm > lesion.GM_PRIOR) & tissues.mask].mean() == pytest.approx(0, abs=1e-5)


def test_without_gray_matter_there_is_no_belief() -> None:
    scan, priors, truth = brain()
    with pytest.raises(ScanError, match="no gray matter"):
        lesion.gm_mean(scan, priors, as_tissues(np.where(priors.gm > 0.5, 0, truth)))
    with pytest.raises(ScanError, match="no gray matter"):
        lesion.gm_mean(scan.like(scan.data * 0), priors, as_tissues(truth))


# -- moments and threshold -----------------------------------------------------------------------


@given(VALUES, st.integers(0, 60))
def test_moments_of_two_halves_are_those_of_the_whole(values: np.ndarray, cut: int) -> None:
    def of(part: np.ndarray) -> Moments:
        return lesion.moments(part, np.ones(part.shape, np.uint8))

    pooled, whole = of(values[:cut]) + of(values[cut:]), of(values)
    assert pooled.count == whole.count == len(values)
    assert pooled.total == pytest.approx(whole.total, abs=1e-9)
    assert pooled.squares == pytest.approx(whole.squares, abs=1e-9)


def test_counts_add_up_exactly() -> None:
    """Whole multiples of 1/1024 have exact sums: nothing may be lost in pooling or by a float32 on the way."""
    rng = np.random.default_rng(0)
    values = (rng.integers(-512, 4096, (40, 50, 60)) / 1024).astype(np.float32)
    labels = rng.integers(0, 4, values.shape).astype(np.uint8)
    pooled = sum((lesion.moments(v, k) for v, k in zip(values[1:], labels[1:], strict=True)),
                 lesion.moments(values[0], labels[0]))  # fmt: skip
    assert pooled == lesion.moments(values, labels)
    inside = [int(1024 * v) for v in values[(labels == 1) | (labels == 2)]]
    assert pooled == Moments(len(inside), sum(inside) / 1024, sum(v * v for v in inside) / 1024**2)


@given(VALUES)
def test_the_threshold_is_mean_plus_254_sd(values: np.ndarray) -> None:
    pooled = lesion.moments(values, np.full(values.shape, 2))
    assert lesion.threshold_of(pooled) == pytest.approx(np.mean(values) + 2.54 * np.std(values), abs=1e-6)


def test_the_published_numbers_do_not_give_the_published_threshold() -> None:
    mean, sd, n = 0.0261, 0.1199, 10**6
    published = Moments(n, n * mean, n * (sd**2 + mean**2))
    assert (published.mean, published.sd) == pytest.approx((mean, sd))
    assert lesion.threshold_of(published) == pytest.approx(0.3306, abs=1e-4)


# -- lesion maps ---------------------------------------------------------------------------------


@given(st.floats(-0.5, 1), st.floats(-0.5, 1))
def test_lesions_are_above_the_threshold_and_shrink_with_it(one: float, other: float) -> None:
    rng = np.random.default_rng(0)
    belief = Volume(rng.normal(0, 0.3, (8, 9, 7)).astype(np.float32), AFFINE)
    inside = rng.random(belief.data.shape) < 0.8
    low, high = (lesion.lesions(belief, t, inside) for t in sorted((one, other)))
    assert not (high & ~low).any()
    assert not (low & ~inside).any()
    assert low.sum() == (belief.data[inside] > min(one, other)).sum()


def test_a_voxel_at_the_threshold_is_no_lesion() -> None:
    belief = Volume(np.full((3, 3, 3), 0.25, np.float32), AFFINE)
    assert not lesion.lesions(belief, 0.25, np.ones((3, 3, 3), bool)).any()


def cleaned(found: np.ndarray, scan: Volume, priors: Priors, inside: np.ndarray) -> np.ndarray:
    return lesion.whole(found & lesion.possible(scan, priors, inside), scan.voxel_ml, priors.wm)


@pytest.mark.parametrize("seed", range(4))
def test_the_cleaned_map_is_part_of_the_lesion_map_by_its_rules(seed: int) -> None:
    scan, priors, truth = brain(0.0, seed)
    inside = truth > 0
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=truth.shape), 1.0)
    found = (noise > 1.5 * noise.std()) & inside
    kept = cleaned(found, scan, priors, inside)
    assert kept.dtype == bool
    assert kept.any()
    assert not (kept & ~found).any()
    assert kept.sum() < found.sum()
    depth = ndimage.distance_transform_edt(inside, sampling=scan.spacing)
    assert depth[kept].min() > lesion.BORDER_MM
    labels, count = ndimage.label(kept, np.ones((3, 3, 3)))
    for n in range(1, count + 1):
        part = labels == n
        assert part.sum() * scan.voxel_ml * 1000 >= lesion.SMALLEST_MM3 - 1e-9
        assert priors.wm[part].mean() >= lesion.WM_SHARE - 1e-6
    assert np.array_equal(cleaned(kept, scan, priors, inside), kept)
    assert lesion.count_lesions(kept) == count


def test_cleaning_keeps_white_matter_lesions_and_drops_the_usual_artefacts() -> None:
    scan, priors, truth = brain(0.0)
    inside = truth > 0

    def box(x: int, y: int, z: int, size: int = 3) -> np.ndarray:
        there = np.zeros(truth.shape, bool)
        there[x : x + size, y : y + size, z : z + size] = True
        return there

    white, deep_fluid, speck = box(35, 24, 18), box(23, 23, 17), box(12, 24, 18, 1) & (truth == 2)
    rim = inside & (ndimage.distance_transform_edt(inside, sampling=scan.spacing) <= lesion.BORDER_MM)
    gray = box(42, 24, 18, 2)
    assert truth[white].tolist() == [2] * 27
    assert truth[deep_fluid].tolist() == [3] * 27
    assert truth[gray].tolist() == [1] * 8
    for artefact in (deep_fluid, rim, gray):
        assert not cleaned(artefact, scan, priors, inside).any()
    across = np.zeros(truth.shape, bool)
    across[28:38, 24:27, 17:20] = True
    kept = cleaned(across, scan, priors, inside)
    assert (across & (priors.csf > 0.5)).any()
    assert np.array_equal(kept, across & (priors.csf <= 0.5))
    assert speck.sum() == 1  # 12 mm3: just large enough on this grid, too small on a finer one
    assert cleaned(speck, scan, priors, inside).any()
    finer = Volume(scan.data, np.diag([1.5, 1.5, 3.0, 1.0]))
    assert not cleaned(speck, finer, priors, inside).any()
    everything = white | deep_fluid | rim
    assert np.array_equal(cleaned(everything, scan, priors, inside), white)


def test_corners_that_touch_are_one_lesion() -> None:
    found = np.zeros((5, 5, 5), bool)
    found[0, 0, 0] = found[1, 1, 1] = found[4, 4, 4] = True
    assert lesion.count_lesions(found) == 2
    assert lesion.count_lesions(np.zeros((5, 5, 5), bool)) == 0
