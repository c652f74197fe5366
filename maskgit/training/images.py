"""Images between numpy and torch, and contact sheets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.utils import save_image

from maskgit.common.files import output_file


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 (n, H, W, C) -> float32 (n, C, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float().div_(255.0)


def save_grid(images: Tensor, path: Path, columns: int) -> None:
    """Write images (n, C, H, W) in [0, 1] as one PNG with `columns` images a row."""
    with output_file(path) as file:
        save_image(images, file, format="png", nrow=columns, padding=1, pad_value=0.5)
