"""Human raters: the sheet and the pages they work in are written, and what they filled in is read back."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bids_app.bids.names import Scan, group_output
from bids_app.cohort import ratings
from bids_app.drawing import slices
from bids_app.errors import BidsAppError, UsageError
from bids_app.files import formats
from bids_app.options import Options
from bids_app.records.cohort import Division, Labelled
from bids_app.records.scan import Volume
from bids_app.report import rating_page

log = logging.getLogger("bids_app")
EVERY = 25  # scans between two lines of the log


def write(options: Options, labelled: Labelled, division: Division) -> Path:
    """Write the sheet, its key and the rating pages of the test scans; return what a rater should open."""
    output = options.output_dir
    folder = (output / group_output("rating_sheet")).parent
    names = [scan.name for scan in labelled.scans]
    sheet_path, key_path = ratings.write_sheet(names, labelled.table, division.test, folder, options.random_seed)
    log.info("sheet for the raters: %s; keep the key from them: %s", sheet_path, key_path)
    for old in folder.glob(f"{rating_page.NAME}*.html"):
        old.unlink()
    missing = [labelled.scans[k].name for k in division.test if not _has_images(output, labelled.scans[k])]
    if missing:
        log.warning(
            "no rating page: %d of %d test scans have no bias-corrected FLAIR and brain mask, first %s; run the "
            "participant level without --small-output, or let the raters open the images themselves",
            len(missing), len(division.test), missing[0],
        )  # fmt: skip
        return sheet_path
    sheet, key = formats.read_tsv(sheet_path), formats.read_tsv(key_path)
    by_name = {scan.name: scan for scan in labelled.scans}
    scans = _blinded(output, [by_name[name] for name in key["scan"]])
    units = _units(options.bids_dir, labelled.table.columns)
    first = sheet_path
    for page in rating_page.pages(sheet, scans, (options.positive, options.negative), units):
        path = output / group_output("rating_page", name=page.name)
        formats.write_text(path, page.html)
        log.info("page for the raters: %s (%.0f MB)", path, len(page.html) / 1e6)
        first = path if first == sheet_path else first
    return first


def _has_images(output: Path, scan: Scan) -> bool:
    return all((output / scan.output(key)).is_file() for key in ("preproc", "brain"))


def _blinded(output: Path, scans: Sequence[Scan]) -> Iterator[dict[str, Any]]:
    for count, scan in enumerate(scans, start=1):
        flair, brain = (Volume(*formats.read_nifti(output / scan.output(key))) for key in ("preproc", "brain"))
        yield slices.blinded(flair.like(np.asarray(flair.data, np.float32)), brain)
        if count % EVERY == 0:
            log.info("rating page: %d of %d scans", count, len(scans))


def _units(bids_dir: Path, columns: Sequence[Any]) -> dict[str, str]:
    """Return units of the covariates that raters see, as the data set's JSON files tell them, by the sheet's column."""
    told: dict[str, str] = {}
    for path in (*bids_dir.glob("*s.json"), *bids_dir.glob("phenotype/*.json")):
        try:
            about = formats.read_json(path)
        except BidsAppError:
            continue  # tables were read already; without units the numbers still stand
        for name, entry in about.items():
            if isinstance(entry, Mapping) and isinstance(entry.get("Units"), str):
                told.setdefault(str(name), entry["Units"])
    return {name: told[column] for name, column in ratings.shown(columns).items() if column in told}


def read(options: Options) -> Path:
    """Write ``phenotype/rater_decisions.tsv`` and every reading with its sureness, time and note; return the first."""
    if not options.read_ratings:
        raise UsageError("--read-ratings needs the filled sheets")
    key = options.output_dir / group_output("rating_key")
    table = ratings.read_sheets(options.read_ratings, key, (options.positive, options.negative))
    path = options.output_dir / group_output("rater_decisions")
    formats.write_tsv(path, table)
    details = ratings.read_details(options.read_ratings, key)
    if not details.empty:
        formats.write_tsv(options.output_dir / group_output("readings"), details)
        log.info("sureness, time and notes: %s", options.output_dir / group_output("readings"))
    log.info("copy %s to the data set's phenotype folder", path)
    return path
