"""Where the real scans lie that tests read; never part of the project."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(os.environ.get("BIDS_APP_REAL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data" / "open-ms"))
THERE = (FOLDER / "raw" / "dataset_description.json").is_file()
ALL = os.environ.get("LONG_TESTS") == "all"  # a minute each: also what others stand for
