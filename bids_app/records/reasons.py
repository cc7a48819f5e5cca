"""Why a scan was called so: parts of a decision that sum to it, or what each lesion changes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Reasons:
    """The parts of one scan's decision: they sum to it.

    Attributes
    ----------
    parts : ndarray of float, shape (V,)
        What each voxel of the template's brain adds; 0 where there is no lesion.
    places : dict of float
        Their sums over named places, left and right.
    volume, intercept : float
        What the log volume adds, and the decision of a scan without lesions.
    covariates : dict of float
        What each covariate adds, by its name and what it is of this scan.
    """

    parts: np.ndarray
    places: dict[str, float]
    volume: float
    intercept: float
    covariates: dict[str, float] = field(default_factory=dict)

    @property
    def decision(self) -> float:
        """The decision value."""
        return float(self.parts.sum()) + self.volume + self.intercept + sum(self.covariates.values())


@dataclass(frozen=True)
class LesionPart:
    """One lesion and what it does to a decision.

    Attributes
    ----------
    place : str
        Named place that holds most of it, with its side.
    centre : tuple of float
        Middle in mm of the template.
    volume_ml : float
    change : float
        Decision value of the scan minus that of the scan without this lesion.
    """

    place: str
    centre: tuple[float, float, float]
    volume_ml: float
    change: float


@dataclass(frozen=True)
class LeftOut:
    """One scan's decision and how it changes when a lesion is left out; the changes do not sum to it.

    Attributes
    ----------
    decision : float
    lesions : tuple of LesionPart
        The largest change first.
    parts : ndarray of float, shape (V,)
        At each voxel of the template's brain the change of the lesion that it belongs to; 0 elsewhere.
    kind : str
        What is called a lesion here: of models on belief it is a bright place.
    """

    decision: float
    lesions: tuple[LesionPart, ...]
    parts: np.ndarray
    kind: str = "lesion"
