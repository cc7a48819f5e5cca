"""What a process needs before it works: threads, memory, folders for temporary files, and its log."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from bids_app.files import atomic

log = logging.getLogger("bids_app")
THREAD_VARIABLES = (
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
MALLOC_SETTINGS = {"M_TRIM_THRESHOLD": (-1, -1), "M_MMAP_MAX": (-4, 0)}  # parameter's number and value; see mallopt(3)


def limit_threads(count: int) -> None:
    """Set the number of threads of ITK and the numerical libraries; works only before they are imported."""
    for name in THREAD_VARIABLES:
        os.environ[name] = str(count)


def keep_freed_memory() -> None:
    """Let this process use freed memory again rather than return it to the system; nothing where libc is not glibc.

    A scan's arrays come and go by the hundred, and each time the kernel would fill their pages with zeros anew:
    a tenth of the participant level's CPU seconds. The peak stays what it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in MALLOC_SETTINGS.values():
            mallopt(parameter, value)


class Ending(NamedTuple):
    """How a level ended: the exit code, and why in words."""

    exit_code: int
    why: str


@dataclass(frozen=True)
class Workplace:
    """Where a run works: its log and how much it says, and a folder for temporary files that goes with it."""

    log_file: Path
    work_dir: Path
    verbose: int = 0


@contextmanager
def workplace(output_dir: Path, work_dir: Path | None, verbose: int) -> Iterator[Workplace]:
    """Make the folders of a run and open its log, ``output_dir/logs/<time>-<process>/log.txt``.

    Parameters
    ----------
    work_dir : Path, optional
        Default: ``output_dir/.work``, removed at the end unless another run is using it.

    Raises
    ------
    CannotCreateError
        A folder cannot be made.
    """
    atomic.make_folder(output_dir)
    root = (work_dir or output_dir / ".work").absolute()
    try:
        with atomic.temporary_folder(root) as folder:
            keep_to(folder, caches=work_dir)
            stamp = datetime.now().strftime("%Y%m%dT%H%M%S") + f"-{os.getpid()}"
            log_file = output_dir / "logs" / stamp / "log.txt"
            atomic.make_folder(log_file.parent)
            log_to(log_file, verbose)
            yield Workplace(log_file, folder, verbose)
    finally:
        if work_dir is None:
            with suppress(OSError):  # another run is using it
                root.rmdir()


def need_no_home(folder: Path) -> None:
    """Name a home where there is none: pybids asks for it, and an unknown user of a container has none."""
    os.environ.setdefault("HOME", str(folder))


def keep_to(folder: Path, caches: Path | None = None) -> None:
    """Send temporary files to ``folder``, and caches there or to ``caches``: containers are read-only, /tmp is tiny.

    Works only before libraries are imported. A call in a process that keeps to this folder already does nothing.
    """
    if os.environ.get("TMPDIR") == str(folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("TMPDIR", "DASK_TEMPORARY_DIRECTORY"):
        os.environ[name] = str(folder)
    for name in ("MPLCONFIGDIR", "DENO_DIR", "NUMBA_CACHE_DIR"):
        os.environ[name] = str(caches or folder)


class _Terminal(logging.StreamHandler[TextIO]):
    """Standard error; on a terminal each line first clears what a bar has drawn there (see `progress`)."""

    def format(self, record: logging.LogRecord) -> str:
        clear = "\r\x1b[K" if self.stream.isatty() else ""
        return clear + super().format(record)


class _LogFile(WatchedFileHandler):
    """A log file that is made anew where somebody removed it, and that says once when it cannot be written."""

    def _open(self) -> Any:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()

    def handleError(self, record: logging.LogRecord) -> None:
        if not getattr(self, "said", False):
            self.said = True
            log.warning("the log %s cannot be written; it goes on here only", self.baseFilename)


def log_to(path: Path, verbose: int) -> None:
    """Send the log to standard error and, in short lines that many processes may append, to a file.

    Called in the main process and, before every scan, in the workers: a call with the same path does nothing.
    """
    if any(getattr(handler, "baseFilename", "") == os.path.abspath(path) for handler in log.handlers):
        return
    for handler in list(log.handlers):  # of an earlier run in this process
        handler.close()
        log.removeHandler(handler)
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    form = logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    for handler in (_Terminal(), _LogFile(path, encoding="utf-8", delay=True)):
        handler.setFormatter(form)
        log.addHandler(handler)
    log.propagate = False
