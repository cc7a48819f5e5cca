"""Runs tasks in parallel: in this process, on a local Dask cluster of processes, or on one that already runs.

Dask rather than our own pool: a worker that is killed loses its scan only, and the same code reaches a cluster.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bids_app.errors import BidsAppError, MissingInputError, UsageError

Task = TypeVar("Task")
Result = TypeVar("Result")
log = logging.getLogger("bids_app")
SCAN_MB = 1500  # what a worker needs for a clinical scan, with room to spare
CONNECT_SECONDS = 30
SETTINGS = {
    "distributed.scheduler.allowed-failures": 1,  # a task whose worker died is tried once more
    "distributed.scheduler.worker-saturation": 1.0,  # no task waits at a worker, to be blamed for its death
    "distributed.admin.low-level-log-length": 0,
    "distributed.worker.memory.target": False,  # nothing of a scan can be spilled to disk
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.profile.enabled": False,  # it holds the arrays of the frames that it looks at
    "distributed.scheduler.http.routes": [],  # pages of the dashboard have no key: nobody is served
    "distributed.worker.http.routes": [],
    "distributed.worker.preload": ["bids_app.machine.parallel"],  # calls `dask_setup` in every worker
}


def dask_setup(worker: object) -> None:
    """Leave the interrupt from a terminal, which reaches all processes, to the command: it ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _quieten()


def _quieten() -> None:
    """Let Dask say nothing in this process any more: what goes wrong in a cluster of our own, this app says itself.

    What Dask does about it itself ends when the cluster closes, and connections may break a moment later.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Workers:
    """Where tasks run.

    Attributes
    ----------
    nprocs : int
        Tasks side by side on this machine.
    mem_mb : int, optional
        Memory of all processes together; by default what this machine or its cgroup allows.
    dask_scheduler, dask_scheduler_file : str, Path, optional
        Address of a running Dask scheduler, or the file in which it wrote it: its workers do the work.
    isolated : bool
        Never in this process where there are several tasks, so that a crash loses one task only.
    """

    nprocs: int = 1
    mem_mb: int | None = None
    dask_scheduler: str | None = None
    dask_scheduler_file: Path | None = None
    isolated: bool = False

    @property
    def elsewhere(self) -> bool:
        """Whether the work goes to a cluster that already runs."""
        return bool(self.dask_scheduler or self.dask_scheduler_file)

    def here(self, n_tasks: int) -> bool:
        """Whether this process does the work itself: one task needs no cluster."""
        return not self.elsewhere and (n_tasks < 2 or (self.nprocs == 1 and not self.isolated))


def run(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: Workers,
    lost: Callable[[Task, str], Result],
) -> Iterator[Result]:
    """Yield the result of every task as it is done, in any order.

    Parameters
    ----------
    work : callable
        A module-level function. A `BidsAppError` that it raises ends the run with the same line wherever it runs;
        it must not raise anything else.
    workers : Workers
    lost : callable
        Makes the result of a task whose process died twice, from the task and the reason.

    Raises
    ------
    BidsAppError
        As ``work`` does.
    MissingInputError
        No scheduler answers.
    UsageError
        The scheduler's workers run several tasks in one process.
    """
    if workers.here(len(tasks)):
        for task in tasks:
            yield work(task)
        return
    import dask
    from distributed import as_completed

    # dask reads it from the environment once, when it is imported: perhaps for an earlier run of this process
    place = {"temporary-directory": os.environ.get("DASK_TEMPORARY_DIRECTORY")}
    with dask.config.set(SETTINGS | place), ExitStack() as stack:
        client, memory = _client(workers, len(tasks), stack)
        run_id = os.urandom(4).hex()  # a scheduler that already runs may know tasks of other runs
        futures = {
            client.submit(work, task, key=f"{work.__name__}-{run_id}-{n}", pure=False): task
            for n, task in enumerate(tasks)
        }
        for future in as_completed(futures):
            if future.status == "finished":
                yield future.result()
            elif future.status == "error":
                error = future.exception()
                if isinstance(error, BidsAppError):
                    raise error
                yield lost(futures[future], _reason(error, memory))
            else:
                yield lost(futures[future], "the Dask scheduler is gone")
            future.release()


def _client(workers: Workers, n_tasks: int, stack: ExitStack) -> tuple[Any, str]:
    """Return a client, closed with the stack, and what is known of a worker's memory limit."""
    from distributed import Client, LocalCluster
    from distributed.system import MEMORY_LIMIT

    if workers.elsewhere:
        return _connected(workers, stack), ""
    allowed = workers.mem_mb or MEMORY_LIMIT // 1_000_000
    _quieten()
    count = min(workers.nprocs, n_tasks, max(1, allowed // SCAN_MB))
    if count < min(workers.nprocs, n_tasks):
        log.warning("%d MB of memory: %d processes instead of %d", allowed, count, workers.nprocs)
    cluster = LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        processes=True,
        dashboard_address="127.0.0.1:0",
        host="127.0.0.1",
        protocol="tls://",
        security=True,  # a key made for this run: on a shared machine nobody else may send tasks
        memory_limit=f"{allowed // count}MB",
        silence_logs="CRITICAL",  # of the nannies' processes before `dask_setup` is called there
        local_directory=os.environ.get("DASK_TEMPORARY_DIRECTORY"),
    )
    stack.enter_context(cluster)
    return stack.enter_context(Client(cluster)), f"{allowed // count} MB"


def _connected(workers: Workers, stack: ExitStack) -> Any:
    from distributed import Client

    where = workers.dask_scheduler or str(workers.dask_scheduler_file)
    try:
        file = workers.dask_scheduler_file
        if file and not file.exists():
            raise OSError("no such file")
        asked = {"scheduler_file": str(file)} if file else {"address": where}
        client = stack.enter_context(Client(**asked, timeout=CONNECT_SECONDS))
    except (OSError, TimeoutError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise MissingInputError(
            f"no Dask scheduler answers ({reason})",
            where,
            "start 'dask scheduler' and 'dask worker --nthreads 1' first",
        ) from error
    threads = list(client.nthreads().values())
    if any(count != 1 for count in threads):
        raise UsageError(
            f"workers at {where} run up to {max(threads)} tasks in one process",
            remedy="start them with 'dask worker --nthreads 1 --nworkers N'",
        )
    log.info("%d workers at %s", len(threads), where)
    return client


def _reason(error: BaseException | None, memory: str) -> str:
    if type(error).__name__ == "KilledWorker":
        return "killed, crashed, or over its memory" + (f" of {memory}" if memory else "")
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
