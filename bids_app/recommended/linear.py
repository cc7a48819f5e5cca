"""A linear model on lesion maps, and what each lesion voxel adds to its decision.

    decision(m) = sum_k w_k . sqrt(A_k m) + volume log(1 + sum m) + intercept

As A is linear, ``w . sqrt(A m) = sum_h w_h (A m)_h / sqrt((A m)_h)``: the part of voxel j is
``m_j (A' (w / sqrt(A m)))_j``. So a decision is divided among the lesions themselves, on the side they are on and
without rest: the parts, the volume's and the intercept sum to it.
"""

from __future__ import annotations

import numpy as np

from bids_app.recommended.features import log_volume, project, project_back, projection
from bids_app.records.recommended import Kind, LinearModel


def of_voxels(weights: np.ndarray, intercept: float) -> LinearModel:
    """Return ``weights . m + intercept`` of masks m, weights (V,): of 0 and 1 the square root is themselves.

    Examples
    --------
    >>> model = of_voxels(np.array([2.0, -3.0]), 0.5)
    >>> decisions(model, np.array([[True, False], [True, True]]), np.ones((2, 1, 1), bool), np.eye(4)).tolist()
    [2.5, -0.5]
    """
    return LinearModel((Kind(0.0, False),), (weights,), 0.0, intercept, ())


def decisions(model: LinearModel, maps: np.ndarray, mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return decision values (n,) of lesion maps (n, V), positive group if >= 0, in double precision.

    Scan by scan: in a product of matrices a scan's last bit depends on the scans beside it.
    """
    plans = [projection(mask, affine, kind) for kind in model.kinds]
    values = model.volume * log_volume(maps) + model.intercept
    for row, scan in enumerate(maps):
        for plan, weights in zip(plans, model.weights, strict=True):
            values[row] += float(np.sqrt(project(plan, scan[None], np.float64))[0] @ weights)
    return values


def contributions(model: LinearModel, lesions: np.ndarray, mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return what each voxel (V,) of one lesion map (V,) adds to its decision; 0 where there is no lesion.

    With ``volume_part`` and the intercept they sum to the decision value.
    """
    parts = np.zeros(lesions.shape)
    for kind, weights in zip(model.kinds, model.weights, strict=True):
        plan = projection(mask, affine, kind)
        root = np.sqrt(project(plan, lesions[None], np.float64))
        parts += project_back(plan, np.divide(weights, root, out=np.zeros_like(root), where=root > 0))[0]
    return np.where(lesions > 0, parts * lesions, 0.0)


def weight_map(model: LinearModel, mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the weights of all kinds at the voxels, (V,), ``sum A' w``: which way a lesion there pulls."""
    plans = [projection(mask, affine, kind) for kind in model.kinds]
    total = np.zeros(int(mask.sum()))
    for plan, weights in zip(plans, model.weights, strict=True):
        total += project_back(plan, weights[None])[0]
    return total


def volume_part(model: LinearModel, lesions: np.ndarray) -> float:
    """Return what the log volume of one lesion map (V,) adds to its decision."""
    return float(model.volume * log_volume(lesions[None])[0])
