"""Lesion and belief maps of the cohort's scans as the options have them: each is read once, whoever needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from bids_app.bids.names import Scan, group_output
from bids_app.cohort import beliefs, lesion_maps
from bids_app.learning.protocols import MapsFor
from bids_app.options import Options
from bids_app.records.cohort import Labelled


@dataclass(frozen=True, eq=False)
class Maps:
    """Maps of the N scans, read when they are first asked for, and kept; whoever gets them must not change them."""

    options: Options
    labelled: Labelled
    _kept: dict[str, np.ndarray] = field(default_factory=dict)

    def lesions(self, name: str) -> np.ndarray:
        """Return lesion maps (N, V) of a name in `labels.MAPS`, as the participant level stores them."""
        if name not in self._kept:
            self._kept[name] = as_stored(self.options, self.labelled.scans, name)
        return self._kept[name]

    @cached_property
    def beliefs(self) -> np.ndarray:
        """Normalised belief maps, float32 (N, V)."""
        return beliefs.load(self.labelled.scans, self.options.output_dir)

    @cached_property
    def by_norm(self) -> MapsFor:
        """From training rows to normative lesion maps against these rows' norm."""
        return beliefs.by_norm(self.beliefs, self.labelled.participants)

    @cached_property
    def by_rows(self) -> MapsFor:
        """From training rows to lesion maps by these rows' threshold or norm, as far as these are not fixed."""
        options, name = self.options, self.options.lesion_map
        if options.norm == "cohort" and name == "normative":
            return self.by_norm
        if name != "published":
            return lesion_maps.fixed(self.lesions(name), lesion_maps.own_threshold(name, options.participant_threshold))
        source = _source(options, self.labelled.scans, name)
        if options.lesion_threshold is None:
            return lesion_maps.by_threshold(source)
        threshold = lesion_maps.given_threshold(source, options.lesion_threshold)
        return lesion_maps.fixed(self.lesions(name), threshold)


def as_stored(options: Options, scans: Sequence[Scan], name: str) -> np.ndarray:
    """Return lesion maps (N, V) of a name in `labels.MAPS` at the participant level's threshold."""
    return lesion_maps.load(_source(options, scans, name), options.participant_threshold, given=True)


def _source(options: Options, scans: Sequence[Scan], name: str) -> lesion_maps.Source:
    cache = options.output_dir / group_output("cache")
    return lesion_maps.Source(tuple(scans), options.output_dir, name, cache, options.nprocs)
