"""Decision values of lesion maps on the template by any model."""

from __future__ import annotations

from functools import cache

import numpy as np

from bids_app.image import atlas
from bids_app.learning import classifier
from bids_app.recommended import linear
from bids_app.records.cohort import Model
from bids_app.records.fitted import MapModel
from bids_app.records.trees import Trees
from bids_app.rivals import loads, trees


def decisions(model: Model | MapModel, lesions: np.ndarray) -> np.ndarray:
    """Return decision values (n,), positive group if >= 0, of lesion maps (n, V) on the template at 3 mm."""
    if isinstance(model, Model):
        return classifier.decide(model, lesions)
    if isinstance(model, Trees):
        return trees.decisions(model, regional_loads(lesions)[:-1])
    grid = atlas.brain_grid(3)
    return linear.decisions(model, lesions, grid.data, grid.affine)


def regional_loads(lesions: np.ndarray) -> np.ndarray:
    """Return features of trees (n + 1, R + 1) of lesion maps (n, V) on the template at 3 mm, as `loads.loads`."""
    return loads.loads(lesions, regions())


@cache
def regions() -> dict[str, np.ndarray]:
    """Return the regions of the template at 3 mm, (V,) bool each, whose loads are features of trees."""
    grid, maps = atlas.brain_grid(3), atlas.load()
    gm, wm = (atlas.at_3mm(volume.data, grid.data.shape) for volume in (maps.gm, maps.wm))
    return loads.regions(grid.data, grid.affine, gm, wm)
