"""The group level from end to end, on a small made-up cohort and on the maps of real patients."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import ants
import numpy as np
import pandas as pd
import pytest
import realdata
from scipy import ndimage

from bids_app.__main__ import main
from bids_app.cohort import labels, lesion_maps
from bids_app.drawing import group_figures
from bids_app.files import formats
from bids_app.image import atlas
from bids_app.image.lesion import moments
from bids_app.model import prediction, storage
from bids_app.model.stored import find
from bids_app.participant import marks
from bids_app.phantom.cohort import draw_cohort
from bids_app.phantom.dataset import write_cohort
from bids_app.records.cohort import Cohort
from bids_app.report import checklist

METHOD = ("--lesion-threshold", "0.32", "--cv-folds", "5", "--refine-limit", "3", "--bootstrap-draws", "200")
NESTED = ("--nested-folds", "3", "--permutations", "2")
SHORT = ("--nested-folds", "0")
MEASURES = ("auc", "accuracy", "sensitivity", "specificity")
NAMES = ("published", "leakage-free")


class Place(NamedTuple):
    """A data set and its derivatives."""

    bids: Path
    out: Path

    def run(self, *argv: str | Path, level: str = "group") -> int:
        """Run the app as a process of its own would: with a log of its own."""
        _forget_log()
        try:
            return main([str(word) for word in (self.bids, self.out, level, *argv)])
        finally:
            _forget_log()

    @property
    def metrics(self) -> dict[str, Any]:
        return json.loads((self.out / "group" / "metrics.json").read_text("utf-8"))

    def copy(self, root: Path) -> Place:
        """Copy the data set and the lesion maps, nothing that a group level made."""
        ignored = shutil.ignore_patterns("group", "group.html", "tpl-*", "logs", ".bidsignore")
        return Place(shutil.copytree(self.bids, root / "bids"), shutil.copytree(self.out, root / "out", ignore=ignored))


def _forget_log() -> None:
    log = logging.getLogger("bids_app")
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return draw_cohort(n_participants=(12, 10), n_scans=(26, 20), seed=1)


@pytest.fixture(scope="module")
def done(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A finished group run; tests do not write here."""
    root = tmp_path_factory.mktemp("group")
    place = Place(root / "bids", root / "out")
    write_cohort(cohort, place.bids, place.out)
    assert place.run(*METHOD, *NESTED) == 0
    return place


@pytest.fixture
def believed(cohort: Cohort, tmp_path: Path) -> Place:
    """Belief maps on the template's own grid, each person's brighter or darker, so that training sets differ."""
    place = Place(tmp_path / "bids", tmp_path / "out")
    few = cohort.take(np.flatnonzero(np.arange(len(cohort.scans)) % 3 > 0))
    write_cohort(few, place.bids, place.out)
    rng, grid = np.random.default_rng(3), atlas.brain_grid(3)
    identity = ants.create_ants_transform(transform_type="AffineTransform")
    gains = dict(zip(few.participants, rng.uniform(0.6, 1.4, len(few.participants)), strict=True))
    for scan, lesion in zip(few.scans, few.lesions, strict=True):
        belief = np.zeros(grid.data.shape, np.float32)
        belief[grid.data] = gains[scan.participant] * rng.normal(0, 0.1, int(grid.data.sum())) + 0.6 * lesion
        pooled = moments(belief, np.where(grid.data, 2, 0))
        path = place.out / scan.output("belief")
        formats.write_nifti(path, belief, grid.affine)
        about = {"TissueCount": pooled.count, "TissueSum": pooled.total, "TissueSumOfSquares": pooled.squares}
        formats.write_json(formats.sidecar(path), about)
        formats.write_nifti(place.out / scan.output("brain"), grid.data, grid.affine)
        ants.write_transform(identity, str(place.out / scan.output("forward")))
    return place


@pytest.fixture
def fast_figures(done: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the pictures of the finished run where pictures are not what is tested: they take longest."""
    pictures = {path.stem: path.read_bytes() for path in sorted((done.out / "group" / "figures").glob("*.png"))}
    assert len(pictures) == 15
    monkeypatch.setattr(group_figures, "draw", lambda result, facts: pictures)


@pytest.fixture
def place(done: Place, tmp_path: Path) -> Place:
    return done.copy(tmp_path)


def names_of(table: pd.DataFrame) -> set[str]:
    return set(table["scan"])


# -- what a run leaves ---------------------------------------------------------------------------


def test_report_is_one_file_and_shows_both_evaluations(done: Place) -> None:
    page = (done.out / "group.html").read_text("utf-8")
    sources = re.findall(r"""(?:src|href)=["']([^"']*)""", page)
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert not re.search(r"<(script|link|iframe)\b[^>]*(src|href)", page) and "@import" not in page
    text = re.sub(r"<[^>]*>", " ", page)
    assert "published" in text.lower() and "leakage-free" in text.lower() and "optimism" in text.lower()
    for name in NAMES:
        assert f"{done.metrics[name]['test']['auc']['value']:.3f}" in text or (
            f"{100 * done.metrics[name]['test']['auc']['value']:.1f}" in text
        )


def test_metrics_hold_value_and_interval_of_every_measure(done: Place) -> None:
    found = done.metrics
    parts = [found[name]["test"] for name in NAMES] + [found["leakage-free"]["nested"]]
    for part in parts:
        for key in MEASURES:
            low, high = part[key]["interval"]
            assert 0 <= low <= part[key]["value"] <= high <= 1
    for key in MEASURES:
        gap = found["published"]["test"][key]["value"] - found["leakage-free"]["test"][key]["value"]
        assert found["optimism"][key] == pytest.approx(gap)
    assert found["published"]["division"]["unit"] == "scan"
    assert found["leakage-free"]["division"]["participants_in_both"] == 0
    assert found["permutation"]["n"] == 2 and found["permutation"]["p"] in (1 / 3, 2 / 3, 1)
    assert "nested" not in found["published"]


def test_tables_tell_what_the_metrics_tell(done: Place, cohort: Cohort) -> None:
    folder = done.out / "group"
    for name in ("sweep", "grid", "predictions", "voxel_ties", "table1", "table_s1", "table2", "division"):
        assert len(formats.read_tsv(folder / f"{name}.tsv"))
    predictions = pd.read_csv(folder / "predictions.tsv", sep="\t")
    division = formats.read_tsv(folder / "division.tsv").set_index("scan")
    for name in NAMES:
        rows = predictions[predictions["evaluation"] == name]
        assert sorted(rows["scan"]) == sorted(cohort.names)
        assert (rows["set"].to_numpy() == division.loc[rows["scan"], name].to_numpy()).all()
        test = rows[rows["set"] == "test"]
        assert test["correct"].mean() == pytest.approx(done.metrics[name]["test"]["accuracy"]["value"])
        assert ((test["decision_value"] >= 0) == (test["called"] == "RRMS")).all()
    assert np.isfinite(predictions.loc[predictions["evaluation"] == "leakage-free", "nested_decision_value"]).all()


def test_maps_are_those_of_the_cohort_and_models_load(done: Place, cohort: Cohort) -> None:
    inside = atlas.brain_grid(3).data
    folder = done.out / "tpl-MNI152NLin2009aSym" / "anat"
    for level, rows in (("RRMS", cohort.positive), ("NMOSD", ~cohort.positive)):
        share = formats.read_nifti(next(folder.glob(f"*desc-{level}_probseg.nii.gz")))[0]
        np.testing.assert_allclose(share[inside], cohort.lesions[rows].mean(axis=0), atol=1e-6)
        assert not share[~inside].any()
    for name, tag, mask in zip(NAMES, ("res-3_", "leakageFree_"), ("selected", "selectedLeakageFree"), strict=True):
        stored = storage.load(done.out / "group" / "model" / name)
        assert stored.protocol == name and len(stored.model.voxels) == done.metrics[name]["chosen"]["n_voxels"]
        chosen = formats.read_nifti(next(folder.glob(f"*desc-{mask}_mask.nii.gz")))[0][inside]
        assert set(np.flatnonzero(chosen)) == set(stored.model.voxels)
        signed = formats.read_nifti(next(folder.glob(f"*{tag}stat-chi2_statmap.nii.gz")))[0]
        assert np.isfinite(signed).all() and signed.any()


def test_output_is_valid_bids(done: Place) -> None:
    beside = str(Path(sys.executable).parent)
    program = shutil.which("bids-validator-deno", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    if program is None:
        pytest.skip("bids-validator-deno is not installed")
    command = [program, "--json", "--ignoreWarnings", str(done.out)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    assert [issue for issue in found["issues"]["issues"] if issue.get("severity") == "error"] == []
    assert found["summary"]["totalFiles"] > 46


# -- the same again ------------------------------------------------------------------------------


@pytest.mark.long
def test_same_seed_gives_the_same_bytes_with_two_processes(done: Place, place: Place, fast_figures: None) -> None:
    assert place.run(*METHOD, *NESTED, "--nprocs", "2") == 0
    folders = [where.out / "group" for where in (done, place)]
    tsvs = [sorted(path.name for path in folder.glob("*.tsv")) for folder in folders]
    assert tsvs[0] == tsvs[1] and len(tsvs[0]) == 11
    for name in (*tsvs[0], "metrics.json", "model_card.md"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    for path in sorted(folders[0].glob("model/*/*")):
        assert path.read_bytes() == (folders[1] / path.relative_to(folders[0])).read_bytes(), path.name


def test_another_seed_divides_otherwise_and_its_division_file_comes_back(
    done: Place, place: Place, fast_figures: None, tmp_path: Path
) -> None:
    assert place.run(*METHOD, *SHORT, "--random-seed", "5") == 0
    first, division = place.metrics, place.out / "group" / "division.tsv"
    assert division.read_bytes() != (done.out / "group" / "division.tsv").read_bytes()
    kept = shutil.copy(division, tmp_path / "kept.tsv")
    shutil.rmtree(place.out / "group")
    assert place.run(*METHOD, *SHORT, "--random-seed", "5", "--division-file", kept) == 0
    again = place.metrics
    assert first["parameters"]["division_file"] is None
    assert again["parameters"].pop("division_file") == "kept.tsv"
    first["parameters"].pop("division_file")
    assert again == first
    shutil.copy(done.out / "group" / "division.tsv", kept)
    assert place.run(*METHOD, *SHORT, "--division-file", kept) == 0
    for name in NAMES:
        for part in ("test", "train", "chosen", "division", "curves"):
            assert place.metrics[name][part] == done.metrics[name][part]


# -- what is missing or wrong --------------------------------------------------------------------


def test_no_threshold_without_belief_maps_is_told_with_the_remedy(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.run(*SHORT) == 65
    said = capsys.readouterr().err
    assert "46 scans have no belief map" in said and "--lesion-threshold 0.32" in said
    assert not (place.out / "group.html").exists()


def test_map_on_another_grid_is_told_by_name(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    path = sorted(place.out.glob("sub-*/ses-*/anat/*_mask.nii.gz"))[7]
    mask, affine = formats.read_nifti(path)
    formats.write_nifti(path, mask[:-1], affine)
    assert place.run(*METHOD, *SHORT) == 65
    assert path.name in capsys.readouterr().err
    formats.write_nifti(path, mask, affine + np.eye(4)[:, [3, 0, 1, 2]])  # same shape, elsewhere
    assert place.run(*METHOD, *SHORT) == 65
    assert path.name in capsys.readouterr().err


def test_a_scan_whose_participant_level_was_interrupted_is_left_out(
    place: Place, cohort: Cohort, fast_figures: None
) -> None:
    name = cohort.names[0]
    lock = marks.lock_path(place.out, name)
    lock.parent.mkdir(parents=True)
    lock.touch()  # begun here, and no mark that it is finished: its files may be of two runs
    assert place.run(*METHOD, *SHORT) == 0
    reasons = {entry["name"]: entry["reason"] for entry in place.metrics["left_out"]}
    assert set(reasons) == {name} and "interrupted" in reasons[name]
    assert name in (place.out / "group.html").read_text("utf-8")


def test_who_is_left_out_stands_in_the_report_by_name(place: Place, cohort: Cohort, fast_figures: None) -> None:
    path = place.bids / "participants.tsv"
    people = formats.read_tsv(path)
    unlabelled, third = people["participant_id"].iloc[[0, 5]]
    people.loc[0, "group"], people.loc[5, "group"] = None, "MOGAD"
    alone = people.iloc[[1]].assign(participant_id="sub-scanless", group="NMOSD")
    formats.write_tsv(path, pd.concat([people, alone]))
    assert place.run(*METHOD, *SHORT) == 0
    page = (place.out / "group.html").read_text("utf-8")
    reasons = {entry["name"]: entry["reason"] for entry in place.metrics["left_out"]}
    gone = {scan for scan in cohort.names if scan.partition("_")[0] in (unlabelled, third)}
    assert set(reasons) == gone | {"sub-scanless"}
    assert all(name in page for name in reasons) and "MOGAD" in page
    assert reasons["sub-scanless"] == "no lesion map"
    assert not names_of(formats.read_tsv(place.out / "group" / "predictions.tsv")) & gone


# -- raters --------------------------------------------------------------------------------------


def test_sheet_is_filled_read_and_used(place: Place, cohort: Cohort, fast_figures: None) -> None:
    assert place.run(*METHOD, "--rating-sheet") == 0
    folder = place.out / "group" / "rating"
    sheet, key = (formats.read_tsv(path) for path in (folder / "rating_sheet.tsv", folder / "key" / "rating_key.tsv"))
    assert not (place.out / "group.html").exists()
    assert not {"scan", "participant_id", "group"} & set(sheet) and "sub-" not in sheet.to_csv()
    division = formats.read_tsv(place.out / "group" / "division.tsv")
    assert names_of(key) == names_of(division[division["published"] == "test"])
    truth = dict(zip(cohort.names, np.where(cohort.positive, *cohort.levels), strict=True))
    scan_of = dict(zip(key["code"], key["scan"], strict=True))
    sheet["decision_perfect"] = [truth[scan_of[code]] for code in sheet["code"]]
    sheet["decision_always"] = "RRMS"
    filled = place.bids.parent / "filled.tsv"
    formats.write_tsv(filled, sheet.drop(columns="decision"))
    assert place.run("--read-ratings", filled) == 0
    decided = place.out / "phenotype" / "rater_decisions.tsv"
    assert len(formats.read_tsv(decided)) == key["scan"].nunique()
    shutil.copy(decided, place.bids / "phenotype" / "rater_decisions.tsv")
    assert place.run(*METHOD, *SHORT) == 0
    raters = place.metrics["published"]["raters"]["performance"]
    assert set(raters) == {"SVM", "perfect", "always"}
    assert [raters["perfect"][name]["value"] for name in MEASURES[1:]] == [1, 1, 1]
    assert [raters["always"][name]["value"] for name in MEASURES[2:]] == [1, 0]
    svm, test = raters["SVM"], place.metrics["published"]["test"]
    assert all(svm[name]["value"] == test[name]["value"] for name in MEASURES[1:])


# -- the checklists ------------------------------------------------------------------------------


def test_the_checklists_name_places_that_exist(done: Place) -> None:
    table = formats.read_tsv(done.out / "group" / "checklist.tsv")
    named = {place for cell in table["where"].dropna() for place in cell.split("; ")}
    possible = {place for cell in checklist.items()["places"].dropna() for place in cell.split()}
    beside = {"logs/CITATION.md", "group/metrics.json#confounding"}  # the participant level's; --site-column
    assert possible - named == beside
    report = (done.out / "group.html").read_text("utf-8")
    for place in named:
        file, _, part = place.partition("#")
        assert (done.out / file).exists()
        if file == "group.html":
            assert f'id="{part}"' in report
        value: Any = done.metrics
        for key in part.split(".") if file == "group/metrics.json" else ():
            value = value[key]
    assert "not part of this run" in (done.out / "group" / "checklist.html").read_text("utf-8")


# -- the trained model ---------------------------------------------------------------------------


def test_without_a_given_threshold_each_evaluation_keeps_the_maps_of_its_own(
    believed: Place, tmp_path: Path, fast_figures: None
) -> None:
    """Two divisions, two thresholds: each stored model is of its own maps, and decides as the report says."""
    assert believed.run(*METHOD[2:], "--nested-folds", "2", "--permutations", "2") == 0
    found = believed.metrics
    thresholds = {name: found[name]["threshold"]["value"] for name in NAMES}
    assert abs(thresholds["published"] - thresholds["leakage-free"]) > 1e-3
    table = pd.read_csv(believed.out / "group" / "predictions.tsv", sep="\t")
    for name in NAMES:
        stored = storage.load(find(believed.out / "group" / "model" / name))
        assert stored.purpose.threshold.value == thresholds[name]
        scans = labels.find_maps(believed.out)
        source = lesion_maps.Source(tuple(scans), believed.out, "published", tmp_path / name)
        known = table[table["evaluation"] == name].set_index("scan")
        training = [k for k, scan in enumerate(scans) if known.loc[scan.name, "set"] == "training"]
        patterns = lesion_maps.load(source, thresholds[name])[:, stored.model.voxels]
        np.testing.assert_array_equal(stored.patterns, np.unique(patterns[training], axis=0))
        predicted = prediction.predict(stored, scans, believed.out, tmp_path / name).set_index("scan")
        values = predicted.loc[known.index, "decision_value"].map("{:.10g}".format).astype(float)
        assert (values == known["decision_value"]).all()
        low, high = stored.training["decision_range"]
        own = predicted["decision_value"].iloc[training]
        assert (low, high) == (own.min(), own.max())
        assert not predicted["out_of_range"].iloc[training].any()


@pytest.mark.parametrize("name", NAMES)
def test_stored_model_gives_the_decisions_of_the_run(done: Place, name: str, tmp_path: Path) -> None:
    stored = storage.load(find(done.out / "group" / "model" / name))
    scans = labels.find_maps(done.out)
    found = prediction.predict(stored, scans, done.out, tmp_path).set_index("scan")
    table = pd.read_csv(done.out / "group" / "predictions.tsv", sep="\t")
    known = table[table["evaluation"] == name].set_index("scan")
    np.testing.assert_allclose(found.loc[known.index, "decision_value"], known["decision_value"], rtol=0, atol=1e-9)
    training = known.index[known["set"] == "training"]
    assert not found.loc[training, "out_of_range"].any()


def test_changed_model_is_refused(place: Place, done: Place, capsys: pytest.CaptureFixture[str]) -> None:
    scan = "sub-01/ses-1/anat/sub-01_ses-1_FLAIR"
    formats.write_nifti(place.bids / f"{scan}.nii.gz", np.zeros((4, 4, 4), np.float32), np.eye(4))
    model = Path(shutil.copytree(done.out / "group" / "model", place.out / "model")) / "recommended"
    text = (model / "model.json").read_text("utf-8")
    content = json.loads(text)
    changed = content | {"levels": {"positive": content["levels"]["negative"], "negative": "RRMS"}}
    (model / "model.json").write_text(json.dumps(changed), "utf-8")
    argv = ("--skip-bids-validation", "--model", place.out / "model")
    assert place.run(*argv, level="participant") == 65
    said = capsys.readouterr().err
    assert "model.json" in said and "changed after it was written" in said


# -- maps of real patients -----------------------------------------------------------------------


def to_grid(path: Path) -> np.ndarray:
    """Expert mask (1 mm) over the 3 mm grid's brain voxels: lesion where it fills half of the voxel or more."""
    (mask, affine), grid = formats.read_nifti(path), atlas.brain_grid(3)
    voxels = np.argwhere(mask > 0)
    steps = np.linalg.inv(grid.affine) @ affine
    place = np.rint(voxels @ steps[:3, :3].T + steps[:3, 3]).astype(int)
    place = place[((place >= 0) & (place < grid.data.shape)).all(axis=1)]
    filled = np.zeros(grid.data.shape)
    np.add.at(filled, tuple(place.T), abs(np.linalg.det(steps[:3, :3])))
    return filled[grid.data] >= 0.5


def around_ventricles() -> tuple[np.ndarray, np.ndarray]:
    """Distance (V,) in mm from the lateral ventricles, and whether a voxel is white matter or fluid for the most."""
    grid, maps = atlas.brain_grid(3), atlas.load()
    wm, csf = (atlas.at_3mm(volume.data, grid.data.shape) for volume in (maps.wm, maps.csf))
    deep = ndimage.distance_transform_edt(grid.data, sampling=3.0) > 15
    height = grid.affine[2, 3] + 3.0 * np.arange(grid.data.shape[2])
    pieces, _ = ndimage.label((csf > 0.5) & deep & (height > -5))
    largest = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    distance = ndimage.distance_transform_edt(~largest, sampling=3.0)
    return distance[grid.data], (wm + csf > 0.5)[grid.data]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Twenty expert masks of patients with MS against as many made-up NMOSD maps, evaluated."""
    masks = sorted((realdata.FOLDER / "mni").glob("*_lesions.nii.gz"))
    if len(masks) < 20:
        pytest.skip(f"no expert masks in {realdata.FOLDER / 'mni'}; set BIDS_APP_REAL_DATA")
    drawn = draw_cohort(n_participants=(20, 20), n_scans=(20, 20), seed=2)
    lesions = drawn.lesions.copy()
    lesions[drawn.positive] = [to_grid(path) for path in masks[:20]]
    root = tmp_path_factory.mktemp("real")
    place = Place(root / "bids", root / "out")
    write_cohort(replace(drawn, lesions=lesions), place.bids, place.out)
    assert place.run(*METHOD, "--nested-folds", "0") == 0
    yield place


def test_real_lesions_gather_around_the_ventricles(real: Place) -> None:
    assert (real.out / "group.html").stat().st_size > 10**5
    path = next(real.out.glob("tpl-*/anat/*desc-RRMS_probseg.nii.gz"))
    share = formats.read_nifti(path)[0][atlas.brain_grid(3).data]
    top = np.argsort(-share, kind="stable")[:50]
    distance, white_or_fluid = around_ventricles()
    assert share[top].min() > 0.2
    assert np.mean(distance[top] <= 20) >= 0.8 > 2 * np.mean(distance <= 20)  # far from chance
    assert np.mean(white_or_fluid[top]) >= 0.8
    assert group_figures.LOWEST / 100 < share.max() <= 1
