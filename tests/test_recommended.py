"""The recommended recipe: features by oracle and law, machines against scikit-learn, nothing leaks, parts sum up."""

from __future__ import annotations

import tracemalloc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from sklearn.svm import SVC

from bids_app.errors import BadInputError
from bids_app.group import kept
from bids_app.image.atlas import brain_grid
from bids_app.learning.division import folds
from bids_app.phantom.cohort import draw_cohort
from bids_app.recommended import kernels, linear, machine
from bids_app.recommended import products as products_room
from bids_app.recommended.calibration import calibrate
from bids_app.recommended.features import Projection, log_volume, project, project_back, projection, roots
from bids_app.recommended.kernels import Parts
from bids_app.recommended.products import Products, products
from bids_app.records.recommended import Kind, LinearModel, Setting

AFFINE = np.diag([3.0, 3, 3, 1])
AFFINE[:3, 3] = (-16.0, -20, -10)  # as on the template, x = 0 lies between two voxels, and not in their middle
SHAPE = (12, 14, 9)
KINDS = [Kind(fwhm, folded) for fwhm in (0.0, 8.0, 14.0) for folded in (False, True)]


def brain() -> np.ndarray:
    x, y, z = (AFFINE[k, 3] + 3.0 * np.arange(n) for k, n in enumerate(SHAPE))
    return (x[:, None, None] / 16) ** 2 + ((y[None, :, None] + 1) / 19) ** 2 + ((z[None, None] - 2) / 12) ** 2 < 1


MASK = brain()
V = int(MASK.sum())


def draw(people: int = 40, scans: int = 3, effect: float = 3.0, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Lesion maps (N, V), participants and groups: the positive group has more lesions in front, on either side."""
    rng = np.random.default_rng(seed)
    front = (AFFINE[1, 3] + 3.0 * np.argwhere(MASK)[:, 1] > 4).astype(float)
    maps, names, groups = [], [], []
    for person in range(people):
        positive = person % 3 > 0
        chance = np.exp(effect * front * (1 if positive else -1) / 2 + rng.normal(0, 1, V))
        chance *= rng.gamma(2, 6) / chance.sum()
        for _ in range(1 + rng.integers(scans)):
            maps.append(rng.random(V) < chance * (person % 7 > 0))  # every seventh has no lesion
            names.append(f"sub-{person:02d}")
            groups.append(positive)
    return np.array(maps), np.array(names), np.array(groups)


def made(maps: np.ndarray, names: np.ndarray) -> Products:
    return products(maps, names, MASK, AFFINE)


# -- features ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_map_back_is_the_transpose(kind: Kind) -> None:
    of, rng = projection(MASK, AFFINE, kind), np.random.default_rng(0)
    maps = rng.random((2, V))
    values = rng.normal(size=(2, int(of.inside.sum())))
    there = np.sum(project(of, maps, np.float64) * values, axis=1)
    np.testing.assert_allclose(np.sum(maps * project_back(of, values), axis=1), there, rtol=1e-12)


@pytest.mark.parametrize("fwhm", [8.0, 14.0, 20.0])
def test_smoothing_is_that_of_scipy(fwhm: float) -> None:
    volume = np.zeros(SHAPE)
    volume[MASK] = np.random.default_rng(1).random(V) < 0.1
    sd = fwhm / np.sqrt(8 * np.log(2)) / 3
    wanted = ndimage.gaussian_filter(volume, sd, mode="constant", truncate=9)[MASK]
    found = project(projection(MASK, AFFINE, Kind(fwhm, False)), volume[MASK][None], np.float64)[0]
    np.testing.assert_allclose(found, wanted, atol=2e-5 * volume.max())


def test_no_smoothing_is_the_map_itself() -> None:
    maps = np.random.default_rng(2).random((3, V)) < 0.2
    np.testing.assert_array_equal(project(projection(MASK, AFFINE, Kind(0.0, False)), maps), maps)


@pytest.mark.parametrize("fwhm", [8.0, 20.0])
def test_folding_forgets_the_side(fwhm: float) -> None:
    """On a grid whose planes mirror each other, a map and its mirror image have the same features."""
    even = AFFINE.copy()
    even[0, 3] = -16.5
    mask = MASK | MASK[::-1]
    volume = np.zeros(SHAPE)
    volume[mask] = np.random.default_rng(3).random(int(mask.sum())) < 0.1
    of = projection(mask, even, Kind(fwhm, True))
    there, mirrored = (project(of, each[mask][None], np.float64) for each in (volume, volume[::-1]))
    np.testing.assert_allclose(there, mirrored, atol=1e-12)
    whole = project(projection(mask, even, Kind(fwhm, False)), volume[mask][None], np.float64)[0]
    smooth = np.zeros(SHAPE)
    smooth[mask] = whole
    np.testing.assert_allclose(there[0], ((smooth + smooth[::-1]) / 2)[6:][mask[6:]], atol=1e-12)


def test_a_turned_grid_is_refused() -> None:
    turned = AFFINE.copy()
    turned[0, 1] = 0.5
    with pytest.raises(BadInputError, match="upright"):
        projection(MASK, turned, KINDS[0])


# -- machines ------------------------------------------------------------------------------------


def test_the_search_finds_the_machines_of_scikit_learn() -> None:
    maps, names, groups = draw()
    of, labels = made(maps, names), machine.labels_of(groups, names)
    people = np.arange(len(labels))
    parts = Parts.of(of, people, 2)
    kernel = list(parts.kernels())[1]
    matrix = parts.matrix(kernel)
    inner = folds(labels, people, 5, by="participant", seed=0)
    found = machine._search(parts.unit(kernel), labels, inner)
    for number, C in enumerate(machine.COSTS):
        for fold in inner:
            part = matrix[np.ix_(fold.train, fold.train)]
            svc = SVC(C=C, kernel="precomputed", class_weight="balanced", tol=1e-8).fit(part, labels[fold.train])
            beta, bias = machine._libsvm(part, labels[fold.train], C)
            across = matrix[np.ix_(fold.validate, fold.train)]
            wanted = across @ beta + bias
            if number > 1:  # at a low cost all weights are at their bound: any intercept of a range will do
                np.testing.assert_allclose(svc.decision_function(across), wanted, atol=1e-3)
            np.testing.assert_allclose(found.values[number, fold.validate], wanted, atol=1e-2)


def test_the_machine_by_features_decides_as_the_one_by_participants() -> None:
    maps, names, groups = draw()
    of = made(maps, names)
    trained = machine.train(of, machine.labels_of(groups, names), np.arange(30), 5, 0)
    model = machine.model_of(trained, of, maps, MASK, AFFINE)
    there = machine.decide(of, trained.dual, np.arange(len(maps)))
    np.testing.assert_allclose(linear.decisions(model, maps, MASK, AFFINE), there, atol=1e-4)
    assert trained.calibration.at_zero == model.intercept


def test_parts_of_a_decision_sum_to_it() -> None:
    maps, names, groups = draw()
    of = made(maps, names)
    trained = machine.train(of, machine.labels_of(groups, names), np.arange(40), 5, 0)
    model = machine.model_of(trained, of, maps, MASK, AFFINE)
    assert len(model.kinds) > 1 and any(kind.folded for kind in model.kinds)
    for scan, decision in zip(maps[:20], linear.decisions(model, maps[:20], MASK, AFFINE), strict=True):
        parts = linear.contributions(model, scan, MASK, AFFINE)
        assert abs(parts.sum() + linear.volume_part(model, scan) + model.intercept - decision) < 1e-9
        assert not parts[~scan].any()


def test_the_weight_map_is_the_features_weights_where_nothing_is_smoothed_and_symmetric_where_folded() -> None:
    rng = np.random.default_rng(0)
    plain, folded = Kind(0.0, False), Kind(6.0, True)
    weights = [rng.normal(size=int(projection(MASK, AFFINE, kind).inside.sum())) for kind in (plain, folded)]
    setting = Setting(plain, 0.0, 1.0)
    first = LinearModel((plain,), (weights[0],), 0.0, 0.0, (setting,))
    np.testing.assert_allclose(linear.weight_map(first, MASK, AFFINE), weights[0])
    both = LinearModel((plain, folded), tuple(weights), 0.0, 0.0, (setting,))
    scan = (rng.random(V) < 0.1).astype(float)
    inner = sum(
        float(project(projection(MASK, AFFINE, kind), scan[None], np.float64)[0] @ each)
        for kind, each in zip((plain, folded), weights, strict=True)
    )
    assert linear.weight_map(both, MASK, AFFINE) @ scan == pytest.approx(inner)  # A' w . m = w . A m


def test_soft_maps_have_parts_that_sum_up_too() -> None:
    maps, names, groups = draw()
    soft = maps * np.random.default_rng(5).random(maps.shape)
    of = made(soft, names)
    model = machine.model_of(
        machine.train(of, machine.labels_of(groups, names), np.arange(40), 5, 0), of, soft, MASK, AFFINE
    )
    decision = linear.decisions(model, soft[:1], MASK, AFFINE)[0]
    parts = linear.contributions(model, soft[0], MASK, AFFINE)
    assert abs(parts.sum() + linear.volume_part(model, soft[0]) + model.intercept - decision) < 1e-9


def test_each_participant_weighs_the_same() -> None:
    """Every scan of some participants shown twice: the same kernels, volumes and calibration."""
    maps, names, groups = draw()
    twice = np.concatenate([np.arange(len(maps)), np.flatnonzero(names < "sub-10")])
    once, more = made(maps, names), made(maps[twice], names[twice])
    for kind in range(len(once.kinds)):
        np.testing.assert_allclose(once.people[kind], more.people[kind], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(once.volume_people, more.volume_people)
    values = once.scans[0][:, 3].astype(float)
    plain, repeated = (
        calibrate(values[rows], groups[rows], once.person[rows], once.lesion_free[rows], 0.0)
        for rows in (np.arange(len(maps)), twice)
    )
    assert plain.slope == pytest.approx(repeated.slope) and plain.prevalence == pytest.approx(repeated.prevalence)


def test_labels_and_maps_of_others_are_not_looked_at() -> None:
    maps, names, groups = draw()
    labels, training = machine.labels_of(groups, names), np.arange(25)
    turned = labels.copy()
    turned[25:] = ~turned[25:]
    other = maps.copy()
    other[names >= "sub-25"] = ~other[names >= "sub-25"]
    plain = machine.train(made(maps, names), labels, training, 5, 0)
    changed = machine.train(made(other, names), turned, training, 5, 0)
    assert plain.settings == changed.settings
    np.testing.assert_allclose(plain.dual.people[:, :25], changed.dual.people[:, :25])
    assert not plain.dual.people[:, 25:].any() and plain.dual.intercept == changed.dual.intercept


def drawn_products(n_kinds: int, people: int = 700) -> Products:
    """Products of random features, a scan a participant: a kernel of 3.9 MB."""
    rng = np.random.default_rng(0)
    features = rng.random((n_kinds, people, 12))
    found = tuple(each @ each.T for each in features)
    scans = tuple(each.astype(np.float32) for each in found)
    volume, nobody = rng.random(people), np.zeros(people, bool)
    return Products(products_room.KINDS[:n_kinds], scans, found, volume, volume, np.arange(people), nobody)


def peak_of_training(of: Products) -> int:
    labels = np.arange(len(of.person)) % 3 > 0
    tracemalloc.start()
    machine.train(of, labels, of.person, 2, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_of_training_is_that_of_one_kernel() -> None:
    """Six more kinds, twelve more kernels, cost less than one kernel; and all together take less than four."""
    one = 8 * 700**2
    peak_of_training(drawn_products(1, 40))  # what is loaded and compiled once
    two, eight = (peak_of_training(drawn_products(n_kinds)) for n_kinds in (2, 8))
    assert eight - two < one
    assert eight < 4 * one


def test_permutations_are_trained_as_each_alone() -> None:
    maps, names, groups = draw()
    of, labels, training = made(maps, names), machine.labels_of(groups, names), np.arange(30)
    turned = np.roll(labels, 1)
    for own, dual in zip((labels, turned), machine.train_duals(of, (labels, turned), training, 5, 0), strict=True):
        alone = machine.train(of, own, training, 5, 0).dual
        np.testing.assert_array_equal(dual.people, alone.people)
        assert (dual.volume, dual.intercept) == (alone.volume, alone.intercept)


def test_a_kernel_is_the_sum_of_its_parts_with_and_without_a_diagonal_of_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "ENTRIES", 7 * 37)
    maps, names, _ = draw()
    people, rng = np.arange(3, 40), np.random.default_rng(1)
    of = replace(made(maps, names), extra=rng.normal(size=(len(maps), 2)))
    parts = Parts.of(of, people, 1)
    assert of.extra_people is not None
    further = of.extra_people[people] @ of.extra_people[people].T
    log = of.volume_people[people] - of.volume_people[people].mean()
    for kernel in parts.kernels():
        outer = np.outer(log, log) / log.var()
        wanted = of.people[1][np.ix_(people, people)] / kernel.scale + kernel.volume_weight * outer
        wanted += kernel.extra_weight * further
        np.testing.assert_allclose(parts.matrix(kernel), wanted, rtol=1e-12, atol=1e-12)
        own = np.diag(wanted)
        np.testing.assert_allclose(parts.unit(kernel), 1 - (own[:, None] + own - 2 * wanted) / 2, rtol=0, atol=1e-6)


def test_a_kind_is_let_go_before_the_next_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Laid in a folder, products are those in memory, and no two kinds are in memory together."""
    cohort = draw_cohort(n_participants=(8, 6), n_scans=(12, 8), seed=3)
    grid = brain_grid(3)
    wanted = products(cohort.lesions, cohort.participants, grid.data, grid.affine)
    kinds: list[weakref.ref[np.ndarray]] = []
    of_kind = products_room._of_kind

    def watched(*words: Any) -> products_room.OfKind:
        assert all(each() is None for each in kinds)
        found = of_kind(*words)
        kinds.append(weakref.ref(found.scans))
        return found

    monkeypatch.setattr(products_room, "_of_kind", watched)
    laid = kept.lay(tmp_path, cohort.lesions, cohort.participants)
    assert len(kinds) == len(laid.kinds) == len(laid.scans)
    for found in (laid, kept.read(tmp_path)):
        for number in (3, 0, *range(8)):
            np.testing.assert_array_equal(found.scans[number], wanted.scans[number])
            np.testing.assert_array_equal(found.people[number], wanted.people[number])
        for name in kept.SMALL:
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


def test_products_of_participants_are_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    means = np.random.default_rng(2).random((9, 100)).astype(np.float32)
    exact = means.astype(float) @ means.T.astype(float)
    for block in (8 * 9, 8 * 9 * 33, 8 * 9 * 1000):
        monkeypatch.setattr(products_room, "BLOCK", block)
        np.testing.assert_allclose(products_room._among(means), exact, rtol=1e-13)


def test_unusable_maps_are_refused() -> None:
    maps, names, _ = draw(people=12)
    with pytest.raises(BadInputError, match="fit neither"):
        products(maps[:, 1:], names, MASK, AFFINE)
    with pytest.raises(BadInputError, match="below 0"):
        products(maps - 0.5, names, MASK, AFFINE)
    one = np.arange(12) == 1
    with pytest.raises(BadInputError, match=r"positive group has 1 participant"):
        machine.train(made(maps, names), one, np.arange(12), 3, 0)


@pytest.mark.parametrize("value", [False, True])
def test_maps_that_are_all_alike_tell_nothing(value: bool) -> None:
    maps, names, groups = draw(people=20)
    same = made(np.full_like(maps, value), names)
    trained = machine.train(same, machine.labels_of(groups, names), np.arange(20), 3, 0)
    values = machine.decide(same, trained.dual, np.arange(len(maps)))
    assert np.isfinite(values).all() and np.ptp(values) < 1e-2  # of single precision in the products


def test_features_come_in_chunks_of_any_size() -> None:
    maps = np.random.default_rng(4).random((130, V)) < 0.05
    of: Projection = projection(MASK, AFFINE, Kind(8.0, True))
    parts = np.concatenate([values for _, values in roots(of, maps)])
    np.testing.assert_allclose(parts, np.sqrt(project(of, maps)), atol=1e-6)
    assert log_volume(maps)[0] == np.log1p(maps[0].sum())
