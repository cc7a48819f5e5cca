"""What the JSON sidecar of each output says."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from bids_app.bids import Scan
from bids_app.records import SPACE, Analysis

RESOLUTION = "3 mm isotropic, the grid of nilearn's MNI152 template at resolution 3"


def of(scan: Scan, found: Analysis, keys: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the sidecars of the outputs ``keys``, by key; sources that are not written are traced to the scan."""
    anatomy, lesions = found.anatomy, found.lesions
    raw = f"bids:raw:{scan.path}"

    def own(*names: str) -> list[str]:
        return [f"bids::{scan.output(name)}" for name in names if name in keys] or [raw]

    mni = {"SpatialReference": SPACE, "Resolution": RESOLUTION}
    quality = {check.name: {"Value": check.value, "Unit": check.unit, "Normal": check.ok} for check in found.checks}
    pooled = anatomy.moments
    rule = "Belief above Threshold, inside the brain mask"
    strict = rule + "; without the outer 3 mm, deep fluid, and components with little white matter or under 10 mm3"
    flags = [check.name for check in found.checks if not check.ok]
    lesion = {"Type": "Lesion", "RawSources": [raw], "Threshold": lesions.threshold, "Flags": flags}
    volume = {key: found.measures[key] for key in ("lesion_volume_ml", "lesion_count", "lesion_volume_mni_ml")}
    clean = {key: found.measures[key] for key in ("cleaned_volume_ml", "cleaned_count", "cleaned_volume_mni_ml")}
    every: dict[str, dict[str, Any]] = {
        "preproc": {
            "Description": "FLAIR, clipped at the 99.8th percentile, N4 bias field divided out",
            "Sources": [raw],
            "SkullStripped": False,
            "Warnings": list(found.warnings),
            "Quality": quality,
        },
        "brain": {"Description": "Brain: atlas mask warped to the scan", "Type": "Brain", "Sources": [raw]},
        "dseg": {
            "Description": "Most probable tissue: 1 GM, 2 WM, 3 CSF",
            "Sources": own("preproc"),
            "VolumesMl": {k: v for k, v in found.measures.items() if k.endswith("m_volume_ml") or k[:3] == "csf"},
        },
        **{
            key: {
                "Description": f"Posterior probability of {name}, to 3 decimals; the rest is a lesion class",
                "Sources": own("preproc"),
                "ClassMean": anatomy.tissues.means[name],
            }
            for key, name in (("gm", "GM"), ("wm", "WM"), ("csf", "CSF"))
        },
        "belief": {
            "Description": "Gray matter belief map: (FLAIR - GM mean) / GM mean, inside the brain mask",
            "Sources": own("preproc"),
            "SkullStripped": True,
            "GMMean": anatomy.gm_mean,
            "TissueCount": pooled.count,
            "TissueSum": pooled.total,
            "TissueSumOfSquares": pooled.squares,
            "TissueMean": pooled.mean,
            "TissueSD": pooled.sd,
            "Quality": quality,
        },
        "lesion": {"Description": rule, "Sources": own("belief", "brain"), **lesion, **volume},
        "cleaned": {"Description": strict, "Sources": own("lesion"), **lesion, **clean},
        "belief_mni": {
            "Description": "Gray matter belief map on the template's grid, linear interpolation",
            "Sources": own("belief", "forward"),
            "SkullStripped": True,
            **mni,
        },
        "lesion_mni": {
            "Description": "Lesion map normalised after thresholding: linear interpolation, at least one half",
            "Sources": own("lesion", "forward"),
            **lesion,
            **volume,
            **mni,
        },
        "cleaned_mni": {
            "Description": "Cleaned lesion map normalised: linear interpolation, at least one half",
            "Sources": own("cleaned", "forward"),
            **lesion,
            **clean,
            **mni,
        },
        "forward": {
            "Description": "Composite transform (ITK HDF5) that resamples scan images to the template: affine, SyN",
            "Sources": [raw],
        },
        "inverse": {
            "Description": "Composite transform (ITK HDF5) that resamples template images to the scan",
            "Sources": [raw],
        },
    }
    return {key: every[key] for key in keys}
