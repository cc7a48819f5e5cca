"""Cost against size: scans and processes at the participant level, scans and voxels at the group level.

    python benchmarks/growth.py [--quick] [--only {participant,group,memory}] [--scans 10000] [--output FILE]

Participant level, through the command line, on made-up scans of 2 x 2 x 4 mm: wall and CPU seconds and the peak
memory of the largest process, for 1 to 16 scans on 1 and on 2 processes. Efficiency is the wall time a scan of one
process over twice that of two, each without the time of its own smallest run (start-up): about 1 on a machine with
two free cores, and meaningless on a busy one.

Group level, in this process on one thread: made-up cohorts of 361 to 2,888 scans at 3 mm, and at about 2 mm, where
3.375 copies of the 3 mm map's voxels, each thinned at random, stand for the finer grid (the command line itself is
3 mm only). Steps: ranking (counts of every voxel, chi-square, order), kernels (nested distances of 17 counts), sweep
(ranked once, published grid, 10 folds) and evaluation (measures and bootstrap over participants). Cohorts of one size
differ by up to two in cost, so growth is told on the same people: whole cohorts of 2,888 scans, then their participants
dealt into 2, 4 and 8 parts; each figure is the mean over the parts of all cohorts. Beside the sweep's seconds stands
its work, which no cache can change: steps of the solver times scans it looks at in each (equal maps are one scan), in
thousand millions. The exponent is the slope of log cost over log scans from one size to the next, and from the smallest
to the largest, where that of the seconds may not exceed 2.

Memory: the peak of the command at the group level on ``--scans`` made-up lesion maps of a quarter as many people, with
every evaluation and recipe that runs by default: published, leakage-free and nested, and recommended, leakage-free and
lesion volume against each other. Folds are few and voxel counts are not refined, since that costs time and no memory (2
outer and 2 inner folds, one repeat, one count between the powers of two). At most 4 GB. The recipes that ran are read
back from what the command wrote.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from bids_app.group.entrants import ALWAYS
from bids_app.learning import solver
from bids_app.learning.kernels import nested_distances, pack_by_scan, pack_by_voxel
from bids_app.learning.measures import bootstrap, performance
from bids_app.learning.protocols import PUBLISHED
from bids_app.learning.ranking import rank_voxels
from bids_app.learning.sweep import Search, powers_of_two, sweep
from bids_app.phantom import dataset
from bids_app.phantom.cohort import draw_cohort
from bids_app.phantom.records import Design
from bids_app.records.cohort import Cohort, Fold, Grid

VALUES = tuple(2.0**k for k in range(-3, 6))
FINER = (3 / 2) ** 3  # voxels at 2 mm for each at 3 mm
EXPONENT, EFFICIENCY, MOST_GB = 2.0, 0.9, 4.0
SCANS = {"full": (1, 2, 4, 8, 16), "quick": (2, 4)}
COHORTS = {"full": (2888, 2), "quick": (361, 1)}  # scans, and how many such cohorts
PARTS = {"full": (8, 4, 2, 1), "quick": (2, 1)}
STEPS = ("ranking", "kernels", "sweep", "evaluation")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_const", const="quick", default="full", dest="size")
    parser.add_argument("--only", choices=("participant", "group", "memory"))
    parser.add_argument("--scans", type=int, default=10_000, help="of the memory's run (default: %(default)s)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the results as JSON")
    args = parser.parse_args(argv)
    found: dict[str, Any] = {}
    if args.only in (None, "participant"):
        found["participant"] = participant_growth(SCANS[args.size])
    if args.only in (None, "group"):
        with threadpool_limits(1):
            found["group"] = group_growth(*COHORTS[args.size], PARTS[args.size])
    if args.only in (None, "memory"):
        found["memory"] = group_memory(1000 if args.size == "quick" else args.scans)
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


# -- memory of the group level -------------------------------------------------------------------

FEW = ("--lesion-threshold", "0.32", "--nested-folds", "2", "--refine-limit", "1", "--cv-folds", "2", "--repeats", "1")
RECIPES = {*ALWAYS, PUBLISHED}  # that run by default


def group_memory(n_scans: int) -> dict[str, float]:
    """Run the group level on a made-up cohort, a quarter as many people as scans; print and return what it took."""
    n_negative = round(0.28 * n_scans)
    people = (n_scans // 4, max(n_negative // 4, 10))
    with tempfile.TemporaryDirectory() as folder:
        raw, maps = Path(folder) / "raw", Path(folder) / "maps"
        dataset.write_cohort(
            draw_cohort(n_participants=people, n_scans=(n_scans - n_negative, n_negative), seed=1), raw, maps
        )
        row = run_app([str(raw), str(maps), "group", *FEW]) | {"scans": n_scans}
        ran = json.loads((maps / "group" / "metrics.json").read_text(encoding="utf-8"))["recipes"]["rows"]
    if set(ran) != RECIPES:
        raise SystemExit(f"recipes that ran: {', '.join(ran)}; wanted: {', '.join(sorted(RECIPES))}")
    verdict = "met" if row["peak_gb"] <= MOST_GB else "MISSED"
    took = f"{row['peak_gb']:.2f} GB, {row['cpu']:.0f} CPU s"
    print(f"group level, {n_scans} scans: {took}; {verdict}: at most {MOST_GB} GB")
    return row


# -- participant level ---------------------------------------------------------------------------


def participant_growth(numbers: Sequence[int]) -> list[dict[str, float]]:
    """Run the command line on growing data sets; print and return one row for each run."""
    rows: list[dict[str, float]] = []
    print(f"{'scans':>5}{'processes':>11}{'wall s':>9}{'CPU s':>9}{'CPU s a scan':>14}{'peak GB':>9}{'efficiency':>12}")
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        dataset.make_dataset(
            raw, Path(folder) / "truth", Design(max(numbers), 1, sessions=(1,), spacing=(2.0, 2.0, 4.0))
        )
        labels = sorted(path.name for path in raw.glob("sub-*"))
        for processes in (1, 2):
            for scans in numbers:
                if scans < processes:
                    continue
                output = Path(folder) / f"out-{scans}-{processes}"
                words = [str(raw), str(output), "participant", "--nprocs", str(processes), "--skip-bids-validation"]
                row = run_app([*words, "--participant-label", *labels[:scans]])
                row |= {"scans": scans, "processes": processes}
                efficiency = _efficiency(rows, row)
                if efficiency is not None:
                    row["efficiency"] = efficiency
                rows.append(row)
                shown = "" if efficiency is None else f"{efficiency:.2f}"
                print(
                    f"{scans:>5}{processes:>11}{row['wall']:>9.1f}{row['cpu']:>9.1f}{row['cpu'] / scans:>14.1f}"
                    f"{row['peak_gb']:>9.2f}{shown:>12}",
                    flush=True,
                )
    print(f"target: efficiency at 2 processes >= {EFFICIENCY} on a free machine; load now {os.getloadavg()[0]:.1f}")
    return rows


def _efficiency(rows: Sequence[dict[str, float]], row: dict[str, float]) -> float | None:
    """Return how much of two processes is used: wall seconds by which the smallest run is exceeded, compared."""
    if row["processes"] == 1:
        return None
    alone = {int(r["scans"]): r["wall"] for r in rows if r["processes"] == 1}
    mine = {int(r["scans"]): r["wall"] for r in rows if r["processes"] == row["processes"]}
    least, scans = min(mine, default=0), int(row["scans"])
    if scans <= least or least not in alone:
        return None
    return (alone[scans] - alone[least]) / (row["processes"] * (row["wall"] - mine[least]))


def run_app(words: Sequence[str]) -> dict[str, float]:
    """Run the app; return wall and CPU seconds, and the peak memory of its largest process."""
    before, began = os.times(), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "bids_app", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    peaks: dict[int, int] = {}
    watcher = threading.Thread(target=_watch, args=(process, peaks))
    watcher.start()
    code = process.wait()
    watcher.join()
    if code:
        raise SystemExit(f"the app ended with exit code {code}: {' '.join(words)}")
    wall, after = time.perf_counter() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"wall": wall, "cpu": cpu, "peak_gb": max(peaks.values(), default=0) / 1e6}


def _watch(process: subprocess.Popen[bytes], peaks: dict[int, int]) -> None:
    """Note the highest VmHWM (kB) of the process and all below it until it ends."""
    while process.poll() is None:
        for pid in _family(process.pid):
            peaks[pid] = max(peaks.get(pid, 0), _peak(pid))
        time.sleep(0.25)


def _family(pid: int) -> list[int]:
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.Error:
        return []


def _peak(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


# -- group level ---------------------------------------------------------------------------------


def group_growth(scans: int, cohorts: int, parts: Sequence[int]) -> list[dict[str, float]]:
    """Time every step on cohorts whole and in parts, at 3 and 2 mm; print and return one row for each size."""
    rows: list[dict[str, float]] = []
    columns = (*STEPS, "work")
    whole = [_cohort(scans, seed) for seed in range(cohorts)]
    small = _cohort(60, 0)
    _steps(small.lesions, small.positive, small.participants, 2)  # compiles
    print(f"{'mm':>3}{'scans':>7}{'voxels':>9}" + "".join(f"{column:>12}" for column in columns))
    for millimetres in (3, 2):
        found = []
        for n_parts in parts:
            runs = []
            for cohort in whole:
                for chosen in dealt(cohort, n_parts):
                    lesions = cohort.lesions[chosen] if millimetres == 3 else finer(cohort.lesions[chosen])
                    runs.append(_steps(lesions, cohort.positive[chosen], cohort.participants[chosen], 10))
            mean = {column: sum(run[column] for run in runs) / len(runs) for column in columns}
            found.append({"mm": millimetres, "scans": scans / n_parts, "voxels": lesions.shape[1], **mean})
            shown = "".join(f"{mean[column]:>12.3f}" for column in columns)
            print(f"{millimetres:>3}{scans / n_parts:>7.0f}{lesions.shape[1]:>9}{shown}", flush=True)
        rows += found
        for i, k in dict.fromkeys([*pairwise(range(len(found))), (0, len(found) - 1)]):
            first, last = found[i], found[k]
            span = math.log(last["scans"] / first["scans"])
            slopes = {column: math.log(last[column] / first[column]) / span for column in columns}
            label = f"{first['scans']:.0f} to {last['scans']:.0f}"
            print(f"  exponent {label:<8}".ljust(19) + "".join(f"{slopes[column]:>12.2f}" for column in columns))
        over = [step for step in STEPS if slopes[step] > EXPONENT]
        if len(parts) == len(PARTS["full"]):  # small cohorts fit a cache that larger ones do not
            print(f"{'MISSED' if over else 'met':<8}no step above scans squared x counts {' '.join(over)}")
    return rows


def _cohort(scans: int, seed: int) -> Cohort:
    positive, people = round(0.717 * scans), max(round(0.37 * scans), 8)
    first = round(0.64 * people)
    return draw_cohort(n_participants=(first, people - first), n_scans=(positive, scans - positive), seed=seed)


def dealt(cohort: Cohort, parts: int) -> list[np.ndarray]:
    """Return rows of a cohort in parts: the participants of either group dealt out in turn, each with all scans."""
    people, first, of_scan = np.unique(cohort.participants, return_index=True, return_inverse=True)
    part = np.empty(len(people), int)
    part[np.argsort(~cohort.positive[first], kind="stable")] = np.arange(len(people)) % parts
    return [np.flatnonzero(part[of_scan] == k) for k in range(parts)]


def finer(lesions: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return maps (N, V) of as many voxels as at 2 mm: drawn with repetition, each without a tenth of its ones."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, lesions.shape[1], round(FINER * lesions.shape[1]))
    made = np.ascontiguousarray(lesions[:, chosen])
    for row in made:
        row &= rng.random(len(row)) < 0.9
    return made


def _steps(maps: np.ndarray, positive: np.ndarray, participants: np.ndarray, folds: int) -> dict[str, float]:
    """Return the CPU seconds of each step, and the work of the sweep."""
    counts = powers_of_two(maps.shape[1])
    splitter = StratifiedKFold(folds, shuffle=True, random_state=0)
    division = [Fold(train, validate) for train, validate in splitter.split(positive, positive)]
    grid = Grid(VALUES, VALUES)
    seconds: dict[str, float] = {}

    def step(name: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = work()
        seconds[name] = time.process_time() - began
        return result

    order = step("ranking", lambda: rank_voxels(maps, positive).order)

    def distances() -> None:
        by_scan = pack_by_scan(pack_by_voxel(maps), order, len(maps))
        for _ in nested_distances(by_scan, counts):
            pass

    def evaluate() -> None:
        decisions = maps.sum(axis=1) - maps.sum(axis=1).mean()
        performance(positive, decisions)
        bootstrap(positive, decisions, participants, n_draws=2000, seed=0)

    work = [0]
    solve_path = solver.solve_path

    def counted(kernel: np.ndarray, *rest: Any) -> int:
        taken: int = solve_path(kernel, *rest)
        work[0] += taken * len(kernel)
        return taken

    step("kernels", distances)
    with mock.patch.object(solver, "solve_path", counted):
        step("sweep", lambda: sweep(maps, positive, division, counts, grid, Search(rerank=False)))
    step("evaluation", evaluate)
    return {**seconds, "work": work[0] / 1e9}


if __name__ == "__main__":
    sys.exit(main())
