"""Writes what the chain found as BIDS derivatives, and marks a scan as finished.

The mark (``logs/scans/<scan>.json``) is written last: it holds the digest of input and parameters, so a scan
is finished exactly when its mark's digest is the present one and all files it names are there.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bids_app import __version__, figures, files, transformfile
from bids_app.bids import Scan
from bids_app.errors import BidsAppError
from bids_app.geometry import canonical, centre, stored_like
from bids_app.records import SPACE, Analysis, Check, Summary, Volume

PACKAGES = ("antspyx", "numpy", "scipy", "nibabel", "nilearn", "pybids")
RESOLUTION = "3 mm isotropic, the grid of nilearn's MNI152 template at resolution 3"


def digest(source: Path, parameters: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a scan's bytes, the parameters and the program's version."""
    sha = hashlib.sha256()
    with source.open("rb") as stream:
        while block := stream.read(1 << 20):
            sha.update(block)
    sha.update(json.dumps([__version__, dict(parameters)], sort_keys=True, default=str).encode())
    return sha.hexdigest()


def mark_path(output_dir: Path, scan: str) -> Path:
    """Return the path of a scan's completion mark."""
    return output_dir / "logs" / "scans" / f"{scan}.json"


def read_mark(output_dir: Path, scan: str) -> Summary | None:
    """Return the summary of a finished scan, or None where there is no whole, readable mark."""
    try:
        content = files.read_json(mark_path(output_dir, scan))
        content["checks"] = tuple(
            Check(**{key: item[key] for key in ("name", "value", "unit", "low", "high", "meaning")})
            for item in content["checks"]
        )
        for key in ("warnings", "outputs"):
            content[key] = tuple(content[key])
        return Summary(**content)
    except (BidsAppError, TypeError, KeyError):
        return None


def finished(output_dir: Path, scan: str, wanted: str) -> bool:
    """Return whether this scan was finished with this digest and all its files are still there."""
    mark = read_mark(output_dir, scan)
    if mark is None or mark.digest != wanted:
        return False
    return all((output_dir / path).is_file() for path in (*mark.outputs, *mark.figures.values()))


def software() -> dict[str, str]:
    """Return the versions of what computes."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"bids_app": __version__, "python": platform.python_version(), **versions}


def write(
    scan: Scan,
    found: Analysis,
    original: Volume,
    output_dir: Path,
    *,
    scan_digest: str,
    parameters: Mapping[str, Any],
) -> Summary:
    """Write every derivative of a scan with its sidecar, its figures, and last its mark.

    ``found`` is on the canonical, centred grid of the scan, ``original`` the scan as it is stored: native images
    go back to its axes, transforms to its world.

    Raises
    ------
    CannotCreateError, WriteFailedError
        The output directory is read-only or full.
    """
    mark_path(output_dir, scan.name).unlink(missing_ok=True)  # from here until the end it is not finished
    for key, data in _native(found).items():
        files.write_nifti(output_dir / scan.output(key), stored_like(data, original), original.affine)
    for key, data in _normalised(found).items():
        files.write_nifti(output_dir / scan.output(key), data, found.belief_mni.affine)
    offset = centre(canonical(original))
    for key, source in (("forward", found.alignment.forward), ("inverse", found.alignment.inverse)):
        transformfile.write(Path(source), output_dir / scan.output(key), offset, to_scan=key == "forward")
    sidecars = _sidecars(scan, found)
    for key, content in sidecars.items():
        path = output_dir / scan.output(key)
        files.write_json(path.with_name(path.name.split(".")[0] + ".json"), content)
    pictures = _draw(found)
    places = {key: f"{scan.participant}/figures/{scan.name}_desc-{key}_FLAIR.png" for key in pictures}
    for key, picture in pictures.items():
        files.write_bytes(output_dir / places[key], picture)
    summary = Summary(
        scan=scan.name,
        digest=scan_digest,
        source=scan.path,
        checks=found.checks,
        warnings=found.warnings,
        measures=found.measures,
        parameters=dict(parameters),
        software=software(),
        seconds=found.seconds,
        outputs=tuple(scan.output(key) for key in sidecars),
        figures=places,
    )
    files.write_json(mark_path(output_dir, scan.name), asdict(summary))
    return summary


def _native(found: Analysis) -> dict[str, np.ndarray]:
    tissues = found.tissues
    return {
        "preproc": found.flair.data,
        "brain": tissues.mask,
        "dseg": tissues.labels,
        **{key: np.round(share, 3) for key, share in (("gm", tissues.gm), ("wm", tissues.wm), ("csf", tissues.csf))},
        "belief": found.belief.data,
        "lesion": found.lesion,
        "cleaned": found.cleaned,
    }


def _normalised(found: Analysis) -> dict[str, np.ndarray]:
    return {
        "belief_mni": found.belief_mni.data,
        "lesion_mni": found.lesion_mni,
        "cleaned_mni": found.cleaned_mni,
    }


def _draw(found: Analysis) -> dict[str, bytes]:
    tissues, grid = found.tissues, found.belief_mni
    brain = found.belief.data[(tissues.labels == 1) | (tissues.labels == 2)]
    return {
        "registration": figures.registration(found.flair, found.priors.head, tissues.mask, found.warped),
        "tissues": figures.tissues(found.flair, tissues),
        "belief": figures.belief(found.belief, tissues.mask, found.threshold),
        "lesions": figures.lesions(found.flair, found.lesion, found.cleaned),
        "template": figures.template(grid.like(found.lesion_mni), grid),
        "histogram": figures.histogram(brain, found.belief.data[tissues.labels == 1], found.threshold),
    }


def _sidecars(scan: Scan, found: Analysis) -> dict[str, dict[str, Any]]:
    raw = f"bids:raw:{scan.path}"
    own = {key: f"bids::{scan.output(key)}" for key in ("preproc", "belief", "lesion", "cleaned", "forward", "brain")}
    mni = {"SpatialReference": SPACE, "Resolution": RESOLUTION}
    quality = {check.name: {"Value": check.value, "Unit": check.unit, "Normal": check.ok} for check in found.checks}
    pooled = found.moments
    rule = "Belief above Threshold, inside the brain mask"
    strict = rule + "; without the outer 3 mm, deep fluid, and components with little white matter or under 10 mm3"
    flags = [check.name for check in found.checks if not check.ok]
    lesion = {"Type": "Lesion", "RawSources": [raw], "Threshold": found.threshold, "Flags": flags}
    volume = {key: found.measures[key] for key in ("lesion_volume_ml", "lesion_count", "lesion_volume_mni_ml")}
    clean = {key: found.measures[key] for key in ("cleaned_volume_ml", "cleaned_count", "cleaned_volume_mni_ml")}
    return {
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
            "Sources": [own["preproc"]],
            "VolumesMl": {k: v for k, v in found.measures.items() if k.endswith("m_volume_ml") or k[:3] == "csf"},
        },
        **{
            key: {
                "Description": f"Posterior probability of {name}, to 3 decimals; the rest is a lesion class",
                "Sources": [own["preproc"]],
                "ClassMean": found.tissues.means[name],
            }
            for key, name in (("gm", "GM"), ("wm", "WM"), ("csf", "CSF"))
        },
        "belief": {
            "Description": "Gray matter belief map: (FLAIR - GM mean) / GM mean, inside the brain mask",
            "Sources": [own["preproc"]],
            "SkullStripped": True,
            "GMMean": found.gm_mean,
            "TissueCount": pooled.count,
            "TissueSum": pooled.total,
            "TissueSumOfSquares": pooled.squares,
            "TissueMean": pooled.mean,
            "TissueSD": pooled.sd,
            "Quality": quality,
        },
        "lesion": {"Description": rule, "Sources": [own["belief"], own["brain"]], **lesion, **volume},
        "cleaned": {"Description": strict, "Sources": [own["lesion"]], **lesion, **clean},
        "belief_mni": {
            "Description": "Gray matter belief map on the template's grid, linear interpolation",
            "Sources": [own["belief"], own["forward"]],
            "SkullStripped": True,
            **mni,
        },
        "lesion_mni": {
            "Description": "Lesion map normalised after thresholding: linear interpolation, at least one half",
            "Sources": [own["lesion"], own["forward"]],
            **lesion,
            **volume,
            **mni,
        },
        "cleaned_mni": {
            "Description": "Cleaned lesion map normalised: linear interpolation, at least one half",
            "Sources": [own["cleaned"], own["forward"]],
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


def lesion_row(scan: Scan, summary: Summary) -> dict[str, Any]:
    """Return a scan's row of the table of all scans."""
    entities = dict(scan.entities)
    flagged = [check.name for check in summary.checks if not check.ok]
    return {
        "participant_id": scan.participant,
        "session_id": f"ses-{entities['ses']}" if "ses" in entities else None,
        "scan": scan.name,
        **summary.measures,
        **{check.name: check.value for check in summary.checks},
        "lesion_free": summary.measures["lesion_count"] == 0,
        "flags": ",".join(flagged) or None,
    }
