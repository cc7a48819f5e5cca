"""The lesion maps of one scan, and the norm that one of them is measured against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bids_app.records.need import need
from bids_app.records.scan import Anatomy, Check, Volume


@dataclass(frozen=True)
class Norm:
    """What belief is normal at each place of the template: median and 1.4826 MAD over people, on one grid.

    ``known`` (X, Y, Z) bool says where enough people were seen; elsewhere both maps hold 0.
    """

    centre: Volume
    spread: Volume
    known: np.ndarray

    def __post_init__(self) -> None:
        need(self.centre.data.shape == self.spread.data.shape == self.known.shape, "a norm's maps lie on one grid")


@dataclass(frozen=True)
class CohortNorm:
    """What belief is normal at each of the template's V brain voxels at 3 mm, by a cohort's own training scans.

    ``centre`` (V,) float32 is 0 where ``known`` (V,) bool says that too few were seen; ``people`` counts whom it is of.
    """

    centre: np.ndarray
    known: np.ndarray
    people: int

    def __post_init__(self) -> None:
        need(self.centre.ndim == 1 and self.centre.shape == self.known.shape, "a cohort's norm is over brain voxels")
        need(self.centre.dtype == np.float32 and self.known.dtype == bool, "a cohort's norm is float32 and bool")


@dataclass(frozen=True)
class BeliefLimit:
    """How far belief is normal at each of the template's V brain voxels at 3 mm: what is above it is looked at.

    ``limit`` (V,) float64 is of a cohort's own training scans; ``people`` counts whom it is of.
    """

    limit: np.ndarray
    people: int

    def __post_init__(self) -> None:
        need(self.limit.ndim == 1 and self.limit.dtype == np.float64, "a limit of belief is a float64 a brain voxel")


@dataclass(frozen=True)
class Given:
    """A lesion mask that somebody made: bool, where it lies, whether on the template, and who made it in words."""

    mask: Volume
    on_template: bool
    origin: str


@dataclass(frozen=True)
class LesionMap:
    """One map of lesions, bool, on the scan's grid (``native``) and on the template's at 3 mm (``mni``).

    ``lost`` counts the lesions that no voxel of ``mni`` is left of.
    """

    native: np.ndarray
    mni: np.ndarray
    lost: int


@dataclass(frozen=True)
class Lesions:
    """The lesion maps of one scan by name, and what follows.

    ``threshold`` is that of the published map; ``maps`` holds ``published``, ``cleaned``, ``normative``, ``network``
    and, where somebody gave one, ``external``. ``soft`` and ``soft_mni`` (float32) are the probabilities that the
    network's map is cut out of, on both grids. ``origin`` says who made the external map.
    """

    threshold: float
    maps: Mapping[str, LesionMap]
    soft: np.ndarray
    soft_mni: np.ndarray
    check: Check
    warnings: tuple[str, ...]
    measures: dict[str, float]
    origin: str = ""


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
