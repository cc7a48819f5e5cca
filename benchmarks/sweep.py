"""CPU seconds of the sweep at the published size, six ways, after checking that the answers are equal.

    python benchmarks/sweep.py [--quick | --full] [--permutations N] [--output FILE]

The cohort is made up: 722 training scans (518 and 204) of 269 patients x 48,193 voxels, about 2.9 % ones,
with an effect of the patient. The sweep is 17 voxel counts x 9 x 9 (C, gamma) x 10 folds = 13,770 fits.

1. naive        selection and SVC in a scikit-learn Pipeline on the raw voxels, as GridSearchCV runs it.
                Hours long, so NOT measured whole: single fits are timed at some counts and cells, times the
                number of fits; counts between are interpolated on logarithmic axes.
2. precomputed  one ranking, kernels from nested distances, scikit-learn's SVC (``solver="libsvm"``) at its own
                tolerance, 1e-3. For the comparison of answers it runs again at 1e-5, since at 1e-3 a few of its
                validation scans change sides; that run is not timed against ours.
3. ours         one ranking, our solver.
4. reranked     ours, voxels ranked anew in every fold.
5. nested       ours, reranked, inside 10 outer folds; ranking, count and cell chosen anew in each.
6. permuted     5 outer folds by the coarser search of `--permutations`, after permuting the labels. The first 5
                permutations are timed, and SCALED to 200.

Times are of `time.process_time`, one thread; ways 3 and 4 are the best of three runs, after compiling.
--quick runs a small cohort; --full times more fits of the naive way and one whole GridSearchCV (minutes).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numba
import numpy as np
import sklearn
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from bids_app.learning.division import permute
from bids_app.learning.protocols import OuterPart, Plan, decide_fold, fold_numbers, outer_folds
from bids_app.learning.ranking import rank_counts, rank_voxels
from bids_app.learning.refit import refit
from bids_app.learning.sweep import TOL, Search, best_cell, best_count, powers_of_two, sweep
from bids_app.records.cohort import Fold, Grid, SweepResult

VALUES = tuple(2.0**k for k in range(-3, 6))
GRID = Grid(VALUES, VALUES)
TARGETS = {"naive / ours": 2000, "precomputed / ours": 40}  # at least
CEILINGS = {"reranked / ours": 2, "nested": 30, "200 permutations": 7200}  # at most; the last two in CPU seconds
PERMUTATIONS = 200  # to which the timed ones are scaled
OUTER = 5  # folds of the permutation test, as many as the app has by default
THEIR_TOL, TIGHT = 1e-3, 1e-5  # LIBSVM's default, and one at which it agrees with itself
T = TypeVar("T")


@dataclass(frozen=True)
class Size:
    """How large the cohort and the sweep are, and how much of the naive way is timed."""

    positive: int
    negative: int
    patients: int
    voxels: int
    folds: int
    timed_counts: tuple[int, ...]
    timed_cells: tuple[int, ...]  # along both axes of the grid
    searched: tuple[float, ...]  # C and gamma of the GridSearchCV that is run whole
    searched_count: int


SIZES = {
    "quick": Size(110, 50, 60, 3000, 5, (1, 64, 3000), (0, 8), (0.125, 2.0, 32.0), 8),
    "default": Size(518, 204, 269, 48193, 10, (1, 32, 1024, 48193), (0, 8), (0.125, 2.0, 32.0), 32),
    "full": Size(518, 204, 269, 48193, 10, (1, 8, 32, 128, 512, 2048, 8192, 48193), (0, 4, 8), VALUES, 32),
}


def simulate(size: Size, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make up lesion maps (N, V) and labels (N,): rare lesions that recur in the scans of a patient."""
    rng = np.random.default_rng(seed)
    n = size.positive + size.negative
    share = size.positive / n
    of_patient = np.arange(size.patients) < round(share * size.patients)
    patients = [np.flatnonzero(of_patient == group) for group in (True, False)]
    positive = np.repeat([True, False], [size.positive, size.negative])
    patient = np.concatenate([rng.choice(patients[0], size.positive), rng.choice(patients[1], size.negative)])
    common = rng.gamma(0.3, 1.0, size.voxels)
    common *= 0.032 / common.mean()
    effect = np.exp(rng.normal(0.0, 0.7, size.voxels) * (rng.random(size.voxels) < 0.05))
    load = rng.gamma(1.5, 1 / 1.5, size.patients)
    lesions = np.empty((n, size.voxels), bool)
    for p in range(size.patients):
        frequency = np.minimum(common * load[p] * (effect if of_patient[p] else 1.0), 0.9)
        own = rng.random(size.voxels) < frequency
        for row in np.flatnonzero(patient == p):
            kept = own & (rng.random(size.voxels) < 0.8)
            lesions[row] = kept | (rng.random(size.voxels) < 0.2 * frequency)
    return lesions, positive


def stratified(positive: np.ndarray, k: int, seed: int = 0) -> list[Fold]:
    """Divide scans in k folds at random, both groups alike."""
    splitter = StratifiedKFold(k, shuffle=True, random_state=seed)
    return [Fold(train, validate) for train, validate in splitter.split(positive, positive)]


def cpu_seconds(run: Callable[[], T], repeats: int = 1) -> tuple[float, T]:
    """Return the least CPU seconds of some runs, and the last result."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        result = run()
        seconds.append(time.process_time() - start)
    return min(seconds), result


class TopVoxels(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Selection as a scikit-learn transformer: the n voxels of largest chi-square, ties by index."""

    def __init__(self, n: int = 1) -> None:
        self.n = n

    def fit(self, X: np.ndarray, y: np.ndarray) -> TopVoxels:
        """Rank the voxels of X (N, V) by labels y (N,)."""
        a, b = X[y].sum(axis=0), X[~y].sum(axis=0)
        self.chosen_ = rank_counts(a, b, int(y.sum()), int((~y).sum())).order[: self.n]
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Return the chosen columns."""
        return X[:, self.chosen_]


def naive_pipeline(n: int) -> Pipeline:
    """Select n voxels, then classify, fold by fold: free of leakage, and slow."""
    return Pipeline([("select", TopVoxels(n)), ("svc", SVC())])


def naive_check(lesions: np.ndarray, positive: np.ndarray, folds: Sequence[Fold], size: Size) -> str:
    """Run one GridSearchCV whole and return how its answer differs from ours ('' if it does not)."""
    grid, n = Grid(size.searched, size.searched), size.searched_count
    parameters = {"svc__C": grid.C, "svc__gamma": grid.gamma}
    rows = [(fold.train, fold.validate) for fold in folds]
    search = GridSearchCV(naive_pipeline(n), parameters, cv=rows, refit=False)
    search.fit(lesions.astype(float), positive)
    cell = best_cell(sweep(lesions, positive, folds, [n], grid, Search(rerank=True)), 0)
    if search.best_params_ == {"svc__C": cell.C, "svc__gamma": cell.gamma}:
        return ""
    return f"n = {n}: GridSearchCV chose {search.best_params_}, ours {cell}"


def naive_seconds(lesions: np.ndarray, positive: np.ndarray, fold: Fold, size: Size) -> tuple[float, dict]:
    """Return the extrapolated CPU seconds of the naive sweep, and those of one fit at the timed counts."""
    features = lesions.astype(float)
    train, validate = features[fold.train], features[fold.validate]
    per_fit = {}
    for n in size.timed_counts:
        seconds = []
        for c in size.timed_cells:
            for g in size.timed_cells:
                model = naive_pipeline(n).set_params(svc__C=GRID.C[c], svc__gamma=GRID.gamma[g])

                def run(model: Pipeline = model) -> float:
                    return model.fit(train, positive[fold.train]).score(validate, positive[fold.validate])

                seconds.append(cpu_seconds(run)[0])
        per_fit[n] = float(np.mean(seconds))
    counts = powers_of_two(size.voxels)
    at = np.exp(np.interp(np.log(counts), np.log(list(per_fit)), np.log(list(per_fit.values()))))
    return float(at.sum() * len(GRID.C) * len(GRID.gamma) * size.folds), per_fit


def nested(lesions: np.ndarray, positive: np.ndarray, size: Size) -> float:
    """Cross-validate the whole choice of voxels, count and cell; return the accuracy."""
    right = 0
    for number, outer in enumerate(stratified(positive, size.folds, seed=1)):
        maps, labels = lesions[outer.train], positive[outer.train]
        inner = stratified(labels, size.folds, seed=number)
        cell = best_count(sweep(maps, labels, inner, powers_of_two(size.voxels), GRID, Search(rerank=True)))
        order = rank_voxels(maps, labels).order
        values = [refit(maps, labels, lesions[outer.validate], [cell], order)[0].test]
        right += int(((values[0] >= 0) == positive[outer.validate]).sum())
    return right / len(positive)


def permuted(lesions: np.ndarray, positive: np.ndarray, size: Size, n: int) -> None:
    """Repeat the nested selection of the permutation test with labels permuted, every scan a participant."""
    plan = Plan(size.folds, 64, "smo", 100, 0).coarser()
    people = np.array([f"{k:04d}" for k in range(len(positive))])
    outer = outer_folds(positive, people, OUTER, plan)
    parts = [OuterPart.of(lesions, fold) for fold in outer]
    for seed in range(n):
        labels = permute(positive, people, seed, within=fold_numbers(outer))
        for fold, part in zip(outer, parts, strict=True):
            decide_fold(part, labels[fold.train], people[fold.train], plan)


def differing_cells(a: SweepResult, b: SweepResult) -> list[str]:
    """Return where two sweeps choose other cells."""
    pairs = [(best_cell(a, i), best_cell(b, i)) for i in range(len(a.counts))]
    return [f"{x} and {y}" for x, y in pairs if (x.C, x.gamma) != (y.C, y.gamma)]


def measure(size: Size, permutations: int) -> dict:
    """Run all ways; return seconds, ratios and differences."""
    lesions, positive = simulate(size)
    folds, counts = stratified(positive, size.folds), powers_of_two(size.voxels)
    print(f"{len(lesions)} scans x {size.voxels} voxels, {100 * lesions.mean():.1f} % ones", flush=True)

    def way(rerank: bool, solver: str = "smo", tol: float = TOL) -> Callable[[], SweepResult]:
        return lambda: sweep(lesions, positive, folds, counts, GRID, Search(rerank=rerank, solver=solver, tol=tol))

    sweep(lesions[:, :5], positive, folds, [1, 5], GRID, Search(rerank=True))  # compiles, or loads what is compiled
    seconds: dict[str, float] = {}
    seconds["precomputed"], _ = cpu_seconds(way(False, "libsvm", THEIR_TOL))
    seconds["ours"], published = cpu_seconds(way(False), repeats=3)
    _, reference = cpu_seconds(way(False, "libsvm", TIGHT))
    differences = differing_cells(reference, published)
    off = np.abs((reference.correct - published.correct).sum(axis=-1))
    if off.max() > 1:
        differences.append(f"{off.max()} scans in a cell's cross-validation")
    print(f"chosen cells that differ from scikit-learn's: {len(differences)} of {len(counts)}")
    print(f"cells whose accuracy differs: {np.count_nonzero(off)} of {off.size}, by at most {off.max()} scan(s)")
    wrong = naive_check(lesions, positive, folds, size)
    print(f"GridSearchCV over the Pipeline chooses {'another cell: ' + wrong if wrong else 'the same cell'}")
    differences += [wrong] if wrong else []
    seconds["reranked"], _ = cpu_seconds(way(True), repeats=3)
    seconds["nested"], accuracy = cpu_seconds(lambda: nested(lesions, positive, size))
    shuffled, _ = cpu_seconds(lambda: permuted(lesions, positive, size, permutations))
    if permutations:
        seconds["200 permutations"] = shuffled / permutations * PERMUTATIONS
    seconds["naive"], per_fit = naive_seconds(lesions, positive, folds[0], size)
    ratios = {f"{name} / ours": value / seconds["ours"] for name, value in seconds.items() if name != "ours"}
    print(f"{permutations} permutations timed, scaled to {PERMUTATIONS}")
    return {
        "scans": len(lesions),
        "voxels": size.voxels,
        "counts": list(counts),
        "fits": len(counts) * len(GRID.C) * len(GRID.gamma) * size.folds,
        "cpu_seconds": seconds,
        "naive_is_extrapolated_from_cpu_seconds_per_fit": per_fit,
        "ratios": ratios,
        "differences": differences,
        "cells_with_other_accuracy": int(np.count_nonzero(off)),
        "largest_difference_in_scans": int(off.max()),
        "nested_accuracy": accuracy,
    }


def verdicts(found: dict) -> dict[str, bool]:
    """Say which targets are met; they are meant for the published size."""
    values = {**found["cpu_seconds"], **found["ratios"]}
    met = {f"{name} >= {least}": values[name] >= least for name, least in TARGETS.items()}
    return met | {f"{name} <= {most}": values[name] <= most for name, most in CEILINGS.items() if name in values}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 if all answers are equal."""
    parser = argparse.ArgumentParser(description="CPU seconds of the sweep, six ways")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_const", const="quick", dest="size", help="a small cohort")
    which.add_argument("--full", action="store_const", const="full", dest="size", help="more of the naive way")
    parser.add_argument("--permutations", type=int, default=5, metavar="N", help="how many to time (default: 5)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the results as JSON")
    parser.set_defaults(size="default")
    options = parser.parse_args(argv)
    with threadpool_limits(1):
        found = measure(SIZES[options.size], options.permutations)
    print(f"\n{'way':<18}{'CPU s':>12}{'x ours':>12}")
    notes = {"naive": "  (extrapolated from single fits)", "200 permutations": "  (scaled)"}
    for name in ("naive", "precomputed", "ours", "reranked", "nested", "200 permutations"):
        if name not in found["cpu_seconds"]:
            continue
        seconds, note = found["cpu_seconds"][name], notes.get(name, "")
        print(f"{name:<18}{seconds:>12.2f}{seconds / found['cpu_seconds']['ours']:>12.1f}{note}")
    if options.size != "quick":
        found["targets_met"] = verdicts(found)
        print("\n" + "\n".join(f"{'met' if met else 'MISSED':<8}{name}" for name, met in found["targets_met"].items()))
    found["versions"] = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "scikit-learn": sklearn.__version__,
    }
    if options.output:
        options.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for difference in found["differences"]:
        print(f"different answer: {difference}", file=sys.stderr)
    return int(bool(found["differences"]))


if __name__ == "__main__":
    sys.exit(main())
