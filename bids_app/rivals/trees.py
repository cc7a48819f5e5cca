"""Trees on regional loads: a random forest and gradient boosting by scikit-learn, and the same as plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bids_app.recommended.nested import Recipe
from bids_app.records.trees import BOOSTING, FOREST, Trees
from bids_app.rivals.chosen import Machine, People, Rows, Setting, recipe

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

COUNT = 200  # trees of the forest
LEAVES = (3, 10, 30)  # least scans in a leaf of the forest
ROUNDS, DEPTHS, RATE = (50, 150), (1, 3), 0.05  # of the boosting: trees, their depth, and how much each may say
SURE = 1e-3  # shares of trees nearer to 0 or 1 say no more than this


def forest(features: np.ndarray, people: People, inner_folds: int) -> Recipe:
    """Return a random forest on features (N + 1, R), the last row those of a scan without lesions."""

    def fit(seen: Rows, setting: Setting, seed: int) -> Machine:
        from sklearn.ensemble import RandomForestClassifier

        found = RandomForestClassifier(COUNT, min_samples_leaf=int(setting["leaf"]), random_state=seed, n_jobs=1)
        found.fit(features[seen.rows], seen.positive, sample_weight=seen.weights)
        return Machine(lambda rows: _odds(found.predict_proba(features[rows])[:, 1]), lambda: of_forest(found))

    return recipe(fit, [{"leaf": leaf} for leaf in LEAVES], people, inner_folds)


def boosting(features: np.ndarray, people: People, inner_folds: int) -> Recipe:
    """Return gradient boosting on features (N + 1, R), the last row those of a scan without lesions."""

    def fit(seen: Rows, setting: Setting, seed: int) -> Machine:
        from sklearn.ensemble import HistGradientBoostingClassifier

        found = HistGradientBoostingClassifier(
            learning_rate=RATE,
            max_iter=int(setting["rounds"]),
            max_depth=int(setting["depth"]),
            early_stopping=False,  # it would hold out scans of participants that it trains on
            random_state=seed,
        )
        found.fit(features[seen.rows], seen.positive, sample_weight=seen.weights)
        return Machine(lambda rows: found.decision_function(features[rows]), lambda: of_boosting(found))

    settings = [{"rounds": rounds, "depth": depth} for rounds in ROUNDS for depth in DEPTHS]
    return recipe(fit, settings, people, inner_folds)


def decisions(model: Trees, features: np.ndarray) -> np.ndarray:
    """Return decision values (n,) of features (n, F), positive group if >= 0; trees are summed in their order."""
    asked = features.astype(np.float32) if model.way == FOREST else features
    rows, node = np.arange(len(features))[:, None], np.tile(model.roots, (len(features), 1))
    while (model.feature[node] >= 0).any():
        low = asked[rows, model.feature[node]] <= model.threshold[node]
        node = np.where(low, model.left[node], model.right[node])
    total = np.full(len(features), model.start)
    for values in model.value[node].T:
        total += values
    return _odds(total / len(model.roots)) if model.way == FOREST else total


def of_forest(found: RandomForestClassifier) -> Trees:
    """Return a fitted forest of two classes as arrays."""
    trees = [each.tree_ for each in found.estimators_]
    parts = [
        (each.feature < 0, each.feature, each.threshold, each.value[:, 0, 1], each.children_left, each.children_right)
        for each in trees
    ]
    return _joined(FOREST, 0.0, parts)


def of_boosting(found: HistGradientBoostingClassifier) -> Trees:
    """Return fitted boosting of two classes on numbers, none of them missing, as arrays."""
    trees = [predictor.nodes for (predictor,) in found._predictors]
    names = ("is_leaf", "feature_idx", "num_threshold", "value", "left", "right")
    parts = [tuple(each[name] for name in names) for each in trees]
    return _joined(BOOSTING, float(found._baseline_prediction.item()), parts)


def _joined(way: str, start: float, parts: Sequence[tuple[np.ndarray, ...]]) -> Trees:
    """Return trees one after the other, each (leaf or not, feature, threshold, value, left, right) by node."""
    sizes = [len(part[0]) for part in parts]
    roots = np.cumsum([0, *sizes[:-1]])
    leaf, feature, threshold, value, left, right = (np.concatenate(each) for each in zip(*parts, strict=True))
    own, first = np.arange(len(leaf)), np.repeat(roots, sizes)
    return Trees(
        way,
        start,
        roots,
        np.where(leaf, -1, feature).astype(np.int32),
        np.where(leaf, 0.0, threshold),
        np.where(leaf, value, 0.0),
        np.where(leaf, own, first + left),
        np.where(leaf, own, first + right),
    )


def _odds(share: np.ndarray) -> np.ndarray:
    sure = np.clip(share, SURE, 1 - SURE)
    odds: np.ndarray = np.log(sure / (1 - sure))
    return odds
