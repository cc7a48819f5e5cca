"""Laws of the two evaluations: who sees what, once, and what is left when there is nothing to see."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from serial import nested
from sklearn.metrics import roc_auc_score

from bids_app.learning import classifier, protocols
from bids_app.learning import refit as refit_room
from bids_app.learning.division import divide, folds, permute
from bids_app.learning.measures import performance
from bids_app.learning.protocols import GRID, MapsFor, Plan, leakage_free, outer_folds, published
from bids_app.learning.ranking import rank_voxels
from bids_app.learning.sweep import Search, sweep
from bids_app.records.cohort import Cell, Division, Grid, LesionMaps, Threshold
from bids_app.records.results import Evaluation, Nested

PLAN = Plan(cv_folds=4, refine_limit=3, solver="smo", bootstrap_draws=50, random_seed=3)
UNITS = {"published": "scan", "leakage-free": "participant"}
PROTOCOLS = {"published": published, "leakage-free": leakage_free}
Data = tuple[np.ndarray, np.ndarray, np.ndarray]


def simulate(seed: int, participants: int = 36, scans: int = 3, voxels: int = 260, effect: float = 0.12) -> Data:
    """Lesions (N, V) that recur in the scans of a participant, labels (N,) and participants (N,)."""
    rng = np.random.default_rng(seed)
    group = np.arange(participants) % 3 > 0
    chance = np.full((participants, voxels), 0.15)
    chance[:, :20] += np.where(group[:, None], effect, 0)
    chance[:, 20:40] += np.where(group[:, None], 0, effect)
    own = rng.random(chance.shape) < chance
    lesions = np.repeat(own, scans, axis=0) ^ (rng.random((participants * scans, voxels)) < 0.03)
    names = np.array([f"sub-{k:02d}" for k in range(participants)])
    return lesions, np.repeat(group, scans), np.repeat(names, scans)


def fixed(lesions: np.ndarray) -> MapsFor:
    return lambda rows: LesionMaps(lesions, Threshold(0.32, "given"))


def run(name: str, data: Data, division: Division | None = None, plan: Plan = PLAN) -> Evaluation:
    lesions, positive, participants = data
    division = division or divide(positive, participants, by=UNITS[name], seed=1)
    return PROTOCOLS[name](fixed(lesions), positive, participants, division, plan)


def same_choice(a: Evaluation, b: Evaluation) -> bool:
    """Whether two evaluations chose the same cell, ranked alike, and trained the same model."""
    models = [
        (a.model.voxels, b.model.voxels),
        (a.model.support, b.model.support),
        (a.model.dual_coef, b.model.dual_coef),
    ]
    chosen = a.selection, b.selection
    models += [tuple(each.ranking.order for each in chosen), tuple(each.sweep.correct for each in chosen)]
    alike = all(np.array_equal(one, other) for one, other in models)
    alike &= chosen[0].cells == chosen[1].cells and chosen[0].chosen == chosen[1].chosen
    return alike and a.model.intercept == b.model.intercept


@pytest.fixture(scope="module")
def data() -> Data:
    return simulate(0)


@pytest.fixture(scope="module")
def results(data: Data) -> dict[str, Evaluation]:
    return {name: run(name, data) for name in PROTOCOLS}


# -- who sees what -------------------------------------------------------------------------------


def test_leakage_free_choice_does_not_see_the_lesions_of_test_scans(data: Data, results: dict[str, Evaluation]) -> None:
    lesions, positive, participants = data
    division = results["leakage-free"].division
    other = lesions.copy()
    other[division.test] = np.random.default_rng(9).random(other[division.test].shape) < 0.5
    again = run("leakage-free", (other, positive, participants), division)
    assert same_choice(again, results["leakage-free"])
    assert not np.array_equal(again.test.decisions, results["leakage-free"].test.decisions)
    other[division.train] = ~other[division.train]  # and what it should see, it sees
    assert not same_choice(run("leakage-free", (other, positive, participants), division), again)


def test_leakage_free_choice_does_not_see_the_labels_of_test_scans(data: Data, results: dict[str, Evaluation]) -> None:
    lesions, positive, participants = data
    first = results["leakage-free"]
    labels = positive.copy()
    labels[first.division.test] ^= True
    again = run("leakage-free", (lesions, labels, participants), first.division)
    assert same_choice(again, first)
    assert again.test.bootstrap["auc"].value == pytest.approx(1 - first.test.bootstrap["auc"].value)


def test_published_chooses_the_count_by_the_test_set(data: Data, results: dict[str, Evaluation]) -> None:
    lesions, positive, participants = data
    first = results["published"]
    labels = positive.copy()
    labels[first.division.test] ^= True
    again = run("published", (lesions, labels, participants), first.division)
    for found in (first, again):
        areas = [point.auc.value for point in found.test.curve if point.auc]
        assert len(areas) == len(found.selection.cells) and areas[found.selection.chosen] == max(areas)
    assert again.selection.cell.n_voxels != first.selection.cell.n_voxels
    assert np.array_equal(again.selection.ranking.order, first.selection.ranking.order)


def test_leakage_free_chooses_the_count_by_cross_validation(results: dict[str, Evaluation]) -> None:
    found = results["leakage-free"]
    best = max(cell.accuracy for cell in found.selection.cells)
    assert found.selection.cell.accuracy == pytest.approx(best, abs=1e-12)
    assert found.selection.sweep.fold_sizes.sum() == len(found.division.train)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_published_ranks_once_and_leakage_free_in_every_fold(
    data: Data, results: dict[str, Evaluation], name: str
) -> None:
    found = results[name]
    lesions, positive, participants = (part[found.division.train] for part in data)
    parts = folds(positive, participants, PLAN.cv_folds, by=UNITS[name], seed=PLAN.random_seed)
    own, other = (
        sweep(lesions, positive, parts, found.selection.sweep.counts.tolist(), GRID, Search(rerank=rerank)).correct
        for rerank in (name == "leakage-free", name != "leakage-free")
    )
    np.testing.assert_array_equal(found.selection.sweep.correct, own)
    assert not np.array_equal(found.selection.sweep.correct, other)
    np.testing.assert_array_equal(found.selection.ranking.order, rank_voxels(lesions, positive).order)
    if name == "leakage-free":
        for part in parts:
            assert not set(participants[part.train]) & set(participants[part.validate])


class Belief:
    """Belief maps (N, V) that are thresholded by the rows asked for, which are kept."""

    def __init__(self, data: Data) -> None:
        rng = np.random.default_rng(4)
        self.belief = rng.normal(0, 0.1, data[0].shape) + 0.5 * data[0]
        self.belief *= rng.uniform(0.7, 1.3, (len(self.belief), 1))  # so that training sets differ in threshold
        self.asked: list[np.ndarray] = []

    def __call__(self, rows: np.ndarray) -> LesionMaps:
        self.asked.append(np.array(rows))
        known = self.belief[rows]
        value = float(known.mean() + 2.54 * known.std())
        return LesionMaps(self.belief > value, Threshold(value, "training", n_scans=len(rows)))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_threshold_comes_from_the_training_rows_alone(data: Data, name: str) -> None:
    _, positive, participants = data
    maps, division = Belief(data), divide(positive, participants, by=UNITS[name], seed=2)
    found = PROTOCOLS[name](maps, positive, participants, division, PLAN)
    assert len(maps.asked) == 1 and np.array_equal(maps.asked[0], division.train)
    expected = Belief(data)(division.train)
    assert found.maps.threshold == expected.threshold
    np.testing.assert_array_equal(found.maps.lesions, expected.lesions)
    assert same_choice(found, run(name, (expected.lesions, positive, participants), division))


# -- nested cross-validation ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def nest(data: Data) -> tuple[Nested, Belief]:
    maps = Belief(data)
    return nested(maps, data[1], data[2], outer_folds(data[1], data[2], 3, PLAN), PLAN), maps


def test_nested_tests_every_scan_once_and_no_participant_on_both_sides(data: Data, nest: tuple[Nested, Belief]) -> None:
    _, positive, participants = data
    found, maps = nest
    assert np.isfinite(found.decisions).all() and found.decisions.shape == positive.shape
    assert len(found.cells) == len(maps.asked) == 3 and set(found.fold) == {0, 1, 2}
    for number, train in enumerate(maps.asked):  # the threshold, too, is of this fold's training rows
        tested = np.flatnonzero(found.fold == number)
        np.testing.assert_array_equal(np.sort(np.concatenate([train, tested])), np.arange(len(positive)))
        assert not set(participants[train]) & set(participants[tested])
        assert set(positive[tested]) == {True, False}
    counts = found.performance
    assert counts.tp + counts.fn == positive.sum() and counts.tn + counts.fp == (~positive).sum()


def test_nested_choice_does_not_see_the_fold_it_tests(data: Data) -> None:
    lesions, positive, participants = data
    outer = outer_folds(positive, participants, 3, PLAN)
    first = nested(fixed(lesions), positive, participants, outer, PLAN)
    held = np.flatnonzero(first.fold == 1)
    other = lesions.copy()
    other[held[1:]] = np.random.default_rng(5).random((len(held) - 1, lesions.shape[1])) < 0.5
    again = nested(fixed(other), positive, participants, outer, PLAN)
    assert again.cells[1] == first.cells[1]
    assert again.decisions[held[0]] == pytest.approx(first.decisions[held[0]], abs=1e-9)
    assert not np.allclose(again.decisions[first.fold != 1], first.decisions[first.fold != 1])


# -- determinism and solvers ---------------------------------------------------------------------


@pytest.mark.parametrize("name", PROTOCOLS)
def test_same_seed_same_everything(data: Data, results: dict[str, Evaluation], name: str) -> None:
    again = run(name, data)
    assert same_choice(again, results[name])
    assert again.test.bootstrap == results[name].test.bootstrap and again.test.curve == results[name].test.curve
    np.testing.assert_array_equal(again.test.decisions, results[name].test.decisions)
    other = run(name, data, plan=replace(PLAN, random_seed=4))
    assert not np.array_equal(other.selection.sweep.correct, results[name].selection.sweep.correct)


def test_every_cell_is_trained_once(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """One fit a voxel count, first and refined ones, and none beside: the chosen one's is the final model's."""
    fits: list[float] = []
    whole = refit_room.train_svc
    monkeypatch.setattr(refit_room, "train_svc", lambda *words: fits.append(words[2]) or whole(*words))
    found = run("published", data)
    assert len(fits) == len(found.selection.cells)
    assert sorted(fits) == sorted(cell.C for cell in found.selection.cells)


def test_the_chosen_model_decides_as_the_curve_says(results: dict[str, Evaluation]) -> None:
    for found in results.values():
        curve = found.test.curve[found.selection.chosen]
        assert curve == performance(simulate(0)[1][found.division.test], found.test.decisions)


def test_nested_auc_compares_scans_of_the_same_fold_only(nest: tuple[Nested, Belief], data: Data) -> None:
    found, positive = nest[0], data[1]
    pairs = won = 0.0
    for k in set(found.fold):
        here = found.fold == k
        a, b = found.decisions[here & positive], found.decisions[here & ~positive]
        pairs += len(a) * len(b)
        won += (a[:, None] > b).sum() + (a[:, None] == b).sum() / 2
    assert found.performance.auc is not None
    assert found.performance.auc.value == found.bootstrap["auc"].value == pytest.approx(won / pairs, abs=1e-12)
    assert found.pooled_auc.value == pytest.approx(roc_auc_score(positive, found.decisions))
    assert found.bootstrap["accuracy"].value == found.performance.accuracy.value


@pytest.mark.parametrize("name", PROTOCOLS)
def test_smo_and_libsvm_choose_the_same_cell(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "GRID", Grid((0.125, 1.0, 8.0, 32.0), (0.125, 0.5, 2.0)))  # libsvm is slow
    small = simulate(6, participants=24, voxels=120)
    ours, theirs = (run(name, small, plan=replace(PLAN, solver=solver)) for solver in ("smo", "libsvm"))
    assert ours.selection.cell == theirs.selection.cell
    np.testing.assert_array_equal(ours.test.decisions, theirs.test.decisions)


# -- labels without meaning ----------------------------------------------------------------------


def test_shuffled_labels_score_half_without_leakage_and_not_as_published() -> None:
    """A participant's two scans are nearly equal, and labels are drawn over participants: AUC is 0.5 in truth.

    Of 60 participants 9 of either group are tested. A Mann-Whitney AUC of n against m has variance
    (n + m + 1) / 12 n m if nothing tells them apart: 0.14 a seed, 0.05 the mean of 8; the band is three of these.
    """
    areas: dict[str, list[float]] = {name: [] for name in PROTOCOLS}
    for seed in range(8):
        lesions, _, participants = simulate(seed, participants=60, scans=2, voxels=300, effect=0.0)
        balanced = np.repeat(np.arange(60) % 2 == 0, 2)
        shuffled = lesions, permute(balanced, participants, seed), participants
        for name in PROTOCOLS:
            division = divide(shuffled[1], participants, by=UNITS[name], seed=seed)
            found = run(name, shuffled, division, replace(PLAN, random_seed=seed)).test.bootstrap["auc"]
            areas[name].append(found.value)
    band = 3 * math.sqrt((9 + 9 + 1) / (12 * 9 * 9)) / math.sqrt(8)
    means = {name: float(np.mean(values)) for name, values in areas.items()}
    assert abs(means["leakage-free"] - 0.5) < band, means
    assert means["published"] > 0.8, means


def test_kernels_and_decisions_of_the_refit_are_the_formulas_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Filled and weighed some rows at a time, they are exactly what whole matrices give."""
    rng = np.random.default_rng(0)
    lower = np.tril(rng.integers(0, 60, (37, 37)), -1).astype(np.int32)
    cell = Cell(60, 1.0, 0.125, 0.5)
    whole = np.exp(-cell.gamma * (lower + lower.T)[:, :20])
    rows = rng.permutation(20)[:11]
    for some in (5, 256):
        monkeypatch.setattr(refit_room, "ROWS", some)
        monkeypatch.setattr(classifier, "ROWS", some)
        for of in (range(20), range(20, 37)):
            np.testing.assert_array_equal(refit_room._kernel(lower, of, 20, cell), whole[of.start : of.stop])
        trained = classifier.SupportVectors(rows, rng.normal(size=11), 0.25)
        wanted = (np.ascontiguousarray(whole[:, rows]) * trained.dual_coef).sum(axis=1) + 0.25
        np.testing.assert_array_equal(trained.decide(whole), wanted)
