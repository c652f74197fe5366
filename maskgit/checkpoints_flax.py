"""The official flax checkpoints, read with plain msgpack: neither flax nor TensorFlow is needed.

A file is one msgpack map whose key `params` holds a tree of arrays; an array is an extension of
type 1 around a packed (shape, dtype name, bytes). All sizes come from the shapes, every array is
used exactly once, and what does not fit is a UsageError that names the array and both shapes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import torch
from torch import Tensor

from maskgit.errors import UsageError
from maskgit.tokenizer import TokenizerConfig
from maskgit.transformer import TransformerConfig

State = dict[str, Tensor]
_NDARRAY = 1  # flax.serialization's extension type
_DTYPES = ("float16", "float32", "float64")
_NORM_GROUPS = 32  # flax's default, which leaves no trace in the shapes


class Leaves:
    """The arrays below `params`, by names like "encoder/Conv_0/kernel", each to be taken once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            tree = msgpack.unpackb(path.read_bytes(), ext_hook=_array, strict_map_key=False)
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
        except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UsageError(
                f"{path}: not a whole flax checkpoint in msgpack ({reason[:120]})"
            ) from None
        if not isinstance(tree, dict) or not isinstance(tree.get("params"), dict):
            raise UsageError(f"{path}: not a flax checkpoint: it has no `params` at the top")
        self.arrays: dict[str, np.ndarray] = {}
        self._collect("", tree["params"])

    def _collect(self, prefix: str, tree: dict[Any, Any]) -> None:
        for key, value in tree.items():
            if isinstance(value, dict):
                self._collect(f"{prefix}{key}/", value)
            elif isinstance(value, np.ndarray):
                self.arrays[f"{prefix}{key}"] = value
            else:
                raise UsageError(f"{self.path}: {prefix}{key} is no array ({type(value).__name__})")

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        """Shape of an array that sizes are read from; it must have that many dimensions."""
        if name not in self.arrays:
            raise UsageError(f"{self.path}: {name} is missing")
        shape = self.arrays[name].shape
        if len(shape) != dimensions or 0 in shape:
            raise UsageError(
                f"{self.path}: {name} has shape {shape}, expected {dimensions} dimensions"
            )
        return shape

    def count(self, prefix: str) -> int:
        """How many groups of the form prefix0, prefix1, ... there are."""
        pattern = re.compile(re.escape(prefix) + r"(\d+)/")
        return len({match[1] for name in self.arrays if (match := pattern.match(name))})

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The array as float32; it is gone afterwards."""
        if name not in self.arrays:
            raise UsageError(f"{self.path}: {name} is missing, expected shape {shape}")
        got = self.arrays[name].shape
        if got != shape:
            raise UsageError(f"{self.path}: {name} has shape {got}, expected {shape}")
        return torch.from_numpy(self.arrays.pop(name).astype(np.float32))

    def finish(self) -> None:
        """Raise UsageError if arrays are left over."""
        for name, array in self.arrays.items():
            others = f" and {len(self.arrays) - 1} others" if len(self.arrays) > 1 else ""
            raise UsageError(
                f"{self.path}: {name} of shape {array.shape}{others} have no place in the model"
            )


def read_transformer(
    leaves: Leaves, num_codes: int | None
) -> tuple[TransformerConfig, dict[str, Tensor]]:
    """Configuration and state of maskgit.transformer.Transformer.

    The file does not say where the vocabulary's codes end and its classes begin. Without
    `num_codes`, codes are the largest power of two that leaves room for a class and the mask: 1024
    of the official 2025.
    """
    vocab, width = leaves.shape("Embed_0/word_embeddings/embedding", 2)
    positions, _ = leaves.shape("Embed_0/position_embeddings/embedding", 2)
    attention = "TransformerLayer_0/Attention_0/self_attention"
    _, heads, head_width = leaves.shape(f"{attention}/query/kernel", 3)
    _, mlp = leaves.shape("TransformerLayer_0/Mlp_0/intermediate_output/kernel", 2)
    if vocab < 3 or positions < 2 or heads * head_width != width:
        raise UsageError(
            f"{leaves.path}: sizes that fit no transformer: vocabulary {vocab}, positions "
            f"{positions}, width {width}, heads {heads} of {head_width}"
        )
    if num_codes is None:
        num_codes = 2 ** ((vocab - 2).bit_length() - 1)
    if not 1 <= num_codes <= vocab - 2:
        raise UsageError(
            f"num_codes {num_codes}: expected 1 to {vocab - 2}, as {leaves.path} has a "
            f"vocabulary of {vocab} codes, classes and the mask"
        )
    config = TransformerConfig(
        num_codes=num_codes,
        num_classes=vocab - 1 - num_codes,
        num_tokens=positions - 1,
        width=width,
        layers=leaves.count("TransformerLayer_"),
        heads=heads,
        mlp=mlp,
    )
    state: State = {}

    def norm(ours: str, theirs: str) -> None:
        state[f"{ours}.weight"] = leaves.take(f"{theirs}/scale", (width,))
        state[f"{ours}.bias"] = leaves.take(f"{theirs}/bias", (width,))

    def dense(ours: str, theirs: str, inputs: int, outputs: int) -> None:
        kernel = leaves.take(f"{theirs}/kernel", (inputs, outputs))
        state[f"{ours}.weight"] = kernel.t().contiguous()
        state[f"{ours}.bias"] = leaves.take(f"{theirs}/bias", (outputs,))

    for kind, rows in (("word", vocab), ("position", positions)):
        table = leaves.take(f"Embed_0/{kind}_embeddings/embedding", (rows, width))
        state[f"{kind}_embeddings.weight"] = table
    norm("embeddings_norm", "Embed_0/embeddings_ln")
    for i in range(config.layers):
        ours, theirs = f"layers.{i}", f"TransformerLayer_{i}"
        weights, biases = [], []
        for part in ("query", "key", "value"):
            name = f"{theirs}/Attention_0/self_attention/{part}"
            kernel = leaves.take(f"{name}/kernel", (width, heads, head_width))
            weights.append(kernel.reshape(width, width).t())
            biases.append(leaves.take(f"{name}/bias", (heads, head_width)).reshape(width))
        state[f"{ours}.attention.qkv.weight"] = torch.cat(weights)
        state[f"{ours}.attention.qkv.bias"] = torch.cat(biases)
        name = f"{theirs}/Attention_0/self_attention/out"
        kernel = leaves.take(f"{name}/kernel", (heads, head_width, width))
        state[f"{ours}.attention.out.weight"] = kernel.reshape(width, width).t().contiguous()
        state[f"{ours}.attention.out.bias"] = leaves.take(f"{name}/bias", (width,))
        norm(f"{ours}.attention_norm", f"{theirs}/Attention_0/attention_output_ln")
        dense(f"{ours}.mlp_in", f"{theirs}/Mlp_0/intermediate_output", width, mlp)
        dense(f"{ours}.mlp_out", f"{theirs}/Mlp_0/layer_output", mlp, width)
        norm(f"{ours}.mlp_norm", f"{theirs}/Mlp_0/layer_output_ln")
    dense("head_dense", "MlmLayer_0/mlm_dense", width, width)
    norm("head_norm", "MlmLayer_0/mlm_ln")
    state["head_bias"] = leaves.take("MlmLayer_0/mlm_bias/bias", (vocab,))
    leaves.finish()
    return config, state


def read_tokenizer(leaves: Leaves) -> tuple[TokenizerConfig, dict[str, Tensor]]:
    """Configuration and state of maskgit.tokenizer.Tokenizer."""
    num_codes, code_dim = leaves.shape("quantizer/codebook", 2)
    *_, channels, filters = leaves.shape("encoder/Conv_0/kernel", 4)
    # The decoder's convolutions: the first, one after each upsampling, the output.
    levels = leaves.count("decoder/Conv_") - 1
    blocks, rest = divmod(leaves.count("encoder/ResBlock_"), max(levels, 0) + 1)
    if levels < 1 or blocks < 1 or rest:
        raise UsageError(
            f"{leaves.path}: {leaves.count('decoder/Conv_')} decoder convolutions and "
            f"{leaves.count('encoder/ResBlock_')} encoder blocks fit no tokenizer"
        )
    widths = [
        leaves.shape(f"encoder/ResBlock_{level * blocks}/Conv_0/kernel", 4)[3]
        for level in range(levels)
    ]
    if any(width % filters for width in widths):
        raise UsageError(
            f"{leaves.path}: encoder widths {widths} are no multiples of the first, {filters}"
        )
    config = TokenizerConfig(
        channels=channels,
        filters=filters,
        multipliers=tuple(width // filters for width in widths),
        blocks=blocks,
        num_codes=num_codes,
        code_dim=code_dim,
        norm_groups=_NORM_GROUPS,
    )
    state: State = {"quantizer.codebook": leaves.take("quantizer/codebook", (num_codes, code_dim))}

    def conv(
        ours: str, theirs: str, inputs: int, outputs: int, size: int = 3, bias: bool = False
    ) -> None:
        kernel = leaves.take(f"{theirs}/kernel", (size, size, inputs, outputs))
        state[f"{ours}.weight"] = kernel.permute(3, 2, 0, 1).contiguous()
        if bias:
            state[f"{ours}.bias"] = leaves.take(f"{theirs}/bias", (outputs,))

    def norm(ours: str, theirs: str, width: int) -> None:
        state[f"{ours}.weight"] = leaves.take(f"{theirs}/scale", (width,))
        state[f"{ours}.bias"] = leaves.take(f"{theirs}/bias", (width,))

    def block(ours: str, theirs: str, inputs: int, outputs: int) -> None:
        norm(f"{ours}.norm1", f"{theirs}/GroupNorm_0", inputs)
        conv(f"{ours}.conv1", f"{theirs}/Conv_0", inputs, outputs)
        norm(f"{ours}.norm2", f"{theirs}/GroupNorm_1", outputs)
        conv(f"{ours}.conv2", f"{theirs}/Conv_1", outputs, outputs)
        if inputs != outputs:
            conv(f"{ours}.shortcut", f"{theirs}/Conv_2", outputs, outputs, size=1)

    def stack(ours: str, theirs: str, first: int, inputs: int, outputs: int) -> int:
        """The blocks of one level; returns the number of the next block."""
        for i in range(blocks):
            block(f"{ours}.{i}", f"{theirs}_{first + i}", outputs if i else inputs, outputs)
        return first + blocks

    conv("encoder.conv_in", "encoder/Conv_0", channels, filters)
    number, last = 0, filters
    for level, width in enumerate(widths):
        number = stack(f"encoder.levels.{level}", "encoder/ResBlock", number, last, width)
        last = width
    stack("encoder.middle", "encoder/ResBlock", number, last, last)
    norm("encoder.norm_out", "encoder/GroupNorm_0", last)
    conv("encoder.conv_out", "encoder/Conv_1", last, code_dim, size=1, bias=True)

    conv("decoder.conv_in", "decoder/Conv_0", code_dim, last, bias=True)
    number = stack("decoder.middle", "decoder/ResBlock", 0, last, last)
    for level, width in enumerate(reversed(widths)):
        number = stack(f"decoder.levels.{level}", "decoder/ResBlock", number, last, width)
        last = width
        if level < levels - 1:
            name = f"decoder.upsample_convs.{level}"
            conv(name, f"decoder/Conv_{level + 1}", width, width, bias=True)
    norm("decoder.norm_out", "decoder/GroupNorm_0", last)
    conv("decoder.conv_out", f"decoder/Conv_{levels}", last, channels, bias=True)
    leaves.finish()
    return config, state


def _array(code: int, data: bytes) -> np.ndarray:
    if code != _NDARRAY:
        raise ValueError(f"extension type {code}, expected {_NDARRAY}, an array")
    shape, dtype, content = msgpack.unpackb(data)
    if dtype not in _DTYPES:
        raise ValueError(f"an array of type {dtype!r}, expected one of {', '.join(_DTYPES)}")
    return np.frombuffer(content, dtype).reshape(shape)
