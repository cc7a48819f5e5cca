"""Figures of one scan: the right way round, the same bytes every time, small enough for a page."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from bids_app.drawing import scan_figures
from bids_app.image import atlas
from bids_app.image.geometry import coarser, stored_like
from bids_app.records.scan import Priors, Tissues, Volume


@pytest.fixture(scope="module")
def head() -> Volume:
    """The synthetic brain on 4 mm voxels, brighter in the left half of the patient."""
    small = coarser(atlas.load().flair, 4.0)
    x = small.affine[0, 0] * np.arange(small.data.shape[0]) + small.affine[0, 3]
    return small.like(small.data * np.where(x < 0, 1.0, 0.5)[:, None, None].astype(np.float32))


@pytest.fixture(scope="module")
def brain(head: Volume) -> np.ndarray:
    return coarser(atlas.load().mask, 4.0).data > 0.5


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(png)).convert("L"), float)


def every_figure(head: Volume, brain: np.ndarray) -> dict[str, bytes]:
    belief = head.like(np.where(brain, head.data - 0.8, 0).astype(np.float32))
    share = head.like(brain.astype(np.float32) / 3).data
    lesion = brain & (head.data > 0.95)
    grid, priors = atlas.brain_grid(3), Priors(head.data, share, share, share, brain.astype(np.float32))
    mni = grid.like(grid.data & (np.indices(grid.data.shape)[2] == 30))
    return {
        "registration": scan_figures.registration(head, priors, brain, grid.like(grid.data.astype(np.float32))),
        "tissues": scan_figures.tissues(head, Tissues(share, share, share, brain, {})),
        "belief": scan_figures.belief(belief, brain, 0.32),
        "lesions": scan_figures.lesions(head, {"published": lesion, "network": lesion}),
        "template": scan_figures.template(mni, grid.like(grid.data.astype(np.float32))),
        "histogram": scan_figures.histogram(belief.data[brain], belief.data[brain], 0.32),
    }


def test_equal_data_give_equal_bytes_and_a_page_can_hold_them(head: Volume, brain: np.ndarray) -> None:
    first, second = every_figure(head, brain), every_figure(head, brain)
    for key, png in first.items():
        assert png == second[key], key
        assert png.startswith(b"\x89PNG"), key
        assert Image.open(BytesIO(png)).size[0] == scan_figures.WIDTH, key
        assert pixels(png).std() > 10, f"{key} is empty"


@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_left_of_the_patient_is_on_the_left_however_the_scan_is_stored(
    head: Volume, brain: np.ndarray, flip: tuple[int, int, int]
) -> None:
    affine = head.affine @ np.diag([*flip, 1])
    for axis, sign in enumerate(flip):
        if sign < 0:
            affine[:3, 3] += head.affine[:3, axis] * (head.data.shape[axis] - 1)
    stored = Volume(np.zeros(head.data.shape, np.float32), affine)
    turned = Volume(np.ascontiguousarray(stored_like(head.data, stored)), affine)
    png = pixels(scan_figures.lesions(turned, dict.fromkeys(("published", "network"), np.zeros(brain.shape, bool))))
    panels = np.array_split(png[png.shape[0] // 4 : png.shape[0] // 2], 3, axis=1)
    for panel in panels:
        left, right = np.array_split(panel, 2, axis=1)
        assert left.mean() > 1.2 * right.mean()


def test_a_scan_without_lesion_is_drawn_and_says_so(head: Volume, brain: np.ndarray) -> None:
    nothing = np.zeros(brain.shape, bool)
    some = scan_figures.lesions(head, {"published": brain & (head.data > 0.95), "network": nothing})
    assert scan_figures.lesions(head, {"published": nothing, "network": nothing}) != some


def test_a_brain_mask_that_parts_from_the_templates_brain_is_drawn_apart(head: Volume, brain: np.ndarray) -> None:
    nothing, grid = np.zeros(brain.shape, np.float32), atlas.brain_grid(3)
    warped = grid.like(grid.data.astype(np.float32))

    def drawn(template: np.ndarray) -> np.ndarray:
        priors = Priors(nothing, nothing, nothing, nothing, template.astype(np.float32))
        return pixels(scan_figures.registration(head, priors, brain, warped))

    same, smaller = drawn(brain), drawn(brain & (np.indices(brain.shape)[1] < brain.shape[1] // 2))
    assert np.abs(same - smaller).max() > 50
