"""Trees on regional loads, by scikit-learn: a random forest, and gradient boosting."""

from __future__ import annotations

import numpy as np

from bids_app.recommended.nested import Recipe
from bids_app.rivals.chosen import Machine, People, Rows, Setting, recipe

FOREST = 200  # trees
LEAVES = (3, 10, 30)  # least scans in a leaf of the forest
ROUNDS, DEPTHS, RATE = (50, 150), (1, 3), 0.05  # of the boosting: trees, their depth, and how much each may say
SURE = 1e-3  # shares of trees nearer to 0 or 1 say no more than this


def forest(features: np.ndarray, people: People, inner_folds: int) -> Recipe:
    """Return a random forest on features (N + 1, R), the last row those of a scan without lesions."""

    def fit(seen: Rows, setting: Setting, seed: int) -> Machine:
        from sklearn.ensemble import RandomForestClassifier

        found = RandomForestClassifier(FOREST, min_samples_leaf=int(setting["leaf"]), random_state=seed, n_jobs=1)
        found.fit(features[seen.rows], seen.positive, sample_weight=seen.weights)

        def decide(rows: np.ndarray) -> np.ndarray:
            share = np.clip(found.predict_proba(features[rows])[:, 1], SURE, 1 - SURE)
            odds: np.ndarray = np.log(share / (1 - share))
            return odds

        return Machine(decide)

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
        return Machine(lambda rows: found.decision_function(features[rows]))

    settings = [{"rounds": rounds, "depth": depth} for rounds in ROUNDS for depth in DEPTHS]
    return recipe(fit, settings, people, inner_folds)
