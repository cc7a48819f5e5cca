"""Writes ITK's composite transforms: in the scan's own world coordinates, equal transforms as equal bytes.

The chain works with the middle of the scan's field of view at the origin; here the offset returns into the affine
part. ITK itself stamps its files with the time and the operating system, so h5py writes them anew.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bids_app.errors import BadInputError
from bids_app.files import formats
from bids_app.image.geometry import Frame
from bids_app.image.itk import LPS

AFFINE = "AffineTransform"
FIXED_STRINGS = {"HDFVersion": "HDF5", "ITKVersion": "5", "OSName": "any", "OSVersion": "any"}


def outward(source: Path, path: Path, frame: Frame, *, to_scan: bool) -> None:
    """Write a composite transform of the chain's frame as one of the scan's own world.

    Parameters
    ----------
    source : Path
        ITK HDF5 file of a composite with one affine.
    path : Path
        Ends in ``.h5``.
    frame : Frame
        Of the scan.
    to_scan : bool
        True where the transform maps template points to scan points (what resamples a scan to the template);
        False for its inverse.

    Raises
    ------
    BadInputError
        The file holds no affine.
    """
    _write(source, path, partial(frame.affine_outward, to_scan=to_scan))


def inward(source: Path, path: Path, frame: Frame, *, to_scan: bool) -> None:
    """Write a composite transform of the scan's world as one of the chain's frame; the way back of `outward`."""
    _write(source, path, partial(frame.affine_inward, to_scan=to_scan))


def _write(source: Path, path: Path, move: Callable[[np.ndarray], np.ndarray]) -> None:
    """Write a composite transform with its affine, (4, 4) in RAS+, moved."""
    groups = _read(source)
    moved = False
    for content in groups.values():
        if content["TransformType"].startswith(AFFINE):
            numbers = content["TransformParameters"]
            affine = np.eye(4)
            affine[:3, :3], affine[:3, 3] = LPS @ numbers[:9].reshape(3, 3) @ LPS, LPS @ numbers[9:]
            numbers[9:] = LPS @ move(affine)[:3, 3]
            moved = True
    if not moved:
        raise BadInputError("no affine in the composite transform", source)
    image = io.BytesIO()  # in memory first: where a disk is full, HDF5 fails late and loudly
    with h5py.File(image, "w", libver=("v108", "v108")) as target:
        text = h5py.string_dtype("ascii")
        for name, value in FIXED_STRINGS.items():
            target.create_dataset(name, data=np.array([value], object), dtype=text, track_times=False)
        for name, content in groups.items():
            group = target.create_group(f"TransformGroup/{name}")
            group.create_dataset(
                "TransformType", data=np.array([content["TransformType"]], object), dtype=text, track_times=False
            )
            for key in ("TransformFixedParameters", "TransformParameters"):
                if key in content:
                    large = {"compression": "gzip", "shuffle": True} if content[key].size > 100 else {}
                    group.create_dataset(key, data=content[key], track_times=False, **large)
                    target.flush()  # now, not when the object happens to be freed: that would move what follows
    formats.write_bytes(path, image.getvalue())


def _read(source: Path) -> dict[str, dict[str, Any]]:
    with h5py.File(source, "r") as stored:
        return {
            name: {
                key: item[()][0].decode() if key == "TransformType" else item[()].astype(float)
                for key, item in group.items()
            }
            for name, group in stored["TransformGroup"].items()
        }
