"""Words of the command line as values, refused with the reason where they are none; and how an option is declared."""

from __future__ import annotations

import argparse
import re
from dataclasses import MISSING, field
from pathlib import Path
from typing import Any

MOST = 2**31 - 1  # whole numbers beyond do not fit the libraries' seeds and counts
DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"  # what word processors make of a hyphen


def label(text: str) -> str:
    """Return a BIDS label without its ``sub-`` or ``ses-`` prefix."""
    label = re.sub(r"^(sub|ses)-", "", text)
    if not re.fullmatch(r"[0-9a-zA-Z]+", label):
        hint = "; it holds a typographic dash, type '-'" if any(dash in text for dash in DASHES) else ""
        raise argparse.ArgumentTypeError(f"{text!r} is no BIDS label (letters and digits only){hint}")
    return label


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    value = int(text)
    if not 1 <= value <= MOST:
        raise argparse.ArgumentTypeError(f"{text[:20]} is not at least 1, or beyond {MOST}")
    return value


def natural(text: str) -> int:
    """Return a whole number of at least 0."""
    value = int(text)
    if not 0 <= value <= MOST:
        raise argparse.ArgumentTypeError(f"{text[:20]} is not within 0 and {MOST}")
    return value


def threshold(text: str) -> float:
    """Return a lesion threshold, a relative intensity."""
    value = float(text)
    if not -1 < value < 100:
        raise argparse.ArgumentTypeError(f"{text} is not between -1 and 100 (relative intensity; published: 0.32)")
    return value


def share(text: str) -> float:
    """Return a share, above 0 and below 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1 (nine in ten is 0.9)")
    return value


def days(text: str) -> float:
    """Return a number of days, above 0."""
    value = float(text)
    if not 0 < value <= 36525:
        raise argparse.ArgumentTypeError(f"{text} is not within 0 and 36525 days")
    return value


def path(text: str) -> Path:
    """Return a path; an empty one would be the folder one happens to be in."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the path is empty; is a variable of your script not set?")
    try:
        Path(text).resolve().exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long; links in a circle; NUL
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no usable path ({str(error)[:80]})") from error
    return Path(text)


def option(
    help_text: str,
    default: Any = MISSING,
    *aliases: str,
    section: str = "General",
    decides: tuple[str, ...] = (),
    **parser: Any,
) -> Any:
    """Return a dataclass field that knows how it is spelled and explained on the command line.

    ``decides`` names the levels whose results depend on it; an option that decides nothing must not change a byte.
    """
    metadata = {"help": help_text, "aliases": aliases, "section": section, "decides": decides, "parser": parser}
    if isinstance(default, tuple):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)
