"""The rating page holds the scans as they are, in the sheet's order, and nothing that tells whose they are."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bids_app.cohort import ratings
from bids_app.drawing import slices
from bids_app.files import formats
from bids_app.records.scan import Volume
from bids_app.report import assets, rating_page

LEVELS = ("RRMS", "NMOSD")
EVIL = "</script><script>alert(1)</script><!--"


def head_of(seed: int = 0, shape: tuple[int, int, int] = (40, 48, 11)) -> tuple[Volume, Volume]:
    """A round head in air with a rim, noise, and a mark on the patient's left front side; and its brain."""
    rng = np.random.default_rng(seed)
    affine = np.diag([4.0, 4.0, 8.0, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * [4, 4, 8]
    x, y, z = (affine[i, 3] + affine[i, i] * grid for i, grid in enumerate(np.indices(shape)))
    radius = np.sqrt((x / 62) ** 2 + (y / 78) ** 2 + (z / 40) ** 2)
    data = np.where(radius < 0.8, 100.0, np.where(radius < 1, 60.0, 0.0)) + rng.normal(0, 3, shape)
    data[(np.abs(x + 30) < 7) & (np.abs(y - 30) < 7) & (np.abs(z) < 9)] = 170  # left, anterior
    return Volume(np.clip(data, 0, None).astype(np.float32), affine), Volume((radius < 0.8).astype(np.uint8), affine)


def stored(volume: Volume, axes: tuple[int, ...], flips: tuple[bool, ...]) -> Volume:
    """The same image with its axes stored in another order and direction."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    data = volume.data.transpose(axes)
    for new, (old, flip) in enumerate(zip(axes, flips, strict=True)):
        matrix[old, new] = -1 if flip else 1
        matrix[old, 3] = volume.data.shape[old] - 1 if flip else 0
        data = np.flip(data, new) if flip else data
    return Volume(data, volume.affine @ matrix)


def tiles(layer: dict[str, Any], shape: list[int]) -> np.ndarray:
    """Levels (X, Y, Z) out of a layer's PNG, by another library than the page's."""
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(layer["png"]))))
    nx, ny, nz = shape
    assert sheet.ndim == 2 and sheet.dtype == np.uint8
    cut = [sheet[k // layer["columns"] * ny :, k % layer["columns"] * nx :][:ny, :nx].T[:, ::-1] for k in range(nz)]
    return np.stack(cut, axis=2)


def chunks(png: bytes) -> list[str]:
    """Names of the chunks of a PNG."""
    place, names = 8, []
    while place < len(png):
        length, name = struct.unpack(">I4s", png[place : place + 8])
        names.append(name.decode())
        place += length + 12
    return names


def sheet_of(folder: Path, n: int, table: pd.DataFrame | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A written sheet and its key as they are read."""
    scans = [f"sub-{i:03d}secret_ses-{i % 3}" for i in range(n)]
    paths = ratings.write_sheet(scans, pd.DataFrame(index=scans) if table is None else table, range(n), folder, 4)
    sheet, key = (formats.read_tsv(path) for path in paths)
    return sheet, key


def contents(html: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The page's sheet and its scans."""
    found = dict(re.findall(r'<script type="application/json" id="([\w-]+)">(.*?)</script>', html, re.DOTALL))
    return json.loads(found.pop("sheet")), [json.loads(found[f"scan-{i}"]) for i in range(len(found))]


# -- the images ----------------------------------------------------------------------------------


def test_brain_is_kept_to_half_a_step_and_air_is_black() -> None:
    flair, brain = head_of()
    found = slices.blinded(flair, brain)
    levels = tiles(found["layers"][0], found["shape"])
    unit = np.median(flair.data[brain.data > 0])
    stack = slices.around(flair, slices.head(flair, brain.data > 0))
    inside, original = stack.cut(brain.data) > 0, stack.cut(flair.data)
    assert inside.sum() == brain.data.sum()
    assert np.abs(levels[inside] * slices.STEP * unit - original[inside]).max() <= slices.STEP * unit / 2 + 1e-6
    assert levels[inside].max() == round(170 / unit / slices.STEP)
    corner = levels[0, 0]
    assert not corner.any()
    assert found["layers"][0]["sum"] == int(levels.sum())


@pytest.mark.parametrize("axes", list(permutations(range(3))))
def test_however_a_scan_is_stored_it_is_shown_alike(axes: tuple[int, ...]) -> None:
    flair, brain = head_of()
    expected = slices.blinded(flair, brain)
    for flips in product((False, True), repeat=3):
        assert slices.blinded(stored(flair, axes, flips), stored(brain, axes, flips)) == expected


def test_left_is_left_and_anterior_is_up_as_in_the_figures() -> None:
    flair, brain = head_of()
    found = slices.blinded(flair, brain)
    nx, ny, nz = found["shape"]
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["layers"][0]["png"]))))
    row, column = divmod(nz // 2, found["layers"][0]["columns"])
    tile = sheet[row * ny : (row + 1) * ny, column * nx : (column + 1) * nx]
    down, right = np.argwhere(tile > 150).mean(axis=0)
    assert down < 0.4 * ny and right < 0.4 * nx  # the mark is left and anterior
    assert slices.stacked(flair).affine[0, 0] > 0  # the figures' pictures begin at the patient's left


def test_the_medulla_is_kept_and_the_neck_is_not() -> None:
    flair, brain = head_of(shape=(40, 48, 31))
    flair.data[:, :, :14][flair.data[:, :, :14] < 50] = 60  # a neck as wide as the field of view
    lowest = int(np.flatnonzero(brain.data.any(axis=(0, 1)))[0])
    inside = slices.head(flair, brain.data > 0)
    first = int(np.flatnonzero(inside.any(axis=(0, 1)))[0])
    assert first == int(lowest - slices.BELOW_MM / 8)


# -- the page ------------------------------------------------------------------------------------


def test_readings_are_the_sheets_in_its_order_and_each_has_its_scan(tmp_path: Path) -> None:
    sheet, key = sheet_of(tmp_path, 12)
    numbers = {name: float(i) for i, name in enumerate(sorted(set(key["scan"])))}
    scans = [{"layers": [], "planted": numbers[name]} for name in key["scan"]]
    (page,) = rating_page.pages(sheet, scans, LEVELS)
    told, found = contents(page.html)
    assert page.name == "rating"
    assert [each["code"] for each in told["readings"]] == sheet["code"].tolist()
    assert [each["planted"] for each in found] == [numbers[name] for name in key["scan"]]
    assert told["columns"] == [name for name in sheet if name != "decision"]


def test_nothing_tells_whose_a_scan_is_nor_which_is_a_repeat(tmp_path: Path) -> None:
    table = pd.DataFrame({"age": np.arange(9) + 30.5, "site": "SECRETPLACE", "group": "RRMS"})
    sheet, key = sheet_of(tmp_path, 9, table)
    scans = [slices.blinded(*head_of(seed)) for seed in range(len(key))]
    (page,) = rating_page.pages(sheet, scans, LEVELS)
    secrets = [*key["scan"], *(part for name in key["scan"] for part in name.split("_")), "SECRETPLACE", str(tmp_path)]
    told, found = contents(page.html)
    assert "repeat" not in json.dumps(told) and "site" not in told["columns"]
    for scan in found:
        assert set(scan) == {"shape", "spacing", "planes", "layers"}  # no affine: a position is a hint
        for layer in scan["layers"]:
            png = base64.b64decode(layer["png"])
            assert set(chunks(png)) == {"IHDR", "IDAT", "IEND"}
            pixels = Image.open(io.BytesIO(png))
            assert not pixels.info
            for text in (png, pixels.tobytes()):
                assert not any(secret.encode() in text for secret in secrets)
    assert not [secret for secret in secrets if secret in page.html]


def test_a_secret_that_is_in_a_picture_would_be_found() -> None:
    png, _ = slices.as_png(np.frombuffer(b"sub-001secret".ljust(64), np.uint8).reshape(64, 1, 1))
    assert b"sub-001secret" in Image.open(io.BytesIO(png)).tobytes()


def test_hostile_covariates_and_groups_are_data(tmp_path: Path) -> None:
    table = pd.DataFrame({"sex": [EVIL] * 3, "age": ["=1+1", EVIL, "30"]})
    sheet, _ = sheet_of(tmp_path, 3, table)
    (page,) = rating_page.pages(sheet, [{"layers": []}] * len(sheet), (EVIL, "b"), {"age": EVIL})
    own = rating_page.assets.joined(rating_page.SCRIPTS)
    assert page.html.replace(own, "").count("<script") == page.html.replace(own, "").count("</script>") == 6
    assert "alert(1)</script>" not in page.html
    told, _ = contents(page.html)
    assert told["levels"][0]["name"] == EVIL
    assert dict(told["readings"][0]["shown"])["Sex"] == EVIL


def test_the_policy_names_the_pages_own_script_and_forbids_the_rest(tmp_path: Path) -> None:
    sheet, _ = sheet_of(tmp_path, 3)
    (page,) = rating_page.pages(sheet, [{"layers": []}] * len(sheet), LEVELS)
    own = re.findall(r"<script>(.*?)</script>", page.html, re.DOTALL)
    assert len(own) == 1
    assert assets.policy(own[0]).replace("'", "&#39;") in page.html
    assert "default-src 'none'" in assets.policy(own[0])
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page.html.replace(own[0], ""))


def test_too_many_scans_are_split_into_pages_below_the_limit(tmp_path: Path) -> None:
    sheet, _ = sheet_of(tmp_path, 30)
    scans = ({"layers": [], "filler": "x" * 20_000, "row": row} for row in range(len(sheet)))
    pages = list(rating_page.pages(sheet, scans, LEVELS, limit=200_000))
    assert [page.name for page in pages] == [f"rating-{k}" for k in range(1, len(pages) + 1)]
    assert len(pages) == 4
    codes, rows = [], []
    frame = len(assets.joined(rating_page.SCRIPTS)) + 60_000
    for page, following in zip(pages, [*pages[1:], None], strict=True):
        told, found = contents(page.html)
        codes += [each["code"] for each in told["readings"]]
        rows += [each["row"] for each in found]
        assert len(page.html) < 200_000 + frame
        assert [row[told["code"]] for row in told["rows"]] == sheet["code"].tolist()  # each can save the whole sheet
        assert (f'href="{following.name}.html"' in page.html) if following else ("then open" not in page.html)
    assert codes == sheet["code"].tolist() and rows == list(range(len(sheet)))


def test_the_digest_tells_sheets_apart_and_not_what_was_filled_in(tmp_path: Path) -> None:
    one, other = sheet_of(tmp_path / "a", 9)[0], sheet_of(tmp_path / "b", 10)[0]
    assert rating_page.digest(one) != rating_page.digest(other)
    assert rating_page.digest(one) == rating_page.digest(one.assign(decision="RRMS"))


def test_a_policy_without_a_script_forbids_all() -> None:
    assert "script-src 'none'" in assets.policy()
