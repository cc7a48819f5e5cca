"""Whether a result can be trusted: measures with what is normal for them, and when to refuse."""

from __future__ import annotations

import numpy as np

from bids_app.errors import ScanError
from bids_app.records.scan import Check, Fit, Moments, Pose, Priors, Tissues, Volume

LOST = 0.40  # correlation with the synthetic FLAIR of the brain: 0.56-0.78 when right, below 0.22 in what is no FLAIR
DOUBTFUL = 0.96  # similarity of the pose: 0.97-0.99 when right; a real head upside down 0.91, back to front 0.94
UNSURE = 0.85  # confidence in the brain mask: 0.87-0.92 in real scans, untouched and harmed
CUT_CM2 = 30.0  # 0 to 24 in clinical scans, many of which end at the vertex; 46 to 61 where 10 mm are cut from it
SLAB = 0.70  # least share of the template's brain inside the field of view


def agreement(scan: Volume, priors: Priors, tissues: Tissues) -> float:
    """Return the Pearson correlation of scan and warped synthetic FLAIR inside the brain."""
    inside = tissues.mask
    flair = np.clip(scan.data[inside], 0, 2 * tissues.means["GM"])
    return float(np.corrcoef(priors.flair[inside], flair)[0, 1])


def overlap(mask: np.ndarray, priors: Priors) -> float:
    """Return the Dice coefficient of a brain mask and the template's brain carried to the scan."""
    template = priors.mask > 0.5
    return float(2 * (mask & template).sum() / max(mask.sum() + template.sum(), 1))


def refuse_lost(agreement: float, coverage: float) -> None:
    """Stop where the registration cannot be right, before a wrong map is written.

    Raises
    ------
    ScanError
        The warped template and the scan do not agree, or the scan is a slab.
    """
    if not agreement >= LOST:
        raise ScanError(
            f"registration is lost (correlation with the template {agreement:.2f}, needs {LOST})",
            remedy="check that the image is a FLAIR of a whole head and that its header's axes are right",
        )
    if coverage < SLAB:
        raise ScanError(f"only {coverage:.0%} of the brain is in the field of view", remedy="give a whole-brain scan")


def cut_area(mask: np.ndarray, spacing: np.ndarray) -> float:
    """Return the largest area (cm2) of the brain on a face of the field of view: how wide it is cut there."""
    areas = [np.prod(np.delete(spacing, axis)) / 100 for axis in range(3)]
    return max(float(np.take(mask, end, axis).sum() * areas[axis]) for axis in range(3) for end in (0, -1))


def head_shape(pose: Pose) -> float:
    """Return the ratio of the largest to the smallest stretch of an affine pose: 1.09-1.15 in clinical scans."""
    stretch = np.linalg.svd(pose.matrix, compute_uv=False)
    return float(stretch[0] / stretch[-1])


# name: unit, normal from and to (seen on clinical FLAIRs of adults), meaning
NORMAL: dict[str, tuple[str, float, float, str]] = {
    "brain_volume_ml": ("ml", 900, 1900, "brain with its fluid; small: cut or missed, large: skull"),
    "template_agreement": ("r", 0.50, 1.0, "correlation with the template's synthetic FLAIR"),
    "template_overlap": (
        *("Dice", 0.96, 1.0),
        "brain mask against the template's brain carried to the scan; small: one of the two is wrong",
    ),
    "brain_confidence": (
        "",
        UNSURE,
        1.0,
        "how sure the network is of the brain mask; small: artefact, ghost or no head",
    ),
    "pose_similarity": ("r", DOUBTFUL, 1.0, "correlation of the brains before warping"),
    "coverage": ("share", 0.97, 1.0, "share of the template's brain in the field of view"),
    "cut_area_cm2": ("cm2", 0, CUT_CM2, "area of the brain where the field of view ends; large: it is cut there"),
    "wm_to_gm": ("ratio", 0.60, 0.97, "white matter is darker than gray on FLAIR"),
    "csf_to_gm": ("ratio", 0.0, 0.80, "fluid is dark on FLAIR"),
    "belief_sd": ("", 0.08, 0.20, "spread of the belief in brain tissue (published: 0.12)"),
    "head_shape": (
        *("ratio", 1.0, 1.25),
        "stretch of the brain against the template along its longest to its shortest axis; large: the header's slice "
        "thickness is wrong",
    ),
    "left_right_known": ("", 1, 1, "0: the header does not say; sides may be swapped"),
    "share_over_threshold": ("share", 0.0, 0.06, "share of the brain taken for lesion"),
}


def check(name: str, value: float) -> Check:
    """Return a row of the table `NORMAL` with its value."""
    unit, low, high, meaning = NORMAL[name]
    return Check(name, value, unit, low, high, meaning)


def checks(scan: Volume, fit: Fit, *, coverage: float, pooled: Moments, known: bool) -> tuple[Check, ...]:
    """Return the quality checks that no threshold changes.

    ``known`` is whether the header says where right is: no image of a head does.
    """
    means = fit.tissues.means
    values = {
        "brain_volume_ml": fit.brain_volume_ml,
        "template_agreement": fit.agreement,
        "template_overlap": fit.overlap,
        "brain_confidence": fit.confidence,
        "pose_similarity": fit.alignment.pose.similarity,
        "coverage": coverage,
        "cut_area_cm2": cut_area(fit.tissues.mask, scan.spacing),
        "wm_to_gm": means["WM"] / means["GM"],
        "csf_to_gm": means["CSF"] / means["GM"],
        "belief_sd": pooled.sd,
        "head_shape": head_shape(fit.alignment.pose),
        "left_right_known": float(known),
    }
    return tuple(check(name, value) for name, value in values.items())
