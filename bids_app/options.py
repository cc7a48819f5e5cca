"""Every tunable with its default, once: the parser, the provenance and the documentation are made from it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from bids_app import __version__
from bids_app.errors import UsageError

LEVELS = ("participant", "group")
PUBLISHED_THRESHOLD = 0.32  # the participant level's own, since it knows no training set
MOST = 2**31 - 1  # whole numbers beyond do not fit the libraries' seeds and counts
DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"  # what word processors make of a hyphen


def option(help_text: str, default: Any = MISSING, *aliases: str, section: str = "General", **parser: Any) -> Any:
    """Return a dataclass field that knows how it is spelled and explained on the command line."""
    metadata = {"help": help_text, "aliases": aliases, "section": section, "parser": parser}
    if isinstance(default, tuple):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


def _label(text: str) -> str:
    """Return a BIDS label without its ``sub-`` or ``ses-`` prefix."""
    label = re.sub(r"^(sub|ses)-", "", text)
    if not re.fullmatch(r"[0-9a-zA-Z]+", label):
        hint = "; it holds a typographic dash, type '-'" if any(dash in text for dash in DASHES) else ""
        raise argparse.ArgumentTypeError(f"{text!r} is no BIDS label (letters and digits only){hint}")
    return label


def _labels(default: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"nargs": "+", "type": _label, "metavar": "LABEL"}


def _positive(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MOST:
        raise argparse.ArgumentTypeError(f"{text[:20]} is not at least 1, or beyond {MOST}")
    return value


def _natural(text: str) -> int:
    value = int(text)
    if not 0 <= value <= MOST:
        raise argparse.ArgumentTypeError(f"{text[:20]} is not within 0 and {MOST}")
    return value


def _threshold(text: str) -> float:
    value = float(text)
    if not -1 < value < 100:
        raise argparse.ArgumentTypeError(f"{text} is not between -1 and 100 (relative intensity; published: 0.32)")
    return value


def _path(text: str) -> Path:
    """Return a path; an empty one would be the folder one happens to be in."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the path is empty; is a variable of your script not set?")
    try:
        Path(text).resolve().exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long; links in a circle; NUL
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no usable path ({str(error)[:80]})") from error
    return Path(text)


_COUNT: dict[str, Any] = {"type": _positive, "metavar": "N"}
_NATURAL: dict[str, Any] = {"type": _natural, "metavar": "N"}
_FLAG: dict[str, Any] = {"action": "store_true"}
_PATH: dict[str, Any] = {"type": _path, "metavar": "PATH"}


@dataclass(frozen=True)
class Options:
    """One run's options; the fields are the command line's long options with underscores."""

    bids_dir: Path = option("folder of the BIDS data set", **_PATH)
    output_dir: Path = option("folder the derivatives go to; must not lie inside the data set's raw data", **_PATH)
    analysis_level: str = option(
        "participant: FLAIR to normalised lesion maps; group: lesion maps to classifier and evaluation",
        choices=LEVELS,
    )

    participant_label: tuple[str, ...] = option(
        "participants to process, with or without 'sub-' (default: all)", (), section="Selection", **_labels()
    )
    session_label: tuple[str, ...] = option(
        "sessions to process, with or without 'ses-' (default: all)",
        (),
        "--session-id",
        section="Selection",
        **_labels(),
    )
    bids_filter_file: Path | None = option(
        "JSON file of pybids filters under the key 'flair'", None, section="Selection", **_PATH
    )
    bids_database_dir: Path | None = option(
        "folder of a pybids database to use or to make", None, section="Selection", **_PATH
    )
    skip_bids_validation: bool = option("do not validate the input", False, section="Selection", **_FLAG)

    lesion_threshold: float | None = option(
        f"lesions are where belief exceeds this (default: {PUBLISHED_THRESHOLD} at the participant level, as "
        "published; at the group level mean + 2.54 SD of the training scans)",
        None,
        section="Method",
        type=_threshold,
        metavar="X",
    )
    random_seed: int = option("seed of everything random", 0, section="Method", **_NATURAL)
    model: Path | None = option(
        "folder of a trained model (<output_dir>/group/model of a group run): predicts each scan's group",
        None,
        section="Method",
        **_PATH,
    )

    group_column: str | None = option(
        "column of participants.tsv with the diagnosis (default: the first of 'diagnosis', 'group' that exists)",
        None,
        section="Group level",
        metavar="NAME",
    )
    positive: str = option("level of the positive group", "RRMS", section="Group level", metavar="NAME")
    negative: str = option("level of the negative group", "NMOSD", section="Group level", metavar="NAME")
    lesion_map: str = option(
        "published: belief above the threshold; cleaned: without what is rarely a lesion (participant level's "
        "own threshold)",
        "published",
        section="Group level",
        choices=("published", "cleaned"),
    )
    exclude: tuple[str, ...] = option(
        "scans to leave out, such as sub-01 or sub-01_ses-2 (beside those that phenotype/quality.tsv rejects)",
        (),
        section="Group level",
        nargs="+",
        metavar="SCAN",
    )
    division_file: Path | None = option(
        "TSV of an earlier division to repeat (group/division.tsv)", None, section="Group level", **_PATH
    )
    test_percent: int = option("share of the test set, percent", 30, section="Group level", type=int, metavar="N")
    cv_folds: int = option("folds of the cross-validation", 10, section="Group level", **_COUNT)
    nested_folds: int = option(
        "outer folds of the nested cross-validation (0: none)", 5, section="Group level", **_NATURAL
    )
    refine_limit: int = option(
        "voxel counts tried between the neighbours of the best power of two: every whole number up to this many, "
        "else as many evenly spaced (0: every one)",
        64,
        section="Group level",
        **_NATURAL,
    )
    permutations: int = option(
        "permutations of the labels by participant, each with the entire selection",
        0,
        section="Group level",
        **_NATURAL,
    )
    bootstrap_draws: int = option("draws of the bootstrap over participants", 2000, section="Group level", **_COUNT)
    solver: str = option(
        "of the cross-validation; the final models always come from LIBSVM",
        "smo",
        section="Group level",
        choices=("smo", "libsvm"),
    )
    rating_sheet: bool = option(
        "write a blinded sheet for human raters of the test scans, and stop",
        False,
        section="Group level",
        **_FLAG,
    )
    read_ratings: Path | None = option(
        "filled rating sheet: writes phenotype/rater_decisions.tsv to the output, and stops",
        None,
        section="Group level",
        **_PATH,
    )

    nprocs: int = option("scans processed side by side", 1, "--n-cpus", section="Machine", **_COUNT)
    omp_nthreads: int = option(
        "threads of each scan; results are bit-identical only with 1", 1, section="Machine", **_COUNT
    )
    mem_mb: int | None = option("memory for all processes, MB", None, section="Machine", **_COUNT)
    work_dir: Path | None = option(
        "folder for temporary files (default: <output_dir>/.work, removed at the end)",
        None,
        "-w",
        section="Machine",
        **_PATH,
    )
    small_output: bool = option(
        "keep what is worth sharing: masks, normalised maps, tables and reports; without tissue maps, transforms, "
        "bias-corrected scans and native belief maps",
        False,
        section="Machine",
        **_FLAG,
    )
    dask_scheduler: str | None = option(
        "address of a running Dask scheduler (tcp://host:port): its workers process the scans",
        None,
        section="Machine",
        metavar="ADDRESS",
    )
    dask_scheduler_file: Path | None = option(
        "file in which a running Dask scheduler wrote its address", None, section="Machine", **_PATH
    )
    stop_on_first_crash: bool = option("stop at the first scan that fails", False, section="Machine", **_FLAG)
    dry_run: bool = option("list what would be processed, and stop", False, section="Machine", **_FLAG)
    boilerplate_only: bool = option("write the method text only", False, section="Machine", **_FLAG)
    reports_only: bool = option("write the reports again from finished outputs", False, section="Machine", **_FLAG)
    notrack: bool = option(
        "accepted for compatibility: nothing is ever sent anywhere", False, section="Machine", **_FLAG
    )
    verbose: int = option("say more (-v) or everything (-vv)", 0, "-v", section="Machine", action="count")

    @property
    def participant_threshold(self) -> float:
        """The participant level's lesion threshold."""
        return PUBLISHED_THRESHOLD if self.lesion_threshold is None else self.lesion_threshold


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise UsageError(message, remedy="see bids_app --help")


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser, made from the fields of `Options`."""
    made = _Parser(
        prog="bids_app",
        description="Tells RRMS from NMOSD by brain FLAIR scans. Research software, no medical device.",
        epilog="Exit codes: 0 done, 1 some scan failed, 16 input fails validation, 18 nothing selected, "
        "64 usage, 65 bad input, 66 missing input, 73 and 74 cannot write.",
        allow_abbrev=False,
    )
    made.add_argument("--version", action="version", version=f"bids_app {__version__}")
    sections: dict[str, Any] = {}
    for item in fields(Options):
        about = item.metadata
        if item.default is MISSING and item.default_factory is MISSING:
            made.add_argument(item.name, help=about["help"], **{**about["parser"], "metavar": None})
            continue
        section = about["section"]
        if section not in sections:
            sections[section] = made.add_argument_group(section)
        dashed = "--" + item.name.replace("_", "-")
        spellings = [*about["aliases"], dashed, "--" + item.name] if "_" in item.name else [*about["aliases"], dashed]
        default = item.default_factory() if item.default_factory is not MISSING else item.default
        shown = (
            ""
            if default is None or default is False or default == () or "default" in about["help"]
            else f" (default: {default})"
        )
        sections[section].add_argument(
            *spellings, dest=item.name, default=default, help=about["help"] + shown, **about["parser"]
        )
    return made


def parse(argv: Sequence[str]) -> Options:
    """Return the options of a command line.

    Raises
    ------
    UsageError
        A word is unknown, missing or of the wrong kind.
    """
    strange = [word for word in argv if word[:1] in DASHES and word[:1]]
    if strange:
        raise UsageError(f"{strange[0]!r} begins with a typographic dash", remedy="type '-' instead")
    values = vars(parser().parse_args(list(argv)))
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    if not 5 <= values["test_percent"] <= 90:
        raise UsageError("--test-percent must lie between 5 and 90")
    if values["nested_folds"] == 1 or values["cv_folds"] == 1:
        raise UsageError("cross-validation needs at least 2 folds")
    if values["model"] and values["small_output"]:
        raise UsageError("--model needs belief maps and transforms, which --small-output leaves out", remedy="drop one")
    if values["dask_scheduler"] and values["dask_scheduler_file"]:
        raise UsageError("--dask-scheduler and --dask-scheduler-file are two ways to say one thing", remedy="give one")
    return Options(**values)
