"""What the viewer of a participant's report is given, from derivatives whose truth is known."""

from __future__ import annotations

import base64
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from bids_app.cohort import labels
from bids_app.files import formats
from bids_app.participant import reports


def test_parts_of_a_decision_lie_on_the_lesions_in_the_viewer(done: Path, tmp_path: Path) -> None:
    scan = max(labels.find_maps(done), key=lambda each: (done / each.path).stat().st_size)  # lesions make a file larger
    for key in ("preproc", "dseg", "lesion", "lesion_mni", "inverse"):
        (tmp_path / scan.output(key)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(done / scan.output(key), tmp_path / scan.output(key))

    def layers() -> dict[str, dict[str, Any]]:
        packed = reports.view_of(tmp_path, scan, "light")
        return {layer["name"]: layer for layer in json.loads(packed)["layers"]}

    assert "Part in the decision" not in layers()
    data, affine = formats.read_nifti(tmp_path / scan.output("lesion_mni"))
    left = np.arange(data.shape[0])[:, None, None] * affine[0, 0] + affine[0, 3] < 0
    formats.write_nifti(tmp_path / scan.output("contribution"), np.where(left, 0.5, -0.25).astype("f4") * data, affine)
    found = layers()
    parts, lesions = (_pixels(found[name]) for name in ("Part in the decision", "Lesion map"))
    values = np.where(
        parts > 0, found["Part in the decision"]["low"] + found["Part in the decision"]["step"] * parts, 0
    )
    assert {round(float(value), 2) for value in np.unique(values)} == {-0.25, 0.0, 0.5}
    near = ndimage.binary_dilation(lesions > 0, iterations=3)
    assert (near[values != 0]).mean() > 0.9


def _pixels(layer: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(layer["png"]))))


# -- how large a page may be ---------------------------------------------------------------------


@pytest.fixture
def visits(done: Path) -> reports.Task:
    """What the report of a participant is made of, whose one scan comes three times."""
    ((participant, summaries),) = reports.finished(done, [labels.find_maps(done)[0].participant]).items()
    return reports.Task(participant, summaries * 3, done, (), (), "<p>method</p>", "full")


def test_belief_maps_go_first_and_then_viewers_where_a_page_grows_too_large(
    visits: reports.Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = visits.summaries[0]
    runs = [replace(one.scan, entities=(*one.scan.entities, ("run", str(k)))) for k in (1, 2, 3)]
    visits = replace(visits, summaries=tuple(replace(one, scan=run) for run in runs))
    view = {choice: "x" * size for choice, size in (("light", 100), ("full", 150))}
    monkeypatch.setattr(reports, "view_of", lambda output, name, choice: view[choice])

    def left(room: int, viewer: str = "full") -> tuple[list[int], str]:
        views, note = reports.fitting(replace(visits, report_viewer=viewer), room)
        assert sum(map(len, views.values())) <= max(room, 0)
        return [len(each) for each in views.values()], note

    assert left(450) == ([150] * 3, "")
    smaller, note = left(449)
    assert smaller == [100] * 3 and "the belief maps in the viewers were left out" in note and "100 MB" in note
    smaller, note = left(299)
    assert smaller == [100] * 2 and "the viewers of 1 of 3 scans were left out" in note and "NIfTI" in note
    assert left(-5)[0] == [] and "3 of 3" in left(-5)[1]
    assert left(300, "light") == ([100] * 3, "") and left(0, "none") == ([], "")


def test_a_page_stays_below_its_limit_and_says_what_it_lacks(
    visits: reports.Task, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = replace(visits, summaries=visits.summaries[:1], output=tmp_path / "out")
    shutil.copytree(done / task.participant, task.output / task.participant)
    whole = reports.write(task).read_text("utf-8")
    assert '"Belief"' in whole and "were left out" not in whole
    sizes = {choice: len(reports.view_of(task.output, task.summaries[0].scan, choice)) for choice in ("light", "full")}
    limits = {len(whole) - 1: "the belief maps in the viewers", len(whole) - sizes["full"]: "the viewers of 1 of 1"}
    for limit, lacks in limits.items():
        monkeypatch.setattr(reports, "PAGE_MB", limit / 1e6)
        page = reports.write(task).read_text("utf-8")
        assert f"so {lacks}" in page and '"Belief"' not in page
        assert len(page) <= limit
    assert "data-view=" not in page


def test_the_log_tells_how_large_the_pages_are(done: Path) -> None:
    logs = "".join(path.read_text("utf-8") for path in done.glob("logs/*/log.txt"))
    largest = max(path.stat().st_size for path in done.glob("sub-*.html"))
    assert f"2 reports, the largest has {largest / 1e6:.1f} MB: {done}" in logs
