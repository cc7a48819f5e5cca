"""What the authors wished for, from the command line to metrics.json and the report; bad input is one clear line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind
from sklearn.preprocessing import StandardScaler
from test_recommended import draw, made

from bids_app.cohort import labels, selected
from bids_app.errors import BadInputError
from bids_app.group import kept
from bids_app.learning.roc import auc_within
from bids_app.options import NETWORK, RIVALS
from bids_app.phantom import further
from bids_app.phantom.cohort import draw_cohort, draw_third
from bids_app.phantom.dataset import write_cohort
from bids_app.recommended.nested import Wanted, not_stored, outer_folds, run
from bids_app.records.further import Covariates
from bids_app.rivals import belief, clinical, several
from bids_app.rivals.chosen import People

Run = Callable[..., int]
QUICK = ("--lesion-threshold", "0.32", "--cv-folds", "3", "--refine-limit", "1", "--bootstrap-draws", "60")
NESTED = ("--nested-folds", "3", "--repeats", "1", "--report-viewer", "none")
COMPARED = tuple(name for name in RIVALS if name != NETWORK or find_spec("torch"))  # an extra: its tests are elsewhere
ALL = (
    *("--compare", *COMPARED, "--features", "belief", "--covariates", "age_at_onset", "sex", "--site-column", "site"),
    *("--groups", "RRMS", "NMOSD", "MOGAD"),
)
ROWS = [
    *("recommended", "leakage-free", "lesion volume", "recommended, belief", "leakage-free, belief"),
    *("recommended, covariates", "covariates alone", "site alone", *COMPARED),
    *("recommended, one site left out", "published"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("wishes")
    cohort = draw_cohort(n_participants=(20, 16), n_scans=(30, 24), seed=4)
    write_cohort(cohort, root / "bids", root / "out")
    further.write_third(root / "bids", root / "out", 10, 4)
    further.write_sites(root / "bids", cohort, 4)
    further.write_beliefs(root / "out", cohort, 4)
    return root


@pytest.fixture(scope="module")
def done(data: Path, run_app: Run) -> Path:
    assert run_app(data / "bids", data / "out", "group", *QUICK, *NESTED, *ALL) == 0
    return data / "out"


@pytest.fixture(scope="module")
def metrics(done: Path) -> dict[str, Any]:
    return json.loads((done / "group/metrics.json").read_text("utf-8"))


@pytest.mark.long
def test_one_command_gives_every_row(done: Path, metrics: dict[str, Any]) -> None:
    assert list(metrics["recipes"]["rows"]) == ROWS
    page = re.sub(r"\s+", " ", (done / "group.html").read_text("utf-8"))
    for name in ROWS:
        assert f"<td>{name}" in page
    for name in ROWS[:-2]:
        gap = metrics["recipes"]["rows"][name]["auc_difference"]
        assert (gap is None) == (name == "leakage-free")


@pytest.mark.long
def test_sites_and_groups_are_counted_whole(metrics: dict[str, Any]) -> None:
    confounding, groups = metrics["confounding"], metrics["several_groups"]
    of_sites = [sum(each["scans"].values()) for each in confounding["one_site_left_out"].values()]
    assert sum(of_sites) == metrics["cohort"]["scans"] == 54
    assert confounding["maps_tell_the_site"]["groups"] == sorted(further.SITES)
    assert groups["scans"] == {"RRMS": 30, "NMOSD": 24, "MOGAD": 20}
    for name, row in groups["confusion"].items():
        assert sum(row.values()) == pytest.approx(groups["scans"][name])
    mean = np.mean([each["value"] for each in groups["auc_against_the_rest"].values()])
    assert groups["macro_auc"]["value"] == pytest.approx(mean)
    assert "MOGAD" in str(metrics["left_out"])


@pytest.mark.long
def test_the_published_model_is_the_same_bytes_without_all_that(done: Path, data: Path, run_app: Run) -> None:
    own = {path.name: path.read_bytes() for path in (done / "group/model/published").iterdir()}
    other = data / "again"
    shutil.copytree(done, other, ignore=shutil.ignore_patterns("group", "*.html", "logs"))
    assert run_app(data / "bids", other, "group", *QUICK, "--nested-folds", "0") == 0
    assert own == {path.name: path.read_bytes() for path in (other / "group/model/published").iterdir()}


@pytest.mark.long
def test_acute_scans_stay_and_the_others_go_by_name(data: Path, run_app: Run) -> None:
    out = data / "acute"
    shutil.copytree(data / "out", out, ignore=shutil.ignore_patterns("group", "*.html", "logs"))
    assert run_app(data / "bids", out, "group", *QUICK, *NESTED, "--max-days-since-relapse", "400") == 0
    found = json.loads((out / "group/metrics.json").read_text("utf-8"))
    visits = pd.concat(pd.read_csv(path, sep="\t") for path in sorted(data.glob("bids/sub-[0-9]*/*_sessions.tsv")))
    stay = int((visits["time_since_latest"] * 365.25 / 12 <= 400).sum())
    counts = found["acute_phase"]["counts"]
    assert sum(each["scans"] for each in counts["stays"].values()) == found["cohort"]["scans"] == stay
    assert sum(each["scans"] for part in counts.values() for each in part.values()) == len(visits) == 54
    assert len([each for each in found["left_out"] if "days since a relapse" in each["reason"]]) == 54 - stay
    assert "recommended, all phases" in found["recipes"]["rows"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--covariates", "shoe_size"), 65, "no column 'shoe_size'"),
        (("--site-column", "sex"), 65, "participant(s) of group"),
        (("--site-column", "nowhere"), 65, "no column 'nowhere'"),
        (("--max-days-since-relapse", "0.001"), 65, "within 0.001 days"),
        (("--max-days-since-relapse", "90", "--relapse-column", "sex"), 65, "no number"),
        (("--max-days-since-relapse", "-3"), 64, "36525"),
        (("--groups", "RRMS", "NMOSD", "LUPUS"), 65, "LUPUS"),
        (("--groups", "RRMS"), 64, "two or more"),
        (("--groups", "A", "B", "--positive", "C"), 64, "different pairs"),
        (("--compare", "magic"), 64, "magic"),
        (("--compare", "linear-svm", "--nested-folds", "0"), 64, "--nested-folds"),
    ],
)
def test_bad_input_ends_in_one_clear_line(
    data: Path, run_app: Run, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, says: str
) -> None:
    people = data / "bids/participants.tsv"
    before = people.read_text("utf-8")
    if words[-1] == "sex" and words[0] == "--site-column":  # all women of one group: a site with one group only
        table = pd.read_csv(people, sep="\t")
        table.loc[table["group"] == "NMOSD", "sex"] = "F"
        people.write_text(table.to_csv(sep="\t", index=False), "utf-8")
    try:
        assert run_app(data / "bids", data / "out", "group", *QUICK, *NESTED, *words) == code
    finally:
        people.write_text(before, "utf-8")
    said = capsys.readouterr().err.strip().splitlines()
    last = said[-2] if code == 64 else said[-1]  # of a wrong command line the code is told on a line of its own
    assert says in last and "Traceback" not in "\n".join(said)


# -- parts ---------------------------------------------------------------------------------------


def covariates_of(positive: np.ndarray, names: np.ndarray, effect: float, seed: int = 0) -> Covariates:
    rng = np.random.default_rng(seed)
    person = np.unique(names, return_inverse=True)[1]
    age = rng.normal(size=person.max() + 1)[person] + effect * positive
    word = rng.integers(0, 3, person.max() + 1)[person].astype(float)
    age[::7], word[::5] = np.nan, np.nan
    return Covariates(("age", "kind"), np.stack([age, word], axis=1), ((), ("x", "y", "z")))


def test_covariates_are_made_of_training_rows_alone() -> None:
    _, names, positive = draw()
    of = covariates_of(positive, names, 1.0)
    training = np.arange(50)
    found = clinical.prepared(of, training).transform(of.values)
    known = np.where(np.isnan(of.values[:, :1]), np.nanmedian(of.values[training, :1]), of.values[:, :1])
    wanted = StandardScaler().fit(known[training]).transform(known)[:, 0] / np.sqrt(2)
    np.testing.assert_allclose(found[:, 0], wanted)
    changed = Covariates(of.names, of.values.copy(), of.words)
    changed.values[50:] = 99
    again = clinical.prepared(changed, training).transform(of.values)
    np.testing.assert_array_equal(found, again)
    assert found[training].var(axis=0).sum() == pytest.approx(1, abs=0.05)


def test_covariates_that_tell_the_groups_are_used_and_others_do_no_harm() -> None:
    maps, names, positive = draw(effect=0.0, people=45)
    people = People(positive, np.unique(names, return_inverse=True)[1], ~maps.any(axis=1))
    of, outer = made(maps, names), outer_folds(positive, names, 3, 1, 0)

    def auc(found: Covariates, way: str) -> float:
        recipe = (clinical.alone(found, people, 3) if way == "alone" else
                  clinical.beside_lesions(of, found, people, 3, lambda _: not_stored()))  # fmt: skip
        out = run(way, recipe, outer, people.lesion_free, Wanted(0.9, 0.8), 0)
        return auc_within(positive, out.decisions[0], out.fold[0]).value

    telling, silent = covariates_of(positive, names, 3.0), covariates_of(positive, names, 0.0)
    assert auc(telling, "alone") > 0.9 and auc(telling, "beside") > 0.85
    assert 0.2 < auc(silent, "alone") < 0.8


def test_welch_is_that_of_scipy_and_ties_keep_their_order() -> None:
    rng = np.random.default_rng(0)
    values, positive = rng.gamma(1.0, size=(40, 30)).astype(np.float32), np.arange(40) % 3 > 0
    values[:, 5:8] = 0
    wanted = ttest_ind(values[positive].astype(float), values[~positive].astype(float), equal_var=False).statistic
    np.testing.assert_allclose(belief.welch(values, positive), np.nan_to_num(wanted), rtol=1e-6, atol=1e-9)
    assert belief.ranked(values, positive)[-3:].tolist() == [5, 6, 7]


def test_belief_above_its_norm_finds_brighter_lesions() -> None:
    rng = np.random.default_rng(1)
    maps, names, positive = draw(people=45, effect=0.0)
    people = People(positive, np.unique(names, return_inverse=True)[1], ~maps.any(axis=1))
    values = rng.normal(0, 0.1, maps.shape) + maps * np.where(positive, 1.0, 0.6)[:, None]
    above = belief.above(values, belief.limit(values, people.person))
    assert above.min() == 0 and (above > 0).mean() < 0.2 and above[maps].mean() > 10 * above[~maps].mean()
    from bids_app.learning.protocols import Plan

    recipe = belief.welch_svm(above, people, Plan(3, 1, "smo", 10, 0))
    outer = outer_folds(positive, names, 3, 1, 0)
    out = run("welch", recipe, outer, people.lesion_free, Wanted(0.9, 0.8), 0)
    assert np.isfinite(out.decisions).all() and np.isfinite(out.probability).all()


def test_a_planted_third_group_is_found_and_no_fold_shares_a_participant() -> None:
    maps, names, positive = draw(people=60, effect=4.0)
    person = np.unique(names, return_inverse=True)[1]
    groups = np.where(positive, 0, 1)
    groups[person % 4 == 3] = 2
    some = np.random.default_rng(0).random(maps.shape[1]) < 0.3
    maps = np.where((groups == 2)[:, None], np.roll(maps, 3, axis=1) & some, maps & ~some)
    outer = several.outer_folds(groups, names, ("a", "b", "c"), 3, 0)
    for fold in outer:
        assert not set(names[fold.train]) & set(names[fold.validate])
        assert set(groups[fold.validate]) == {0, 1, 2}
    of = made(maps, names)
    parts = [several.tested(of, groups, 3, fold, 3, 0) for fold in outer]
    found = several.judged(("a", "b", "c"), groups, names, [outer], [parts], several.draw(groups, names, 50, 0))
    assert found.auc["c"].value > 0.75 and found.macro_auc.value > 0.65
    assert found.balanced_accuracy.value > 0.45
    assert found.confusion.sum() == len(maps)


def test_a_group_too_small_for_folds_is_named() -> None:
    groups, names = np.array([0, 0, 0, 1, 1, 1, 2, 2]), np.array(list("abcdefgh"))
    with pytest.raises(BadInputError, match="group MOGAD has 2 participants"):
        several.outer_folds(groups, names, ("RRMS", "NMOSD", "MOGAD"), 3, 0)


def test_the_unit_of_the_time_since_a_relapse_is_told(data: Path, tmp_path: Path) -> None:
    scans = labels.find_maps(data / "out")
    both = labels.label(scans, labels.Tables(data / "bids", data / "out", None, ("RRMS", "NMOSD")))
    found = selected.acute(both, 400, None, ("RRMS", "NMOSD"), data / "bids")
    np.testing.assert_allclose(found.since, both.table["time_since_latest"] * 365.25 / 12)
    with pytest.raises(BadInputError, match="unit of column"):
        selected.acute(both, 400, None, ("RRMS", "NMOSD"), tmp_path)


def test_the_third_group_of_the_phantom_cohort_is_found(tmp_path: Path) -> None:
    """Forty participants whose lesions lie elsewhere, as ``--third`` plants them, are told from both other groups."""
    cohort = draw_cohort(n_participants=(24, 18), n_scans=(30, 24), seed=4)
    table, lesions = draw_third(40, 80, 4)
    names = np.concatenate([cohort.participants, table["participant_id"].to_numpy(dtype=str)])
    groups = np.concatenate([np.where(cohort.positive, 0, 1), np.full(len(lesions), 2)])
    of = kept.lay(tmp_path, np.concatenate([cohort.lesions, lesions]), names)
    levels = ("RRMS", "NMOSD", further.THIRD)
    outer = several.outer_folds(groups, names, levels, 3, 0)
    parts = [several.tested(of, groups, 3, fold, 3, 0) for fold in outer]
    found = several.judged(levels, groups, names, [outer], [parts], several.draw(groups, names, 50, 0))
    assert found.participants == (24, 18, 40) and found.scans == (30, 24, 80)
    assert found.auc[further.THIRD].value > 0.7
    assert found.confusion[2].argmax() == 2  # and most of its scans are called so
