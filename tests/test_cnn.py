"""The convolutional network beside the other rivals: seeded, blind to what it is tested on, and an extra."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from test_recommended import MASK, draw
from test_rivals import nested_auc, people_of

from bids_app.learning.division import permute
from bids_app.phantom.cohort import draw_cohort
from bids_app.phantom.dataset import write_cohort
from bids_app.phantom.further import write_beliefs
from bids_app.recommended.features import box_of
from bids_app.recommended.nested import Recipe
from bids_app.rivals import cnn, convolution
from bids_app.rivals.chosen import People
from bids_app.rivals.volumes import SHIFT, Maps, moved, scale, volumes

torch_needed = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed: pip install '.[cnn]'")
QUICK = ("--lesion-threshold", "0.32", "--cv-folds", "3", "--refine-limit", "1", "--bootstrap-draws", "60")
NESTED = ("--nested-folds", "2", "--repeats", "1", "--report-viewer", "none")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cnn, "MOST", 6)


def make(maps: np.ndarray, people: People) -> Recipe:
    return cnn.recipe(Maps(MASK, maps), people, 3)


def with_belief(maps: np.ndarray, people: People) -> Recipe:
    """Belief that is noise but in lesions, and there as bright in either group."""
    noise = np.random.default_rng(0).normal(0, 0.1, maps.shape)
    return cnn.recipe(Maps(MASK, maps, (noise + 0.5 * maps).astype(np.float32)), people, 3)


# -- volumes -------------------------------------------------------------------------------------


def test_volumes_hold_the_maps_and_belief_is_measured_from_the_training_participants() -> None:
    lesions, names, _ = draw(people=12)
    belief = np.random.default_rng(0).normal(3, 2, lesions.shape).astype(np.float32)
    person = np.unique(names, return_inverse=True)[1]
    maps = Maps(MASK, lesions, belief)
    by = scale(maps, person)
    found = volumes(maps, by)
    box = ndimage.find_objects(MASK.astype(int))[0]
    np.testing.assert_array_equal(found[:, 0][:, MASK[box]], lesions)
    assert not found[:, :, ~MASK[box]].any()
    means = np.stack([found[person == who, 1].mean(axis=0)[MASK[box]] for who in range(12)])
    np.testing.assert_allclose(means.mean(axis=0), 0, atol=1e-5)
    weights = 1 / np.bincount(person)[person] / 12
    assert float(weights @ (found[:, 1][:, MASK[box]] ** 2).mean(axis=1)) == pytest.approx(1, rel=1e-4)


def test_scans_are_shifted_and_every_second_is_mirrored() -> None:
    rng = np.random.default_rng(1)
    one = rng.random((2, 15, 13, 11)).astype(np.float32)
    found = moved(np.stack([one] * 300), rng)
    kinds = {}
    for each in found:
        for sign in (1, -1):
            middle = each[:, ::sign][:, SHIFT:-SHIFT, SHIFT:-SHIFT, SHIFT:-SHIFT]
            for shift in np.ndindex(*[2 * SHIFT + 1] * 3):
                place = tuple(slice(s, s + n) for s, n in zip(shift, middle.shape[1:], strict=True))
                if np.array_equal(middle, one[(slice(None), *place)]):
                    kinds[each.tobytes()] = (sign, *shift)
    assert len(kinds) == len({each.tobytes() for each in found})  # each is the scan, moved, and both channels alike
    signs = [kinds[each.tobytes()][0] for each in found]
    assert 0.4 < np.mean(np.array(signs) == 1) < 0.6
    for axis in (1, 2, 3):
        assert {kind[axis] for kind in kinds.values()} == set(range(2 * SHIFT + 1))


# -- the network ---------------------------------------------------------------------------------


@torch_needed
@pytest.mark.parametrize("way", [make, with_belief])
def test_equal_seeds_give_equal_decisions_and_others_do_not(short: None, way: Callable[..., Recipe]) -> None:
    maps, names, positive = draw(people=24)
    people, rows = people_of(maps, names, positive), (np.arange(30), np.arange(30, len(maps)))
    first, again, other = (way(maps, people)(*rows, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.decisions, again.decisions)
    np.testing.assert_array_equal(first.calibration.decisions, again.calibration.decisions)
    assert first.chosen == again.chosen
    assert (first.decisions != other.decisions).any()


@torch_needed
@pytest.mark.parametrize("way", [make, with_belief])
def test_a_planted_difference_is_found_and_nothing_in_nothing(way: Callable[..., Recipe]) -> None:
    maps, names, positive = draw(people=60, effect=4.0)
    assert nested_auc(way, maps, names, positive) > 0.75
    assert 0.25 < nested_auc(way, maps, names, permute(positive, names, 1)) < 0.75


@torch_needed
def test_what_only_belief_tells_is_found_by_its_channel() -> None:
    maps, names, positive = draw(people=45, effect=0.0)

    def brighter(maps: np.ndarray, people: People) -> Recipe:
        belief = np.random.default_rng(1).normal(0, 0.1, maps.shape)
        belief[:, ::5] += 0.2 * people.positive[:, None]
        return cnn.recipe(Maps(MASK, maps, belief.astype(np.float32)), people, 3)

    assert nested_auc(brighter, maps, names, positive) > 0.9


@torch_needed
@pytest.mark.parametrize("belief", [False, True])
def test_scans_that_are_tested_cannot_change_the_network(
    short: None, monkeypatch: pytest.MonkeyPatch, belief: bool
) -> None:
    """With labels and maps of all test scans spoiled, the fitted network is the same to the last bit."""
    lesions, names, positive = draw()
    training, test = np.arange(60), np.arange(60, len(lesions))
    values = np.random.default_rng(0).normal(size=lesions.shape).astype(np.float32)
    fitted: list[Any] = []
    plain = cnn.fit
    monkeypatch.setattr(cnn, "fit", lambda *given: fitted.append(plain(*given)) or fitted[-1])
    tested = []
    for spoiled in (False, True):
        own = lesions.copy(), values.copy(), positive.copy()
        if spoiled:
            own[0][test], own[1][test], own[2][test] = ~lesions[test], np.nan, ~positive[test]
        maps = Maps(MASK, own[0], own[1] if belief else None)
        tested.append(cnn.recipe(maps, people_of(lesions, names, own[2]), 3)(training, test, 0))
    first, second = (each.layers.state_dict() for each in fitted)
    assert len(first) == 6
    for key, value in first.items():
        assert value.equal(second[key])
    np.testing.assert_array_equal(tested[0].calibration.decisions, tested[1].calibration.decisions)
    assert tested[0].chosen == tested[1].chosen
    assert (tested[0].decisions != tested[1].decisions).any()


@torch_needed
def test_epochs_are_judged_on_participants_that_a_network_never_saw(
    short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps, names, positive = draw(people=24)
    people = people_of(maps, names, positive)
    asked: list[tuple[set[int], np.ndarray]] = []

    class Watched(cnn.Net):
        def __init__(self, seen: Maps, own: People, seed: int) -> None:
            super().__init__(seen, own, seed)
            self.people = set(own.person.tolist())

        def decide(self, maps: Maps) -> np.ndarray:
            asked.append((self.people, maps.lesions))
            return super().decide(maps)

    monkeypatch.setattr(cnn, "Net", Watched)
    found, known = cnn.choose(Maps(MASK, maps), people, 3, 0)
    assert np.isfinite(found).all() and known["epochs"] in (2, 4, 6)
    of = {row.tobytes(): int(who) for row, who in zip(maps, people.person, strict=True) if row.any()}
    for seen, lesions in asked:
        held = {of[row.tobytes()] for row in lesions if row.any()}
        assert held and not held & seen
    assert len(asked) == 9


@torch_needed
def test_training_ends_where_no_check_gains_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, names, positive = draw(people=15)
    areas = iter([0.6, 0.7, 0.65, 0.7, 0.6, 0.99])
    monkeypatch.setattr(cnn, "auc_of_participants", lambda *_: next(areas))
    monkeypatch.setattr(cnn, "PATIENCE", 3)
    _, known = cnn.choose(Maps(MASK, maps), people_of(maps, names, positive), 2, 0)
    assert known == {"epochs": 4, "auc": 0.7}
    assert list(areas) == [0.99]


@torch_needed
def test_a_participant_weighs_the_same_however_many_scans(short: None) -> None:
    """Copies of a scan change no weight of the network."""
    maps, names, positive = draw(people=16)
    people = people_of(maps, names, positive)
    first = np.unique(people.person, return_index=True)[1]
    copied = np.concatenate([first, np.repeat(first[:4], 5)])
    nets = [cnn.fit(Maps(MASK, maps[rows]), People(*(each[rows] for each in people)), 4, 0) for rows in (first, copied)]
    one, other = (net.layers.state_dict() for net in nets)
    for key, value in one.items():
        assert value.equal(other[key])
    sums = [sum(nets[0].weights[first_ == group]) for first_ in [people.positive[first]] for group in (True, False)]
    assert sums[0] == pytest.approx(sums[1])


@torch_needed
def test_a_scan_and_its_mirror_image_have_one_decision() -> None:
    maps, names, positive = draw(people=16)
    net = cnn.fit(Maps(MASK, maps), people_of(maps, names, positive), 4, 0)
    mask = MASK | MASK[::-1]
    image = np.random.default_rng(0).random((3, *MASK.shape)) < 0.2
    there, mirrored = (net.decide(Maps(mask, each[:, mask])) for each in (image, image[:, ::-1]))
    np.testing.assert_allclose(there, mirrored, atol=1e-5)


@torch_needed
def test_a_scan_without_lesions_has_the_decision_of_the_empty_map(short: None) -> None:
    maps, names, positive = draw()
    people = people_of(maps, names, positive)
    free = np.flatnonzero(people.lesion_free)
    tested = make(maps, people)(np.setdiff1d(np.arange(len(maps)), free[-2:]), free[-2:], 0)
    np.testing.assert_allclose(tested.decisions, tested.calibration.at_zero, atol=1e-6)


@torch_needed
def test_torch_keeps_its_random_state_and_works_on_the_threads_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    maps, names, positive = draw(people=15)
    people, used, plain = people_of(maps, names, positive), [], cnn.fit
    monkeypatch.setattr(cnn, "MOST", 2)
    monkeypatch.setattr(cnn, "fit", lambda *given: used.append(torch.get_num_threads()) or plain(*given))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        state = torch.get_rng_state()
        for threads in (1, 2):
            cnn.recipe(Maps(MASK, maps), people, 2, threads)(np.arange(20), np.arange(20, len(maps)), 0)
        assert torch.equal(torch.get_rng_state(), state)
        assert used == [1, 2] and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


# -- the command line ----------------------------------------------------------------------------


@torch_needed
def test_the_group_level_ends_with_its_row(
    short: None, monkeypatch: pytest.MonkeyPatch, run_app: Callable[..., int], tmp_path: Path
) -> None:
    monkeypatch.setattr(cnn, "MOST", 2)
    cohort = draw_cohort(n_participants=(10, 8), n_scans=(15, 12), seed=4)
    write_cohort(cohort, tmp_path / "bids", tmp_path / "out")
    write_beliefs(tmp_path / "out", cohort, 4)
    words = (*QUICK, *NESTED, "--compare", "cnn", "--features", "belief")
    assert run_app(tmp_path / "bids", tmp_path / "out", "group", *words) == 0
    metrics = json.loads((tmp_path / "out/group/metrics.json").read_text("utf-8"))
    rows = metrics["recipes"]["rows"]
    assert list(rows["cnn"]) == list(rows["recommended"]) and 0 <= rows["cnn"]["auc"]["value"] <= 1
    assert rows["cnn"]["auc_difference"] is not None
    assert metrics["software"]["torch"]
    page = (tmp_path / "out/group.html").read_text("utf-8")
    assert "<td>cnn" in page and "lesion and belief maps" in page


def test_without_the_extra_one_line_says_what_to_install_and_nothing_is_done(
    monkeypatch: pytest.MonkeyPatch, run_app: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as where it is not installed
    words = (tmp_path / "bids", tmp_path / "out", "group", "--compare", "linear-svm", "cnn")
    assert run_app(*words) == 64
    said = capsys.readouterr().err.strip().splitlines()
    assert "--compare cnn needs torch" in said[0] and "pip install 'bids_app[cnn]'" in said[0]
    assert said[1:] == ["exit code 64: usage"]
    assert not (tmp_path / "out").exists()
    assert run_app(*words[:3], "--compare", "linear-svm") != 64


@torch_needed
@pytest.mark.parametrize("belief", [False, True])
def test_the_network_as_arrays_decides_as_torch_does(short: None, belief: bool) -> None:
    """Also on a grid of odd sides, whose last voxels are pooled by themselves."""
    lesions, names, positive = draw(people=24)
    people = people_of(lesions, names, positive)
    values = np.random.default_rng(0).normal(size=lesions.shape).astype(np.float32) if belief else None
    assert any(part.stop - part.start & 1 for part in box_of(MASK))
    maps = Maps(MASK, lesions, values)
    net = cnn.fit(maps, people, 4, 0)
    stored = net.as_arrays()
    assert stored.sees_belief == belief
    found = convolution.decide(stored, maps)
    assert np.ptp(found) > 1e-3
    np.testing.assert_allclose(found, net.decide(maps), rtol=0, atol=1e-6)
