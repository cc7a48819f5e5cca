"""Writes what the group level found: maps, tables, models, metrics and the report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from bids_app import __version__, files, group_figures, group_report, group_tables, modelfile, report
from bids_app.atlas import brain_grid
from bids_app.bids import BIDSIGNORE, description
from bids_app.records import SPACE, Evaluation, GroupResult

NAMES = {"published": "", "leakage-free": "leakageFree"}  # the published maps carry the plain names


def write_everything(result: GroupResult, output: Path, bids_dir: Path, lesion_map: str) -> None:
    """Write maps, models, tables, metrics.json, model card and last group.html."""
    if not (output / "dataset_description.json").exists():
        links = {"raw": bids_dir.resolve().as_uri()}
        files.write_json(output / "dataset_description.json", description("RRMS against NMOSD by FLAIR", links))
    files.write_text(output / ".bidsignore", "\n".join(BIDSIGNORE) + "\n")
    _write_maps(result, output)
    for name, evaluation in result.evaluations.items():
        _write_model(result, evaluation, output / "group" / "model" / name, lesion_map)
    for name, table in group_tables.tables(result).items():
        files.write_tsv(output / "group" / f"{name}.tsv", table)
    files.write_json(output / "group" / "metrics.json", group_tables.metrics(result))
    files.write_text(output / "group" / "model_card.md", group_report.model_card(result))
    facts = group_tables.facts(result)
    pictures = group_figures.draw(result, facts)
    for key, picture in pictures.items():
        files.write_bytes(output / "group" / "figures" / f"{key}.png", picture)
    text = group_report.method_text(facts)
    files.write_text(output / "logs" / "CITATION_group.md", text)
    files.write_text(output / "logs" / "CITATION_group.bib", report.bibliography())
    files.write_text(output / "group.html", group_report.page(result, pictures, report.method_html(text), __version__))


def _write_model(result: GroupResult, evaluation: Evaluation, folder: Path, lesion_map: str) -> None:
    train = result.cohort.take(evaluation.division.train)
    modelfile.save(
        evaluation.model,
        folder,
        levels=result.cohort.levels,
        threshold=result.thresholds[evaluation.name],
        lesion_map=lesion_map,
        protocol=evaluation.name,
        training={
            "n_scans": len(train.scans),
            "n_participants": len(np.unique(train.participants)),
            "n_positive": int(train.positive.sum()),
            "n_lesion_free": int((~train.lesions.any(axis=1)).sum()),
        },
        train_lesions=train.lesions[:, evaluation.model.voxels],
    )


def _write_maps(result: GroupResult, output: Path) -> None:
    folder, stem = output / f"tpl-{SPACE}" / "anat", f"tpl-{SPACE}_res-3"
    about: dict[str, Any] = {"SpatialReference": SPACE, "Resolution": "3 mm isotropic", "Sources": ["bids::"]}
    cohort = result.cohort
    for level, rows in zip(cohort.levels, (cohort.positive, ~cohort.positive), strict=True):
        label = re.sub(r"[^0-9a-zA-Z]", "", level) or "group"
        _write_map(
            folder / f"{stem}_label-L_desc-{label}_probseg.nii.gz",
            cohort.lesions[rows].mean(axis=0).astype(np.float32),
            {"Description": f"Share of the {int(rows.sum())} scans of {level} with a lesion here", **about},
        )
    for name, evaluation in result.evaluations.items():
        ranking = evaluation.ranking
        tag = NAMES[name]
        of_test = "Pearson chi-square of lesion x group in the training set, no continuity correction; positive where "
        _write_map(
            folder / f"{stem}{f'_desc-{tag}' if tag else ''}_stat-chi2_statmap.nii.gz",
            (ranking.chi2 * ranking.sign).astype(np.float32),
            {"Description": f"{of_test}{cohort.levels[0]} is more often lesioned ({name} division)", **about},
        )
        chosen = np.zeros(cohort.lesions.shape[1], bool)
        chosen[evaluation.model.voxels] = True
        _write_map(
            folder / f"{stem}_desc-selected{tag[:1].upper() + tag[1:]}_mask.nii.gz",
            chosen,
            {"Description": f"Voxels of the chosen model, {name} evaluation", "Type": "ROI", **about},
        )


def _write_map(path: Path, values: np.ndarray, about: dict[str, Any]) -> None:
    grid = brain_grid(3)
    full = np.zeros(grid.data.shape, values.dtype)
    full[grid.data] = values
    files.write_nifti(path, full, grid.affine)
    files.write_json(path.with_name(path.name.removesuffix(".nii.gz") + ".json"), about)
