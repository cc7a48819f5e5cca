"""What the viewer of a participant's report is given, from derivatives whose truth is known."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from bids_app.cohort import labels
from bids_app.files import formats
from bids_app.participant import reports


def test_parts_of_a_decision_lie_on_the_lesions_in_the_viewer(done: Path, tmp_path: Path) -> None:
    scan = max(labels.find_maps(done), key=lambda each: (done / each.path).stat().st_size)  # lesions make a file larger
    for key in ("preproc", "dseg", "lesion", "lesion_mni", "inverse"):
        (tmp_path / scan.output(key)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(done / scan.output(key), tmp_path / scan.output(key))

    def layers() -> dict[str, dict[str, Any]]:
        packed = reports.view_of(tmp_path, scan, "light")
        return {layer["name"]: layer for layer in json.loads(packed)["layers"]}

    assert "Part in the decision" not in layers()
    data, affine = formats.read_nifti(tmp_path / scan.output("lesion_mni"))
    left = np.arange(data.shape[0])[:, None, None] * affine[0, 0] + affine[0, 3] < 0
    formats.write_nifti(tmp_path / scan.output("contribution"), np.where(left, 0.5, -0.25).astype("f4") * data, affine)
    found = layers()
    parts, lesions = (_pixels(found[name]) for name in ("Part in the decision", "Lesion map"))
    values = np.where(
        parts > 0, found["Part in the decision"]["low"] + found["Part in the decision"]["step"] * parts, 0
    )
    assert {round(float(value), 2) for value in np.unique(values)} == {-0.25, 0.0, 0.5}
    near = ndimage.binary_dilation(lesions > 0, iterations=3)
    assert (near[values != 0]).mean() > 0.9


def _pixels(layer: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(layer["png"]))))
