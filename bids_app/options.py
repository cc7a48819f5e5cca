"""Every tunable with its default, once: the parser, the provenance and the documentation are made from it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bids_app import words
from bids_app.words import option

LEVELS = ("participant", "group")
NETWORK = "cnn"  # also the name of the extra that it needs
RIVALS = ("linear-svm", "l1-logistic", "random-forest", "gradient-boosting", NETWORK)  # classifiers to compare with
PUBLISHED_THRESHOLD = 0.32  # the participant level's own, since it knows no training set


_LABELS: dict[str, Any] = {"nargs": "+", "type": words.label, "metavar": "LABEL"}
_COUNT: dict[str, Any] = {"type": words.positive, "metavar": "N"}
_NATURAL: dict[str, Any] = {"type": words.natural, "metavar": "N"}
_GROUP: dict[str, Any] = {"section": "Group level", "decides": ("group",)}
_RECIPE: dict[str, Any] = {"section": "Recommended recipe", "decides": ("group",)}
_SHARE: dict[str, Any] = {**_RECIPE, "type": words.share, "metavar": "X"}
_FLAG: dict[str, Any] = {"action": "store_true"}
_PATH: dict[str, Any] = {"type": words.path, "metavar": "PATH"}


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
        "participants to process, with or without 'sub-' (default: all)", (), section="Selection", **_LABELS
    )
    session_label: tuple[str, ...] = option(
        "sessions to process, with or without 'ses-' (default: all)",
        (),
        "--session-id",
        section="Selection",
        **_LABELS,
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
        decides=LEVELS,
        type=words.threshold,
        metavar="X",
    )
    lesion_derivatives: Path | None = option(
        "BIDS derivatives with lesion masks by another tool or by hand (_label-L_mask, _label-lesion_mask or "
        "_desc-lesion_mask; on the scan's grid, another grid of the same space, or the template): carried to the "
        "template as the map 'external'",
        None,
        section="Method",
        **_PATH,
    )
    accept_empty_masks: bool = option(
        "take scans whose mask under --lesion-derivatives is empty as lesion-free (default: such a scan is refused, "
        "since an empty mask is more often a tool's failure)",
        False,
        section="Method",
        **_FLAG,
    )
    random_seed: int = option("seed of everything random", 0, section="Method", decides=LEVELS, **_NATURAL)
    model: Path | None = option(
        "folder of a trained model (<output_dir>/group/model/<recipe> of a group run; <output_dir> alone: that of the "
        "recommended recipe): predicts each scan's group",
        None,
        section="Method",
        **_PATH,
    )

    group_column: str | None = option(
        "column of participants.tsv with the diagnosis (default: the first of 'diagnosis', 'group' that exists)",
        None,
        section="Group level",
        decides=("group",),
        metavar="NAME",
    )
    positive: str = option(
        "level of the positive group", "RRMS", section="Group level", decides=("group",), metavar="NAME"
    )
    negative: str = option(
        "level of the negative group", "NMOSD", section="Group level", decides=("group",), metavar="NAME"
    )
    lesion_map: str = option(
        "published: belief above the threshold; normative: belief over the norm of its place; network: what the "
        "trained network and the norm together call lesion; external: masks given by --lesion-derivatives; cleaned: "
        "published without what is rarely a lesion, for the last time",
        "published",
        section="Group level",
        decides=("group",),
        choices=("published", "normative", "network", "external", "cleaned"),
    )
    norm: str = option(
        "what normative lesion maps are measured against: shipped: people in the package; cohort: the training scans "
        "of each fold, as the threshold is, at 3 mm. For --lesion-map normative, --recommended-map normative and "
        "--features belief (else measured against all scans); not with --site-column or more than two --groups, and "
        "the participant level's own maps stay as they are",
        "shipped",
        **_GROUP,
        choices=("shipped", "cohort"),
    )
    exclude: tuple[str, ...] = option(
        "scans to leave out, such as sub-01 or sub-01_ses-2 (beside those that phenotype/quality.tsv rejects)",
        (),
        **_GROUP,
        nargs="+",
        metavar="SCAN",
    )
    division_file: Path | None = option(
        "TSV of an earlier division to repeat (group/division.tsv)",
        None,
        **_GROUP,
        **_PATH,
    )
    test_percent: int = option("share of the test set, percent", 30, **_GROUP, type=int, metavar="N")
    cv_folds: int = option("folds of the cross-validation", 10, **_GROUP, **_COUNT)
    nested_folds: int = option("outer folds of the nested cross-validation (0: none)", 5, **_GROUP, **_NATURAL)
    refine_limit: int = option(
        "voxel counts tried between the neighbours of the best power of two: every whole number up to this many, "
        "else as many evenly spaced (0: every one)",
        64,
        **_GROUP,
        **_NATURAL,
    )
    permutations: int = option(
        "permutations of the labels by participant, each with a nested selection, on a coarser grid",
        0,
        **_GROUP,
        **_NATURAL,
    )
    bootstrap_draws: int = option("draws of the bootstrap over participants", 2000, **_GROUP, **_COUNT)
    solver: str = option(
        "of the cross-validation; the final models always come from LIBSVM",
        "smo",
        **_GROUP,
        choices=("smo", "libsvm"),
    )
    recommended_map: str = option(
        "lesion map that the recommended recipe sees, as the participant level stored it; best: the first that all "
        "scans have of external, probability (of the network), normative, cleaned, published",
        "best",
        **_RECIPE,
        choices=("best", "published", "normative", "network", "probability", "external", "cleaned"),
    )
    repeats: int = option(
        "repeats of the nested cross-validation in which recipes are compared",
        3,
        **_RECIPE,
        **_COUNT,
    )
    prevalence: float | None = option(
        "share of the positive group among those whom probabilities are told of (default: that of the cohort's "
        "participants)",
        None,
        **_SHARE,
    )
    coverage: float = option(
        "how often the set of groups that a scan may belong to shall hold its true one",
        0.9,
        **_SHARE,
    )
    sensitivity: float = option(
        "sensitivity for which a decision threshold is told",
        0.9,
        **_SHARE,
    )
    compare: tuple[str, ...] = option(
        "further classifiers to compare with on the same folds: linear-svm and l1-logistic on voxels, random-forest "
        "and gradient-boosting on regional lesion loads, cnn (a small 3D network; needs pip install 'bids_app[cnn]') "
        "on the lesion maps and, with --features belief, the belief maps",
        (),
        nargs="+",
        choices=RIVALS,
        **_RECIPE,
    )
    features: str = option(
        "belief: compare with recipes on the normalised belief map above the norm of its place, besides lesions",
        "lesions",
        choices=("lesions", "belief"),
        **_RECIPE,
    )
    covariates: tuple[str, ...] = option(
        "columns of the data set's tables: compare with recipes on them, alone and beside the lesions",
        (),
        nargs="+",
        metavar="NAME",
        **_RECIPE,
    )
    site_column: str | None = option(
        "column that says where a scan was made: tells whether site and group are mixed up",
        None,
        metavar="NAME",
        **_RECIPE,
    )
    max_days_since_relapse: float | None = option(
        "keep scans made within so many days of a relapse only", None, type=words.days, metavar="X", **_GROUP
    )
    relapse_column: str | None = option(
        "column with the time since the latest relapse (default: the first of 'days_since_relapse', "
        "'time_since_relapse', 'time_since_latest' that exists)",
        None,
        metavar="NAME",
        **_GROUP,
    )
    groups: tuple[str, ...] = option(
        "levels to tell apart by the recommended recipe, one against the rest; the first two are the positive and the "
        "negative group of everything else (default: those)",
        (),
        nargs="+",
        metavar="NAME",
        **_RECIPE,
    )
    rating_sheet: bool = option(
        "write a blinded sheet for human raters of the test scans, and a page to read and rate them in, and stop",
        False,
        section="Group level",
        **_FLAG,
    )
    read_ratings: tuple[Path, ...] = option(
        "filled rating sheets, of one or several raters: writes phenotype/rater_decisions.tsv to the output, and stops",
        (),
        section="Group level",
        nargs="+",
        **_PATH,
    )

    nprocs: int = option("scans processed side by side", 1, "--n-cpus", section="Machine", **_COUNT)
    omp_nthreads: int = option(
        "threads of each scan; results are bit-identical only with 1",
        1,
        section="Machine",
        decides=LEVELS,
        **_COUNT,
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
    report_viewer: str = option(
        "slices to scroll through inside the reports: none; light (some 2 MB a scan): the scan, tissues, masks; full "
        "(some 3 MB): the belief map too; what does not fit into a page of 100 MB is left out and named there",
        "light",
        section="Machine",
        choices=("none", "light", "full"),
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


def method(options: Options, level: str) -> dict[str, object]:
    """Return the options that the results of a level depend on, by name; of a file its name without folder."""
    names = [each.name for each in fields(Options) if level in each.metadata["decides"]]
    values = {name: getattr(options, name) for name in names}
    return {name: value.name if isinstance(value, Path) else value for name, value in values.items()}
