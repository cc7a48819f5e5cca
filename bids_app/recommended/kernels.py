"""Kernels of the recommended recipe over training participants, one for each choice of features, made when needed.

A kernel grows with the square of the participants, and there are many. So what stands for one here has no numbers:
they are made from the products of its kind and let go after use.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bids_app.recommended.products import Products
from bids_app.records.recommended import Kind

VOLUME_WEIGHTS = (0.5, 0.0)
EXTRA_WEIGHTS = (0.0, 0.5, 2.0)  # of covariates, where there are
TINY = 1e-6  # of the largest product: a variance below is rounding
ENTRIES = 2**16  # of a kernel, summed at a time


class Dual(NamedTuple):
    """A linear machine by participants: ``sum_k scans[k] @ people[k] + volume * log volume + intercept``.

    Where there are further features, plus ``extra @`` them, (D,).
    """

    people: np.ndarray
    volume: float
    intercept: float
    extra: np.ndarray | None = None


class Kernel(NamedTuple):
    """A kernel over training participants, scaled so that the features' total variance is 1; without its numbers."""

    kind: Kind
    volume_weight: float
    extra_weight: float
    which: int
    scale: float
    volume_mean: float
    volume_sd: float

    def dual(self, of: Products, people: np.ndarray, beta: np.ndarray, bias: float) -> Dual:
        """Return the machine of coefficients beta (T,) on this kernel as one of unscaled products."""
        weights = np.zeros((len(of.kinds), len(of.volume_people)))
        weights[self.which, people] = beta / self.scale
        slope = self.volume_weight * float(beta @ (of.volume_people[people] - self.volume_mean)) / self.volume_sd**2
        further = of.extra_people
        extra = None if further is None else self.extra_weight * (beta @ further[people])
        return Dual(weights, slope, float(bias) - slope * self.volume_mean, extra)


@dataclass(frozen=True, eq=False)
class Parts:
    """What all kernels of one kind are summed of.

    Attributes
    ----------
    which : int
        The kind, by its number in the products.
    kind : Kind
    maps : ndarray of float, shape (T, T)
        Products of the T training participants' mean features.
    volume : ndarray of float, shape (T,)
        Their log volumes.
    extra : ndarray of float, shape (T, T), optional
        Products of their further features.
    """

    which: int
    kind: Kind
    maps: np.ndarray
    volume: np.ndarray
    extra: np.ndarray | None

    @classmethod
    def of(cls, made: Products, people: np.ndarray, which: int) -> Parts:
        """Take the parts of some participants (T,), by their numbers."""
        further = made.extra_people
        extra = None if further is None else further[people] @ further[people].T
        maps = made.people[which][np.ix_(people, people)]
        return cls(which, made.kinds[which], maps, made.volume_people[people], extra)

    def kernels(self) -> Iterator[Kernel]:
        """Yield the kernels of this kind, one for each weight of the volume and of further features."""
        mean, sd = float(self.volume.mean()), float(self.volume.std()) or 1.0
        scale = float(np.trace(self.maps) / len(self.maps) - self.maps.mean())
        largest = max(float(self.maps.max()), -float(self.maps.min()))
        scale = scale if scale > TINY * largest else 1.0  # all maps alike: nothing to scale
        for weight in VOLUME_WEIGHTS:
            for share in (0.0,) if self.extra is None else EXTRA_WEIGHTS:
                yield Kernel(self.kind, weight, share, self.which, scale, mean, sd)

    def matrix(self, kernel: Kernel) -> np.ndarray:
        """Return a kernel, float (T, T)."""
        found = np.empty(self.maps.shape)
        for some, rows in self._rows(kernel):
            found[some] = rows
        return found

    def unit(self, kernel: Kernel) -> np.ndarray:
        """Return the kernel of the same solution that has ones on its diagonal, float32 (T, T)."""
        extra = None if self.extra is None else self.extra.diagonal()
        own = _sum(kernel, self.maps.diagonal(), (self.volume - kernel.volume_mean) ** 2, extra)
        found = np.empty(self.maps.shape, np.float32)
        for some, rows in self._rows(kernel):
            found[some] = 1 - (own[some, None] + own - 2 * rows) / 2
        return found

    def _rows(self, kernel: Kernel) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield the rows of a kernel, some at a time: what is summed needs no memory for a second kernel."""
        volume = self.volume - kernel.volume_mean
        step = max(ENTRIES // len(volume), 1)
        for start in range(0, len(volume), step):
            some = slice(start, start + step)
            extra = None if self.extra is None else self.extra[some]
            yield some, _sum(kernel, self.maps[some], np.outer(volume[some], volume), extra)


def _sum(kernel: Kernel, maps: np.ndarray, volumes: np.ndarray, extra: np.ndarray | None) -> np.ndarray:
    """Return entries of a kernel from those of its parts, all of one shape."""
    found: np.ndarray = maps / kernel.scale
    if kernel.volume_weight:
        found += kernel.volume_weight * (volumes / kernel.volume_sd**2)
    if extra is not None and kernel.extra_weight:
        found += kernel.extra_weight * extra
    return found
