"""The heads that draws are made of: a scan, its brain mask, classes of tissue and two distance maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage
from sklearn.cluster import KMeans

from bids_app.image.brain import averaged
from bids_app.records.scan import Volume

TISSUES = (0.45, 0.93, 1.1)  # fluid, white and gray matter over the local mean: where the classes begin
LOCAL_MM = 20.0  # reach of the local mean
OUTSIDE_CLASSES = 7
FIRST_OUTSIDE = 4  # classes: 0 air, 1 gray, 2 white, 3 fluid, from here on outside the brain


@dataclass(frozen=True)
class Head:
    """One scan for the draws; every map (X, Y, Z), axes near right, anterior, superior.

    ``maps`` (X, Y, Z, 4) holds intensity (brain median 1), share of brain, depth below the head's surface (mm,
    0 in air) and distance from the brain (mm, negative inside). ``expert`` tells a rater's mask from a made one;
    ``open_below`` that the field of view ends under the brain, so that a neck may be added.
    """

    name: str
    patient: str
    maps: np.ndarray
    classes: np.ndarray
    spacing: np.ndarray
    centre: np.ndarray
    expert: bool
    open_below: bool


@dataclass(frozen=True)
class Scan:
    """One FLAIR on disk, read: axes near right, anterior, superior; ``mask`` None where no rater drew one."""

    name: str
    patient: str
    flair: Volume
    mask: np.ndarray | None


def _read(path: Path) -> Volume:
    image = nibabel.as_closest_canonical(nibabel.load(path))
    return Volume(np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine, dtype=float))


def read_scans(data: Path, expert: Path | None) -> list[Scan]:
    """Return every FLAIR of a BIDS data set, with the masks that ``expert`` (a derivative data set) holds."""
    scans = []
    for path in sorted(data.glob("sub-*/**/anat/*_FLAIR.nii.gz")):
        name = path.name.removesuffix("_FLAIR.nii.gz")
        mask = None
        if expert is not None:
            drawn = expert / path.relative_to(data).parent / f"{name}_desc-brain_mask.nii.gz"
            mask = _read(drawn).data > 0 if drawn.exists() else None
        flair = _read(path)
        scans.append(Scan(name, name.split("_")[0], Volume(np.maximum(flair.data, 0), flair.affine), mask))
    return scans


def to_head(scan: Scan, mask: np.ndarray) -> Head:
    """Return the head of a scan whose brain is ``mask`` (bool, the scan's grid)."""
    flair = averaged(scan.flair)
    share = averaged(scan.flair.like(mask.astype(np.float32))).data
    brain = share > 0.5
    values = np.clip(flair.data / np.median(flair.data[brain]), 0, 4).astype(np.float32)
    outline = _outline(values)
    spacing = flair.spacing
    depth = np.minimum(ndimage.distance_transform_edt(outline, sampling=spacing), 30)
    apart = ndimage.distance_transform_edt(~brain, sampling=spacing)
    apart = np.minimum(apart, 60) - np.minimum(ndimage.distance_transform_edt(brain, sampling=spacing), 30)
    classes = np.zeros(values.shape, np.uint8)
    classes[brain] = _tissues(values, brain, spacing)
    rest = outline & ~brain
    features = np.stack([np.minimum(values, 2.5), np.minimum(depth, 20) / 20, np.clip(apart, 0, 40) / 40], -1)[rest]
    groups = KMeans(OUTSIDE_CLASSES, n_init=1, random_state=0).fit(features[::10])
    classes[rest] = groups.predict(features).astype(np.uint8) + FIRST_OUTSIDE
    where = np.argwhere(brain)
    return Head(
        name=scan.name,
        patient=scan.patient,
        maps=np.stack([values, share, depth, apart], -1).astype(np.float32),
        classes=classes,
        spacing=spacing,
        centre=(where.min(0) + where.max(0)) / 2,
        expert=scan.mask is not None,
        open_below=bool(where.min(0)[2] >= 2),
    )


def _outline(values: np.ndarray) -> np.ndarray:
    """Return the head (bool): what is bright, closed, its largest part, holes filled slice by slice."""
    near = ndimage.gaussian_filter(values, (0.7, 0.7, 0)) > 0.2
    near = ndimage.binary_closing(np.pad(near, 4), iterations=3)[4:-4, 4:-4, 4:-4]
    found, number = ndimage.label(near)
    if number:
        near = found == np.bincount(found.ravel())[1:].argmax() + 1
    return np.stack([ndimage.binary_fill_holes(near[..., k]) for k in range(near.shape[2])], -1)


def _tissues(values: np.ndarray, brain: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Return 1 gray, 2 white, 3 fluid for each brain voxel: k-means of intensity over its local mean.

    Rough, and enough: the draws only need parts of the brain whose brightness can be made up.
    """
    sigma = LOCAL_MM / spacing / 2
    weight = np.maximum(ndimage.gaussian_filter(brain.astype(np.float32), sigma), 0.05)
    mean = np.maximum(ndimage.gaussian_filter(values * brain, sigma) / weight, 0.05)
    ratio = np.clip((values / mean)[brain], 0, 2)[:, None]
    found = KMeans(3, init=np.array(TISSUES)[:, None], n_init=1).fit(ratio[::10]).predict(ratio)
    labels: np.ndarray = np.array([3, 2, 1], np.uint8)[found]
    return labels
