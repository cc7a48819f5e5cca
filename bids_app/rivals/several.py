"""More than two groups: the recommended recipe once for each, that group against the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bids_app.errors import BadInputError
from bids_app.learning.division import by_participant
from bids_app.recommended import comparison
from bids_app.recommended.calibration import moved, probability
from bids_app.recommended.comparison import Draws, Sampled
from bids_app.recommended.machine import decide, train
from bids_app.recommended.products import Products
from bids_app.records.cohort import Fold
from bids_app.records.further import Several
from bids_app.records.recommended import OutOfFold


class Part(NamedTuple):
    """What one fold gives for its n test rows: decision values and probabilities of each of the G groups, (G, n).

    Probabilities are at equal prevalence of a group and its rest, so that the highest one is the call.
    """

    decisions: np.ndarray
    probability: np.ndarray


def outer_folds(
    groups: np.ndarray, participants: np.ndarray, names: Sequence[str], n_folds: int, seed: int
) -> tuple[Fold, ...]:
    """Return folds over participants in which every group takes part; fewer where a group has fewer participants.

    Parameters
    ----------
    groups : ndarray of int, shape (N,)
        Number of each scan's group in ``names``.
    participants : ndarray, shape (N,)

    Raises
    ------
    BadInputError
        A group has fewer than three participants: those of two folds cannot choose within the third.
    """
    _, person, own = by_participant(groups, participants)
    sizes = np.bincount(own, minlength=len(names))
    small = int(np.argmin(sizes))
    if sizes[small] < 3:
        what = f"group {names[small]} has {sizes[small]} participants, too few for folds"
        raise BadInputError(what, remedy="each needs 3 or more; leave the group out")
    n_folds, rng = min(n_folds, int(sizes[small])), np.random.default_rng(seed)
    place = np.zeros(len(own), int)
    for group in range(len(names)):
        members = rng.permutation(np.flatnonzero(own == group))
        place[members] = np.arange(len(members)) % n_folds
    found = place[person]
    return tuple(Fold(np.flatnonzero(found != k), np.flatnonzero(found == k)) for k in range(n_folds))


def tested(of: Products, groups: np.ndarray, n_groups: int, fold: Fold, inner_folds: int, seed: int) -> Part:
    """Train every group against the rest on a fold's training rows and decide its test rows."""
    people = np.unique(of.person[fold.train])
    first = np.unique(of.person, return_index=True)[1]
    values, chances = [], []
    for group in range(n_groups):
        seen = np.zeros(len(first), bool)
        seen[people] = groups[first[people]] == group
        trained = train(of, seen, people, inner_folds, seed)
        decisions = decide(of, trained.dual, fold.validate)
        by = trained.calibration
        values.append(decisions)
        chances.append(moved(probability(by, decisions), by.prevalence, 0.5))
    return Part(np.stack(values), np.stack(chances))


def judged(
    names: Sequence[str],
    groups: np.ndarray,
    participants: np.ndarray,
    outer: Sequence[Sequence[Fold]],
    parts: Sequence[Sequence[Part]],
    counts: np.ndarray,
) -> Several:
    """Return how well groups are told apart, with intervals by bootstrap over participants within groups.

    Parameters
    ----------
    names : sequence of str
        G groups.
    groups, participants : ndarray, shape (N,)
        Number of each scan's group, and whose scan it is.
    outer, parts : repeats of folds, and what each fold gave
    counts : ndarray of float, shape (B, P)
        Of `draw`.
    """
    shape = (len(names), len(outer), len(groups))
    decisions, chance, fold = np.zeros(shape), np.zeros(shape), np.zeros(shape[1:], int)
    for r, (repeat, found) in enumerate(zip(outer, parts, strict=True)):
        for number, (each, part) in enumerate(zip(repeat, found, strict=True)):
            decisions[:, r, each.validate], chance[:, r, each.validate] = part.decisions, part.probability
            fold[r, each.validate] = number
    _, person, own = by_participant(groups, participants)
    areas = {}
    for group, name in enumerate(names):
        out = OutOfFold(name, decisions[group], fold, chance[group])
        draws = Draws(counts[:, own == group], counts[:, own != group])
        areas[name] = comparison.sample(out, groups == group, participants, draws)["auc"]
    called = np.argmax(chance, axis=0)
    recalls = _recalls(called == groups, person, own, counts, len(names))
    method = f"bootstrap over participants within groups, {len(counts)} draws"
    every = range(len(names))
    confusion = np.array([[np.sum((groups == a) & (called == b)) for b in every] for a in every])
    return Several(
        names=tuple(names),
        scans=tuple(int(n) for n in np.bincount(groups, minlength=len(names))),
        participants=tuple(int(n) for n in np.bincount(own, minlength=len(names))),
        auc={name: comparison.measure(each, method) for name, each in areas.items()},
        macro_auc=comparison.measure(_mean(list(areas.values())), method),
        balanced_accuracy=comparison.measure(_mean(recalls), method),
        confusion=confusion / len(outer),
        nested_folds=len(outer[0]),
    )


def draw(groups: np.ndarray, participants: np.ndarray, n_draws: int, seed: int) -> np.ndarray:
    """Return how often each participant (B, P) is drawn, with replacement within its group."""
    _, _, own = by_participant(groups, participants)
    rng, counts = np.random.default_rng(seed), np.zeros((n_draws, len(own)))
    for group in np.unique(own):
        members = np.flatnonzero(own == group)
        counts[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=n_draws)
    return counts


def _recalls(right: np.ndarray, person: np.ndarray, own: np.ndarray, counts: np.ndarray, n: int) -> list[Sampled]:
    size, correct = np.bincount(person), np.bincount(person, weights=right.mean(axis=0))
    found = []
    for group in range(n):
        of = own == group
        drawn = (counts[:, of] @ correct[of]) / (counts[:, of] @ size[of])
        found.append(Sampled(float(correct[of].sum() / size[of].sum()), drawn, int(of.sum())))
    return found


def _mean(parts: Sequence[Sampled]) -> Sampled:
    """Return the mean over groups of what was sampled by the same draws."""
    value, draws = np.mean([each.value for each in parts]), np.mean([each.draws for each in parts], axis=0)
    return Sampled(float(value), draws, min(each.fewest for each in parts))
