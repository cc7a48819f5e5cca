"""Inner products of scans and participants: all that the recommended recipe's training needs of the lesion maps.

They do not look at labels, so they are made once, however often labels, folds or seeds change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from bids_app.errors import BadInputError
from bids_app.recommended.features import lesion_free, log_volume, projection, roots
from bids_app.records.recommended import Kind

KINDS = tuple(Kind(fwhm, folded) for fwhm in (20.0, 14.0, 8.0, 0.0) for folded in (True, False))
KEEP = 2**28  # bytes of features that are kept rather than made twice
BLOCK = 2**28  # bytes of the participants' features that are in double precision at a time


class Arrays(Protocol):
    """Arrays by number: in memory, or read anew whenever one is asked for."""

    def __getitem__(self, number: int, /) -> np.ndarray:
        """Return one of them."""

    def __len__(self) -> int:
        """Return how many there are."""


class OfKind(NamedTuple):
    """Products of one kind of features: scans with participants (N, P) float32, participants (P, P) float."""

    scans: np.ndarray
    people: np.ndarray


Keep = Callable[[Iterator[OfKind]], tuple[Arrays, Arrays]]


def in_memory(made: Iterator[OfKind]) -> tuple[Arrays, Arrays]:
    """Keep the products of all kinds in memory: those of scans, and those of participants."""
    kept = tuple(made)
    return tuple(each.scans for each in kept), tuple(each.people for each in kept)


@dataclass(frozen=True)
class Products:
    """Inner products of N scans with the mean features of P participants, kind by kind, and log volumes.

    Attributes
    ----------
    kinds : tuple of Kind
    scans : Arrays
        For each kind float32 (N, P).
    people : Arrays
        For each kind float (P, P), of the participants' mean features with each other.
    volume, volume_people : ndarray of float, shapes (N,) and (P,)
        Log volume of each scan, and its mean over each participant's scans.
    person : ndarray of int, shape (N,)
        Number of each scan's participant, in alphabetical order.
    lesion_free : ndarray of bool, shape (N,)
    extra : ndarray of float, shape (N, D), optional
        Further features of the scans, such as covariates, in units of which D together have a variance of about 1.
    """

    kinds: tuple[Kind, ...]
    scans: Arrays
    people: Arrays
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
    keep: Keep = in_memory,
) -> Products:
    """Return all that training and deciding need of the lesion maps.

    They grow with N P for each kind, so a kind is made when ``keep`` asks for it: one that lays it elsewhere before
    it asks for the next never has more than one in memory.

    Parameters
    ----------
    maps : ndarray, shape (N, V)
        Lesion maps over the mask's voxels: bool, or shares from 0 to 1.
    participants : ndarray of str, shape (N,)
    mask : ndarray of bool, shape (X, Y, Z)
    affine : ndarray, shape (4, 4)
    kinds : sequence of Kind
    keep : callable
        From the kinds' products, made one after the other, to those of scans and of participants.

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
    scans, people = keep(_of_kind(maps, person, counts, mask, affine, kind) for kind in kinds)
    volume, free = log_volume(maps), lesion_free(maps)
    return Products(tuple(kinds), scans, people, volume, np.bincount(person, weights=volume) / counts, person, free)


def _of_kind(
    maps: np.ndarray, person: np.ndarray, counts: np.ndarray, mask: np.ndarray, affine: np.ndarray, kind: Kind
) -> OfKind:
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
    del kept  # what follows needs the means only
    return OfKind(scans, _among(means))


def _among(means: np.ndarray) -> np.ndarray:
    """Return the inner products (P, P) of features (P, F) in double precision, some features at a time."""
    some = max(BLOCK // (8 * len(means)), 1)
    found = np.zeros((len(means), len(means)))
    for start in range(0, means.shape[1], some):
        part = means[:, start : start + some].astype(np.float64)
        # the other factor has memory of its own: of one and the same, BLAS sums in another order
        found += part @ part.copy().T
    return found
