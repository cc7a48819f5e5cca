"""Inner products of scans and participants: all that the recommended recipe's training needs of the lesion maps.

They do not look at labels, so they are made once, however often labels, folds or seeds change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bids_app.errors import BadInputError
from bids_app.recommended.features import lesion_free, log_volume, projection, roots
from bids_app.records.recommended import Kind

KINDS = tuple(Kind(fwhm, folded) for fwhm in (20.0, 14.0, 8.0, 0.0) for folded in (True, False))
KEEP = 2**30  # bytes of features that are kept rather than made twice


@dataclass(frozen=True)
class Products:
    """Inner products of N scans with the mean features of P participants, kind by kind, and log volumes.

    Attributes
    ----------
    kinds : tuple of Kind
    scans : ndarray of float32, shape (n_kinds, N, P)
    people : ndarray of float, shape (n_kinds, P, P)
        Of the participants' mean features with each other.
    volume, volume_people : ndarray of float, shapes (N,) and (P,)
        Log volume of each scan, and its mean over each participant's scans.
    person : ndarray of int, shape (N,)
        Number of each scan's participant, in alphabetical order.
    lesion_free : ndarray of bool, shape (N,)
    extra : ndarray of float, shape (N, D), optional
        Further features of the scans, such as covariates, in units of which D together have a variance of about 1.
    """

    kinds: tuple[Kind, ...]
    scans: np.ndarray
    people: np.ndarray
    volume: np.ndarray
    volume_people: np.ndarray
    person: np.ndarray
    lesion_free: np.ndarray
    extra: np.ndarray | None = None

    @property
    def extra_people(self) -> np.ndarray | None:
        """Mean of ``extra`` over each participant's scans, (P, D)."""
        if self.extra is None:
            return None
        counts = np.bincount(self.person)
        return np.stack([np.bincount(self.person, weights=each) / counts for each in self.extra.T], axis=1)


def products(
    maps: np.ndarray,
    participants: np.ndarray,
    mask: np.ndarray,
    affine: np.ndarray,
    kinds: Sequence[Kind] = KINDS,
) -> Products:
    """Return all that training and deciding need of the lesion maps.

    Parameters
    ----------
    maps : ndarray, shape (N, V)
        Lesion maps over the mask's voxels: bool, or shares from 0 to 1.
    participants : ndarray of str, shape (N,)
    mask : ndarray of bool, shape (X, Y, Z)
    affine : ndarray, shape (4, 4)
    kinds : sequence of Kind

    Raises
    ------
    BadInputError
        Shapes do not fit, or a value is not finite or below 0.
    """
    if maps.ndim != 2 or maps.shape[1] != mask.sum() or len(maps) != len(participants):
        what = f"lesion maps of shape {maps.shape} fit neither {len(participants)} scans nor {mask.sum()} voxels"
        raise BadInputError(what, "recommended", "use maps on the template's grid")
    if maps.dtype != bool and not (np.isfinite(maps).all() and maps.min() >= 0):
        raise BadInputError("a lesion map has values below 0 or undefined ones", "recommended")
    person = np.unique(participants, return_inverse=True)[1]
    counts = np.bincount(person)
    made = [_of_kind(maps, person, counts, mask, affine, kind) for kind in kinds]
    volume = log_volume(maps)
    scans = np.stack([each[0] for each in made])
    people = np.stack([each[1] for each in made])
    free = lesion_free(maps)
    return Products(tuple(kinds), scans, people, volume, np.bincount(person, weights=volume) / counts, person, free)


def _of_kind(
    maps: np.ndarray, person: np.ndarray, counts: np.ndarray, mask: np.ndarray, affine: np.ndarray, kind: Kind
) -> tuple[np.ndarray, np.ndarray]:
    of = projection(mask, affine, kind)
    n_features = int(of.inside.sum())
    kept = list(roots(of, maps)) if len(maps) * n_features * 4 <= KEEP else None
    means = np.zeros((len(counts), n_features), np.float32)
    for rows, values in kept or roots(of, maps):
        here, index = np.unique(person[rows], return_inverse=True)
        share = np.zeros((len(here), len(values)), np.float32)
        share[index, np.arange(len(values))] = 1 / counts[person[rows]]
        means[here] += share @ values
    scans = np.empty((len(maps), len(counts)), np.float32)
    for rows, values in kept or roots(of, maps):
        scans[rows] = values @ means.T
    return scans, means.astype(np.float32) @ means.T.astype(np.float64)
