"""What kinds of calibrated models there are on disk: the words and arrays of each, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from bids_app.image.atlas import brain_grid
from bids_app.model.deciding import regions
from bids_app.recommended.features import box_of, projection
from bids_app.records.fitted import MapModel
from bids_app.records.machines import Convolutional, Number, Radial, Word
from bids_app.records.need import need
from bids_app.records.recommended import Kind, LinearModel, Setting
from bids_app.records.trees import Trees
from bids_app.rivals.convolution import places

LINEAR, TREES, RADIAL, CONVOLUTIONAL = "linear", "trees", "radial", "convolutional"
ARRAYS = {  # names and types of a kind's own arrays
    LINEAR: {"weights": "<f8"},
    TREES: {
        **{"roots": "<i8", "feature": "<i4", "threshold": "<f8"},
        **{"value": "<f8", "left": "<i8", "right": "<i8"},
    },
    RADIAL: {"voxels": "<i8", "support": "<f4", "dual_coef": "<f8"},
    CONVOLUTIONAL: {
        **{"kernel_first": "<f4", "bias_first": "<f4", "kernel_second": "<f4", "bias_second": "<f4"},
        **{"weights": "<f4", "mean": "<f4"},
    },
}
DECISION = {
    LINEAR: "sum_k weights_k . sqrt(A_k m) + volume log(1 + sum m) + intercept of a map m, A_k being smoothing and "
    "folding, plus what covariates add, where there are any; positive if at least 0",
    TREES: "trees on log(1 + sum of the lesion map) in each region, left where a feature is at most the threshold; "
    "boosting: start + sum of values; forest: log odds of their mean; positive if at least 0",
    RADIAL: "sum_i dual_coef_i exp(-gamma |support_i - x / unit|^2) + intercept, x being belief above its limit at "
    "the voxels; positive if at least 0",
    CONVOLUTIONAL: "mean over the maps and their mirror images of: means of 2 x 2 x 2 voxels, two convolutions in "
    "strides of 2 with max(0, .) after each, weights . places + intercept; positive if at least 0",
}


WIDEST = 100.0  # smoothing, mm
LAYERS = ("first", "second")  # convolutions of the network


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
    if isinstance(model, Radial):
        own = {name: getattr(model, name) for name in ARRAYS[RADIAL]}
        return Form(RADIAL, {name: getattr(model, name) for name in ("gamma", "unit", "intercept")}, own)
    if isinstance(model, Convolutional):
        own = {f"kernel_{name}": each for name, each in zip(LAYERS, model.kernels, strict=True)}
        own |= {f"bias_{name}": each for name, each in zip(LAYERS, model.biases, strict=True)}
        own |= {"weights": model.weights, "mean": model.mean}
        return Form(CONVOLUTIONAL, {"intercept": model.intercept, "sd": model.sd, "farthest": model.farthest}, own)
    words = {
        "kinds": [each._asdict() for each in model.kinds],
        "settings": [{**each._asdict(), "kind": each.kind._asdict()} for each in model.settings],
        "volume": model.volume,
        "intercept": model.intercept,
    }
    if model.covariates:
        words["covariates"] = [vars(each) for each in model.covariates]
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
    makers: dict[str, Callable[[Mapping[str, Any], Mapping[str, np.ndarray]], MapModel]] = {
        LINEAR: _linear,
        TREES: _trees,
        RADIAL: _radial,
        CONVOLUTIONAL: _convolutional,
    }
    return makers[kind](words, arrays)


def _trees(words: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Trees:
    start = float(words["start"])
    need(bool(np.isfinite(start)), "numbers must be finite")
    need(words["regions"] == _regions(), "its regions are others than this version's")
    need(int(arrays["feature"].max(initial=-1)) < len(_regions()), "a tree asks for an unknown region")
    return Trees(words["way"], start, **{name: arrays[name] for name in ARRAYS[TREES]})


def _radial(words: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Radial:
    voxels, total = arrays["voxels"], int(brain_grid(3).data.sum())
    own: dict[str, Any] = {name: arrays[name] for name in ARRAYS[RADIAL]}
    own |= {name: float(words[name]) for name in ("gamma", "unit", "intercept")}
    found = Radial(**own)
    need(int(voxels.min()) >= 0 and int(voxels.max()) < total, f"voxels must be from 0 to {total - 1}")
    need(len(np.unique(voxels)) == len(voxels), "a voxel is named twice")
    return found


def _convolutional(words: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Convolutional:
    mask = brain_grid(3).data
    kernels, biases = (tuple(arrays[f"{part}_{name}"] for name in LAYERS) for part in ("kernel", "bias"))
    numbers = float(words["intercept"]), arrays["mean"], float(words["sd"]), float(words["farthest"])
    found = Convolutional(kernels, biases, arrays["weights"], *numbers)
    left = len(biases[-1]) * places(mask[box_of(mask)].shape, len(LAYERS))
    need(found.weights.shape == (left,), "weights do not fit the places")
    need(not found.sees_belief or found.mean.shape == (int(mask.sum()),), "the mean of belief does not fit the brain")
    return found


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
    return LinearModel(kinds, weights, volume, intercept, settings, tuple(map(_part, words.get("covariates", ()))))


def _part(words: Mapping[str, Any]) -> Number | Word:
    """Return what a covariate adds."""
    name = str(words["name"])
    if "adds" in words:
        adds = {str(word): float(value) for word, value in words["adds"].items()}
        return Word(name, str(words["fill"]), adds, float(words["other"]))
    return Number(name, *(float(words[key]) for key in ("fill", "mean", "slope")))


def _kind(words: Mapping[str, Any]) -> Kind:
    fwhm = float(words["fwhm"])
    need(0 <= fwhm <= WIDEST, f"a smoothing of {fwhm} mm is none from 0 to {WIDEST:g}")  # nor undefined
    return Kind(fwhm, bool(words["folded"]))
