"""The sweep against scikit-learn's GridSearchCV on raw voxels, and against leakage."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rbf import fit
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import SVC

from bids_app.errors import BadInputError
from bids_app.learning.classifier import decide, model_of
from bids_app.learning.ranking import rank_counts, rank_voxels
from bids_app.learning.refit import refit
from bids_app.learning.sweep import TOL, Search, best_cell, best_count, merge, powers_of_two, refine_counts, sweep
from bids_app.records.cohort import Cell, Fold, Grid, Ranking, SweepResult

GRID = Grid((0.125, 1.0, 4.0, 32.0), (0.125, 0.5, 2.0, 16.0, 32.0))
COUNTS = (1, 5, 16, 70, 150)
TIGHT = 1e-6  # LIBSVM's own default, 1e-3, turns scans of its own at a tighter tolerance


def cohort(n: int = 90, v: int = 150, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Lesion maps of which every fifth voxel tells the groups apart, more or less."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.6
    often = np.where(np.arange(v) % 5 == 0, 0.25, 0.1)
    return rng.random((n, v)) < np.where(positive[:, None], often, 0.12), positive


def stratified(positive: np.ndarray, k: int = 5, seed: int = 0) -> list[Fold]:
    splitter = StratifiedKFold(k, shuffle=True, random_state=seed)
    return [Fold(train, validate) for train, validate in splitter.split(positive, positive)]


def grid_search(features: np.ndarray, positive: np.ndarray, folds: list[Fold]) -> GridSearchCV:
    """scikit-learn's own search on the raw features, the same folds and grid."""
    search = GridSearchCV(
        SVC(tol=TIGHT), {"C": GRID.C, "gamma": GRID.gamma}, cv=[(f.train, f.validate) for f in folds], refit=False
    )
    return search.fit(features.astype(float), positive)


@pytest.fixture(scope="module")
def searches() -> list[GridSearchCV]:
    lesions, positive = cohort()
    order = rank_voxels(lesions, positive).order
    return [grid_search(lesions[:, order[:n]], positive, stratified(positive)) for n in COUNTS]


@pytest.mark.parametrize("solver", ["smo", "libsvm"])
def test_sweep_is_grid_search_on_the_ranked_voxels(solver: str, searches: list[GridSearchCV]) -> None:
    lesions, positive = cohort()
    folds = stratified(positive)
    told: list[str] = []
    tol = TIGHT if solver == "libsvm" else TOL
    parts = (lesions, positive, folds, COUNTS, GRID)
    result = sweep(*parts, Search(rerank=False, solver=solver, tol=tol, progress=told.append))
    assert result.counts.tolist() == list(COUNTS)
    assert len(told) == len(COUNTS)
    for i, search in enumerate(searches):
        expected = np.array([search.cv_results_[f"split{f}_test_score"] for f in range(len(folds))]).T
        accuracy = (result.correct[i] / result.fold_sizes).reshape(-1, len(folds))
        if solver == "libsvm":
            np.testing.assert_allclose(accuracy, expected, atol=1e-12)
        scans_off = np.abs((accuracy - expected) @ result.fold_sizes)
        assert scans_off.max() < 1 + 1e-9
        cell = best_cell(result, i)
        assert {"C": cell.C, "gamma": cell.gamma} == search.best_params_
        assert cell.n_voxels == COUNTS[i]
        assert cell.accuracy == pytest.approx(search.best_score_, abs=1 / 90)
    best = max(range(len(COUNTS)), key=lambda i: round(searches[i].best_score_, 9))
    assert best_count(result) == best_cell(result, best)


@pytest.mark.parametrize("solver", ["smo", "libsvm"])
def test_reranking_is_selection_inside_each_fold(solver: str) -> None:
    lesions, positive = cohort()
    folds = stratified(positive, 3)
    counts = (2, 9, 60)
    tol = TIGHT if solver == "libsvm" else TOL
    result = sweep(lesions, positive, folds, counts, GRID, Search(rerank=True, solver=solver, tol=tol))
    for f, fold in enumerate(folds):
        order = rank_voxels(lesions[fold.train], positive[fold.train]).order
        for i, n in enumerate(counts):
            features = lesions[:, order[:n]].astype(float)
            for c, cost in enumerate(GRID.C):
                for g, gamma in enumerate(GRID.gamma):
                    svc = SVC(C=cost, gamma=gamma, tol=TIGHT).fit(features[fold.train], positive[fold.train])
                    right = svc.predict(features[fold.validate]) == positive[fold.validate]
                    assert abs(result.correct[i, c, g, f] - right.sum()) <= (solver == "smo")


def test_both_solvers_choose_the_same_cells_of_a_large_grid() -> None:
    lesions, positive = cohort(120, 300, 3)
    values = tuple(2.0**k for k in range(-3, 6))
    parts = (lesions, positive, stratified(positive, 4), (4, 32, 300), Grid(values, values))
    ours = sweep(*parts, Search(rerank=True))
    reference = sweep(*parts, Search(rerank=True, solver="libsvm", tol=1e-5))
    assert np.abs(ours.correct.sum(axis=-1) - reference.correct.sum(axis=-1)).max() <= 1
    for i in range(3):
        assert best_cell(ours, i) == best_cell(reference, i)


@pytest.mark.parametrize("rerank", [True, False])
def test_validation_scans_have_no_say_in_the_choice_of_voxels(rerank: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    lesions, positive = cohort(80, 100, 1)
    fold = stratified(positive, 4)[0]
    orders: list[np.ndarray] = []

    def spy(a: np.ndarray, b: np.ndarray, n1: int, n0: int) -> Ranking:
        ranking = rank_counts(a, b, n1, n0)
        orders.append(ranking.order)
        return ranking

    monkeypatch.setattr("bids_app.learning.sweep.rank_counts", spy)
    changed, relabelled = lesions.copy(), positive.copy()
    changed[fold.validate] = ~changed[fold.validate]
    relabelled[fold.validate] = ~positive[fold.validate]
    one, two, three = (
        sweep(maps, labels, [fold], (3, 20), GRID, Search(rerank=rerank))
        for maps, labels in ((lesions, positive), (changed, positive), (lesions, relabelled))
    )
    same = [np.array_equal(orders[0], order) for order in orders[1:]]
    # were voxels and training alike, turning every label of the held-out scans turns every answer
    turned = np.array_equal(one.correct, one.fold_sizes - three.correct)
    assert [*same, turned] == [rerank] * 3  # published: they do have a say, so this test can fail
    assert not np.array_equal(one.correct, two.correct)


def test_scans_outside_a_fold_do_not_matter_when_reranking() -> None:
    lesions, positive = cohort(80, 100, 2)
    train, validate, outside = np.split(np.random.default_rng(0).permutation(80), [40, 60])
    changed, relabelled = lesions.copy(), positive.copy()
    changed[outside], relabelled[outside] = ~changed[outside], ~relabelled[outside]
    folds = [Fold(train, validate)]
    one = sweep(lesions, positive, folds, (1, 10, 100), GRID, Search(rerank=True))
    two = sweep(changed, relabelled, folds, (1, 10, 100), GRID, Search(rerank=True))
    np.testing.assert_array_equal(one.correct, two.correct)


def test_decisions_are_those_of_svc_on_the_ranked_voxels() -> None:
    lesions, positive = cohort()
    test, _ = cohort(40, seed=7)
    order = rank_voxels(lesions, positive).order
    choices = ((60, 4.0, 0.125), (1, 1.0, 0.5), (60, 0.125, 2.0), (150, 32.0, 0.125))
    cells = [Cell(n, cost, gamma, 0.0) for n, cost, gamma in choices]
    found = refit(lesions, positive, test, cells, order)
    assert [each.cell for each in found] == cells
    for each, cell in zip(found, cells, strict=True):
        assert each.train.shape == (90,)
        assert each.test.shape == (40,)
        chosen = order[: cell.n_voxels]
        svc = SVC(C=cell.C, gamma=cell.gamma, tol=1e-6).fit(lesions[:, chosen].astype(float), positive)
        model = fit(lesions, positive, chosen, cell.C, cell.gamma)
        for maps, values in ((lesions, each.train), (test, each.test)):
            expected = svc.decision_function(maps[:, chosen].astype(float))
            np.testing.assert_allclose(values, expected, atol=2e-3)
            clear = np.abs(expected) > 2e-3
            np.testing.assert_array_equal(values[clear] >= 0, expected[clear] >= 0)
            np.testing.assert_allclose(values, decide(model, maps), atol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 40])
def test_equal_scans_get_equal_decisions_and_the_model_gives_the_same_bits(n: int) -> None:
    """On few voxels most scans tie: a last bit that breaks ties moves the AUC by a tenth."""
    lesions, positive = cohort()
    test, _ = cohort(61, seed=7)
    order = rank_voxels(lesions, positive).order
    (found,) = refit(lesions, positive, test, [Cell(n, 4.0, 0.25, 0.0)], order)
    patterns = np.concatenate([lesions, test])[:, order[:n]]
    values = np.concatenate([found.train, found.test])
    assert len(np.unique(values)) <= len(np.unique(patterns, axis=0))
    model = model_of(found.trained, lesions, order[:n], 4.0, 0.25)
    np.testing.assert_array_equal(decide(model, lesions), found.train)
    np.testing.assert_array_equal(decide(model, test), found.test)


def test_test_scans_do_not_change_the_decisions_of_others() -> None:
    lesions, positive = cohort()
    test, _ = cohort(10, seed=7)
    order = rank_voxels(lesions, positive).order
    cells = [Cell(20, 4.0, 0.125, 0)]
    (together,) = refit(lesions, positive, test, cells, order)
    (alone,) = refit(lesions, positive, test[:1], cells, order)
    np.testing.assert_allclose(together.train, alone.train, atol=1e-12)
    np.testing.assert_allclose(together.test[:1], alone.test, atol=1e-12)
    assert refit(lesions, positive, test, [], order) == []


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2_000_000))
def test_powers_of_two_end_with_all(n: int) -> None:
    counts = powers_of_two(n)
    assert counts[-1] == n
    assert all(count == 2**k < n for k, count in enumerate(counts[:-1]))
    assert 2 * counts[-2] >= n if n > 1 else counts == (1,)
    assert 27 in refine_counts(32, powers_of_two(48193), 0)  # the published choice


@settings(max_examples=100, deadline=None)
@given(st.sets(st.integers(1, 300), min_size=1, max_size=12), st.data(), st.integers(0, 30))
def test_refined_counts_fill_the_gap(counts: set[int], data: st.DataObject, limit: int) -> None:
    tried = sorted(counts)
    best = data.draw(st.sampled_from(tried))
    i = tried.index(best)
    window = range(tried[max(i - 1, 0)], tried[min(i + 1, len(tried) - 1)] + 1)
    missing = [n for n in window if n not in counts]
    refined = refine_counts(best, tried, limit)
    assert list(refined) == sorted(set(refined) & set(missing))
    assert len(refined) == (min(limit, len(missing)) if limit else len(missing))
    if len(refined) > 1:
        steps = np.diff([missing.index(n) for n in refined])
        assert np.ptp(steps) <= 1


def result_of(correct: np.ndarray, counts: tuple[int, ...], sizes: tuple[int, ...]) -> SweepResult:
    grid = Grid(tuple(2.0**k for k in range(correct.shape[1])), tuple(2.0**k for k in range(correct.shape[2])))
    return SweepResult(np.array(counts), grid, correct, np.array(sizes))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, 9), min_size=2, max_size=5), st.integers(0, 2**32 - 1))
def test_ties_go_to_the_first_cell_and_the_smallest_count(sizes: list[int], seed: int) -> None:
    correct = np.random.default_rng(seed).integers(0, np.array(sizes) + 1, (3, 3, 3, len(sizes)))
    correct[2] = correct[0]  # a tie between counts, and one between cells
    correct[:, 2, 2] = correct[:, 0, 1]
    result = result_of(correct, (2, 3, 8), tuple(sizes))
    mean = [
        [sum(Fraction(int(x), size) for x, size in zip(cell, sizes, strict=True)) for cell in n.reshape(9, -1)]
        for n in correct
    ]
    for i, cells in enumerate(mean):
        c, g = divmod(cells.index(max(cells)), 3)
        assert (best_cell(result, i).C, best_cell(result, i).gamma) == (2.0**c, 2.0**g)
    tops = [max(cells) for cells in mean]
    assert best_count(result) == best_cell(result, tops.index(max(tops)))


def test_accuracy_is_the_mean_over_folds_not_over_scans() -> None:
    correct = np.array([[[[9, 0], [5, 1]]]])  # 9 of 11 scans, but mean 0.45; 6 of 11, but 0.75
    assert best_cell(result_of(correct, (1,), (10, 1)), 0) == Cell(1, 1.0, 2.0, 0.75)


def test_rounding_does_not_break_ties() -> None:
    assert np.mean([0.1, 0.2, 0.3]) > np.mean([0.3, 0.2, 0.1])  # so a plain maximum takes the later one
    result = result_of(np.array([[[[3, 2, 1], [1, 2, 3]]], [[[1, 2, 3], [0, 0, 0]]]]), (4, 8), (10, 10, 10))
    assert best_cell(result, 0).gamma == 1.0
    assert best_count(result).n_voxels == 4


def test_merged_sweeps_are_one_sweep() -> None:
    lesions, positive = cohort(50, 40)
    parts = (lesions, positive, stratified(positive, 3))
    some, others = (sweep(*parts, counts, GRID, Search(rerank=True)) for counts in ((1, 8, 40), (8, 3)))
    whole = sweep(*parts, (1, 3, 8, 40), GRID, Search(rerank=True))
    merged = merge(some, others)
    assert merged.counts.tolist() == [1, 3, 8, 40]
    np.testing.assert_array_equal(merged.correct, whole.correct)
    with pytest.raises(BadInputError, match="different grids"):
        merge(some, replace(others, fold_sizes=others.fold_sizes + 1))


@pytest.mark.parametrize("rerank", [True, False])
def test_the_smallest_cohort(rerank: bool) -> None:
    lesions = np.array([[1], [1], [0], [0]], bool)
    positive = np.array([True, True, False, False])
    folds = [Fold(np.array([0, 2]), np.array([1, 3])), Fold(np.array([1, 3]), np.array([0, 2]))]
    result = sweep(lesions, positive, folds, powers_of_two(1), GRID, Search(rerank=rerank))
    assert (result.correct == 2).all()
    assert best_count(result) == Cell(1, 0.125, 0.125, 1.0)


def test_bad_input_is_refused() -> None:
    lesions, positive = cohort(12, 6)
    positive[:] = [True, False] * 6
    fold = Fold(np.arange(8), np.arange(8, 12))

    def run(folds: list[Fold], counts: tuple[int, ...] = (1,), grid: Grid = GRID, solver: str = "smo") -> None:
        sweep(lesions, positive, folds, counts, grid, Search(rerank=True, solver=solver))

    with pytest.raises(BadInputError, match="fold 2 of 2: none of the 3 scans belongs to the negative group"):
        run([fold, Fold(np.array([0, 2, 4]), np.array([1]))])
    with pytest.raises(BadInputError, match="both the training and the validation part"):
        run([Fold(np.arange(8), np.arange(7, 12))])
    for rows in (np.array([12]), np.array([-1]), np.array([], int), np.array([True])):
        with pytest.raises(BadInputError, match="fold 1 of 1: rows must be numbers from 0 to 11"):
            run([Fold(np.arange(8), rows)])
    with pytest.raises(BadInputError, match="no fold"):
        run([])
    for counts in ((), (0,), (7,)):
        with pytest.raises(BadInputError, match="from 1 to 6"):
            run([fold], counts)
    for grid in (
        Grid((), (1.0,)),
        Grid((1.0, 1.0), (1.0,)),
        Grid((1.0,), (0.0, 1.0)),
        Grid((np.inf,), (1.0,)),
    ):
        with pytest.raises(BadInputError, match="ascending positive"):
            run([fold], (1,), grid)
    with pytest.raises(BadInputError, match="solver 'other' is not known"):
        run([fold], solver="other")
    with pytest.raises(BadInputError, match="none of the voxel counts"):
        refine_counts(3, (1, 2), 0)
    with pytest.raises(BadInputError, match="no voxel"):
        powers_of_two(0)
