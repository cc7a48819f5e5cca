"""Permutations of the nested selection: CPU seconds by the coarser search and by the whole, wall seconds by workers.

    python benchmarks/permutations.py [--permutations 2] [--scans 1038] [--cluster] [--output FILE]

On a made-up cohort of the published size (or with ``--scans`` a smaller one): CPU seconds a permutation of the
leakage-free recipe, by the coarser search of the permutation test and by the whole search that the nested
cross-validation makes, and the AUC that either finds with the true labels; the same for the recommended recipe, with
kernels made once for all permutations and anew for each. All in this process on one thread. Then the test of the
leakage-free recipe with 1 and 2 processes, and with ``--cluster`` on a Dask cluster of two workers of its own: wall
seconds, and whether all values are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from bids_app.learning import protocols
from bids_app.learning.division import permute
from bids_app.learning.protocols import OuterPart, Plan
from bids_app.learning.roc import auc_within
from bids_app.phantom.cohort import draw_cohort
from bids_app.records.cohort import Cohort, LesionMaps, Threshold

PLAN = Plan(cv_folds=10, refine_limit=64, solver="smo", bootstrap_draws=100, random_seed=0)
FOLDS, DRAWS = 5, 200
TIMES = 10  # that the whole search costs at least as much as the coarser
WALLS = 5  # times as many permutations for the wall seconds, so that starting workers does not count for much
BUDGET = 120  # CPU seconds of the recommended recipe's DRAWS permutations


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; 1 where values differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--permutations", type=int, default=2)
    parser.add_argument("--scans", type=int, default=1038)
    parser.add_argument("--cluster", action="store_true")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the results as JSON")
    args = parser.parse_args(argv)
    n_positive = round(0.72 * args.scans)
    people = (max(args.scans // 6, 8), max(args.scans // 11, 8))
    cohort = draw_cohort(n_participants=people, n_scans=(n_positive, args.scans - n_positive), seed=0)
    with threadpool_limits(1):
        found = {
            "leakage-free": leakage_free(cohort, args.permutations),
            "recommended": recommended(cohort, args.permutations),
            "wall": walls(cohort, WALLS * args.permutations, args.cluster),
        }
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return int(not (found["recommended"]["equal"] and found["wall"]["equal"]))


def leakage_free(cohort: Cohort, n: int) -> dict[str, Any]:
    """Print and return AUC and CPU seconds a permutation by either search."""
    outer = protocols.outer_folds(cohort.positive, cohort.participants, FOLDS, PLAN)
    parts, place = [OuterPart.of(cohort.lesions, fold) for fold in outer], protocols.fold_numbers(outer)
    labels = [permute(cohort.positive, cohort.participants, seed, within=place) for seed in range(1, n + 1)]
    rows = np.flatnonzero(np.arange(len(cohort.positive)) % 7 == 0)
    protocols.select(cohort.lesions[rows], cohort.positive[rows], cohort.participants[rows], PLAN)  # compiles
    seconds, auc = {}, {}
    for name, plan in (("coarser", PLAN.coarser()), ("whole", PLAN)):

        def area(positive: np.ndarray, plan: Plan = plan) -> float:
            found = [
                protocols.decide_fold(part, positive[fold.train], cohort.participants[fold.train], plan)[0]
                for part, fold in zip(parts, outer, strict=True)
            ]
            return auc_within(positive, protocols.out_of_fold(found, outer), place).value

        auc[name], start = area(cohort.positive), time.process_time()
        for each in labels:
            area(each)
        seconds[name] = (time.process_time() - start) / n
    times = seconds["whole"] / seconds["coarser"]
    verdict = f"{times:.1f} times as much, {'met' if times >= TIMES else 'MISSED'}: at least {TIMES}"
    print(f"leakage-free: {seconds['coarser']:.2f} CPU s a permutation, {seconds['coarser'] * DRAWS:.0f} for {DRAWS}; "
          f"by the whole search {seconds['whole']:.2f}, {verdict}", flush=True)  # fmt: skip
    print(f"AUC with the true labels: {auc['coarser']:.3f}, by the whole search {auc['whole']:.3f}", flush=True)
    return {"cpu_seconds": seconds, "auc": auc, "times": times}


def recommended(cohort: Cohort, n: int) -> dict[str, Any]:
    """Print and return CPU seconds of the recommended recipe's permutations, and whether both ways are equal."""
    from bids_app.image.atlas import brain_grid
    from bids_app.learning.division import folds
    from bids_app.recommended import machine, products, rivals

    grid, start = brain_grid(3), time.process_time()
    made = products.products(cohort.lesions, cohort.participants, grid.data, grid.affine)
    preparing = time.process_time() - start
    outer = folds(cohort.positive, made.person, FOLDS, by="participant", seed=0)
    place = protocols.fold_numbers(outer)
    labels = [permute(cohort.positive, made.person, seed, within=place) for seed in range(n + 1)]
    seconds, found = {}, {}
    for way in ("first", "whole", "dual"):  # the first compiles
        start, found[way] = time.process_time(), []
        for fold in outer:
            people = np.unique(made.person[fold.train])
            if way == "dual":
                groups = [machine.labels_of(each, made.person) for each in labels[1:]]
                duals = machine.train_duals(made, groups, people, FOLDS, 0)
                found[way] += [machine.decide(made, dual, fold.validate).tolist() for dual in duals]
                continue
            for each in labels[:1] if way == "first" else labels[1:]:
                values = rivals.recommended(made, each, made.person, FOLDS)(fold.train, fold.validate, 0).decisions
                found[way].append(values.tolist())
        seconds[way] = (time.process_time() - start) / n
    total = preparing + DRAWS * seconds["dual"]
    print(f"recommended: {seconds['dual']:.2f} CPU s a permutation, {seconds['whole']:.2f} each anew, decisions "
          f"{_same(found['dual'] == found['whole'])}; {DRAWS} with {preparing:.0f} CPU s of features: {total:.0f}, "
          f"{'met' if total < BUDGET else 'MISSED'}: below {BUDGET}", flush=True)  # fmt: skip
    equal = found["dual"] == found["whole"]
    return {"cpu_seconds": seconds, "preparing": preparing, f"cpu_seconds_of_{DRAWS}": total, "equal": equal}


def walls(cohort: Cohort, n: int, cluster: bool) -> dict[str, Any]:
    """Print and return wall seconds by workers, and whether values are equal."""
    from bids_app.group import permutation
    from bids_app.machine.parallel import Workers

    found, seconds = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        outer = protocols.outer_folds(cohort.positive, cohort.participants, FOLDS, PLAN)
        given = LesionMaps(cohort.lesions, Threshold(0.32, "given"))
        laid = permutation.lay(lambda rows: given, cohort.positive, cohort.participants, outer, Path(folder))
        ways = {"1 process": Workers(1), "2 processes": Workers(2)}
        if cluster:
            from distributed import LocalCluster

            made = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=0)
            ways["Dask cluster, 2 workers"] = Workers(dask_scheduler=made.scheduler_address)
        for name, workers in ways.items():
            start = time.perf_counter()
            found[name] = permutation.test(laid, n, workers, PLAN).values
            seconds[name] = time.perf_counter() - start
            print(f"{name}: {seconds[name]:.1f} s, values {_same(found[name] == found['1 process'])}", flush=True)
        if cluster:
            made.close()
    print(f"load of this machine now: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return {"seconds": seconds, "load": os.getloadavg()[0], "equal": len(set(found.values())) == 1}


def _same(same: bool) -> str:
    return "equal" if same else "DIFFER"


if __name__ == "__main__":
    sys.exit(main())
