"""The brainlife app, run as brainlife runs it: in a task's folder, with inputs in the folders of other tasks."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from bids_app.parser import parse

MAIN = Path(__file__).resolve().parents[1] / "integrations" / "brainlife" / "main"
FLAIR = "../5f1a/6c2b/flair.nii.gz"


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A task's folder: a clone of the app, beside it the folder of the task that holds the (empty) input."""
    folder = tmp_path / "5f3c"
    folder.mkdir()
    shutil.copy2(MAIN, folder / "main")
    place = folder / FLAIR
    place.parent.mkdir(parents=True)
    place.write_bytes(b"not read")
    return folder


def entry(**meta: Any) -> dict[str, Any]:
    """What brainlife says of an input."""
    names = {"id": "flair", "task_id": "5f1a", "subdir": "6c2b", "keys": ["flair"], "datatype_tags": [], "tags": []}
    return {**names, "meta": {"subject": "01", **meta}}


def config(folder: Path, content: Any) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "config.json").write_text(text)


def run(folder: Path, *words: str, path: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    environment.pop("BIDS_APP_IMAGE", None) if "BIDS_APP_IMAGE" not in variables else None
    environment["PATH"] = path or f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(["./main", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def product(folder: Path) -> dict[str, Any]:
    path = folder / "product.json"
    assert path.stat().st_size < 8_000  # brainlife asks for a few kB
    return json.loads(path.read_text())


def messages(folder: Path, kind: str) -> str:
    return "\n".join(item["msg"] for item in product(folder)["brainlife"] if item["type"] == kind)


def stand_in(folder: Path, name: str) -> str:
    """A PATH where a program writes down its words; for the words are what is tested."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" > {folder}/words\n')
    (folder / name).chmod(0o755)
    for needed in ("python3", "bash", "env"):
        found = sys.executable if needed == "python3" else shutil.which(needed)
        assert found
        if not (folder / needed).exists():
            (folder / needed).symlink_to(found)
    return str(folder)


def staged(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "bids_staged").rglob("*_FLAIR.nii.gz"))


# -- a whole run ---------------------------------------------------------------------------------


@pytest.mark.long
def test_a_task_from_config_to_product(tiny: tuple[Path, Path], task: Path) -> None:
    (raw,) = tiny[0].glob("sub-*01/**/*_FLAIR.nii.gz")
    shutil.copyfile(raw, task / FLAIR)
    (task / FLAIR).with_name("flair.json").write_text('{"EchoTime": 0.1, "MagneticFieldStrength": 3}')
    before = (task / FLAIR).read_bytes()
    config(task, {"flair": FLAIR, "nprocs": 1, "_inputs": [entry(subject="MS-01", session="base_line", EchoTime=0.2)]})
    done = run(task, "--no-container")
    assert done.returncode == 0, done.stderr
    name = "sub-MS01_ses-baseline"
    sidecar = json.loads((task / f"bids_staged/sub-MS01/ses-baseline/anat/{name}_FLAIR.json").read_text())
    assert sidecar == {"EchoTime": 0.2, "MagneticFieldStrength": 3}  # the data's metadata win over the file beside
    made = task / f"output/sub-MS01/ses-baseline/anat/{name}_label-L_mask.nii.gz"
    mask = nibabel.load(task / "mask" / "mask.nii.gz")
    assert np.array_equal(np.asarray(mask.dataobj), np.asarray(nibabel.load(made).dataobj))
    assert mask.shape == nibabel.load(task / FLAIR).shape
    assert (task / "output" / "sub-MS01.html").is_file()
    assert (task / FLAIR).read_bytes() == before
    assert not (task / "work").exists()
    assert "1 FLAIR scans done" in messages(task, "success")
    (plot,) = (item for item in product(task)["brainlife"] if item["type"] == "plotly")
    voxel_ml = abs(np.linalg.det(mask.affine[:3, :3])) / 1000
    volume = np.asarray(mask.dataobj).sum() * voxel_ml
    assert volume > 0.1
    assert plot["data"][0]["x"] == [name]
    assert plot["data"][0]["y"][0] == pytest.approx(volume, rel=1e-3)
    again = run(task, "--no-container")  # brainlife runs a task again in the same folder
    assert again.returncode == 0, again.stderr
    assert "1 unchanged" in again.stderr


def test_a_scan_that_fails_is_told(task: Path) -> None:
    config(task, {"flair": FLAIR, "skip_bids_validation": True, "_inputs": [entry()]})
    done = run(task, "--no-container")
    assert done.returncode == 1
    assert "sub-01_FLAIR.nii.gz" in messages(task, "error")
    assert not messages(task, "success")
    assert not (task / "mask").exists()


# -- the container's command ---------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["apptainer", "singularity"])
def test_the_container_is_called(task: Path, tmp_path: Path, engine: str) -> None:
    path = stand_in(tmp_path / "bin", engine)
    settings = {"lesion_threshold": 0.3, "nprocs": 2, "small_output": True, "skip_bids_validation": False}
    many = {"flair": [FLAIR, FLAIR], "_inputs": [entry(session="1"), entry(session="2")]}
    config(task, {**many, **settings})
    done = run(task, path=path, BIDS_APP_IMAGE="somewhere/bids_app:1")
    assert done.returncode == 0, done.stderr
    words = (tmp_path / "bin" / "words").read_text().splitlines()
    at = words.index("docker://somewhere/bids_app:1")
    assert words[0] == "exec"
    assert words[words.index("--bind") + 1] == str(task)
    assert words[at + 1] == "bids_app"
    read = parse(words[at + 2 :])
    assert (read.lesion_threshold, read.nprocs, read.small_output, read.skip_bids_validation) == (0.3, 2, True, False)
    assert (task / read.bids_dir / "sub-01" / "ses-2").is_dir()


@pytest.mark.parametrize(
    ("image", "source"),
    [("/images/app.sif", "/images/app.sif"), ("oras://there/app:1", "oras://there/app:1"), ("a:1", "docker://a:1")],
)
def test_the_image_of_the_config_wins(task: Path, tmp_path: Path, image: str, source: str) -> None:
    path = stand_in(tmp_path / "bin", "apptainer")
    config(task, {"flair": [FLAIR] * 2, "container": image, "_inputs": [entry(run=1), entry(run=2)]})
    assert run(task, path=path, BIDS_APP_IMAGE="other").returncode == 0
    assert source in (tmp_path / "bin" / "words").read_text().splitlines()


# -- staging -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metas", "names"),
    [
        ([{"subject": "sub-A_1"}, {"subject": "B"}], ["sub-A1_FLAIR", "sub-B_FLAIR"]),
        ([{"session": "ses-x y"}, {"session": ""}], ["sub-01_FLAIR", "sub-01_ses-xy_FLAIR"]),
        ([{}, {}], ["sub-01_run-1_FLAIR", "sub-01_run-2_FLAIR"]),  # nothing tells them apart
        ([{"run": "01"}, {"run": 2}], ["sub-01_run-1_FLAIR", "sub-01_run-2_FLAIR"]),
        ([{"acquisition": "3D space"}, {"run": "x"}], ["sub-01_FLAIR", "sub-01_acq-3Dspace_FLAIR"]),
    ],
)
def test_names_are_bids(task: Path, tmp_path: Path, metas: list[dict[str, Any]], names: list[str]) -> None:
    path = stand_in(tmp_path / "bin", "apptainer")
    config(task, {"flair": [FLAIR] * 2, "_inputs": [entry(**meta) for meta in metas]})
    done = run(task, path=path, BIDS_APP_IMAGE="a")
    assert done.returncode == 0, done.stderr
    assert staged(task) == [f"{name}.nii.gz" for name in names]
    people = (task / "bids_staged" / "participants.tsv").read_text().split()
    assert people == ["participant_id", *sorted({name.split("_")[0] for name in names})]


def test_other_inputs_are_left_alone(task: Path, tmp_path: Path) -> None:
    path = stand_in(tmp_path / "bin", "apptainer")
    config(task, {"t1": "x", "flair": [FLAIR] * 2, "_inputs": [{"keys": ["t1"]}, entry(), entry(subject="2")]})
    assert run(task, path=path, BIDS_APP_IMAGE="a").returncode == 0
    assert staged(task) == ["sub-01_FLAIR.nii.gz", "sub-2_FLAIR.nii.gz"]


# -- a bad config --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "config.json"),
        ("{", "no JSON"),
        ("[]", "'flair'"),
        ({}, "'flair'"),
        ({"flair": FLAIR}, "_inputs"),
        ({"flair": FLAIR, "_inputs": [entry(), entry()]}, "1 FLAIR but 2"),
        ({"flair": "../gone/flair.nii.gz", "_inputs": [entry()]}, "gone"),
        ({"flair": "main", "_inputs": [entry()]}, "NIfTI"),
        ({"flair": FLAIR, "_inputs": [entry(subject="")]}, "subject"),
        ({"flair": FLAIR, "_inputs": [{"keys": ["flair"]}]}, "subject"),
        ({"flair": [FLAIR] * 2, "_inputs": [entry(subject="A-1"), entry(subject="A1")]}, "both be sub-A1"),
        ({"flair": FLAIR, "_inputs": [entry()]}, "BIDS_APP_IMAGE"),
    ],
)
def test_a_bad_config_is_one_clear_line(task: Path, content: Any, says: str) -> None:
    if content is not None:
        config(task, content)
    done = run(task)
    assert done.returncode == 65
    (line,) = done.stderr.splitlines()
    assert line.startswith("main: error: ")
    assert says in line
    assert says in messages(task, "error")
    assert not (task / "output").exists()


def test_a_machine_without_a_container_engine_says_so(task: Path, tmp_path: Path) -> None:
    path = stand_in(tmp_path / "bin", "nothing")
    config(task, {"flair": FLAIR, "_inputs": [entry()]})
    assert "apptainer" in run(task, path=path, BIDS_APP_IMAGE="a").stderr
    assert "--no-container" in run(task, "--no-container", path=path).stderr


def test_main_can_be_executed_and_needs_the_standard_library_only() -> None:
    assert MAIN.stat().st_mode & stat.S_IXUSR
    imported = {
        line.split()[1].split(".")[0] for line in MAIN.read_text().splitlines() if line.startswith(("import", "from"))
    }
    assert imported <= set(sys.stdlib_module_names)
    sample = json.loads(MAIN.with_name("config.json.sample").read_text())
    assert sample["_inputs"][0]["keys"] == ["flair"]
