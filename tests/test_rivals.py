"""Other classifiers beside the recipes: against scikit-learn on plain features, blind to labels they must not see."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.svm import SVC
from test_recommended import AFFINE, MASK, draw

from bids_app.learning.division import permute
from bids_app.learning.roc import auc_within
from bids_app.recommended.nested import Recipe, Wanted, outer_folds, run
from bids_app.rivals import chosen, loads, trees, voxels
from bids_app.rivals.chosen import EMPTY, People

rng = np.random.default_rng(0)
GM = np.where(MASK, 0.2 + 0.6 * rng.random(MASK.shape), 0)
WM = np.where(MASK, (1 - GM) * rng.random(MASK.shape), 0)
REGIONS = loads.regions(MASK, AFFINE, GM, WM)


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "COUNT", 20)
    monkeypatch.setattr(trees, "LEAVES", (3, 10))
    monkeypatch.setattr(trees, "ROUNDS", (40,))


def people_of(maps: np.ndarray, names: np.ndarray, positive: np.ndarray) -> People:
    return People(positive, np.unique(names, return_inverse=True)[1], ~maps.any(axis=1))


def _svm(maps: np.ndarray, people: People) -> Recipe:
    return voxels.linear_svm(maps, voxels.gram(maps), people, 3)


def _l1(maps: np.ndarray, people: People) -> Recipe:
    return voxels.l1_logistic(maps, people, 3)


def _forest(maps: np.ndarray, people: People) -> Recipe:
    return trees.forest(loads.loads(maps, REGIONS), people, 3)


def _boosting(maps: np.ndarray, people: People) -> Recipe:
    return trees.boosting(loads.loads(maps, REGIONS), people, 3)


ALL = (_svm, _l1, _forest, _boosting)
Make = Callable[[np.ndarray, People], Recipe]


def nested_auc(make: Make, maps: np.ndarray, names: np.ndarray, positive: np.ndarray) -> float:
    outer, people = outer_folds(positive, names, 3, 1, 0), people_of(maps, names, positive)
    found = run("some", make(maps, people), outer, people.lesion_free, Wanted(0.9, 0.8), 0)
    return auc_within(positive, found.decisions[0], found.fold[0]).value


def test_shared_voxels_are_inner_products() -> None:
    maps, _, _ = draw(people=150, scans=4)
    assert len(maps) > voxels.CHUNK
    shared = voxels.gram(maps)
    np.testing.assert_array_equal(shared[:-1, :-1], maps.astype(int) @ maps.T.astype(int))
    assert not shared[-1].any() and not shared[:, -1].any()


def test_the_linear_machine_is_that_of_scikit_learn_on_the_voxels() -> None:
    maps, names, positive = draw()
    people = people_of(maps, names, positive)
    training, test = np.arange(60), np.arange(60, len(maps))
    tested = _svm(maps, people)(training, test, 0)
    seen = chosen.rows_of(people, training)
    plain = maps[training].astype(float)
    variance = np.trace(plain @ plain.T) / 60 - (plain @ plain.T).mean()
    other = SVC(kernel="linear", C=tested.chosen["C"] / variance, tol=1e-6)  # type: ignore[index]
    other.fit(plain, positive[training], sample_weight=seen.weights)
    np.testing.assert_allclose(tested.decisions, other.decision_function(maps[test].astype(float)), atol=0.02)
    assert tested.calibration.at_zero == pytest.approx(float(other.decision_function(np.zeros((1, maps.shape[1])))[0]),
                                                       abs=0.02)  # fmt: skip


def test_l1_keeps_few_voxels_at_a_small_cost() -> None:
    from sklearn.linear_model import LogisticRegression

    maps, _, positive = draw()
    few, more = (LogisticRegression(C=C, l1_ratio=1.0, solver="liblinear").fit(maps, positive) for C in (0.03, 1.0))
    assert (few.coef_ != 0).sum() < (more.coef_ != 0).sum() < maps.shape[1]


def test_participants_and_groups_weigh_the_same() -> None:
    positive, person = np.array([True] * 6 + [False] * 4), np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 4])
    weights = chosen.balanced(positive, person)
    sums = np.bincount(person, weights=weights)
    np.testing.assert_allclose(sums, [5 / 3, 5 / 3, 5 / 3, 2.5, 2.5])
    assert weights.sum() == pytest.approx(len(positive))


def test_regions_are_halves_of_what_they_name() -> None:
    maps, _, _ = draw(people=10)
    found = loads.loads(maps, REGIONS)
    names = list(REGIONS)
    assert found.shape == (len(maps) + 1, len(names) + 1) and not found[-1].any()
    tissue = [k for k, name in enumerate(names) if name.startswith(("white matter", "gray matter,", "fluid"))]
    rings = [k for k, name in enumerate(names) if "ventricles" in name or "beyond" in name]
    whole = np.expm1(found[:, -1])
    for parts in (tissue, rings):
        np.testing.assert_allclose(np.expm1(found[:, parts]).sum(axis=1), whole, rtol=1e-5)
    np.testing.assert_allclose(whole[:-1], maps.sum(axis=1), rtol=1e-5)
    low = REGIONS["infratentorial"]
    assert (low == (REGIONS["brainstem, left"] | REGIONS["brainstem, right"] | REGIONS["cerebellum, left"]
                    | REGIONS["cerebellum, right"])).all()  # fmt: skip


@pytest.mark.parametrize("make", ALL)
def test_labels_of_test_participants_are_not_seen(make: Make) -> None:
    maps, names, positive = draw()
    flipped = positive.copy()
    flipped[60:] = ~flipped[60:]
    rows = np.arange(60), np.arange(60, len(maps))
    first, second = (make(maps, people_of(maps, names, labels))(*rows, 0) for labels in (positive, flipped))
    np.testing.assert_array_equal(first.decisions, second.decisions)
    assert first.chosen == second.chosen


@pytest.mark.parametrize("make", ALL)
def test_a_planted_difference_is_found_and_nothing_in_nothing(make: Make) -> None:
    maps, names, positive = draw(people=60, effect=4.0)
    assert nested_auc(make, maps, names, positive) > 0.75
    assert 0.25 < nested_auc(make, maps, names, permute(positive, names, 1)) < 0.75


@pytest.mark.parametrize("make", ALL)
def test_equal_seeds_give_equal_decisions(make: Make) -> None:
    maps, names, positive = draw(people=24)
    people = people_of(maps, names, positive)
    rows = np.arange(30), np.arange(30, len(maps))
    first, second = (make(maps, people)(*rows, 5) for _ in range(2))
    np.testing.assert_array_equal(first.decisions, second.decisions)
    assert first.calibration.at_zero == second.calibration.at_zero


def test_a_scan_without_lesions_has_the_decision_of_the_empty_row() -> None:
    maps, names, positive = draw()
    people = people_of(maps, names, positive)
    free = np.flatnonzero(people.lesion_free)
    training = np.setdiff1d(np.arange(len(maps)), free[-2:])
    for make in ALL:
        tested = make(maps, people)(training, free[-2:], 0)
        np.testing.assert_allclose(tested.decisions, tested.calibration.at_zero)
    assert EMPTY.tolist() == [-1]
