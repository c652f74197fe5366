"""`efficientnet-lite0`: an ImageNet classifier that installs from a package, so that colour
images can be measured offline.

The network and its weights (Apache-2.0) are the extra `efficientnet`. Numbers on its features are
not comparable with those on Inception's; each of them carries the network's name.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eval.features.registry import Extractor, load_state, rgb_tensor
from eval.weights.files import SOURCES, package_folder
from maskgit.common.errors import UsageError, one_line

SIZE = 224


class EfficientNetLite0Extractor(Extractor):
    """1280 pooled features and 1000 ImageNet logits of images of any size, grey or RGB."""

    name = "efficientnet-lite0"
    dim = 1280
    num_logits = 1000
    class_list = "imagenet"
    chunk = 16
    input_range = "RGB (grey repeated), (x - 127) / 128 of 0..255"
    resize = f"bicubic with antialiasing to {SIZE}x{SIZE}, clamped to 0..255, not rounded"
    image_size = (SIZE, SIZE, 3)
    layer = "global average pool before the classifier"

    def check_packages(self) -> None:
        package_folder(self.name, "efficientnet_lite_pytorch", SOURCES[self.name].extra)

    def load(self, path: Path) -> None:
        from efficientnet_lite_pytorch import EfficientNet

        model = EfficientNet.from_name(self.name)
        try:
            model.load_state_dict(load_state(path, self.name))
        except RuntimeError as error:
            raise UsageError(f"{path}: not weights of {self.name} ({one_line(error)})") from error
        self.model = model.eval().to(self.device, memory_format=torch.channels_last)

    def prepare(self, images: np.ndarray) -> Tensor:
        inputs = rgb_tensor(images, self.device).float()
        if inputs.shape[2:] != (SIZE, SIZE):
            inputs = F.interpolate(inputs, (SIZE, SIZE), mode="bicubic", antialias=True)
        return (inputs.clamp(0, 255) - 127) / 128

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.model.extract_features(inputs.contiguous(memory_format=torch.channels_last))
        features = maps.mean(dim=(2, 3))
        return features, self.model._fc(features)
