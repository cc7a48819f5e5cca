"""Lesion masks that somebody made: found by name, on any grid, checked against the brain, and carried on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.processing import resample_to_output
from scipy import ndimage

from bids_app.bids.names import SPACE, Scan
from bids_app.bids.query import find_scans
from bids_app.errors import BadInputError, MissingInputError
from bids_app.files import formats
from bids_app.image import atlas
from bids_app.image.geometry import Frame
from bids_app.participant import given
from bids_app.records.lesions import Given
from bids_app.records.scan import Volume


def read(path: Path, *, accept: bool = False) -> Given:
    scan = Frame(Volume(np.zeros((5, 5, 5), np.float32), np.diag([1.0, 1, 1, 1])))
    return given.read(given.MaskFile(path, path.parents[2], accept), scan, "a reader")


def put(folder: Path, name: str, data: np.ndarray | None = None, affine: np.ndarray | None = None) -> Path:
    path = folder / name.split("_")[0] / "anat" / name
    formats.write_nifti(
        path, np.ones((2, 2, 2), bool) if data is None else data, np.eye(4) if affine is None else affine
    )
    return path


def scan(name: str) -> Scan:
    return Scan.named(name)


@pytest.mark.parametrize("words", ["label-L", "label-lesion", "desc-lesion", "space-orig_desc-lesion"])
def test_a_mask_is_found_by_its_entities(words: str, tmp_path: Path) -> None:
    path = put(tmp_path, f"sub-01_ses-1_{words}_mask.nii.gz")
    put(tmp_path, "sub-01_ses-1_desc-brain_mask.nii.gz")
    found, said = given.find(tmp_path, [scan("sub-01_ses-1"), scan("sub-01_ses-2")])
    assert found == {"sub-01_ses-1": path}
    assert len(said) == 1 and "sub-01_ses-2" in said[0]


def test_masks_that_fit_nothing_or_too_much_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no such folder"):
        given.find(tmp_path / "none", [scan("sub-01")])
    with pytest.raises(MissingInputError, match="no lesion mask"):
        given.find(tmp_path, [scan("sub-01")])
    put(tmp_path, "sub-01_label-L_mask.nii.gz")
    with pytest.raises(BadInputError, match="none of 1"):
        given.find(tmp_path, [scan("sub-02")])
    with pytest.raises(BadInputError, match="fits 2 scans"):
        given.find(tmp_path, [scan("sub-01_run-1"), scan("sub-01_run-2")])
    put(tmp_path, "sub-01_desc-lesion_mask.nii.gz")
    with pytest.raises(BadInputError, match="2 masks"):
        given.find(tmp_path, [scan("sub-01")])


def test_what_is_no_mask_is_refused(tmp_path: Path) -> None:
    for wrong, what in (
        (np.full((2, 2, 2), 0.5, np.float32), "other values"),
        (np.ones((2, 2, 2, 2), np.uint8), "axes"),
    ):
        path = put(tmp_path, "sub-01_label-L_mask.nii.gz")
        nib.Nifti1Image(wrong, np.eye(4)).to_filename(path)
        with pytest.raises(BadInputError, match=what):
            read(path)
    for other in ("MNI152NLin6Asym", "MNI152NLin2009cAsym"):  # other brains, some millimetres off: never guessed
        with pytest.raises(BadInputError, match=f"space-{other} is not known here; .* or in {SPACE}"):
            read(put(tmp_path, f"sub-01_space-{other}_label-L_mask.nii.gz"))


def test_an_empty_mask_is_refused_unless_lesion_free_is_said(tmp_path: Path) -> None:
    path = put(tmp_path, "sub-01_label-L_mask.nii.gz", np.zeros((2, 2, 2), bool))
    with pytest.raises(BadInputError, match=r"sub-01_label-L_mask\.nii\.gz: .* is empty; .*--accept-empty-masks"):
        read(path)
    assert not read(path, accept=True).mask.data.any()
    full = put(tmp_path, "sub-02_label-L_mask.nii.gz")
    for accept in (False, True):
        assert read(full, accept=accept).mask.data.all()


def test_a_mask_of_the_scan_goes_into_its_frame_and_one_of_the_template_does_not(tmp_path: Path) -> None:
    of_scan = read(put(tmp_path, "sub-01_label-L_mask.nii.gz"))
    assert not of_scan.on_template and of_scan.origin == "a reader"
    np.testing.assert_array_equal(of_scan.mask.affine[:3, 3], [-2, -2, -2])  # the middle of the scan is the origin
    of_template = read(put(tmp_path, f"sub-02_space-{SPACE}_label-L_mask.nii.gz"))
    assert of_template.on_template
    np.testing.assert_array_equal(of_template.mask.affine, np.eye(4))


@pytest.mark.long
def test_given_masks_go_on_from_any_grid(
    run_app: Callable[..., int], tiny: tuple[Path, Path], done: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw, out = tiny[0], tmp_path / "out"
    ill, free = (each for each in find_scans(raw)[0])
    data, affine = formats.read_nifti(done / ill.output("lesion"))
    masks = tmp_path / "masks"
    formats.write_json(masks / "dataset_description.json", {"Name": "x", "GeneratedBy": [{"Name": "Reader"}]})
    put(masks, f"{ill.name}_label-lesion_mask.nii.gz", data > 0, affine)
    put(masks, f"{free.name}_label-lesion_mask.nii.gz", data * 0 > 0, affine)
    words = (raw, out, "participant", "--skip-bids-validation", "--lesion-derivatives", masks)
    # an empty mask is refused before the chain runs, and only where that scan is; lesion-free must be said
    assert run_app(*words, "--participant-label", free.participant) == 1
    assert not (out / free.output("external")).exists()
    line = f"{masks}/{free.participant}/anat/{free.name}_label-lesion_mask.nii.gz: the lesion mask is empty; remove it"
    log = max(out.glob("logs/*/log.txt"), key=lambda path: path.stat().st_mtime).read_text("utf-8")
    assert line in log and "--accept-empty-masks" in log and "registration" not in log
    assert run_app(*words, "--accept-empty-masks") == 0
    # on the scan's own grid nothing changes, and the map goes to the template as the published one does
    for own, published in (("external", "lesion"), ("external_mni", "lesion_mni")):
        np.testing.assert_array_equal(
            formats.read_nifti(out / ill.output(own))[0], formats.read_nifti(done / ill.output(published))[0]
        )
    assert not formats.read_nifti(out / free.output("external"))[0].any()
    assert "Reader" in formats.read_json(formats.sidecar(out / ill.output("external")))["Origin"]
    table = formats.read_tsv(out / "participants_lesions.tsv", required=("external_mask", "external_volume_ml"))
    assert all("Reader" in str(cell) for cell in table["external_mask"])
    page = (out / f"{free.participant}.html").read_text("utf-8")
    assert "mask is empty" in page and "Reader" in page
    # on another grid of the same world: the same lesions, and elsewhere: refused in one line
    other = resample_to_output(nib.Nifti1Image(data.astype(np.float32), affine), (1.5, 1.5, 1.5), order=1)
    put(masks, f"{ill.name}_label-lesion_mask.nii.gz", np.asarray(other.dataobj) >= 0.5, other.affine)
    assert run_app(*words, "--participant-label", ill.participant) == 0
    again = formats.read_nifti(out / ill.output("external"))[0] > 0
    assert 2 * (again & (data > 0)).sum() / (again.sum() + (data > 0).sum()) > 0.8
    far = affine.copy()
    far[:3, 3] += 120
    put(masks, f"{ill.name}_label-lesion_mask.nii.gz", data > 0, far)
    assert run_app(*words, "--participant-label", ill.participant) == 1
    log = max(out.glob("logs/*/log.txt"), key=lambda path: path.stat().st_mtime).read_text("utf-8")
    assert "lies outside the brain" in log


@pytest.mark.parametrize("resolution", [pytest.param(1, marks=pytest.mark.long), 3])
def test_given_masks_in_template_space_go_on(
    resolution: int, run_app: Callable[..., int], tiny: tuple[Path, Path], done: Path, tmp_path: Path
) -> None:
    """Lesions known on the template: at 3 mm they stay to the voxel, and go to the scan by its own transform."""
    raw, out, masks = tiny[0], tmp_path / "out", tmp_path / "masks"
    shutil.copytree(done, out)
    ill = max(find_scans(raw)[0], key=lambda each: formats.read_nifti(done / each.output("lesion_mni"))[0].sum())
    coarse, _ = formats.read_nifti(done / ill.output("lesion_mni"))
    grid = atlas.brain_grid(resolution)
    wanted = coarse > 0
    if resolution == 1:  # the two grids share the centre of their first voxel
        wanted = np.zeros(grid.data.shape, bool)
        blocks = (coarse > 0).repeat(3, 0).repeat(3, 1).repeat(3, 2)[1:, 1:, 1:]
        shape = tuple(min(a, b) for a, b in zip(blocks.shape, wanted.shape, strict=True))
        box = tuple(slice(n) for n in shape)
        wanted[box] = blocks[box]
    put(masks, f"{ill.name}_space-{SPACE}_res-{resolution}_label-L_mask.nii.gz", wanted, grid.affine)
    words = ("participant", "--skip-bids-validation", "--participant-label", ill.participant)
    assert run_app(raw, out, *words, "--lesion-derivatives", masks) == 0
    on_template = formats.read_nifti(out / ill.output("external_mni"))[0] > 0
    np.testing.assert_array_equal(on_template, coarse > 0)
    native, affine = formats.read_nifti(out / ill.output("external"))
    published, of_scan = formats.read_nifti(done / ill.output("lesion"))
    np.testing.assert_array_equal(affine, of_scan)
    native, published = native > 0, published > 0
    # 3 mm and back blurs small lesions; what is found lies where the scan's lesions are, and the volume is alike
    near = ndimage.distance_transform_edt(~published, sampling=np.linalg.norm(affine[:3, :3], axis=0)) <= 4
    assert native.any() and native[near].sum() >= 0.95 * native.sum()
    volume = formats.read_json(formats.sidecar(out / ill.output("external")))["external_volume_ml"]
    assert volume == pytest.approx(wanted.sum() * resolution**3 / 1000, rel=0.5)
    template = formats.read_json(formats.sidecar(out / ill.output("external_mni")))
    assert template["external_volume_mni_ml"] == pytest.approx(wanted.sum() * resolution**3 / 1000, rel=0.01)
