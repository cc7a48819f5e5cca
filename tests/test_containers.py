"""Dockerfile and Singularity.def: they agree, and both levels run in what they build, behind walls.

The last two tests use an engine that runs and gets the base image; else they are skipped, and under
REQUIRE_CONTAINERS=1 they install and start one, and fail where that is impossible.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import bids_app
from bids_app.bids.query import find_scans
from bids_app.phantom.cohort import draw_cohort
from bids_app.phantom.dataset import write_cohort

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / ".ci" / "containers"
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
DEFINITION = (ROOT / "Singularity.def").read_text("utf-8")
ENGINES = ("docker", "apptainer")
SKIPPED = 77
HOUR = 3600
Sums = Callable[[Path], dict[str, str]]


def run_script(engine: str, folder: Path, **environment: str) -> tuple[int, list[str]]:
    """Run an engine's script; return its exit code and the lines it says. What it started goes with it."""
    command = ["bash", str(SCRIPTS / f"{engine}.sh"), str(folder)]
    with subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=HOUR)
        except BaseException:  # an interrupt too: the script then puts everything away
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=60)
            raise
    return process.returncode, said.splitlines()


def program(name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert found, f"{name} is not installed; pip install .[test]"
    return found


# -- the two recipes -----------------------------------------------------------------------------


def instructions(name: str) -> list[str]:
    """The Dockerfile's instructions of one kind, without their name, each on one line."""
    lines = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [" ".join(line.split()[1:]) for line in lines if line.startswith(f"{name} ")]


def section(name: str) -> list[str]:
    """The lines of one section of Singularity.def."""
    found = re.search(rf"^%{name}\n(.*?)(?=^%|\Z)", DEFINITION, flags=re.MULTILINE | re.DOTALL)
    assert found
    return [line.strip() for line in found[1].splitlines() if line.strip()]


def of(words: str, lines: list[str]) -> list[str]:
    """The shell commands in these lines that begin with certain words."""
    commands = [command.strip() for line in lines for command in line.split("&&")]
    return [command for command in commands if command.startswith(words)]


def pairs(text: str) -> dict[str, str]:
    return {name: value.strip('"') for name, value in re.findall(r'(\S+?)=("[^"]*"|\S+)', text)}


def test_dockerfile_passes_hadolint() -> None:
    done = subprocess.run([program("hadolint"), str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_both_start_from_the_same_base() -> None:
    bases = {line.split()[0] for line in instructions("FROM")}
    assert bases == set(re.findall(r"^From: (\S+)$", DEFINITION, flags=re.MULTILINE))
    assert [pairs(line)["org.opencontainers.image.base.name"] for line in instructions("LABEL")] == [
        f"docker.io/library/{base}" for base in bases
    ]


def test_both_copy_the_same_files_and_docker_is_given_no_others() -> None:
    copied = [line for line in instructions("COPY") if not line.startswith("--from")]
    sources = {word for line in copied for word in line.split()[:-1]}
    assert sources == {line.split()[0] for line in section("files")}
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in ignored and sources == {line[1:] for line in ignored if line.startswith("!")}
    assert {line.split()[1] for line in section("files")} == {f"/src/{Path(source).name}" for source in sources}


@pytest.mark.parametrize(
    ("words", "number"), [("python3 -m venv", 1), ("/opt/app/bin/pip install", 2), ("bash /src/slim.sh", 1)]
)
def test_both_install_by_the_same_commands(words: str, number: int) -> None:
    found = of(words, instructions("RUN"))
    assert len(found) == number
    assert found == of(words, section("post"))


def test_both_install_the_same_of_debian_and_keep_only_python() -> None:
    building, final = (set(line.split()[4:]) for line in of("apt-get install -y", instructions("RUN")))
    [installed] = [set(line.split()[4:]) for line in of("apt-get install -y", section("post"))]
    [purged] = [set(line.split()[4:]) for line in of("apt-get purge -y --auto-remove", section("post"))]
    assert building == installed
    assert final == installed - purged == {"python3"}


def test_both_install_from_hashes_and_name_no_index() -> None:
    locked, app = of("/opt/app/bin/pip install", instructions("RUN"))
    assert "--require-hashes -r /src/requirements.lock" in locked
    assert "--no-deps /src" in app
    for text in (DOCKERFILE, DEFINITION, (SCRIPTS / "slim.sh").read_text("utf-8")):
        assert not re.search(r"://|index|find-links|trusted-host|proxy|pip\.conf|PIP_", text)


def test_both_set_the_same_environment_and_no_home() -> None:
    [line] = instructions("ENV")
    assert pairs(line) == pairs(" ".join(section("environment")))
    assert "HOME" not in pairs(line)
    assert "$HOME" not in DEFINITION and "~" not in DEFINITION


def test_both_bear_the_same_labels_with_this_version() -> None:
    [line] = instructions("LABEL")
    labels = pairs(line)
    assert labels == {label.split()[0]: label.split(maxsplit=1)[1] for label in section("labels")}
    assert labels["org.opencontainers.image.version"] == bids_app.__version__
    assert all(name.startswith("org.opencontainers.image.") for name in labels)


def test_image_runs_the_app_as_somebody_other_than_root() -> None:
    assert json.loads(instructions("ENTRYPOINT")[-1]) == ["bids_app"]
    assert section("runscript") == ['exec bids_app "$@"']
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", instructions("USER")[-1])


def test_what_the_image_tests_in_itself_works() -> None:
    """Run here, it is the same Python: a module that has moved is found before an image is built."""
    programs = [match[1] for line in section("test") if (match := re.search(r"python -c '(.+)'$", line))]
    assert programs
    for each in programs:
        done = subprocess.run([sys.executable, "-c", each], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


# -- what cannot be ------------------------------------------------------------------------------


@pytest.fixture
def no_engine(tmp_path: Path) -> dict[str, str]:
    """An environment in which no engine runs, starts, or can be installed."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("docker", "dockerd", "apptainer", "mmdebstrap", "apt-get"):
        (programs / name).write_text(f"#!/bin/sh\necho {name} is broken >&2\nexit 1\n")
        (programs / name).chmod(0o755)
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    return {"PATH": path, "BIDS_APP_CONTAINER_CACHE": str(tmp_path / "cache"), "REQUIRE_CONTAINERS": ""}


@pytest.mark.parametrize("engine", ENGINES)
def test_without_an_engine_the_script_says_why_it_skips(engine: str, no_engine: dict[str, str], tmp_path: Path) -> None:
    code, said = run_script(engine, tmp_path, **no_engine)
    assert code == SKIPPED
    assert re.match(r"SKIP: no (Docker engine|Apptainer) that .*REQUIRE_CONTAINERS=1 installs", said[-1])
    assert not (tmp_path / "cache").exists()  # nothing was begun


@pytest.mark.parametrize("engine", ENGINES)
def test_where_containers_are_required_it_fails(engine: str, no_engine: dict[str, str], tmp_path: Path) -> None:
    code, said = run_script(engine, tmp_path, **{**no_engine, "REQUIRE_CONTAINERS": "1"})
    assert code == 1
    assert said[-1].startswith("FAIL: ")
    assert ("is broken" if os.getuid() == 0 else "needs root") in said[-1]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to somebody else")
@pytest.mark.parametrize("engine", ENGINES)
def test_cache_of_somebody_else_is_not_trusted(engine: str, no_engine: dict[str, str], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    os.chown(cache, 12345, 12345)
    code, said = run_script(engine, tmp_path, **{**no_engine, "REQUIRE_CONTAINERS": "1"})
    assert (code, list(cache.iterdir())) == (1, [])
    assert said[-1].startswith(f"FAIL: {cache} belongs to somebody else")


# -- what is built, at work ----------------------------------------------------------------------


@pytest.fixture
def folder(tiny: tuple[Path, Path], tmp_path: Path) -> Path:
    """Two scans for the participant level, and a cohort of lesion maps for the group level."""
    made = tmp_path / "data"
    shutil.copytree(tiny[0], made / "scans" / "bids")
    cohort = draw_cohort(n_participants=(12, 10), n_scans=(26, 20), seed=1)
    write_cohort(cohort, made / "cohort" / "bids", made / "cohort" / "out")
    return made


def errors_of(output: Path) -> list[dict]:
    command = [program("bids-validator-deno"), "--json", "--ignoreWarnings", str(output)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    assert found["summary"]["totalFiles"] > 20  # it did look
    return [issue for issue in found["issues"]["issues"] if issue["severity"] == "error"]


@pytest.mark.parametrize("engine", ENGINES)
def test_both_levels_run_behind_walls(
    engine: str, folder: Path, checksums: Sums, record_property: Callable[[str, object], None]
) -> None:
    inputs = [folder / level / "bids" for level in ("scans", "cohort")]
    outputs = [folder / "scans" / "out", folder / "cohort" / "out"]
    before, maps = [checksums(place) for place in inputs], checksums(outputs[1])
    code, said = run_script(engine, folder)
    for line in said:
        if re.match(rf"{engine}\b|no registry|SKIP|FAIL", line):
            record_property("containers", line)
    if code == SKIPPED and os.environ.get("REQUIRE_CONTAINERS") != "1":
        pytest.skip(said[-1])
    assert code == 0, "\n".join(said)

    assert [checksums(place) for place in inputs] == before
    after = checksums(outputs[1])
    assert all(after[path] == sum_ for path, sum_ in maps.items() if path.startswith("sub-"))
    scans = find_scans(inputs[0])[0]
    assert len(scans) == 2
    for scan in scans:
        assert (outputs[0] / scan.output("lesion_mni")).stat().st_size > 0
    assert (outputs[0] / "sub-01.html").stat().st_size > 10**4
    assert (outputs[1] / "group.html").stat().st_size > 10**5
    metrics = json.loads((outputs[1] / "group" / "metrics.json").read_text("utf-8"))
    assert 0 <= metrics["leakage-free"]["test"]["auc"]["value"] <= 1

    user = 12345 if os.getuid() == 0 else os.getuid()
    written = [path for path in outputs[0].rglob("*")] + list((folder / "made").rglob("*"))
    written += [outputs[1] / path for path in after if path not in maps]
    assert len(written) > 100
    assert {path.stat().st_uid for path in written} == {user}
    for output in outputs:
        assert not (output / ".work").exists()
        assert errors_of(output) == []
