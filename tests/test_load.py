"""Many scans, and a kill in the middle: a small one of what ``benchmarks/load.py`` does with a thousand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bids_app.files import formats

PROGRAM = Path(__file__).parent.parent / "benchmarks" / "load.py"


@pytest.mark.long
def test_memory_is_flat_files_are_closed_and_nothing_is_lost(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    words = ["--scans", "60", "--maps", "400", "--output", str(found)]
    done = subprocess.run([sys.executable, str(PROGRAM), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = formats.read_json(found)["participant"]
    assert seen["finished at the kill"] >= 30
    assert seen["unchanged after it"] == seen["finished at the kill"]
    assert seen["unchanged after it"] + seen["done after it"] == 60
    assert seen["worker_mb_growth"] < 1.15
    assert seen["main_mb_growth"] < 1.15
    assert seen["worker_files_growth"] < 1.3
    assert seen["main_files_growth"] < 1.3
