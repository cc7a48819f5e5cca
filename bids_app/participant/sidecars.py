"""What the JSON sidecar of each output says."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from bids_app.bids.names import SPACE, Scan
from bids_app.lesions import joint, kinds, normative
from bids_app.machine import software
from bids_app.records.lesions import Analysis

RESOLUTION = "3 mm isotropic, the grid of nilearn's MNI152 template at resolution 3"
RULE = "Belief above Threshold, inside the brain mask"
STRICT = "without the outer 3 mm, deep fluid, and components with little white matter or under 10 mm3"
DEPRECATED = "Written for the last time in this release: use desc-normative or desc-network instead"


class Row(NamedTuple):
    """What an output's sidecar says: what it is, the outputs it is made from, and which groups of facts follow."""

    description: str
    sources: tuple[str, ...]
    facts: tuple[str, ...]


_SHARE = "Posterior probability of {}, to 3 decimals; the rest is a lesion class"
_LINEAR = "linear interpolation, at least one half"
ROWS: dict[str, Row] = {  # by key of `OUTPUTS`; the facts are those of `_facts`
    "preproc": Row("FLAIR, N4 bias field in the brain divided out", (), ("whole head", "warnings", "quality")),
    "brain": Row("Brain: found by a network", (), ("brain",)),
    "dseg": Row("Most probable tissue: 1 GM, 2 WM, 3 CSF", ("preproc",), ("volumes",)),
    "gm": Row(_SHARE.format("GM"), ("preproc",), ("mean of GM",)),
    "wm": Row(_SHARE.format("WM"), ("preproc",), ("mean of WM",)),
    "csf": Row(_SHARE.format("CSF"), ("preproc",), ("mean of CSF",)),
    "belief": Row(
        "Gray matter belief map: (FLAIR - GM mean) / GM mean, inside the brain mask",
        ("preproc",),
        ("brain only", "belief", "quality"),
    ),
    "lesion": Row(RULE, ("belief", "brain"), ("lesion", "published lesions")),
    "cleaned": Row(f"{RULE}; {STRICT}. {DEPRECATED}", ("lesion",), ("lesion", "cleaned lesions")),
    "normative": Row(
        f"Belief over the norm of its place by Difference, inside the brain mask, with a voxel over Seed; {STRICT}",
        ("belief", "brain", "inverse"),
        ("lesion of the norm", "normative lesions"),
    ),
    "network": Row(
        "Lesions by a trained network and the norm: joint probability at least Threshold, and Seed somewhere in each",
        ("probability",),
        ("lesion of the network", "network lesions"),
    ),
    "probability": Row(
        "Probability of lesion: mean log odds of a trained network and of belief over the norm (half at Half, e-fold "
        "by Width); 0 below Least; to 3 decimals",
        ("belief", "brain", "inverse"),
        ("joint probability",),
    ),
    "external": Row("Lesions as given by another tool or by hand", (), ("given lesions", "external lesions")),
    "belief_mni": Row(
        "Gray matter belief map on the template's grid, linear interpolation",
        ("belief", "forward"),
        ("brain only", "template"),
    ),
    "lesion_mni": Row(
        f"Lesion map normalised after thresholding: {_LINEAR}",
        ("lesion", "forward"),
        ("lesion", "published lesions", "template"),
    ),
    "cleaned_mni": Row(
        f"Cleaned lesion map normalised: {_LINEAR}. {DEPRECATED}",
        ("cleaned", "forward"),
        ("lesion", "cleaned lesions", "template"),
    ),
    "normative_mni": Row(
        f"Normative lesion map normalised: {_LINEAR}",
        ("normative", "forward"),
        ("lesion of the norm", "normative lesions", "template"),
    ),
    "network_mni": Row(
        f"The network's lesion map normalised: {_LINEAR}",
        ("network", "forward"),
        ("lesion of the network", "network lesions", "template"),
    ),
    "probability_mni": Row(
        "The network's probability normalised, linear interpolation: keeps what masks lose",
        ("probability", "forward"),
        ("joint probability", "template"),
    ),
    "external_mni": Row(
        f"Given lesions normalised: {_LINEAR}",
        ("external", "forward"),
        ("given lesions", "external lesions", "template"),
    ),
    "forward": Row("Composite transform (ITK HDF5) that resamples scan images to the template: affine, SyN", (), ()),
    "inverse": Row("Composite transform (ITK HDF5) that resamples template images to the scan", (), ()),
}


def of(scan: Scan, found: Analysis, keys: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the sidecars of the outputs ``keys``, by key; sources that are not written are traced to the scan."""
    raw, facts = f"bids:raw:{scan.path}", _facts(found, f"bids:raw:{scan.path}")
    sidecars = {}
    for key in keys:
        row = ROWS[key]
        sources = [f"bids::{scan.output(name)}" for name in row.sources if name in keys] or [raw]
        sidecars[key] = {"Description": row.description, "Sources": sources}
        for group in row.facts:
            sidecars[key] |= facts[group]
    return sidecars


def _facts(found: Analysis, raw: str) -> dict[str, dict[str, Any]]:
    """Return the groups of facts by name."""
    pooled, means = found.anatomy.belief.moments, found.anatomy.fit.tissues.means
    measures, checks = found.measures, found.checks
    flags = [check.name for check in checks if not check.ok]
    of_any: dict[str, Any] = {"Type": "Lesion", "RawSources": [raw], "Flags": flags}
    digests = software.weights()
    by_network = {"WeightsDigest": digests["lesions.onnx"], "NormDigest": digests[normative.FILE]}

    def lesions(name: str) -> dict[str, float]:
        told = (f"{name}_{key}" for key in ("volume_ml", "count", "volume_mni_ml", "lost"))
        return {key: measures[key] for key in told if key in measures}

    return {
        "whole head": {"SkullStripped": False},
        "brain only": {"SkullStripped": True},
        "brain": {"Type": "Brain"},
        "warnings": {"Warnings": list(found.warnings)},
        "quality": {
            "Quality": {check.name: {"Value": check.value, "Unit": check.unit, "Normal": check.ok} for check in checks}
        },
        "volumes": {"VolumesMl": {f"{name}_volume_ml": measures[f"{name}_volume_ml"] for name in ("gm", "wm", "csf")}},
        **{f"mean of {name}": {"ClassMean": mean} for name, mean in means.items()},
        "belief": {
            "GMMean": found.anatomy.belief.gm_mean,
            "TissueCount": pooled.count,
            "TissueSum": pooled.total,
            "TissueSumOfSquares": pooled.squares,
            "TissueMean": pooled.mean,
            "TissueSD": pooled.sd,
        },
        "lesion": {**of_any, "Threshold": found.lesions.threshold},
        "lesion of the norm": {
            **of_any,
            "Difference": normative.GROW,
            "Seed": normative.SEED,
            "SeedBelief": kinds.BRIGHT,
            "NormDigest": digests[normative.FILE],
        },
        "lesion of the network": {
            **of_any,
            "Threshold": joint.GROW,
            "Seed": joint.SEED,
            "SeedBelief": kinds.BRIGHT,
            **by_network,
        },
        "joint probability": {
            "RawSources": [raw],
            "Flags": flags,
            **by_network,
            "Half": joint.HALF,
            "Width": joint.WIDTH,
            "Least": joint.LEAST,
        },
        "given lesions": {**of_any, "Origin": found.lesions.origin},
        **{f"{name} lesions": lesions(kinds.prefix(name)) for name in kinds.NAMES},
        "template": {"SpatialReference": SPACE, "Resolution": RESOLUTION},
    }
