"""The BIDS validator on the input."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from bids_app.errors import InvalidDatasetError, MissingInputError

# faults of single image files are met, and told, scan by scan: they must not stop the other scans
OF_ONE_SCAN = {
    "EMPTY_FILE",
    "SYMLINK_BROKEN",  # content of git-annex that is not here: of DataLad data sets one gets what one needs
    "NIFTI_HEADER_UNREADABLE",
    "FILE_READ",
    "NIFTI_DIMENSION",
    "T1W_FILE_WITH_TOO_MANY_DIMENSIONS",
}


def validate(root: Path) -> list[str]:
    """Run the BIDS validator and return what it says of single image files, a line each.

    Raises
    ------
    InvalidDatasetError
        It finds other errors; the message holds the first of them.
    MissingInputError
        The validator is not installed.
    """
    beside = str(Path(sys.executable).parent)
    program = shutil.which("bids-validator-deno", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    if program is None:
        raise MissingInputError(
            "bids-validator-deno is not installed", remedy="pip install it or --skip-bids-validation"
        )
    done = subprocess.run(
        [program, "--json", "--ignoreWarnings", str(root)], capture_output=True, text=True, check=False
    )
    try:
        issues = json.loads(done.stdout)["issues"]["issues"]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidDatasetError(
            f"the validator gave no verdict ({done.stderr.strip()[:200]})",
            root,
            "or use --skip-bids-validation",
        ) from error
    errors = [issue for issue in issues if issue.get("severity") == "error"]
    fatal = [issue for issue in errors if issue.get("code") not in OF_ONE_SCAN and not _aside(issue)]
    if fatal:
        first = f"{fatal[0].get('code')} at {fatal[0].get('location', root)}"
        raise InvalidDatasetError(
            f"the BIDS validator finds {len(fatal)} errors, first {first}",
            root,
            "run bids-validator-deno for all of them, correct them, or use --skip-bids-validation",
        )
    return [f"{issue.get('location')}: the validator says {issue.get('code')}" for issue in errors]


def _aside(issue: dict[str, object]) -> bool:
    """Return whether an error lies where raters' and other tables have one row a scan, which BIDS does not foresee."""
    return str(issue.get("location", "")).startswith("/phenotype/")
