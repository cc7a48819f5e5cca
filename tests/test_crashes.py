"""Processes killed, disks full, folders removed, two runs at once: nothing finished is lost, nothing half is kept."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import quick_app

from bids_app.bids.names import OUTPUTS, SMALL
from bids_app.bids.query import find_scans
from bids_app.files import atomic, formats
from bids_app.participant import marks

Sums = Callable[[Path], dict[str, str]]
HERE = Path(__file__).parent
PATIENCE = 180  # seconds for what should take a few: machines are shared
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@dataclass
class Place:
    """A data set of three scans, an output folder, and how to run the quick app on them."""

    raw: Path
    out: Path
    notes: Path
    env: dict[str, str] = field(default_factory=dict)

    def start(self, *words: object, harm: str = "") -> subprocess.Popen[str]:
        command = [sys.executable, str(HERE / "quick_app.py"), self.raw, self.out, "participant"]
        return subprocess.Popen(
            [*map(str, command), "--skip-bids-validation", *map(str, words)],
            env={**os.environ, **self.env, "QUICK_HARM": harm, "QUICK_NOTES": str(self.notes)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=_heed_interrupts,
        )

    def run(self, *words: object, harm: str = "") -> tuple[int, str]:
        """Return exit code and what was said."""
        process = self.start(*words, harm=harm)
        said, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, said

    def harmed(self) -> int:
        return len(list(self.notes.glob("harm-*")))

    def wait_for_harm(self) -> None:
        until(lambda: self.harmed() > 0)

    @property
    def log(self) -> str:
        logs = sorted(self.out.glob("logs/*/log.txt"), key=lambda path: path.stat().st_mtime)
        return logs[-1].read_text("utf-8")


def _heed_interrupts() -> None:
    """As from a terminal: what a shell starts in the background ignores SIGINT, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def env(tiny: tuple[Path, Path], done: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {"QUICK_FOUND": str(quick_app.prepare(tiny[0], done, tmp_path_factory.mktemp("quick") / "found"))}


@pytest.fixture(scope="module")
def raw(tiny: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three participants with one and the same scan."""
    root = tmp_path_factory.mktemp("three") / "raw"
    scan = tiny[0] / find_scans(tiny[0])[0][0].path
    formats.write_json(root / "dataset_description.json", {"Name": "three", "BIDSVersion": "1.10.0"})
    for label in ("01", "02", "03"):
        path = root / f"sub-{label}" / "anat" / f"sub-{label}_FLAIR.nii.gz"
        path.parent.mkdir(parents=True)
        shutil.copyfile(scan, path)
    return root


@pytest.fixture(scope="module")
def undisturbed(env: dict[str, str], raw: Path, tmp_path_factory: pytest.TempPathFactory, checksums: Sums) -> dict:
    """Checksums of what a run leaves that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    place = Place(raw, folder / "out", folder, env)
    code, said = place.run("--nprocs", 2)
    assert code == 0, said
    return lasting(checksums(place.out))


@pytest.fixture
def place(env: dict[str, str], raw: Path, tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "notes").mkdir()
    made = Place(raw, tmp_path / "out", tmp_path / "notes", env)
    yield made
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]


def lasting(sums: dict[str, str]) -> dict[str, str]:
    """All but the log of each run, and pages and marks, which tell how long it took."""
    return {path: sum_ for path, sum_ in sums.items() if not re.search(r"^logs/(\d{8}T|scans/.*json)|\.html$", path)}


def half_files(out: Path) -> list[Path]:
    """Every image, table or JSON under its final name that cannot be read whole."""
    bad = []
    for path in sorted(out.rglob("*")):
        try:
            if path.name.startswith(atomic.PART) or not path.is_file():
                continue
            if path.name.endswith(".nii.gz"):
                formats.read_nifti(path)
            elif path.suffix == ".json":
                formats.read_json(path)
            elif path.suffix == ".tsv":
                formats.read_tsv(path)
        except Exception:
            bad.append(path)
    return bad


def agrees(code: int, place: Place, said: str = "") -> None:
    """Exit code and the log's last line are one; so are the failures listed and those counted."""
    last = place.log.strip().splitlines()[-1]
    assert f"exit code {code}:" in last, place.log + said
    counted = re.search(r"(\d+) failed", last)
    if counted:
        failures = formats.read_json(max(place.out.glob("logs/*/failures.json"), key=lambda path: path.stat().st_mtime))
        assert len(failures) == int(counted[1])
        lines = place.log.strip().splitlines()[-1 - len(failures) : -1]
        assert all(any(line.endswith(text) for line in lines) for text in failures.values())


def finishes(place: Place, undisturbed: dict, checksums: Sums, *words: object, unchanged: int | None = None) -> None:
    """A second run does the rest, and leaves what an undisturbed run leaves."""
    code, said = place.run("--nprocs", 2, *words)
    assert code == 0, said
    if unchanged is not None:
        assert f"{3 - unchanged} scans done, {unchanged} unchanged" in said
    assert lasting(checksums(place.out)) == undisturbed


# -- workers -------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_worker_killed_once_loses_nothing(place: Place, undisturbed: dict, checksums: Sums) -> None:
    code, said = place.run("--nprocs", 2, harm="sub-02:kill:1")
    assert (code, place.harmed()) == (0, 1), said
    agrees(code, place)
    assert lasting(checksums(place.out)) == undisturbed


def test_a_scan_that_kills_its_worker_fails_alone(place: Place, undisturbed: dict, checksums: Sums) -> None:
    code, said = place.run("--nprocs", 2, harm="sub-02:kill-writing:9")
    assert (code, place.harmed()) == (1, 2), said  # tried once more
    agrees(code, place)
    assert "sub-02/anat/sub-02_FLAIR.nii.gz: its process died twice" in place.log
    assert "2 scans done, 0 unchanged, 1 failed" in place.log
    assert "died twice" in (place.out / "sub-02.html").read_text("utf-8")
    assert half_files(place.out) == []
    assert not marks.mark_path(place.out, "sub-02").exists()
    assert list((place.out / "sub-02" / "anat").glob("*.nii.gz"))  # the harm was done while writing
    finishes(place, undisturbed, checksums, unchanged=2)


@pytest.mark.long
def test_one_process_is_a_worker_too(place: Place) -> None:
    code, said = place.run("--nprocs", 1, "--participant-label", "02", "03", harm="sub-02:kill:9")
    assert (code, place.harmed()) == (1, 2), said
    assert marks.mark_path(place.out, "sub-03").exists()


@pytest.mark.long
def test_a_worker_over_its_memory_is_told_so(place: Place, undisturbed: dict, checksums: Sums) -> None:
    code, said = place.run("--nprocs", 2, "--mem-mb", 1600, harm="sub-03:memory:9")
    assert (code, place.harmed()) == (1, 2), said
    agrees(code, place)
    assert "1 processes instead of 2" in place.log
    assert "over its memory of 1600 MB" in place.log and "raise --mem-mb" in place.log
    finishes(place, undisturbed, checksums, unchanged=2)


# -- the command itself --------------------------------------------------------------------------


def test_the_command_killed_leaves_no_worker_and_no_half_file(place: Place, undisturbed: dict, checksums: Sums) -> None:
    process = place.start("--nprocs", 2, harm="sub-02:wait:9")
    until(lambda: place.harmed() > 0 and marks.mark_path(place.out, "sub-03").exists())
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    process.kill()
    process.communicate(timeout=PATIENCE)
    until(lambda: not [worker for worker in workers if worker.is_running() and worker.status() != "zombie"])
    assert half_files(place.out) == []
    (place.out / "sub-02" / "anat").mkdir(parents=True)  # as if it had been killed while writing
    (place.out / "sub-02" / "anat" / f"{atomic.PART}sub-02_dseg.nii.gz-x.tmp").write_bytes(b"half")
    assert list((place.out / ".work").iterdir())
    finishes(place, undisturbed, checksums, unchanged=2)
    assert not (place.out / ".work").exists()
    assert not list(place.out.rglob(f"{atomic.PART}*"))


@pytest.mark.parametrize(
    ("name", "code", "to"),
    [
        ("SIGTERM", 143, "the command"),
        pytest.param("SIGINT", 130, "the command", marks=pytest.mark.long),
        pytest.param("SIGTERM", 143, "all its processes", marks=pytest.mark.long),
        pytest.param("SIGINT", 130, "all its processes", marks=pytest.mark.long),
    ],
)
def test_a_signal_ends_the_run_in_order(
    place: Place, undisturbed: dict, checksums: Sums, name: str, code: int, to: str
) -> None:
    process = place.start("--nprocs", 2, harm="sub-02:wait:9")
    until(lambda: place.harmed() > 0 and marks.mark_path(place.out, "sub-03").exists())
    send = os.killpg if to == "all its processes" else os.kill
    send(process.pid, getattr(signal, name))
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, said
    assert "Traceback" not in said
    agrees(code, place, said)
    assert "run again to go on" in place.log
    assert half_files(place.out) == []
    assert not (place.out / ".work").exists()
    assert sorted(formats.read_tsv(place.out / "participants_lesions.tsv")["scan"]) == ["sub-01", "sub-03"]
    if name == "SIGTERM" and to == "the command":
        finishes(place, undisturbed, checksums, unchanged=2)


# -- the place it writes to ----------------------------------------------------------------------


@pytest.fixture
def small_disk(place: Place) -> Iterator[Place]:
    """The output folder on a disk of 3 MB, which holds one scan of three."""
    place.out.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", place.out], check=True)
    yield place
    subprocess.run(["umount", "-l", place.out], check=True)


@root_only
def test_a_full_disk(small_disk: Place, undisturbed: dict, checksums: Sums) -> None:
    code, said = small_disk.run("--nprocs", 2)
    assert code in (1, 74), said
    assert f"exit code {code}:" in said.strip().splitlines()[-1]
    assert "No space left" in said and "check free space" in said
    assert "Traceback" not in said
    assert half_files(small_disk.out) == []
    assert not list(small_disk.out.rglob(f"{atomic.PART}*"))
    subprocess.run(["mount", "-o", "remount,size=100m", small_disk.out], check=True)
    finishes(small_disk, undisturbed, checksums)


@root_only
def test_a_read_only_output(place: Place) -> None:
    place.out.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", place.out], check=True)
    try:
        code, said = place.run()
    finally:
        subprocess.run(["umount", "-l", place.out], check=True)
    assert code == 73
    assert "exit code 73:" in said.strip().splitlines()[-1]
    assert str(place.out) in said and "Traceback" not in said


@pytest.mark.long
def test_an_output_removed_while_running(place: Place, undisturbed: dict, checksums: Sums) -> None:
    process = place.start("--nprocs", 2, harm="sub-02:wait:9")
    until(lambda: place.harmed() > 0 and marks.mark_path(place.out, "sub-01").exists())
    until(lambda: marks.mark_path(place.out, "sub-03").exists())
    shutil.rmtree(place.out, ignore_errors=True)
    (place.notes / "go").touch()
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, said
    agrees(1, place, said)
    assert place.log.count("removed while the app was running") >= 2
    assert half_files(place.out) == []
    finishes(place, undisturbed, checksums)


# -- two at once ---------------------------------------------------------------------------------


@pytest.mark.long
def test_two_runs_on_one_output(place: Place, undisturbed: dict, checksums: Sums) -> None:
    one, other = place.start("--nprocs", 2), place.start("--nprocs", 2)
    said = [process.communicate(timeout=PATIENCE)[0] for process in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0), said
    done = [int(re.search(r"(\d+) scans done", text)[1]) for text in said]  # type: ignore[index]
    assert sum(done) == 3  # each scan by one of them only
    assert lasting(checksums(place.out)) == undisturbed


def test_a_run_waits_for_a_scan_that_another_is_at(place: Place, undisturbed: dict, checksums: Sums) -> None:
    first = place.start("--participant-label", "02", harm="sub-02:wait:1")
    place.wait_for_harm()
    second = place.start("--nprocs", 2)
    until(lambda: "another run is at it; waiting" in place.log)
    (place.notes / "go").touch()
    said = [process.communicate(timeout=PATIENCE)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), said
    assert "2 scans done, 1 unchanged" in said[1]
    assert lasting(checksums(place.out)) == undisturbed


# -- what is done again --------------------------------------------------------------------------


@pytest.mark.long
def test_a_changed_option_or_input_redoes_what_depends_on_it(place: Place, raw: Path, tmp_path: Path) -> None:
    place.raw = Path(shutil.copytree(raw, tmp_path / "raw"))
    assert place.run("--nprocs", 2)[0] == 0
    assert "0 scans done, 3 unchanged" in place.run()[1]
    assert "0 scans done, 3 unchanged" in place.run("--nprocs", 2, "--small-output", "-v", "--notrack")[1]
    assert "3 scans done, 0 unchanged" in place.run("--nprocs", 2, "--random-seed", 1)[1]
    with (place.raw / "sub-02" / "anat" / "sub-02_FLAIR.nii.gz").open("ab") as stream:
        stream.write(b"\0")
    assert "1 scans done, 2 unchanged" in place.run("--random-seed", 1)[1]
    (place.out / "sub-03" / "anat" / "sub-03_dseg.nii.gz").unlink()
    assert "1 scans done, 2 unchanged" in place.run("--random-seed", 1)[1]


def test_a_small_output_holds_what_is_asked_and_nothing_old(place: Place) -> None:
    def kept() -> set[str]:
        return {path.name for path in (place.out / "sub-01" / "anat").iterdir()}

    def named(keys: tuple[str, ...]) -> set[str]:
        scan = find_scans(place.raw)[0][0]
        images = [Path(scan.output(key)) for key in keys]
        return {path.name for image in images for path in (image, formats.sidecar(image))}

    only = ("--participant-label", "01")
    assert place.run("--small-output", *only)[0] == 0
    assert kept() == named(SMALL)
    assert "1 scans done" in place.run(*only)[1]
    assert kept() == named(tuple(OUTPUTS))
    assert "1 scans done" in place.run("--small-output", "--random-seed", 1, *only)[1]
    assert kept() == named(SMALL)  # maps of another seed are gone
    for path in (place.out / "sub-01" / "anat").glob("*.json"):
        for uri in formats.read_json(path)["Sources"]:
            dataset, name = re.fullmatch(r"bids:(raw|):(.+)", uri).groups()  # type: ignore[union-attr]
            assert ((place.raw if dataset else place.out) / name).is_file(), uri
