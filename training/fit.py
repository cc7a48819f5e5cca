"""Fitting the network to draws, with labels of unlabelled scans made and made again by the network itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from bids_app.image.brain import Network, find_brain
from training.draws import draws
from training.heads import Head, Scan, to_head
from training.net import UNet

RATE, RATE_AGAIN = 2e-3, 1e-3  # of learning, at its highest: from nothing, and from an earlier training's weights
LOWEST = 0.01  # share of it at the end
WARM_UP = 50  # steps
DECAY = 1e-4
KEPT = 0.995  # of the running mean of the weights, a step
ROUNDS = (0.65, 0.85)  # shares of the training after which scans without a rater's mask are labelled by the network
ROUNDS_AGAIN = (0.0, 0.5)  # the same where the network begins with the weights of an earlier training
REPORT_EVERY, CHECK_EVERY = 100, 1000  # steps

Loss = Callable[..., tuple[torch.Tensor, float]]


@dataclass(frozen=True)
class Budget:
    """How long to train: ``steps``, or ``minutes`` where it is given (then no two runs are equal)."""

    steps: int
    minutes: float | None = None

    def share(self, step: int, seconds: float) -> float:
        """Return how much of the budget is used up, 1 at its end."""
        return seconds / 60 / self.minutes if self.minutes else step / self.steps


@dataclass
class Log:
    """Rows of the log: step, seconds, share of the budget, loss, Dice on draws and Dice on held-out scans."""

    write: Callable[[str], None]
    mean: float | None = None
    dice: float | None = None
    began: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Wall time since the beginning."""
        return time.perf_counter() - self.began

    def add(self, loss: float, dice: float) -> None:
        """Take in one step's loss and Dice."""
        self.mean = loss if self.mean is None else 0.98 * self.mean + 0.02 * loss
        self.dice = dice if self.dice is None else 0.98 * self.dice + 0.02 * dice

    def row(self, step: int, share: float, scores: Sequence[float] = ()) -> None:
        """Write one row."""
        held = " ".join(f"{score:.4f}" for score in scores)
        self.write(f"{step}\t{self.seconds:.0f}\t{share:.3f}\t{self.mean:.4f}\t{self.dice:.4f}\t{held or 'n/a'}")


def as_network(net: nn.Module) -> Network:
    """Return the network as `find_brain` wants it: arrays in, arrays out, float32, one image at a time."""
    device = next(net.parameters()).device

    def answer(image: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net(torch.from_numpy(image)[None, None].to(device))[0, 0].float().cpu().numpy()

    return answer


def loss_of(logit: torch.Tensor, share: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return twice the cross-entropy plus one minus Dice (soft), and the Dice."""
    probability = torch.sigmoid(logit)
    dice = 2 * (probability * share).sum() / (probability.sum() + share.sum() + 1)
    return 2 * functional.binary_cross_entropy_with_logits(logit, share) + 1 - dice, dice.item()


def dice_of(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Dice overlap of two masks; 1 where both are empty."""
    total = first.sum() + second.sum()
    return 2 * float((first & second).sum()) / float(total) if total else 1.0


def check(net: nn.Module, held_out: Sequence[Scan]) -> list[float]:
    """Return the Dice of the network's brain on every held-out scan that has a rater's mask."""
    network = as_network(net)
    return [dice_of(find_brain(s.flair, network).mask, s.mask) for s in held_out if s.mask is not None]


class Fitter:
    """A network in training: its weights, their running mean, and the optimiser.

    ``make`` makes the network; ``loss`` takes its logits and the targets of a batch and returns the loss and a Dice.
    """

    def __init__(
        self,
        seed: int,
        device: str,
        short: bool,
        start: Mapping[str, torch.Tensor] | None = None,
        make: Callable[[], nn.Module] = UNet,
        loss: Loss = loss_of,
    ) -> None:
        torch.manual_seed(seed)
        self.device, self.short, self.loss = device, short, loss
        self.net, self.rate = make().to(device), RATE if start is None else RATE_AGAIN
        if start is not None:
            self.net.load_state_dict(start)
        self.mean = make().to(device).eval()
        self.mean.load_state_dict(self.net.state_dict())
        self.optimiser = torch.optim.AdamW(self.net.parameters(), lr=self.rate, weight_decay=DECAY)

    def step(self, batch: Sequence[np.ndarray], number: int, progress: float) -> tuple[float, float]:
        """Take one step on a batch: images (N, C, ...), then what the loss compares the logits with."""
        rate = self.rate * min(1.0, (number + 1) / WARM_UP) * max(LOWEST, 0.5 * (1 + np.cos(np.pi * min(progress, 1))))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        image, *targets = (torch.from_numpy(each).to(self.device) for each in batch)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.short):
            logit = self.net(image)
        loss, dice = self.loss(logit.float(), *targets)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1)
        self.optimiser.step()
        kept = min(KEPT, (number + 1) / (number + 10))
        with torch.no_grad():
            for slow, fast in zip(self.mean.state_dict().values(), self.net.state_dict().values(), strict=True):
                slow.lerp_(fast, 1 - kept) if slow.is_floating_point() else slow.copy_(fast)
        return loss.item(), dice


def fit(
    scans: Sequence[Scan],
    held_out: Sequence[Scan],
    budget: Budget,
    *,
    seed: int,
    device: str,
    short: bool,
    write: Callable[[str], None],
    keep: Callable[[nn.Module], None],
    start: Mapping[str, torch.Tensor] | None = None,
) -> nn.Module:
    """Return the network (running mean of its weights) fitted to draws of ``scans``.

    Parameters
    ----------
    scans : sequence of Scan
        Those with a rater's mask are used from the first step; the others after the network has labelled them.
    held_out : sequence of Scan
        Never trained on; their Dice goes to the log.
    budget : Budget
    seed : int
        Of weights and draws.
    device : str
        ``"cpu"`` or ``"cuda"``.
    short : bool
        Compute in bfloat16: three times as fast on processors that know it.
    write, keep : callable
        Take a row of the log, and the network now and then.
    start : mapping, optional
        Weights to begin with: of an earlier training on the same patients.
    """
    fitter, log = Fitter(seed, device, short, start), Log(write)
    write("step\tseconds\tshare\tloss\tdice_draws\tdice_held_out")
    heads = [to_head(scan, scan.mask) for scan in scans if scan.mask is not None]
    source, number, progress = draws(heads, seed), 0, 0.0
    rounds = list(ROUNDS if start is None else ROUNDS_AGAIN)
    while progress < 1:
        if rounds and progress >= rounds[0]:
            rounds.pop(0)
            source = draws([*heads, *relabelled(fitter.mean, scans, write)], seed + 1000 * number)
        image, share = next(source)
        log.add(*fitter.step((image[None, None], share[None, None]), number, progress))
        number += 1
        progress = budget.share(number, log.seconds)
        if number % REPORT_EVERY == 0:
            keep(fitter.mean)
            log.row(number, progress, check(fitter.mean, held_out) if number % CHECK_EVERY == 0 else ())
    keep(fitter.mean)
    log.row(number, progress, check(fitter.mean, held_out))
    return fitter.mean


def relabelled(net: nn.Module, scans: Sequence[Scan], write: Callable[[str], None]) -> list[Head]:
    """Return the heads of the scans without a rater's mask, with the brains that the network finds."""
    heads: list[Head] = []
    for scan in scans:
        if scan.mask is None:
            brain = find_brain(scan.flair, as_network(net))
            ml = brain.mask.sum() * scan.flair.voxel_ml
            write(f"# {scan.name}: labelled by the network, {ml:.0f} ml, confidence {brain.confidence:.3f}")
            heads.append(to_head(scan, brain.mask))
    return heads
