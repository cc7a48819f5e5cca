"""The brain of a FLAIR on any grid: a small network's answer on a grid of its own, placed about the head.

The network sees 200 x 240 x 200 mm at 2.5 mm along the world's axes. The grid is placed by the head's outline, then
again about the brain that was found; the last answers (plain and mirrored) are averaged and interpolated on the
scan's grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bids_app.records.scan import Volume

SHAPE = (80, 96, 80)  # of the network's grid
SPACING = 2.5  # of the network's grid, mm
BLOCK_MM = 1.6  # voxels are averaged in blocks to about this size before the grid samples them
OUTSIDE = -9.0  # logit where the grid does not reach
HEAD_SHARE = 0.12  # of the brightest voxels (99th percentile): what is brighter belongs to the head
CROWN_MM = 85.0  # from the top of the head to the middle of the grid
HEAD_MM = 170.0  # from the top of the head down: what lies deeper does not place the grid
CROWN_CM2 = 15.0  # a cut through the head has at least this area
SETTLED_MM = 6.0  # a grid that would move less stays
MOST_MOVES = 4  # of the grid
WHOLE_ML = 700.0  # a smaller brain is a doubtful one
BEYOND_MM = 16.0  # what the last look is shown beyond the field of view: its outermost slices again
SURE = 0.75  # a brain found with more confidence needs no second start
BRIGHTEST = 2.0  # in units of the level: what is brighter is cut before the last averaging
FILLS = 0.85  # of what is not exactly zero: a brain that fills so much of it was stripped before

Network = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Brain:
    """The brain of one scan: ``mask`` (bool) on the scan's grid.

    ``centre`` (3,) and ``axes`` (3, 3) say where the network's grid lay: world point = centre + axes @ (grid mm).
    ``confidence`` is the mean of 2|p - 1/2| over the voxels of the network's grid with p > 0.1, in [0, 1].
    """

    mask: np.ndarray
    centre: np.ndarray
    axes: np.ndarray
    confidence: float


def blocks(spacing: np.ndarray) -> np.ndarray:
    """Return how many voxels are averaged along each axis (3,) of voxels of ``spacing`` mm.

    >>> blocks(np.array([0.72, 0.72, 3.0])).tolist()
    [2, 2, 1]
    """
    number: np.ndarray = np.maximum(np.round(BLOCK_MM / np.asarray(spacing)), 1).astype(int)
    return number


def averaged(volume: Volume) -> Volume:
    """Return the volume averaged in `blocks` of voxels; what is left over at the far ends is dropped."""
    step = blocks(volume.spacing)
    shape = np.array(volume.data.shape) // step
    data = volume.data[tuple(slice(0, n * k) for n, k in zip(shape, step, strict=True))].astype(np.float32, copy=False)
    for axis, (n, k) in enumerate(zip(shape, step, strict=True)):
        if k > 1:
            split = (*data.shape[:axis], n, k, *data.shape[axis + 1 :])
            data = data.reshape(split).mean(axis=axis + 1, dtype=np.float32)
    affine = volume.affine.copy()
    affine[:3, 3] += volume.affine[:3, :3] @ ((step - 1) / 2)
    affine[:3, :3] = volume.affine[:3, :3] * step
    return Volume(data, affine)


def standardise(values: np.ndarray, level: float) -> np.ndarray:
    """Return intensities as the network sees them, in [0, 1): ``v / (v + level)``, so 1/2 at ``level``.

    Bright fat is bent towards 1 instead of cut, and no share of the range is spent on it.
    """
    bounded: np.ndarray = (values / (values + np.float32(max(level, 1e-6)))).astype(np.float32)
    return bounded


def head_level(values: np.ndarray) -> float:
    """Return the median intensity of what is no air: the level of `standardise` while no brain is known."""
    some = values[values > 0]
    if some.size == 0:
        return 1.0
    head = some[some > HEAD_SHARE * np.percentile(some, 99)]
    return float(np.median(head))


def brain_level(values: np.ndarray, probability: np.ndarray) -> float | None:
    """Return the median intensity of the brain (p > 1/2), or None where there is hardly any."""
    inside = values[probability > 0.5]
    return float(np.median(inside)) if inside.size > 1000 else None


def find_brain(scan: Volume, network: Network, axes: np.ndarray | None = None) -> Brain:
    """Return the brain of a FLAIR.

    Parameters
    ----------
    scan : Volume
        Not negative, finite; any grid and any field of view that holds most of a brain. Its affine says where
        right, anterior and superior are.
    network : callable
        From standardised intensities (*SHAPE), float32, to logits of the same shape: see `networks`.
    axes : ndarray, shape (3, 3), optional
        Right, anterior and superior of the head in the world's axes, as columns; as the header says by default.

    Returns
    -------
    Brain
        An empty mask where the network finds no brain.
    """
    turn = np.eye(3) if axes is None else np.asarray(axes, float)
    small = averaged(scan)
    best: tuple[float, np.ndarray, float | None] = (-1.0, np.zeros(3), None)
    for start in _starts(small, turn):
        best = max(best, _settled(small, network, start, turn), key=lambda found: found[0])
        if best[0] > SURE:
            break
    _, centre, level = best
    total, confidence = _averaged_answer(_extended(_bounded(scan, level)), network, centre, turn, level)
    native = to_scan(total, centre, turn, scan)
    return Brain(_given(scan.data, _whole(native > 0)), centre, turn, confidence)


def _starts(small: Volume, axes: np.ndarray) -> Iterator[np.ndarray]:
    """Yield world points about which the grid may first lie: by the head's outline, then where doubt remains."""
    crown = outline_centre(small, axes)
    yield crown
    weight = np.maximum(small.data - small.data.mean(), 0)
    for voxel in ((np.array(small.data.shape) - 1) / 2, np.array(ndimage.center_of_mass(weight + 1e-6))):
        yield small.affine[:3, :3] @ voxel + small.affine[:3, 3]
    for lower in (45.0, 90.0):
        yield crown - axes[:, 2] * lower


def _settled(
    small: Volume, network: Network, centre: np.ndarray, axes: np.ndarray
) -> tuple[float, np.ndarray, float | None]:
    """Return how good the brain is that is found from a start, in [0, 1], and the grid's centre and level for it."""
    level, probability = None, np.zeros(SHAPE)
    for _ in range(MOST_MOVES):
        values = on_grid(small, centre, axes)
        logit = network(standardise(values, head_level(values) if level is None else level))
        probability = _probability(logit)
        before, centre, level = centre, _middle(logit, centre, axes), brain_level(values, probability)
        if level is not None and np.linalg.norm(centre - before) < SETTLED_MM:
            break
    volume = float((probability > 0.5).sum()) * SPACING**3 / 1000
    return _confidence(probability) * min(1.0, volume / WHOLE_ML), centre, level


def _bounded(scan: Volume, level: float | None) -> Volume:
    """Return the volume `averaged` without what is far brighter than the brain (``level``, None where unknown).

    In a block at the brain's edge bright fat would outweigh the brain: the mask shrinks by 2 to 4 % all around.
    """
    return averaged(scan if level is None else scan.like(np.minimum(scan.data, np.float32(BRIGHTEST * level))))


def _extended(small: Volume) -> Volume:
    """Return the volume with its outermost voxels again beyond each face.

    Where the field of view cuts a brain, the network takes the cut for the brain's edge and leaves out the last slices.
    """
    number = np.ceil(BEYOND_MM / small.spacing).astype(int)
    affine = small.affine.copy()
    affine[:3, 3] -= small.affine[:3, :3] @ number
    return Volume(np.pad(small.data, [(n, n) for n in number], mode="edge"), affine)


def _averaged_answer(
    small: Volume, network: Network, centre: np.ndarray, axes: np.ndarray, level: float | None
) -> tuple[np.ndarray, float]:
    """Return the mean logit of a plain pass and a mirrored one, and how sure they are."""
    values = on_grid(small, centre, axes)
    image = standardise(values, head_level(values) if level is None else level)
    total = (network(image) + network(np.ascontiguousarray(image[::-1]))[::-1]) / 2
    return total.astype(np.float32), _confidence(_probability(total))


def first_answer(scan: Volume, network: Network, axes: np.ndarray) -> float:
    """Return how sure the network's first answer is when the head has these axes, in [0, 1]: a quick look."""
    small = averaged(scan)
    centre = outline_centre(small, axes)
    values = on_grid(small, centre, axes)
    return _confidence(_probability(network(standardise(values, head_level(values)))))


def _confidence(probability: np.ndarray) -> float:
    doubtful = probability[probability > 0.1]
    return float((2 * np.abs(doubtful - 0.5)).mean()) if doubtful.size else 0.0


def _probability(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logit, -30, 30)))


def grid_affine(centre: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Return the affine (4, 4) of the network's grid about ``centre``."""
    affine = np.eye(4)
    affine[:3, :3] = axes * SPACING
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return affine


def on_grid(volume: Volume, centre: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Return the volume on the network's grid (*SHAPE), linear, 0 outside."""
    matrix = np.linalg.inv(volume.affine) @ grid_affine(centre, axes)
    data: np.ndarray = ndimage.affine_transform(
        volume.data.astype(np.float32), matrix[:3, :3], matrix[:3, 3], SHAPE, order=1, mode="constant"
    )
    return data


def to_scan(logit: np.ndarray, centre: np.ndarray, axes: np.ndarray, scan: Volume) -> np.ndarray:
    """Return the network's logits on the scan's grid, linear, `OUTSIDE` where its grid does not reach."""
    matrix = np.linalg.inv(grid_affine(centre, axes)) @ scan.affine
    box = _box(matrix, scan.data.shape, logit > -1)
    native = np.full(scan.data.shape, OUTSIDE, np.float32)
    if box is None:
        return native
    first = np.array([part.start for part in box])
    native[box] = ndimage.affine_transform(
        logit,
        matrix[:3, :3],
        matrix[:3, :3] @ first + matrix[:3, 3],
        tuple(part.stop - part.start for part in box),
        order=1,
        mode="constant",
        cval=OUTSIDE,
    )
    return native


def _box(matrix: np.ndarray, shape: tuple[int, ...], inside: np.ndarray) -> tuple[slice, ...] | None:
    """Return the box of scan voxels that holds the grid's voxels ``inside``, with a margin; None where none do."""
    where = np.argwhere(inside)
    if len(where) == 0:
        return None
    low, high = where.min(0) - 2, where.max(0) + 2
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    voxels = (corners - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T
    first = np.maximum(np.floor(voxels.min(0)), 0).astype(int)
    last = np.minimum(np.ceil(voxels.max(0)) + 1, shape).astype(int)
    return tuple(slice(a, b) for a, b in zip(first, last, strict=True)) if (first < last).all() else None


def outline_centre(small: Volume, axes: np.ndarray) -> np.ndarray:
    """Return the world point (3,) about which the grid is first placed: a crown's depth under the head's top.

    A neck, shoulders or a whole body below do not move it; nor does a field of view that is larger than the head.
    """
    data = small.data
    some = data[data > 0]
    head = data > HEAD_SHARE * np.percentile(some, 99) if some.size else np.ones(data.shape, bool)
    step = np.maximum(np.floor(4.0 / small.spacing), 1).astype(int)
    where = np.argwhere(head[:: step[0], :: step[1], :: step[2]]) * step
    points = (where @ small.affine[:3, :3].T + small.affine[:3, 3]) @ axes  # along the head's axes
    area = float(np.prod(step * small.spacing)) / 100 / SPACING  # cm2 that one point stands for in a cut
    height = np.round(points[:, 2] / SPACING).astype(int)
    counts = np.bincount(height - height.min()) * area
    wide = np.convolve(counts, np.ones(4) / 4, mode="same") > CROWN_CM2
    top = (np.flatnonzero(wide).max() if wide.any() else len(counts) - 1) + height.min()
    head_points = points[(height <= top) & (height > top - HEAD_MM / SPACING)]
    low, high = np.percentile(head_points, 1, axis=0), np.percentile(head_points, 99, axis=0)
    middle = (low + high) / 2
    middle[2] = top * SPACING - CROWN_MM
    centre: np.ndarray = axes @ middle
    return centre


def _middle(logit: np.ndarray, centre: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Return the world point at the middle of the box of the brain found; ``centre`` where there is none."""
    brain = _largest(logit > 0)
    where = np.argwhere(brain)
    if len(where) < 1000:
        return centre
    middle: np.ndarray = (where.min(0) + where.max(0)) / 2 - (np.array(SHAPE) - 1) / 2
    return centre + axes @ middle * SPACING


def _largest(mask: np.ndarray) -> np.ndarray:
    found, number = ndimage.label(mask)
    if number < 2:
        return mask
    largest: np.ndarray = found == np.bincount(found.ravel())[1:].argmax() + 1
    return largest


def _whole(mask: np.ndarray) -> np.ndarray:
    """Return the largest part of a mask with its holes filled; the work is done in its box only."""
    box = ndimage.find_objects(mask.astype(np.uint8))
    if not box:
        return mask
    whole = np.zeros(mask.shape, bool)
    whole[box[0]] = ndimage.binary_fill_holes(_largest(mask[box[0]]))
    return whole


def _given(data: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return all that is not exactly zero where the mask fills nearly all of it, else the mask.

    A scan that was stripped before has its brain marked by zeros: another tool's mask, or a rater's. A head is twice
    as large as its brain, and a rim that was left about the brain is more than the rest that is allowed here.
    """
    if np.count_nonzero(data) * FILLS > np.count_nonzero(mask):
        return mask
    left = _whole(data > 0)
    return left if np.count_nonzero(left & mask) > FILLS * np.count_nonzero(left) else mask
