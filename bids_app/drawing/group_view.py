"""The group report's viewer: the template with what was found on it, in three planes; arrays in, layers out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from bids_app.drawing import slices
from bids_app.drawing.slices import DIVERGING, Stack, labels, layer, ramp
from bids_app.image import atlas
from bids_app.image.atlas import on_grid
from bids_app.records.scan import Volume

FINER = 2  # voxels of the picture (1.5 mm) along a side of a 3 mm voxel
WARM, COLD = ("#fee8c8", "#fdbb84", "#e34a33", "#b30000"), ("#deebf7", "#9ecae1", "#3182bd", "#08519c")
FREQUENCY = (10.0, 50.0)  # percent, as in the figures: nothing below, darkest from there on
SIGNIFICANT = 3.84  # chi-square with one degree of freedom at p = 0.05
CHOSEN = ("#39ff14", "#ffd400", "#ff5cf4")
PLACE_COLOURS = ("#e6194b", "#f58231", "#ffe119", "#bfef45", "#3cb44b", "#42d4f4", "#4363d8", "#911eb4", "#f032e6")


def view(
    frequency: Mapping[str, np.ndarray],
    chi2: Mapping[str, np.ndarray],
    chosen: Mapping[str, np.ndarray],
    weights: Mapping[str, np.ndarray],
    places: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Return the viewer's data of a cohort; the cross-hair starts where the first chi-square is largest.

    Parameters
    ----------
    frequency : mapping of str to ndarray of float, shape (V,)
        Share of each group's scans with a lesion in the voxel, positive group first.
    chi2 : mapping of str to ndarray of float, shape (V,)
        Signed, by evaluation: positive where the positive group has more.
    chosen : mapping of str to ndarray of int
        Voxels of the model, by evaluation.
    weights : mapping of str to ndarray of float, shape (V,)
        Any other signed map by name, such as a linear classifier's weights.
    places : mapping of str to ndarray of bool, shape (V,)
        Disjoint places of the template by name, told where the cross-hair is.
    """
    stack, voxel_count = _stack(), int(atlas.brain_grid(3).data.sum())
    layers = [_picture(stack)]
    for (level, share), colours in zip(frequency.items(), (WARM, COLD), strict=True):
        meaning = {"colours": colours, "hide": FREQUENCY[0], "unit": "%", "low": -0.5}
        layers.append(_map(f"Lesion frequency, {level}", 100 * share, FREQUENCY, 0.5, on=False, **meaning))
    for number, (name, values) in enumerate(chi2.items()):
        reach = max(float(np.abs(values).max(initial=0)), 2 * SIGNIFICANT)
        window, meaning = (-reach, reach), {"colours": DIVERGING, "hide": SIGNIFICANT, "signed": True}
        layers.append(_map(f"Chi-square, {name}", values, window, reach / 127, on=number == 0, **meaning))
    for (name, voxels), colour in zip(chosen.items(), CHOSEN, strict=False):
        marked = np.zeros(voxel_count, np.uint8)
        marked[voxels] = 1
        layers.append(_labels(f"Chosen voxels, {name}", marked, (None, colour), ("no", "yes"), on=False))
    for name, values in weights.items():
        reach = float(np.abs(values).max(initial=0)) or 1.0
        meaning = {"colours": DIVERGING, "hide": 0.05 * reach, "signed": True}
        layers.append(_map(name, values, (-reach, reach), reach / 127, on=False, **meaning))
    layers.append(_places(places))
    found = slices.spec(stack, layers, planes=("axial", "coronal", "sagittal"), places=True)
    first = next(iter(chi2.values()), np.zeros(0))
    if np.any(first):
        peak = np.argwhere(atlas.brain_grid(3).data)[int(np.argmax(np.abs(first)))]
        found["start"] = [int(FINER * index) for index in peak]
    return found


def _stack() -> Stack:
    """Return the picture's grid: every 3 mm voxel of the template is two finer ones along each axis."""
    coarse = atlas.brain_grid(3)
    affine = coarse.affine.copy()
    affine[:3, :3] /= FINER
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, (FINER - 1) / 2)
    shape = tuple(FINER * size for size in coarse.data.shape)
    grid = Volume(np.zeros(shape, np.uint8), affine)
    return Stack(grid, (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2])))


def _picture(stack: Stack) -> dict[str, Any]:
    fine = atlas.background(1)
    to_fine = np.linalg.inv(fine.affine) @ stack.grid.affine
    picture = ndimage.affine_transform(
        fine.data, to_fine[:3, :3], offset=to_fine[:3, 3], output_shape=stack.shape, order=1
    )
    levels = slices.as_levels(picture, 0.0, slices.STEP)
    return layer("T1w template", levels, "gray", low=0.0, step=slices.STEP, window=[0.0, 1.0])


def _coarse() -> Stack:
    grid = atlas.brain_grid(3)
    nx, ny, nz = grid.data.shape
    return Stack(grid, (slice(0, nx), slice(0, ny), slice(0, nz)))


def _map(name: str, values: np.ndarray, window: tuple[float, float], step: float, **meaning: Any) -> dict[str, Any]:
    return {**ramp(_coarse(), name, on_grid(values, np.nan).data, window, step, **meaning), "factor": FINER}


def _labels(
    name: str, values: np.ndarray, colours: Sequence[str | None], names: Sequence[str], **meaning: Any
) -> dict[str, Any]:
    return {**labels(_coarse(), name, on_grid(values).data, colours, names, **meaning), "factor": FINER}


def _places(places: Mapping[str, np.ndarray]) -> dict[str, Any]:
    numbered = np.zeros(int(atlas.brain_grid(3).data.sum()), np.uint8)
    for number, where in enumerate(places.values(), start=1):
        numbered[where] = number
    colours = (None, *PLACE_COLOURS[: len(places)])
    return _labels("Place", numbered, colours, ("outside", *places), on=False, fade=0.4)
