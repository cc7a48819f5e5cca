"""Size of the pages that hold scans: MB for each 100 scans of the rating page, and of the viewer in the reports.

    python benchmarks/pages.py [--data FOLDER] [--derivatives FOLDER] [--browser PROGRAM] [--output FILE]

FOLDER holds ``raw`` and ``expert`` as the tests of real scans know them (default: $BIDS_APP_REAL_DATA); every scan
with an expert brain mask is made into the viewer's data as `group --rating-sheet` does. Told are the voxels of the
head's box, MB in the page (base64 of a lossless PNG), CPU seconds, and what 100 scans of this mixture come to. With the
participant level's output in ``--derivatives``, the viewer of each scan's report is measured as well, light and full,
and the largest page; with the group level's, its page and the viewer in it. ``--browser`` (the program of a Chromium,
with playwright installed) fills a rating page to its limit with these scans, opens it, and tells the seconds to the
first and to the next scan, and the heap of the page's scripts.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from bids_app.drawing import slices
from bids_app.files import formats
from bids_app.participant import reports
from bids_app.records.scan import Volume
from bids_app.report import assets, rating_page

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "open-ms"


def measure(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return size and time of every scan that has an expert mask, and the viewer's data of each."""
    rows, scans = [], []
    for path in sorted((folder / "expert").glob("sub-*/ses-*/anat/*_desc-brain_mask.nii.gz")):
        name = path.name.replace("_desc-brain_mask", "_FLAIR")
        raw = folder / "raw" / path.relative_to(folder / "expert").parent / name
        flair, brain = Volume(*formats.read_nifti(raw)), Volume(*formats.read_nifti(path))
        start = time.process_time()
        spec = slices.blinded(flair.like(np.asarray(flair.data, np.float32)), brain)
        size = len(assets.data(spec))
        rows.append({"scan": name.removesuffix("_FLAIR.nii.gz"), "shape": spec["shape"], "spacing": spec["spacing"],
                     "mb": size / 1e6, "cpu_s": time.process_time() - start})  # fmt: skip
        scans.append(spec)
    return rows, scans


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


def full_page(scans: list[dict[str, Any]], folder: Path) -> Path:
    """Write a rating page that is as large as pages get, of these scans again and again."""
    each = sum(len(assets.data(scan)) for scan in scans) / len(scans)
    count = int(rating_page.LIMIT / each)
    rows = [{"reading": str(k + 1), "code": f"R{k:06d}", "decision": None} for k in range(count)]
    specs = (scans[k % len(scans)] for k in range(count))
    page = next(rating_page.pages(pd.DataFrame(rows), specs, ("RRMS", "NMOSD")))
    path = folder / "rating.html"
    formats.write_text(path, page.html)
    return path


def opened(path: Path, program: str) -> dict[str, float]:
    """Return what a rater waits for on a page, seconds, and the heap of its scripts, MB."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--enable-precise-memory-info"])
        page = browser.new_page()
        page.set_default_timeout(120_000)
        found, start = {"page_mb": path.stat().st_size / 1e6}, time.perf_counter()
        page.goto(path.as_uri())
        found["loaded_s"] = time.perf_counter() - start
        page.fill("#rater", "r1")
        page.press("#rater", "Enter")
        page.wait_for_selector('#viewer[data-reading="1"][data-at]')
        found["first_scan_s"] = time.perf_counter() - start
        page.wait_for_timeout(3000)  # the next is decoded while one is read
        start = time.perf_counter()
        page.keyboard.press("ArrowRight")
        page.wait_for_selector('#viewer[data-reading="2"]')
        found["next_scan_s"] = time.perf_counter() - start
        found["heap_mb"] = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
        browser.close()
    return found


def main() -> None:
    """Print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("BIDS_APP_REAL_DATA", BESIDE)))
    parser.add_argument("--derivatives", type=Path)
    parser.add_argument("--browser")
    parser.add_argument("--output", type=Path)
    words = parser.parse_args()
    rows, scans = measure(words.data)
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
    if words.browser:
        with TemporaryDirectory() as folder:
            found["opened"] = opened(full_page(scans, Path(folder)), words.browser)
        print("rating page in Chromium: " + ", ".join(f"{name} {value:.2f}" for name, value in found["opened"].items()))
    if words.output:
        formats.write_json(words.output, found)


if __name__ == "__main__":
    main()
