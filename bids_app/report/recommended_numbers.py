"""Numbers of the recommended recipe and of recipe against recipe: its part of metrics.json, its tables and facts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from bids_app.learning import measures, roc
from bids_app.recommended.calibration import moved
from bids_app.records.cohort import Cohort, Measure
from bids_app.records.fitted import Recommended
from bids_app.records.recommended import Contest, OutOfFold, Permutation, Row, Sets, Setting
from bids_app.report import further_numbers
from bids_app.report.further_numbers import measure

MEASURES = ("auc", "auc_participants", "accuracy", "sensitivity", "specificity", "brier")


def metrics(found: Recommended | None, positive: np.ndarray, asked: dict[str, Any]) -> dict[str, object]:
    """Return the recommended recipe's parts of metrics.json; nothing where it was not trained.

    ``recommended``, ``recipes``, and what was asked for beside (`further_numbers.metrics`).

    Parameters
    ----------
    found : Recommended
    positive : ndarray of bool, shape (N,)
    asked : dict
        The options of the run, for coverage and prevalence.
    """
    if found is None:
        return {}
    about = {"recommended": _recommended(found, positive, asked), "recipes": _comparison(found)}
    return about | further_numbers.metrics(found.further, (str(asked["positive"]), str(asked["negative"])))


def _recommended(found: Recommended, positive: np.ndarray, asked: dict[str, Any]) -> dict[str, object]:
    by = found.calibration
    about: dict[str, object] = {
        "lesion_map": found.purpose.lesion_map,
        "norm_participants": found.purpose.norm.people if found.purpose.norm else None,
        "chosen": [_setting(each) for each in found.model.settings],
        "participants_prevalence": by.prevalence,
        "prevalence": asked.get("prevalence") or by.prevalence,
    }
    contest = found.contest
    if contest is None:
        return about
    first = contest.out_of_fold[contest.rows[0].name]
    told = contest.told
    curve: list[tuple[float, ...]] = list(told.curve)
    score: dict[str, object] = {**vars(told.brier), "skill": told.brier.skill}
    return about | {
        "nested": _nested(contest.rows[0], first, positive, contest),
        "probability": {"brier": score, "reliability_curve": curve},
        "thresholds": {
            name: {"decision_value": found.thresholds.get(name, 0.0), **_measures(each)}
            for name, each in told.thresholds.items()
        },
        "conformal": {"asked": asked.get("coverage"), **{name: _sets(each) for name, each in told.sets.items()}},
        "lesion_free": told.lesion_free,
        **_permutation(found.permutation),
    }


def _permutation(found: Permutation | None) -> dict[str, object]:
    """Return the AUCs of permuted labels, that of the labels as they are on the same folds, and p."""
    if found is None:
        return {"permuted_auc": [], "permutation_observed": None, "permutation_p": None}
    return {"permuted_auc": found.values, "permutation_observed": found.observed, "permutation_p": found.p}


def _comparison(found: Recommended) -> dict[str, object]:
    contest = found.contest
    if contest is None:
        return {}
    rows = {
        row.name: {
            **_measures(row.measures),
            "auc_difference": measure(row.difference) if row.difference else None,
        }
        for row in contest.rows
    }
    about: dict[str, object] = {"reference": contest.reference, "winner": contest.winner}
    about["difference_shown"] = contest.shown
    return {**about, "nested_folds": contest.nested_folds, "repeats": contest.repeats, "rows": rows}


def tables(found: Recommended | None, cohort: Cohort, asked: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Return ``recipes``, one row a recipe, and ``recommended``, one row a scan; none without a contest."""
    contest = found.contest if found else None
    if found is None or contest is None:
        return {}
    return {"recipes": _recipes(contest), "recommended": _scans(found, contest, cohort, asked.get("prevalence"))}


def facts(found: Recommended | None, asked: dict[str, Any]) -> dict[str, object] | None:
    """Return what the method text tells of the recommended recipe."""
    if found is None:
        return None
    contest = found.contest
    about: dict[str, object] = {
        "lesion_map": found.purpose.lesion_map,
        "norm_participants": found.purpose.norm.people if found.purpose.norm else None,
        "machines": len(found.model.settings),
        "participants_prevalence": found.calibration.prevalence,
        "prevalence": asked.get("prevalence"),
        "coverage": asked.get("coverage"),
        "folds": 0,
        "kept": list(found.kept),
    }
    if contest:
        area = contest.rows[0].measures["auc"]
        about |= {"folds": contest.nested_folds, "repeats": contest.repeats, "auc": area.value,
                  "winner": contest.winner, "shown": contest.shown}  # fmt: skip
        about["rows"] = [row.name for row in contest.rows]
        about |= further_numbers.facts(found.further)
    return about


def _nested(row: Row, found: OutOfFold, positive: np.ndarray, contest: Contest) -> dict[str, object]:
    called, n = found.decisions >= 0, contest.repeats
    counts = {
        "tp": (called & positive).sum() / n,
        "fn": (~called & positive).sum() / n,
        "tn": (~called & ~positive).sum() / n,
        "fp": (called & ~positive).sum() / n,
    }
    folds = [[_setting(each) for each in chosen] for chosen in found.chosen if isinstance(chosen, tuple)]
    over_scans, pooled = _over_scans(found, positive)
    return {
        **{key: measure(each, over_scans.get(key)) for key, each in row.measures.items()},
        "confusion": counts,
        "auc_pooled_over_folds": _plain(pooled),
        "nested_folds": contest.nested_folds,
        "repeats": n,
        "folds": folds,
    }


def _over_scans(found: OutOfFold, positive: np.ndarray) -> tuple[dict[str, Measure], Measure]:
    """Return measures with intervals over scans, and the AUC of all pairs of scans: means over the repeats.

    Of one repeat they are those of the leakage-free recipe's nested cross-validation.
    """
    whole = [measures.performance(positive, values) for values in found.decisions]
    areas = [roc.auc_within(positive, *each) for each in zip(found.decisions, found.fold, strict=True)]
    calls = {key: [getattr(each, key) for each in whole] for key in ("accuracy", "sensitivity", "specificity")}
    pooled = _mean([roc.auc(positive, values) for values in found.decisions])
    return {"auc": _mean(areas), **{key: _mean(each) for key, each in calls.items()}}, pooled


def _mean(found: Sequence[Measure]) -> Measure:
    """Return the mean of a measure's value and interval over repeats; wide, since repeats share their scans."""
    value, low, high = (float(np.mean([getattr(each, end) for each in found])) for end in ("value", "low", "high"))
    method = found[0].method if len(found) == 1 else f"{found[0].method}, mean over {len(found)} repeats"
    return Measure(value, low, high, method)


def _plain(found: Measure) -> dict[str, object]:
    """Return a measure that has an interval over scans only."""
    ends = [found.low, found.high]
    return {"value": found.value, "interval": ends, "method": found.method,
            "interval_scans": ends, "method_scans": found.method}  # fmt: skip


def _setting(setting: Setting) -> dict[str, object]:
    return {"fwhm_mm": setting.kind.fwhm, "folded": setting.kind.folded, "volume_weight": setting.volume_weight,
            "C": setting.C, "auc": setting.auc}  # fmt: skip


def _measures(found: dict[str, Measure]) -> dict[str, object]:
    return {key: measure(each) for key, each in found.items()}


def _sets(found: Sets) -> dict[str, object]:
    return {
        "scans": found.scans,
        "coverage": measure(found.coverage),
        "coverage_by_group": _measures(found.by_group),
        "sets": found.counts,
        "undecided": found.undecided,
    }


def _recipes(contest: Contest) -> pd.DataFrame:
    rows = []
    for row in contest.rows:
        cells: dict[str, object] = {"recipe": row.name}
        for key, each in (*((key, row.measures.get(key)) for key in MEASURES), ("auc_difference", row.difference)):
            for end in ("value", "low", "high"):
                cells[key if end == "value" else f"{key}_{end}"] = getattr(each, end) if each else np.nan
        rows.append(cells)  # CPU seconds stand on the page only: equal seeds give equal tables
    return pd.DataFrame(rows)


def _scans(found: Recommended, contest: Contest, cohort: Cohort, prevalence: float | None) -> pd.DataFrame:
    own = contest.out_of_fold[contest.rows[0].name]
    chance = own.probability
    if prevalence is not None:  # those out of fold are at the prevalence of their training part, nearly the cohort's
        chance = moved(chance, found.calibration.prevalence, prevalence)
    words = {(True, False): cohort.levels[0], (False, True): cohort.levels[1], (True, True): "both"}
    sets = np.zeros((len(cohort.scans), 2), bool) if own.sets is None else own.sets[0]
    return pd.DataFrame({
        "scan": cohort.names,
        "participant_id": cohort.participants,
        "session_id": [scan.session for scan in cohort.scans],
        "group": np.where(cohort.positive, *cohort.levels),
        "decision_value": own.decisions.mean(axis=0),
        "probability": chance.mean(axis=0),
        "conformal_set": [words.get((bool(a), bool(b)), "none") for a, b in sets],
    })  # fmt: skip
