"""The participant level: what is found in one scan."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bids_app.records.need import need

SPACE = "MNI152NLin2009aSym"  # the template of nilearn's wheel


@dataclass(frozen=True)
class Volume:
    """A 3D image: ``data`` of shape (X, Y, Z) and ``affine`` (4, 4), voxel to world (RAS+), mm."""

    data: np.ndarray
    affine: np.ndarray

    def __post_init__(self) -> None:
        need(self.data.ndim == 3, f"a volume has 3 axes, this one {self.data.ndim}")
        need(self.affine.shape == (4, 4), "an affine is 4 x 4")

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
        need(data.shape == self.data.shape, f"shape {data.shape} is not the grid's {self.data.shape}")
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
