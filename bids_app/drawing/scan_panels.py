"""Planes of a scan side by side on one black figure: where they are cut, and how they are drawn, without pyplot.

Conventions, the same in every figure: neurological (left of the patient is left of the picture), upright, true
proportions whatever the voxel size and the order of the stored axes, white text on black. Equal arrays give equal
bytes on the same versions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from io import BytesIO
from typing import Any, ParamSpec

import numpy as np
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox, TransformedBbox
from PIL import Image

from bids_app.records.scan import Volume

WIDTH, DPI, FONT = 1600, 100, 13.5  # px, px an inch, points: 12 px of text on a page 1,100 px wide
HEAD, GAP = 44, 6  # px: heading above a row, and between panels
LARGEST = 3.2  # px a mm, where a row has few panels
BELIEF_LIMIT = 0.8  # ends of the colour scale, the same for every scan so that scans compare
PNG_LEVEL = 4  # 5 to 10 % larger than at 6, in a third of the time
HEAD_MM = 140.0  # from the vertex down: what of a head can hold brain
SAGITTAL, CORONAL, AXIAL = 0, 1, 2
ACROSS = {SAGITTAL: (1, 2), CORONAL: (0, 2), AXIAL: (0, 1)}  # axes shown to the right and up
Cut = tuple[int, float]  # axis, and position along it in mm
Window = tuple[np.ndarray, np.ndarray]  # lowest and highest mm of what is shown, (3,) each
P = ParamSpec("P")


def as_png(draw: Callable[P, Figure]) -> Callable[P, bytes]:
    """Turn a function that draws a figure into one that returns its PNG, whatever the user's matplotlibrc says."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> bytes:
        with style.context("default", after_reset=True):
            canvas = FigureCanvasAgg(draw(*args, **kwargs))
            canvas.draw()
            pixels = np.asarray(canvas.buffer_rgba())[..., :3]
        stream = BytesIO()
        # 256 colours, no pixel off by more than 12 of 255: a quarter of the size, and no eye tells
        image = Image.fromarray(np.ascontiguousarray(pixels))
        image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            stream, "PNG", compress_level=PNG_LEVEL
        )
        return stream.getvalue()

    return drawn


# -- geometry ------------------------------------------------------------------------------------


def window(inside: np.ndarray, grid: Volume, margin: float) -> Window:
    """Return the box around ``inside`` (bool, on the canonical grid) plus a margin, mm; the whole grid if empty."""
    low, high = np.zeros(3), np.array(inside.shape) - 1.0
    for axis in range(3):
        seen = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        if seen.size:
            low[axis], high[axis] = seen[0], seen[-1]
    origin, spacing = grid.affine[:3, 3], grid.spacing
    return origin + low * spacing - margin, origin + high * spacing + margin


def profile(inside: np.ndarray, axis: int = AXIAL) -> np.ndarray:
    """Return how many voxels of ``inside`` lie in each slice across the axis."""
    return inside.sum(axis=tuple(a for a in range(3) if a != axis))


def position(grid: Volume, axis: int, index: int) -> float:
    """Return where a slice of a canonical volume lies along its axis, mm."""
    return float(grid.affine[axis, 3] + index * grid.spacing[axis])


def spread(profile: np.ndarray, count: int) -> list[int]:
    """Return at most ``count`` indices, even over the slices that hold at least a sixth of the fullest one."""
    seen = np.flatnonzero(profile * 6 >= profile.max())
    return [int(i) for i in np.unique(np.linspace(seen[0], seen[-1], count).round())]


def fullest(profile: np.ndarray, count: int, gap: int) -> list[int]:
    """Return at most ``count`` indices with the highest positive profile, ``gap`` or more apart, ascending."""
    chosen: list[int] = []
    for i in np.argsort(-profile, kind="stable"):
        if profile[i] > 0 and len(chosen) < count and all(abs(i - j) >= gap for j in chosen):
            chosen.append(int(i))
    return sorted(chosen)


def foreground(scan: Volume) -> np.ndarray:
    """Return the upper 140 mm of the head in a canonical scan: what is not air."""
    inside = scan.data > 0.15 * np.percentile(scan.data, 98)
    filled = profile(inside)
    top = np.flatnonzero(filled * 10 >= filled.max())[-1]
    inside[:, :, : max(int(top - HEAD_MM / scan.spacing[2]), 0)] = False
    return inside


# -- drawing -------------------------------------------------------------------------------------


def sheet(rows: Sequence[tuple[str, Sequence[Cut], Window]], foot: int = 0) -> tuple[Figure, list[list[Panel]]]:
    """Return a black figure with rows of empty panels, each row one heading and one scale, and a strip below.

    ``rows`` holds heading, cuts and window of each; ``foot`` is the height of the strip, px.
    """
    scales, heights = [], []
    for _, cuts, (low, high) in rows:
        size = high - low
        widths = sum(size[ACROSS[axis][0]] for axis, _ in cuts)
        scales.append(min((WIDTH - GAP * (len(cuts) - 1)) / widths, LARGEST))
        heights.append(scales[-1] * max(size[ACROSS[axis][1]] for axis, _ in cuts))
    total = round(sum(heights) + len(rows) * (HEAD + GAP) + foot)
    figure = Figure(figsize=(WIDTH / DPI, total / DPI), dpi=DPI, facecolor="black")
    canvas = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, total), autoscale_on=False)
    canvas.set_axis_off()
    panels, top = [], float(total)
    for (heading, cuts, window), scale, height in zip(rows, scales, heights, strict=True):
        figure.text(0.004, (top - HEAD / 2) / total, heading, color="white", fontsize=FONT, va="center")
        top -= HEAD + height
        left, row = 0.0, []
        for axis, _ in cuts:
            low, size = (np.array(values)[list(ACROSS[axis])] for values in (window[0], window[1] - window[0]))
            panel = Panel(canvas, left, top + (height - scale * size[1]) / 2, scale, low, size)
            for text, x, align in zip("PA" if axis == SAGITTAL else "LR", (0.02, 0.98), ("left", "right"), strict=True):
                write(panel, x, 0.98, text, ha=align, va="top", weight="bold")
            row.append(panel)
            left += scale * size[0] + GAP
        panels.append(row)
        top -= GAP
    return figure, panels


@dataclass(frozen=True)
class Panel:
    """A part of the figure's one canvas (its units are px) that shows a window of a plane, mm.

    One set of matplotlib axes for the figure, not one a panel: making and drawing axes took a quarter of the time.
    """

    canvas: Axes
    left: float
    bottom: float
    scale: float  # px a mm
    low: np.ndarray  # mm to the right and up, (2,)
    size: np.ndarray  # mm, (2,)

    def px(self, right: Any, up: Any) -> tuple[Any, Any]:
        """Return where a position in mm lies on the canvas."""
        return self.left + self.scale * (right - self.low[0]), self.bottom + self.scale * (up - self.low[1])

    @property
    def top(self) -> float:
        """Upper edge, px."""
        return float(self.bottom + self.scale * self.size[1])

    def clip(self, artist: Artist) -> None:
        """Keep what is drawn inside the panel."""
        artist.set_clip_box(self.frame)

    @cached_property
    def frame(self) -> TransformedBbox:
        """The panel on the figure; one for all that is drawn in it."""
        return TransformedBbox(Bbox.from_bounds(self.left, self.bottom, *self.scale * self.size), self.canvas.transData)


def write(panel: Panel, x: float, y: float, text: str, **kwargs: Any) -> None:
    """Write in a panel; ``x`` and ``y`` are shares of its width and height."""
    width, height = panel.scale * panel.size
    panel.canvas.text(
        panel.left + x * width, panel.bottom + y * height, text, color="white", fontsize=FONT,
        path_effects=[withStroke(linewidth=3, foreground="black")], **kwargs,
    )  # fmt: skip


def _plane(volume: Volume, cut: Cut) -> np.ndarray:
    """Return the slice nearest to the cut, rows upwards; zeros where the volume does not reach."""
    axis, where = cut
    index = round((where - volume.affine[axis, 3]) / volume.spacing[axis])
    if not 0 <= index < volume.data.shape[axis]:
        return np.zeros([volume.data.shape[a] for a in reversed(ACROSS[axis])], volume.data.dtype)
    return volume.data[(slice(None),) * axis + (index,)].T


def _lines(volume: Volume, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mm of the voxel centres to the right and up."""
    right, up = (volume.affine[a, 3] + volume.spacing[a] * np.arange(volume.data.shape[a]) for a in ACROSS[axis])
    return right, up


def image(panel: Panel, volume: Volume, cut: Cut, cmap: Any, low: float, high: float | None, **kwargs: Any) -> None:
    """Show a plane of a canonical volume in a panel, black at ``low`` and white at ``high``."""
    right, up = _lines(volume, cut[0])
    half = [volume.spacing[a] / 2 for a in ACROSS[cut[0]]]
    lowest, highest = panel.px(right[0] - half[0], up[0] - half[1]), panel.px(right[-1] + half[0], up[-1] + half[1])
    extent = (lowest[0], highest[0], lowest[1], highest[1])
    image = panel.canvas.imshow(
        _plane(volume, cut), cmap=cmap, vmin=low, vmax=high, extent=extent, origin="lower", aspect="auto",
        **kwargs,
    )  # fmt: skip
    panel.clip(image)


def outline(panel: Panel, volume: Volume, cut: Cut, level: float, colour: str, width: float = 1.4) -> None:
    """Draw where a plane of a canonical volume crosses a level."""
    plane = _plane(volume, cut).astype(np.float32)
    if plane.min() < level <= plane.max():
        where = panel.px(*_lines(volume, cut[0]))
        panel.clip(panel.canvas.contour(*where, plane, levels=[level], colors=[colour], linewidths=width))


def keys(figure: Figure, row: Sequence[Panel], keys: Sequence[tuple[str, str]]) -> None:
    """Write the meaning of the colours at the right of the row's heading; ``keys`` holds (label, colour)."""
    top = (max(panel.top for panel in row) + HEAD / 2) / (figure.get_figheight() * DPI)
    handles = [Line2D([], [], color=colour, linewidth=4, label=label) for label, colour in keys]
    figure.legend(
        handles=handles, loc="center right", bbox_to_anchor=(1.0, top), ncols=len(keys), frameon=False,
        labelcolor="white", fontsize=FONT, handlelength=1.2, columnspacing=1.2, borderaxespad=0.2,
    )  # fmt: skip


def colour_bar(figure: Figure, foot: int, label: str, threshold: float | None = None) -> None:
    """Draw the belief's scale of colours in the strip below, ``foot`` px high, with the threshold's place in it."""
    total = figure.get_figheight() * DPI
    axes = figure.add_axes((0.3, 0.62 * foot / total, 0.4, 0.16 * foot / total))
    bar = figure.colorbar(
        ScalarMappable(Normalize(-BELIEF_LIMIT, BELIEF_LIMIT), "RdBu_r"), cax=axes, orientation="horizontal"
    )
    bar.set_label(label, color="white", fontsize=FONT)
    axes.tick_params(colors="white", labelsize=FONT)
    if threshold is not None:
        axes.axvline(threshold, color="black", linewidth=4)
        axes.annotate(
            f"threshold {threshold:.3g}", (threshold, 1), (0, 4), xycoords=("data", "axes fraction"),
            textcoords="offset points", color="white", fontsize=FONT, ha="center", va="bottom",
        )  # fmt: skip


def draw_slice(axes: Panel, scan: Volume, index: int, white: float | None) -> Cut:
    """Draw an axial slice of a canonical scan with its number, from below; return the cut."""
    cut = (AXIAL, position(scan, AXIAL, index))
    image(axes, scan, cut, "gray", 0, white)
    write(axes, 0.02, 0.02, f"slice {index + 1}/{scan.data.shape[2]}", va="bottom")
    return cut
