"""Numbers of what stands beside the recipes: acute phase, sites, more than two groups."""

from __future__ import annotations

from typing import Any

from bids_app.records.cohort import Measure
from bids_app.records.further import Acute, Confounding, Further, Several


def metrics(found: Further, levels: tuple[str, str]) -> dict[str, object]:
    """Return the parts ``acute_phase``, ``confounding`` and ``several_groups`` of metrics.json, those there are."""
    parts: dict[str, object] = {}
    if found.acute:
        parts["acute_phase"] = _acute(found.acute)
    if found.confounding:
        parts["confounding"] = _confounding(found.confounding, levels)
    if found.several:
        parts["several_groups"] = _several(found.several)
    return parts


def facts(found: Further) -> dict[str, Any]:
    """Return what the method text tells of them."""
    return {
        "acute": {"days": found.acute.days, "column": found.acute.column} if found.acute else None,
        "site_column": found.confounding.column if found.confounding else None,
        "groups": list(found.several.names) if found.several else None,
    }


def measure(found: Measure, over_scans: Measure | None = None) -> dict[str, object]:
    """Return a measure with its interval over participants and, where it is given, over scans."""
    ends = [found.low, found.high]
    parts: dict[str, object] = {"value": found.value, "interval": ends, "method": found.method,
                                "interval_participants": ends, "method_participants": found.method}  # fmt: skip
    if over_scans is not None:
        parts |= {"interval_scans": [over_scans.low, over_scans.high], "method_scans": over_scans.method}
    return parts


def _acute(found: Acute) -> dict[str, object]:
    counts = {
        part: {level: {"scans": n, "participants": people} for level, (n, people) in of.items()}
        for part, of in found.counts.items()
    }
    return {"column": found.column, "max_days": found.days, "counts": counts}


def _confounding(found: Confounding, levels: tuple[str, str]) -> dict[str, object]:
    by_site = {
        site: {"scans": dict(zip(levels, (a, b), strict=True)), "auc": measure(area)}
        for site, (a, b, area) in found.by_site.items()
    }
    return {"site_column": found.column, "one_site_left_out": by_site, "maps_tell_the_site": _several(found.maps_tell)}


def _several(found: Several) -> dict[str, object]:
    return {
        "groups": list(found.names),
        "scans": dict(zip(found.names, found.scans, strict=True)),
        "participants": dict(zip(found.names, found.participants, strict=True)),
        "macro_auc": measure(found.macro_auc),
        "auc_against_the_rest": {name: measure(each) for name, each in found.auc.items()},
        "balanced_accuracy": measure(found.balanced_accuracy),
        "confusion": {
            name: dict(zip(found.names, map(float, row), strict=True))
            for name, row in zip(found.names, found.confusion, strict=True)
        },
        "nested_folds": found.nested_folds,
    }
