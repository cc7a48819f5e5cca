"""The group level: what was found, and a trained model with what is needed to use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_app.records.cohort import (
    Cell,
    Cohort,
    Division,
    LesionMaps,
    Measure,
    Model,
    Performance,
    Ranking,
    SweepResult,
)
from bids_app.records.fitted import MapModel, Recommended
from bids_app.records.need import need
from bids_app.records.recommended import Calibration, Permutation, Purpose, Seen

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
class Selection:
    """What was tried on a training set and what was chosen.

    Attributes
    ----------
    ranking : Ranking
        Of the training set.
    sweep : SweepResult
        Cross-validation in the training set, first and refined counts together.
    cells : tuple of Cell
        Best cell of every count, in the order of ``sweep.counts``.
    chosen : int
        Index into ``cells``.
    ties : dict
        Voxels tied at the cut, by count.
    """

    ranking: Ranking
    sweep: SweepResult
    cells: tuple[Cell, ...]
    chosen: int
    ties: dict[int, int]

    @property
    def cell(self) -> Cell:
        """The chosen one."""
        return self.cells[self.chosen]


@dataclass(frozen=True)
class Scores:
    """How the models of all counts did on one set of scans, and the chosen one's decision values in its order.

    ``curve`` holds the performance of every count's model, refitted on the whole training set.
    """

    curve: tuple[Performance, ...]
    decisions: np.ndarray


@dataclass(frozen=True)
class HeldOutScores(Scores):
    """Scores of the test set, and what is told of it beside.

    Attributes
    ----------
    bootstrap : dict
        Measures with intervals from a bootstrap over participants; keys sensitivity, specificity,
        accuracy, auc.
    lesion_free : dict
        Scans without any lesion: ``positive``, ``negative``, ``tp``, ``fn``, ``tn``, ``fp``.
    near_zero : int
        Scans whose decision value is below the solver's tolerance.
    baselines : dict
        Performance of ``majority`` and ``lesion_volume``.
    """

    bootstrap: dict[str, Measure]
    lesion_free: dict[str, int]
    near_zero: int
    baselines: dict[str, Performance]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation protocol, ``published`` or ``leakage-free``, on one division of the cohort.

    Attributes
    ----------
    name : str
    division : Division
        Rows of the cohort.
    maps : LesionMaps
        Of all scans of the cohort, at the threshold of this division's training set.
    selection : Selection
    model : Model
        Of the chosen cell, trained on the training set.
    train : Scores
    test : HeldOutScores
    """

    name: str
    division: Division
    maps: LesionMaps
    selection: Selection
    model: Model
    train: Scores
    test: HeldOutScores

    @property
    def performance(self) -> Performance:
        """Of the chosen model on the test set."""
        return self.test.curve[self.selection.chosen]


@dataclass(frozen=True)
class Nested:
    """Nested cross-validation of a protocol over the whole cohort: every scan is tested once, out of fold.

    Decision values of different outer folds are not on one scale, for their kernels, C and gamma differ. So the AUC
    of ``performance`` and ``bootstrap`` compares scans of the same fold only.

    Attributes
    ----------
    decisions : ndarray of float, shape (N,)
        Out-of-fold decision values.
    fold : ndarray of int, shape (N,)
        Outer fold of each scan.
    cells : tuple of Cell
        The choice of every outer fold.
    performance : Performance
    bootstrap : dict
    pooled_auc : Measure
        Of all pairs of scans, also those of different folds: what others report, told for comparison.
    """

    decisions: np.ndarray
    fold: np.ndarray
    cells: tuple[Cell, ...]
    performance: Performance
    bootstrap: dict[str, Measure]
    pooled_auc: Measure


@dataclass(frozen=True)
class Notes:
    """What a reader must know of the input, by name and reason.

    ``left_out`` did not enter the cohort; ``flagged`` did, though the participant level's quality checks doubt it.
    """

    left_out: tuple[tuple[str, str], ...]
    flagged: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Provenance:
    """Every option that results depend on, and the versions of what computed."""

    parameters: dict[str, object]
    software: dict[str, str]


@dataclass(frozen=True)
class GroupResult:
    """Everything the group level found: what metrics.json, the tables, the figures and the report show.

    ``evaluations`` and ``nested`` are keyed ``published`` and ``leakage-free``; the cohort's lesion maps are those of
    the first. ``tables`` holds the baseline tables ``table1``, ``table_s1`` (pandas), and ``raters`` the agreement
    with human raters by evaluation, if any. ``recommended`` is the third recipe, with its contest against the others.
    """

    cohort: Cohort
    evaluations: dict[str, Evaluation]
    nested: dict[str, Nested]
    permutation: Permutation | None
    tables: dict[str, pd.DataFrame]
    raters: dict[str, RaterTable]
    notes: Notes
    provenance: Provenance
    recommended: Recommended | None = None


@dataclass(frozen=True)
class StoredModel:
    """A trained model as read from its folder, with what is needed to use it on new scans.

    Attributes
    ----------
    model : Model
    purpose : Purpose
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
    purpose: Purpose
    protocol: str
    patterns: np.ndarray
    training: dict[str, object]
    digest: str

    def __post_init__(self) -> None:
        n = len(self.model.voxels)
        need(self.patterns.ndim == 2 and self.patterns.shape[1] == n, f"training patterns must be P x {n}")
        need(self.patterns.dtype == bool, "training patterns must be boolean")


@dataclass(frozen=True)
class Predictor:
    """A calibrated model trained on the whole cohort with what is needed to use it on new scans.

    Attributes
    ----------
    protocol : str
        Name of the recipe, as in the table of recipes.
    model : MapModel
    calibration : Calibration
    seen : Seen
    purpose : Purpose
    prevalence, coverage : float
        Of its probabilities and conformal sets.
    """

    protocol: str
    model: MapModel
    calibration: Calibration
    seen: Seen
    purpose: Purpose
    prevalence: float
    coverage: float

    def __post_init__(self) -> None:
        need(0 < self.prevalence < 1 and 0 < self.coverage < 1, "prevalence and coverage must be shares")


@dataclass(frozen=True)
class StoredPredictor(Predictor):
    """The same as read from its folder.

    Attributes
    ----------
    training : dict
        What is known of the training data.
    digest : str
        SHA-256 of the model: equal digest, equal model.
    """

    training: dict[str, object]
    digest: str
