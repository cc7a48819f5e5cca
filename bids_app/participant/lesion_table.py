"""The table of all scans: volumes, counts and quality, a row a scan."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bids_app.bids.names import Scan, set_output
from bids_app.errors import BidsAppError
from bids_app.files import atomic, formats
from bids_app.lesions import kinds
from bids_app.participant import marks
from bids_app.records.scan import Outcome, Summary

log = logging.getLogger("bids_app")
TABLE = set_output("table")  # not in phenotype/: there BIDS allows one row a participant only


def _of_maps() -> dict[str, str]:
    """Return the columns of the lesion maps: each as a whole, then by region."""
    columns: dict[str, str] = {}
    for name, what in kinds.NAMES.items():
        first = kinds.prefix(name)
        columns |= {
            f"{first}_volume_ml": f"Lesions, native space, ml; map {name}: {what}",
            f"{first}_count": f"Lesions: connected components (26 neighbours) of the map {name}",
            f"{first}_volume_mni_ml": f"Lesions of the normalised map {name}, ml of the template",
            f"{first}_lost": f"Lesions of the map {name} that no voxel of the normalised map is left of",
        }
        for region, where in kinds.REGIONS.items() if name in kinds.BY_REGION else ():
            columns |= {
                f"{first}_{region}_volume_ml": f"Of {first}_volume_ml: {region.replace('_', ' ')}; {where}",
                f"{first}_{region}_count": f"Of {first}_count: lesions with most of their volume there",
            }
    return columns


COLUMNS = {
    "session_id": "Session",
    "scan": "Entities of the scan's file name",
    "brain_volume_ml": "Brain with its fluid, ml",
    "gm_volume_ml": "Gray matter, ml",
    "wm_volume_ml": "White matter, ml",
    "csf_volume_ml": "Fluid inside the brain mask, ml",
    **_of_maps(),
    "gm_mean": "FLAIR intensity of gray matter after bias correction",
    "belief_mean": "Mean belief over GM and WM",
    "belief_sd": "SD of the belief over GM and WM",
    "template_agreement": "Correlation of scan and synthetic FLAIR in the brain",
    "template_overlap": "Dice of the brain mask and the template's brain carried to the scan",
    "brain_confidence": "How sure the network is of the brain mask: mean of 2|p - 1/2| where p > 0.1",
    "pose_similarity": "Correlation of the scan's brain and the synthetic one before warping",
    "coverage": "Share of the template's brain in the field of view",
    "cut_area_cm2": "Largest area of the brain on a face of the field of view, cm2",
    "wm_to_gm": "Ratio of the class means",
    "csf_to_gm": "Ratio of the class means",
    "share_over_threshold": "Share of the brain taken for lesion",
    "head_shape": "Largest to smallest stretch of the brain against the template",
    "left_right_known": "1 where the header tells left from right, else 0",
    "normative_z": "Median of belief in the normative map, in SD of the norm of its place",
    "external_mask": "File of the external map below --lesion-derivatives, and who made it",
    "lesion_free": "No voxel above the threshold",
    "flags": "Quality checks outside their normal range",
}


def write(output: Path, outcomes: Sequence[Outcome], untold: Sequence[Scan] = ()) -> None:
    """Write the table of all finished scans: those of this run and those the table already holds.

    ``untold`` are scans of which no outcome came: an interrupted run may have finished them all the same.
    """
    found = [(outcome.scan, outcome.summary) for outcome in outcomes]
    found += [(scan, marks.read_mark(output, scan.name)) for scan in untold]
    with atomic.locked(output / "logs" / Path(TABLE).with_suffix(".lock")):
        _write(output, [(scan, summary) for scan, summary in found if summary])


def _write(output: Path, finished: Sequence[tuple[Scan, Summary]]) -> None:
    path = output / TABLE
    table = pd.DataFrame([row(scan, summary) for scan, summary in finished])
    if path.exists():
        try:
            before = formats.read_tsv(path, required=("scan",))
            mine = {scan.name for scan, _ in finished}
            kept = [name not in mine and marks.mark_path(output, name).exists() for name in before["scan"]]
            table = pd.concat([before[kept], table])
        except BidsAppError as error:
            log.warning("%s; it is written anew", error)
    if table.empty:
        return
    formats.write_tsv(path, table.sort_values("scan"))
    about = {name: {"Description": text} for name, text in COLUMNS.items() if name in table}
    formats.write_json(path.with_suffix(".json"), about)


def row(scan: Scan, summary: Summary) -> dict[str, Any]:
    """Return a scan's row."""
    flagged = [check.name for check in summary.checks if not check.ok]
    return {
        "participant_id": scan.participant,
        "session_id": scan.session,
        "scan": scan.name,
        **summary.measures,
        **{check.name: check.value for check in summary.checks},
        "external_mask": summary.origin.parameters.get("external_mask"),
        "lesion_free": summary.measures["lesion_count"] == 0,
        "flags": ",".join(flagged) or None,
    }
