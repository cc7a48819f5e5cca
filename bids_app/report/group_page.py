"""The group level's report: one self-contained page, the model card and the method text."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from html import escape
from typing import Any, NamedTuple

from markupsafe import Markup

from bids_app import __version__
from bids_app.records.results import GroupResult
from bids_app.report import assets, recommended_sections
from bids_app.report import group_sections as parts
from bids_app.report.group_numbers import PUBLISHED
from bids_app.report.page import DISCLAIMER, environment


class Told(NamedTuple):
    """What page, model card and method text tell of a result, found once: `metrics` and `facts`."""

    metrics: Mapping[str, Any]
    facts: Mapping[str, Any]


CAPTIONS = {  # by the key of `group_figures.draw`, without the evaluation
    "frequency": (
        "Figure 1a", "Lesion frequency",
        "Share of each group's scans with a lesion in the voxel, all scans of the cohort, on the T1w template. Colour "
        "begins above 10 % and is darkest from 50 % on. Left of the patient is on the left.",
    ),
    "chi2": (
        "Figure 1b", "Chi-square map",
        "Pearson chi-square of lesion by group at every voxel of the training set, coloured where p < 0.05 without "
        "correction for the number of voxels: {positive} more often red, {negative} more often blue.",
    ),
    "workflow": (
        "Figure 2", "Workflow",
        "From one FLAIR scan to the classifier, and where the two evaluations part.",
    ),
    "selected": (
        "Figure 3", "Chosen voxels",
        "The highest-ranked voxels at n = 2, 32 and 4,096, in the slices that hold most of them. Few voxels are drawn "
        "larger than they are, to be seen. Red: {positive} more often lesioned; blue: {negative}.",
    ),
    "curves": (
        "Figure 4", "Performance over the number of voxels",
        "Each point is the model with the best C and gamma at that n, refitted on the whole training set. A training "
        "curve far above the test curve is overfitting. {choice}",
    ),
    "beside": (
        "Figure 5", "Chi-square map and the voxels of the chosen model",
        "The same slices, those with most chosen voxels.",
    ),
    "misclassified": (
        "Figure S1", "Misclassified test scans",
        "Lesion maps seen from above and from the right, the surest mistakes first: a decision value far from 0 is a "
        "sure one, positive for {positive}. Look for artefacts taken for lesions and for scans with few lesions.",
    ),
    "recipes": (
        "Recipes", "Recipe against recipe",
        "Left: area under the ROC curve. Right: what a recipe has beyond the leakage-free published one on the same "
        "folds; an interval that holds zero shows no difference.",
    ),
    "reliability": (
        "Recipes", "How far probabilities can be taken at their word",
        "Recommended recipe, out of fold. Left: of scans with about this probability, the share with {positive}; on "
        "the dashed line they agree. Right: how many scans have which probability.",
    ),
    "summary": (
        "Summary", "Both evaluations side by side",
        "Dots are values, thick lines intervals over participants, thin gray lines intervals over scans.",
    ),
}  # fmt: skip
PLACES = {"summary": "summary", "recipes": "recipes", "reliability": "recipes"}  # of the page; else with the others
CHOICE = {
    "published": "The n with the best AUC of the test set was chosen, so the test curve's peak flatters.",
    "leakage-free": "The n with the best cross-validation accuracy was chosen; the test curve is shown afterwards "
    "and took no part.",
}


def _figures(result: GroupResult, images: Mapping[str, bytes]) -> dict[str, list[dict[str, str]]]:
    """Return the figures that exist in the order of the publication, those of both evaluations together."""
    found: dict[str, list[dict[str, str]]] = {"summary": [], "recipes": [], "main": []}
    names = {"positive": result.cohort.levels[0], "negative": result.cohort.levels[1]}
    for kind, (number, title, caption) in CAPTIONS.items():
        for name in ("", *result.evaluations):
            key = f"{kind}_{name}" if name else kind
            if key in images:
                words = _filled(caption, {**names, "choice": CHOICE.get(name, "")})
                item = {"key": key, "title": f"{number}. {title}" + (f", {name}" if name else ""), "caption": words,
                        "data": b64encode(images[key]).decode()}  # fmt: skip
                found[PLACES.get(kind, "main")].append(item)
    return found


def _filled(text: str, words: Mapping[str, str]) -> str:
    """Put words in the place of their names in braces; not by str.format, for a level may hold braces."""
    return re.sub(r"{(\w+)}", lambda found: words[found[1]], text)


# -- what is written -----------------------------------------------------------------------------


def page(
    result: GroupResult, told: Told, figures: Mapping[str, bytes], method_html: str, version: str, view: str = ""
) -> str:
    """Return group.html: self-contained, everything from the data set escaped.

    Parameters
    ----------
    result : GroupResult
    told : Told
        Its metrics and facts.
    figures : mapping of str to bytes
        PNG by the keys of `group_figures.draw`; what is missing is left out.
    method_html : str
        The method text as HTML that is safe already (`page.method_html`).
    version : str
    view : str, optional
        The viewer's data (`group_view`), as `assets.data` writes them.
    """
    nested = [
        (name, [[k, f"{c.n_voxels:,}", c.C, c.gamma, parts.percent(c.accuracy)] for k, c in enumerate(each.cells, 1)])
        for name, each in result.nested.items()
    ]
    gaps = told.facts["optimism"]
    return environment().get_template("group.html.j2").render(
        levels=result.cohort.levels,
        cohort=told.facts["cohort"],
        facts=told.facts,
        disclaimer=DISCLAIMER,
        warnings=result.notes.warnings,
        summary=parts.summary(told.metrics, result),
        optimism=gaps,
        pooled=[(name, each.pooled_auc.value) for name, each in result.nested.items()],
        permutation=parts.permutation(told.facts["permutation"]),
        baselines=parts.baselines(result),
        thresholds=parts.thresholds(result),
        published={"value": PUBLISHED["value"], "mean_plus": PUBLISHED["mean_plus_2.54_sd"]},
        figures=_figures(result, figures),
        tables=parts.shown_tables(result),
        lesion_free=parts.calls(result, lesion_free=True),
        confusion=parts.calls(result, lesion_free=False),
        left_out=result.notes.left_out,
        recommended=recommended_sections.section(
            result.recommended, result.cohort.levels, result.provenance.parameters
        ) if result.recommended else None,
        flagged=result.notes.flagged,
        ties=parts.ties(result),
        sweeps=[parts.sweeps(each) for each in result.evaluations.values()],
        nested_folds=nested,
        parameters=[(key, parts.cell_text(value)) for key, value in result.provenance.parameters.items()],
        software=list(result.provenance.software.items()),
        method=Markup(method_html),
        version=version,
        view=view,
        script=assets.joined(assets.REPORT) if view else "",
        num=parts.num, percent=parts.percent, span=parts.span, signed=parts.signed,
    )  # fmt: skip


def _as_markdown(value: Any) -> Any:
    """Return facts with every word such that Markdown shows it as it is: a name may hold markup."""
    if isinstance(value, str):
        return re.sub(r"([\\`*_\[\]@|~])", r"\\\1", escape(" ".join(value.split())))
    if isinstance(value, Mapping):
        return {key: _as_markdown(each) for key, each in value.items()}
    return [_as_markdown(each) for each in value] if isinstance(value, (list, tuple)) else value


def method_text(facts: Mapping[str, object]) -> str:
    """Return the method text of the group level as markdown with pandoc citations, from `group_numbers.facts`."""
    text = environment().get_template("group.md.j2").render(**_as_markdown(facts))
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def model_card(result: GroupResult, told: Told) -> str:
    """Return the model card as markdown: data, numbers, intended use, limits, how to use."""
    text = environment().get_template("model_card.md.j2").render(
        facts=_as_markdown(told.facts), metrics=told.metrics, version=__version__, disclaimer=DISCLAIMER,
        warnings=_as_markdown(result.notes.warnings),
        num=parts.num, percent=parts.percent, span=parts.span,
    )  # fmt: skip
    return re.sub(r"\n\s*\n", "\n\n", text).strip() + "\n"
