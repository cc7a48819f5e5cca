"""Permutations of the nested selection: CPU seconds now and before, and wall seconds by workers.

    python benchmarks/permutations.py [--permutations 2] [--old FOLDER] [--scans 1038] [--cluster]

On a made-up cohort of the published size (or with ``--scans`` a smaller one): CPU seconds a permutation of the
leakage-free and of the recommended recipe, in this process on one thread. ``--old FOLDER`` runs the same permutations
of the leakage-free recipe with the package of another checkout, an earlier version, and prints the ratio and whether
the AUC is the same to the last bit. Then the same with 1 and 2 processes, and with ``--cluster`` on a Dask cluster of
two workers of its own: wall seconds, and whether all values are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bids_app.learning import protocols
from bids_app.learning.division import permute
from bids_app.learning.protocols import Plan
from bids_app.phantom.cohort import draw_cohort
from bids_app.records.cohort import Cohort, LesionMaps, Threshold

PLAN = Plan(cv_folds=10, refine_limit=64, solver="smo", bootstrap_draws=100, random_seed=0)
FOLDS, DRAWS = 5, 200
BUDGET = 120  # CPU seconds of the recommended recipe's DRAWS permutations


def main() -> int:
    """Measure and print; 1 where values differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--permutations", type=int, default=2)
    parser.add_argument("--scans", type=int, default=1038)
    parser.add_argument("--old", type=Path, help="a checkout of an earlier version")
    parser.add_argument("--cluster", action="store_true")
    parser.add_argument("--before", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    n_positive = round(0.72 * args.scans)
    people = (max(args.scans // 6, 8), max(args.scans // 11, 8))
    cohort = draw_cohort(n_participants=people, n_scans=(n_positive, args.scans - n_positive), seed=0)
    if args.before:
        print(json.dumps(_before(cohort, args.permutations)))
        return 0
    wrong = 0
    values, seconds = _now(cohort, args.permutations)
    print(f"leakage-free: {seconds:.2f} CPU s a permutation, {seconds * DRAWS:.0f} for {DRAWS}", flush=True)
    if args.old:
        words = [sys.executable, "-P", __file__, "--before", "--permutations", str(args.permutations)]
        env = os.environ | {"PYTHONPATH": str(args.old.resolve())}
        done = subprocess.run([*words, "--scans", str(args.scans)], env=env, check=True, capture_output=True, text=True)
        old, its_seconds = json.loads(done.stdout)
        wrong += old != values
        print(f"before: {its_seconds:.2f}; {its_seconds / seconds:.2f} times now's; AUC {_same(old == values)}")
    wrong += _recommended(cohort, args.permutations)
    wrong += _walls(cohort, args.permutations, args.cluster)
    return int(wrong > 0)


def _before(cohort: Cohort, n: int) -> tuple[list[float], float]:
    """Return AUC and CPU seconds a permutation as versions without fold tasks did it."""
    maps_for = _maps(cohort)
    outer = protocols.outer_folds(cohort.positive, cohort.participants, FOLDS, PLAN)
    place, values = protocols.fold_numbers(outer), []
    _compile(cohort)
    start = time.process_time()
    for seed in range(1, n + 1):
        labels = permute(cohort.positive, cohort.participants, seed, within=place)
        values.append(protocols.nested_auc(maps_for, labels, cohort.participants, outer, PLAN))  # type: ignore[attr-defined]
    return values, (time.process_time() - start) / n


def _maps(cohort: Cohort) -> protocols.MapsFor:
    found = LesionMaps(cohort.lesions, Threshold(0.32, "given"))
    return lambda rows: found


def _compile(cohort: Cohort) -> None:
    rows = np.flatnonzero(np.arange(len(cohort.positive)) % 7 == 0)
    protocols.select(cohort.lesions[rows], cohort.positive[rows], cohort.participants[rows], PLAN)


def _now(cohort: Cohort, n: int) -> tuple[list[float], float]:
    from bids_app.group import permutation
    from bids_app.machine.parallel import Workers

    _compile(cohort)
    with tempfile.TemporaryDirectory() as folder:
        outer = protocols.outer_folds(cohort.positive, cohort.participants, FOLDS, PLAN)
        start = time.process_time()
        laid = permutation.lay(_maps(cohort), cohort.positive, cohort.participants, outer, Path(folder))
        found = permutation.test(laid, 0.5, n, Workers(1), PLAN)
        return list(found.values), (time.process_time() - start) / n


def _recommended(cohort: Cohort, n: int) -> bool:
    """Print CPU seconds of the recommended recipe's permutations; whether they differ from those fold by fold."""
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
    return found["dual"] != found["whole"]


def _walls(cohort: Cohort, n: int, cluster: bool) -> bool:
    """Print wall seconds by workers; whether values differ."""
    from bids_app.group import permutation
    from bids_app.machine.parallel import Workers

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        outer = protocols.outer_folds(cohort.positive, cohort.participants, FOLDS, PLAN)
        laid = permutation.lay(_maps(cohort), cohort.positive, cohort.participants, outer, Path(folder))
        ways = {"1 process": Workers(1), "2 processes": Workers(2)}
        if cluster:
            from distributed import LocalCluster

            made = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=0)
            ways["Dask cluster, 2 workers"] = Workers(dask_scheduler=made.scheduler_address)
        for name, workers in ways.items():
            start = time.perf_counter()
            found[name] = permutation.test(laid, 0.5, n, workers, PLAN).values
            wall = time.perf_counter() - start
            print(f"{name}: {wall:.1f} s, values {_same(found[name] == found['1 process'])}", flush=True)
        if cluster:
            made.close()
    print(f"load of this machine now: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return len(set(found.values())) > 1


def _same(same: bool) -> str:
    return "equal" if same else "DIFFER"


if __name__ == "__main__":
    sys.exit(main())
