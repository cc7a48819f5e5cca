"""The rating page from beginning to end: two raters read in a real browser, and their kappas come out; harm is seen."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import BrowserError, Visit
from sklearn.metrics import cohen_kappa_score
from test_browser import EVIL, LEVELS, begin, brightness, seven_readings, slice_of, wait_for
from test_rating_page import head_of

from bids_app.bids.names import Scan
from bids_app.drawing import group_figures
from bids_app.files import formats
from bids_app.phantom.cohort import draw_cohort
from bids_app.phantom.dataset import write_cohort
from bids_app.records.scan import Volume

METHOD = ("--lesion-threshold", "0.32", "--cv-folds", "3", "--refine-limit", "3", "--bootstrap-draws", "50")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seven_readings(tmp_path_factory.mktemp("small"))


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
@pytest.mark.long
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


@pytest.mark.long
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
