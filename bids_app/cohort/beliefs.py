"""Normalised belief maps of finished scans as rows of the template's brain voxels, and lesions over their own norm."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bids_app.bids.names import Scan
from bids_app.cohort.lesion_maps import on_template
from bids_app.cohort.remade import unpacked
from bids_app.errors import BadInputError, MissingInputError
from bids_app.image.atlas import brain_grid
from bids_app.lesions import cohort_norm
from bids_app.lesions.kinds import CUT
from bids_app.records.cohort import LesionMaps, Threshold
from bids_app.records.lesions import CohortNorm

log = logging.getLogger("bids_app")


def load(scans: Sequence[Scan], output_dir: Path) -> np.ndarray:
    """Return the normalised belief maps over the template's brain voxels at 3 mm, float32 (N, V).

    Raises
    ------
    MissingInputError, BadInputError
        A scan has none; another grid; undefined numbers.
    """
    inside = brain_grid(3).data
    found = np.empty((len(scans), int(inside.sum())), np.float32)
    for row, scan in enumerate(scans):
        path = output_dir / scan.output("belief_mni")
        if not path.exists():
            raise MissingInputError("no normalised belief map", path, "run the participant level for this scan")
        found[row] = on_template(path)[inside]
        if not np.isfinite(found[row]).all():
            raise BadInputError("holds undefined numbers", path, "run the participant level again for this scan")
    return found


def over_norm(beliefs: np.ndarray, norm: CohortNorm) -> np.ndarray:
    """Return the normative lesion maps, bool (N, V), of belief maps (N, V) against a cohort's norm."""
    return np.stack([cohort_norm.lesions(each, norm) for each in beliefs])


def by_norm(beliefs: np.ndarray, participants: np.ndarray) -> Callable[[np.ndarray], LesionMaps]:
    """Return the function from training rows to all normative lesion maps against these rows' norm.

    Like a threshold, the norm is estimated from the training rows alone. Maps of the same rows are made once.

    Parameters
    ----------
    beliefs : ndarray of float32, shape (N, V)
    participants : ndarray, shape (N,)

    Raises
    ------
    BadInputError
        The function: the rows are of too few participants.
    """
    kept: dict[bytes, tuple[np.ndarray, CohortNorm]] = {}  # packed

    def of_training(rows: np.ndarray) -> LesionMaps:
        key = np.asarray(rows, np.int64).tobytes()
        if key not in kept:
            norm = cohort_norm.estimate(beliefs[rows], participants[rows])
            log.info("norm of %d training scans of %d participants", len(rows), norm.people)
            kept[key] = np.packbits(over_norm(beliefs, norm), axis=1), norm
        bits, norm = kept[key]
        return LesionMaps(np.stack([unpacked(row) for row in bits]), Threshold(CUT["normative"], "given"), norm)

    return of_training
