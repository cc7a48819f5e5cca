"""The participant's page and the method text: complete, self-contained, and nothing from a data set is executed."""

from __future__ import annotations

import re

import pytest

from bids_app.bids.names import Scan
from bids_app.lesions.places import DEFINITIONS
from bids_app.records.scan import Check, Failure, Origin, Summary
from bids_app.report import page as report

EVIL = "<script>alert(1)</script>"
FACTS = {
    "version": "1.2.3",
    "software": dict.fromkeys(
        ("antspyx", "nilearn", "onnxruntime", "python", "numpy", "scipy", "nibabel", "pybids"), "9.9"
    ),
    "n_scans": 2,
    "n_participants": 1,
    "lesion_threshold": 0.3217,
    "random_seed": 7,
    "bright": 0.25,
}


def summary(name: str, lesions: int = 3) -> Summary:
    measures = {"brain_volume_ml": 1400.0, "lesion_volume_ml": 2.5, "cleaned_volume_ml": 1.0, "cleaned_count": 1}
    return Summary(
        scan=Scan.named(name),
        origin=Origin(f"sub-01/{EVIL}.nii.gz", "d", "a", {"lesion_threshold": 0.32}, {"numpy": EVIL}, {"tissues": 1.5}),
        checks=(Check("coverage", 0.5, "share", 0.97, 1.0, f"meaning {EVIL}"),),
        warnings=(f"warning {EVIL}",),
        measures={**measures, "lesion_count": lesions},
        outputs=(),
        figures={},
    )


def page(lesions: int = 3) -> str:
    section = report.Section(summary("sub-01", lesions), dict.fromkeys(report.CAPTIONS, b"\x89PNG"))
    rows = [{"scan": EVIL, "prediction": "RRMS", "decision_value": 0.5}]
    failures = [Failure(Scan.named("sub-01_ses-2"), f"line {EVIL}")]
    method = report.method_html(report.method_text("participant", FACTS))
    return report.participant_page("sub-01", [section], failures, method, "1.2.3", rows)


def test_nothing_from_the_data_set_is_executed_and_all_of_it_is_shown() -> None:
    text = page()
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 7


def test_the_page_loads_nothing_and_has_every_figure() -> None:
    text = page()
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    assert text.count("data:image/png;base64,") == len(report.CAPTIONS)
    assert report.DISCLAIMER in text


def test_places_are_defined_where_reasons_are_shown_and_nowhere_else() -> None:
    without = report.participant_page("sub-01", [report.Section(summary("sub-01"), {"tissues": b"x"})], [], "", "1")
    for place, where in DEFINITIONS.items():
        assert f"{place}: {where}" in page()
        assert f"{place}: {where}" not in without


def test_a_check_outside_its_range_and_a_scan_without_lesion_are_flagged() -> None:
    assert "flagged" in page() and "no lesion<" not in page()
    assert "no lesion<" in page(lesions=0)


def test_the_method_text_tells_the_numbers_of_the_run_and_every_citation_is_known() -> None:
    text = report.method_text("participant", FACTS)
    assert "0.32" in text and "seed was 7" in text and "2 FLAIR scans" in text
    html = report.method_html(text)
    assert "[@" not in html
    cited = len(set(re.findall(r"@(\w+)", text)))
    assert html.count("<li>") == cited >= 8


def test_an_unknown_citation_is_an_error_not_a_hole() -> None:
    with pytest.raises(KeyError, match="nobody1900"):
        report.method_html("as shown [@nobody1900]")


def test_a_fact_that_is_missing_is_an_error_not_a_hole() -> None:
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError):
        report.method_text("participant", {key: value for key, value in FACTS.items() if key != "random_seed"})


def test_every_reference_has_author_title_and_year() -> None:
    for key, line in report._references().items():
        assert re.search(r"\(\d{4}\)\.", line), key
        assert len(line) > 40, key
