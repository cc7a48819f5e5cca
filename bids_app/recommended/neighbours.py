"""Which training scans a scan is like: distances between coarse sketches of smoothed, folded lesion maps.

A sketch is the square root of the map smoothed at 20 mm and folded, at every third voxel along each axis: at that
width nothing lies between. Its distance is Hellinger's, up to a constant.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bids_app.errors import BadInputError
from bids_app.recommended.features import project, projection
from bids_app.records.recommended import Kind, Neighbour

KIND, EVERY = Kind(20.0, True), 3
CHUNK = 64


def sketch(maps: np.ndarray, mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the sketches (n, S) float32 of lesion maps (n, V)."""
    of = projection(mask, affine, KIND)
    kept = np.zeros(of.inside.shape, bool)
    kept[1::EVERY, 1::EVERY, 1::EVERY] = True
    parts = [np.sqrt(project(of, maps[k : k + CHUNK])[:, kept[of.inside]]) for k in range(0, len(maps), CHUNK)]
    return np.concatenate(parts) if parts else np.zeros((0, int((kept & of.inside).sum())), np.float32)


def distances(sketches: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the distances (n, m) of sketches (n, S) to others (m, S)."""
    a, b = sketches.astype(float), others.astype(float)
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    found: np.ndarray = np.sqrt(np.maximum(squared, 0))
    return found


def farthest(sketches: np.ndarray, person: np.ndarray) -> float:
    """Return the largest distance of a training scan to the nearest scan of another participant.

    Parameters
    ----------
    sketches : ndarray, shape (N, S)
    person : ndarray, shape (N,)
        Participant of each scan.

    Raises
    ------
    BadInputError
        There is one participant only.
    """
    if len(np.unique(person)) < 2:
        raise BadInputError("one participant has no neighbours", "recommended", "train on more participants")
    most = 0.0
    for start in range(0, len(sketches), CHUNK):
        rows = slice(start, start + CHUNK)
        apart = np.where(person[rows, None] == person, np.inf, distances(sketches[rows], sketches))
        most = max(most, float(apart.min(axis=1).max()))
    return most


def nearest(
    own: np.ndarray, sketches: np.ndarray, positive: np.ndarray, names: Sequence[str], count: int = 3
) -> dict[bool, tuple[Neighbour, ...]]:
    """Return the nearest training scans of either group (True: positive) to a sketch (S,), nearest first."""
    apart = distances(own[None], sketches)[0]
    found = {}
    for group in (True, False):
        rows = np.flatnonzero(positive == group)
        best = rows[np.argsort(apart[rows], kind="stable")[:count]]
        found[group] = tuple(Neighbour(names[k], float(apart[k])) for k in best)
    return found
