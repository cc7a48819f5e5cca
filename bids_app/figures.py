"""Figures of one scan: arrays in, PNG bytes out, drawn without pyplot so that nothing is global.

Conventions, the same in every figure: neurological (left of the patient is left of the picture), upright, true
proportions whatever the voxel size and the order of the stored axes, colours of Okabe and Ito's palette (safe for
colour-blind readers), white text on black around scans. Equal arrays give equal bytes on the same versions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from io import BytesIO
from itertools import chain
from typing import Any, ParamSpec

import numpy as np
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from PIL import Image

from bids_app import atlas
from bids_app.records import Tissues, Volume

ORANGE, SKY, GREEN, YELLOW, VERMILION = "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00"
WIDTH, DPI, FONT = 1600, 100, 13.5  # px, px an inch, points: 12 px of text on a page 1,100 px wide
HEAD, GAP = 44, 6  # px: heading above a row, and between panels
COLUMNS = 6
LARGEST = 3.2  # px a mm, where a row has few panels
EDGE = 0.55  # head signal (GM = 1) half way from fluid to tissue
BELIEF_LIMIT = 0.8  # ends of the colour scale, the same for every scan so that scans compare
BRIGHT = 2.0  # white, in units of the median brain signal: lesions, at 1.3 to 1.8, do not saturate
APART_MM = 4.0  # between slices chosen for their lesions
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
        image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(stream, "PNG")
        return stream.getvalue()

    return drawn


# -- geometry ------------------------------------------------------------------------------------


def _canonical(volume: Volume) -> Volume:
    """Return the volume with its axes permuted and flipped to point right, anterior and superior."""
    orientation = io_orientation(volume.affine)
    affine = volume.affine @ inv_ornt_aff(orientation, volume.data.shape)
    # axial slices side by side in memory, since most cuts are axial
    return Volume(np.asfortranarray(apply_orientation(volume.data, orientation)), affine)


def _window(inside: np.ndarray, grid: Volume, margin: float) -> Window:
    """Return the box around ``inside`` (bool, on the canonical grid) plus a margin, mm; the whole grid if empty."""
    low, high = np.zeros(3), np.array(inside.shape) - 1.0
    for axis in range(3):
        seen = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        if seen.size:
            low[axis], high[axis] = seen[0], seen[-1]
    origin, spacing = grid.affine[:3, 3], grid.spacing
    return origin + low * spacing - margin, origin + high * spacing + margin


def _profile(inside: np.ndarray, axis: int = AXIAL) -> np.ndarray:
    return inside.sum(axis=tuple(a for a in range(3) if a != axis))


def _position(grid: Volume, axis: int, index: int) -> float:
    return float(grid.affine[axis, 3] + index * grid.spacing[axis])


def _spread(profile: np.ndarray, count: int) -> list[int]:
    """Return at most ``count`` indices, even over the slices that hold at least a sixth of the fullest one."""
    seen = np.flatnonzero(profile * 6 >= profile.max())
    return [int(i) for i in np.unique(np.linspace(seen[0], seen[-1], count).round())]


def _fullest(profile: np.ndarray, count: int, gap: int) -> list[int]:
    """Return at most ``count`` indices with the highest positive profile, ``gap`` or more apart, ascending."""
    chosen: list[int] = []
    for i in np.argsort(-profile, kind="stable"):
        if profile[i] > 0 and len(chosen) < count and all(abs(i - j) >= gap for j in chosen):
            chosen.append(int(i))
    return sorted(chosen)


def _foreground(scan: Volume) -> np.ndarray:
    """Return the upper 140 mm of the head in a canonical scan: what is not air."""
    inside = scan.data > 0.15 * np.percentile(scan.data, 98)
    profile = _profile(inside)
    top = np.flatnonzero(profile * 10 >= profile.max())[-1]
    inside[:, :, : max(int(top - HEAD_MM / scan.spacing[2]), 0)] = False
    return inside


# -- drawing -------------------------------------------------------------------------------------


def _sheet(rows: Sequence[tuple[str, Sequence[Cut], Window]], foot: int = 0) -> tuple[Figure, list[list[Panel]]]:
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
                _write(panel, x, 0.98, text, ha=align, va="top", weight="bold")
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
        width, height = self.scale * self.size
        artist.set_clip_path(Rectangle((self.left, self.bottom), width, height, transform=self.canvas.transData))


def _write(panel: Panel, x: float, y: float, text: str, **kwargs: Any) -> None:
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


def _image(panel: Panel, volume: Volume, cut: Cut, cmap: Any, low: float, high: float | None, **kwargs: Any) -> None:
    right, up = _lines(volume, cut[0])
    half = [volume.spacing[a] / 2 for a in ACROSS[cut[0]]]
    lowest, highest = panel.px(right[0] - half[0], up[0] - half[1]), panel.px(right[-1] + half[0], up[-1] + half[1])
    extent = (lowest[0], highest[0], lowest[1], highest[1])
    image = panel.canvas.imshow(
        _plane(volume, cut), cmap=cmap, vmin=low, vmax=high, extent=extent, origin="lower", aspect="auto",
        **kwargs,
    )  # fmt: skip
    panel.clip(image)


def _outline(panel: Panel, volume: Volume, cut: Cut, level: float, colour: str, width: float = 1.4) -> None:
    plane = _plane(volume, cut).astype(np.float32)
    if plane.min() < level <= plane.max():
        where = panel.px(*_lines(volume, cut[0]))
        panel.clip(panel.canvas.contour(*where, plane, levels=[level], colors=[colour], linewidths=width))


def _keys(figure: Figure, row: Sequence[Panel], keys: Sequence[tuple[str, str]]) -> None:
    """Write the meaning of the colours at the right of the row's heading; ``keys`` holds (label, colour)."""
    top = (max(panel.top for panel in row) + HEAD / 2) / (figure.get_figheight() * DPI)
    handles = [Line2D([], [], color=colour, linewidth=4, label=label) for label, colour in keys]
    figure.legend(
        handles=handles, loc="center right", bbox_to_anchor=(1.0, top), ncols=len(keys), frameon=False,
        labelcolor="white", fontsize=FONT, handlelength=1.2, columnspacing=1.2, borderaxespad=0.2,
    )  # fmt: skip


def _colour_bar(figure: Figure, foot: int, label: str, threshold: float | None = None) -> None:
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


def _scan(axes: Panel, scan: Volume, index: int, white: float | None) -> Cut:
    """Draw an axial slice of a canonical scan with its number, from below; return the cut."""
    cut = (AXIAL, _position(scan, AXIAL, index))
    _image(axes, scan, cut, "gray", 0, white)
    _write(axes, 0.02, 0.02, f"slice {index + 1}/{scan.data.shape[2]}", va="bottom")
    return cut


# -- the figures ---------------------------------------------------------------------------------


@as_png
def registration(scan: Volume, head: np.ndarray, mask: np.ndarray, warped: Volume) -> Figure:
    """Return the PNG of the alignment, seen from both sides.

    Parameters
    ----------
    scan : Volume
        Bias-corrected FLAIR.
    head : ndarray, shape (X, Y, Z)
        The template's synthetic head carried onto the scan's grid (gray matter = 1).
    mask : ndarray, shape (X, Y, Z)
        The template's brain mask carried onto the scan's grid, bool or share.
    warped : Volume
        The scan on the template's grid, 3 mm.
    """
    brain = mask > 0.5
    native, inside = _canonical(scan), _canonical(scan.like(brain))
    edges = _canonical(scan.like(np.where(brain, head, 0)))
    template, goal = atlas.load(), _canonical(warped)
    chosen = _spread(_profile(inside.data), COLUMNS)
    cuts: list[Cut] = [(AXIAL, -12), (AXIAL, 18), (CORONAL, -45), (CORONAL, 0), (SAGITTAL, -30), (SAGITTAL, 0)]
    figure, (upper, lower) = _sheet([
        ("Scan, with the edges of the template", [(AXIAL, 0.0)] * len(chosen), _window(inside.data, native, 12)),
        ("Template space, with the edges of the template", cuts, _window(template.mask.data, template.mask, 8)),
    ])  # fmt: skip
    white = BRIGHT * float(np.median(scan.data[brain])) if brain.any() else None
    for axes, index in zip(upper, chosen, strict=True):
        cut = _scan(axes, native, index, white)
        _outline(axes, edges, cut, EDGE, ORANGE, 0.9)
        _outline(axes, inside, cut, 0.5, SKY)
    core = template.mask.like(template.head.data * template.mask.data)
    for axes, cut in zip(lower, cuts, strict=True):
        _image(axes, goal, cut, "gray", 0, white)
        _write(axes, 0.02, 0.02, f"{'xyz'[cut[0]]} = {cut[1]:+.0f} mm", va="bottom")
        _outline(axes, core, cut, EDGE, ORANGE, 0.9)
        _outline(axes, template.mask, cut, 0.5, SKY)
    _keys(figure, upper, [("brain mask", SKY), ("tissue against fluid", ORANGE)])
    return figure


@as_png
def tissues(scan: Volume, tissues: Tissues) -> Figure:
    """Return the PNG of brain mask and tissues on native slices, as outlines and filled."""
    native, labels = _canonical(scan), _canonical(scan.like(tissues.labels))
    inside = labels.like(labels.data > 0)
    parts = [labels.like(labels.data == label) for label in (2, 3)]
    chosen = _spread(_profile(inside.data), COLUMNS)
    cuts, window = [(AXIAL, 0.0)] * len(chosen), _window(inside.data, native, 8)
    figure, (upper, lower) = _sheet([("Edges of the tissues", cuts, window), ("Tissues", cuts, window)])
    white = BRIGHT * float(np.median(scan.data[tissues.mask]))
    for outlined, filled, index in zip(upper, lower, chosen, strict=True):
        cut = _scan(outlined, native, index, white)
        for part, colour in zip(parts, (YELLOW, SKY), strict=True):
            _outline(outlined, part, cut, 0.5, colour, 0.8)
        _outline(outlined, inside, cut, 0.5, VERMILION)
        _scan(filled, native, index, white)
        _image(filled, labels, cut, ListedColormap(["#00000000", "#B0B0B0", YELLOW, SKY]), 0, 3, alpha=0.75)
    _keys(figure, upper, [("brain mask", VERMILION), ("white matter", YELLOW), ("fluid", SKY)])
    _keys(figure, lower, [("gray matter", "#B0B0B0"), ("white matter", YELLOW), ("fluid", SKY)])
    return figure


@as_png
def belief(belief: Volume, brain: np.ndarray, threshold: float) -> Figure:
    """Return the PNG of the belief map: blue below, white at, red above the gray matter's mean."""
    native, inside = _canonical(belief), _canonical(belief.like(brain))
    shown = native.like(np.where(inside.data, native.data, np.nan))
    chosen = _spread(_profile(inside.data), 2 * COLUMNS)
    halves = [half for half in (chosen[:COLUMNS], chosen[COLUMNS:]) if half]
    window = _window(inside.data, native, 4)
    heading = ["Gray matter belief map, (F - mean of GM) / mean of GM", "continued, upwards"]
    rows = [(heading[i], [(AXIAL, 0.0)] * len(half), window) for i, half in enumerate(halves)]
    figure, panels = _sheet(rows, foot := 130)
    for axes, index in zip(chain.from_iterable(panels), chosen, strict=True):
        cut = (AXIAL, _position(native, AXIAL, index))
        _image(axes, shown, cut, "RdBu_r", -BELIEF_LIMIT, BELIEF_LIMIT)
        _outline(axes, native, cut, threshold, "black", 0.8)
        _write(axes, 0.02, 0.02, f"slice {index + 1}/{native.data.shape[2]}", va="bottom")
    _keys(figure, panels[0], [("above the threshold: black line", "black")])
    _colour_bar(figure, foot, "belief", threshold)
    return figure


@as_png
def lesions(scan: Volume, published: np.ndarray, cleaned: np.ndarray) -> Figure:
    """Return the PNG of the lesion maps: fullest slices, each plain and with outlines below it."""
    native = _canonical(scan)
    maps = [_canonical(scan.like(lesion > 0)) for lesion in (published, cleaned)]
    head = _foreground(native)
    profile = _profile(maps[0].data) + 3 * _profile(maps[1].data)  # what cleaning kept is what to look at
    chosen = _fullest(profile, 2 * COLUMNS, max(1, round(APART_MM / native.spacing[2])))
    found = bool(chosen)
    chosen = chosen or _spread(_profile(head), 2 * COLUMNS)[1:-1]
    window, white = _window(head, native, 2), BRIGHT * float(np.median(native.data[head]))
    rows = []
    for start in range(0, len(chosen), COLUMNS):
        cuts = [(AXIAL, 0.0)] * len(chosen[start : start + COLUMNS])
        plain = "Slices with most lesion, plain" if found else "No lesion above the threshold: plain slices"
        rows += [(plain, cuts, window)] + ([("The same slices with the lesion maps", cuts, window)] if found else [])
    figure, panels = _sheet(rows)
    for i, row in enumerate(panels):
        start = (i // 2 if found else i) * COLUMNS
        for axes, index in zip(row, chosen[start : start + COLUMNS], strict=True):
            cut = _scan(axes, native, index, white)
            if found and i % 2:
                _outline(axes, maps[0], cut, 0.5, ORANGE, 1.2)
                _outline(axes, maps[1], cut, 0.5, SKY, 1.2)
        if found and i % 2:
            _keys(figure, row, [("belief above threshold", ORANGE), ("kept after cleaning", SKY)])
    return figure


@as_png
def template(lesion: Volume, belief: Volume) -> Figure:
    """Return the PNG of lesion and belief map on the T1w template, both at 3 mm in template space."""
    under, mask = atlas.background(2), atlas.brain_grid(2)
    lesion, belief = _canonical(lesion), _canonical(belief)
    inside = _canonical(atlas.brain_grid(3)).data
    found = bool((lesion.data > 0).any())
    counts = [_profile(lesion.data > 0, axis) for axis in range(3)]
    gap = 4  # voxels, 12 mm
    axial = _fullest(counts[AXIAL], 5, gap) if found else _spread(_profile(inside), 7)[1:-1]
    where = {axis: int(counts[axis].argmax()) if found else lesion.data.shape[axis] // 2 for axis in range(2)}
    indices = [(AXIAL, i) for i in axial] + [(CORONAL, where[CORONAL]), (SAGITTAL, where[SAGITTAL])]
    cuts = [(axis, _position(lesion, axis, i)) for axis, i in indices]
    window = _window(mask.data, mask, 4)
    heading = "Lesion map, 3 mm, MNI152NLin2009aSym" if found else "No lesion above the threshold"
    figure, (upper, lower) = _sheet([(heading, cuts, window), ("Belief map", cuts, window)], foot := 110)
    marked = lesion.like(np.where(lesion.data > 0, 1.0, np.nan))
    shown = belief.like(np.where(inside, belief.data, np.nan))
    for above, below, cut in zip(upper, lower, cuts, strict=True):
        _image(above, under, cut, "gray", 0, 1)
        _image(above, marked, cut, ListedColormap([VERMILION]), 0, 1, interpolation="nearest")
        _image(below, shown, cut, "RdBu_r", -BELIEF_LIMIT, BELIEF_LIMIT)
        _outline(below, mask, cut, 0.5, "white", 0.8)
        for axes in (above, below):
            _write(axes, 0.02, 0.02, f"{'xyz'[cut[0]]} = {cut[1]:+.0f} mm", va="bottom")
    _colour_bar(figure, foot, "belief")
    return figure


@as_png
def histogram(values_tissue: np.ndarray, values_gm: np.ndarray, threshold: float) -> Figure:
    """Return the PNG of the belief's histogram: brain tissue, gray matter, threshold, mean and SD."""
    figure = Figure(figsize=(WIDTH / DPI, 6.0), dpi=DPI)
    axes = figure.add_axes((0.07, 0.13, 0.92, 0.84))
    edges = [float(edge) for edge in np.linspace(-1, 1.5, 126)]
    for values, label, colour in ((values_tissue, "gray and white matter", SKY), (values_gm, "gray matter", "black")):
        values = np.asarray(values, np.float64).ravel()
        if not values.size:
            continue
        label = f"{label}: mean {values.mean():+.3f}, SD {values.std():.3f}, {values.size:,} voxels"
        style_ = {"histtype": "stepfilled"} if colour == SKY else {"histtype": "step", "linewidth": 2}
        axes.hist(np.clip(values, edges[0], edges[-1]), edges, color=colour, label=label, **style_)
    above = float(np.mean(np.asarray(values_tissue) > threshold)) if np.size(values_tissue) else 0.0
    axes.axvline(threshold, color=VERMILION, linewidth=2.5, label=f"threshold {threshold:.3f}: {above:.2%} above")
    axes.set_yscale("log")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel("belief, (F - mean of GM) / mean of GM; the end bins hold all beyond", fontsize=FONT)
    axes.set_ylabel("voxels", fontsize=FONT)
    axes.tick_params(labelsize=FONT)
    axes.legend(fontsize=FONT, loc="upper right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
