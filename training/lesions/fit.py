"""Fitting the lesion network to draws; scans without an expert's lesions are labelled by the network on the way."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Generator, Mapping, Sequence
from queue import Empty

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from bids_app.lesions.network import Network, find_lesions
from bids_app.records.scan import Priors
from training.fit import REPORT_EVERY, Budget, Fitter, Log, dice_of
from training.lesions.cases import Case
from training.lesions.draws import Base, batches, to_base
from training.lesions.net import SliceUNet

BATCH = 6  # slabs a step
ROUNDS = (0.5, 0.8)  # shares of the training after which scans without an expert's lesions are labelled by the network
ROUNDS_AGAIN = (0.0, 0.5)  # the same where the network begins with the weights of an earlier training
SURE, UNSURE = 0.65, 0.25  # a voxel labelled by the network is lesion above, none below, left out between
CHECK_EVERY = 1000  # steps
AHEAD = 8  # batches made before they are needed


def priors_of(case: Case) -> Priors:
    """Return the atlas maps as the app has them; the network needs no more of them than white matter and fluid."""
    return Priors(np.zeros_like(case.wm), case.gm, case.wm, case.csf, case.brain.astype(np.float32))


def as_network(net: nn.Module) -> Network:
    """Return the network as `find_lesions` wants it: channels in, logits out, float32."""
    net.eval()
    device = next(net.parameters()).device

    def answer(channels: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net(torch.from_numpy(channels)[None].to(device))[0, 0].float().cpu().numpy()

    return answer


def loss_of(logit: torch.Tensor, label: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return five times the weighted cross-entropy plus one minus the Dice of the batch (soft), and the Dice."""
    logit, counted = logit[:, 0], (weight > 0).float()
    probability = torch.sigmoid(logit) * counted
    each = functional.binary_cross_entropy_with_logits(logit, label, weight=weight, reduction="sum")
    dice = 2 * (probability * label).sum() / (probability.sum() + (counted * label).sum() + 10)
    return 5 * each / counted.sum().clamp(min=1) + 1 - dice, dice.item()


def check(net: nn.Module, held_out: Sequence[Case]) -> list[float]:
    """Return the Dice of the network's lesions, p > 1/2, on every held-out case that an expert outlined."""
    network = as_network(net)
    return [dice_of(found(c, network) > 0.5, c.lesions) for c in held_out if c.lesions is not None]


def found(case: Case, network: Network) -> np.ndarray:
    """Return the probability of lesion on a case's grid."""
    return find_lesions(case.grid, priors_of(case), case.brain, network)


def _send(bases: Sequence[Base], seed: int, queue: multiprocessing.Queue) -> None:
    for batch in batches(bases, seed, BATCH):
        queue.put(batch)


def beside(bases: Sequence[Base], seed: int) -> Generator[tuple[np.ndarray, ...], None, None]:
    """Yield what `batches` does, made by one process beside this one; closing the generator ends it."""
    context = multiprocessing.get_context("fork")  # the bases are large: nothing is copied
    queue = context.Queue(AHEAD)
    process = context.Process(target=_send, args=(bases, seed, queue), daemon=True)
    process.start()
    try:
        while True:
            try:
                yield queue.get(timeout=60)
            except Empty:
                if not process.is_alive():
                    raise RuntimeError("the process that makes draws has ended; its error is above") from None
    finally:
        process.kill()
        process.join()


def fit(
    cases: Sequence[Case],
    held_out: Sequence[Case],
    budget: Budget,
    *,
    seed: int,
    device: str,
    short: bool,
    write: Callable[[str], None],
    keep: Callable[[nn.Module], None],
    start: Mapping[str, torch.Tensor] | None = None,
) -> nn.Module:
    """Return the network (running mean of its weights) fitted to draws of ``cases``; the rest as in `training.fit`.

    Equal seeds and steps give equal weights: draws come from one generator a round, in one order.
    """
    fitter, log = Fitter(seed, device, short, start, SliceUNet, loss_of), Log(write)
    write("step\tseconds\tshare\tloss\tdice_draws\tdice_held_out")
    rounds = list(ROUNDS if start is None else ROUNDS_AGAIN)
    source, number, progress = beside([to_base(case) for case in cases], seed), 0, 0.0
    while progress < 1:
        if rounds and progress >= rounds[0]:
            rounds.pop(0)
            source.close()
            source = beside(relabelled(fitter.mean, cases, write), seed + 1000 * number)
        log.add(*fitter.step(next(source), number, progress))
        number += 1
        progress = budget.share(number, log.seconds)
        if number % REPORT_EVERY == 0:
            keep(fitter.mean)
            log.row(number, progress, check(fitter.mean, held_out) if number % CHECK_EVERY == 0 else ())
    source.close()
    keep(fitter.mean)
    log.row(number, progress, check(fitter.mean, held_out))
    return fitter.mean


def relabelled(net: nn.Module, cases: Sequence[Case], write: Callable[[str], None]) -> list[Base]:
    """Return all cases made ready, those without an expert's lesions with the lesions that the network finds."""
    bases, network = [], as_network(net)
    for case in cases:
        if case.lesions is not None:
            bases.append(to_base(case))
            continue
        probability = found(case, network)
        label = probability > SURE
        write(f"# {case.name}: labelled by the network, {label.sum() * case.grid.voxel_ml:.2f} ml")
        bases.append(to_base(case, label, (probability > UNSURE) & ~label))
    return bases
