"""What every derivative data set says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids_app import __version__
from bids_app.bids.names import APP, set_output
from bids_app.files import formats

BIDS_VERSION = "1.10.0"
BIDSIGNORE = (  # no trailing slashes: the validator then ignores the line
    "*.html",
    "**/figures",
    "group",
    "logs",
    "*_xfm.*",
    "*_statmap.*",
    *(set_output(key).replace(".tsv", ".*") for key in ("table", "predictions")),
)


def description(name: str, sources: Mapping[str, str]) -> dict[str, Any]:
    """Return the dataset_description.json of derivatives; ``sources`` maps link names to paths or URIs."""
    return {
        "Name": name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "License": "See the license of the source data set",
        "GeneratedBy": [{"Name": APP, "Version": __version__, "Description": "RRMS against NMOSD by brain FLAIR"}],
        "SourceDatasets": [{"URL": uri} for uri in sources.values()],
        "DatasetLinks": dict(sources),
    }


def describe(root: Path, name: str, bids_dir: Path, *, keep: bool = False) -> None:
    """Write dataset_description.json and .bidsignore of derivatives of the data set ``bids_dir``.

    With ``keep`` a description that is there stays: that of derivatives from elsewhere.
    """
    path = root / "dataset_description.json"
    if not (keep and path.exists()):
        formats.write_json(path, description(name, {"raw": bids_dir.resolve().as_uri()}))
    formats.write_text(root / ".bidsignore", "\n".join(BIDSIGNORE) + "\n")
