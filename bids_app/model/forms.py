"""What kinds of calibrated models there are on disk: the words and arrays of each, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bids_app.image.atlas import brain_grid
from bids_app.model.deciding import regions
from bids_app.recommended.features import projection
from bids_app.records.fitted import MapModel
from bids_app.records.need import need
from bids_app.records.recommended import Kind, LinearModel, Setting
from bids_app.records.trees import Trees

LINEAR, TREES = "linear", "trees"
ARRAYS = {  # names and types of a kind's own arrays
    LINEAR: {"weights": "<f8"},
    TREES: {
        **{"roots": "<i8", "feature": "<i4", "threshold": "<f8"},
        **{"value": "<f8", "left": "<i8", "right": "<i8"},
    },
}
DECISION = {
    LINEAR: "sum_k weights_k . sqrt(A_k m) + volume log(1 + sum m) + intercept of a lesion map m, A_k being "
    "smoothing and folding; positive if at least 0",
    TREES: "trees on log(1 + sum of the lesion map) in each region, left where a feature is at most the threshold; "
    "boosting: start + sum of values; forest: log odds of their mean; positive if at least 0",
}


class Form(NamedTuple):
    """A model as it lies on disk: its kind, its own words in ``model.json``, and its own arrays."""

    kind: str
    words: dict[str, object]
    arrays: dict[str, np.ndarray]


def written(model: MapModel) -> Form:
    """Return a model as it is written."""
    if isinstance(model, Trees):
        words = {"way": model.way, "start": model.start, "regions": _regions()}
        return Form(TREES, words, {name: getattr(model, name) for name in ARRAYS[TREES]})
    words = {
        "kinds": [each._asdict() for each in model.kinds],
        "settings": [{**each._asdict(), "kind": each.kind._asdict()} for each in model.settings],
        "volume": model.volume,
        "intercept": model.intercept,
    }
    return Form(LINEAR, words, {"weights": np.concatenate([*model.weights, np.zeros(0)]).astype("<f8")})


def read(kind: str, words: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> MapModel:
    """Return the model of a kind; the inverse of `written`.

    Raises
    ------
    BadInputError
        Words and arrays do not fit each other, or a number is not finite.
    KeyError, TypeError, ValueError
        A word is missing or of the wrong kind.
    """
    return (_trees if kind == TREES else _linear)(words, arrays)


def _trees(words: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Trees:
    start = float(words["start"])
    need(bool(np.isfinite(start)), "numbers must be finite")
    need(words["regions"] == _regions(), "its regions are others than this version's")
    need(int(arrays["feature"].max(initial=-1)) < len(_regions()), "a tree asks for an unknown region")
    return Trees(words["way"], start, **{name: arrays[name] for name in ARRAYS[TREES]})


def _regions() -> list[str]:
    """Return the names of the features of trees, in their order."""
    return [*regions(), "all"]


def _linear(words: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> LinearModel:
    kinds, grid = tuple(_kind(each) for each in words["kinds"]), brain_grid(3)
    sizes = [int(projection(grid.data, grid.affine, kind).inside.sum()) for kind in kinds]
    need(arrays["weights"].shape == (sum(sizes),), "weights do not fit the features")
    volume, intercept = float(words["volume"]), float(words["intercept"])
    need(bool(np.isfinite([volume, intercept]).all()), "numbers must be finite")
    settings = tuple(Setting(**{**each, "kind": _kind(each["kind"])}) for each in words["settings"])
    weights = tuple(np.split(arrays["weights"], np.cumsum(sizes, dtype=int)))[:-1]
    return LinearModel(kinds, weights, volume, intercept, settings)


def _kind(words: Mapping[str, Any]) -> Kind:
    return Kind(float(words["fwhm"]), bool(words["folded"]))
