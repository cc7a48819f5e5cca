"""Where a header holds no orientation: the brain under each of the 24 turns of the axes, the likeliest first."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np

from bids_app.image.brain import Brain, Network, find_brain, first_answer
from bids_app.records.scan import Volume

KEPT = 4  # turns that are worth a full look


def turns() -> list[np.ndarray]:
    """Return the 24 rotations (3, 3) that take axes to axes; the first changes nothing.

    >>> len(turns()), turns()[0].tolist()
    (24, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    """
    found = []
    for order in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            turn = np.zeros((3, 3))
            turn[order, range(3)] = signs
            if np.linalg.det(turn) > 0:
                found.append(turn)
    return found


def candidates(scan: Volume, network: Network, kept: int = KEPT) -> list[Brain]:
    """Return the brains under the likeliest turns of the axes, the likeliest first.

    A turned head is outside what the network was trained on, and its answer is unsure there. Left and right cannot
    be told: mirrored heads are as good. Which candidate is right is for the registration to say.
    """
    first = [(first_answer(scan, network, turn), turn) for turn in turns()]
    best = sorted(first, key=lambda pair: -pair[0])[:kept]
    brains = [find_brain(scan, network, turn) for _, turn in best]
    return sorted(brains, key=lambda brain: -brain.confidence)
