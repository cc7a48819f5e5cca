"""Imports go down one list; pure rooms know no disk, clock or log; nobody prints, pickles or opens a shell."""

from __future__ import annotations

import ast
import graphlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
import rooms
from arrows import HOUSE, arrows_of, imports_of, path_of, tree_of

OUTSIDE = {"io", "logging", "time", "datetime", "os", "random", "shutil", "subprocess", "tempfile"}
UNSAFE = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
HEAVY = {"numpy", "scipy", "pandas", "ants", "nibabel", "nilearn", "bids", "matplotlib", "sklearn", "numba"}
MOST_MODULES, MOST_LINES = 14, 320
ORDER = list(rooms.modules())
PURE = [name for name in ORDER if name.split(".")[0] in rooms.PURE]


def found(house: Path = HOUSE) -> list[str]:
    """Dotted names of all modules that hold code, below the package."""
    paths = [path for path in house.rglob("*.py") if path.name != "__init__.py"]
    return [".".join(path.relative_to(house).with_suffix("").parts) for path in paths]


def upward(house: Path = HOUSE) -> list[str]:
    """Every import of a module that the list names later, with its place."""
    place = {name: number for number, name in enumerate(ORDER)}
    return [
        f"bids_app/{module.replace('.', '/')}.py:{line} imports {other}, which comes after it"
        for module in ORDER
        for line, other in arrows_of(module, house)
        if place[other] >= place[module]
    ]


def circle(house: Path = HOUSE) -> list[str]:
    """The modules of one circle, if there is any."""
    graph = {module: {other for _, other in arrows_of(module, house)} for module in ORDER}
    try:
        list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_the_list_names_every_module_once() -> None:
    assert sorted(ORDER) == sorted(found())


def test_imports_go_down() -> None:
    assert not upward()
    assert not circle()
    assert sum(len(arrows_of(module)) for module in ORDER) > 150  # else nothing was read


@pytest.mark.parametrize(
    ("module", "line", "says"),
    [
        ("image.lesion", "from bids_app.image.chain import TURNED", "image/lesion.py"),
        ("records.need", "if TYPE_CHECKING:\n    from bids_app.records.scan import Volume", "records/need.py"),
        ("files.tsv", "def late():\n    from bids_app.group import recipe", "files/tsv.py"),
    ],
)
def test_a_planted_import_upwards_is_found(module: str, line: str, says: str, tmp_path: Path) -> None:
    house = planted(module, line, tmp_path)
    found = upward(house)
    assert len(found) == 1
    assert f"bids_app/{says}:" in found[0]


def test_a_planted_circle_is_found(tmp_path: Path) -> None:
    house = planted("records.need", "if TYPE_CHECKING:\n    from bids_app.records.scan import Volume", tmp_path)
    assert {"records.need", "records.scan"} <= set(circle(house))


def planted(module: str, line: str, folder: Path) -> Path:
    """A copy of the package in which a module has one line more."""
    house = folder / "bids_app"
    shutil.copytree(HOUSE, house, ignore=shutil.ignore_patterns("__pycache__", "templates"))
    path = path_of(module, house)
    path.write_text(f"{path.read_text(encoding='utf-8')}\n\n{line}\n", encoding="utf-8")
    return house


def test_no_folder_and_no_module_is_too_long() -> None:
    folders = {path.parent for path in HOUSE.rglob("*.py")}
    assert not {folder.name: n for folder in folders if (n := len(list(folder.glob("*.py"))) - 1) > MOST_MODULES}
    lines = {module: len(path_of(module).read_text(encoding="utf-8").splitlines()) for module in ORDER}
    assert not {module: n for module, n in lines.items() if n > MOST_LINES}


def test_the_faces_of_the_rooms_are_empty() -> None:
    faces = [path for path in HOUSE.glob("*/__init__.py") if path.parent.name != "boilerplate"]
    assert len(faces) == len(rooms.ROOMS) - 1
    assert not [path for path in faces if path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("module", PURE)
def test_pure_rooms_know_no_disk_clock_or_log(module: str) -> None:
    assert not {name.split(".")[0] for _, name in imports_of(module)} & OUTSIDE
    assert not {other.split(".")[0] for _, other in arrows_of(module)} - {*rooms.PURE, "errors", "records", "bids"}
    calls = [n.func for n in ast.walk(tree_of(path_of(module))) if isinstance(n, ast.Call)]
    assert not [f for f in calls if isinstance(f, ast.Name) and f.id in ("open", "print", "input")]


@pytest.mark.parametrize("module", [name for name in ORDER if not name.endswith("__main__")])
def test_only_the_command_lines_print(module: str) -> None:
    names = [node for node in ast.walk(tree_of(path_of(module))) if isinstance(node, ast.Name)]
    assert not [node.lineno for node in names if node.id == "print"]


@pytest.mark.parametrize("module", ORDER)
def test_no_pickle_no_shell_no_assert(module: str) -> None:
    assert not {name.split(".")[0] for _, name in imports_of(module)} & UNSAFE
    for node in ast.walk(tree_of(path_of(module))):
        assert not isinstance(node, ast.Assert), f"{module}:{node.lineno} asserts"
        if isinstance(node, ast.keyword):
            said = node.arg in ("shell", "allow_pickle") and not _is_false(node.value)
            assert not said, f"{module}:{node.value.lineno} sets {node.arg}"


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


def said_names(module: str) -> list[str]:
    """What a module's docstrings set in single backticks: names of the code, by the house's habit."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    texts = [ast.get_docstring(node) or "" for node in ast.walk(tree_of(path_of(module))) if isinstance(node, kinds)]
    return [name for text in texts for name in re.findall(r"(?<!`)`([A-Za-z_][\w.]*)`(?!`)", text)]


def own_names(module: str) -> set[str]:
    """What a module defines, its classes' attributes as ``Class.attribute`` too."""
    names: set[str] = set()
    for node in tree_of(path_of(module)).body:
        inside = node.body if isinstance(node, ast.ClassDef) else []
        here = [name for each in [node] for name in _bound(each)]
        names |= {*here, *(f"{here[0]}.{name}" for each in inside for name in _bound(each))}
    return names


def _bound(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


@pytest.mark.parametrize("module", ORDER)
def test_names_in_docstrings_exist(module: str) -> None:
    names = {name for other in ORDER for name in (other, other.rpartition(".")[2], *own_names(other))}
    names |= {f"{other.rpartition('.')[2]}.{name}" for other in ORDER for name in own_names(other)}
    unknown = {name for name in said_names(module) if name not in names and name.partition(".")[0] not in HEAVY}
    assert not unknown
