"""The classifier against scikit-learn's SVC on the raw voxels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rbf import fit
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.svm import SVC

from bids_app.errors import BadInputError
from bids_app.learning.classifier import decide, near_zero, squared_distances


def cohort(n: int = 70, v: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Lesion maps whose first voxels tell the groups apart, more or less."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.6
    often = np.where(np.arange(v) < 10, 0.35, 0.08)
    return rng.random((n, v)) < np.where(positive[:, None], often, 0.1), positive


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2, 63, 4096, 4100]), st.integers(0, 99))
def test_squared_distances_are_euclidean(m: int, n: int, v: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random((m, v)) < 0.4, rng.random((n, v)) < 0.4
    np.testing.assert_array_equal(squared_distances(a, b), (a[:, None] ^ b[None]).sum(axis=-1))
    np.testing.assert_allclose(
        squared_distances(a, b),
        euclidean_distances(a.astype(float), b.astype(float), squared=True),
        atol=1e-9,
    )


@pytest.mark.parametrize(("n_voxels", "C", "gamma"), [(1, 1.0, 1.0), (7, 0.125, 0.5), (120, 32.0, 0.125)])
def test_decisions_are_those_of_svc(n_voxels: int, C: float, gamma: float) -> None:
    lesions, positive = cohort()
    new, _ = cohort(seed=1)
    voxels = np.random.default_rng(2).permutation(120)[:n_voxels]
    model = fit(lesions, positive, voxels, C, gamma)
    svc = SVC(C=C, gamma=gamma, tol=1e-6).fit(lesions[:, voxels].astype(float), positive)
    for maps in (lesions, new):
        expected = svc.decision_function(maps[:, voxels].astype(float))
        np.testing.assert_allclose(decide(model, maps), expected, atol=1e-4)
    assert np.abs(model.dual_coef).max() <= C * (1 + 1e-9)
    assert model.dual_coef.sum() == pytest.approx(0, abs=1e-9)


def test_equal_data_give_an_equal_model() -> None:
    lesions, positive = cohort()
    one, two = (fit(lesions, positive, np.arange(20), 2.0, 0.25) for _ in range(2))
    for name in ("support", "dual_coef", "intercept"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_the_order_of_voxels_does_not_matter() -> None:
    lesions, positive = cohort()
    voxels = np.arange(30)
    one = decide(fit(lesions, positive, voxels, 2.0, 0.25), lesions)
    np.testing.assert_array_equal(one, decide(fit(lesions, positive, voxels[::-1], 2.0, 0.25), lesions))


def test_other_voxels_are_not_looked_at() -> None:
    lesions, positive = cohort()
    model = fit(lesions, positive, np.array([3, 5]), 1.0, 1.0)
    changed = lesions.copy()
    changed[:, np.setdiff1d(np.arange(120), [3, 5])] ^= True
    np.testing.assert_array_equal(decide(model, lesions), decide(model, changed))


def test_the_positive_group_is_on_the_positive_side() -> None:
    lesions = np.array([[1], [1], [0], [0]], bool)
    positive = np.array([True, True, False, False])
    assert (decide(fit(lesions, positive, np.array([0]), 1, 1), lesions) >= 0).tolist() == positive.tolist()
    assert (decide(fit(lesions, ~positive, np.array([0]), 1, 1), lesions) >= 0).tolist() == (~positive).tolist()


def test_near_zero_counts_both_sides() -> None:
    assert near_zero(np.array([-0.2, -1e-7, 0.0, 1e-7, 0.2]), 1e-6) == 3


def test_maps_that_do_not_fit_the_model_are_refused() -> None:
    lesions, positive = cohort()
    model = fit(lesions, positive, np.arange(5), 1, 1)
    with pytest.raises(BadInputError, match="at least 5 voxels"):
        decide(model, lesions[:, :4])
    with pytest.raises(BadInputError, match="booleans"):
        decide(model, lesions.astype(float))
