"""Rivals' models: what is stored is the machine that competed, trained on all scans, and predicts as it decides."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage, sparse
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from test_calibrated_model import again
from test_recommended import AFFINE, MASK, draw
from test_rivals import _l1, _svm, people_of

from bids_app.bids.names import Scan, group_output, model_folder
from bids_app.cohort import labels
from bids_app.errors import BadInputError, BidsAppError
from bids_app.files import arrays as npz
from bids_app.files import formats
from bids_app.group import contest, entrants, rival_models
from bids_app.image.atlas import brain_grid, on_grid
from bids_app.learning.protocols import Plan
from bids_app.learning.roc import auc
from bids_app.machine.parallel import Workers
from bids_app.model import calibrated, deciding, prediction
from bids_app.model.stored import load
from bids_app.participant import reasons
from bids_app.phantom.cohort import draw_cohort
from bids_app.phantom.dataset import write_cohort
from bids_app.recommended import linear as additive
from bids_app.recommended import neighbours, nested, rivals
from bids_app.recommended.features import log_volume
from bids_app.recommended.nested import Recipe
from bids_app.records.cohort import Cohort, Labelled, Threshold
from bids_app.records.recommended import Purpose
from bids_app.records.results import StoredPredictor
from bids_app.report.recommended_sections import ALWAYS_STORED, WITHOUT
from bids_app.rivals import chosen, trees, voxels
from bids_app.rivals.chosen import People

Run = Callable[..., int]
QUICK = ("--lesion-threshold", "0.32", "--cv-folds", "3", "--refine-limit", "1", "--bootstrap-draws", "60")
NESTED = ("--nested-folds", "3", "--repeats", "1", "--report-viewer", "none", "--coverage", "0.8")
LINEAR, TREES = ("linear-svm", "l1-logistic"), ("random-forest", "gradient-boosting")
NAMES = ("lesion volume", *LINEAR, *TREES)


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


@pytest.fixture(scope="module", autouse=True)
def few_choices() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "COUNT", 20)
        patch.setattr(trees, "LEAVES", (3, 10))
        patch.setattr(trees, "ROUNDS", (20,))
        patch.setattr(voxels, "L1_COSTS", (0.1, 1.0))
        yield


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return draw_cohort(n_participants=(14, 11), n_scans=(24, 18), seed=4)


@pytest.fixture(scope="module")
def out(cohort: Cohort, run_app: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kept")
    write_cohort(cohort, root / "bids", root / "out")
    assert run_app(root / "bids", root / "out", "group", *QUICK, *NESTED, "--compare", *LINEAR, *TREES) == 0
    return root / "out"


@pytest.fixture(scope="module")
def stored(out: Path) -> dict[str, StoredPredictor]:
    return {name: calibrated.load(out / model_folder(name)) for name in NAMES}


def _recipe(name: str, cohort: Cohort) -> Recipe:
    people = people_of(cohort.lesions, cohort.participants, cohort.positive)
    if name == "linear-svm":
        return voxels.linear_svm(cohort.lesions, voxels.gram(cohort.lesions), people, 3)
    if name in TREES:
        make = trees.forest if name == "random-forest" else trees.boosting
        return make(deciding.regional_loads(cohort.lesions), people, 3)
    return voxels.l1_logistic(cohort.lesions, people, 3) if name in LINEAR else _volume(cohort.lesions, people)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_stored_is_the_recipe_of_the_table_on_all_scans(
    name: str, stored: dict[str, StoredPredictor], cohort: Cohort
) -> None:
    everybody, found = np.arange(len(cohort.scans)), stored[name]
    tested = _recipe(name, cohort)(everybody, everybody, 0)
    values = deciding.decisions(found.model, cohort.lesions)
    np.testing.assert_allclose(values, tested.decisions, rtol=0, atol=1e-12 if name in TREES else 1e-9)
    for key, value in vars(tested.calibration).items():
        np.testing.assert_array_equal(getattr(found.calibration, key), value, err_msg=key)
    assert found.protocol == name and found.training["chosen"] == tested.chosen
    assert found.purpose.lesion_map == "published" and found.coverage == 0.8


@pytest.mark.parametrize("name", LINEAR)
def test_it_is_scikit_learns_machine_on_the_voxels(
    name: str, stored: dict[str, StoredPredictor], cohort: Cohort
) -> None:
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
    values = deciding.decisions(stored[name].model, cohort.lesions)
    np.testing.assert_allclose(values, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_it_predicts_as_the_recommended_model_does(
    name: str, out: Path, stored: dict[str, StoredPredictor], cohort: Cohort, tmp_path: Path
) -> None:
    scans, found = labels.find_maps(out), load(out / model_folder(name))
    assert isinstance(found, StoredPredictor)
    table = prediction.predict(found, scans, out, tmp_path)
    rows = [cohort.names.index(scan.name) for scan in scans]
    values = deciding.decisions(stored[name].model, cohort.lesions[rows])
    np.testing.assert_array_equal(table["decision_value"], values)
    by = found.calibration
    np.testing.assert_allclose(table["probability"], expit(by.slope * values + by.offset))
    assert set(table["conformal_set"]) <= {"RRMS", "NMOSD", "both", "none"}
    assert not table[["nearest_scans", "reasons"]].isna().any(axis=None)
    for row in table.itertuples() if name not in TREES else ():
        parts = [float(part.rsplit(" ", 1)[1]) for part in str(row.reasons).split("; ")]
        assert sum(parts) == pytest.approx(row.decision_value, abs=0.005 * (len(parts) + 1))


def _lesions(out: Path, scan: Scan) -> bool:
    return bool(formats.read_nifti(out / scan.output("lesion_mni"))[0].any())


def _explained(name: str, out: Path, folder: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the contribution map of the first scan with lesions, over the grid, and its JSON."""
    found, scan = load(out / model_folder(name)), next(each for each in labels.find_maps(out) if _lesions(out, each))
    shutil.copytree(out / scan.folder, folder / scan.folder)
    reasons.write(found, [scan], folder, folder / "cache", 1)
    path = folder / scan.output("contribution")
    said = formats.read_json(formats.sidecar(path))
    assert said["ModelDigest"] == found.digest
    return formats.read_nifti(path)[0], said


@pytest.mark.parametrize("name", [name for name in NAMES if name not in TREES])
def test_the_contribution_map_of_a_linear_model_sums_to_the_decision(name: str, out: Path, tmp_path: Path) -> None:
    values, said = _explained(name, out, tmp_path)
    total = values.sum(dtype=float) + said["VolumePart"] + said["Intercept"]
    assert total == pytest.approx(said["DecisionValue"], abs=1e-4)  # the map is in single precision


@pytest.mark.parametrize("name", TREES)
def test_the_contribution_map_of_trees_holds_what_each_lesion_changes(
    name: str, out: Path, stored: dict[str, StoredPredictor], cohort: Cohort, tmp_path: Path
) -> None:
    values, said = _explained(name, out, tmp_path)
    scan = next(each for each in labels.find_maps(out) if _lesions(out, each))
    lesions, inside = cohort.lesions[cohort.names.index(scan.name)], brain_grid(3).data
    numbers, count = ndimage.label(on_grid(lesions).data, np.ones((3, 3, 3)))
    assert len(said["Lesions"]) == count > 1 and np.ptp(values) > 0
    for k in range(1, count + 1):
        both = deciding.decisions(stored[name].model, np.stack([lesions, lesions & (numbers[inside] != k)]))
        assert both[0] == said["DecisionValue"]
        np.testing.assert_allclose(values[numbers == k], both[0] - both[1], atol=1e-6)


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


def test_a_rival_knows_the_maps_that_it_saw(cohort: Cohort, tmp_path: Path) -> None:
    labelled = Labelled(cohort.scans, cohort.participants, cohort.positive, cohort.table, (), ())
    own, other = (
        Purpose(cohort.levels, Threshold(cut, "given"), name) for cut, name in ((0.32, "published"), (0.5, "network"))
    )
    others = cohort.lesions[::-1]
    entry = entrants.Entry(labelled, own, cohort.lesions, others, other, entrants.More(("linear-svm",)))
    prepared = contest.prepare(entry, tmp_path)
    entrants.lay(prepared.folder, entry)
    seen = contest.seen_of(cohort.lesions, labelled)
    rounds = entrants.Rounds(Plan(3, 1, "smo", 50, 0), 3)
    found = rival_models.train(prepared, seen, rounds, Workers())
    assert list(found) == ["lesion volume", "linear-svm"]
    volume, svm = found.values()
    assert volume.purpose == own and volume.seen is seen and svm.purpose == other
    grid = brain_grid(3)
    np.testing.assert_array_equal(svm.seen.sketches, neighbours.sketch(others, grid.data, grid.affine))
    assert svm.seen.scans == seen.scans == tuple(cohort.names)
    values = deciding.decisions(svm.model, others)
    assert (
        auc(cohort.positive, values).value > auc(cohort.positive, deciding.decisions(svm.model, cohort.lesions)).value
    )


# -- trees -------------------------------------------------------------------------------------------


def test_trees_are_scikit_learns_also_next_to_their_thresholds() -> None:
    rng = np.random.default_rng(0)
    features, positive = rng.normal(size=(300, 6)), rng.random(300) < 0.4
    features[:, 0] += positive
    grown = RandomForestClassifier(30, min_samples_leaf=2, random_state=0).fit(features, positive)
    boosted = HistGradientBoostingClassifier(max_iter=40, max_depth=4, random_state=0).fit(features, positive)
    for found, wanted in (
        (trees.of_forest(grown), lambda x: trees._odds(grown.predict_proba(x)[:, 1])),
        (trees.of_boosting(boosted), boosted.decision_function),
    ):
        near = rng.choice(found.threshold[found.feature >= 0], (500, 6)) + rng.choice([-1e-9, 0.0, 1e-9], (500, 6))
        for rows in (features, near):
            values = trees.decisions(found, rows)
            assert np.ptp(values) > 1
            np.testing.assert_allclose(values, wanted(rows), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"left": lambda each: each * 0}, "must come after it"),
        ({"right": lambda each: each + 10**6}, "must come after it"),
        ({"left": lambda each: np.where(each == np.arange(len(each)), 0, each)}, "a leaf has itself"),
        ({"feature": lambda each: np.where(each < 0, each, 999).astype(np.int32)}, "unknown region"),
        ({"roots": lambda each: each - 1}, "root"),
        ({"value": lambda each: each[1:]}, "as many numbers"),
        ({"threshold": lambda each: each * np.nan}, "undefined"),
        ({"left": lambda each: each.astype(np.int32)}, "other arrays"),
        ({"way": lambda _: "magic"}, "magic"),
        ({"regions": lambda each: each[::-1]}, "its regions are others"),
    ],
)
def test_trees_that_were_tampered_with_are_refused(
    out: Path, tmp_path: Path, change: dict[str, Callable[[Any], Any]], says: str
) -> None:
    place = shutil.copytree(out / model_folder("random-forest"), tmp_path / "changed")
    content = json.loads((place / "model.json").read_text("utf-8"))
    arrays = npz.unpack(place / "model.npz")
    for name, changed in change.items():
        of: dict[str, Any] = arrays if name in arrays else content
        of[name] = changed(of[name])
    again(place, arrays, content)
    with pytest.raises(BadInputError, match=says):
        calibrated.load(place)


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
