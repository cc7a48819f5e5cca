"""Lesions painted into slabs: other people's shapes moved about, and drawn spots; brightness and texture drawn."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from training.lesions.slabs import SHAPE, Slab, smooth

SIDES = (-1, 0, 1)  # the slices of a slab
BRIGHT = (0.22, 0.75)  # over white matter, in belief
LEAST = 0.15  # over white matter: what is fainter is not labelled
HARDEST = 0.3  # of a lesion's share: thinned lesions


def shapes(slab: Slab, lesions: np.ndarray, spacing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the shares (3, *SHAPE) of one to three people's lesions, each moved by some mm and scaled."""
    whole = np.zeros((3, *SHAPE), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        moved = slab.moved(rng.normal(0, 4, 3) / spacing, float(np.exp(rng.normal(0, 0.1))))
        thinned = rng.uniform(0, HARDEST)
        share = moved.cut(lesions[rng.integers(len(lesions))], slices=SIDES) / 255
        whole = np.maximum(whole, np.clip((share - thinned) / (1 - thinned), 0, 1))
    return whole


def spots(slab: Slab, wm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the shares (3, *SHAPE) of some round or long lesions of 2 to 10 mm, in white matter or at its edge."""
    whole = np.zeros((3, *SHAPE), np.float32)
    where = np.argwhere(wm > (0.3 if rng.random() < 0.3 else 0.6))
    if len(where) == 0:
        return whole
    for _ in range(int(rng.integers(1, 7))):
        middle, turn = where[rng.integers(len(where))], rng.uniform(0, np.pi)
        radius, long, deep = rng.uniform(1.2, 3.8), np.exp(rng.normal(0, 0.3)), rng.uniform(1.5, 4)
        reach = int(np.ceil(radius * max(long, 1 / long))) + 2
        box = tuple(slice(max(m - reach, 0), min(m + reach + 1, n)) for m, n in zip(middle, SHAPE, strict=True))
        i, j = (axis - m for axis, m in zip(np.ogrid[box], middle, strict=True))
        u, v = (i * np.cos(turn) + j * np.sin(turn)) * long, (j * np.cos(turn) - i * np.sin(turn)) / long
        height = rng.uniform(-1, 1) * (slab.step / 2 + deep / 2)
        for index, side in enumerate(SIDES):
            apart = max(abs(side * slab.step - height) - np.ptp(slab.parts) / 2, 0) / deep
            inside = radius * np.sqrt(max(1 - apart**2, 0)) - np.hypot(u, v)
            share = np.clip(inside + 0.5, 0, 1) * (apart < 1)
            here = whole[index][box]
            np.maximum(here, share, out=here)
    return whole


def paint(slices: np.ndarray, share: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return slices (3, *SHAPE, standardised belief) with lesions of ``share`` painted in, and the label (*SHAPE).

    White matter is about 0 there. No lesion is painted into fluid, and none makes tissue darker, save in a tenth of
    the draws, where bright tissue is replaced. About some lesions lies a faint halo, which is not labelled.
    """
    edge = rng.uniform(0, 0.9)
    if edge > 0.3:
        share = np.stack([ndimage.gaussian_filter(s, edge) for s in share])
    tissue = np.clip((slices + 0.5) / 0.2, 0, 1)
    share = share * tissue
    level = rng.uniform(*BRIGHT) * np.clip(1 + smooth(rng, 9, 0.25) + smooth(rng, 30, 0.15), 0.5, 1.7)
    if rng.random() < 0.3:
        halo = np.stack([ndimage.gaussian_filter(s, rng.uniform(1.5, 3)) for s in share]) * tissue
        slices = slices + halo * np.maximum(level - slices, 0) * np.float32(rng.uniform(0.1, 0.4))
    target = level if rng.random() < 0.1 else np.maximum(level, slices)
    painted = (slices + share * (target - slices)).astype(np.float32)
    return painted, share[1] * (painted[1] > LEAST)
