"""The discriminator of stage 1: StyleGAN2-like with blurred resampling, as the official one."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskgit.common.errors import UsageError


class BlurDown(nn.Module):
    """Low-pass filter [1, 3, 3, 1] in both directions, then every second pixel (anti-aliased)."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        kernel = taps[:, None] * taps[None, :]
        self.register_buffer("kernel", (kernel / kernel.sum())[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, 4, 4)
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), kernel, stride=2, groups=channels)


class DownBlock(nn.Module):
    """conv, leaky ReLU, blurred halving, conv, leaky ReLU; plus a halved 1x1 shortcut; / sqrt 2."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.down = BlurDown()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1)
        self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.conv1(x), 0.2)
        h = F.leaky_relu(self.conv2(self.down(h)), 0.2)
        return (h + self.shortcut(self.down(x))) / math.sqrt(2.0)


class Discriminator(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> one logit each, (B, 1).

    The image is halved, rounding down, until its shorter side has 4 to 7 pixels: a square whose
    side is a power of two down to 4x4, as officially.
    """

    def __init__(
        self,
        channels: int,
        image_size: int | tuple[int, int],
        width: int = 64,
        max_width: int = 512,
    ):
        """image_size: pixels a side, or height and width, of at least 4."""
        super().__init__()
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        if min(size) < 4:
            raise UsageError(f"discriminator image size {image_size}: expected at least 4 pixels")
        halvings = int(math.log2(min(size))) - 2
        self.conv_in = nn.Conv2d(channels, width, 3, padding=1)
        blocks, last = [], width
        for _ in range(halvings):
            blocks.append(DownBlock(last, min(max_width, 2 * last)))
            last = min(max_width, 2 * last)
        self.blocks = nn.Sequential(*blocks)
        self.conv_out = nn.Conv2d(last, last, 3, padding=1)
        self.dense = nn.Linear((size[0] >> halvings) * (size[1] >> halvings) * last, last)
        self.logit = nn.Linear(last, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = F.leaky_relu(self.conv_in(images), 0.2)
        x = F.leaky_relu(self.conv_out(self.blocks(x)), 0.2)
        return self.logit(F.leaky_relu(self.dense(x.flatten(1)), 0.2))
