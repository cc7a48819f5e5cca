"""The group report and the checklist of a real run, in a real browser: readable, whole, silent, and alone."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from chromium import NARROW, WIDE, Visit, serious, state
from PIL import Image

from bids_app.drawing import group_figures
from bids_app.phantom.cohort import draw_cohort
from bids_app.phantom.dataset import write_cohort
from bids_app.records.results import GroupResult
from bids_app.report import group_page

PAGES = ("group.html", "group/checklist.html")
METHOD = ("--lesion-threshold", "0.32", "--cv-folds", "3", "--refine-limit", "0", "--bootstrap-draws", "50")


def blank_figures(result: GroupResult, facts: object) -> dict[str, bytes]:
    """A blank picture of usual size for each figure that the report knows: drawing them takes longest."""
    stream = io.BytesIO()
    Image.new("L", (1600, 900), 200).save(stream, "PNG")
    names = ("", *result.evaluations)
    return {f"{kind}_{name}".rstrip("_"): stream.getvalue() for kind in group_page.CAPTIONS for name in names}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory, run_app: Callable[..., int]) -> Path:
    """Output folder of a group run with all recipes on a small made-up cohort."""
    root = tmp_path_factory.mktemp("pages")
    write_cohort(draw_cohort(n_participants=(8, 8), n_scans=(16, 14), seed=2), root / "bids", root / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group_figures, "draw", blank_figures)
        assert run_app(root / "bids", root / "out", "group", *METHOD, "--nested-folds", 2) == 0
    return root / "out"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_the_group_level_is_readable_whole_and_silent(
    visit: Callable[..., Visit], output: Path, axe: str, name: str, view: dict[str, int], scheme: str
) -> None:
    """With every folded part open, the viewer among them."""
    seen = visit(color_scheme=scheme, viewport=view)
    page = seen.open(output / name)
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    if name == "group.html":
        page.wait_for_selector(".viewer[data-at]")
        assert state(page)["at"]
        assert page.locator(".viewer .plane").count() == 3 and page.locator("#recipes").count() == 1
    names = page.evaluate("Array.from(document.querySelectorAll('[id]'), (part) => part.id)")
    assert len(names) == len(set(names))  # a link leads to one place
    assert page.evaluate("document.documentElement.scrollWidth") <= view["width"]
    assert seen.stayed_at_home(output / name)
    assert serious(page, axe) == []  # last: it is itself a script that may speak


@pytest.mark.parametrize("name", PAGES)
def test_it_would_find_what_is_wrong(visit: Callable[..., Visit], output: Path, axe: str, name: str) -> None:
    """A faint word, a part that is too wide, a picture from elsewhere: each is seen on the very page."""
    seen = visit(viewport=NARROW)
    page = seen.open(output / name)
    page.evaluate("document.querySelector('h1').style.color = '#c8c8c8'")
    assert any(line.startswith("color-contrast") for line in serious(page, axe))
    page.evaluate("document.querySelector('h1').style.width = '900px'")
    assert page.evaluate("document.documentElement.scrollWidth") > NARROW["width"]
    page.evaluate("document.body.append(Object.assign(new Image(), { src: 'http://127.0.0.1:9/x.png' }))")
    page.wait_for_timeout(200)
    assert not seen.stayed_at_home(output / name)
