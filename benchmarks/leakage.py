"""The two evaluations on cohorts without any signal: labels shuffled over participants, published size.

    python benchmarks/leakage.py [--seeds N] [--output FILE]

Whoever's scans are in a shuffled cohort, nothing tells the groups apart but the participant's identity: most of
a participant's lesions recur from scan to scan. An honest evaluation gives AUC 0.5; the published one, which
divides by scan and chooses the voxel count by the test set, does not.

Exit code 1 unless the mean leakage-free AUC lies within 0.47 and 0.53 and 0.5 lies in its interval (bootstrap over
participants, 95 %) on nine seeds of ten. About half a minute of one core a seed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from bids_app.learning.division import divide
from bids_app.learning.protocols import HONEST, PUBLISHED, Plan, leakage_free, published
from bids_app.options import Options
from bids_app.phantom.cohort import draw_cohort
from bids_app.records.cohort import LesionMaps, Threshold

BAND = (0.47, 0.53)
COVERED = 0.9  # share of the seeds; 95 % are expected
PROTOCOLS = {PUBLISHED: (published, "scan"), HONEST: (leakage_free, "participant")}


def default_plan(seed: int) -> Plan:
    """Return the plan of a group run with default options."""
    options = Options(Path(), Path(), "group")
    return Plan(options.cv_folds, options.refine_limit, options.solver, options.bootstrap_draws, seed)


def run_seed(seed: int) -> dict[str, object]:
    """Draw a shuffled cohort and evaluate it both ways; return test AUC, interval and count by protocol."""
    start = time.process_time()
    cohort = draw_cohort(seed=seed, shuffle_labels=True)
    maps = LesionMaps(cohort.lesions, Threshold(0.32, "given"))
    row: dict[str, object] = {"seed": seed}
    for name, (protocol, unit) in PROTOCOLS.items():
        division = divide(cohort.positive, cohort.participants, by=unit, seed=seed)
        found = protocol(
            lambda rows: maps,
            cohort.positive,
            cohort.participants,
            division,
            default_plan(seed),
        )
        area = found.test.bootstrap["auc"]
        row[name] = {"auc": area.value, "low": area.low, "high": area.high, "n": found.selection.cell.n_voxels}
    return {**row, "cpu_seconds": time.process_time() - start}


def summary(rows: Sequence[dict]) -> dict[str, object]:
    """Return means and standard errors by protocol, on how many seeds 0.5 is covered, and whether all is met."""
    found: dict[str, object] = {"seeds": len(rows)}
    for name in PROTOCOLS:
        areas = np.array([row[name]["auc"] for row in rows])
        error = float(areas.std(ddof=1) / math.sqrt(len(areas))) if len(areas) > 1 else None
        covered = sum(row[name]["low"] <= 0.5 <= row[name]["high"] for row in rows)
        found[name] = {"mean": float(areas.mean()), "standard_error": error, "covered": covered}
    honest = found[HONEST]
    met = {
        f"mean leakage-free AUC in {BAND[0]}-{BAND[1]}": BAND[0] <= honest["mean"] <= BAND[1],  # type: ignore[index]
        f"0.5 covered on {COVERED:.0%} of the seeds": honest["covered"] >= COVERED * len(rows),  # type: ignore[index]
    }
    return {**found, "targets_met": met}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 if the targets are met."""
    parser = argparse.ArgumentParser(description="AUC of both evaluations on cohorts without signal")
    parser.add_argument("--seeds", type=int, default=20, metavar="N", help="cohorts drawn (default: 20)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the results as JSON")
    options = parser.parse_args(argv)
    if options.seeds < 1:
        parser.error("--seeds must be at least 1")
    print(f"{'seed':>4}  {PUBLISHED:>9}  n      {HONEST:>12}  95 % interval    n      CPU s", flush=True)
    rows = []
    for seed in range(options.seeds):
        with threadpool_limits(1):
            row: dict = run_seed(seed)
        rows.append(row)
        leaky, honest = row[PUBLISHED], row[HONEST]
        interval = f"{honest['low']:.3f}-{honest['high']:.3f}" + " " * 6
        print(
            f"{seed:>4}  {leaky['auc']:>9.3f}  {leaky['n']:<5}  {honest['auc']:>12.3f}  {interval:<15}"
            f"  {honest['n']:<5}  {row['cpu_seconds']:.1f}",
            flush=True,
        )
    found = summary(rows)
    for name in PROTOCOLS:
        about: dict = found[name]  # type: ignore[assignment]
        spread = "" if about["standard_error"] is None else f" (standard error {about['standard_error']:.3f})"
        print(f"{name}: mean AUC {about['mean']:.3f}{spread}, 0.5 in the interval on {about['covered']} of {len(rows)}")
    targets: dict[str, bool] = found["targets_met"]  # type: ignore[assignment]
    print("\n".join(f"{'met' if met else 'MISSED':<8}{name}" for name, met in targets.items()))
    if options.output:
        options.output.write_text(json.dumps({**found, "rows": rows}, indent=2) + "\n", encoding="utf-8")
    return int(not all(targets.values()))


if __name__ == "__main__":
    sys.exit(main())
