"""The participant level: what is found in one scan."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bids_app.bids.names import Scan
from bids_app.records.need import need


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
    """Template maps in MNI152NLin2009aSym on one grid: tissue shares in [0, 1] and the synthetic FLAIR of the brain."""

    flair: Volume
    gm: Volume
    wm: Volume
    csf: Volume
    mask: Volume


@dataclass(frozen=True)
class Pose:
    """Where the brain lies: ``scan_point = matrix @ template_point + translation``, world mm.

    ``similarity`` is the normalised correlation (-1 to 1) of the scan's brain and the synthetic one at 5 mm, and
    ``turned`` says that the head does not lie as the header says.
    """

    matrix: np.ndarray
    translation: np.ndarray
    similarity: float
    turned: bool


@dataclass(frozen=True)
class Posed:
    """A scan whose brain is found: its mask (X, Y, Z) bool, the bias-corrected FLAIR, and the brain's pose.

    ``brain`` is what is registered (`registration.brain_only`), ``confidence`` the network's in the mask, in [0, 1].
    """

    mask: np.ndarray
    flair: Volume
    brain: Volume
    pose: Pose
    confidence: float


@dataclass(frozen=True)
class Alignment:
    """A registration: composite transform files from scan to template and back, and where it started."""

    forward: str
    inverse: str
    pose: Pose


@dataclass(frozen=True)
class Priors:
    """Atlas maps on the scan's grid, each (X, Y, Z) in [0, 1]; ``flair`` is the synthetic FLAIR of the brain."""

    flair: np.ndarray
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
class Fit:
    """A scan whose brain is registered to the template: what was found, and how well the two agree.

    ``agreement`` is the correlation of scan and synthetic FLAIR in the brain, ``overlap`` the Dice coefficient of the
    scan's brain mask and the template's brain carried to the scan, ``confidence`` the network's in the mask.
    """

    flair: Volume
    alignment: Alignment
    priors: Priors
    tissues: Tissues
    agreement: float
    overlap: float
    confidence: float

    @property
    def brain_volume_ml(self) -> float:
        """Volume of the brain with its fluid, ml."""
        return float(self.tissues.mask.sum()) * self.flair.voxel_ml


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
class Origin:
    """What a scan's outputs come from.

    Attributes
    ----------
    source : str
        Path of the FLAIR relative to the data set.
    digest, anatomy_digest : str
        SHA-256 over input bytes, versions and parameters (all; all but the threshold): equal digest, equal outputs.
    parameters : dict
        Every tunable by name.
    software : dict
        Versions by package name.
    seconds : dict
        Wall time by step.
    """

    source: str
    digest: str
    anatomy_digest: str
    parameters: dict[str, object]
    software: dict[str, str]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Summary:
    """What is known of one finished scan: the content of its completion mark, and of its report section.

    Attributes
    ----------
    scan : Scan
    origin : Origin
    checks : tuple of Check
    warnings, lesion_warnings : tuple of str
        Those that no threshold changes, and those of the lesion maps.
    measures : dict
        Numbers by name (``lesion_volume_ml``, ``lesion_count``, ``belief_sd``, ...).
    outputs : tuple of str
        Paths relative to the output directory.
    figures : dict
        Path relative to the output directory by key (``registration``, ``tissues``, ``belief``,
        ``lesions``, ``template``, ``histogram``).
    """

    scan: Scan
    origin: Origin
    checks: tuple[Check, ...]
    warnings: tuple[str, ...]
    measures: dict[str, float]
    outputs: tuple[str, ...]
    figures: dict[str, str]
    lesion_warnings: tuple[str, ...] = ()  # marks of earlier versions hold all in ``warnings``


@dataclass(frozen=True)
class Failure:
    """A scan that could not be processed, and the one line that says why."""

    scan: Scan
    line: str


@dataclass(frozen=True)
class Belief:
    """The gray matter belief map on the scan's grid and on the template's at 3 mm, and what it is relative to.

    ``gm_mean`` is the FLAIR intensity of gray matter, ``moments`` are those of the belief over brain tissue.
    """

    native: Volume
    mni: Volume
    gm_mean: float
    moments: Moments


@dataclass(frozen=True)
class Anatomy:
    """What the chain finds in one scan before any threshold, on the scan's grid (X, Y, Z) and the template's at 3 mm.

    ``warped`` is the bias-corrected scan on the template's grid, None where it was read back from outputs, which
    do not hold it.
    """

    fit: Fit
    belief: Belief
    warped: Volume | None
    checks: tuple[Check, ...]
    warnings: tuple[str, ...]
    measures: dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """How one scan ended: ``done``, ``unchanged`` (nothing to do) or ``failed`` with the line that says why.

    ``summary`` is what is known of it where it did not fail.
    """

    scan: Scan
    status: str
    line: str
    seconds: float
    summary: Summary | None = None
