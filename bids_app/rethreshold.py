"""Another threshold for a finished scan: its anatomy is read back from its own outputs instead of found again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bids_app import atlas, chain, files, marks, normalize, transformfile
from bids_app.bids import Scan
from bids_app.geometry import canonical, centre, centred
from bids_app.records import Alignment, Anatomy, Moments, Pose, Summary, Tissues, Volume

NEEDED = ("preproc", "brain", "dseg", "gm", "wm", "csf", "belief", "belief_mni", "forward", "inverse")


def possible(output_dir: Path, scan: Scan, mark: Summary | None, anatomy_digest: str, keys: Sequence[str]) -> bool:
    """Return whether a scan was finished with the same anatomy, and all that is needed of it is there."""
    if mark is None or mark.anatomy_digest != anatomy_digest:
        return False
    return marks.complete(output_dir, mark, [scan.output(key) for key in (*NEEDED, *keys)])


def restored(scan: Scan, original: Volume, output_dir: Path, mark: Summary, folder: Path) -> Anatomy:
    """Return the anatomy of a finished scan, in the chain's frame and to the bit where lesions depend on it.

    Parameters
    ----------
    original : Volume
        The scan as it is stored.
    folder : Path
        For transforms in the chain's frame.
    """
    grid = centred(canonical(original))

    def read(key: str) -> np.ndarray:
        return canonical(Volume(files.read_nifti(output_dir / scan.output(key))[0], original.affine)).data

    def about(key: str, name: str) -> float:
        return float(files.read_json(files.sidecar(output_dir / scan.output(key)))[name])

    offset = centre(canonical(original))
    moved = {key: folder / f"{key}.h5" for key in ("forward", "inverse")}
    for key, path in moved.items():
        transformfile.write(output_dir / scan.output(key), path, -offset, to_scan=key == "forward")
    flair, labels = grid.like(read("preproc")), read("dseg")
    # shares are written to 3 decimals, labels exactly: whole shares stand for them, as only their labels count here
    shares = {key: (labels == k).astype(np.float32) for k, key in ((1, "gm"), (2, "wm"), (3, "csf"))}
    means = {key.upper(): about(key, "ClassMean") for key in shares}
    return Anatomy(
        flair=flair,
        priors=normalize.priors(str(moved["inverse"]), atlas.load(), flair),
        tissues=Tissues(**shares, mask=read("brain") > 0, means=means),
        alignment=Alignment(str(moved["forward"]), str(moved["inverse"]), Pose(np.eye(3), np.zeros(3), 1.0, False)),
        belief=grid.like(read("belief")),
        belief_mni=Volume(*files.read_nifti(output_dir / scan.output("belief_mni"))),
        warped=None,
        gm_mean=about("belief", "GMMean"),
        moments=Moments(
            int(about("belief", "TissueCount")), about("belief", "TissueSum"), about("belief", "TissueSumOfSquares")
        ),
        checks=tuple(check for check in mark.checks if check.name != "share_over_threshold"),
        warnings=tuple(line for line in mark.warnings if line not in (chain.NONE_FOUND, chain.TOO_SMALL)),
        measures={key: value for key, value in mark.measures.items() if not key.startswith(("lesion_", "cleaned_"))},
        seconds=mark.seconds,
    )
