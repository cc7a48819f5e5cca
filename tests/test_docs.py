"""The documentation site: it is built for real, without a network, and says what the code says."""

from __future__ import annotations

import html
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from bids_app import errors
from bids_app.bids import names as bids
from bids_app.bids.names import Scan
from bids_app.lesions.places import DEFINITIONS
from bids_app.parser import parse, parser

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.stem for path in DOCS.glob("*.md"))
WITHOUT_NETWORK = """
import runpy, socket, sys
def refuse(*_, **__): raise OSError("the documentation tried the network")
socket.socket.connect = socket.getaddrinfo = refuse
sys.argv = ["sphinx-build", *sys.argv[1:]]
runpy.run_module("sphinx", run_name="__main__")
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with warnings as errors."""
    folder = tmp_path_factory.mktemp("site")
    words = ["-W", "--keep-going", "-q", "-d", str(folder / "trees"), str(DOCS), str(folder / "html")]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK, *words], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module("tables")
    finally:
        sys.path.remove(str(DOCS))


def text(page: Path) -> str:
    """What a reader sees of a page."""
    content = re.sub(r"<(script|style|svg)\b.*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", "", content))


# -- the built site ------------------------------------------------------------------------------


def test_a_broken_page_breaks_the_build(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "conf.py").write_text('extensions = ["myst_parser"]\n')
    (docs / "index.md").write_text("# Title\n\n[nowhere](nowhere.md)\n")
    words = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(docs), str(tmp_path / "html")]
    assert subprocess.run(words, capture_output=True, check=False).returncode != 0


def test_every_page_is_built_and_reached(site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")
    for page in PAGES:
        assert (site / f"{page}.html").is_file()
        assert page == "index" or f'href="{page}.html"' in index


def test_every_option_is_in_the_usage_page(site: Path) -> None:
    shown = text(site / "usage.html")
    for action in parser()._actions:
        for name in action.option_strings or [action.help]:
            if name in ("-h", "--help"):
                continue
            assert name is not None
            assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", shown), f"{name} is missing"


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    loaded = re.compile(r"""<(?:script|img|iframe|source)[^>]*\bsrc=["'](?:https?:)?//|@import\s|url\(["']?https?:""")
    styles = re.compile(r"""<link[^>]*\bhref=["'](?:https?:)?//""")
    for path in [*site.glob("*.html"), *site.rglob("*.css")]:
        content = path.read_text(encoding="utf-8")
        assert not loaded.search(content), path
        assert not styles.search(content), path


def test_formulas_are_mathml(site: Path) -> None:
    page = (site / "method.html").read_text(encoding="utf-8")
    assert page.count('<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">') == 4
    assert "$" not in text(site / "method.html")


# -- what is made from the code ------------------------------------------------------------------


def test_the_table_of_outputs_is_that_of_the_code(tables: ModuleType, site: Path) -> None:
    shown = text(site / "outputs.html")
    rows = {
        cells[1].strip(" `"): cells[3].strip() for line in tables.outputs().splitlines() if (cells := line.split("|"))
    }
    scan = Scan((("sub", "7"),), "")
    for key, row in {**bids.OUTPUTS, **bids.GIVEN, **bids.PREDICTED}.items():
        name = Path(scan.output(key)).name.removeprefix("sub-7")
        assert name in shown and row.meaning.replace("`", "") in shown
        assert (rows[f"*{name}"] == "yes") == (key in bids.SMALL or key in bids.GIVEN), key
    for row in bids.GROUP_OUTPUTS.values():
        assert row.meaning.replace("`", "") in shown
    for place, where in DEFINITIONS.items():
        assert place in shown and where in shown


def test_the_exit_codes_are_those_of_the_errors(site: Path) -> None:
    page = (site / "reliability.html").read_text(encoding="utf-8")
    shown = {int(code) for code in re.findall(r"<td><p>(\d+)</p></td>", page)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert shown == {kind.exit_code for kind in kinds} | {0, 70, 130, 143}


def test_every_locked_package_is_listed_with_a_licence(tables: ModuleType, site: Path) -> None:
    names = tables.locked()
    pinned = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if re.match(r"\w\S*==", line)]
    assert len(names) == len(set(names)) == len(pinned) > 50
    shown = text(site / "licences.html")
    for name in names:
        licence = tables.licence(name)
        assert 2 < len(licence) < 80, f"{name}: read its licence and write it into tables.STATED_ELSEWHERE"
        assert re.search(rf"{re.escape(name)}\s+{re.escape(importlib.metadata.version(name))}\s+", shown), name
        assert licence in shown


# -- what is written by hand ---------------------------------------------------------------------


OTHERS = {  # options of other programs
    *("--rm", "--network", "--read-only", "--user", "--require-hashes", "--no-deps"),
    *("--containall", "--no-home", "--cleanenv", "--bind", "--image", "--no-container"),
    *("--array", "--nthreads", "--nworkers", "--scheduler-file", "--jobs", "--queue", "--affirmDefaced"),
    *("--float32", "--seconds", "--seed", "--target", "--disable-pip"),
    *("--truth", "--cohort", "--participants", "--third", "--sites", "--belief"),
    *("--data", "--mni", "--weights", "--expert", "--output", "--float32", "--leave-out", "--trained", "--left-out"),
    *("--container_ds", "--container_name", "--container_config", "--processing_level"),
}


def commands() -> list[tuple[str, str]]:
    """Every bids_app command line of the pages, with its page."""
    found = []
    for page in [*sorted(DOCS.glob("*.md")), ROOT / "integrations" / "dask" / "jobqueue.py"]:
        content = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in content.splitlines():
            match = re.match(
                r"(?:bids_app|.*(?:\.sif|bids_app:[\d.]+|normal --)) (/?\w\S* /?\w\S* (?:participant|group).*)", line
            )
            if match:
                found.append((page.stem, match[1]))
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_the_app_understands_the_commands_of_the_pages(page: str, line: str) -> None:
    parse(line.split())


def test_commands_were_found() -> None:
    assert {"index", "install", "cluster", "openneuro", "jobqueue"} <= {page for page, _ in commands()}


@pytest.mark.parametrize("page", PAGES)
def test_options_named_in_the_pages_exist(page: str) -> None:
    ours = {name for action in parser()._actions for name in action.option_strings}
    content = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    assert set(re.findall(r"(?<![\w-])--[a-zA-Z][\w-]*", content)) <= ours | OTHERS


@pytest.mark.parametrize("page", PAGES)
def test_files_named_in_the_pages_exist(page: str) -> None:
    content = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    for name in re.findall(r"\b((?:integrations|benchmarks|\.ci)/[\w./-]+)", content):
        assert (ROOT / name.rstrip(".")).exists(), name


def test_pages_are_plain() -> None:
    for path in DOCS.glob("*.md"):
        assert "\u2014" not in path.read_text(encoding="utf-8"), f"{path.name} has an em-dash"


def test_the_build_leaves_the_sources_alone(site: Path) -> None:
    assert site.is_dir()
    if shutil.which("git") and (ROOT / ".git").exists():
        words = ["git", "-C", str(ROOT), "status", "--porcelain", "--ignored", "docs"]
        said = subprocess.run(words, capture_output=True, text=True, check=False, env=dict(os.environ)).stdout
        assert "_build" not in said
        assert "html" not in said
