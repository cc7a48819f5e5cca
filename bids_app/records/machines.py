"""Machines that look at more than where lesions are: belief in numbers, covariates, convolutions; as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bids_app.records.need import need

Cells = Mapping[str, str | None]  # what tables say of one scan, by column; None where a cell is missing


class Beside(NamedTuple):
    """What a model may look at beside the maps of n scans: belief maps (n, V) float32, and the cells of covariates."""

    belief: np.ndarray | None = None
    covariates: Sequence[Cells] | None = None

    def of(self, row: int) -> Beside:
        """Return what there is of one scan."""
        belief = None if self.belief is None else self.belief[row : row + 1]
        return Beside(belief, None if self.covariates is None else self.covariates[row : row + 1])


ALONE = Beside()


@dataclass(frozen=True)
class Number:
    """A covariate of numbers: it adds ``slope (value - mean)``; where it is missing, ``fill`` stands for it."""

    name: str
    fill: float
    mean: float
    slope: float

    def __post_init__(self) -> None:
        need(bool(np.isfinite([self.fill, self.mean, self.slope]).all()), f"numbers of {self.name} must be finite")

    def part(self, cell: str | None) -> float:
        """Return what it adds to the decision of a scan; ``cell`` is a number in words, or None."""
        return self.slope * ((self.fill if cell is None else float(cell)) - self.mean)


@dataclass(frozen=True)
class Word:
    """A covariate of words: what each ``adds``, and ``other`` for those that training did not know."""

    name: str
    fill: str
    adds: Mapping[str, float]
    other: float

    def __post_init__(self) -> None:
        values = [self.other, *self.adds.values()]
        need(bool(np.isfinite(values).all()), f"numbers of {self.name} must be finite")

    def part(self, cell: str | None) -> float:
        """Return what it adds to the decision of a scan; ``cell`` is None where it is missing."""
        return self.adds.get(self.fill if cell is None else cell, self.other)


@dataclass(frozen=True)
class Radial:
    """``sum_i dual_coef_i exp(-gamma |support_i - x / unit|^2) + intercept``, x being numbers at chosen voxels.

    Attributes
    ----------
    voxels : ndarray of int64, shape (n,)
        Of the template's V brain voxels at 3 mm.
    support : ndarray of float32, shape (S, n)
        In units of ``unit``.
    dual_coef : ndarray of float64, shape (S,)
    gamma, unit, intercept : float
    """

    voxels: np.ndarray
    support: np.ndarray
    dual_coef: np.ndarray
    gamma: float
    unit: float
    intercept: float

    def __post_init__(self) -> None:
        need(self.voxels.ndim == 1 and self.voxels.size > 0, "a radial machine needs voxels")
        need(self.support.shape == (len(self.dual_coef), len(self.voxels)), "support vectors do not fit the voxels")
        need(bool(np.isfinite([self.gamma, self.unit, self.intercept]).all()), "numbers must be finite")
        need(self.gamma > 0 and self.unit > 0, "gamma and unit must be above 0")


@dataclass(frozen=True)
class Convolutional:
    """Mean pooling by 2, convolutions in strides of 2 with max(0, .) after each, then a weight for each place left.

    The decision is the mean of the answers to a scan and to its mirror image.

    Attributes
    ----------
    kernels : tuple of ndarray of float32, shapes (O, I, 3, 3, 3)
    biases : tuple of ndarray of float32, shapes (O,)
    weights : ndarray of float32, shape (F,)
        Of the last convolution's channels and places.
    intercept : float
    mean : ndarray of float32, shape (V,)
        Belief is measured from it; empty where the network sees lesions only.
    sd : float
        What belief is measured in.
    farthest : float
        How far a training scan's belief is from the mean at most, root mean square in units of ``sd``.
    """

    kernels: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    weights: np.ndarray
    intercept: float
    mean: np.ndarray
    sd: float
    farthest: float

    def __post_init__(self) -> None:
        channels = 2 if self.sees_belief else 1
        for kernel, bias in zip(self.kernels, self.biases, strict=True):
            need(kernel.shape == (len(bias), channels, 3, 3, 3), "a kernel does not fit the channels before it")
            channels = len(bias)
        need(self.weights.ndim == 1, "weights must be a vector")
        numbers = [self.intercept, self.sd, self.farthest]
        need(bool(np.isfinite(numbers).all()) and self.sd > 0, "numbers must be finite, the SD above 0")

    @property
    def sees_belief(self) -> bool:
        """Whether it looks at belief maps beside lesion maps."""
        return self.mean.size > 0
