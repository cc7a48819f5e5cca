"""A made-up cohort: who, when, and where lesions are; lesion maps at 3 mm drawn directly, without images.

Sites follow the reviews of brain MRI in MS (Filippi et al., Brain 2019, 142:1858) and in AQP4-IgG NMOSD
(Kim et al., Neurology 2015, 84:1165): MS periventricular, callosal, juxtacortical and in deep white matter;
NMOSD around third and fourth ventricle, hypothalamus, dorsal brainstem, or no brain lesion at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from bids_app import __version__, atlas, files
from bids_app.bids import APP, BIDS_VERSION, Scan, description
from bids_app.cohort import permute
from bids_app.errors import BadInputError
from bids_app.records import SPACE, Cohort, Volume

LEVELS = ("RRMS", "NMOSD")
# share of each group's lesions by site
MIXTURE = {
    "periventricular": (0.44, 0.27),
    "callosal": (0.10, 0.05),
    "juxtacortical": (0.18, 0.14),
    "deep": (0.20, 0.24),
    "diencephalon": (0.02, 0.13),
    "brainstem": (0.06, 0.17),
}
LOAD = (15.0, 11.0)  # mean number of lesions of a participant who has any
LESION_FREE = (0.18, 0.50)  # share of participants without lesions
RADIUS = ((3.0, 9.5), (3.0, 8.5))  # mm
LASTING, FRESH = 0.7, 0.3  # chance that a lesion is seen in a scan; new ones, relative to the lasting
ONSET = ((30.5, 9.0), (38.5, 12.5))  # age at onset, years: mean and SD
MALE = (44 / 172, 12 / 97)  # as published
# centre (mm, MNI; both sides where x > 0) and radius (mm) of the sites that are not tissue rules
_DIENCEPHALON = ((3, -8, -2, 7), (4, -4, -11, 6), (4, -22, 4, 6))
# where lesions gather within their site, both sides: horns and body of the lateral ventricle, splenium
_HOT = ((21, 28, 12), (29, -46, 18), (24, -10, 27), (3, -37, 15), (32, -14, 34))
_BRAINSTEM = ((2, -34, -30, 7), (2, -31, -16, 6), (3, -44, -52, 7), (4, -38, -42, 7), (12, -42, -34, 6))

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
VISIT = ["age", "disease_duration", "attack_index", "time_since_first", "time_since_latest"]


@cache
def sites() -> dict[str, np.ndarray]:
    """Return the lesion sites, disjoint, each (V,) bool over the 3 mm brain mask's voxels in C order."""
    grid, maps = atlas.brain_grid(3), atlas.load()
    axes = [grid.affine[i, 3] + 3.0 * np.arange(n) for i, n in enumerate(grid.data.shape)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    gm, wm = (at_3mm(volume.data, grid.data.shape) for volume in (maps.gm, maps.wm))
    depth = ndimage.distance_transform_edt(grid.data, sampling=3.0)
    box = (np.abs(x) < 40) & (y > -60) & (y < 40) & (z > -5) & (z < 32)
    pieces, _ = ndimage.label(grid.data & (gm + wm < 0.6) & (depth > 15) & box)
    ventricle = pieces == np.argmax(np.bincount(pieces.ravel())[1:]) + 1
    from_ventricle = ndimage.distance_transform_edt(~ventricle, sampling=3.0)
    from_cortex = ndimage.distance_transform_edt(gm < 0.5, sampling=3.0)
    white = grid.data & (wm > 0.6)
    rules = {
        "diencephalon": _balls(_DIENCEPHALON, x, y, z) & (gm + wm > 0.5),
        "brainstem": _balls(_BRAINSTEM, x, y, z) & (gm + wm > 0.5),
        "callosal": white & (np.abs(x) < 10) & (y > -42) & (y < 32) & (z > 2) & (z < 30),
        "periventricular": white & (from_ventricle <= 7) & (z > -2),
        "juxtacortical": white & (from_cortex < 4) & (from_ventricle > 14) & (z > 0) & (depth < 24),
        "deep": white & (from_cortex >= 6) & (from_ventricle > 7) & (z > 5),
    }
    free, found = grid.data.copy(), {}
    for name, where in rules.items():
        found[name] = (where & free)[grid.data]
        free &= ~where
    return found


def at_3mm(data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Mean of the 1 mm voxels in each 3 mm voxel; the two grids share the centre of their first voxel."""
    after = [3 * m - n - 1 for m, n in zip(shape, data.shape, strict=True)]
    padded = np.pad(data, [(1, extra) for extra in after])
    blocks = padded.reshape(shape[0], 3, shape[1], 3, shape[2], 3)
    mean: np.ndarray = blocks.mean(axis=(1, 3, 5), dtype=np.float32)
    return mean


def _balls(balls: tuple[tuple[float, ...], ...], x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    inside = np.zeros(x.shape, bool)
    for cx, cy, cz, r in balls:
        inside |= (np.abs(x) - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 <= r**2
    return inside


@cache
def _chances() -> dict[str, np.ndarray]:
    """Cumulative chance (V,) of the voxels to be the centre of a lesion, by site."""
    grid = atlas.brain_grid(3)
    place = np.argwhere(grid.data) * 3.0 + grid.affine[:3, 3]
    place[:, 0] = np.abs(place[:, 0])
    squares = ((place[:, None] - np.array(_HOT, float)) ** 2).sum(axis=2)
    heat = 0.05 + np.exp(-squares / (2 * 5.0**2)).sum(axis=1)
    totals = {name: np.cumsum(heat * where) for name, where in sites().items()}
    return {name: total / total[-1] for name, total in totals.items()}


def site_mask(group: str) -> np.ndarray:
    """Return the sites (V,) bool where a scan of this group has more lesions than one of the other group.

    Expected lesions: share of the site, times load, times share of participants that have lesions at all.
    Grown by one voxel, since sites hold the centres of lesions; where both groups then lie, neither does.
    """
    if group not in LEVELS:
        raise BadInputError(f"no group {group!r}", remedy=f"choose one of {', '.join(LEVELS)}")
    own, load = LEVELS.index(group), np.array(LOAD) * (1 - np.array(LESION_FREE))
    more = {name: bool(np.argmax(load * shares) == own) for name, shares in MIXTURE.items()}
    grid = atlas.brain_grid(3).data
    near = []
    for wanted in (True, False):
        centres = np.zeros(grid.shape, bool)
        chosen = [where for name, where in sites().items() if more[name] is wanted]
        centres[grid] = np.logical_or.reduce(chosen)
        near.append(ndimage.binary_dilation(centres)[grid])
    mask: np.ndarray = near[0] & ~near[1]
    return mask


def draw_spots(rng: np.random.Generator, number: int, group: int, effect: float) -> tuple[np.ndarray, ...]:
    """Draw lesions: voxel (index into the mask's V voxels) and radius (mm), each (number,).

    ``group`` is the column of `MIXTURE`; ``effect`` 0 makes the groups alike, 1 is the default difference.
    """
    shares = np.array([_between(pair, group, effect) for pair in MIXTURE.values()]).clip(0)
    which, voxels = rng.choice(len(MIXTURE), size=number, p=shares / shares.sum()), np.zeros(number, int)
    for site, name in enumerate(MIXTURE):
        here = which == site
        voxels[here] = np.searchsorted(_chances()[name], rng.random(here.sum()), side="right")
    low, high = (_between((RADIUS[0][i], RADIUS[1][i]), group, effect) for i in (0, 1))
    return voxels, low + (high - low) * rng.beta(1.5, 3, size=number)


def _between(pair: tuple[float, float], group: int, effect: float) -> float:
    """Value of the group, moved towards the mean of both as the effect goes to 0."""
    middle = (pair[0] + pair[1]) / 2
    return middle + effect * (pair[group] - middle)


def draw_cohort(
    *,
    n_participants: tuple[int, int] = (172, 97),
    n_scans: tuple[int, int] = (746, 292),
    seed: int = 0,
    shuffle_labels: bool = False,
    effect: float = 1.0,
) -> Cohort:
    """Draw a cohort whose scans of one participant are much alike: most lesions stay from scan to scan.

    Parameters
    ----------
    n_participants, n_scans : (int, int)
        Of RRMS and NMOSD.
    seed : int
    shuffle_labels : bool
        Permute the labels over participants afterwards: the only signal left is the participant's identity.
        The numbers of participants stay, those of scans change.
    effect : float
        Difference of the groups: 0 none, 1 about that of the publication.

    Raises
    ------
    BadInputError
        When a group has fewer scans than participants, or the effect is negative.
    """
    if effect < 0 or any(s < p or p < 1 for p, s in zip(n_participants, n_scans, strict=True)):
        what = f"{n_participants} participants cannot have {n_scans} scans at effect {effect}"
        raise BadInputError(what, remedy="give each group participants, each a scan, and effect >= 0")
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat([0, 1], n_participants))
    counts = np.empty(len(groups), int)
    for group in (0, 1):
        counts[groups == group] = _spread(rng, n_participants[group], n_scans[group])
    table = draw_table(rng, groups, counts)
    loads = rng.gamma(1.5, 1 / 1.5, len(groups)) * [_between(LOAD, group, effect) for group in groups]
    loads[rng.random(len(groups)) < [_between(LESION_FREE, group, effect) for group in groups]] = 0
    lesions = np.zeros((len(table), int(atlas.brain_grid(3).data.sum())), bool)
    for row, (voxels, radii) in enumerate(_scans(rng, groups, counts, loads, effect)):
        lesions[row] = paint(voxels, radii)
    participants = table.pop("participant_id").to_numpy(dtype=str)
    positive = np.repeat(groups == 0, counts)
    if shuffle_labels:
        positive = permute(positive, participants, seed)
    return Cohort(tuple(table.index), participants, positive, lesions, table, LEVELS)


def _spread(rng: np.random.Generator, participants: int, scans: int) -> np.ndarray:
    """Scans of each participant (participants,), at least 1, skewed, with exactly this sum."""
    weights = rng.gamma(0.8, size=participants)
    return 1 + rng.multinomial(scans - participants, weights / weights.sum())


def _scans(
    rng: np.random.Generator, groups: np.ndarray, counts: np.ndarray, loads: np.ndarray, effect: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Lesions (voxels, radii) scan by scan: most of those of the participant, and a few new ones."""
    for group, count, load in zip(groups, counts, loads, strict=True):
        number = 1 + rng.poisson(load) if load else 0
        voxels, radii = draw_spots(rng, number, group, effect)
        for _ in range(count):
            seen = rng.random(number) < LASTING
            size = radii[seen] * rng.lognormal(0, 0.1, seen.sum())
            new_voxels, new_radii = draw_spots(rng, rng.poisson(FRESH * number), group, effect)
            yield np.concatenate([voxels[seen], new_voxels]), np.concatenate([size, new_radii])


def paint(voxels: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return the lesion map (V,) bool of balls at these voxels, radii in mm."""
    mask = atlas.brain_grid(3).data
    shell = 1 + int(max(radii, default=0.0) // 3)
    reach = np.arange(-shell, shell + 1)
    offsets = np.stack(np.meshgrid(reach, reach, reach, indexing="ij"), axis=-1).reshape(-1, 3)
    distance = 3.0 * np.sqrt((offsets**2).sum(axis=1))
    padded = np.zeros([n + 2 * shell for n in mask.shape], bool)
    for centre, radius in zip(np.argwhere(mask)[voxels] + shell, radii, strict=True):
        padded[tuple((centre + offsets[distance <= radius]).T)] = True
    inside: np.ndarray = padded[shell:-shell, shell:-shell, shell:-shell][mask]
    return inside


def draw_table(rng: np.random.Generator, groups: np.ndarray, counts: np.ndarray) -> pd.DataFrame:
    """Draw the table of the scans: one row each, index such as ``sub-001_ses-1``.

    Parameters
    ----------
    groups : ndarray of int, shape (P,)
        0 RRMS, 1 NMOSD.
    counts : ndarray of int, shape (P,)
        Scans of each participant.

    Returns
    -------
    pandas.DataFrame
        ``participant_id``, ``age_at_onset``, ``age``, ``disease_duration`` (years), ``sex``, ``attack_index``
        (1 = first), ``time_since_first``, ``time_since_latest`` (months since the episode began).
    """
    rows, width = {}, max(2, len(str(len(groups))))
    sexes = np.full(len(groups), "F")
    for group in (0, 1):
        members = rng.permutation(np.flatnonzero(groups == group))
        sexes[members[: round(len(members) * MALE[group])]] = "M"
    for person, (group, count) in enumerate(zip(groups, counts, strict=True)):
        name = f"sub-{person + 1:0{width}d}"
        onset = float(np.clip(rng.normal(*ONSET[group]), 15, 75).round(1))
        gaps = np.concatenate([rng.exponential(24.0, 1), rng.uniform(3.0, 24.0, count - 1)]) + 0.1
        first, latest, attack = 0.0, 0.0, 1
        for session, gap in enumerate(gaps, 1):
            first, latest = first + gap, latest + gap
            if rng.random() < 0.5:  # a relapse since the last scan, often the reason for this one
                attack, latest = attack + 1, gap * rng.beta(0.6, 2.0)
            rows[f"{name}_ses-{session}"] = {
                "participant_id": name,
                "age_at_onset": onset,
                "age": round(onset + first / 12, 1),
                "sex": str(sexes[person]),
                "disease_duration": round(first / 12, 2),
                "attack_index": attack,
                "time_since_first": round(first, 1),
                "time_since_latest": round(latest, 1),
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def draw_raters(rng: np.random.Generator, positive: np.ndarray) -> pd.DataFrame:
    """Let two raters, about 63 % correct, read N scans once and a random tenth twice.

    Returns
    -------
    pandas.DataFrame, N rows
        ``rater_1``, ``rater_1_repeat``, ``rater_2``, ``rater_2_repeat``: a group's name, or missing. Kappa is
        about 0.4 between the raters and 0.7 between the reads of one, as in the publication.
    """

    def read() -> np.ndarray:
        return np.where(rng.random(len(positive)) < 0.63, positive, ~positive)

    looks_like, names = read(), np.array(LEVELS)
    once = rng.permutation(len(positive))[max(1, round(len(positive) / 10)) :]
    reads: dict[str, np.ndarray] = {}
    for rater in ("rater_1", "rater_2"):
        first = np.where(rng.random(len(positive)) < 0.65, looks_like, read())
        second = np.where(rng.random(len(positive)) < 0.7, first, read())
        reads[rater] = names[1 - first.astype(int)]
        reads[f"{rater}_repeat"] = names[1 - second.astype(int)].astype(object)
        reads[f"{rater}_repeat"][once] = None
    return pd.DataFrame(reads)


def write_tables(root: Path, table: pd.DataFrame, positive: np.ndarray, name: str) -> None:
    """Write a raw data set's description, README, participants and sessions; ``table`` as of `draw_table`."""
    about = {"Name": name, "BIDSVersion": BIDS_VERSION, "DatasetType": "raw", "License": "See README"}
    made = {"Authors": ["Nobody"], "GeneratedBy": [{"Name": f"{APP}.phantom", "Version": __version__}]}
    files.write_json(root / "dataset_description.json", {**about, **made})
    files.write_text(root / "README", README)
    group = np.array(LEVELS)[1 - positive.astype(int)]
    people = table.assign(group=group)[["participant_id", "group", "sex", "age_at_onset"]]
    people = people.drop_duplicates("participant_id")
    files.write_tsv(root / "participants.tsv", people)
    files.write_json(root / "participants.json", {key: COLUMNS[key] for key in people if key in COLUMNS})
    for person, rows in table.groupby("participant_id", sort=False):
        sessions = rows[VISIT].copy()
        sessions.insert(0, "session_id", [scan.partition("_")[2] for scan in rows.index])
        files.write_tsv(root / str(person) / f"{person}_sessions.tsv", sessions)
    files.write_json(root / "sessions.json", {key: COLUMNS[key] for key in VISIT})


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
    raters.insert(1, "session_id", [scan.partition("_")[2] for scan in cohort.scans])
    files.write_tsv(bids_dir / "phenotype" / "rater_decisions.tsv", raters)
    decided = {"Description": "Group the rater decided for; _repeat: second read", "Levels": _NAMES}
    about: dict[str, Any] = {"session_id": {"Description": "Session that was read"}}
    about |= {column: decided for column in raters if column.startswith("rater")}
    files.write_json(bids_dir / "phenotype" / "rater_decisions.json", about)
    # BIDS as yet allows a phenotype table one row a participant, and readings are of scans
    files.write_text(bids_dir / ".bidsignore", "phenotype/rater_decisions.*\n")
    write_derivative(output_dir, bids_dir, "Made-up lesion maps")
    grid = atlas.brain_grid(3)
    for name, lesion in zip(cohort.scans, cohort.lesions, strict=True):
        volume = np.zeros(grid.data.shape, np.uint8)
        volume[grid.data] = lesion
        write_mask(output_dir, scan_of(name), "lesion_mni", Volume(volume, grid.affine))


def scan_of(name: str) -> Scan:
    """Return the scan called ``sub-X_ses-Y``."""
    entities = tuple((pair.partition("-")[0], pair.partition("-")[2]) for pair in name.split("_"))
    return Scan(entities, f"{'/'.join(name.split('_'))}/anat/{name}_FLAIR.nii.gz")


def write_derivative(root: Path, raw: Path, name: str) -> None:
    """Write the description of derivatives of the data set ``raw``, linked by its relative path."""
    link = Path(os.path.relpath(raw, root)).as_posix()
    files.write_json(root / "dataset_description.json", description(name, {"raw": link}))
    files.write_text(root / "README", README)


def write_mask(root: Path, scan: Scan, key: str, mask: Volume, source: str | None = None) -> None:
    """Write a mask under the name of output ``key``, with its sidecar; ``source``: the scan's URI, if any."""
    path = root / scan.output(key)
    files.write_nifti(path, mask.data, mask.affine)
    kind = "Brain" if key == "brain" else "Lesion"
    about: dict[str, Any] = {"Description": f"{kind} mask of made-up data: the truth", "Type": kind}
    if source:
        about["Sources"] = [source]
    if key.endswith("_mni"):
        about |= {"SpatialReference": SPACE, "Resolution": "3 mm isotropic, nilearn's MNI152 template"}
    files.write_json(path.with_name(path.name.split(".")[0] + ".json"), about)
