"""Charts of recipe against recipe, and of how far the recommended recipe's probabilities can be taken at their word."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bids_app.drawing.charts import DPI, FONT, INK, PALE, WIDTH, plain
from bids_app.drawing.scan_panels import as_png
from bids_app.records.recommended import Contest

FIRST, OTHER = "#00684A", "#4A5A6A"


@as_png
def recipes(contest: Contest) -> Figure:
    """Return the PNG of every recipe's AUC and of its paired difference to the reference, with 95 % intervals."""
    rows = contest.rows
    figure = Figure(figsize=(WIDTH / DPI, 2.0 + 0.62 * len(rows)), dpi=DPI, facecolor="white")
    left, right = figure.subplots(1, 2, sharey=True)
    height = figure.get_figheight()
    figure.subplots_adjust(0.17, 0.85 / height, 0.985, 1 - 0.55 / height, 0.06)
    for y, row in enumerate(rows):
        colour = FIRST if row.name == contest.rows[0].name else OTHER
        for axes, measure in ((left, row.measures["auc"]), (right, row.difference)):
            if measure is not None:
                axes.plot([measure.low, measure.high], [y, y], color=colour, linewidth=5, solid_capstyle="butt")
                axes.plot([measure.value], [y], "o", color=colour, markersize=11, markeredgecolor="white")
                words = f"{measure.value:.3f}" if axes is left else f"{measure.value:+.3f}".replace("-", "−")
                axes.annotate(words, (measure.value, y), (0, 11), textcoords="offset points", ha="center",
                              fontsize=FONT - 2, color=INK)  # fmt: skip
    reference = next(y for y, row in enumerate(rows) if row.name == contest.reference)
    right.annotate("the others are compared with it", (0, reference), (12, 0), textcoords="offset points",
                   va="center", fontsize=FONT - 2, color=INK)  # fmt: skip
    left.axvline(0.5, color=PALE, linewidth=2, linestyle="--")
    right.axvline(0.0, color=PALE, linewidth=2, linestyle="--")
    left.set_title("AUC", loc="left", fontsize=FONT + 1, color=INK)
    right.set_title(f"AUC minus that of {plain(contest.reference)}, paired", loc="left", fontsize=FONT + 1, color=INK)
    lows = [row.measures["auc"].low for row in rows if np.isfinite(row.measures["auc"].low)]
    left.set_xlim(min([0.4, *lows]) - 0.02, 1.02)
    names = [f"{row.name}\n(own folds)" if row.difference is None and row.name != contest.reference else row.name
             for row in rows]  # fmt: skip
    left.set_yticks(range(len(rows)), [plain(name.replace(", ", ",\n")) for name in names])
    for axes in (left, right):
        axes.set_ylim(len(rows) - 0.4, -0.7)
        _tidy(axes)
    return figure


@as_png
def reliability(contest: Contest, levels: tuple[str, str]) -> Figure:
    """Return the PNG of the reliability curve and of the out-of-fold probabilities of both groups."""
    found = contest.out_of_fold[contest.rows[0].name].probability.mean(axis=0)
    figure = Figure(figsize=(WIDTH / DPI, 7.0), dpi=DPI, facecolor="white")
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(0.05, 0.11, 0.985, 0.98, 0.12)
    left.plot([0, 1], [0, 1], color=PALE, linewidth=2, linestyle="--", label="probabilities to be taken at their word")
    curve = np.array(contest.told.curve)
    left.plot(curve[:, 0], curve[:, 1], color=FIRST, linewidth=2.4)
    left.scatter(
        curve[:, 0], curve[:, 1], s=1200 * curve[:, 2], color=FIRST, zorder=3, label="tenths of the participants"
    )
    left.set_ylabel(plain(f"share with {levels[0]}"), fontsize=FONT, color=INK)
    left.set(xlim=(-0.02, 1.02), ylim=(-0.04, 1.04))
    right.set_xlim(-0.02, 1.02)
    left.set_xlabel(plain(f"probability of {levels[0]}, out of fold"), fontsize=FONT, color=INK)
    left.legend(frameon=False, fontsize=FONT - 1, loc="upper left")
    right.hist(found, bins=20, range=(0, 1), color=OTHER)
    right.set_xlabel(plain(f"probability of {levels[0]}, out of fold"), fontsize=FONT, color=INK)
    right.set_ylabel("scans", fontsize=FONT, color=INK)
    for axes in (left, right):
        _tidy(axes)
    return figure


def _tidy(axes: Axes) -> None:
    axes.tick_params(labelsize=FONT - 1, colors=INK, length=0)
    axes.grid(axis="x", color="#E4E4E4")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
