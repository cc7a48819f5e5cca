"""The rating page in a real browser: what its viewer and its keys do, and what becomes of answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import NARROW, WIDE, Visit, serious, state
from test_rating_page import head_of, sheet_of, tiles

from bids_app.drawing import slices
from bids_app.files import formats
from bids_app.report import rating_page

LEVELS = ("RRMS", "NMOSD")
EVIL = "<img src=x onerror=alert(1)>"


def seven_readings(folder: Path) -> Path:
    """A page of seven readings whose scans differ."""
    sheet, _ = sheet_of(folder, 6)
    scans = [slices.blinded(*head_of(seed)) for seed in range(len(sheet))]
    (page,) = rating_page.pages(sheet.assign(age="41.5", sex=EVIL), scans, LEVELS, {"age": "year"})
    path = folder / f"{page.name}.html"
    path.write_text(page.html, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seven_readings(tmp_path_factory.mktemp("small"))


def begin(page: Any, rater: str) -> None:
    page.fill("#rater", rater)
    page.press("#rater", "Enter")
    if page.locator("#known").is_visible():
        page.press("#rater", "Enter")
    page.wait_for_selector("#viewer[data-at]")


def wait_for(page: Any, number: int) -> None:
    """Wait until the scan of a reading is in sight."""
    page.wait_for_selector(f'#viewer[data-reading="{number}"]')


def slice_of(page: Any) -> int:
    return int(state(page)["at"].split()[2])


def brightness(page: Any) -> float:
    """Mean of the red channel of what is drawn."""
    state(page)
    return page.evaluate("""() => {
      const canvas = document.querySelector('#viewer canvas');
      const { width, height } = canvas;
      const copy = Object.assign(document.createElement('canvas'), { width, height });
      const context = copy.getContext('2d', { willReadFrequently: true });
      context.drawImage(canvas, 0, 0);
      const data = context.getImageData(0, 0, width, height).data;
      let sum = 0;
      for (let i = 0; i < data.length; i += 4) sum += data[i];
      return sum / (data.length / 4);
    }""")


# -- the viewer ----------------------------------------------------------------------------------


def test_slices_move_by_wheel_keys_slider_and_touch(visit: Callable[..., Visit], small: Path) -> None:
    page = visit().open(small)
    begin(page, "a1")
    middle = slice_of(page)
    box = page.locator("#viewer canvas").first.bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.wheel(0, -120)
    assert slice_of(page) == middle + 1
    page.mouse.wheel(0, 120)
    page.mouse.wheel(0, 120)
    assert slice_of(page) == middle - 1
    for key, place in (("Home", 0), ("ArrowUp", 1), ("PageUp", 6), ("ArrowDown", 5), ("End", None)):
        page.keyboard.press(key)
        assert place is None or slice_of(page) == place
    last = slice_of(page)
    assert page.locator(".viewer .number").inner_text() == f"{last + 1}/{last + 1}"
    page.locator(".viewer input[type=range]").fill("3")
    assert slice_of(page) == 2
    assert page.get_attribute(".viewer input[type=range]", "aria-valuetext") == f"slice 3 of {last + 1}"


def test_fingers_move_slices_and_zoom(visit: Callable[..., Visit], small: Path) -> None:
    seen = visit(viewport=NARROW, has_touch=True, is_mobile=True)
    page = seen.open(small)
    begin(page, "a1")
    middle = slice_of(page)
    box = page.locator("#viewer canvas").first.bounding_box()
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        placed = [{"x": box["x"] + x, "y": box["y"] + y, "id": i} for i, (x, y) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": placed})

    touch("touchStart", (150, 200))
    for y in (190, 180, 170):
        touch("touchMove", (150, y))
    touch("touchEnd")
    assert slice_of(page) > middle
    touch("touchStart", (150, 200), (180, 200))
    for reach in (30, 60, 90, 120):
        touch("touchMove", (150 - reach, 200), (180 + reach, 200))
    touch("touchEnd")
    assert float(state(page)["zoom"]) > 1


def test_window_zoom_and_side(visit: Callable[..., Visit], small: Path) -> None:
    page = visit().open(small)
    begin(page, "a1")
    before, light = state(page), brightness(page)
    assert before["window"] == "0.000 2.000" and before["left"] == "left"
    page.keyboard.press(".")
    assert brightness(page) > light
    page.keyboard.press("0")
    page.keyboard.press("+")
    low, high = map(float, state(page)["window"].split())
    assert 0 < low < high < 2
    page.keyboard.press("0")
    assert state(page)["window"] == before["window"] and brightness(page) == pytest.approx(light)
    box = page.locator("#viewer canvas").first.bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 300)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 360, steps=4)
    page.mouse.up()
    low, high = map(float, state(page)["window"].split())
    assert high - low < 2 and (low + high) / 2 > 1  # across: contrast, down: darker
    page.keyboard.press("Z")
    assert state(page)["zoom"] == "1"
    page.keyboard.press("z")
    assert float(state(page)["zoom"]) > 1
    page.keyboard.press("f")
    assert state(page)["left"] == "right"
    page.keyboard.press("ArrowRight")
    wait_for(page, 2)
    after = state(page)
    assert after["window"] == f"{low:.3f} {high:.3f}" and after["left"] == "right" and after["zoom"] == "1"


def test_what_is_drawn_is_what_was_stored_left_on_the_left(visit: Callable[..., Visit], small: Path) -> None:
    page = visit(viewport={"width": 1000, "height": 800}, device_scale_factor=1).open(small)
    begin(page, "a1")
    spec = json.loads(page.locator("#scan-0").text_content())
    levels = tiles(spec["layers"][0], spec["shape"])
    same = page.evaluate("""async () => {
      const volume = await Reading.decode(0);
      return [Array.from(volume.layers[0].levels.slice(0, 4000)), volume.layers[0].levels.length];
    }""")
    flat = levels[:, ::-1].transpose(2, 1, 0).ravel()  # as memory holds it: slices, rows from the top, columns
    assert same[1] == flat.size
    np.testing.assert_array_equal(same[0], flat[:4000])
    state(page)
    right, down = page.evaluate("""() => {
      const canvas = document.querySelector('#viewer canvas');
      const data = canvas.getContext('2d').getImageData(0, 40, canvas.width, canvas.height - 40).data;
      let [x, y, n] = [0, 0, 0];
      for (let i = 0; i < data.length; i += 4) {
        if (data[i] > 190) { x += (i / 4) % canvas.width; y += Math.floor(i / 4 / canvas.width) + 40; n += 1; }
      }
      return [x / n / canvas.width, y / n / canvas.height];
    }""")
    assert right < 0.5 and down < 0.4  # the mark on the patient's left, in front


def test_a_browser_that_changes_pictures_is_refused(visit: Callable[..., Visit], small: Path) -> None:
    seen = visit()
    seen.page.add_init_script("""
      const read = CanvasRenderingContext2D.prototype.getImageData;
      CanvasRenderingContext2D.prototype.getImageData = function (...where) {
        const image = read.apply(this, where);
        image.data[0] += 1;
        return image;
      };""")
    page = seen.open(small)
    page.fill("#rater", "a1")
    page.press("#rater", "Enter")
    page.wait_for_selector("#trouble:visible")
    assert "fingerprinting" in page.inner_text("#trouble")


# -- answers -------------------------------------------------------------------------------------


def test_keys_answer_and_go_on_and_typing_a_note_answers_nothing(visit: Callable[..., Visit], small: Path) -> None:
    seen = visit()
    page = seen.open(small)
    begin(page, "a1")
    page.keyboard.press("n")
    page.keyboard.press("t")
    page.keyboard.type(f"r4 {EVIL}")
    page.keyboard.press("Escape")
    assert page.inner_text("#count") == "1 answered"
    assert page.get_attribute('[data-level="NMOSD"]', "aria-pressed") == "true"
    page.keyboard.press("4")
    wait_for(page, 2)
    page.keyboard.press("k")
    wait_for(page, 3)
    assert page.inner_text("#count") == "1 answered, 1 skipped"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    wait_for(page, 1)
    assert page.input_value("#note") == f"r4 {EVIL}"
    assert "41.5 years" in page.inner_text("#shown") and EVIL in page.inner_text("#shown")
    assert seen.stayed_at_home(small)


def test_the_next_scan_is_decoded_while_the_first_is_read(visit: Callable[..., Visit], small: Path) -> None:
    page = visit().open(small)
    assert not page.evaluate("Reading.decodes.size")
    begin(page, "a1")
    for _ in range(100):
        if page.evaluate("Reading.decodes.has(1)"):
            break
        page.wait_for_timeout(50)
    assert page.evaluate("[Reading.now, ...Reading.decodes.keys()]") == [0, 0, 1]


def test_the_next_rater_sees_nothing_of_the_last(visit: Callable[..., Visit], small: Path) -> None:
    seen = visit(accept_downloads=True)
    page = seen.open(small)
    begin(page, "first1")
    untouched = state(page)
    page.keyboard.press("+")
    page.keyboard.press("f")
    page.keyboard.press("n")
    page.fill("#note", "seen by nobody else")
    page.click("summary:has-text('All scans')")
    page.click("#save")
    page.click("#finish")
    assert page.locator("#start").is_visible() and not page.locator("#work").is_visible()
    assert page.locator("canvas").count() == 0
    held = page.evaluate("Array.from(document.querySelectorAll('input, textarea'), (part) => part.value).join()")
    for left in ("seen by nobody else", "first1", "NMOSD\t", "41.5 years"):
        assert left not in held and left not in page.locator("main").inner_text()
    page.keyboard.press("r")  # answers nothing: nobody reads
    begin(page, "second1")
    assert state(page) == untouched and page.input_value("#note") == ""
    assert page.inner_text("#count") == "0 answered" and not page.locator("#saved").is_visible()
    assert page.get_attribute('[data-level="NMOSD"]', "aria-pressed") == "false"
    page.click("#finish")
    begin(page, "first1")
    assert page.inner_text("#count") == "1 answered"
    assert seen.stayed_at_home(small)


def tab_to(page: Any, part: str) -> None:
    """Press Tab until a part has the focus, and see that each stop shows it."""
    for _ in range(80):
        page.keyboard.press("Tab")
        at, outline = page.evaluate(
            "[document.activeElement.id, getComputedStyle(document.activeElement).outlineStyle]"
        )
        assert outline != "none"
        if at == part:
            return
    raise AssertionError(f"Tab does not lead to {part}")


def test_the_keyboard_alone_suffices(visit: Callable[..., Visit], small: Path, tmp_path: Path) -> None:
    page = visit(accept_downloads=True).open(small)
    tab_to(page, "rater")
    page.keyboard.type("k1")
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[data-at]")
    page.keyboard.press("k")  # skipped, and so the last to be answered
    for number in (2, 3, 4, 5, 6, 7, 1):
        wait_for(page, number)
        page.keyboard.press("ArrowUp")
        page.keyboard.press("t")
        page.keyboard.type(f"note {number}")
        page.keyboard.press("Escape")
        page.keyboard.press("rn"[number % 2])
        page.keyboard.press("4")
    page.wait_for_selector("#done:visible")
    tab_to(page, "save")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    download.value.save_as(tmp_path / "table.tsv")
    table = formats.read_tsv(tmp_path / "table.tsv")
    assert table["decision_k1"].tolist() == [LEVELS[number % 2] for number in range(1, 8)]
    assert table["note_k1"].tolist() == [f"note {number}" for number in range(1, 8)]
    tab_to(page, "finish")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "rater"


def test_a_code_that_is_no_code_is_refused(visit: Callable[..., Visit], small: Path) -> None:
    page = visit().open(small)
    for code in ("", "a b", "x_repeat", EVIL[:12]):
        page.fill("#rater", code)
        page.press("#rater", "Enter")
        assert page.locator("#wrong").is_visible() and not page.locator("#work").is_visible()


def test_a_browser_without_storage_says_so(visit: Callable[..., Visit], small: Path) -> None:
    seen = visit()
    seen.page.add_init_script("Storage.prototype.setItem = () => { throw new Error('full'); };")
    page = seen.open(small)
    begin(page, "a1")
    assert page.locator("#unkept").is_visible()
    page.keyboard.press("r")
    assert page.inner_text("#count") == "1 answered"
    page.click("#finish")  # not before the table is saved: all would be lost
    assert page.locator("#work").is_visible() and page.evaluate("document.activeElement.id") == "save"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", [WIDE, NARROW], ids=["wide", "narrow"])
def test_axe_finds_nothing_serious(
    visit: Callable[..., Visit], small: Path, axe: str, view: dict[str, int], scheme: str
) -> None:
    seen = visit(color_scheme=scheme, viewport=view, accept_downloads=True)
    page = seen.open(small)
    assert serious(page, axe) == []
    begin(page, "a1")
    page.click("summary:has-text('All scans')")
    page.click("summary:has-text('Keys')")
    page.keyboard.press("r")
    page.click("#save")
    assert serious(page, axe) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= view["width"]
    assert seen.stayed_at_home(small)


def test_axe_would_find_a_button_without_a_name(visit: Callable[..., Visit], small: Path, axe: str) -> None:
    page = visit().open(small)
    page.evaluate("document.querySelector('#enter button').textContent = ''")
    assert any(line.startswith("button-name") for line in serious(page, axe))


@pytest.mark.parametrize("view", [WIDE, NARROW])
def test_nothing_is_cut_off(visit: Callable[..., Visit], small: Path, view: dict[str, int]) -> None:
    page = visit(viewport=view).open(small)
    begin(page, "a1")
    state(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= view["width"]
    for part in ("#viewer canvas >> nth=0", "#viewer .tools", "[data-level] >> nth=1", "#next"):
        box = page.locator(part).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= view["width"]
