"""Recipe against recipe on made-up cohorts of the published size, and the recommended one on permuted labels.

    python benchmarks/recipes.py [--seeds 0 1 2] [--permuted N] [--published] [--output FILE]

Rows: the recommended recipe, the published classifier without leakage, the log of the lesion volume, and an oracle
that knows the six sites where lesions were drawn; all on the same nested folds over participants (5 x 5, 3
repeats). AUC is that within folds. ``--published`` adds the publication's own way, on its own division.

Exit code 1 unless, on seeds 0, 1 and 2, the recommended recipe reaches 0.82, 0.84 and 0.80 and is within 0.02 of
the oracle; unless 90 % lies in the interval of the coverage of the conformal sets of scans with lesions; and unless
the mean AUC of labels permuted by participant lies within 0.48 and 0.52.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from bids_app.image.atlas import brain_grid
from bids_app.learning.division import divide, permute
from bids_app.learning.protocols import Plan, published
from bids_app.options import Options
from bids_app.phantom.cohort import draw_cohort, sites
from bids_app.recommended import comparison, rivals
from bids_app.recommended.nested import Recipe, Wanted, outer_folds, run
from bids_app.recommended.products import Products, products
from bids_app.records.cohort import Cohort, LesionMaps, Threshold
from bids_app.records.recommended import Kind

FOLDS, REPEATS, DRAWS, COVERAGE = 5, 3, 2000, 0.90
LEAST = {0: 0.82, 1: 0.84, 2: 0.80}
BELOW_ORACLE, CHANCE = 0.02, (0.48, 0.52)


def default_plan(seed: int) -> Plan:
    """Return the plan of a group run with default options."""
    options = Options(Path(), Path(), "group")
    return Plan(options.cv_folds, options.refine_limit, options.solver, options.bootstrap_draws, seed)


def oracle_products(cohort: Cohort, person: np.ndarray) -> Products:
    """Return products of the standardised logs of the lesion voxels at each true site and in all."""
    loads = [cohort.lesions[:, where].sum(axis=1) for where in sites().values()]
    features = np.log1p(np.stack([*loads, cohort.lesions.sum(axis=1)], axis=1).astype(float))
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    sizes = np.bincount(person)
    means = np.stack([np.bincount(person, weights=each) / sizes for each in features.T], axis=1)
    volume = features[:, -1]
    free = np.asarray(~cohort.lesions.any(axis=1))
    kinds = (Kind(0.0, False),)
    return Products(kinds, (features @ means.T)[None], (means @ means.T)[None], volume, means[:, -1], person, free)


def prepare(seed: int) -> tuple[Cohort, Products, float]:
    """Draw a cohort and return it with its products, and the CPU seconds of those."""
    cohort, grid = draw_cohort(seed=seed), brain_grid(3)
    start = time.process_time()
    made = products(cohort.lesions, cohort.participants, grid.data, grid.affine)
    return cohort, made, time.process_time() - start


def run_seed(seed: int, cohort: Cohort, made: Products, preparing: float, with_published: bool) -> dict[str, Any]:
    """Evaluate every recipe on a cohort."""
    positive, participants = cohort.positive, cohort.participants
    outer = outer_folds(positive, participants, FOLDS, REPEATS, seed)
    draws = comparison.draw(positive, participants, DRAWS, seed)
    oracle = oracle_products(cohort, made.person)
    recipes: dict[str, tuple[Recipe, float]] = {
        "recommended": (rivals.recommended(made, positive, participants, FOLDS), preparing),
        "leakage-free": (rivals.chi_square(cohort.lesions, positive, participants, default_plan(seed)), 0.0),
        "log volume": (rivals.volume(made.volume, positive, participants), 0.0),
        "oracle": (rivals.recommended(oracle, positive, participants, FOLDS), 0.0),
    }
    rows: dict[str, Any] = {}
    sampled = {}
    for name, (recipe, before) in recipes.items():
        start = time.process_time()
        found = run(name, recipe, outer, made.lesion_free, Wanted(COVERAGE, 0.8), seed)
        seconds = before + time.process_time() - start
        sampled[name] = comparison.sample(found, positive, participants, draws)
        held = np.where(positive, found.sets[..., 0], found.sets[..., 1]).mean(axis=0)  # type: ignore[index]
        sampled[name] |= {
            f"coverage_{group}": comparison.over_participants(held, rows_, positive, participants, draws)
            for group, rows_ in (
                ("with_lesions", ~made.lesion_free),
                ("positive", ~made.lesion_free & positive),
                ("negative", ~made.lesion_free & ~positive),
            )
        }
        undecided = found.sets.sum(axis=-1)[:, ~made.lesion_free] != 1  # type: ignore[union-attr]
        measures = {key: asdict(comparison.measure(each, "")) for key, each in sampled[name].items()}
        rows[name] = {**measures, "cpu_seconds": seconds, "undecided": float(undecided.mean())}
    if with_published:
        start = time.process_time()
        given = LesionMaps(cohort.lesions, Threshold(0.32, "given"))
        division = divide(positive, participants, by="scan", seed=seed)
        own = published(lambda _: given, positive, participants, division, default_plan(seed))
        measures = {key: asdict(each) for key, each in own.test.bootstrap.items()}
        rows["published"] = {**measures, "cpu_seconds": time.process_time() - start}
    return rows


def run_permuted(cohort: Cohort, made: Products, seed: int) -> float:
    """Return the nested AUC of the recommended recipe after permuting the labels by participant."""
    positive, participants = permute(cohort.positive, cohort.participants, seed), cohort.participants
    recipe = rivals.recommended(made, positive, participants, FOLDS)
    outer = outer_folds(positive, participants, FOLDS, REPEATS, seed)
    found = run("permuted", recipe, outer, made.lesion_free, Wanted(COVERAGE, 0.8), seed)
    draws = comparison.draw(positive, participants, 1, seed)
    return comparison.sample(found, positive, participants, draws)["auc"].value


def targets(seeds: dict[int, dict[str, Any]], permuted: Sequence[float]) -> dict[str, bool]:
    """Return by name which targets are met."""
    met = {}
    for seed, rows in seeds.items():
        area, oracle = rows["recommended"]["auc"]["value"], rows["oracle"]["auc"]["value"]
        if seed in LEAST:
            met[f"seed {seed}: recommended {area:.3f} at least {LEAST[seed]}"] = area >= LEAST[seed]
        met[f"seed {seed}: within {BELOW_ORACLE} of the oracle's {oracle:.3f}"] = area >= oracle - BELOW_ORACLE
        cover = rows["recommended"]["coverage_with_lesions"]
        words = f"coverage {cover['value']:.3f} ({cover['low']:.3f}-{cover['high']:.3f}) of {COVERAGE}"
        met[f"seed {seed}: {words}"] = cover["low"] <= COVERAGE <= cover["high"]
    if permuted:
        mean = float(np.mean(permuted))
        met[f"permuted labels, {len(permuted)} seeds: mean AUC {mean:.3f}"] = CHANCE[0] <= mean <= CHANCE[1]
    return met


def show(seed: int, rows: dict[str, Any]) -> None:
    """Print the rows of one seed."""
    print(f"seed {seed}: AUC (95 % interval), by participant, Brier; coverage with lesions, undecided; CPU s")
    for name, row in rows.items():
        area = row["auc"]
        line = f"  {name:<13}{area['value']:.3f} ({area['low']:.3f}-{area['high']:.3f})"
        if "brier" in row:
            line += f"  {row['auc_participants']['value']:.3f}  {row['brier']['value']:.3f}"
            line += f"  {row['coverage_with_lesions']['value']:.3f}  {row['undecided']:.3f}"
        print(f"{line}  {row['cpu_seconds']:.1f}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 if the targets are met."""
    parser = argparse.ArgumentParser(description="Recipe against recipe on made-up cohorts")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], metavar="N", help="cohorts drawn")
    parser.add_argument("--permuted", type=int, default=20, metavar="N", help="seeds of permuted labels (default: 20)")
    parser.add_argument("--published", action="store_true", help="the publication's own way too")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the results as JSON")
    options = parser.parse_args(argv)
    seeds: dict[int, dict[str, Any]] = {}
    permuted = []
    with threadpool_limits(1):
        for seed in options.seeds:
            cohort, made, preparing = prepare(seed)
            seeds[seed] = run_seed(seed, cohort, made, preparing, options.published)
            show(seed, seeds[seed])
            # the permutations are shared out among the cohorts: their products are the same for all labels
            for number in range(options.seeds.index(seed), options.permuted, len(options.seeds)):
                permuted.append(run_permuted(cohort, made, number))
                print(f"  labels permuted, seed {number}: AUC {permuted[-1]:.3f}", flush=True)
    met = targets(seeds, permuted)
    print("\n".join(f"{'met' if each else 'MISSED':<8}{name}" for name, each in met.items()))
    if options.output:
        found = {"seeds": seeds, "permuted": permuted, "targets_met": met}
        options.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return int(not all(met.values()))


if __name__ == "__main__":
    sys.exit(main())
