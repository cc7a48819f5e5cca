"""Products of lesion maps in a folder, where workers share them: laid kind by kind, and read a kind at a time.

All kinds together grow with scans times participants, eight times over. So none but the one in use is in memory, and
that is mapped from its file: processes on one machine share its pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from bids_app.image import atlas
from bids_app.recommended.products import KINDS, Arrays, OfKind, Products, products

FILE = "products.npz"
SMALL = ("volume", "volume_people", "person", "lesion_free")


class Filed:
    """Arrays in a folder, a file each: read when one is asked for, and let go when another one is."""

    def __init__(self, folder: Path, part: str) -> None:
        """Take the arrays of one part: ``scans`` or ``people``."""
        self._folder, self._part = folder, part
        self._last: tuple[int, np.ndarray] | None = None  # asked for many times in a row

    def __getitem__(self, number: int, /) -> np.ndarray:
        """Return one of them, read-only."""
        if self._last is None or self._last[0] != number:
            self._last = None
            # as a plain array, which is sooner indexed; it keeps the file mapped
            self._last = number, np.load(_path(self._folder, self._part, number), mmap_mode="r").view(np.ndarray)
        return self._last[1]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(KINDS)


def lay(folder: Path, maps: np.ndarray, participants: np.ndarray) -> Products:
    """Make the products of lesion maps (N, V) of participants (N,), lay them in a folder, and return them from there.

    Raises
    ------
    BadInputError
        As `products` does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    grid = atlas.brain_grid(3)
    made = products(maps, participants, grid.data, grid.affine, keep=partial(_keep, folder))
    np.savez(folder / FILE, **{name: getattr(made, name) for name in SMALL})
    return made


def read(folder: Path) -> Products:
    """Return the products that `lay` laid in a folder."""
    with np.load(folder / FILE, allow_pickle=False) as stored:
        small = {name: stored[name] for name in SMALL}
    return Products(KINDS, Filed(folder, "scans"), Filed(folder, "people"), **small)


def _keep(folder: Path, made: Iterator[OfKind]) -> tuple[Arrays, Arrays]:
    for number in range(len(KINDS)):
        _write(folder, number, next(made))  # no name for it here: it would stay while the next one is made
    return Filed(folder, "scans"), Filed(folder, "people")


def _write(folder: Path, number: int, made: OfKind) -> None:
    np.save(_path(folder, "scans", number), made.scans)
    np.save(_path(folder, "people", number), made.people)


def _path(folder: Path, part: str, number: int) -> Path:
    return folder / f"{part}-{number}.npy"
