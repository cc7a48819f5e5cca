"""Between our volumes (RAS+, mm) and ITK images (LPS, mm)."""

from __future__ import annotations

from typing import Any

import ants
import numpy as np

from bids_app.records.scan import Volume

LPS = np.diag([-1.0, -1.0, 1.0])  # ITK's world axes point left, posterior, superior; NIfTI's right, anterior


def to_ants(volume: Volume) -> Any:
    """Return the ITK image (float32) of a volume; built from the array and the affine, never re-read."""
    spacing = volume.spacing
    direction = LPS @ (volume.affine[:3, :3] / spacing)
    return ants.from_numpy(
        np.ascontiguousarray(volume.data, dtype=np.float32),
        origin=tuple(LPS @ volume.affine[:3, 3]),
        spacing=tuple(spacing),
        direction=direction,
    )
