"""Made-up scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bids_app.records.scan import Volume


@dataclass(frozen=True)
class Blob:
    """A made-up lesion: ``centre`` and ``direction`` (3,) in template mm, ``radius`` in mm, signal over GM's.

    ``elongation`` is the ratio of the axis along ``direction`` to the others, ``seed`` makes its ragged edge.
    """

    centre: np.ndarray
    direction: np.ndarray
    radius: float
    elongation: float
    signal: float
    seed: int


@dataclass(frozen=True)
class PhantomMap:
    """From scan to template: ``template_point = matrix @ (scan_point - centre) + waves(scan_point)``, world mm.

    Component i of the smooth warp is ``sum_j amplitude[j, i] prod_k cos(number[j, k] x_k + phase[j, k])``,
    the three arrays (J, 3), in mm, 1/mm and rad.
    """

    matrix: np.ndarray
    centre: np.ndarray
    amplitude: np.ndarray
    number: np.ndarray
    phase: np.ndarray


@dataclass(frozen=True)
class PhantomScan:
    """A made-up FLAIR with its truth: brain and lesion masks on its grid, lesions on the template's at 3 mm."""

    flair: Volume
    brain: np.ndarray
    lesion: np.ndarray
    lesion_mni: np.ndarray


@dataclass(frozen=True)
class Design:
    """What a made-up data set holds.

    Attributes
    ----------
    n_positive, n_negative : int
        Participants with RRMS and NMOSD.
    sessions : sequence of int
        Sessions of the first, second, ... participant, repeated as often as needed.
    spacing : (float, float, float)
        Voxel size, mm; the last one is the slices' thickness.
    lesion_free : int
        The first so many NMOSD scans have no lesion.
    """

    n_positive: int = 3
    n_negative: int = 3
    sessions: Sequence[int] = (1, 2)
    spacing: tuple[float, float, float] = (0.9, 0.9, 4.0)
    lesion_free: int = 1
