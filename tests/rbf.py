"""A trained model for the tests, without a sweep before it."""

from __future__ import annotations

import numpy as np

from bids_app.learning.classifier import model_of, squared_distances, train_svc
from bids_app.records.cohort import Model


def fit(
    lesions: np.ndarray, positive: np.ndarray, voxels: np.ndarray, C: float, gamma: float, tol: float = 1e-6
) -> Model:
    """Train on the columns ``voxels`` of the maps (N, V)."""
    chosen = lesions[:, voxels]
    kernel = np.exp(-gamma * squared_distances(chosen, chosen))
    return model_of(train_svc(kernel, positive, C, tol), lesions, np.asarray(voxels, np.int64), C, gamma)
