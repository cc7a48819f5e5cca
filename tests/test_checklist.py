"""The reporting checklists: every item is there, and every place that is named exists."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd

from bids_app.records.cohort import Measure
from bids_app.records.further import Confounding, Further, Several
from bids_app.report import checklist, further_numbers

TRIPOD = (
    "1 2 3a 3b 3c 4 5a 5b 6a 6b 6c 7 8a 8b 8c 9a 9b 9c 10 11 12a 12b 12c 12d 12e 12f 12g 13 14 15 16 17 "
    "18a 18b 18c 18d 18e 18f 19 20a 20b 20c 21 22 23a 23b 24 25 26 27a 27b 27c"
)


def filled(metrics: dict[str, Any], there: list[str]) -> pd.DataFrame:
    return checklist.table(metrics, there).set_index(["guideline", "item"])


def test_every_item_of_both_is_there_once() -> None:
    items = checklist.items()
    numbers = {name: part["item"].tolist() for name, part in items.groupby("guideline")}
    assert numbers == {"TRIPOD+AI": TRIPOD.split(), "CLAIM 2024": [str(k) for k in range(1, 45)]}
    assert set(numbers) == set(checklist.GUIDES)
    assert (items["topic"].str.len() < 60).all()  # our own short words
    assert (items["answer"].notna() | items["author"].notna()).all()
    assert (items["answer"].isna() == items["places"].isna()).all()


def test_what_is_not_there_is_left_to_the_author() -> None:
    nothing = filled({}, [])
    assert (nothing["status"] == checklist.TODO).all()
    assert nothing["for_the_author"].notna().all() and nothing["answer"].isna().all()
    some = filled({"left_out": [], "published": {"raters": {}}}, ["group/model_card.md"])
    assert some.loc[("TRIPOD+AI", "27b"), "status"] == checklist.PARTLY
    assert some.loc[("CLAIM 2024", "8"), "where"] == "group/metrics.json#left_out"  # nobody left out is an answer
    assert some.loc[("CLAIM 2024", "18"), "status"] == checklist.TODO  # no raters
    assert some.loc[("TRIPOD+AI", "17"), "status"] == checklist.TODO


def test_what_only_some_runs_find_is_answered_where_it_is_there() -> None:
    """Sites and calibration: no answer without them, and the place where they stand."""
    without = filled({"parameters": {"covariates": []}}, [])
    found = filled({"confounding": {"site_column": "site"}, "recommended": {"probability": {"brier": 0.2}}}, [])
    for item, place in (("12d", "confounding"), ("23b", "confounding"), ("12e", "recommended.probability")):
        assert without.loc[("TRIPOD+AI", item), "status"] == checklist.TODO
        assert found.loc[("TRIPOD+AI", item), "status"] != checklist.TODO
        assert f"group/metrics.json#{place}" in found.loc[("TRIPOD+AI", item), "where"].split("; ")
    assert "--site-column" in found.loc[("TRIPOD+AI", "12d"), "answer"]
    assert "alibration" in found.loc[("TRIPOD+AI", "23a"), "answer"]
    assert "imputed inside each training set" in without.loc[("TRIPOD+AI", "11"), "answer"]


def test_the_cards_of_the_networks_that_are_named_are_shipped() -> None:
    answer = filled({"parameters": {"random_seed": 0}}, []).loc[("CLAIM 2024", "24"), "answer"]
    for name in ("brain.json", "lesions.json"):
        assert name in answer
        assert "--seed" in resources.files("bids_app").joinpath("weights", name).read_text(encoding="utf-8")


def test_the_key_of_sites_is_that_of_the_metrics() -> None:
    measure = Measure(0.5, 0.4, 0.6, "m")
    several = Several(("a", "b"), (1, 1), (1, 1), {}, measure, measure, np.eye(2), 2)
    sites = Further(None, Confounding("site", {}, several), None)
    assert set(further_numbers.metrics(sites, ("RRMS", "NMOSD"))) == {"confounding"}


def test_sections_that_are_named_are_in_the_report() -> None:
    template = resources.files("bids_app.report").joinpath("templates", "group.html.j2").read_text(encoding="utf-8")
    sections = {place.partition("#")[2] for place in checklist.files() if place.startswith("group.html#")}
    assert sections <= set(re.findall(r'<h2 id="(\w+)"', template)) and len(sections) >= 4


def test_the_page_says_each_item_and_escapes() -> None:
    found = checklist.table({"cohort": {"voxels": 1}}, ["logs/CITATION_group.md"])
    found.loc[0, "topic"] = "<script>alert(1)</script>"
    text = checklist.page(found, "1.2.3")
    assert "<script" not in text and "&lt;script&gt;" in text
    assert text.count('<th scope="row">') == len(found) == 52 + 44
    assert text.count('<span class="todo">TODO</span>') == (found["status"] == checklist.TODO).sum()
