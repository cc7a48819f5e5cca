"""Linear classifiers on every voxel of binary lesion maps, by scikit-learn: support vectors, and few weights (L1)."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from bids_app.recommended.linear import of_voxels
from bids_app.recommended.nested import Recipe
from bids_app.records.recommended import LinearModel
from bids_app.rivals.chosen import Machine, People, Rows, Setting, recipe

COSTS = (0.01, 0.1, 1.0, 10.0, 100.0)  # of the SVM, for kernels whose features have a total variance of 1
L1_COSTS = (0.01, 0.03, 0.1, 0.3, 1.0)  # of L1: at the first few voxels are left, at the last hundreds
INTERCEPT = 10.0  # liblinear shrinks the intercept as if it were a weight: on this scale hardly
CHUNK = 256


def gram(lesions: np.ndarray) -> np.ndarray:
    """Return how many lesion voxels any two scans share, (N + 1, N + 1) float32; last a scan without lesions.

    Examples
    --------
    >>> gram(np.array([[True, True, False], [False, True, True]])).tolist()
    [[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 0.0]]
    """
    n = len(lesions)
    maps = sparse.csr_matrix(lesions, dtype=np.float32)
    shared = np.zeros((n + 1, n + 1), np.float32)
    for start in range(0, n, CHUNK):
        shared[start : start + CHUNK, :n][: n - start] = (maps[start : start + CHUNK] @ maps.T).toarray()
    return shared


def linear_svm(lesions: np.ndarray, shared: np.ndarray, people: People, inner_folds: int) -> Recipe:
    """Return the support vector machine with a linear kernel on all voxels (N, V) of bool; ``shared`` is of `gram`."""

    def fit(seen: Rows, setting: Setting, seed: int) -> Machine:
        from sklearn.svm import SVC

        kernel = shared[np.ix_(seen.rows, seen.rows)].astype(float)
        scale = float(np.trace(kernel) / len(kernel) - kernel.mean()) or 1.0
        svc = SVC(C=float(setting["C"]), kernel="precomputed")
        svc.fit(kernel / scale, seen.positive, sample_weight=seen.weights)

        def model() -> LinearModel:
            held = sparse.csr_matrix(lesions[seen.rows[svc.support_]], dtype=float)
            return of_voxels(svc.dual_coef_[0] @ held / scale, float(svc.intercept_[0]))

        return Machine(lambda rows: svc.decision_function(shared[np.ix_(rows, seen.rows)].astype(float) / scale), model)

    return recipe(fit, [{"C": C} for C in COSTS], people, inner_folds)


def l1_logistic(lesions: np.ndarray, people: People, inner_folds: int) -> Recipe:
    """Return logistic regression on all voxels (N, V) of bool with an L1 penalty: most weights are 0."""
    empty = sparse.csr_matrix((1, lesions.shape[1]), dtype=float)
    maps = sparse.vstack([sparse.csr_matrix(lesions, dtype=float), empty]).tocsr()

    def fit(seen: Rows, setting: Setting, seed: int) -> Machine:
        from sklearn.linear_model import LogisticRegression

        found = LogisticRegression(
            C=float(setting["C"]), l1_ratio=1.0, solver="liblinear", intercept_scaling=INTERCEPT, random_state=seed
        )
        found.fit(maps[seen.rows], seen.positive, sample_weight=seen.weights)
        return Machine(
            lambda rows: found.decision_function(maps[rows]),
            lambda: of_voxels(found.coef_[0], float(found.intercept_[0])),
        )

    return recipe(fit, [{"C": C} for C in L1_COSTS], people, inner_folds)
