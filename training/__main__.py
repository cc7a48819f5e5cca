"""``python -m training brain`` and ``lesions``: the weights of the networks in the app, from the Open MS data.

Example: ``python -m training brain --data open-ms/raw --output trained``, the same with ``--leave-out sub-01`` and
another output for an honest score, then ``python -m training card brain --trained trained --left-out without-01``.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bids_app.image.brain import SHAPE
from training import fit as brain
from training.export import commit, publish, to_onnx, write_card
from training.fit import Budget
from training.heads import read_scans
from training.lesions import cases, slabs
from training.lesions import fit as lesions
from training.lesions.net import INPUTS

PACKAGE = Path(__file__).parents[1] / "bids_app" / "weights"
Learn = Callable[..., nn.Module]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    what = top.add_subparsers(dest="what", required=True)
    for name, does, steps in (("brain", "the brain", 8000), ("lesions", "lesions", 3500)):  # as the weights had
        line = what.add_parser(name, help=f"train the network that finds {does}")
        line.add_argument("--data", type=Path, required=True, help="BIDS data set with the FLAIRs")
        line.add_argument("--output", type=Path, required=True, help="folder for weights, card and log")
        line.add_argument("--steps", type=int, default=steps, help="of training (default: %(default)s)")
        line.add_argument("--minutes", type=float, help="train so long instead; then no two runs are equal")
        line.add_argument("--leave-out", metavar="PATIENT", default="", help="to test on instead: sub-01, patient07")
        line.add_argument(
            "--start", type=Path, help="output of an earlier run on the same patients: begin with its weights"
        )
        line.add_argument("--seed", type=int, default=1, help="of weights and draws (default: %(default)s)")
        line.add_argument("--threads", type=int, default=1, help="of the processor (default: %(default)s)")
        line.add_argument(
            "--float32",
            action="store_true",
            help="not in bfloat16: faster where the processor has neither avx512_bf16 nor amx_bf16",
        )
    masks, outlined = (what.choices[name] for name in ("brain", "lesions"))
    masks.add_argument("--expert", type=Path, help="derivative data set with raters' masks (default: DATA/../expert)")
    outlined.add_argument("--mni", type=Path, required=True, help="folder with experts' lesions in MNI space")
    outlined.add_argument("--cases", type=Path, help="folder for what the chain finds (default: OUTPUT/cases)")
    card = what.add_parser("card", help="put a run's weights into the package, with the scores of runs that left out")
    card.add_argument("network", choices=("brain", "lesions"))
    card.add_argument("--trained", type=Path, required=True, help="output of the run on all patients")
    card.add_argument("--left-out", type=Path, nargs="*", default=[], help="outputs of the runs with --leave-out")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; returns the exit code."""
    line = parser()
    options = line.parse_args(argv)
    commit()  # as it is now
    if options.what == "card":
        for name, score in publish(options.network, options.trained, options.left_out, PACKAGE).items():
            print(f"{name}\t{score:.4f}")
        return os.EX_OK
    return train_brain(line, options) if options.what == "brain" else train_lesions(line, options)


def train_brain(line: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Train the network that finds the brain."""
    expert = options.expert or options.data.parent / "expert"
    scans = read_scans(options.data, expert)
    left_out = [scan for scan in scans if scan.patient == options.leave_out]
    scans = [scan for scan in scans if scan.patient != options.leave_out]
    if not any(scan.mask is not None for scan in scans):
        line.error(f"no scan under {options.data} has a rater's mask under {expert}: give --data and --expert")
    if options.leave_out and not left_out:
        line.error(f"--leave-out {options.leave_out}: no such patient under {options.data}")

    def learn(**how: Any) -> nn.Module:
        return brain.fit(scans, left_out, **how)

    net, earlier = train(options, learn, [scan.name for scan in scans])
    to_onnx(net, options.output / "brain.onnx", (1, *SHAPE))
    scores = zip((scan.name for scan in left_out if scan.mask is not None), brain.check(net, left_out), strict=True)
    facts = {"Scans": [s.name for s in scans], "RatersMasks": [s.name for s in scans if s.mask is not None]}
    write(options, earlier, facts, dict(scores))
    return os.EX_OK


def train_lesions(line: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Train the network that finds lesions."""
    folder = options.cases or options.output / "cases"
    if not any(options.mni.glob("*_lesions.nii.gz")):
        line.error(f"no experts' lesions under {options.mni}: give --data and --mni")
    cases.make(options.data, options.mni, folder)
    every = cases.read_cases(folder)
    left_out = [case for case in every if case.patient == options.leave_out]
    if options.leave_out and not left_out:
        line.error(f"--leave-out {options.leave_out}: no such patient under {options.data} or {options.mni}")
    kept = [case for case in every if case.patient != options.leave_out and not case.thick]
    used = [case.without(options.leave_out) for case in kept]

    def learn(**how: Any) -> nn.Module:
        return lesions.fit(used, [case for case in left_out if case.thick], **how)

    net, earlier = train(options, learn, [case.name for case in used])
    to_onnx(net, options.output / "lesions.onnx", (INPUTS, *slabs.SHAPE), free=(2, 3))
    labelled = [case.name for case in left_out if case.lesions is not None]
    facts = {"Scans": [c.name for c in used], "Outlined": [c.name for c in used if c.lesions is not None]}
    facts["Painted"] = list(used[0].people)
    write(options, earlier, facts, dict(zip(labelled, lesions.check(net, left_out), strict=True)))
    return os.EX_OK


def train(options: argparse.Namespace, learn: Learn, scans: list[str]) -> tuple[nn.Module, Mapping[str, Any]]:
    """Train, and write the weights of torch and ``log.tsv``; returns the network and the card of an earlier run."""
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    earlier = start_of(options.start, options.what, scans)
    with (options.output / "log.tsv").open("w", encoding="utf-8") as log:

        def write(row: str) -> None:
            log.write(row + "\n")
            log.flush()
            print(row, flush=True)

        net = learn(
            budget=Budget(options.steps, options.minutes),
            seed=options.seed,
            device="cuda" if torch.cuda.is_available() else "cpu",
            short=not options.float32,
            write=write,
            keep=lambda kept: torch.save(kept.state_dict(), options.output / f"{options.what}.pt"),
            start=earlier["weights"],
        )
    return net, earlier


def write(
    options: argparse.Namespace, earlier: Mapping[str, Any], facts: dict[str, Any], scores: dict[str, float]
) -> None:
    """Write the card of a run: ``brain.json`` or ``lesions.json``."""
    about = {
        "Command": command(options),
        "Earlier": earlier["card"],
        "Commit": commit(),
        **facts,
        "LeftOut": options.leave_out or None,
        "DiceLeftOut": {name: round(score, 4) for name, score in scores.items()},
    }
    write_card(options.output / f"{options.what}.json", about)


def start_of(folder: Path | None, what: str, scans: list[str]) -> dict[str, Any]:
    """Return weights and command of an earlier run, or nothing; a run that saw other patients is refused."""
    if folder is None:
        return {"weights": None, "card": None}
    card = json.loads((folder / f"{what}.json").read_text(encoding="utf-8"))
    if card["Scans"] != scans:
        raise SystemExit(
            f"{folder}: trained on other scans than these; give --start a run that left out the same patient"
        )
    weights = torch.load(folder / f"{what}.pt", weights_only=True)
    return {"weights": weights, "card": {key: card[key] for key in ("Command", "Commit")}}


def command(options: argparse.Namespace) -> str:
    """Return the command line that trains the same again, without the places of this machine."""
    words = ["python", "-m", "training", options.what, "--data", "RAW", "--output", "FOLDER"]
    words += ["--mni", "MNI"] if options.what == "lesions" else []
    words += ["--seed", str(options.seed)]
    words += ["--minutes", str(options.minutes)] if options.minutes else ["--steps", str(options.steps)]
    words += ["--leave-out", options.leave_out] if options.leave_out else []
    words += ["--start", "EARLIER"] if options.start else []
    return shlex.join([*words, *(["--float32"] if options.float32 else [])])


if __name__ == "__main__":
    sys.exit(main())
