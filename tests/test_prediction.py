"""Predictions of new scans, by a model stored and read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rbf import fit
from scipy import ndimage

from bids_app.bids.names import Scan
from bids_app.errors import BadInputError
from bids_app.files import formats
from bids_app.image.atlas import brain_grid, on_grid
from bids_app.learning import classifier
from bids_app.model import explanation, prediction, storage
from bids_app.records.cohort import Threshold
from bids_app.records.recommended import Purpose
from bids_app.records.results import StoredModel

GRID = brain_grid(3)
V = int(GRID.data.sum())
VOXELS = np.random.default_rng(1).permutation(V)[:21]
N = 30


@pytest.fixture(scope="module")
def training() -> np.ndarray:
    rng = np.random.default_rng(0)
    lesions = np.zeros((N, V), bool)
    lesions[:, VOXELS] = rng.random((N, len(VOXELS))) < np.where(np.arange(N) % 2, 0.3, 0.1)[:, None]
    lesions[:, :50] |= rng.random((N, 50)) < 0.2
    return lesions


@pytest.fixture(scope="module")
def stored(training: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    model = fit(training, np.arange(N) % 2 == 1, VOXELS, C=1.0, gamma=0.125)
    return storage.save(
        model,
        tmp_path_factory.mktemp("model"),
        purpose=Purpose(("MS", "other"), Threshold(0.3, "training"), "published"),
        protocol="published",
        training={},
        train_lesions=training[:, VOXELS],
    )


def store(root: Path, name: str, lesions: np.ndarray, **about: float) -> Scan:
    scan = Scan(tuple(tuple(part.split("-")) for part in name.split("_")), "")  # type: ignore[misc]
    path = root / scan.output("lesion_mni")
    mask = np.zeros(GRID.data.shape, bool)
    mask[GRID.data] = lesions
    formats.write_nifti(path, mask, GRID.affine)
    formats.write_json(path.with_name(path.name.split(".")[0] + ".json"), about)
    return scan


def test_training_scans_are_predicted_as_in_training_and_in_range(
    tmp_path: Path, training: np.ndarray, stored: StoredModel
) -> None:
    scans = [store(tmp_path, f"sub-{i:02d}_ses-1", training[i], Threshold=0.3) for i in range(N)]
    table = prediction.predict(stored, scans, tmp_path, tmp_path / "cache", 1)
    decisions = classifier.decide(stored.model, training)
    np.testing.assert_allclose(table["decision_value"], decisions, rtol=0, atol=1e-9)
    assert table["prediction"].tolist() == ["MS" if value >= 0 else "other" for value in decisions]
    assert set(table["prediction"]) == {"MS", "other"}
    assert list(table) == list(prediction.COLUMNS)
    assert table["participant_id"][3] == "sub-03" and table["session_id"][3] == "ses-1"
    assert not table["out_of_range"].any()
    assert (table["nearest_training_distance"] == 0).all()
    np.testing.assert_array_equal(table["voxels_hit"], training[:, VOXELS].sum(axis=1))
    np.testing.assert_allclose(table["lesion_volume_mni_ml"], training.sum(axis=1) * 0.027)
    np.testing.assert_array_equal(table["lesion_free"], training.sum(axis=1) == 0)
    assert set(table["model_digest"]) == {stored.digest} and set(table["n_voxels"]) == {21}


def test_a_scan_unlike_all_others_is_flagged_and_so_is_one_without_lesions(
    tmp_path: Path, training: np.ndarray, stored: StoredModel
) -> None:
    far = np.zeros(V, bool)
    far[VOXELS] = True
    distance = int((~training[:, VOXELS]).sum(axis=1).min())
    assert distance > stored.training["nearest_distance_max"]  # type: ignore[operator]
    elsewhere = np.zeros(V, bool)
    elsewhere[np.setdiff1d(np.arange(V), VOXELS)[:7]] = True
    names = ("sub-1", "sub-2", "sub-3")
    made = (far, np.zeros(V, bool), elsewhere)
    scans = [store(tmp_path, name, map_, Threshold=0.3) for name, map_ in zip(names, made, strict=True)]
    table = prediction.predict(stored, scans, tmp_path, tmp_path / "cache").set_index("scan")
    assert table.loc["sub-1", "out_of_range"]
    assert table.loc["sub-1", "nearest_training_distance"] == distance
    assert table["lesion_free"].tolist() == [False, True, False]
    assert table["voxels_hit"].tolist() == [int(far.sum()), 0, 0]
    assert table.loc["sub-2", "decision_value"] == table.loc["sub-3", "decision_value"]
    assert table["session_id"].isna().all()


def test_maps_at_another_threshold_are_refused(tmp_path: Path, training: np.ndarray, stored: StoredModel) -> None:
    scan = store(tmp_path, "sub-1", training[0], Threshold=0.32)
    with pytest.raises(BadInputError, match=r"sub-1: no belief map to threshold at 0\.3"):
        prediction.predict(stored, [scan], tmp_path, tmp_path / "cache")


def test_rows_of_earlier_runs_stay_and_those_of_the_same_scan_are_replaced(
    tmp_path: Path, training: np.ndarray, stored: StoredModel
) -> None:
    scans = [store(tmp_path, f"sub-{i}_ses-a", training[i], Threshold=0.3) for i in range(4)]
    table = prediction.predict(stored, scans, tmp_path, tmp_path / "cache")
    path = prediction.write(table.iloc[[3, 0, 1]], tmp_path)
    changed = table.iloc[1:3].assign(decision_value=[7.0, 8.0])
    assert prediction.write(changed, tmp_path) == path == tmp_path / "phenotype/bids_app_predictions.tsv"
    read = pd.read_csv(path, sep="\t")
    assert list(read) == list(prediction.COLUMNS)
    assert read["scan"].tolist() == [f"sub-{i}_ses-a" for i in range(4)]
    wanted = [table["decision_value"][0], 7.0, 8.0, table["decision_value"][3]]
    np.testing.assert_allclose(read["decision_value"], wanted, rtol=1e-9)
    once = path.read_bytes()
    prediction.write(changed, tmp_path)
    assert path.read_bytes() == once
    about = formats.read_json(path.with_suffix(".json"))
    assert set(about) == {"MeasurementToolMetadata", *prediction.COLUMNS}
    assert all(about[name]["Description"] for name in about)
    formats.write_text(path, "nothing\n1\n")
    with pytest.raises(BadInputError, match=r"bids_app_predictions\.tsv"):
        prediction.write(changed, tmp_path)


def test_leaving_a_lesion_out_is_the_difference_of_two_decisions(training: np.ndarray, stored: StoredModel) -> None:
    scan = training[5]
    found = explanation.leave_out(stored.model, scan)
    assert found.decision == classifier.decide(stored.model, scan[None])[0]
    assert len(found.lesions) > 3 and len({each.change for each in found.lesions}) > 1
    assert sum(each.volume_ml for each in found.lesions) == pytest.approx(scan.sum() * GRID.voxel_ml)
    assert [abs(each.change) for each in found.lesions] == sorted(
        (abs(each.change) for each in found.lesions), reverse=True
    )
    inside = np.linalg.inv(GRID.affine)
    components, _ = ndimage.label(on_grid(scan).data, np.ones((3, 3, 3)))
    for each in (found.lesions[0], found.lesions[-1]):
        # an oracle that knows nothing of components: take away the voxels whose part in the map is this lesion's
        near = np.round(inside @ [*each.centre, 1])[:3].astype(int)
        number = components[tuple(near)]
        if not number:  # the middle of a bent lesion may lie outside it
            continue
        rest = scan & (components[GRID.data] != number)
        gone = classifier.decide(stored.model, np.stack([scan, rest]))
        assert each.change == pytest.approx(gone[0] - gone[1], abs=1e-12)
        side = "left" if each.centre[0] < 0 else "right"
        assert each.place.endswith(side) or abs(each.centre[0]) < 3


def test_a_lesion_where_the_model_does_not_look_changes_nothing(stored: StoredModel) -> None:
    scan = np.zeros(V, bool)
    scan[np.setdiff1d(np.arange(V), VOXELS)[:1]] = True
    found = explanation.leave_out(stored.model, scan)
    assert [each.change for each in found.lesions] == [0.0] and explanation.lesion_words(
        found
    ) == "no lesion changes it"
    assert explanation.leave_out(stored.model, np.zeros(V, bool)).lesions == ()
