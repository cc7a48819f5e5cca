"""The network: a small 2D U-Net (Ronneberger et al. 2015) that works on half the grid and answers on the whole of it.

Four neighbouring voxels of every channel enter as four channels and leave as four logits (Shi et al. 2016).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

INPUTS = 6  # channels: three slices, white matter, fluid, brain
CHANNELS = (32, 64, 96, 128)


def _block(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [
            nn.Conv2d(channels, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.LeakyReLU(0.1, inplace=True),
        ]
    return nn.Sequential(*layers)


class SliceUNet(nn.Module):  # type: ignore[misc]  # torch is absent where the app is checked
    """From channels (N, 6, X, Y) to logits of lesion (N, 1, X, Y); X and Y are multiples of 16."""

    def __init__(self, channels: tuple[int, ...] = CHANNELS) -> None:
        super().__init__()
        first = 4 * INPUTS
        self.down = nn.ModuleList(_block(a, b) for a, b in zip((first, *channels[:-1]), channels, strict=True))
        self.up = nn.ModuleList(_block(a + b, a) for a, b in pairwise(channels))
        self.last = nn.Conv2d(channels[0], 4, 1)
        self.pool = nn.MaxPool2d(2)
        self.grow = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        features = functional.pixel_unshuffle(image, 2)
        kept = []
        for level, block in enumerate(self.down):
            features = block(features if level == 0 else self.pool(features))
            kept.append(features)
        for level in reversed(range(len(self.up))):
            features = self.up[level](torch.cat([kept[level], self.grow(features)], 1))
        return functional.pixel_shuffle(self.last(features), 2)
