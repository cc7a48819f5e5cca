"""The participant level beside ANTs' default SyN: CPU seconds, memory and alignment, on real scans.

    python benchmarks/participant.py [--data DIR] [--scans N] [--output FILE]

For every scan the chain runs with its own registration and with ANTs' default SyN at the template's 1 mm, in turn
in one process on one thread; brain Dice against expert masks, overlap of the ventricles with dark voxels, and
correlation with the synthetic FLAIR say whether the alignment is equal. Ratios count; times are this machine's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bids_app import engine

engine.limit_threads(1)  # before antspyx is imported

import ants  # noqa: E402
import numpy as np  # noqa: E402
from scipy import ndimage  # noqa: E402

from bids_app import atlas, chain, files, intake, normalize  # noqa: E402
from bids_app.geometry import canonical, to_ants  # noqa: E402
from bids_app.records import Alignment, Atlas, Pose, Volume  # noqa: E402

HERE = Path(__file__).resolve().parent.parent
DEEP_MM = 20.0


def main() -> int:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("BIDS_APP_REAL_DATA", HERE.parent / "shared" / "data" / "open-ms"))
    parser.add_argument("--data", type=Path, default=default, help="folder with raw/ and expert/")
    parser.add_argument("--scans", type=int, default=99, help="at most this many scans")
    parser.add_argument("--no-peer", action="store_true", help="our own chain only")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    sources = sorted((args.data / "raw").glob("sub-*/**/*_FLAIR.nii.gz"))[: args.scans]
    if not sources:
        print(f"skipped: no real scans in {args.data}")
        return 0
    ways: dict[str, Callable[..., Alignment]] = {"ours": normalize.register}
    if not args.no_peer:
        ways["ANTs SyN 1 mm"] = _default_syn
    rows = [row for source in sources for row in _scan(source, args.data, ways)]
    print(f"{'scan':<16}{'registration':<16}{'CPU s':>7}{'of it reg':>10}{'Dice':>8}{'ventr.':>8}{'corr.':>7}")
    for row in rows:
        print(
            f"{row['scan']:<16}{row['way']:<16}{row['cpu']:>7.1f}{row['registration']:>10.1f}{row['dice']:>8.4f}"
            f"{row['ventricles']:>8.3f}{row['correlation']:>7.3f}"
        )
    summary = {way: {key: float(np.mean([r[key] for r in rows if r["way"] == way])) for key in KEYS} for way in ways}
    for way, means in summary.items():
        print(f"mean {way}: " + ", ".join(f"{key} {value:.4g}" for key, value in means.items()))
    if len(ways) == 2:
        ours, peer = (summary[way] for way in ways)
        print(f"ratio peer / ours: registration {peer['registration'] / ours['registration']:.1f} x CPU")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory of the whole process, all ways: {peak:.2f} GB")
    if args.output:
        args.output.write_text(json.dumps({"rows": rows, "mean": summary, "peak_gb": peak}, indent=2))
    return 0


KEYS = ("cpu", "registration", "dice", "ventricles", "correlation")


def _scan(source: Path, data: Path, ways: dict[str, Callable[..., Alignment]]) -> list[dict[str, object]]:
    name = source.name.removesuffix("_FLAIR.nii.gz")
    expert = data / "expert" / source.relative_to(data / "raw").parent / f"{name}_desc-brain_mask.nii.gz"
    image = files.open_nifti(source)
    intake.check_header(image)
    volume, known, _ = intake.to_volume(image, files.read_nifti(source)[0])
    scan, truth = canonical(volume), canonical(Volume(*files.read_nifti(expert))).data > 0
    atlas.load()  # once a process, not once a scan
    rows = []
    for way, register in ways.items():
        spent: list[float] = []

        def timed(
            *args: object, spent: list[float] = spent, register: Callable[..., Alignment] = register, **kwargs: object
        ) -> Alignment:
            began = time.process_time()
            found = register(*args, **kwargs)
            spent.append(time.process_time() - began)
            return found

        with tempfile.TemporaryDirectory() as folder:
            keep, normalize.register = normalize.register, timed
            began = time.process_time()
            try:
                found = chain.analyse(scan, Path(folder), threshold=0.32, seed=0, trust_header=known)
            finally:
                normalize.register = keep
            cpu = time.process_time() - began
            overlap = _ventricles(found.flair, found.alignment.inverse, found.tissues.mask, found.gm_mean)
        dice = 2 * (found.tissues.mask & truth).sum() / (found.tissues.mask.sum() + truth.sum())
        agrees = next(check.value for check in found.checks if check.name == "template_agreement")
        rows.append(
            {
                "scan": name,
                "way": way,
                "cpu": cpu,
                "registration": spent[0],
                "dice": float(dice),
                "ventricles": overlap,
                "correlation": agrees,
            }
        )
        print(f"  {name}: {way} done, {cpu:.0f} CPU s", file=sys.stderr, flush=True)
    return rows


def _default_syn(scan: Volume, template: Atlas, folder: Path, *, seed: int, trust_header: bool) -> Alignment:
    """Register as ANTs does by default: affine and SyN at the fixed image's 1 mm."""
    with normalize._random_seed(seed):
        found = ants.registration(
            to_ants(template.head),
            to_ants(scan),
            type_of_transform="SyN",
            outprefix=str(folder / "peer_"),
            write_composite_transform=True,
        )
    return Alignment(found["fwdtransforms"], found["invtransforms"], Pose(np.eye(3), np.zeros(3), 1.0, False))


def _ventricles(flair: Volume, inverse: str, brain: np.ndarray, gm: float) -> float:
    """Return the Dice of the template's deep fluid, carried to the scan, and dark voxels about it."""
    template = atlas.load()
    depth = ndimage.distance_transform_edt(template.mask.data > 0.5)
    deep = template.mask.like(((template.csf.data > 0.5) & (depth > DEEP_MM)).astype(np.float32))
    carried = ants.apply_transforms(to_ants(flair), to_ants(deep), [inverse], interpolator="linear").numpy() > 0.5
    dark = (flair.data < 0.55 * gm) & brain & ndimage.binary_dilation(carried, iterations=2)
    return float(2 * (carried & dark).sum() / max(carried.sum() + dark.sum(), 1))


if __name__ == "__main__":
    sys.exit(main())
