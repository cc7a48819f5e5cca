"""Why a scan was called so: what its lesions add to the decision, by place, or lesion by lesion where no sum exists."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import ndimage

from bids_app.image import atlas
from bids_app.image.lesion import NEIGHBOURS
from bids_app.lesions.places import DEFINITIONS, halves, places
from bids_app.model.deciding import covariate_parts, decisions
from bids_app.recommended import linear
from bids_app.records.cohort import Model
from bids_app.records.fitted import MapModel
from bids_app.records.machines import ALONE, Beside, Convolutional, Radial
from bids_app.records.reasons import LeftOut, LesionPart, Reasons
from bids_app.records.recommended import LinearModel

__all__ = ["DEFINITIONS", "explain", "leave_out", "lesion_words", "template_places", "told", "why", "words"]

MOST = 4  # places, or lesions, that are told
LEAST = 0.005  # part of a decision that is worth telling
SOME = 64  # maps without one lesion, decided at a time


@cache
def template_places() -> dict[str, np.ndarray]:
    """Return the named places of the template at 3 mm, (V,) bool each."""
    grid, maps = atlas.brain_grid(3), atlas.load()
    gm, wm = (atlas.at_3mm(volume.data, grid.data.shape) for volume in (maps.gm, maps.wm))
    return places(grid.data, grid.affine, gm, wm)


def explain(model: LinearModel, lesions: np.ndarray, beside: Beside = ALONE) -> Reasons:
    """Return the parts of one scan's decision, from its map (V,) on the template at 3 mm and what stands beside it."""
    grid = atlas.brain_grid(3)
    parts = linear.contributions(model, lesions, grid.data, grid.affine)
    by_place = {
        f"{name}, {side}": float(parts[where & half].sum())
        for name, where in template_places().items()
        for side, half in halves(grid.data, grid.affine).items()
    }
    volume, covariates = linear.volume_part(model, lesions), covariate_parts(model, beside)
    return Reasons(parts, by_place, volume, model.intercept, covariates)


def why(model: Model | MapModel, lesions: np.ndarray, beside: Beside = ALONE) -> Reasons | LeftOut:
    """Return why one scan is called so, from its map (V,): parts of a sum where the model is one."""
    return explain(model, lesions, beside) if isinstance(model, LinearModel) else leave_out(model, lesions, beside)


def told(found: Reasons | LeftOut) -> str:
    """Return the reasons of a decision in words."""
    return words(found) if isinstance(found, Reasons) else lesion_words(found)


def words(reasons: Reasons) -> str:
    """Return the largest parts of a decision in words, and the rest, so that they sum to the decision.

    Examples
    --------
    >>> words(Reasons(np.zeros(1), {"brainstem, left": -0.5, "corpus callosum, right": 0.25}, 0.1, -0.2))
    'brainstem, left -0.50; corpus callosum, right +0.25; lesion volume +0.10; without lesions -0.20'
    """
    ranked = sorted(reasons.places.items(), key=lambda item: -abs(item[1]))
    told = [(name, value) for name, value in ranked[:MOST] if abs(value) >= LEAST]
    rest = sum(reasons.places.values()) - sum(value for _, value in told)
    told += [("elsewhere", rest)] if abs(rest) >= LEAST else []
    told += [*reasons.covariates.items(), ("lesion volume", reasons.volume), ("without lesions", reasons.intercept)]
    return "; ".join(f"{name} {value:+.2f}" for name, value in told)


# -- lesion by lesion ----------------------------------------------------------------------------


def leave_out(model: Model | MapModel, lesions: np.ndarray, beside: Beside = ALONE) -> LeftOut:
    """Return how the decision of a model that is no sum changes when one lesion after the other is left out.

    A kernel mixes all voxels, a tree its features and a network both, so that no sum of parts exists. Lesions are
    components (26 neighbours); of a map of belief above its limit, of what is above it. Belief beside a lesion map is
    what it is in training, on average, where a lesion is left out.

    Parameters
    ----------
    model : Model or MapModel
    lesions : ndarray, shape (V,)
        Map on the template at 3 mm.
    beside : Beside
        Of this scan.
    """
    grid = atlas.brain_grid(3)
    found, count = ndimage.label(atlas.on_grid(lesions > 0).data, NEIGHBOURS)
    labels = found[grid.data]
    looked_at = labels[model.voxels] if isinstance(model, Model | Radial) else labels
    seen = np.setdiff1d(looked_at, 0)  # the model looks at no voxel of the others
    (value,) = decisions(model, lesions[None], beside)
    changes = np.zeros(count + 1)
    for start in range(0, len(seen), SOME):
        some = seen[start : start + SOME]
        left = labels == some[:, None]
        without = Beside(_normal(model, beside.belief, left) if isinstance(model, Convolutional) else None)
        changes[some] = value - decisions(model, np.where(left, np.zeros(1, lesions.dtype), lesions), without)
    ranked = sorted(_told(labels, changes), key=lambda each: (-abs(each.change), each.centre))
    kind = "bright place" if isinstance(model, Radial) else "lesion"
    return LeftOut(float(value), tuple(ranked), changes[labels], kind)


def _normal(model: Convolutional, belief: np.ndarray | None, where: np.ndarray) -> np.ndarray | None:
    """Return belief (n, V), of one scan (1, V), as it is on average where (n, V) bool says so."""
    return np.where(where, model.mean, belief) if model.sees_belief and belief is not None else None


def _told(labels: np.ndarray, changes: np.ndarray) -> list[LesionPart]:
    """Return every lesion with its place, from the number of each voxel's lesion (V,) and their changes (N + 1,)."""
    grid, (names, place) = atlas.brain_grid(3), _place_of()
    sizes = np.maximum(np.bincount(labels, minlength=len(changes)), 1)
    held = np.bincount(labels * len(names) + place, minlength=len(changes) * len(names)).reshape(-1, len(names))
    sums = [np.bincount(labels, weights=axis, minlength=len(changes)) for axis in np.argwhere(grid.data).T]
    centres = (np.stack(sums, axis=1) / sizes[:, None]) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return [
        LesionPart(names[held[k].argmax()], (x, y, z), float(sizes[k]) * grid.voxel_ml, float(changes[k]))
        for k, (x, y, z) in enumerate(centres.tolist())
        if k
    ]


@cache
def _place_of() -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names of places with their side, and which of them each voxel of the template is in, (V,)."""
    grid = atlas.brain_grid(3)
    masks = {
        f"{name}, {side}": where & half
        for name, where in template_places().items()
        for side, half in halves(grid.data, grid.affine).items()
    }
    return tuple(masks), np.argmax(np.stack(list(masks.values())), axis=0)


def lesion_words(found: LeftOut) -> str:
    """Return the lesions that change a decision most, in words.

    Examples
    --------
    >>> part = LesionPart("brainstem, left", (-3.0, -30.0, -21.0), 0.135, -0.25)
    >>> lesion_words(LeftOut(0.1, (part,), np.zeros(1)))
    'lesion in brainstem, left (0.14 ml) -0.25'
    >>> lesion_words(LeftOut(0.1, (), np.zeros(1)))
    'no lesion changes it'
    """
    moving = [each for each in found.lesions if abs(each.change) >= LEAST]
    told = [f"{found.kind} in {each.place} ({each.volume_ml:.2f} ml) {each.change:+.2f}" for each in moving[:MOST]]
    more = [f"{len(moving) - MOST} more"] if len(moving) > MOST else []
    return "; ".join([*told, *more]) or f"no {found.kind} changes it"
