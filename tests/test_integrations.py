"""What ships beside the package: Boutiques descriptor, cluster examples, citation. Each is used for real."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

from bids_app import __version__, errors
from bids_app.files import formats
from bids_app.machine.process import THREAD_VARIABLES
from bids_app.options import Options
from bids_app.parser import parse, parser

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "integrations"
DESCRIPTOR = PLACE / "boutiques" / "bids_app.json"


def load(path: Path) -> ModuleType:
    """A script as a module, under a name that no package has."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(f"example_{path.stem}", path)
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def descriptor() -> dict[str, Any]:
    return json.loads(DESCRIPTOR.read_text(encoding="utf-8"))


# -- Boutiques -----------------------------------------------------------------------------------


@pytest.fixture
def bosh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Boutiques in this process, where every attempt to reach the network is an error."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("Boutiques tried the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    from boutiques import bosh as tool

    return tool


def simulated(bosh: Any, folder: Path, invocation: dict[str, Any]) -> list[str]:
    """The words that Boutiques makes of an invocation, without the program's name."""
    path = folder / "invocation.json"
    path.write_text(json.dumps(invocation))
    program, *words = bosh(["exec", "simulate", str(DESCRIPTOR), "-i", str(path)]).shell_command.split()
    assert program == "bids_app"
    return words


def test_the_descriptor_is_what_the_script_makes(descriptor: dict[str, Any]) -> None:
    describe = load(PLACE / "boutiques" / "describe.py")
    assert DESCRIPTOR.read_text(encoding="utf-8") == describe.text(), "run python integrations/boutiques/describe.py"
    assert descriptor["tool-version"] == __version__


def test_boutiques_finds_the_descriptor_valid(bosh: Any) -> None:
    bosh(["validate", str(DESCRIPTOR)])


def test_boutiques_finds_a_broken_descriptor_invalid(bosh: Any, descriptor: dict[str, Any], tmp_path: Path) -> None:
    descriptor["inputs"][0].pop("type")
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(descriptor))
    with pytest.raises(Exception, match="type"):
        bosh(["validate", str(path)])


def test_every_field_is_an_input_and_every_input_a_field(descriptor: dict[str, Any]) -> None:
    assert [entry["id"] for entry in descriptor["inputs"]] == [item.name for item in fields(Options)]
    by_id = {entry["id"]: entry for entry in descriptor["inputs"]}
    for action in parser()._actions:
        if action.dest in ("help", "version"):
            continue
        entry = by_id[action.dest]
        assert entry["optional"] == (not action.required)
        assert entry.get("value-choices") == (list(action.choices) if action.choices else entry.get("value-choices"))
        flag = entry.get("command-line-flag")
        assert flag in action.option_strings if flag else entry["type"] == "String" or not action.option_strings


EXCLUSIVE = (("dask_scheduler", "dask_scheduler_file"), ("model", "small_output"))  # one of each pair
SAMPLES: dict[str, Any] = {
    "compare": ["linear-svm", "random-forest"],
    "covariates": ["age", "sex"],
    "groups": ["given_positive", "given_negative", "MOGAD"],
    "participant_label": ["01", "02"],
    "session_label": ["1"],
    "lesion_threshold": 0.3,
    "exclude": ["sub-01", "sub-02_ses-1"],
    "read_ratings": ["r1.tsv", "r2.tsv"],
    "verbose": "-vv",
}


def sample(entry: dict[str, Any]) -> Any:
    """A value that an input allows and that is not the default."""
    if entry["id"] in SAMPLES:
        return SAMPLES[entry["id"]]
    if entry["type"] == "Flag":
        return True
    if entry["type"] == "Number":
        return 0.3 if entry.get("maximum") == 1 else 7
    return entry["value-choices"][-1] if "value-choices" in entry else f"given_{entry['id']}"


@pytest.mark.parametrize("left_out", list(zip(*EXCLUSIVE, strict=True)))
def test_the_app_understands_every_input_of_boutiques(
    bosh: Any, descriptor: dict[str, Any], tmp_path: Path, left_out: tuple[str, ...]
) -> None:
    invocation = {entry["id"]: sample(entry) for entry in descriptor["inputs"] if entry["id"] not in left_out}
    invocation["norm"] = "shipped"  # the cohort's own goes with neither sites nor more than two groups
    read = parse(simulated(bosh, tmp_path, invocation))
    for item in fields(Options):
        value = getattr(read, item.name)
        if item.name in left_out:
            assert value == item.default
        elif item.name == "verbose":
            assert value == 2
        else:
            given = invocation[item.name]
            expected = Path(given) if isinstance(value, Path) else given
            if isinstance(value, tuple):
                value = [str(each) if isinstance(each, Path) else each for each in value]
            assert value == expected


def test_a_realistic_invocation(bosh: Any, tmp_path: Path) -> None:
    asked = {
        "bids_dir": "/data/bids",
        "output_dir": "derivatives",
        "analysis_level": "participant",
        "participant_label": ["sub-01"],
        "nprocs": 4,
        "skip_bids_validation": True,
    }
    words = "/data/bids derivatives participant --participant-label sub-01 --skip-bids-validation --nprocs 4"
    assert " ".join(simulated(bosh, tmp_path, asked)) == words


@pytest.mark.parametrize(
    "wrong",
    [
        {"analysis_level": "session"},
        {"nprocs": 0},
        {"nprocs": 1.5},
        {"random_seed": -1},
        {"dask_scheduler": "tcp://a:1", "dask_scheduler_file": "b"},
        {"model": "a", "small_output": True},
        {"unknown": 1},
    ],
)
def test_boutiques_refuses_what_the_app_would(bosh: Any, tmp_path: Path, wrong: dict[str, Any]) -> None:
    asked = {"bids_dir": "/data", "output_dir": "out", "analysis_level": "group", **wrong}
    with pytest.raises(Exception):  # noqa: B017 Boutiques raises several kinds
        simulated(bosh, tmp_path, asked)


def test_boutiques_launches_the_app_and_explains_its_exit_code(
    bosh: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "raw"
    (raw / "sub-01" / "anat").mkdir(parents=True)
    (raw / "sub-01" / "anat" / "sub-01_FLAIR.nii.gz").touch()
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    asked = {"bids_dir": str(raw), "output_dir": "out", "analysis_level": "participant", "dry_run": True}
    for more, code, says in (({}, 0, ""), ({"participant_label": ["77"]}, 18, "The filters select nothing.")):
        path = tmp_path / "invocation.json"
        path.write_text(json.dumps({**asked, **more}))
        ended = bosh(["exec", "launch", "--no-container", str(DESCRIPTOR), str(path)])
        assert (ended.exit_code, ended.error_message) == (code, says), ended.stderr
        assert f"exit code {code}:" in ended.stderr


def test_the_error_codes_are_those_of_the_errors(descriptor: dict[str, Any]) -> None:
    codes = {entry["code"] for entry in descriptor["error-codes"]}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert codes == {1, 16, 18, 64, 65, 66, 70, 73, 74, 130, 143}
    assert codes == {kind.exit_code for kind in kinds} | {70, 130, 143}
    assert all(entry["description"] for entry in descriptor["error-codes"])


# -- clusters ------------------------------------------------------------------------------------


def program(folder: Path, name: str, text: str) -> None:
    """A stand-in for a program that is not installed here."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)


def run_array(folder: Path, task: str | None, ends: int = 0) -> subprocess.CompletedProcess[str]:
    """The SLURM script as a task of an array runs it, with an Apptainer that writes down its words and its binds."""
    program(folder / "bin", "apptainer", '#!/bin/bash\nprintf "%s\\n" "$@" > "$WORDS"\nexit "${ENDS:-0}"\n')
    program(folder / "bin", "srun", '#!/bin/bash\nexec "$@"\n')
    (folder / "participants.txt").write_text("sub-01\nsub-02\n")
    env = {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "WORDS": str(folder / "words"),
        "IMAGE": "bids_app.sif",
        "BIDS_DIR": str(folder / "bids"),
        "OUTPUT_DIR": str(folder / "out"),
        "PARTICIPANTS": str(folder / "participants.txt"),
        "TMPDIR": str(folder),
        "ENDS": str(ends),
        **({"SLURM_ARRAY_TASK_ID": task} if task else {}),
    }
    script = PLACE / "slurm" / "array.sbatch"
    return subprocess.run(["bash", script], env=env, capture_output=True, text=True, check=False)


def test_a_task_of_the_slurm_array_runs_its_participant(tmp_path: Path) -> None:
    done = run_array(tmp_path, "2")
    assert done.returncode == 0, done.stderr
    said = (tmp_path / "words").read_text().splitlines()
    read = parse(said[said.index("bids_app.sif") + 1 :])
    assert (read.participant_label, read.analysis_level) == (("02",), "participant")
    bound = {said[n + 1].split(":")[1] for n, word in enumerate(said) if word == "--bind"}
    assert {str(read.bids_dir), str(read.output_dir), str(read.work_dir)} == bound
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "out", "participants.txt", "words"]  # tidy


def test_a_task_ends_with_the_code_of_the_app(tmp_path: Path) -> None:
    assert run_array(tmp_path, "1", ends=18).returncode == 18


@pytest.mark.parametrize(("task", "says"), [("3", "has no line 3"), (None, "--array")])
def test_a_task_without_a_participant_says_so(tmp_path: Path, task: str | None, says: str) -> None:
    done = run_array(tmp_path, task)
    assert done.returncode != 0
    assert says in done.stderr
    assert not (tmp_path / "words").exists()


def test_shellcheck_has_nothing_to_say() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("no shellcheck here")
    subprocess.run(["shellcheck", PLACE / "slurm" / "array.sbatch"], check=True)


@pytest.mark.parametrize("level", ["subject", "session"])
def test_babs_configurations_say_what_the_app_understands(level: str) -> None:
    config = yaml.safe_load((PLACE / "babs" / f"{level}.yaml").read_text(encoding="utf-8"))
    needed = {"input_datasets", "bids_app_args", "singularity_args", "zip_foldernames", "cluster_resources"}
    assert needed | {"script_preamble", "job_compute_space", "alert_log_messages"} <= set(config)
    (data,) = config["input_datasets"].values()
    assert set(data) == {"required_files", "is_zipped", "origin_url", "path_in_babs"}
    assert config["cluster_resources"]["interpreting_shell"] == "/bin/bash"
    assert config["zip_foldernames"] == {"bids_app": __version__.replace(".", "-")}
    words = []
    for key, value in config["bids_app_args"].items():  # as BABS makes them
        assert value is None or isinstance(value, str), f"{key} is no text: BABS needs quotes"
        selected = {"$SUBJECT_SELECTION_FLAG": "sub-01", "$SESSION_SELECTION_FLAG": "ses-1"}
        words += [value, selected[key]] if key in selected else [key, *([value] if value else [])]
    read = parse([data["path_in_babs"], "outputs", "participant", *words])
    assert read.participant_label == ("01",)
    assert read.session_label == (("1",) if level == "session" else ())
    assert str(read.work_dir) == "$BABS_TMPDIR"
    assert read.skip_bids_validation


STAND_IN = """
from distributed import LocalCluster
import json, os

class SLURMCluster(LocalCluster):
    def __init__(self, **asked):
        open(os.environ["ASKED"], "w").write(json.dumps(asked))
        super().__init__(n_workers=0, processes=False, dashboard_address=None)
    def scale(self, jobs):
        super().scale(0)
"""


def test_the_jobqueue_script_runs_the_app_on_its_scheduler(tmp_path: Path) -> None:
    flair = tmp_path / "bids" / "sub-01" / "anat" / "sub-01_FLAIR.nii.gz"
    flair.parent.mkdir(parents=True)
    flair.touch()
    (tmp_path / "bids" / "dataset_description.json").write_text('{"Name": "a", "BIDSVersion": "1.10.0"}')
    program(tmp_path / "stand_in", "dask_jobqueue.py", STAND_IN)
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "stand_in"), "ASKED": str(tmp_path / "asked.json")}
    words = ["--jobs", "3", "--queue", "normal", "--image", "a.sif", "--bind", "/data", "--"]
    words += [str(tmp_path / "bids"), str(tmp_path / "out"), "participant", "--dry-run"]
    script = [sys.executable, str(PLACE / "dask" / "jobqueue.py")]
    done = subprocess.run([*script, *words], env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "sub-01_FLAIR.nii.gz" in done.stdout
    asked = json.loads((tmp_path / "asked.json").read_text())
    assert (asked["queue"], asked["cores"], asked["processes"]) == ("normal", 1, 1)
    assert asked["python"] == "apptainer exec --cleanenv --bind /data a.sif python3"
    assert asked["job_script_prologue"] == [f"export {name}=1" for name in THREAD_VARIABLES]
    assert not list(tmp_path.glob("bids_app_*"))  # the scheduler's file is gone
    refused = [*script, "--", str(tmp_path / "absent"), str(tmp_path / "out"), "participant", "--dry-run"]
    done = subprocess.run(refused, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 66  # the app's own


# -- OpenNeuro -----------------------------------------------------------------------------------


def test_a_partial_clone_of_datalad_is_enough(
    tmp_path: Path, run_app: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """One FLAIR that was fetched (all zero: refused at once), one that was not, and images nobody asked for."""
    root = tmp_path / "bids"
    objects = root / ".git" / "annex" / "objects"
    flair = "anat/sub-{0}_FLAIR.nii.gz"
    formats.write_nifti(objects / "fetched.nii.gz", np.zeros((64, 64, 20), np.int16), np.diag([3.0, 3.0, 7.0, 1.0]))
    for label, target in (("01", "fetched.nii.gz"), ("02", "elsewhere.nii.gz")):
        place = root / f"sub-{label}" / flair.format(label)
        place.parent.mkdir(parents=True)
        place.symlink_to(Path("../../.git/annex/objects") / target)
        place.with_name(f"sub-{label}_T1w.nii.gz").symlink_to("../../.git/annex/objects/elsewhere")
    (root / "dataset_description.json").write_text('{"Name": "a", "BIDSVersion": "1.10.0"}')
    words = [root, tmp_path / "out", "participant", "--small-output", "--skip-bids-validation"]
    assert run_app(*words, "--dry-run") == 0
    listed = capsys.readouterr().out
    assert "2 FLAIR scans" in listed
    assert "T1w" not in listed
    assert run_app(*words) == 1
    said = {line.split(" ERROR ")[1] for line in capsys.readouterr().err.splitlines() if " ERROR sub-" in line}
    first, second = sorted(said)
    assert "no voxel is above zero" in first  # so it was read through the link
    assert "datalad get" in second


# -- citation ------------------------------------------------------------------------------------


def test_the_citation_file_is_valid() -> None:
    """What version 1.2.0 of the Citation File Format demands, and what a reader needs."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert cited["cff-version"] == "1.2.0"
    assert cited["type"] in ("software", "dataset")
    assert cited["authors"]
    assert all(set(author) & {"name", "family-names", "alias"} for author in cited["authors"])
    assert cited["version"] == __version__
    assert isinstance(cited["date-released"], date)
    allowed = {
        *("abstract", "authors", "cff-version", "commit", "contact", "date-released", "doi", "identifiers"),
        *("keywords", "license", "license-url", "message", "preferred-citation", "references", "repository"),
        *("repository-artifact", "repository-code", "title", "type", "url", "version"),
    }
    assert set(cited) <= allowed
