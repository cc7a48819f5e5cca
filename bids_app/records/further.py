"""What stands beside the recipe itself: covariates, sites, phase of the disease, more than two groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bids_app.records.cohort import Measure
from bids_app.records.need import need


@dataclass(frozen=True)
class Covariates:
    """Covariates of N scans.

    Attributes
    ----------
    names : tuple of str
        K columns of the data set's tables.
    values : ndarray of float, shape (N, K)
        Numbers, or numbers that stand for words; nan where missing.
    words : tuple of tuple of str
        What the numbers of each column stand for, from 0 on; none where they are numbers.
    """

    names: tuple[str, ...]
    values: np.ndarray
    words: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        need(self.values.ndim == 2 and self.values.shape[1] == len(self.names), "each covariate needs a column")
        need(len(self.words) == len(self.names), "each covariate holds numbers or words")


@dataclass(frozen=True)
class Sites:
    """Where N scans were made: the column that says so, the sites' names, and the number of each participant's site.

    A participant counts for the site where most of the scans are, so that nobody stands on two sides.
    """

    column: str
    names: tuple[str, ...]
    of: np.ndarray


@dataclass(frozen=True)
class Several:
    """How well more than two groups are told apart, one against the rest, out of fold.

    Attributes
    ----------
    names : tuple of str
        G groups.
    scans, participants : tuple of int
        Of each group.
    auc : dict of Measure
        Of each group against the rest, scans of the same fold; ``macro_auc`` is their mean.
    balanced_accuracy : Measure
        Mean over groups of the share of scans called right.
    confusion : ndarray of float, shape (G, G)
        Scans of a group (row) called another (column), mean over repeats.
    nested_folds : int
    """

    names: tuple[str, ...]
    scans: tuple[int, ...]
    participants: tuple[int, ...]
    auc: dict[str, Measure]
    macro_auc: Measure
    balanced_accuracy: Measure
    confusion: np.ndarray
    nested_folds: int


@dataclass(frozen=True)
class Confounding:
    """What the site has to do with the groups and the maps.

    ``by_site`` holds, site by site, scans of either group and the AUC of the recommended recipe trained on the other
    sites; ``maps_tell`` how well the lesion maps tell the site.
    """

    column: str
    by_site: dict[str, tuple[int, int, Measure]]
    maps_tell: Several


@dataclass(frozen=True)
class Acute:
    """Which scans are of the acute phase: what stays and goes, by group, in scans and participants.

    ``counts`` maps ``stays``, ``later`` (more days than asked for) and ``unknown`` to a group's name and then to
    scans and participants. ``stays`` (N,) of bool and ``since`` (N,), in days, are of the scans before.
    """

    column: str
    days: float
    counts: dict[str, dict[str, tuple[int, int]]]
    stays: np.ndarray
    since: np.ndarray


@dataclass(frozen=True)
class Further:
    """What was found beside the contest; None where it was not asked for."""

    acute: Acute | None = None
    confounding: Confounding | None = None
    several: Several | None = None
