"""Bad scans beside good ones: each is refused in one line, or works, or is flagged; never a wrong map in silence."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import damage
import netguard
import nibabel as nib
import numpy as np
import pytest
import realdata
from scipy import ndimage

from bids_app.bids.names import OUTPUTS, Scan
from bids_app.bids.query import find_scans
from bids_app.errors import BidsAppError, ScanError
from bids_app.files import formats
from bids_app.image import chain, intake, lesion, quality
from bids_app.image.geometry import canonical, centred, stored_like
from bids_app.participant import marks
from bids_app.records.scan import Anatomy, Pose, Volume

Run = Callable[..., int]
Places = tuple[Path, Path]
Good = tuple[np.ndarray, np.ndarray]
LOSS = 0.02  # of brain Dice, that moving or storing a scan otherwise may cost
LONG = bool(os.environ.get("LONG_TESTS"))
long = pytest.mark.skipif(not LONG, reason="takes minutes: set LONG_TESTS=1")
USUAL = ("rotated 30 degrees oblique", "no affine")  # 15 CPU-s each; with LONG_TESTS all, if no real scan is there


def path_of(raw: Path, label: str) -> Path:
    path = raw / f"sub-{label}" / "anat" / f"sub-{label}_FLAIR.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def taken(path: Path) -> tuple[Volume, bool, list[str]]:
    """What the participant level does before the heavy work."""
    image = formats.open_nifti(path)
    intake.check_header(image)
    return intake.to_volume(image, formats.read_nifti(path)[0])


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


# -- refused, one by one -------------------------------------------------------------------------


@pytest.mark.parametrize("label", damage.BAD)
def test_a_bad_file_is_refused_in_one_line(good: Good, tmp_path: Path, label: str) -> None:
    make, says = damage.BAD[label]
    path = path_of(tmp_path, label)
    path.write_bytes(make(*good))
    with pytest.raises(BidsAppError, match=says) as caught:
        taken(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value).replace(str(path), "")) < 250
    assert caught.value.remedy


def test_an_annexed_link_without_content_tells_to_get_it(tmp_path: Path) -> None:
    path = path_of(tmp_path, "annex")
    path.symlink_to("../../.git/annex/objects/aa/bb/SHA256E-s10--0.nii.gz/SHA256E-s10--0.nii.gz")
    with pytest.raises(BidsAppError, match="datalad get"):
        taken(path)


def test_the_good_file_is_taken_and_its_padding_too(good: Good, tmp_path: Path) -> None:
    path = path_of(tmp_path, "good")
    content = damage.stored(nib.Nifti1Image(*good))
    for padding in (b"", bytes(512)):  # tapes and some converters pad with zeros
        path.write_bytes(content + padding)
        assert np.array_equal(taken(path)[0].data, good[0])


def test_every_flipped_bit_is_noticed(good: Good, tmp_path: Path) -> None:
    """A flipped bit either changes no voxel (a comment, the time in the gzip header) or is refused."""
    content, path, rng = damage.stored(nib.Nifti1Image(*good)), tmp_path / "a.nii.gz", np.random.default_rng(0)
    refused = 0
    for _ in range(100):
        spoilt = bytearray(content)
        spoilt[rng.integers(len(spoilt))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(spoilt))
        try:
            data, _ = formats.read_nifti(path)
        except BidsAppError:
            refused += 1
        else:
            assert np.array_equal(data, good[0])
    assert refused > 90


BOMBS = ("hugevoxels", "largevoxels", "offset", "bomb")
LIMITED = """
import resource, sys
from pathlib import Path
from bids_app.files import formats
from bids_app.image import intake
from bids_app.errors import BidsAppError
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (150 << 20),) * 2)
for name in sys.argv[1:]:
    try:
        image = formats.open_nifti(Path(name))
        intake.check_header(image)
        formats.read_nifti(Path(name))
    except BidsAppError as error:
        print(error)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_headers_and_streams_that_claim_gigabytes_ask_for_no_memory(good: Good, tmp_path: Path) -> None:
    """In a process that may take 150 MB more than it has after its imports."""
    paths = []
    for label in BOMBS:
        paths.append(path_of(tmp_path, label))
        paths[-1].write_bytes(damage.BAD[label][0](*good))
        assert paths[-1].stat().st_size < 3 << 20
    command = [sys.executable, "-W", "ignore", "-c", LIMITED, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert (done.returncode, len(lines)) == (0, len(BOMBS)), done.stderr
    for label, line in zip(BOMBS, lines, strict=True):
        assert re.search(damage.BAD[label][1], line)
        assert "MemoryError" not in line


# -- refused, all in one run beside good ones ----------------------------------------------------


@pytest.fixture(scope="module")
def mixed(
    run_app: Run, tiny: Places, done: Path, good: Good, scan: Scan, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, Path, Path]:
    """Exit code, data set and output of a run on two good scans, one of them finished before, and all bad ones."""
    folder = tmp_path_factory.mktemp("mixed")
    raw, output = folder / "raw", folder / "out"
    shutil.copytree(tiny[0], raw)
    shutil.copytree(done, output)
    marks.mark_path(output, scan.name).unlink()
    for label, (make, _) in damage.BAD.items():
        path_of(raw, label).write_bytes(make(*good))
    path_of(raw, "annex").symlink_to("../../.git/annex/objects/aa/bb/x.nii.gz")
    with (raw / "participants.tsv").open("a", encoding="utf-8") as stream:
        columns = len(formats.read_tsv(raw / "participants.tsv").columns)
        labels = (*damage.BAD, "annex")
        stream.writelines("\t".join([f"sub-{label}", *["n/a"] * (columns - 1)]) + "\n" for label in labels)
    with netguard.watch() as seen:
        code = run_app(raw, output, "participant")
    (folder / "network").write_text("\n".join(seen))
    return code, raw, output


def log_of(output: Path) -> Path:
    return max(output.glob("logs/*/log.txt"), key=lambda path: path.stat().st_mtime)


def test_bad_scans_fail_alone(mixed: tuple[int, Path, Path]) -> None:
    code, _, output = mixed
    assert code == 1
    last = log_of(output).read_text().strip().splitlines()[-1]
    assert last.endswith(f"exit code 1: 1 scans done, 1 unchanged, {len(damage.BAD) + 1} failed")


def test_each_bad_scan_has_one_clear_line_at_the_end_of_the_log(mixed: tuple[int, Path, Path]) -> None:
    _, _, output = mixed
    log = log_of(output)
    failures = formats.read_json(log.parent / "failures.json")
    says = {label: word for label, (_, word) in damage.BAD.items()} | {"annex": "datalad get"}
    assert sorted(failures) == sorted(f"sub-{label}" for label in says)
    lines = log.read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines[-1 - len(failures) : -1] if " ERROR " in line]) == len(failures)
    for name, line in failures.items():
        assert f"{name}/anat/{name}_FLAIR.nii.gz: " in line
        assert not re.search("unexpected|Traceback", line)
        assert re.search(says[name.removeprefix("sub-")], line)
        assert ";" in line  # what to do
        assert len([said for said in lines if said.endswith(f"ERROR {line}")]) == 1
    assert not list(log.parent.glob("*.traceback.txt"))


def test_the_run_reaches_nothing_beyond_this_machine(mixed: tuple[int, Path, Path]) -> None:
    """The command itself; worker processes: see test_supply_chain."""
    assert (mixed[2].parent / "network").read_text() == ""


def test_bad_scans_leave_no_output_and_good_ones_are_as_without_them(
    mixed: tuple[int, Path, Path], done: Path, tiny: Places, checksums: Callable[[Path], dict[str, str]]
) -> None:
    _, raw, output = mixed
    now, before = checksums(output), checksums(done)
    for each in find_scans(tiny[0])[0]:
        for key in OUTPUTS:
            assert now[each.output(key)] == before[each.output(key)]
    for label in (*damage.BAD, "annex"):
        assert not (output / f"sub-{label}").exists()
        assert f"sub-{label}_FLAIR.nii.gz" in (output / f"sub-{label}.html").read_text(encoding="utf-8")
    scans = [each.name for each in find_scans(tiny[0])[0]]
    assert sorted(formats.read_tsv(output / "participants_lesions.tsv")["scan"]) == scans
    assert raw.is_dir()


# -- stored or moved otherwise: the same brain ---------------------------------------------------


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


@pytest.mark.parametrize("name", [each for each in damage.CHANGED if (LONG and not realdata.THERE) or each in USUAL])
def test_a_moved_phantom_keeps_its_brain(
    tiny: Places, done: Path, scan: Scan, good: Good, tmp_path: Path, name: str
) -> None:
    truth, mine = (formats.read_nifti(root / scan.output("brain"))[0] > 0 for root in (tiny[1], done))
    check_moved(name, good, truth, dice(mine, truth), tmp_path / "work")


class Patient(NamedTuple):
    """A scan with its brain mask, the tissue labels found, and the brain Dice that it reaches undamaged."""

    scan: Good
    truth: np.ndarray
    labels: np.ndarray
    dice: float


@pytest.fixture(scope="module")
def patient(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Patient:
    name = "sub-01/ses-1/anat/sub-01_ses-1"
    scan = formats.read_nifti(real_data / "raw" / f"{name}_FLAIR.nii.gz")
    expert = canonical(Volume(*formats.read_nifti(real_data / "expert" / f"{name}_desc-brain_mask.nii.gz")))
    found, volume = analysed(damage.image_of(*scan), tmp_path_factory.mktemp("real") / "work")
    truth = stored_like(expert.data > 0, volume)
    labels = stored_like(found.fit.tissues.labels, volume)
    return Patient(scan, truth, labels, dice(stored_like(found.fit.tissues.mask, volume), truth))


@long
@pytest.mark.parametrize("name", damage.CHANGED)
def test_a_moved_real_scan_keeps_its_brain(patient: Patient, tmp_path: Path, name: str) -> None:
    check_moved(name, patient.scan, patient.truth, patient.dice, tmp_path / "work")


# -- no scan of a brain, or a poor one: refused or flagged ---------------------------------------


def doubted(image: nib.Nifti1Image, folder: Path) -> str:
    """Return why the image is not trusted: the refusal, or the flags."""
    try:
        found, _ = analysed(image, folder)
    except ScanError as error:
        return str(error)
    return ", ".join(sorted(flags_of(found)))


def test_an_image_of_no_brain_is_refused(good: Good, tmp_path: Path) -> None:
    assert "registration is lost" in doubted(damage.sphere(*good), tmp_path / "work")


@long
@pytest.mark.parametrize("name", damage.DOUBTFUL)
def test_a_doubtful_real_scan_is_refused_or_flagged(patient: Patient, tmp_path: Path, name: str) -> None:
    assert doubted(damage.DOUBTFUL[name](*patient.scan), tmp_path / "work")


@long
@pytest.mark.parametrize("name", damage.CONTRASTS)
def test_another_sequence_is_refused_or_flagged(patient: Patient, tmp_path: Path, name: str) -> None:
    assert doubted(damage.CONTRASTS[name](*patient.scan, patient.labels), tmp_path / "work")


def test_a_wrong_slice_thickness_shows_in_the_shape_of_the_head() -> None:
    turn = damage.turned("xyz", [10, -20, 30])[:3, :3]
    for thickness, normal in ((1.0, True), (0.75, False), (0.5, False), (1.5, False)):
        pose = Pose(0.9 * np.diag([1.0, 1.0, thickness]) @ turn, np.zeros(3), 0.97, turned=False)
        assert (quality.head_shape(pose) <= 1.25) == normal
        assert quality.head_shape(pose) == pytest.approx(max(thickness, 1 / thickness))
