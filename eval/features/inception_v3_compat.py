"""`inception-v3-compat`: the FID network (TensorFlow's Inception of 2015-12-05) as torch-fidelity
carries it.

This is the network of the original FID and Inception Score; torch-fidelity's class reproduces
that graph in PyTorch. Resizing and network are separate here, so that images of any sizes share a
batch.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from eval.features.registry import Extractor, load_state, rgb_tensor
from eval.features.tensorflow_resize import resize_bilinear_tf1
from maskgit.common.errors import UsageError, one_line

SIZE = 299
# torch-fidelity's modules in the order of its forward, up to the pooled features.
MODULES = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1"),
    *("Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d"),
    *("Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool"),
)


class InceptionV3CompatExtractor(Extractor):
    """2048 pooled features and 1008 logits of images of any size, grey or RGB."""

    name = "inception-v3-compat"
    dim = 2048
    num_logits = 1008
    chunk = 8
    input_range = "RGB (grey repeated), (x - 128) / 128 of 0..255"
    resize = f"bilinear as in TensorFlow 1 (no antialiasing) to {SIZE}x{SIZE}, not rounded"
    image_size = (SIZE, SIZE, 3)
    layer = "2048 (global average pool); logits without bias"

    def load(self, path: Path) -> None:
        outputs = ["2048", "logits_unbiased"]
        self.model = from_state(FeatureExtractorInceptionV3, outputs, path, self.name)
        self.model.to(self.device)

    def prepare(self, images: np.ndarray) -> Tensor:
        inputs = rgb_tensor(images, self.device).float()
        return (resize_bilinear_tf1(inputs, SIZE) - 128) / 128

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        for module in MODULES:
            inputs = getattr(self.model, module)(inputs)
        features = inputs.flatten(1)
        return features, features @ self.model.fc.weight.T


def from_state(cls: type, outputs: list[str], path: Path, name: str) -> Any:
    """A feature extractor of torch-fidelity with the weights in `path`.

    Its constructor unpickles the file without restriction, so it is given what the restricted
    reader made of it.

    Raises:
        UsageError: the file does not hold weights of this network.
    """
    clean = io.BytesIO()
    torch.save(load_state(path, name), clean)
    clean.seek(0)
    try:
        return cls(name, outputs, feature_extractor_weights_path=clean).eval()
    except RuntimeError as error:
        raise UsageError(f"{path}: not weights of {name} ({one_line(error)})") from error
