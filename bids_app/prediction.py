"""A stored model applied to new scans: each scan's group, how sure, and how far it is from the training data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bids_app import __version__, files, maps
from bids_app.atlas import brain_grid
from bids_app.bids import APP, Scan
from bids_app.classifier import decide
from bids_app.covariates import identifiers
from bids_app.errors import BadInputError
from bids_app.modelfile import nearest
from bids_app.records import StoredModel

TABLE = f"phenotype/{APP}_predictions"
COLUMNS: dict[str, dict[str, object]] = {
    "participant_id": {"Description": "Participant"},
    "session_id": {"Description": "Session"},
    "scan": {"Description": "Entities of the scan's file name"},
    "prediction": {"Description": "Group: the positive one if decision_value is at least 0"},
    "decision_value": {"Description": "Decision value of the support vector machine; no probability"},
    "lesion_volume_mni_ml": {"Description": "Lesions inside the template's brain", "Units": "ml"},
    "n_voxels": {"Description": "Voxels the model looks at"},
    "voxels_hit": {"Description": "Those of them that are lesioned"},
    "nearest_training_distance": {"Description": "Of those, how many differ from the most similar training scan"},
    "out_of_range": {
        "Description": "Decision value outside the training scans', or farther from the nearest training scan than "
        "any training scan is from its own nearest: the prediction is an extrapolation",
        "Levels": {"True": "extrapolation", "False": "within the training data"},
    },
    "lesion_free": {
        "Description": "No lesion inside the template's brain: the prediction says nothing about lesions",
        "Levels": {"True": "no lesion", "False": "some lesion"},
    },
    "model_digest": {"Description": "SHA-256 of the model that predicted this row"},
}


def predict(
    stored: StoredModel, scans: Sequence[Scan], output_dir: Path, cache_dir: Path, nprocs: int = 1
) -> pd.DataFrame:
    """Return one row a scan, with the columns of `COLUMNS`.

    Parameters
    ----------
    stored : StoredModel
    scans : sequence of Scan
        Finished at the participant level, in ``output_dir``.
    output_dir, cache_dir, nprocs
        As in `maps.load`; lesion maps are taken at the model's own threshold.

    Raises
    ------
    MissingInputError, BadInputError
        As `maps.load`.
    """
    lesions = maps.load(
        scans,
        output_dir,
        threshold=stored.threshold.value,
        lesion_map=stored.lesion_map,
        cache_dir=cache_dir,
        nprocs=nprocs,
        given=stored.threshold.origin == "given",
    )
    chosen = lesions[:, stored.model.voxels]
    # one by one: in a product of matrices a scan's last bit depends on the scans beside it
    decisions = np.concatenate([decide(stored.model, scan[None]) for scan in lesions])
    distances = nearest(chosen, stored.patterns)
    low, high = _numbers(stored, "decision_range", 2)
    (farthest,) = _numbers(stored, "nearest_distance_max", 1)
    # a decision is a sum of rounded terms: another order of summation must not put a training scan out of range
    slack = 1e-9 * max(1.0, abs(low), abs(high))
    ids = [identifiers(scan.name) for scan in scans]
    table = pd.DataFrame(
        {
            "participant_id": [each["participant_id"] for each in ids],
            "session_id": [each.get("session_id") for each in ids],
            "scan": [scan.name for scan in scans],
            "prediction": np.where(decisions >= 0, *stored.levels),
            "decision_value": decisions,
            "lesion_volume_mni_ml": lesions.sum(axis=1) * brain_grid(3).voxel_ml,
            "n_voxels": len(stored.model.voxels),
            "voxels_hit": chosen.sum(axis=1),
            "nearest_training_distance": distances.astype(int),
            "out_of_range": (decisions < low - slack) | (decisions > high + slack) | (distances > farthest),
            "lesion_free": ~lesions.any(axis=1),
            "model_digest": stored.digest,
        }
    )
    return table[list(COLUMNS)]


def write(table: pd.DataFrame, output_dir: Path) -> Path:
    """Write ``phenotype/bids_app_predictions.tsv`` and its sidecar; return the table's path.

    Rows of earlier runs stay where this table has no row of the scan.

    Raises
    ------
    BadInputError
        The table of earlier runs cannot be read.
    """
    path = output_dir / f"{TABLE}.tsv"
    if path.exists():
        before = files.read_tsv(path, required=tuple(COLUMNS))
        others = before[~before["scan"].isin(table["scan"])]
        table = pd.concat([part.astype(object) for part in (others, table) if len(part)] or [table])
    files.write_tsv(path, table[list(COLUMNS)].sort_values("scan"))
    about: dict[str, object] = {
        "MeasurementToolMetadata": {
            "Description": f"{APP} {__version__}: support vector machine on lesions of brain FLAIR, one row a scan. "
            "Research software, no medical device; valid only where other diseases have been excluded."
        }
    }
    files.write_json(output_dir / f"{TABLE}.json", about | COLUMNS)
    return path


def read(output_dir: Path) -> list[dict[str, object]]:
    """Return the rows that a report shows, without the model's digest; none where nothing was predicted."""
    path = output_dir / f"{TABLE}.tsv"
    if not path.exists():
        return []
    table = files.read_tsv(path, required=tuple(COLUMNS)).drop(columns="model_digest")
    return [{str(key): value for key, value in row.items()} for row in table.fillna("").to_dict("records")]


def _numbers(stored: StoredModel, key: str, count: int) -> tuple[float, ...]:
    """Return numbers from what the model says of its training data."""
    values = np.ravel(np.asarray(stored.training.get(key, ()), dtype=object))
    if len(values) != count or not all(isinstance(value, (int, float)) for value in values):
        raise BadInputError(f"its training data lack {key}", "model.json", "train the model again")
    return tuple(float(value) for value in values)
