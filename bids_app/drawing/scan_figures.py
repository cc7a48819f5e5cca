"""Figures of one scan: arrays in, PNG bytes out.

Colours are those of Okabe and Ito's palette, safe for colour-blind readers; `scan_panels` tells how planes are shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from bids_app.drawing import scan_panels as panels
from bids_app.drawing.scan_panels import AXIAL, BELIEF_LIMIT, CORONAL, DPI, FONT, SAGITTAL, WIDTH, Cut, as_png
from bids_app.image import atlas
from bids_app.image.geometry import upright
from bids_app.records.scan import Priors, Tissues, Volume

ORANGE, SKY, YELLOW, VERMILION = "#E69F00", "#56B4E9", "#F0E442", "#D55E00"
SHOWN = {"published": ORANGE, "normative": SKY, "network": YELLOW, "external": VERMILION}  # lesion maps, left to right
COLUMNS = 6
ROWS = 5  # slices on which the lesion maps are compared
EDGE = 0.55  # synthetic FLAIR (GM = 1) half way from fluid to tissue
BRIGHT = 2.0  # white, in units of the median brain signal: lesions, at 1.3 to 1.8, do not saturate
APART_MM = 4.0  # between slices chosen for their lesions


@as_png
def registration(scan: Volume, priors: Priors, mask: np.ndarray, warped: Volume) -> Figure:
    """Return the PNG of the alignment, seen from both sides.

    Parameters
    ----------
    scan : Volume
        Bias-corrected FLAIR.
    priors : Priors
        The template's maps carried onto the scan's grid.
    mask : ndarray of bool, shape (X, Y, Z)
        The scan's brain, found without the template: where its outline and the template's part, one of them is wrong.
    warped : Volume
        The scan on the template's grid, 3 mm.
    """
    native, inside = upright(scan), upright(scan.like(mask))
    carried, edges = (upright(scan.like(data)) for data in (priors.mask, priors.flair))
    template, goal = atlas.load(), upright(warped)
    chosen = panels.spread(panels.profile(inside.data), COLUMNS)
    cuts: list[Cut] = [(AXIAL, -12), (AXIAL, 18), (CORONAL, -45), (CORONAL, 0), (SAGITTAL, -30), (SAGITTAL, 0)]
    figure, (upper, lower) = panels.sheet([
        ("Scan, with the edges of the template", [(AXIAL, 0.0)] * len(chosen), panels.window(inside.data, native, 12)),
        ("Template space, with the edges of the template", cuts, panels.window(template.mask.data, template.mask, 8)),
    ])  # fmt: skip
    white = BRIGHT * float(np.median(scan.data[mask])) if mask.any() else None
    for axes, index in zip(upper, chosen, strict=True):
        cut = panels.draw_slice(axes, native, index, white)
        panels.outline(axes, edges, cut, EDGE, ORANGE, 0.9)
        panels.outline(axes, carried, cut, 0.5, VERMILION, 0.9)
        panels.outline(axes, inside, cut, 0.5, SKY)
    for axes, cut in zip(lower, cuts, strict=True):
        panels.image(axes, goal, cut, "gray", 0, white)
        panels.write(axes, 0.02, 0.02, f"{'xyz'[cut[0]]} = {cut[1]:+.0f} mm", va="bottom")
        panels.outline(axes, template.flair, cut, EDGE, ORANGE, 0.9)
        panels.outline(axes, template.mask, cut, 0.5, VERMILION)
    meaning = [("brain mask", SKY), ("template's brain", VERMILION), ("template's tissue against fluid", ORANGE)]
    panels.keys(figure, upper, meaning)
    return figure


@as_png
def tissues(scan: Volume, tissues: Tissues) -> Figure:
    """Return the PNG of brain mask and tissues on native slices, as outlines and filled."""
    native, labels = upright(scan), upright(scan.like(tissues.labels))
    inside = labels.like(labels.data > 0)
    parts = [labels.like(labels.data == label) for label in (2, 3)]
    chosen = panels.spread(panels.profile(inside.data), COLUMNS)
    cuts, window = [(AXIAL, 0.0)] * len(chosen), panels.window(inside.data, native, 8)
    figure, (upper, lower) = panels.sheet([("Edges of the tissues", cuts, window), ("Tissues", cuts, window)])
    white = BRIGHT * float(np.median(scan.data[tissues.mask]))
    for outlined, filled, index in zip(upper, lower, chosen, strict=True):
        cut = panels.draw_slice(outlined, native, index, white)
        for part, colour in zip(parts, (YELLOW, SKY), strict=True):
            panels.outline(outlined, part, cut, 0.5, colour, 0.8)
        panels.outline(outlined, inside, cut, 0.5, VERMILION)
        panels.draw_slice(filled, native, index, white)
        panels.image(filled, labels, cut, ListedColormap(["#00000000", "#B0B0B0", YELLOW, SKY]), 0, 3, alpha=0.75)
    panels.keys(figure, upper, [("brain mask", VERMILION), ("white matter", YELLOW), ("fluid", SKY)])
    panels.keys(figure, lower, [("gray matter", "#B0B0B0"), ("white matter", YELLOW), ("fluid", SKY)])
    return figure


@as_png
def belief(belief: Volume, brain: np.ndarray, threshold: float) -> Figure:
    """Return the PNG of the belief map: blue below, white at, red above the gray matter's mean."""
    native, inside = upright(belief), upright(belief.like(brain))
    shown = native.like(np.where(inside.data, native.data, np.nan))
    chosen = panels.spread(panels.profile(inside.data), 2 * COLUMNS)
    halves = [half for half in (chosen[:COLUMNS], chosen[COLUMNS:]) if half]
    window = panels.window(inside.data, native, 4)
    heading = ["Gray matter belief map, (F - mean of GM) / mean of GM", "continued, upwards"]
    rows = [(heading[i], [(AXIAL, 0.0)] * len(half), window) for i, half in enumerate(halves)]
    figure, drawn = panels.sheet(rows, foot := 130)
    for axes, index in zip(chain.from_iterable(drawn), chosen, strict=True):
        cut = (AXIAL, panels.position(native, AXIAL, index))
        panels.image(axes, shown, cut, "RdBu_r", -BELIEF_LIMIT, BELIEF_LIMIT)
        panels.outline(axes, native, cut, threshold, "black", 0.8)
        panels.write(axes, 0.02, 0.02, f"slice {index + 1}/{native.data.shape[2]}", va="bottom")
    panels.keys(figure, drawn[0], [("above the threshold: black line", "black")])
    panels.colour_bar(figure, foot, "belief", threshold)
    return figure


@as_png
def lesions(scan: Volume, maps: Mapping[str, np.ndarray]) -> Figure:
    """Return the PNG of the lesion maps side by side: fullest slices, a row each, plain and with each map's outline.

    ``maps`` holds masks (X, Y, Z) by name; `SHOWN` says which are drawn, and how.
    """
    native, head = upright(scan), panels.foreground(upright(scan))
    drawn = {name: upright(scan.like(maps[name] > 0)) for name in SHOWN if name in maps}
    # every map counts the same, however much it holds
    shares = [panels.profile(each.data) / max(each.data.sum(), 1) for each in drawn.values()]
    chosen = panels.fullest(np.sum(shares, axis=0), ROWS, max(1, round(APART_MM / native.spacing[2])))
    found = bool(chosen)
    chosen = chosen or panels.spread(panels.profile(head), ROWS + 2)[1:-1]
    window, white = panels.window(head, native, 2), BRIGHT * float(np.median(native.data[head]))
    cuts = [(AXIAL, 0.0)] * (1 + len(drawn))
    heading = "Slices with most lesion" if found else "No lesion in any map: plain slices"
    figure, rows = panels.sheet([(heading if not k else "", cuts, window) for k in range(len(chosen))])
    for row, index in zip(rows, chosen, strict=True):
        panels.draw_slice(row[0], native, index, white)
        for axes, (name, mask) in zip(row[1:], drawn.items(), strict=True):
            cut = panels.draw_slice(axes, native, index, white)
            panels.outline(axes, mask, cut, 0.5, SHOWN[name], 1.2)
    panels.keys(figure, rows[0], [(name, SHOWN[name]) for name in drawn])
    return figure


@as_png
def template(lesion: Volume, belief: Volume) -> Figure:
    """Return the PNG of lesion and belief map on the T1w template, both at 3 mm in template space."""
    under, mask = atlas.background(2), atlas.brain_grid(2)
    lesion, belief = upright(lesion), upright(belief)
    inside = upright(atlas.brain_grid(3)).data
    found = bool((lesion.data > 0).any())
    counts = [panels.profile(lesion.data > 0, axis) for axis in range(3)]
    gap = 4  # voxels, 12 mm
    axial = panels.fullest(counts[AXIAL], 5, gap) if found else panels.spread(panels.profile(inside), 7)[1:-1]
    where = {axis: int(counts[axis].argmax()) if found else lesion.data.shape[axis] // 2 for axis in range(2)}
    indices = [(AXIAL, i) for i in axial] + [(CORONAL, where[CORONAL]), (SAGITTAL, where[SAGITTAL])]
    cuts = [(axis, panels.position(lesion, axis, i)) for axis, i in indices]
    window = panels.window(mask.data, mask, 4)
    heading = "Lesion map, 3 mm, MNI152NLin2009aSym" if found else "No lesion above the threshold"
    figure, (upper, lower) = panels.sheet([(heading, cuts, window), ("Belief map", cuts, window)], foot := 110)
    marked = lesion.like(np.where(lesion.data > 0, 1.0, np.nan))
    shown = belief.like(np.where(inside, belief.data, np.nan))
    for above, below, cut in zip(upper, lower, cuts, strict=True):
        panels.image(above, under, cut, "gray", 0, 1)
        panels.image(above, marked, cut, ListedColormap([VERMILION]), 0, 1, interpolation="nearest")
        panels.image(below, shown, cut, "RdBu_r", -BELIEF_LIMIT, BELIEF_LIMIT)
        panels.outline(below, mask, cut, 0.5, "white", 0.8)
        for axes in (above, below):
            panels.write(axes, 0.02, 0.02, f"{'xyz'[cut[0]]} = {cut[1]:+.0f} mm", va="bottom")
    panels.colour_bar(figure, foot, "belief")
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
