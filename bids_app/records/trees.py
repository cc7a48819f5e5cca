"""Many decision trees as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bids_app.records.need import need

FOREST, BOOSTING = "forest", "boosting"


@dataclass(frozen=True)
class Trees:
    """T trees of n nodes; a scan goes left where its feature is at most the threshold.

    Attributes
    ----------
    way : str
        ``forest``: log odds of the mean share of the positive group, features in single precision.
        ``boosting``: ``start`` plus the sum of values.
    start : float
    roots : ndarray of int64, shape (T,)
        First node of each tree.
    feature : ndarray of int32, shape (n,)
        That a node asks for; -1: the node is a leaf.
    threshold, value : ndarray of float64, shape (n,)
        What it is compared with, and what a leaf says.
    left, right : ndarray of int64, shape (n,)
        The node's children, which come after it; of a leaf itself.
    """

    way: str
    start: float
    roots: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    value: np.ndarray
    left: np.ndarray
    right: np.ndarray

    def __post_init__(self) -> None:
        need(self.way in (FOREST, BOOSTING), f"trees are {FOREST} or {BOOSTING}, not {self.way!r}")
        n = len(self.feature)
        own = (self.feature, self.threshold, self.value, self.left, self.right)
        need(self.roots.ndim == 1 and all(each.shape == (n,) for each in own), "each node needs as many numbers")
        need(bool(np.all((self.roots >= 0) & (self.roots < n))), "a tree's root is none of its nodes")
        node, inner = np.arange(n), self.feature >= 0
        for child in (self.left, self.right):  # so every walk ends
            there = np.where(inner, (child > node) & (child < n), child == node)
            need(bool(there.all()), "the children of a tree's node must come after it, and a leaf has itself")
