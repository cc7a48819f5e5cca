"""The network: a small 3D U-Net (Cicek et al. 2016) that works on half the grid and answers on the whole of it.

Eight neighbouring voxels enter as eight channels and leave as eight logits (Shi et al. 2016), so that the boundary is
as fine as the grid while every convolution runs on an eighth of its voxels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

CHANNELS = (16, 32, 48, 64)


def _block(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [
            nn.Conv3d(channels, after, 3, padding=1, bias=False),
            nn.InstanceNorm3d(after, affine=True),
            nn.LeakyReLU(0.1, inplace=True),
        ]
    return nn.Sequential(*layers)


class UNet(nn.Module):  # type: ignore[misc]  # torch is absent where the app is checked
    """From standardised intensities (N, 1, X, Y, Z) to logits of brain of the same shape; X, Y, Z multiples of 16."""

    def __init__(self, channels: tuple[int, ...] = CHANNELS) -> None:
        super().__init__()
        self.down = nn.ModuleList(_block(a, b) for a, b in zip((8, *channels[:-1]), channels, strict=True))
        self.up = nn.ModuleList(_block(a + b, a) for a, b in pairwise(channels))
        self.last = nn.Conv3d(channels[0], 8, 1)
        self.pool = nn.MaxPool3d(2)
        self.grow = nn.Upsample(scale_factor=2, mode="trilinear", align_corners=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        n, _, x, y, z = image.shape
        split = image.reshape(n, x // 2, 2, y // 2, 2, z // 2, 2)
        features = split.permute(0, 2, 4, 6, 1, 3, 5).reshape(n, 8, x // 2, y // 2, z // 2)
        kept = []
        for level, block in enumerate(self.down):
            features = block(features if level == 0 else self.pool(features))
            kept.append(features)
        for level in reversed(range(len(self.up))):
            features = self.up[level](torch.cat([kept[level], self.grow(features)], 1))
        parts = self.last(features).reshape(n, 2, 2, 2, x // 2, y // 2, z // 2)
        return parts.permute(0, 4, 1, 5, 2, 6, 3).reshape(n, 1, x, y, z)
