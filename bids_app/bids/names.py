"""What files are called: scans, the one table of outputs, and names that round-trip."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bids_app.errors import BadInputError

SPACE = "MNI152NLin2009aSym"  # the template of nilearn's wheel
APP = "bids_app"
# order in which BIDS writes entities (those that an anatomical file or derivative can have)
ORDER = [
    "sub",
    "ses",
    "sample",
    "task",
    "acq",
    "ce",
    "trc",
    "stain",
    "rec",
    "dir",
    "run",
    "mod",
    "echo",
    "flip",
    "inv",
    "mt",
    "part",
    "proc",
    "hemi",
    "from",
    "to",
    "mode",
    "space",
    "split",
    "recording",
    "chunk",
    "seg",
    "res",
    "den",
    "label",
    "desc",
    "stat",
]


@dataclass(frozen=True)
class Output:
    """One row of the table of outputs: what is added to the scan's own name, and what the output is."""

    suffix: str
    meaning: str
    entities: tuple[tuple[str, str], ...] = ()
    extension: str = ".nii.gz"


_MNI = (("space", SPACE), ("res", "3"))
_L = ("label", "L")
_LAST = "in its last release, use normative or network"
OUTPUTS: dict[str, Output] = {
    "preproc": Output("FLAIR", "FLAIR, clipped and without its bias field", (("desc", "preproc"),)),
    "brain": Output("mask", "brain mask", (("desc", "brain"),)),
    "dseg": Output("dseg", "most probable tissue: 1 gray matter, 2 white matter, 3 fluid"),
    "gm": Output("probseg", "posterior probability of gray matter", (("label", "GM"),)),
    "wm": Output("probseg", "posterior probability of white matter", (("label", "WM"),)),
    "csf": Output("probseg", "posterior probability of fluid", (("label", "CSF"),)),
    "belief": Output("FLAIR", "gray matter belief map; its sidecar holds the sums that pool", (("desc", "belief"),)),
    "lesion": Output("mask", "lesion map as published: belief above the threshold, inside the brain", (_L,)),
    "normative": Output(
        "mask",
        "lesions by the norm: where belief is over that of other people at the same place",
        (_L, ("desc", "normative")),
    ),
    "network": Output(
        "mask",
        "lesions by a trained network and the norm: joint probability at least one half, and 0.8 somewhere",
        (_L, ("desc", "network")),
    ),
    "probability": Output("probseg", "probability of lesion by the trained network and the norm together", (_L,)),
    "cleaned": Output("mask", f"lesion map without border, deep fluid and specks; {_LAST}", (_L, ("desc", "cleaned"))),
    "belief_mni": Output("FLAIR", "belief map on the template's 3 mm grid", (*_MNI, ("desc", "belief"))),
    "lesion_mni": Output("mask", "lesion map on the template's 3 mm grid: what the group level reads", (*_MNI, _L)),
    "normative_mni": Output(
        "mask", "lesions by the norm on the template's 3 mm grid", (*_MNI, _L, ("desc", "normative"))
    ),
    "network_mni": Output(
        "mask", "lesions by the network on the template's 3 mm grid", (*_MNI, _L, ("desc", "network"))
    ),
    "probability_mni": Output(
        "probseg", "probability of lesion on the template's 3 mm grid: keeps what masks lose", (*_MNI, _L)
    ),
    "cleaned_mni": Output(
        "mask",
        "(last release that has it) cleaned lesion map on the template's 3 mm grid",
        (*_MNI, _L, ("desc", "cleaned")),
    ),
    "forward": Output(
        "xfm",
        "transform that resamples scan images to the template",
        (("from", "FLAIR"), ("to", SPACE), ("mode", "image")),
        ".h5",
    ),
    "inverse": Output(
        "xfm",
        "transform that resamples template images to the scan",
        (("from", SPACE), ("to", "FLAIR"), ("mode", "image")),
        ".h5",
    ),
}
PREDICTED: dict[str, Output] = {  # written by a prediction, for scans that are finished already
    "contribution": Output(
        "statmap",
        "what each voxel adds to the decision value, or changes of it where its lesion is left out (`--model`)",
        (*_MNI, ("stat", "contribution")),
    ),
}
GIVEN: dict[str, Output] = {  # written for scans of which somebody gave a mask
    "external": Output(
        "mask", "lesions as another tool or a reader gave them (`--lesion-derivatives`)", (_L, ("desc", "external"))
    ),
    "external_mni": Output("mask", "the same on the template's 3 mm grid", (*_MNI, _L, ("desc", "external"))),
}
SMALL = tuple(  # what --small-output keeps: masks, and maps on the template's grid
    key for key, row in OUTPUTS.items() if key.endswith("_mni") or (row.suffix == "mask")
)


def row_of(key: str) -> Output:
    """Return the row of an output of a scan: a key of `OUTPUTS`, `GIVEN` or `PREDICTED`."""
    return OUTPUTS.get(key) or GIVEN.get(key) or PREDICTED[key]


@dataclass(frozen=True)
class File:
    """A file that is of no single scan: its path with names in braces to fill in, and what it is."""

    path: str
    meaning: str


SET_OUTPUTS: dict[str, File] = {  # of the participant level
    "index": File("index.html", "all scans with their numbers, flags and failures: open this first"),
    "report": File("{participant}.html", "the report of a participant"),
    "table": File("participants_lesions.tsv", "volumes, counts and quality, a row a scan"),
    "predictions": File(f"phenotype/{APP}_predictions.tsv", "the predicted group of every scan (`--model`)"),
    "method": File("logs/CITATION.md", "method text with your numbers, to paste into a paper"),
    "references": File("logs/CITATION.bib", "its references"),
}
_TEMPLATE = f"tpl-{SPACE}/anat/tpl-{SPACE}_res-3"
GROUP_OUTPUTS: dict[str, File] = {
    "report": File("group.html", "the report: open this first"),
    "metrics": File("group/metrics.json", "every number of the report"),
    "table": File("group/{name}.tsv", "the tables of the report"),
    "division": File(
        "group/division.tsv", "training and test scans of both evaluations; `--division-file` repeats them"
    ),
    "model": File(
        "group/model/{evaluation}",
        "the model of a recipe, for `--model`: JSON and arrays, of the published ways also LIBSVM text and voxel mask",
    ),
    "cache": File("group/cache", "lesion maps made at other thresholds, for the next run; may be removed"),
    "checklist": File(
        "group/checklist.html",
        "what this run answers of the checklists TRIPOD+AI and CLAIM 2024, and where",
    ),
    "checklist_table": File("group/checklist.tsv", "the same as a table"),
    "model_card": File("group/model_card.md", "what the models are, for whom, and what they must not be used for"),
    "figure": File("group/figures/{name}.png", "the figures of the report"),
    "rating_sheet": File("group/rating/rating_sheet.tsv", "blinded sheet for human raters (`--rating-sheet`)"),
    "rating_page": File(
        "group/rating/{name}.html", "the blinded scans to read and rate in a browser (`--rating-sheet`)"
    ),
    "rating_key": File("group/rating/key/rating_key.tsv", "its key: keep it from the raters"),
    "rater_decisions": File("phenotype/rater_decisions.tsv", "filled sheets, read (`--read-ratings`)"),
    "readings": File("group/rating/key/readings.tsv", "how sure raters were, the time each reading took, notes"),
    "frequency": File(f"{_TEMPLATE}_label-L_desc-{{level}}_probseg.nii.gz", "lesion frequency map of each group"),
    "chi2": File(
        f"{_TEMPLATE}{{desc}}_stat-chi2_statmap.nii.gz", "signed chi-square map of each evaluation's training set"
    ),
    "weights": File(f"{_TEMPLATE}_desc-recommended_stat-weight_statmap.nii.gz", "weights of the recommended model"),
    "selected": File(f"{_TEMPLATE}_desc-selected{{evaluation}}_mask.nii.gz", "voxels of the chosen models"),
    "method": File("logs/CITATION_group.md", "method text with your numbers, to paste into a paper"),
    "references": File("logs/CITATION_group.bib", "its references"),
}


def model_folder(recipe: str) -> str:
    """Return the folder of a recipe's stored model, relative to the output directory.

    >>> model_folder("lesion volume")
    'group/model/lesion-volume'
    """
    return group_output("model", evaluation=re.sub("[^a-z0-9]+", "-", recipe))


def set_output(key: str, **words: str) -> str:
    """Return the path of an output of the participant level that is of no single scan.

    >>> set_output("report", participant="sub-01")
    'sub-01.html'
    """
    return SET_OUTPUTS[key].path.format(**words)


def group_output(key: str, **words: str) -> str:
    """Return the path of an output of the group level, relative to the output directory.

    >>> group_output("table", name="sweep")
    'group/sweep.tsv'
    """
    return GROUP_OUTPUTS[key].path.format(**words)


@dataclass(frozen=True)
class Scan:
    """A FLAIR of the data set: its entities in BIDS order, and its path relative to the data set.

    >>> Scan.named("sub-01_ses-1").output("lesion")
    'sub-01/ses-1/anat/sub-01_ses-1_label-L_mask.nii.gz'
    """

    entities: tuple[tuple[str, str], ...]
    path: str

    @classmethod
    def named(cls, name: str) -> Scan:
        """Return the scan of a name such as ``sub-01_ses-1``, at the place where BIDS has it.

        Raises
        ------
        BadInputError
            That is no name of a scan.
        """
        entities, _, _ = parse_name(f"{name}_FLAIR.nii.gz")
        scan = cls(tuple((key, entities[key]) for key in ORDER if key in entities), "")
        return cls(scan.entities, f"{scan.folder}/{name}_FLAIR.nii.gz")

    @property
    def name(self) -> str:
        """Entities as in the file name, such as ``sub-01_ses-1_run-2``."""
        return "_".join(f"{key}-{value}" for key, value in self.entities)

    @property
    def participant(self) -> str:
        """The participant with prefix, such as ``sub-01``."""
        return f"sub-{dict(self.entities)['sub']}"

    @property
    def session(self) -> str | None:
        """The session with prefix, such as ``ses-1``, if the scan is of one."""
        label = dict(self.entities).get("ses")
        return f"ses-{label}" if label else None

    @property
    def folder(self) -> str:
        """Folder of the scan's outputs, such as ``sub-01/ses-1/anat``."""
        return "/".join([self.participant, *([self.session] if self.session else []), "anat"])

    def output(self, key: str) -> str:
        """Return the path of an output (key of `OUTPUTS`, `GIVEN` or `PREDICTED`), relative to the output directory."""
        row = row_of(key)
        return f"{self.folder}/{build_name({**dict(self.entities), **dict(row.entities)}, row.suffix, row.extension)}"

    def figure(self, key: str) -> str:
        """Return the path of a picture for people, relative to the output directory.

        >>> Scan.named("sub-01_ses-1").figure("belief")
        'sub-01/figures/sub-01_ses-1_desc-belief_FLAIR.png'
        """
        return f"{self.participant}/figures/{self.name}_desc-{key}_FLAIR.png"


def build_name(entities: Mapping[str, str], suffix: str, extension: str) -> str:
    """Return a BIDS file name; the inverse of `parse_name`.

    >>> build_name({"ses": "1", "sub": "01", "label": "L"}, "mask", ".nii.gz")
    'sub-01_ses-1_label-L_mask.nii.gz'
    """
    pairs = [f"{key}-{entities[key]}" for key in ORDER if key in entities]
    return "_".join([*pairs, suffix]) + extension


def parse_name(name: str) -> tuple[dict[str, str], str, str]:
    """Return entities, suffix and extension of a BIDS file name.

    >>> parse_name("sub-01_ses-1_label-L_mask.nii.gz")
    ({'sub': '01', 'ses': '1', 'label': 'L'}, 'mask', '.nii.gz')

    Raises
    ------
    BadInputError
        The name is not of that form, repeats an entity, or has one that is unknown here.
    """
    stem, dot, extension = name.partition(".")
    *pairs, suffix = stem.split("_")
    entities: dict[str, str] = {}
    for pair in pairs:
        match = re.fullmatch(r"([a-z]+)-([0-9a-zA-Z+]+)", pair)
        if not match or match[1] in entities or match[1] not in ORDER:
            raise BadInputError(f"{pair!r} is no BIDS entity", name, "rename the file")
        entities[match[1]] = match[2]
    if not re.fullmatch(r"[0-9a-zA-Z]+", suffix) or "sub" not in entities:
        raise BadInputError("not a BIDS file name", name, "rename the file")
    return entities, suffix, dot + extension
