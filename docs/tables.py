"""Tables of the site that are made from the code, as Markdown: outputs, exit codes, licences."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from bids_app.bids.names import GIVEN, GROUP_OUTPUTS, OUTPUTS, PREDICTED, SMALL, Scan
from bids_app.lesions.places import DEFINITIONS

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
DESCRIPTOR = ROOT / "integrations" / "boutiques" / "bids_app.json"
SCAN = Scan((("sub", "X"), ("ses", "Y")), "")

STATED_ELSEWHERE = {  # packages whose metadata name no licence clearly; read in their licence files
    "matplotlib": "PSF-based (matplotlib licence)",
}


def outputs() -> str:
    """Return the participant level's images: name, meaning, kept by --small-output."""
    rows = []
    for key, row in {**OUTPUTS, **GIVEN, **PREDICTED}.items():
        name = Path(SCAN.output(key)).name.replace("sub-X_ses-Y", "*")
        rows.append((f"`{name}`", row.meaning, "yes" if key in (*SMALL, *GIVEN) else ""))
    return _table(("file", "what it is", "`--small-output`"), rows)


def group_outputs() -> str:
    """Return the group level's files."""
    return _table(("file", "what it is"), ((f"`{_starred(row.path)}`", row.meaning) for row in GROUP_OUTPUTS.values()))


def _starred(path: str) -> str:
    return re.sub(r"{\w+}", "*", path)


def places() -> str:
    """Return how each named place of the template is defined, in the order in which they are asked."""
    return _table(("place", "where"), list(DEFINITIONS.items()))


def exit_codes() -> str:
    """Return what each exit code means, as the Boutiques descriptor (made from the errors) has it."""
    found = json.loads(DESCRIPTOR.read_text(encoding="utf-8"))["error-codes"]
    rows = [("0", "Done.")] + [(str(entry["code"]), entry["description"]) for entry in found]
    return _table(("code", "meaning"), rows)


def licences() -> str:
    """Return every package of the lock file with its version and licence."""
    rows = [(name, importlib.metadata.version(name), licence(name)) for name in locked()]
    return _table(("package", "version", "licence"), rows)


def locked() -> list[str]:
    """Return the names of the packages that the lock file pins."""
    return re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==", LOCK.read_text(encoding="utf-8"), flags=re.MULTILINE)


def licence(name: str) -> str:
    """Return what an installed package's metadata say of its licence: expression, classifiers, or a short field."""
    about = importlib.metadata.metadata(name)
    classifiers = [text.rpartition(" :: ")[2] for text in about.get_all("Classifier") or [] if text[:7] == "License"]
    said = [text for text in classifiers if text != "OSI Approved"]
    field = (about.get("License") or "").strip()
    short = field if len(field) < 40 and "\n" not in field else ""
    return STATED_ELSEWHERE.get(name) or about.get("License-Expression") or short or ", ".join(said)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
