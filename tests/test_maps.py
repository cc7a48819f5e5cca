"""Lesion maps at any threshold, on derivatives made up on the template's own grid."""

from __future__ import annotations

from pathlib import Path

import ants
import numpy as np
import pandas as pd
import pytest

from bids_app import parser
from bids_app.bids.names import Scan
from bids_app.cohort import labels, lesion_maps, remade
from bids_app.errors import BadInputError, MissingInputError
from bids_app.files import formats
from bids_app.group.maps import Maps
from bids_app.image.atlas import brain_grid
from bids_app.image.lesion import moments
from bids_app.recommended.features import lesion_free
from bids_app.records.cohort import Labelled
from bids_app.records.scan import Moments

GRID = brain_grid(3)


def scan(number: int) -> Scan:
    return Scan((("sub", f"{number:02d}"),), "")


def sidecar(path: Path) -> Path:
    return path.with_name(path.name.split(".")[0] + ".json")


def store_mask(root: Path, number: int, mask: np.ndarray, key: str = "lesion_mni", **about: float) -> Path:
    path = root / scan(number).output(key)
    formats.write_nifti(path, mask, GRID.affine)
    formats.write_json(sidecar(path), about)
    return path


def store_belief(root: Path, number: int, shift: float = 0.0) -> np.ndarray:
    """Store belief (uniform in 0 to 1), brain and a transform that moves by ``shift`` mm along x; return belief."""
    rng = np.random.default_rng(number)
    belief = np.round(rng.random(GRID.data.shape), 3).astype(np.float32) * GRID.data
    formats.write_nifti(root / scan(number).output("belief"), belief, GRID.affine)
    formats.write_nifti(root / scan(number).output("brain"), GRID.data, GRID.affine)
    transform = ants.create_ants_transform(transform_type="AffineTransform", translation=(shift, 0.0, 0.0))
    ants.write_transform(transform, str(root / scan(number).output("forward")))
    return belief


def load(root: Path, numbers: tuple[int, ...], threshold: float | None, **more: object) -> np.ndarray:
    settings = {"lesion_map": "published", "cache_dir": root / "cache", "nprocs": 1, **more}
    place = {key: settings.pop(key) for key in ("lesion_map", "cache_dir", "nprocs")}
    source = lesion_maps.Source(tuple(map(scan, numbers)), root, **place)  # type: ignore[arg-type]
    return lesion_maps.load(source, threshold, **settings)  # type: ignore[arg-type]


def test_stored_masks_are_rows_of_brain_voxels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = [rng.random(GRID.data.shape) < 0.1 for _ in range(2)]
    for number, mask in enumerate(made):
        store_mask(tmp_path, number, mask, Threshold=0.32)
        store_mask(tmp_path, number, ~mask, "cleaned_mni", Threshold=0.32)
    told: list[tuple[int, int]] = []
    for threshold in (None, 0.32, 0.32 + 1e-12):
        found = load(tmp_path, (1, 0), threshold, progress=lambda *done: told.append(done))
        assert found.dtype == bool
        np.testing.assert_array_equal(found, [made[1][GRID.data], made[0][GRID.data]])
    assert told == [(1, 2), (2, 2)] * 3
    np.testing.assert_array_equal(load(tmp_path, (0,), 0.9, lesion_map="cleaned"), [~made[0][GRID.data]])
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("threshold", [0.2, 0.5])
@pytest.mark.parametrize("voxels", [0, 2])
def test_a_new_threshold_is_applied_before_normalisation(tmp_path: Path, threshold: float, voxels: int) -> None:
    store_mask(tmp_path, 1, GRID.data, Threshold=0.32)
    belief = store_belief(tmp_path, 1, shift=3.0 * voxels)
    lesion = (belief > np.float32(threshold)) & GRID.data
    # ITK's x points left: the value at x comes from x - shift, and on this grid the first axis grows with x
    expected = np.zeros_like(lesion)
    expected[voxels:] = lesion[: len(lesion) - voxels]
    np.testing.assert_array_equal(load(tmp_path, (1,), threshold)[0], expected[GRID.data])


def test_the_cache_holds_until_its_sources_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store_mask(tmp_path, 1, GRID.data, Threshold=0.32)
    store_belief(tmp_path, 1)
    first = load(tmp_path, (1,), 0.5)
    made: list[int] = []
    make = remade.make
    monkeypatch.setattr(remade, "make", lambda task: made.append(task.row) or make(task))
    np.testing.assert_array_equal(load(tmp_path, (1,), 0.5), first)
    assert not made
    higher = load(tmp_path, (1,), 0.8)
    assert len(made) == 1
    assert not (higher & ~first).any()
    (kept,) = (tmp_path / "cache").glob("threshold-0.5/*")
    kept.write_bytes(kept.read_bytes()[:100])
    np.testing.assert_array_equal(load(tmp_path, (1,), 0.5), first)
    assert len(made) == 2
    formats.write_nifti(tmp_path / scan(1).output("brain"), np.zeros(GRID.data.shape, bool), GRID.affine)
    assert not load(tmp_path, (1,), 0.5).any()
    assert len(made) == 3


def test_processes_side_by_side_give_the_same_maps_and_the_first_error(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        store_mask(tmp_path, number, GRID.data, Threshold=0.32)
        store_belief(tmp_path, number)
    alone = load(tmp_path, (3, 1, 2), 0.6, cache_dir=tmp_path / "one")
    together = load(tmp_path, (3, 1, 2), 0.6, cache_dir=tmp_path / "two", nprocs=2)
    np.testing.assert_array_equal(together, alone)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / n).rglob("*.npz")} for n in ("one", "two"))
    assert one == two and len(one) == 3
    (tmp_path / scan(1).output("forward")).unlink()
    formats.write_bytes(tmp_path / scan(2).output("forward"), b"no transform")
    with pytest.raises(MissingInputError, match="sub-01_from-FLAIR"):
        load(tmp_path, (3, 1, 2), 0.7)
    with pytest.raises(BadInputError, match="sub-02: cannot be normalised"):
        load(tmp_path, (3, 2), 0.7)


def test_maps_without_belief_suffice_only_at_their_own_or_a_given_threshold(tmp_path: Path) -> None:
    store_mask(tmp_path, 1, GRID.data, Threshold=0.25)
    store_mask(tmp_path, 2, GRID.data)
    for given in (False, True):
        with pytest.raises(BadInputError, match=r"sub-01.*made at 0\.25.*--lesion-threshold 0\.25"):
            load(tmp_path, (1,), 0.32, given=given)
    with pytest.raises(BadInputError, match=r"sub-02.*does not say.*--lesion-threshold 0\.32"):
        load(tmp_path, (2,), 0.32)
    assert load(tmp_path, (2,), 0.32, given=True).all()
    sidecar(tmp_path / scan(2).output("lesion_mni")).unlink()
    assert load(tmp_path, (2,), 0.32, given=True).all()


@pytest.mark.parametrize(
    ("data", "affine", "message"),
    [
        (np.zeros((67, 79, 63), bool), GRID.affine, r"shape \(67, 79, 63\)"),
        (GRID.data, np.diag([3.0, 3, 3, 1]), "affine"),
        (GRID.data * np.uint8(255), GRID.affine, "no mask"),
        (GRID.data * np.float32(0.7), GRID.affine, "no mask"),
        (np.where(GRID.data, np.float32(1), np.float32(np.nan)), GRID.affine, "no mask"),
        (GRID.data * np.uint8(2), GRID.affine, "no mask"),
    ],
)
def test_other_grids_and_what_is_no_mask_are_refused(
    tmp_path: Path, data: np.ndarray, affine: np.ndarray, message: str
) -> None:
    path = tmp_path / scan(1).output("lesion_mni")
    formats.write_nifti(path, data, affine)
    with pytest.raises(BadInputError, match=rf"sub-01_space.*{message}"):
        load(tmp_path, (1,), None)


def test_scaled_masks_are_masks_and_a_belief_on_another_grid_is_refused(tmp_path: Path) -> None:
    store_mask(tmp_path, 1, GRID.data * np.float32(0.99995), Threshold=0.32)
    assert load(tmp_path, (1,), None).all()
    store_belief(tmp_path, 1)
    formats.write_nifti(tmp_path / scan(1).output("brain"), GRID.data[1:], GRID.affine)
    with pytest.raises(BadInputError, match=r"sub-01_desc-brain_mask.*another grid"):
        load(tmp_path, (1,), 0.5)


def test_sums_are_those_of_the_belief_and_pool(tmp_path: Path) -> None:
    belief = store_belief(tmp_path, 1)
    labels = np.where(GRID.data, 2, 0)
    true = moments(belief, labels)
    path = sidecar(tmp_path / scan(1).output("belief"))
    about = {"TissueCount": true.count, "TissueSum": true.total, "TissueSumOfSquares": true.squares}
    formats.write_json(path, about)
    first, second = lesion_maps.sums([scan(1), scan(2)], tmp_path)
    assert (first, second) == (true, None)
    assert isinstance(first, Moments)
    assert (first + first).sd == pytest.approx(belief[GRID.data].std(dtype=float), rel=1e-9)
    formats.write_json(path, {**about, "TissueSum": None})
    with pytest.raises(BadInputError, match=r"belief_FLAIR\.json.*TissueSum"):
        lesion_maps.sums([scan(1)], tmp_path)


def test_probabilities_are_read_as_they_are_and_nothing_else_is_one(tmp_path: Path) -> None:
    values = np.random.default_rng(5).random(GRID.data.shape).astype(np.float32)
    path = tmp_path / scan(0).output("probability_mni")
    formats.write_nifti(path, values, GRID.affine)
    found = load(tmp_path, (0,), 0.9, lesion_map="probability")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [values[GRID.data]])
    for wrong in (values * 2, np.where(values > 0.5, np.nan, values)):
        formats.write_nifti(path, wrong.astype(np.float32), GRID.affine)
        with pytest.raises(BadInputError, match="probabilities"):
            load(tmp_path, (0,), 0.9, lesion_map="probability")


def test_a_soft_map_is_lesion_free_where_nothing_is_probable() -> None:
    maps = np.array([[0.1, 0.49], [0.0, 0.5]], np.float32)
    assert lesion_free(maps).tolist() == [True, False]
    assert lesion_free(maps >= 0.5).tolist() == [True, False]


@pytest.mark.parametrize("name", ["normative", "network", "external", "cleaned"])
def test_maps_that_the_participant_level_made_are_taken_as_they_are(name: str, tmp_path: Path) -> None:
    mask = np.random.default_rng(6).random(GRID.data.shape) < 0.1
    formats.write_nifti(tmp_path / scan(0).output(labels.MAPS[name]), mask, GRID.affine)
    (tmp_path / "bids").mkdir()
    options = parser.parse([str(tmp_path / "bids"), str(tmp_path), "group", "--lesion-map", name])
    labelled = Labelled((scan(0),), np.array(["sub-00"]), np.array([True]), pd.DataFrame(index=["sub-00"]), (), ())
    made = Maps(options, labelled).by_rows(np.array([0]))
    np.testing.assert_array_equal(made.lesions, [mask[GRID.data]])
    assert made.threshold.value == {"normative": 0.25, "cleaned": 0.32}.get(name, 0.5)
