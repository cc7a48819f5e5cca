"""A made-up cohort: who, when, and where lesions are; lesion maps at 3 mm drawn directly, without images.

Sites follow the reviews of brain MRI in MS (Filippi et al., Brain 2019, 142:1858) and in AQP4-IgG NMOSD
(Kim et al., Neurology 2015, 84:1165): MS periventricular, callosal, juxtacortical and in deep white matter;
NMOSD around third and fourth ventricle, hypothalamus, dorsal brainstem, or no brain lesion at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pandas as pd
from scipy import ndimage

from bids_app.bids.names import Scan
from bids_app.errors import BadInputError
from bids_app.image import atlas
from bids_app.learning.division import permute
from bids_app.records.cohort import Cohort

LEVELS = ("RRMS", "NMOSD")
# share of each group's lesions by site; third, MOG antibody-associated disease (`draw_third`)
MIXTURE = {
    "periventricular": (0.44, 0.27, 0.12),
    "callosal": (0.10, 0.05, 0.03),
    "juxtacortical": (0.18, 0.14, 0.25),
    "deep": (0.20, 0.24, 0.15),
    "diencephalon": (0.02, 0.13, 0.15),
    "brainstem": (0.06, 0.17, 0.30),
}
LOAD = (15.0, 11.0, 8.0)  # mean number of lesions of a participant who has any
LESION_FREE = (0.18, 0.50, 0.25)  # share of participants without lesions
RADIUS = ((3.0, 9.5), (3.0, 8.5), (4.0, 11.0))  # mm
LASTING, FRESH = 0.7, 0.3  # chance that a lesion is seen in a scan; new ones, relative to the lasting
ONSET = ((30.5, 9.0), (38.5, 12.5), (32.0, 13.0))  # age at onset, years: mean and SD
MALE = (44 / 172, 12 / 97, 0.45)  # the first two as published
# centre (mm, MNI; both sides where x > 0) and radius (mm) of the sites that are not tissue rules
_DIENCEPHALON = ((3, -8, -2, 7), (4, -4, -11, 6), (4, -22, 4, 6))
# where lesions gather within their site, both sides: horns and body of the lateral ventricle, splenium
_HOT = ((21, 28, 12), (29, -46, 18), (24, -10, 27), (3, -37, 15), (32, -14, 34))
_BRAINSTEM = ((2, -34, -30, 7), (2, -31, -16, 6), (3, -44, -52, 7), (4, -38, -42, 7), (12, -42, -34, 6))
VISIT = ["age", "disease_duration", "attack_index", "time_since_first", "time_since_latest"]


@cache
def sites() -> dict[str, np.ndarray]:
    """Return the lesion sites, disjoint, each (V,) bool over the 3 mm brain mask's voxels in C order."""
    grid, maps = atlas.brain_grid(3), atlas.load()
    axes = [grid.affine[i, 3] + 3.0 * np.arange(n) for i, n in enumerate(grid.data.shape)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    gm, wm = (atlas.at_3mm(volume.data, grid.data.shape) for volume in (maps.gm, maps.wm))
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


def draw_spots(rng: np.random.Generator, number: int, group: int, effect: float) -> tuple[np.ndarray, ...]:
    """Draw lesions: voxel (index into the mask's V voxels) and radius (mm), each (number,).

    ``group`` is the column of `MIXTURE`; ``effect`` 0 makes the groups alike, 1 is the default difference.
    """
    shares = np.array([_between(pair, group, effect) for pair in MIXTURE.values()]).clip(0)
    which, voxels = rng.choice(len(MIXTURE), size=number, p=shares / shares.sum()), np.zeros(number, int)
    for site, name in enumerate(MIXTURE):
        here = which == site
        voxels[here] = np.searchsorted(_chances()[name], rng.random(here.sum()), side="right")
    low, high = (_between(tuple(each[i] for each in RADIUS), group, effect) for i in (0, 1))
    return voxels, low + (high - low) * rng.beta(1.5, 3, size=number)


def _between(pair: tuple[float, ...], group: int, effect: float) -> float:
    """Value of the group, moved towards the mean of the first two as the effect goes to 0."""
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
    lesions = _lesions(rng, groups, counts, effect)
    participants = table.pop("participant_id").to_numpy(dtype=str)
    positive = np.repeat(groups == 0, counts)
    if shuffle_labels:
        positive = permute(positive, participants, seed)
    scans = tuple(Scan.named(name) for name in table.index)
    return Cohort(scans, participants, positive, lesions, table, LEVELS)


def draw_third(participants: int, scans: int, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Draw a third group: MOG antibody-associated disease, after Jurynczyk et al. (Brain 2017, 140:617).

    Returns
    -------
    table, lesions
        As of `draw_table`, participants ``sub-M001`` and on, and lesion maps (N, V).

    Raises
    ------
    BadInputError
        There are fewer scans than participants, or none.
    """
    if scans < participants or participants < 1:
        raise BadInputError(f"{participants} participants cannot have {scans} scans", remedy="give each a scan")
    rng = np.random.default_rng([seed, 3])
    groups = np.full(participants, 2)
    counts = _spread(rng, participants, scans)
    table = draw_table(rng, groups, counts)
    table.index = pd.Index([name.replace("sub-", "sub-M") for name in table.index])
    table["participant_id"] = [name.replace("sub-", "sub-M") for name in table["participant_id"]]
    return table, _lesions(rng, groups, counts, 1.0)


def _lesions(rng: np.random.Generator, groups: np.ndarray, counts: np.ndarray, effect: float) -> np.ndarray:
    """Lesion maps (N, V) of all scans, participant by participant."""
    loads = rng.gamma(1.5, 1 / 1.5, len(groups)) * [_between(LOAD, group, effect) for group in groups]
    loads[rng.random(len(groups)) < [_between(LESION_FREE, group, effect) for group in groups]] = 0
    lesions = np.zeros((int(counts.sum()), int(atlas.brain_grid(3).data.sum())), bool)
    for row, (voxels, radii) in enumerate(_scans(rng, groups, counts, loads, effect)):
        lesions[row] = paint(voxels, radii)
    return lesions


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
        0 RRMS, 1 NMOSD, 2 a third.
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
    for group in np.unique(groups):
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
