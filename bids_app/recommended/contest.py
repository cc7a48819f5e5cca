"""The verdict of recipe against recipe: rows, differences, and what the recommended recipe's values tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bids_app.learning.division import by_participant
from bids_app.recommended import calibration, comparison
from bids_app.recommended.comparison import Draws, Sampled
from bids_app.records.cohort import Measure
from bids_app.records.recommended import Brier, Contest, OutOfFold, Row, Sets, Told


def judge(
    found: Mapping[str, OutOfFold],
    seconds: Mapping[str, float],
    reference: str,
    people: tuple[np.ndarray, np.ndarray, np.ndarray],
    draws: Draws,
    beside: Sequence[Row] = (),
) -> Contest:
    """Return the contest of recipes on shared folds; the first one is told more of.

    Parameters
    ----------
    found, seconds : mapping of str
        Out-of-fold values and CPU seconds by name of the recipe.
    reference : str
        The recipe that the others are compared with.
    people : (ndarray of bool, ndarray of str, ndarray of bool), shapes (N,)
        Labels, participants, and which scans have no lesion.
    draws : Draws
    beside : sequence of Row
        Rows of other folds: they stand below, and cannot win.
    """
    positive, participants, lesion_free = people
    sampled = {name: comparison.sample(each, positive, participants, draws) for name, each in found.items()}
    method = f"bootstrap over participants, {len(draws.positive)} draws"
    paired = f"paired {method}"
    rows = []
    for name, each in sampled.items():
        gap = comparison.difference(each["auc"], sampled[reference]["auc"])
        difference = None if name == reference else comparison.measure(gap, paired)
        measures = {key: comparison.measure(value, method) for key, value in each.items()}
        rows.append(Row(name, measures, seconds[name], difference))
    winner = max(rows, key=lambda row: row.measures["auc"].value)
    shown = winner.difference is not None and winner.difference.low > 0
    first = next(iter(found.values()))
    said = tell(first, positive, participants, lesion_free, draws)
    folds, repeats = int(first.fold.max()) + 1, len(first.fold)
    return Contest((*rows, *beside), dict(found), said, reference, winner.name, shown, folds, repeats)


def tell(
    found: OutOfFold, positive: np.ndarray, participants: np.ndarray, lesion_free: np.ndarray, draws: Draws
) -> Told:
    """Return what a recipe's probabilities, thresholds and sets are worth; measures are means over repeats."""
    method = f"bootstrap over participants, {len(draws.positive)} draws"
    _, person, _ = by_participant(positive, participants)
    weights = 1 / np.bincount(person)[person]
    n = len(found.decisions)
    parts = [calibration.brier(each, positive, weights) for each in found.probability]
    keys = ("value", "reliability", "resolution", "uncertainty", "within")
    score = Brier(*(float(np.mean([getattr(part, key) for part in parts])) for key in keys))
    flat = found.probability.ravel()
    curve = calibration.reliability_curve(flat, np.tile(positive, n), np.tile(weights, n))
    thresholds = {
        key: _measured(comparison.shares(calls, positive, participants, draws), method)
        for key, calls in {"zero": found.decisions >= 0, **found.calls}.items()
    }
    kinds = {"with_lesions": ~lesion_free, "lesion_free": lesion_free}
    sets = {key: _sets(found, rows, positive, participants, draws, method) for key, rows in kinds.items()}
    called = found.decisions >= 0
    share = {
        key: float((lesion_free & group & (called == side)).sum() / n)
        for key, group, side in (
            ("tp", positive, True), ("fn", positive, False), ("tn", ~positive, False), ("fp", ~positive, True)
        )
    }  # fmt: skip
    free = {"positive": float((lesion_free & positive).sum()), "negative": float((lesion_free & ~positive).sum())}
    return Told(score, curve, thresholds, sets, {**free, **share})


def _measured(found: Mapping[str, Sampled], method: str) -> dict[str, Measure]:
    return {key: comparison.measure(each, method) for key, each in found.items()}


def _sets(
    found: OutOfFold,
    rows: np.ndarray,
    positive: np.ndarray,
    participants: np.ndarray,
    draws: Draws,
    method: str,
) -> Sets:
    groups = np.zeros((*found.decisions.shape, 2), bool) if found.sets is None else found.sets
    held = np.where(positive, groups[..., 0], groups[..., 1]).mean(axis=0)
    covered = {
        name: comparison.measure(comparison.over_participants(held, rows & part, positive, participants, draws), method)
        for name, part in (("all", np.ones(len(rows), bool)), ("positive", positive), ("negative", ~positive))
    }
    of = groups[:, rows]
    kinds = {"positive": (True, False), "negative": (False, True), "both": (True, True), "none": (False, False)}
    shares = {
        name: float((of == np.array(kind)).all(axis=-1).mean()) if rows.any() else float("nan")
        for name, kind in kinds.items()
    }
    overall = covered.pop("all")
    return Sets(int(rows.sum()), overall, covered, shares)
