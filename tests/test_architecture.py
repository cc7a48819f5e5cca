"""Imports go down one list; pure rooms know no disk, clock or log; nobody prints, pickles or opens a shell."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bids_app

ROOM = Path(bids_app.__file__).parent
NOUNS = ["errors", "records", "options"]
PURE = [
    *("geometry", "atlas", "intake", "pose", "affine", "normalize", "tissue", "lesion", "quality"),
    *("cohort", "ranking", "kernels", "solver", "classifier", "sweep"),
    *("evaluation", "agreement", "baseline", "protocols"),
]
RIMS = [
    *("tsvtext", "places", "files", "arrayfile", "bids", "marks", "engine", "validation", "transformfile"),
    *("covariates", "tables", "maps", "ratings", "modelfile", "prediction"),
    *("panels", "figures", "report", "sidecars", "derivatives"),
    *("group_charts", "group_slices", "group_figures", "group_tables", "group_sections", "group_report"),
    "group_outputs",
]
RECIPES = ["chain", "rethreshold", "worker", "participant", "permutation", "group"]
RECIPES += ["phantom_cohort", "phantom", "__main__"]
ORDER = [*NOUNS, *PURE, *RIMS, *RECIPES]  # a room imports only from rooms before it
OUTSIDE = {"io", "logging", "time", "datetime", "os", "random", "shutil", "subprocess", "tempfile"}
UNSAFE = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
HEAVY = {"numpy", "scipy", "pandas", "ants", "nibabel", "nilearn", "bids", "matplotlib", "sklearn", "numba"}


def tree_of(room: str) -> ast.Module:
    """The room's code; where it is a folder, that of all its files."""
    folder = ROOM / room
    files = sorted(folder.glob("*.py")) if folder.is_dir() else [ROOM / f"{room}.py"]
    return ast.Module([ast.parse(file.read_text(encoding="utf-8")) for file in files], [])  # type: ignore[arg-type]


def at_run_time(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under ``if TYPE_CHECKING``, which are never executed."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from at_run_time(node)


def imports_of(room: str) -> set[str]:
    """Full names of what a room imports: ``bids_app.files``, ``numpy.random``, ..."""
    names = set()
    for node in at_run_time(tree_of(room)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{room} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_of(room: str) -> set[str]:
    parts = [name.split(".") for name in imports_of(room)]
    return {p[1] for p in parts if p[0] == "bids_app" and len(p) > 1 and p[1] not in ("__version__", room)}


def test_the_list_names_every_room_once() -> None:
    assert sorted(ORDER) == sorted(
        {path.parent.name for path in ROOM.glob("*/*.py")} | {path.stem for path in ROOM.glob("*.py")} - {"__init__"}
    )


@pytest.mark.parametrize("room", ORDER)
def test_imports_go_down(room: str) -> None:
    above = rooms_of(room) - set(ORDER[: ORDER.index(room)])
    assert not above, f"{room} imports {sorted(above)}, which come after it"


@pytest.mark.parametrize("room", PURE)
def test_pure_rooms_know_no_disk_clock_or_log(room: str) -> None:
    assert not rooms_of(room) & {*RIMS, *RECIPES}
    assert not {name.split(".")[0] for name in imports_of(room)} & OUTSIDE
    calls = [n.func for n in ast.walk(tree_of(room)) if isinstance(n, ast.Call)]
    assert not [f for f in calls if isinstance(f, ast.Name) and f.id in ("open", "print", "input")]


@pytest.mark.parametrize("room", sorted({*ORDER} - {"__main__", "phantom"}))
def test_only_the_command_line_prints(room: str) -> None:
    names = [node for node in ast.walk(tree_of(room)) if isinstance(node, ast.Name)]
    assert not [node.lineno for node in names if node.id == "print"]


@pytest.mark.parametrize("room", ORDER)
def test_no_pickle_no_shell_no_assert(room: str) -> None:
    assert not {name.split(".")[0] for name in imports_of(room)} & UNSAFE
    for node in ast.walk(tree_of(room)):
        assert not isinstance(node, ast.Assert), f"{room}:{node.lineno} asserts"
        if isinstance(node, ast.keyword):
            said = node.arg in ("shell", "allow_pickle") and not _is_false(node.value)
            assert not said, f"{room}:{node.value.lineno} sets {node.arg}"


def _is_false(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is False


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_and_version_load_nothing_heavy(word: str) -> None:
    program = (
        "import json, sys\nfrom bids_app.__main__ import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n"
        "    print(json.dumps([end.code, sorted({name.split('.')[0] for name in sys.modules})]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, word], capture_output=True, text=True, check=True)
    code, loaded = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    assert "argparse" in loaded  # else nothing was seen
    assert not set(loaded) & HEAVY
