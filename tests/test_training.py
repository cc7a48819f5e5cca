"""Training of the brain network: what the draws must keep, whatever they change, and that fitting learns."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from bids_app.image.brain import SHAPE
from bids_app.records.scan import Volume
from training import draws, harms, sampling
from training.heads import Head, Scan, read_scans, to_head

AFFINE = np.diag([3.0, 3.0, 4.0, 1.0])


def ball(radius: float, shape: tuple[int, int, int] = (64, 72, 46)) -> np.ndarray:
    """True within so many mm of the middle of a grid of 3 x 3 x 4 mm."""
    axes = [(np.arange(n) - (n - 1) / 2) * size for n, size in zip(shape, (3, 3, 4), strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    return x**2 + (0.85 * y) ** 2 + z**2 < radius**2


@pytest.fixture(scope="module")
def scan() -> Scan:
    """A ball of brain with fluid inside, dark bone and a scalp about it."""
    rng = np.random.default_rng(0)
    flair = 60.0 * ball(86)
    flair[ball(76)] = 8
    flair[ball(68)] = 100
    flair[ball(20)] = 25
    flair = ndimage.gaussian_filter(flair, 0.4) + rng.normal(0, 3, flair.shape)
    return Scan("sub-1", "sub-1", Volume(np.maximum(flair, 0).astype(np.float32), AFFINE), ball(68))


@pytest.fixture(scope="module")
def head(scan: Scan) -> Head:
    return to_head(scan, scan.mask)


def test_interpolation_reproduces_straight_lines() -> None:
    matrix = sampling.interpolation(5, 17)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(matrix @ np.linspace(2, 9, 5), np.linspace(2, 9, 17), rtol=1e-6)


def test_spread_is_scipy_zoom() -> None:
    nodes = np.random.default_rng(1).normal(size=(4, 5, 3)).astype(np.float32)
    shape = (13, 11, 16)
    truth = ndimage.zoom(nodes, np.array(shape) / nodes.shape, order=1, grid_mode=False)
    np.testing.assert_allclose(sampling.spread(nodes, shape), truth, atol=1e-5)


def test_warp_is_scipy_map_coordinates() -> None:
    rng = np.random.default_rng(2)
    maps = rng.random((12, 14, 9, 4)).astype(np.float32)
    classes = rng.integers(0, 9, (12, 14, 9)).astype(np.uint8)
    shape, nodes = (10, 11, 12), rng.normal(0, 0.7, (3, 4, 2, 3))
    matrix, offset = np.eye(3) * 0.7 + rng.normal(0, 0.05, (3, 3)), np.array([1.5, 2.0, 0.5])
    found, kinds = sampling.warp(maps, classes, matrix, offset, nodes, shape)
    index = np.stack(np.indices(shape), -1) @ matrix.T + offset
    index += np.stack([sampling.spread(nodes[..., d], shape) for d in range(3)], -1)
    inside = ((index >= 0) & (index <= np.array(classes.shape) - 1)).all(-1)
    assert 0.2 < inside.mean() < 1
    for channel in range(4):
        truth = ndimage.map_coordinates(maps[..., channel], np.moveaxis(index, -1, 0), order=1, mode="nearest")
        np.testing.assert_allclose(found[inside, channel], truth[inside], atol=1e-4)
    np.testing.assert_array_equal(found[~inside], np.broadcast_to([0, 0, 0, 99], found[~inside].shape))
    nearest = classes[tuple(np.floor(index[inside] + 0.5).astype(int).T)]
    assert (kinds[inside] == nearest).mean() > 0.999  # halves may be rounded either way


def test_a_neck_goes_on_below_the_field_of_view_only_where_asked() -> None:
    maps = np.ones((8, 8, 8, 4), np.float32)
    args = maps, np.ones((8, 8, 8), np.uint8), np.eye(3), np.array([0, 0, -4.0]), np.zeros((2, 2, 2, 3)), (8, 8, 8)
    assert not sampling.warp(*args)[0][..., :4, 0].any()
    assert sampling.warp(*args, low=-3.0)[0][..., 1:, 0].all()


def test_head_maps_mean_what_they_say(head: Head, scan: Scan) -> None:
    values, share, depth, apart = np.moveaxis(head.maps, -1, 0)
    assert abs(np.median(values[share > 0.5]) - 1) < 1e-6
    assert abs(share.sum() / scan.mask.sum() - 1) < 0.02
    assert (depth[values.shape[0] // 2, values.shape[1] // 2] > 0).any()
    assert depth[0].max() == 0
    np.testing.assert_array_equal(apart < 0, share > 0.5)
    assert set(np.unique(head.classes[share > 0.5])) == {1, 2, 3}
    assert not np.isin(head.classes[share <= 0.5], (1, 2, 3)).any()
    fluid = ball(14)
    assert (head.classes[fluid] == 3).mean() > 0.9


def test_image_and_label_move_together(head: Head) -> None:
    twin = Head(
        **{**head.__dict__, "maps": np.stack([head.maps[..., 1]] * 2 + [head.maps[..., k] for k in (2, 3)], -1)}
    )
    for seed in range(4):
        shape = draws.move(twin, np.random.default_rng(seed))
        np.testing.assert_array_equal(shape.values, shape.share)
        inside = np.isin(shape.classes, (1, 2, 3))
        assert 2 * (inside & shape.brain).sum() / (inside.sum() + shape.brain.sum()) > 0.97


def test_half_of_the_heads_are_mirrored() -> None:
    rng = np.random.default_rng(3)
    signs = [np.linalg.det(draws.pose(rng)[0]) < 0 for _ in range(400)]
    assert 0.4 < np.mean(signs) < 0.6


def test_equal_seeds_give_equal_draws_and_others_do_not(head: Head) -> None:
    first, again, other = (list(itertools.islice(draws.draws([head], seed), 3)) for seed in (5, 5, 6))
    for (a, b), (c, d) in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)
    assert any((a != c).any() for (a, _), (c, _) in zip(first, other, strict=True))


def test_draws_are_what_the_network_takes(head: Head) -> None:
    for image, share in itertools.islice(draws.draws([head], 7), 25):
        assert image.shape == share.shape == SHAPE
        assert image.dtype == share.dtype == np.float32
        assert np.isfinite(image).all()
        assert image.min() >= 0
        assert image.max() < 1.0
        assert share.min() >= 0
        assert share.max() <= 1


def test_draws_do_not_show_the_label(head: Head) -> None:
    """With real intensities and made-up ones, a threshold alone must not find the brain."""
    best = []
    for image, share in itertools.islice(draws.draws([head], 8), 20):
        brain = share > 0.5
        if brain.sum() > 5000:
            cuts = [image > level for level in np.linspace(0.05, 0.9, 18)]
            best.append(max(2 * (cut & brain).sum() / (cut.sum() + brain.sum()) for cut in cuts))
    assert np.median(best) < 0.97


@pytest.mark.parametrize("matrix", [harms.gaussian(40, 1.3), harms.slab(40, 2.4, 0.3), harms.slab(40, 1.2, 0.9)])
def test_blurs_and_slices_keep_a_constant(matrix: np.ndarray) -> None:
    np.testing.assert_allclose(matrix @ np.full(40, 7.0), 7, rtol=1e-5)


def test_thick_slices_blur_one_axis_and_keep_the_total() -> None:
    image = np.zeros((20, 20, 60), np.float32)
    image[8:12, 8:12, 25:35] = 1
    matrix = harms.slab(60, 3.0, 0.4)
    thick = sampling.along(matrix, image, 2)
    assert abs(thick.sum() / image.sum() - 1) < 0.05
    np.testing.assert_array_equal(thick.any(2), image.any(2))
    assert (thick > 0).any((0, 1)).sum() > 10


def test_stripping_leaves_exact_zeros_and_the_brain_as_it_was(head: Head) -> None:
    shape = draws.move(head, np.random.default_rng(0))
    for seed in range(8):
        image = harms.strip(shape.values, shape.share, shape.apart, np.random.default_rng(seed))
        np.testing.assert_array_equal(image[shape.share > 0.61], shape.values[shape.share > 0.61])
        assert not image[shape.apart > 5].any()


def test_defacing_never_touches_the_brain(head: Head) -> None:
    shape = draws.move(head, np.random.default_rng(0))
    changed = 0
    for seed in range(12):
        image = harms.deface(shape.values, shape.depth, shape.apart, np.random.default_rng(seed))
        np.testing.assert_array_equal(image[shape.apart < 0], shape.values[shape.apart < 0])
        changed += bool((image != shape.values).any())
    assert changed > 8


def test_a_cut_takes_image_and_brain_alike() -> None:
    image, share = np.ones((20, 20, 20), np.float32), np.zeros((20, 20, 20), np.float32)
    share[4:16, 4:16, 4:16] = 1
    for seed in range(20):
        cut_image, cut_share = harms.cut(image, share, np.random.default_rng(seed))
        np.testing.assert_array_equal(cut_share, share * (cut_image > 0))


def test_reading_scans_takes_masks_where_raters_drew_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("sub-1", "sub-2"):
        path = tmp_path / "raw" / name / "anat" / f"{name}_FLAIR.nii.gz"
        path.parent.mkdir(parents=True)
        nibabel.save(
            nibabel.Nifti1Image(rng.normal(10, 9, (9, 8, 10)).astype(np.float32), np.diag([-1, -1, 2, 1])), path
        )
    drawn = tmp_path / "expert" / "sub-2" / "anat" / "sub-2_desc-brain_mask.nii.gz"
    drawn.parent.mkdir(parents=True)
    nibabel.save(nibabel.Nifti1Image(np.ones((9, 8, 10), np.uint8), np.diag([-1, -1, 2, 1])), drawn)
    one, two = read_scans(tmp_path / "raw", tmp_path / "expert")
    assert (one.name, one.patient, one.mask) == ("sub-1", "sub-1", None)
    assert two.mask is not None
    assert two.mask.all()
    assert one.flair.data.min() == 0
    assert (np.diag(one.flair.affine)[:3] > 0).all()


# -- with torch, which the app does not need ------------------------------------------------------------------------


def test_a_few_steps_lower_the_loss(head: Head) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install '.[train]'")
    from training.fit import Fitter

    fitter = Fitter(seed=0, device="cpu", short=False)
    image, share = next(draws.draws([head], 1))
    losses = [fitter.step((image[None, None], share[None, None]), 50 + number, 0.1)[0] for number in range(20)]
    assert losses[-1] < 0.8 * losses[0]


def test_training_is_seeded_and_its_onnx_answers_as_torch_does(scan: Scan, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[train]'")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install '.[train]'")
    from bids_app.image.networks import network
    from training.export import to_onnx
    from training.fit import Budget, as_network, fit

    rows: list[str] = []
    kept = {"seed": 3, "device": "cpu", "short": False, "write": rows.append, "keep": lambda net: None}
    unlabelled = Scan("sub-2", "sub-2", scan.flair, None)
    nets = [fit([scan, unlabelled], [], Budget(steps=4), **kept) for _ in range(2)]
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert any("sub-2: labelled by the network" in row for row in rows)
    to_onnx(nets[0], tmp_path / "net.onnx", (1, *SHAPE))
    image, _ = next(draws.draws([to_head(scan, scan.mask)], 4))
    found = network((tmp_path / "net.onnx").read_bytes())(image)
    np.testing.assert_allclose(found, as_network(nets[0])(image), atol=1e-3)


def test_the_budget_ends_by_steps_or_by_minutes() -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install '.[train]'")
    from training.fit import Budget

    assert Budget(steps=10).share(5, 1e9) == 0.5
    assert Budget(steps=10, minutes=2).share(5, 60) == 0.5


@pytest.mark.parametrize("words", [["--leave-out", "sub-9"], []])
def test_the_command_line_says_what_is_missing(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install '.[train]'")
    from training.__main__ import main

    with pytest.raises(SystemExit) as end:
        main(["brain", "--data", str(tmp_path / "raw"), "--output", str(tmp_path / "out"), *words])
    assert end.value.code == 2
    assert "--data" in capsys.readouterr().err


def test_the_card_names_data_licence_and_scores() -> None:
    card = json.loads((Path(__file__).parents[1] / "bids_app" / "weights" / "brain.json").read_text(encoding="utf-8"))
    assert "CC-BY" in card["License"]
    assert "s12021-017-9348-7" in card["Source"]
    assert len(card["Scans"]) == 9
    assert card["Command"].startswith("python -m training brain")
    assert set(card["DiceLeftOut"]) <= set(card["Scans"])
    assert len(card["DiceLeftOut"]) == 5
    assert min(card["DiceLeftOut"].values()) > 0.95
