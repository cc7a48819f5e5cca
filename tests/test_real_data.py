"""The chain on real clinical FLAIRs against expert brain masks; skipped where the scans are not."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from bids_app.files import formats
from bids_app.image import chain, intake
from bids_app.image.geometry import canonical, centred
from bids_app.lesions import maps
from bids_app.records.lesions import Analysis
from bids_app.records.scan import Volume

BRAIN_DICE = 0.95
SD = (0.10, 0.14)  # of the belief in brain tissue; published 0.12


def analysed(image: nib.Nifti1Image, folder: Path) -> Analysis:
    image = nib.Nifti1Image.from_bytes(image.to_bytes())
    intake.check_header(image)
    volume, known, _ = intake.to_volume(image, np.asarray(image.dataobj))
    folder.mkdir()
    anatomy = chain.find_anatomy(centred(canonical(volume)), folder, seed=0, trust_header=known)
    return maps.find_lesions(anatomy, 0.32)


@pytest.mark.parametrize("name", [pytest.param("sub-01_ses-1", marks=pytest.mark.long), "sub-04_ses-1"])
def test_the_brain_is_found(real_data: Path, tmp_path: Path, name: str) -> None:
    place = name.replace("_", "/") + "/anat"
    image = nib.load(real_data / "raw" / place / f"{name}_FLAIR.nii.gz")
    found = analysed(image, tmp_path / "work")
    expert = Volume(*formats.read_nifti(real_data / "expert" / place / f"{name}_desc-brain_mask.nii.gz"))
    truth, brain = canonical(expert).data > 0, found.anatomy.fit.tissues.mask
    assert 2 * (brain & truth).sum() / (brain.sum() + truth.sum()) >= BRAIN_DICE
    assert SD[0] < found.anatomy.belief.moments.sd < SD[1]
    assert all(check.ok for check in found.checks)


def test_no_ventricle_is_stretched_over_a_bright_lesion(real_data: Path, tmp_path: Path) -> None:
    """In this scan a lesion of 9 ml touches the ventricle; the template's fluid must not be laid over it."""
    found = analysed(nib.load(real_data / "raw/sub-19/ses-1/anat/sub-19_ses-1_FLAIR.nii.gz"), tmp_path / "work")
    fit = found.anatomy.fit
    flair, mask = fit.flair, fit.tissues.mask
    deep = ndimage.distance_transform_edt(mask, sampling=flair.spacing) > 10
    bright = ndimage.binary_opening(mask & deep & (flair.data > 1.3 * np.median(flair.data[mask])), np.ones((3, 3, 1)))
    assert bright.sum() * flair.voxel_ml > 5
    assert fit.priors.csf[bright].mean() < 0.1
    assert found.lesions.maps["network"].native[bright].mean() > 0.8


@pytest.mark.long
def test_how_a_scan_is_stored_changes_no_voxel(real_data: Path, tmp_path: Path) -> None:
    image = nib.load(real_data / "raw/sub-12/ses-2/anat/sub-12_ses-2_FLAIR.nii.gz")
    data, affine = np.asarray(image.dataobj), image.affine
    flip = nib.orientations.inv_ornt_aff([[0, -1], [1, 1], [2, 1]], data.shape)
    stored = np.moveaxis(data[::-1], 2, 0).astype(np.float32)
    moved = affine @ flip @ np.eye(4)[:, [2, 0, 1, 3]]
    moved[:3, 3] += (12.3, -40.7, 300.0)
    other = nib.Nifti1Image(stored, moved)
    other.header.set_data_dtype(np.int16)
    first, second = analysed(image, tmp_path / "a"), analysed(other, tmp_path / "b")
    assert first.lesions.maps["published"].mni.any()
    assert np.array_equal(first.lesions.maps["published"].mni, second.lesions.maps["published"].mni)
