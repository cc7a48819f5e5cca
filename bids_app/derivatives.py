"""Writes what the chain found as BIDS derivatives; last the mark that says that the scan is finished."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bids_app import figures, files, places, sidecars, transformfile
from bids_app.bids import Scan
from bids_app.geometry import canonical, centre, stored_like
from bids_app.marks import mark_path, read_mark, software
from bids_app.records import Analysis, Summary, Volume

LESION_KEYS = ("lesion", "cleaned", "lesion_mni", "cleaned_mni")  # the images that depend on the threshold
FIGURES = ("registration", "tissues", "belief", "lesions", "template", "histogram")
LESION_FIGURES = ("belief", "lesions", "template", "histogram")


def write(
    scan: Scan,
    found: Analysis,
    original: Volume,
    output_dir: Path,
    *,
    digests: tuple[str, str],
    parameters: Mapping[str, Any],
    keys: Sequence[str],
    before: Summary | None = None,
) -> Summary:
    """Write the derivatives of a scan with their sidecars, its figures, and last its mark.

    Parameters
    ----------
    found : Analysis
        On the canonical, centred grid of the scan.
    original : Volume
        The scan as it is stored: native images go back to its axes, transforms to its world.
    digests : tuple of str
        See `marks.digests`.
    keys : sequence of str
        Rows of `OUTPUTS` that are wanted.
    before : Summary, optional
        What was finished at another threshold: only what depends on the threshold is then written.

    Raises
    ------
    CannotCreateError, WriteFailedError
        The output directory is read-only or full.
    """
    _clear(scan, output_dir, keys)
    fresh = [key for key in keys if key in LESION_KEYS or not before]
    native, normalised = _native(found), _normalised(found)
    for key in fresh:
        if key in native:
            files.write_nifti(output_dir / scan.output(key), stored_like(native[key], original), original.affine)
        elif key in normalised:
            files.write_nifti(output_dir / scan.output(key), normalised[key], found.anatomy.belief_mni.affine)
        else:
            offset, alignment = centre(canonical(original)), found.anatomy.alignment
            source = {"forward": alignment.forward, "inverse": alignment.inverse}[key]
            transformfile.write(Path(source), output_dir / scan.output(key), offset, to_scan=key == "forward")
    for key, content in sidecars.of(scan, found, keys).items():
        files.write_json(files.sidecar(output_dir / scan.output(key)), content)
    pictures = _draw(found, LESION_FIGURES if before else FIGURES)
    places = {key: f"{scan.participant}/figures/{scan.name}_desc-{key}_FLAIR.png" for key in FIGURES}
    for key, picture in pictures.items():
        files.write_bytes(output_dir / places[key], picture)
    summary = Summary(
        scan=scan.name,
        digest=digests[0],
        anatomy_digest=digests[1],
        source=scan.path,
        checks=found.checks,
        warnings=found.warnings,
        measures=found.measures,
        parameters=dict(parameters),
        software=software(),
        seconds=found.anatomy.seconds,
        outputs=tuple(scan.output(key) for key in keys),
        figures=places,
    )
    files.write_json(mark_path(output_dir, scan.name), asdict(summary))
    return summary


def _clear(scan: Scan, output_dir: Path, keys: Sequence[str]) -> None:
    """Make way: no mark until the end, nothing half written of a killed run, nothing old that is not wanted now."""
    old = read_mark(output_dir, scan.name)
    mark_path(output_dir, scan.name).unlink(missing_ok=True)
    for folder in (output_dir / scan.folder, output_dir / scan.participant / "figures"):
        places.remove_parts(folder, f"{scan.name}_")
    for path in set(old.outputs if old else ()) - {scan.output(key) for key in keys}:
        (output_dir / path).unlink(missing_ok=True)
        files.sidecar(output_dir / path).unlink(missing_ok=True)


def _native(found: Analysis) -> dict[str, np.ndarray]:
    tissues = found.anatomy.tissues
    return {
        "preproc": found.anatomy.flair.data,
        "brain": tissues.mask,
        "dseg": tissues.labels,
        **{key: np.round(share, 3) for key, share in (("gm", tissues.gm), ("wm", tissues.wm), ("csf", tissues.csf))},
        "belief": found.anatomy.belief.data,
        "lesion": found.lesions.native,
        "cleaned": found.lesions.cleaned,
    }


def _normalised(found: Analysis) -> dict[str, np.ndarray]:
    return {
        "belief_mni": found.anatomy.belief_mni.data,
        "lesion_mni": found.lesions.mni,
        "cleaned_mni": found.lesions.cleaned_mni,
    }


def _draw(found: Analysis, wanted: Collection[str]) -> dict[str, bytes]:
    anatomy, lesions = found.anatomy, found.lesions
    flair, tissues, grid = anatomy.flair, anatomy.tissues, anatomy.belief_mni
    warped = anatomy.warped or anatomy.belief_mni  # read back: then the registration is not drawn
    labels, values, threshold = tissues.labels, anatomy.belief.data, lesions.threshold
    drawers: dict[str, Callable[[], bytes]] = {
        "registration": lambda: figures.registration(flair, anatomy.priors.head, tissues.mask, warped),
        "tissues": lambda: figures.tissues(flair, tissues),
        "belief": lambda: figures.belief(anatomy.belief, tissues.mask, threshold),
        "lesions": lambda: figures.lesions(flair, lesions.native, lesions.cleaned),
        "template": lambda: figures.template(grid.like(lesions.mni), grid),
        "histogram": lambda: figures.histogram(values[(labels == 1) | (labels == 2)], values[labels == 1], threshold),
    }
    return {key: draw() for key, draw in drawers.items() if key in wanted}
