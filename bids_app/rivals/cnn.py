"""A small 3D convolutional network on the maps themselves, by torch: an extra of the package, imported late.

Lesion map and, where it is asked for, belief map enter as channels on the template's grid. A mean pooling, two
convolutions in strides of two, then one weight for each place that is left: where a lesion lies matters, so nothing
is averaged over the whole brain. The answer to a scan is the mean of those to it and to its mirror image.
MONAI is not used: a dozen lines of torch's own layers do, and nothing is loaded, resampled or registered here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from bids_app.learning.division import folds
from bids_app.learning.protocols import fold_numbers
from bids_app.recommended.calibration import calibrate
from bids_app.recommended.nested import Recipe, Tested
from bids_app.records.machines import Convolutional
from bids_app.rivals.chosen import People, auc_of_participants, balanced
from bids_app.rivals.volumes import Maps, away, moved, scale, volumes

CHANNELS = (8, 16)
RATE, DECAY, DROPOUT = 1e-3, 1e-2, 0.5
BATCH = 8  # participants in a step
MOST, EVERY, PATIENCE = 40, 2, 5  # epochs at most, epochs between two checks, and checks in a row without a gain
CHUNK = 32  # scans decided at a time


def recipe(maps: Maps, people: People, inner_folds: int, threads: int = 1) -> Recipe:
    """Return the network as a recipe on the maps of N scans.

    Parameters
    ----------
    maps : Maps
    people : People
    inner_folds : int
        Over participants: the number of epochs is chosen on them, and training ends early where none gains more.
    threads : int
        Of torch, on the processor; a GPU is used where there is one.
    """

    def tested(training: np.ndarray, test: np.ndarray, seed: int) -> Tested:
        own = People(*(each[training] for each in (people if maps.belief is None else people.untied())))
        with _apart(seed, threads):
            seen = maps.take(training)
            found, known = choose(seen, own, inner_folds, seed)
            net = fit(seen, own, int(known["epochs"]), seed)
            at_zero = float(net.decide(_nothing(seen, net))[0])
            decisions = net.decide(maps.take(test))
        by = calibrate(found, own.positive, own.person, own.lesion_free, at_zero)
        return Tested(decisions, by, {**known, "channels": 1 if maps.belief is None else 2}, net.as_arrays)

    return tested


def choose(seen: Maps, own: People, inner_folds: int, seed: int) -> tuple[np.ndarray, dict[str, float]]:
    """Return out-of-fold decisions (n,) of training scans, and the epochs whose AUC of participants is the highest.

    The networks of all inner folds are trained side by side, so that one number of epochs is judged on all of them.
    """
    inner = folds(own.positive, own.person, inner_folds, by="participant", seed=seed)
    place = fold_numbers(inner)
    nets = [Net(seen.take(fold.train), People(*(each[fold.train] for each in own)), seed) for fold in inner]
    best, known = np.zeros(len(own.positive)), {"epochs": 0, "auc": -1.0}
    for epoch in range(EVERY, MOST + 1, EVERY):
        values = np.empty(len(own.positive))
        for net, fold in zip(nets, inner, strict=True):
            net.train(EVERY)
            values[fold.validate] = net.decide(seen.take(fold.validate))
        area = auc_of_participants(own.positive, own.person, values, place)
        if area > known["auc"]:
            best, known = values, {"epochs": epoch, "auc": area}
        elif epoch - known["epochs"] >= PATIENCE * EVERY:
            break
    return best, known


def fit(seen: Maps, own: People, epochs: int, seed: int) -> Net:
    """Return the network trained on all scans given, for so many epochs."""
    net = Net(seen, own, seed)
    net.train(epochs)
    return net


class Net:
    """A network in training on the scans that it is given.

    An epoch shows one scan of each participant, drawn anew, so that each weighs the same; groups are balanced in the
    loss, which is cross-entropy.
    """

    def __init__(self, seen: Maps, own: People, seed: int) -> None:
        import torch

        torch.manual_seed(seed)
        self.seen, self.positive, self.rng = seen, own.positive, np.random.default_rng(seed)
        self.scale = scale(seen, own.person)
        self.rows = [np.flatnonzero(own.person == who) for who in np.unique(own.person)]
        first = np.array([rows[0] for rows in self.rows])
        self.weights = np.zeros(len(own.positive))
        for rows, weight in zip(self.rows, balanced(own.positive[first], np.arange(len(first))), strict=True):
            self.weights[rows] = weight
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        shape = volumes(seen.take(np.array([0])), self.scale).shape[1:]
        self.layers = layers(shape).to(self.device)
        self.optimiser = torch.optim.AdamW(self.layers.parameters(), lr=RATE, weight_decay=DECAY)

    def train(self, epochs: int) -> None:
        """Train for so many epochs more."""
        self.layers.train()
        for _ in range(epochs):
            order = self.rng.permutation(len(self.rows))
            drawn = np.array([rows[int(self.rng.random() * len(rows))] for rows in (self.rows[k] for k in order)])
            for part in np.array_split(drawn, max(1, len(drawn) // BATCH)):
                self._step(part)

    def _step(self, rows: np.ndarray) -> None:
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits

        image = moved(volumes(self.seen.take(rows), self.scale), self.rng)
        wanted, weight = (
            torch.from_numpy(each[rows].astype(np.float32)).to(self.device) for each in (self.positive, self.weights)
        )
        answer = self.layers(torch.from_numpy(image).to(self.device))[:, 0]
        loss = binary_cross_entropy_with_logits(answer, wanted, weight)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def decide(self, maps: Maps) -> np.ndarray:
        """Return decision values (n,) of scans: log odds of the positive group where both are as frequent."""
        import torch

        self.layers.eval()
        found = np.empty(len(maps.lesions))
        with torch.no_grad():
            for start in range(0, len(found), CHUNK):
                rows = np.arange(start, min(start + CHUNK, len(found)))
                image = torch.from_numpy(volumes(maps.take(rows), self.scale)).to(self.device)
                both = self.layers(image) + self.layers(image.flip(2))
                found[rows] = both[:, 0].double().cpu().numpy() / 2
        return found

    def as_arrays(self) -> Convolutional:
        """Return the network as plain arrays, which decide as it does."""
        found = [each.detach().cpu().numpy().astype(np.float32) for each in self.layers.parameters()]
        *convolutions, weights, intercept = found  # a kernel and a bias in turn
        mean = np.zeros(0, np.float32) if self.seen.belief is None else self.scale.mean
        kernels, biases = tuple(convolutions[::2]), tuple(convolutions[1::2])
        seen = away(self.seen, self.scale)
        most = float(seen.max()) if seen.size else 0.0
        return Convolutional(kernels, biases, weights[0], float(intercept[0]), mean, self.scale.sd, most)


def layers(shape: tuple[int, ...]) -> Any:
    """Return the network's layers for volumes (channels, x, y, z), from torch's state of random numbers.

    The grid is halved thrice: from 3 mm to places of 24 mm, as wide as the smoothing that serves linear machines.
    """
    from torch import nn

    before, *size = shape
    parts: list[Any] = [nn.AvgPool3d(2, ceil_mode=True)]
    for channels in CHANNELS:
        parts += [nn.Conv3d(before, channels, 3, stride=2, padding=1), nn.ReLU()]
        before = channels
    for _ in range(1 + len(CHANNELS)):
        size = [-(-n // 2) for n in size]
    return nn.Sequential(*parts, nn.Flatten(), nn.Dropout(DROPOUT), nn.Linear(before * int(np.prod(size)), 1))


def _nothing(seen: Maps, net: Net) -> Maps:
    """Return the maps of a scan without lesions, whose belief is the mean of the training participants."""
    belief = None if seen.belief is None else net.scale.mean[None]
    return Maps(seen.mask, np.zeros((1, seen.lesions.shape[1]), bool), belief)


@contextmanager
def _apart(seed: int, threads: int) -> Iterator[None]:
    """Let torch work seeded and with equal bits, and leave its random state and threads as they were."""
    import torch

    gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with (
            torch.random.fork_rng(devices=gpus),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
        ):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)
