"""Recipes trained on the whole cohort: the recommended one with its contest, and its rivals that leave a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bids_app.records.further import Further
from bids_app.records.machines import Convolutional, Radial
from bids_app.records.recommended import Calibration, Contest, LinearModel, Permutation, Purpose, Seen
from bids_app.records.trees import Trees

MapModel = LinearModel | Trees | Radial | Convolutional  # what decides by a map, and is calibrated


@dataclass(frozen=True)
class Fitted:
    """A recipe trained on the whole cohort; ``purpose`` names the maps it saw."""

    purpose: Purpose
    model: MapModel
    calibration: Calibration
    seen: Seen


@dataclass(frozen=True)
class Kept(Fitted):
    """A rival of the recommended recipe whose model is stored, and what was ``chosen`` within its inner folds."""

    chosen: object


@dataclass(frozen=True)
class Recommended(Fitted):
    """The recommended recipe trained on the whole cohort, and how it did out of fold.

    ``contest`` is None where no nested cross-validation was asked for, and ``permutation`` where no permutations were;
    ``further`` holds what was asked for beside it, ``kept`` the rivals of the contest that have a model, by name.
    """

    model: LinearModel
    thresholds: dict[str, float]
    contest: Contest | None = None
    permutation: Permutation | None = None
    further: Further = field(default_factory=Further)
    kept: Mapping[str, Kept] = field(default_factory=dict)
