"""Nested cross-validation and its permutations fold by fold: the same wherever they run, and what they stand for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from serial import nested

from bids_app.errors import BadInputError
from bids_app.group import permutation
from bids_app.learning import protocols
from bids_app.learning.division import permute
from bids_app.learning.protocols import Plan, outer_folds
from bids_app.machine.parallel import Workers
from bids_app.phantom.cohort import draw_cohort
from bids_app.records.cohort import Cohort, LesionMaps, Threshold

PLAN = Plan(cv_folds=3, refine_limit=2, solver="smo", bootstrap_draws=20, random_seed=3)


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return draw_cohort(n_participants=(10, 8), n_scans=(20, 16), seed=2)


@pytest.fixture(scope="module")
def laid(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> permutation.Laid:
    outer = outer_folds(cohort.positive, cohort.participants, 3, PLAN)
    folder = tmp_path_factory.mktemp("nested")
    return permutation.lay(_maps(cohort), cohort.positive, cohort.participants, outer, folder)


def _maps(cohort: Cohort) -> protocols.MapsFor:
    """Maps that differ from fold to fold, as those at a fold's own threshold do."""

    def maps_for(rows: np.ndarray) -> LesionMaps:
        lesions = cohort.lesions.copy()
        lesions[:, int(rows.sum()) % 7 :: 7] = False
        return LesionMaps(lesions, Threshold(0.32, "training"))

    return maps_for


@pytest.mark.long
def test_folds_on_workers_are_the_serial_result(cohort: Cohort, laid: permutation.Laid) -> None:
    expected = nested(_maps(cohort), cohort.positive, cohort.participants, laid.outer, PLAN)
    for nprocs in (1, 2):
        found = permutation.nested(laid, Workers(nprocs), PLAN)
        np.testing.assert_array_equal(found.decisions, expected.decisions)
        assert found.cells == expected.cells and found.performance == expected.performance


@pytest.mark.long
def test_a_permutation_is_the_nested_result_of_permuted_labels(cohort: Cohort, laid: permutation.Laid) -> None:
    n = permutation.SHARE + 1  # two tasks a fold
    one, two = (permutation.test(laid, n, Workers(nprocs), PLAN) for nprocs in (1, 2))
    assert one == two and len(one.values) == n
    place = protocols.fold_numbers(laid.outer)
    true = nested(_maps(cohort), cohort.positive, cohort.participants, laid.outer, PLAN.coarser())
    assert true.performance.auc and one.observed == true.performance.auc.value
    for which in (0, n - 1):
        labels = permute(cohort.positive, cohort.participants, PLAN.random_seed + 1 + which, within=place)
        found = nested(_maps(cohort), labels, cohort.participants, laid.outer, PLAN.coarser())
        assert found.performance.auc and one.values[which] == found.performance.auc.value


def test_a_coarser_plan_tries_less_of_the_same_search(cohort: Cohort) -> None:
    plan = Plan(cv_folds=10, refine_limit=64, solver="smo", bootstrap_draws=20, random_seed=3)
    (fine, _), (coarse, _) = (
        protocols.select(cohort.lesions, cohort.positive, cohort.participants, each)
        for each in (replace(plan, cv_folds=protocols.COARSE_FOLDS), plan.coarser())
    )
    same = np.isin(fine.counts, coarse.counts)
    assert set(coarse.counts) < set(fine.counts) and same.sum() == len(coarse.counts)
    off = np.abs(coarse.correct - fine.correct[same][:, ::2, ::2])
    assert off.max() <= 1 and np.count_nonzero(off) <= 0.01 * off.size  # other starts: the solver's tolerance


def test_what_is_wrong_in_a_fold_is_said_as_it_is(laid: permutation.Laid) -> None:
    for nprocs in (1, 2):
        with pytest.raises(BadInputError, match="solver 'none' is not known"):
            permutation.nested(laid, Workers(nprocs), Plan(3, 2, "none", 20, 3))
