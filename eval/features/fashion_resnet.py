"""`fashion-resnet`: a small residual classifier of Fashion-MNIST, the feature network of the
embedded benchmark.

It plays the part that Inception plays on ImageNet: 64 pooled features for FID, KID and
precision/recall, 10 logits for the Inception Score. `python -m experiments.train_classifier` trains
it; an image costs about 19 MFLOP.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from eval.features.registry import Extractor
from maskgit.common.errors import UsageError, one_line

SIZE = 32
FEATURES = 64
CLASSES = 10
# (channels, stride) of the residual blocks behind the stem, which already halves 32 x 32 to 16 x
# 16.
BLOCKS = ((32, 1), (64, 2), (FEATURES, 2))


class Block(nn.Module):
    """Basic residual block (He et al. 2016): two 3x3 convolutions, and a projected shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.shortcut(x) + self.norm2(self.conv2(h)))


class FashionResNet(nn.Module):
    """Images (B, 1, 32, 32) float32 in [0, 1] -> (features (B, 64), logits (B, 10))."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, BLOCKS[0][0], 3, 2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(BLOCKS[0][0])
        channels = BLOCKS[0][0]
        blocks = []
        for outputs, stride in BLOCKS:
            blocks.append(Block(channels, outputs, stride))
            channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # The training images' mean and deviation, rounded, of the padded 32 x 32 frame.
        h = F.relu(self.norm(self.stem((x - 0.22) / 0.33)))
        features = self.blocks(h).mean(dim=(2, 3))
        return features, self.head(features)


class FashionResNetExtractor(Extractor):
    """64 features and 10 logits of grey 32 x 32 images (Fashion-MNIST, zero-padded)."""

    name = "fashion-resnet"
    dim = FEATURES
    num_logits = CLASSES
    class_list = "fashion-mnist"
    chunk = 128
    gpu_chunk = 128
    input_range = "grey uint8 / 255, then (x - 0.22) / 0.33"
    resize = "none"
    image_size = (SIZE, SIZE, 1)
    layer = "mean over the last block's 4 x 4 positions"

    def load(self, path: Path) -> None:
        model = FashionResNet()
        try:
            state = {key: value.float() for key, value in load(path.read_bytes()).items()}
            missing, unexpected = model.load_state_dict(state, strict=False)
        except (SafetensorError, RuntimeError) as error:
            raise UsageError(f"{path}: not readable weights ({one_line(error)})") from error
        wrong = [*unexpected, *(key for key in missing if not key.endswith("num_batches_tracked"))]
        if wrong:
            raise UsageError(f"{path}: not weights of {self.name} ({wrong[0]} does not fit)")
        self.model = model.eval().to(memory_format=torch.channels_last).to(self.device)

    def prepare(self, images: np.ndarray) -> Tensor:
        if images.shape[1:] != (SIZE, SIZE, 1):
            height, width, channels = images.shape[1:]
            raise UsageError(
                f"features {self.name} take grey {SIZE}x{SIZE} images, got {width}x{height} "
                f"with {channels} channels"
            )
        inputs = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        return inputs.permute(0, 3, 1, 2).float() / 255

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self.model(inputs)
