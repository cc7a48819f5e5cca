"""Slices of a volume as 8-bit images for the viewer in the pages: arrays in, JSON-ready layers out.

A volume becomes one lossless PNG, its axial slices as tiles from left to right and top to bottom, the lowest first,
each as it is shown: left of the patient on the left, anterior on top (as in `scan_panels`). The PNG holds pixels and
nothing else: no text, no date, no name. What the numbers of the pixels mean is told beside it.

A step of gray is 1 % of the brain's median, finer than the noise of a clinical scan (3 to 10 %), and nothing is
smoothed or quantised by a lossy codec, which could hide a small lesion or make one.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from bids_app.image.geometry import upright
from bids_app.records.scan import Volume

BRIGHT = 2.0  # white at first, in units of the median brain signal: lesions, at 1.3 to 1.8, do not saturate
STEP = 0.01  # of the unit, one level of gray
AIR = 0.15  # of the 98th percentile: below lies air
RIM_MM = 4.0  # of air kept around the head
BELOW_MM = 25.0  # kept below the brain mask: the medulla and the first of the cord
LARGEST_SIDE = 16384  # px that browsers decode
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Stack:
    """Where the slices of one viewer lie: a box of an upright grid."""

    grid: Volume
    box: Box

    def cut(self, data: np.ndarray) -> np.ndarray:
        """Return the box of an array (X, Y, Z) on the upright grid."""
        return data[self.box]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the box."""
        sizes = [part.stop - part.start for part in self.box]
        return sizes[0], sizes[1], sizes[2]


def stacked(volume: Volume) -> Volume:
    """Return the volume `upright`, axial slices side by side in memory, since most cuts are axial."""
    turned = upright(volume)
    return Volume(np.asfortranarray(turned.data), turned.affine)


def head(scan: Volume, brain: np.ndarray) -> np.ndarray:
    """Return what is head and not air, from 25 mm below the brain upwards, with a rim of 4 mm.

    Parameters
    ----------
    scan : Volume
        Upright (`stacked`).
    brain : ndarray of bool, shape (X, Y, Z)
        On the same grid; it is part of the head whatever the signal.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
        Without holes in any slice. Everything where nothing was found.
    """
    solid = (scan.data > AIR * np.percentile(scan.data, 98)) | brain
    filled = np.flatnonzero(brain.any(axis=(0, 1)))
    first = max(0, int(filled[0] - BELOW_MM / scan.spacing[2])) if filled.size else 0
    reach = [max(1, math.ceil(RIM_MM / size)) for size in scan.spacing[:2]]
    x, y = np.ogrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1]
    disk = (x / reach[0]) ** 2 + (y / reach[1]) ** 2 <= 1
    inside = np.zeros(solid.shape, bool)
    for k in range(first, solid.shape[2]):
        clean = ndimage.binary_opening(solid[:, :, k]) | brain[:, :, k]  # specks of noise in the air go
        inside[:, :, k] = ndimage.binary_fill_holes(ndimage.binary_dilation(clean, disk))
    return inside if inside.any() else np.ones(solid.shape, bool)


def around(grid: Volume, inside: np.ndarray) -> Stack:
    """Return the smallest box of an upright grid that holds ``inside`` (bool, not empty)."""
    found = ndimage.find_objects(inside.astype(np.uint8))[0]
    return Stack(grid, (found[0], found[1], found[2]))


def as_png(levels: np.ndarray) -> tuple[bytes, int]:
    r"""Return levels (X, Y, Z) of uint8 as one PNG of tiles, and how many tiles are in a row.

    >>> png, columns = as_png(np.zeros((4, 5, 6), np.uint8))
    >>> columns, png[:4]
    (3, b'\x89PNG')
    """
    width, height, count = levels.shape
    columns = min(max(1, math.ceil(math.sqrt(count * height / width))), max(1, LARGEST_SIDE // width))
    rows = math.ceil(count / columns)
    sheet = np.zeros((rows * height, columns * width), np.uint8)
    for k in range(count):
        row, column = divmod(k, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = levels[:, ::-1, k].T
    stream = BytesIO()
    Image.fromarray(sheet).save(stream, "PNG", compress_level=6)
    return stream.getvalue(), columns


def as_levels(values: np.ndarray, low: float, step: float) -> np.ndarray:
    """Return values as whole steps above ``low`` in 0 to 255, clipped; nan becomes 0."""
    steps = np.rint((np.nan_to_num(values, nan=low) - low) / step)
    return np.clip(steps, 0, 255).astype(np.uint8)


def layer(name: str, levels: np.ndarray, kind: str, **meaning: Any) -> dict[str, Any]:
    """Return a layer of the viewer, ready for JSON: how its pixels are read and shown, and the pixels.

    Parameters
    ----------
    name : str
        As the reader sees it.
    levels : ndarray of uint8, shape (X, Y, Z)
    kind : str
        ``gray``: the picture itself; ``ramp``: values in colours; ``labels``: each level one class;
        ``edge``: the border of what is not 0.
    meaning
        ``low``, ``step``, ``unit`` (value of a pixel), ``window`` (lowest and highest value shown), ``hide``
        (values nearer to 0 than this are transparent), ``colours``, ``names``, ``on``, ``fade``.
    """
    png, columns = as_png(levels)
    about = {"name": name, "kind": kind, "columns": columns, "sum": int(levels.sum()), **meaning}
    return {**about, "png": b64encode(png).decode()}


def gray(stack: Stack, scan: np.ndarray, unit: float, inside: np.ndarray | None = None) -> dict[str, Any]:
    """Return the layer of a scan (X, Y, Z): a level is 1 % of ``unit``, clipped at 2.55 units; black outside."""
    shown = scan if inside is None else np.where(inside, scan, 0)
    levels = as_levels(stack.cut(shown), 0.0, STEP * unit)
    window = [0.0, BRIGHT]
    return layer("FLAIR", levels, "gray", low=0.0, step=STEP, unit="x median of the brain", window=window)


def spec(stack: Stack, layers: Sequence[Mapping[str, Any]], *, planes: Sequence[str], places: bool) -> dict[str, Any]:
    """Return what the viewer is given for one volume, ready for JSON.

    Parameters
    ----------
    layers : sequence of mapping
        From `layer`; the first is the picture, the others lie on it.
    planes : sequence of str
        Of ``axial``, ``coronal``, ``sagittal``.
    places : bool
        Whether positions in mm are told: not where scans must stay unknown.
    """
    found: dict[str, Any] = {
        "shape": list(stack.shape),
        "spacing": [round(float(size), 4) for size in stack.grid.spacing],
        "planes": list(planes),
        "layers": [dict(each) for each in layers],
    }
    if places:
        affine = stack.grid.affine
        origin = affine[:3, :3] @ [part.start for part in stack.box] + affine[:3, 3]
        found["affine"] = [[round(float(x), 4) for x in (*affine[i, :3], origin[i])] for i in range(3)]
    return found


def blinded(flair: Volume, brain: Volume) -> dict[str, Any]:
    """Return the viewer's data of a scan without anything that tells where it comes from.

    Parameters
    ----------
    flair, brain : Volume
        Bias-corrected scan and brain mask on one grid, axes as stored.
    """
    scan, mask = stacked(flair), stacked(brain).data > 0
    inside = head(scan, mask)
    stack = around(scan, inside)
    unit = float(np.median(scan.data[mask])) if mask.any() else float(np.percentile(scan.data, 75))
    return spec(stack, [gray(stack, scan.data, unit or 1.0, inside)], planes=("axial",), places=False)


# -- the layers of the reports -------------------------------------------------------------------

TISSUES = (None, "#b0b0b0", "#f0e442", "#56b4e9")  # as in the figures: GM, WM, fluid
TISSUE_NAMES = ("outside", "gray matter", "white matter", "fluid")
DIVERGING = ("#053061", "#2166ac", "#67a9cf", "#d1e5f0", "#f7f7f7", "#fddbc7", "#ef8a62", "#b2182b", "#67001f")
FAINT = (
    0.03  # of the largest part in a decision: what is less stays transparent (a soft map has some nearly everywhere)
)
BELIEF_LIMIT = 0.8  # ends of its colours, as in the figures
BELIEF_STEP = 0.02  # of belief, one level


def edge(stack: Stack, name: str, mask: np.ndarray, colour: str, **meaning: Any) -> dict[str, Any]:
    """Return the layer of a mask (X, Y, Z), drawn as its border."""
    return layer(name, stack.cut(mask > 0).astype(np.uint8), "edge", colours=[colour], **meaning)


def labels(
    stack: Stack, name: str, classes: np.ndarray, colours: Sequence[str | None], names: Sequence[str], **meaning: Any
) -> dict[str, Any]:
    """Return the layer of classes (X, Y, Z), numbered from 1; 0 is transparent."""
    cut = stack.cut(classes).astype(np.uint8)
    return layer(name, cut, "labels", colours=list(colours), names=list(names), **meaning)


def ramp(
    stack: Stack, name: str, values: np.ndarray, window: tuple[float, float], step: float, **meaning: Any
) -> dict[str, Any]:
    """Return the layer of values (X, Y, Z) in colours from end to end of ``window``; nan is transparent.

    Levels 1 to 255 stand for values ``step`` apart, what is beyond is clipped; level 0 would be ``low``, by default
    such that the window's middle is level 128.
    """
    cut = stack.cut(values)
    low = float(meaning.pop("low", (window[0] + window[1]) / 2 - 128 * step))
    levels = np.where(np.isnan(cut), 0, np.maximum(as_levels(cut, low, step), 1)).astype(np.uint8)
    return layer(name, levels, "ramp", low=low, step=step, window=list(window), **meaning)


def reported(
    flair: Volume,
    tissues: Volume,
    lesions: Mapping[str, tuple[Volume, str]],
    belief: Volume | None = None,
    contribution: Volume | None = None,
) -> dict[str, Any]:
    """Return the viewer's data of a scan in its participant's report.

    Parameters
    ----------
    flair, tissues : Volume
        Bias-corrected scan and classes (1 GM, 2 WM, 3 fluid) on one grid, axes as stored.
    lesions : mapping of str to (Volume, str)
        Masks and their colour by name.
    belief : Volume, optional
        Belief map; it makes the page about twice as large.
    contribution : Volume, optional
        What each voxel added to a prediction's decision value.
    """
    scan, classes = stacked(flair), stacked(tissues).data
    brain = classes > 0
    inside = head(scan, brain)
    stack = around(scan, inside)
    unit = float(np.median(scan.data[brain])) if brain.any() else 1.0
    layers = [gray(stack, scan.data, unit or 1.0, inside)]
    layers.append(labels(stack, "Tissues", classes, TISSUES, TISSUE_NAMES, on=False, fade=0.5))
    if belief is not None:
        values = np.where(brain, stacked(belief).data, np.nan)
        shown = {"colours": DIVERGING, "hide": 0.0, "signed": True, "on": False, "fade": 0.6}
        layers.append(ramp(stack, "Belief", values, (-BELIEF_LIMIT, BELIEF_LIMIT), BELIEF_STEP, **shown))
    layers.append(edge(stack, "Brain mask", brain, "#d55e00", on=False))
    for name, (mask, colour) in lesions.items():
        layers.append(edge(stack, name, stacked(mask).data, colour, on=True))
    if contribution is not None:
        parts = stacked(contribution).data
        most = float(np.abs(parts).max()) or 1.0
        shown = {"colours": DIVERGING, "hide": 0.0, "signed": True, "on": False, "fade": 0.8}
        values = np.where(np.abs(parts) > FAINT * most, parts, np.nan)
        layers.append(ramp(stack, "Part in the decision", values, (-most, most), most / 127, **shown))
    return spec(stack, layers, planes=("axial",), places=True)


# -- small pictures ------------------------------------------------------------------------------

GLANCE_MM = (0.0, 24.0)  # heights in template space, the same for every scan so that scans compare
GLANCE_WINDOW = 0.6  # belief, ends of the grays
ORANGE = (230, 159, 0)


def glance(belief: Volume, lesion: Volume) -> bytes:
    """Return a small PNG of a scan in template space: two axial slices of the belief map, lesions in orange.

    Parameters
    ----------
    belief, lesion : Volume
        On the template's 3 mm grid.
    """
    shown, marked = stacked(belief), stacked(lesion).data > 0
    levels = np.clip((shown.data + GLANCE_WINDOW) / (2 * GLANCE_WINDOW), 0, 1)
    levels = np.where(shown.data == 0, 0, 10 + np.rint(245 * levels)).astype(np.uint8)  # 0 is outside the brain
    tiles = []
    for height in GLANCE_MM:
        k = int(np.clip(round((height - shown.affine[2, 3]) / shown.spacing[2]), 0, levels.shape[2] - 1))
        tile = np.repeat(levels[:, ::-1, k].T[..., None], 3, axis=2)
        tile[marked[:, ::-1, k].T] = ORANGE
        tiles.append(tile)
    stream = BytesIO()
    picture = Image.fromarray(np.concatenate(tiles, axis=1))
    picture.quantize(64, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(stream, "PNG")
    return stream.getvalue()
