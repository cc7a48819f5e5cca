"""Figures of the group level on the brain: records in, PNG bytes out (the charts are in `charts`).

Red is where the positive group (RRMS) is more often lesioned and blue where the negative one (NMOSD) is; the rest of
the conventions is in `template_slices`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from scipy.stats import chi2 as chi2_distribution

from bids_app.drawing.charts import DPI, FONT, INK, WIDTH, curves, plain, summary_plot, workflow
from bids_app.drawing.recipe_charts import recipes, reliability
from bids_app.drawing.scan_panels import as_png
from bids_app.drawing.template_slices import (
    FOOT,
    GAP,
    HEAD,
    SLICES,
    bar,
    fullest,
    heights,
    overlay,
    sheet,
    window,
)
from bids_app.image import atlas
from bids_app.records.cohort import Cohort, Ranking
from bids_app.records.results import Evaluation, GroupResult

__all__ = ["chi2_map", "chosen_beside", "curves", "draw", "frequency", "misclassified", "selected", "summary_plot",
           "workflow"]  # fmt: skip

FEW = 6  # slices where single voxels are to be seen
LOWEST, HIGHEST = 10.0, 50.0  # % of scans, ends of the published colour scale
LEVELS_P = (0.05, 0.001)
BROAD = 40.0  # chi-square at which the colour scale ends, at most: beyond it a few voxels would pale the rest
ENLARGED = ((8, 4.0), (128, 2.0))  # up to so many voxels, each is drawn so many times as wide
PER_ROW, CAPTION = 5, 96  # misclassified scans side by side; px of the text above each
DEEPEST = 30.0  # mm of lesion along the line of sight where the colour scale ends

FREQUENCY = LinearSegmentedColormap.from_list("frequency", ["#FED976", "#FD8D3C", "#E31A1C", "#800026", "#3F0013"])
REDS = ["#F4A582", "#D6604D", "#B2182B", "#67001F"]
BLUES = ["#92C5DE", "#4393C3", "#2166AC", "#053061"]
RED, BLUE = "#C4161C", "#1F5FA8"


# -- Figure 1 ------------------------------------------------------------------------------------


@as_png
def frequency(lesions: np.ndarray, positive: np.ndarray, levels: tuple[str, str]) -> Figure:
    """Return the PNG of the lesion frequency of both groups (Figure 1, upper part).

    Parameters
    ----------
    lesions : ndarray of bool, shape (N, V)
    positive : ndarray of bool, shape (N,)
    levels : (str, str)
        Names of the positive and of the negative group.
    """
    maps = [100 * lesions[rows].mean(axis=0) if rows.any() else np.zeros(lesions.shape[1])
            for rows in (positive, ~positive)]  # fmt: skip
    headings = [
        f"{level}, {rows.sum()} scans: how many have a lesion in the voxel; at most {share.max():.0f} %"
        for level, rows, share in zip(levels, (positive, ~positive), maps, strict=True)
    ]
    figure, panels = sheet([(heading, SLICES) for heading in headings])
    for row, share in zip(panels, maps, strict=True):
        for axes, z in zip(row, SLICES, strict=True):
            overlay(axes, np.where(share > LOWEST, share, np.nan), z, FREQUENCY, LOWEST, HIGHEST)
    mappable = ScalarMappable(Normalize(LOWEST, HIGHEST), FREQUENCY)
    axes = bar(figure, 0.3, 0.4, mappable, "scans with a lesion", extend="max", ticks=range(10, 51, 10))
    axes.set_xticklabels([f"> {p} %" if p in (LOWEST, HIGHEST) else f"{p} %" for p in range(10, 51, 10)])
    return figure


def _chi2_scale(ranking: Ranking) -> float:
    """Return the chi-square at which the colours end: the highest one, but 12 to 40."""
    return float(min(max(ranking.chi2.max(), 12.0), BROAD))


def _chi2_colours(ranking: Ranking) -> tuple[np.ndarray, LinearSegmentedColormap, float]:
    """Return signed chi-square (V,), nan below p = 0.05, its colours, white in the middle, and their end."""
    least, most = float(chi2_distribution.isf(LEVELS_P[0], 1)), _chi2_scale(ranking)
    signed = np.where(ranking.chi2 >= least, ranking.chi2 * ranking.sign, np.nan)
    inner = least / most / 2
    stops = [*np.linspace(0, 0.5 - inner, 4), 0.5 - inner, 0.5 + inner, *np.linspace(0.5 + inner, 1, 4)]
    colours = [*reversed(BLUES), "#FFFFFF", "#FFFFFF", *REDS]
    return signed, LinearSegmentedColormap.from_list("chi2", list(zip(stops, colours, strict=True)), 512), most


def _chi2_bar(figure: Figure, ranking: Ranking, levels: tuple[str, str]) -> None:
    """Draw the colour bar of the signed chi-square with the levels of p marked on it."""
    _, colours, most = _chi2_colours(ranking)
    end = "both" if ranking.chi2.max() > most else "neither"
    more = f"{levels[1]} more often    ←   signed chi-square   →    {levels[0]} more often"
    ticks = [t for t in (-40, -30, -20, -10, 0, 10, 20, 30, 40) if abs(t) <= most]
    axes = bar(figure, 0.2, 0.6, ScalarMappable(Normalize(-most, most), colours), more, extend=end, ticks=ticks)
    axes.set_xticklabels([f"{abs(t)}" for t in ticks])
    for p in LEVELS_P:
        at = float(chi2_distribution.isf(p, 1))
        for x in (-at, at):
            axes.axvline(x, color=INK, linewidth=1.5)
            axes.annotate(f"p = {p:g}", (x, 1), (0, 3), xycoords=("data", "axes fraction"),
                          textcoords="offset points", color=INK, fontsize=FONT - 2, va="bottom",
                          ha="center")  # fmt: skip


def _draw_chi2(row: Sequence[Axes], cuts: Sequence[float], ranking: Ranking) -> None:
    signed, colours, most = _chi2_colours(ranking)
    for axes, z in zip(row, cuts, strict=True):
        overlay(axes, np.clip(signed, -most, most), z, colours, -most, most)


@as_png
def chi2_map(ranking: Ranking, levels: tuple[str, str] = ("RRMS", "NMOSD")) -> Figure:
    """Return the PNG of the signed Pearson chi-square map (Figure 1, lower part), where p < 0.05."""
    below = int(np.count_nonzero(ranking.chi2 >= chi2_distribution.isf(LEVELS_P[0], 1)))
    heading = (
        f"Pearson chi-square of lesion x group, uncorrected p < 0.05 in {below:,} of {len(ranking.chi2):,} voxels; "
        f"highest {ranking.chi2.max():.1f}"
    )
    figure, (row,) = sheet([(heading, SLICES)])
    _draw_chi2(row, SLICES, ranking)
    _chi2_bar(figure, ranking, levels)
    return figure


# -- Figures 3 and 5 -----------------------------------------------------------------------------


def _times(count: int) -> float:
    return next((times for most, times in ENLARGED if count <= most), 1.0)


def _draw_voxels(row: Sequence[Axes], cuts: Sequence[float], ranking: Ranking, count: int) -> None:
    """Draw the ``count`` top-ranked voxels as squares, red or blue by sign, gray without one, enlarged if few."""
    grid = atlas.brain_grid(3)
    chosen = ranking.order[:count]
    at = np.stack(np.nonzero(grid.data))[:, chosen] * 3.0 + grid.affine[:3, 3][:, None]
    colours = np.array([BLUE, "#777777", RED])[ranking.sign[chosen] + 1]
    half = 1.5 * _times(count)
    # Drawn as one image on half voxels, last ranked first, so that the best are on top.
    for axes, z in zip(row, cuts, strict=True):
        near = [i for i in reversed(range(len(chosen))) if abs(at[2, i] - z) < 1.5]
        if count > ENLARGED[-1][0]:
            values = np.full(grid.data.sum(), np.nan)
            values[chosen] = ranking.sign[chosen]
            overlay(axes, values, z, ListedColormap([BLUE, "#777777", RED]), -1, 1)
            continue
        for i in near:
            x, y = at[0, i], at[1, i]
            axes.fill([x - half, x + half, x + half, x - half], [y - half, y - half, y + half, y + half],
                      facecolor=colours[i], edgecolor="white", linewidth=0.8)  # fmt: skip


def _voxel_heading(ranking: Ranking, count: int, levels: tuple[str, str], seen: int) -> str:
    chosen = ranking.sign[ranking.order[:count]]
    times = _times(count)
    size = f"; drawn {times:g} times as wide" if times > 1 else ""
    equal = int((chosen == 0).sum())
    alike = f", {equal:,} in both alike (gray)" if equal else ""
    return (
        f"n = {count:,}: {(chosen > 0).sum():,} more often in {levels[0]} (red), {(chosen < 0).sum():,} in "
        f"{levels[1]} (blue){alike}; {seen:,} in these slices{size}"
    )


def _voxel_row(ranking: Ranking, count: int) -> tuple[list[float], int]:
    """Return the slices to show of the top ``count`` voxels, and how many of these lie in them."""
    weight = np.zeros(len(ranking.chi2))
    weight[ranking.order[:count]] = 1.0
    cuts = fullest(weight, FEW)
    return cuts, int(weight[np.isin(heights(), cuts)].sum())


@as_png
def selected(
    ranking: Ranking, counts: tuple[int, ...] = (2, 32, 4096), levels: tuple[str, str] = ("RRMS", "NMOSD")
) -> Figure:
    """Return the PNG of the chosen voxels at some counts (Figure 3); counts above V become V."""
    counts = tuple(sorted({min(count, len(ranking.order)) for count in counts}))
    rows = [_voxel_row(ranking, count) for count in counts]
    headings = [_voxel_heading(ranking, n, levels, seen) for n, (_, seen) in zip(counts, rows, strict=True)]
    figure, panels = sheet([(head, cuts) for head, (cuts, _) in zip(headings, rows, strict=True)], foot=8)
    for row, count, (cuts, _) in zip(panels, counts, rows, strict=True):
        _draw_voxels(row, cuts, ranking, count)
    return figure


@as_png
def chosen_beside(ranking: Ranking, evaluation: Evaluation, levels: tuple[str, str] = ("RRMS", "NMOSD")) -> Figure:
    """Return the PNG of the chi-square map beside the voxels of the chosen model (Figure 5)."""
    count = evaluation.selection.cell.n_voxels
    cuts, seen = _voxel_row(ranking, count)
    figure, (upper, lower) = sheet([
        ("Pearson chi-square of lesion x group in the training set, uncorrected p < 0.05", cuts),
        (_voxel_heading(ranking, count, levels, seen), cuts),
    ])  # fmt: skip
    _draw_chi2(upper, cuts, ranking)
    _draw_voxels(lower, cuts, ranking, count)
    _chi2_bar(figure, ranking, levels)
    return figure


# -- Figure S1 -----------------------------------------------------------------------------------


@as_png
def misclassified(cohort: Cohort, evaluation: Evaluation, limit: int = 20) -> Figure:
    """Return the PNG of misclassified test scans with their lesion maps, surest mistakes first (Figure S1).

    Each map is projected through the brain, from above and from the right: how much lesion lies on each line of
    sight. ``limit`` is the number of scans drawn at most; the heading tells how many are left out.
    """
    rows, decisions = evaluation.division.test, evaluation.test.decisions
    wrong = np.flatnonzero((decisions >= 0) != cohort.positive[rows])
    wrong = wrong[np.argsort(-np.abs(decisions[wrong]), kind="stable")]
    shown = wrong[:limit]
    heading = f"{len(wrong)} of {len(rows)} test scans are misclassified"
    heading += f"; the {len(shown)} with the largest decision values" if len(shown) < len(wrong) else ""
    left_out = len(wrong) - len(shown)
    heading += f", {left_out} not shown" if left_out else ""
    (left, right), (back, front) = window()
    width = (WIDTH - GAP * (PER_ROW - 1)) / PER_ROW
    scale = width / (right - left + front - back)  # both projections side by side
    tall, n_rows = scale * (front - back), -(-len(shown) // PER_ROW)
    total = HEAD + n_rows * (CAPTION + tall) + (FOOT if n_rows else 0)
    figure = Figure(figsize=(WIDTH / DPI, total / DPI), dpi=DPI, facecolor="white")
    figure.text(0.004, 1 - HEAD / 2 / total, heading, color=INK, fontsize=FONT, va="center")
    for k, i in enumerate(shown):
        x, y = (k % PER_ROW) * (width + GAP), total - HEAD - (k // PER_ROW) * (CAPTION + tall) - CAPTION
        truth, call = cohort.levels if cohort.positive[rows[i]] else cohort.levels[::-1]
        value = f"decision {decisions[i]:+.3f}".replace("-", "−")
        words = plain("\n".join((_short(cohort.scans[rows[i]].name, 32), _short(f"{truth} called {call}", 32), value)))
        figure.text((x + 4) / WIDTH, (y + 6) / total, words, color=INK, fontsize=FONT - 2, va="bottom")
        _projections(figure, (x, y - tall, 0.97 * scale), evaluation.maps.lesions[rows[i]])
    if n_rows:
        depth = ScalarMappable(Normalize(0, DEEPEST), FREQUENCY)
        bar(figure, 0.3, 0.4, depth, "lesion on the line of sight, mm", extend="max")
    return figure


def _short(text: str, most: int) -> str:
    """Return text of at most ``most`` letters, the middle left out."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def _projections(figure: Figure, place: tuple[float, float, float], lesion: np.ndarray) -> None:
    """Draw a lesion map (V,) from above and from the right; ``place`` is left and bottom, px, and px a mm."""
    grid = atlas.brain_grid(3)
    total = figure.get_figheight() * DPI
    depth = 3.0 * atlas.on_grid(lesion.astype(float)).data
    pale = ListedColormap(["#E4E4E4"])
    x, y, scale = place
    for along in (2, 0):
        seen, brain = depth.sum(axis=along), np.asarray(grid.data.any(axis=along))
        a, b, c, d = (f(np.flatnonzero(brain.any(axis=k))) for k in (1, 0) for f in (np.min, np.max))
        wide, tall = 3 * scale * (b - a + 1), 3 * scale * (d - c + 1)
        axes = figure.add_axes((x / WIDTH, y / total, wide / WIDTH, tall / total))
        axes.set_axis_off()
        layers = ((np.where(brain, 1.0, np.nan), pale, 1.0), (np.where(seen > 0, seen, np.nan), FREQUENCY, DEEPEST))
        for image, cmap, most in layers:
            axes.imshow(image[a : b + 1, c : d + 1].T, origin="lower", aspect="auto", cmap=cmap, vmin=0, vmax=most,
                        interpolation="nearest")  # fmt: skip
        for text, at in zip("LR" if along == 2 else "PA", (0.03, 0.97), strict=True):
            axes.text(at, 0.97, text, transform=axes.transAxes, color=INK, fontsize=FONT - 3, va="top",
                      ha="left" if at < 0.5 else "right")  # fmt: skip
        if not lesion.any():
            axes.text(0.5, 0.5, "no lesion", transform=axes.transAxes, color=INK, fontsize=FONT - 3, ha="center")
        x += wide


def draw(result: GroupResult, facts: Mapping[str, Any]) -> dict[str, bytes]:
    """Return every figure of the report by key; those of an evaluation end in its name."""
    cohort = result.cohort
    figures = {"workflow": workflow(facts), "summary": summary_plot(result, facts["optimism"])}
    figures["frequency"] = frequency(cohort.lesions, cohort.positive, cohort.levels)
    for name, evaluation in result.evaluations.items():
        ranking, levels = evaluation.selection.ranking, cohort.levels
        figures[f"chi2_{name}"] = chi2_map(ranking, levels)
        figures[f"selected_{name}"] = selected(ranking, levels=levels)
        figures[f"curves_{name}"] = curves(evaluation)
        figures[f"beside_{name}"] = chosen_beside(ranking, evaluation, levels)
        figures[f"misclassified_{name}"] = misclassified(cohort, evaluation)
    if result.recommended and result.recommended.contest:
        figures["recipes"] = recipes(result.recommended.contest)
        figures["reliability"] = reliability(result.recommended.contest, cohort.levels)
    return figures
