"""Runs scans in parallel: in this process, or on a Dask cluster of processes.

Dask rather than our own pool: a worker that is killed loses its scan only, and the same code reaches a cluster.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

THREAD_VARIABLES = (
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def limit_threads(count: int) -> None:
    """Set the number of threads of ITK and the numerical libraries; works only before they are imported."""
    for name in THREAD_VARIABLES:
        os.environ[name] = str(count)


def keep_to(folder: Path) -> None:
    """Send every temporary file and cache to ``folder``: containers are read-only and have a tiny /tmp.

    Works only before libraries are imported; makes no folder.
    """
    for name in ("TMPDIR", "MPLCONFIGDIR", "DENO_DIR", "NUMBA_CACHE_DIR"):
        os.environ[name] = str(folder)
    os.environ.setdefault("HOME", str(folder))  # pybids looks there, and an unknown user of a container has none
    os.environ.setdefault("DASK_TEMPORARY_DIRECTORY", str(folder))


def run(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    nprocs: int,
    mem_mb: int | None,
    lost: Callable[[Task, str], Result],
) -> Iterator[Result]:
    """Yield the result of every task as it is done, in any order.

    Parameters
    ----------
    work : callable
        A module-level function; it must not raise.
    nprocs : int
        1 runs here, without starting anything.
    mem_mb : int, optional
        Memory of all processes together.
    lost : callable
        Makes the result of a task whose process died twice, from the task and the reason.
    """
    if nprocs == 1 or len(tasks) < 2:
        for task in tasks:
            yield work(task)
        return
    yield from _on_cluster(work, tasks, min(nprocs, len(tasks)), mem_mb, lost)


def _on_cluster(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    nprocs: int,
    mem_mb: int | None,
    lost: Callable[[Task, str], Result],
) -> Iterator[Result]:
    import dask
    from distributed import Client, LocalCluster, as_completed

    dask.config.set({"distributed.scheduler.allowed-failures": 1, "distributed.admin.low-level-log-length": 0})
    settings: dict[str, Any] = {"memory_limit": f"{mem_mb // nprocs}MB" if mem_mb else "auto"}
    with (
        LocalCluster(
            n_workers=nprocs,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            host="127.0.0.1",
            silence_logs="CRITICAL",
            local_directory=os.environ.get("DASK_TEMPORARY_DIRECTORY"),
            **settings,
        ) as cluster,
        Client(cluster) as client,
    ):
        futures = {client.submit(work, task, key=f"scan-{n}", pure=False): task for n, task in enumerate(tasks)}
        for future in as_completed(futures):
            if future.status == "finished":
                yield future.result()
            else:
                error = future.exception()
                yield lost(futures[future], " ".join(f"{type(error).__name__}: {error}".split())[:200])
            future.release()


def log_to(path: Path, verbose: int) -> None:
    """Send the log to standard error and, in short lines that many processes may append, to a file.

    Called in the main process and, before every scan, in the workers: a call with the same path does nothing.
    """
    log = logging.getLogger("bids_app")
    if any(getattr(handler, "baseFilename", "") == os.path.abspath(path) for handler in log.handlers):
        return
    for handler in list(log.handlers):  # of an earlier run in this process
        handler.close()
        log.removeHandler(handler)
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    form = logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    path.parent.mkdir(parents=True, exist_ok=True)
    for handler in (logging.StreamHandler(), logging.FileHandler(path, encoding="utf-8", delay=True)):
        handler.setFormatter(form)
        log.addHandler(handler)
    log.propagate = False
