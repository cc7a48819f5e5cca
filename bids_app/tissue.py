"""Bias correction and tissue posteriors of a FLAIR.

N4: Tustison et al., IEEE TMI 2010, doi:10.1109/TMI.2010.2046908. Tissues: expectation maximisation of three
Gaussians with spatial priors (Ashburner & Friston, NeuroImage 2005, doi:10.1016/j.neuroimage.2005.02.018, without
their warp) and a uniform class that keeps lesions out of the Gaussians.
"""

from __future__ import annotations

import ants
import numpy as np
from scipy import ndimage

from bids_app.geometry import coarser, finer, to_ants
from bids_app.records import Priors, Tissues, Volume

BIAS_SPACING = 8.0  # mm: within 1 % of the field found at 6 mm, in half the time
ROUGH_SPACING = 12.0  # mm: enough to register by, in half the time again
BIAS_KNOTS = 200.0  # mm between the B-spline's knots
BIAS_ITERATIONS = (50, 50, 30)
CLIP_PERCENTILE = 99.8  # of the head's voxels: fat and vessels would pull the histogram
AIR = 0.2  # of the 99th percentile: darker voxels are air, of which some scanners store noise and some none
ROUNDS = 20  # of expectation maximisation
BLOCK = 8192  # voxels at a time: what is computed stays in the cache, which halves the time
PRIOR_FLOOR = 0.02  # no tissue is impossible anywhere in the brain
LESION_SHARE = 0.01  # weight of the uniform class


def clipped(scan: Volume) -> Volume:
    """Return the scan as float32 with its brightest voxels clipped and negatives set to 0."""
    head = scan.data[scan.data > AIR * np.percentile(scan.data[scan.data > 0], 99)]
    top = np.percentile(head, CLIP_PERCENTILE)
    return scan.like(np.clip(scan.data, 0, top).astype(np.float32))


def correct_bias(scan: Volume, mask: np.ndarray | None = None) -> Volume:
    """Return the scan divided by its N4 bias field, estimated at 8 mm, or roughly, at 12 mm, where no mask is given.

    Parameters
    ----------
    scan : Volume
        Non-negative FLAIR.
    mask : ndarray of bool, shape (X, Y, Z), optional
        Voxels to estimate the field from; an Otsu foreground where none is given.
    """
    small = coarser(scan, ROUGH_SPACING if mask is None else BIAS_SPACING)
    image = to_ants(small)
    if mask is None:
        inside = ants.threshold_image(image, "Otsu", 1).numpy() > 0
    else:
        inside = coarser(scan.like(mask.astype(np.float32)), BIAS_SPACING).data > 0.5
    field = ants.n4_bias_field_correction(
        image,
        mask=to_ants(small.like(inside.astype(np.float32))),  # N4 reads a uint8 mask as garbage, silently
        shrink_factor=1,
        spline_param=BIAS_KNOTS,
        convergence={"iters": list(BIAS_ITERATIONS), "tol": 1e-6},
        return_bias_field=True,
    )
    gain = finer(small.like(field.numpy()), scan)
    return scan.like(np.where(gain > 0.05, scan.data / np.maximum(gain, 0.05), scan.data).astype(np.float32))


def segment(scan: Volume, priors: Priors) -> Tissues:
    """Return posteriors of GM, WM and CSF in the brain.

    With priors pi_k(v), class weights w_k and Gaussians N(mu_k, sd_k), each round takes
    ``p_k(v) = w_k pi_k(v) N(F(v)) / (sum_j w_j pi_j(v) N_j(F(v)) + u)`` and re-estimates mu, sd and w from p;
    u is the uniform density over the intensity range, times `LESION_SHARE`.
    """
    mask = brain_mask(scan, priors)
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


def brain_mask(scan: Volume, priors: Priors) -> np.ndarray:
    """Return the brain (bool, (X, Y, Z)): where the atlas says so, without what lies outside the image.

    Voxels of 0 at the brain's edge are padding, or background of a scan without its skull; those enclosed in an
    axial slice are fluid, and belong to the brain.
    """
    inside = priors.mask > 0.5
    seen = inside & (scan.data > 0)
    filled = np.stack([ndimage.binary_fill_holes(seen[..., k]) for k in range(seen.shape[2])], axis=-1)
    return inside & filled


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
