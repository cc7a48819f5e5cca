"""A stored model of whatever kind: its own words say which."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bids_app.bids.names import group_output
from bids_app.errors import BadInputError, MissingInputError
from bids_app.model import calibrated, forms, seal, storage
from bids_app.records.results import StoredModel, StoredPredictor

KINDS: tuple[tuple[str | None, Callable[[Path], StoredModel | StoredPredictor]], ...] = (
    (None, storage.load),  # the RBF machines, which say no kind
    *((kind, calibrated.load) for kind in forms.ARRAYS),
)


def load(path: Path) -> StoredModel | StoredPredictor:
    """Return the model meant by a path, as `find` has it.

    Raises
    ------
    MissingInputError
        There is none, or one of its files is not there.
    BadInputError
        A kind that this version does not know, or as its kind's own function.
    """
    folder = find(path)
    kind = seal.words(folder).get("kind")
    for name, read in KINDS:
        if kind == name:
            return read(folder)
    what = f"its kind is {kind!r}, which this version does not know"
    raise BadInputError(what, folder / "model.json", "use the version that made it")


def find(path: Path) -> Path:
    """Return the folder of the model meant by ``path``: itself, or a group folder's recommended or leakage-free one.

    Raises
    ------
    MissingInputError
        There is none.
    """
    places = [path.parent if path.name == "model.json" else path]
    for name in ("recommended", "leakage-free"):
        parts = Path(group_output("model", evaluation=name)).parts
        places += [path.joinpath(*parts[-n:]) for n in range(1, len(parts) + 1)]
    for place in places:
        if (place / "model.json").is_file():
            return place
    wanted = group_output("model", evaluation="recommended")
    raise MissingInputError("no model here (no model.json)", path, f"give <output_dir>/{wanted} of a group run")
