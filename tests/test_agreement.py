"""Kappa, McNemar's test and Table 2 against scikit-learn, statsmodels, scipy and formulas by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2
from sklearn.metrics import cohen_kappa_score

from bids_app.errors import BadInputError
from bids_app.learning import agreement, measures


def reads(n: int, seed: int, same: float) -> tuple[np.ndarray, np.ndarray]:
    """Two reads of n scans; the second copies the first with probability ``same``."""
    rng = np.random.default_rng(seed)
    a = rng.random(n) < 0.6
    return a, np.where(rng.random(n) < same, a, rng.random(n) < 0.5)


def discordant(b: int, c: int, both: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Correctness of two raters of whom b times only the first is correct and c times only the second."""
    first = np.repeat([True, False, True, False], [b, c, both, both])
    return first, np.repeat([False, True, True, False], [b, c, both, both])


@settings(max_examples=50, deadline=None)
@given(st.integers(10, 200), st.integers(0, 10**6), st.floats(0, 0.95))
def test_kappa_equals_scikit_learn_and_its_interval_the_formula(n: int, seed: int, same: float) -> None:
    a, b = reads(n, seed, same)
    found = agreement.kappa(a, b)
    assert found.value == pytest.approx(cohen_kappa_score(a, b), abs=1e-12)
    # Fleiss, Cohen and Everitt (1969), equation 13.
    p = np.array([[np.mean((a == i) & (b == j)) for j in (0, 1)] for i in (0, 1)])
    row, column = p.sum(axis=1), p.sum(axis=0)
    chance, k = row @ column, found.value
    diagonal = sum(p[i, i] * (1 - (row[i] + column[i]) * (1 - k)) ** 2 for i in (0, 1))
    off = (1 - k) ** 2 * (p[0, 1] * (column[0] + row[1]) ** 2 + p[1, 0] * (column[1] + row[0]) ** 2)
    variance = (diagonal + off - (k - chance * (1 - k)) ** 2) / (n * (1 - chance) ** 2)
    reach = 1.959963985 * np.sqrt(max(variance, 0))
    assert (found.low, found.high) == pytest.approx((max(k - reach, -1), min(k + reach, 1)), abs=1e-6)


def test_kappa_is_symmetric_one_for_copies_and_skips_missing_reads() -> None:
    a, b = reads(60, 1, 0.7)
    assert agreement.kappa(a, b) == agreement.kappa(b, a)
    copies = agreement.kappa(a, a)
    assert (copies.value, copies.low, copies.high) == (1.0, 1.0, 1.0)
    x, y = a.astype(float), b.astype(float)
    x[:5], y[3:9] = np.nan, np.nan
    assert agreement.kappa(x, y) == agreement.kappa(a[9:], b[9:])


@pytest.mark.filterwarnings("error")
def test_kappa_without_variation_or_pairs_is_undefined() -> None:
    ones, missing = np.ones(4), np.full(4, np.nan)
    for a, b in [(ones, ones), (0 * ones, 0 * ones), (ones, missing)]:
        found = agreement.kappa(a, b)
        assert np.isnan([found.value, found.low, found.high]).all()
    assert agreement.kappa(ones, np.array([1.0, 0, 1, 0])).value == 0


def test_words_and_their_boundaries() -> None:
    published = {0.680: "substantial", 0.679: "substantial", 0.414: "moderate", 0.279: "fair", 0.262: "fair"}
    assert {k: agreement.strength(k) for k in published} == published
    edges = {-0.3: "slight", 0.1999: "slight", 0.2: "fair", 0.4: "moderate", 0.6: "substantial"}
    assert {k: agreement.strength(k) for k in edges} == edges
    assert agreement.strength(0.8) == "substantial"
    assert agreement.strength(0.8001) == agreement.strength(1.0) == "almost perfect"
    assert agreement.strength(float("nan")) == "undefined"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_binomial_when_small_and_corrected_chi_square_else(b: int, c: int) -> None:
    found = agreement.mcnemar(*discordant(b, c))
    assert (found.b, found.c) == (b, c)
    assert found.exact == (b + c < 25)
    if found.exact:
        assert np.isnan(found.statistic)
        assert found.p == pytest.approx(binomtest(b, b + c).pvalue if b + c else 1.0)
    else:
        statistic = (abs(b - c) - 1) ** 2 / (b + c)
        assert (found.statistic, found.p) == pytest.approx((statistic, chi2.sf(statistic, 1)))


def test_table2_is_made_of_the_single_comparisons() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(120) < 0.7
    svm = np.where(rng.random(120) < 0.7, positive, ~positive)
    first = np.where(rng.random(120) < 0.75, positive, ~positive).astype(float)
    second = np.where(rng.random(120) < 0.75, positive, ~positive).astype(float)
    second[:10] = np.nan
    repeat = np.full(120, np.nan)
    repeat[20:60] = np.where(rng.random(40) < 0.9, first[20:60], 1 - first[20:60])
    found = agreement.table2(positive, svm, {"A": first, "B": second}, {"A": repeat})

    assert list(found.performance) == ["SVM", "A", "B"]
    assert found.performance["SVM"] == measures.called(positive, svm)
    assert found.performance["B"] == measures.called(positive[10:], second[10:] == 1)
    (intra,), (inter,) = found.intra, found.inter
    assert (intra.first, intra.second, intra.n) == ("A", "A", 40)
    assert intra.kappa == agreement.kappa(first[20:60], repeat[20:60])
    assert (inter.first, inter.second, inter.n) == ("A", "B", 110)
    assert inter.kappa == agreement.kappa(first[10:], second[10:])
    assert inter.strength == agreement.strength(inter.kappa.value)
    assert inter.mcnemar is None
    against = found.svm[1]
    assert (against.first, against.second, against.n) == ("B", "SVM", 110)
    assert against.kappa == agreement.kappa(second[10:], svm[10:])
    right, svm_right = (second == positive)[10:], (svm == positive)[10:]
    assert against.mcnemar is not None
    assert (against.mcnemar.b, against.mcnemar.c) == (np.sum(right & ~svm_right), np.sum(~right & svm_right))


def test_a_rater_who_read_nothing_is_undefined_not_a_crash() -> None:
    positive = np.array([True, False, True])
    found = agreement.table2(positive, positive, {"A": np.full(3, np.nan)}, {})
    assert np.isnan(found.performance["A"].sensitivity.value)
    assert found.svm[0].n == 0
    assert found.svm[0].strength == "undefined"


@pytest.mark.parametrize(
    ("raters", "repeats", "message"),
    [
        ({"SVM": [1.0, 0.0]}, {}, "another name"),
        ({"A": [1.0, 0.0]}, {"B": [1.0, 0.0]}, "B: second reads"),
        ({"A": [1.0, 0.0, 1.0]}, {}, "A: reads have shape"),
        ({"A": [1.0, 2.0]}, {}, "A: a read is none of"),
    ],
)
def test_bad_reads_are_named(raters: dict[str, list[float]], repeats: dict[str, list[float]], message: str) -> None:
    truth = np.array([True, False])
    with pytest.raises(BadInputError, match=message):
        agreement.table2(
            truth,
            truth,
            {name: np.array(values) for name, values in raters.items()},
            {name: np.array(values) for name, values in repeats.items()},
        )
