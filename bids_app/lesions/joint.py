"""The network's answer and the norm's as one probability of lesion.

Either sees what the other does not: the network the shape of a lesion and its surroundings, the norm how bright that
very place is in other people. Their log odds are averaged (a logarithmic opinion pool; Genest and Zidek 1986,
doi:10.1214/ss/1177013825), so that a confident answer of one can outvote a doubtful one of the other.
"""

from __future__ import annotations

import numpy as np

from bids_app.lesions.kinds import BRIGHT, CUT
from bids_app.lesions.normative import Over, with_seed

HALF = 0.2  # belief over the norm that is as likely lesion as not
WIDTH = 1 / 24  # of belief, in which the odds of lesion grow e-fold
SURE = 1e-4  # no answer of the network counts as surer than this
LEAST = 0.01  # a probability below is none: both see nothing, one less so
GROW, SEED = CUT["network"], 0.8  # probability of what belongs to a lesion, and that some voxel of it must reach


def joint(probability: np.ndarray, over: Over, possible: np.ndarray) -> np.ndarray:
    """Return the probability of lesion by network and norm together, by the network alone where the norm says nothing.

    That is where it is not known, and where a lesion is rare (rim of the brain, deep fluid): there choroid plexus, flow
    and vessels are brighter in some people than in most.

    Parameters
    ----------
    probability : ndarray, shape (X, Y, Z)
        By the network (`network.find_lesions`); 0 outside the brain.
    over : Over
    possible : ndarray, shape (X, Y, Z), bool
        Where a lesion may be (`lesion.possible`).

    Returns
    -------
    ndarray, shape (X, Y, Z), float32
        In [0, 1]; 0 where it is below 0.01.

    Examples
    --------
    >>> over = Over(np.array([0.0, 0.2, 0.4, 0.4]), np.array([True, True, True, False]))
    >>> joint(np.array([0.5, 0.5, 0.2, 0.2]), over, np.ones(4, bool)).round(2)
    array([0.08, 0.5 , 0.85, 0.2 ], dtype=float32)
    """
    found = np.asarray(probability, np.float32).copy()
    where = over.known & possible & (probability > 0)
    network = np.clip(probability[where], SURE, 1 - SURE)
    odds = np.log(network / (1 - network)) + (over.difference[where] - HALF) / WIDTH
    found[where] = 1 / (1 + np.exp(-odds / 2))
    found[found < LEAST] = 0
    return found


def lesions(probability: np.ndarray, belief: np.ndarray, grow: float = GROW) -> np.ndarray:
    """Return the lesion map, bool (X, Y, Z): components (26 neighbours) from ``grow`` up, with a voxel of at least 0.8.

    Two thresholds, as edges are followed (Canny 1986, doi:10.1109/TPAMI.1986.4767851): what is nowhere likely is left
    out, what is likely somewhere is taken to its border. That voxel must be brighter than gray matter, too: see
    `normative.seeds`.
    """
    return with_seed(probability >= grow, (probability >= SEED) & (belief > BRIGHT))
