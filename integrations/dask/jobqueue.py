#!/usr/bin/env python3
"""Runs bids_app on workers that dask-jobqueue starts as SLURM jobs, one scan a worker at a time.

    pip install dask-jobqueue        # beside bids_app; the app itself does not need it
    python jobqueue.py --jobs 20 --queue normal -- /data/bids /data/derivatives participant

Run it where jobs may be submitted, and leave it running (in tmux or in a small job of its own). What stands after
``--`` are the words of bids_app. For PBS or SGE put PBSCluster or SGECluster in place of SLURMCluster. Data and output
must be reachable under the same paths on every node. With ``--image`` the workers run in an Apptainer image, which
should hold the same bids_app version as this machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from dask_jobqueue import SLURMCluster

from bids_app.machine.process import THREAD_VARIABLES


def words() -> argparse.ArgumentParser:
    """Return the parser of what stands before ``--``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=4, help="SLURM jobs, each with one worker (default: 4)")
    parser.add_argument("--queue", help="SLURM partition")
    parser.add_argument("--account", help="SLURM account")
    parser.add_argument("--memory", default="4GB", help="memory of a job (default: 4GB)")
    parser.add_argument("--walltime", default="04:00:00", help="time of a job (default: 04:00:00)")
    parser.add_argument("--interface", help="network interface of the scheduler and the workers, such as ib0")
    parser.add_argument("--image", type=Path, help="Apptainer image for the workers (default: this Python)")
    parser.add_argument("--bind", action="append", default=[], metavar="PATH", help="folder the image must see")
    parser.add_argument("app", nargs=argparse.REMAINDER, metavar="-- bids_app's own words")
    return parser


def worker_python(image: Path | None, binds: list[str]) -> str:
    """Return the Python that starts a worker, as it stands in the job script."""
    if image is None:
        return sys.executable
    return " ".join(["apptainer", "exec", "--cleanenv", *[f"--bind {place}" for place in binds], str(image), "python3"])


def main() -> int:
    """Start the cluster, run bids_app on it, and return its exit code."""
    given = words().parse_args()
    app = given.app[1:] if given.app[:1] == ["--"] else given.app
    with (
        tempfile.TemporaryDirectory(prefix="bids_app_", dir=Path.cwd()) as folder,
        SLURMCluster(
            queue=given.queue,
            account=given.account,
            cores=1,
            processes=1,
            memory=given.memory,
            walltime=given.walltime,
            interface=given.interface,
            python=worker_python(given.image, given.bind),
            log_directory="logs",
            job_script_prologue=[f"export {name}=1" for name in THREAD_VARIABLES],
        ) as cluster,
    ):
        cluster.scale(jobs=given.jobs)
        scheduler_file = Path(folder) / "scheduler.json"
        with cluster.get_client() as client:
            client.write_scheduler_file(str(scheduler_file))
        command = [sys.executable, "-m", "bids_app", *app, "--dask-scheduler-file", str(scheduler_file)]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
