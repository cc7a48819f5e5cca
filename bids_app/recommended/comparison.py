"""Recipe against recipe on the same repeated folds: within folds, over participants, paired.

The decision values of different folds come from different machines and have no common scale. So an AUC here is the
share of pairs of a positive and a negative scan *of the same fold* in which the positive one has the higher value,
summed over folds and repeats. Bootstrap draws take whole participants (Field and Welsh 2007), the same ones for
every recipe, so that a difference of two recipes is paired; intervals are expanded percentiles (Hesterberg 2015).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import norm, t

from bids_app.learning.division import by_participant
from bids_app.records.cohort import Measure
from bids_app.records.recommended import OutOfFold


class Draws(NamedTuple):
    """Bootstrap draws: how often each positive (B, P+) and each negative (B, P-) participant was drawn."""

    positive: np.ndarray
    negative: np.ndarray


class Sampled(NamedTuple):
    """A measure's value, its bootstrap draws (B,), and the participants of the smallest group drawn from."""

    value: float
    draws: np.ndarray
    fewest: int


def draw(positive: np.ndarray, participants: np.ndarray, n_draws: int, seed: int) -> Draws:
    """Draw participants with replacement within each group."""
    _, _, groups = by_participant(positive, participants)
    rng = np.random.default_rng(seed)
    counts = [int((groups == level).sum()) for level in (True, False)]
    return Draws(*(rng.multinomial(n, np.full(n, 1 / n), size=n_draws).astype(float) for n in counts))


def sample(found: OutOfFold, positive: np.ndarray, participants: np.ndarray, draws: Draws) -> dict[str, Sampled]:
    """Return every measure of a recipe with its bootstrap draws.

    Parameters
    ----------
    found : OutOfFold
    positive : ndarray of bool, shape (N,)
    participants : ndarray of str, shape (N,)
    draws : Draws

    Returns
    -------
    dict
        ``auc`` of scans and ``auc_participants`` of the participants' mean values, within folds; ``sensitivity``,
        ``specificity`` and ``accuracy`` of scans, called positive where the decision is >= 0, mean over repeats;
        ``brier`` over participants.
    """
    _, person, groups = by_participant(positive, participants)
    called = shares(found.decisions >= 0, positive, participants, draws)
    sizes = np.bincount(person)
    mean = np.stack([np.bincount(person, weights=each) / sizes for each in found.decisions])
    first = np.unique(person, return_index=True)[1]
    areas = {
        "auc": _pairs(found.decisions, found.fold, positive, person, groups),
        "auc_participants": _pairs(mean, found.fold[:, first], groups, np.arange(len(groups)), groups),
    }
    fewest = min(draws.positive.shape[1], draws.negative.shape[1])
    result = {}
    for key, (won, pairs) in areas.items():
        drawn = np.sum((draws.positive @ won) * draws.negative, axis=1)
        total = np.sum((draws.positive @ pairs) * draws.negative, axis=1)
        result[key] = Sampled(float(won.sum() / pairs.sum()), _ratio(drawn, total), fewest)
    error = np.mean((found.probability - positive) ** 2, axis=0)
    per_person = np.bincount(person, weights=error) / sizes
    every = draws.positive @ per_person[groups] + draws.negative @ per_person[~groups]
    result["brier"] = Sampled(float(per_person.mean()), every / len(groups), fewest)
    return result | called


def shares(called: np.ndarray, positive: np.ndarray, participants: np.ndarray, draws: Draws) -> dict[str, Sampled]:
    """Return sensitivity, specificity and accuracy of calls (R, N) of bool, over scans, mean over repeats."""
    hits = np.mean(called == positive, axis=0)
    _, person, groups = by_participant(positive, participants)
    size, correct = np.bincount(person), np.bincount(person, weights=hits)
    parts = []
    for level, drawn in ((groups, draws.positive), (~groups, draws.negative)):
        parts.append((correct[level].sum(), size[level].sum(), drawn @ correct[level], drawn @ size[level]))
    (tp, n_positive, some_tp, some_positive), (tn, n_negative, some_tn, some_negative) = parts
    units, other_units = draws.positive.shape[1], draws.negative.shape[1]
    everyone = _ratio(some_tp + some_tn, some_positive + some_negative)
    return {
        "sensitivity": Sampled(float(tp / n_positive), _ratio(some_tp, some_positive), units),
        "specificity": Sampled(float(tn / n_negative), _ratio(some_tn, some_negative), other_units),
        "accuracy": Sampled(float((tp + tn) / (n_positive + n_negative)), everyone, min(units, other_units)),
    }


def over_participants(
    values: np.ndarray, rows: np.ndarray, positive: np.ndarray, participants: np.ndarray, draws: Draws
) -> Sampled:
    """Return the mean over participants of each one's mean of ``values`` (N,) over those ``rows`` (N,) of bool."""
    _, person, groups = by_participant(positive, participants)
    size = np.bincount(person, weights=rows)
    mean = np.bincount(person, weights=np.where(rows, values, 0)) / np.maximum(size, 1)
    has = (size > 0).astype(float)
    sums = [draws.positive @ each[groups] + draws.negative @ each[~groups] for each in (has * mean, has)]
    value = float(has @ mean / has.sum()) if has.any() else float("nan")
    return Sampled(value, _ratio(sums[0], sums[1]), int(has.sum()))


def measure(found: Sampled, method: str, alpha: float = 0.05) -> Measure:
    """Return a sampled measure with its interval of expanded percentiles; nan where a group has one participant."""
    if found.fewest < 2 or not np.isfinite(found.draws).any():
        return Measure(found.value, float("nan"), float("nan"), method)
    n = found.fewest
    tail = float(norm.sf(np.sqrt(n / (n - 1)) * t.isf(alpha / 2, n - 1)))
    low, high = np.nanquantile(found.draws, [tail, 1 - tail])
    return Measure(found.value, float(low), float(high), method)


def difference(found: Sampled, reference: Sampled) -> Sampled:
    """Return a paired difference: both were sampled by the same draws."""
    draws = found.draws - reference.draws
    return Sampled(found.value - reference.value, draws, min(found.fewest, reference.fewest))


def _pairs(
    decisions: np.ndarray, fold: np.ndarray, positive: np.ndarray, person: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs won and pairs compared of each positive with each negative participant, (P+, P-)."""
    place = np.empty(len(groups), int)
    place[groups], place[~groups] = np.arange(groups.sum()), np.arange((~groups).sum())
    shape = (int(groups.sum()), int((~groups).sum()))
    won, pairs = np.zeros(shape), np.zeros(shape)
    for values, folds in zip(decisions, fold, strict=True):
        for number in np.unique(folds):
            a = np.flatnonzero((folds == number) & positive)
            b = np.flatnonzero((folds == number) & ~positive)
            score = (np.sign(values[a][:, None] - values[b]) + 1) / 2
            where = (place[person[a]][:, None] * shape[1] + place[person[b]]).ravel()
            won += np.bincount(where, weights=score.ravel(), minlength=won.size).reshape(shape)
            pairs += np.bincount(where, minlength=won.size).reshape(shape)
    return won, pairs


def _ratio(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    return np.divide(part, total, out=np.full(len(part), np.nan), where=total > 0)
