"""A scan as the chain takes it, and what is doubtful about its anatomy; a real scan that stands for all (a fixture)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import damage
import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from bids_app.bids.names import Scan
from bids_app.bids.query import find_scans
from bids_app.files import formats
from bids_app.image import chain, intake, lesion, quality
from bids_app.image.geometry import canonical, centred, stored_like
from bids_app.records.scan import Anatomy, Volume

Places = tuple[Path, Path]
Good = tuple[np.ndarray, np.ndarray]


def given(image: nib.Nifti1Image) -> tuple[Volume, bool, list[str]]:
    intake.check_header(image)
    return intake.to_volume(image, np.asanyarray(image.dataobj))


def analysed(image: nib.Nifti1Image, folder: Path) -> tuple[Anatomy, Volume]:
    volume, known, warnings = given(image)
    folder.mkdir(parents=True)
    anatomy = chain.find_anatomy(centred(canonical(volume)), folder, seed=0, trust_header=known)
    return replace(anatomy, warnings=(*warnings, *anatomy.warnings)), volume


def flags_of(anatomy: Anatomy) -> set[str]:
    """The checks that a scan fails, with that of the published lesion map."""
    brain = anatomy.fit.tissues.mask
    share = float(lesion.lesions(anatomy.belief.native, 0.32, brain).sum() / brain.sum())
    checks = (*anatomy.checks, quality.check("share_over_threshold", share))
    return {check.name for check in checks if not check.ok}


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def carried(mask: np.ndarray, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The mask on the damaged scan's grid; ``matrix`` leads from the good scan's voxels to the damaged one's."""
    back = np.linalg.inv(matrix)
    moved: np.ndarray = ndimage.affine_transform(
        mask.astype(np.float32), back[:3, :3], back[:3, 3], output_shape=shape, order=1
    )
    return moved >= 0.5


@pytest.fixture(scope="session")
def scan(tiny: Places) -> Scan:
    return find_scans(tiny[0])[0][0]


@pytest.fixture(scope="session")
def good(tiny: Places, scan: Scan) -> Good:
    return formats.read_nifti(tiny[0] / scan.path)


class Patient(NamedTuple):
    """A scan with its brain mask, the tissue labels found, and the brain Dice that it reaches undamaged."""

    scan: Good
    truth: np.ndarray
    labels: np.ndarray
    dice: float


@pytest.fixture(scope="session")
def patient(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Patient:
    name = "sub-01/ses-1/anat/sub-01_ses-1"
    scan = formats.read_nifti(real_data / "raw" / f"{name}_FLAIR.nii.gz")
    expert = canonical(Volume(*formats.read_nifti(real_data / "expert" / f"{name}_desc-brain_mask.nii.gz")))
    found, volume = analysed(damage.image_of(*scan), tmp_path_factory.mktemp("real") / "work")
    truth = stored_like(expert.data > 0, volume)
    labels = stored_like(found.fit.tissues.labels, volume)
    return Patient(scan, truth, labels, dice(stored_like(found.fit.tissues.mask, volume), truth))
