"""Decision values of maps on the template by any model, and what stands beside them."""

from __future__ import annotations

from functools import cache

import numpy as np

from bids_app.image import atlas
from bids_app.learning import classifier
from bids_app.recommended import linear
from bids_app.records.cohort import Model
from bids_app.records.fitted import MapModel
from bids_app.records.machines import ALONE, Beside, Convolutional, Radial
from bids_app.records.need import need
from bids_app.records.recommended import LinearModel
from bids_app.records.trees import Trees
from bids_app.rivals import belief, convolution, loads, trees
from bids_app.rivals.volumes import Maps, Scale, away


def decisions(model: Model | MapModel, maps: np.ndarray, beside: Beside = ALONE) -> np.ndarray:
    """Return decision values (n,), positive group if >= 0.

    Parameters
    ----------
    model : Model or MapModel
    maps : ndarray, shape (n, V)
        On the template at 3 mm: lesion maps, or belief above its limit where the model is for that.
    beside : Beside
        What else the model looks at (`looks_at_belief`, `covariates_of`).
    """
    grid = atlas.brain_grid(3)
    if isinstance(model, Model):
        return classifier.decide(model, maps)
    if isinstance(model, Trees):
        return trees.decisions(model, regional_loads(maps)[:-1])
    if isinstance(model, Radial):
        return belief.decide(model, maps)
    if isinstance(model, Convolutional):
        need(not model.sees_belief or beside.belief is not None, "the network needs belief maps")
        return convolution.decide(model, Maps(grid.data, maps, beside.belief if model.sees_belief else None))
    values = linear.decisions(model, maps, grid.data, grid.affine)
    for row in range(len(maps)) if model.covariates else ():
        values[row] += sum(covariate_parts(model, beside.of(row)).values())
    return values


def looks_at_belief(model: Model | MapModel) -> bool:
    """Return whether a model looks at belief maps beside the maps that it is for."""
    return isinstance(model, Convolutional) and model.sees_belief


def unlike(model: Model | MapModel, maps: np.ndarray, beside: Beside) -> np.ndarray:
    """Return which scans have a belief beside the maps that is farther from the mean than any training scan's, (n,)."""
    if not isinstance(model, Convolutional) or not model.sees_belief:
        return np.zeros(len(maps), bool)
    seen = Maps(atlas.brain_grid(3).data, maps, beside.belief)
    return away(seen, Scale(model.mean, model.sd)) > model.farthest + 1e-6  # single precision


def covariates_of(model: Model | MapModel) -> tuple[str, ...]:
    """Return the covariates that a model looks at."""
    return tuple(each.name for each in model.covariates) if isinstance(model, LinearModel) else ()


def covariate_parts(model: LinearModel, beside: Beside) -> dict[str, float]:
    """Return what each covariate of one scan adds to its decision, by name and cell in words."""
    if not model.covariates:
        return {}
    need(beside.covariates is not None, "the model needs covariates")
    (cells,) = beside.covariates or ({},)
    return {
        f"{each.name} {cells.get(each.name) or 'unknown'}": each.part(cells.get(each.name)) for each in model.covariates
    }


def regional_loads(lesions: np.ndarray) -> np.ndarray:
    """Return features of trees (n + 1, R + 1) of lesion maps (n, V) on the template at 3 mm, as `loads.loads`."""
    return loads.loads(lesions, regions())


@cache
def regions() -> dict[str, np.ndarray]:
    """Return the regions of the template at 3 mm, (V,) bool each, whose loads are features of trees."""
    grid, maps = atlas.brain_grid(3), atlas.load()
    gm, wm = (atlas.at_3mm(volume.data, grid.data.shape) for volume in (maps.gm, maps.wm))
    return loads.regions(grid.data, grid.affine, gm, wm)
