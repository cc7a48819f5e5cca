"""Completion marks: what is finished is known by the digest of input, versions and parameters.

The mark (``logs/scans/<scan>.json``) is written last: it holds the digests of what its outputs depend on, so a scan
is finished exactly when its mark's digest is the present one and all files it names are there. Where only the
threshold is another one, everything but the lesion maps is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bids_app.bids.names import Scan
from bids_app.errors import BidsAppError
from bids_app.files import formats
from bids_app.machine import software
from bids_app.records.scan import Check, Origin, Summary


def digests(source: Path, parameters: Mapping[str, Any]) -> tuple[str, str]:
    """Return two SHA-256 over a scan's bytes, versions and the parameters: all, and all but the threshold.

    Equal digests, equal outputs: all of them, and all that lies before any threshold. Versions are those of the app,
    of the libraries that compute a scan, and of the networks' weights; what only selects, draws or tabulates changes no
    voxel.
    """
    content = hashlib.sha256()
    with source.open("rb") as stream:
        while block := stream.read(1 << 20):
            content.update(block)
    computed_by = software.of_a_scan()
    early = {key: value for key, value in parameters.items() if key != "lesion_threshold"}

    def of(values: Mapping[str, Any]) -> str:
        text = json.dumps([content.hexdigest(), computed_by, dict(values)], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    return of(parameters), of(early)


def mark_path(output_dir: Path, scan: str) -> Path:
    """Return the path of a scan's completion mark."""
    return output_dir / "logs" / "scans" / f"{scan}.json"


def lock_path(output_dir: Path, scan: str) -> Path:
    """Return the path of the lock that is held while a scan is worked on."""
    return output_dir / "logs" / "scans" / f"{scan}.lock"


def interrupted(output_dir: Path, scan: str) -> bool:
    """Return whether a scan was begun here and is not finished: its files may be of two runs."""
    return lock_path(output_dir, scan).exists() and not mark_path(output_dir, scan).exists()


def read_mark(output_dir: Path, scan: str) -> Summary | None:
    """Return the summary of a finished scan, or None where there is no whole, readable mark."""
    try:
        content = formats.read_json(mark_path(output_dir, scan))
        content["checks"] = tuple(
            Check(**{key: item[key] for key in ("name", "value", "unit", "low", "high", "meaning")})
            for item in content["checks"]
        )
        for key in ("warnings", "lesion_warnings", "outputs"):
            content[key] = tuple(content.get(key, ()))
        content["origin"] = Origin(**content["origin"])
        content["scan"] = Scan(Scan.named(content["scan"]).entities, content["origin"].source)
        return Summary(**content)
    except (BidsAppError, TypeError, KeyError):
        return None


def write_mark(output_dir: Path, summary: Summary) -> None:
    """Write the mark that says that a scan is finished; `read_mark` gives the summary back."""
    formats.write_json(mark_path(output_dir, summary.scan.name), asdict(summary) | {"scan": summary.scan.name})


def finished(output_dir: Path, mark: Summary | None, wanted: str, outputs: Sequence[str]) -> bool:
    """Return whether a scan was finished with this digest and its files (these ``outputs`` at least) are there."""
    return mark is not None and mark.origin.digest == wanted and complete(output_dir, mark, outputs)


def complete(output_dir: Path, mark: Summary, outputs: Sequence[str]) -> bool:
    """Return whether the mark names these outputs, and all files that it names are there."""
    named = (*mark.outputs, *mark.figures.values())
    return set(outputs) <= set(mark.outputs) and all((output_dir / path).is_file() for path in named)
