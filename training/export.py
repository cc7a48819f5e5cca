"""The trained network as ONNX, and the card that says what it was made of, how, and what it scored."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

OPSET = 18
LICENCE = "CC-BY, as the scans that it was made of"
SOURCE = "Lesjak et al., Neuroinformatics 2017, doi:10.1007/s12021-017-9348-7"
DESCRIPTIONS = {
    "brain": "Finds the brain of a FLAIR: 3D U-Net on a grid of 2.5 mm, trained from nothing by domain randomisation",
    "lesions": "Finds lesions on a FLAIR's belief map: 2D U-Net on three neighbouring slices at 1 mm, trained from "
    "nothing on experts' lesions and on lesions painted into real scans",
}


def to_onnx(net: nn.Module, path: Path, shape: Sequence[int], free: Sequence[int] = ()) -> None:
    """Write the network for one image of ``shape``, without the first axis: input ``image``, output ``logit``, float32.

    Axes ``free`` may have any length that the network can take; the first axis is 0 and always 1 long.
    """
    net = net.eval().cpu().float()
    sizes = {axis: torch.export.Dim.DYNAMIC for axis in free}
    program = torch.onnx.export(
        net,
        (torch.zeros(1, *shape),),
        input_names=["image"],
        output_names=["logit"],
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
        dynamic_shapes=(sizes,) if free else None,
    )
    program.save(str(path), include_initializers=True, external_data=False)


@cache
def commit() -> str:
    """Return the commit of the code that trains, ``-dirty`` where it was changed; ``unknown`` without git.

    The first answer stands: what happens in the repository during hours of training is not of the code that trains.
    """
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def write_card(path: Path, facts: dict[str, Any]) -> None:
    """Write the card of weights (``brain.json``): description, licence and source, then the facts of the run."""
    card = {"Description": DESCRIPTIONS[path.stem], "License": LICENCE, "Source": SOURCE, **facts}
    path.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def publish(name: str, trained: Path, left_out: Sequence[Path], package: Path) -> dict[str, float]:
    """Copy weights and card of a run to the package, with what runs that left a patient out scored on that patient.

    Returns
    -------
    dict
        Dice by scan, each by a network that never saw the scan's patient.
    """
    card = json.loads((trained / f"{name}.json").read_text(encoding="utf-8"))
    scores: dict[str, float] = {}
    runs = []
    for folder in left_out:
        other = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        scores |= other["DiceLeftOut"]
        runs.append({**{key: other[key] for key in ("LeftOut", "Command", "Commit")}, "Steps": steps_of(folder)})
    facts = {**card, "Source": SOURCE, "Steps": steps_of(trained), "DiceLeftOut": scores, "RunsLeftOut": runs}
    write_card(package / f"{name}.json", facts)
    shutil.copyfile(trained / f"{name}.onnx", package / f"{name}.onnx")
    return scores


def steps_of(trained: Path) -> int:
    """Return how many steps a run took: the first field of its log's last row."""
    return int((trained / "log.tsv").read_text(encoding="utf-8").splitlines()[-1].split("\t")[0])
