"""Records -> the participant's page and the method text; the page is one file and loads nothing."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, PrefixLoader, StrictUndefined, select_autoescape
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from bids_app.lesions import kinds
from bids_app.lesions.places import DEFINITIONS
from bids_app.records.scan import Failure, Summary
from bids_app.report import assets

DISCLAIMER = (
    "This is research software: it tells RRMS from NMOSD only after other diseases have been excluded, "
    "and is no medical device."
)
CAPTIONS = {  # in the order of the page
    "reasons": (
        "Why the model called the scan so",
        "What each lesion voxel adds to the decision value, on the scan's belief map brought to the template: red for "
        "the model's positive group, blue for its negative one. With the part of the lesion volume and the decision of "
        "a scan without lesions, the parts sum to the decision value. For a model with an RBF kernel no such sum "
        "exists: a lesion has the colour of what the decision changes when it is left out. Left of the patient is on "
        "the left.",
    ),
    "registration": (
        "Registration",
        "Top: the brain mask, found by a network, beside the template's brain and tissue edges drawn on the scan. "
        "Bottom: the scan brought to the template, with the template's edges. The lines should follow the brain's "
        "surface, the ventricles and the midline; where they do not, or where the two outlines of the brain part, the "
        "maps below are wrong there.",
    ),
    "tissues": (
        "Brain and tissues",
        "Outlines of the brain mask and of gray matter, white matter and fluid. Look for skull or eyes inside the "
        "brain mask, and for brain outside it (vertex, temporal poles, cerebellum).",
    ),
    "belief": (
        "Gray matter belief map",
        "Relative intensity (FLAIR - GM mean) / GM mean: 0 is as bright as gray matter, the threshold is marked on the "
        "colour bar. A smooth gradient across the head means that bias correction failed.",
    ),
    "lesions": (
        "Lesion maps side by side",
        "From left to right: the scan; what exceeds the threshold (published); what exceeds the norm of its place "
        "(normative); what a trained network and the norm together call lesion (network); and what somebody gave "
        "(external), where there is one. Rims along fluid, the septum, the third and fourth ventricle and the skull "
        "base are the usual artefacts.",
    ),
    "template": (
        "Lesion map in template space",
        "The published map after normalisation to MNI152NLin2009aSym at 3 mm: what the classifier sees.",
    ),
    "histogram": (
        "Distribution of belief",
        "Belief of all brain tissue and of gray matter, with the threshold. The gray matter peak should stand near 0; "
        "a threshold inside the main peak makes false lesions.",
    ),
}


@cache
def environment() -> Environment:
    """Return the one template environment: HTML escaped, undefined names refused.

    Page templates lie in ``bids_app/templates``, method texts in ``boilerplate``.
    """
    made = Environment(
        loader=_Loader(
            {"page": PackageLoader("bids_app.report"), "text": PackageLoader("bids_app.boilerplate", package_path="")}
        ),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {
        "asset": lambda name: Markup(assets.text(name)),
        "policy": assets.policy,
        "block": lambda identifier, written: Markup(assets.block(identifier, written)),
    }
    return made


class _Loader(PrefixLoader):
    """Finds ``*.html.j2`` among the pages and everything else among the texts."""

    def get_loader(self, template: str):  # type: ignore[no-untyped-def]
        return self.mapping["page" if template.endswith(".html.j2") else "text"], template


@dataclass(frozen=True)
class Section:
    """What a page tells of one finished scan.

    ``images`` are PNG by key of `CAPTIONS`, what is missing is left out; ``view`` is the viewer's data, as
    `assets.data` writes them.
    """

    summary: Summary
    images: Mapping[str, bytes]
    view: str = ""


def participant_page(
    participant: str,
    sections: Sequence[Section],
    failures: Sequence[Failure],
    method_html: str,
    version: str,
    predictions: Sequence[Mapping[str, object]] = (),
    note: str = "",
) -> str:
    """Return ``sub-X.html``: self-contained, everything from the data set escaped.

    Parameters
    ----------
    participant : str
        Such as ``sub-01``.
    sections : sequence of Section
        Finished scans.
    failures : sequence of Failure
    method_html : str
        Safe HTML, from `method_html`.
    version : str
    predictions : sequence of mapping, optional
        Rows of the table of predictions.
    note : str, optional
        What was left out of the page, in a sentence.
    """
    scans = [_of_scan(section) for section in sections]
    template = environment().get_template("participant.html.j2")
    return template.render(
        participant=participant,
        note=note,
        scans=scans,
        failures=failures,
        predictions=predictions,
        method=Markup(method_html),
        disclaimer=DISCLAIMER,
        version=version,
        number=_number,
        maps={name: what for name, what in kinds.NAMES.items() if any(scan["lesions"][name] for scan in scans)},
        regions=kinds.REGIONS,
        places=DEFINITIONS,
        script=assets.joined(assets.REPORT) if any(section.view for section in sections) else "",
    )


def _of_scan(section: Section) -> dict[str, Any]:
    """Return what the template shows of a scan."""
    summary, images = section.summary, section.images
    found = _lesions(summary.measures)
    return {
        "summary": summary,
        "view": section.view,
        "flagged": [check for check in summary.checks if not check.ok],
        "lesions": found,
        "told": {name: each for name, each in found.items() if each and each["regions"]},
        "figures": [
            {"key": key, "title": title, "caption": caption, "data": b64encode(images[key]).decode()}
            for key, (title, caption) in CAPTIONS.items()
            if key in images
        ],
    }


def _lesions(measures: Mapping[str, float]) -> dict[str, dict[str, Any] | None]:
    """Return volume, count, lost lesions and both by region of each lesion map; None where there is no such map."""
    found: dict[str, dict[str, Any] | None] = {}
    for name in kinds.NAMES:
        of = kinds.prefix(name)
        keys = {region: (f"{of}_{region}_volume_ml", f"{of}_{region}_count") for region in kinds.REGIONS}
        found[name] = (
            {
                "volume": measures[f"{of}_volume_ml"],
                "count": measures[f"{of}_count"],
                "lost": measures.get(f"{of}_lost", ""),
                "regions": {region: (measures[ml], measures[n]) for region, (ml, n) in keys.items() if ml in measures},
            }
            if f"{of}_volume_ml" in measures
            else None
        )
    return found


def _number(value: object) -> str:
    """Return a number as a reader wants it: three digits that count."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def method_text(level: str, facts: Mapping[str, object]) -> str:
    """Return the method of a level (``participant``) in Markdown with citations ``[@key]``."""
    text = environment().get_template(f"{level}.md.j2").render(**facts)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def bibliography() -> str:
    """Return the references as BibTeX."""
    return resources.files("bids_app.boilerplate").joinpath("references.bib").read_text(encoding="utf-8")


def method_html(markdown: str) -> str:
    """Return Markdown as safe HTML, citations numbered, with the list of references below."""
    known = _references()
    cited: list[str] = []

    def cite(found: re.Match[str]) -> str:
        numbers = []
        for key in re.findall(r"@([\w-]+)", found[0]):
            if key not in known:
                raise KeyError(f"no reference {key}")
            if key not in cited:
                cited.append(key)
            numbers.append(str(cited.index(key) + 1))
        return f"[{', '.join(numbers)}]"

    text = re.sub(r"\[@[^\]]+\]", cite, markdown)
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    listed = "".join(f"<li>{escape(known[key])}</li>" for key in cited)
    return body + (f'<h3>References</h3><ol class="references">{listed}</ol>' if listed else "")


@cache
def _references() -> dict[str, str]:
    """Return one readable line for every entry of references.bib."""
    lines = {}
    for entry in re.findall(r"@\w+\{(.+?)\n\}", bibliography(), flags=re.S):
        key = entry.split(",", 1)[0].strip()
        fields = {name.lower(): value for name, value in re.findall(r"(\w+)\s*=\s*\{(.*?)\},?\s*(?:\n|$)", entry)}
        where = fields.get("journal") or fields.get("booktitle") or fields.get("publisher") or ""
        parts = [fields["author"].replace(" and ", "; "), fields["title"], where, fields.get("volume", "")]
        line = ". ".join(part for part in parts if part) + f" ({fields['year']})."
        lines[key] = line.replace("{", "").replace("}", "") + (f" doi:{fields['doi']}" if "doi" in fields else "")
    return lines
