"""`resnet50`: torchvision's ResNet-50 with its first ImageNet weights, the classifier that rejects
samples in the paper's Table 4.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.models import resnet50
from torchvision.transforms.v2 import functional

from eval.features.registry import Extractor, imagenet_normalised, load_network, rgb_tensor

RESIZE, CROP = 256, 224


class ResNet50Extractor(Extractor):
    """2048 pooled features and 1000 logits of images of any size, grey or RGB."""

    name = "resnet50"
    dim = 2048
    num_logits = 1000
    class_list = "imagenet"
    chunk = 16
    input_range = "RGB (grey repeated) in [0, 1], ImageNet's mean and deviation"
    resize = f"shorter side to {RESIZE}, bilinear with antialiasing, central {CROP}x{CROP}"
    image_size = (CROP, CROP, 3)
    layer = "global average pool before the classifier"

    def load(self, path: Path) -> None:
        model = load_network(resnet50, path, self.name)
        self.head = model.fc.to(self.device)
        model.fc = torch.nn.Identity()
        self.model = model.to(self.device, memory_format=torch.channels_last)

    def prepare(self, images: np.ndarray) -> Tensor:
        inputs = rgb_tensor(images, self.device)
        if min(inputs.shape[2:]) != RESIZE:
            inputs = functional.resize(inputs, [RESIZE], antialias=True)
        inputs = functional.center_crop(inputs, [CROP, CROP]).float() / 255
        return imagenet_normalised(inputs).contiguous(memory_format=torch.channels_last)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model(inputs)
        return features, self.head(features)
