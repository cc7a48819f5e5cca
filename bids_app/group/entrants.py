"""The recipes that compete: what each is made from, laid where workers find it, and each made again from that."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bids_app.group import kept
from bids_app.image import atlas
from bids_app.learning.protocols import HONEST, Plan
from bids_app.model.deciding import regional_loads
from bids_app.options import NETWORK
from bids_app.recommended import rivals
from bids_app.recommended.machine import Trained, model_of
from bids_app.recommended.nested import Recipe
from bids_app.recommended.products import Products
from bids_app.records.cohort import Labelled, Threshold
from bids_app.records.further import Covariates, Sites
from bids_app.records.lesions import BeliefLimit
from bids_app.records.recommended import BELIEF as ABOVE_LIMIT
from bids_app.records.recommended import LinearModel, Purpose
from bids_app.rivals import belief, clinical, cnn, trees, voxels
from bids_app.rivals.chosen import People
from bids_app.rivals.volumes import Maps

RECOMMENDED, VOLUME = "recommended", "lesion volume"
WITH, ALONE = "recommended, covariates", "covariates alone"
SITE = "site alone"
PHASES = "recommended, all phases"
BELIEF, WELCH = "recommended, belief", "leakage-free, belief"
ALWAYS = (RECOMMENDED, HONEST, VOLUME)
FILE = "cohort.npz"
ALL, ABOVE = "all", "above"  # folders of the products of all phases, and of belief above its norm


class More(NamedTuple):
    """What competes beside: classifiers of `options.RIVALS`, covariates, sites, other phases, belief maps (N, V).

    ``beyond`` holds lesion maps (M, V), participants and groups (M,) of scans that are trained on only.
    """

    compare: tuple[str, ...] = ()
    covariates: Covariates | None = None
    sites: Sites | None = None
    beyond: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    belief: np.ndarray | None = None


NOTHING_MORE = More()


class Entry(NamedTuple):
    """What the recipes compete on: the scans, the maps of the recommended recipe (N, V), and those of the others.

    ``purpose`` tells the recommended recipe's maps, ``of_others`` those of the others. Where a norm is the cohort's own
    (``--norm cohort``), these and all below are measured against that of the scans ``rows``; ``of_rows`` returns the
    same entry by the norm of other rows.
    """

    labelled: Labelled
    purpose: Purpose
    maps: np.ndarray
    others: np.ndarray
    of_others: Purpose
    more: More = NOTHING_MORE
    rows: np.ndarray | None = None
    of_rows: Callable[[np.ndarray], Any] | None = None


class Laid(NamedTuple):
    """What lies in the folder, as a task reads it: products, people, and further arrays by name when asked for."""

    folder: Path
    made: Products
    people: People
    arrays: Mapping[str, np.ndarray]

    @property
    def lesions(self) -> np.ndarray:
        """Binary lesion maps (N, V) at one threshold."""
        return self.maps("lesions")

    def maps(self, key: str) -> np.ndarray:
        """Maps (N, V) that were laid under a key: binary ones, or soft ones as they are."""
        found = self.arrays[key]
        return (
            np.unpackbits(found, axis=1, count=int(self.arrays["n_voxels"])).view(bool)
            if found.dtype == np.uint8
            else found
        )

    def covariates(self, key: str) -> Covariates:
        """Covariates that were laid under a key."""
        names, words = (self.arrays[f"{key}_{part}"].tolist() for part in ("names", "words"))
        return Covariates(tuple(names), self.arrays[f"{key}_values"], tuple(tuple(json.loads(each)) for each in words))


class Rounds(NamedTuple):
    """How a recipe chooses: plan of the published selection, inner folds of the others; and the network's threads."""

    plan: Plan
    inner_folds: int
    omp_nthreads: int = 1


def names(entry: Entry) -> tuple[str, ...]:
    """Return the names of the recipes that compete, the recommended one first."""
    more = entry.more
    asked = (
        (more.belief is not None, (BELIEF, WELCH)),
        (more.covariates is not None, (WITH, ALONE)),
        (more.sites is not None, (SITE,)),
        (more.beyond is not None, (PHASES,)),
    )
    return (*ALWAYS, *(name for wanted, own in asked if wanted for name in own), *dict.fromkeys(more.compare))


def lay(folder: Path, entry: Entry) -> dict[str, float]:
    """Lay what every task needs beside the products; return CPU seconds of preparing by name of the recipe.

    ``folder`` holds the products of the entry's maps (`kept.lay`).
    """
    arrays: dict[str, Any] = {"positive": entry.labelled.positive}
    arrays |= {"lesions": _packed(entry.others), "n_voxels": entry.others.shape[1]}
    seconds = {}
    for name in names(entry):
        start = time.process_time()
        arrays |= PREPARED[name](entry, arrays, folder) if name in PREPARED else {}
        seconds[name] = time.process_time() - start
    np.savez(folder / FILE, **arrays)
    return seconds


def laid(folder: Path) -> Laid:
    """Return what `lay` laid; large arrays are read when they are asked for."""
    stored = np.load(folder / FILE, allow_pickle=False)
    made = kept.read(folder)
    return Laid(folder, made, People(stored["positive"], made.person, made.lesion_free), stored)


def recipe(name: str, found: Laid, rounds: Rounds) -> Recipe:
    """Return a recipe by its name."""
    return RECIPES[name](found, rounds)


# -- what is laid for some -----------------------------------------------------------------------


def _packed(maps: np.ndarray) -> np.ndarray:
    """Return maps (N, V) as they are laid: eight binary voxels in a byte."""
    return np.packbits(maps, axis=1) if maps.dtype == bool else maps


def _lay_covariates(of: Covariates, key: str) -> dict[str, Any]:
    words = np.array([json.dumps(each) for each in of.words])
    return {f"{key}_names": np.array(of.names), f"{key}_values": of.values, f"{key}_words": words}


def _lay_sites(entry: Entry) -> dict[str, Any]:
    sites = entry.more.sites
    if sites is None:
        return {}
    return _lay_covariates(Covariates((sites.column,), sites.of[:, None].astype(float), (sites.names,)), "site")


def _lay_phases(entry: Entry, folder: Path) -> dict[str, Any]:
    if entry.more.beyond is None:
        return {}
    maps, participants, positive = entry.more.beyond
    own = entry.labelled
    both = np.concatenate([entry.maps, maps])
    kept.lay(folder / ALL, both, np.concatenate([own.participants, participants]))
    return {"all_positive": np.concatenate([own.positive, positive])}


def _lay_belief(entry: Entry, folder: Path) -> dict[str, Any]:
    if entry.more.belief is None:
        return {}
    participants = entry.labelled.participants
    limit = belief.limit(entry.more.belief, np.unique(participants, return_inverse=True)[1], entry.rows)
    above = belief.above(entry.more.belief, limit)
    kept.lay(folder / ABOVE, above, participants)
    return {"belief": above, "limit": limit}


def _lay_beside(entry: Entry) -> dict[str, Any]:
    if entry.more.covariates is None:
        return {}
    return {"maps": _packed(entry.maps), **_lay_covariates(entry.more.covariates, "covariates")}


def _lay_loads(entry: Entry) -> dict[str, Any]:
    return {"loads": regional_loads(entry.others)}


def _lay_network(entry: Entry) -> dict[str, Any]:
    return {} if entry.more.belief is None else {"belief_maps": entry.more.belief}


Prepare = Callable[[Entry, Mapping[str, Any], Path], dict[str, Any]]
PREPARED: dict[str, Prepare] = {
    "linear-svm": lambda entry, *_: {"gram": voxels.gram(entry.others)},
    "random-forest": lambda entry, *_: _lay_loads(entry),
    "gradient-boosting": lambda entry, there, _: {} if "loads" in there else _lay_loads(entry),
    NETWORK: lambda entry, *_: _lay_network(entry),
    BELIEF: lambda entry, _, folder: _lay_belief(entry, folder),
    WITH: lambda entry, *_: _lay_beside(entry),
    SITE: lambda entry, *_: _lay_sites(entry),
    PHASES: lambda entry, _, folder: _lay_phases(entry, folder),
}


# -- each made from it ---------------------------------------------------------------------------


def _by_maps(made: Products, found: Laid, key: str) -> Callable[[Trained], LinearModel]:
    """Return what makes the model of a machine that was trained on the products of the maps under a key."""
    grid = atlas.brain_grid(3)
    return lambda trained: model_of(trained, made, found.maps(key), grid.data, grid.affine)


def _recommended(found: Laid, of: Rounds) -> Recipe:
    return rivals.recommended(found.made, found.people.positive, found.made.person, of.inner_folds)


def _on_belief(found: Laid, of: Rounds) -> Recipe:
    people = found.people.untied()
    made, positive = replace(kept.read(found.folder / ABOVE), lesion_free=people.lesion_free), people.positive
    return rivals.recommended(made, positive, made.person, of.inner_folds, _by_maps(made, found, "belief"))


def _with_covariates(found: Laid, of: Rounds) -> Recipe:
    own = found.covariates("covariates")
    return clinical.beside_lesions(found.made, own, found.people, of.inner_folds, _by_maps(found.made, found, "maps"))


def _network(found: Laid, of: Rounds) -> Recipe:
    seen = found.arrays.get("belief_maps")
    maps = Maps(atlas.brain_grid(3).data, found.lesions, seen)
    return cnn.recipe(maps, found.people, of.inner_folds, of.omp_nthreads)


RECIPES: dict[str, Callable[[Laid, Rounds], Recipe]] = {
    RECOMMENDED: _recommended,
    HONEST: lambda found, of: rivals.chi_square(found.lesions, found.people.positive, found.people.person, of.plan),
    VOLUME: lambda found, of: rivals.volume(found.made.volume, found.people.positive, found.people.person),
    BELIEF: _on_belief,
    WELCH: lambda found, of: belief.welch_svm(found.arrays["belief"], found.people.untied(), of.plan),
    WITH: _with_covariates,
    ALONE: lambda found, of: clinical.alone(found.covariates("covariates"), found.people, of.inner_folds),
    SITE: lambda found, of: clinical.alone(found.covariates("site"), found.people, of.inner_folds),
    PHASES: lambda found, of: rivals.all_phases(
        kept.read(found.folder / ALL), found.arrays["all_positive"], of.inner_folds
    ),
    "linear-svm": lambda found, of: voxels.linear_svm(
        found.lesions, found.arrays["gram"], found.people, of.inner_folds
    ),
    "l1-logistic": lambda found, of: voxels.l1_logistic(found.lesions, found.people, of.inner_folds),
    "random-forest": lambda found, of: trees.forest(found.arrays["loads"], found.people, of.inner_folds),
    "gradient-boosting": lambda found, of: trees.boosting(found.arrays["loads"], found.people, of.inner_folds),
    NETWORK: _network,
}

# -- and what is stored of it --------------------------------------------------------------------


def _of_recommended(entry: Entry, _: Laid) -> tuple[np.ndarray, Purpose]:
    return entry.maps, entry.purpose


def _of_others(entry: Entry, _: Laid) -> tuple[np.ndarray, Purpose]:
    return entry.others, entry.of_others


def _of_belief(entry: Entry, found: Laid) -> tuple[np.ndarray, Purpose]:
    norm = BeliefLimit(found.arrays["limit"], len(np.unique(entry.labelled.participants)))
    return found.maps("belief"), Purpose(entry.purpose.levels, Threshold(0.0, "given"), ABOVE_LIMIT, norm)


STORED: dict[str, Callable[[Entry, Laid], tuple[np.ndarray, Purpose]]] = {  # rivals with a model, and its maps (N, V)
    VOLUME: _of_recommended,
    BELIEF: _of_belief,
    WELCH: _of_belief,
    WITH: _of_recommended,
    ALONE: _of_recommended,
    "linear-svm": _of_others,
    "l1-logistic": _of_others,
    "random-forest": _of_others,
    "gradient-boosting": _of_others,
    NETWORK: _of_others,
}
