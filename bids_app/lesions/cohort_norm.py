"""The norm of a cohort's own training scans on the template at 3 mm, and the normative lesion maps that follow from it.

The norm is the median of people's belief at each place, everybody once (the mean of a person's scans) and once
mirrored. What most of a cohort has on both sides the median takes for normal; so it may not lie far over the norm in
the package, which other people made (`bounded`).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from bids_app.errors import BadInputError
from bids_app.image import atlas, lesion
from bids_app.image.geometry import points, sample
from bids_app.lesions import normative
from bids_app.records.lesions import CohortNorm
from bids_app.records.scan import Priors

LEAST_PEOPLE = 7  # as many the first norm was made of; fewer are too few for a median at every place
MOST_OVER = normative.SEED - normative.GROW  # what reaches the seed over the norm in the package is kept as lesion
CHUNK = 4096  # voxels at a time


class Places(NamedTuple):
    """What is known of the template's brain voxels at 3 mm.

    ``priors`` and ``possible`` (X, Y, Z) are the atlas maps, and where a lesion may be; over the V brain voxels,
    ``white`` (bool) is white matter for sure, ``centre`` and ``bound`` are those of the norm in the package, and
    ``known`` says where it has any.
    """

    priors: Priors
    possible: np.ndarray
    white: np.ndarray
    centre: np.ndarray
    bound: np.ndarray
    known: np.ndarray


@cache
def places() -> Places:
    """Return what is known of the template, made once a process."""
    grid, maps, norm = atlas.brain_grid(3), atlas.load(), normative.shipped()
    inside, shape = grid.data, grid.data.shape
    gm, wm, csf = (atlas.at_3mm(each.data, shape) for each in (maps.gm, maps.wm, maps.csf))
    priors = Priors(np.zeros_like(wm), gm, wm, csf, inside.astype(np.float32))
    where = points(grid)[inside.ravel()]
    centre, spread, known = (
        sample(each, where).astype(np.float32)
        for each in (norm.centre, norm.spread, norm.centre.like(norm.known.astype(np.float32)))
    )
    # One SD of single people: the centre of many lies within that, whatever the scanner. Never more than MOST_OVER.
    bound = np.clip(spread, normative.LEAST_SPREAD, MOST_OVER)
    possible = lesion.possible(grid, priors, inside)
    return Places(priors, possible, wm[inside] > normative.WHITE, centre, bound, known > 0.999)


def estimate(beliefs: np.ndarray, participants: np.ndarray) -> CohortNorm:
    """Return the norm of these scans.

    Parameters
    ----------
    beliefs : ndarray of float32, shape (N, V)
        Normalised belief maps over the template's brain voxels at 3 mm; 0 where a scan does not reach.
    participants : ndarray, shape (N,)
        A participant counts once, as the mean of the scans.

    Raises
    ------
    BadInputError
        There are fewer than 7 participants.
    """
    names, person = np.unique(participants, return_inverse=True)
    if len(names) < LEAST_PEOPLE:
        what = f"{len(names)} participants are too few for a norm of their own, {LEAST_PEOPLE} are needed"
        raise BadInputError(what, "--norm cohort", "use --norm shipped, or fewer folds")
    grid = atlas.brain_grid(3)
    both = np.empty((2, len(names), beliefs.shape[1]), np.float32)
    for k in range(len(names)):
        both[0, k] = mean = _mean(beliefs[person == k])
        both[1, k] = normative.mirrored(atlas.on_grid(mean, np.nan).data, grid)[grid.data]
    values = both.reshape(-1, beliefs.shape[1])
    centre, seen = np.empty(values.shape[1], np.float32), np.empty(values.shape[1])
    for start in range(0, values.shape[1], CHUNK):
        part = slice(start, start + CHUNK)
        centre[part], seen[part] = _median(values[:, part])
    known = (seen >= normative.LEAST_SHARE * len(values)) & places().known
    return CohortNorm(bounded(np.where(known, centre, 0).astype(np.float32), known), known, len(names))


def _mean(beliefs: np.ndarray) -> np.ndarray:
    """Return the mean (V,) of a person's scans where they reach, nan where none does."""
    count = (beliefs != 0).sum(axis=0)
    total = beliefs.sum(axis=0, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _median(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the median of every column of (n, v) without its nan, nan where there is nothing else; and the counts."""
    ordered, count = np.sort(values, axis=0), np.count_nonzero(~np.isnan(values), axis=0)
    low, high = (np.clip(index, 0, len(values) - 1)[None] for index in ((count - 1) // 2, count // 2))
    low, high = (np.take_along_axis(ordered, index, axis=0)[0] for index in (low, high))
    return (low + high) / 2, count


def bounded(centre: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return a cohort's centre (V,), nowhere farther over the norm in the package than its bound allows.

    Both are compared as a scan is: after the median offset of white matter, so that a scanner's contrast is no lesion.
    The bound is one SD of single people at the place (`Norm.spread`, at least 0.03, at most seed - grow = 0.15): that
    is farther than the median of many healthy places lies by chance, and what reaches the seed over the norm in the
    package is still over the bound by what makes a voxel lesion.
    """
    of = places()
    over = normative.difference(centre, of.centre, known & of.white) - of.bound
    found: np.ndarray = np.where(known, centre - np.maximum(over, 0), 0).astype(np.float32)
    return found


def lesions(belief: np.ndarray, norm: CohortNorm) -> np.ndarray:
    """Return the normative lesion map of a scan on the template, bool (V,), from its normalised belief map (V,).

    The rules are those of `normative.lesions`, on the template's grid: the outermost voxel of the brain and deep fluid
    are left out, and components with little white matter or without a seed.
    """
    of, grid = places(), atlas.brain_grid(3)
    inside = norm.known & (belief != 0)
    over = np.where(inside, normative.difference(belief, norm.centre, inside & of.white), 0)
    far = atlas.on_grid(over).data
    found = lesion.whole((far > normative.GROW) & of.possible, grid.voxel_ml, of.priors.wm)
    kept: np.ndarray = normative.with_seed(found, normative.seeds(far, atlas.on_grid(belief).data))[grid.data]
    return kept
