"""A made-up BIDS data set for the demo, the tests and the benchmarks: ``python -m bids_app.phantom OUT_DIR``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bids_app.errors import BidsAppError
from bids_app.phantom import further
from bids_app.phantom.cohort import draw_cohort
from bids_app.phantom.dataset import make_dataset, write_cohort
from bids_app.phantom.records import Design


def main(argv: Sequence[str] | None = None) -> int:
    """Write what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser("python -m bids_app.phantom", description="Write a made-up data set.")
    parser.add_argument("out_dir", type=Path, help="folder of the raw data set")
    parser.add_argument("--truth", type=Path, help="folder of the true masks (default: OUT_DIR-truth)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--participants", type=int, help="both groups together (default: 6; cohort: 269)")
    parser.add_argument("--spacing", type=float, nargs=3, default=(0.9, 0.9, 4.0), metavar="MM")
    parser.add_argument("--lesion-free", type=int, default=1, help="NMOSD scans without lesion")
    parser.add_argument("--cohort", action="store_true", help="no images but lesion maps at 3 mm as truth")
    parser.add_argument("--effect", type=float, default=1.0, help="cohort: difference of the groups")
    parser.add_argument("--shuffle-labels", action="store_true", help="cohort: permute participants' labels")
    parser.add_argument("--third", type=int, default=0, metavar="N", help="cohort: participants of a third group")
    parser.add_argument("--sites", action="store_true", help="cohort: a column 'site', unequal between the groups")
    parser.add_argument("--belief", action="store_true", help="cohort: normalised belief maps too (200 KB a scan)")
    args = parser.parse_args(argv)
    truth = args.truth or args.out_dir.with_name(f"{args.out_dir.name}-truth")
    try:
        if args.cohort:
            _make_cohort(args, truth)
        else:
            total = 6 if args.participants is None else args.participants
            design = Design(
                n_positive=(total + 1) // 2,
                n_negative=total // 2,
                spacing=tuple(args.spacing),
                lesion_free=args.lesion_free,
            )
            make_dataset(args.out_dir, truth, design, args.seed)
    except BidsAppError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _make_cohort(args: argparse.Namespace, truth: Path) -> None:
    """Keep the published proportions whatever the number of participants."""
    share = 1.0 if args.participants is None else args.participants / 269
    numbers = [max(1, round(share * n)) for n in (172, 97, 746, 292)]
    cohort = draw_cohort(
        n_participants=(numbers[0], numbers[1]),
        n_scans=(max(numbers[0], numbers[2]), max(numbers[1], numbers[3])),
        seed=args.seed,
        shuffle_labels=args.shuffle_labels,
        effect=args.effect,
    )
    write_cohort(cohort, args.out_dir, truth, args.seed)
    if args.third:
        further.write_third(args.out_dir, truth, args.third, args.seed)
    if args.sites:
        further.write_sites(args.out_dir, cohort, args.seed)
    if args.belief:
        further.write_beliefs(truth, cohort, args.seed)


if __name__ == "__main__":
    sys.exit(main())
