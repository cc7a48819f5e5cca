"""The group level: scans with labels, what a classifier is made of, and how it did."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bids_app.records.lesions import CohortNorm
from bids_app.records.need import need

if TYPE_CHECKING:
    import pandas as pd

    from bids_app.bids.names import Scan


@dataclass(frozen=True)
class Threshold:
    """The lesion threshold and where it comes from (``training`` or ``given``); mean and SD of pooled belief."""

    value: float
    origin: str
    mean: float | None = None
    sd: float | None = None
    n_scans: int = 0


@dataclass(frozen=True)
class LesionMaps:
    """Lesion maps (N, V) of all scans of a cohort, bool, V voxels of the template's brain mask, at one threshold.

    ``norm`` is what they were measured against where that is the training scans' own.
    """

    lesions: np.ndarray
    threshold: Threshold
    norm: CohortNorm | None = None

    def __post_init__(self) -> None:
        need(self.lesions.ndim == 2 and self.lesions.dtype == bool, "lesion maps must be N x V booleans")


@dataclass(frozen=True)
class Cohort:
    """Scans with their lesion maps, labels and tables, row by row.

    Attributes
    ----------
    scans : tuple of Scan
        N scans with unique names.
    participants : ndarray of str, shape (N,)
        Participant of each scan, such as ``sub-01``.
    positive : ndarray of bool, shape (N,)
        True for the positive group (RRMS), False for the negative (NMOSD).
    lesions : ndarray of bool, shape (N, V)
        Lesion maps, V voxels of the template's brain mask in C order.
    table : pandas.DataFrame, N rows
        Covariates (age, sex, ...), index = names of the scans.
    levels : tuple of str
        Names of the positive and of the negative group.
    """

    scans: tuple[Scan, ...]
    participants: np.ndarray
    positive: np.ndarray
    lesions: np.ndarray
    table: pd.DataFrame
    levels: tuple[str, str] = ("RRMS", "NMOSD")

    def __post_init__(self) -> None:
        n = len(self.scans)
        need(len(set(self.names)) == n, "scan names are not unique")
        need(self.participants.shape == (n,), f"{n} scans need {n} participants")
        need(self.positive.shape == (n,) and self.positive.dtype == bool, "labels must be N booleans")
        need(self.lesions.ndim == 2 and len(self.lesions) == n, "lesion maps must be N x V")
        need(self.lesions.dtype == bool, "lesion maps must be boolean")
        need(len(self.table) == n, "the table must have one row a scan")

    @property
    def names(self) -> list[str]:
        """Names of the scans, such as ``sub-01_ses-1``."""
        return [scan.name for scan in self.scans]

    def take(self, rows: np.ndarray) -> Cohort:
        """Return the cohort of these rows (integers, in that order)."""
        rows = np.asarray(rows)
        return Cohort(
            tuple(self.scans[i] for i in rows),
            self.participants[rows],
            self.positive[rows],
            self.lesions[rows],
            self.table.iloc[rows],
            self.levels,
        )


@dataclass(frozen=True)
class Division:
    """Training and test rows of a cohort, and the unit (``scan`` or ``participant``) they were drawn by."""

    train: np.ndarray
    test: np.ndarray
    unit: str

    def __post_init__(self) -> None:
        need(self.unit in ("scan", "participant"), f"unit of division is {self.unit!r}")
        need(not np.intersect1d(self.train, self.test).size, "a scan is in both training and test set")


@dataclass(frozen=True)
class Fold:
    """Rows to train on and rows to validate on (integers into a training set)."""

    train: np.ndarray
    validate: np.ndarray


@dataclass(frozen=True)
class Ranking:
    """Voxels in order of the Pearson chi-square test of lesion x group.

    Attributes
    ----------
    order : ndarray of int, shape (V,)
        Voxel indices, most significant first; ties by voxel index.
    chi2 : ndarray of float, shape (V,)
        Statistic of each voxel (in voxel order, not ranked); 0 where never or always lesioned.
    sign : ndarray of int8, shape (V,)
        +1 where the positive group is more often lesioned, -1 where the negative one is, else 0.
    """

    order: np.ndarray
    chi2: np.ndarray
    sign: np.ndarray


@dataclass(frozen=True)
class Grid:
    """Values of the SVM's C and gamma, ascending."""

    C: tuple[float, ...]
    gamma: tuple[float, ...]


@dataclass(frozen=True)
class Cell:
    """One choice of the sweep: voxel count, C, gamma and its cross-validation accuracy."""

    n_voxels: int
    C: float
    gamma: float
    accuracy: float


@dataclass(frozen=True)
class SweepResult:
    """Cross-validation of every voxel count and (C, gamma).

    Attributes
    ----------
    counts : ndarray of int, shape (n_counts,)
    grid : Grid
    correct : ndarray of int, shape (n_counts, n_C, n_gamma, n_folds)
        Validation scans classified correctly.
    fold_sizes : ndarray of int, shape (n_folds,)
    """

    counts: np.ndarray
    grid: Grid
    correct: np.ndarray
    fold_sizes: np.ndarray

    def __post_init__(self) -> None:
        shape = (len(self.counts), len(self.grid.C), len(self.grid.gamma), len(self.fold_sizes))
        need(self.correct.shape == shape, f"correct has shape {self.correct.shape}, not {shape}")


@dataclass(frozen=True)
class Model:
    """A trained RBF support vector machine on chosen voxels.

    ``decision = sum_i dual_coef_i exp(-gamma |support_i - x|^2) + intercept``; positive group if >= 0.

    Attributes
    ----------
    voxels : ndarray of int, shape (n,)
        Indices into the brain mask's voxels, in ranked order.
    support : ndarray of bool, shape (m, n)
    dual_coef : ndarray of float, shape (m,)
    intercept : float
    C, gamma : float
    """

    voxels: np.ndarray
    support: np.ndarray
    dual_coef: np.ndarray
    intercept: float
    C: float
    gamma: float

    def __post_init__(self) -> None:
        shape = (len(self.dual_coef), len(self.voxels))
        need(self.support.shape == shape, f"support vectors have shape {self.support.shape}, not {shape}")


@dataclass(frozen=True)
class Measure:
    """A number with its 95 % interval (``nan`` where it is undefined), and how that was made."""

    value: float
    low: float
    high: float
    method: str


@dataclass(frozen=True)
class Performance:
    """How a classifier, or a rater, did on a set of scans.

    ``tp`` counts positive (RRMS) scans called positive, ``fn`` those called negative, ``tn`` and ``fp``
    likewise for the negative group (NMOSD). ``auc`` is None where there are no decision values.
    """

    tp: int
    fn: int
    tn: int
    fp: int
    sensitivity: Measure
    specificity: Measure
    accuracy: Measure
    auc: Measure | None = None


@dataclass(frozen=True)
class Labelled:
    """Scans with a label of one of the two groups, and by name what was left out.

    Attributes
    ----------
    scans : tuple of Scan
        N scans, by name.
    participants : ndarray of str, shape (N,)
    positive : ndarray of bool, shape (N,)
    table : pandas.DataFrame, N rows
        Covariates without the group column, index = names of the scans.
    left_out : tuple of (name, reason)
    warnings : tuple of str
    """

    scans: tuple[Scan, ...]
    participants: np.ndarray
    positive: np.ndarray
    table: pd.DataFrame
    left_out: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.scans)
        need(self.participants.shape == (n,) and self.positive.shape == (n,), f"{n} scans need {n} labels")
        need(len(self.table) == n, "the table must have one row a scan")

    def without(self, more: Iterable[tuple[str, str]]) -> Labelled:
        """Return the same with more that was left out, by name and reason."""
        return replace(self, left_out=(*self.left_out, *more))
