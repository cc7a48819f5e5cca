"""The classifier: a support vector machine with RBF kernel on chosen voxels, trained by LIBSVM.

    decision(x) = sum_i dual_coef_i exp(-gamma |support_i - x|^2) + intercept;  positive group if >= 0

LIBSVM (Chang and Lin, ACM TIST 2011), as scikit-learn wraps it, needs no random numbers as long as no
probabilities are asked for, so equal data give an equal model. A trained model is plain arrays, and its
decisions are plain numpy: nothing of scikit-learn has to be stored or loaded.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bids_app.errors import BadInputError
from bids_app.records.cohort import Model

CHUNK = 4096  # voxels or scans at a time, to bound the memory of products and kernels
ROWS = 256  # of a kernel, weighed at a time
CACHE_MB = 500  # kernel rows LIBSVM may keep


class SupportVectors(NamedTuple):
    """Rows of a training set that are support vectors (m,), their signed weights (m,), and the intercept."""

    rows: np.ndarray
    dual_coef: np.ndarray
    intercept: float

    def decide(self, kernel: np.ndarray) -> np.ndarray:
        """Return decision values (M,) from the kernel (M, N) between scans and the training set."""
        values = np.empty(len(kernel))
        for start in range(0, len(kernel), ROWS):
            values[start : start + ROWS] = _weighed(kernel[start : start + ROWS, self.rows], self.dual_coef)
        return values + self.intercept


def _weighed(kernel: np.ndarray, dual_coef: np.ndarray) -> np.ndarray:
    """Return the sum of every row of a kernel (M, m), weighed, each by itself and in the same order.

    In a product of matrices a scan's last bit depends on the scans beside it: equal scans, of which there are many on
    few voxels, would no longer tie, which moves the AUC.
    """
    sums: np.ndarray = (np.ascontiguousarray(kernel) * dual_coef).sum(axis=1)
    return sums


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the squared distances of binary rows, |a|^2 + |b|^2 - 2 a'b.

    Parameters
    ----------
    a, b : ndarray of bool, shapes (M, n) and (N, n)

    Returns
    -------
    ndarray of float64, shape (M, N)
        Whole numbers; exact, since single precision counts to 2^24 and a chunk has fewer voxels.

    Examples
    --------
    >>> squared_distances(np.array([[True, False]]), np.array([[True, False], [False, True]])).tolist()
    [[0.0, 2.0]]
    """
    shared = np.zeros((len(a), len(b)))
    for start in range(0, a.shape[1], CHUNK):
        part = slice(start, start + CHUNK)
        shared += a[:, part].astype(np.float32) @ b[:, part].astype(np.float32).T
    return np.count_nonzero(a, axis=1)[:, None] + np.count_nonzero(b, axis=1) - 2.0 * shared


def train_svc(kernel: np.ndarray, positive: np.ndarray, C: float, tol: float) -> SupportVectors:
    """Train LIBSVM on a kernel matrix (N, N) and labels (N,)."""
    from sklearn.svm import SVC  # late: predicting needs no scikit-learn

    svc = SVC(C=C, kernel="precomputed", tol=tol, cache_size=CACHE_MB).fit(kernel, positive)
    return SupportVectors(svc.support_.astype(np.int64), svc.dual_coef_[0], float(svc.intercept_[0]))


def model_of(trained: SupportVectors, lesions: np.ndarray, voxels: np.ndarray, C: float, gamma: float) -> Model:
    """Return the model of what was trained on ``voxels`` of the maps (N, V)."""
    support = lesions[np.ix_(trained.rows, voxels)]
    return Model(voxels, support, trained.dual_coef, trained.intercept, float(C), float(gamma))


def decide(model: Model, lesions: np.ndarray) -> np.ndarray:
    """Return the decision values of scans, positive group if >= 0.

    Parameters
    ----------
    lesions : ndarray of bool, shape (M, V)
        Lesion maps over the same V voxels as in training.

    Returns
    -------
    ndarray of float, shape (M,)

    Raises
    ------
    BadInputError
        If the maps are not boolean or lack voxels that the model uses.
    """
    if lesions.ndim != 2 or lesions.dtype != bool or lesions.shape[1] <= model.voxels.max():
        raise BadInputError(
            f"lesion maps are {lesions.dtype} of shape {lesions.shape}; "
            f"the model needs booleans, scans x at least {model.voxels.max() + 1} voxels",
            "classifier",
            "use maps on the template and resolution the model was trained on",
        )
    decisions = np.empty(len(lesions))
    for start in range(0, len(lesions), CHUNK):
        part = slice(start, start + CHUNK)
        kernel = np.exp(-model.gamma * squared_distances(lesions[part][:, model.voxels], model.support))
        decisions[part] = _weighed(kernel, model.dual_coef) + model.intercept
    return decisions


def near_zero(decisions: np.ndarray, tol: float) -> int:
    """Return how many decision values are within ``tol`` of 0, so that rounding could turn them."""
    return int(np.count_nonzero(np.abs(decisions) <= tol))
