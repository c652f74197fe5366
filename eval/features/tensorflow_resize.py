"""TensorFlow 1's bilinear resizing, which the Inception graph of 2015 has inside.

Output pixel i looks at input position i * (input size / output size): corners do not coincide, no
half pixel is added, nothing is smoothed when shrinking. torch.nn.functional.interpolate has no
mode for that.
"""

from __future__ import annotations

import torch
from torch import Tensor


def resize_bilinear_tf1(images: Tensor, size: int) -> Tensor:
    """Resize float images (n, C, H, W) to (n, C, size, size) as tf.compat.v1.image.resize_bilinear
    does; positions are float32, as there."""
    rows = _neighbours(images.shape[2], size, images)
    columns = _neighbours(images.shape[3], size, images)
    left, right = images[..., columns[0]], images[..., columns[1]]
    wide = left + (right - left) * columns[2]  # across first, then down
    top, bottom = wide[:, :, rows[0]], wide[:, :, rows[1]]
    return top + (bottom - top) * rows[2][:, None]


def _neighbours(length: int, size: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two input positions of every output position, and the share of the second."""
    scale = torch.tensor(length / size, dtype=torch.float32, device=like.device)
    position = torch.arange(size, dtype=torch.float32, device=like.device) * scale
    low = position.long().clamp_max(length - 1)
    return low, (low + 1).clamp_max(length - 1), (position - low).to(like.dtype)
