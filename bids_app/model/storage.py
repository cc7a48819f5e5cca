"""Trained models on disk: four plain files, and none of them is trusted when they are read.

``model.json`` says everything in words and numbers, ``tpl-*_desc-selected_mask.nii.gz`` shows the chosen voxels,
``arrays.npz`` holds the arrays (a zip of ``.npy``; no pickle), ``model.libsvm`` is the same model in the text
format of LIBSVM, for use by any of its programs: features are the chosen voxels in ranked order, numbered from 1,
and ``decision = sum_i coef_i exp(-gamma |sv_i - x|^2) - rho``. Equal models are equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bids_app import __version__
from bids_app.bids.names import group_output
from bids_app.errors import BadInputError
from bids_app.files import arrays as npz
from bids_app.files import formats
from bids_app.image.atlas import brain_grid, on_grid
from bids_app.learning.classifier import decide, squared_distances
from bids_app.model import norms, seal
from bids_app.records.cohort import Model, Threshold
from bids_app.records.recommended import Purpose
from bids_app.records.results import StoredModel

FORMAT = 2  # 1 held its arrays in the format of skops
ARRAYS = "arrays.npz"
MASK = Path(group_output("selected", evaluation="")).name
FILES = (ARRAYS, "model.libsvm", MASK)  # beside model.json
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_KINDS = {
    "support": np.uint8,
    "patterns": np.uint8,
    "dual_coef": np.float64,
    "parameters": np.float64,
    "voxels": np.int64,
}


def save(
    model: Model,
    folder: Path,
    purpose: Purpose,
    protocol: str,
    training: Mapping[str, object],
    train_lesions: np.ndarray,
) -> StoredModel:
    """Write a model, and return it as `load` would.

    Parameters
    ----------
    folder : Path
        Made if need be.
    purpose : Purpose
    protocol : str
    training : mapping
        What should be known of the training data (numbers of scans and participants, lesion volumes, ...).
        Quantiles of decision values and of each training scan's Hamming distance to its nearest neighbour
        among the others are added: they are what new scans are compared with.
    train_lesions : ndarray of bool, shape (N, n)
        Training scans at the model's voxels, in ranked order.

    Raises
    ------
    BadInputError
        Shapes do not fit.
    """
    n, levels = len(model.voxels), purpose.levels
    if train_lesions.ndim != 2 or train_lesions.shape[1] != n or train_lesions.dtype != bool or not len(train_lesions):
        raise BadInputError(f"training maps are {train_lesions.shape}, not booleans of shape (scans, {n})", folder)
    patterns = np.unique(train_lesions, axis=0)
    formats.write_bytes(folder / ARRAYS, npz.pack(_to_arrays(model, patterns)))
    formats.write_text(folder / "model.libsvm", libsvm_text(model))
    formats.write_nifti(folder / MASK, _mask(model.voxels), brain_grid(3).affine)
    norm = norms.save(purpose.norm, folder)
    content = {
        "Description": f"{levels[0]} against {levels[1]} by lesions on FLAIR; research software, no medical device",
        "format_version": FORMAT,
        "bids_app": __version__,
        "protocol": protocol,
        "levels": {"positive": levels[0], "negative": levels[1]},
        "decision": "sum_i dual_coef_i exp(-gamma |support_i - x|^2) + intercept; positive if at least 0",
        "lesion_map": purpose.lesion_map,
        "threshold_rule": seal.RULE,
        "threshold": vars(purpose.threshold),
        "grid": seal.grid_of_models(),
        "C": model.C,
        "gamma": model.gamma,
        "intercept": model.intercept,
        "n_support": len(model.support),
        "n_voxels": n,
        "training": {**training, **_reference(model, train_lesions)},
        "sha256": {name: seal.file_digest(folder / name) for name in (*FILES, *norms.files(purpose.norm))},
        **norm,
        "voxels": model.voxels,
    }
    content = formats.plain(content)
    formats.write_json(folder / "model.json", {"digest": seal.digest(content), **content})
    return load(folder)


def load(folder: Path) -> StoredModel:
    """Return a stored model.

    Raises
    ------
    MissingInputError
        The folder or one of its files is not there.
    BadInputError
        Another version, grid or threshold rule; files that are broken, contradict each other or were changed;
        a file of arrays that claims more than it holds, or holds anything else.
    """
    return seal.read(folder, FORMAT, _assemble)


def libsvm_text(model: Model) -> str:
    """Return the model in LIBSVM's text format, support vectors of the positive group (label 1) first."""
    order = np.argsort(model.dual_coef < 0, kind="stable")
    positive = int((model.dual_coef >= 0).sum())
    lines = [
        "svm_type c_svc",
        "kernel_type rbf",
        f"gamma {model.gamma!r}",
        "nr_class 2",
        f"total_sv {len(order)}",
        f"rho {-model.intercept!r}",
        "label 1 -1",
        f"nr_sv {positive} {len(order) - positive}",
        "SV",
    ]
    for row in order:
        features = " ".join(f"{i + 1}:1" for i in np.flatnonzero(model.support[row]))
        lines.append(f"{float(model.dual_coef[row])!r} {features}".rstrip() + " ")
    return "\n".join(lines) + "\n"


def nearest(scans: np.ndarray, patterns: np.ndarray) -> np.ndarray:
    """Return the Hamming distance (M,) of scans (M, n) to the nearest of ``patterns`` (P, n)."""
    distance: np.ndarray = squared_distances(scans, patterns).min(axis=1)
    return distance


def _reference(model: Model, lesions: np.ndarray) -> dict[str, object]:
    """Return decision values and nearest distances of the training scans, as quantiles and ranges."""
    at_voxels = Model(
        np.arange(lesions.shape[1]), model.support, model.dual_coef, model.intercept, model.C, model.gamma
    )
    decisions = decide(at_voxels, lesions)
    distances = squared_distances(lesions, lesions)
    np.fill_diagonal(distances, np.inf)
    closest = distances.min(axis=1) if len(lesions) > 1 else np.zeros(1)
    return {
        "quantiles": QUANTILES,
        "decision_quantiles": np.quantile(decisions, QUANTILES),
        "decision_range": [decisions.min(), decisions.max()],
        "nearest_distance_quantiles": np.quantile(closest, QUANTILES),
        "nearest_distance_max": closest.max(),
    }


def _mask(voxels: np.ndarray) -> np.ndarray:
    inside = np.zeros(int(brain_grid(3).data.sum()), dtype=bool)
    inside[voxels] = True
    return on_grid(inside).data


def _assemble(content: dict[str, Any], folder: Path) -> StoredModel:
    """Return the model after comparing all files with the JSON."""
    path = folder / "model.json"
    voxels = np.array(content["voxels"])
    total = content["grid"]["brain_voxels"]
    if voxels.ndim != 1 or voxels.dtype != np.int64 or not voxels.size or voxels.min() < 0 or voxels.max() >= total:
        raise BadInputError(f"voxels must be whole numbers from 0 to {total - 1}", path, seal.AGAIN)
    if len(set(content["voxels"])) != len(voxels) or content["n_voxels"] != len(voxels):
        raise BadInputError("voxels are not n_voxels different ones", path, seal.AGAIN)
    _check_mask(folder / MASK, voxels)
    model, patterns = _from_arrays(npz.unpack(folder / ARRAYS), folder / ARRAYS)
    said = (content["C"], content["gamma"], content["intercept"], content["n_support"])
    if (model.C, model.gamma, model.intercept, len(model.support)) != said or not np.array_equal(model.voxels, voxels):
        raise BadInputError("disagrees with model.json (C, gamma, intercept or voxels)", folder / ARRAYS, seal.AGAIN)
    files = (*FILES, *((norms.FILE,) if "norm" in content else ()))
    for name, sha in content["sha256"].items():
        if name not in files or seal.file_digest(folder / name) != sha:
            raise BadInputError("was changed after it was written (SHA-256)", folder / name, seal.AGAIN)
    if content["digest"] != seal.digest(content) or len(content["sha256"]) != len(files):
        raise BadInputError("was changed after it was written (digest)", path, seal.AGAIN)
    levels = content["levels"]["positive"], content["levels"]["negative"]
    threshold = Threshold(**content["threshold"])
    return StoredModel(
        model,
        Purpose(levels, threshold, content["lesion_map"], norms.load(content, folder)),
        content["protocol"],
        patterns,
        content["training"],
        content["digest"],
    )


def _check_mask(path: Path, voxels: np.ndarray) -> None:
    """Refuse a mask of other voxels; its shape is looked at before its data."""
    grid = brain_grid(3)
    image = formats.open_nifti(path)
    if image.shape != grid.data.shape or not np.allclose(image.affine, grid.affine, rtol=0, atol=1e-3):
        raise BadInputError("lies on another grid", path, seal.AGAIN)
    if not np.array_equal(formats.read_nifti(path)[0], _mask(voxels)):
        raise BadInputError("disagrees with the voxels in model.json", path, seal.AGAIN)


def _to_arrays(model: Model, patterns: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "support": np.packbits(model.support, axis=1),
        "patterns": np.packbits(patterns, axis=1),
        "dual_coef": np.asarray(model.dual_coef, np.float64),
        "parameters": np.array([model.C, model.gamma, model.intercept], np.float64),
        "voxels": np.asarray(model.voxels, np.int64),
    }


def _from_arrays(arrays: dict[str, np.ndarray], path: Path) -> tuple[Model, np.ndarray]:
    """Return model and training patterns; the inverse of `_to_arrays`."""
    if set(arrays) != set(_KINDS):
        raise BadInputError(
            f"arrays are {', '.join(sorted(arrays))}, not {', '.join(sorted(_KINDS))}", path, seal.AGAIN
        )
    for name, kind in _KINDS.items():
        ndim = 2 if kind == np.uint8 else 1
        if arrays[name].dtype != kind or arrays[name].ndim != ndim or not np.isfinite(arrays[name]).all():
            raise BadInputError(f"array {name} is not {ndim}D, finite {kind.__name__}", path, seal.AGAIN)
    n = len(arrays["voxels"])
    wide = {arrays[name].shape[1] for name in ("support", "patterns")}
    if wide != {-(-n // 8)} or len(arrays["support"]) != len(arrays["dual_coef"]) or arrays["parameters"].shape != (3,):
        raise BadInputError("shapes of its arrays do not fit each other", path, seal.AGAIN)
    support, patterns = (np.unpackbits(arrays[name], axis=1, count=n).astype(bool) for name in ("support", "patterns"))
    C, gamma, intercept = (float(value) for value in arrays["parameters"])
    return Model(arrays["voxels"], support, arrays["dual_coef"], intercept, C, gamma), patterns
