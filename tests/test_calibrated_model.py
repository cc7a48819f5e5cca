"""The recommended recipe's stored model: what it says is what was trained, and nothing that was changed is used."""

from __future__ import annotations

import io
import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bids_app.errors import BadInputError, MissingInputError
from bids_app.image.atlas import brain_grid
from bids_app.lesions.places import DEFINITIONS, halves
from bids_app.model import calibrated, explanation, seal
from bids_app.model.stored import find
from bids_app.phantom.cohort import draw_cohort, sites
from bids_app.recommended import calibration, machine, neighbours
from bids_app.recommended import linear as additive
from bids_app.recommended.features import projection, roots
from bids_app.recommended.products import products
from bids_app.records.cohort import Cohort, Threshold
from bids_app.records.recommended import Kind, Purpose, Seen
from bids_app.records.results import Predictor

KINDS = (Kind(20.0, True), Kind(8.0, False))


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return draw_cohort(n_participants=(16, 12), n_scans=(24, 16), seed=2)


@pytest.fixture(scope="module")
def trained(cohort: Cohort) -> Predictor:
    grid = brain_grid(3)
    of = products(cohort.lesions, cohort.participants, grid.data, grid.affine, KINDS)
    labels = machine.labels_of(cohort.positive, cohort.participants)
    found = machine.train(of, labels, np.arange(len(labels)), 4, 0)
    model = machine.model_of(found, of, cohort.lesions, grid.data, grid.affine)
    given = Threshold(0.32, "given")
    sketches = neighbours.sketch(cohort.lesions, grid.data, grid.affine)
    seen = Seen(tuple(cohort.names), sketches, neighbours.farthest(sketches, of.person))
    purpose = Purpose(cohort.levels, given, "published")
    return Predictor("recommended", model, found.calibration, seen, purpose, 0.6, 0.9)


@pytest.fixture(scope="module")
def folder(trained: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    calibrated.save(trained, place, {"n_scans": 40})
    return place


def test_what_is_read_is_what_was_written(trained: Predictor, folder: Path) -> None:
    found = calibrated.load(folder)
    assert find(folder) == folder
    assert (found.model.kinds, found.model.volume, found.model.intercept, found.model.settings) == (
        trained.model.kinds,
        trained.model.volume,
        trained.model.intercept,
        trained.model.settings,
    )
    for mine, own in zip(found.model.weights, trained.model.weights, strict=True):
        np.testing.assert_array_equal(mine, own)
    for name, value in vars(trained.calibration).items():
        np.testing.assert_array_equal(getattr(found.calibration, name), value)
    assert found.training["n_scans"] == 40 and len(found.digest) == 64
    assert found.seen.scans == trained.seen.scans and found.seen.farthest == trained.seen.farthest
    np.testing.assert_array_equal(found.seen.sketches, trained.seen.sketches)


def test_equal_models_are_equal_bytes(trained: Predictor, folder: Path, tmp_path: Path) -> None:
    calibrated.save(trained, tmp_path, {"n_scans": 40})
    for name in ("model.json", "model.npz"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def _changed(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / "changed")


@pytest.mark.parametrize("key", ["volume", "prevalence", "lesion_map", "kinds"])
def test_a_changed_word_is_refused(folder: Path, tmp_path: Path, key: str) -> None:
    place = _changed(folder, tmp_path)
    content = json.loads((place / "model.json").read_text("utf-8"))
    content[key] = {"lesion_map": "cleaned", "kinds": content["kinds"][:1]}.get(key, 0.25)
    (place / "model.json").write_text(json.dumps(content), "utf-8")
    with pytest.raises(BadInputError, match="changed after"):
        calibrated.load(place)


def again(place: Path, arrays: dict[str, np.ndarray], content: dict[str, Any] | None = None) -> None:
    """Store other arrays, and other words where they are given, with sums and digest that fit them."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    (place / "model.npz").write_bytes(stream.getvalue())
    content = content or json.loads((place / "model.json").read_text("utf-8"))
    content["sha256"]["model.npz"] = seal.file_digest(place / "model.npz")
    content["digest"] = seal.digest(content)
    (place / "model.json").write_text(json.dumps(content), "utf-8")


@pytest.mark.parametrize("what", ["pickle", "shape", "nan", "type", "missing"])
def test_arrays_that_are_no_model_are_refused(folder: Path, tmp_path: Path, what: str) -> None:
    place = _changed(folder, tmp_path)
    with np.load(place / "model.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays |= {
        "pickle": {"decisions": np.array([{}], object)},
        "shape": {"weights": arrays["weights"][1:]},
        "nan": {"decisions": arrays["decisions"] * np.nan},
        "type": {"decisions": arrays["decisions"].astype(np.float32)},
    }.get(what, {})
    if what == "missing":
        del arrays["weights"]
    again(place, arrays)
    with pytest.raises(BadInputError, match=r"model\.npz"):
        calibrated.load(place)


@pytest.mark.parametrize("fwhm", [float("nan"), -1.0, 1e6])
def test_a_smoothing_that_is_none_is_refused(folder: Path, tmp_path: Path, fwhm: float) -> None:
    """Found by random harm: with an undefined width every decision was undefined."""
    place = _changed(folder, tmp_path)
    content = json.loads((place / "model.json").read_text("utf-8"))
    content["kinds"][0]["fwhm"] = fwhm
    with np.load(place / "model.npz") as stored:
        again(place, {name: stored[name] for name in stored.files}, content)
    with pytest.raises(BadInputError, match="a smoothing of"):
        calibrated.load(place)


def test_a_missing_file_and_another_version_are_told(folder: Path, tmp_path: Path) -> None:
    place = _changed(folder, tmp_path)
    (place / "model.npz").unlink()
    with pytest.raises(MissingInputError):
        calibrated.load(place)
    content = json.loads((place / "model.json").read_text("utf-8")) | {"format_version": 99}
    (place / "model.json").write_text(json.dumps(content), "utf-8")
    with pytest.raises(BadInputError, match="format_version is 99"):
        calibrated.load(place)


def test_reasons_sum_to_the_decision(trained: Predictor, cohort: Cohort) -> None:
    grid = brain_grid(3)
    for scan in cohort.lesions[:6]:
        decision = additive.decisions(trained.model, scan[None], grid.data, grid.affine)[0]
        found = explanation.explain(trained.model, scan)
        assert abs(found.decision - decision) < 1e-9
        assert abs(sum(found.places.values()) + found.volume + found.intercept - decision) < 1e-9
        told = [float(part.rsplit(" ", 1)[1]) for part in explanation.words(found).split("; ")]
        assert sum(told) == pytest.approx(decision, abs=0.005 * (len(told) + 1))


def test_places_cover_the_brain_once_and_hold_what_they_are_called() -> None:
    found = explanation.template_places()
    assert list(found) == list(DEFINITIONS)
    assert (np.sum(list(found.values()), axis=0) == 1).all()
    grid, where = brain_grid(3), sites()
    left, right = halves(grid.data, grid.affine).values()
    assert (left ^ right).all()
    for place, site, share in (
        ("brainstem", "brainstem", 0.5),
        ("corpus callosum", "callosal", 0.9),
        ("diencephalon", "diencephalon", 0.7),
        ("periventricular white matter", "periventricular", 0.8),
        ("other white matter", "deep", 0.7),
    ):
        assert (found[place] & where[site]).sum() > share * where[site].sum(), place
    litres = {name: inside.sum() * grid.voxel_ml for name, inside in found.items()}
    assert 20 < litres["brainstem"] < 80 and 90 < litres["cerebellum"] < 260 and 90 < litres["temporal lobe"] < 420


def test_lesions_drawn_in_one_place_are_told_of_that_place(trained: Predictor) -> None:
    grid = brain_grid(3)
    left = halves(grid.data, grid.affine)["left"]
    scan = explanation.template_places()["brainstem"] & left
    found = explanation.explain(trained.model, scan)
    others = [abs(value) for name, value in found.places.items() if name != "brainstem, left"]
    assert max(others) == 0 and found.places["brainstem, left"] != 0


def test_probability_and_sets_come_from_the_stored_calibration(trained: Predictor, folder: Path) -> None:
    found = calibrated.load(folder)
    values = np.linspace(-2, 2, 9)
    np.testing.assert_array_equal(
        calibration.probability(found.calibration, values), calibration.probability(trained.calibration, values)
    )
    with pytest.raises(BadInputError, match="shares"):
        replace(found, coverage=1.5)


def test_a_training_scan_is_its_own_nearest_and_none_is_far(trained: Predictor, cohort: Cohort) -> None:
    seen, positive = trained.seen, trained.calibration.positive
    row = int(np.flatnonzero(cohort.lesions.any(axis=1))[0])
    found = neighbours.nearest(seen.sketches[row], seen.sketches, positive, seen.scans)
    own = found[bool(positive[row])]
    assert own[0].scan == seen.scans[row] and own[0].distance < 1e-3
    assert all(a.distance <= b.distance for a, b in itertools.pairwise(own)) and len(own) == 3
    person = cohort.participants
    apart = neighbours.distances(seen.sketches, seen.sketches)
    closest = [apart[k, person != person[k]].min() for k in range(len(person))]
    assert seen.farthest == pytest.approx(max(closest))


def test_a_sketch_is_as_far_apart_as_the_whole_features(cohort: Cohort) -> None:
    """Every third voxel of maps smoothed at 20 mm stands for all: distances are proportional."""
    grid = brain_grid(3)
    some = cohort.lesions[cohort.lesions.any(axis=1)][:12]
    whole = np.concatenate([values for _, values in roots(projection(grid.data, grid.affine, neighbours.KIND), some)])
    pairs = np.triu_indices(len(some), 1)
    coarse = neighbours.distances(*[neighbours.sketch(some, grid.data, grid.affine)] * 2)[pairs]
    fine = neighbours.distances(whole, whole)[pairs]
    seen = fine > 0.1 * fine.max()
    ratio = coarse[seen] / fine[seen]
    assert ratio.std() < 0.1 * ratio.mean()
