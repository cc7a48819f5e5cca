"""Size of the pages that hold scans: MB for each 100 scans of the rating page, and of the viewer in the reports.

    python benchmarks/pages.py [--data FOLDER] [--derivatives FOLDER] [--output FILE]

FOLDER holds ``raw`` and ``expert`` as the tests of real scans know them (default: $BIDS_APP_REAL_DATA); every scan
with an expert brain mask is made into the viewer's data as `group --rating-sheet` does. Told are the voxels of the
head's box, MB in the page (base64 of a lossless PNG), CPU seconds, and what 100 scans of this mixture come to. With the
participant level's output in ``--derivatives``, the viewer of each scan's report is measured as well, light and full,
and the largest page; with the group level's, its page and the viewer in it.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from bids_app.drawing import slices
from bids_app.files import formats
from bids_app.participant import reports
from bids_app.records.scan import Volume
from bids_app.report import assets, rating_page

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "open-ms"


def measure(folder: Path) -> list[dict[str, Any]]:
    """Return size and time of every scan that has an expert mask."""
    rows = []
    for path in sorted((folder / "expert").glob("sub-*/ses-*/anat/*_desc-brain_mask.nii.gz")):
        name = path.name.replace("_desc-brain_mask", "_FLAIR")
        raw = folder / "raw" / path.relative_to(folder / "expert").parent / name
        flair, brain = Volume(*formats.read_nifti(raw)), Volume(*formats.read_nifti(path))
        start = time.process_time()
        spec = slices.blinded(flair.like(np.asarray(flair.data, np.float32)), brain)
        size = len(assets.data(spec))
        rows.append({"scan": name.removesuffix("_FLAIR.nii.gz"), "shape": spec["shape"], "spacing": spec["spacing"],
                     "mb": size / 1e6, "cpu_s": time.process_time() - start})  # fmt: skip
    return rows


def viewers(output: Path) -> dict[str, list[float]]:
    """Return MB of every finished scan's viewer by choice of ``--report-viewer``."""
    found: dict[str, list[float]] = {"light": [], "full": []}
    for summaries in reports.finished(output, [path.stem for path in output.glob("sub-*.html")]).values():
        for summary in summaries:
            for choice, sizes in found.items():
                sizes.append(len(reports.view_of(output, summary.scan, choice)) / 1e6)
    return found


def written(output: Path) -> dict[str, float]:
    """Return MB of the largest participant's page, of the group's page, and of the viewer in it, as far as they are."""
    found = {"participant_page": max((path.stat().st_size for path in output.glob("sub-*.html")), default=0) / 1e6}
    if (output / "group.html").is_file():
        page = (output / "group.html").read_text(encoding="utf-8")
        view = page.partition(' id="view-group">')[2].partition("</script>")[0]
        found |= {"group_page": len(page.encode()) / 1e6, "group_viewer": len(view) / 1e6}
    return found


def main() -> None:
    """Print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("BIDS_APP_REAL_DATA", BESIDE)))
    parser.add_argument("--derivatives", type=Path)
    parser.add_argument("--output", type=Path)
    words = parser.parse_args()
    rows = measure(words.data)
    if not rows:
        parser.error(f"no scans with expert masks in {words.data}")
    for row in rows:
        print(f"{row['scan']:14} {row['shape']} at {row['spacing']} mm  {row['mb']:.2f} MB  {row['cpu_s']:.2f} CPU s")
    each = sum(row["mb"] for row in rows) / len(rows)
    seconds = sum(row["cpu_s"] for row in rows) / len(rows)
    pages = int(rating_page.LIMIT / 1e6 / each)
    print(f"100 scans: {100 * each:.0f} MB and {100 * seconds:.0f} CPU s; {pages} scans a page of "
          f"{rating_page.LIMIT / 1e6:.0f} MB")  # fmt: skip
    found = {"scans": rows, "mb_per_100_scans": 100 * each, "scans_per_page": pages}
    if words.derivatives:
        sizes = viewers(words.derivatives)
        found["viewer_mb"] = {choice: sum(values) / len(values) for choice, values in sizes.items() if values}
        found["written_mb"] = written(words.derivatives)
        for name, mb in (*found["viewer_mb"].items(), *found["written_mb"].items()):
            print(f"{name}: {mb:.2f} MB")
    if words.output:
        formats.write_json(words.output, found)


if __name__ == "__main__":
    main()
