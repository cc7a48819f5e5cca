"""The convolutional network's answer by numpy alone: a stored one needs no torch, and its weights are plain arrays."""

from __future__ import annotations

import numpy as np

from bids_app.records.machines import Convolutional
from bids_app.rivals.volumes import Maps, Scale, volumes

SIZE, STRIDE = 3, 2  # voxels of a kernel along each axis, and from one place to the next


def decide(model: Convolutional, maps: Maps) -> np.ndarray:
    """Return decision values (n,), positive group if >= 0, in double precision.

    Scan by scan: in a product of matrices a scan's last bit depends on the scans beside it.
    """
    of = Scale(model.mean, model.sd)
    values = np.empty(len(maps.lesions))
    for row in range(len(values)):
        image = volumes(maps.take(np.array([row])), of)[0].astype(np.float64)
        values[row] = (_answer(model, image) + _answer(model, image[:, ::-1])) / 2
    return values


def places(shape: tuple[int, ...], convolutions: int) -> int:
    """Return how many places of a volume (x, y, z) are left after pooling and so many convolutions."""
    left = np.array(shape)
    for _ in range(1 + convolutions):
        left = -(-left // STRIDE)
    return int(np.prod(left))


def _answer(model: Convolutional, image: np.ndarray) -> float:
    values = _pooled(image)
    for kernel, bias in zip(model.kernels, model.biases, strict=True):
        values = np.maximum(_convolved(values, kernel) + bias[:, None, None, None], 0)
    return float(values.ravel() @ model.weights) + model.intercept


def _pooled(values: np.ndarray) -> np.ndarray:
    """Return means of 2 x 2 x 2 voxels of (channels, x, y, z); at the far ends of those that there are."""
    for axis in (1, 2, 3):
        starts = np.arange(0, values.shape[axis], STRIDE)
        counts = np.minimum(values.shape[axis] - starts, STRIDE)
        shape = [1, 1, 1, 1]
        shape[axis] = -1
        values = np.add.reduceat(values, starts, axis=axis) / counts.reshape(shape)
    return values


def _convolved(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Return the convolution of (I, x, y, z) with a kernel (O, I, 3, 3, 3), zeros beyond the ends."""
    wide = np.pad(values, [(0, 0), *[(1, 1)] * 3])
    seen = np.lib.stride_tricks.sliding_window_view(wide, (len(wide), SIZE, SIZE, SIZE))[
        0, ::STRIDE, ::STRIDE, ::STRIDE
    ]
    found: np.ndarray = np.tensordot(kernel.astype(np.float64), seen, axes=((1, 2, 3, 4), (3, 4, 5, 6)))
    return found
