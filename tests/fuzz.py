"""Random harm to images, tables, filters and models, against the app's real readers: only its own errors may escape.

``python -m tests.fuzz --seconds 3600`` runs for an hour and writes every input that fails to ``fuzz-failures/``; then
make the failure a named test. Seeded: equal seed and target, equal inputs in equal order.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import logging
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_app.bids import names as bids
from bids_app.bids import query
from bids_app.cohort import covariates, labels, ratings
from bids_app.errors import BidsAppError
from bids_app.files import formats
from bids_app.image import intake
from bids_app.image.atlas import brain_grid
from bids_app.image.geometry import canonical, centred
from bids_app.model import calibrated, deciding, forms, seal, storage, stored
from bids_app.recommended.features import box_of, projection
from bids_app.records.cohort import Model, Threshold
from bids_app.records.fitted import MapModel
from bids_app.records.lesions import BeliefLimit
from bids_app.records.machines import Beside, Convolutional, Number, Radial, Word
from bids_app.records.recommended import BELIEF, Calibration, Kind, LinearModel, Purpose, Seen, Setting
from bids_app.records.results import Predictor
from bids_app.records.trees import BOOSTING, Trees
from bids_app.rivals.convolution import places

SCANS = ("sub-01_ses-1", "sub-02_ses-1")
LEVELS = ("RRMS", "NMOSD")
SPECIAL = (b"\0", b"\xff", b"\x7f\xff", b"\x80\0", b"\xff\xff\xff\xff", b"\0\0\0\x80", struct.pack("<f", np.nan),
           struct.pack("<f", np.inf), struct.pack("<f", 1e38), struct.pack("<f", -1e-38), struct.pack("<h", -1),
           b"\t", b"\n", b"\r", b'"', b"{", b"}", b"[", b"]", b"n/a", b"../", b"=1+1", b"\xef\xbb\xbf",
           "\u2028\u202e".encode(), b"NaN", b"1e999", b"-1", b"null", b"true", b"9" * 30)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A reader, files that it reads, and how their bytes may be harmed."""

    read: Callable[[Path], object]
    good: dict[str, bytes]
    harm: Callable[[bytes, np.random.Generator], bytes]


@dataclass(frozen=True)
class Failure:
    """An input, and what escaped."""

    target: str
    number: int
    files: dict[str, bytes]
    error: BaseException


# -- harm ----------------------------------------------------------------------------------------


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """A few changes anywhere: bits, special values, pieces cut, doubled, moved."""
    spoilt = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(spoilt) + 1))
        length = int(rng.integers(1, 9)) if rng.random() < 0.8 else int(rng.integers(1, len(spoilt) + 2))
        kind = rng.integers(6)
        if kind == 0 and at < len(spoilt):
            spoilt[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            word = SPECIAL[rng.integers(len(SPECIAL))]
            spoilt[at : at + len(word)] = word
        elif kind == 2:
            spoilt[at:at] = SPECIAL[rng.integers(len(SPECIAL))]
        elif kind == 3:
            del spoilt[at : at + length]
        elif kind == 4:
            spoilt[at:at] = spoilt[at : at + min(length, 4096)]
        else:
            del spoilt[at:]
            spoilt += rng.bytes(int(rng.integers(9)))
    return bytes(spoilt)


def harmed_nifti(content: bytes, rng: np.random.Generator) -> bytes:
    """Mostly the header (348 bytes and the extensions' flag), sometimes the body, before or after compression."""
    whole = gzip.decompress(content)
    where = rng.random()
    if where < 0.75:
        head = bytearray(whole[:352])
        for _ in range(int(rng.integers(1, 4))):
            word = SPECIAL[rng.integers(14)] if rng.random() < 0.5 else rng.bytes(int(rng.integers(1, 9)))
            at = int(rng.integers(len(head) - len(word)))
            head[at : at + len(word)] = word
        return gzip.compress(bytes(head) + whole[352:], 1, mtime=0)
    return gzip.compress(mutated(whole, rng), 1, mtime=0) if where < 0.85 else mutated(content, rng)


def harmed_zip(content: bytes, rng: np.random.Generator) -> bytes:
    """The zip itself, or one of its members in a zip that is whole."""
    if rng.random() < 0.4:
        return mutated(content, rng)
    target = io.BytesIO()
    packing = zipfile.ZIP_DEFLATED if rng.random() < 0.1 else zipfile.ZIP_STORED
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(target, "w", packing) as made:
        names = source.namelist()
        chosen = names[rng.integers(len(names))]
        for name in names:
            member = source.read(name)
            made.writestr(name, mutated(member, rng) if name == chosen else member)
    return target.getvalue()


def harmed_json(content: bytes, rng: np.random.Generator) -> bytes:
    """The text, or a value replaced, moved or removed in JSON that stays valid."""
    if rng.random() < 0.3:
        return mutated(content, rng)
    whole = json.loads(content)
    places = list(_places(whole))
    holder, key = places[rng.integers(len(places))]
    values = (None, True, -1, 0, 1.5, 1e308, 10**400, "", "x", "../x", [], {}, [[]], [None], {"a": 1}, float("nan"),
              "9" * 1000, [1, "a"], whole if rng.random() < 0.1 else 2)  # fmt: skip
    other, name = places[rng.integers(len(places))]
    kind = rng.integers(3)
    if kind == 0:
        holder[key] = json.loads(json.dumps(values[rng.integers(len(values))]))
    elif kind == 1:
        holder[key] = json.loads(json.dumps(other[name]))
    else:
        del holder[key]
    return json.dumps(whole).encode()


def harmed_table(content: bytes, rng: np.random.Generator) -> bytes:
    """The text, or some cells of a table that stays whole."""
    if rng.random() < 0.3:
        return mutated(content, rng)
    rows = [line.split(b"\t") for line in content.strip().split(b"\n")]
    for _ in range(int(rng.integers(1, 4))):
        row, other = (rows[rng.integers(len(rows))] for _ in range(2))
        at = int(rng.integers(len(row)))
        word = SPECIAL[rng.integers(len(SPECIAL))]
        row[at] = (word, row[at] + word, other[rng.integers(len(other))], b"", b"sub-01")[rng.integers(5)]
        if rng.random() < 0.2:
            rows.insert(int(rng.integers(1, len(rows) + 1)), list(other))
    return b"\n".join(b"\t".join(row) for row in rows) + b"\n"


def _places(node: object) -> Iterator[tuple[dict, object] | tuple[list, int]]:
    pairs = node.items() if isinstance(node, dict) else enumerate(node[:50]) if isinstance(node, list) else ()
    for key, value in list(pairs):
        yield node, key  # type: ignore[misc]
        yield from _places(value)


# -- targets -------------------------------------------------------------------------------------


def nifti() -> bytes:
    data = np.random.default_rng(0).integers(0, 900, (16, 18, 9)).astype(np.int16)
    image = nib.Nifti1Image(data, np.diag([-10.0, -10.0, 18.0, 1.0]))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"made up"))
    return gzip.compress(image.to_bytes(), 6, mtime=0)


def read_scan(folder: Path) -> object:
    """All that the participant level does with a file before the heavy work."""
    path = folder / "scan.nii.gz"
    image = formats.open_nifti(path)
    intake.check_header(image)
    volume, _, _ = intake.to_volume(image, formats.read_nifti(path)[0])
    seen = centred(canonical(volume))
    if not np.isfinite(seen.data).all() or not np.isfinite(seen.affine).all():
        raise ArithmeticError("a volume that is not finite")
    return seen


def read_tables(folder: Path) -> object:
    """Participants, sessions and quality, as the group level reads them."""
    scans = [bids.Scan((("sub", name[4:6]), ("ses", "1")), "") for name in SCANS]
    return labels.label(scans, labels.Tables(folder, folder, None, LEVELS))


def read_model(folder: Path) -> object:
    """As `stored.load`, then the model in use; seals are made anew, as an enemy would, half of the time."""
    path = folder / "model.json"
    kept = path.read_bytes()
    if len(kept) % 2:
        try:
            content = json.loads(kept)
            content["sha256"] = {name: seal.file_digest(folder / name) for name in content["sha256"]}
            content["digest"] = seal.digest(content)
            path.write_text(json.dumps(content))
        except (ValueError, TypeError, KeyError, OSError):
            path.write_bytes(kept)
    try:
        found = stored.load(folder)
    finally:
        path.write_bytes(kept)
    maps = np.zeros((1, int(brain_grid(3).data.sum())), bool)
    beside = Beside(maps.astype(np.float32), ({"age": "30", "sex": "X"},))
    if not np.isfinite(deciding.decisions(found.model, maps, beside)).all():
        raise ArithmeticError("a decision that is not finite")
    return found


def model_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    lesions = rng.random((9, 4)) < 0.4
    model = Model(np.array([5, 3, 99, 7]), lesions[:3], np.array([0.5, -0.25, -0.25]), 0.1, 1.0, 0.25)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        storage.save(model, place, purpose=Purpose(LEVELS, Threshold(0.32, "given"), "published"),
                       protocol="leakage-free", training={"n_scans": 9}, train_lesions=lesions)  # fmt: skip
        return {path.name: path.read_bytes() for path in sorted(place.iterdir())}


def calibrated_models() -> dict[str, MapModel]:
    """One model of every kind that is calibrated."""
    rng, grid, kind = np.random.default_rng(0), brain_grid(3), Kind(20.0, True)
    size = int(projection(grid.data, grid.affine, kind).inside.sum())
    parts = Number("age", 30.0, 31.0, 0.1), Word("sex", "F", {"F": 0.2, "M": -0.1}, 0.0)
    node = np.arange(3)
    left = 2 * places(grid.data[box_of(grid.data)].shape, 2)
    few = [rng.normal(size=shape).astype(np.float32) for shape in ((3, 2, 3, 3, 3), (2, 3, 3, 3, 3), (3,), (2,))]
    return {
        forms.LINEAR: LinearModel((kind,), (rng.normal(size=size),), 0.5, 0.1, (Setting(kind, 0.5, 1.0),), parts),
        forms.TREES: Trees(
            BOOSTING, 0.1, np.array([0]), np.array([0, -1, -1], np.int32), np.array([0.5, 0, 0]),
            np.array([0, 0.3, -0.2]), np.where(node, node, 1), np.where(node, node, 2),
        ),
        forms.RADIAL: Radial(
            np.array([5, 3, 99]), np.eye(3, dtype=np.float32), np.array([0.5, -0.2, -0.3]), 0.2, 0.4, 0.1
        ),
        forms.CONVOLUTIONAL: Convolutional(
            tuple(few[:2]), tuple(few[2:]), rng.normal(size=left).astype(np.float32), 0.1,
            rng.normal(size=int(grid.data.sum())).astype(np.float32), 0.3, 2.0,
        ),
    }  # fmt: skip


def calibrated_files(model: MapModel) -> dict[str, bytes]:
    """The files of a calibrated model; a radial one is for belief above its limit."""
    n, rng = 6, np.random.default_rng(1)
    by = Calibration(rng.normal(size=n), np.arange(n) % 2 == 0, np.zeros(n, bool), np.ones(n), 0.1, 1.0, 0.0, 0.5)
    seen = Seen(tuple(f"sub-{k}" for k in range(n)), rng.random((n, 20)).astype(np.float32), 1.0)
    limit = BeliefLimit(np.zeros(int(brain_grid(3).data.sum())), 7)
    on_belief = isinstance(model, Radial)
    purpose = Purpose(LEVELS, Threshold(0.32, "given"), *((BELIEF, limit) if on_belief else ("published",)))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        calibrated.save(Predictor("recommended", model, by, seen, purpose, 0.5, 0.9), place, {"n_scans": n})
        return {path.name: path.read_bytes() for path in sorted(place.iterdir())}


def targets() -> dict[str, Target]:
    """Every reader of what comes from outside."""
    rows = (
        b"participant_id\tsession_id\tgroup\tage\texclude\nsub-01\tses-1\tRRMS\t30\t0\nsub-02\tses-1\tNMOSD\tn/a\tno\n"
    )
    decisions = b"participant_id\tsession_id\tann\tann_repeat\nsub-01\tses-1\tRRMS\tNMOSD\nsub-02\tses-1\tnmosd\tn/a\n"
    sheet = b"reading\tcode\tsex\tdecision\n1\tR1\tF\tRRMS\n2\tR2\tM\tNMOSD\n"
    key = b"code\tscan\tparticipant_id\tread\nR1\tsub-01\tsub-01\tfirst\nR2\tsub-01\tsub-01\trepeat\n"
    division = b"scan\tpublished\tleakage-free\nsub-01_ses-1\ttraining\ttest\nsub-02_ses-1\ttest\ttraining\n"
    filters = json.dumps({"flair": {"acquisition": ["x", 1, None], "run": "*"}, "t1w": {"a": [{"b": 2}]}}).encode()
    visits = b"session_id\tage\tgroup\nses-1\t31\tRRMS\nses-2\t33\tn/a\n"
    tsv = {"participants.tsv": rows, "sub-01/sub-01_sessions.tsv": visits, "phenotype/quality.tsv": rows}
    return {
        "nifti": Target(read_scan, {"scan.nii.gz": nifti()}, harmed_nifti),
        "model": Target(read_model, model_files(), harmed_zip),
        **{
            f"{kind} model": Target(read_model, calibrated_files(model), harmed_zip)
            for kind, model in calibrated_models().items()
        },
        "tables": Target(read_tables, tsv, harmed_table),
        "rows": Target(lambda f: covariates.read_rows(f / "t.tsv"), {"t.tsv": rows}, harmed_table),
        "raters": Target(
            lambda f: ratings.read_decisions(f / "r.tsv", SCANS, LEVELS), {"r.tsv": decisions}, harmed_table
        ),
        "sheet": Target(
            lambda f: ratings.read_sheets([f / "s.tsv"], f / "k.tsv", LEVELS),
            {"s.tsv": sheet, "k.tsv": key},
            harmed_table,
        ),
        "division": Target(lambda f: labels.read_division(f / "d.tsv", SCANS), {"d.tsv": division}, harmed_table),
        "filter": Target(lambda f: query.read_filters(f / "f.json"), {"f.json": filters}, harmed_json),
    }


def _by_kind(name: str, content: bytes, target: Target, rng: np.random.Generator) -> bytes:
    """Harm a file as its kind asks; a model is made of several kinds."""
    harms = {".nii.gz": harmed_nifti, ".npz": harmed_zip, ".json": harmed_json, ".libsvm": mutated}
    return next((harm for end, harm in harms.items() if name.endswith(end)), target.harm)(content, rng)


# -- the loop ------------------------------------------------------------------------------------


def run(name: str, seconds: float, *, seed: int = 0, most: int | None = None) -> tuple[int, int, list[Failure]]:
    """Return how many inputs were read, how many of them refused, and what else escaped."""
    target, began, number, refused = targets()[name], time.monotonic(), 0, 0
    failures: list[Failure] = []
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        folder = Path(place)
        for path, content in target.good.items():
            formats.write_bytes(folder / path, content)
        target.read(folder)  # what is not harmed is read
        while time.monotonic() - began < seconds and (most is None or number < most):
            rng = np.random.default_rng([seed, number])
            names = sorted(target.good)
            chosen = names[rng.integers(len(names))]
            spoilt = _by_kind(chosen, target.good[chosen], target, rng)
            (folder / chosen).write_bytes(spoilt)
            try:
                target.read(folder)
            except BidsAppError as error:
                refused += 1
                if "\n" in str(error):
                    failures.append(Failure(name, number, {chosen: spoilt}, ValueError("an error of several lines")))
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                failures.append(Failure(name, number, {chosen: spoilt}, error))
            (folder / chosen).write_bytes(target.good[chosen])
            number += 1
    return number, refused, failures


def main() -> int:
    """Fuzz all targets in turn; return 1 where something escaped."""
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=sorted(targets()), nargs="+", default=sorted(targets()))
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"), help="folder for inputs that fail")
    args = parser.parse_args()
    found = 0
    for name in args.target:
        number, refused, failures = run(name, args.seconds / len(args.target), seed=args.seed)
        print(f"{name}: {number} inputs, {refused} refused, {len(failures)} failures", flush=True)
        for failure in failures:
            folder = args.failures / f"{name}-{args.seed}-{failure.number}"
            for path, content in failure.files.items():
                formats.write_bytes(folder / path, content)
            formats.write_text(folder / "error.txt", "".join(traceback.format_exception(failure.error)))
        found += len(failures)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
