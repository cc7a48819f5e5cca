"""Tables of the site that are made from the code, as Markdown: outputs, exit codes, licences."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from bids_app.bids import OUTPUTS, Scan

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
DESCRIPTOR = ROOT / "integrations" / "boutiques" / "bids_app.json"
SCAN = Scan((("sub", "X"), ("ses", "Y")), "")

MEANING = {  # key of OUTPUTS: what it is, and whether --small-output keeps it
    "preproc": ("FLAIR, clipped and without its bias field", False),
    "brain": ("brain mask", True),
    "dseg": ("most probable tissue: 1 gray matter, 2 white matter, 3 fluid", False),
    "gm": ("posterior probability of gray matter", False),
    "wm": ("posterior probability of white matter", False),
    "csf": ("posterior probability of fluid", False),
    "belief": ("gray matter belief map; its sidecar holds the sums that pool", False),
    "lesion": ("lesion map as published: belief above the threshold, inside the brain", True),
    "cleaned": ("lesion map without the brain's border, deep fluid, specks and what is hardly white matter", True),
    "belief_mni": ("belief map on the template's 3 mm grid", True),
    "lesion_mni": ("lesion map on the template's 3 mm grid: what the group level reads", True),
    "cleaned_mni": ("cleaned lesion map on the template's 3 mm grid", True),
    "forward": ("transform that resamples scan images to the template", False),
    "inverse": ("transform that resamples template images to the scan", False),
}
GROUP = {  # as bids_app/group_outputs.py writes them
    "group.html": "the report: open this first",
    "group/metrics.json": "every number of the report",
    "group/*.tsv": "the tables of the report",
    "group/division.tsv": "training and test scans of both evaluations; `--division-file` repeats them",
    "group/model/published/": "the model of the published evaluation: JSON, arrays (skops), LIBSVM text, voxel mask",
    "group/model/leakage-free/": "the model of the leakage-free evaluation; use this one to predict",
    "group/model_card.md": "what the models are, for whom, and what they must not be used for",
    "group/figures/": "the figures of the report (PNG)",
    "tpl-MNI152NLin2009aSym/anat/*_probseg.nii.gz": "lesion frequency map of each group",
    "tpl-MNI152NLin2009aSym/anat/*_stat-chi2_statmap.nii.gz": "signed chi-square map of each evaluation's training set",
    "tpl-MNI152NLin2009aSym/anat/*_mask.nii.gz": "voxels of the chosen models",
    "logs/CITATION_group.md": "method text with your numbers, to paste into a paper, and its `.bib`",
}
STATED_ELSEWHERE = {  # packages whose metadata name no licence clearly; read in their licence files
    "matplotlib": "PSF-based (matplotlib licence)",
    "skops": "MIT",
}


def outputs() -> str:
    """Return the participant level's images: name, meaning, kept by --small-output."""
    rows = []
    for key in OUTPUTS:
        meaning, small = MEANING[key]
        rows.append((f"`{Path(SCAN.output(key)).name.replace('sub-X_ses-Y', '*')}`", meaning, "yes" if small else ""))
    return _table(("file", "what it is", "`--small-output`"), rows)


def group_outputs() -> str:
    """Return the group level's files."""
    return _table(("file", "what it is"), ((f"`{name}`", text) for name, text in GROUP.items()))


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
