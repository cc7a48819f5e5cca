"""Bad scans beside good ones: each is refused in one line and does no harm to the others."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import damage
import netguard
import nibabel as nib
import numpy as np
import pytest
from anatomies import Good

from bids_app.bids.names import OUTPUTS, Scan
from bids_app.bids.query import find_scans
from bids_app.errors import BidsAppError
from bids_app.files import formats
from bids_app.image import intake
from bids_app.participant import marks
from bids_app.records.scan import Volume

Run = Callable[..., int]
Places = tuple[Path, Path]


def path_of(raw: Path, label: str) -> Path:
    path = raw / f"sub-{label}" / "anat" / f"sub-{label}_FLAIR.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def taken(path: Path) -> tuple[Volume, bool, list[str]]:
    """What the participant level does before the heavy work."""
    image = formats.open_nifti(path)
    intake.check_header(image)
    return intake.to_volume(image, formats.read_nifti(path)[0])


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
