"""From the scan to the template and back: an affine, SyN registration (ANTs), and resampling.

Symmetric normalisation: Avants et al., Med Image Anal 2008, doi:10.1016/j.media.2007.06.004.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import ants
import numpy as np
from scipy import ndimage

from bids_app.errors import ScanError
from bids_app.image import atlas
from bids_app.image.geometry import coarser, part, points
from bids_app.image.itk import LPS, to_ants
from bids_app.image.pose import find_pose, within
from bids_app.records.scan import Alignment, Pose, Priors, Volume

SPACING = 3.0  # mm: as accurate as 1 mm on thick clinical slices, at a sixth of its cost
MARGIN = 4.0  # mm about the brain: 9 aligns no better and costs a seventh more
WIDE = 15.0  # mm about the brain, in which the affine pose is found
BOX_STEP = 4.0  # mm
CAP = 1.2  # in units of the brain's median: lesions, at 1.3 and more, are then as bright as the brightest gray matter
BRIGHT, DIM = 0.98, 0.6  # in units of the cap: what is brighter is filled, what is dimmer is no tissue to fill it with
DEEP = 5.0  # mm below the brain's surface: what is bright nearer to it is seldom lesion
REACH = 6.0  # mm, SD of the weights of the tissue that a lesion is filled with
SYN = {
    "syn_metric": "CC",  # ventricle overlap 0.658 where mutual information reaches 0.633, for a fifth more time
    "syn_sampling": 1,  # voxels to each side; 2 aligns no better in three times the time
    "grad_step": 0.3,
    # 12 at the finest level: as good, in 1.8 times the time; 30 at the middle one: ventricles overlap less
    "reg_iterations": (50, 14, 6),
}


def brain_only(scan: Volume, mask: np.ndarray) -> Volume:
    """Return what is registered: the brain at 3 mm, bright voxels capped and lesions filled, else 0.

    ``mask`` (X, Y, Z) bool. Belief and lesions are of the scan itself, which is neither capped nor filled.
    """
    brain = coarser(capped(scan, mask), SPACING)
    return brain.like(_filled(brain, _cap(scan, mask)))


def capped(scan: Volume, mask: np.ndarray) -> Volume:
    """Return the brain on the scan's own grid with bright voxels capped, else 0; ``mask`` (X, Y, Z) bool."""
    return scan.like(np.where(mask, np.minimum(scan.data, _cap(scan, mask)), 0).astype(np.float32))


def _cap(scan: Volume, mask: np.ndarray) -> float:
    return CAP * float(np.median(scan.data[mask]))


def _filled(brain: Volume, top: float) -> np.ndarray:
    """Return a brain whose deep bright places look like the tissue about them (Sdika and Pelletier 2009).

    The correlation that the registration maximises is squared, so a bright lesion may match the dark ventricle beside
    it, which is then stretched over the lesion. doi:10.1002/hbm.20566.
    """
    data = brain.data
    depth = ndimage.distance_transform_edt(data > 0, sampling=brain.spacing)
    bright = ndimage.binary_dilation((data > BRIGHT * top) & (depth > DEEP))
    tissue = ~bright & (data > DIM * top)
    weights, values = (
        ndimage.gaussian_filter(np.where(tissue, each, 0).astype(np.float32), REACH / brain.spacing)
        for each in (1.0, data)
    )
    filled: np.ndarray = np.where(bright & (weights > 0), values / np.maximum(weights, 1e-6), data)
    return filled


def pose_of(brain: Volume, axes: np.ndarray | None = None) -> Pose:
    """Return the affine pose of a brain (`brain_only`) in the template; ``axes`` as in `pose.find_pose`."""
    return find_pose(brain, atlas.target(SPACING, WIDE), axes)


def register(brain: Volume, pose: Pose, folder: Path, *, seed: int) -> Alignment:
    """Register a brain to the synthetic one; the composite transforms are left in ``folder``.

    Parameters
    ----------
    brain : Volume
        Bias-corrected FLAIR at 3 mm, 0 outside the brain (`brain_only`), best with its field of view about the origin
        (`geometry.centred`).
    pose : Pose
        Where the deformation starts: see `find_pose`.
    folder : Path
        Where ANTs may write; it is ANTs that names the files.
    seed : int
        Of ANTs' random sampling. On one thread equal seeds give equal bits.

    Raises
    ------
    ScanError
        ANTs gave up.
    """
    start = folder / "affine.mat"
    ants.write_transform(_affine_transform(pose), str(start))
    with _random_seed(seed):
        try:
            warp = ants.registration(
                to_ants(atlas.target(SPACING, MARGIN)),
                to_ants(brain),
                type_of_transform="SyNOnly",
                initial_transform=str(start),
                mask=_met(pose, brain, atlas.target(SPACING, MARGIN)),
                outprefix=str(folder / "syn_"),
                write_composite_transform=True,
                singleprecision=False,
                **SYN,
            )
        except RuntimeError as error:
            raise ScanError(f"registration failed ({error})", remedy="look at the scan; is it a head?") from error
    return Alignment(warp["fwdtransforms"], warp["invtransforms"], pose)


def _met(pose: Pose, scan: Volume, target: Volume) -> object | None:
    """Return the ITK mask of what of the target meets the scan's field of view; None where all of the brain does."""
    world = points(target) @ pose.matrix.T + pose.translation
    to_index = np.linalg.inv(scan.affine)
    met = within((world @ to_index[:3, :3].T + to_index[:3, 3]).T, scan.data.shape).reshape(target.data.shape)
    return None if met[target.data > 0].all() else to_ants(target.like(met.astype(np.float32)))


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
    return _resampled(transform, volume, grid)


def _resampled(transform: str, volume: Volume, grid: Volume, how: str = "linear") -> np.ndarray:
    """Return a volume carried by the transform of a file to ``grid``, float32, 0 outside the volume."""
    about = Path(transform).stat()
    read = _read(transform, about.st_mtime_ns, about.st_size)
    data: np.ndarray = read.apply_to_image(to_ants(volume), to_ants(grid), how).numpy()
    return data


@lru_cache(maxsize=2)  # of a scan, there and back: `ants.apply_transforms` reads the file at every call
def _read(transform: str, *stamp: int) -> Any:
    """Return the transform in a file, as long as the file's time and size (``stamp``) are the same."""
    return ants.read_transform(transform, precision="double")


def mask_to_template(transform: str, mask: Volume, grid: Volume) -> np.ndarray:
    """Return a boolean mask on the template's ``grid``: linear interpolation, at least one half."""
    return to_template(transform, mask, grid) >= 0.5


def to_scan(transform: str, volume: Volume, scan: Volume) -> np.ndarray:
    """Return a volume in template space on the scan's grid, each voxel as the nearest one of the volume's.

    Parameters
    ----------
    transform : str
        File of the transform from template to scan, in the scan's own world coordinates.
    volume, scan : Volume
        Axes as they are stored.

    Returns
    -------
    ndarray, shape of the scan
    """
    return _resampled(transform, volume, scan, "nearestneighbor")


def priors(transform: str, scan: Volume) -> Priors:
    """Return the atlas maps on the scan's grid (``transform`` from template to scan).

    Three maps are carried; as interpolation is linear, fluid (the rest of the brain) and the synthetic FLAIR
    inside the brain follow from them. Only the box that holds the brain is filled: the transform of a voxel is
    what costs.
    """
    template = atlas.inner()
    box = _brain_box(transform, template.mask, scan)
    target = part(scan, box)

    def carry(volume: Volume) -> np.ndarray:
        carried = np.zeros(scan.data.shape, np.float32)
        carried[box] = np.clip(_resampled(transform, volume, target), 0, 1)
        return carried

    gm, wm, mask = carry(template.gm), carry(template.wm), carry(template.mask)
    csf = np.clip(mask - gm - wm, 0, 1)
    return Priors(atlas.brain_signal(gm, wm, csf), gm, wm, csf, mask)


def carried(transform: str, volume: Volume, scan: Volume, inside: np.ndarray, *, nearest: bool = False) -> np.ndarray:
    """Return a map of the template on the scan's grid, float32, in the box of ``inside`` (bool) and 0 elsewhere.

    ``transform`` is that from template to scan; linear, or ``nearest`` for labels.
    """
    found = np.zeros(scan.data.shape, np.float32)
    how = "nearestneighbor" if nearest else "linear"
    for box in ndimage.find_objects(inside.astype(np.uint8)):
        found[box] = _resampled(transform, volume, part(scan, box), how)
    return found


def indices(transform: str, scan: Volume, grid: Volume) -> np.ndarray:
    """Return which voxel of the scan each point of ``grid`` falls on, (3, X, Y, Z) float32, -9 outside the scan.

    ``transform`` is that from scan to template.
    """
    axes = np.meshgrid(*(np.arange(1, n + 1, dtype=np.float32) for n in scan.data.shape), indexing="ij", copy=True)
    found = np.stack([to_template(transform, scan.like(axis), grid) for axis in axes])
    found[:, (found < 1).any(axis=0)] = -8.0  # beyond the field of view, zeros come in
    return found - 1


def _brain_box(transform: str, mask: Volume, scan: Volume) -> tuple[slice, ...]:
    """Return the box of the scan's grid that the template's brain reaches, found on every few voxels."""
    step = np.maximum(np.round(BOX_STEP / scan.spacing), 1).astype(int)
    coarse = Volume(scan.data[tuple(slice(None, None, n) for n in step)], scan.affine @ np.diag([*step, 1]))
    seen = _resampled(transform, mask, coarse) > 0
    if not seen.any():
        return tuple(slice(0, n) for n in scan.data.shape)
    found = ndimage.find_objects(seen.astype(np.uint8))[0]
    return tuple(
        slice(max((side.start - 2) * n, 0), min((side.stop + 2) * n, size))
        for side, n, size in zip(found, step, scan.data.shape, strict=True)
    )
