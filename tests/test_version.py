"""The version is the same in every file that names it, and no other file names it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from bids_app import __version__

ROOT = Path(__file__).resolve().parents[1]
IMAGE = r"bids_app:(\d[\w.]*\w)"  # as docker build tags it in the documentation
NAMED = {  # file: how it names the version
    "bids_app/__init__.py": r'^__version__ = "(.+)"$',
    "CHANGELOG.md": r"^## (\d\S*) - ",
    "CITATION.cff": r"^version: (.+)$",
    "Dockerfile": r'image\.version="(.+?)"',
    "Singularity.def": r"image\.version (.+)$",
    "docs/install.md": IMAGE,
    "docs/platforms.md": IMAGE,
    "integrations/boutiques/bids_app.json": rf'"tool-version": "(.+?)"|{IMAGE}',
}
KINDS = {".py", ".md", ".cff", ".def", ".json", ".cfg", ".toml", ".sh", ".yml", ".yaml", ".j2", ".txt", ""}
ELSEWHERE = {"demo", "site", "tests", "results"}  # results: what was measured once, with its version


def said_in(name: str) -> list[str]:
    """The versions that a file names; of a changelog, the newest."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found = ["".join(match.groups("")) for match in re.finditer(NAMED[name], text, re.MULTILINE)]
    return found[:1] if name == "CHANGELOG.md" else found


def sources() -> list[Path]:
    tops = [path for path in ROOT.iterdir() if path.name == ".ci" or not path.name.startswith(".")]
    inside = [each for top in tops for each in [top, *top.rglob("*")]]
    own = [
        path for path in inside if not ELSEWHERE & set(path.relative_to(ROOT).parts) and ".egg-info" not in str(path)
    ]
    return [path for path in own if path.is_file() and path.suffix in KINDS]


@pytest.mark.parametrize("name", NAMED)
def test_the_version_is_the_same_in_every_file_that_names_it(name: str) -> None:
    assert set(said_in(name)) == {__version__}


def test_no_other_file_names_it() -> None:
    pattern = re.compile(rf"(?<![\w.]){re.escape(__version__)}(?![\w.]*\w)")
    files = {path.relative_to(ROOT).as_posix(): path.read_bytes().decode("utf-8", "replace") for path in sources()}
    assert len(files) > 100  # else nothing was read
    assert {name for name, text in files.items() if pattern.search(text)} == set(NAMED)


def test_the_citation_has_the_date_of_the_changelog() -> None:
    newest = re.search(r"^## \d\S* - (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert newest
    assert newest[1] == str(cited["date-released"])
