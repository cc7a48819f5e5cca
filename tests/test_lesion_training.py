"""Training of the lesion network: what draws must keep, that they are seeded, and that fitting learns."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from bids_app.lesions.network import HIGHEST, OUTSIDE
from bids_app.records.scan import Volume
from training.lesions import artefacts, draws, painting
from training.lesions.cases import Case, read_cases, thickened, write_case
from training.lesions.slabs import SHAPE, Slab


def case(name: str, spacing: tuple[float, float, float], outlined: bool) -> Case:
    """A ball of white matter in gray about fluid, with one bright lesion."""
    shape = tuple(int(n / s) for n, s in zip((130, 150, 110), spacing, strict=True))
    x, y, z = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij", sparse=True
    )
    radius = np.sqrt(x**2 + (0.87 * y) ** 2 + (1.2 * z) ** 2)
    brain, fluid = radius < 60, radius < 10
    white = (radius < 50) & ~fluid
    lesion = (x - 25) ** 2 + (y - 10) ** 2 + (z - 4) ** 2 < 64
    other = (x + 25) ** 2 + (y + 10) ** 2 + (z - 4) ** 2 < 100
    belief = np.where(lesion, 0.5, np.where(fluid, -0.7, np.where(white, -0.1, 0.0))) * brain
    maps = [np.asarray(m, np.float32) for m in (belief, brain & ~white & ~fluid, white, brain & fluid)]
    shapes = (np.stack([other, lesion]) * 255).astype(np.uint8)
    people = ("patient01", "patient02")
    affine = np.diag([*spacing, 1.0])
    return Case(name, maps[0], brain, *maps[1:], affine, lesion if outlined else None, people, shapes)


@pytest.fixture(scope="module")
def bases() -> list[draws.Base]:
    return [draws.to_base(case("patient01", (1, 1, 1), True)), draws.to_base(case("sub-1", (0.8, 0.8, 3.5), False))]


def test_cases_come_back_as_they_were_written(tmp_path: Path) -> None:
    for each in (case("patient01", (2, 2, 2), True), case("sub-1", (2, 2, 4), False)):
        write_case(each, tmp_path)
        (again,) = (c for c in read_cases(tmp_path) if c.name == each.name)
        np.testing.assert_allclose(again.belief, each.belief, atol=1e-3)
        np.testing.assert_array_equal(again.shapes, each.shapes)
        np.testing.assert_array_equal(again.lesions, each.lesions)
        assert again.people == each.people


def test_a_person_left_out_leaves_no_shape() -> None:
    left = case("sub-1", (2, 2, 4), False).without("patient01")
    assert left.people == ("patient02",)
    np.testing.assert_array_equal(left.shapes[0], case("sub-1", (2, 2, 4), False).shapes[1])


def test_thick_slices_keep_volume_and_zeros() -> None:
    whole = case("patient01", (1, 1, 1), True)
    flair = Volume(np.where(whole.brain, 100 * (1 + whole.belief), 0).astype(np.float32), whole.affine)
    thick, lesions = thickened(flair, flair.like(whole.lesions.astype(np.float32)))
    np.testing.assert_allclose(thick.spacing, (0.8, 0.8, 4.4))
    assert (thick.data == 0).mean() > 0.3
    assert lesions.data.sum() * lesions.voxel_ml == pytest.approx(whole.lesions.sum() / 1000, rel=0.1)
    assert thick.data[lesions.data > 0.9].mean() > 1.3 * thick.data[(lesions.data == 0) & (thick.data > 0)].mean()


def test_a_slab_shows_what_is_there() -> None:
    volume = np.random.default_rng(0).random((170, 200, 9)).astype(np.float32)
    field, axes = np.zeros((*SHAPE, 2), np.float32), np.eye(3)
    slab = Slab(np.array([3.0, 2.0, 4.0]), axes[0], axes[1], axes[2], field, 2.0, np.zeros(1))
    before, it, after = slab.cut(volume, slices=(-1, 0, 1))
    for found, z in ((before, 2), (it, 4), (after, 6)):
        np.testing.assert_allclose(found, volume[3 : 3 + SHAPE[0], 2 : 2 + SHAPE[1], z], atol=2e-3)
    mean = Slab(slab.start, *axes, field, 2.0, np.array([-1.0, 0.0, 1.0])).cut(volume)[0]
    np.testing.assert_allclose(mean, volume[3 : 3 + SHAPE[0], 2 : 2 + SHAPE[1], 3:6].mean(2), atol=2e-3)


def test_draws_are_what_the_app_shows_the_network(bases: list[draws.Base]) -> None:
    for channels, label, weight in itertools.islice(draws.draws(bases, 7), 30):
        assert channels.shape == (6, *SHAPE)
        assert channels.dtype == label.dtype == weight.dtype == np.float32
        assert np.isfinite(channels).all()
        assert channels[:3].min() >= OUTSIDE
        assert channels[:3].max() <= np.float32(HIGHEST)
        assert set(np.unique(label)) <= {0, 1}
        assert not label[channels[5] <= 0.5].any()
        assert weight.min() >= 0
        assert weight.max() <= draws.MOST_WEIGHT


def test_equal_seeds_give_equal_draws_and_others_do_not(bases: list[draws.Base]) -> None:
    first, again, other = (list(itertools.islice(draws.draws(bases, seed), 4)) for seed in (5, 5, 6))
    for one, two in zip(first, again, strict=True):
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a, b)
    assert any((a[0] != c[0]).any() for a, c in zip(first, other, strict=True))


def test_labelled_voxels_are_brighter_than_white_matter(bases: list[draws.Base]) -> None:
    over = []
    for channels, label, _ in itertools.islice(draws.draws(bases, 8), 60):
        white = (channels[3] > 0.9) & (label == 0) & (channels[5] > 0.9)
        if label.sum() > 20 and white.sum() > 50:
            over.append(channels[1][label > 0].mean() - np.median(channels[1][white]))
    assert len(over) > 20
    assert np.mean(np.array(over) > 0.05) > 0.95


def test_own_lesions_of_scans_without_an_expert_are_left_out() -> None:
    one = case("sub-1", (0.8, 0.8, 3.5), False)
    lesion = one.shapes[1] > 0
    base = draws.to_base(one)
    assert base.left_out[lesion].mean() > 0.9
    assert base.left_out.sum() < 4 * lesion.sum()
    named = draws.to_base(one, lesion, np.zeros_like(lesion))
    np.testing.assert_array_equal(named.label > 0, lesion)
    assert not named.left_out.any()


def test_artefacts_change_no_label_and_no_lesion_is_painted_into_fluid() -> None:
    rng = np.random.default_rng(0)
    slices = np.zeros((3, *SHAPE), np.float32)
    slices[:, :, :60] = -0.8
    painted, label = painting.paint(slices, np.ones_like(slices), rng)
    np.testing.assert_allclose(painted[:, :, :50], -0.8, atol=1e-6)
    assert not label[:, :50].any()
    assert (label[:, 70:] > 0.5).all()
    flat = np.ones(SHAPE, np.float32)
    scene = artefacts.Scene(slices[1], 0 * flat, flat, 0 * flat, flat)
    assert any((artefacts.add(slices, scene, np.random.default_rng(k)) != slices).any() for k in range(5))


def test_lesions_with_a_small_cut_count_more() -> None:
    label = np.zeros(SHAPE, np.float32)
    label[10:13, 10:13] = label[50:80, 50:80] = 1
    weight = draws.weights(label)
    assert weight[11, 11] == draws.MOST_WEIGHT
    assert weight[60, 60] == weight[0, 0] == 1


# -- with torch, which the app does not need ------------------------------------------------------------------------


def test_training_is_seeded_and_its_onnx_answers_as_torch_does(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[train]'")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install '.[train]'")
    from bids_app.image.networks import network
    from training.export import to_onnx
    from training.fit import Budget
    from training.lesions.fit import as_network, fit

    cases = [case("patient01", (2, 2, 2), True), case("sub-1", (1, 1, 5), False)]
    rows: list[str] = []
    kept = {"seed": 3, "device": "cpu", "short": False, "write": rows.append, "keep": lambda net: None}
    nets = [fit(cases, [], Budget(steps=4), **kept) for _ in range(2)]
    for a, b in zip(nets[0].state_dict().values(), nets[1].state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert any("sub-1: labelled by the network" in row for row in rows)
    to_onnx(nets[0], tmp_path / "net.onnx", (6, *SHAPE), free=(2, 3))
    channels = np.random.default_rng(0).normal(size=(6, 144, 208)).astype(np.float32)
    found = network((tmp_path / "net.onnx").read_bytes())(channels)
    np.testing.assert_allclose(found, as_network(nets[0])(channels), atol=1e-3)
