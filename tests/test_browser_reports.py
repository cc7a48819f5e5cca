"""The viewers inside the reports, in a real browser: slices, overlays, cross-hair, and nothing that leaves the page."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import NARROW, WIDE, Visit, serious, state
from PIL import Image
from test_rating_page import head_of, tiles

from bids_app.bids.names import Scan
from bids_app.drawing import group_view, slices
from bids_app.image import atlas
from bids_app.learning.ranking import rank_voxels
from bids_app.phantom.cohort import draw_cohort
from bids_app.records.scan import Origin, Summary
from bids_app.report import assets
from bids_app.report import page as report

EVIL = "</script><img src=x onerror=alert(1)>"


def spec_of_scan(full: bool = True) -> dict[str, Any]:
    """The viewer's data of a scan whose belief is a slope from left to right, with two lesions."""
    flair, brain = head_of()
    x = np.indices(flair.data.shape)[0]
    tissues = brain.like(np.where(brain.data > 0, 1 + (x % 3), 0))
    belief = flair.like((x / x.max() - 0.5).astype(np.float32))
    masks = [np.zeros(flair.data.shape, np.uint8) for _ in range(2)]
    masks[0][10:14, 28:33, 4:7] = 1
    masks[1][11:13, 29:32, 5] = 1
    lesions = {"Lesion map": (flair.like(masks[0]), "#e69f00"), "Cleaned": (flair.like(masks[1]), "#56b4e9")}
    return slices.reported(flair, tissues, lesions, belief if full else None)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A participant's page with the viewer of one scan, and hostile words wherever a data set has words."""
    summary = Summary(
        scan=Scan.named("sub-01"), origin=Origin(EVIL, "d", "a", {}, {}, {}), checks=(), warnings=(EVIL,),
        measures=dict.fromkeys(("lesion_volume_ml", "cleaned_volume_ml", "brain_volume_ml"), 1.0)
        | {"lesion_count": 1, "cleaned_count": 1},
        outputs=(), figures={},
    )  # fmt: skip
    view = assets.data(spec_of_scan())
    text = report.participant_page("sub-01", [report.Section(summary, {}, view)], [], "<p>method</p>", "1")
    path = tmp_path_factory.mktemp("report") / "sub-01.html"
    path.write_text(text, encoding="utf-8")
    return path


def opened(page: Any) -> Any:
    """Open the page's viewer and return where it is."""
    page.locator("details[data-view] > summary").click()
    page.wait_for_selector(".viewer[data-at]")
    return page.locator(".viewer")


def pixels(page: Any) -> np.ndarray:
    """What the first plane shows, rows, columns, RGB."""
    state(page)
    picture = page.evaluate("document.querySelector('.viewer canvas').toDataURL('image/png')")
    image = Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2])))
    return np.asarray(image.convert("RGB")).astype(int)


def overlay(name: str) -> str:
    """The box that switches an overlay."""
    return f'.overlay label:has-text("{name}") input'


# -- a participant's page ------------------------------------------------------------------------


def test_the_viewer_is_closed_at_first_and_nothing_is_decoded(visit: Callable[..., Visit], page_file: Path) -> None:
    page = visit().open(page_file)
    assert page.locator("details[data-view]").get_attribute("open") is None
    assert page.locator("canvas").count() == 0


def test_overlays_are_switched_and_faded(visit: Callable[..., Visit], page_file: Path) -> None:
    seen = visit(viewport={"width": 700, "height": 700}, device_scale_factor=1)
    page = seen.open(page_file)
    opened(page)
    with_lesions = pixels(page)
    assert (np.abs(with_lesions - [0xE6, 0x9F, 0x00]).max(axis=2) < 40).any()
    page.uncheck(overlay("Lesion map"))
    page.uncheck(overlay("Cleaned"))
    plain = pixels(page)
    assert (plain.max(axis=2) == plain.min(axis=2)).all()  # gray alone
    page.check(overlay("Belief"))
    strong = np.abs(pixels(page) - plain).mean()
    page.locator('input[aria-label="How opaque: Belief"]').fill("10")
    assert 0 < np.abs(pixels(page) - plain).mean() < strong / 3
    assert seen.stayed_at_home(page_file)


def test_belief_is_blue_on_the_left_and_red_on_the_right(visit: Callable[..., Visit], page_file: Path) -> None:
    page = visit(viewport={"width": 700, "height": 700}, device_scale_factor=1).open(page_file)
    opened(page)
    page.uncheck(overlay("Lesion map"))
    page.uncheck(overlay("Cleaned"))
    page.check(overlay("Belief"))
    page.locator('input[aria-label="How opaque: Belief"]').fill("100")
    picture = pixels(page)
    surplus = picture[..., 0] - picture[..., 2]  # red over blue
    middle = picture.shape[1] // 2
    assert surplus[:, :middle].sum() < 0 < surplus[:, middle:].sum()


def test_wheel_and_keys_belong_to_the_page_until_the_picture_is_clicked(
    visit: Callable[..., Visit], page_file: Path
) -> None:
    page = visit(viewport={"width": 1000, "height": 500}).open(page_file)
    opened(page)
    page.locator(".viewer").scroll_into_view_if_needed()
    canvas = page.locator(".viewer canvas").first
    before, scrolled = state(page)["at"], page.evaluate("scrollY")
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 60)
    page.mouse.wheel(0, 120)
    for _ in range(100):  # not page.wait_for_function: it needs eval, which the page's policy forbids
        if page.evaluate("scrollY") != scrolled:
            break
        page.wait_for_timeout(50)
    assert page.evaluate("scrollY") != scrolled
    assert state(page)["at"] == before
    canvas.focus()
    page.keyboard.press("ArrowUp")
    assert state(page)["at"] != before


def test_the_light_viewer_is_smaller_and_has_no_belief() -> None:
    light, full = (assets.data(spec_of_scan(full=full)) for full in (False, True))
    assert len(light) < len(full)
    assert "Belief" not in light and "Lesion map" in light


# -- the group's page ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def group_spec() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The viewer's data of a made-up cohort, and the maps that went in."""
    cohort = draw_cohort(n_participants=(30, 20), n_scans=(40, 30), seed=3)
    ranking = rank_voxels(cohort.lesions, cohort.positive)
    maps = {
        "RRMS": cohort.lesions[cohort.positive].mean(axis=0),
        EVIL: cohort.lesions[~cohort.positive].mean(axis=0),
        "chi2": ranking.chi2 * ranking.sign,
    }
    frequency = {name: maps[name] for name in ("RRMS", EVIL)}
    weights, chosen = {"Weights, recommended": maps["chi2"] / 1000}, {"published": ranking.order[:5]}
    places = {"in front": np.argwhere(atlas.brain_grid(3).data)[:, 1] > 40}
    places["behind"] = ~places["in front"]
    return group_view.view(frequency, {"published": maps["chi2"]}, chosen, weights, places), maps


def test_levels_are_the_maps_to_half_a_step(group_spec: tuple[dict[str, Any], dict[str, np.ndarray]]) -> None:
    spec, maps = group_spec
    inside = atlas.brain_grid(3).data
    for name, values in (("Lesion frequency, RRMS", 100 * maps["RRMS"]), ("Chi-square, published", maps["chi2"])):
        layer = next(each for each in spec["layers"] if each["name"] == name)
        levels = tiles(layer, list(inside.shape))
        assert (levels[~inside] == 0).all() and (levels[inside] > 0).all()
        shown = layer["low"] + layer["step"] * levels[inside].astype(float)
        assert np.abs(shown - values).max() <= layer["step"] / 2 + 1e-9


def test_the_cross_hair_tells_place_and_values(
    visit: Callable[..., Visit], group_spec: tuple[dict[str, Any], dict[str, np.ndarray]], tmp_path: Path
) -> None:
    spec, maps = group_spec
    view = assets.data(spec)
    text = report.environment().from_string(
        '{% extends "base.html.j2" %}{% block content %}<main><h1>Group</h1><details data-view="v">'
        '<summary>Open</summary><div data-label="Template"></div></details>{{ block("v", view) }}</main>{% endblock %}'
    ).render(view=view, script=assets.joined(assets.REPORT))  # fmt: skip
    path = tmp_path / "group.html"
    path.write_text(text, encoding="utf-8")
    seen = visit()
    page = seen.open(path)
    opened(page)
    peak = int(np.argmax(np.abs(maps["chi2"])))
    inside = np.argwhere(atlas.brain_grid(3).data)
    grid = atlas.brain_grid(3).affine

    def told() -> str:
        state(page)
        return page.inner_text(".viewer .told").replace("−", "-")

    def place() -> list[float]:
        return [float(x) for x in re.findall(r"[xyz] ([+-]\d+)", told())]

    expected = grid[:3, :3] @ inside[peak] + grid[:3, 3]
    assert np.abs(np.array(place()) - expected).max() <= 1.5
    assert f"Lesion frequency, RRMS: {100 * maps['RRMS'][peak]:.0f}" in re.sub(r"(\d+)\.\d %", r"\1", told()) or (
        abs(float(re.findall(r"RRMS: ([\d.]+) %", told())[0]) - 100 * maps["RRMS"][peak]) <= 0.26
    )
    assert "Chosen voxels, published: yes" in told() and EVIL in told()
    assert f"Place: {'in front' if inside[peak][1] > 40 else 'behind'}" in told()
    before = place()
    coronal = page.locator(".plane.coronal canvas").bounding_box()
    page.mouse.click(coronal["x"] + 0.75 * coronal["width"], coronal["y"] + 0.6 * coronal["height"])
    after = place()
    assert after[0] > 0 and after[1] == before[1] and after != before  # right of the picture is the right; y stays
    page.locator(".plane.axial canvas").focus()
    page.keyboard.press("ArrowUp")
    assert place()[2] > after[2]
    assert seen.stayed_at_home(path)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", [WIDE, NARROW])
def test_axe_finds_nothing_serious_and_nothing_is_cut_off(
    visit: Callable[..., Visit], page_file: Path, axe: str, scheme: str, view: dict[str, int]
) -> None:  # fmt: skip
    page = visit(color_scheme=scheme, viewport=view).open(page_file)
    opened(page)
    state(page)
    assert serious(page, axe) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= view["width"]


def test_specs_are_json(group_spec: tuple[dict[str, Any], dict[str, np.ndarray]]) -> None:
    assert json.loads(assets.data(group_spec[0])) == json.loads(json.dumps(group_spec[0]))
