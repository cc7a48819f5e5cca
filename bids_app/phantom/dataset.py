"""Writes made-up scans and cohorts as BIDS data sets, with their truth as derivatives."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bids_app import __version__
from bids_app.bids.dataset import BIDS_VERSION, description
from bids_app.bids.names import APP, SPACE, Scan
from bids_app.errors import BadInputError
from bids_app.files import formats
from bids_app.image import atlas
from bids_app.phantom.cohort import LEVELS, VISIT, draw_raters, draw_table
from bids_app.phantom.records import Design, PhantomScan
from bids_app.phantom.scan import draw_blobs, draw_map, repose, scan
from bids_app.records.cohort import Cohort
from bids_app.records.scan import Volume

README = """Made-up data: no person was scanned. Anatomy is that of the ICBM 152 2009 template (see nilearn's
licence notes); lesions, tables and readings are random. For demonstrations, tests and benchmarks only.
"""
_NAMES = {"RRMS": "relapsing-remitting multiple sclerosis", "NMOSD": "neuromyelitis optica spectrum disorder"}
COLUMNS: dict[str, dict[str, Any]] = {
    "group": {"Description": "Diagnosis; NMOSD with AQP4-IgG", "Levels": _NAMES},
    "sex": {"Description": "Sex", "Levels": {"F": "female", "M": "male"}},
    "age_at_onset": {"Description": "Age at the first episode", "Units": "year"},
    "age": {"Description": "Age at imaging", "Units": "year"},
    "disease_duration": {"Description": "Time from the first episode to imaging", "Units": "year"},
    "attack_index": {"Description": "Episodes so far, the first included"},
    "time_since_first": {"Description": "Time since the first episode began", "Units": "month"},
    "time_since_latest": {"Description": "Time since the latest episode began", "Units": "month"},
}


def write_tables(root: Path, table: pd.DataFrame, positive: np.ndarray, name: str) -> None:
    """Write a raw data set's description, README, participants and sessions; ``table`` as of `draw_table`."""
    about = {"Name": name, "BIDSVersion": BIDS_VERSION, "DatasetType": "raw", "License": "See README"}
    made = {"Authors": ["Nobody"], "GeneratedBy": [{"Name": f"{APP}.phantom", "Version": __version__}]}
    formats.write_json(root / "dataset_description.json", {**about, **made})
    formats.write_text(root / "README", README)
    group = np.array(LEVELS)[1 - positive.astype(int)]
    people = table.assign(group=group)[["participant_id", "group", "sex", "age_at_onset"]]
    people = people.drop_duplicates("participant_id")
    formats.write_tsv(root / "participants.tsv", people)
    formats.write_json(root / "participants.json", {key: COLUMNS[key] for key in people if key in COLUMNS})
    for person, rows in table.groupby("participant_id", sort=False):
        sessions = rows[VISIT].copy()
        sessions.insert(0, "session_id", [scan.partition("_")[2] for scan in rows.index])
        formats.write_tsv(root / str(person) / f"{person}_sessions.tsv", sessions)
    formats.write_json(root / "sessions.json", {key: COLUMNS[key] for key in VISIT})


def write_cohort(cohort: Cohort, bids_dir: Path, output_dir: Path, seed: int = 0) -> None:
    """Write a drawn cohort as a raw data set without images and derivatives with the lesion maps at 3 mm.

    Beside the tables, the raw side has ``phenotype/rater_decisions.tsv``, two raters drawn from ``seed``.

    Raises
    ------
    CannotCreateError, WriteFailedError
    """
    table = cohort.table.assign(participant_id=cohort.participants)
    write_tables(bids_dir, table, cohort.positive, "Made-up cohort, lesion maps only")
    raters = draw_raters(np.random.default_rng(seed), cohort.positive)
    raters.insert(0, "participant_id", cohort.participants)
    raters.insert(1, "session_id", [scan.session for scan in cohort.scans])
    formats.write_tsv(bids_dir / "phenotype" / "rater_decisions.tsv", raters)
    decided = {"Description": "Group the rater decided for; _repeat: second read", "Levels": _NAMES}
    about: dict[str, Any] = {"session_id": {"Description": "Session that was read"}}
    about |= {column: decided for column in raters if column.startswith("rater")}
    formats.write_json(bids_dir / "phenotype" / "rater_decisions.json", about)
    # BIDS as yet allows a phenotype table one row a participant, and readings are of scans
    formats.write_text(bids_dir / ".bidsignore", "phenotype/rater_decisions.*\n")
    write_derivative(output_dir, bids_dir, "Made-up lesion maps")
    for place, lesion in zip(cohort.scans, cohort.lesions, strict=True):
        write_mask(output_dir, place, "lesion_mni", atlas.on_grid(lesion))


def write_derivative(root: Path, raw: Path, name: str) -> None:
    """Write the description of derivatives of the data set ``raw``, linked by its relative path."""
    link = Path(os.path.relpath(raw, root)).as_posix()
    formats.write_json(root / "dataset_description.json", description(name, {"raw": link}))
    formats.write_text(root / "README", README)


def write_mask(root: Path, scan: Scan, key: str, mask: Volume, source: str | None = None) -> None:
    """Write a mask under the name of output ``key``, with its sidecar; ``source``: the scan's URI, if any."""
    path = root / scan.output(key)
    formats.write_nifti(path, mask.data, mask.affine)
    kind = "Brain" if key == "brain" else "Lesion"
    about: dict[str, Any] = {"Description": f"{kind} mask of made-up data: the truth", "Type": kind}
    if source:
        about["Sources"] = [source]
    if key.endswith("_mni"):
        about |= {"SpatialReference": SPACE, "Resolution": "3 mm isotropic, nilearn's MNI152 template"}
    formats.write_json(formats.sidecar(path), about)


MACHINES = (("Siemens", 3.0), ("GE", 1.5), ("Philips", 3.0), ("Siemens", 1.5))
NUMBER = ((9, 20), (3, 7))  # lesions of a participant with RRMS and with NMOSD, at least and below


ALL_KINDS = Design()


def make_dataset(
    root: Path,
    truth: Path,
    design: Design = ALL_KINDS,
    seed: int = 0,
) -> None:
    """Write a raw BIDS data set of made-up FLAIRs and, as derivatives, their true masks.

    Parameters
    ----------
    root, truth : Path
        Folders of the raw data set and of the derivatives.
    design : Design
    seed : int
        Equal arguments, equal bytes.

    Raises
    ------
    BadInputError
        When there is no participant, no session, or a voxel size out of 0.5-10 mm.
    CannotCreateError, WriteFailedError
    """
    sessions, spacing, lesion_free = design.sessions, design.spacing, design.lesion_free
    total = design.n_positive + design.n_negative
    counts = [sessions[i % len(sessions)] for i in range(total)] if sessions else []
    if min(design.n_positive, design.n_negative) < 0 or not counts or min(counts) < 1:
        raise BadInputError("a data set needs participants, and each a session", root, "raise the numbers")
    if not all(0.5 <= size <= 10 for size in spacing):
        raise BadInputError(f"voxel size {spacing} is not within 0.5-10 mm", root, "choose another")
    rng = np.random.default_rng(seed)
    groups = np.repeat([0, 1], [design.n_positive, design.n_negative])
    table = draw_table(rng, groups, np.array(counts))
    write_tables(root, table, np.repeat(groups == 0, counts), "Made-up FLAIR scans")
    write_derivative(truth, root, "Truth of made-up FLAIR scans")
    people = [rows for _, rows in table.groupby("participant_id", sort=False)]
    for person, (group, visits) in enumerate(zip(groups, people, strict=True)):
        own = np.random.default_rng([seed, person])
        blobs = draw_blobs(own, int(own.integers(*NUMBER[group])), group)
        place = draw_map(own)
        for name in visits.index:
            free = group == 1 and lesion_free > 0
            lesion_free -= free
            made = scan([] if free else blobs, repose(place, own), spacing, own)
            _write_scan(root, truth, Scan.named(name), made, MACHINES[person % len(MACHINES)])
            blobs = [*blobs, *draw_blobs(own, 1, group)]  # a new lesion by the next session


def _write_scan(root: Path, truth: Path, place: Scan, made: PhantomScan, machine: tuple[str, float]) -> None:
    formats.write_nifti(root / place.path, made.flair.data, made.flair.affine)
    about = {
        "Modality": "MR",
        "Manufacturer": machine[0],
        "MagneticFieldStrength": machine[1],
        "MRAcquisitionType": "2D",
        "SliceThickness": float(made.flair.spacing[2]),
        "RepetitionTime": 9.0,
        "EchoTime": 0.12,
        "InversionTime": 2.5,
        "FlipAngle": 150,
    }
    formats.write_json(formats.sidecar(root / place.path), about)
    raw = f"bids:raw:{place.path}"
    write_mask(truth, place, "brain", made.flair.like(made.brain), raw)
    write_mask(truth, place, "lesion", made.flair.like(made.lesion), raw)
    write_mask(truth, place, "lesion_mni", atlas.brain_grid(3).like(made.lesion_mni), raw)
