"""The rating page in a real browser: two raters read on one machine, and their kappas come out at the group level."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import NARROW, WIDE, BrowserError, Visit, serious, state
from sklearn.metrics import cohen_kappa_score
from test_rating_page import head_of, sheet_of, tiles

from bids_app.bids.names import Scan
from bids_app.drawing import group_figures, slices
from bids_app.files import formats
from bids_app.phantom.cohort import draw_cohort
from bids_app.phantom.dataset import write_cohort
from bids_app.records.scan import Volume
from bids_app.report import rating_page

LEVELS = ("RRMS", "NMOSD")
EVIL = "<img src=x onerror=alert(1)>"
METHOD = ("--lesion-threshold", "0.32", "--cv-folds", "3", "--refine-limit", "3", "--bootstrap-draws", "50")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of seven readings whose scans differ."""
    folder = tmp_path_factory.mktemp("small")
    sheet, _ = sheet_of(folder, 6)
    scans = [slices.blinded(*head_of(seed)) for seed in range(len(sheet))]
    (page,) = rating_page.pages(sheet.assign(age="41.5", sex=EVIL), scans, LEVELS, {"age": "year"})
    path = folder / f"{page.name}.html"
    path.write_text(page.html, encoding="utf-8")
    return path


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


# -- from the sheet to the kappas ----------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, run_app: Callable[..., int]) -> tuple[Path, Path]:
    """A data set and derivatives with a sheet, its key and the rating page, written by the app."""
    root = tmp_path_factory.mktemp("study")
    bids, out = root / "bids", root / "out"
    cohort = draw_cohort(n_participants=(14, 12), n_scans=(36, 30), seed=5)
    write_cohort(cohort, bids, out)
    (bids / "phenotype" / "rater_decisions.tsv").unlink()
    for number, scan in enumerate(cohort.scans):
        write_images(out, scan, *head_of(number))
    assert run_app(bids, out, "group", *METHOD, "--test-percent", 60, "--rating-sheet") == 0
    return bids, out


def write_images(out: Path, scan: Scan, flair: Volume, brain: Volume) -> None:
    formats.write_nifti(out / scan.output("preproc"), flair.data, flair.affine)
    formats.write_nifti(out / scan.output("brain"), brain.data, brain.affine)


def planted(key: Any, seed: int) -> dict[str, str]:
    """Answers by code: mostly the same both times, as a person's would be."""
    rng = np.random.default_rng(seed)
    answer = {name: LEVELS[rng.integers(2)] for name in sorted(set(key["scan"]))}
    return {
        code: answer[scan] if rng.random() < 0.75 else LEVELS[rng.integers(2)]
        for code, scan in zip(key["code"], key["scan"], strict=True)
    }


def answer_all(page: Any, answers: dict[str, str], first: int) -> None:
    """Answer by keys, from a reading on: diagnosis, sureness, next."""
    codes = page.evaluate("SHEET.readings.map((reading) => reading.code)")
    page.uncheck("#auto")
    page.locator("#viewer canvas").first.focus()
    for number, code in enumerate(codes[first - 1 :], start=first):
        wait_for(page, number)
        page.keyboard.press(answers[code][0].lower())
        page.keyboard.press(str(1 + number % 5))
        page.keyboard.press("ArrowRight")


def saved(page: Any, folder: Path) -> Path:
    with page.expect_download() as download:
        page.click("#save")
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def read_in_sittings(page: Any, answers: dict[str, str], folder: Path) -> Path:
    """Read all scans as rater r1, by click and by keys, closing the page twice; each step is checked."""
    begin(page, "R1")
    codes = page.evaluate("SHEET.readings.map((reading) => reading.code)")
    middle = slice_of(page)
    page.keyboard.press("ArrowUp")
    assert slice_of(page) == middle + 1, "an arrow key did not move the slice"
    light = brightness(page)
    page.keyboard.press(".")
    assert brightness(page) > light, "a key did not change the window"

    # the first by click, then a note, then a scan is skipped, then the page is closed in the middle
    page.click(f'[data-level="{answers[codes[0]]}"]')
    page.fill("#note", f"=1+1\t{EVIL}")
    page.click('[data-sure="3"]')
    wait_for(page, 2)
    page.click("#skip")
    wait_for(page, 3)
    page.keyboard.press(answers[codes[2]][0].lower())
    page.keyboard.press("5")
    wait_for(page, 4)
    page.reload()
    begin(page, "r1")
    wait_for(page, 4)
    assert page.inner_text("#count") == "2 answered, 1 skipped"
    answer_all(page, answers, 4)
    page.reload()
    begin(page, "r1")
    wait_for(page, 2)  # what was skipped comes back
    page.keyboard.press(answers[codes[1]][0].lower())
    page.wait_for_selector("#done:visible")
    path = saved(page, folder)
    table = formats.read_tsv(path).set_index("code")
    assert table["decision_r1"].to_dict() == answers, "the saved table lacks answers"
    assert table.loc[codes[0], "note_r1"] == f"'=1+1 {EVIL}" and table.loc[codes[0], "sureness_r1"] == "3"
    return path


HEARD = "addEventListener('keydown', (event) => %s && event.stopImmediatePropagation(), true);"
BROKEN = {  # what is done to the page before it opens, and what the scenario then says
    "answers are not kept": ("Storage.prototype.setItem = () => {};", 'data-reading=."4'),
    "arrows do nothing": (HEARD % "event.key.startsWith('Arrow')", "did not move the slice"),
    "the window stays": (HEARD % "event.key === '.'", "did not change the window"),
    "keys answer nothing": (HEARD % "event.key === '5'", 'data-reading=."4'),
    "nothing is saved": ("HTMLAnchorElement.prototype.click = () => {};", "download"),
    "the table is wrong": (
        "const Whole = Blob; window.Blob = class extends Whole {"
        "  constructor(parts, kind) { super(parts.map((part) => part.replace?.('RRMS', 'n/a') ?? part), kind); } };",
        "the saved table lacks answers",
    ),
}  # fmt: skip


@pytest.mark.parametrize("harm", [None, *BROKEN])
def test_the_scenario_fails_where_a_step_is_broken(
    visit: Callable[..., Visit], small: Path, tmp_path: Path, harm: str | None
) -> None:
    seen = visit(accept_downloads=True)
    answers = {}
    if harm:
        seen.page.set_default_timeout(5000)
        seen.page.add_init_script(BROKEN[harm][0])
    page = seen.open(small)
    for number, code in enumerate(page.evaluate("SHEET.readings.map((reading) => reading.code)")):
        answers[code] = LEVELS[number % 2]
    if harm is None:
        assert read_in_sittings(page, answers, tmp_path).exists()
        return
    with pytest.raises((AssertionError, BrowserError), match=BROKEN[harm][1]):
        read_in_sittings(page, answers, tmp_path)


def test_two_raters_read_and_the_planted_kappas_come_out(
    visit: Callable[..., Visit], study: tuple[Path, Path], run_app: Callable[..., int],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    bids, out = study
    folder = out / "group" / "rating"
    key = formats.read_tsv(folder / "key" / "rating_key.tsv")
    page_file = folder / "rating.html"
    answers = {"r1": planted(key, 1), "r2": planted(key, 2)}
    seen = visit(accept_downloads=True)
    page = seen.open(page_file)
    codes = page.evaluate("SHEET.readings.map((reading) => reading.code)")
    assert codes == formats.read_tsv(folder / "rating_sheet.tsv")["code"].tolist()

    first = read_in_sittings(page, answers["r1"], tmp_path)

    # the second rater on the same machine sees nothing of the first
    page.click("#finish")
    begin(page, "r2")
    wait_for(page, 1)
    assert page.inner_text("#count") == "0 answered" and page.input_value("#note") == ""
    answer_all(page, answers["r2"], 1)
    page.wait_for_selector("#done:visible")
    second = saved(page, tmp_path)
    assert seen.stayed_at_home(page_file), (seen.said, set(seen.requests))

    assert first.name.startswith("rating_r1_") and second.name.startswith("rating_r2_")
    assert "r2" not in first.read_text() and "r1" not in second.read_text()
    table = formats.read_tsv(first).set_index("code")
    seconds = table["seconds_r1"].astype(float)
    assert (seconds >= 0).all() and 0.2 < seconds[codes[:3]].sum() < 60

    assert run_app(bids, out, "group", "--read-ratings", first, second) == 0
    shutil.copy(out / "phenotype" / "rater_decisions.tsv", bids / "phenotype" / "rater_decisions.tsv")
    monkeypatch.setattr(group_figures, "draw", lambda *_: {})
    assert run_app(bids, out, "group", *METHOD, "--test-percent", 60, "--nested-folds", 0) == 0
    found = json.loads((out / "group" / "metrics.json").read_text())["published"]["raters"]
    rows = [(kind, each) for kind in ("intra", "inter") for each in found[kind]]
    kappas = {(kind, each["first"], each["second"]): each["kappa"]["value"] for kind, each in rows}
    scan = dict(zip(key["code"], key["scan"], strict=True))
    read = dict(zip(key["code"], key["read"], strict=True))
    reads = {
        (rater, which): {scan[code]: said for code, said in given.items() if read[code] == which}
        for rater, given in answers.items()
        for which in ("first", "repeat")
    }
    pairs = [
        (("r1", "first"), ("r2", "first"), ("inter", "r1", "r2")),
        (("r1", "first"), ("r1", "repeat"), ("intra", "r1", "r1")),
        (("r2", "first"), ("r2", "repeat"), ("intra", "r2", "r2")),
    ]
    for one, other, name in pairs:
        common = sorted(set(reads[one]) & set(reads[other]))
        assert len(common) >= 4
        expected = cohen_kappa_score([reads[one][s] for s in common], [reads[other][s] for s in common])
        assert kappas[name] == pytest.approx(expected), name

    details = formats.read_tsv(folder / "key" / "readings.tsv")
    assert list(details) == ["scan", "read", "rater", "decision", "sureness", "seconds", "note"]
    assert len(details) == 2 * len(codes)


def test_the_written_page_names_nobody(study: tuple[Path, Path]) -> None:
    bids, out = study
    content = (out / "group" / "rating" / "rating.html").read_bytes()
    names = [line.split("\t")[0] for line in (bids / "participants.tsv").read_text().splitlines()[1:]]
    assert len(names) == 26
    for name in (*names, "ses-", str(out), str(bids)):
        assert name.encode() not in content
    assert re.search(rb"Since latest episode.{1,12}\d+(\.\d)? months", content)
