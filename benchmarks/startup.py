"""Start-up: CPU seconds of --help and --version, and of finding scans in a data set of empty files.

    python benchmarks/startup.py [--participants N] [--output FILE]

The data set has one session, a FLAIR and a T1w image with sidecars for every participant. CPU seconds are those of
whole processes, children included; the least of three runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

RUNS = 3
ASKED = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--participants", type=int, default=2000, metavar="N", help="default: 2000")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the results as JSON")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "bids"
        labels = make_data_set(root, args.participants)
        asked = [labels[k * (len(labels) - 1) // max(ASKED - 1, 1)] for k in range(ASKED)]
        dry = [str(root), str(Path(folder) / "out"), "participant", "--dry-run"]
        ways: dict[str, tuple[list[str], float | None]] = {
            "--version": (["--version"], 0.3),
            "--help": (["--help"], 0.3),
            f"--dry-run, {ASKED} of {args.participants} participants": ([*dry, "--participant-label", *asked], 3.0),
            f"--dry-run, all {args.participants} participants": (dry, None),
        }
        rows = []
        for name, (words, target) in ways.items():
            seconds = min(cpu_seconds(words) for _ in range(RUNS))
            rows.append({"command": name, "cpu_seconds": round(seconds, 3), "target": target})
    print(f"{'command':<44}{'CPU s':>8}{'target':>8}")
    for row in rows:
        target = "" if row["target"] is None else f"{row['target']:g}"
        print(f"{row['command']:<44}{row['cpu_seconds']:>8.2f}{target:>8}")
    if args.output:
        args.output.write_text(json.dumps({"rows": rows}, indent=2) + "\n", encoding="utf-8")
    return 0


def make_data_set(root: Path, participants: int) -> list[str]:
    """Write a data set of empty images; return its participants' labels."""
    root.mkdir(parents=True)
    about = {"Name": "Empty files", "BIDSVersion": "1.10.0"}
    (root / "dataset_description.json").write_text(json.dumps(about), encoding="utf-8")
    labels = [f"{k:05d}" for k in range(participants)]
    for label in labels:
        folder = root / f"sub-{label}" / "ses-1" / "anat"
        folder.mkdir(parents=True)
        for suffix in ("FLAIR", "T1w"):
            (folder / f"sub-{label}_ses-1_{suffix}.nii.gz").touch()
            (folder / f"sub-{label}_ses-1_{suffix}.json").write_text("{}", encoding="utf-8")
    return labels


def cpu_seconds(words: list[str]) -> float:
    """Return the CPU seconds of one run of the app and its children."""
    before = os.times()
    subprocess.run([sys.executable, "-m", "bids_app", *words], stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


if __name__ == "__main__":
    sys.exit(main())
