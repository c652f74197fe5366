"""`dinov2-vit-l-14`: DINOv2's ViT-L/14 without registers (Oquab et al. 2023), the network of
FD-DINOv2 (Stein et al. 2023), with the resizing of their dgm-eval.

Written out here because the published network comes as code from a repository; names follow the
published state dict, so that it loads as it is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eval.features.registry import IMAGENET_MEAN as MEAN
from eval.features.registry import IMAGENET_STD as STD
from eval.features.registry import Extractor, imagenet_normalised, load_network

SIZE = 224


class Attention(nn.Module):
    """Self-attention with one projection for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class MLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """A learned factor for every channel of a residual branch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm transformer layer, both branches scaled."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLP(width)
        self.ls2 = LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class DINOv2(nn.Module):
    """Normalised images (n, 3, S, S), S a multiple of `patch` -> class tokens (n, width).

    Args:
        width, depth, heads: of the transformer.
        patch: side of a patch.
        grid: side of the grid of position embeddings; the published ones are of 518 px images.
    """

    def __init__(
        self,
        width: int = 1024,
        depth: int = 24,
        heads: int = 16,
        patch: int = 14,
        grid: int = 37,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.patch = patch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid**2, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # of training, in the file
        self.patch_embed = PatchEmbed(width, patch)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        positions = self.positions(x.shape[2] // self.patch)
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + positions
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 0])

    def positions(self, side: int) -> Tensor:
        """Position embeddings of a grid of `side` patches, bicubic from the learned grid.

        The published code asks for a scale of (side + 0.1) / grid, against rounding down; the
        0.1 also moves the sampling points, so it belongs to the network.
        """
        if side == self.grid:
            return self.pos_embed
        learned = self.pos_embed[:, 1:].reshape(1, self.grid, self.grid, -1).permute(0, 3, 1, 2)
        scale = (side + 0.1) / self.grid
        resized = F.interpolate(learned, scale_factor=(scale, scale), mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


class DINOv2Extractor(Extractor):
    """1024 features (the class token) of images of any size, grey or RGB; no logits."""

    name = "dinov2-vit-l-14"
    dim = 1024
    num_logits = 0
    chunk = 4
    input_range = f"RGB (grey repeated), (x / 255 - {MEAN}) / {STD}"
    resize = f"Pillow's bicubic (antialiased) to {SIZE}x{SIZE}, rounded to 8 bits"
    image_size = (SIZE, SIZE, 3)
    layer = "class token after the last layer norm"

    def load(self, path: Path) -> None:
        self.model = load_network(DINOv2, path, self.name).to(self.device)

    def prepare(self, images: np.ndarray) -> Tensor:
        resized = torch.from_numpy(np.stack([resize_rounded(x, SIZE) for x in images]))
        return imagenet_normalised(resized.to(self.device).permute(0, 3, 1, 2).float() / 255)

    def forward(self, inputs: Tensor) -> tuple[Tensor, None]:
        return self.model(inputs), None


def resize_rounded(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (H, W, C) -> uint8 (size, size, 3) through Pillow's bicubic filter."""
    colour = PIL.Image.fromarray(np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image)
    return np.asarray(colour.resize((size, size), PIL.Image.Resampling.BICUBIC))
