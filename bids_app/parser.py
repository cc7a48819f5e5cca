"""The command line: a parser made from the fields of `Options`, and words that do not go together."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import MISSING, fields
from importlib.util import find_spec
from typing import Any

from bids_app import __version__, words
from bids_app.errors import UsageError
from bids_app.options import NETWORK, Options


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
        shown = "" if default is None or default is False or default == () else f" (default: {default})"
        sections[section].add_argument(
            *spellings, dest=item.name, default=default, help=about["help"] + shown, **about["parser"]
        )
    return made


def parse(argv: Sequence[str]) -> Options:
    """Return the options of a command line.

    Raises
    ------
    UsageError
        A word is unknown, missing or of the wrong kind, words do not go together, the output would lie in the input,
        or an extra that is asked for is not installed.
    """
    strange = [word for word in argv if word[:1] in words.DASHES and word[:1]]
    if strange:
        raise UsageError(f"{strange[0]!r} begins with a typographic dash", remedy="type '-' instead")
    values = vars(parser().parse_args(list(argv)))
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    if not 5 <= values["test_percent"] <= 90:
        raise UsageError("--test-percent must lie between 5 and 90")
    if values["permutations"] and not values["nested_folds"]:
        what = "--permutations repeats the nested cross-validation"
        raise UsageError(what, remedy="set --nested-folds to 2 or more")
    if values["nested_folds"] == 1 or values["cv_folds"] == 1:
        raise UsageError("cross-validation needs at least 2 folds")
    if values["model"] and values["small_output"]:
        raise UsageError("--model needs belief maps and transforms, which --small-output leaves out", remedy="drop one")
    if values["dask_scheduler"] and values["dask_scheduler_file"]:
        raise UsageError("--dask-scheduler and --dask-scheduler-file are two ways to say one thing", remedy="give one")
    _check_norm(values)
    options = Options(**_with_groups(values))
    _check_places(options)
    _check_extras(options)
    return options


def _check_places(options: Options) -> None:
    """Refuse an output or work directory inside the input: the input is never written to."""
    root = options.bids_dir.resolve()
    for place, flag in ((options.output_dir, "output_dir"), (options.work_dir, "--work-dir")):
        if place is not None and (place.resolve() == root or root in place.resolve().parents):
            raise UsageError(f"{flag} {place} lies inside the input {options.bids_dir}", remedy="choose another folder")


def _check_extras(options: Options) -> None:
    """Refuse what needs an extra that is not installed, before any work is done."""
    if options.analysis_level == "group" and NETWORK in options.compare and find_spec("torch") is None:
        raise UsageError(
            f"--compare {NETWORK} needs torch, which is not installed", remedy="pip install 'bids_app[cnn]'"
        )


def _check_norm(values: dict[str, Any]) -> None:
    """Refuse a norm of the cohort where no map is measured against one, or where a fold would see its test scans."""
    if values["norm"] == "shipped":
        return
    maps = values["lesion_map"], values["recommended_map"]
    if "normative" not in maps and values["features"] != "belief":
        what = f"--norm cohort makes normative maps; --lesion-map {maps[0]}, --recommended-map {maps[1]} use none"
        raise UsageError(what, remedy="set one of the two to normative, or drop --norm")
    for name, given in (("--site-column", values["site_column"]), ("--groups", values["groups"][2:])):
        if given:
            what = f"--norm cohort is estimated in the folds of the two groups, which {name} does not have"
            raise UsageError(what, remedy="drop one of the two")


def _with_groups(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with what the options of the comparison mean for others."""
    asked = [name for name in ("compare", "covariates", "site_column", "groups") if values[name]]
    asked += ["features"] if values["features"] == "belief" else []
    if asked and not values["nested_folds"]:
        what = f"--{asked[0].replace('_', '-')} compares by nested cross-validation"
        raise UsageError(what, remedy="set --nested-folds to 2 or more")
    groups, pair = values["groups"], (values["positive"], values["negative"])
    if not groups:
        return values
    if len(groups) < 2 or len(set(groups)) < len(groups):
        raise UsageError(f"--groups {' '.join(groups)}", remedy="name two or more groups, each once")
    default = tuple(each.default for each in fields(Options) if each.name in ("positive", "negative"))
    if pair not in (default, groups[:2]):
        raise UsageError("--groups and --positive, --negative name different pairs", remedy="give --groups only")
    return {**values, "positive": groups[0], "negative": groups[1]}
