"""Every noun that flows between the rooms: frozen, shapes checked, no algorithm."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from bids_app.errors import BadInputError

if TYPE_CHECKING:
    import pandas as pd

    from bids_app.bids import Scan

SPACE = "MNI152NLin2009aSym"  # the template of nilearn's wheel


def _need(condition: bool, what: str) -> None:
    if not condition:
        raise BadInputError(what)


# -- group level ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cohort:
    """Scans with their lesion maps, labels and tables, row by row.

    Attributes
    ----------
    scans : tuple of str
        N names, such as ``sub-01_ses-1``; unique.
    participants : ndarray of str, shape (N,)
        Participant of each scan, such as ``sub-01``.
    positive : ndarray of bool, shape (N,)
        True for the positive group (RRMS), False for the negative (NMOSD).
    lesions : ndarray of bool, shape (N, V)
        Lesion maps, V voxels of the template's brain mask in C order.
    table : pandas.DataFrame, N rows
        Covariates (age, sex, ...), index = ``scans``.
    levels : tuple of str
        Names of the positive and of the negative group.
    """

    scans: tuple[str, ...]
    participants: np.ndarray
    positive: np.ndarray
    lesions: np.ndarray
    table: pd.DataFrame
    levels: tuple[str, str] = ("RRMS", "NMOSD")

    def __post_init__(self) -> None:
        n = len(self.scans)
        _need(len(set(self.scans)) == n, "scan names are not unique")
        _need(self.participants.shape == (n,), f"{n} scans need {n} participants")
        _need(self.positive.shape == (n,) and self.positive.dtype == bool, "labels must be N booleans")
        _need(self.lesions.ndim == 2 and len(self.lesions) == n, "lesion maps must be N x V")
        _need(self.lesions.dtype == bool, "lesion maps must be boolean")
        _need(len(self.table) == n, "the table must have one row a scan")

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
        _need(self.unit in ("scan", "participant"), f"unit of division is {self.unit!r}")
        _need(not np.intersect1d(self.train, self.test).size, "a scan is in both training and test set")


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
        _need(self.correct.shape == shape, f"correct has shape {self.correct.shape}, not {shape}")


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
        _need(self.support.shape == shape, f"support vectors have shape {self.support.shape}, not {shape}")


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
    extra: dict[str, Measure] = field(default_factory=dict)


# -- participant level ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Volume:
    """A 3D image: ``data`` of shape (X, Y, Z) and ``affine`` (4, 4), voxel to world (RAS+), mm."""

    data: np.ndarray
    affine: np.ndarray

    def __post_init__(self) -> None:
        _need(self.data.ndim == 3, f"a volume has 3 axes, this one {self.data.ndim}")
        _need(self.affine.shape == (4, 4), "an affine is 4 x 4")

    @property
    def spacing(self) -> np.ndarray:
        """Voxel size along each axis, mm, shape (3,)."""
        size: np.ndarray = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return size

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel, ml."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000)

    def like(self, data: np.ndarray) -> Volume:
        """Return other data (same shape) on this grid."""
        _need(data.shape == self.data.shape, f"shape {data.shape} is not the grid's {self.data.shape}")
        return Volume(data, self.affine)


@dataclass(frozen=True)
class Atlas:
    """Template maps in MNI152NLin2009aSym on one grid: tissue shares in [0, 1] and the synthetic FLAIR head."""

    head: Volume
    gm: Volume
    wm: Volume
    csf: Volume
    mask: Volume


@dataclass(frozen=True)
class Pose:
    """Where the head lies: ``scan_point = matrix @ template_point + translation``, world mm.

    ``similarity`` is the normalised correlation (-1 to 1) of scan and synthetic head at 8 mm, and
    ``turned`` says that the header's orientation was overruled.
    """

    matrix: np.ndarray
    translation: np.ndarray
    similarity: float
    turned: bool


@dataclass(frozen=True)
class Alignment:
    """A registration: composite transform files from scan to template and back, and where it started."""

    forward: str
    inverse: str
    pose: Pose


@dataclass(frozen=True)
class Priors:
    """Atlas maps on the scan's grid, each (X, Y, Z) in [0, 1]; ``head`` is the synthetic FLAIR in the brain."""

    head: np.ndarray
    gm: np.ndarray
    wm: np.ndarray
    csf: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Tissues:
    """Posterior probabilities (X, Y, Z) of GM, WM and CSF, their class means, and the brain mask."""

    gm: np.ndarray
    wm: np.ndarray
    csf: np.ndarray
    mask: np.ndarray
    means: dict[str, float]

    @cached_property
    def labels(self) -> np.ndarray:
        """The most probable tissue, uint8: 1 GM, 2 WM, 3 CSF (BIDS common labels), 0 outside the brain."""
        gray_or_white = 1 + (self.wm > self.gm).astype(np.uint8)
        best = np.where(self.csf > np.maximum(self.gm, self.wm), np.uint8(3), gray_or_white)
        best[~self.mask] = 0
        return best


@dataclass(frozen=True)
class Moments:
    """Count, sum and sum of squares of the belief over brain tissue: what pools exactly over scans."""

    count: int
    total: float
    squares: float

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float:
        """Mean of the pooled belief."""
        return self.total / self.count

    @property
    def sd(self) -> float:
        """Standard deviation (divisor count) of the pooled belief."""
        return float(np.sqrt(max(self.squares / self.count - self.mean**2, 0.0)))


@dataclass(frozen=True)
class Check:
    """One quality measure: its value, what is normal, and whether it is."""

    name: str
    value: float
    unit: str
    low: float
    high: float
    meaning: str

    @property
    def ok(self) -> bool:
        """True when the value lies in the normal range."""
        return bool(self.low <= self.value <= self.high)


@dataclass(frozen=True)
class Summary:
    """What is known of one finished scan: the content of its completion mark, and of its report section.

    Attributes
    ----------
    scan : str
        Name without suffix, such as ``sub-01_ses-1``.
    digest, anatomy_digest : str
        SHA-256 over input bytes, version and parameters (all; all but the threshold): equal digest, equal outputs.
    source : str
        Path of the FLAIR relative to the data set.
    checks : tuple of Check
    warnings : tuple of str
    measures : dict
        Numbers by name (``lesion_volume_ml``, ``lesion_count``, ``belief_sd``, ...).
    parameters : dict
        Every tunable by name.
    software : dict
        Versions by package name.
    seconds : dict
        Wall time by step.
    outputs : tuple of str
        Paths relative to the output directory.
    figures : dict
        Path relative to the output directory by key (``registration``, ``tissues``, ``belief``,
        ``lesions``, ``template``, ``histogram``).
    """

    scan: str
    digest: str
    anatomy_digest: str
    source: str
    checks: tuple[Check, ...]
    warnings: tuple[str, ...]
    measures: dict[str, float]
    parameters: dict[str, object]
    software: dict[str, str]
    seconds: dict[str, float]
    outputs: tuple[str, ...]
    figures: dict[str, str]


@dataclass(frozen=True)
class Failure:
    """A scan that could not be processed, and the one line that says why."""

    scan: str
    line: str


@dataclass(frozen=True)
class Anatomy:
    """What the chain finds in one scan before any threshold, on the scan's grid (X, Y, Z) and the template's at 3 mm.

    ``warped`` is the bias-corrected scan on the template's grid, None where it was read back from outputs, which
    do not hold it. ``seconds`` is wall time by step.
    """

    flair: Volume
    priors: Priors
    tissues: Tissues
    alignment: Alignment
    belief: Volume
    belief_mni: Volume
    warped: Volume | None
    gm_mean: float
    moments: Moments
    checks: tuple[Check, ...]
    warnings: tuple[str, ...]
    measures: dict[str, float]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Lesions:
    """What depends on the threshold: lesion maps on the scan's grid and on the template's, and what follows.

    ``native`` and ``mni`` are the published map, ``cleaned`` and ``cleaned_mni`` the one without what is rarely a
    lesion.
    """

    threshold: float
    native: np.ndarray
    cleaned: np.ndarray
    mni: np.ndarray
    cleaned_mni: np.ndarray
    check: Check
    warnings: tuple[str, ...]
    measures: dict[str, float]


@dataclass(frozen=True)
class Analysis:
    """Everything the chain finds in one scan."""

    anatomy: Anatomy
    lesions: Lesions

    @property
    def checks(self) -> tuple[Check, ...]:
        """All quality checks."""
        return (*self.anatomy.checks, self.lesions.check)

    @property
    def warnings(self) -> tuple[str, ...]:
        """All warnings, in the order in which they arose."""
        return (*self.anatomy.warnings, *self.lesions.warnings)

    @property
    def measures(self) -> dict[str, float]:
        """All measures by name."""
        return {**self.anatomy.measures, **self.lesions.measures}


@dataclass(frozen=True)
class Outcome:
    """How one scan ended: ``done``, ``unchanged`` (nothing to do) or ``failed`` with the line that says why."""

    scan: str
    participant: str
    status: str
    line: str
    seconds: float


# -- group level: results ------------------------------------------------------------------------


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


# -- group level: rims ---------------------------------------------------------------------------


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
        _need(self.participants.shape == (n,) and self.positive.shape == (n,), f"{n} scans need {n} labels")
        _need(len(self.table) == n, "the table must have one row a scan")


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
        _need(self.patterns.ndim == 2 and self.patterns.shape[1] == n, f"training patterns must be P x {n}")
        _need(self.patterns.dtype == bool, "training patterns must be boolean")


# -- made-up data --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Blob:
    """A made-up lesion: ``centre`` and ``direction`` (3,) in template mm, ``radius`` in mm, signal over GM's.

    ``elongation`` is the ratio of the axis along ``direction`` to the others, ``seed`` makes its ragged edge.
    """

    centre: np.ndarray
    direction: np.ndarray
    radius: float
    elongation: float
    signal: float
    seed: int


@dataclass(frozen=True)
class PhantomMap:
    """From scan to template: ``template_point = matrix @ (scan_point - centre) + waves(scan_point)``, world mm.

    Component i of the smooth warp is ``sum_j amplitude[j, i] prod_k cos(number[j, k] x_k + phase[j, k])``,
    the three arrays (J, 3), in mm, 1/mm and rad.
    """

    matrix: np.ndarray
    centre: np.ndarray
    amplitude: np.ndarray
    number: np.ndarray
    phase: np.ndarray


@dataclass(frozen=True)
class PhantomScan:
    """A made-up FLAIR with its truth: brain and lesion masks on its grid, lesions on the template's at 3 mm."""

    flair: Volume
    brain: np.ndarray
    lesion: np.ndarray
    lesion_mni: np.ndarray
