"""Another threshold for a finished scan: its anatomy is read back from its own outputs instead of found again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bids_app.bids.names import Scan
from bids_app.files import formats
from bids_app.image import registration
from bids_app.image.geometry import Frame
from bids_app.lesions.kinds import PREFIXES
from bids_app.participant import marks, transforms
from bids_app.records.scan import Alignment, Anatomy, Belief, Fit, Moments, Pose, Summary, Tissues, Volume

NEEDED = ("preproc", "brain", "dseg", "gm", "wm", "csf", "belief", "belief_mni", "forward", "inverse")


def possible(output_dir: Path, scan: Scan, mark: Summary | None, anatomy_digest: str, keys: Sequence[str]) -> bool:
    """Return whether a scan was finished with the same anatomy, and all that is needed of it is there."""
    if mark is None or mark.origin.anatomy_digest != anatomy_digest:
        return False
    return marks.complete(output_dir, mark, [scan.output(key) for key in (*NEEDED, *keys)])


def restored(scan: Scan, frame: Frame, output_dir: Path, mark: Summary, folder: Path) -> Anatomy:
    """Return the anatomy of a finished scan, in the chain's frame and to the bit where lesions depend on it.

    ``folder`` is for the transforms in that frame.
    """

    def read(key: str) -> np.ndarray:
        return frame.inward(formats.read_nifti(output_dir / scan.output(key))[0])

    def about(key: str, name: str) -> float:
        return float(formats.read_json(formats.sidecar(output_dir / scan.output(key)))[name])

    moved = {key: folder / f"{key}.h5" for key in ("forward", "inverse")}
    for key, path in moved.items():
        transforms.inward(output_dir / scan.output(key), path, frame, to_scan=key == "forward")
    flair, labels = frame.grid.like(read("preproc")), read("dseg")
    # shares are written to 3 decimals, labels exactly: whole shares stand for them, as only their labels count here
    shares = {key: (labels == k).astype(np.float32) for k, key in ((1, "gm"), (2, "wm"), (3, "csf"))}
    means = {key.upper(): about(key, "ClassMean") for key in shares}
    checked = {check.name: check.value for check in mark.checks}
    sums = [about("belief", name) for name in ("TissueCount", "TissueSum", "TissueSumOfSquares")]
    return Anatomy(
        fit=Fit(
            flair,
            Alignment(str(moved["forward"]), str(moved["inverse"]), Pose(np.eye(3), np.zeros(3), 1.0, False)),
            registration.priors(str(moved["inverse"]), flair),
            Tissues(**shares, mask=read("brain") > 0, means=means),
            checked["template_agreement"],
            checked["template_overlap"],
            checked["brain_confidence"],
        ),
        belief=Belief(
            frame.grid.like(read("belief")),
            Volume(*formats.read_nifti(output_dir / scan.output("belief_mni"))),
            about("belief", "GMMean"),
            Moments(int(sums[0]), sums[1], sums[2]),
        ),
        warped=None,
        checks=tuple(check for check in mark.checks if check.name != "share_over_threshold"),
        warnings=mark.warnings,
        measures={key: value for key, value in mark.measures.items() if not key.startswith(PREFIXES)},
    )
