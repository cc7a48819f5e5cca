"""The tree of errors: each says what, where and what to do next, and knows its exit code.

Exit codes are those of the BIDS execution specification (``sysexits.h`` where it has a word for it).
"""

from __future__ import annotations


class BidsAppError(Exception):
    """Root of every error a user can meet.

    Parameters
    ----------
    what : str
        What is wrong, as one clause.
    where : str, optional
        The file, scan or option concerned.
    remedy : str, optional
        What the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, where: object = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, str(where), remedy
        super().__init__(self._line())

    def _line(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        line = f"{line}; {self.remedy}" if self.remedy else line
        return " ".join(line.split())

    def __reduce__(self) -> tuple[type[BidsAppError], tuple[str, str, str]]:
        return type(self), (self.what, self.where, self.remedy)


class ScanError(BidsAppError):
    """One scan cannot be processed; the others go on."""


class InvalidDatasetError(BidsAppError):
    """The BIDS validator finds errors in the input."""

    exit_code = 16


class NothingSelectedError(BidsAppError):
    """The filters select nothing."""

    exit_code = 18


class UsageError(BidsAppError, ValueError):
    """The command line is wrong."""

    exit_code = 64


class BadInputError(BidsAppError, ValueError):
    """A table, map or model holds what it must not hold."""

    exit_code = 65


class MissingInputError(BidsAppError, FileNotFoundError):
    """A file or folder that is needed is not there."""

    exit_code = 66


class CannotCreateError(BidsAppError, OSError):
    """An output folder or file cannot be created."""

    exit_code = 73


class WriteFailedError(BidsAppError, OSError):
    """Writing failed half way (disk full, lost mount)."""

    exit_code = 74
