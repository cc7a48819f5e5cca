"""Rivals' models: what is stored is the machine that competed, trained on all scans, and predicts as it decides."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from test_recommended import AFFINE, MASK, draw
from test_rivals import _l1, _svm, people_of

from bids_app.bids.names import Scan, group_output, model_folder
from bids_app.cohort import labels
from bids_app.errors import BadInputError, BidsAppError
from bids_app.files import formats
from bids_app.group import entrants
from bids_app.image.atlas import brain_grid
from bids_app.model import linear, prediction
from bids_app.model.stored import load
from bids_app.participant import reasons
from bids_app.phantom.cohort import draw_cohort
from bids_app.phantom.dataset import write_cohort
from bids_app.recommended import linear as additive
from bids_app.recommended import nested, rivals
from bids_app.recommended.features import log_volume
from bids_app.recommended.nested import Recipe
from bids_app.records.cohort import Cohort
from bids_app.records.results import StoredLinear
from bids_app.report.recommended_sections import ALWAYS_STORED, WITHOUT
from bids_app.rivals import chosen, voxels
from bids_app.rivals.chosen import People

Run = Callable[..., int]
QUICK = ("--lesion-threshold", "0.32", "--cv-folds", "3", "--refine-limit", "1", "--bootstrap-draws", "60")
NESTED = ("--nested-folds", "3", "--repeats", "1", "--report-viewer", "none", "--coverage", "0.8")
COMPARED = ("linear-svm", "l1-logistic")
NAMES = ("lesion volume", *COMPARED)


def _volume(maps: np.ndarray, people: People) -> Recipe:
    return rivals.volume(log_volume(maps), people.positive, people.person)


# -- the machine and its model -------------------------------------------------------------------


@pytest.mark.parametrize("make", [_volume, _svm, _l1])
def test_a_model_decides_as_its_machine_on_training_and_test_scans(make: Callable[..., Recipe]) -> None:
    maps, names, positive = draw()
    recipe = make(maps, people_of(maps, names, positive))
    everybody = np.arange(len(maps))
    tested = recipe(everybody[:60], everybody, 0)
    model = tested.model()
    values = additive.decisions(model, maps, MASK, AFFINE)
    assert np.ptp(values) > 0.1
    np.testing.assert_allclose(values, tested.decisions, rtol=0, atol=1e-9)
    assert model.intercept == pytest.approx(tested.calibration.at_zero, abs=1e-9)
    for scan, value in zip(maps[:9], values, strict=False):
        parts = additive.contributions(model, scan, MASK, AFFINE)
        assert not parts[~scan].any()
        assert parts.sum() + additive.volume_part(model, scan) + model.intercept == pytest.approx(value, abs=1e-9)


def test_a_recipe_without_a_model_says_so() -> None:
    with pytest.raises(BadInputError, match="no model is stored"):
        nested.Tested(np.zeros(1), None, None).model()  # type: ignore[arg-type]


def test_of_every_recipe_a_model_is_stored_or_it_is_said_why_not() -> None:
    stored, without = {*entrants.STORED, *ALWAYS_STORED}, set(WITHOUT)
    assert not stored & without
    assert stored | without == {*entrants.RECIPES, "published", "recommended, one site left out"}
    assert len({model_folder(name) for name in stored}) == len(stored)


# -- from end to end -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return draw_cohort(n_participants=(14, 11), n_scans=(24, 18), seed=4)


@pytest.fixture(scope="module")
def out(cohort: Cohort, run_app: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kept")
    write_cohort(cohort, root / "bids", root / "out")
    assert run_app(root / "bids", root / "out", "group", *QUICK, *NESTED, "--compare", *COMPARED) == 0
    return root / "out"


@pytest.fixture(scope="module")
def stored(out: Path) -> dict[str, StoredLinear]:
    return {name: linear.load(out / model_folder(name)) for name in NAMES}


def _recipe(name: str, cohort: Cohort) -> Recipe:
    people = people_of(cohort.lesions, cohort.participants, cohort.positive)
    if name == "linear-svm":
        return voxels.linear_svm(cohort.lesions, voxels.gram(cohort.lesions), people, 3)
    return voxels.l1_logistic(cohort.lesions, people, 3) if name in COMPARED else _volume(cohort.lesions, people)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_stored_is_the_recipe_of_the_table_on_all_scans(
    name: str, stored: dict[str, StoredLinear], cohort: Cohort
) -> None:
    everybody, grid, found = np.arange(len(cohort.scans)), brain_grid(3), stored[name]
    tested = _recipe(name, cohort)(everybody, everybody, 0)
    values = additive.decisions(found.model, cohort.lesions, grid.data, grid.affine)
    np.testing.assert_allclose(values, tested.decisions, rtol=0, atol=1e-9)
    for key, value in vars(tested.calibration).items():
        np.testing.assert_array_equal(getattr(found.calibration, key), value, err_msg=key)
    assert found.protocol == name and found.training["chosen"] == tested.chosen
    assert found.purpose.lesion_map == "published" and found.coverage == 0.8


@pytest.mark.parametrize("name", COMPARED)
def test_it_is_scikit_learns_machine_on_the_voxels(name: str, stored: dict[str, StoredLinear], cohort: Cohort) -> None:
    weights = chosen.balanced(cohort.positive, np.unique(cohort.participants, return_inverse=True)[1])
    cost = stored[name].training["chosen"]["C"]  # type: ignore[index]
    maps: Any = sparse.csr_matrix(cohort.lesions, dtype=float)
    if name == "linear-svm":
        shared = (maps @ maps.T).toarray()
        maps = shared / (np.trace(shared) / len(shared) - shared.mean())
        machine: Any = SVC(kernel="precomputed", C=cost)
    else:
        machine = LogisticRegression(
            C=cost, l1_ratio=1.0, solver="liblinear", intercept_scaling=voxels.INTERCEPT, random_state=0
        )
    wanted = machine.fit(maps, cohort.positive, sample_weight=weights).decision_function(maps)
    grid = brain_grid(3)
    values = additive.decisions(stored[name].model, cohort.lesions, grid.data, grid.affine)
    np.testing.assert_allclose(values, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_it_predicts_as_the_recommended_model_does(
    name: str, out: Path, stored: dict[str, StoredLinear], cohort: Cohort, tmp_path: Path
) -> None:
    scans, found = labels.find_maps(out), load(out / model_folder(name))
    assert isinstance(found, StoredLinear)
    table = prediction.predict(found, scans, out, tmp_path)
    rows = [cohort.names.index(scan.name) for scan in scans]
    grid = brain_grid(3)
    values = additive.decisions(stored[name].model, cohort.lesions[rows], grid.data, grid.affine)
    np.testing.assert_array_equal(table["decision_value"], values)
    by = found.calibration
    np.testing.assert_allclose(table["probability"], 1 / (1 + np.exp(-(by.slope * values + by.offset))))
    assert set(table["conformal_set"]) <= {"RRMS", "NMOSD", "both", "none"}
    assert not table[["nearest_scans", "reasons"]].isna().any(axis=None)
    for row in table.itertuples():
        parts = [float(part.rsplit(" ", 1)[1]) for part in str(row.reasons).split("; ")]
        assert sum(parts) == pytest.approx(row.decision_value, abs=0.005 * (len(parts) + 1))


def _lesions(out: Path, scan: Scan) -> bool:
    return bool(formats.read_nifti(out / scan.output("lesion_mni"))[0].any())


@pytest.mark.parametrize("name", NAMES)
def test_its_contribution_map_sums_to_the_decision(name: str, out: Path, tmp_path: Path) -> None:
    found, scan = load(out / model_folder(name)), next(each for each in labels.find_maps(out) if _lesions(out, each))
    shutil.copytree(out / scan.folder, tmp_path / scan.folder)
    reasons.write(found, [scan], tmp_path, tmp_path / "cache", 1)
    path = tmp_path / scan.output("contribution")
    said = formats.read_json(formats.sidecar(path))
    total = formats.read_nifti(path)[0].sum(dtype=float) + said["VolumePart"] + said["Intercept"]
    assert total == pytest.approx(said["DecisionValue"], abs=1e-4)  # the map is in single precision
    assert said["ModelDigest"] == found.digest


def test_report_and_model_card_tell_which_models_there_are(out: Path) -> None:
    metrics = json.loads((out / group_output("metrics")).read_text("utf-8"))
    rows = {name: row["auc"]["value"] for name, row in metrics["recipes"]["rows"].items()}
    page = re.sub(r"\s+", " ", (out / group_output("report")).read_text("utf-8"))
    card = (out / group_output("model_card")).read_text("utf-8")
    for name in rows:
        assert f"{name} (<code>{model_folder(name)}</code>)" in page and (out / model_folder(name)).is_dir()
    assert "No model is stored of" not in page
    best = max((name for name in rows if name != "published"), key=lambda name: rows[name])
    assert f"<code>--model {model_folder(best)}</code>" in page
    for name in NAMES:
        assert f"- {name}: AUC {rows[name]:.3f}" in card
    assert {path.name for path in (out / "group/model").iterdir()} == {Path(model_folder(name)).name for name in rows}


# -- what is no model ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no model here"),
        ("{", "model.json"),
        ("[]", "model.json"),
        ("{}", "a field is missing"),
        ('{"kind": "linear"}', "a field is missing"),
        ('{"kind": "linear", "format_version": 1, "bids_app": "0.0.1"}', "made by bids_app 0.0.1"),
        ('{"kind": "network", "format_version": 1}', "its kind is 'network'"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(tmp_path: Path, content: str | None, says: str) -> None:
    if content is not None:
        (tmp_path / "model.json").write_text(content, "utf-8")
    with pytest.raises(BidsAppError, match=re.escape(says)) as found:
        load(tmp_path)
    assert "\n" not in str(found.value)


def test_a_file_that_is_no_model_is_refused_in_one_line(out: Path) -> None:
    with pytest.raises(BidsAppError, match="no model here"):
        load(out / group_output("table", name="recipes"))
