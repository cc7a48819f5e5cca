"""From the scan to the template and back: an affine, SyN registration (ANTs), and resampling.

Symmetric normalisation: Avants et al., Med Image Anal 2008, doi:10.1016/j.media.2007.06.004.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ants
import numpy as np
from scipy import ndimage

from bids_app.affine import refine
from bids_app.atlas import brain_signal
from bids_app.errors import ScanError
from bids_app.geometry import LPS, coarser, to_ants
from bids_app.pose import find_pose
from bids_app.records import Alignment, Atlas, Pose, Priors, Volume

SPACING = 3.0  # mm: as accurate as 1 mm on thick clinical slices, at a sixth of its cost
MARGIN = 9.0  # mm about the brain: 6 and 12 align as well
BOX_STEP = 4.0  # mm
SYN = {  # steps of 0.3 reach in half the iterations what ANTs' default of 0.2 reaches
    "syn_metric": "mattes",
    "syn_sampling": 32,
    "grad_step": 0.3,
    "reg_iterations": (50, 30, 12),  # 8 at the finest level: 0.005 less ventricle overlap, a sixth less time
}


def register(scan: Volume, atlas: Atlas, folder: Path, *, seed: int, trust_header: bool = True) -> Alignment:
    """Register a FLAIR with skull to the synthetic head; the composite transforms are left in ``folder``.

    Parameters
    ----------
    scan : Volume
        Bias-corrected FLAIR, best with its field of view about the origin (`geometry.centred`).
    atlas : Atlas
    folder : Path
        Where ANTs may write; it is ANTs that names the files.
    seed : int
        Of ANTs' random sampling. On one thread equal seeds give equal bits.
    trust_header : bool
        See `pose.find_pose`.

    Raises
    ------
    ScanError
        ANTs gave up.
    """
    moving, fixed = coarser(scan, SPACING), coarser(atlas.head, SPACING)
    pose = refine(find_pose(moving, fixed, trust_header=trust_header), moving, fixed)
    start = folder / "affine.mat"
    ants.write_transform(_affine_transform(pose), str(start))
    with _random_seed(seed):
        try:
            warp = ants.registration(
                to_ants(_about_brain(fixed, atlas.mask)),
                to_ants(moving),
                type_of_transform="SyNOnly",
                initial_transform=str(start),
                outprefix=str(folder / "syn_"),
                write_composite_transform=True,
                singleprecision=False,
                **SYN,
            )
        except RuntimeError as error:
            raise ScanError(f"registration failed ({error})", remedy="look at the scan; is it a head?") from error
    return Alignment(warp["fwdtransforms"], warp["invtransforms"], pose)


def _about_brain(head: Volume, mask: Volume) -> Volume:
    """Return the head cut to the box of the brain and a margin: beyond it, voxels cost time and align nothing.

    The margin holds the fluid, the bone and the inner scalp, which tell the optimiser where the brain ends. ``mask``
    is on a grid of its own along the same axes.
    """
    box = ndimage.find_objects((mask.data > 0.5).astype(np.uint8))[0]
    to_index = np.linalg.inv(head.affine) @ mask.affine
    low, high = (to_index[:3, :3] @ [getattr(side, end) for side in box] + to_index[:3, 3] for end in ("start", "stop"))
    first = np.maximum(np.floor(low - MARGIN / head.spacing), 0).astype(int)
    last = np.ceil(high + MARGIN / head.spacing).astype(int)
    return _part(head, tuple(slice(start, stop) for start, stop in zip(first, last, strict=True)))


def _affine_transform(pose: Pose) -> object:
    return ants.create_ants_transform(
        precision="double",
        transform_type="AffineTransform",
        matrix=LPS @ pose.matrix @ LPS,
        translation=tuple(LPS @ pose.translation),
    )


@contextmanager
def _random_seed(seed: int) -> Iterator[None]:
    # antspyx has no argument for the seed: its module-wide setting is the only way to ITK's --random-seed
    before, ants.config._random_seed = ants.config._random_seed, seed
    try:
        yield
    finally:
        ants.config._random_seed = before


def to_template(transform: str, volume: Volume, grid: Volume) -> np.ndarray:
    """Return a scan's volume on the template's ``grid``, linear, float32, 0 outside the field of view."""
    warped = ants.apply_transforms(to_ants(grid), to_ants(volume), [transform], interpolator="linear")
    data: np.ndarray = warped.numpy()
    return data


def mask_to_template(transform: str, mask: Volume, grid: Volume) -> np.ndarray:
    """Return a boolean mask on the template's ``grid``: linear interpolation, at least one half."""
    return to_template(transform, mask, grid) >= 0.5


def priors(transform: str, atlas: Atlas, scan: Volume) -> Priors:
    """Return the atlas maps on the scan's grid (``transform`` from template to scan).

    Three maps are carried; as interpolation is linear, fluid (the rest of the brain) and the synthetic head
    inside the brain follow from them. Only the box that holds the brain is filled: the transform of a voxel is
    what costs.
    """
    box = _brain_box(transform, atlas.mask, scan)
    target = to_ants(_part(scan, box))

    def carry(volume: Volume) -> np.ndarray:
        carried = np.zeros(scan.data.shape, np.float32)
        found = ants.apply_transforms(target, to_ants(volume), [transform], interpolator="linear").numpy()
        carried[box] = np.clip(found, 0, 1)
        return carried

    gm, wm, mask = carry(atlas.gm), carry(atlas.wm), carry(atlas.mask)
    csf = np.clip(mask - gm - wm, 0, 1)
    return Priors(brain_signal(gm, wm, csf), gm, wm, csf, mask)


def _brain_box(transform: str, mask: Volume, scan: Volume) -> tuple[slice, ...]:
    """Return the box of the scan's grid that the template's brain reaches, found on every few voxels."""
    step = np.maximum(np.round(BOX_STEP / scan.spacing), 1).astype(int)
    coarse = Volume(scan.data[tuple(slice(None, None, n) for n in step)], scan.affine @ np.diag([*step, 1]))
    seen = ants.apply_transforms(to_ants(coarse), to_ants(mask), [transform], interpolator="linear").numpy() > 0
    if not seen.any():
        return tuple(slice(0, n) for n in scan.data.shape)
    found = ndimage.find_objects(seen.astype(np.uint8))[0]
    return tuple(
        slice(max((side.start - 2) * n, 0), min((side.stop + 2) * n, size))
        for side, n, size in zip(found, step, scan.data.shape, strict=True)
    )


def _part(volume: Volume, box: tuple[slice, ...]) -> Volume:
    affine = volume.affine.copy()
    affine[:3, 3] += volume.affine[:3, :3] @ [side.start for side in box]
    return Volume(volume.data[box], affine)
