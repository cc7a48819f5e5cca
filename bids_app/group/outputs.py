"""Writes what the group level found: maps, tables, models, metrics and the report."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bids_app import __version__
from bids_app.bids.dataset import describe
from bids_app.bids.names import SPACE, group_output, model_folder
from bids_app.drawing import group_figures, group_view
from bids_app.files import formats
from bids_app.image.atlas import brain_grid, on_grid
from bids_app.model import calibrated, explanation, storage
from bids_app.recommended import linear as linear_machine
from bids_app.records.cohort import Cohort
from bids_app.records.fitted import Fitted, Kept, Recommended
from bids_app.records.recommended import Purpose
from bids_app.records.results import Evaluation, GroupResult, Predictor
from bids_app.report import assets, checklist, group_numbers, group_page, page

_ON_TEMPLATE: dict[str, Any] = {"SpatialReference": SPACE, "Resolution": "3 mm isotropic", "Sources": ["bids::"]}
DESC = {"published": "", "leakage-free": "leakageFree"}  # the published maps carry the plain names


def write_everything(result: GroupResult, output: Path, bids_dir: Path, lesion_map: str, report_viewer: str) -> None:
    """Write maps, models, tables, metrics.json, model card and last group.html."""
    describe(output, "RRMS against NMOSD by FLAIR", bids_dir, keep=True)
    cohort = result.cohort
    _write_maps(result, output)
    weights = _weights(result.recommended)
    if weights is not None:
        _write_weights(weights, result, output)
    for name, evaluation in result.evaluations.items():
        _write_model(result, evaluation, output / group_output("model", evaluation=name), lesion_map)
    if result.recommended:
        about = _training(cohort, np.arange(len(cohort.scans)), result.recommended.calibration.lesion_free)
        for name, fitted in {"recommended": result.recommended, **result.recommended.kept}.items():
            _write_calibrated(result, name, fitted, about, output / model_folder(name))
    for name, table in group_numbers.tables(result).items():
        formats.write_tsv(output / group_output("table", name=name), table)
    told = group_page.Told(group_numbers.metrics(result), group_numbers.facts(result))
    formats.write_json(output / group_output("metrics"), told.metrics)
    formats.write_text(output / group_output("model_card"), group_page.model_card(result, told))
    pictures = group_figures.draw(result, told.facts)
    for name, picture in pictures.items():
        formats.write_bytes(output / group_output("figure", name=name), picture)
    text = group_page.method_text(told.facts)
    formats.write_text(output / group_output("method"), text)
    formats.write_text(output / group_output("references"), page.bibliography())
    view = assets.data(_view(result, weights)) if report_viewer != "none" else ""
    html = group_page.page(result, told, pictures, page.method_html(text), __version__, view)
    formats.write_text(output / group_output("report"), html)
    _write_checklist(told.metrics, output)


def _write_checklist(metrics: Mapping[str, Any], output: Path) -> None:
    """Write the reporting checklists; last, since they say what there is."""
    there = [place for place in checklist.files() if (output / place.partition("#")[0]).exists()]
    found = checklist.table(metrics, there)
    formats.write_tsv(output / group_output("checklist_table"), found)
    formats.write_text(output / group_output("checklist"), checklist.page(found, __version__))


def _view(result: GroupResult, weights: np.ndarray | None) -> dict[str, Any]:
    cohort, evaluations = result.cohort, result.evaluations
    parts = zip(cohort.levels, (cohort.positive, ~cohort.positive), strict=True)
    rankings = {name: each.selection.ranking for name, each in evaluations.items()}
    return group_view.view(
        {level: cohort.lesions[rows].mean(axis=0) for level, rows in parts},
        {name: ranking.chi2 * ranking.sign for name, ranking in rankings.items()},
        {name: each.model.voxels for name, each in evaluations.items()},
        {} if weights is None else {"Weights, recommended": weights},
        explanation.template_places(),
    )


def _weights(found: Recommended | None) -> np.ndarray | None:
    """Return the weights (V,) of the recommended model, None where there is none."""
    if found is None:
        return None
    grid = brain_grid(3)
    return linear_machine.weight_map(found.model, grid.data, grid.affine)


def _write_model(result: GroupResult, evaluation: Evaluation, folder: Path, lesion_map: str) -> None:
    rows = evaluation.division.train
    lesions = evaluation.maps.lesions[rows]
    purpose = Purpose(result.cohort.levels, evaluation.maps.threshold, lesion_map, evaluation.maps.norm)
    about = _training(result.cohort, rows, ~lesions.any(axis=1))
    storage.save(evaluation.model, folder, purpose, evaluation.name, about, lesions[:, evaluation.model.voxels])


def _write_calibrated(result: GroupResult, name: str, found: Fitted, about: dict[str, object], folder: Path) -> None:
    asked: dict[str, Any] = result.provenance.parameters
    by = found.calibration
    prevalence = asked["prevalence"] or by.prevalence
    made = Predictor(name, found.model, by, found.seen, found.purpose, prevalence, asked["coverage"])
    chosen = found.chosen if isinstance(found, Kept) else ()
    # several settings stand in the model itself
    calibrated.save(made, folder, about if isinstance(chosen, tuple) else about | {"chosen": chosen})


def _training(cohort: Cohort, rows: np.ndarray, lesion_free: np.ndarray) -> dict[str, object]:
    """Return what a model says of the scans it was trained on."""
    return {
        "n_scans": len(rows),
        "n_participants": len(np.unique(cohort.participants[rows])),
        "n_positive": int(cohort.positive[rows].sum()),
        "n_lesion_free": int(lesion_free.sum()),
    }


def _write_maps(result: GroupResult, output: Path) -> None:
    about, cohort = _ON_TEMPLATE, result.cohort
    for level, rows in zip(cohort.levels, (cohort.positive, ~cohort.positive), strict=True):
        label = re.sub(r"[^0-9a-zA-Z]", "", level) or "group"
        _write_map(
            output / group_output("frequency", level=label),
            cohort.lesions[rows].mean(axis=0).astype(np.float32),
            {"Description": f"Share of the {int(rows.sum())} scans of {level} with a lesion here", **about},
        )
    for name, evaluation in result.evaluations.items():
        ranking, tag = evaluation.selection.ranking, DESC[name]
        of_test = "Pearson chi-square of lesion x group in the training set, no continuity correction; positive where "
        _write_map(
            output / group_output("chi2", desc=f"_desc-{tag}" if tag else ""),
            (ranking.chi2 * ranking.sign).astype(np.float32),
            {"Description": f"{of_test}{cohort.levels[0]} is more often lesioned ({name} division)", **about},
        )
        chosen = np.zeros(cohort.lesions.shape[1], bool)
        chosen[evaluation.model.voxels] = True
        _write_map(
            output / group_output("selected", evaluation=tag[:1].upper() + tag[1:]),
            chosen,
            {"Description": f"Voxels of the chosen model, {name} evaluation", "Type": "ROI", **about},
        )


def _write_weights(weights: np.ndarray, result: GroupResult, output: Path) -> None:
    """Write the weights (V,) of the recommended model, in single precision."""
    positive, negative = result.cohort.levels
    what = (
        f"Weights of the recommended model at the voxels: a lesion where they are above 0 speaks for {positive}, "
        f"below 0 for {negative}. Features of a map m are square roots of A m, A being smoothing and folding, and "
        "this is the sum of A' times their weights. The decision adds log volume and intercept and is not linear in m: "
        "stat-contribution maps divide that of one scan among its lesions"
    )
    model = {"Model": f"bids::{group_output('model', evaluation='recommended')}/model.json"}
    _write_map(
        output / group_output("weights"), weights.astype(np.float32), {"Description": what, **model, **_ON_TEMPLATE}
    )


def _write_map(path: Path, values: np.ndarray, about: dict[str, Any]) -> None:
    volume = on_grid(values)
    formats.write_nifti(path, volume.data, volume.affine)
    formats.write_json(formats.sidecar(path), about)
