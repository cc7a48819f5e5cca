"""Who imports whom in the package, read from its code: for the test of the order and for the picture of it."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import bids_app

HOUSE = Path(bids_app.__file__).parent


def path_of(module: str, house: Path = HOUSE) -> Path:
    """Return the file of a module, by its dotted name below the package."""
    return house / (module.replace(".", "/") + ".py")


@cache
def tree_of(path: Path) -> ast.Module:
    """Return a file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(module: str, house: Path = HOUSE) -> list[tuple[int, str]]:
    """Line and full name of all that a module imports, also under ``TYPE_CHECKING`` and inside functions."""
    names = []
    for node in ast.walk(tree_of(path_of(module, house))):
        if isinstance(node, ast.Import):
            names += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{module}:{node.lineno} has a relative import")
            names += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return names


def arrows_of(module: str, house: Path = HOUSE) -> list[tuple[int, str]]:
    """Line and dotted name of every module of the package that a module imports."""
    arrows = []
    for line, name in imports_of(module, house):
        parts = name.split(".")
        if parts[0] != "bids_app" or name == "bids_app.__version__":
            continue
        inner = next(".".join(parts[1:end]) for end in (len(parts), len(parts) - 1) if _is_module(parts[1:end], house))
        arrows.append((line, inner))
    return arrows


def _is_module(parts: list[str], house: Path) -> bool:
    return bool(parts) and path_of(".".join(parts), house).is_file()


def between_rooms(order: list[str]) -> Counter[tuple[str, str]]:
    """Return how many modules of one room each module of another imports, summed: by importing and imported room.

    A module that lies in no folder is a room of its own.
    """
    pairs = {(module, other) for module in order for _, other in arrows_of(module)}
    rooms = [(module.partition(".")[0], other.partition(".")[0]) for module, other in pairs]
    return Counter((one, other) for one, other in rooms if one != other)
