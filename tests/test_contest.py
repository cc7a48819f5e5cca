"""Recipe against recipe from end to end: one set of folds, one table, a model that can be used, and honest words."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bids_app import parser
from bids_app.__main__ import main
from bids_app.bids.names import group_output
from bids_app.cohort import beliefs, labels, lesion_maps
from bids_app.errors import MissingInputError
from bids_app.files import formats
from bids_app.group import competition, contest, entrants
from bids_app.group.maps import Maps
from bids_app.image import atlas
from bids_app.learning import measures
from bids_app.learning.protocols import Plan
from bids_app.learning.roc import auc_within
from bids_app.lesions import cohort_norm
from bids_app.machine.parallel import Workers
from bids_app.model import calibrated, prediction, storage
from bids_app.model.stored import find
from bids_app.participant import reasons
from bids_app.phantom import further
from bids_app.phantom.cohort import draw_cohort
from bids_app.phantom.dataset import write_cohort
from bids_app.recommended import features
from bids_app.recommended.nested import Wanted, outer_folds
from bids_app.records.cohort import Cohort, Labelled, Threshold
from bids_app.records.recommended import Contest, OutOfFold, Permutation, Purpose
from bids_app.report import recommended_numbers

QUICK = ("--lesion-threshold", "0.32", "--cv-folds", "3", "--refine-limit", "1", "--bootstrap-draws", "100")
Judged = tuple[Contest, Permutation | None]
NESTED = ("--nested-folds", "3", "--repeats", "2", "--permutations", "2", "--coverage", "0.8", "--prevalence", "0.95")


def _run(*words: str | Path | int) -> int:
    log = logging.getLogger("bids_app")
    try:
        return main([str(word) for word in words])
    finally:
        for handler in list(log.handlers):
            log.removeHandler(handler)
            handler.close()


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return draw_cohort(n_participants=(14, 11), n_scans=(24, 18), seed=4)


@pytest.fixture(scope="module")
def done(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("contest")
    write_cohort(cohort, root / "bids", root / "out")
    assert _run(root / "bids", root / "out", "group", *QUICK, *NESTED) == 0
    return root


@pytest.fixture(scope="module")
def metrics(done: Path) -> dict[str, Any]:
    return json.loads((done / "out/group/metrics.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def found(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    return _contest(cohort, tmp_path_factory.mktemp("work"), Workers())


def _contest(cohort: Cohort, work: Path, workers: Workers) -> Judged:
    labelled = Labelled(cohort.scans, cohort.participants, cohort.positive, cohort.table, (), ())
    purpose = Purpose(cohort.levels, Threshold(0.32, "given"), "published")
    entry = entrants.Entry(labelled, purpose, cohort.lesions, cohort.lesions, purpose)
    rules, plan = contest.Rules(3, 2, Wanted(0.9, 0.8), 1), Plan(3, 1, "smo", 50, 0)
    ran = contest.run(contest.prepare(entry, work), rules, plan, workers)
    return contest.judge(ran, entry, plan, ()), ran.permutation


def test_keys_are_those_of_the_leakage_free_recipe(metrics: dict[str, Any]) -> None:
    nested, other = metrics["recommended"]["nested"], metrics["leakage-free"]["nested"]
    assert set(nested) == set(other) | {"auc_participants", "brier", "nested_folds", "repeats"}
    for key in ("auc", "accuracy", "sensitivity", "specificity", "auc_pooled_over_folds"):
        assert set(nested[key]) == set(other[key])
        for name in (name for name in nested[key] if name.startswith("interval")):
            low, high = nested[key][name]
            assert low <= nested[key]["value"] <= high
    assert set(nested["confusion"]) == set(other["confusion"])
    assert sum(nested["confusion"].values()) == pytest.approx(metrics["cohort"]["scans"])
    assert len(nested["folds"]) == 6 and nested["repeats"] == 2


def test_intervals_over_scans_of_one_repeat_are_those_of_the_leakage_free_recipe() -> None:
    rng = np.random.default_rng(0)
    positive, fold = np.arange(40) % 3 > 0, np.arange(40) % 4
    values = positive + rng.normal(size=40) + 3 * fold
    over_scans, pooled = recommended_numbers._over_scans(
        OutOfFold("some", values[None], fold[None], np.full((1, 40), 0.5)), positive
    )
    whole = measures.performance(positive, values)
    assert over_scans["auc"] == auc_within(positive, values, fold) and pooled == whole.auc
    assert over_scans["sensitivity"] == whole.sensitivity and over_scans["accuracy"] == whole.accuracy


def test_p_counts_permutations_as_good_as_the_same_folds_as_they_are(metrics: dict[str, Any], done: Path) -> None:
    told = metrics["recommended"]
    as_good = sum(value >= told["permutation_observed"] for value in told["permuted_auc"])
    assert len(told["permuted_auc"]) == 2 and told["permutation_p"] == (1 + as_good) / 3
    page = re.sub(r"\s+", " ", (done / "out/group.html").read_text("utf-8"))
    assert f"p = {told['permutation_p']:.3f}" in page and "2 permutations of the recommended recipe" in page


def test_every_recipe_is_a_row(metrics: dict[str, Any], done: Path) -> None:
    rows = metrics["recipes"]["rows"]
    assert list(rows) == ["recommended", "leakage-free", "lesion volume", "published"]
    table = pd.read_csv(done / "out/group/recipes.tsv", sep="\t")
    assert table["recipe"].tolist() == list(rows)
    for _, line in table.iterrows():
        assert line["auc"] == pytest.approx(rows[line["recipe"]]["auc"]["value"])
    assert rows["leakage-free"]["auc_difference"] is None and rows["published"]["auc_difference"] is None
    gap = rows["recommended"]["auc_difference"]
    assert gap["value"] == pytest.approx(rows["recommended"]["auc"]["value"] - rows["leakage-free"]["auc"]["value"])
    best = max((name for name in rows if name != "published"), key=lambda name: rows[name]["auc"]["value"])
    assert metrics["recipes"]["winner"] == best


def test_the_published_row_is_its_own_evaluation(metrics: dict[str, Any]) -> None:
    own, row = metrics["published"]["test"]["auc"], metrics["recipes"]["rows"]["published"]["auc"]
    assert row["value"] == own["value"] and row["interval"] == own["interval_participants"]


def test_all_recipes_share_their_folds(found: Judged, cohort: Cohort) -> None:
    verdict, _ = found
    folds = [each.fold for each in verdict.out_of_fold.values()]
    outer = outer_folds(cohort.positive, cohort.participants, 3, 2, 0)
    for r, repeat in enumerate(outer):
        for number, fold in enumerate(repeat):
            assert all((each[r, fold.validate] == number).all() for each in folds)
    for name, own in verdict.out_of_fold.items():
        per_repeat = [auc_within(cohort.positive, *pair).value for pair in zip(own.decisions, own.fold, strict=True)]
        row = next(row for row in verdict.rows if row.name == name)
        assert row.measures["auc"].value == pytest.approx(np.mean(per_repeat), abs=0.02)


@pytest.mark.long
def test_workers_change_nothing(found: Judged, cohort: Cohort, tmp_path: Path) -> None:
    (verdict, permuted), (other, permuted_too) = found, _contest(cohort, tmp_path, Workers(2, 4000))
    for name, own in verdict.out_of_fold.items():
        np.testing.assert_array_equal(own.decisions, other.out_of_fold[name].decisions)
    assert permuted and permuted == permuted_too


def test_the_stored_model_predicts_with_reasons(done: Path, metrics: dict[str, Any], tmp_path: Path) -> None:
    folder = find(done / "out")
    assert folder == done / "out/group/model/recommended"
    scans = labels.find_maps(done / "out")[:5]
    stored = calibrated.load(folder)
    assert (stored.prevalence, stored.coverage) == (0.95, 0.8)
    table = prediction.predict(stored, scans, done / "out", tmp_path)
    assert table["probability"].between(0, 1).all() and (table["prevalence"] == 0.95).all()
    assert set(table["conformal_set"]) <= {"RRMS", "NMOSD", "both", "none"}
    for row in table.itertuples():
        parts = [float(part.rsplit(" ", 1)[1]) for part in row.reasons.split("; ")]
        assert sum(parts) == pytest.approx(row.decision_value, abs=0.005 * (len(parts) + 1))
    at_half = prediction.predict(stored, scans, done / "out", tmp_path, prevalence=0.5)
    assert (at_half["probability"] < table["probability"]).all()
    old = storage.load(done / "out/group/model/leakage-free")
    assert prediction.predict(old, scans, done / "out", tmp_path)["probability"].isna().all()
    prediction.write(table, tmp_path)
    assert set(prediction.read(tmp_path)[0]) >= {"probability", "conformal_set", "reasons"}


def test_the_weight_map_is_that_of_the_stored_model(done: Path, cohort: Cohort) -> None:
    """A lesion map's sum of weights is that of its features before the root: A' w . m = w . A m."""
    path, grid = done / "out" / group_output("weights"), atlas.brain_grid(3)
    values, affine = formats.read_nifti(path)
    np.testing.assert_allclose(affine, grid.affine)
    assert not values[~grid.data].any()
    model = calibrated.load(done / "out/group/model/recommended").model
    scan = cohort.lesions[:1].astype(float)
    plans = [features.projection(grid.data, grid.affine, kind) for kind in model.kinds]
    parts = zip(plans, model.weights, strict=True)
    wanted = sum(float(features.project(plan, scan, np.float64)[0] @ weights) for plan, weights in parts)
    assert values[grid.data] @ scan[0] == pytest.approx(wanted, rel=1e-4)
    said = formats.read_json(formats.sidecar(path))
    assert "RRMS" in said["Description"] and (done / "out" / said["Model"].removeprefix("bids::")).is_file()


def test_a_prediction_writes_why(done: Path, tmp_path: Path) -> None:
    stored = calibrated.load(done / "out/group/model/recommended")
    scans = labels.find_maps(done / "out")[:2]
    for scan in scans:
        path = tmp_path / scan.output("lesion_mni")
        path.parent.mkdir(parents=True, exist_ok=True)
        for name in (path.name, formats.sidecar(path).name):
            shutil.copy(done / "out" / scan.folder / name, path.parent / name)
    reasons.write(stored, scans, tmp_path, tmp_path / "cache", 1)
    decisions = prediction.predict(stored, scans, tmp_path, tmp_path / "cache")["decision_value"]
    for scan, decision in zip(scans, decisions, strict=True):
        path = tmp_path / scan.output("contribution")
        said = formats.read_json(formats.sidecar(path))
        assert said["DecisionValue"] == pytest.approx(decision, abs=1e-9)
        total = formats.read_nifti(path)[0].sum(dtype=float) + said["VolumePart"] + said["Intercept"]
        assert total == pytest.approx(decision, abs=1e-4)  # the map is in single precision
        assert set(said["PlaceDefinitions"]) == {place.rpartition(", ")[0] for place in said["Places"]}
        assert (tmp_path / scan.figure(reasons.FIGURE)).read_bytes().startswith(b"\x89PNG")
    old = storage.load(done / "out/group/model/published")
    reasons.write(old, scans, tmp_path, tmp_path / "cache", 1)
    for scan in scans:
        path = tmp_path / scan.output("contribution")
        said, values = formats.read_json(formats.sidecar(path)), formats.read_nifti(path)[0]
        assert "VolumePart" not in said and said["ModelDigest"] == old.digest
        changes = {round(each["Change"], 5) for each in said["Lesions"]}
        assert {round(float(value), 5) for value in np.unique(values)} <= changes | {0.0}


def test_the_report_says_who_won_and_whether_it_is_shown(done: Path, metrics: dict[str, Any]) -> None:
    page = re.sub(r"\s+", " ", (done / "out/group.html").read_text("utf-8"))
    assert "Recipe against recipe" in page and 'id="recipes"' in page and 'id="figure-reliability"' in page
    said = "no difference to leakage-free is shown" in page
    won = metrics["recipes"]["winner"] != "leakage-free"
    assert said == (won and not metrics["recipes"]["difference_shown"])
    assert "as given by <code>--prevalence</code>" in page
    method = (done / "out/logs/CITATION_group.md").read_text("utf-8")
    for name in re.findall(r"@(\w+)", method):
        assert f"{{{name}," in (done / "out/logs/CITATION_group.bib").read_text("utf-8")
    assert "@vovk2005" in method
    card = (done / "out/group/model_card.md").read_text("utf-8")
    assert "### recommended" in card


def test_options_of_the_recommended_recipe_leave_the_published_bytes_alone(done: Path, tmp_path: Path) -> None:
    cohort = draw_cohort(n_participants=(14, 11), n_scans=(24, 18), seed=4)
    write_cohort(cohort, tmp_path / "bids", tmp_path / "out")
    assert _run(tmp_path / "bids", tmp_path / "out", "group", *QUICK, "--nested-folds", "0") == 0
    for path in sorted((done / "out/group/model/published").iterdir()):
        assert path.read_bytes() == (tmp_path / "out/group/model/published" / path.name).read_bytes()
    told = json.loads((tmp_path / "out/group/metrics.json").read_text("utf-8"))
    assert "nested" not in told["recommended"] and told["recipes"] == {}
    assert "none was asked for" in re.sub(r"\s+", " ", (tmp_path / "out/group.html").read_text("utf-8"))
    assert calibrated.load(tmp_path / "out/group/model/recommended").coverage == 0.9


def test_the_best_map_is_the_first_in_order_that_all_have(done: Path, tmp_path: Path) -> None:
    scans = labels.find_maps(done / "out")
    assert lesion_maps.best(scans, done / "out", "network") == "published"
    for name in reversed(lesion_maps.PREFERRED[:-1]):
        for scan in scans:
            path = tmp_path / scan.output(labels.MAPS[name])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        assert lesion_maps.best(scans, tmp_path, "network") == name
    path.unlink()
    assert lesion_maps.best(scans, tmp_path, "network") == lesion_maps.PREFERRED[1]  # one scan lacks the first


def test_the_best_map_of_scans_that_have_none_of_them_is_the_one_chosen(done: Path, tmp_path: Path) -> None:
    """Derivatives with nothing but the network's masks suffice for ``--lesion-map network``."""
    out = tmp_path / "out"
    for scan in labels.find_maps(done / "out"):
        old, new = done / "out" / scan.output(labels.MAPS["published"]), out / scan.output(labels.MAPS["network"])
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(old, new)
    shutil.copy(done / "out/dataset_description.json", out)
    words = ("--lesion-map", "network", "--nested-folds", "0", "--report-viewer", "none")
    assert _run(done / "bids", out, "group", *QUICK, *words) == 0
    told = json.loads((out / "group/metrics.json").read_text("utf-8"))
    assert told["recommended"]["lesion_map"] == "network"
    new.unlink()
    with pytest.raises(MissingInputError, match=scan.name):
        lesion_maps.best(labels.find_maps(done / "out"), out, "network")


@pytest.mark.long
def test_a_group_too_small_for_the_folds_is_one_line_wherever_they_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = draw_cohort(n_participants=(8, 4), n_scans=(8, 4), seed=4)
    write_cohort(few, tmp_path / "bids", tmp_path / "out")
    further.write_beliefs(tmp_path / "out", few, 4)
    words = (*QUICK, "--nested-folds", "2", "--repeats", "1", "--report-viewer", "none", "--features", "belief")
    told = []
    for nprocs in (1, 2):
        assert _run(tmp_path / "bids", tmp_path / "out", "group", *words, "--nprocs", nprocs) == 65
        told.append(capsys.readouterr().err.strip().splitlines()[-1].partition("exit code")[2])
    assert told[0] == told[1] and "a group has fewer than 3 training scans; use fewer folds" in told[0]


@pytest.mark.parametrize(
    ("words", "lesions", "beliefs_of", "norms"),
    [
        (("--lesion-threshold", "0.32"), 1, 0, 0),
        (("--lesion-map", "network"), 1, 0, 0),
        (("--lesion-map", "network", "--recommended-map", "published"), 2, 0, 0),
        (("--lesion-map", "normative", "--norm", "cohort", "--features", "belief"), 1, 1, 1),
    ],
)
def test_maps_are_read_and_norms_made_once(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], lesions: int,
    beliefs_of: int, norms: int,
) -> None:  # fmt: skip
    """The evaluations and the contest share what is the same for both."""
    write_cohort(cohort, tmp_path / "bids", tmp_path / "out")
    further.write_beliefs(tmp_path / "out", cohort, 4)
    for scan in cohort.scans:
        for name in ("network", "normative"):
            shutil.copy(*(tmp_path / "out" / scan.output(labels.MAPS[key]) for key in ("published", name)))
    chosen = (
        () if "--recommended-map" in words else ("--recommended-map", words[1] if "map" in words[0] else "published")
    )
    options = parser.parse([str(tmp_path / "bids"), str(tmp_path / "out"), "group", *words, *chosen])
    counts = {"load": 0, "beliefs": 0, "estimate": 0}

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **settings: Any) -> Any:
            counts[name] += 1
            return function(*args, **settings)

        return called

    monkeypatch.setattr(lesion_maps, "load", counted("load", lesion_maps.load))
    monkeypatch.setattr(beliefs, "load", counted("beliefs", beliefs.load))
    monkeypatch.setattr(cohort_norm, "estimate", counted("estimate", cohort_norm.estimate))
    labelled = Labelled(cohort.scans, cohort.participants, cohort.positive, cohort.table, (), ())
    maps = Maps(options, labelled)
    first = maps.by_rows(np.arange(len(cohort.scans)))
    entry = competition._entry(options, competition.Chosen(cohort.scans, labelled), maps)
    np.testing.assert_array_equal(entry.others, first.lesions)
    assert tuple(counts.values()) == (lesions, beliefs_of, norms)
    assert entry.of_others.lesion_map == options.lesion_map and (entry.of_others.norm is not None) == bool(norms)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--coverage", "1.5"), 64),
        (("--prevalence", "0"), 64),
        (("--sensitivity", "much"), 64),
        (("--repeats", "0"), 64),
        (("--recommended-map", "cleaned"), 66),
    ],
)
def test_bad_words_end_in_one_clear_line(
    done: Path, words: tuple[str, ...], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(done / "bids", done / "out", "group", *QUICK, "--nested-folds", "0", *words) == code
    told = capsys.readouterr().err.strip().splitlines()
    assert words[0].strip("-").split("-")[-1] in told[-1] or "cleaned" in told[-1]
