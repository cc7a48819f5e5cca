"""Numbers of the group level: metrics.json, the tables and the facts that the method text and figures tell."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from bids_app.files.formats import plain
from bids_app.learning import measures
from bids_app.learning.protocols import COARSE_FOLDS
from bids_app.options import PUBLISHED_THRESHOLD
from bids_app.records.cohort import Cell, Cohort, Measure, Performance
from bids_app.records.recommended import Permutation
from bids_app.records.results import Agreement, Evaluation, GroupResult, Nested, RaterTable
from bids_app.report import recommended_numbers

MEASURES = ("auc", "accuracy", "sensitivity", "specificity")
PUBLISHED = {"mean": 0.0261, "sd": 0.1199, "value": PUBLISHED_THRESHOLD, "mean_plus_2.54_sd": 0.0261 + 2.54 * 0.1199}
FEW = 20  # participants of a group under which the numbers mean little


# -- metrics.json --------------------------------------------------------------------------------


def metrics(result: GroupResult) -> dict[str, object]:
    """Return every number of the report, JSON-safe (undefined numbers are None).

    ``[evaluation]["test" | "train" | "nested"][measure]`` holds ``value``, ``interval`` and ``method``: for
    ``published`` the interval over scans (Wilson, DeLong), for ``leakage-free`` that of the bootstrap over
    participants. ``interval_scans`` and ``interval_participants`` give both wherever both exist; there is no
    bootstrap of the training set.
    """
    cohort = result.cohort
    found: dict[str, object] = {
        "cohort": cohort_counts(cohort),
        "optimism": optimism(result),
        "published_threshold": PUBLISHED,
    }
    for name, evaluation in result.evaluations.items():
        found[name] = _evaluation(result, name, evaluation)
    found["permutation"] = _permutation(result.permutation)
    found["left_out"] = [{"name": name, "reason": reason} for name, reason in result.notes.left_out]
    found["flagged"] = [{"name": name, "flags": reason} for name, reason in result.notes.flagged]
    found["warnings"] = list(result.notes.warnings)
    found["parameters"] = result.provenance.parameters
    found["software"] = result.provenance.software
    found |= recommended_numbers.metrics(result.recommended, result.cohort.positive, result.provenance.parameters)
    safe: dict[str, object] = plain(found)
    return safe


def optimism(result: GroupResult) -> dict[str, float]:
    """Return how much the published evaluation exceeds the leakage-free one, by measure, if there are both."""
    if not {"published", "leakage-free"} <= set(result.evaluations):
        return {}
    first, honest = (result.evaluations[name].performance for name in ("published", "leakage-free"))
    return {key: measures.optimism(getattr(first, key), getattr(honest, key)) for key in MEASURES}


def _permutation(found: Permutation | None) -> dict[str, object]:
    if found is None:
        return {}
    return {"statistic": found.statistic, "observed": found.observed, "n": len(found.values), "p": found.p,
            "values": found.values}  # fmt: skip


def cohort_counts(cohort: Cohort) -> dict[str, object]:
    """Return how many scans, participants and lesion-free scans there are, in all and of each group."""
    parts: dict[str, object] = {
        "scans": len(cohort.scans),
        "participants": len(np.unique(cohort.participants)),
        "voxels": cohort.lesions.shape[1],
        "lesion_free_scans": int((~cohort.lesions.any(axis=1)).sum()),
    }
    for key, level, rows in zip(
        ("positive", "negative"), cohort.levels, (cohort.positive, ~cohort.positive), strict=True
    ):
        people = len(np.unique(cohort.participants[rows]))
        parts[key] = {"level": level, "scans": int(rows.sum()), "participants": people}
    return parts


def _evaluation(result: GroupResult, name: str, evaluation: Evaluation) -> dict[str, object]:
    chosen = evaluation.selection.cell
    train, test = (curve[evaluation.selection.chosen] for curve in (evaluation.train.curve, evaluation.test.curve))
    found: dict[str, object] = {
        "division": division_counts(result.cohort, evaluation),
        "chosen": {**_cell(chosen), "tied_at_cut": evaluation.selection.ties.get(chosen.n_voxels)},
        "test": _performance(test, evaluation.test.bootstrap, name),
        "train": _performance(train, {}, name),
        "baselines": {key: _performance(each, {}, name) for key, each in evaluation.test.baselines.items()},
        "lesion_free": evaluation.test.lesion_free,
        "near_zero_test_scans": evaluation.test.near_zero,
        "curves": [_point(evaluation, i, name) for i in range(len(evaluation.selection.cells))],
    }
    found["threshold"] = vars(evaluation.maps.threshold)
    if evaluation.maps.norm is not None:
        found["norm_participants"] = evaluation.maps.norm.people
    if name in result.nested:
        nested: Nested = result.nested[name]
        found["nested"] = {
            **_performance(nested.performance, nested.bootstrap, name),
            "auc_pooled_over_folds": _measure(nested.pooled_auc, None, name),
            "folds": [_cell(cell) for cell in nested.cells],
        }
    if name in result.raters:
        found["raters"] = _raters(result.raters[name])
    return found


def division_counts(cohort: Cohort, evaluation: Evaluation) -> dict[str, object]:
    """Return the unit of division, and scans and participants of each set."""
    found: dict[str, object] = {"unit": evaluation.division.unit}
    people = {}
    for part, rows in (("train", evaluation.division.train), ("test", evaluation.division.test)):
        people[part] = set(cohort.participants[rows])
        found[f"{part}_scans"] = len(rows)
        found[f"{part}_scans_positive"] = int(cohort.positive[rows].sum())
        found[f"{part}_participants"] = len(people[part])
    found["participants_in_both"] = len(people["train"] & people["test"])
    return found


def _point(evaluation: Evaluation, i: int, name: str) -> dict[str, object]:
    cell = evaluation.selection.cells[i]
    sets = {"train": evaluation.train.curve[i], "test": evaluation.test.curve[i]}
    parts = {key: _performance(each, {}, name) for key, each in sets.items()}
    return {**_cell(cell), "tied_at_cut": evaluation.selection.ties.get(cell.n_voxels), **parts}


def _cell(cell: Cell) -> dict[str, object]:
    return {"n_voxels": cell.n_voxels, "C": cell.C, "gamma": cell.gamma, "cv_accuracy": cell.accuracy}


def _performance(found: Performance, bootstrap: Mapping[str, Measure], name: str) -> dict[str, object]:
    parts: dict[str, object] = {}
    for key in MEASURES:
        over_scans: Measure | None = getattr(found, key)
        if over_scans is not None:
            parts[key] = _measure(over_scans, bootstrap.get(key), name)
    parts["confusion"] = {key: getattr(found, key) for key in ("tp", "fn", "tn", "fp")}
    return parts


def _measure(over_scans: Measure, over_participants: Measure | None, name: str) -> dict[str, object]:
    first = over_scans if over_participants is None or name == "published" else over_participants
    found: dict[str, object] = {
        "value": over_scans.value,
        "interval": [first.low, first.high],
        "method": first.method,
        "interval_scans": [over_scans.low, over_scans.high],
        "method_scans": over_scans.method,
    }
    if over_participants is not None:
        found["interval_participants"] = [over_participants.low, over_participants.high]
        found["method_participants"] = over_participants.method
    return found


def _raters(raters: RaterTable) -> dict[str, object]:
    found: dict[str, object] = {
        "performance": {key: _performance(each, {}, "published") for key, each in raters.performance.items()}
    }
    for key in ("intra", "inter", "svm"):
        found[key] = [_agreement(each) for each in getattr(raters, key)]
    return found


def _agreement(agreement: Agreement) -> dict[str, object]:
    found: dict[str, object] = {
        "first": agreement.first,
        "second": agreement.second,
        "n": agreement.n,
        "kappa": _measure(agreement.kappa, None, "published"),
        "strength": agreement.strength,
    }
    if agreement.mcnemar is not None:
        found["mcnemar"] = vars(agreement.mcnemar)
    return found


# -- tables --------------------------------------------------------------------------------------


def tables(result: GroupResult) -> dict[str, pd.DataFrame]:
    """Return the tables of the report by name, one row an observation.

    ``sweep``, ``grid``, ``predictions``, ``voxel_ties``, and where there are such: ``table1``, ``table_s1`` (as in
    ``result.tables``), ``recipes`` and ``recommended`` (recipe against recipe), and ``table2`` (raters).
    """
    found = {
        "sweep": pd.concat([_sweep(each) for each in result.evaluations.values()], ignore_index=True),
        "grid": pd.concat([_grid(each) for each in result.evaluations.values()], ignore_index=True),
        "predictions": pd.concat([_predictions(result, each) for each in result.evaluations], ignore_index=True),
        "voxel_ties": pd.DataFrame(
            [(e.name, n, tied) for e in result.evaluations.values() for n, tied in sorted(e.selection.ties.items())],
            columns=["evaluation", "n", "tied"],
        ),
        **result.tables,
    }
    found |= recommended_numbers.tables(result.recommended, result.cohort, result.provenance.parameters)
    if result.raters:
        found["table2"] = pd.concat([_table2(name, each) for name, each in result.raters.items()], ignore_index=True)
    return found


def _sweep(evaluation: Evaluation) -> pd.DataFrame:
    rows = []
    for i, cell in enumerate(evaluation.selection.cells):
        row: dict[str, object] = {"evaluation": evaluation.name, "n": cell.n_voxels, "C": cell.C, "gamma": cell.gamma}
        row |= {"cv_accuracy": cell.accuracy, "chosen": int(i == evaluation.selection.chosen)}
        for part, curve in (("train", evaluation.train.curve), ("test", evaluation.test.curve)):
            for key in MEASURES:
                measure: Measure | None = getattr(curve[i], key)
                for end in ("value", "low", "high"):
                    name = f"{part}_{key}" if end == "value" else f"{part}_{key}_{end}"
                    row[name] = getattr(measure, end) if measure else np.nan
            row |= {f"{part}_{key}": getattr(curve[i], key) for key in ("tp", "fn", "tn", "fp")}
        rows.append(row)
    return pd.DataFrame(rows)


def _grid(evaluation: Evaluation) -> pd.DataFrame:
    found = evaluation.selection.sweep
    accuracy = (found.correct / found.fold_sizes).mean(axis=-1)
    axes = np.meshgrid(found.counts, found.grid.C, found.grid.gamma, indexing="ij")
    columns = {key: axis.ravel() for key, axis in zip(("n", "C", "gamma"), axes, strict=True)}
    return pd.DataFrame({"evaluation": evaluation.name, **columns, "accuracy": accuracy.ravel()})


def _predictions(result: GroupResult, name: str) -> pd.DataFrame:
    cohort, evaluation = result.cohort, result.evaluations[name]
    decisions = np.full(len(cohort.scans), np.nan)
    part = np.full(len(cohort.scans), "", dtype=object)
    for label, rows, values in (
        ("training", evaluation.division.train, evaluation.train.decisions),
        ("test", evaluation.division.test, evaluation.test.decisions),
    ):
        decisions[rows], part[rows] = values, label
    nested = result.nested.get(name)
    groups, called = (np.where(each, *cohort.levels) for each in (cohort.positive, decisions >= 0))
    table = pd.DataFrame({
        "scan": cohort.names,
        "participant_id": cohort.participants,
        "session_id": [scan.session for scan in cohort.scans],
        "group": groups,
        "evaluation": name,
        "set": part,
        "decision_value": decisions,
        "called": called,
        "correct": (groups == called).astype(int),
        "nested_decision_value": nested.decisions if nested else np.nan,
        "nested_fold": nested.fold + 1 if nested else np.nan,
    })  # fmt: skip
    return table[table["set"] != ""]  # a division may leave scans out


def _table2(name: str, raters: RaterTable) -> pd.DataFrame:
    rows: list[tuple[object, ...]] = []
    for who, found in raters.performance.items():
        for key in ("sensitivity", "specificity", "accuracy"):
            measure: Measure = getattr(found, key)
            n = found.tp + found.fn + found.tn + found.fp
            rows.append((name, "performance", who, "", n, key, measure.value, measure.low, measure.high, "", np.nan))
    for part in ("intra", "inter", "svm"):
        for each in getattr(raters, part):
            kappa, p = each.kappa, each.mcnemar.p if each.mcnemar else np.nan
            rows.append((name, part, each.first, each.second, each.n, "kappa", kappa.value, kappa.low, kappa.high,
                         each.strength, p))  # fmt: skip
    columns = ["evaluation", "part", "first", "second", "n", "measure", "value", "low", "high", "strength", "mcnemar_p"]
    return pd.DataFrame(rows, columns=columns)


# -- facts ---------------------------------------------------------------------------------------


def facts(result: GroupResult) -> dict[str, object]:
    """Return what the method text, the workflow figure and the model card tell, as plain values."""
    some = next(iter(result.evaluations.values()))
    counts = cohort_counts(result.cohort)
    smallest = min(len(np.unique(result.cohort.participants[rows])) for rows in
                   (result.cohort.positive, ~result.cohort.positive))  # fmt: skip
    return {
        "levels": result.cohort.levels,
        "cohort": counts,
        "small": smallest < FEW,
        "smallest": smallest,
        "few": FEW,
        "C": some.selection.sweep.grid.C,
        "gamma": some.selection.sweep.grid.gamma,
        "evaluations": {name: _facts(result, each) for name, each in result.evaluations.items()},
        "nested": {
            name: {"folds": len(each.cells), "auc": each.performance.auc.value if each.performance.auc else np.nan}
            for name, each in result.nested.items()
        },
        "bootstrap": next((m.method for e in result.evaluations.values() for m in e.test.bootstrap.values()), ""),
        "optimism": optimism(result),
        "permutation": _permutation(result.permutation),
        "coarse_folds": COARSE_FOLDS,
        "raters": sorted({who for each in result.raters.values() for who in each.performance} - {"SVM"}),
        "parameters": dict(result.provenance.parameters),
        "software": dict(result.provenance.software),
        "left_out": len(result.notes.left_out),
        "recommended": recommended_numbers.facts(result.recommended, result.provenance.parameters),
    }


def _facts(result: GroupResult, evaluation: Evaluation) -> dict[str, object]:
    test = evaluation.performance
    return {
        **division_counts(result.cohort, evaluation),
        **_cell(evaluation.selection.cell),
        "folds": len(evaluation.selection.sweep.fold_sizes),
        "counts": [int(n) for n in evaluation.selection.sweep.counts],
        "auc": test.auc.value if test.auc else float("nan"),
        "threshold": evaluation.maps.threshold,
        "norm_participants": evaluation.maps.norm.people if evaluation.maps.norm else None,
    }
