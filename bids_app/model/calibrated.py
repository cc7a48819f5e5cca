"""A calibrated model on disk: words in ``model.json``, numbers in ``model.npz``; neither is trusted.

Linear models are those of the recommended recipe and of rivals: a linear machine on the voxels of masks has features of
width 0, not folded, since of 0 and 1 the square root is themselves, and one on the volume alone has no features. The
others are trees on regional loads.

Equal models are equal bytes. ``model.npz`` holds the model's own arrays, the calibration's out-of-fold values, and
coarse sketches of the training scans' lesion maps: who passes the model on passes those on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bids_app import __version__
from bids_app.errors import BadInputError
from bids_app.files import arrays, formats
from bids_app.model import forms, norms, seal
from bids_app.records.cohort import Threshold
from bids_app.records.fitted import MapModel
from bids_app.records.need import need
from bids_app.records.recommended import Calibration, Purpose, Seen
from bids_app.records.results import Predictor, StoredPredictor

FORMAT = 1
ARRAYS = "model.npz"
_ARRAYS = {  # besides the model's own
    "decisions": "<f8",
    "positive": "|b1",
    "lesion_free": "|b1",
    "scan_weights": "<f8",
    "sketches": "<f4",
}


def save(stored: Predictor, folder: Path, training: Mapping[str, object]) -> StoredPredictor:
    """Write a model, and return it as `load` would; ``training`` says what should be known of the training data."""
    own, by, levels = forms.written(stored.model), stored.calibration, stored.purpose.levels
    numbers = {
        **own.arrays,
        "decisions": by.decisions,
        "positive": by.positive,
        "lesion_free": by.lesion_free,
        "scan_weights": by.weights,
        "sketches": stored.seen.sketches,
    }
    formats.write_bytes(folder / ARRAYS, arrays.pack(numbers))
    norm = norms.save(stored.purpose.norm, folder)
    content = {
        "Description": f"{levels[0]} against {levels[1]} by lesions on FLAIR; research software, no medical device",
        "kind": own.kind,
        "format_version": FORMAT,
        "bids_app": __version__,
        "protocol": stored.protocol,
        "levels": {"positive": levels[0], "negative": levels[1]},
        "decision": forms.DECISION[own.kind],
        "lesion_map": stored.purpose.lesion_map,
        "threshold_rule": seal.RULE,
        "threshold": vars(stored.purpose.threshold),
        "grid": seal.grid_of_models(),
        **own.words,
        "calibration": {key: getattr(by, key) for key in ("at_zero", "slope", "offset", "prevalence")},
        "prevalence": stored.prevalence,
        "coverage": stored.coverage,
        "training": {**training, "farthest": stored.seen.farthest, "scans": list(stored.seen.scans)},
        "sha256": {name: seal.file_digest(folder / name) for name in (ARRAYS, *norms.files(stored.purpose.norm))},
        **norm,
    }
    content = formats.plain(content)
    formats.write_json(folder / "model.json", {"digest": seal.digest(content), **content})
    return load(folder)


def load(folder: Path) -> StoredPredictor:
    """Return a stored model.

    Raises
    ------
    MissingInputError
        The folder or one of its files is not there.
    BadInputError
        Another version or grid; files that are broken, contradict each other or were changed; arrays that are larger
        than a model's, or of other types.
    """
    return seal.read(folder, FORMAT, _assemble)


def _assemble(content: dict[str, Any], folder: Path) -> StoredPredictor:
    path = folder / "model.json"
    files = {ARRAYS, *((norms.FILE,) if "norm" in content else ())}
    if content["digest"] != seal.digest(content) or set(content["sha256"]) != files:
        raise BadInputError("was changed after it was written (digest)", path, seal.AGAIN)
    for name, sha in content["sha256"].items():
        if seal.file_digest(folder / name) != sha:
            raise BadInputError("was changed after it was written (SHA-256)", folder / name, seal.AGAIN)
    numbers = _unpacked(folder / ARRAYS, content["kind"])
    model = _of_form(content, numbers, folder / ARRAYS)
    about = {key: float(value) for key, value in content["calibration"].items()}
    by = Calibration(
        numbers["decisions"], numbers["positive"], numbers["lesion_free"], numbers["scan_weights"], **about
    )
    seen = Seen(tuple(content["training"]["scans"]), numbers["sketches"], float(content["training"]["farthest"]))
    need(len(seen.scans) == len(by.decisions), "each training scan needs a name")
    need(bool(np.isfinite(list(about.values())).all()), "numbers must be finite")
    return StoredPredictor(
        content["protocol"],
        model,
        by,
        seen,
        Purpose(
            (content["levels"]["positive"], content["levels"]["negative"]),
            Threshold(**content["threshold"]),
            content["lesion_map"],
            norms.load(content, folder),
        ),
        float(content["prevalence"]),
        float(content["coverage"]),
        content["training"],
        content["digest"],
    )


def _of_form(content: dict[str, Any], numbers: dict[str, np.ndarray], path: Path) -> MapModel:
    """Return the model itself; what is wrong with it is wrong with the file of arrays."""
    try:
        return forms.read(content["kind"], content, numbers)
    except BadInputError as error:
        raise BadInputError(f"does not fit model.json ({error})", path, seal.AGAIN) from error


def _unpacked(path: Path, kind: str) -> dict[str, np.ndarray]:
    """Return the arrays after comparing names, types and sizes with what a model of the kind needs."""
    found = arrays.unpack(path)
    if {name: each.dtype.str for name, each in found.items()} != forms.ARRAYS[kind] | _ARRAYS:
        raise BadInputError("holds other arrays than a model's", path, seal.AGAIN)
    n = found["decisions"].size
    wanted = {name: (n,) for name in _ARRAYS} | {"sketches": (n, found["sketches"].shape[-1])}
    if any(found[name].shape != shape for name, shape in wanted.items()):
        raise BadInputError("shapes of its arrays do not fit each other", path, seal.AGAIN)
    if not all(np.isfinite(each).all() for each in found.values()):
        raise BadInputError("an array holds undefined numbers", path, seal.AGAIN)
    return found
