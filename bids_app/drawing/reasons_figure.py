"""Why a scan was called so, drawn: what each lesion voxel adds to the decision, on the scan's own belief map."""

from __future__ import annotations

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from bids_app.drawing.scan_panels import as_png
from bids_app.drawing.slices import FAINT
from bids_app.drawing.template_slices import bar, fullest, overlay, sheet
from bids_app.records.reasons import LeftOut, Reasons

COUNT = 6  # slices
BELIEF = (-0.9, 0.9)  # ends of the gray scale under the lesions
COLOURS = LinearSegmentedColormap.from_list("reasons", ["#053061", "#4393C3", "#F7F7F7", "#D6604D", "#67001F"])
GRAYS = LinearSegmentedColormap.from_list("belief", ["#000000", "#FFFFFF"])


@as_png
def reasons(found: Reasons | LeftOut, belief: np.ndarray | None, levels: tuple[str, str]) -> Figure:
    """Return the PNG of one decision's parts on the slices that hold most of them.

    Parameters
    ----------
    found : Reasons or LeftOut
    belief : ndarray of float, shape (V,), optional
        The scan's belief over the template's brain voxels at 3 mm; None: the template itself is underneath.
    levels : (str, str)
        Positive group, red; negative group, blue.
    """
    parts = found.parts
    cuts = fullest(np.abs(parts), COUNT)
    figure, panels = sheet([(_heading(found), cuts)])
    most = float(np.abs(parts).max()) or 1.0
    for axes, z in zip(panels[0], cuts, strict=True):
        if belief is not None:
            overlay(axes, np.clip(belief, *BELIEF), z, GRAYS, *BELIEF)
        overlay(axes, np.where(np.abs(parts) > FAINT * most, parts, np.nan), z, COLOURS, -most, most)
    what = (
        f"what the whole {found.kind} changes in the decision"
        if isinstance(found, LeftOut)
        else "part of a lesion voxel in the decision"
    )
    words = f"{levels[1]}    ←   {what}   →    {levels[0]}"
    bar(figure, 0.3, 0.4, ScalarMappable(Normalize(-most, most), COLOURS), words, ticks=[-most, 0, most], format="%.2g")
    return figure


def _heading(found: Reasons | LeftOut) -> str:
    decision = f"decision {found.decision:+.2f}"
    if isinstance(found, LeftOut):
        moving = sum(abs(each.change) > 0 for each in found.lesions)
        told = f"{decision}; {moving} of {len(found.lesions)} {found.kind}s change it"
    else:
        named = [("lesions", float(found.parts.sum())), ("volume", found.volume)]
        named += [("covariates", sum(found.covariates.values()))] if found.covariates else []
        named += [("without lesions", found.intercept)]
        told = f"{decision}: " + ", ".join(f"{name} {value:+.2f}" for name, value in named)
    return told.replace("-", "−")
