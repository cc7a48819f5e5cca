"""Clinical covariates: imputed, coded and scaled on training scans by scikit-learn, alone or beside the lesions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bids_app.recommended.machine import decide, labels_of, train
from bids_app.recommended.nested import Recipe, Tested
from bids_app.recommended.products import Products
from bids_app.records.further import Covariates
from bids_app.rivals import chosen
from bids_app.rivals.chosen import Machine, People, Rows, Setting

if TYPE_CHECKING:
    from sklearn.compose import ColumnTransformer

COSTS = (0.01, 0.1, 1.0, 10.0)


def prepared(of: Covariates, training: np.ndarray) -> ColumnTransformer:
    """Return what makes features of covariates (n, K), fitted on the training rows alone.

    Numbers: the median where missing, then mean 0 and SD 1. Words: the most frequent one where missing, a column a
    word, mean 0 and SD 1, over the root of their number; a word that training did not know is none of its words. All
    features are over the root of K: together they have a variance of about 1.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

    n = len(of.names)
    parts = []
    for column, coded in enumerate(of.coded):
        fill = SimpleImputer(strategy="most_frequent" if coded else "median", keep_empty_features=True)
        code = [OneHotEncoder(handle_unknown="ignore", sparse_output=False)] if coded else []
        even = FunctionTransformer(_even, kw_args={"covariates": n})
        parts.append((of.names[column], make_pipeline(fill, *code, StandardScaler(), even), [column]))
    return ColumnTransformer(parts).fit(of.values[training])


def _even(values: np.ndarray, covariates: int) -> np.ndarray:
    even: np.ndarray = values / np.sqrt(values.shape[1] * covariates)
    return even


def alone(of: Covariates, people: People, inner_folds: int) -> Recipe:
    """Return logistic regression on covariates of N scans alone: what is known without any map."""
    nothing = np.full((1, len(of.names)), np.nan)  # the scan without lesions: here one of whom nothing is known
    known = replace(of, values=np.concatenate([of.values, nothing]))

    def fit(seen: Rows, setting: Setting, seed: int) -> Machine:
        from sklearn.linear_model import LogisticRegression

        features = prepared(known, seen.rows)
        found = LogisticRegression(C=float(setting["C"]), max_iter=1000)
        found.fit(features.transform(known.values[seen.rows]), seen.positive, sample_weight=seen.weights)
        return Machine(lambda rows: found.decision_function(features.transform(known.values[rows])))

    tied_by_none = people._replace(lesion_free=np.zeros_like(people.lesion_free))
    return chosen.recipe(fit, [{"C": C} for C in COSTS], tied_by_none, inner_folds)


def beside_lesions(made: Products, of: Covariates, people: People, inner_folds: int) -> Recipe:
    """Return the recommended recipe with covariates as a kernel beside the lesions', its weight chosen (also 0)."""
    groups = labels_of(people.positive, people.person)

    def recipe(training: np.ndarray, test: np.ndarray, seed: int) -> Tested:
        numbers = np.unique(people.person[training])
        seen = np.zeros(len(groups), bool)
        seen[numbers] = groups[numbers]
        with_extra = replace(made, extra=prepared(of, training).transform(of.values))
        trained = train(with_extra, seen, numbers, inner_folds, seed)
        return Tested(decide(with_extra, trained.dual, test), trained.calibration, trained.settings)

    return recipe
