"""Models that look at belief, covariates or volumes: what is stored decides as what competed, and needs no more."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from test_calibrated_model import again
from test_rivals import people_of

from bids_app.bids.names import Scan, model_folder
from bids_app.cohort import beliefs, labels, selected
from bids_app.errors import BadInputError
from bids_app.files import arrays as npz
from bids_app.files import formats
from bids_app.image import atlas
from bids_app.image.atlas import brain_grid, on_grid
from bids_app.learning.protocols import Plan
from bids_app.model import calibrated, deciding, prediction
from bids_app.participant import reasons
from bids_app.phantom import further
from bids_app.phantom.cohort import draw_cohort
from bids_app.phantom.dataset import write_cohort
from bids_app.recommended import machine, rivals
from bids_app.recommended.products import products
from bids_app.records.machines import Beside, Number, Word
from bids_app.records.recommended import LinearModel
from bids_app.records.results import StoredPredictor
from bids_app.rivals import belief, clinical, cnn
from bids_app.rivals.volumes import Maps

Run = Callable[..., int]
QUICK = ("--lesion-threshold", "0.32", "--cv-folds", "3", "--refine-limit", "1", "--bootstrap-draws", "60")
NESTED = ("--nested-folds", "3", "--repeats", "1", "--report-viewer", "none", "--coverage", "0.8")
COVARIATES = ("age_at_onset", "sex")
TORCH = find_spec("torch") is not None
ON_BELIEF, CLINICAL = ("recommended, belief", "leakage-free, belief"), ("recommended, covariates", "covariates alone")
NAMES = (*ON_BELIEF, *CLINICAL, *(("cnn",) if TORCH else ()))
SUMS = ("recommended, belief", *CLINICAL)  # of parts


@pytest.fixture(scope="module", autouse=True)
def few_epochs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cnn, "MOST", 4)
        yield


@pytest.fixture(scope="module")
def data(run_app: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("further")
    cohort = draw_cohort(n_participants=(14, 11), n_scans=(24, 18), seed=4)
    write_cohort(cohort, root / "bids", root / "out")
    further.write_beliefs(root / "out", cohort, 4)
    people = pd.read_csv(root / "bids/participants.tsv", sep="\t", dtype=str)
    people.loc[2, "age_at_onset"] = people.loc[5, "sex"] = np.nan
    people.to_csv(root / "bids/participants.tsv", sep="\t", index=False, na_rep="n/a")
    words = ("--features", "belief", "--covariates", *COVARIATES, *(("--compare", "cnn") if TORCH else ()))
    assert run_app(root / "bids", root / "out", "group", *QUICK, *NESTED, *words) == 0
    return root


@pytest.fixture(scope="module")
def stored(data: Path) -> dict[str, StoredPredictor]:
    return {name: calibrated.load(data / "out" / model_folder(name)) for name in NAMES}


@pytest.fixture(scope="module")
def scans(data: Path) -> list[Scan]:
    return labels.find_maps(data / "out")


def _tested(name: str, data: Path, found: StoredPredictor) -> Any:
    """Return the recipe of the table, trained on all scans anew and asked about all of them."""
    grid, out = brain_grid(3), data / "out"
    levels = found.purpose.levels
    labelled = labels.label(labels.find_maps(out), labels.Tables(data / "bids", out, None, levels))
    lesions = np.stack(
        [formats.read_nifti(out / scan.output("lesion_mni"))[0][grid.data] > 0 for scan in labelled.scans]
    )
    people = people_of(lesions, labelled.participants, labelled.positive)
    values, everybody = beliefs.load(labelled.scans, out), np.arange(len(lesions))
    above = belief.above(values, belief.limit(values, people.person))
    if name == "cnn":
        return cnn.recipe(Maps(grid.data, lesions, values), people, 3)(everybody, everybody, 0)
    of = selected.covariates(labelled.table, COVARIATES)
    if name == "covariates alone":
        return clinical.alone(of, people, 3)(everybody, everybody, 0)
    maps = above if name in ON_BELIEF else lesions
    people = people.untied()
    if name == "leakage-free, belief":
        return belief.welch_svm(above, people, Plan(3, 1, "smo", 60, 0))(everybody, everybody, 0)
    made = replace(products(maps, labelled.participants, grid.data, grid.affine), lesion_free=people.lesion_free)

    def by_maps(trained: machine.Trained) -> LinearModel:
        return machine.model_of(trained, made, maps, grid.data, grid.affine)

    if name == "recommended, covariates":
        return clinical.beside_lesions(made, of, people, 3, by_maps)(everybody, everybody, 0)
    return rivals.recommended(made, people.positive, people.person, 3, by_maps)(everybody, everybody, 0)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_stored_predicts_as_the_recipe_of_the_table_decides(
    name: str,
    data: Path,
    stored: dict[str, StoredPredictor],
    scans: list[Scan],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = stored[name]
    tested = _tested(name, data, found)
    monkeypatch.setitem(sys.modules, "torch", None)  # from here on an import of it fails
    table = prediction.predict(found, scans, data / "out", tmp_path, bids_dir=data / "bids")
    assert np.ptp(table["decision_value"]) > 0.01
    np.testing.assert_allclose(table["decision_value"], tested.decisions, rtol=0, atol=2e-4)  # in single precision
    for key, value in vars(tested.calibration).items():
        np.testing.assert_allclose(getattr(found.calibration, key), value, atol=1e-9, err_msg=key)
    assert found.protocol == name and set(table["conformal_set"]) <= {"RRMS", "NMOSD", "both", "none"}
    of_lesions = table[["lesion_volume_mni_ml", "lesion_free"]]
    assert of_lesions.isna().all(axis=None) if name in ON_BELIEF else not of_lesions.isna().any(axis=None)
    assert not table[["probability", "nearest_scans", "reasons"]].isna().any(axis=None)
    for row in table.itertuples() if name in SUMS else ():
        parts = [float(part.rsplit(" ", 1)[1]) for part in str(row.reasons).split("; ")]
        assert sum(parts) == pytest.approx(row.decision_value, abs=0.005 * (len(parts) + 1))
    if name in CLINICAL:
        told = dict(zip(table["participant_id"], table["reasons"], strict=True))
        people = pd.read_csv(data / "bids/participants.tsv", sep="\t", dtype=str)["participant_id"]
        assert "age_at_onset unknown" in told[people[2]] and "sex unknown" in told[people[5]]
        assert "unknown" not in told[people[0]]


def test_a_scan_alone_and_among_others_is_decided_alike(
    data: Path, stored: dict[str, StoredPredictor], scans: list[Scan], tmp_path: Path
) -> None:
    for found in stored.values():
        among = prediction.predict(found, scans[:5], data / "out", tmp_path, bids_dir=data / "bids")
        alone = prediction.predict(found, scans[3:4], data / "out", tmp_path, bids_dir=data / "bids")
        assert among["decision_value"][3] == alone["decision_value"][0]


@pytest.mark.parametrize("name", NAMES)
def test_the_contribution_map_holds_the_parts_or_what_each_lesion_changes(
    name: str, data: Path, stored: dict[str, StoredPredictor], scans: list[Scan], tmp_path: Path
) -> None:
    found, out = stored[name], data / "out"
    scan = next(each for each in scans if formats.read_nifti(out / each.output("lesion_mni"))[0].sum() > 20)
    shutil.copytree(out / scan.folder, tmp_path / scan.folder)
    reasons.write(found, [scan], tmp_path, tmp_path / "cache", 1, data / "bids")
    path = tmp_path / scan.output("contribution")
    values, said = formats.read_nifti(path)[0], formats.read_json(formats.sidecar(path))
    sources = {"recommended, covariates": 1, "covariates alone": 1, "cnn": 2}.get(name, 1)
    assert len(said["Sources"]) == sources and (scan.output("belief_mni") in said["Sources"][-1]) == (
        name not in CLINICAL
    )
    assert (tmp_path / scan.figure(reasons.FIGURE)).read_bytes().startswith(b"\x89PNG")
    if name in SUMS:
        more = sum(said.get("Covariates", {}).values())
        total = values.sum(dtype=float) + said["VolumePart"] + said["Intercept"] + more
        assert total == pytest.approx(said["DecisionValue"], abs=1e-4)  # the map is in single precision
        assert (len(said.get("Covariates", {})) == len(COVARIATES)) == (name in CLINICAL)
        return
    (maps,) = prediction.maps_of(found, [scan], out, tmp_path, 1)
    beside = prediction.beside_of(found, [scan], out, data / "bids")
    numbers, count = ndimage.label(on_grid(maps > 0).data, np.ones((3, 3, 3)))
    inside = numbers[brain_grid(3).data]
    assert len(said["Lesions"]) == count > 1 and np.ptp(values) > 0
    for k in range(1, min(count, 30) + 1):
        without = beside
        if beside.belief is not None:
            without = Beside(np.where(inside == k, found.model.mean, beside.belief))  # type: ignore[union-attr]
        left = deciding.decisions(found.model, np.where(inside == k, 0, maps).astype(maps.dtype)[None], without)
        np.testing.assert_allclose(values[numbers == k], said["DecisionValue"] - left[0], atol=1e-6)


@pytest.mark.skipif(not TORCH, reason="torch is not installed: pip install '.[cnn]'")
def test_belief_unlike_that_of_training_is_told(
    data: Path, stored: dict[str, StoredPredictor], scans: list[Scan], tmp_path: Path
) -> None:
    """As on another scanner: the lesion map is the same."""
    found, out = stored["cnn"], data / "out"
    known = prediction.predict(found, scans, out, tmp_path)
    scans = [scan for scan, far in zip(scans, known["out_of_range"], strict=True) if not far][:2]
    for scan in scans:
        shutil.copytree(out / scan.folder, tmp_path / scan.folder)
    path = tmp_path / scans[0].output("belief_mni")
    values, affine = formats.read_nifti(path)
    formats.write_nifti(path, (values + 1).astype(np.float32), affine)
    new = prediction.predict(found, scans, tmp_path, tmp_path)
    assert new["out_of_range"].tolist() == [True, False]


# -- covariates ----------------------------------------------------------------------------------


def test_covariates_of_a_new_scan_add_what_the_pipeline_makes_of_them(data: Path) -> None:
    table = labels.label(
        labels.find_maps(data / "out"), labels.Tables(data / "bids", data / "out", None, ("RRMS", "NMOSD"))
    ).table
    of = selected.covariates(table, COVARIATES)
    training = np.arange(len(table))
    features = clinical.prepared(of, training)
    weights = np.random.default_rng(0).normal(size=features.transform(of.values).shape[1])
    age, sex = clinical.as_parts(of, features, weights)
    assert isinstance(age, Number) and isinstance(sex, Word) and set(sex.adds) == {"F", "M"}
    for number, word in ((31.0, "F"), (55.5, "M"), (None, "F"), (20.0, None), (40.0, "X")):
        codes = {**{each: float(code) for code, each in enumerate(of.words[1])}, None: np.nan, "X": 99.0}
        row = np.array([[np.nan if number is None else number, codes[word]]])
        cells = {"age_at_onset": None if number is None else f"{number:g}", "sex": word}
        added = age.part(cells["age_at_onset"]) + sex.part(cells["sex"])
        assert added == pytest.approx(float((features.transform(row) @ weights)[0]), abs=1e-9)


@pytest.mark.parametrize(
    ("column", "change", "says"),
    [
        ("sex", None, "no column 'sex'"),
        ("age_at_onset", "old", "age_at_onset of sub-"),
        ("age_at_onset", "inf", "which is no number"),
    ],
)
def test_covariates_that_cannot_be_used_are_told_before_anything_begins(
    data: Path,
    run_app: Run,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tiny: Any,
    column: str,
    change: str | None,
    says: str,
) -> None:
    raw = Path(shutil.copytree(tiny[0] if isinstance(tiny, tuple) else tiny, tmp_path / "raw"))
    people = pd.read_csv(raw / "participants.tsv", sep="\t", dtype=str)
    people["age_at_onset"], people["sex"] = "40", "F"
    if change is None:
        people = people.drop(columns=column)
    else:
        people.loc[0, column] = change
    people.to_csv(raw / "participants.tsv", sep="\t", index=False, na_rep="n/a")
    model = data / "out" / model_folder("recommended, covariates")
    assert run_app(raw, tmp_path / "out", "participant", "--model", model, "--skip-bids-validation") == 65
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert says in last and "Traceback" not in last
    assert not list((tmp_path / "out").glob("sub-*"))


# -- tampering -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("leakage-free, belief", {"voxels": lambda each: each - each.max() - 1}, "voxels must be"),
        ("leakage-free, belief", {"voxels": lambda each: np.zeros_like(each)}, "named twice"),
        ("leakage-free, belief", {"support": lambda each: each[:, 1:]}, "do not fit"),
        ("leakage-free, belief", {"gamma": lambda _: -1.0}, "above 0"),
        ("leakage-free, belief", {"unit": lambda _: float("nan")}, "finite"),
        ("leakage-free, belief", {"lesion_map": lambda _: "normative"}, "the norm's rule"),
        ("recommended, belief", {"norm": None}, "lacks its norm"),
        ("recommended, covariates", {"covariates": lambda each: [each[0] | {"slope": float("inf")}]}, "finite"),
        ("recommended, covariates", {"covariates": lambda each: [each[1] | {"adds": 3}]}, "wrong kind"),
        ("cnn", {"kernel_first": lambda each: each[:, :1]}, "does not fit the channels"),
        ("cnn", {"weights": lambda each: each[1:]}, "do not fit the places"),
        ("cnn", {"mean": lambda each: each[1:]}, "mean of belief"),
        ("cnn", {"sd": lambda _: 0.0}, "above 0"),
        ("cnn", {"bias_second": lambda each: each.astype(np.float64)}, "other arrays"),
        ("cnn", {"kernel_second": lambda each: each * np.nan}, "undefined"),
    ],
)
def test_a_model_that_was_tampered_with_is_refused(
    data: Path, tmp_path: Path, name: str, change: dict[str, Callable[[Any], Any] | None], says: str
) -> None:
    if name not in NAMES:
        pytest.skip("torch is not installed: pip install '.[cnn]'")
    place = shutil.copytree(data / "out" / model_folder(name), tmp_path / "changed")
    content = json.loads((place / "model.json").read_text("utf-8"))
    arrays = npz.unpack(place / "model.npz")
    for key, changed in change.items():
        of: dict[str, Any] = arrays if key in arrays else content
        if changed is None:
            del of[key], content["sha256"]["norm.npz"]
        else:
            of[key] = changed(of[key])
    again(place, arrays, content)
    with pytest.raises(BadInputError, match=says):
        calibrated.load(place)


def test_the_limit_of_belief_is_vetted_as_other_arrays(data: Path, tmp_path: Path) -> None:
    place = shutil.copytree(data / "out" / model_folder("recommended, belief"), tmp_path / "changed")
    limit = npz.unpack(place / "norm.npz")["limit"]
    assert limit.shape == (int(atlas.brain_grid(3).data.sum()),)
    content = json.loads((place / "model.json").read_text("utf-8"))
    for spoiled in (limit[1:], limit.astype(np.float32), limit * np.nan):
        formats.write_bytes(place / "norm.npz", npz.pack({"limit": spoiled}))
        content["sha256"]["norm.npz"] = calibrated.seal.file_digest(place / "norm.npz")
        again(place, npz.unpack(place / "model.npz"), content)
        with pytest.raises(BadInputError, match="other arrays than a norm's"):
            calibrated.load(place)
