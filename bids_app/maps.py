"""Lesion maps of finished scans as rows of the template's brain voxels, at any threshold.

A map that was made at the threshold asked for is read as it is; else the native belief map is thresholded
anew inside its brain mask and normalised by the stored transform, which is what the participant level does,
and kept in a cache. Only what is made anew runs in parallel: reading a map costs milliseconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_app import engine, files, places
from bids_app.atlas import brain_grid
from bids_app.bids import Scan
from bids_app.errors import BadInputError, BidsAppError, MissingInputError
from bids_app.lesion import lesions
from bids_app.records import Moments, Volume
from bids_app.tables import MAPS

SAME = 1e-9  # thresholds closer than this are one
WHOLE = 1e-3  # a mask's values may differ from 0 and 1 by this (scaled integers)
AFFINE_MM = 1e-3
_SUMS = ("TissueCount", "TissueSum", "TissueSumOfSquares")


@dataclass(frozen=True)
class Task:
    """One map to make anew: row, scan, derivatives, threshold and the file it is kept in."""

    row: int
    scan: Scan
    output_dir: Path
    threshold: float
    cache: Path


Made = tuple[int, np.ndarray | BidsAppError]  # row, and the map's packed bits or what went wrong


def _nothing(done: int, total: int) -> None:
    """Report no progress."""


def sums(scans: Sequence[Scan], output_dir: Path) -> list[Moments | None]:
    """Return count, sum and sum of squares of each scan's belief, None where there is no belief map.

    Raises
    ------
    BadInputError
        A belief map's sidecar lacks them.
    """
    found: list[Moments | None] = []
    for scan in scans:
        path = output_dir / scan.output("belief")
        if not path.exists():
            found.append(None)
            continue
        sidecar = files.read_json(files.sidecar(path))
        try:
            count, total, squares = (float(sidecar[key]) for key in _SUMS)
        except (KeyError, TypeError, ValueError) as error:
            what = f"no numbers {', '.join(_SUMS)}"
            raise BadInputError(what, files.sidecar(path), "run the participant level again for this scan") from error
        found.append(Moments(int(count), total, squares))
    return found


def flags(scans: Sequence[Scan], output_dir: Path, lesion_map: str) -> tuple[tuple[str, str], ...]:
    """Return the scans that the participant level flagged, by name, and what for.

    Read from each map's own sidecar: that comes along where tables of many runs were not merged.

    Raises
    ------
    BadInputError
        A sidecar is no JSON.
    """
    found = []
    for scan in scans:
        path = files.sidecar(output_dir / scan.output(MAPS[lesion_map]))
        try:
            told = files.read_json(path).get("Flags", [])
        except MissingInputError:
            continue
        if told:
            found.append((scan.name, ", ".join(map(str, told)) if isinstance(told, list) else str(told)))
    return tuple(found)


def load(
    scans: Sequence[Scan],
    output_dir: Path,
    *,
    threshold: float | None,
    lesion_map: str,
    cache_dir: Path,
    nprocs: int = 1,
    progress: Callable[[int, int], None] = _nothing,
    given: bool = False,
) -> np.ndarray:
    """Return lesion maps over the template's brain voxels at 3 mm, in C order.

    Parameters
    ----------
    threshold : float, optional
        Belief above which is lesion. None: the stored maps as they are. For ``cleaned`` too: its rule needs
        the atlas on the scan's grid, which is not kept, so these maps keep the participant level's threshold.
    lesion_map : {"published", "cleaned"}
    cache_dir : Path
        Maps made anew are kept in ``cache_dir/threshold-<x>``, and made again when belief map, brain mask or
        transform change (size or time).
    nprocs : int
        Maps made side by side; the result is the same.
    progress : callable
        Told how many maps are there, and how many there will be.
    given : bool
        The threshold is the user's own word: maps that do not tell theirs (from elsewhere) then suffice.

    Returns
    -------
    ndarray of bool, shape (N, V)
        Lesions outside the template's brain mask have no place in it.

    Raises
    ------
    MissingInputError
        A file that is needed is gone.
    BadInputError
        A map lies on another grid or is no mask, or none can be had at this threshold.
    """
    found = np.zeros((len(scans), int(brain_grid(3).data.sum())), dtype=bool)
    tasks = []
    for row, scan in enumerate(scans):
        made = _stored_or_task(row, scan, output_dir, threshold, lesion_map, cache_dir, given)
        if isinstance(made, Task):
            tasks.append(made)
        else:
            found[row] = made
            progress(row + 1 - len(tasks), len(scans))
    failures: dict[int, BidsAppError] = {}
    ready = len(scans) - len(tasks)
    for row, bits in engine.run(_make, tasks, engine.Workers(nprocs), _lost):
        ready += 1
        progress(ready, len(scans))
        if isinstance(bits, BidsAppError):
            failures[row] = bits
        else:
            found[row] = _unpacked(bits)
    if failures:
        raise failures[min(failures)]  # the first by name, whatever order they came in
    return found


def read_mask(path: Path) -> np.ndarray:
    """Return a stored map over the template's brain voxels, bool (V,).

    Values must be 0 and 1 (within 0.001, as scaled integers may be): shares and labels are no mask.

    Raises
    ------
    MissingInputError, BadInputError
        No such file; another grid; no mask.
    """
    grid = brain_grid(3)
    image = files.open_nifti(path)  # shape first: a header may claim more than fits in memory
    remedy = "all maps must lie on the one grid; run the participant level for this scan"
    if image.shape != grid.data.shape:
        raise BadInputError(f"shape {image.shape} is not {grid.data.shape}", path, remedy)
    if not np.allclose(image.affine, grid.affine, rtol=0, atol=AFFINE_MM):
        raise BadInputError("the affine is not the template's at 3 mm", path, remedy)
    data = np.asarray(files.read_nifti(path)[0])
    mask = data == 1
    if not (mask | (data == 0)).all():
        mask = np.abs(data - 1) <= WHOLE
        if not (mask | (np.abs(data) <= WHOLE)).all():  # also where nan
            raise BadInputError("holds other values than 0 and 1, so it is no mask", path, "binarise it")
    inside: np.ndarray = mask[grid.data]
    return inside


def _stored_or_task(
    row: int, scan: Scan, output_dir: Path, threshold: float | None, lesion_map: str, cache_dir: Path, given: bool
) -> np.ndarray | Task:
    """Return the map where it is stored or cached, else the task that makes it."""
    stored = output_dir / scan.output(MAPS[lesion_map])
    if threshold is None or lesion_map == "cleaned":
        return read_mask(stored)
    own = _threshold_of(stored)
    if own is not None and abs(own - threshold) <= SAME:
        return read_mask(stored)
    if (output_dir / scan.output("belief")).exists():
        cache = cache_dir / f"threshold-{float(threshold)!r}" / f"{scan.name}.npz"
        task = Task(row, scan, output_dir, float(threshold), cache)
        bits = _cached(cache, _identity(task))
        return task if bits is None else _unpacked(bits)
    if own is None and given:
        return read_mask(stored)
    what = f"no belief map to threshold at {threshold:.6g}, and its lesion map " + (
        "does not say at what threshold it was made" if own is None else f"was made at {own:.6g}"
    )
    remedy = f"use the maps as they are by --lesion-threshold {0.32 if own is None else own:.10g}"
    raise BadInputError(what, scan.name, f"{remedy}, or run the participant level for this scan")


def _make(task: Task) -> Made:
    """Make, keep and return one map; what goes wrong is returned, since workers must not raise."""
    try:
        grid, native = brain_grid(3), _native(task)
        bits = np.packbits(_normalised(native, task)[grid.data])
        with places.atomic(task.cache) as temporary, temporary.open("wb") as stream:
            np.savez(stream, bits=bits, identity=np.array(_identity(task)))
        return task.row, bits
    except BidsAppError as error:
        return task.row, error
    except (RuntimeError, MemoryError) as error:  # ITK's, whatever the reason
        reason = f"cannot be normalised ({type(error).__name__}: {error})"[:300]
        return task.row, BadInputError(reason, task.scan.name, "run the participant level again for this scan")


def _native(task: Task) -> Volume:
    """Return the lesion map on the scan's grid, axes in canonical order."""
    from bids_app.geometry import canonical  # ANTs takes a second to import: only where it is needed

    path, brain_path = (task.output_dir / task.scan.output(key) for key in ("belief", "brain"))
    belief, affine = files.read_nifti(path)
    brain, brain_affine = files.read_nifti(brain_path)
    if belief.shape != brain.shape or not np.allclose(affine, brain_affine, rtol=0, atol=AFFINE_MM):
        raise BadInputError("lies on another grid than the belief map", brain_path, "run the participant level again")
    volume = Volume(belief, affine)
    # in the axes and with the rounding of the chain: the same threshold then gives the same map to the voxel
    return canonical(volume.like(lesions(volume, task.threshold, brain > 0)))


def _normalised(native: Volume, task: Task) -> np.ndarray:
    from bids_app.normalize import mask_to_template  # ANTs takes a second to import: only where it is needed

    transform = task.output_dir / task.scan.output("forward")
    if not transform.exists():
        raise MissingInputError("no such file", transform, "run the participant level for this scan")
    return mask_to_template(str(transform), native, brain_grid(3))


def _identity(task: Task) -> str:
    """Return what a made map depends on: threshold, and size and time of the files it is made from."""
    facts: list[object] = [1, task.scan.name, task.threshold]
    for key in ("belief", "brain", "forward"):
        path = task.output_dir / task.scan.output(key)
        facts += [path.stat().st_size, path.stat().st_mtime_ns] if path.exists() else [None]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _cached(path: Path, identity: str) -> np.ndarray | None:
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


def _unpacked(bits: np.ndarray) -> np.ndarray:
    return np.unpackbits(bits, count=int(brain_grid(3).data.sum())).astype(bool)


def _lost(task: Task, reason: str) -> Made:
    return task.row, BadInputError(f"its process died twice ({reason})", task.scan.name, "lower --nprocs")


def _threshold_of(path: Path) -> float | None:
    """Return the threshold in a stored map's sidecar; None where it says none."""
    sidecar = files.sidecar(path)
    value = files.read_json(sidecar).get("Threshold") if sidecar.exists() else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
