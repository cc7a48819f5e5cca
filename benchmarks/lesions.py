"""Lesion maps against experts: the published map, the cleaned, the normative and the network's, on outlined scans.

    python benchmarks/lesions.py [--data DIR] [--weights DIR] [--cases DIR] [--output FILE]

Every labelled scan is measured as it is (1 mm) and as thick slices of 0.8 x 0.8 x 4.4 mm with noise and a bias field
(`training.lesions.cases.thickened`). The network must not be judged on a patient whom it was trained on:
``--weights DIR`` names a folder with ``lesions-without-07.onnx`` and so on, made by ``python -m training lesions
--leave-out patient07``. For a patient whose file is not there the weights in the package are used, which have seen
that patient; the table says so. The norm of the normative map is estimated anew for each patient, from all other
people. ``--cases`` keeps what the app's chain finds in the scans (a minute each, and another for the norm).

For information: lesions grown to lower probabilities, the network without the norm, and what either calls lesion.

Lesions are components (26 neighbours). One is found if the map covers any voxel of it; a component of the map is right
if it touches any lesion. Artefact is what a map calls outside the expert's lesions where the atlas has less than a
quarter of white matter.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from bids_app.machine import process

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))
THRESHOLD = 0.32  # of the published map
PROBABILITY = 0.5  # of the network's
LOWER = (0.4, 0.3)  # probabilities, for information
NORMS = "norm"  # folder beside the cases: beliefs on the norm's grid, and transforms
SIZES = {"under 10": (0, 10), "10-50": (10, 50), "over 50": (50, np.inf)}  # mm3
WHITE = 0.25  # atlas share: where there is less, a false positive is artefact
CUT = 0.8  # of the published map's artefact that the network leaves out


def main() -> int:
    """Measure every map on every labelled scan, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("BIDS_APP_REAL_DATA", HERE.parent / "shared" / "data" / "open-ms"))
    parser.add_argument("--data", type=Path, default=default, help="folder with mni/")
    parser.add_argument("--weights", type=Path, help="folder with lesions-without-XX.onnx for each patient XX")
    parser.add_argument("--cases", type=Path, help="folder that keeps what the chain finds (default: a temporary one)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    process.limit_threads(1)  # before antspyx is imported
    if not any((args.data / "mni").glob("*_FLAIR_brain.nii.gz")):
        print(f"skipped: no labelled scan in {args.data / 'mni'}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        place = args.cases or Path(folder)
        cases = labelled(args.data, place)
        kept = anatomies(args.data, place / NORMS)
        norms = {who: norm_without(who, kept) for who in sorted({case.patient for case in cases})}
        rows = [row for case in cases for row in measured(case, args.weights, norms[case.patient], kept[case.name][1])]
    print(table(rows))
    print()
    verdict = verdict_of(rows)
    print(verdict)
    if args.output:
        args.output.write_text(json.dumps({"rows": rows, "verdict": verdict}, indent=2) + "\n", encoding="utf-8")
    return 0


def labelled(data: Path, folder: Path) -> list[Any]:
    """Return the scans with an expert's lesions, as the app's chain sees them."""
    from training.lesions import cases

    cases.make(data / "none", data / "mni", folder)  # of the labelled scans only
    return [case for case in cases.read_cases(folder) if case.lesions is not None]


def anatomies(data: Path, folder: Path) -> dict[str, tuple[np.ndarray, str]]:
    """Return, by name of the scan, its belief on the norm's grid and the file of its inverse transform."""
    from bids_app.image.chain import find_anatomy
    from bids_app.image.geometry import Frame
    from training import norm
    from training.lesions import cases

    found = {}
    for name, flair, _ in cases.sources(data / "raw", data / "mni"):
        place = folder / name
        path = place / "belief.npz"
        if not path.exists():
            place.mkdir(parents=True, exist_ok=True)
            frame = Frame(flair.like(np.maximum(flair.data, 0)))  # as the case was made
            anatomy = find_anatomy(frame.grid, place, seed=cases.SEED, trust_header=True)
            inverse = Path(anatomy.fit.alignment.inverse).relative_to(place)
            np.savez_compressed(path, belief=norm.belief_of(anatomy).astype(np.float16), inverse=str(inverse))
            print(f"{name}: belief for the norm", file=sys.stderr, flush=True)
        with np.load(path) as stored:
            found[name] = stored["belief"].astype(np.float32), str(place / str(stored["inverse"]))
    return found


def norm_without(patient: str, kept: dict[str, tuple[np.ndarray, str]]) -> Any:
    """Return the norm of all other people, as `training.norm` makes it; copies with thick slices are no people."""
    from bids_app.image import atlas
    from bids_app.lesions import normative
    from training import norm

    beliefs: dict[str, list[np.ndarray]] = {}
    for name, (belief, _) in kept.items():
        who = name.split("_")[0]
        if who != patient and not name.endswith("_thick"):
            beliefs.setdefault(who, []).append(belief)
    return normative.estimate([norm.mean_of(each) for each in beliefs.values()], atlas.brain_grid(normative.RESOLUTION))


def possible(case: Any) -> np.ndarray:
    """Return where a lesion may be, bool (X, Y, Z)."""
    from bids_app.image import lesion

    return lesion.possible(case.grid, priors_of(case), case.brain)


def priors_of(case: Any) -> Any:
    """Return the atlas maps on a case's grid."""
    from bids_app.records.scan import Priors

    return Priors(np.zeros_like(case.wm), case.gm, case.wm, case.csf, case.brain.astype(np.float32))


def measured(case: Any, weights: Path | None, norm: Any, inverse: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each map of one scan; ``inverse`` is the file of its transform from the template."""
    from bids_app.image import lesion
    from bids_app.image.networks import lesion_network, network
    from bids_app.lesions import joint, normative
    from bids_app.lesions.network import find_lesions

    path = weights / f"lesions-without-{case.patient.removeprefix('patient')}.onnx" if weights else None
    held_out = path is not None and path.is_file()
    net = network(path.read_bytes()) if path is not None and held_out else lesion_network()
    priors, where = priors_of(case), possible(case)
    published = lesion.lesions(case.grid, THRESHOLD, case.brain)
    over = normative.over_norm(case.grid, case.brain, priors, inverse, norm)
    by_norm = normative.lesions(over, case.grid, where, priors, inverse, norm)[0]
    alone = find_lesions(case.grid, priors, case.brain, net)
    soft = joint.joint(alone, over, where)
    maps = {
        "published": published,
        "cleaned": lesion.whole(published & where, case.grid.voxel_ml, case.wm),
        "normative": by_norm,
        "network": joint.lesions(soft, case.grid.data),
        **{f"network, {cut}": joint.lesions(soft, case.grid.data, cut) for cut in LOWER},
        "network without the norm": alone > PROBABILITY,
        "network without the norm, or normative": (alone > PROBABILITY) | by_norm,
    }
    for name, found in maps.items():
        unseen = held_out or not name.startswith("network")
        yield {"scan": case.name, "map": name, "held_out": unseen, **scores(found, case)}


def scores(found: np.ndarray, case: Any) -> dict[str, Any]:
    """Return overlap, volumes (ml) and lesion-wise scores by size of a map (bool) of a case."""
    truth, ml = case.lesions, case.grid.voxel_ml
    false = found & ~truth
    return {
        "dice": 2 * float((found & truth).sum()) / max(float(found.sum() + truth.sum()), 1.0),
        "ml": float(found.sum()) * ml,
        "truth_ml": float(truth.sum()) * ml,
        "false_ml": float(false.sum()) * ml,
        "artefact_ml": float((false & (case.wm < WHITE)).sum()) * ml,
        "sensitivity": shares(truth, found, ml),
        "ppv": shares(found, truth, ml),
    }


def shares(lesions: np.ndarray, other: np.ndarray, ml: float) -> dict[str, list[int]]:
    """Return, by size, how many components of a map touch another map, and how many there are."""
    labels, count = ndimage.label(lesions, np.ones((3, 3, 3)))
    size = np.bincount(labels.ravel(), minlength=count + 1)[1:] * ml * 1000
    touched = np.bincount(labels.ravel(), weights=other.ravel(), minlength=count + 1)[1:] > 0
    within = {name: (size >= low) & (size < high) for name, (low, high) in SIZES.items()}
    return {name: [int(touched[these].sum()), int(these.sum())] for name, these in within.items()}


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table."""
    head = (
        f"| scan | map | Dice | ml (expert) | false ml | artefact ml | {' | '.join(f'found {s} mm3' for s in SIZES)} |"
    )
    lines = [f"{head} {' | '.join(f'right {s}' for s in SIZES)} |", "|" + " --- |" * (6 + 2 * len(SIZES))]
    for row in rows:
        counts = [f"{a}/{b}" for key in ("sensitivity", "ppv") for a, b in row[key].values()]
        name = row["map"] if row["held_out"] else f"{row['map']} (has seen it)"
        volumes = f"{row['ml']:.1f} ({row['truth_ml']:.1f}) | {row['false_ml']:.1f} | {row['artefact_ml']:.2f}"
        lines.append(f"| {row['scan']} | {name} | {row['dice']:.3f} | {volumes} | {' | '.join(counts)} |")
    return "\n".join(lines)


def verdict_of(rows: list[dict[str, Any]]) -> str:
    """Return a line on the artefact that the network leaves out, and on the mean Dice of each map."""
    total = {name: [row for row in rows if row["map"] == name] for name in dict.fromkeys(row["map"] for row in rows)}
    artefact = {name: sum(row["artefact_ml"] for row in of) for name, of in total.items()}
    cut = 1 - artefact["network"] / max(artefact["published"], 1e-9)
    means = ", ".join(f"{name} {np.mean([row['dice'] for row in of]):.3f}" for name, of in total.items())
    return f"{'pass' if cut >= CUT else 'FAIL'}: artefact cut by {cut:.0%} (limit {CUT:.0%}); mean Dice: {means}"


if __name__ == "__main__":
    sys.exit(main())
