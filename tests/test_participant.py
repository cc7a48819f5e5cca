"""The participant level end to end on a tiny phantom: all outputs, the truth recovered, nothing lost."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from bids_app import atlas, derivatives, files, intake, lesion
from bids_app.bids import OUTPUTS, find_scans

DICE_IN_MNI, LESION_FREE_ML, APART_MM, BRAIN_DICE = 0.6, 0.3, 3.0, 0.95


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / max(a.sum() + b.sum(), 1))


def test_every_output_is_there_with_a_sidecar(tiny: tuple[Path, Path], done: Path) -> None:
    for scan in find_scans(tiny[0])[0]:
        for key in OUTPUTS:
            path = done / scan.output(key)
            assert path.is_file(), key
            about = files.read_json(path.with_name(path.name.split(".")[0] + ".json"))
            assert about["Description"] and about["Sources"], key
        assert (done / f"{scan.participant}.html").is_file()
    assert {"desc-preproc", "desc-belief"} <= {p.name.split("_")[-2] for p in done.rglob("*_FLAIR.nii.gz")}


def test_the_validator_finds_no_error(done: Path) -> None:
    program = Path(sys.executable).with_name("bids-validator-deno")
    found = subprocess.run([program, "--json", "--ignoreWarnings", done], capture_output=True, text=True, check=False)
    assert json.loads(found.stdout)["issues"]["issues"] == []


def test_the_input_is_as_before(
    tiny: tuple[Path, Path], tiny_before: dict[str, str], done: Path, checksums: Callable[[Path], dict[str, str]]
) -> None:
    assert done.is_dir()
    assert checksums(tiny[0]) == tiny_before


def test_the_truth_is_recovered(tiny: tuple[Path, Path], done: Path) -> None:
    overlaps, apart, empty = [], [], 0
    for scan in find_scans(tiny[0])[0]:
        brain, true_brain = (files.read_nifti(root / scan.output("brain"))[0] > 0 for root in (done, tiny[1]))
        assert dice(brain, true_brain) >= BRAIN_DICE
        found, truth = (files.read_nifti(root / scan.output("lesion_mni"))[0] > 0 for root in (done, tiny[1]))
        if not truth.any():
            empty += 1
            assert found.sum() * 0.027 < LESION_FREE_ML
            continue
        overlaps.append(dice(found, truth))
        labels, count = ndimage.label(truth, np.ones((3, 3, 3)))
        near = found & ndimage.binary_dilation(truth, iterations=2)
        for k in range(1, count + 1):
            mine = near & ndimage.binary_dilation(labels == k, iterations=2)
            if mine.any() and (labels == k).sum() >= 4:
                gap = np.subtract(ndimage.center_of_mass(mine), ndimage.center_of_mass(labels == k))
                apart.append(3 * float(np.linalg.norm(gap)))
    assert empty == 1
    assert np.mean(overlaps) >= DICE_IN_MNI
    assert np.median(apart) < APART_MM


def test_the_sidecar_holds_the_sums_that_pool(tiny: tuple[Path, Path], done: Path) -> None:
    for scan in find_scans(tiny[0])[0]:
        belief, labels = (files.read_nifti(done / scan.output(key))[0] for key in ("belief", "dseg"))
        about = files.read_json(done / scan.output("belief").replace(".nii.gz", ".json"))
        again = lesion.moments(belief, labels)
        assert about["TissueCount"] == again.count
        assert about["TissueSum"] == pytest.approx(again.total, rel=1e-9)
        assert about["TissueSumOfSquares"] == pytest.approx(again.squares, rel=1e-9)


def test_all_maps_are_on_the_one_grid(done: Path) -> None:
    grid = atlas.brain_grid(3)
    assert grid.data.shape == (67, 79, 64) and grid.data.sum() == 69_765
    for path in done.rglob("*_res-3_*.nii.gz"):
        image = nib.load(path)
        assert image.shape == grid.data.shape
        assert np.allclose(image.affine, grid.affine)


def test_finished_scans_are_not_done_again(
    tiny: tuple[Path, Path], done: Path, run_app: Callable[..., int], checksums: Callable[[Path], dict[str, str]]
) -> None:
    def images() -> dict[str, str]:
        return {name: digest for name, digest in checksums(done).items() if name.endswith((".nii.gz", ".h5", ".tsv"))}

    before, times = images(), {path: path.stat().st_mtime_ns for path in done.rglob("*.nii.gz")}
    assert run_app(tiny[0], done, "participant", "--skip-bids-validation") == 0
    assert images() == before
    assert times == {path: path.stat().st_mtime_ns for path in done.rglob("*.nii.gz")}


def test_another_threshold_or_other_bytes_are_another_digest(tiny: tuple[Path, Path], done: Path) -> None:
    scan = find_scans(tiny[0])[0][0]
    source = tiny[0] / scan.path
    mark = derivatives.read_mark(done, scan.name)
    assert mark is not None
    assert derivatives.digest(source, mark.parameters) == mark.digest
    assert derivatives.digest(source, {**mark.parameters, "lesion_threshold": 0.3}) != mark.digest
    assert derivatives.digest(tiny[0] / "README", mark.parameters) != mark.digest
    assert not derivatives.finished(done, scan.name, "another")


def _bad(name: str, good: nib.Nifti1Image, path: Path) -> None:
    data, affine = np.asarray(good.dataobj, np.float32), good.affine
    made = {
        "bad4d": np.stack([data, data], axis=-1),
        "badzero": np.zeros_like(data),
        "badconstant": np.full_like(data, 7),
        "badnan": np.where(data > 100, np.nan, data),
        "badslice": data[:, :, :1],
        "badsheared": data,
        "badtruncated": data,
    }[name]
    if name == "badsheared":
        affine = affine.copy()
        affine[:3, 1] += 0.3 * affine[:3, 0]
    nib.save(nib.Nifti1Image(made, affine), path)
    if name == "badtruncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BAD = ("bad4d", "badzero", "badconstant", "badnan", "badslice", "badsheared", "badtruncated")


def test_bad_scans_end_with_one_clear_line_each_and_the_others_finish(
    tiny: tuple[Path, Path], done: Path, run_app: Callable[..., int], tmp_path: Path
) -> None:
    raw, output = tmp_path / "raw", tmp_path / "out"
    shutil.copytree(tiny[0], raw)
    shutil.copytree(done, output)
    good = nib.load(raw / find_scans(raw)[0][0].path)
    for name in BAD:
        folder = raw / f"sub-{name}" / "anat"
        folder.mkdir(parents=True)
        _bad(name, good, folder / f"sub-{name}_FLAIR.nii.gz")
    with (raw / "participants.tsv").open("a") as table:
        columns = (raw / "participants.tsv").read_text().splitlines()[0].count("\t")
        table.writelines(f"sub-{name}" + "\tn/a" * columns + "\n" for name in BAD)
    assert run_app(raw, output, "participant", "--skip-bids-validation") == 1
    newest = max((output / "logs").glob("*T*"), key=lambda path: path.stat().st_mtime_ns)
    failures = files.read_json(newest / "failures.json")
    assert set(failures) == {f"sub-{name}" for name in BAD}
    log = (newest / "log.txt").read_text().splitlines()
    for name, line in failures.items():
        assert f"{name}/anat" in line and ";" in line and "unexpected" not in line and len(line) < 400, line
        assert sum(line in each for each in log) >= 1
    assert log[-1].endswith("exit code 1: 0 scans done, 2 unchanged, 7 failed")
    assert not list(output.rglob(".part-*"))
    assert "failed" in (output / "sub-bad4d.html").read_text()


def test_a_report_loads_nothing(done: Path) -> None:
    for path in done.glob("sub-*.html"):
        assert not re.findall(r'(?:src|href)="(?!data:|#)', path.read_text())


def test_a_scan_without_orientation_is_refused_nothing_but_warned_about(tiny: tuple[Path, Path]) -> None:
    good = nib.load(tiny[0] / find_scans(tiny[0])[0][0].path)
    bare = nib.Nifti1Image(np.asarray(good.dataobj), None, good.header)
    bare.header.set_qform(None, 0)
    bare.header.set_sform(None, 0)
    image = nib.Nifti1Image.from_bytes(bare.to_bytes())
    _, known, warnings = intake.to_volume(image, np.asarray(image.dataobj))
    assert not known
    assert any("left and right" in line for line in warnings)
