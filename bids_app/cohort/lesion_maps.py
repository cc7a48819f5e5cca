"""Lesion maps of finished scans as rows of the template's brain voxels, at any threshold.

A map that was made at the threshold asked for is read as it is; else it is made anew (see `remade`), which alone runs
in parallel: reading a map costs milliseconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_app.bids.names import Scan
from bids_app.cohort import remade
from bids_app.cohort.labels import MAPS
from bids_app.cohort.remade import AFFINE_MM, Task, cached, identity, unpacked
from bids_app.errors import BadInputError, BidsAppError, MissingInputError
from bids_app.files import formats
from bids_app.image.atlas import brain_grid
from bids_app.image.lesion import threshold_of
from bids_app.lesions.kinds import CUT
from bids_app.machine import parallel
from bids_app.records.cohort import LesionMaps, Threshold
from bids_app.records.scan import Moments

log = logging.getLogger("bids_app")
SAME = 1e-9  # thresholds closer than this are one
WHOLE = 1e-3  # a mask's values may differ from 0 and 1 by this (scaled integers)
PREFERRED = ("external", "probability", "normative", "cleaned", "published")  # lesion maps, best first: as measured
_SUMS = ("TissueCount", "TissueSum", "TissueSumOfSquares")


@dataclass(frozen=True)
class Source:
    """Where lesion maps come from.

    Attributes
    ----------
    scans : tuple of Scan
    output_dir : Path
        Derivatives of the participant level, or of others.
    lesion_map : a key of `labels.MAPS`
    cache_dir : Path
        Maps made anew are kept in ``cache_dir/threshold-<x>``, and made again when belief map, brain mask or
        transform change (size or time).
    nprocs : int
        Maps made side by side; the result is the same.
    """

    scans: tuple[Scan, ...]
    output_dir: Path
    lesion_map: str
    cache_dir: Path
    nprocs: int = 1


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
        sidecar = formats.read_json(formats.sidecar(path))
        try:
            count, total, squares = (float(sidecar[key]) for key in _SUMS)
        except (KeyError, TypeError, ValueError) as error:
            what = f"no numbers {', '.join(_SUMS)}"
            raise BadInputError(what, formats.sidecar(path), "run the participant level again for this scan") from error
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
        path = formats.sidecar(output_dir / scan.output(MAPS[lesion_map]))
        try:
            told = formats.read_json(path).get("Flags", [])
        except MissingInputError:
            continue
        if told:
            found.append((scan.name, ", ".join(map(str, told)) if isinstance(told, list) else str(told)))
    return tuple(found)


def best(scans: Sequence[Scan], output_dir: Path, chosen: str) -> str:
    """Return the name of the best lesion map that all scans have, the participant level's own.

    Where they share none of `PREFERRED` it is the one ``chosen`` for the other recipes.

    Raises
    ------
    MissingInputError
        Not all scans have that one either.
    """
    without: list[str] = []
    for name in (*PREFERRED, chosen):
        without = [scan.name for scan in scans if not (output_dir / scan.output(MAPS[name])).exists()]
        if not without:
            return name
    what = f"no lesion map that all scans have; {len(without)} lack the {chosen} one, first {without[0]}"
    raise MissingInputError(what, output_dir, "run the participant level for them, or leave them out with --exclude")


def fixed(lesions: np.ndarray, threshold: Threshold) -> Callable[[np.ndarray], LesionMaps]:
    """Return the function from training rows to lesion maps (N, V) that do not depend on them."""
    maps = LesionMaps(lesions, threshold)
    return lambda rows: maps


def given_threshold(source: Source, lesion_threshold: float) -> Threshold:
    """Return the threshold that the user gave, beside the belief of all scans."""
    pooled = [each for each in sums(source.scans, source.output_dir) if each is not None]
    return _described(lesion_threshold, "given", pooled)


def by_threshold(source: Source) -> Callable[[np.ndarray], LesionMaps]:
    """Return the function from training rows to all published lesion maps at these rows' threshold.

    The threshold is mean + 2.54 SD of the belief of the training rows. The maps of the same threshold are loaded once.

    Raises
    ------
    BadInputError
        There is no belief map to estimate the threshold from. The function raises as `load` does.
    """
    found = sums(source.scans, source.output_dir)
    missing = [scan.name for scan, each in zip(source.scans, found, strict=True) if each is None]
    if missing:
        raise BadInputError(
            f"{len(missing)} scans have no belief map to estimate the threshold from, first {missing[0]}",
            source.output_dir,
            "run the participant level, or take the lesion maps as they are with --lesion-threshold 0.32",
        )
    packed: dict[float, np.ndarray] = {}  # bits: a whole run asks for one threshold a division and an outer fold

    def of_training(rows: np.ndarray) -> LesionMaps:
        pooled = [each for k in rows if (each := found[k]) is not None]
        threshold = _described(threshold_of(sum(pooled, Moments(0, 0.0, 0.0))), "training", pooled)
        if threshold.value not in packed:
            log.info("threshold %.4f (belief %.4f, SD %.4f of %d training scans)", threshold.value, threshold.mean,
                     threshold.sd, threshold.n_scans)  # fmt: skip
            packed[threshold.value] = np.packbits(load(source, threshold.value), axis=1)
        bits = packed[threshold.value]
        return LesionMaps(np.stack([unpacked(row) for row in bits]), threshold)

    return of_training


def own_threshold(lesion_map: str, participant_threshold: float) -> Threshold:
    """Return what made the participant level's maps: the threshold of belief, or what the map has in its stead."""
    return Threshold(CUT.get(lesion_map, participant_threshold), "given")


def _described(value: float, origin: str, pooled: Sequence[Moments]) -> Threshold:
    if not pooled:
        return Threshold(value, origin)
    total = sum(pooled, Moments(0, 0.0, 0.0))
    return Threshold(value, origin, total.mean, total.sd, len(pooled))


def load(
    source: Source,
    threshold: float | None,
    *,
    given: bool = False,
    progress: Callable[[int, int], None] = _nothing,
) -> np.ndarray:
    """Return lesion maps over the template's brain voxels at 3 mm, in C order.

    Parameters
    ----------
    threshold : float, optional
        Belief above which is lesion. None: the stored maps as they are. So are all but ``published``, which only
        the participant level makes.
    given : bool
        The threshold is the user's own word: maps that do not tell theirs (from elsewhere) then suffice.
    progress : callable
        Told how many maps are there, and how many there will be.

    Returns
    -------
    ndarray of bool, shape (N, V); of ``probability`` float32
        Lesions outside the template's brain mask have no place in it.

    Raises
    ------
    MissingInputError
        A file that is needed is gone.
    BadInputError
        A map lies on another grid or is no mask, or none can be had at this threshold.
    """
    scans = source.scans
    soft = source.lesion_map == "probability"
    found = np.zeros((len(scans), int(brain_grid(3).data.sum())), dtype=np.float32 if soft else bool)
    tasks = []
    for row, scan in enumerate(scans):
        made = _stored_or_task(row, scan, source, threshold, given)
        if isinstance(made, Task):
            tasks.append(made)
        else:
            found[row] = made
            progress(row + 1 - len(tasks), len(scans))
    failures: dict[int, BidsAppError] = {}
    ready = len(scans) - len(tasks)
    for row, bits in parallel.run(remade.make, tasks, parallel.Workers(source.nprocs), remade.lost):
        ready += 1
        progress(ready, len(scans))
        if isinstance(bits, BidsAppError):
            failures[row] = bits
        else:
            found[row] = unpacked(bits)
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
    data = on_template(path)
    mask = data == 1
    if not (mask | (data == 0)).all():
        mask = np.abs(data - 1) <= WHOLE
        if not (mask | (np.abs(data) <= WHOLE)).all():  # also where nan
            raise BadInputError("holds other values than 0 and 1, so it is no mask", path, "binarise it")
    inside: np.ndarray = mask[brain_grid(3).data]
    return inside


def read_soft(path: Path) -> np.ndarray:
    """Return a stored map of probabilities over the template's brain voxels, float32 (V,).

    Raises
    ------
    MissingInputError, BadInputError
        No such file; another grid; values outside 0 and 1.
    """
    data = on_template(path).astype(np.float32)
    if not ((data >= 0) & (data <= 1)).all():  # also where nan
        raise BadInputError("holds values outside 0 and 1, so they are no probabilities", path, "make it anew")
    inside: np.ndarray = data[brain_grid(3).data]
    return inside


def on_template(path: Path) -> np.ndarray:
    """Return a stored map (X, Y, Z); refused where it does not lie on the template's grid at 3 mm."""
    grid, remedy = brain_grid(3), "all maps must lie on the one grid; run the participant level for this scan"
    image = formats.open_nifti(path)  # shape first: a header may claim more than fits in memory
    if image.shape != grid.data.shape:
        raise BadInputError(f"shape {image.shape} is not {grid.data.shape}", path, remedy)
    if not np.allclose(image.affine, grid.affine, rtol=0, atol=AFFINE_MM):
        raise BadInputError("the affine is not the template's at 3 mm", path, remedy)
    return np.asarray(formats.read_nifti(path)[0])


def _stored_or_task(row: int, scan: Scan, source: Source, threshold: float | None, given: bool) -> np.ndarray | Task:
    """Return the map where it is stored or cached, else the task that makes it."""
    output_dir, stored = source.output_dir, source.output_dir / scan.output(MAPS[source.lesion_map])
    if source.lesion_map == "probability":
        return read_soft(stored)
    if threshold is None or source.lesion_map != "published":
        return read_mask(stored)
    own = _threshold_of(stored)
    if own is not None and abs(own - threshold) <= SAME:
        return read_mask(stored)
    if (output_dir / scan.output("belief")).exists():
        cache = source.cache_dir / f"threshold-{float(threshold)!r}" / f"{scan.name}.npz"
        task = Task(row, scan, output_dir, float(threshold), cache)
        bits = cached(cache, identity(task))
        return task if bits is None else unpacked(bits)
    if own is None and given:
        return read_mask(stored)
    what = f"no belief map to threshold at {threshold:.6g}, and its lesion map " + (
        "does not say at what threshold it was made" if own is None else f"was made at {own:.6g}"
    )
    remedy = f"use the maps as they are by --lesion-threshold {0.32 if own is None else own:.10g}"
    raise BadInputError(what, scan.name, f"{remedy}, or run the participant level for this scan")


def _threshold_of(path: Path) -> float | None:
    """Return the threshold in a stored map's sidecar; None where it says none."""
    sidecar = formats.sidecar(path)
    value = formats.read_json(sidecar).get("Threshold") if sidecar.exists() else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
