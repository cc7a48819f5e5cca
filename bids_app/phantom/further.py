"""More than lesion maps for a made-up cohort: a third group, sites, belief maps. Each with a difference planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from bids_app.bids.names import SPACE, Scan
from bids_app.files import formats
from bids_app.image import atlas
from bids_app.phantom.cohort import VISIT, draw_third
from bids_app.phantom.dataset import COLUMNS, write_mask
from bids_app.records.cohort import Cohort

THIRD = "MOGAD"
SITES = ("north", "south", "west")
SHARES = ((0.45, 0.30, 0.25), (0.25, 0.35, 0.40))  # of each group's participants at the sites: unequal, as in life
NOISE, SMOOTH_MM = 0.1, 3.0  # SD of belief from voxel to voxel, and its smoothness
SIGNAL = (0.55, 0.40)  # belief of lesions above their surroundings: those of NMOSD are fainter here


def write_sites(bids_dir: Path, cohort: Cohort, seed: int) -> None:
    """Add the column ``site`` to participants.tsv, drawn from ``seed``."""
    rng, path = np.random.default_rng([seed, 1]), bids_dir / "participants.tsv"
    table = formats.read_tsv(path)
    positive = dict(zip(cohort.participants, cohort.positive, strict=True))
    table["site"] = [
        rng.choice(SITES, p=SHARES[0 if positive.get(who, True) else 1]) for who in table["participant_id"]
    ]
    formats.write_tsv(path, table)
    about = formats.read_json(formats.sidecar(path))
    formats.write_json(formats.sidecar(path), {**about, "site": {"Description": "Where the scans were made"}})


def write_third(bids_dir: Path, output_dir: Path, participants: int, seed: int) -> None:
    """Add participants of a third group, two scans each, to the tables and the lesion maps."""
    table, lesions = draw_third(participants, 2 * participants, seed)
    path = bids_dir / "participants.tsv"
    own = table.assign(group=THIRD)[["participant_id", "group", "sex", "age_at_onset"]].drop_duplicates(
        "participant_id"
    )
    formats.write_tsv(path, pd.concat([formats.read_tsv(path), own.astype(str)], ignore_index=True))
    about = formats.read_json(formats.sidecar(path))
    about["group"]["Levels"] = {**COLUMNS["group"]["Levels"], THIRD: "MOG antibody-associated disease"}
    formats.write_json(formats.sidecar(path), about)
    for person, rows in table.groupby("participant_id", sort=False):
        sessions = rows[VISIT].copy()
        sessions.insert(0, "session_id", [scan.partition("_")[2] for scan in rows.index])
        formats.write_tsv(bids_dir / str(person) / f"{person}_sessions.tsv", sessions)
    for name, lesion in zip(table.index, lesions, strict=True):
        write_mask(output_dir, Scan.named(name), "lesion_mni", atlas.on_grid(lesion))


def write_beliefs(output_dir: Path, cohort: Cohort, seed: int) -> None:
    """Write normalised belief maps that fit the lesion maps: tissue, noise, and lesions of each group's brightness."""
    grid, maps = atlas.brain_grid(3), atlas.load()
    gm, wm = (atlas.at_3mm(volume.data, grid.data.shape)[grid.data] for volume in (maps.gm, maps.wm))
    place = -0.18 * wm - 0.5 * np.clip(1 - gm - wm, 0, 1)
    for row, scan in enumerate(cohort.scans):
        rng = np.random.default_rng([seed, 2, row])
        noise = ndimage.gaussian_filter(rng.standard_normal(grid.data.shape).astype(np.float32), SMOOTH_MM / 3 / 2.355)
        belief = place + NOISE * noise[grid.data] / noise.std()
        belief += cohort.lesions[row] * SIGNAL[0 if cohort.positive[row] else 1] * rng.uniform(0.8, 1.2)
        path = output_dir / scan.output("belief_mni")
        volume = atlas.on_grid(belief.round(2).astype(np.float32))
        formats.write_nifti(path, volume.data, volume.affine)
        about = {"Description": "Gray matter belief map of made-up data", "SkullStripped": True}
        about |= {"SpatialReference": SPACE, "Resolution": "3 mm isotropic, nilearn's MNI152 template"}
        formats.write_json(formats.sidecar(path), about)
