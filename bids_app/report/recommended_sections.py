"""The report's section on the recommended recipe and on recipe against recipe: records in, rows of words out."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Any

from bids_app.bids.names import model_folder
from bids_app.records.cohort import Measure
from bids_app.records.fitted import Recommended
from bids_app.records.recommended import Contest, Permutation, Row
from bids_app.report import further_sections
from bids_app.report.group_sections import num, percent, signed, span

COLUMNS = (
    *("Recipe", "AUC", "AUC by participant", "Accuracy", "Sensitivity", "Specificity", "Brier score"),
    *("AUC minus that of leakage-free", "CPU s"),
)
THRESHOLDS = {
    "zero": "decision value 0: both groups weigh the same",
    "half": "probability one half",
    "equal": "sensitivity and specificity nearest to each other",
    "sensitivity": "sensitivity asked for",
}
MEANING = {  # rows that need a word
    "published": "the best voxel count on its own test set; without out-of-fold values to make probabilities of it has "
    "no Brier score",
    "leakage-free": "the published classifier, everything chosen inside the training part",
    "lesion volume": "logistic regression on the log of the lesion volume",
    "recommended, belief": "the recommended recipe on belief above the norm of its place instead of lesions",
    "leakage-free, belief": "the leakage-free recipe on the same, voxels ranked by Welch's t test",
    "recommended, covariates": "lesions and covariates ({covariates}), the covariates' weight chosen, also none",
    "covariates alone": "logistic regression on the covariates ({covariates}): no map at all",
    "site alone": "logistic regression on the site ({site_column}): how far the site alone tells the group",
    "recommended, all phases": "trained on scans of all phases, tested on the same acute ones as the others",
    "recommended, one site left out": "tested on each site after training on the others; AUC within sites",
    "linear-svm": "support vector machine with a linear kernel on all voxels",
    "l1-logistic": "logistic regression on all voxels with an L1 penalty",
    "random-forest": "random forest on regional lesion loads",
    "gradient-boosting": "gradient boosting on regional lesion loads",
    "cnn": "small 3D convolutional network on {maps}, its number of epochs chosen",
}
ALWAYS_STORED = ("recommended", "leakage-free", "published")
WITHOUT = {  # rows whose model is not stored, and why
    "site alone": "tells what the site gives away, and is no classifier",
    "recommended, all phases": "is the recommended one of a run without --max-days-since-relapse",
    "recommended, one site left out": "is a model for each site; on all sites it is the recommended one",
}
SCANS = {"with_lesions": "with lesions", "lesion_free": "without lesions"}


def section(found: Recommended, levels: tuple[str, str], asked: dict[str, Any]) -> dict[str, object]:
    """Return what the template shows; ``contest`` is False where no nested cross-validation was asked for."""
    by, contest = found.calibration, found.contest
    about: dict[str, object] = {
        "contest": contest is not None,
        "lesion_map": found.purpose.lesion_map,
        "own_norm": found.purpose.norm is not None,
        "participants_prevalence": percent(by.prevalence),
        "prevalence": percent(asked.get("prevalence") or by.prevalence),
        "given": asked.get("prevalence") is not None,
        "coverage": percent(asked.get("coverage")),
        "chosen": [
            [f"{each.kind.fwhm:g}", "yes" if each.kind.folded else "no", f"{each.volume_weight:g}", f"{each.C:g}",
             num(each.auc)]
            for each in found.model.settings
        ],
    }  # fmt: skip
    about["further"] = further_sections.section(found.further, levels)
    if contest is None:
        return about
    score, stored = contest.told.brier, (*ALWAYS_STORED, *found.kept)
    return about | {
        "columns": COLUMNS,
        "rows": [_row(row) for row in contest.rows],
        "meaning": _meaning(contest, asked),
        "winner": contest.winner,
        "models": [(row.name, model_folder(row.name)) for row in contest.rows if row.name in stored],
        "without": [(row.name, WITHOUT[row.name]) for row in contest.rows if row.name not in stored],
        "stored": _best(contest, stored),
        "verdict": _verdict(contest),
        "nested_folds": contest.nested_folds,
        "repeats": contest.repeats,
        "brier": [num(each) for each in (score.value, score.uncertainty, score.skill, score.reliability,
                                         score.resolution, score.within)],
        "thresholds": [_threshold(name, found, each) for name, each in contest.told.thresholds.items()],
        "sets": _sets(contest),
        "lesion_free": _lesion_free(contest, levels),
        "permutation": _permutation(found.permutation),
    }  # fmt: skip


Cell = str | tuple[str, str]  # a word, or a value and its interval


def _cell(measure: Measure | None, style: Any) -> Cell:
    return (
        "–"
        if measure is None or math.isnan(measure.value)
        else (style(measure.value), span([measure.low, measure.high], style))
    )


def _row(row: Row) -> list[Cell]:
    styles = {"auc": num, "auc_participants": num, "accuracy": percent, "sensitivity": percent,
              "specificity": percent, "brier": num}  # fmt: skip
    gap = row.difference
    paired: Cell = "–" if gap is None else (signed(gap.value, 1), span([gap.low, gap.high], num))
    own = f"{row.name}, its own way and division" if row.name == "published" else row.name
    cells = [_cell(row.measures.get(key), style) for key, style in styles.items()]
    return [own, *cells, paired, f"{row.cpu_seconds:.1f}"]


def _meaning(contest: Contest, asked: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what rows are that do not tell by their name."""
    words = {"covariates": ", ".join(asked.get("covariates") or ()), "site_column": str(asked.get("site_column"))}
    words["maps"] = "lesion and belief maps" if asked.get("features") == "belief" else "lesion maps"
    return [
        (row.name, re.sub(r"{(\w+)}", lambda found: words[found[1]], MEANING[row.name]))
        for row in contest.rows
        if row.name in MEANING
    ]


def _best(contest: Contest, stored: Collection[str]) -> tuple[str, str]:
    """Return the recipe of the highest AUC among those on shared folds with a model to predict with, and its folder."""
    areas = {name: contest.row(name).measures["auc"].value for name in contest.out_of_fold if name in stored}
    name = max(areas, key=lambda each: areas[each])
    return name, model_folder(name)


def _verdict(contest: Contest) -> str:
    """Say which recipe won, and whether its lead is more than chance."""
    if contest.winner == contest.reference:
        return f"No recipe has a higher AUC than {contest.reference}."
    gap = contest.row(contest.winner).difference
    size = f" ({signed(gap.value, 1)}, {span([gap.low, gap.high], num)})" if gap else ""
    if contest.shown:
        return f"The highest AUC is that of {contest.winner}, above {contest.reference}{size}."
    return (
        f"The highest AUC is that of {contest.winner}, but no difference to {contest.reference} is shown{size}: "
        "the interval holds zero."
    )


def _permutation(found: Permutation | None) -> str:
    """Say what the permutation test of the recommended recipe found."""
    if found is None:
        return ""
    return (
        f"{len(found.values)} permutations of the recommended recipe's labels, by participant inside the folds of the "
        f"first repeat, against its AUC of {num(found.observed)} there: p = {num(found.p)}."
    )


def _threshold(name: str, found: Recommended, measures: dict[str, Measure]) -> list[Cell]:
    cut = found.thresholds.get(name, 0.0)
    shares = [_cell(measures[key], percent) for key in ("sensitivity", "specificity", "accuracy")]
    return [THRESHOLDS[name], num(cut).replace("-", "−"), *shares]


def _sets(contest: Contest) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for name, each in contest.told.sets.items():
        covered = [_cell(each.coverage, percent)] + [_cell(each.by_group[key], percent) for key in each.by_group]
        rows.append(
            [
                SCANS[name],
                str(each.scans),
                *covered,
                *(percent(each.counts[key]) if each.scans else "–" for key in each.counts),
            ]
        )
    return rows


def _lesion_free(contest: Contest, levels: tuple[str, str]) -> list[list[str]]:
    n = contest.told.lesion_free
    return [
        [levels[0], f"{n['positive']:.0f}", f"{n['tp']:.1f}", f"{n['fn']:.1f}"],
        [levels[1], f"{n['negative']:.0f}", f"{n['fp']:.1f}", f"{n['tn']:.1f}"],
    ]
