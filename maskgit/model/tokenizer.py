"""Stage 1: the official VQGAN tokenizer (google-research/maskgit, nets/vqgan_tokenizer.py).

Convolutions and GroupNorm only, no attention. Images are (B, C, H, W) in [0, 1] throughout; the
code grid is H / 2^(levels - 1) squares a side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskgit.common.errors import UsageError
from maskgit.model.config import TokenizerConfig


class ResBlock(nn.Module):
    """norm, swish, 3x3 conv, twice; a 1x1 shortcut when the number of channels changes.

    The official code applies that shortcut to the *output of the second convolution*, not to the
    input, so such a block returns h + shortcut(h). The released weights need it so.
    """

    def __init__(self, inputs: int, outputs: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps=1e-6)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(groups, outputs, eps=1e-6)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = None
        if inputs != outputs:
            self.shortcut = nn.Conv2d(outputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.shortcut is None else self.shortcut(h))


class Encoder(nn.Module):
    """Images (B, C, H, W) -> features (B, code_dim, h, w)."""

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        widths = [config.filters * m for m in config.multipliers]
        self.conv_in = nn.Conv2d(config.channels, config.filters, 3, padding=1, bias=False)
        self.levels = nn.ModuleList()
        last = config.filters
        for width in widths:
            level = nn.Sequential()
            for _ in range(config.blocks):
                level.append(ResBlock(last, width, config.norm_groups))
                last = width
            self.levels.append(level)
        self.middle = nn.Sequential(
            *(ResBlock(last, last, config.norm_groups) for _ in range(config.blocks))
        )
        self.norm_out = nn.GroupNorm(config.norm_groups, last, eps=1e-6)
        self.conv_out = nn.Conv2d(last, config.code_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for i, level in enumerate(self.levels):
            x = level(x if i == 0 else F.avg_pool2d(x, 2))
        return self.conv_out(F.silu(self.norm_out(self.middle(x))))


class Decoder(nn.Module):
    """Quantised features (B, code_dim, h, w) -> images (B, C, H, W), not clipped."""

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        widths = [config.filters * m for m in config.multipliers]
        last = widths[-1]
        self.conv_in = nn.Conv2d(config.code_dim, last, 3, padding=1)
        self.middle = nn.Sequential(
            *(ResBlock(last, last, config.norm_groups) for _ in range(config.blocks))
        )
        self.levels = nn.ModuleList()  # in the order they run: the coarsest level first
        self.upsample_convs = nn.ModuleList()
        for width in reversed(widths):
            level = nn.Sequential()
            for _ in range(config.blocks):
                level.append(ResBlock(last, width, config.norm_groups))
                last = width
            self.levels.append(level)
            if len(self.levels) < len(widths):
                self.upsample_convs.append(nn.Conv2d(last, last, 3, padding=1))
        self.norm_out = nn.GroupNorm(config.norm_groups, last, eps=1e-6)
        self.conv_out = nn.Conv2d(last, config.channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self.conv_in(x))
        for i, level in enumerate(self.levels):
            x = level(x)
            if i < len(self.upsample_convs):
                x = self.upsample_convs[i](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv_out(F.silu(self.norm_out(x)))


class VectorQuantizer(nn.Module):
    """The codebook; the nearest code by squared Euclidean distance is chosen."""

    def __init__(self, num_codes: int, code_dim: int):
        super().__init__()
        # flax's variance_scaling(1, fan_in, uniform) on a (num_codes, code_dim) array.
        limit = (3.0 / num_codes) ** 0.5
        self.codebook = nn.Parameter(torch.empty(num_codes, code_dim).uniform_(-limit, limit))

    def distances(self, x: Tensor) -> Tensor:
        """Squared distances (M, num_codes) of rows x (M, code_dim) to every code."""
        book = self.codebook
        return x.square().sum(1, keepdim=True) + book.square().sum(1) - 2.0 * (x @ book.t())


class Tokenizer(nn.Module):
    """Images to code indices and back; maskgit.training.stage1.TokenizerPass trains it."""

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quantizer = VectorQuantizer(config.num_codes, config.code_dim)
        self.decoder = Decoder(config)

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) float in [0, 1] -> code indices (B, h, w) int64.

        Raises:
            UsageError: wrong number of channels, or a side that the downsampling does not divide.
        """
        self.config.check_images(images.shape)
        features = self.encoder(images)
        b, d, h, w = features.shape
        rows = features.permute(0, 2, 3, 1).reshape(-1, d)
        return self.quantizer.distances(rows).argmin(1).view(b, h, w)

    @torch.inference_mode()
    def decode(self, indices: Tensor) -> Tensor:
        """Code indices (B, h, w) in [0, num_codes) -> images (B, C, H, W) float.

        The decoder's output as it is, a little outside [0, 1] here and there: clip it before it
        becomes an image, as the official code does.

        Raises:
            UsageError: not three dimensions, or an index outside the codebook.
        """
        if indices.ndim != 3:
            raise UsageError(f"indices of shape {tuple(indices.shape)}: expected (B, h, w)")
        if indices.numel():
            self.config.check_range(int(indices.min()), int(indices.max()))
        codes = F.embedding(indices, self.quantizer.codebook).permute(0, 3, 1, 2)
        return self.decoder(codes.contiguous())


class CodeUsage:
    """Counts how often each code is used and moves dead ones onto live encoder outputs.

    A code that at most `threshold` of the expected share of tokens chose during a window is dead;
    it is put on a randomly picked encoder output of the current batch. In an empty window all
    codes are dead, which is how a run starts its codebook from the data.
    """

    def __init__(self, num_codes: int, threshold: float = 0.03):
        self.counts = torch.zeros(num_codes, dtype=torch.int64)
        self.threshold = threshold

    @torch.no_grad()
    def revive(self, codebook: Tensor, rows: Tensor, generator: torch.Generator) -> int:
        """Overwrite the dead rows of codebook (K, D) in place from rows (M, D); start a new window.

        Returns:
            how many codes were dead.
        """
        expected = self.counts.sum().item() / len(self.counts)
        dead = torch.nonzero(self.counts <= self.threshold * expected).flatten()
        if len(dead):
            picks = torch.randint(len(rows), (len(dead),), generator=generator)
            codebook[dead.to(codebook.device)] = rows[picks.to(rows.device)].to(codebook.dtype)
        self.counts.zero_()
        return len(dead)
