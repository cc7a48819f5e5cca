"""One scan, from FLAIR to normalised lesion map: the participant level's science in the order of the method."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bids_app import atlas as template
from bids_app import lesion, normalize, quality, tissue
from bids_app.records import Alignment, Analysis, Anatomy, Lesions, Tissues, Volume

TURNED = "the header's orientation does not fit the head and was overruled; left and right may be swapped"
NONE_FOUND = "no lesion found: no voxel of the brain exceeds the threshold"
TOO_SMALL = "lesions are too small for the 3 mm grid: the normalised lesion map is empty"
OVER_COVERAGE = 0.5  # a template voxel counts as seen when at least half of it lies in the field of view


def find_anatomy(
    scan: Volume,
    folder: Path,
    *,
    seed: int,
    trust_header: bool,
    warnings: tuple[str, ...] = (),
    step: Callable[[str], None] = lambda name: None,
) -> Anatomy:
    """Return tissues, registration and belief map of a FLAIR with skull.

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

    Raises
    ------
    ScanError
        The registration is lost, or the scan is no whole brain.
    """
    clock = _Clock(step)
    clock("bias correction")
    clipped = tissue.clipped(scan)
    roughly = tissue.correct_bias(clipped)
    clock("registration")
    atlas = template.load()
    alignment = normalize.register(roughly, atlas, folder, seed=seed, trust_header=trust_header)
    priors = normalize.priors(alignment.inverse, atlas, roughly)
    coverage = _coverage(alignment, scan)
    clock("tissues")
    flair = tissue.correct_bias(clipped, priors.mask > 0.5)
    tissues = tissue.segment(flair, priors)
    agrees = quality.agreement(flair, priors, tissues)
    quality.refuse_lost(agrees, coverage)
    clock("normalisation")
    mean = lesion.gm_mean(flair, priors, tissues)
    belief = lesion.belief(flair, mean, tissues.mask)
    pooled = lesion.moments(belief.data, tissues.labels)
    grid = template.brain_grid(3)
    belief_mni = grid.like(normalize.to_template(alignment.forward, belief, grid))
    warped = grid.like(normalize.to_template(alignment.forward, flair, grid))
    turned = (TURNED,) if alignment.pose.turned else ()
    return Anatomy(
        flair=flair,
        priors=priors,
        tissues=tissues,
        alignment=alignment,
        belief=belief,
        belief_mni=belief_mni,
        warped=warped,
        gm_mean=mean,
        moments=pooled,
        checks=quality.checks(
            scan=scan,
            tissues=tissues,
            alignment=alignment,
            agrees=agrees,
            coverage=coverage,
            pooled=pooled,
            known=trust_header and not alignment.pose.turned,
        ),
        warnings=(*warnings, *turned),
        measures={
            "brain_volume_ml": float(tissues.mask.sum()) * scan.voxel_ml,
            **_volumes(tissues, scan),
            "gm_mean": mean,
            "belief_mean": pooled.mean,
            "belief_sd": pooled.sd,
        },
        seconds=clock.stop(),
    )


def find_lesions(anatomy: Anatomy, threshold: float) -> Analysis:
    """Return the scan's lesion maps where belief exceeds ``threshold``, in native and template space."""
    belief, brain, forward = anatomy.belief, anatomy.tissues.mask, anatomy.alignment.forward
    grid = template.brain_grid(3)
    found = lesion.lesions(belief, threshold, brain)
    kept = lesion.cleaned(found, belief, anatomy.priors, brain)
    found_mni = normalize.mask_to_template(forward, belief.like(found), grid)
    kept_mni = normalize.mask_to_template(forward, belief.like(kept), grid)
    warnings: tuple[str, ...] = ()
    if not found.any():
        warnings = (NONE_FOUND,)
    elif not found_mni.any():
        warnings = (TOO_SMALL,)
    lesions = Lesions(
        threshold=threshold,
        native=found,
        cleaned=kept,
        mni=found_mni,
        cleaned_mni=kept_mni,
        check=quality.check_share(float(found.sum() / max(brain.sum(), 1))),
        warnings=warnings,
        measures={
            **_lesion_measures("lesion", found, belief, found_mni, grid),
            **_lesion_measures("cleaned", kept, belief, kept_mni, grid),
        },
    )
    return Analysis(anatomy, lesions)


def _coverage(alignment: Alignment, scan: Volume) -> float:
    """Return the share of the template's brain that lies in the scan's field of view."""
    grid = template.brain_grid(3)
    seen = normalize.to_template(alignment.forward, scan.like(np.ones(scan.data.shape, np.float32)), grid)
    return float((seen[grid.data] >= OVER_COVERAGE).mean())


def _volumes(tissues: Tissues, scan: Volume) -> dict[str, float]:
    counts = np.bincount(tissues.labels.ravel(), minlength=4)
    return {f"{name}_volume_ml": float(counts[k]) * scan.voxel_ml for name, k in (("gm", 1), ("wm", 2), ("csf", 3))}


def _lesion_measures(name: str, native: np.ndarray, scan: Volume, mni: np.ndarray, grid: Volume) -> dict[str, float]:
    return {
        f"{name}_volume_ml": float(native.sum()) * scan.voxel_ml,
        f"{name}_count": lesion.count_lesions(native),
        f"{name}_volume_mni_ml": float(mni.sum()) * grid.voxel_ml,
    }


class _Clock:
    """Wall seconds between the names of steps."""

    def __init__(self, step: Callable[[str], None]) -> None:
        self.step, self.seconds, self.name, self.since = step, {}, "", 0.0  # type: ignore[var-annotated]

    def __call__(self, name: str) -> None:
        self.stop()
        self.step(name)
        self.name, self.since = name, time.perf_counter()

    def stop(self) -> dict[str, float]:
        if self.name:
            self.seconds[self.name] = round(time.perf_counter() - self.since, 2)
        return self.seconds
