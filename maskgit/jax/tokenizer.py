"""The tokenizer of maskgit.model.tokenizer as functions of its parameters.

Images go in and come out as (B, C, H, W); inside they are (B, H, W, C), as XLA prefers them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from maskgit import checkpoints
from maskgit.common.errors import UsageError
from maskgit.jax.devices import batches, program_batch, replicate, split
from maskgit.model.config import TokenizerConfig
from maskgit.model.tokenizer import Tokenizer as TorchTokenizer

Parameters = dict[str, Any]
_FULL = jax.lax.Precision.HIGHEST
_NORM_EPS = 1e-6
# Pixels in one program on each device.
PIXELS = 2**18


@dataclass(frozen=True)
class Tokenizer:
    """A configuration and the parameters, a copy of them on every local device."""

    config: TokenizerConfig
    parameters: Parameters

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Images (B, C, H, W) float in [0, 1] -> code indices (B, h, w) int64.

        Raises UsageError for a wrong number of channels, or a side that the downsampling does not
        divide.
        """
        images = np.asarray(images, np.float32)
        self.config.check_images(images.shape)
        return self._run(_encode, images, images.shape[2] * images.shape[3]).astype(np.int64)

    def decode(self, indices: np.ndarray) -> np.ndarray:
        """Code indices (B, h, w) in [0, num_codes) -> images (B, C, H, W) float32, not clipped.

        Raises UsageError unless they are integers in that range with three dimensions.
        """
        indices = np.asarray(indices)
        if indices.ndim != 3 or indices.dtype.kind not in "iu":
            raise UsageError(
                f"indices of shape {indices.shape} {indices.dtype}: expected integers (B, h, w)"
            )
        if indices.size:
            self.config.check_range(int(indices.min()), int(indices.max()))
        pixels = indices.shape[1] * indices.shape[2] * self.config.downsampling**2
        return self._run(_decode, indices.astype(np.int32), pixels)

    def _run(self, function: Any, inputs: np.ndarray, pixels: int) -> np.ndarray:
        """`function` on batches of the inputs; `pixels` are those of one image."""
        if not len(inputs):
            shape = jax.eval_shape(partial(function, self.config), self.parameters, inputs)
            return np.empty(shape.shape, shape.dtype)
        most = len(jax.local_devices()) * max(1, PIXELS // max(pixels, 1))
        outputs = [
            np.asarray(function(self.config, self.parameters, split(inputs[picked])))
            for picked in batches(len(inputs), program_batch(len(inputs), most))
        ]
        return np.concatenate(outputs)[: len(inputs)]


def load_tokenizer(path: str | Path) -> Tokenizer:
    """A tokenizer from our folder or an official flax file.

    maskgit.checkpoints.load_tokenizer reads it; the UsageErrors are the same.
    """
    return from_torch(checkpoints.load_tokenizer(path))


def from_torch(model: TorchTokenizer) -> Tokenizer:
    """The same network in JAX, with copies of the parameters, kernels as (height, width, in, out).

    Parameters are nested as torch's names are: "decoder.levels.0.0.conv1.weight".
    """
    tree: Parameters = {}
    for name, tensor in model.state_dict().items():
        value = tensor.detach().cpu().numpy().astype(np.float32)
        turned = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
        *folders, last = name.split(".")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = replicate(np.array(turned, order="C"))
    return Tokenizer(model.config, tree)


@partial(jax.jit, static_argnums=0)
def _decode(config: TokenizerConfig, parameters: Parameters, indices: Array) -> Array:
    decoder = parameters["decoder"]
    x = _conv(decoder["conv_in"], parameters["quantizer"]["codebook"][indices])
    x = _blocks(config, decoder["middle"], x)
    for i in range(len(config.multipliers)):
        x = _blocks(config, decoder["levels"][str(i)], x)
        if i < len(config.multipliers) - 1:
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            x = _conv(decoder["upsample_convs"][str(i)], x)
    x = _conv(decoder["conv_out"], jax.nn.silu(_group_norm(config, decoder["norm_out"], x)))
    return x.transpose(0, 3, 1, 2)


@partial(jax.jit, static_argnums=0)
def features(config: TokenizerConfig, parameters: Parameters, images: Array) -> Array:
    """The encoder's output (B, h, w, code_dim) of images (B, C, H, W)."""
    encoder = parameters["encoder"]
    x = _conv(encoder["conv_in"], images.transpose(0, 2, 3, 1))
    for i in range(len(config.multipliers)):
        if i:
            batch, height, width, channels = x.shape
            x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))
        x = _blocks(config, encoder["levels"][str(i)], x)
    x = _blocks(config, encoder["middle"], x)
    return _conv(encoder["conv_out"], jax.nn.silu(_group_norm(config, encoder["norm_out"], x)))


@partial(jax.jit, static_argnums=0)
def _encode(config: TokenizerConfig, parameters: Parameters, images: Array) -> Array:
    book, x = parameters["quantizer"]["codebook"], features(config, parameters, images)
    products = jnp.matmul(x, book.T, precision=_FULL)
    squares = jnp.square(x).sum(axis=-1, keepdims=True)
    return (squares + jnp.square(book).sum(axis=1) - 2.0 * products).argmin(axis=-1)


def _blocks(config: TokenizerConfig, level: Parameters, x: Array) -> Array:
    for i in range(config.blocks):
        block = level[str(i)]
        h = _conv(block["conv1"], jax.nn.silu(_group_norm(config, block["norm1"], x)))
        h = _conv(block["conv2"], jax.nn.silu(_group_norm(config, block["norm2"], h)))
        # As officially: the shortcut is applied to the output of the second convolution.
        x = h + (_conv(block["shortcut"], h) if "shortcut" in block else x)
    return x


def _conv(parameters: Parameters, x: Array) -> Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    kernel = parameters["weight"]
    x = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=numbers, precision=_FULL
    )
    return x + parameters["bias"] if "bias" in parameters else x


def _group_norm(config: TokenizerConfig, parameters: Parameters, x: Array) -> Array:
    groups = config.norm_groups
    grouped = x.reshape(*x.shape[:3], groups, x.shape[3] // groups)
    centred = grouped - grouped.mean(axis=(1, 2, 4), keepdims=True)
    variance = jnp.square(centred).mean(axis=(1, 2, 4), keepdims=True)
    normed = (centred * jax.lax.rsqrt(variance + _NORM_EPS)).reshape(x.shape)
    return normed * parameters["weight"] + parameters["bias"]
