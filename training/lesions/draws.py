"""Draws for the lesion network: slabs of real scans with lesions and artefacts painted in, as other scanners show them.

Everything random comes from one generator: equal seeds, equal draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bids_app.lesions.network import HIGHEST, OUTSIDE, standardised
from training.lesions import artefacts, painting
from training.lesions.cases import Case
from training.lesions.slabs import SHAPE, Slab, place, smooth

LABELLED = 0.45  # of the draws are of scans with an expert's lesions, where there are any
PAINTED, PAINTED_OVER = 0.85, 0.35  # of the draws without and with an expert's lesions get painted ones
AREA_MM2 = 1800.0  # of brain that a slice shows at least
SUSPECT = 0.25  # over white matter, smoothed: may be a lesion of a scan without a label, and is left out of the loss
SUSPECT_WHITE = 0.45  # atlas share of white matter about it
ON_LESION = 0.5  # of the draws of labelled scans go through one of their lesions
SMALL_MM2, MOST_WEIGHT = 60.0, 2.0  # lesions with a smaller cut count more, at most so much


@dataclass(frozen=True)
class Base:
    """A case made ready: standardised ``belief``, ``maps`` (gm, wm, csf, brain), label and what is left out (uint8).

    ``levels`` are the voxels along each axis whose slices show enough brain, the more often the more they show, and
    ``lesioned`` those of them that show a lesion.
    """

    belief: np.ndarray
    maps: tuple[np.ndarray, ...]
    label: np.ndarray
    left_out: np.ndarray
    shapes: np.ndarray
    spacing: np.ndarray
    centre: np.ndarray
    levels: tuple[np.ndarray, ...]
    lesioned: tuple[np.ndarray, ...]
    labelled: bool


def to_base(case: Case, label: np.ndarray | None = None, left_out: np.ndarray | None = None) -> Base:
    """Return a case made ready; ``label`` and ``left_out`` (bool) are those of the network for scans without an expert.

    Without them what may be a lesion of such a scan is left out.
    """
    belief, spacing = standardised(case.belief, case.wm, case.brain), case.grid.spacing
    if case.lesions is not None:
        label, left_out = case.lesions, np.zeros_like(case.brain)
    elif label is None or left_out is None:
        label, left_out = np.zeros_like(case.brain), suspects(belief, case)
    where = np.argwhere(case.brain)
    levels, lesioned = [], []
    for axis in range(3):
        others = tuple(k for k in range(3) if k != axis)
        area = float(np.prod(np.delete(spacing, axis)))
        shown = np.where(case.brain.sum(others) * area > AREA_MM2, case.brain.sum(others) * area / AREA_MM2, 0)
        often = np.round(2 * shown).astype(int)
        levels.append(np.repeat(np.arange(len(shown)), often))
        lesioned.append(np.repeat(np.arange(len(shown)), often * label.any(others)))
    return Base(
        belief=np.ascontiguousarray(belief),
        maps=tuple(np.ascontiguousarray(m, np.float32) for m in (case.gm, case.wm, case.csf, case.brain)),
        label=np.ascontiguousarray(label, np.float32),
        left_out=np.ascontiguousarray(left_out, np.float32),
        shapes=case.shapes,
        spacing=spacing,
        centre=(where.min(0) + where.max(0)) / 2,
        levels=tuple(levels),
        lesioned=tuple(lesioned),
        labelled=case.lesions is not None,
    )


def suspects(belief: np.ndarray, case: Case) -> np.ndarray:
    """Return what may be a lesion of a scan (bool): bright white matter, and two voxels about it in the slice."""
    near = ndimage.gaussian_filter(belief, (1, 1, 0)) > SUSPECT
    found = near & (case.wm > SUSPECT_WHITE) & case.brain
    grown: np.ndarray = ndimage.binary_dilation(found, np.ones((3, 3, 1)), iterations=2)
    return grown


def draw(base: Base, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return channels (6, *SHAPE) as `bids_app.lesions.network` makes them, the label and its weight (*SHAPE)."""
    through = base.labelled and rng.random() < ON_LESION
    levels = tuple(b if through and len(b) else a for a, b in zip(base.levels, base.lesioned, strict=True))
    slab = place(base.centre, levels, base.spacing, rng)
    slices = slab.cut(base.belief, OUTSIDE, painting.SIDES)
    gm, wm, csf, brain = (slab.cut(each)[0] for each in base.maps)
    label, left_out = slab.cut(base.label)[0], slab.cut(base.left_out)[0] > 0.3
    scene = artefacts.Scene(slices[1], gm, wm, csf, brain)
    if rng.random() < (PAINTED_OVER if base.labelled else PAINTED):
        slices, drawn = painting.paint(slices, painted_shares(base, slab, wm, rng), rng)
        label = np.maximum(label, drawn)
        left_out &= drawn < 0.3
    slices = artefacts.add(slices, scene, rng)
    lost = (brain > 0.5) & (scene.from_border < rng.uniform(0, 4) * (smooth(rng, 6, 1.0) > 0.3)) & (rng.random() < 0.25)
    brain = brain * ~lost
    channels = np.stack([*scanned(slices, brain, rng), *misplaced(wm, csf, rng), brain]).astype(np.float32)
    target = ((label > 0.5) & (brain > 0.5)).astype(np.float32)
    return channels, target, weights(target) * (~left_out & ~lost & (brain > 0.3))


def painted_shares(base: Base, slab: Slab, wm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return shares (3, *SHAPE) of lesions to paint: people's shapes, spots, or both."""
    share = np.zeros((3, *SHAPE), np.float32)
    kind = rng.random()
    if kind < 0.75:
        share = painting.shapes(slab, base.shapes, base.spacing, rng)
    if kind > 0.45:
        share = np.maximum(share, painting.spots(slab, wm, rng))
    return share


def scanned(slices: np.ndarray, brain: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return slices (3, *SHAPE) in another contrast, with a bias field, blur and noise; `OUTSIDE` outside the brain."""
    factor, curve = np.exp(rng.normal(0, 0.2)), np.exp(rng.normal(0, 0.12))
    signal = np.maximum(1 + slices, 0) ** curve
    values = (signal - 1) * factor + rng.normal(0, 0.035) + rng.normal(0, 0.015, (3, 1, 1))
    values = values + signal * smooth(rng, 3, rng.uniform(0, 0.07))
    blur = rng.uniform(0, 0.9) if rng.random() < 0.6 else 0
    if blur > 0.3:
        values = ndimage.gaussian_filter(values, (0, blur, blur))
    grain = rng.standard_normal(values.shape, np.float32)
    if rng.random() < 0.5:
        grain = ndimage.gaussian_filter(grain, (0, 0.6, 0.6)) * 2.0
    values = values + grain * np.float32(rng.uniform(0, 0.07))
    inside = (slices > OUTSIDE + 0.01) & ((brain > 0.5) | (np.arange(3) != 1)[:, None, None])
    return np.where(inside, np.clip(values, OUTSIDE, HIGHEST), OUTSIDE).astype(np.float32)


def misplaced(wm: np.ndarray, csf: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Return atlas shares moved by some mm, as a registration that is not perfect leaves them."""
    shift = rng.normal(0, 1.5, 2)
    return [ndimage.shift(each, shift, order=1) for each in (wm, csf)]


def weights(target: np.ndarray) -> np.ndarray:
    """Return how much each voxel counts (float32): 1, and more in lesions with a small cut."""
    found, number = ndimage.label(target)
    area = np.bincount(found.ravel(), minlength=number + 1).astype(np.float32)
    weight = np.clip(np.sqrt(SMALL_MM2 / np.maximum(area, 1)), 1, MOST_WEIGHT)
    weight[0] = 1
    return weight[found].astype(np.float32)


def draws(bases: Sequence[Base], seed: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield draws without end, of scans with and without an expert's lesions in a fixed proportion."""
    rng = np.random.default_rng(seed)
    labelled = [base for base in bases if base.labelled]
    others = [base for base in bases if not base.labelled]
    while True:
        pool = labelled if labelled and (not others or rng.random() < LABELLED) else others
        yield draw(pool[rng.integers(len(pool))], rng)


def batches(bases: Sequence[Base], seed: int, size: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield channels (size, 6, *SHAPE), labels and weights (size, *SHAPE)."""
    source = draws(bases, seed)
    while True:
        yield tuple(np.stack(parts) for parts in zip(*(next(source) for _ in range(size)), strict=True))
