"""The recommended recipe and its rivals: settings, the models they end in, and what turns decisions into words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from bids_app.records.cohort import Measure, Threshold
from bids_app.records.lesions import BeliefLimit, CohortNorm
from bids_app.records.machines import Number, Word
from bids_app.records.need import need

BELIEF = "belief"  # in place of a lesion map's name: belief above what is normal at its place


class Kind(NamedTuple):
    """How a lesion map becomes features: width of the smoothing in mm (0: none), and whether it is folded."""

    fwhm: float
    folded: bool


class Setting(NamedTuple):
    """One choice of the selection: features, weights of log volume and covariates beside them, cost; inner AUC."""

    kind: Kind
    volume_weight: float
    C: float
    auc: float = float("nan")
    covariate_weight: float = 0.0


class Neighbour(NamedTuple):
    """A training scan, and how far another one is from it."""

    scan: str
    distance: float


@dataclass(frozen=True)
class LinearModel:
    """``decision = sum_k weights_k . sqrt(A_k m) + volume log(1 + sum m) + intercept`` of a lesion map m.

    Where there are covariates, plus what each adds.

    Attributes
    ----------
    kinds : tuple of Kind
    weights : tuple of ndarray of float, shapes (F_k,)
        A weight for each feature of each kind.
    volume, intercept : float
    settings : tuple of Setting
        The choices whose mean the model is.
    covariates : tuple of Number or Word
    """

    kinds: tuple[Kind, ...]
    weights: tuple[np.ndarray, ...]
    volume: float
    intercept: float
    settings: tuple[Setting, ...]
    covariates: tuple[Number | Word, ...] = ()

    def __post_init__(self) -> None:
        need(len(self.kinds) == len(self.weights), f"{len(self.kinds)} kinds need as many weights")
        need(all(each.ndim == 1 for each in self.weights), "weights must be vectors")


@dataclass(frozen=True)
class Calibration:
    """Out-of-fold decision values of a training set, each scan weighing so that its participant weighs 1.

    Attributes
    ----------
    decisions : ndarray of float, shape (N,)
    positive, lesion_free : ndarray of bool, shape (N,)
    weights : ndarray of float, shape (N,)
        One over the number of the participant's scans.
    at_zero : float
        Decision value of a scan without lesions.
    slope, offset : float
        Platt's: ``P(positive) = 1 / (1 + exp(-(slope decision + offset)))`` at ``prevalence``.
    prevalence : float
        Share of the positive group's participants.
    """

    decisions: np.ndarray
    positive: np.ndarray
    lesion_free: np.ndarray
    weights: np.ndarray
    at_zero: float
    slope: float
    offset: float
    prevalence: float

    def __post_init__(self) -> None:
        n = len(self.decisions)
        for name in ("positive", "lesion_free", "weights"):
            need(getattr(self, name).shape == (n,), f"{n} decision values need {n} {name}")
        need(0 < self.prevalence < 1, f"prevalence is {self.prevalence}")


@dataclass(frozen=True)
class Brier:
    """Mean squared error of probabilities, ``value = reliability - resolution + uncertainty + within``.

    ``uncertainty`` is the score of the base rate alone, ``skill = 1 - value / uncertainty``; ``within`` is what the
    bins leave over (Stephenson, Coelho and Jolliffe 2008).
    """

    value: float
    reliability: float
    resolution: float
    uncertainty: float
    within: float

    @property
    def skill(self) -> float:
        """Share of the base rate's score that the probabilities save."""
        return 1 - self.value / self.uncertainty if self.uncertainty > 0 else float("nan")


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold values of one recipe in R repeats of a nested cross-validation over N scans.

    Attributes
    ----------
    name : str
    decisions : ndarray of float, shape (R, N)
        Positive group where >= 0; comparable within one fold only.
    fold : ndarray of int, shape (R, N)
    probability : ndarray of float, shape (R, N)
        Of the positive group, at the prevalence of the training participants.
    chosen : tuple
        What was chosen, fold by fold and repeat by repeat.
    calls : dict of ndarray of bool, shape (R, N)
        Called positive at each of the recipe's own decision thresholds.
    sets : ndarray of bool, shape (R, N, 2)
        Whether positive and negative group are in the scan's conformal set; no last axes where there are none.
    """

    name: str
    decisions: np.ndarray
    fold: np.ndarray
    probability: np.ndarray
    chosen: tuple[object, ...] = ()
    calls: dict[str, np.ndarray] = field(default_factory=dict)
    sets: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = self.decisions.shape
        need(len(shape) == 2, "decision values must be repeats x scans")
        need(self.fold.shape == shape and self.probability.shape == shape, f"folds and probabilities must be {shape}")
        need(self.sets is None or self.sets.shape == (*shape, 2), f"conformal sets must be {(*shape, 2)}")


@dataclass(frozen=True)
class Row:
    """One row of recipe against recipe: measures with intervals over participants, what it cost, what it differs by.

    ``measures`` has the keys auc, accuracy, sensitivity, specificity and, for recipes on the shared folds,
    auc_participants and brier. ``difference`` is the recipe's AUC minus that of the reference on the same folds; None
    for the reference and where folds are others.
    """

    name: str
    measures: dict[str, Measure]
    cpu_seconds: float
    difference: Measure | None = None


@dataclass(frozen=True)
class Sets:
    """Conformal sets of some scans: how many, how often they hold the truth, by group, and how many decide nothing.

    ``counts`` holds the share of scans whose set is the positive group alone, the negative one alone, both or none.
    """

    scans: int
    coverage: Measure
    by_group: dict[str, Measure]
    counts: dict[str, float]

    @property
    def undecided(self) -> float:
        """Share of scans whose set is not one group."""
        return self.counts["both"] + self.counts["none"]


@dataclass(frozen=True)
class Told:
    """What the recommended recipe's out-of-fold values say beyond AUC.

    Attributes
    ----------
    brier : Brier
        Over participants, mean over repeats.
    curve : tuple of (mean probability, share of the positive group, weight)
    thresholds : dict
        Sensitivity, specificity and accuracy at each decision threshold.
    sets : dict of Sets
        Of scans ``with_lesions`` and ``lesion_free`` ones.
    lesion_free : dict
        Scans without lesions: ``positive`` and ``negative`` ones, ``tp``, ``fn``, ``tn``, ``fp``, mean over repeats.
    """

    brier: Brier
    curve: tuple[tuple[float, float, float], ...]
    thresholds: dict[str, dict[str, Measure]]
    sets: dict[str, Sets]
    lesion_free: dict[str, float]


@dataclass(frozen=True)
class Contest:
    """Recipe against recipe on the same repeated nested folds.

    Attributes
    ----------
    rows : tuple of Row
        The recommended recipe first.
    out_of_fold : dict of OutOfFold
        By name of the row; the published way has none.
    told : Told
        Of the recommended recipe.
    reference : str
        The row that differences are to.
    winner : str
        The row of the highest AUC among those on the shared folds.
    shown : bool
        Whether its difference to the reference is shown: zero lies outside its interval.
    nested_folds, repeats : int
    """

    rows: tuple[Row, ...]
    out_of_fold: dict[str, OutOfFold]
    told: Told
    reference: str
    winner: str
    shown: bool
    nested_folds: int
    repeats: int

    def row(self, name: str) -> Row:
        """Return the row of a recipe."""
        return next(each for each in self.rows if each.name == name)


@dataclass(frozen=True)
class Seen:
    """What training saw, to tell how like it another scan is.

    Attributes
    ----------
    scans : tuple of str
        Names of the N training scans, in the order of the calibration's values.
    sketches : ndarray of float32, shape (N, S)
        Of `recommended.neighbours`.
    farthest : float
        The largest distance of a training scan to the nearest scan of another participant.
    """

    scans: tuple[str, ...]
    sketches: np.ndarray
    farthest: float

    def __post_init__(self) -> None:
        need(self.sketches.ndim == 2 and len(self.sketches) == len(self.scans), "each scan needs a sketch")


@dataclass(frozen=True)
class Permutation:
    """A permutation test: the observed statistic, those of permuted labels, and p."""

    statistic: str
    observed: float
    p: float
    values: tuple[float, ...]


@dataclass(frozen=True)
class Purpose:
    """What a model tells apart, and by which lesion maps.

    ``levels`` are the names of the positive and of the negative group, ``threshold`` and ``lesion_map`` those of the
    maps it was trained on and must be used with, and ``norm`` what these were measured against where that is of its own
    cohort. With a `BeliefLimit` the maps hold belief above it, and ``lesion_map`` is `BELIEF`.
    """

    levels: tuple[str, str]
    threshold: Threshold
    lesion_map: str
    norm: CohortNorm | BeliefLimit | None = None
