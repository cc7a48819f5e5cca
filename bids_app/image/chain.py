"""One scan, from FLAIR to belief map: the participant level's science in the order of the method, up to any lesion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from bids_app.errors import ScanError
from bids_app.image import atlas as template
from bids_app.image import lesion, quality, registration, tissue
from bids_app.image.brain import Brain, find_brain
from bids_app.image.networks import Network, brain_network
from bids_app.image.turns import candidates
from bids_app.records.scan import Anatomy, Belief, Fit, Posed, Tissues, Volume

TURNED = "the header's orientation does not fit the head and was overruled; left and right may be swapped"
NO_BRAIN = "no brain is found in the image"
OVERRULE = 0.02  # the header's orientation is overruled only by a similarity larger by this
LEAST_ML = 100.0  # of brain: less is none, whatever the network takes for it
OVER_COVERAGE = 0.5  # a template voxel counts as seen when at least half of it lies in the field of view


def find_anatomy(
    scan: Volume,
    folder: Path,
    *,
    seed: int,
    trust_header: bool,
    step: Callable[[str], None] = lambda name: None,
    network: Network | None = None,
) -> Anatomy:
    """Return brain, tissues, registration and belief map of a FLAIR, with or without skull.

    Parameters
    ----------
    scan : Volume
        FLAIR, non-negative, finite; canonical and centred (see `geometry`), so that results do not depend on how
        it is stored.
    folder : Path
        Empty folder for ANTs' transform files; must outlive the result.
    seed : int
        Of the registration.
    trust_header : bool
        False where the header holds no orientation.
    step : callable
        Told the name of each step as it begins.
    network : callable, optional
        Finds the brain; the one in the package by default.

    Raises
    ------
    ScanError
        There is no brain, the registration is lost, or the scan is no whole brain.
    """
    network = network or brain_network()
    step("brain")
    posed = _posed(scan, find_brain(scan, network), step) if trust_header else None
    if posed is None or posed.pose.similarity < quality.DOUBTFUL:
        posed = _turned(scan, network, posed, step)
    if posed is None:
        raise ScanError(NO_BRAIN, remedy="is it a FLAIR of a whole head?")
    fit = _fit(posed, folder, seed, step)
    coverage = _coverage(fit.alignment.forward, scan)
    quality.refuse_lost(fit.agreement, coverage)
    step("normalisation")
    belief = _belief(fit)
    grid, turned = template.brain_grid(3), fit.alignment.pose.turned
    return Anatomy(
        fit=fit,
        belief=belief,
        warped=grid.like(registration.to_template(fit.alignment.forward, fit.flair, grid)),
        checks=quality.checks(scan, fit, coverage=coverage, pooled=belief.moments, known=trust_header and not turned),
        warnings=(TURNED,) if turned else (),
        measures={
            "brain_volume_ml": fit.brain_volume_ml,
            **_volumes(fit.tissues, scan),
            "gm_mean": belief.gm_mean,
            "belief_mean": belief.moments.mean,
            "belief_sd": belief.moments.sd,
        },
    )


def _belief(fit: Fit) -> Belief:
    mean = lesion.gm_mean(fit.flair, fit.priors, fit.tissues)
    native, grid = lesion.belief(fit.flair, mean, fit.tissues.mask), template.brain_grid(3)
    warped = grid.like(registration.to_template(fit.alignment.forward, native, grid))
    return Belief(native, warped, mean, lesion.moments(native.data, fit.tissues.labels))


def _posed(scan: Volume, brain: Brain, step: Callable[[str], None]) -> Posed | None:
    """Return how a brain lies; None where what was found is too small to be a brain."""
    mask = tissue.seen_brain(scan, brain.mask)
    if mask.sum() * scan.voxel_ml < LEAST_ML:
        return None
    step("bias correction")
    flair = tissue.correct_bias(scan, mask)
    mask = tissue.without_fat(flair, mask)
    step("registration")
    only = registration.brain_only(flair, mask)
    return Posed(mask, flair, only, registration.pose_of(only, brain.axes), brain.confidence)


def _turned(scan: Volume, network: Network, before: Posed | None, step: Callable[[str], None]) -> Posed | None:
    """Return the likeliest turn of the head: the one whose brain agrees best with the template's.

    Where the header says how the head lies (``before``), it is overruled only by far.
    """
    step("brain")
    found = [posed for brain in candidates(scan, network) if (posed := _posed(scan, brain, step))]
    best = max(found, key=lambda posed: posed.pose.similarity, default=None)
    if before and (best is None or best.pose.similarity < before.pose.similarity + OVERRULE):
        return before
    return best


def _fit(posed: Posed, folder: Path, seed: int, step: Callable[[str], None]) -> Fit:
    """Return what follows from a brain and its pose up to the tissues."""
    flair, mask = posed.flair, posed.mask
    step("registration")
    alignment = registration.register(posed.brain, posed.pose, folder, seed=seed)
    step("tissues")
    priors = registration.priors(alignment.inverse, flair)
    tissues = tissue.segment(flair, priors, mask)
    agreement = quality.agreement(flair, priors, tissues)
    return Fit(flair, alignment, priors, tissues, agreement, quality.overlap(mask, priors), posed.confidence)


def _coverage(forward: str, scan: Volume) -> float:
    """Return the share of the template's brain that lies in the scan's field of view."""
    grid = template.brain_grid(3)
    seen = registration.to_template(forward, scan.like(np.ones(scan.data.shape, np.float32)), grid)
    return float((seen[grid.data] >= OVER_COVERAGE).mean())


def _volumes(tissues: Tissues, scan: Volume) -> dict[str, float]:
    counts = np.bincount(tissues.labels.ravel(), minlength=4)
    return {f"{name}_volume_ml": float(counts[k]) * scan.voxel_ml for name, k in (("gm", 1), ("wm", 2), ("csf", 3))}
