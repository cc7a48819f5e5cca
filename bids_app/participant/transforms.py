"""Writes ITK's composite transforms: in the scan's own world coordinates, equal transforms as equal bytes.

The chain works with the middle of the scan's field of view at the origin; here the offset returns into the affine
part. ITK itself stamps its files with the time and the operating system, so h5py writes them anew.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bids_app.errors import BadInputError
from bids_app.files import formats
from bids_app.image.itk import LPS

AFFINE = "AffineTransform"
FIXED_STRINGS = {"HDFVersion": "HDF5", "ITKVersion": "5", "OSName": "any", "OSVersion": "any"}


def write(source: Path, path: Path, offset: np.ndarray, *, to_scan: bool) -> None:
    """Write a composite transform with the scan moved by ``offset``.

    Parameters
    ----------
    source : Path
        ITK HDF5 file of a composite with one affine, in the chain's frame.
    path : Path
        Ends in ``.h5``.
    offset : ndarray, shape (3,)
        What is added to a point of the chain's frame to reach the scan's world (RAS+), mm.
    to_scan : bool
        True where the transform maps template points to scan points (what resamples a scan to the template);
        False for its inverse.

    Raises
    ------
    BadInputError
        The file holds no affine.
    """
    groups = _read(source)
    moved = False
    for content in groups.values():
        if content["TransformType"].startswith(AFFINE):
            numbers = content["TransformParameters"]
            matrix, translation = numbers[:9].reshape(3, 3), numbers[9:]
            translation += LPS @ offset if to_scan else -matrix @ (LPS @ offset)
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
