"""The group level: what was found, and a trained model with what is needed to use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_app.records.cohort import Cell, Cohort, Division, Measure, Model, Performance, Ranking, SweepResult
from bids_app.records.need import need

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class McNemar:
    """McNemar's test: ``b`` pairs where only the first is correct, ``c`` where only the second is.

    ``statistic`` is nan where the test is exact (binomial).
    """

    b: int
    c: int
    statistic: float
    p: float
    exact: bool


@dataclass(frozen=True)
class Agreement:
    """Two reads of the same ``n`` scans: Cohen's kappa, its word, and McNemar's test where it was asked."""

    first: str
    second: str
    n: int
    kappa: Measure
    strength: str
    mcnemar: McNemar | None = None


@dataclass(frozen=True)
class RaterTable:
    """Table 2: performance of the SVM (first) and the raters; agreement within, between and with the SVM."""

    performance: dict[str, Performance]
    intra: tuple[Agreement, ...]
    inter: tuple[Agreement, ...]
    svm: tuple[Agreement, ...]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation protocol, ``published`` or ``leakage-free``, on one division of the cohort.

    Attributes
    ----------
    name : str
    division : Division
        Rows of the cohort.
    ranking : Ranking
        Of the training set.
    sweep : SweepResult
        Cross-validation in the training set, first and refined counts together.
    cells : tuple of Cell
        Best cell of every count, in the order of ``sweep.counts``.
    train_curve, test_curve : tuple of Performance
        Performance of every count's model, refitted on the whole training set.
    chosen : int
        Index into ``cells``.
    model : Model
        Of the chosen cell, trained on the training set.
    train_decisions, test_decisions : ndarray of float
        Of the chosen model, in the order of the division's rows.
    test_bootstrap : dict
        Measures with intervals from a bootstrap over participants; keys sensitivity, specificity,
        accuracy, auc.
    lesion_free : dict
        Test scans without any lesion: ``positive``, ``negative``, ``tp``, ``fn``, ``tn``, ``fp``.
    ties : dict
        Voxels tied at the cut, by count.
    near_zero : int
        Test scans whose decision value is below the solver's tolerance.
    baselines : dict
        Performance of ``majority`` and ``lesion_volume`` on the test set.
    """

    name: str
    division: Division
    ranking: Ranking
    sweep: SweepResult
    cells: tuple[Cell, ...]
    train_curve: tuple[Performance, ...]
    test_curve: tuple[Performance, ...]
    chosen: int
    model: Model
    train_decisions: np.ndarray
    test_decisions: np.ndarray
    test_bootstrap: dict[str, Measure]
    lesion_free: dict[str, int]
    ties: dict[int, int]
    near_zero: int
    baselines: dict[str, Performance]


@dataclass(frozen=True)
class Nested:
    """Nested cross-validation of a protocol over the whole cohort: every scan is tested once, out of fold.

    ``decisions`` (N,) pooled out-of-fold values, ``fold`` (N,) the outer fold of each scan, ``cells`` the
    choice of every outer fold.
    """

    decisions: np.ndarray
    fold: np.ndarray
    cells: tuple[Cell, ...]
    performance: Performance
    bootstrap: dict[str, Measure]


@dataclass(frozen=True)
class Threshold:
    """The lesion threshold and where it comes from (``training`` or ``given``); mean and SD of pooled belief."""

    value: float
    origin: str
    mean: float | None = None
    sd: float | None = None
    n_scans: int = 0


@dataclass(frozen=True)
class GroupResult:
    """Everything the group level found: what metrics.json, the tables, the figures and the report show.

    ``left_out`` lists by name what did not enter the cohort, with the reason, ``flagged`` what did though the
    participant level's quality checks doubt it, with the checks' names. ``thresholds`` and
    ``evaluations`` are keyed ``published`` and ``leakage-free``. ``tables`` holds the baseline tables
    ``table1``, ``table_s1`` (pandas), and ``raters`` the agreement with human raters by evaluation, if any.
    """

    cohort: Cohort
    evaluations: dict[str, Evaluation]
    thresholds: dict[str, Threshold]
    nested: dict[str, Nested]
    optimism: dict[str, float]
    permutation: dict[str, object]
    tables: dict[str, pd.DataFrame]
    raters: dict[str, RaterTable]
    left_out: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    parameters: dict[str, object]
    software: dict[str, str]
    flagged: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class StoredModel:
    """A trained model as read from its folder, with what is needed to use it on new scans.

    Attributes
    ----------
    model : Model
    levels : (str, str)
        Names of the positive and of the negative group.
    threshold : Threshold
        Of the lesion maps it was trained on.
    lesion_map : str
        ``published`` or ``cleaned``.
    protocol : str
        ``published`` or ``leakage-free``.
    patterns : ndarray of bool, shape (P, n)
        The distinct training scans at the model's voxels.
    training : dict
        What is known of the training data; always ``decision_range`` (two numbers) and
        ``nearest_distance_max`` (Hamming, voxels).
    digest : str
        SHA-256 of the model: equal digest, equal model.
    """

    model: Model
    levels: tuple[str, str]
    threshold: Threshold
    lesion_map: str
    protocol: str
    patterns: np.ndarray
    training: dict[str, object]
    digest: str

    def __post_init__(self) -> None:
        n = len(self.model.voxels)
        need(self.patterns.ndim == 2 and self.patterns.shape[1] == n, f"training patterns must be P x {n}")
        need(self.patterns.dtype == bool, "training patterns must be boolean")
