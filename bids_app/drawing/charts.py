"""Charts of the group level: the workflow, the curves over voxel counts, and both evaluations side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch
from matplotlib.patheffects import withStroke

from bids_app.drawing.scan_panels import as_png
from bids_app.records.cohort import Measure, Performance
from bids_app.records.results import Evaluation, GroupResult

WIDTH, DPI, FONT = 1800, 100, 15.0  # px, px an inch, points: 13 px of text on a page 1,100 px wide
TRAIN, TEST, INK, PALE = "#1F5FA8", "#C4161C", "#222222", "#8A8A8A"
MEASURES = {"sensitivity": "Sensitivity", "specificity": "Specificity", "accuracy": "Accuracy", "auc": "AUC"}
LANES = {"published": ("#FDF1E3", "#B5651D"), "leakage-free": ("#E6F1EC", "#00684A")}  # fill and edge
SHARED = ("#EEF1F5", "#4A5A6A")


def plain(text: object) -> str:
    r"""Return text that matplotlib does not take for a formula.

    Examples
    --------
    >>> print(plain("$x$"))
    \$x\$
    """
    return str(text).replace("$", r"\$")


def measure(performance: Performance, key: str) -> Measure:
    """Return sensitivity, specificity, accuracy or auc of a performance, nan where there is none."""
    found: Measure | None = getattr(performance, key)
    return found or Measure(float("nan"), float("nan"), float("nan"), "")


# -- Figure 4 ------------------------------------------------------------------------------------


@as_png
def curves(evaluation: Evaluation) -> Figure:
    """Return the PNG of four measures over the number of voxels (Figure 4).

    Training blue, test red with its 95 % interval over scans (Wilson, DeLong), cross-validation accuracy in gray,
    the chosen number of voxels as a line.
    """
    figure = Figure(figsize=(WIDTH / DPI, 11.4), dpi=DPI, facecolor="white")
    panels = figure.subplots(2, 2, sharex=True)
    figure.subplots_adjust(0.055, 0.125, 0.99, 0.965, 0.12, 0.16)
    counts = np.asarray(evaluation.selection.sweep.counts)
    for axes, (key, title) in zip(panels.flat, MEASURES.items(), strict=True):
        _curve(axes, counts, evaluation.train.curve, key, TRAIN, "training set")
        _band(axes, counts, evaluation.test.curve, key)
        _curve(axes, counts, evaluation.test.curve, key, TEST, "test set, 95 % interval over scans")
        if key == "accuracy":
            found = [cell.accuracy for cell in evaluation.selection.cells]
            axes.plot(counts, found, color=PALE, linewidth=2, linestyle="--", label="cross-validation")
        cell = evaluation.selection.cell
        axes.axvline(cell.n_voxels, color=INK, linewidth=1.6, linestyle=":", label=f"chosen, n = {cell.n_voxels:,}")
        axes.axhline(0.5, color="#BBBBBB", linewidth=1, zorder=0)
        axes.set_title(title, loc="left", fontsize=FONT + 1, color=INK)
        _count_axis(axes, counts)
    for axes in panels[1]:
        axes.set_xlabel(f"voxels chosen, n (all = {counts[-1]:,})", fontsize=FONT, color=INK)
    handles, labels = panels[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False, fontsize=FONT)
    return figure


def _curve(axes: Axes, counts: np.ndarray, curve: Sequence[Performance], key: str, colour: str, label: str) -> None:
    values = [measure(performance, key).value for performance in curve]
    axes.plot(counts, values, color=colour, linewidth=2.4, marker="o", markersize=4, label=label)


def _band(axes: Axes, counts: np.ndarray, curve: Sequence[Performance], key: str) -> None:
    ends = np.array([(m.low, m.high) for m in (measure(performance, key) for performance in curve)])
    axes.fill_between(counts, ends[:, 0], ends[:, 1], color=TEST, alpha=0.15, linewidth=0)


def _count_axis(axes: Axes, counts: np.ndarray) -> None:
    """Label powers of four and the last count, ``all``; 0 to 1 upwards."""
    last = int(counts[-1])
    ticks = [4**k for k in range(32) if 4**k < last / 1.7] + [last]
    axes.set_xscale("log", base=2)
    axes.minorticks_off()
    axes.set_xticks(ticks, [*(f"{t:,}" for t in ticks[:-1]), "all"])
    axes.set_xlim(min(0.8, counts[0] * 0.8), last * 1.25)
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.tick_params(labelsize=FONT - 1, colors=INK, labelbottom=True)
    axes.spines[["top", "right"]].set_visible(False)


# -- the evaluations side by side ----------------------------------------------------------------


@as_png
def summary_plot(result: GroupResult, optimism: Mapping[str, float]) -> Figure:
    """Return the PNG of AUC, accuracy, sensitivity and specificity of all evaluations with both 95 % intervals.

    ``optimism`` is the published minus the leakage-free value of each measure, where both exist.
    """
    rows: list[tuple[str, Performance, Mapping[str, Measure], float]] = []
    for name, evaluation in result.evaluations.items():
        majority = evaluation.test.baselines.get("majority")
        chance = majority.accuracy.value if majority else np.nan
        rows.append((name, evaluation.performance, evaluation.test.bootstrap, chance))
    for name, nested in result.nested.items():
        n_positive = int(result.cohort.positive.sum())
        most = max(n_positive, len(result.cohort.positive) - n_positive) / len(result.cohort.positive)
        rows.append((f"{name},\nnested CV", nested.performance, nested.bootstrap, most))
    figure = Figure(figsize=(WIDTH / DPI, 2.1 + 0.85 * len(rows)), dpi=DPI, facecolor="white")
    panels = figure.subplots(1, 4, sharey=True)
    foot = 1.05 / figure.get_figheight()
    figure.subplots_adjust(0.115, foot, 0.985, 1 - 0.5 / figure.get_figheight(), 0.1)
    order = ("auc", "accuracy", "sensitivity", "specificity")
    for axes, key in zip(panels, order, strict=True):
        for y, (_, performance, bootstrap, chance) in enumerate(rows):
            _dot(axes, y, measure(performance, key), bootstrap.get(key), LANES.get(rows[y][0].split(",")[0], SHARED)[1])
            if key == "accuracy":
                axes.plot([chance] * 2, [y - 0.4, y + 0.4], color=PALE, linewidth=2, linestyle="--",
                          label="majority class" if y == 0 else None)  # fmt: skip
        if key == "auc":
            axes.axvline(0.5, color=PALE, linewidth=2, linestyle="--")
        gap = optimism.get(key, float("nan"))
        note = f"   optimism {gap:+.3f}".replace("-", "−") if np.isfinite(gap) else ""
        axes.set_title(f"{MEASURES[key]}{note}", loc="left", fontsize=FONT, color=INK)
        axes.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6), xticks=np.linspace(0, 1, 5))
        axes.set_xticklabels(["0", "0.25", "0.5", "0.75", "1"])
        axes.tick_params(labelsize=FONT - 2, colors=INK, length=0, axis="y")
        axes.tick_params(labelsize=FONT - 2, colors=INK, axis="x")
        axes.grid(axis="x", color="#E4E4E4")
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[0].set_yticks(range(len(rows)), [plain(name) for name, *_ in rows])
    _summary_keys(figure)
    return figure


def _dot(axes: Axes, y: float, over_scans: Measure, over_participants: Measure | None, colour: str) -> None:
    axes.plot([over_scans.low, over_scans.high], [y + 0.13] * 2, color=PALE, linewidth=3, solid_capstyle="butt")
    if over_participants is not None:
        ends = [over_participants.low, over_participants.high]
        axes.plot(ends, [y - 0.13] * 2, color=colour, linewidth=6, solid_capstyle="butt")
    if np.isfinite(over_scans.value):
        axes.plot(over_scans.value, y, "o", color=colour, markersize=12, markeredgecolor="white", zorder=3,
                  clip_on=False)  # fmt: skip
        axes.text(over_scans.value, y - 0.27, f"{over_scans.value:.3f}", fontsize=FONT - 2, color=INK, ha="center",
                  va="bottom", path_effects=[withStroke(linewidth=4, foreground="white")])  # fmt: skip


def _summary_keys(figure: Figure) -> None:
    keys = [
        Line2D([], [], color=INK, linewidth=6, label="95 % interval, bootstrap over participants"),
        Line2D([], [], color=PALE, linewidth=3, label="95 % interval over scans (DeLong, Wilson)"),
        Line2D([], [], color=PALE, linewidth=2, linestyle="--", label="chance (AUC), majority class (accuracy)"),
    ]
    figure.legend(handles=keys, loc="lower center", ncols=3, frameon=False, fontsize=FONT, handlelength=1.6)


# -- Figure 2 ------------------------------------------------------------------------------------


STEPS = (  # of the participant level
    ("FLAIR scan", "axial, clinical\nno T1w needed"),
    ("Tissue classes", "bias corrected\nGM, WM, fluid"),
    ("Belief map", "B = (F − mean of GM)\n/ mean of GM"),
    ("Lesion map", "B > threshold\nnative space"),
    ("Template", "MNI152NLin2009aSym\n3 mm"),
)
CHOICES = ("Division", "Voxel ranking", "C and gamma", "Number of voxels n", "Test set")
SIZE = (WIDTH / DPI, 9.0)  # inches


@as_png
def workflow(facts: Mapping[str, Any]) -> Figure:
    """Return the PNG of the flow chart from FLAIR to classifier, both evaluations (Figure 2).

    ``facts`` are those of `group_numbers.facts`.
    """
    figure = Figure(figsize=SIZE, dpi=DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, SIZE[0]), ylim=(0, SIZE[1]))
    axes.set_axis_off()
    _heading(axes, 0.15, 8.72, "Participant level: every scan for itself")
    cohort = facts["cohort"]
    groups = "\n".join(f"{cohort[k]['scans']} {_cut(cohort[k]['level'])}" for k in ("positive", "negative"))
    boxes = [*STEPS, (f"{cohort['scans']} scans", f"{groups}\n{cohort['participants']} participants")]
    for i, (title, words) in enumerate(boxes):
        _box(axes, (0.2 + 2.98 * i, 7.0, 2.7, 1.4), title, words, SHARED)
        if i:
            _arrow(axes, (2.98 * i - 0.08, 7.7), (0.2 + 2.98 * i, 7.7))
    axes.plot([16.45, 16.45, 1.8, 1.8], [6.96, 6.7, 6.7, 6.4], color=INK, linewidth=1.8)  # to the first choice
    _arrow(axes, (1.8, 6.5), (1.8, 5.9))
    _heading(axes, 2.2, 6.3, "Group level: two evaluations of the same method, side by side")
    for i, title in enumerate(CHOICES):
        axes.text(1.8 + 3.6 * i, 5.72, title, ha="center", va="center", fontsize=FONT, weight="bold", color=INK)
    for k, (name, lane) in enumerate(facts["evaluations"].items()):
        _lane(axes, 3.55 - 2.2 * k, name, _words(name, lane, facts))
    _gain(axes, facts)
    return figure


def _words(name: str, lane: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what one evaluation does at each of the choices."""
    pairs = f"{len(facts['C']) * len(facts['gamma'])} pairs, {lane['folds']} folds"
    both = lane["participants_in_both"]
    share = f"{both or 'no'} participant{'' if both < 2 else 's'} on both sides"
    sets = f"by {lane['unit']}\n{lane['train_scans']} training, {lane['test_scans']} test\n{share}"
    count, found = f"n = {lane['n_voxels']:,}", f"AUC {lane['auc']:.3f}"
    if name == "published":
        return (
            sets,
            "chi-square, once, on the\nwhole training set",
            f"best cross-validation\naccuracy: {pairs}",
            f"best AUC of the test set\n{count}",
            f"read for every n\n{found}",
        )
    return (
        sets,
        "chi-square, anew in the\ntraining part of each fold",
        f"best cross-validation\naccuracy: {pairs},\nparticipants kept together",
        f"best cross-validation\naccuracy\n{count}",
        f"read once, at the end\n{found}",
    )


def _lane(axes: Axes, bottom: float, name: str, words: Sequence[str]) -> None:
    fill, edge = LANES.get(name, SHARED)
    axes.add_patch(
        FancyBboxPatch((0.05, bottom - 0.05), 17.9, 1.95, "round,pad=0,rounding_size=0.15", fc=fill, ec="none")
    )
    axes.text(0.2, bottom + 1.68, plain(name), fontsize=FONT, weight="bold", color=edge, va="center")
    for i, text in enumerate(words):
        x = 0.2 + 3.6 * i
        _box(axes, (x, bottom + 0.08, 3.2, 1.32), "", text, ("white", edge))
        if i:
            _arrow(axes, (x - 0.4, bottom + 0.74), (x, bottom + 0.74))


def _gain(axes: Axes, facts: Mapping[str, Any]) -> None:
    """Write what the two evaluations differ by, and the nested cross-validation, below the lanes."""
    gap = facts["optimism"].get("auc", float("nan"))
    words = f"{gap:+.3f} AUC".replace("-", "−")
    parts = [f"optimism = published − leakage-free = {words}"] if np.isfinite(gap) else []
    for name, nested in facts["nested"].items():
        parts.append(f"nested cross-validation ({name}), {nested['folds']} outer folds: AUC {nested['auc']:.3f}")
    axes.text(0.2, 0.55, plain("\n".join(parts)), fontsize=FONT, color=INK, va="center", linespacing=1.5)


def _heading(axes: Axes, x: float, y: float, text: str) -> None:
    axes.text(x, y, text, fontsize=FONT + 2, weight="bold", color=INK, va="center")


def _box(axes: Axes, place: tuple[float, float, float, float], title: str, words: str, look: tuple[str, str]) -> None:
    x, y, width, height = place
    axes.add_patch(
        FancyBboxPatch((x, y), width, height, "round,pad=0,rounding_size=0.12", fc=look[0], ec=look[1], linewidth=1.8)
    )
    middle = x + width / 2
    centred: dict[str, Any] = {"ha": "center", "va": "center", "color": INK}
    if title:
        axes.text(middle, y + height - 0.27, plain(title), fontsize=FONT, weight="bold", **centred)
    axes.text(middle, y + (height - (0.45 if title else 0)) / 2, plain(words), fontsize=FONT - 1, **centred)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>,head_width=0.35,head_length=0.6", "color": INK,
                                              "linewidth": 1.8, "shrinkA": 2, "shrinkB": 2})  # fmt: skip


def _cut(text: str, most: int = 14) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
