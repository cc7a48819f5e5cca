"""The permutation test: the whole nested selection again and again, with labels permuted over participants."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bids_app import engine, protocols
from bids_app.cohort import permute
from bids_app.errors import BadInputError
from bids_app.evaluation import permutation_p
from bids_app.protocols import Plan
from bids_app.records import Cohort

log = logging.getLogger("bids_app")


class _Draw(NamedTuple):
    """One permutation: the cohort's file, and the seed of the labels."""

    cohort: Path
    seed: int
    n_folds: int
    plan: Plan


def test(
    cohort: Cohort, observed: float, workers: engine.Workers, plan: Plan, *, n_folds: int, n: int, work_dir: Path
) -> dict[str, object]:
    """Return statistic, observed value, number of permutations, p and the permuted values.

    Parameters
    ----------
    cohort : Cohort
    observed : float
        Nested AUC of the true labels.
    workers : Workers
        A permutation is one task.
    plan : Plan
        Its seed + k draws the k-th permutation.
    n_folds, n : int
        Outer folds, and permutations.
    work_dir : Path
        Where the cohort is laid for the workers.

    Raises
    ------
    BadInputError
        When a permutation was lost with its worker.
    """
    path = work_dir / "cohort.npz"
    work_dir.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        lesions=np.packbits(cohort.lesions, axis=1),
        n_voxels=cohort.lesions.shape[1],
        positive=cohort.positive,
        participants=np.unique(cohort.participants, return_inverse=True)[1],
    )
    quiet = replace(plan, progress=_quiet)
    draws = [_Draw(path, plan.seed + 1 + k, n_folds, quiet) for k in range(n)]
    found: dict[int, float] = {}
    for seed, value in engine.run(_permuted, draws, workers, _lost):
        found[seed] = value
        log.info("permutation %d of %d: AUC %.3f", len(found), n, value)
    values = [found[seed] for seed in sorted(found)]
    return {
        "statistic": "nested AUC",
        "observed": observed,
        "n": len(values),
        "p": permutation_p(observed, values),
        "values": values,
    }


def _quiet(line: str) -> None:
    """Say nothing: a permutation's progress is its number."""


def _permuted(draw: _Draw) -> tuple[int, float]:
    with np.load(draw.cohort, allow_pickle=False) as stored:
        lesions = np.unpackbits(stored["lesions"], axis=1, count=int(stored["n_voxels"])).astype(bool)
        positive, participants = stored["positive"], stored["participants"]
    labels = permute(positive, participants, draw.seed)
    return draw.seed, protocols.permuted_auc(lesions, labels, participants, draw.n_folds, draw.plan)


def _lost(draw: _Draw, reason: str) -> tuple[int, float]:
    raise BadInputError(f"permutation {draw.seed} was lost ({reason})", remedy="lower --nprocs")
