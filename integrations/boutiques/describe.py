"""Makes the Boutiques descriptor (schema 0.5) from the parser and the table of errors.

``python integrations/boutiques/describe.py`` writes ``bids_app.json`` beside this file. Run it after an option or an
error code has changed; a test compares the two.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bids_app import __version__
from bids_app.errors import BidsAppError
from bids_app.parser import parser

DESCRIPTOR = Path(__file__).with_name("bids_app.json")
MADE_BY_THE_APP = ("output_dir", "work_dir", "bids_database_dir")  # need not exist: Boutiques demands that of a File
EXCLUSIVE = (("dask_scheduler", "dask_scheduler_file"), ("model", "small_output"))
OTHER_CODES = {
    70: "An error of the program itself; please report it.",
    130: "Interrupted (SIGINT); finished scans stay.",
    143: "Terminated (SIGTERM); finished scans stay.",
}


def error_codes() -> dict[int, str]:
    """Return what each exit code but 0 means: the first line of its error's docstring."""
    found = {kind.exit_code: (kind.__doc__ or "").splitlines()[0] for kind in reversed(BidsAppError.__subclasses__())}
    return dict(sorted({**OTHER_CODES, **found}.items()))


def actions() -> list[argparse.Action]:
    """Return the parser's arguments and options, without those that only print and leave."""
    return [action for action in parser()._actions if action.dest not in ("help", "version")]


def descriptor() -> dict[str, Any]:
    """Return the descriptor as it is written."""
    inputs = [_input(action) for action in actions()]
    for one, other in EXCLUSIVE:
        for entry in inputs:
            if entry["id"] in (one, other):
                entry["disables-inputs"] = [other if entry["id"] == one else one]
    return {
        "name": "bids_app",
        "description": "Tells RRMS from NMOSD by brain FLAIR scans: lesion maps at the participant level, classifier "
        "and evaluation at the group level. Research software, no medical device.",
        "tool-version": __version__,
        "schema-version": "0.5",
        "command-line": " ".join(["bids_app", *(entry["value-key"] for entry in inputs)]),
        "container-image": {"type": "docker", "image": f"bids_app:{__version__}"},
        "tags": {"domain": ["neuroinformatics", "bids", "mri"]},
        "suggested-resources": {"cpu-cores": 1, "ram": 4, "walltime-estimate": 600},
        "inputs": inputs,
        "output-files": [
            {
                "id": "derivatives",
                "name": "Derivatives",
                "description": "BIDS derivatives, reports and tables",
                "path-template": "[OUTPUT_DIR]",
                "optional": True,  # a dry run writes nothing
            }
        ],
        "error-codes": [{"code": code, "description": text} for code, text in error_codes().items()],
    }


def _input(action: argparse.Action) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": action.dest,
        "name": action.dest.replace("_", " ").capitalize().replace("Bids", "BIDS"),
        "description": action.help,
        "value-key": f"[{action.dest.upper()}]",
        "optional": bool(action.option_strings),
    }
    if isinstance(action, argparse._CountAction):  # Boutiques cannot repeat a flag: the flag itself is the value
        return {**entry, "type": "String", "value-choices": ["-v", "-vv"]}
    if action.option_strings:
        entry["command-line-flag"] = "--" + action.dest.replace("_", "-")
    if action.nargs == "+":
        entry |= {"list": True, "min-list-entries": 1}
    return {**entry, **_kind(action)}


def _kind(action: argparse.Action) -> dict[str, Any]:
    """Return the type of an argument, and what Boutiques can check of its value."""
    if isinstance(action, argparse._StoreTrueAction):
        return {"type": "Flag"}
    if action.choices:
        return {"type": "String", "value-choices": list(action.choices)}
    read = action.type if callable(action.type) else str
    if not _accepts(read, "1"):  # a share, between 0 and 1
        return {"type": "Number", "minimum": 0, "maximum": 1, "exclusive-minimum": True, "exclusive-maximum": True}
    if isinstance(read("1"), Path):
        return {"type": "String" if action.dest in MADE_BY_THE_APP else "File"}
    if isinstance(read("1"), str):
        return {"type": "String"}
    if isinstance(read("1"), float):
        return {"type": "Number"}
    lowest = [number for number in (0, 1) if _accepts(read, str(number)) and not _accepts(read, str(number - 1))]
    return {"type": "Number", "integer": True, **({"minimum": lowest[0]} if lowest else {})}


def _accepts(read: Callable[[str], object], word: str) -> bool:
    try:
        read(word)
    except (ValueError, argparse.ArgumentTypeError):
        return False
    return True


def text() -> str:
    """Return the descriptor's file, to the byte."""
    return json.dumps(descriptor(), indent=2) + "\n"


if __name__ == "__main__":
    DESCRIPTOR.write_text(text(), encoding="utf-8")
