"""`vgg16`: features of improved precision and recall (Kynkaanniemi et al. 2019; the paper's
Table 1), with torch-fidelity's resizing and layer: torchvision's VGG-16 up to the second hidden
layer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.models import vgg16

from eval.features.registry import IMAGENET_MEAN as MEAN
from eval.features.registry import IMAGENET_STD as STD
from eval.features.registry import Extractor, load_network, rgb_tensor
from eval.features.tensorflow_resize import resize_bilinear_tf1

SIZE = 224


class VGG16Extractor(Extractor):
    """4096 features of images of any size, grey or RGB; no logits."""

    name = "vgg16"
    dim = 4096
    num_logits = 0
    chunk = 8
    input_range = f"RGB (grey repeated), (x / 255 - {MEAN}) / {STD}"
    resize = f"bilinear as in TensorFlow 1 (no antialiasing) to {SIZE}x{SIZE}, not rounded"
    image_size = (SIZE, SIZE, 3)
    layer = "fc2_relu (second hidden layer, after its ReLU)"

    def load(self, path: Path) -> None:
        model = load_network(vgg16, path, self.name)
        model.classifier = model.classifier[:5]
        self.model = model.to(self.device)

    def prepare(self, images: np.ndarray) -> Tensor:
        inputs = resize_bilinear_tf1(rgb_tensor(images, self.device).float(), SIZE)
        mean, std = (
            torch.tensor([255 * value for value in values], device=self.device)
            for values in (MEAN, STD)
        )
        return (inputs - mean[:, None, None]) / std[:, None, None]

    def forward(self, inputs: Tensor) -> tuple[Tensor, None]:
        return self.model(inputs), None
