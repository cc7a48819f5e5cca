"""For those who carry it on: files and names that the pages speak of exist, and hooks check what CI checks."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

import bids_app

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))
import arrows  # noqa: E402
import picture  # noqa: E402
import rooms  # noqa: E402

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ORDER = list(rooms.modules())
NAMESPACE = "{http://www.w3.org/2000/svg}"
LETTER = 5.8  # px, a wide guess for a letter of the modules' size


def defined(path: Path) -> set[str]:
    """Functions, classes and constants of a file, and the fields and methods of its classes."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


# -- CONTRIBUTING --------------------------------------------------------------------------------


def test_files_that_it_names_exist() -> None:
    named = re.findall(r"`((?:bids_app|tests|docs|integrations|benchmarks|\.ci)/[\w./]*\w)", CONTRIBUTING)
    assert len(named) > 20
    assert not [name for name in named if not (ROOT / name).exists()]


def test_names_that_it_says_stand_in_a_file_do() -> None:
    text = " ".join(CONTRIBUTING.split())
    said = re.findall(r"((?:`\w+`(?:,| or| and)? )+)(?:in|of) `((?:bids_app|docs)/[\w/]+\.py)`", text)
    assert len(said) > 5
    for words, file in said:
        for name in re.findall(r"\w+", re.sub(r"\b(or|and)\b", "", words)):
            assert name in defined(ROOT / file), f"{name} in {file}"


def test_hooks_are_local_and_check_what_ci_checks() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    hooks = [hook["entry"] for hook in config["repos"][0]["hooks"]]
    assert all(hook["language"] == "system" for hook in config["repos"][0]["hooks"])
    ci = (ROOT / ".ci" / "test").read_text(encoding="utf-8").splitlines()
    checks = [line.removesuffix(" .") for line in ci if line.startswith(".venv/bin/") and "pytest" not in line]
    assert hooks == checks


# -- architecture --------------------------------------------------------------------------------


def test_the_page_tells_of_every_room_and_of_no_other() -> None:
    singles = {name for name in ORDER if "." not in name}
    told = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.+?) \|", ARCHITECTURE, re.MULTILINE))))
    assert told == {name for name in rooms.ROOMS if name} | (singles - {rooms.LAST})


def test_the_package_itself_tells_of_every_room() -> None:
    told = set(re.findall(r"``(\w+)``", bids_app.__doc__ or ""))
    assert {module.partition(".")[0] for module in ORDER} - {"__main__"} <= told


def test_modules_that_the_page_names_exist() -> None:
    named = re.findall(r"`(\w+/\w+)`", ARCHITECTURE)
    assert len(named) > 20
    assert {name.replace("/", ".") for name in named} <= set(ORDER)


@pytest.fixture(scope="module")
def drawn() -> ElementTree.Element:
    return ElementTree.fromstring(picture.svg())


def test_the_picture_shows_every_room_with_its_modules(drawn: ElementTree.Element) -> None:
    texts = [node.text or "" for node in drawn.iter(f"{NAMESPACE}text")]
    shown = set(re.split(r"[,\s]+", " ".join(texts)))
    assert {part for module in ORDER for part in module.split(".")} <= shown
    assert max(map(len, texts)) * LETTER < picture.BOX - 10  # else it runs out of its box


def test_the_picture_shows_every_import_between_rooms_downwards(drawn: ElementTree.Element) -> None:
    count = arrows.between_rooms(ORDER)
    said = [node.text or "" for node in drawn.iter(f"{NAMESPACE}title")]
    assert sorted(said) == sorted(f"{one} imports {other} {n} times" for (one, other), n in count.items())
    ends = [node.get("d") or "" for node in drawn.iter(f"{NAMESPACE}path") if node.get("marker-end")]
    assert len(ends) == len({other for _, other in count})
    for path in ends:
        begin, end = re.fullmatch(r"M\d+ ([\d.]+) V(\d+) H\d+", path).groups()  # type: ignore[union-attr]
        assert float(begin) < float(end)
