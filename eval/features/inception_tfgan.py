"""`inception-tfgan`: the Inception network in TF-GAN's own form, a TensorFlow SavedModel.

TF-GAN fetches it from TensorFlow Hub; here `eval.weights.files` keeps the same archive. Resizing
and input range are those of TF-GAN's examples (cifar/util.py). TensorFlow (extra `tfgan`) is
imported when the network is loaded, and computes on the CPU or on the GPU that it finds itself.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eval.features.registry import Extractor, rgb_tensor
from eval.weights.files import SOURCES, package_folder
from maskgit.common.errors import UsageError, one_line

SIZE = 299


class InceptionTFGANExtractor(Extractor):
    """2048 pooled features and 1008 logits of images of any size, grey or RGB."""

    name = "inception-tfgan"
    dim = 2048
    num_logits = 1008
    chunk = 8
    input_range = "RGB (grey repeated), x / 127.5 - 1 of 0..255"
    resize = f"bilinear, half-pixel centres, no antialiasing, to {SIZE}x{SIZE}, not rounded"
    image_size = (SIZE, SIZE, 3)
    layer = "pool_3; logits as the module gives them"

    def check_packages(self) -> None:
        package_folder(self.name, "tensorflow", SOURCES[self.name].extra)

    def load(self, path: Path) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        import tensorflow as tf

        try:
            with tempfile.TemporaryDirectory() as folder:
                with tarfile.open(path) as archive:
                    archive.extractall(folder, filter="data")
                self.model = tf.saved_model.load(folder)  # reads everything, needs no folder later
        except (OSError, tarfile.TarError, EOFError, ValueError, tf.errors.OpError) as error:
            raise UsageError(f"{path}: not weights of {self.name} ({one_line(error)})") from error

    def prepare(self, images: np.ndarray) -> Tensor:
        inputs = rgb_tensor(images, self.device).float() / 127.5 - 1
        if inputs.shape[2:] == (SIZE, SIZE):
            return inputs
        return F.interpolate(inputs, (SIZE, SIZE), mode="bilinear", align_corners=False)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        import tensorflow as tf

        outputs = self.model(tf.constant(inputs.permute(0, 2, 3, 1).cpu().numpy()))
        try:
            features, logits = (
                torch.from_numpy(outputs[key].numpy()).reshape(len(inputs), size)
                for key, size in (("pool_3", self.dim), ("logits", self.num_logits))
            )
        except (KeyError, RuntimeError) as error:
            raise UsageError(
                f"weights of {self.name}: the module gives {sorted(outputs)}, expected pool_3 "
                f"({self.dim} numbers an image) and logits ({self.num_logits})"
            ) from error
        return features, logits
