"""Many scans: whether memory is flat, files are closed, and nothing is lost by a kill in the middle.

    python benchmarks/load.py [--scans 1000] [--nprocs 2] [--science] [--maps 5000] [--output FILE]

The participant level runs as a command of its own on copies of one phantom scan, is killed (SIGKILL) half way, and
runs again. Without ``--science`` what is found in a scan is read from a file (tests/quick_app.py), so that a thousand
scans take minutes; engine, reading, writing, marks, table and reports are real. ``--science`` runs everything.
Then the group level runs on ``--maps`` made-up lesion maps. 0 leaves a part out.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from bids_app.bids.query import find_scans
from bids_app.files import atomic, formats
from bids_app.phantom import dataset
from bids_app.phantom.cohort import draw_cohort
from bids_app.phantom.dataset import write_cohort
from bids_app.phantom.records import Design

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path.insert(0, str(TESTS))
import quick_app  # noqa: E402


def main() -> int:
    """Run and print the tables; 1 where something was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=1000)
    parser.add_argument("--nprocs", type=int, default=2)
    parser.add_argument("--science", action="store_true", help="find everything in every scan (15 CPU s each)")
    parser.add_argument("--maps", type=int, default=5000)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        if args.scans:
            found["participant"] = participant_level(Path(folder), args.scans, args.nprocs, args.science)
        if args.maps:
            found["group"] = group_level(Path(folder), args.maps)
    for name, numbers in found.items():
        print(f"{name} level: " + ", ".join(f"{key} {value}" for key, value in numbers.items()))  # type: ignore[attr-defined]
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n")
    return int(any(numbers.get("lost") for numbers in found.values()))  # type: ignore[attr-defined]


@dataclass
class Watch:
    """Memory (MB) and open files of a command and of its largest worker, sampled while it runs."""

    main_mb: list[float] = field(default_factory=list)
    worker_mb: list[float] = field(default_factory=list)
    main_files: list[int] = field(default_factory=list)
    worker_files: list[int] = field(default_factory=list)

    def look(self, process: psutil.Process) -> None:
        """Take one sample."""
        try:
            children = [child for child in process.children() if child.memory_info().rss > 50e6]
            if not children:
                return
            self.worker_mb.append(max(child.memory_info().rss for child in children) / 1e6)
            self.worker_files.append(max(child.num_fds() for child in children))
            self.main_mb.append(process.memory_info().rss / 1e6)
            self.main_files.append(process.num_fds())
        except psutil.Error:  # it has just ended
            return

    def growth(self) -> dict[str, float]:
        """Return the mean of the last fifth over that of the second: the first is start-up."""
        ratios = {}
        for name, values in vars(self).items():
            fifth = max(len(values) // 5, 1)
            ratios[f"{name}_growth"] = round(float(np.mean(values[-fifth:]) / np.mean(values[fifth : 2 * fifth])), 3)
        return ratios

    def kb_a_scan(self, n_scans: int) -> float:
        """Return what the command took in all after its start-up, by scan: where it is flat, less the more scans."""
        first = len(self.main_mb) // 5
        return round((max(self.main_mb) - self.main_mb[first]) * 1000 / n_scans, 1)


def participant_level(folder: Path, n_scans: int, nprocs: int, science: bool) -> dict[str, object]:
    """Run, kill half way, run again; return what was seen."""
    first, done = folder / "first", folder / "done"
    dataset.make_dataset(first, folder / "truth", Design(1, 1, sessions=(1,), spacing=(2.0, 2.0, 4.0)), seed=1)
    command = [sys.executable, "-m", "bids_app", str(first), str(done), "participant", "--skip-bids-validation"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    env, program = dict(os.environ), ["-m", "bids_app"]
    if not science:
        env["QUICK_FOUND"] = str(quick_app.prepare(first, done, folder / "found"))
        program = [str(TESTS / "quick_app.py")]
    raw, out = folder / "raw", folder / "out"
    scan = first / find_scans(first)[0][0].path
    formats.write_json(raw / "dataset_description.json", {"Name": "load", "BIDSVersion": "1.10.0"})
    for n in range(n_scans):
        path = raw / f"sub-{n:04d}" / "anat" / f"sub-{n:04d}_FLAIR.nii.gz"
        path.parent.mkdir(parents=True)
        shutil.copyfile(scan, path)
    words = [str(raw), str(out), "participant", "--nprocs", str(nprocs), "--skip-bids-validation"]
    began, watch = time.monotonic(), Watch()

    def marks() -> int:
        return len(list((out / "logs" / "scans").glob("*.json")))

    with (folder / "said").open("w") as said:
        process = subprocess.Popen([sys.executable, *program, *words], env=env, stdout=said, stderr=said)
        while process.poll() is None and marks() < n_scans // 2:
            watch.look(psutil.Process(process.pid))
            time.sleep(0.2)
        process.kill()
        process.wait()
    time.sleep(2)  # its workers notice
    at_kill = marks()
    with (folder / "said").open("w") as said:
        process = subprocess.Popen([sys.executable, *program, *words], env=env, stdout=said, stderr=said)
        while process.poll() is None:
            watch.look(psutil.Process(process.pid))
            time.sleep(0.2)
    text = (folder / "said").read_text()
    counts = re.search(r"(\d+) scans done, (\d+) unchanged, (\d+) failed", text)
    again, unchanged, failed = map(int, counts.groups()) if counts else (0, 0, n_scans)
    rows = len(formats.read_tsv(out / "participants_lesions.tsv"))
    half = len(list(out.rglob(f"{atomic.PART}*")))
    lost = failed + (n_scans - rows) + (n_scans - marks()) + (at_kill - unchanged) + half + process.returncode
    return {
        "scans": n_scans,
        "science": science,
        "finished at the kill": at_kill,
        "unchanged after it": unchanged,
        "done after it": again,
        "failed": failed,
        "lost": lost,
        "worker_peak_mb": round(max(watch.worker_mb)),
        "command_peak_mb": round(max(watch.main_mb)),
        "command_kb_a_scan": watch.kb_a_scan(n_scans),
        **watch.growth(),
        "wall_s": round(time.monotonic() - began),
    }


def group_level(folder: Path, n_maps: int) -> dict[str, object]:
    """Run the group level on a made-up cohort of the published proportions."""
    n_negative = round(n_maps * 0.28)
    people = (n_maps // 4, max(n_negative // 4, 10))
    cohort = draw_cohort(n_participants=people, n_scans=(n_maps - n_negative, n_negative), seed=1)
    raw, out = folder / "cohort", folder / "maps"
    write_cohort(cohort, raw, out)
    words = [str(raw), str(out), "group", "--lesion-threshold", "0.32", "--nested-folds", "0"]
    process = psutil.Popen(
        [sys.executable, "-m", "bids_app", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    peak, times = 0.0, None
    while process.poll() is None:
        try:
            peak, times = max(peak, process.memory_info().rss / 1e6), process.cpu_times()
        except psutil.Error:
            break
        time.sleep(0.2)
    code = process.wait()
    return {
        "maps": n_maps,
        "lost": code,
        "cpu_s": round(times.user + times.system) if times else None,
        "peak_mb": round(peak),
    }


if __name__ == "__main__":
    sys.exit(main())
