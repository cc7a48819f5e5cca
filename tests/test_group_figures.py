"""Figures of the group level: what is drawn where, in which colour, and what the charts hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import chi2 as chi2_distribution

from bids_app.bids.names import Scan
from bids_app.drawing import group_figures
from bids_app.drawing.template_slices import SLICES
from bids_app.image import atlas
from bids_app.learning import characteristics, measures, roc
from bids_app.learning.agreement import table2
from bids_app.learning.ranking import rank_voxels, ties_at
from bids_app.records.cohort import Cell, Cohort, Division, Grid, LesionMaps, Model, Ranking, SweepResult, Threshold
from bids_app.records.recommended import Permutation
from bids_app.records.results import (
    Evaluation,
    GroupResult,
    HeldOutScores,
    Nested,
    Notes,
    Provenance,
    Scores,
    Selection,
)
from bids_app.report.group_numbers import facts

COUNTS = (1, 2, 8, 27, 64, 69_765)
GRID = Grid((0.125, 1.0), (0.5, 2.0, 8.0))


def make_cohort(levels: tuple[str, str] = ("RRMS", "NMOSD"), n: int = 54, hostile: str = "") -> Cohort:
    """Three scans a participant; the first voxels of the brain are lesioned more often in the positive group."""
    rng = np.random.default_rng(1)
    positive = np.repeat(np.arange(n // 3) % 5 < 3, 3)
    n_voxels = int(atlas.brain_grid(3).data.sum())
    often = np.full(n_voxels, 0.02)
    often[20_000:20_400] = 0.3
    lesions = rng.random((n, n_voxels), dtype=np.float32) < np.where(positive[:, None], often, 0.04)
    lesions[[0, 10]] = False
    people = np.repeat([f"sub-{i:02d}" for i in range(n // 3)], 3)
    scans = tuple(Scan((("sub", name[4:]), ("ses", f"{i % 3 + 1}{hostile}")), "") for i, name in enumerate(people))
    table = pd.DataFrame({f"age{hostile}": 30 + 9 * rng.standard_normal(n), "sex": np.repeat(list("MF") * n, 3)[:n]})
    return Cohort(scans, people, positive, lesions, table.set_index(pd.Index([scan.name for scan in scans])), levels)


def make_evaluation(cohort: Cohort, name: str, seed: int = 0) -> Evaluation:
    """Made-up decisions on a real division and ranking: no support vector machine is needed to draw."""
    rng = np.random.default_rng(seed)
    by_scan = name == "published"
    held_out = np.arange(len(cohort.scans)) % 3 == 0 if by_scan else np.arange(len(cohort.scans)) // 3 % 3 == 0
    rows = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    train, test = (cohort.take(each) for each in rows)
    decisions = [[rng.normal(2.0 * part.positive - 1, 3) for part in (train, test)] for _ in COUNTS]
    curves = [[measures.performance(part.positive, d[k]) for d in decisions] for k, part in enumerate((train, test))]
    sweep = SweepResult(np.array(COUNTS), GRID, rng.integers(0, 9, (len(COUNTS), 2, 3, 4)), np.array([9, 9, 9, 9]))
    accuracy = (sweep.correct / sweep.fold_sizes).mean(axis=-1)
    cells = []
    for n, each in zip(COUNTS, accuracy, strict=True):
        c, g = np.unravel_index(np.argmax(each), each.shape)
        cells.append(Cell(n, GRID.C[c], GRID.gamma[g], float(each[c, g])))
    ranking = rank_voxels(train.lesions, train.positive)
    model = Model(ranking.order[:27], np.zeros((1, 27), bool), np.ones(1), 0.0, 1.0, 0.5)
    last = decisions[3]
    # each evaluation has maps at a threshold of its own: what is told of it must come from these
    maps = cohort.lesions if by_scan else cohort.lesions & (np.arange(cohort.lesions.shape[1]) % 3 > 0)
    volumes = [part.lesions.sum(axis=1) for part in (train, test)]
    return Evaluation(
        name,
        Division(*rows, "scan" if by_scan else "participant"),
        LesionMaps(maps, Threshold(0.3 if by_scan else 0.4, "training", 0.02, 0.11, 36)),
        Selection(ranking, sweep, tuple(cells), 3, {n: ties_at(ranking, n) for n in COUNTS}),
        model,
        Scores(tuple(curves[0]), last[0]),
        HeldOutScores(
            tuple(curves[1]),
            last[1],
            measures.bootstrap(test.positive, last[1], test.participants, 50),
            measures.lesion_free(volumes[1], test.positive, last[1]),
            0,
            {
                "majority": measures.majority(train.positive, test.positive),
                "lesion_volume": measures.lesion_volume(volumes[0], train.positive, volumes[1], test.positive),
            },
        ),
    )


def make_result(cohort: Cohort, hostile: str = "") -> GroupResult:
    found = {name: make_evaluation(cohort, name, k) for k, name in enumerate(("published", "leakage-free"))}
    rng = np.random.default_rng(5)
    values = rng.normal(cohort.positive - 0.5)
    cells = tuple(found["leakage-free"].selection.cells[i] for i in (0, 3))
    fold = np.arange(len(values)) // 3 % 2
    whole = measures.performance(cohort.positive, values)
    nested = Nested(values, fold, cells, replace(whole, auc=roc.auc_within(cohort.positive, values, fold)),
                    measures.bootstrap(cohort.positive, values, cohort.participants, 50, fold=fold),
                    roc.auc(cohort.positive, values))  # fmt: skip
    raters = {}
    for name, each in found.items():
        truth = cohort.positive[each.division.test]
        reads = {f"rater{hostile}": truth.astype(float)}
        raters[name] = table2(truth, each.test.decisions >= 0, reads, reads)
    groups = np.where(cohort.positive, *cohort.levels)
    tables = {"table1": characteristics.table1(cohort.table, cohort.participants, groups, levels=cohort.levels)}
    return GroupResult(
        cohort,
        found,
        {"leakage-free": nested},
        Permutation("nested AUC within folds", 0.7, 0.25, (0.4, 0.5, 0.6)),
        tables,
        raters,
        Notes(((f"sub-99{hostile}", f"no lesion map{hostile}"),), (), (f"mind the gap{hostile}",)),
        Provenance({"random_seed": 0, "lesion_threshold": None, "group_column": f"dx{hostile}"}, {"numpy": "2"}),
    )


@cache
def result() -> GroupResult:
    return make_result(make_cohort())


def drawn(function: Callable[..., bytes], *args: object, **kwargs: object) -> Figure:
    """The figure before it becomes PNG."""
    return function.__wrapped__(*args, **kwargs)  # type: ignore[attr-defined]


def texts(figure: Figure) -> str:
    found = [*figure.texts]
    for axes in figure.axes:
        found += [*axes.texts, axes.title, *axes.get_yticklabels()]
    found += [text for legend in figure.legends for text in legend.get_texts()]
    return "\n".join(text.get_text() for text in found)


def coloured(png: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Column and row of every pixel with a hue, whether it is more red than blue, and the size, px."""
    image = np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(int)
    rows, columns = np.nonzero(image.max(axis=2) - image.min(axis=2) > 60)
    return columns, rows, image[rows, columns, 0] > image[rows, columns, 2], np.array(image.shape[1::-1])


def voxels_at(x: range, y: range, z: float) -> np.ndarray:
    """Voxels (V,) of the brain in a box of mm on one slice."""
    grid = atlas.brain_grid(3)
    at = np.stack(np.nonzero(grid.data)) * 3.0 + grid.affine[:3, 3][:, None]
    inside = (at[0] > x.start) & (at[0] < x.stop) & (at[1] > y.start) & (at[1] < y.stop) & (at[2] == z)
    assert inside.sum() > 20
    return inside


ALL: dict[str, Callable[[], bytes]] = {
    "frequency": lambda: group_figures.frequency(result().cohort.lesions, result().cohort.positive, ("a", "b")),
    "chi2": lambda: group_figures.chi2_map(published().selection.ranking),
    "selected": lambda: group_figures.selected(published().selection.ranking),
    "beside": lambda: group_figures.chosen_beside(published().selection.ranking, published()),
    "curves": lambda: group_figures.curves(published()),
    "misclassified": lambda: group_figures.misclassified(result().cohort, published(), 6),
    "summary": lambda: group_figures.summary_plot(result(), facts(result())["optimism"]),
    "workflow": lambda: group_figures.workflow(facts(result())),
}


def published() -> Evaluation:
    return result().evaluations["published"]


@pytest.mark.parametrize("name", ALL)
def test_png_is_small_repeatable_and_bears_no_date(name: str) -> None:
    png = ALL[name]()
    image = Image.open(BytesIO(png))
    assert image.format == "PNG" and image.width <= 1800
    assert len(png) < 400_000
    assert not set(image.info) - {"transparency", "dpi"}
    assert png == ALL[name]()


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("front", [False, True])
def test_lesions_are_drawn_on_their_side_and_slice(right: bool, front: bool) -> None:
    x, y = range(10, 50) if right else range(-50, -10), range(10, 40) if front else range(-80, -50)
    z = 24.0
    lesions = np.tile(voxels_at(x, y, z), (2, 1))
    lesions[1] = False  # nothing in the second group
    columns, rows, _, (width, height) = coloured(group_figures.frequency(lesions, np.array([True, False]), ("a", "b")))
    brain = rows < height * 0.8  # above the colour bar
    columns, rows = columns[brain], rows[brain]
    panel = (columns * len(SLICES)) // width
    assert set(panel) == {SLICES.index(z)}
    within = columns * len(SLICES) / width % 1
    assert (within > 0.5).all() if right else (within < 0.5).all()
    assert rows.max() < height * 0.45  # the first group's row
    back_of_row = np.median(rows) > height * 0.22
    assert back_of_row != front


def test_frequency_begins_above_ten_percent() -> None:
    box = voxels_at(range(-50, -10), range(-80, -50), 24.0)
    lesions = np.zeros((41, len(box)), bool)
    positive = np.arange(41) < 40
    for lesioned, seen in ((4, False), (5, True)):
        lesions[:lesioned] = box
        figure = group_figures.frequency(lesions, positive, ("a", "b"))
        _, rows, _, (_, height) = coloured(figure)
        assert (rows < height * 0.8).any() == seen


def test_chi2_is_red_where_positive_scans_are_more_often_lesioned() -> None:
    left, right = voxels_at(range(-50, -10), range(-80, -50), 24.0), voxels_at(range(10, 50), range(-80, -50), 24.0)
    sign = (left.astype(int) - right).astype(np.int8)
    ranking = Ranking(np.argsort(-abs(sign), kind="stable"), 20.0 * abs(sign), sign)
    columns, rows, red, (width, height) = coloured(group_figures.chi2_map(ranking))
    brain = rows < height * 0.65
    within = columns[brain] * len(SLICES) / width % 1
    assert red[brain].any() and (~red[brain]).any()
    assert ((within < 0.5) == red[brain]).all()


def test_chi2_is_drawn_from_p_005_on() -> None:
    box = voxels_at(range(-50, -10), range(-80, -50), 24.0)
    least = chi2_distribution.isf(0.05, 1)
    for factor, seen in ((0.99, False), (1.01, True)):
        chi2 = np.where(box, factor * least, 0.0)
        ranking = Ranking(np.argsort(-chi2, kind="stable"), chi2, np.where(box, 1, 0).astype(np.int8))
        _, rows, _, (_, height) = coloured(group_figures.chi2_map(ranking))
        assert (rows < height * 0.65).any() == seen


def test_single_chosen_voxel_is_seen_in_its_colour() -> None:
    n_voxels = len(published().selection.ranking.chi2)
    for voxel, sign in ((20_000, 1), (40_000, -1)):
        chi2 = np.zeros(n_voxels)
        chi2[voxel] = 30.0
        signs = np.zeros(n_voxels, np.int8)
        signs[voxel] = sign
        ranking = Ranking(np.argsort(-chi2, kind="stable"), chi2, signs)
        _, _, red, _ = coloured(group_figures.selected(ranking, counts=(1,)))
        assert len(red) > 400  # 20 x 20 px: to be seen on a page
        assert (red == (sign > 0)).all()


def test_counts_above_all_voxels_become_all() -> None:
    ranking = published().selection.ranking
    figure = drawn(group_figures.selected, ranking, (2, 10**6))
    assert f"n = {len(ranking.order):,}" in texts(figure) and "1,000,000" not in texts(figure)


def test_curves_hold_every_performance() -> None:
    figure = drawn(group_figures.curves, published())
    for axes, key in zip(figure.axes, ("sensitivity", "specificity", "accuracy", "auc"), strict=True):
        lines = {line.get_label().split(",")[0]: line for line in axes.lines}
        for label, curve in (("training set", published().train.curve), ("test set", published().test.curve)):
            assert lines[label].get_xdata().tolist() == list(COUNTS)
            assert list(lines[label].get_ydata()) == [getattr(each, key).value for each in curve]
        assert lines["training set"].get_color() == "#1F5FA8"  # blue
        assert lines["test set"].get_color() == "#C4161C"  # red
        assert set(lines["chosen"].get_xdata()) == {27}
        (band,) = axes.collections
        ends = band.get_paths()[0].vertices[:, 1]
        intervals = [getattr(each, key) for each in published().test.curve]
        assert ends.min() == min(each.low for each in intervals) and ends.max() == max(each.high for each in intervals)
    assert [tick.get_text() for tick in axes.get_xticklabels()][:5:2] == ["1", "16", "256"]
    assert axes.get_xticklabels()[-1].get_text() == "all"


def test_curves_of_a_test_set_with_one_group_only() -> None:
    rows = published().division.test
    one = [measures.performance(np.ones(len(rows), bool), published().test.decisions)] * len(COUNTS)
    assert group_figures.curves(replace(published(), test=replace(published().test, curve=tuple(one))))


def test_misclassified_scans_are_named_with_group_and_decision() -> None:
    cohort, found = result().cohort, published()
    rows, decisions = found.division.test, found.test.decisions
    wrong = [i for i in range(len(rows)) if (decisions[i] >= 0) != cohort.positive[rows[i]]]
    assert 2 < len(wrong) < len(rows)
    shown = texts(drawn(group_figures.misclassified, cohort, found, 100))
    for i, row in enumerate(rows):
        assert (cohort.names[row] in shown) == (i in wrong)
    assert f"{len(wrong)} of {len(rows)}" in shown and "not shown" not in shown
    fewer = texts(drawn(group_figures.misclassified, cohort, found, 2))
    surest = sorted(wrong, key=lambda i: -abs(decisions[i]))
    assert all((cohort.names[rows[i]] in fewer) == (i in surest[:2]) for i in wrong)
    assert f"{len(wrong) - 2} not shown" in fewer
    right = replace(found.test, decisions=np.where(cohort.positive[rows], 1.0, -1.0))
    perfect = replace(found, test=right)
    assert "0 of" in texts(drawn(group_figures.misclassified, cohort, perfect, 5))


@pytest.mark.parametrize("name", ["published", "leakage-free"])
def test_misclassified_scans_are_drawn_with_the_maps_of_their_evaluation(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    monkeypatch.setattr(group_figures, "_projections", lambda figure, place, lesion: seen.append(lesion))
    cohort, found = result().cohort, result().evaluations[name]
    drawn(group_figures.misclassified, cohort, found, 100)
    rows, decisions = found.division.test, found.test.decisions
    wrong = np.flatnonzero((decisions >= 0) != cohort.positive[rows])
    wrong = rows[wrong[np.argsort(-np.abs(decisions[wrong]), kind="stable")]]
    np.testing.assert_array_equal(seen, found.maps.lesions[wrong])
    assert np.array_equal(seen, cohort.lesions[wrong]) == (name == "published")


def test_summary_shows_every_value_and_both_intervals() -> None:
    figure = drawn(group_figures.summary_plot, result(), facts(result())["optimism"])
    found = [each.performance for each in result().evaluations.values()]
    found.append(result().nested["leakage-free"].performance)
    for axes, key in zip(figure.axes, ("auc", "accuracy", "sensitivity", "specificity"), strict=True):
        ends = [tuple(line.get_xdata()) for line in axes.lines]
        for each, bootstrap in zip(found, [e.test.bootstrap for e in result().evaluations.values()], strict=False):
            measure = getattr(each, key)
            assert (measure.low, measure.high) in ends
            assert (bootstrap[key].low, bootstrap[key].high) in ends
        for each in found:
            assert f"{getattr(each, key).value:.3f}" in [text.get_text() for text in axes.texts]


def test_names_that_look_like_formulas_are_drawn_as_they_are() -> None:
    hostile = make_result(make_cohort(("$R", r"N$_{\frac"), n=18, hostile="$x_{$"), "$")
    images = group_figures.draw(hostile, facts(hostile))
    assert {"workflow", "summary", "frequency", "curves_published", "misclassified_leakage-free"} < set(images)
