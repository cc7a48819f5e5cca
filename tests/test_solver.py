"""Nested distances against brute force, and the solver against LIBSVM and the conditions of optimality."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import SVC

from bids_app.learning import kernels, solver
from bids_app.learning.starts import Problem
from bids_app.learning.sweep import TOL
from bids_app.records.cohort import Grid


def cohort(n: int, v: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Lesion maps with noise and a few voxels that tell the groups apart."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.6
    often = np.where(np.arange(v) < max(1, v // 10), 0.35, 0.1)
    return rng.random((n, v)) < np.where(positive[:, None], often, 0.15), positive


def lower_distances(lesions: np.ndarray) -> np.ndarray:
    """Lower triangle of the number of voxels in which scans differ."""
    return np.tril((lesions[:, None] ^ lesions[None]).sum(axis=-1)).astype(np.int32)


def libsvm_correct(
    lesions: np.ndarray, positive: np.ndarray, train: np.ndarray, validate: np.ndarray, C: float, gamma: float
) -> int:
    """Validation scans that scikit-learn's SVC calls correctly, trained on the raw voxels."""
    svc = SVC(C=C, gamma=gamma).fit(lesions[train].astype(float), positive[train])
    return int((svc.predict(lesions[validate].astype(float)) == positive[validate]).sum())


def membership(rows: np.ndarray, n: int) -> np.ndarray:
    return np.bincount(rows, minlength=n)[None]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 140),
    st.integers(1, 330),
    st.lists(st.integers(1, 330), min_size=1, max_size=6),
    st.integers(0, 2**32 - 1),
)
def test_nested_distances_are_those_of_each_voxel_set(n: int, v: int, counts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    lesions, order = rng.random((n, v)) < 0.3, rng.permutation(v)
    counts = sorted({min(count, v) for count in counts})
    by_voxel = kernels.pack_by_voxel(lesions)
    members = rng.random(n) < 0.5
    counted = kernels.lesion_counts(by_voxel, kernels.row_mask(np.flatnonzero(members), n))
    np.testing.assert_array_equal(counted, lesions[members].sum(axis=0))
    by_scan = kernels.pack_by_scan(by_voxel, order, n)
    seen = []
    for count, distances in kernels.nested_distances(by_scan, counts):
        ranked = lesions[:, order[:count]]
        np.testing.assert_array_equal(distances, lower_distances(ranked))
        seen.append(count)
    assert seen == counts


def test_distances_over_more_words_than_a_tile() -> None:
    rng = np.random.default_rng(0)
    v = kernels.WORD * (kernels.WORD_TILE + 3) + 5
    lesions = rng.random((35, v)) < 0.5
    by_scan = kernels.pack_by_scan(kernels.pack_by_voxel(lesions), np.arange(v), 35)
    ((_, distances),) = kernels.nested_distances(by_scan, [v])
    np.testing.assert_array_equal(distances, lower_distances(lesions))


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 40), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_merged_scans_share_pattern_and_label(n: int, v: int, seed: int) -> None:
    lesions, positive = cohort(n, v, seed)
    active = np.random.default_rng(seed).random(n) < 0.8
    active[0] = True
    variables = kernels.merge_scans(lower_distances(lesions), positive, active)
    keys = [(*row.tolist(), bool(label)) for row, label in zip(lesions, positive, strict=True)]
    assert (variables.of_scan == -1).tolist() == (~active).tolist()
    scans = np.flatnonzero(active)
    for i in scans:
        for j in scans:
            assert (variables.of_scan[i] == variables.of_scan[j]) == (keys[i] == keys[j])
            between = variables.distances[variables.of_scan[i], variables.of_scan[j]]
            assert between == (lesions[i] ^ lesions[j]).sum()
            opposite = variables.opposite[variables.of_scan[i]] == variables.of_scan[j]
            assert opposite == (between == 0 and positive[i] != positive[j])
    np.testing.assert_array_equal(variables.sum(np.ones((1, n)))[0], np.bincount(variables.of_scan[scans]))


@pytest.mark.parametrize("tol", [1e-6, TOL])
@pytest.mark.parametrize("n_voxels", [3, 8, 60])
def test_solutions_are_optimal_and_decide_as_libsvm_does(n_voxels: int, tol: float) -> None:
    lesions, positive = cohort(110, n_voxels)
    n, gamma, costs = 110, 0.25, np.array([0.125, 2.0, 32.0])
    train = np.random.default_rng(1).random(n) < 0.8
    variables = kernels.merge_scans(lower_distances(lesions), positive, np.ones(n, bool))
    size = len(variables.sign)
    copies = variables.sum(train[None].astype(float))[0]
    kernel = np.empty((size, size), np.float32)
    kernels.fill_kernel(variables.distances, kernels.rbf_table(variables, gamma), kernel)
    beta, gradients = np.zeros((2, len(costs), size))
    biases = np.zeros(len(costs))
    problem = Problem(kernel, variables.sign, variables.opposite, copies)
    assert solver.solve_path(problem, costs, tol, 0, solver.Path(beta, gradients, biases)) > 0
    decisions = variables.sign - gradients + biases[:, None]
    for c, cost in enumerate(costs):
        alpha = variables.sign * beta[c]
        assert alpha.min() >= 0
        assert (alpha <= cost * copies * (1 + 1e-12)).all()
        assert beta[c].sum() == pytest.approx(0, abs=1e-9 * cost * size)
        gradient = variables.sign - kernel.astype(float) @ beta[c]
        may_grow = np.where(variables.sign > 0, alpha < cost * copies, alpha > 0)
        may_shrink = np.where(variables.sign > 0, alpha > 0, alpha < cost * copies)
        assert gradient[may_grow].max() - gradient[may_shrink].min() <= 1.1 * tol
        svc = SVC(C=cost, gamma=gamma, tol=1e-6).fit(lesions[train].astype(float), positive[train])
        expected = svc.decision_function(lesions.astype(float))
        free = (may_grow & may_shrink).any()  # else the bias is free within a range
        ours = decisions[c][variables.of_scan]
        np.testing.assert_allclose(ours, expected, atol=2e-4 if free and tol == 1e-6 else 2e-3)
        clear = np.abs(expected) > 2e-3
        np.testing.assert_array_equal(ours[clear] >= 0, expected[clear] >= 0)


def test_more_variables_than_ten_bits_number() -> None:
    n = 1500
    lesions, positive = cohort(n, 40)
    rng = np.random.default_rng(3)
    train, validate = np.split(rng.permutation(n), [1200])
    by_scan = kernels.pack_by_scan(kernels.pack_by_voxel(lesions), np.arange(40), n)
    ((_, distances),) = kernels.nested_distances(by_scan, [40])
    assert len(kernels.merge_scans(distances, positive, np.ones(n, bool)).sign) > 1024
    grid = Grid((0.5, 8.0), (0.125,))
    ours = solver.cross_validate(distances, positive, membership(train, n), membership(validate, n), grid)
    for c, cost in enumerate(grid.C):
        assert abs(ours[c, 0, 0] - libsvm_correct(lesions, positive, train, validate, cost, 0.125)) <= 1


@pytest.mark.parametrize(("n_voxels", "moved"), [(12, False), (40, True)])
def test_warm_starts_and_skipped_kernels_do_not_change_the_answer(
    n_voxels: int, moved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lesions, positive = cohort(80, n_voxels)
    n, distances = 80, lower_distances(lesions)
    moves, move = [], solver.move_gradients
    monkeypatch.setattr(solver, "move_gradients", lambda *arguments: (moves.append(arguments), move(*arguments)))
    train, validate = np.split(np.random.default_rng(4).permutation(n), [60])
    parts = (distances, positive, membership(train, n), membership(validate, n))
    grid = Grid((0.125, 1.0, 8.0), (0.125, 1.0, 8.0, 25.0, 32.0))
    whole = solver.cross_validate(*parts, grid, 1e-6)
    assert bool(moves) == moved  # where but a few scans lie close enough for the kernel still to change
    for c, cost in enumerate(grid.C):
        for g, gamma in enumerate(grid.gamma):
            alone = solver.cross_validate(*parts, Grid((cost,), (gamma,)), 1e-6)
            assert whole[c, g, 0] == alone[0, 0, 0]
            assert whole[c, g, 0] == libsvm_correct(lesions, positive, train, validate, cost, gamma)


def test_a_scan_given_twice_weighs_twice() -> None:
    lesions, positive = cohort(60, 9)
    n = 60
    train, validate = np.split(np.random.default_rng(6).permutation(n), [40])
    drawn = np.concatenate([train, train[:15], train[:5]])
    parts = (lower_distances(lesions), positive, membership(drawn, n), membership(validate, n))
    grid = Grid((0.25, 4.0), (0.5, 2.0))
    ours = solver.cross_validate(*parts, grid, 1e-6)
    for c, cost in enumerate(grid.C):
        for g, gamma in enumerate(grid.gamma):
            assert ours[c, g, 0] == libsvm_correct(lesions, positive, drawn, validate, cost, gamma)
