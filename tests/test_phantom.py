"""The phantom: valid BIDS, equal bytes, truth that follows the map; the cohort: counts, identity, sites."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from sklearn.metrics import cohen_kappa_score, pairwise_distances

from bids_app.bids import query
from bids_app.cohort.lesion_maps import read_mask
from bids_app.cohort.ratings import read_decisions
from bids_app.errors import BadInputError
from bids_app.files import formats
from bids_app.image import atlas
from bids_app.phantom import __main__
from bids_app.phantom import cohort as who
from bids_app.phantom import dataset as phantom_dataset
from bids_app.phantom import scan as phantom_scan
from bids_app.phantom.records import Design, PhantomMap, PhantomScan
from bids_app.records.cohort import Cohort

COARSE = (2.0, 2.0, 4.0)
SMALL: dict[str, Any] = {"n_participants": (6, 4), "n_scans": (15, 8)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("images")
    raw, truth = folder / "raw", folder / "truth"
    phantom_dataset.make_dataset(raw, truth, Design(n_positive=1, n_negative=2, spacing=COARSE), seed=1)
    return raw, truth


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, Path, Path]:
    folder = tmp_path_factory.mktemp("cohort")
    cohort = who.draw_cohort(**SMALL, seed=2)
    phantom_dataset.write_cohort(cohort, folder / "raw", folder / "maps")
    return cohort, folder / "raw", folder / "maps"


@cache
def drawn(effect: float = 1.0, shuffle: bool = False) -> Cohort:
    return who.draw_cohort(seed=0, effect=effect, shuffle_labels=shuffle)


@cache
def one(group: int = 0) -> tuple[PhantomMap, PhantomScan]:
    rng = np.random.default_rng(group)
    place = phantom_scan.draw_map(rng)
    return place, phantom_scan.scan(phantom_scan.draw_blobs(rng, 8, group), place, COARSE, rng)


def digests(folder: Path) -> dict[str, str]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def errors_of(folder: Path) -> list[dict]:
    name = "bids-validator-deno"
    program = shutil.which(name, path=str(Path(sys.executable).parent)) or name
    command = [program, "--format", "json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [issue for issue in json.loads(done.stdout)["issues"]["issues"] if issue["severity"] == "error"]


def at_centres(place: PhantomMap, made: PhantomScan) -> np.ndarray:
    """Template position (3, X, Y, Z), mm, of the scan's voxel centres."""
    affine = made.flair.affine
    axes = (affine[i, 3] + affine[i, i] * np.arange(n) for i, n in enumerate(made.flair.data.shape))
    return phantom_scan.to_template(place, *axes)


def sampled(data: np.ndarray, points: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Nearest value of a template map at points (3, N), mm."""
    index = np.rint((points - affine[:3, 3:]) / affine[0, 0]).astype(int)
    held = [i.clip(0, n - 1) for i, n in zip(index, data.shape, strict=True)]
    return data[tuple(held)]


# -- images --------------------------------------------------------------------------------------


def test_images_are_valid_bids(dataset: tuple[Path, Path]) -> None:
    for folder in dataset:
        assert errors_of(folder) == []


def test_scans_are_found_and_each_has_its_truth(dataset: tuple[Path, Path]) -> None:
    raw, truth = dataset
    scans, without = query.find_scans(raw)
    assert [scan.name for scan in scans] == ["sub-01_ses-1", "sub-02_ses-1", "sub-02_ses-2", "sub-03_ses-1"]
    assert without == []
    for scan in scans:
        flair = formats.open_nifti(raw / scan.path)
        assert nib.aff2axcodes(flair.affine) == ("L", "P", "S")
        assert np.allclose(flair.header.get_zooms(), COARSE)
        assert flair.get_data_dtype() in (np.int16, np.uint16)
        for key in ("brain", "lesion"):
            mask, affine = formats.read_nifti(truth / scan.output(key))
            assert mask.shape == flair.shape
            assert np.allclose(affine, flair.affine)
        read_mask(truth / scan.output("lesion_mni"))  # refuses another grid


def test_only_the_scans_asked_for_are_lesion_free(dataset: tuple[Path, Path]) -> None:
    raw, truth = dataset
    for scan in query.find_scans(raw)[0]:
        free = scan.name == "sub-02_ses-1"  # the first NMOSD scan
        for key in ("lesion", "lesion_mni"):
            assert formats.read_nifti(truth / scan.output(key))[0].any() != free, (scan.name, key)


def test_equal_seeds_give_equal_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        phantom_dataset.make_dataset(
            tmp_path / name / "raw",
            tmp_path / name / "truth",
            Design(n_positive=1, n_negative=0, sessions=(1,), spacing=(4.0, 4.0, 5.0)),
            seed,
        )
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert a == b
    image = "raw/sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz"
    assert a[image] != c[image]


@pytest.mark.parametrize("group", [0, 1])
def test_truth_of_scan_and_template_agree_through_the_map(group: int) -> None:
    place, made = one(group)
    grid = atlas.brain_grid(3)
    points = at_centres(place, made)
    near = ndimage.binary_dilation(made.lesion_mni, np.ones((3, 3, 3)))
    # a voxel is up to 4 mm thick and a template voxel 3 mm wide: neighbours are as close as one can ask
    inside = sampled(near, points[:, made.lesion], grid.affine)
    assert inside.size
    assert inside.mean() > 0.95
    brain = sampled(grid.data, points[:, made.brain], grid.affine)
    assert brain.mean() > 0.98
    # volumes: a scan's voxel covers |det| of itself in the template
    for native, template, within in ((made.brain, grid.data, 0.06), (made.lesion, made.lesion_mni, 0.3)):
        expected = template.sum() * 0.027 / np.linalg.det(place.matrix)
        assert native.sum() * made.flair.voxel_ml == pytest.approx(expected, rel=within)


def test_maps_can_be_inverted() -> None:
    axis = np.arange(-120.0, 121.0, 12.0)
    for seed in range(20):
        place = phantom_scan.draw_map(np.random.default_rng(seed))
        step = 0.01
        base = phantom_scan.to_template(place, axis, axis, axis)
        moved = ((axis + step * (i == k) for i in range(3)) for k in range(3))
        columns = [phantom_scan.to_template(place, *axes) - base for axes in moved]
        jacobian = np.moveaxis(np.stack(columns) / step, (0, 1), (-1, -2))
        assert np.linalg.det(jacobian).min() > 0.2
        size = np.cbrt(np.linalg.det(place.matrix))
        assert 1 / 1.1 <= size <= 1 / 0.85


def test_signal_falls_from_lesion_over_gray_and_white_matter_to_fluid() -> None:
    place, made = one(0)
    maps = atlas.load()
    points = at_centres(place, made)[:, made.brain]
    values, lesion = made.flair.data[made.brain], made.lesion[made.brain]
    gm, wm, csf = (
        np.median(values[~lesion & (sampled(volume.data, points, volume.affine) > 0.97)])
        for volume in (maps.gm, maps.wm, maps.csf)
    )
    assert np.median(values[lesion]) > 1.2 * gm
    assert 0.7 < wm / gm < 0.9
    assert csf < 0.65 * wm  # thick slices fill sulci with cortex


def test_the_head_goes_on_outside_the_brain_and_ends_in_air() -> None:
    _, made = one(0)
    gray = np.median(made.flair.data[made.brain])
    apart: np.ndarray = np.asarray(ndimage.distance_transform_edt(~made.brain, sampling=made.flair.spacing))
    middle = slice(made.brain.shape[2] // 2, None)  # above the face
    away = apart[..., middle]
    ring, shell, air = ((away > low) & (away < high) for low, high in ((8, 10), (3, 5), (30, 99)))
    data = made.flair.data[..., middle]
    assert np.median(data[ring]) > 2 * np.median(data[shell])
    assert np.median(data[air]) < 0.1 * gray


def test_blobs_of_a_group_lie_at_its_sites() -> None:
    grid = atlas.brain_grid(3)
    for group in (0, 1):
        blobs = phantom_scan.draw_blobs(np.random.default_rng(3), 200, group)
        anywhere = np.zeros(grid.data.shape, bool)
        anywhere[grid.data] = np.logical_or.reduce(list(who.sites().values()))
        centres = np.stack([blob.centre for blob in blobs], axis=1)
        assert sampled(anywhere, centres, grid.affine).all()


NOBODY = {"n_positive": 0, "n_negative": 0}


@pytest.mark.parametrize("wrong", [NOBODY, {"sessions": ()}, {"spacing": (1, 1, 40)}])
def test_impossible_data_sets_are_refused(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(BadInputError):
        phantom_dataset.make_dataset(tmp_path / "raw", tmp_path / "truth", Design(**wrong))
    assert not list(tmp_path.iterdir())


# -- cohort --------------------------------------------------------------------------------------


def by_person(cohort: Cohort) -> pd.DataFrame:
    return pd.Series(cohort.positive, index=cohort.participants).groupby(level=0).agg(["nunique", "first"])


def test_cohort_has_the_published_counts() -> None:
    cohort = drawn()
    assert cohort.lesions.shape == (1038, 69765)
    people = by_person(cohort)
    assert (people["nunique"] == 1).all()
    assert (people["first"].sum(), (~people["first"]).sum()) == (172, 97)
    assert (cohort.positive.sum(), (~cohort.positive).sum()) == (746, 292)
    sex = cohort.table.groupby(cohort.participants)["sex"].first()
    assert (sex[people["first"]] == "M").sum() == 44
    assert (sex[~people["first"]] == "M").sum() == 12


def test_cohort_is_a_function_of_its_seed() -> None:
    again, other = who.draw_cohort(**SMALL, seed=4), who.draw_cohort(**SMALL, seed=5)
    first = who.draw_cohort(**SMALL, seed=4)
    assert np.array_equal(first.lesions, again.lesions)
    assert first.table.equals(again.table)
    assert not np.array_equal(first.lesions.sum(), other.lesions.sum())


def test_table_is_consistent_in_time() -> None:
    table = drawn().table
    assert np.allclose(table.age - table.age_at_onset, table.disease_duration, atol=0.06)
    assert np.allclose(table.time_since_first / 12, table.disease_duration, atol=0.01)
    assert (table.time_since_latest <= table.time_since_first).all()
    first = table[table.attack_index == 1]
    assert np.allclose(first.time_since_latest, first.time_since_first)
    steps = table.groupby(drawn().participants)[["attack_index", "age"]].diff().dropna()
    assert (steps >= 0).to_numpy().all()
    assert 0.1 < (table.time_since_latest < 3).mean() < 0.6  # the acute phase can be studied


def test_half_of_the_negative_scans_are_lesion_free() -> None:
    cohort = drawn()
    free: np.ndarray = np.logical_not(cohort.lesions.any(axis=1))
    assert 0.4 < free[~cohort.positive].mean() < 0.6
    assert free[cohort.positive].mean() < 0.3
    prone = np.any(list(who.sites().values()), axis=0)
    assert 0.01 < cohort.lesions[:, prone].mean() < 0.04


def test_scans_of_a_participant_are_more_alike_than_others_of_the_group() -> None:
    cohort = drawn()
    rows = np.flatnonzero(cohort.positive & cohort.lesions.any(axis=1))[:200]
    alike = 1 - pairwise_distances(cohort.lesions[rows], metric="jaccard")
    same = cohort.participants[rows][:, None] == cohort.participants[rows]
    off = ~np.eye(len(rows), dtype=bool)
    assert np.median(alike[same & off]) > 5 * np.median(alike[~same])


def site_mask(group: str) -> np.ndarray:
    """Return the sites (V,) bool where a scan of this group has more lesions than one of the other group.

    Expected lesions: share of the site, times load, times share of participants that have lesions at all.
    Grown by one voxel, since sites hold the centres of lesions; where both groups then lie, neither does.
    """
    own, load = who.LEVELS.index(group), np.array(who.LOAD[:2]) * (1 - np.array(who.LESION_FREE[:2]))
    more = {name: bool(np.argmax(load * shares[:2]) == own) for name, shares in who.MIXTURE.items()}
    grid = atlas.brain_grid(3).data
    near = []
    for wanted in (True, False):
        centres = np.zeros(grid.shape, bool)
        chosen = [where for name, where in who.sites().items() if more[name] is wanted]
        centres[grid] = np.logical_or.reduce(chosen)
        near.append(ndimage.binary_dilation(centres)[grid])
    return near[0] & ~near[1]


def test_frequency_difference_finds_the_planted_sites() -> None:
    cohort = drawn()
    difference = cohort.lesions[cohort.positive].mean(axis=0) - cohort.lesions[~cohort.positive].mean(axis=0)
    order = np.argsort(difference)
    assert site_mask("RRMS")[order[-200:]].mean() > 0.9
    assert site_mask("NMOSD")[order[:50]].mean() > 0.8
    assert site_mask("RRMS").mean() < 0.4  # what chance would find
    assert site_mask("NMOSD").mean() < 0.02


def test_effect_scales_the_difference() -> None:
    def largest(cohort: Cohort) -> float:
        positive = cohort.lesions[cohort.positive].mean(axis=0)
        return float(np.abs(positive - cohort.lesions[~cohort.positive].mean(axis=0)).max())

    assert largest(drawn(0.0)) < 0.6 * largest(drawn(1.0))


def test_shuffled_labels_are_those_of_participants_and_change_nothing_else() -> None:
    plain, shuffled = drawn(), drawn(shuffle=True)
    assert np.array_equal(plain.lesions, shuffled.lesions)
    assert plain.table.equals(shuffled.table)
    people = by_person(shuffled)
    assert (people["nunique"] == 1).all()
    assert people["first"].sum() == 172
    assert 0.3 < (plain.positive == shuffled.positive).mean() < 0.8


def test_sites_are_disjoint_and_not_empty() -> None:
    counts = np.sum(list(who.sites().values()), axis=0)
    assert counts.max() == 1
    assert all(where.sum() > 50 for where in who.sites().values())
    assert not (site_mask("RRMS") & site_mask("NMOSD")).any()


def test_painted_ball_is_the_ball() -> None:
    grid = atlas.brain_grid(3)
    voxels = np.argwhere(grid.data)
    centre = len(voxels) // 2
    for radius in (0.0, 3.0, 7.5, 20.0):
        apart = 3.0 * np.linalg.norm(voxels - voxels[centre], axis=1)
        assert np.array_equal(who.paint(np.array([centre]), np.array([radius])), apart <= radius)
    assert not who.paint(np.empty(0, int), np.empty(0)).any()


def test_raters_are_as_good_and_as_consistent_as_published() -> None:
    positive = np.arange(4000) % 4 > 0
    reads = who.draw_raters(np.random.default_rng(0), positive)
    truth = np.where(positive, *who.LEVELS)
    for rater in ("rater_1", "rater_2"):
        assert 0.58 < (reads[rater] == truth).mean() < 0.68
        twice = reads[reads[f"{rater}_repeat"].notna()]
        assert len(twice) == 400
        assert 0.55 < cohen_kappa_score(twice[rater], twice[f"{rater}_repeat"]) < 0.85
    assert 0.3 < cohen_kappa_score(reads.rater_1, reads.rater_2) < 0.55


def test_written_cohort_is_valid_bids(written: tuple[Cohort, Path, Path]) -> None:
    for folder in written[1:]:
        assert errors_of(folder) == []


def test_written_cohort_reads_back(written: tuple[Cohort, Path, Path]) -> None:
    cohort, raw, maps = written
    for row, scan in enumerate(cohort.scans):
        stored = read_mask(maps / scan.output("lesion_mni"))
        assert np.array_equal(stored, cohort.lesions[row])
        person, session = scan.participant, scan.session
        visits = formats.read_tsv(raw / person / f"{person}_sessions.tsv").set_index("session_id")
        assert float(visits.loc[session, "age"]) == cohort.table.loc[scan.name, "age"]
    people = formats.read_tsv(raw / "participants.tsv").set_index("participant_id")
    groups = np.where(cohort.positive, *who.LEVELS)
    assert people.group[cohort.participants].tolist() == groups.tolist()
    raters, repeats = read_decisions(raw / "phenotype" / "rater_decisions.tsv", cohort.names, cohort.levels)
    assert set(raters) == set(repeats) == {"rater_1", "rater_2"}
    assert not np.isnan(raters["rater_1"]).any()
    assert (~np.isnan(repeats["rater_1"])).sum() == 2


@pytest.mark.parametrize("wrong", [{"n_scans": (5, 8)}, {"n_participants": (0, 4)}, {"effect": -1.0}])
def test_impossible_cohorts_are_refused(wrong: dict) -> None:
    with pytest.raises(BadInputError):
        who.draw_cohort(**{**SMALL, **wrong})


# -- command -------------------------------------------------------------------------------------


def test_command_writes_and_tells_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main([str(tmp_path / "few"), "--cohort", "--participants", "10", "--seed", "3"]) == 0
    assert len(list((tmp_path / "few-truth").rglob("*_mask.nii.gz"))) == 39  # 10 / 269 of 746 and of 292
    assert __main__.main([str(tmp_path / "none"), "--participants", "0"]) == BadInputError.exit_code
    assert "participants" in capsys.readouterr().err
    arguments = [str(tmp_path / "one"), "--participants", "1", "--truth", str(tmp_path / "true")]
    assert __main__.main([*arguments, "--spacing", "4", "4", "5"]) == 0
    assert len(list((tmp_path / "true").rglob("*_desc-brain_mask.nii.gz"))) == 1
