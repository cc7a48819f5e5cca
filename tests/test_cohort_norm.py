"""The norm of a cohort's own training scans: its laws, planted lesions, what test scans may not do, and predictions."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bids_app.bids.names import Scan
from bids_app.bids.query import find_scans
from bids_app.cohort import beliefs, labels
from bids_app.errors import BadInputError, MissingInputError
from bids_app.files import formats
from bids_app.image import atlas
from bids_app.lesions import cohort_norm, normative
from bids_app.model import calibrated, norms, prediction, storage
from bids_app.participant import reasons
from bids_app.phantom import further
from bids_app.phantom.cohort import draw_cohort
from bids_app.phantom.dataset import write_cohort
from bids_app.recommended import linear as machine
from bids_app.records.recommended import LinearModel
from bids_app.records.results import StoredModel, StoredPredictor
from bids_app.rivals import belief

Run = Callable[..., int]
GRID = atlas.brain_grid(3)
WHERE = np.argwhere(GRID.data) * 3.0 + GRID.affine[:3, 3]
LEFT, RIGHT = (-27.0, -20.0, 27.0), (27.0, -20.0, 27.0)  # mm, white matter
OVER = 0.5  # belief of a lesion over its place
N = 20
WORDS = ("--lesion-map", "normative", "--recommended-map", "normative", "--norm", "cohort", "--report-viewer", "none")
MODEL = "group/model/leakage-free"
QUICK = ("--cv-folds", "3", "--refine-limit", "1", "--bootstrap-draws", "60", "--repeats", "1")


def ball(centre: tuple[float, float, float], radius: float = 6.0) -> np.ndarray:
    return np.linalg.norm(WHERE - centre, axis=1) <= radius


def healthy(number: int = N, seed: int = 0, contrast: float = 1.0) -> np.ndarray:
    """Belief maps (N, V) of people without lesions, on another scanner where the contrast is another."""
    rng, of = np.random.default_rng(seed), cohort_norm.places()
    noise = rng.normal(0, 0.03, (number, len(WHERE)))
    return (contrast * of.centre + rng.normal(0.1, 0.05, (number, 1)) + noise).astype(np.float32)


def plain(values: np.ndarray) -> np.ndarray:
    """Median over everybody and everybody's mirror image, by numpy."""
    mirrored = [normative.mirrored(atlas.on_grid(each, np.nan).data, GRID)[GRID.data] for each in values]
    return np.nanmedian([*values, *mirrored], axis=0)


def test_without_lesions_the_norm_is_the_plain_median() -> None:
    values = healthy()
    norm = cohort_norm.estimate(values, np.arange(N))
    wanted = plain(values)
    of = cohort_norm.places()
    free = norm.known & (normative.difference(wanted, of.centre, norm.known & of.white) < of.bound)
    assert free.sum() > 0.99 * norm.known.sum() > 0.9 * len(WHERE)
    np.testing.assert_allclose(norm.centre[free], wanted[free], rtol=0, atol=1e-6)
    assert not norm.centre[~norm.known].any()
    assert norm.people == N


def test_everybody_counts_once_and_what_a_scan_does_not_reach_counts_not() -> None:
    values = healthy()
    once = cohort_norm.estimate(values, np.arange(N))
    often = np.repeat(np.arange(N), np.arange(N) % 3 + 1)
    again = cohort_norm.estimate(values[often], often)
    np.testing.assert_allclose(again.centre, once.centre, rtol=0, atol=1e-6)
    cut = np.concatenate([values, values])
    cut[:N, WHERE[:, 2] > 60] = 0  # the field of view of everybody's second scan ends there
    seen = cohort_norm.estimate(cut, np.tile(np.arange(N), 2))
    np.testing.assert_allclose(seen.centre, once.centre, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(seen.known, once.known)
    nobody = values.copy()
    nobody[: N // 2 + 1, WHERE[:, 2] > 60] = 0
    assert not cohort_norm.estimate(nobody, np.arange(N)).known[WHERE[:, 2] > 66].any()


@pytest.mark.parametrize("contrast", [1.0, 1.3])
@pytest.mark.parametrize("sides", [(LEFT,), (LEFT, RIGHT)])
def test_lesions_that_most_have_at_one_place_are_found_in_those_and_in_nobody_else(
    sides: tuple[tuple[float, float, float], ...], contrast: float
) -> None:
    values, ill = healthy(contrast=contrast), np.arange(N) < 0.6 * N
    place = np.any([ball(each) for each in sides], axis=0)
    values[np.ix_(ill, place)] += OVER
    if len(sides) == 2:  # the median itself takes the lesion for normal
        assert np.median(plain(values)[place]) > np.median(plain(healthy(contrast=contrast))[place]) + 0.8 * OVER
    norm = cohort_norm.estimate(values, np.arange(N))
    found = beliefs.over_norm(values, norm)
    for side in sides:
        share = found[:, ball(side)].mean(axis=1)
        assert (share[ill] > 0.9).all(), share
        assert not share[~ill].any()
    assert found[:, ~place].mean() < 1e-4


def test_the_bound_is_no_wider_than_what_keeps_a_seed_a_lesion() -> None:
    of = cohort_norm.places()
    assert (of.bound >= normative.LEAST_SPREAD).all()
    assert (of.bound <= normative.SEED - normative.GROW + 1e-6).all()
    everybody = healthy()
    everybody[:, ball(LEFT) | ball(RIGHT)] += OVER
    norm = cohort_norm.estimate(everybody, np.arange(N))
    over = normative.difference(norm.centre, of.centre, norm.known & of.white)
    assert (over <= of.bound + 0.01)[norm.known].all()
    assert beliefs.over_norm(everybody, norm)[:, ball(LEFT)].mean() > 0.9  # even where all have it


def test_the_same_lesions_as_on_the_scan_grid(done: Path, tiny: tuple[Path, Path]) -> None:
    """Against the norm in the package: the participant level's map, up to what 3 mm loses."""
    of = cohort_norm.places()
    norm = cohort_norm.CohortNorm(np.where(of.known, of.centre, 0).astype(np.float32), of.known, 0)
    scans = find_scans(tiny[0])[0]
    for scan, found in zip(scans, beliefs.over_norm(beliefs.load(scans, done), norm), strict=True):
        own = formats.read_nifti(done / scan.output("normative_mni"))[0][GRID.data] > 0
        if own.any():
            assert 2 * (own & found).sum() / (own.sum() + found.sum()) > 0.7
        else:
            assert found.sum() <= 2


def test_a_fold_does_not_see_its_test_scans() -> None:
    values, participants = healthy(), np.arange(N)
    train, test = np.arange(12), np.arange(12, N)
    other = values.copy()
    other[test] = np.random.default_rng(5).normal(0, 1, other[test].shape)
    one, two = (beliefs.by_norm(each, participants)(train) for each in (values, other))
    assert one.norm is not None and two.norm is not None
    assert one.norm.centre.tobytes() == two.norm.centre.tobytes()
    assert one.norm.known.tobytes() == two.norm.known.tobytes()
    assert one.lesions[train].tobytes() == two.lesions[train].tobytes()
    assert one.lesions[test].tobytes() != two.lesions[test].tobytes()
    limits = [belief.limit(each, participants, train) for each in (values, other)]
    assert limits[0].tobytes() == limits[1].tobytes()
    np.testing.assert_array_equal(limits[0], belief.limit(values[train], participants[train]))


def test_too_few_people_are_refused() -> None:
    with pytest.raises(BadInputError, match=r"6 participants are too few .* --norm shipped"):
        cohort_norm.estimate(healthy(12), np.arange(12) // 2)


# -- from the command line -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort with belief maps; its normative maps, which only say that a scan has one, are empty."""
    root = tmp_path_factory.mktemp("norm")
    cohort = draw_cohort(n_participants=(14, 12), n_scans=(20, 16), seed=6)
    write_cohort(cohort, root / "bids", root / "out")
    further.write_beliefs(root / "out", cohort, 6)
    for scan in cohort.scans:
        formats.write_nifti(root / "out" / scan.output("normative_mni"), np.zeros(GRID.data.shape, bool), GRID.affine)
    return root


@pytest.fixture(scope="module")
def ran(data: Path, run_app: Run) -> Path:
    nested = ("--nested-folds", "3", "--permutations", "1", "--features", "belief", "--compare", "linear-svm")
    assert run_app(data / "bids", data / "out", "group", *WORDS, *QUICK, *nested) == 0
    return data / "out"


def scans_of(out: Path, rows: str) -> list[Scan]:
    table = formats.read_tsv(out / "group/predictions.tsv")
    chosen = (table["evaluation"] == "leakage-free") & (table["set"] == rows)
    return [Scan.named(name) for name in table["scan"][chosen]]


@pytest.mark.parametrize("name", ["published", "leakage-free"])
def test_models_carry_their_norm_and_predict_what_the_report_says(name: str, ran: Path, tmp_path: Path) -> None:
    model = storage.load(ran / "group/model" / name)
    table = formats.read_tsv(ran / "group/predictions.tsv")
    known = table[table["evaluation"] == name].set_index("scan")
    found = prediction.predict(model, [Scan.named(scan) for scan in known.index], ran, tmp_path).set_index("scan")
    told = found.loc[known.index, "decision_value"].map("{:.10g}".format).astype(float)
    assert (told == known["decision_value"].astype(float)).all()
    # the norm is that of the training scans alone
    training = [Scan.named(scan) for scan in known.index[known["set"] == "training"]]
    people = np.array([scan.participant for scan in training])
    again, norm = cohort_norm.estimate(beliefs.load(training, ran), people), model.purpose.norm
    assert norm is not None and norm.people == len(set(people))
    assert again.centre.tobytes() == norm.centre.tobytes() and again.known.tobytes() == norm.known.tobytes()
    assert formats.read_json(ran / "group/metrics.json")[name]["norm_participants"] == norm.people
    assert not found.loc[known.index[known["set"] == "training"], "out_of_range"].any()


@pytest.mark.parametrize("name", ["recommended", "lesion-volume", "linear-svm"])
def test_a_model_of_all_scans_is_of_the_norm_of_everybody(name: str, ran: Path, tmp_path: Path) -> None:
    best = calibrated.load(ran / "group/model" / name)
    scans = labels.find_maps(ran, "normative")
    participants = np.array([scan.participant for scan in scans])
    made = beliefs.by_norm(beliefs.load(scans, ran), participants)(np.arange(len(scans)))
    assert best.purpose.norm is not None and made.norm is not None
    assert (
        best.purpose.norm.people
        == 26
        == formats.read_json(ran / "group/metrics.json")["recommended"]["norm_participants"]
    )
    assert best.purpose.norm.centre.tobytes() == made.norm.centre.tobytes()
    told = prediction.predict(best, scans, ran, tmp_path)
    np.testing.assert_allclose(told["lesion_volume_mni_ml"], made.lesions.sum(axis=1) * GRID.voxel_ml)
    assert isinstance(best.model, LinearModel)
    wanted = machine.decisions(best.model, made.lesions, GRID.data, GRID.affine)
    np.testing.assert_array_equal(told["decision_value"], wanted)
    reasons.write(best, scans[:2], ran, tmp_path, 1)
    about = formats.read_json(formats.sidecar(ran / scans[0].output("contribution")))
    assert about["Sources"] == [f"bids::{scans[0].output('belief_mni')}"]
    assert about["DecisionValue"] == pytest.approx(wanted[0])


def test_lesions_drawn_into_the_belief_are_what_the_maps_show(ran: Path) -> None:
    model = storage.load(ran / "group/model/leakage-free")
    scans = scans_of(ran, "test")
    found = prediction.maps_of(model, scans, ran, ran, 1)
    of = cohort_norm.places()
    may_be = of.possible[GRID.data] & (of.priors.wm[GRID.data] > 0.5)
    for scan, lesions in zip(scans, found, strict=True):
        drawn = formats.read_nifti(ran / scan.output("lesion_mni"))[0][GRID.data] > 0
        if drawn[may_be].sum() > 50:
            assert lesions[may_be & drawn].mean() > 0.6
        assert lesions[~drawn].mean() < 0.01


@pytest.mark.long
def test_test_scans_do_not_change_a_byte_of_the_stored_model(data: Path, run_app: Run, tmp_path: Path) -> None:
    places = [tmp_path / "as-it-is", tmp_path / "changed"]
    for out in places:
        shutil.copytree(data / "out", out, ignore=shutil.ignore_patterns("group", "*.html", "logs", "tpl-*"))
        if out != places[0]:
            for scan in scans_of(places[0], "test"):
                path = out / scan.output("belief_mni")
                values, affine = formats.read_nifti(path)
                formats.write_nifti(path, np.where(values == 0, 0, values[::-1] + 0.3).astype(np.float32), affine)
        assert run_app(data / "bids", out, "group", *WORDS, *QUICK, "--nested-folds", "0") == 0
    own, other = ({path.name: path.read_bytes() for path in (out / MODEL).iterdir()} for out in places)
    assert set(own) >= {"norm.npz", "model.json", "arrays.npz"}
    assert own == other
    one, two = (formats.read_tsv(out / "group/predictions.tsv") for out in places)
    assert not one.equals(two)  # they were changed


def test_a_norm_that_was_changed_is_refused(ran: Path, tmp_path: Path) -> None:
    for name, load in (("leakage-free", storage.load), ("recommended", calibrated.load)):
        folder = tmp_path / name
        shutil.copytree(ran / "group/model" / name, folder)
        norm = bytearray((folder / "norm.npz").read_bytes())
        norm[len(norm) // 2] ^= 1
        (folder / "norm.npz").write_bytes(bytes(norm))
        with pytest.raises(BadInputError, match=r"norm\.npz"):
            load(folder)
        (folder / "norm.npz").unlink()
        with pytest.raises(MissingInputError, match=r"norm\.npz"):
            load(folder)


@pytest.mark.parametrize("name", ["leakage-free", "recommended"])
def test_a_model_without_a_norm_leaves_none_of_an_earlier_one(name: str, ran: Path, tmp_path: Path) -> None:
    load = {"leakage-free": storage.load, "recommended": calibrated.load}[name]
    shutil.copytree(ran / "group/model" / name, tmp_path / name)
    stored: StoredModel | StoredPredictor = load(tmp_path / name)
    assert norms.save(None, tmp_path / name) == {} and not (tmp_path / name / "norm.npz").exists()
    assert stored.purpose.norm is not None and norms.files(None) == ()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((), 64, "set one of the two to normative"),
        (("--lesion-map", "external"), 64, "--lesion-map external"),
        (("--lesion-map", "published", "--recommended-map", "network"), 64, "use none"),
        (("--lesion-map", "normative", "--site-column", "site"), 64, "--site-column"),
        (("--lesion-map", "normative", "--groups", "RRMS", "NMOSD", "MOGAD"), 64, "--groups"),
        (("--lesion-map", "normative", "--test-percent", "80", "--nested-folds", "0"), 65, "too few"),
    ],
)
def test_what_cannot_apply_is_one_clear_line(
    data: Path, run_app: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int,
    says: str,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    shutil.copytree(data / "out", out, ignore=shutil.ignore_patterns("group", "*.html", "logs", "tpl-*"))
    assert run_app(data / "bids", out, "group", "--norm", "cohort", *words) == code
    said = capsys.readouterr().err.strip().splitlines()
    assert says in "\n".join(said[-2:]) and "Traceback" not in "\n".join(said)
