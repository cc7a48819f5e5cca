"""``python -m training.norm``: the norm of belief by place, from the scans of a BIDS data set; needs no torch.

Example: ``python -m training.norm --data open-ms/raw --also open-ms/mni/*FLAIR_brain.nii.gz --output trained``.
Scans of one participant count as one person, and so does each further file. With ``--leave-out sub-01`` (or the first
word of a file's name, ``patient07``) the norm knows nothing of that person: what a benchmark on that person needs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bids_app.files import formats
from bids_app.files.atomic import atomic
from bids_app.image import atlas, intake, registration
from bids_app.image.chain import find_anatomy
from bids_app.image.geometry import Frame
from bids_app.lesions import normative
from bids_app.records.lesions import Norm
from bids_app.records.scan import Anatomy

DESCRIPTION = "Median and MAD of the gray matter belief at each place of the template, everybody once and once mirrored"
LICENCE = "CC-BY, as the scans that it was made of"
SOURCE = "Lesjak et al., Neuroinformatics 2017, doi:10.1007/s12021-017-9348-7"
SEEN = 0.5  # share of the brain mask at a place of the template


def person_of(path: Path) -> str:
    """Return whom a scan is of: the first word of its name.

    >>> person_of(Path("sub-01_ses-2_FLAIR.nii.gz"))
    'sub-01'
    """
    return path.name.split("_")[0]


def belief_of(anatomy: Anatomy) -> np.ndarray:
    """Return a scan's belief on the template's grid of the norm, nan outside its brain."""
    grid, forward = atlas.brain_grid(normative.RESOLUTION), anatomy.fit.alignment.forward
    native, brain = anatomy.belief.native, anatomy.fit.tissues.mask
    belief = registration.to_template(forward, native, grid)
    share = registration.to_template(forward, native.like(brain.astype(np.float32)), grid)
    # at the brain's surface zeros from outside come in: divided out
    return np.where(share > SEEN, belief / np.maximum(share, SEEN), np.nan).astype(np.float32)


def anatomy_of(path: Path, folder: Path) -> Anatomy:
    """Return what the participant level finds in a FLAIR before any lesion; ``folder`` is for its transforms."""
    volume, known, _ = intake.to_volume(formats.open_nifti(path), formats.read_nifti(path)[0])
    return find_anatomy(Frame(volume).grid, folder, seed=0, trust_header=known)


def norm_of(paths: Sequence[Path]) -> Norm:
    """Return the norm of the people in these scans; a person's scans are averaged."""
    beliefs = defaultdict(list)
    for path in paths:
        with tempfile.TemporaryDirectory() as folder:
            beliefs[person_of(path)].append(belief_of(anatomy_of(path, Path(folder))))
        print(path.name, flush=True)
    return normative.estimate([mean_of(each) for each in beliefs.values()], atlas.brain_grid(normative.RESOLUTION))


def mean_of(beliefs: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean of a person's beliefs, of those where it was seen."""
    values = np.ma.masked_invalid(np.stack(beliefs)).mean(axis=0)
    return np.asarray(values.filled(np.nan), np.float32)


def write(norm: Norm, folder: Path) -> Path:
    """Write ``norm.npz``, packed: equal norms are equal bytes."""
    path = folder / normative.FILE
    with atomic(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **dict(normative.packed(norm)))  # type: ignore[arg-type]
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Make the norm as the command line says; returns the exit code."""
    line = argparse.ArgumentParser(prog="python -m training.norm", description=__doc__)
    line.add_argument("--data", type=Path, required=True, help="BIDS data set with the FLAIRs")
    line.add_argument("--also", type=Path, nargs="*", default=[], help="further FLAIRs, a person each")
    line.add_argument("--output", type=Path, required=True, help="folder for norm and card")
    line.add_argument("--leave-out", metavar="WHO", default="", help="person to leave out, such as sub-01")
    options = line.parse_args(argv)
    paths = [*sorted(options.data.glob("sub-*/**/anat/*_FLAIR.nii.gz")), *sorted(options.also)]
    kept = [path for path in paths if person_of(path) != options.leave_out]
    if not kept or (options.leave_out and len(kept) == len(paths)):
        line.error(f"no scan under {options.data}, or nobody called {options.leave_out!r}")
    words = ["python", "-m", "training.norm", "--data", "RAW", *(["--also", "FILES"] if options.also else [])]
    words += ["--output", "FOLDER", *(["--leave-out", options.leave_out] if options.leave_out else [])]
    options.output.mkdir(parents=True, exist_ok=True)
    print(write(norm_of(kept), options.output))
    card = {
        "Description": DESCRIPTION,
        "License": LICENCE,
        "Source": SOURCE,
        "Command": shlex.join(words),
        "People": sorted({person_of(path) for path in kept}),
        "Scans": [path.name.removesuffix(".nii.gz") for path in kept],
        "LeftOut": options.leave_out or None,
    }
    (options.output / "norm.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
