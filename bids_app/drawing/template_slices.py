"""Axial slices of the template for the group level's figures: the sheet, overlays and colour bars.

Conventions, the same in every figure: axial slices of MNI152NLin2009aSym in neurological convention (left of the
patient is left of the picture), z in mm, the T1w template pale underneath so that a darker colour means more.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from bids_app.drawing.charts import DPI, FONT, INK, WIDTH, plain
from bids_app.image import atlas

SLICES = (-42.0, -27.0, -12.0, 0.0, 12.0, 24.0, 36.0, 51.0)  # mm; fixed, so that figures of cohorts compare
APART = 6.0  # mm, between slices chosen for what they hold
HEAD, LABEL, FOOT, GAP = 44, 34, 128, 8  # px: above a row, below it, strip of the colour bar, between panels


# -- geometry ------------------------------------------------------------------------------------


@cache
def window() -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the left and right, back and front end of the brain, mm, with a small margin."""
    grid = atlas.brain_grid(3)
    seen = [np.flatnonzero(grid.data.any(axis=axes)) for axes in ((1, 2), (0, 2))]
    (left, right), (back, front) = (
        (grid.affine[a, 3] + 3 * ends[0] - 4, grid.affine[a, 3] + 3 * ends[-1] + 4) for a, ends in enumerate(seen)
    )
    return (left, right), (back, front)


def plane(axes: Axes, volume: np.ndarray, affine: np.ndarray, z: float, **kwargs: Any) -> None:
    """Draw the axial slice nearest to ``z`` mm of a volume (X, Y, Z) whose axes point right, anterior, superior."""
    step = affine[0, 0]
    index = min(max(round((z - affine[2, 3]) / step), 0), volume.shape[2] - 1)
    x, y = (affine[a, 3] + step * np.array([-0.5, volume.shape[a] - 0.5]) for a in (0, 1))
    axes.imshow(volume[:, :, index].T, extent=(*x, *y), origin="lower", aspect="auto", **kwargs)
    axes.set(xlim=window()[0], ylim=window()[1])


def _template(axes: Axes, z: float) -> None:
    under = atlas.background(2)
    shown = np.where(atlas.brain_grid(2).data, under.data, np.nan)
    plane(axes, shown, under.affine, z, cmap="gray", vmin=-0.9, vmax=1.0, interpolation="nearest")


def overlay(axes: Axes, values: np.ndarray, z: float, cmap: Colormap, low: float, high: float) -> None:
    """Draw values (V,) at 3 mm, nan transparent, each voxel as it is."""
    volume = atlas.on_grid(values.astype(float), np.nan)
    plane(axes, volume.data, volume.affine, z, cmap=cmap, vmin=low, vmax=high, interpolation="nearest")


def heights() -> np.ndarray:
    """Return z of every voxel of the brain, mm, (V,)."""
    grid = atlas.brain_grid(3)
    heights: np.ndarray = grid.affine[2, 3] + grid.affine[2, 2] * np.nonzero(grid.data)[2]
    return heights


def fullest(weight: np.ndarray, count: int) -> list[float]:
    """Return z (mm) of the slices where the weight (V,) has most, 6 mm or more apart, ascending."""
    z, where = np.unique(heights(), return_inverse=True)
    profile = np.bincount(where, weights=weight)
    wanted = [float(z[i]) for i in np.argsort(-profile, kind="stable") if profile[i] > 0]
    chosen: list[float] = []
    for height in (*wanted, *SLICES):  # the fixed ones fill the row where too few hold anything
        if len(chosen) < count and all(abs(height - other) >= APART for other in chosen):
            chosen.append(height)
    return sorted(chosen)


# -- the sheet -----------------------------------------------------------------------------------


def sheet(rows: Sequence[tuple[str, Sequence[float]]], foot: int = FOOT) -> tuple[Figure, list[list[Axes]]]:
    """Return a white figure with a row of axial panels for each heading and its slices (mm), and a strip below."""
    (left, right), (back, front) = window()
    widths = [(WIDTH - GAP * (len(cuts) - 1)) / len(cuts) for _, cuts in rows]
    heights = [width * (front - back) / (right - left) for width in widths]
    total = sum(heights) + (HEAD + LABEL) * len(rows) + foot
    figure = Figure(figsize=(WIDTH / DPI, total / DPI), dpi=DPI, facecolor="white")
    panels, top = [], total
    for (heading, cuts), width, height in zip(rows, widths, heights, strict=True):
        figure.text(0.004, (top - HEAD / 2) / total, plain(heading), color=INK, fontsize=FONT, va="center")
        top -= HEAD + height
        row = []
        for i, z in enumerate(cuts):
            axes = figure.add_axes((i * (width + GAP) / WIDTH, top / total, width / WIDTH, height / total))
            axes.set_axis_off()
            _template(axes, z)
            _write(axes, 0.5, -0.01, f"z = {z:+.0f} mm" if z else "z = 0 mm", ha="center", va="top")
            _write(axes, 0.02, 0.9, "L", weight="bold")
            _write(axes, 0.98, 0.9, "R", weight="bold", ha="right")
            row.append(axes)
        panels.append(row)
        top -= LABEL
    return figure, panels


def _write(axes: Axes, x: float, y: float, text: str, **kwargs: Any) -> None:
    axes.text(x, y, plain(text), transform=axes.transAxes, color=INK, fontsize=FONT, **kwargs)


def bar(figure: Figure, left: float, width: float, mappable: ScalarMappable, label: str, **kwargs: Any) -> Axes:
    """Draw a horizontal colour bar in the strip at the foot; ``left`` and ``width`` are shares of the page."""
    total = figure.get_figheight() * DPI
    axes = figure.add_axes((left, 66 / total, width, 20 / total))
    bar = figure.colorbar(mappable, cax=axes, orientation="horizontal", **kwargs)
    bar.set_label(plain(label), color=INK, fontsize=FONT)
    axes.tick_params(colors=INK, labelsize=FONT)
    return axes
