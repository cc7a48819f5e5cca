"""A linear recipe's model on disk: words in ``model.json``, numbers in ``model.npz``; neither is trusted.

The recommended recipe's is one, and so are those of rivals: a linear machine on the voxels of masks has features of
width 0, not folded, since of 0 and 1 the square root is themselves, and one on the volume alone has no features.

Equal models are equal bytes. ``model.npz`` holds the weights of all kinds one after the other, the calibration's
out-of-fold values, and coarse sketches of the training scans' lesion maps: who passes the model on passes those on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bids_app import __version__
from bids_app.errors import BadInputError, BidsAppError, MissingInputError
from bids_app.files import arrays, formats
from bids_app.image.atlas import brain_grid
from bids_app.model import norms, storage
from bids_app.recommended.features import projection
from bids_app.records.cohort import Threshold
from bids_app.records.need import need
from bids_app.records.recommended import Calibration, Kind, LinearModel, Purpose, Seen, Setting
from bids_app.records.results import LinearPredictor, StoredLinear

KIND, FORMAT = "linear", 1
ARRAYS = "model.npz"
_ARRAYS = {
    "weights": "<f8",
    "decisions": "<f8",
    "positive": "|b1",
    "lesion_free": "|b1",
    "scan_weights": "<f8",
    "sketches": "<f4",
}
_AGAIN = "train the model again with this version, or copy the folder again"


def save(stored: LinearPredictor, folder: Path, training: Mapping[str, object]) -> StoredLinear:
    """Write a model, and return it as `load` would; ``training`` says what should be known of the training data."""
    model, by, levels = stored.model, stored.calibration, stored.purpose.levels
    numbers = {
        "weights": np.concatenate([*model.weights, np.zeros(0)]).astype("<f8"),
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
        "kind": KIND,
        "format_version": FORMAT,
        "bids_app": __version__,
        "protocol": stored.protocol,
        "levels": {"positive": levels[0], "negative": levels[1]},
        "decision": "sum_k weights_k . sqrt(A_k m) + volume log(1 + sum m) + intercept of a lesion map m, A_k being "
        "smoothing and folding; positive if at least 0",
        "lesion_map": stored.purpose.lesion_map,
        "threshold_rule": storage.RULE,
        "threshold": vars(stored.purpose.threshold),
        "grid": storage.grid_of_models(),
        "kinds": [each._asdict() for each in model.kinds],
        "settings": [{**each._asdict(), "kind": each.kind._asdict()} for each in model.settings],
        "volume": model.volume,
        "intercept": model.intercept,
        "calibration": {key: getattr(by, key) for key in ("at_zero", "slope", "offset", "prevalence")},
        "prevalence": stored.prevalence,
        "coverage": stored.coverage,
        "training": {**training, "farthest": stored.seen.farthest, "scans": list(stored.seen.scans)},
        "sha256": {name: _sha(folder / name) for name in (ARRAYS, *norms.files(stored.purpose.norm))},
        **norm,
    }
    content = formats.plain(content)
    formats.write_json(folder / "model.json", {"digest": storage.digest(content), **content})
    return load(folder)


def load(folder: Path) -> StoredLinear:
    """Return a stored model.

    Raises
    ------
    MissingInputError
        The folder or one of its files is not there.
    BadInputError
        Another version or grid; files that are broken, contradict each other or were changed; arrays that are larger
        than a model's, or of other types.
    """
    path = folder / "model.json"
    content = storage.words(folder)
    try:
        storage.check_words(content, path, FORMAT)
        return _assemble(content, folder)
    except BidsAppError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        what = f"a field is missing or of the wrong kind ({type(error).__name__}: {error})"
        raise BadInputError(what, path, _AGAIN) from error


def _assemble(content: dict[str, Any], folder: Path) -> StoredLinear:
    path = folder / "model.json"
    files = {ARRAYS, *((norms.FILE,) if "norm" in content else ())}
    if content["digest"] != storage.digest(content) or set(content["sha256"]) != files:
        raise BadInputError("was changed after it was written (digest)", path, _AGAIN)
    for name, sha in content["sha256"].items():
        if _sha(folder / name) != sha:
            raise BadInputError("was changed after it was written (SHA-256)", folder / name, _AGAIN)
    kinds = tuple(_kind(each) for each in content["kinds"])
    grid = brain_grid(3)
    sizes = [int(projection(grid.data, grid.affine, kind).inside.sum()) for kind in kinds]
    numbers = _unpacked(folder / ARRAYS, sum(sizes))
    settings = tuple(Setting(**{**each, "kind": _kind(each["kind"])}) for each in content["settings"])
    weights = tuple(np.split(numbers["weights"], np.cumsum(sizes, dtype=int)))[:-1]
    model = LinearModel(kinds, weights, float(content["volume"]), float(content["intercept"]), settings)
    about = {key: float(value) for key, value in content["calibration"].items()}
    by = Calibration(
        numbers["decisions"], numbers["positive"], numbers["lesion_free"], numbers["scan_weights"], **about
    )
    seen = Seen(tuple(content["training"]["scans"]), numbers["sketches"], float(content["training"]["farthest"]))
    need(len(seen.scans) == len(by.decisions), "each training scan needs a name")
    need(bool(np.isfinite([model.volume, model.intercept, *about.values()]).all()), "numbers must be finite")
    return StoredLinear(
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


def _kind(words: Mapping[str, Any]) -> Kind:
    return Kind(float(words["fwhm"]), bool(words["folded"]))


def _unpacked(path: Path, total: int) -> dict[str, np.ndarray]:
    """Return the arrays after comparing names, types and sizes with what the model needs."""
    found = arrays.unpack(path)
    if {name: each.dtype.str for name, each in found.items()} != _ARRAYS:
        raise BadInputError("holds other arrays than a model's", path, _AGAIN)
    n = found["decisions"].size
    wanted = {"weights": (total,), "sketches": (n, found["sketches"].shape[-1])}
    if any(each.shape != wanted.get(name, (n,)) for name, each in found.items()):
        raise BadInputError("shapes of its arrays do not fit each other", path, _AGAIN)
    if not all(np.isfinite(each).all() for each in found.values()):
        raise BadInputError("an array holds undefined numbers", path, _AGAIN)
    return found


def _sha(path: Path) -> str:
    if not path.exists():
        raise MissingInputError("no such file", path, "copy the model's folder again")
    return hashlib.sha256(path.read_bytes()).hexdigest()
