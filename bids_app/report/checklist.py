"""Reporting checklists, as far as the software can fill them in: TRIPOD+AI and CLAIM 2024.

Items have the numbers of the publications and our own short words (``templates/checklist.tsv``). What the software
knows is answered with the place where it stands; the rest is the author's, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bids_app.bids.names import group_output
from bids_app.files import tsv
from bids_app.report import assets
from bids_app.report.page import DISCLAIMER, environment

GUIDES = {
    "TRIPOD+AI": "Collins GS et al. TRIPOD+AI statement. BMJ 2024;385:e078378. doi:10.1136/bmj-2023-078378",
    "CLAIM 2024": "Tejani AS et al. Checklist for AI in Medical Imaging (CLAIM): 2024 update. Radiol Artif Intell "
    "2024;6(4):e240300. doi:10.1148/ryai.240300",
}
ANSWERED, PARTLY, TODO = "answered", "partly", "TODO"
METRICS = group_output("metrics")


def items() -> pd.DataFrame:
    """Return all items as ``templates/checklist.tsv`` has them.

    ``answer`` is what the software tells, ``author`` what only the author can; either may be missing. ``places`` are,
    parted by blanks, files, keys of metrics.json (after ``#``, with dots) and sections of group.html (after ``#``).
    """
    return tsv.parse(assets.text("checklist.tsv"))


def files() -> list[str]:
    """Return the places that are files, folders or sections of group.html, relative to the output directory."""
    places = {place for cell in items()["places"].dropna() for place in cell.split()}
    return sorted(place for place in places if not place.startswith(f"{METRICS}#"))


def table(metrics: Mapping[str, Any], there: Sequence[str]) -> pd.DataFrame:
    """Return the checklists: guideline, item, topic, status, answer, where, for_the_author.

    Parameters
    ----------
    metrics : mapping
        Content of metrics.json: only keys that hold something are places.
    there : sequence of str
        Which of `files` exist; only these are places.
    """
    rows = []
    for item in items().fillna("").to_dict("records"):
        where = [place for place in item["places"].split() if _is_there(place, metrics, there)]
        answered = bool(item["answer"] and where)
        rows.append({
            "guideline": item["guideline"], "item": item["item"], "topic": item["topic"],
            "status": TODO if not answered else PARTLY if item["author"] else ANSWERED,
            "answer": item["answer"] if answered else None, "where": "; ".join(where) if answered else None,
            "for_the_author": item["author"] or (None if answered else "not part of this run"),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _is_there(place: str, metrics: Mapping[str, Any], there: Sequence[str]) -> bool:
    name, _, key = place.partition("#")
    if name != METRICS:
        return place in there
    value: Any = metrics
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value is not None and (value != {} or key == "left_out")


def page(checklist: pd.DataFrame, version: str) -> str:
    """Return ``checklist.html`` of what `table` returned."""
    shown = checklist.fillna("")
    counts = checklist["status"].value_counts()
    guides = [
        {"name": name, "source": source, "rows": shown[shown["guideline"] == name].to_dict("records")}
        for name, source in GUIDES.items()
    ]
    return environment().get_template("checklist.html.j2").render(
        guides=guides,
        counts=[(status, int(counts.get(status, 0))) for status in (ANSWERED, PARTLY, TODO)],
        disclaimer=DISCLAIMER,
        version=version,
        script="",
    )  # fmt: skip
