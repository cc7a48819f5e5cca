"""What the convolutional network (`--compare cnn`) costs and finds on a made-up cohort, beside the recommended recipe.

    python benchmarks/network.py [--participants 172 97] [--scans 746 292] [--seed 0] [--belief] [--output FILE]

One nested run: 5 outer and 5 inner folds over participants, on shared folds. Prints AUC within folds, AUC by
participant, CPU seconds on one thread, wall seconds, and the epochs that were chosen. ``--belief`` adds the network
with belief maps as a second channel, of which the phantom's are made as `--belief` of ``python -m bids_app.phantom``
makes them. Needs ``pip install '.[cnn]'``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from bids_app.cohort import beliefs
from bids_app.image.atlas import brain_grid
from bids_app.phantom.cohort import draw_cohort
from bids_app.phantom.further import write_beliefs
from bids_app.recommended import comparison, rivals
from bids_app.recommended.nested import Recipe, Wanted, outer_folds, run
from bids_app.recommended.products import products
from bids_app.records.cohort import Cohort
from bids_app.rivals import cnn
from bids_app.rivals.chosen import People
from bids_app.rivals.volumes import Maps

FOLDS, DRAWS = 5, 2000


def recipes(cohort: Cohort, belief: np.ndarray | None) -> dict[str, Recipe]:
    """Return what is compared, by name."""
    grid, positive = brain_grid(3), cohort.positive
    made = products(cohort.lesions, cohort.participants, grid.data, grid.affine)
    people = People(positive, made.person, made.lesion_free)
    found = {
        "recommended": rivals.recommended(made, positive, cohort.participants, FOLDS),
        "cnn": cnn.recipe(Maps(grid.data, cohort.lesions), people, FOLDS),
    }
    if belief is not None:
        found["cnn, belief"] = cnn.recipe(Maps(grid.data, cohort.lesions, belief), people, FOLDS)
    return found


def measured(name: str, recipe: Recipe, cohort: Cohort, seed: int) -> dict[str, Any]:
    """Return AUC, seconds and choices of one nested run."""
    positive, participants = cohort.positive, cohort.participants
    outer = outer_folds(positive, participants, FOLDS, 1, seed)
    free = np.asarray(~cohort.lesions.any(axis=1))
    cpu, wall = time.process_time(), time.perf_counter()
    found = run(name, recipe, outer, free, Wanted(0.9, 0.9), seed)
    row: dict[str, Any] = {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall}
    draws = comparison.draw(positive, participants, DRAWS, seed)
    for key, each in comparison.sample(found, positive, participants, draws).items():
        if key in ("auc", "auc_participants"):
            measure = comparison.measure(each, "")
            row[key] = [measure.value, measure.low, measure.high]
    return row | {"epochs": [each["epochs"] for each in found.chosen if isinstance(each, dict)]}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="Cost and AUC of the convolutional network on a made-up cohort")
    parser.add_argument("--participants", type=int, nargs=2, default=[172, 97], metavar="N", help="of either group")
    parser.add_argument("--scans", type=int, nargs=2, default=[746, 292], metavar="N", help="of either group")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--belief", action="store_true", help="with belief maps as a second channel too")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the results as JSON")
    options = parser.parse_args(argv)
    sizes = {"n_participants": tuple(options.participants), "n_scans": tuple(options.scans)}
    with threadpool_limits(1):
        cohort, belief = draw_cohort(**sizes, seed=options.seed), None
        if options.belief:
            with tempfile.TemporaryDirectory() as folder:
                write_beliefs(Path(folder), cohort, options.seed)
                belief = beliefs.load(cohort.scans, Path(folder))
        rows = {}
        print(f"{len(np.unique(cohort.participants))} participants, {len(cohort.positive)} scans; AUC (95 % interval), "
              "by participant; CPU s, wall s; epochs")  # fmt: skip
        for name, recipe in recipes(cohort, belief).items():
            row = rows[name] = measured(name, recipe, cohort, options.seed)
            area, by = row["auc"], row["auc_participants"][0]
            print(f"  {name:<13}{area[0]:.3f} ({area[1]:.3f}-{area[2]:.3f})  {by:.3f}  {row['cpu_seconds']:.0f}  "
                  f"{row['wall_seconds']:.0f}  {row['epochs']}", flush=True)  # fmt: skip
    if options.output:
        found = {"seed": options.seed, **sizes, "rows": rows}
        options.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
