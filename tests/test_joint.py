"""Network and norm in one probability: laws of averaged log odds, and what each adds to the other."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from bids_app.lesions.joint import HALF, LEAST, SURE, WIDTH, joint, lesions
from bids_app.lesions.kinds import BRIGHT
from bids_app.lesions.normative import Over

PROBABILITY = st.floats(0.02, 0.98)
KNOWN, UNKNOWN = np.ones(1, bool), np.zeros(1, bool)


def of(probability: float, difference: float, known: np.ndarray = KNOWN) -> float:
    return float(joint(np.array([probability]), Over(np.array([difference]), KNOWN), known)[0])


@given(PROBABILITY, PROBABILITY)
def test_the_odds_are_the_geometric_mean_of_both(network: float, norm: float) -> None:
    found = of(network, HALF + WIDTH * float(logit(norm)))
    expected = float(expit((logit(network) + logit(norm)) / 2))
    assert abs(found - expected) < 1e-5
    assert min(network, norm) - 1e-5 <= found <= max(network, norm) + 1e-5


@given(PROBABILITY, st.floats(-1, 1), st.floats(0, 0.5))
def test_more_belief_or_a_surer_network_is_never_less_lesion(network: float, difference: float, more: float) -> None:
    assert of(network, difference + more) >= of(network, difference) - 1e-6
    assert of(min(network + more, 1), difference) >= of(network, difference) - 1e-6


def test_where_there_is_no_norm_the_network_stands_and_outside_the_brain_is_nothing() -> None:
    assert of(0.3, 0.9, UNKNOWN) == np.float32(0.3)
    assert of(0.0, 5.0) == 0
    assert of(LEAST / 2, 0.9, UNKNOWN) == 0


def test_either_can_outvote_the_other_but_not_from_nowhere() -> None:
    assert of(0.1, 0.4) > 0.5 > of(0.1, 0.2)  # doubtful shape, very bright
    assert of(0.95, 0.12) > 0.5 > of(0.6, 0.12)  # a sure shape, hardly bright
    assert of(SURE / 100, 0.5) < 0.5  # as bright as a choroid plexus, and no lesion by its shape


def test_the_norm_must_be_known_and_a_lesion_possible() -> None:
    bright, sure = np.full(4, 0.5), np.full(4, 0.1)
    known, possible = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)
    assert (joint(sure, Over(bright, known), possible) > 0.5).tolist() == [True, False, False, False]


def test_a_lesion_is_likely_somewhere_and_reaches_to_where_it_is_as_likely_as_not() -> None:
    row = np.array([0.6, 0.7, 0.6, 0.2, 0.8, 0.9, 0.5, 0.49, 0.95]).reshape(9, 1, 1)
    assert lesions(row, np.full(row.shape, 0.5)).ravel().tolist() == [False] * 4 + [True] * 3 + [False, True]


def test_a_sure_place_that_is_not_brighter_than_gray_matter_is_no_lesion() -> None:
    row = np.array([0.9, 0.6, 0.1, 0.6, 0.9]).reshape(5, 1, 1)
    belief = np.array([BRIGHT, 0.9, 0.9, 0.0, BRIGHT + 0.01]).reshape(5, 1, 1)  # the first: bright where not sure
    assert lesions(row, belief).ravel().tolist() == [False] * 3 + [True] * 2
