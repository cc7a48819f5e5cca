"""Bias correction and tissue posteriors of a FLAIR.

N4: Tustison et al., IEEE TMI 2010, doi:10.1109/TMI.2010.2046908. Tissues: expectation maximisation of three
Gaussians with spatial priors (Ashburner & Friston, NeuroImage 2005, doi:10.1016/j.neuroimage.2005.02.018, without
their warp) and a uniform class that keeps lesions out of the Gaussians.
"""

from __future__ import annotations

import ants
import numpy as np
from scipy import ndimage

from bids_app.image.geometry import coarser, finer, part
from bids_app.image.itk import to_ants
from bids_app.records.scan import Priors, Tissues, Volume

BIAS_SPACING = 8.0  # mm: within 1 % of the field found at 6 mm, in half the time
BIAS_KNOTS = 160.0  # mm between the B-spline's knots: two spans along a brain, one across it
BIAS_ITERATIONS = (50, 50, 30)
CAP = 2.0  # in units of the brain's median: vessels would pull the histogram
FAT, FAT_MM = 1.4, 5.0  # brighter than this times the brain's median, and this near to the edge of the mask, mm
ROUNDS = 20  # of expectation maximisation
BLOCK = 8192  # voxels at a time: what is computed stays in the cache, which halves the time
PRIOR_FLOOR = 0.02  # no tissue is impossible anywhere in the brain
LESION_SHARE = 0.01  # weight of the uniform class


def correct_bias(scan: Volume, mask: np.ndarray) -> Volume:
    """Return the scan (float32) divided by its N4 bias field, estimated in the brain's box at 8 mm.

    N4 lays its knots over the whole of what it is given: of the box alone, the field of view does not matter.

    Parameters
    ----------
    scan : Volume
        Non-negative FLAIR.
    mask : ndarray of bool, shape (X, Y, Z)
        The brain: the field is estimated from it, and goes on smoothly outside.
    """
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    brain, within = part(scan, box), mask[box]
    top = CAP * float(np.median(brain.data[within]))
    inside = brain.like(np.where(within, np.minimum(brain.data, top), 0).astype(np.float32))
    share = coarser(brain.like(within.astype(np.float32)), BIAS_SPACING)
    # what is averaged at the brain's edge is brain alone: neither bone nor bright fat
    small = share.like(coarser(inside, BIAS_SPACING).data / np.maximum(share.data, 0.05))
    field = ants.n4_bias_field_correction(
        to_ants(small),
        mask=to_ants(small.like((share.data > 0.5).astype(np.float32))),  # N4 misreads a uint8 mask, silently
        shrink_factor=1,
        spline_param=BIAS_KNOTS,
        convergence={"iters": list(BIAS_ITERATIONS), "tol": 1e-6},
        return_bias_field=True,
    )
    gain = finer(small.like(field.numpy()), scan)
    return scan.like(np.where(gain > 0.05, scan.data / np.maximum(gain, 0.05), scan.data).astype(np.float32))


def segment(scan: Volume, priors: Priors, mask: np.ndarray) -> Tissues:
    """Return posteriors of GM, WM and CSF in the brain (``mask``, bool).

    With priors pi_k(v), class weights w_k and Gaussians N(mu_k, sd_k), each round takes
    ``p_k(v) = w_k pi_k(v) N(F(v)) / (sum_j w_j pi_j(v) N_j(F(v)) + u)`` and re-estimates mu, sd and w from p;
    u is the uniform density over the intensity range, times `LESION_SHARE`.
    """
    x = scan.data[mask].astype(np.float64)
    prior = np.stack([priors.gm[mask], priors.wm[mask], priors.csf[mask]]).astype(np.float64) + PRIOR_FLOOR
    prior /= prior.sum(axis=0)
    posterior, means = _expectation_maximisation(x, prior)
    posterior[2, x > means[0]] = 0  # fluid is dark on FLAIR: what is brighter than gray matter is tissue, or lesion
    maps = []
    for values in posterior:
        full = np.zeros(mask.shape, np.float32)
        full[mask] = values
        maps.append(full)
    gm, wm, csf = maps
    return Tissues(gm, wm, csf, mask=mask, means=dict(zip(("GM", "WM", "CSF"), map(float, means), strict=True)))


def seen_brain(scan: Volume, mask: np.ndarray) -> np.ndarray:
    """Return the brain (bool, (X, Y, Z)) without what lies outside the image.

    Voxels of 0 at the brain's edge are padding, or background of a scan without its skull; those enclosed in an
    axial slice are fluid, and belong to the brain.
    """
    seen = mask & (scan.data > 0)
    if np.array_equal(seen, mask):
        return mask
    filled = np.stack([ndimage.binary_fill_holes(seen[..., k]) for k in range(seen.shape[2])], axis=-1)
    return mask & filled


def without_fat(flair: Volume, mask: np.ndarray) -> np.ndarray:
    """Return the brain mask (bool) without bright voxels at its edge that belong to something outside it.

    Where fat is bright, a voxel at the brain's edge that holds a little of it is as bright as a lesion. What is bright
    and connected belongs to the outside when most of it lies there; a lesion lies inside.
    """
    reach = np.ceil(FAT_MM / flair.spacing).astype(int) + 1
    wide = tuple(
        slice(max(side.start - n, 0), side.stop + n)
        for side, n in zip(ndimage.find_objects(mask.astype(np.uint8))[0], reach, strict=True)
    )
    inside = mask[wide]
    parts, count = ndimage.label(flair.data[wide] > FAT * float(np.median(flair.data[mask])))
    size, within = (np.bincount(parts[where].ravel(), minlength=count + 1) for where in (..., inside))
    foreign = 2 * within < size
    foreign[0] = False
    leak = foreign[parts] & inside
    if not leak.any():
        return mask
    leak[leak] = _near_outside(inside, leak, flair.spacing)
    kept = mask.copy()
    kept[wide] &= ~leak
    return kept


def _near_outside(inside: np.ndarray, wanted: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Return which of the voxels ``wanted`` (bool) have one within 5 mm that is not ``inside``; (V,) bool.

    They are few: looking about them is quicker than the distance of every voxel.
    """
    reach = np.floor(FAT_MM / spacing).astype(int)
    steps = np.indices(tuple(2 * reach + 1)).reshape(3, -1) - reach[:, None]
    steps = steps[:, np.linalg.norm(steps * spacing[:, None], axis=0) <= FAT_MM]
    padded = np.pad(inside, [(n, n) for n in reach], constant_values=True)
    strides = np.array(padded.strides)  # of booleans: in voxels
    here = (np.argwhere(wanted) + reach) @ strides
    near = np.zeros(len(here), bool)
    for step in strides @ steps:
        near |= ~padded.ravel()[here + step]
    return near


def _expectation_maximisation(x: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    core = prior**3  # start from voxels where one tissue is nearly sure
    mean = (core * x).sum(axis=1) / core.sum(axis=1)
    sd = np.full(len(prior), x.std() / 2)
    weight, total = np.ones(len(prior)), prior.sum(axis=1)
    low, high = np.percentile(x, [0.05, 99.95])
    uniform = LESION_SHARE / max(high - low, 1e-6)
    posterior = np.empty_like(prior)
    blocks = [slice(start, start + BLOCK) for start in range(0, len(x), BLOCK)]
    for _ in range(ROUNDS):
        height = weight / (sd * np.sqrt(2 * np.pi))
        size, first, second = np.full(3, 1e-9), np.zeros(3), np.zeros(3)
        for block in blocks:
            values = x[block]
            joint = np.exp(-0.5 * ((values - mean[:, None]) / sd[:, None]) ** 2) * height[:, None] * prior[:, block]
            share = posterior[:, block] = joint / (joint.sum(axis=0) + uniform)
            size += share.sum(axis=1)
            first += share @ values
            second += share @ values**2
        mean = first / size
        sd = np.sqrt(np.maximum(second / size - mean**2, 0)) + 1e-6
        weight = size / total
        weight *= len(weight) / weight.sum()
    return posterior, mean
