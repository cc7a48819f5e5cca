"""The page of all scans: what is finished, what failed, and marks that the group level takes."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from chromium import NARROW, WIDE, Visit, serious
from PIL import Image

from bids_app.cohort import labels
from bids_app.drawing import slices
from bids_app.files import formats
from bids_app.image import atlas
from bids_app.participant import index, marks

EVIL = "<img src=x onerror=alert(1)>"
LESIONS = [3.5, 0.0, 12.25, None, 7.0]
NAMES = ["sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1", "sub-03", "sub-04_ses-1"]
FLAGS = ["coverage", None, "coverage,head_shape", None, f"bad {EVIL}"]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Derivatives of five finished scans and two that failed, one of them finished since."""
    out = tmp_path / "out"
    parts = [name.partition("_") for name in NAMES]
    table = pd.DataFrame({
        "participant_id": [part[0] for part in parts], "session_id": [part[2] or None for part in parts], "scan": NAMES,
        "lesion_volume_ml": LESIONS, "lesion_count": [4, 0, 9, 2, 5], "brain_volume_ml": 1400.0, "flags": FLAGS,
    })  # fmt: skip
    formats.write_tsv(out / "participants_lesions.tsv", table)
    for run, failures in (("20300101", {"sub-01_ses-1": "old", "sub-09": f"sub-09: cannot be read {EVIL}"}),
                          ("20300102", {"sub-08_ses-1": "registration is lost"})):  # fmt: skip
        formats.write_json(out / "logs" / run / "failures.json", failures)
    for name in NAMES:
        path = marks.mark_path(out, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return out


def written(output: Path, bids: Path | None = None) -> tuple[Path, str]:
    path = index.write(output, bids or output.parent / "bids")
    assert path == output / "index.html"
    return path, path.read_text(encoding="utf-8")


def test_every_scan_and_failure_is_there_and_nothing_is_executed(output: Path) -> None:
    _, text = written(output)
    assert [text.count(f'href="{name.partition("_")[0]}.html#{name}"') for name in NAMES] == [1] * 5
    # sub-01 is finished since
    assert [failure.scan.name for failure in index.failed(output)] == ["sub-08_ses-1", "sub-09"]
    for line in ("<b>sub-08_ses-1:</b> registration is lost", "<b>sub-09:</b> sub-09: cannot be read"):
        assert line in text
    assert "old" not in text.split("<h2", 2)[1]
    assert EVIL not in text and text.count("onerror=alert(1)&gt;") >= 2
    assert "group.html" not in text
    formats.write_text(output / "group.html", "x")
    assert 'href="group.html"' in written(output)[1]


def test_a_row_of_no_scan_is_told_and_left_out(output: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = formats.read_tsv(output / "participants_lesions.tsv")
    table.loc[0, "scan"] = "my notes"
    formats.write_tsv(output / "participants_lesions.tsv", table)
    _, text = written(output)
    assert "my notes is no scan" in caplog.text
    assert "my notes" not in text and NAMES[1] in text


def test_no_finished_scan_and_no_failure_is_no_page(tmp_path: Path) -> None:
    assert index.write(tmp_path / "out", tmp_path) is None


def test_failures_alone_are_a_page(tmp_path: Path) -> None:
    formats.write_json(tmp_path / "logs" / "1" / "failures.json", {"sub-01": "all is lost"})
    assert "all is lost" in written(tmp_path)[1]


def test_what_quality_notes_reject_is_marked_at_first(output: Path, tmp_path: Path) -> None:
    notes = pd.DataFrame({"participant_id": ["01", "sub-02"], "session_id": ["2", None], "quality": ["poor", "good"]})
    formats.write_tsv(tmp_path / "bids" / "phenotype" / "quality.tsv", notes)
    _, text = written(output)
    rows = {name: part for name, part in zip(NAMES, text.split("<tr data-flags")[1:], strict=True)}
    assert [name for name in NAMES if 'data-out="yes"' in rows[name]] == ["sub-01_ses-2"]


def test_quality_notes_that_cannot_be_read_do_not_stop_the_page(output: Path, tmp_path: Path) -> None:
    formats.write_tsv(
        tmp_path / "bids" / "phenotype" / "quality.tsv", pd.DataFrame({"participant_id": ["01"], "x": "1"})
    )
    assert 'data-out="yes"' not in written(output)[1]


def test_the_small_picture_has_lesions_in_orange_on_the_right_side() -> None:
    grid = atlas.brain_grid(3)
    lesion = np.zeros(grid.data.shape, np.uint8)
    x, y, z = (round(float(mm - grid.affine[i, 3]) / 3) for i, mm in enumerate((-30, 20, 24)))
    lesion[x - 1 : x + 2, y - 1 : y + 2, z] = 1  # left, in front, in the second slice
    belief = grid.like(np.where(grid.data, 0.1, 0.0))
    picture = np.asarray(Image.open(io.BytesIO(slices.glance(belief, grid.like(lesion)))).convert("RGB")).astype(int)
    orange = np.argwhere(np.abs(picture - slices.ORANGE).max(axis=2) < 12)
    nx, ny = grid.data.shape[:2]
    assert picture.shape[:2] == (ny, 2 * nx)
    assert len(orange) == 9
    np.testing.assert_array_equal(orange.mean(axis=0), [ny - 1 - y, nx + x])


# -- in a browser --------------------------------------------------------------------------------


def shown(page: Any) -> list[str]:
    """Names of the rows in sight, from the top."""
    return page.evaluate("[...document.querySelectorAll('#scans tbody tr')].filter((row) => !row.hidden)"
                         ".map((row) => row.cells[0].innerText.trim())")  # fmt: skip


def test_sorting_and_filtering(visit: Callable[..., Visit], output: Path) -> None:
    path, _ = written(output)
    seen = visit()
    page = seen.open(path)
    assert shown(page) == NAMES
    page.click("text=Published, ml")
    rising = [NAMES[i] for i in (3, 1, 0, 4, 2)]  # what is not known comes first
    assert shown(page) == rising
    page.click("text=Published, ml")
    assert shown(page) == rising[::-1]
    page.click("th >> text=Scan")
    for choice, names in (
        ("*flagged", [0, 2, 4]),
        ("*normal", [1, 3]),
        ("*free", [1]),
        ("head_shape", [2]),
        ("", range(5)),
    ):
        page.select_option("#which", choice)
        assert shown(page) == [NAMES[i] for i in names]
        assert page.inner_text("#count") == f"{len(names)} of 5 scans"
    page.fill("#search", "SUB-01")
    assert shown(page) == NAMES[:2]
    assert seen.stayed_at_home(path)


def test_marks_survive_a_reload_and_the_group_level_reads_them(
    visit: Callable[..., Visit], output: Path, tmp_path: Path
) -> None:
    path, _ = written(output)
    page = visit(accept_downloads=True).open(path)
    page.check('input[aria-label="Leave out sub-01 ses-2"]')
    page.check('input[aria-label^="Leave out sub-03"]')
    page.reload()
    assert page.inner_text("#marked") == "2 marked to leave out"
    page.select_option("#which", "*out")
    assert shown(page) == ["sub-01_ses-2", "sub-03"]
    with page.expect_download() as download:
        page.click("#save")
    saved = tmp_path / download.value.suggested_filename
    download.value.save_as(saved)
    assert saved.name == "quality.tsv"
    assert [key for key, _ in labels.rejections(saved)] == [("sub-01", "ses-2"), ("sub-03", None)]
    assert len(formats.read_tsv(saved)) == 5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", [WIDE, NARROW])
def test_axe_finds_nothing_serious(
    visit: Callable[..., Visit], output: Path, axe: str, scheme: str, view: dict[str, int]
) -> None:
    page = visit(color_scheme=scheme, viewport=view).open(written(output)[0])
    assert serious(page, axe) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= view["width"]
