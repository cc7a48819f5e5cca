"""Nested cross-validation in one loop: what the tasks of the group level must come to, wherever they run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bids_app.learning.protocols import MapsFor, OuterPart, Plan, assemble, decide_fold
from bids_app.records.cohort import Fold
from bids_app.records.results import Nested


def nested(
    maps_for: MapsFor, positive: np.ndarray, participants: np.ndarray, outer: Sequence[Fold], plan: Plan
) -> Nested:
    """Test every scan once, out of fold: the whole leakage-free selection inside each outer training part."""
    found = []
    for fold in outer:
        part = OuterPart.of(maps_for(fold.train).lesions, fold)
        found.append(decide_fold(part, positive[fold.train], participants[fold.train], plan))
    return assemble(found, positive, participants, outer, plan)
