"""`inception-v3-clean`: clean-fid's protocol (Parmar et al. 2022): the same Inception network,
images resized by Pillow's antialiased bicubic filter without rounding to 8 bits in between.

The network is the TorchScript file that clean-fid downloads. It holds a program: from anywhere
but a folder that a user names, only the published file is run.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from eval.features.registry import Extractor
from maskgit.common.errors import UsageError, one_line

SIZE = 299


class InceptionV3CleanExtractor(Extractor):
    """2048 pooled features of images of any size, grey or RGB; no logits (clean-fid has no
    Inception Score)."""

    name = "inception-v3-clean"
    dim = 2048
    num_logits = 0
    chunk = 8
    input_range = "RGB (grey repeated), (x - 128) / 128 of 0..255"
    resize = (
        f"Pillow's bicubic (antialiased) on float channels to {SIZE}x{SIZE}, "
        "clamped to 0..255, not rounded"
    )
    image_size = (SIZE, SIZE, 3)
    layer = "pooled features, `layers` of the TorchScript file"

    def load(self, path: Path) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # the format has no successor here
                network = torch.jit.load(str(path), map_location=self.device).eval()
            self.model = network.layers
        except (RuntimeError, ValueError, AttributeError) as error:
            raise UsageError(f"{path}: not weights of {self.name} ({one_line(error)})") from error

    def prepare(self, images: np.ndarray) -> Tensor:
        resized = np.stack([resize_clean(image, SIZE) for image in images])
        if resized.shape[1] == 1:
            resized = np.repeat(resized, 3, axis=1)
        return (torch.from_numpy(resized).to(self.device) - 128) / 128

    def forward(self, inputs: Tensor) -> tuple[Tensor, None]:
        return self.model(inputs).reshape(len(inputs), -1), None


def resize_clean(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (H, W, C) -> float32 (C, size, size) in 0..255, every channel through Pillow's bicubic
    filter as floats."""
    channels = [
        PIL.Image.fromarray(image[..., c].astype(np.float32)).resize(
            (size, size), PIL.Image.Resampling.BICUBIC
        )
        for c in range(image.shape[2])
    ]
    return np.stack([np.asarray(channel) for channel in channels]).clip(0, 255)
