"""Tasks in worker processes: what a run leaves behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bids_app.errors import BadInputError
from bids_app.machine import parallel

TWICE = """
import math, os, sys, tempfile
from pathlib import Path
from bids_app.files import atomic
from bids_app.machine import parallel, process

if __name__ == "__main__":
    for _ in range(2):
        os.environ["TMPDIR"] = ""
        with atomic.temporary_folder(Path(sys.argv[1])) as folder:
            tempfile.tempdir = None
            process.keep_to(folder)
            found = parallel.run(math.sqrt, [4, 9], parallel.Workers(1, isolated=True), lambda task, reason: reason)
            print(sorted(found))
"""


LATE = """
import logging, math
from bids_app.machine import parallel

if __name__ == "__main__":
    list(parallel.run(math.sqrt, [4, 9], parallel.Workers(1, isolated=True), lambda task, reason: reason))
    logging.getLogger("distributed.batched").info("Batched Comm Closed")
"""


def test_a_connection_that_breaks_after_the_run_says_nothing(tmp_path: Path) -> None:
    """Dask tells it with a traceback, once its cluster is closed and no longer silenced: a signal ends it so."""
    (tmp_path / "late.py").write_text(LATE)
    done = subprocess.run([sys.executable, str(tmp_path / "late.py")], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_a_second_run_in_a_process_leaves_nothing_either(tmp_path: Path) -> None:
    """Dask keeps the folder for temporary files that it knew when it was imported: that of the first run."""
    (tmp_path / "twice.py").write_text(TWICE)
    root = tmp_path / "work"
    words = [sys.executable, str(tmp_path / "twice.py"), str(root)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:2] == ["[2.0, 3.0]"] * 2, done.stderr
    assert [str(path) for path in root.rglob("*")] == []


def _refused(task: int) -> int:
    raise BadInputError("the group has 1 participant", "here", "add data")


def _broken(task: int) -> int:
    raise ValueError("a mistake of ours")


def _say(task: int, reason: str) -> str:
    return reason


@pytest.mark.parametrize("nprocs", [1, 2])
def test_what_is_wrong_in_a_task_is_said_as_it_is(nprocs: int) -> None:
    with pytest.raises(BadInputError) as found:
        list(parallel.run(_refused, [1, 2], parallel.Workers(nprocs), _say))
    assert str(found.value) == "here: the group has 1 participant; add data" and found.value.exit_code == 65


def test_a_mistake_of_ours_loses_its_task_only() -> None:
    assert list(parallel.run(_broken, [1, 2], parallel.Workers(2), _say)) == ["ValueError: a mistake of ours"] * 2
