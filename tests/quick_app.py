"""The command with its science replaced: a scan takes half a second, and can be told to do harm. The rest is real.

    python tests/quick_app.py BIDS_DIR OUTPUT_DIR participant ...

What is found is read from the file ``QUICK_FOUND`` (see `prepare`; all scans must have one grid), there are no real
figures. Workers import this file too, so it acts there as well; a Dask worker elsewhere takes it by ``--preload``.

``QUICK_HARM`` is ``scan:what:times``, done the first ``times`` times that the scan is worked on; ``QUICK_NOTES`` is a
folder in which it is noted. What: ``kill`` (SIGKILL), ``kill-writing`` (while the third image is written),
``memory`` (takes 3 GB), ``wait`` (until a file ``go`` is in the folder).
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

QUICK = "QUICK_FOUND" in os.environ
if QUICK:  # what is not used here need not be imported: seconds for each process
    for name in ("ants", "bids_app.drawing.scan_figures"):
        sys.modules[name] = ModuleType(name)

from bids_app.participant import worker  # noqa: E402

PICTURE = b"a picture"


def prepare(raw: Path, done: Path, folder: Path) -> Path:
    """Write what was found in the first scan of a finished data set into ``folder``; return the file."""
    from bids_app.bids.query import find_scans
    from bids_app.files import formats
    from bids_app.image.geometry import Frame
    from bids_app.lesions import maps
    from bids_app.participant import marks, rethreshold
    from bids_app.records.scan import Volume

    scan = find_scans(raw)[0][0]
    mark = marks.read_mark(done, scan.name)
    assert mark
    frame = Frame(Volume(*formats.read_nifti(raw / scan.path)))
    folder.mkdir(parents=True)
    anatomy = rethreshold.restored(scan, frame, done, mark, folder)
    path = folder / "found.pickle"
    path.write_bytes(pickle.dumps(maps.find_lesions(anatomy, 0.32)))
    return path


@cache
def _found() -> Any:
    return pickle.loads(Path(os.environ["QUICK_FOUND"]).read_bytes())  # noqa: S301


def _analyse(task: worker.Task, volume: Any, known: Any, warnings: Any, digests: Any, mark: Any) -> Any:
    from bids_app.image.geometry import Frame
    from bids_app.participant import derivatives
    from bids_app.records.scan import Origin

    _harm(task.scan.name)
    derivatives._draw = lambda found, wanted: dict.fromkeys(wanted, PICTURE)
    origin = Origin(task.scan.path, *digests, dict(task.parameters), {}, {})
    target = derivatives.Target(task.scan, task.output_dir, task.keys, mark.outputs if mark else ())
    return derivatives.write(target, _found(), Frame(volume), origin)


def _harm(scan: str) -> None:
    asked = os.environ.get("QUICK_HARM", "")
    if not asked or asked.split(":")[0] != scan:
        return
    _, what, times = asked.split(":")
    notes = Path(os.environ["QUICK_NOTES"])
    if len(list(notes.glob("harm-*"))) >= int(times):
        return
    (notes / f"harm-{os.getpid()}-{time.time_ns()}").touch()
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "kill-writing":
        _kill_at_third_image()
    elif what == "memory":
        taken = bytearray(3_000_000_000)
        taken[::4096] = b"1" * len(taken[::4096])
        time.sleep(60)
    elif what == "wait":
        while not (notes / "go").exists():
            time.sleep(0.05)


def _kill_at_third_image() -> None:
    from bids_app.files import formats

    count = [0]
    whole = formats._first_axis_fastest

    def turned(*args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        if count[0] == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*args, **kwargs)

    formats._first_axis_fastest = turned


if QUICK:
    worker._analyse = _analyse

if __name__ == "__main__":
    from bids_app.__main__ import main

    sys.exit(main())
