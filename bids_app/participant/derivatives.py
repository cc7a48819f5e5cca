"""Writes what the chain found as BIDS derivatives; last the mark that says that the scan is finished."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_app.bids.names import Scan
from bids_app.drawing import scan_figures
from bids_app.files import atomic, formats
from bids_app.image.geometry import Frame
from bids_app.lesions.kinds import prefix
from bids_app.participant import sidecars, transforms
from bids_app.participant.marks import mark_path, write_mark
from bids_app.records.lesions import Analysis, LesionMap
from bids_app.records.scan import Anatomy, Origin, Summary

LESION_KEYS = ("lesion", "cleaned", "lesion_mni", "cleaned_mni")  # the images that depend on the threshold
FIGURES = ("registration", "tissues", "belief", "lesions", "template", "histogram")
ROUNDED = ("gm", "wm", "csf", "probability", "probability_mni")  # images of a few hundred values, which repeat
Images = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]  # by key: on the scan's grid, on the template's
LESION_FIGURES = ("belief", "lesions", "template", "histogram")


@dataclass(frozen=True)
class Target:
    """Where the outputs of a scan go: the output directory, and the rows of `OUTPUTS` that are wanted.

    ``before`` are the paths of the outputs that an earlier run finished.
    """

    scan: Scan
    output_dir: Path
    keys: Sequence[str]
    before: tuple[str, ...] = ()

    def path(self, key: str) -> Path:
        """Return the path of an output."""
        return self.output_dir / self.scan.output(key)


def write(target: Target, found: Analysis, frame: Frame, origin: Origin, *, lesions_only: bool = False) -> Summary:
    """Write the derivatives of a scan with their sidecars, its figures, and last its mark.

    Parameters
    ----------
    target : Target
    found : Analysis
        On the frame's grid.
    frame : Frame
        Of the scan: native images go back to the axes it is stored in, transforms to its world.
    origin : Origin
    lesions_only : bool
        Write only what depends on the threshold: the rest was finished at another one.

    Raises
    ------
    CannotCreateError, WriteFailedError
        The output directory is read-only or full.
    """
    scan, output_dir = target.scan, target.output_dir
    _clear(target)
    images = _native(found), _normalised(found)
    for key in target.keys:
        if key in LESION_KEYS or not lesions_only:
            _write_image(target, key, images, found.anatomy, frame)
    for key, content in sidecars.of(scan, found, target.keys).items():
        formats.write_json(formats.sidecar(target.path(key)), content)
    places = {key: scan.figure(key) for key in FIGURES}
    for key, picture in _draw(found, LESION_FIGURES if lesions_only else FIGURES).items():
        formats.write_bytes(output_dir / places[key], picture)
    summary = Summary(
        scan=scan,
        origin=origin,
        checks=found.checks,
        warnings=found.anatomy.warnings,
        lesion_warnings=found.lesions.warnings,
        measures=found.measures,
        outputs=tuple(scan.output(key) for key in target.keys),
        figures=places,
    )
    write_mark(output_dir, summary)
    return summary


def _write_image(target: Target, key: str, images: Images, anatomy: Anatomy, frame: Frame) -> None:
    (native, normalised), noisy = images, key not in ROUNDED
    if key in native:
        formats.write_nifti(target.path(key), frame.outward(native[key]), frame.original.affine, noisy=noisy)
    elif key in normalised:
        formats.write_nifti(target.path(key), normalised[key], anatomy.belief.mni.affine, noisy=noisy)
    else:
        source = {"forward": anatomy.fit.alignment.forward, "inverse": anatomy.fit.alignment.inverse}[key]
        transforms.outward(Path(source), target.path(key), frame, to_scan=key == "forward")


def _clear(target: Target) -> None:
    """Make way: no mark until the end, nothing half written of a killed run, nothing old that is not wanted now."""
    scan, output_dir = target.scan, target.output_dir
    mark_path(output_dir, scan.name).unlink(missing_ok=True)
    for folder in (output_dir / scan.folder, output_dir / scan.participant / "figures"):
        atomic.remove_parts(folder, f"{scan.name}_")
    for path in set(target.before) - {scan.output(key) for key in target.keys}:
        (output_dir / path).unlink(missing_ok=True)
        formats.sidecar(output_dir / path).unlink(missing_ok=True)


def _native(found: Analysis) -> dict[str, np.ndarray]:
    tissues = found.anatomy.fit.tissues
    return {
        "preproc": found.anatomy.fit.flair.data,
        "brain": tissues.mask,
        "dseg": tissues.labels,
        **{key: np.round(share, 3) for key, share in (("gm", tissues.gm), ("wm", tissues.wm), ("csf", tissues.csf))},
        "belief": found.anatomy.belief.native.data,
        **_lesions(found, lambda each: each.native),
        "probability": found.lesions.soft,
    }


def _normalised(found: Analysis) -> dict[str, np.ndarray]:
    return {
        "belief_mni": found.anatomy.belief.mni.data,
        **{f"{key}_mni": mask for key, mask in _lesions(found, lambda each: each.mni).items()},
        "probability_mni": found.lesions.soft_mni,
    }


def _lesions(found: Analysis, part: Callable[[LesionMap], np.ndarray]) -> dict[str, np.ndarray]:
    """Return one part of each lesion map by its key in the table of outputs."""
    return {prefix(name): part(each) for name, each in found.lesions.maps.items()}


def _draw(found: Analysis, wanted: Collection[str]) -> dict[str, bytes]:
    anatomy, lesions = found.anatomy, found.lesions
    flair, tissues, grid = anatomy.fit.flair, anatomy.fit.tissues, anatomy.belief.mni
    warped = anatomy.warped or grid  # read back: then the registration is not drawn
    labels, values, threshold = tissues.labels, anatomy.belief.native.data, lesions.threshold
    drawers: dict[str, Callable[[], bytes]] = {
        "registration": lambda: scan_figures.registration(flair, anatomy.fit.priors, tissues.mask, warped),
        "tissues": lambda: scan_figures.tissues(flair, tissues),
        "belief": lambda: scan_figures.belief(anatomy.belief.native, tissues.mask, threshold),
        "lesions": lambda: scan_figures.lesions(flair, {name: each.native for name, each in lesions.maps.items()}),
        "template": lambda: scan_figures.template(grid.like(lesions.maps["published"].mni), grid),
        "histogram": lambda: scan_figures.histogram(
            values[(labels == 1) | (labels == 2)], values[labels == 1], threshold
        ),
    }
    return {key: draw() for key, draw in drawers.items() if key in wanted}
