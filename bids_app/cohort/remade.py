"""Lesion maps made anew at another threshold than their stored ones, and kept in a cache.

The native belief map is thresholded inside its brain mask and normalised by the stored transform: what the participant
level does, to the voxel.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_app.bids.names import Scan
from bids_app.errors import BadInputError, BidsAppError, MissingInputError
from bids_app.files import atomic, formats
from bids_app.image.atlas import brain_grid
from bids_app.image.lesion import lesions
from bids_app.machine import software
from bids_app.records.scan import Volume

AFFINE_MM = 1e-3


@dataclass(frozen=True)
class Task:
    """One map to make anew: row, scan, derivatives, threshold and the file it is kept in."""

    row: int
    scan: Scan
    output_dir: Path
    threshold: float
    cache: Path


Made = tuple[int, np.ndarray | BidsAppError]  # row, and the map's packed bits or what went wrong


def make(task: Task) -> Made:
    """Make, keep and return one map; what goes wrong is returned, so that the first by name can be told."""
    try:
        grid, native = brain_grid(3), _native(task)
        bits = np.packbits(_normalised(native, task)[grid.data])
        with atomic.atomic(task.cache) as temporary, temporary.open("wb") as stream:
            np.savez(stream, bits=bits, identity=np.array(identity(task)))
        return task.row, bits
    except BidsAppError as error:
        return task.row, error
    except (RuntimeError, MemoryError) as error:  # ITK's, whatever the reason
        reason = f"cannot be normalised ({type(error).__name__}: {error})"[:300]
        return task.row, BadInputError(reason, task.scan.name, "run the participant level again for this scan")


def _native(task: Task) -> Volume:
    """Return the lesion map on the scan's grid, axes in canonical order."""
    from bids_app.image.geometry import canonical  # ANTs takes a second to import: only where it is needed

    path, brain_path = (task.output_dir / task.scan.output(key) for key in ("belief", "brain"))
    belief, affine = formats.read_nifti(path)
    brain, brain_affine = formats.read_nifti(brain_path)
    if belief.shape != brain.shape or not np.allclose(affine, brain_affine, rtol=0, atol=AFFINE_MM):
        raise BadInputError("lies on another grid than the belief map", brain_path, "run the participant level again")
    volume = Volume(belief, affine)
    # in the axes and with the rounding of the chain: the same threshold then gives the same map to the voxel
    return canonical(volume.like(lesions(volume, task.threshold, brain > 0)))


def _normalised(native: Volume, task: Task) -> np.ndarray:
    from bids_app.image.registration import mask_to_template  # ANTs takes a second to import: only where it is needed

    transform = task.output_dir / task.scan.output("forward")
    if not transform.exists():
        raise MissingInputError("no such file", transform, "run the participant level for this scan")
    return mask_to_template(str(transform), native, brain_grid(3))


def identity(task: Task) -> str:
    """Return what a made map depends on: threshold, versions, and size and time of the files it is made from."""
    facts: list[object] = [1, task.scan.name, task.threshold, software.versions(software.SCAN)]
    for key in ("belief", "brain", "forward"):
        path = task.output_dir / task.scan.output(key)
        facts += [path.stat().st_size, path.stat().st_mtime_ns] if path.exists() else [None]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def cached(path: Path, identity: str) -> np.ndarray | None:
    """Return the packed bits that are kept under this identity; None where there are none, or a broken file."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as kept:
            bits: np.ndarray = kept["bits"]
            whole = str(kept["identity"]) == identity and bits.dtype == np.uint8
    except Exception:  # zipfile, zlib and numpy each raise their own on a broken file: it is made anew
        return None
    return bits if whole and bits.shape == (-(-int(brain_grid(3).data.sum()) // 8),) else None


def unpacked(bits: np.ndarray) -> np.ndarray:
    """Return a map, bool (V,), from its packed bits."""
    return np.unpackbits(bits, count=int(brain_grid(3).data.sum())).astype(bool)


def lost(task: Task, reason: str) -> Made:
    """Return what became of a map whose process died twice."""
    return task.row, BadInputError(f"its process died twice ({reason})", task.scan.name, "lower --nprocs")
