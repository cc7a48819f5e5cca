"""What is no scan of a brain, or a poor one, is refused or flagged."""

from __future__ import annotations

from pathlib import Path

import damage
import nibabel as nib
import numpy as np
import pytest
import realdata
from anatomies import Good, Patient, analysed, flags_of

from bids_app.errors import ScanError
from bids_app.image import quality
from bids_app.records.scan import Pose


def doubted(image: nib.Nifti1Image, folder: Path) -> str:
    """Return why the image is not trusted: the refusal, or the flags."""
    try:
        found, _ = analysed(image, folder)
    except ScanError as error:
        return str(error)
    return ", ".join(sorted(flags_of(found)))


@pytest.mark.long
def test_an_image_of_no_brain_is_refused(good: Good, tmp_path: Path) -> None:
    assert "registration is lost" in doubted(damage.sphere(*good), tmp_path / "work")


@pytest.mark.long
@pytest.mark.parametrize("name", [*damage.DOUBTFUL, *(damage.MORE_DOUBTFUL if realdata.ALL else ())])
def test_a_doubtful_real_scan_is_refused_or_flagged(patient: Patient, tmp_path: Path, name: str) -> None:
    assert doubted((damage.DOUBTFUL | damage.MORE_DOUBTFUL)[name](*patient.scan), tmp_path / "work")


@pytest.mark.long
@pytest.mark.parametrize("name", damage.CONTRASTS)
def test_another_sequence_is_refused_or_flagged(patient: Patient, tmp_path: Path, name: str) -> None:
    assert doubted(damage.CONTRASTS[name](*patient.scan, patient.labels), tmp_path / "work")


def test_a_wrong_slice_thickness_shows_in_the_shape_of_the_head() -> None:
    turn = damage.turned("xyz", [10, -20, 30])[:3, :3]
    for thickness, normal in ((1.0, True), (0.75, False), (0.5, False), (1.5, False)):
        pose = Pose(0.9 * np.diag([1.0, 1.0, thickness]) @ turn, np.zeros(3), 0.97, turned=False)
        assert (quality.head_shape(pose) <= 1.25) == normal
        assert quality.head_shape(pose) == pytest.approx(max(thickness, 1 / thickness))
