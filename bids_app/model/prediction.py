"""A stored model applied to new scans: each scan's group, how sure, and how far it is from the training data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bids_app import __version__
from bids_app.bids.names import APP, Scan, set_output
from bids_app.cohort import beliefs, covariates, lesion_maps
from bids_app.cohort.covariates import identifiers
from bids_app.errors import BadInputError
from bids_app.files import formats
from bids_app.image.atlas import brain_grid
from bids_app.model import deciding, explanation
from bids_app.model.storage import nearest
from bids_app.recommended import calibration, neighbours
from bids_app.recommended.features import lesion_free
from bids_app.records.lesions import BeliefLimit
from bids_app.records.machines import Beside, Cells, Number
from bids_app.records.recommended import LinearModel, Neighbour
from bids_app.records.results import StoredModel, StoredPredictor
from bids_app.rivals.belief import above

TABLE = set_output("predictions")
CALIBRATED = "all models but published and leakage-free"
COLUMNS: dict[str, dict[str, object]] = {
    "participant_id": {"Description": "Participant"},
    "session_id": {"Description": "Session"},
    "scan": {"Description": "Entities of the scan's file name"},
    "prediction": {"Description": "Group: the positive one if decision_value is at least 0"},
    "decision_value": {"Description": "Decision value of the model; no probability"},
    "probability": {"Description": f"Of the positive group, at this prevalence; {CALIBRATED}"},
    "prevalence": {"Description": "Share of the positive group among those asked about that the probability assumes"},
    "conformal_set": {
        "Description": f"Groups that the scan may belong to, at the model's coverage; {CALIBRATED}",
        "Levels": {"both": "no decision: either group", "none": "no decision: unlike both groups"},
    },
    "reasons": {
        "Description": "Linear models: what lesions in named places, covariates, the lesion volume and the intercept "
        "add to decision_value; of models on belief, what is above its limit. Others: decision_value minus that "
        "without the lesion, for the lesions that change it most. Left and right as on the template",
    },
    "lesion_volume_mni_ml": {
        "Description": "Lesions inside the template's brain; not of models on belief, which look at no lesion map",
        "Units": "ml",
    },
    "nearest_scans": {
        "Description": "The three training scans of either group whose lesions are most alike, with their distance: "
        f"that of square roots of smoothed, folded maps; {CALIBRATED}",
    },
    "n_voxels": {"Description": "Voxels that a published or leakage-free model looks at"},
    "voxels_hit": {"Description": "Those of them that are lesioned"},
    "nearest_training_distance": {
        "Description": "Of those, how many differ from the most similar training scan; other models: the "
        "distance of the first of nearest_scans",
    },
    "out_of_range": {
        "Description": "Decision value outside the training scans', or farther from the nearest training scan than "
        "any training scan is from its own nearest, in lesions or in belief: the prediction is an extrapolation",
        "Levels": {"True": "extrapolation", "False": "within the training data"},
    },
    "lesion_free": {
        "Description": "No lesion inside the template's brain: the prediction says nothing about lesions; not of "
        "models on belief",
        "Levels": {"True": "no lesion", "False": "some lesion"},
    },
    "model_digest": {"Description": "SHA-256 of the model that predicted this row"},
}
NUMBERS = ("decision_value", "probability", "prevalence", "lesion_volume_mni_ml", "nearest_training_distance")


def predict(
    stored: StoredModel | StoredPredictor,
    scans: Sequence[Scan],
    output_dir: Path,
    cache_dir: Path,
    nprocs: int = 1,
    prevalence: float | None = None,
    bids_dir: Path | None = None,
) -> pd.DataFrame:
    """Return one row a scan, with the columns of `COLUMNS`; those that a model has nothing for are missing.

    Parameters
    ----------
    stored : StoredModel or StoredPredictor
    scans : sequence of Scan
        Finished at the participant level, in ``output_dir``.
    output_dir, cache_dir, nprocs
        As in `lesion_maps.Source`; lesion maps are taken at the model's own threshold.
    prevalence : float, optional
        Of the probabilities; None: the stored model's.
    bids_dir : Path, optional
        Data set whose tables hold the covariates, for models that look at some.

    Raises
    ------
    MissingInputError, BadInputError
        As `maps_of` and `beside_of`.
    """
    maps = maps_of(stored, scans, output_dir, cache_dir, nprocs)
    beside = beside_of(stored, scans, output_dir, bids_dir)
    of_lesions = not isinstance(stored.purpose.norm, BeliefLimit)
    ids = [identifiers(scan.name) for scan in scans]
    of_scans = {
        "participant_id": [each["participant_id"] for each in ids],
        "session_id": [each.get("session_id") for each in ids],
        "scan": [scan.name for scan in scans],
        "lesion_volume_mni_ml": maps.sum(axis=1) * brain_grid(3).voxel_ml if of_lesions else None,
        "lesion_free": lesion_free(maps) if of_lesions else None,
        "model_digest": stored.digest,
    }
    if isinstance(stored, StoredPredictor):
        table = pd.DataFrame(of_scans | _by_calibrated(stored, maps, beside, prevalence))
    else:
        table = pd.DataFrame(of_scans | _by_voxels(stored, maps))
    return table.reindex(columns=list(COLUMNS))


def maps_of(
    stored: StoredModel | StoredPredictor, scans: Sequence[Scan], output_dir: Path, cache_dir: Path, nprocs: int
) -> np.ndarray:
    """Return maps (N, V) as a model's own were made: lesions at its threshold or against its norm, or belief above it.

    Raises
    ------
    MissingInputError, BadInputError
        As `lesion_maps.load` and `beliefs.load`.
    """
    purpose = stored.purpose
    if isinstance(purpose.norm, BeliefLimit):
        return above(beliefs.load(scans, output_dir), purpose.norm.limit)
    if purpose.norm is not None:
        return beliefs.over_norm(beliefs.load(scans, output_dir), purpose.norm)
    source = lesion_maps.Source(tuple(scans), output_dir, purpose.lesion_map, cache_dir, nprocs)
    return lesion_maps.load(source, purpose.threshold.value, given=purpose.threshold.origin == "given")


def beside_of(
    stored: StoredModel | StoredPredictor, scans: Sequence[Scan], output_dir: Path, bids_dir: Path | None
) -> Beside:
    """Return what else a model looks at: belief maps in the derivatives, covariates in the data set's tables.

    Raises
    ------
    MissingInputError, BadInputError
        As `beliefs.load` and `cells_of`.
    """
    belief = beliefs.load(scans, output_dir) if deciding.looks_at_belief(stored.model) else None
    return Beside(belief, cells_of(stored, scans, bids_dir))


def cells_of(
    stored: StoredModel | StoredPredictor, scans: Sequence[Scan], bids_dir: Path | None
) -> Sequence[Cells] | None:
    """Return the covariates of scans that a model looks at; None where it looks at none.

    Raises
    ------
    MissingInputError, BadInputError
        A column is missing, or holds something else than a number where training saw numbers.
    """
    model = stored.model
    if not isinstance(model, LinearModel) or not model.covariates:
        return None
    if bids_dir is None:
        raise BadInputError("the model looks at covariates", "--model", "give the data set whose tables hold them")
    found = covariates.cells(scans, bids_dir, deciding.covariates_of(model))
    for scan, row in zip(scans, found, strict=True):
        for each in model.covariates:
            if isinstance(each, Number) and not _is_number(row[each.name]):
                what = f"{each.name} of {scan.name} is {row[each.name]!r}, which is no number"
                raise BadInputError(what, bids_dir, "write a number, or n/a where it is unknown")
    return found


def _is_number(cell: str | None) -> bool:
    try:
        return cell is None or math.isfinite(float(cell))
    except ValueError:
        return False


def _by_voxels(stored: StoredModel, lesions: np.ndarray) -> dict[str, object]:
    chosen = lesions[:, stored.model.voxels]
    decisions = deciding.decisions(stored.model, lesions)
    distances = nearest(chosen, stored.patterns)
    low, high = _numbers(stored, "decision_range", 2)
    (farthest,) = _numbers(stored, "nearest_distance_max", 1)
    return {
        "prediction": np.where(decisions >= 0, *stored.purpose.levels),
        "decision_value": decisions,
        "reasons": _reasons(stored, lesions, Beside()),
        "n_voxels": len(stored.model.voxels),
        "voxels_hit": chosen.sum(axis=1),
        "nearest_training_distance": distances.astype(int),
        "out_of_range": _outside(decisions, low, high) | (distances > farthest),
    }


def _by_calibrated(
    stored: StoredPredictor, maps: np.ndarray, beside: Beside, prevalence: float | None
) -> dict[str, object]:
    grid, by = brain_grid(3), stored.calibration
    decisions = deciding.decisions(stored.model, maps, beside)
    sets = calibration.sets(by, decisions, lesion_free(maps), stored.coverage)
    own = neighbours.sketch(maps, grid.data, grid.affine)
    near = [neighbours.nearest(each, stored.seen.sketches, by.positive, stored.seen.scans) for each in own]
    apart = np.array([min(each.distance for group in found.values() for each in group) for found in near])
    names = {(True, False): stored.purpose.levels[0], (False, True): stored.purpose.levels[1], (True, True): "both"}
    assumed = stored.prevalence if prevalence is None else prevalence
    return {
        "prediction": np.where(decisions >= 0, *stored.purpose.levels),
        "decision_value": decisions,
        "probability": calibration.probability(by, decisions, assumed),
        "prevalence": assumed,
        "conformal_set": [names.get((bool(a), bool(b)), "none") for a, b in sets],
        "reasons": _reasons(stored, maps, beside),
        "nearest_scans": [_neighbours(found, stored.purpose.levels) for found in near],
        "nearest_training_distance": apart,
        "out_of_range": _outside(decisions, float(by.decisions.min()), float(by.decisions.max()))
        | (apart > stored.seen.farthest + 1e-6)  # single precision
        | deciding.unlike(stored.model, maps, beside),
    }


def _reasons(stored: StoredModel | StoredPredictor, maps: np.ndarray, beside: Beside) -> list[str]:
    return [explanation.told(explanation.why(stored.model, each, beside.of(k))) for k, each in enumerate(maps)]


def _neighbours(found: Mapping[bool, Sequence[Neighbour]], levels: tuple[str, str]) -> str:
    return "; ".join(
        f"{level}: " + ", ".join(f"{each.scan} {each.distance:.2f}" for each in found[group])
        for level, group in zip(levels, (True, False), strict=True)
    )


def _outside(decisions: np.ndarray, low: float, high: float) -> np.ndarray:
    # a decision is a sum of rounded terms: another order of summation must not put a training scan out of range
    slack = 1e-9 * max(1.0, abs(low), abs(high))
    outside: np.ndarray = (decisions < low - slack) | (decisions > high + slack)
    return outside


def write(table: pd.DataFrame, output_dir: Path) -> Path:
    """Write ``phenotype/bids_app_predictions.tsv`` and its sidecar; return the table's path.

    Rows of earlier runs stay where this table has no row of the scan.

    Raises
    ------
    BadInputError
        The table of earlier runs cannot be read.
    """
    path = output_dir / TABLE
    if path.exists():
        before = formats.read_tsv(path, required=("scan", "decision_value", "model_digest")).reindex(
            columns=list(COLUMNS)
        )
        others = before[~before["scan"].isin(table["scan"])]
        table = pd.concat([part.astype(object) for part in (others, table) if len(part)] or [table])
    formats.write_tsv(path, table[list(COLUMNS)].sort_values("scan"))
    about: dict[str, object] = {
        "MeasurementToolMetadata": {
            "Description": f"{APP} {__version__}: a classifier on lesions of brain FLAIR, one row a scan. "
            "Research software, no medical device; valid only where other diseases have been excluded."
        }
    }
    formats.write_json(path.with_suffix(".json"), about | COLUMNS)
    return path


def read(output_dir: Path) -> list[dict[str, object]]:
    """Return the rows that a report shows, without the model's digest; none where nothing was predicted."""
    path = output_dir / TABLE
    if not path.exists():
        return []
    table = formats.read_tsv(path, required=tuple(COLUMNS)).drop(columns="model_digest").dropna(axis=1, how="all")
    rows = table.fillna("").to_dict("records")
    return [{str(key): _read(str(key), value) for key, value in row.items()} for row in rows]


def _read(column: str, value: object) -> object:
    """Return a cell, a number where the column has numbers (tables are read as text)."""
    try:
        return float(str(value)) if column in NUMBERS else value
    except ValueError:
        return value


def _numbers(stored: StoredModel, key: str, count: int) -> tuple[float, ...]:
    """Return numbers from what the model says of its training data."""
    values = np.ravel(np.asarray(stored.training.get(key, ()), dtype=object))
    if len(values) != count or not all(isinstance(value, (int, float)) for value in values):
        raise BadInputError(f"its training data lack {key}", "model.json", "train the model again")
    return tuple(float(value) for value in values)
