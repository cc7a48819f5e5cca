"""Scans stored or moved otherwise: the same brain, and what cannot be known is flagged."""

from __future__ import annotations

import os
from pathlib import Path

import damage
import numpy as np
import pytest
import realdata
from anatomies import Good, Patient, analysed, carried, dice, flags_of, given

from bids_app.bids.names import Scan
from bids_app.files import formats
from bids_app.image.geometry import canonical, centred, stored_like

Places = tuple[Path, Path]
LOSS = 0.02  # of brain Dice, that moving or storing a scan otherwise may cost
LONG = bool(os.environ.get("LONG_TESTS"))
USUAL = ("rotated 30 degrees oblique",)  # with LONG_TESTS all, or real scans in their place where they are


@pytest.mark.parametrize("name", damage.STORED)
def test_storing_otherwise_changes_no_bit_of_what_the_chain_sees(good: Good, name: str) -> None:
    image, matrix = damage.STORED[name](*good)
    assert not np.allclose(image.affine, good[1])
    mine, other = (centred(canonical(given(each)[0])) for each in (damage.image_of(*good), image))
    assert np.array_equal(mine.data, other.data)
    assert np.array_equal(mine.affine, other.affine)
    back = stored_like(canonical(given(image)[0]).data, given(image)[0])
    assert np.array_equal(back, np.asanyarray(image.dataobj))
    assert np.array_equal(carried(good[0] > 400, matrix, image.shape), np.asanyarray(image.dataobj) > 400)


def test_scaled_integers_are_the_same_scan_in_another_unit(good: Good) -> None:
    image, _ = damage.scaled_integers(*good)
    volume = given(image)[0]
    step = float(image.dataobj.slope)
    expected = good[0] * 0.37 + 0.013
    assert np.abs(volume.data - expected).max() <= max(step, 0.5)


def test_two_forms_that_disagree_are_told_and_the_sform_counts(good: Good) -> None:
    volume, known, warnings = given(damage.forms_that_disagree(*good)[0])
    assert known
    assert [line for line in warnings if "disagree" in line]
    assert np.allclose(volume.affine, good[1])


def check_moved(name: str, good: Good, truth: np.ndarray, before: float, folder: Path) -> None:
    """Brain Dice against the truth within `LOSS` of the undamaged scan's; what cannot be known is flagged."""
    image, matrix = damage.MOVED[name](*good)
    found, volume = analysed(image, folder)
    brain = stored_like(found.fit.tissues.mask, volume)
    assert dice(brain, carried(truth, matrix, volume.data.shape)) >= before - LOSS
    flags = flags_of(found)
    unknown = {"mirrored y", "mirrored z", "no orientation", "no affine"}
    assert ("left_right_known" in flags) == (name in unknown)
    assert any("left and right" in line for line in found.warnings) == (name in unknown)
    guessed = {"head_shape", "pose_similarity"} if name == "no affine" else set()  # the voxel size is a guess there
    assert flags <= {"left_right_known"} | guessed


@pytest.mark.skipif(LONG and realdata.THERE, reason="a real scan stands in for the phantom")
@pytest.mark.parametrize("name", damage.CHANGED if LONG else USUAL)
def test_a_moved_phantom_keeps_its_brain(
    tiny: Places, done: Path, scan: Scan, good: Good, tmp_path: Path, name: str
) -> None:
    truth, mine = (formats.read_nifti(root / scan.output("brain"))[0] > 0 for root in (tiny[1], done))
    check_moved(name, good, truth, dice(mine, truth), tmp_path / "work")


@pytest.mark.long
@pytest.mark.parametrize("name", [*damage.CHANGED, *(damage.MORE_CHANGED if realdata.ALL else ())])
def test_a_moved_real_scan_keeps_its_brain(patient: Patient, tmp_path: Path, name: str) -> None:
    check_moved(name, patient.scan, patient.truth, patient.dice, tmp_path / "work")
