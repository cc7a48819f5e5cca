"""The group report: numbers against their oracles, everything escaped, nothing loaded from elsewhere."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score
from statsmodels.stats.proportion import proportion_confint
from test_group_figures import make_cohort, make_result, result

from bids_app.bids.names import Scan
from bids_app.learning.sweep import best_cell
from bids_app.records.results import GroupResult, Notes
from bids_app.report import group_page, group_sections
from bids_app.report import page as report
from bids_app.report.group_numbers import facts, metrics, tables

NAMES = ("published", "leakage-free")
HOSTILE = "<script>alert(1)</script>"
PNG = b"\x89PNG\r\n\x1a\nnot really"


@cache
def hostile() -> GroupResult:
    levels = (f"R{HOSTILE}", f"N{HOSTILE}")
    return make_result(make_cohort(levels, n=18, hostile=HOSTILE), HOSTILE)


def told(found: GroupResult) -> group_page.Told:
    return group_page.Told(metrics(found), facts(found))


def card(found: GroupResult) -> str:
    return group_page.model_card(found, told(found))


def whole_page(found: GroupResult) -> str:
    keys = ["workflow", "summary", "frequency", *(f"{kind}_{name}" for kind in ("chi2", "curves") for name in NAMES)]
    text = group_page.method_text(facts(found))
    return group_page.page(found, told(found), dict.fromkeys(keys, PNG), report.method_html(text), "9.8.7")


class Reader(HTMLParser):
    """Tags with their attributes, and the visible words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


# -- metrics.json --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_metrics_are_those_of_scikit_learn_and_statsmodels(name: str) -> None:
    each, cohort = result().evaluations[name], result().cohort
    truth, called = cohort.positive[each.division.test], each.test.decisions >= 0
    (tn, fp), (fn, tp) = confusion_matrix(truth, called)
    test = json.loads(json.dumps(metrics(result()), allow_nan=False))[name]["test"]
    assert test["confusion"] == {"tp": tp, "fn": fn, "tn": tn, "fp": fp}
    assert test["auc"]["value"] == pytest.approx(roc_auc_score(truth, each.test.decisions))
    for key, correct, total in (("sensitivity", tp, tp + fn), ("specificity", tn, tn + fp)):
        assert test[key]["value"] == pytest.approx(correct / total)
        assert test[key]["interval_scans"] == pytest.approx(proportion_confint(correct, total, method="wilson"))


def test_each_evaluation_has_its_own_interval_first_and_both_stated() -> None:
    found = metrics(result())
    for name, own, word in (("published", "scans", "Wilson"), ("leakage-free", "participants", "bootstrap")):
        for part in ("test", "nested"):
            if part == "nested" and name == "published":
                assert part not in found[name]
                continue
            for key in ("accuracy", "sensitivity", "specificity"):
                measure = found[name][part][key]
                assert measure["interval"] == measure[f"interval_{own}"]
                assert word in measure["method"]
                assert measure["interval_scans"] != measure["interval_participants"]
        assert found[name]["train"]["accuracy"]["interval"] == found[name]["train"]["accuracy"]["interval_scans"]


def test_metrics_hold_every_point_of_the_curves_and_what_was_left_out() -> None:
    found = metrics(result())
    for name in NAMES:
        each = result().evaluations[name]
        assert [point["n_voxels"] for point in found[name]["curves"]] == each.selection.sweep.counts.tolist()
        for part, curve in (("train", each.train.curve), ("test", each.test.curve)):
            values = [point[part]["auc"]["value"] for point in found[name]["curves"]]
            assert values == [point.auc.value for point in curve]
        assert found[name]["chosen"]["n_voxels"] == each.selection.cell.n_voxels
        assert found[name]["division"]["participants_in_both"] == (18 if name == "published" else 0)
    assert found["left_out"] == [{"name": "sub-99", "reason": "no lesion map"}]
    assert found["cohort"]["participants"] == 18 and found["cohort"]["lesion_free_scans"] == 2
    printed = found["published_threshold"]
    assert printed["mean"] + 2.54 * printed["sd"] == printed["mean_plus_2.54_sd"] != printed["value"]


def test_undefined_numbers_are_null() -> None:
    each = result().evaluations["published"]
    blind = replace(each.test.curve[3].specificity, value=np.nan, low=np.nan, high=np.nan)
    curve = list(each.test.curve)
    curve[3] = replace(curve[3], specificity=blind)
    seen = replace(each, test=replace(each.test, curve=tuple(curve)))
    blinded = replace(result(), evaluations={"published": seen}, nested={})
    measure = json.loads(json.dumps(metrics(blinded), allow_nan=False))["published"]["test"]["specificity"]
    assert measure["value"] is None and measure["interval"] == [None, None]
    assert "undefined" in Reader(whole_page(blinded)).text


# -- tables --------------------------------------------------------------------------------------


def test_predictions_give_back_the_confusion_counts() -> None:
    table = tables(result())["predictions"]
    positive, negative = result().cohort.levels
    for name in NAMES:
        each = result().evaluations[name]
        performance = each.performance
        rows = table[(table.evaluation == name) & (table["set"] == "test")]
        wanted = {(positive, positive): "tp", (positive, negative): "fn", (negative, negative): "tn"}
        for (group, called), key in wanted.items():
            assert ((rows.group == group) & (rows.called == called)).sum() == getattr(performance, key)
        assert rows.correct.mean() == performance.accuracy.value
        assert (table.evaluation == name).sum() == len(result().cohort.scans)
    assert set(table.session_id) == {"ses-1", "ses-2", "ses-3"}
    assert table.loc[table.evaluation == "published", "nested_decision_value"].isna().all()


def test_scan_without_session_has_none() -> None:
    cohort = result().cohort
    bare = replace(cohort, scans=tuple(Scan((("sub", f"{i:03d}"),), "") for i in range(len(cohort.scans))))
    assert tables(replace(result(), cohort=bare))["predictions"].session_id.isna().all()


def test_sweep_and_grid_agree_with_the_sweep() -> None:
    found = tables(result())
    for name in NAMES:
        each = result().evaluations[name]
        sweep, grid = (found[key][found[key].evaluation == name] for key in ("sweep", "grid"))
        assert len(grid) == each.selection.sweep.correct[..., 0].size
        for i, n in enumerate(each.selection.sweep.counts):
            cell, row = best_cell(each.selection.sweep, i), sweep[sweep.n == n].iloc[0]
            assert (row.C, row.gamma) == (cell.C, cell.gamma)
            at = grid[(grid.n == n) & (grid.C == cell.C) & (grid.gamma == cell.gamma)].accuracy.item()
            assert at == pytest.approx(cell.accuracy) == grid[grid.n == n].accuracy.max()
            assert row.test_auc_low == each.test.curve[i].auc.low
            assert row.train_tp == each.train.curve[i].tp
        assert sweep[sweep.chosen == 1].n.tolist() == [each.selection.cell.n_voxels]


def test_rater_who_is_always_right_is_so_in_table_2() -> None:
    table = tables(result())["table2"]
    mine = table[(table.part == "performance") & (table["first"] == "rater")]
    assert len(mine) == 6 and (mine.value == 1).all()
    assert (table[table.part == "intra"].strength == "almost perfect").all()
    assert table[table.part == "svm"].mcnemar_p.between(0, 1).all()


def test_without_raters_there_is_no_table_2() -> None:
    assert "table2" not in tables(replace(result(), raters={}))


# -- page ----------------------------------------------------------------------------------------


def test_everything_from_the_data_set_is_escaped() -> None:
    page = whole_page(hostile())
    assert "<script" not in page.lower()
    assert page.count("&lt;script&gt;alert(1)") > 20
    text = Reader(page).text
    for shown in (f"sub-99{HOSTILE}", f"mind the gap{HOSTILE}", f"age{HOSTILE}", f"dx{HOSTILE}", f"rater{HOSTILE}",
                  f"called R{HOSTILE}"):  # fmt: skip
        assert shown in text
    for markdown in (card(hostile()), group_page.method_text(facts(hostile()))):
        assert "<script" not in markdown and "&lt;script&gt;" in markdown


def test_names_that_look_like_markdown_or_citations_are_shown_as_they_are() -> None:
    odd = ("[@x] *R*", "[N](http://n) `N` {{ 7 * 6 }}")
    cohort = replace(result().cohort, levels=odd)
    text = group_page.method_text(facts(replace(result(), cohort=cohort)))
    shown = Reader(report.method_html(text)).text
    assert odd[0] in shown and odd[1] in shown


def test_page_loads_nothing_from_elsewhere() -> None:
    tags = Reader(whole_page(result())).tags
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags}
    sources = [attributes["src"] or "" for _, attributes in tags if "src" in attributes]
    assert len(sources) == 7 and all(source.startswith("data:image/png;base64,") for source in sources)
    ids = {attributes["id"] for _, attributes in tags if "id" in attributes}
    links = [attributes["href"] or "" for tag, attributes in tags if tag == "a"]
    assert {link[1:] for link in links if link.startswith("#")} <= ids


def test_page_shows_the_numbers_of_the_metrics() -> None:
    text, found = Reader(whole_page(result())).text, metrics(result())
    for name in NAMES:
        test = found[name]["test"]
        assert f"{test['auc']['value']:.3f}" in text and f"{100 * test['accuracy']['value']:.1f} %" in text
        for kind in ("scans", "participants"):
            low, high = test["sensitivity"][f"interval_{kind}"]
            assert f"{100 * low:.1f}–{100 * high:.1f} %" in text
    assert f"{found['leakage-free']['nested']['auc']['value']:.3f}" in text
    assert f"{found['optimism']['auc']:+.3f}".replace("-", "−") in text
    assert "75.3" not in text and "0.753" in text and "0.3306" in text  # the publication's, beside
    assert "sub-99" in text and "mind the gap" in text and "9.8.7" in text and "no medical device" in text


def test_small_cohorts_are_warned_of() -> None:
    assert "Small cohort" in Reader(whole_page(result())).text
    many = make_cohort(n=66)
    people = np.array([f"sub-{i:02d}" for i in range(66)])  # one a scan
    assert np.unique(people[~many.positive]).size >= 20
    large = replace(result(), cohort=replace(many, participants=people))
    assert "Small cohort" not in Reader(whole_page(large)).text
    assert "mean little" not in card(large) and "mean" in card(result())


def test_page_without_nested_raters_permutation_and_figures() -> None:
    each = {"leakage-free": result().evaluations["leakage-free"]}
    bare = replace(result(), evaluations=each, nested={}, raters={}, permutation=None, tables={},
                   notes=Notes((), (), ()))  # fmt: skip
    page = group_page.page(bare, told(bare), {}, "<p>method</p>", "1")
    assert "Nothing was left out" in page and "Optimism" not in page and "<p>method</p>" in page
    assert "Optimism" not in card(bare)


# -- words ---------------------------------------------------------------------------------------


def test_method_text_cites_only_what_the_bibliography_holds() -> None:
    text = group_page.method_text(facts(result()))
    cited = set(re.findall(r"@(\w+)", text))
    known = set(re.findall(r"@\w+\{(\w+),", report.bibliography()))
    assert len(cited) >= 10 and cited <= known
    for words in ("36 training", "n = 27", "2 outer folds", "0.0200 + 2.54 x 0.1100"):
        assert words in text
    quiet = group_page.method_text(facts(replace(result(), raters={}, permutation=None, nested={})))
    assert "kappa" not in quiet and "permut" not in quiet and "Nested" not in quiet


def test_intervals_with_a_minus_sign_are_told_by_a_word() -> None:
    assert group_sections.span([0.1, 0.2], group_sections.percent) == "10.0–20.0 %"
    assert group_sections.span([-0.1, 0.2], group_sections.num) == "−0.100 to 0.200"
    assert group_sections.span([None, 0.2], group_sections.num) == "undefined"


def test_the_supplement_is_shown_last_whatever_tables_are_called() -> None:
    named = dict.fromkeys(("table_s1", "Table S, one of our own", "table1"), pd.DataFrame({"of": ["x"]}))
    titles = [shown["title"] for shown in group_sections.shown_tables(replace(result(), tables=named, raters={}))]
    last, first = (group_sections.TITLES[key][0] for key in ("table_s1", "table1"))
    assert titles == ["Table S, one of our own", first, last]


def test_model_card_states_numbers_limits_and_use() -> None:
    text = card(result())
    for name in NAMES:
        measure = metrics(result())[name]["test"]["auc"]
        assert f"{measure['value']:.3f}" in text and measure["method"] in text
    for heading in ("## Data", "## Intended use", "## Not for", "## Limits", "## How to use"):
        assert f"\n\n{heading}\n\n" in text
