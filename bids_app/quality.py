"""Whether a result can be trusted: measures with what is normal for them, and when to refuse."""

from __future__ import annotations

import numpy as np

from bids_app.errors import ScanError
from bids_app.records import Alignment, Check, Moments, Pose, Priors, Tissues, Volume

LOST = 0.35  # correlation with the synthetic head: 0.5-0.7 when right, below 0.25 when an axis is flipped
SLAB = 0.70  # least share of the template's brain inside the field of view


def agreement(scan: Volume, priors: Priors, tissues: Tissues) -> float:
    """Return the Pearson correlation of scan and warped synthetic FLAIR inside the brain."""
    inside = tissues.mask
    flair = np.clip(scan.data[inside], 0, 2 * tissues.means["GM"])
    return float(np.corrcoef(priors.head[inside], flair)[0, 1])


def refuse_lost(pose_agreement: float, coverage: float) -> None:
    """Stop where the registration cannot be right, before a wrong map is written.

    Raises
    ------
    ScanError
        The warped template and the scan do not agree, or the scan is a slab.
    """
    if not pose_agreement >= LOST:
        raise ScanError(
            f"registration is lost (correlation with the template {pose_agreement:.2f}, needs {LOST})",
            remedy="check that the image is a FLAIR of a whole head and that its header's axes are right",
        )
    if coverage < SLAB:
        raise ScanError(f"only {coverage:.0%} of the brain is in the field of view", remedy="give a whole-brain scan")


def head_shape(pose: Pose) -> float:
    """Return the ratio of the largest to the smallest stretch of an affine pose: 1.09-1.15 in clinical scans."""
    stretch = np.linalg.svd(pose.matrix, compute_uv=False)
    return float(stretch[0] / stretch[-1])


def checks(
    *,
    scan: Volume,
    tissues: Tissues,
    alignment: Alignment,
    agrees: float,
    coverage: float,
    pooled: Moments,
    known: bool,
) -> tuple[Check, ...]:
    """Return the quality checks that no threshold changes, with normal ranges seen on clinical FLAIRs of adults.

    ``known`` is whether the header says where right is: no image of a head does.
    """
    means = tissues.means
    brain_ml = float(tissues.mask.sum()) * scan.voxel_ml
    return (
        Check(
            "brain_volume_ml",
            brain_ml,
            "ml",
            900,
            1900,
            "brain with its fluid; small: cut or missed, large: skull",
        ),
        Check("template_agreement", agrees, "r", 0.45, 1.0, "correlation with the template's synthetic FLAIR"),
        Check(
            "pose_similarity",
            alignment.pose.similarity,
            "r",
            0.80,
            1.0,
            "correlation of the heads before warping",
        ),
        Check("coverage", coverage, "share", 0.97, 1.0, "share of the template's brain in the field of view"),
        Check(
            "wm_to_gm",
            means["WM"] / means["GM"],
            "ratio",
            0.60,
            0.97,
            "white matter is darker than gray on FLAIR",
        ),
        Check("csf_to_gm", means["CSF"] / means["GM"], "ratio", 0.0, 0.80, "fluid is dark on FLAIR"),
        Check("belief_sd", pooled.sd, "", 0.08, 0.20, "spread of the belief in brain tissue (published: 0.12)"),
        Check(
            "head_shape",
            head_shape(alignment.pose),
            "ratio",
            1.0,
            1.25,
            "stretch of the head against the template along its longest to its shortest axis; large: the header's "
            "slice thickness is wrong",
        ),
        Check("left_right_known", float(known), "", 1, 1, "0: the header does not say; sides may be swapped"),
    )


def check_share(share: float) -> Check:
    """Return the check of the share of the brain that exceeds the threshold."""
    return Check("share_over_threshold", share, "share", 0.0, 0.06, "share of the brain taken for lesion")
