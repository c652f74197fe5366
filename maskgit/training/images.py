"""Images between numpy and torch, and contact sheets."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 (n, H, W, C) -> float32 (n, C, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float().div_(255.0)


def save_grid(images: Tensor, path: Path, columns: int) -> None:
    """Write images (n, C, H, W) in [0, 1] as one PNG with `columns` images a row."""
    from torchvision.utils import save_image

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    save_image(images, partial, nrow=columns, padding=1, pad_value=0.5)
    os.replace(partial, path)
