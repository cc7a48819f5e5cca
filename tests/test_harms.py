"""The harms of the benchmark of generality: what spares the brain does, and each does what it says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from benchmarks import generality
from benchmarks.harms import HARMS, RIM_MM, away, head_of
from bids_app.image.geometry import canonical
from bids_app.records.scan import Volume

AFFINE = np.diag([3.0, 3.0, 4.0, 1.0])


@pytest.fixture(scope="module")
def scan() -> tuple[Volume, np.ndarray]:
    """An egg of brain in bone in a scalp with a face, in air, and the brain."""
    axes = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in (64, 78, 52)), indexing="ij")
    radius = np.sqrt(
        sum((axis * step / reach) ** 2 for axis, step, reach in zip(axes, (3, 3, 4), (1, 1.2, 1), strict=True))
    )
    data = np.select([radius < 68, radius < 74, radius < 82], [300.0, 40.0, 450.0], 0.0)
    grain = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=data.shape), 1.0)
    return Volume((data * (1 + 0.2 * grain)).astype(np.float32), AFFINE), radius < 68


@pytest.mark.parametrize("name", HARMS)
def test_a_harm_gives_a_scan_with_a_brain_and_spares_it_where_it_says_so(
    scan: tuple[Volume, np.ndarray], name: str
) -> None:
    flair, brain = scan
    before = flair.data.copy()
    found, mask = HARMS[name].apply(flair, brain)
    assert np.array_equal(flair.data, before)  # the harm is done to a copy
    assert found.data.dtype == np.float32
    assert found.data.min() >= 0
    assert mask.dtype == bool
    assert mask.shape == found.data.shape
    volume, whole = mask.sum() * found.voxel_ml, brain.sum() * flair.voxel_ml
    assert (0.8 if "cut" in name else 0.97) < volume / whole < 1.03
    upright, where = canonical(found), canonical(Volume(mask, found.affine)).data
    if HARMS[name].spares_brain and "cut" not in name:
        assert np.array_equal(upright.data[where], flair.data[brain])
    elif not HARMS[name].spares_brain:
        assert upright.data.shape != flair.data.shape or not np.allclose(upright.data, flair.data, rtol=1e-3)


def test_fat_is_what_changes_and_nothing_near_the_brain(scan: tuple[Volume, np.ndarray]) -> None:
    flair, brain = scan
    found, _ = HARMS["fat x 3"].apply(flair, brain)
    ratio = found.data / np.maximum(flair.data, 1e-6)
    changed = ratio > 2.9
    assert np.isin(np.round(ratio[flair.data > 1], 3), (1.0, 3.0)).all()
    assert changed[(flair.data > 300) & ~brain & (away(brain, flair) > 9)].mean() > 0.9
    assert away(brain, flair)[changed].min() > RIM_MM
    assert head_of(flair)[changed].all()


@pytest.mark.parametrize(("name", "rim"), [("stripped", 0.0), ("stripped, 2 mm rim", 2.0)])
def test_a_stripped_scan_is_zero_outside(scan: tuple[Volume, np.ndarray], name: str, rim: float) -> None:
    flair, brain = scan
    found, _ = HARMS[name].apply(flair, brain)
    assert not found.data[away(brain, flair) > rim].any()


def test_a_row_says_what_a_goal_misses() -> None:
    def row(scan: str, harm: str, dice: float, lesion: float, *flags: str) -> dict:
        values = dict.fromkeys(generality.COLUMNS, 0.5)
        return {"scan": scan, "harm": harm, "spares_brain": True, **values, "dice": dice, "lesion_ml": lesion,
                "flags": list(flags)}  # fmt: skip

    good = [row("a", generality.UNTOUCHED, 0.975, 10), row("b", generality.UNTOUCHED, 0.968, 1)]
    fine = [row("a", "x", 0.955, 11), row("b", "x", 0.90, 1.4, "template_overlap")]  # flagged; 0.4 ml is no change
    assert all(line.startswith("met") for line in generality.verdicts([*good, *fine]))
    refused = {"scan": "b", "harm": "y", "spares_brain": True, "refused": "no brain"}
    assert "refused: no brain" in generality._line(refused)
    assert "| y | 1 | nan | nan | nan |  |  | 1: no brain |" in generality.table([*good, *fine, refused])
    bad = [row("a", "y", 0.94, 12)]
    said = generality.verdicts([*good, *fine, *bad])
    assert "1 of 3 a, y: 0.9400" in said[2]
    assert "y: +20%" in said[3]
    assert generality.verdicts([row("a", generality.UNTOUCHED, 0.95, 1)])[0].startswith("MISSED")
