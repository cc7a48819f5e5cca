"""Where files are put: whole or not at all, under locks, in folders that go again."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from bids_app.errors import CannotCreateError, MissingInputError, WriteFailedError

PART = ".part-"  # begins the name of a file that is being written


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; move it into place only when the block ends well.

    Raises
    ------
    CannotCreateError
        The folder cannot be made or written to.
    WriteFailedError
        The disk is full, or the move failed.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f"{PART}{path.name[:150]}-", suffix=".tmp", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise CannotCreateError(
            f"cannot be created ({error.strerror})", path, "check permissions and free space"
        ) from error
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_UMASK)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, (CannotCreateError, WriteFailedError, MissingInputError)):
            raise
        raise WriteFailedError(f"writing failed ({error.strerror})", path, "check free space") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_parts(folder: Path, name: str) -> None:
    """Remove what a killed run left half written in ``folder`` of files whose names begin with ``name``."""
    for path in folder.glob(f"{PART}{name}*.tmp"):
        path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock of a file against all other processes; the system frees it when its holder dies.

    Parameters
    ----------
    path : Path
        Empty file that is made and stays.
    waiting : callable
        Called once where another process holds it, before the wait.

    Raises
    ------
    CannotCreateError
        The file cannot be made.
    """
    make_folder(path.parent)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        waiting()
        lock.acquire()
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
            raise CannotCreateError(f"cannot be locked ({error.strerror})", path, "check permissions") from error
        # a file system without locks: two runs at once are then the user's care
    try:
        yield
    finally:
        lock.release()


@contextmanager
def temporary_folder(root: Path) -> Iterator[Path]:
    """Yield a new folder in ``root`` that is removed at the end; also remove those that killed runs left there.

    Raises
    ------
    CannotCreateError
        It cannot be made.
    """
    make_folder(root)
    for left in root.glob("run-*.lock"):
        lock = FileLock(left)
        with suppress(Timeout, OSError):  # held: its run is alive
            lock.acquire(blocking=False)
            shutil.rmtree(left.with_suffix(""), ignore_errors=True)
            left.unlink(missing_ok=True)
            lock.release()
    with ExitStack() as stack:
        # the process number alone would repeat in containers that share a folder
        mine = root / f"run-{os.getpid()}-{os.urandom(4).hex()}"
        stack.enter_context(locked(mine.with_suffix(".lock")))
        make_folder(mine)
        try:
            yield mine
        finally:
            shutil.rmtree(mine, ignore_errors=True)
            mine.with_suffix(".lock").unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder and its parents.

    Raises
    ------
    CannotCreateError
        It cannot be made, or not be written to.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotCreateError(
            f"cannot be created ({error.strerror})", path, "check permissions and free space"
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise CannotCreateError("cannot be written to", path, "check permissions")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _umask()  # read once at import: os.umask is not safe between threads
