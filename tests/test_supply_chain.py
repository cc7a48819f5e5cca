"""What is installed is pinned and hashed, its licences are told, and a run reaches nothing beyond this machine."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import netguard
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bids_app.phantom.cohort import draw_cohort
from bids_app.phantom.dataset import write_cohort

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-test.lock")
long = pytest.mark.skipif(not os.environ.get("LONG_TESTS"), reason="takes minutes: set LONG_TESTS=1")


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes by package; every line must be one of the forms that pip checks."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    found: dict[str, tuple[str, list[str]]] = {}
    for line in text.splitlines():
        line = line.partition(" #")[0].strip()
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(
            r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+!]+)(?:\s*;[^-]*)?((?:\s+--hash=sha256:[0-9a-f]{64})+)", line
        )
        assert match, f"{name}: {line[:80]!r} is no exact pin with hashes"
        assert canonicalize_name(match[1]) not in found, f"{match[1]} twice"
        found[canonicalize_name(match[1])] = match[2], match[3].split()
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_and_hashed(name: str) -> None:
    packages = locked(name)
    assert len(packages) > 50
    for version, hashes in packages.values():
        assert version
        assert len(hashes) == len(set(hashes)) >= 1


def test_a_lock_without_hash_or_with_a_range_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    good = f"numpy==2.3.5 \\\n    --hash=sha256:{'0' * 64}\n    # via bids_app\n"
    (tmp_path / "a.lock").write_text(good)
    assert locked("a.lock")["numpy"][0] == "2.3.5"
    for bad in (
        "numpy==2.3.5\n",
        good.replace("==", ">="),
        good.replace("==", " @ https://x/"),
        "--index-url x\n" + good,
    ):
        (tmp_path / "a.lock").write_text(bad)
        with pytest.raises(AssertionError, match="no exact pin"):
            locked("a.lock")


def test_the_locks_hold_what_the_package_asks_for_and_agree() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    run, test = (locked(name) for name in LOCKS)
    for section, option, lock in (
        ("options", "install_requires", run),
        ("options", "install_requires", test),
        ("options.extras_require", "test", test),
    ):
        for line in config[section][option].split("\n"):
            if line.strip():
                wanted = Requirement(line)
                assert wanted.specifier.contains(lock[canonicalize_name(wanted.name)][0], prereleases=True), line
    assert {name: version for name, (version, _) in run.items()}.items() <= {
        name: version for name, (version, _) in test.items()
    }.items()


def test_the_lock_of_torch_holds_its_extras_and_nothing_that_the_others_hold() -> None:
    """Plain pins, since torch's wheels differ from index to index; what the main locks hold stays as it is there."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = (ROOT / "requirements-cnn.lock").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"==[0-9.]+", str(pin.specifier)) for pin in pins)
    own = {canonicalize_name(pin.name): str(pin.specifier)[2:] for pin in pins}
    assert len(own) == len(pins) and not own.keys() & locked("requirements-test.lock").keys()
    for extra in ("cnn", "train"):
        for line in filter(None, config["options.extras_require"][extra].split("\n")):
            wanted = Requirement(line)
            assert wanted.specifier.contains(own[canonicalize_name(wanted.name)]), str(wanted)


# -- network -------------------------------------------------------------------------------------


def test_the_guard_sees_what_leaves_this_machine_and_only_that() -> None:
    with netguard.watch() as seen, socket.socket(socket.AF_INET, socket.SOCK_STREAM) as each:
        each.setblocking(False)
        each.connect_ex(("127.0.0.1", 9))
        assert seen == []
        each.connect_ex(("192.0.2.1", 9))  # an address reserved for examples: nobody is there
        with pytest.raises(socket.gaierror):
            socket.getaddrinfo("nobody.invalid", 80)
    assert seen == ["socket.connect 192.0.2.1", "socket.getaddrinfo nobody.invalid"]
    assert netguard.outside("socket.connect", (None, ("::1", 9, 0, 0))) == ""
    assert netguard.outside("socket.connect", (None, "/run/some.sock")) == ""


def cut_off(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the app in a network namespace that holds loopback only, every Python process in it watched."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-n", "true"], check=False).returncode:
        pytest.skip("cannot make a network namespace here (unshare -n); run as root")
    up = (
        "import fcntl, os, socket, struct, sys\n"
        "with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:\n"
        "    fcntl.ioctl(s, 0x8914, struct.pack('16sh', b'lo', 0x1 | 0x40))\n"  # SIOCSIFFLAGS: up and running
        "assert [line.split(':')[0].strip() for line in open('/proc/net/dev')][2:] == ['lo']\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'bids_app', *sys.argv[1:]])\n"
    )
    command = ["unshare", "-n", sys.executable, "-c", up, *words]
    environment = os.environ | netguard.guarded(folder)
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=folder)


def reached(folder: Path) -> list[str]:
    """Return what the processes tried to reach; at least one process must have been watched."""
    lines = [line for path in (folder / "log").iterdir() for line in path.read_text().splitlines()]
    assert [line for line in lines if line.startswith("started")]
    return [line for line in lines if not line.startswith("started")]


@long
def test_the_participant_level_needs_and_tries_no_network(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    """With the validator and two worker processes: the whole run."""
    words = [str(tiny[0]), str(tmp_path / "out"), "participant", "--nprocs", "2", "--participant-label", "01", "02"]
    done = cut_off(words, tmp_path / "guard")
    assert done.returncode == 0, done.stderr[-2000:]
    assert reached(tmp_path / "guard") == []
    assert len(list((tmp_path / "guard" / "log").iterdir())) >= 3  # the run itself and its workers


@long
def test_the_group_level_needs_and_tries_no_network(tmp_path: Path) -> None:
    write_cohort(draw_cohort(n_participants=(8, 8), n_scans=(16, 14), seed=2), tmp_path / "bids", tmp_path / "out")
    words = [str(tmp_path / "bids"), str(tmp_path / "out"), "group", "--lesion-threshold", "0.32", "--cv-folds", "3"]
    words += ["--refine-limit", "0", "--bootstrap-draws", "50", "--nested-folds", "2", "--permutations", "2"]
    done = cut_off([*words, "--nprocs", "2"], tmp_path / "guard")
    assert done.returncode == 0, done.stderr[-2000:]
    assert reached(tmp_path / "guard") == []


# -- the table of all harms ----------------------------------------------------------------------


def test_every_test_that_the_table_of_harms_names_exists() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", text)
    assert len(named) > 30
    for file, name in named:
        source = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert re.search(rf"^def {name}\(", source, re.M), f"{file}::{name}"
    rows = [line for line in text.splitlines() if line.startswith("| ") and not re.match(r"\| (---|Harm)", line)]
    for row in rows:
        assert "`test_" in row, f"no test in {row!r}"
