"""The report's words on what stands beside the recipes: acute phase, sites, more than two groups."""

from __future__ import annotations

from bids_app.records.cohort import Measure
from bids_app.records.further import Acute, Confounding, Further, Several
from bids_app.report.group_sections import num, percent, span

PARTS = {
    "stays": "at most {days:g} days: these are the cohort of this report",
    "later": "more than {days:g} days: left out",
    "unknown": "not known, or before the relapse: left out",
}
Cell = str | tuple[str, str]


def section(found: Further, levels: tuple[str, str]) -> dict[str, object]:
    """Return what the template shows of each; None where it was not asked for."""
    return {
        "acute": _acute(found.acute, levels) if found.acute else None,
        "confounding": _confounding(found.confounding) if found.confounding else None,
        "several": several(found.several) if found.several else None,
    }


def _acute(found: Acute, levels: tuple[str, str]) -> dict[str, object]:
    rows = [
        [words.format(days=found.days), *(f"{n:,} of {people:,}" for n, people in (of[level] for level in levels))]
        for part, words in PARTS.items()
        for of in [found.counts[part]]
    ]
    columns = ["Days since the latest relapse", *(f"{level}, scans of participants" for level in levels)]
    return {"column": found.column, "columns": columns, "rows": rows}


def _confounding(found: Confounding) -> dict[str, object]:
    rows: list[list[Cell]] = [[site, str(a), str(b), _cell(area)] for site, (a, b, area) in found.by_site.items()]
    return {"column": found.column, "rows": rows, "maps": several(found.maps_tell)}


def several(found: Several) -> dict[str, object]:
    """Return the rows of groups told apart, one against the rest, and their confusion matrix."""
    n = len(found.names)
    rows: list[list[Cell]] = [
        [name, str(scans), str(people), _cell(found.auc[name])]
        for name, scans, people in zip(found.names, found.scans, found.participants, strict=True)
    ]
    rows.append(["mean of all", str(sum(found.scans)), str(sum(found.participants)), _cell(found.macro_auc)])
    confusion = [
        [name, *(f"{value:.1f}" for value in row)] for name, row in zip(found.names, found.confusion, strict=True)
    ]
    measure = found.balanced_accuracy
    return {
        "rows": rows,
        "called": ["Scans of", *(f"called {name}" for name in found.names)],
        "confusion": confusion,
        "balanced": f"{percent(measure.value)} ({span([measure.low, measure.high], percent)})",
        "chance": percent(1 / n),
    }


def _cell(found: Measure) -> Cell:
    return num(found.value), span([found.low, found.high], num)
