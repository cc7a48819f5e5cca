"""Sections of the group report: records in, rows of words out; the page only lays them out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bids_app.learning.measures import wilson
from bids_app.records.cohort import Measure, Performance
from bids_app.records.results import Agreement, Evaluation, GroupResult
from bids_app.report.group_numbers import MEASURES, PUBLISHED

# as printed in the publication: correct test scans of all, and the AUC, which has no interval there
PRINTED = {"accuracy": (200, 316), "sensitivity": (131, 228), "specificity": (69, 88)}
PRINTED_AUC = 0.753
PERMUTATION = {"n": "permutations", "values": "with permuted labels", "observed": "with the true labels"}
TITLES = {
    "table1": ("Table 1. The groups compared", "Characteristics that are the same in all scans of a participant are "
               "compared by participant, the others by scan. Mean ± SD and Student's t test, or n (%) and Pearson's "
               "chi-square test without correction."),
    "table_s1": ("Table S1. Training set against test set, published division", "By scan; tests as in Table 1."),
}  # fmt: skip
SUPPLEMENT = ("table_s1",)  # shown last


# -- words ---------------------------------------------------------------------------------------


def num(value: float | None) -> str:
    """Write a number with three decimals, ``undefined`` for nan."""
    return "undefined" if value is None or not np.isfinite(value) else f"{value:.3f}"


def percent(value: float | None) -> str:
    """Write a share as percent with one decimal, ``undefined`` for nan."""
    return "undefined" if value is None or not np.isfinite(value) else f"{100 * value:.1f} %"


def span(ends: Sequence[float | None], style: Callable[[float | None], str]) -> str:
    """Write an interval in the style of its number."""
    low, high = ends
    if low is None or high is None or not np.isfinite([low, high]).all():
        return "undefined"
    between = " to " if low < 0 else "–"  # a dash beside a minus sign is hard to read
    return f"{style(low)}{between}{style(high)}".replace(f" %{between}", between).replace("-", "−")


def signed(value: float | None, times: int) -> str:
    """Write a difference with its sign; ``times`` 100 writes percentage points."""
    if value is None or not np.isfinite(value):
        return "undefined"
    return (f"{value:+.3f}" if times == 1 else f"{times * value:+.1f} points").replace("-", "−")


def _p(value: float) -> str:
    if not np.isfinite(value):
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def cell_text(value: object, column: str = "") -> str:
    """Write a cell of a table: p values by their rule, numbers with four digits, nothing for what is missing."""
    if column in ("p", "mcnemar_p") and isinstance(value, float):
        return _p(value)
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return ""
    return f"{value:.4g}".replace("-", "−") if isinstance(value, float) else str(value)


def _rows(table: pd.DataFrame) -> list[list[str]]:
    names = [str(name) for name in table.columns]
    return [[cell_text(v, n) for v, n in zip(row, names, strict=True)] for row in table.itertuples(index=False)]


# -- parts of the page ---------------------------------------------------------------------------


def summary(found: Mapping[str, Any], result: GroupResult) -> list[dict[str, object]]:
    """Return the rows of the summary: evaluations, nested cross-validations, the publication."""
    rows: list[dict[str, object]] = []
    for name in result.evaluations:
        part = found[name]
        division = part["division"]
        tested = f"{division['test_scans']} scans of {division['test_participants']} participants"
        if division["participants_in_both"]:
            tested += f", {division['participants_in_both']} of them also in training"
        voxels = f"{part['chosen']['n_voxels']:,}"
        rows.append({"name": name, "tested": tested, "voxels": voxels, **_four(part["test"])})
    for name, nested in result.nested.items():
        part = found[name]["nested"]
        counts = [cell.n_voxels for cell in nested.cells]
        voxels = f"{min(counts):,} to {max(counts):,}" if len(set(counts)) > 1 else f"{counts[0]:,}"
        tested = f"all {found['cohort']['scans']} scans, each once, {len(counts)} outer folds"
        tested += "; AUC of scans of the same fold"
        rows.append({"name": f"{name}, nested cross-validation", "tested": tested, "voxels": voxels, **_four(part)})
    printed: dict[str, object] = {"auc": {"value": PRINTED_AUC, "interval_scans": None}}
    for key, (correct, total) in PRINTED.items():
        measure = wilson(correct, total)
        printed[key] = {"value": measure.value, "interval_scans": [measure.low, measure.high]}
    tested = "316 scans, divided by scan"
    return [row | {"quiet": False} for row in rows] + [
        {"name": "printed in the publication", "tested": tested, "voxels": "27", "quiet": True, **printed}
    ]


def _four(part: Mapping[str, Any]) -> dict[str, object]:
    return {key: part.get(key) for key in MEASURES}


def thresholds(result: GroupResult) -> list[list[str]]:
    """Return the rows of the threshold box, the publication's own numbers last."""
    rows = []
    for name, evaluation in result.evaluations.items():
        each = evaluation.maps.threshold
        known = each.mean is not None and each.sd is not None
        numbers = [f"{each.mean:.4f}", f"{each.sd:.4f}", f"{each.mean + 2.54 * each.sd:.4f}"] if known else ["–"] * 3  # type: ignore[operator]
        rows.append([name, f"{each.value:.4f}", each.origin, str(each.n_scans or "–"), *numbers])
    printed = [f"{PUBLISHED[key]:.4f}" for key in ("mean", "sd", "mean_plus_2.54_sd")]
    return [*rows, ["printed in the publication", f"{PUBLISHED['value']}", "training", "722", *printed]]


def baselines(result: GroupResult) -> list[list[str]]:
    """Return the classifier and the baselines on each test set."""
    rows = []
    for name, evaluation in result.evaluations.items():
        for key, each in (("classifier", evaluation.performance), *evaluation.test.baselines.items()):
            area = num(each.auc.value) if each.auc else "–"
            shares = [percent(m.value) for m in (each.accuracy, each.sensitivity, each.specificity)]
            rows.append([name, key.replace("_", " "), area, *shares])
    return rows


def calls(result: GroupResult, lesion_free: bool) -> list[list[object]]:
    """Return how scans of each group were called: the lesion-free test scans, or all of them."""
    rows: list[list[object]] = []
    for name, evaluation in result.evaluations.items():
        test = evaluation.performance
        n = (
            evaluation.test.lesion_free
            if lesion_free
            else {key: getattr(test, key) for key in ("tp", "fn", "tn", "fp")}
        )
        more = [] if lesion_free else [evaluation.test.near_zero]
        rows.append([name, result.cohort.levels[0], n["tp"] + n["fn"], n["tp"], n["fn"], *more])
        rows.append([name, result.cohort.levels[1], n["tn"] + n["fp"], n["fp"], n["tn"], *([""] if more else [])])
    return rows


def shown_tables(result: GroupResult) -> list[dict[str, object]]:
    """Return Tables 1, 2 and S1 with title, note, columns and rows."""
    shown: list[dict[str, object]] = []
    last: list[dict[str, object]] = []
    for key, table in result.tables.items():
        title, note = TITLES.get(key, (key, ""))
        about: dict[str, object] = {
            "title": title,
            "note": note,
            "columns": list(map(str, table.columns)),
            "rows": _rows(table),
        }
        (last if key in SUPPLEMENT else shown).append(about)
    for name, raters in result.raters.items():
        rows = [_rater(who, each) for who, each in raters.performance.items()]
        columns = ["Reader", "Scans", "Sensitivity", "Specificity", "Accuracy"]
        title = f"Table 2. Classifier and human raters, {name} test set"
        shown.append({"title": title, "note": "Wilson's 95 % intervals over scans.", "columns": columns, "rows": rows})
        agreements = [("within a rater, first and second read", raters.intra), ("between raters", raters.inter),
                      ("rater and classifier", raters.svm)]  # fmt: skip
        rows = [_agreement(words, each) for words, part in agreements for each in part]
        columns = ["Agreement", "", "Scans", "Cohen's kappa", "Strength", "McNemar p"]
        note = "Below 0.2 slight, to 0.4 fair, to 0.6 moderate, to 0.8 substantial, above almost perfect."
        shown.append({"title": f"Table 2, agreement, {name}", "note": note, "columns": columns, "rows": rows})
    return shown + last


def _with_span(measure: Measure, style: Callable[[float | None], str]) -> str:
    return f"{style(measure.value)} ({span([*map(_finite, (measure.low, measure.high))], style)})"


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _rater(who: str, found: Performance) -> list[object]:
    shares = [_with_span(each, percent) for each in (found.sensitivity, found.specificity, found.accuracy)]
    return [who, found.tp + found.fn + found.tn + found.fp, *shares]


def _agreement(words: str, found: Agreement) -> list[object]:
    who = found.first if found.first == found.second else f"{found.first}, {found.second}"
    return [
        words,
        who,
        found.n,
        _with_span(found.kappa, num),
        found.strength,
        _p(found.mcnemar.p) if found.mcnemar else "",
    ]


def sweeps(evaluation: Evaluation) -> dict[str, object]:
    """Return the collapsed tables of an evaluation: every n, and the grid at the chosen one."""
    rows: list[list[object]] = []
    for i, cell in enumerate(evaluation.selection.cells):
        mark = " ✓" if i == evaluation.selection.chosen else ""
        row: list[object] = [f"{cell.n_voxels:,}{mark}", cell.C, cell.gamma, percent(cell.accuracy)]
        for curve in (evaluation.train.curve, evaluation.test.curve):
            each = curve[i]
            row += [num(each.auc.value) if each.auc else "–"]
            row += [percent(m.value) for m in (each.accuracy, each.sensitivity, each.specificity)]
        rows.append(row)
    words = ["AUC", "accuracy", "sensitivity", "specificity"]
    columns = ["n", "C", "gamma", "CV accuracy", *(f"{part} {w}" for part in ("training", "test") for w in words)]
    sweep = evaluation.selection.sweep
    accuracy = (sweep.correct[evaluation.selection.chosen] / sweep.fold_sizes).mean(axis=-1)
    grid = [[f"C = {c:g}", *map(percent, line)] for c, line in zip(sweep.grid.C, accuracy, strict=True)]
    return {"name": evaluation.name, "columns": columns, "rows": rows, "grid_rows": grid,
            "grid_columns": ["", *(f"gamma = {g:g}" for g in sweep.grid.gamma)]}  # fmt: skip


def ties(result: GroupResult) -> tuple[list[str], list[list[object]]]:
    """Return columns and rows of voxels tied at the cut: powers of two, all voxels and the chosen counts."""
    selections = [each.selection for each in result.evaluations.values()]
    chosen = {each.cell.n_voxels for each in selections}
    counts = {n for each in selections for n in each.ties if n.bit_count() == 1} | chosen
    counts |= {max(each.ties) for each in selections if each.ties}
    rows: list[list[object]] = []
    for n in sorted(counts):
        row: list[object] = [f"{n:,}"]
        for each in selections:
            mark = " ✓" if n == each.cell.n_voxels else ""
            row.append(f"{each.ties[n]:,}{mark}" if n in each.ties else "–")
        rows.append(row)
    return ["n", *result.evaluations], rows


def permutation(found: Mapping[str, object]) -> list[list[str]]:
    """Return the rows of the permutation test; a list of values becomes its length, median and highest."""
    rows = []
    for key, value in found.items():
        if isinstance(value, Iterable) and not isinstance(value, str):
            values = np.asarray(value, dtype=float)
            middle, most = (f(values) if values.size else np.nan for f in (np.median, np.max))
            rows.append([PERMUTATION.get(key, key), f"median {num(middle)}, highest {num(most)}"])
        else:
            rows.append([PERMUTATION.get(key, key), cell_text(value, key)])
    return rows
