"""Clinical covariates: imputed, coded and scaled on training scans by scikit-learn, alone or beside the lesions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bids_app.recommended.machine import Trained, decide, labels_of, train
from bids_app.recommended.nested import Recipe, Tested
from bids_app.recommended.products import Products
from bids_app.records.further import Covariates
from bids_app.records.machines import Number, Word
from bids_app.records.recommended import LinearModel
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
    for column, words in enumerate(of.words):
        coded = bool(words)
        fill = SimpleImputer(strategy="most_frequent" if coded else "median", keep_empty_features=True)
        code = [OneHotEncoder(handle_unknown="ignore", sparse_output=False)] if coded else []
        even = FunctionTransformer(_even, kw_args={"covariates": n})
        parts.append((str(column), make_pipeline(fill, *code, StandardScaler(), even), [column]))
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

        def model() -> LinearModel:
            parts = as_parts(known, features, found.coef_[0])
            return LinearModel((), (), 0.0, float(found.intercept_[0]), (), parts)

        return Machine(lambda rows: found.decision_function(features.transform(known.values[rows])), model)

    return chosen.recipe(fit, [{"C": C} for C in COSTS], people.untied(), inner_folds)


def beside_lesions(
    made: Products, of: Covariates, people: People, inner_folds: int, by_maps: Callable[[Trained], LinearModel]
) -> Recipe:
    """Return the recommended recipe with covariates as a kernel beside the lesions', its weight chosen (also 0).

    ``by_maps`` makes the part of the model that looks at maps.
    """
    groups = labels_of(people.positive, people.person)

    def recipe(training: np.ndarray, test: np.ndarray, seed: int) -> Tested:
        numbers = np.unique(people.person[training])
        seen = np.zeros(len(groups), bool)
        seen[numbers] = groups[numbers]
        features = prepared(of, training)
        with_extra = replace(made, extra=features.transform(of.values), lesion_free=people.untied().lesion_free)
        trained = train(with_extra, seen, numbers, inner_folds, seed)
        weights = trained.dual.extra

        def model() -> LinearModel:
            parts = () if weights is None else as_parts(of, features, weights)
            return replace(by_maps(trained), covariates=parts)

        return Tested(decide(with_extra, trained.dual, test), trained.calibration, trained.settings, model)

    return recipe


def as_parts(of: Covariates, features: ColumnTransformer, weights: np.ndarray) -> tuple[Number | Word, ...]:
    """Return what each covariate adds to a decision, from weights (D,) of the features that `prepared` makes of it."""
    parts: list[Number | Word] = []
    for column, (name, words) in enumerate(zip(of.names, of.words, strict=True)):
        steps = features.named_transformers_[str(column)]
        own = weights[features.output_indices_[str(column)]]
        fill = float(steps[0].transform([[np.nan]])[0, 0])
        if not words:
            scaler, unit = steps[-2], float(steps[-1].transform(np.ones((1, 1)))[0, 0])
            parts.append(Number(name, fill, float(scaler.mean_[0]), float(own[0]) * unit / float(scaler.scale_[0])))
            continue
        known = steps[-3].categories_[0].astype(int).tolist()
        codes = np.array([[len(words)], *([code] for code in known)], dtype=float)  # the first is no word's
        other, *adds = (steps[1:].transform(codes) @ own).tolist()
        parts.append(Word(name, words[int(fill)], dict(zip((words[code] for code in known), adds, strict=True)), other))
    return tuple(parts)
