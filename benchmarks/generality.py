"""The participant level on what other centres would have made of real scans: brain, registration, lesions, by harm.

    python benchmarks/generality.py [--data DIR] [--weights DIR] [--scans NAME ...] [--harms NAME ...]
                                    [--output FILE [--resume]]

Every scan with an expert brain mask goes through the chain untouched and then after each of the harms of
`benchmarks/harms.py`. A harm that leaves the brain itself alone may change neither brain nor lesion volume.

A network must not be judged on a patient whom it was trained on: ``--weights DIR`` names a folder with
``brain-without-01.onnx`` and so on, made by ``python -m training brain --leave-out sub-01``. For a patient whose file
is not there the weights in the package are used, which have seen that patient; a line says so.

The goals: mean brain Dice 0.970 and worst 0.960 untouched; after each harm at least 0.95, or refused, or flagged; and
a lesion volume within 15 % where the harm spares the brain.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bids_app.machine import process

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))
UNTOUCHED = "untouched"
MEAN_DICE, WORST_DICE, HARMED_DICE = 0.970, 0.960, 0.95
LESION_CHANGE = 0.15
LESION_ML = 0.5  # a smaller difference is no change, however small the lesions
COLUMNS = ("dice", "agreement", "overlap", "stretch", "ventricles", "belief_sd", "lesion_ml", "network_ml")
VOLUMES = {"lesion_ml": "lesion volume", "network_ml": "lesion volume by network and norm"}


def main() -> int:
    """Run every harm on every scan, print the table, write the JSON."""
    from benchmarks.harms import HARMS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("BIDS_APP_REAL_DATA", HERE.parent / "shared" / "data" / "open-ms"))
    parser.add_argument("--data", type=Path, default=default, help="folder with raw/ and expert/")
    parser.add_argument("--weights", type=Path, help="folder with brain-without-XX.onnx for each patient XX")
    parser.add_argument("--scans", nargs="+", help="names such as sub-01_ses-1 (default: all with an expert mask)")
    parser.add_argument("--harms", nargs="*", choices=HARMS, metavar="NAME", help="default: all; none: only untouched")
    parser.add_argument("--output", type=Path, help="JSON file to write, after every run")
    parser.add_argument("--resume", action="store_true", help="keep the runs that the JSON file already holds")
    args = parser.parse_args()
    process.limit_threads(1)  # before antspyx is imported
    process.keep_freed_memory()
    experts = sorted((args.data / "expert").glob("sub-*/**/*_desc-brain_mask.nii.gz"))
    experts = [path for path in experts if not args.scans or _name(path) in args.scans]
    if not experts:
        print(f"skipped: no scan with an expert mask in {args.data}")
        return 0
    kept = args.resume and args.output and args.output.is_file()
    rows = json.loads(args.output.read_text(encoding="utf-8"))["rows"] if kept else []
    wanted = [UNTOUCHED, *(HARMS if args.harms is None else args.harms)]
    for expert in experts:
        weights, seen = _weights(args.weights, expert)
        if seen:
            print(f"  {_name(expert)}: no weights without this patient; those in the package have seen it")
        scan, brain = _read(args.data, expert)
        for harm in wanted:
            if any((row["scan"], row["harm"]) == (_name(expert), harm) for row in rows):
                continue
            given = (scan, brain) if harm == UNTOUCHED else HARMS[harm].apply(scan, brain)
            spares = harm == UNTOUCHED or HARMS[harm].spares_brain
            row = {"scan": _name(expert), "harm": harm, "spares_brain": spares, "held_out": not seen}
            rows.append({**row, **measured(*given, weights)})
            print(f"  {_name(expert)}, {harm}: {_line(rows[-1])}", file=sys.stderr, flush=True)
            if args.output:
                found = {"rows": rows, "verdicts": verdicts(rows)}
                args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(table(rows))
    print()
    for line in verdicts(rows):
        print(line)
    return 0


def _name(expert: Path) -> str:
    return expert.name.removesuffix("_desc-brain_mask.nii.gz")


def _weights(folder: Path | None, expert: Path) -> tuple[Any, bool]:
    """Return the network for a scan, and whether it was trained on the scan's patient."""
    from bids_app.image.networks import brain_network, network

    patient = _name(expert).split("_")[0].removeprefix("sub-")
    path = folder / f"brain-without-{patient}.onnx" if folder else None
    if path is None or not path.is_file():
        return brain_network(), True
    return network(path.read_bytes()), False


def _read(data: Path, expert: Path) -> tuple[Any, np.ndarray]:
    from bids_app.files import formats
    from bids_app.image import intake
    from bids_app.image.geometry import canonical
    from bids_app.records.scan import Volume

    raw = data / "raw" / expert.relative_to(data / "expert").parent / f"{_name(expert)}_FLAIR.nii.gz"
    image = formats.open_nifti(raw)
    intake.check_header(image)
    volume, _, _ = intake.to_volume(image, formats.read_nifti(raw)[0])
    return canonical(volume), canonical(Volume(*formats.read_nifti(expert))).data > 0


def measured(scan: Any, truth: np.ndarray, network: Any) -> dict[str, Any]:
    """Return what the chain finds in a scan whose brain is known, or the line that refuses it."""
    from bids_app.errors import ScanError
    from bids_app.image import chain
    from bids_app.image.geometry import canonical, centred
    from bids_app.lesions import maps
    from bids_app.records.scan import Volume

    truth = canonical(Volume(truth, scan.affine)).data
    scan = centred(canonical(scan))
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        try:
            anatomy = chain.find_anatomy(scan, Path(folder), seed=0, trust_header=True, network=network)
        except ScanError as error:
            return {"refused": error.what, "cpu": round(time.process_time() - began, 1)}
        found = maps.find_lesions(anatomy, 0.32)
        cpu = time.process_time() - began
        from benchmarks.participant import ventricle_overlap

        mask = anatomy.fit.tissues.mask
        ventricles = ventricle_overlap(anatomy.fit.flair, anatomy.fit.alignment.inverse, mask, anatomy.belief.gm_mean)
    checks = {check.name: check.value for check in found.checks}
    return {
        "dice": float(2 * (mask & truth).sum() / max(mask.sum() + truth.sum(), 1)),
        "agreement": checks["template_agreement"],
        "overlap": checks["template_overlap"],
        "stretch": checks["head_shape"],
        "ventricles": ventricles,
        "belief_sd": anatomy.belief.moments.sd,
        "lesion_ml": found.measures["lesion_volume_ml"],
        "network_ml": found.measures["network_volume_ml"],
        "checks": checks,
        "flags": [check.name for check in found.checks if not check.ok],
        "turned": anatomy.fit.alignment.pose.turned,
        "cpu": round(cpu, 1),
    }


# -- what is printed -----------------------------------------------------------------------------


def _line(row: dict[str, Any]) -> str:
    if "refused" in row:
        return f"refused: {row['refused']}"
    flags = f", flagged: {', '.join(row['flags'])}" if row["flags"] else ""
    return ", ".join(f"{key} {row[key]:.3f}" for key in COLUMNS) + flags


def changes(rows: list[dict[str, Any]], harm: str, volume: str) -> list[float]:
    """Return the relative change of a lesion volume by a harm, for each scan that has both."""
    before = {row["scan"]: row for row in rows if row["harm"] == UNTOUCHED and "refused" not in row}
    found = []
    for row in rows:
        if row["harm"] != harm or "refused" in row or row["scan"] not in before:
            continue
        old, new = before[row["scan"]][volume], row[volume]
        found.append(0.0 if abs(new - old) <= LESION_ML else new / max(old, 1e-6) - 1)
    return found


def of_harm(rows: list[dict[str, Any]], harm: str) -> list[dict[str, Any]]:
    """Return the rows of a harm."""
    return [row for row in rows if row["harm"] == harm]


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table in Markdown: untouched scans one by one, then each harm over all scans."""
    lines = ["| scan | " + " | ".join(COLUMNS) + " | flags |", "| --- " * (len(COLUMNS) + 2) + "|"]
    for row in of_harm(rows, UNTOUCHED):
        if "refused" in row:
            lines.append(f"| {row['scan']} | refused: {row['refused']} |" + " |" * len(COLUMNS))
            continue
        values = " | ".join(f"{row[key]:.1f}" if key in VOLUMES else f"{row[key]:.4f}" for key in COLUMNS)
        lines.append(f"| {row['scan']} | {values} | {', '.join(row['flags'])} |")
    heads = ["harm", "scans", "mean Dice", "worst", "agreement", *VOLUMES.values(), "refused or flagged"]
    lines += ["", f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for harm in dict.fromkeys(row["harm"] for row in rows):
        mine = of_harm(rows, harm)
        whole = [row for row in mine if "refused" not in row]
        dice, agreement = ([row[key] for row in whole] or [math.nan] for key in ("dice", "agreement"))
        changed = [changes(rows, harm, volume) for volume in VOLUMES]
        change = " | ".join(f"{min(each):+.0%} to {max(each):+.0%}" if each else "" for each in changed)
        told = [row for row in mine if row.get("flags") or "refused" in row]
        why = ", ".join(sorted({reason for row in told for reason in row.get("flags") or [row["refused"]]}))
        lines.append(
            f"| {harm} | {len(mine)} | {np.mean(dice):.4f} | {min(dice):.4f} | {np.mean(agreement):.3f} | {change} | "
            f"{f'{len(told)}: {why}' if told else ''} |"
        )
    return "\n".join(lines)


def verdicts(rows: list[dict[str, Any]]) -> list[str]:
    """Say which of the goals are met, one line each, with every case that is not."""
    lines = []

    def say(met: bool, text: str) -> None:
        lines.append(f"{'met' if met else 'MISSED':<8}{text}")

    plain = [row.get("dice", 0.0) for row in of_harm(rows, UNTOUCHED)]
    if plain:
        say(np.mean(plain) >= MEAN_DICE, f"mean brain Dice untouched {np.mean(plain):.4f} >= {MEAN_DICE:.3f}")
        say(min(plain) >= WORST_DICE, f"worst brain Dice untouched {min(plain):.4f} >= {WORST_DICE:.3f}")
    harmed = [row for row in rows if row["harm"] != UNTOUCHED]
    silent = [row for row in harmed if "refused" not in row and row["dice"] < HARMED_DICE and not row["flags"]]
    if harmed:
        cases = "; ".join(f"{row['scan']}, {row['harm']}: {row['dice']:.4f}" for row in silent)
        say(not silent, f"Dice >= {HARMED_DICE} or flagged in all but {len(silent)} of {len(harmed)} {cases}".rstrip())
    spared = list(dict.fromkeys(row["harm"] for row in harmed if row["spares_brain"]))
    for volume, name in VOLUMES.items() if spared else ():
        far = [(harm, x) for harm in spared for x in changes(rows, harm, volume) if abs(x) > LESION_CHANGE]
        cases = "; ".join(f"{harm}: {x:+.0%}" for harm, x in far)
        goal = f"{name} within {LESION_CHANGE:.0%} where the brain is spared"
        say(not far, f"{goal}, in all but {len(far)} {cases}".rstrip())
    return lines


if __name__ == "__main__":
    sys.exit(main())
