"""How the official checkpoints lay out our parameters: one rule for each parameter, both ways.

The names come from the modules of google-research/maskgit (nets/maskgit_transformer.py and
nets/vqgan_tokenizer.py), which flax numbers in the order in which they are called.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from maskgit.model.config import TokenizerConfig, TransformerConfig


@dataclass(frozen=True)
class Rule:
    """One parameter of ours and the official arrays, each of `shape`, that it is made of.

    kind: "same"; "dense", a kernel (in, out); "conv", a kernel (height, width, in, out); "heads",
    the three kernels (in, heads, head width) of queries, keys and values; "heads-bias", their
    biases (heads, head width); "out", the kernel (heads, head width, out) after the attention.
    """

    ours: str
    theirs: tuple[str, ...]
    shape: tuple[int, ...]
    kind: str = "same"

    def to_ours(self, arrays: list[Tensor]) -> Tensor:
        """Our parameter from the official arrays, in the order of `theirs`."""
        first = arrays[0]
        if self.kind == "dense":
            result = first.t()
        elif self.kind == "conv":
            result = first.permute(3, 2, 0, 1)
        elif self.kind == "heads":
            result = torch.cat([array.flatten(1).t() for array in arrays])
        elif self.kind == "heads-bias":
            result = torch.cat([array.flatten() for array in arrays])
        elif self.kind == "out":
            result = first.flatten(0, 1).t()
        else:
            result = first
        return result.contiguous()

    def to_theirs(self, parameter: Tensor) -> list[Tensor]:
        """The inverse of `to_ours`."""
        if self.kind == "dense":
            results = [parameter.t()]
        elif self.kind == "conv":
            results = [parameter.permute(2, 3, 1, 0)]
        elif self.kind == "heads":
            results = [part.t().reshape(self.shape) for part in parameter.chunk(len(self.theirs))]
        elif self.kind == "heads-bias":
            results = [part.reshape(self.shape) for part in parameter.chunk(len(self.theirs))]
        elif self.kind == "out":
            results = [parameter.t().reshape(self.shape)]
        else:
            results = [parameter]
        return [result.contiguous() for result in results]


def transformer_rules(config: TransformerConfig) -> Iterator[Rule]:
    """The parameters of maskgit.model.transformer.Transformer."""
    width, heads, vocabulary = config.width, config.heads, config.vocab_size
    per_head = width // heads

    def norm(ours: str, theirs: str) -> Iterator[Rule]:
        yield Rule(f"{ours}.weight", (f"{theirs}/scale",), (width,))
        yield Rule(f"{ours}.bias", (f"{theirs}/bias",), (width,))

    def dense(ours: str, theirs: str, inputs: int, outputs: int) -> Iterator[Rule]:
        yield Rule(f"{ours}.weight", (f"{theirs}/kernel",), (inputs, outputs), "dense")
        yield Rule(f"{ours}.bias", (f"{theirs}/bias",), (outputs,))

    for kind, rows in (("word", vocabulary), ("position", 1 + config.num_tokens)):
        table = f"Embed_0/{kind}_embeddings/embedding"
        yield Rule(f"{kind}_embeddings.weight", (table,), (rows, width))
    yield from norm("embeddings_norm", "Embed_0/embeddings_ln")
    for i in range(config.layers):
        ours, theirs = f"layers.{i}", f"TransformerLayer_{i}"
        attention = f"{theirs}/Attention_0/self_attention"
        parts = [f"{attention}/{part}" for part in ("query", "key", "value")]
        kernels = tuple(f"{part}/kernel" for part in parts)
        biases = tuple(f"{part}/bias" for part in parts)
        qkv, out = f"{ours}.attention.qkv", f"{ours}.attention.out"
        yield Rule(f"{qkv}.weight", kernels, (width, heads, per_head), "heads")
        yield Rule(f"{qkv}.bias", biases, (heads, per_head), "heads-bias")
        yield Rule(f"{out}.weight", (f"{attention}/out/kernel",), (heads, per_head, width), "out")
        yield Rule(f"{out}.bias", (f"{attention}/out/bias",), (width,))
        yield from norm(f"{ours}.attention_norm", f"{theirs}/Attention_0/attention_output_ln")
        mlp = f"{theirs}/Mlp_0"
        yield from dense(f"{ours}.mlp_in", f"{mlp}/intermediate_output", width, config.mlp)
        yield from dense(f"{ours}.mlp_out", f"{mlp}/layer_output", config.mlp, width)
        yield from norm(f"{ours}.mlp_norm", f"{mlp}/layer_output_ln")
    yield from dense("head_dense", "MlmLayer_0/mlm_dense", width, width)
    yield from norm("head_norm", "MlmLayer_0/mlm_ln")
    yield Rule("head_bias", ("MlmLayer_0/mlm_bias/bias",), (vocabulary,))


def tokenizer_rules(config: TokenizerConfig) -> Iterator[Rule]:
    """The parameters of maskgit.model.tokenizer.Tokenizer."""
    widths = [config.filters * multiplier for multiplier in config.multipliers]
    levels = len(widths)

    def conv(
        ours: str, theirs: str, inputs: int, outputs: int, size: int = 3, bias: bool = False
    ) -> Iterator[Rule]:
        kernel = (size, size, inputs, outputs)
        yield Rule(f"{ours}.weight", (f"{theirs}/kernel",), kernel, "conv")
        if bias:
            yield Rule(f"{ours}.bias", (f"{theirs}/bias",), (outputs,))

    def norm(ours: str, theirs: str, width: int) -> Iterator[Rule]:
        yield Rule(f"{ours}.weight", (f"{theirs}/scale",), (width,))
        yield Rule(f"{ours}.bias", (f"{theirs}/bias",), (width,))

    def blocks(ours: str, theirs: str, first: int, inputs: int, outputs: int) -> Iterator[Rule]:
        """The residual blocks of one level; the file numbers them from `first`."""
        for i in range(config.blocks):
            here, there = f"{ours}.{i}", f"{theirs}/ResBlock_{first + i}"
            yield from norm(f"{here}.norm1", f"{there}/GroupNorm_0", inputs)
            yield from conv(f"{here}.conv1", f"{there}/Conv_0", inputs, outputs)
            yield from norm(f"{here}.norm2", f"{there}/GroupNorm_1", outputs)
            yield from conv(f"{here}.conv2", f"{there}/Conv_1", outputs, outputs)
            if inputs != outputs:  # the 1x1 shortcut, which follows the second convolution
                yield from conv(f"{here}.shortcut", f"{there}/Conv_2", outputs, outputs, size=1)
            inputs = outputs

    yield Rule("quantizer.codebook", ("quantizer/codebook",), (config.num_codes, config.code_dim))

    last = config.filters
    yield from conv("encoder.conv_in", "encoder/Conv_0", config.channels, last)
    for level, width in enumerate(widths):
        first = level * config.blocks
        yield from blocks(f"encoder.levels.{level}", "encoder", first, last, width)
        last = width
    yield from blocks("encoder.middle", "encoder", levels * config.blocks, last, last)
    yield from norm("encoder.norm_out", "encoder/GroupNorm_0", last)
    code_dim = config.code_dim
    yield from conv("encoder.conv_out", "encoder/Conv_1", last, code_dim, size=1, bias=True)

    yield from conv("decoder.conv_in", "decoder/Conv_0", code_dim, last, bias=True)
    yield from blocks("decoder.middle", "decoder", 0, last, last)
    for level, width in enumerate(reversed(widths)):
        first = (level + 1) * config.blocks
        yield from blocks(f"decoder.levels.{level}", "decoder", first, last, width)
        last = width
        if level < levels - 1:
            ours = f"decoder.upsample_convs.{level}"
            yield from conv(ours, f"decoder/Conv_{level + 1}", width, width, bias=True)
    yield from norm("decoder.norm_out", "decoder/GroupNorm_0", last)
    output = f"decoder/Conv_{levels}"
    yield from conv("decoder.conv_out", output, last, config.channels, bias=True)
