"""How a model gets its parameters, and how the official checkpoints lay them out.

The official names come from the modules of google-research/maskgit (nets/maskgit_transformer.py and
nets/vqgan_tokenizer.py). flax numbers the modules of one kind in the order in which they are
called, which is the order in which ours are declared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maskgit.common.errors import UsageError
from maskgit.model.tokenizer import ResBlock, Tokenizer
from maskgit.model.transformer import Transformer

# Our modules of the transformer; within a layer their names follow TransformerLayer_0, ...
_MODULES = {
    "word_embeddings": "Embed_0/word_embeddings",
    "position_embeddings": "Embed_0/position_embeddings",
    "embeddings_norm": "Embed_0/embeddings_ln",
    "attention.qkv": "Attention_0/self_attention",
    "attention.out": "Attention_0/self_attention/out",
    "attention_norm": "Attention_0/attention_output_ln",
    "mlp_in": "Mlp_0/intermediate_output",
    "mlp_out": "Mlp_0/layer_output",
    "mlp_norm": "Mlp_0/layer_output_ln",
    "head_dense": "MlmLayer_0/mlm_dense",
    "head_norm": "MlmLayer_0/mlm_ln",
}


def official_arrays(model: Transformer | Tokenizer) -> dict[str, Tensor]:
    """The arrays of an official checkpoint, such as "encoder/Conv_0/kernel", as views of a model.

    What is written to such a view is written to the model's parameter.
    """
    if isinstance(model, Tokenizer):
        codebook = ("quantizer/codebook", model.quantizer.codebook.detach())
        encoder = _numbered(model.encoder, "encoder")
        return dict([codebook, *encoder, *_numbered(model.decoder, "decoder")])
    arrays = {"MlmLayer_0/mlm_bias/bias": model.head_bias.detach()}
    for name, module in model.named_modules():
        prefix, kind = "", name
        if name.startswith("layers."):
            _, number, kind = f"{name}.".split(".", 2)
            prefix, kind = f"TransformerLayer_{number}/", kind.rstrip(".")
        if kind in _MODULES:
            arrays |= _views(module, prefix + _MODULES[kind], kind, model.config.heads)
    return arrays


def fill(
    model: nn.Module,
    layout: Callable[[Any], dict[str, Tensor]],
    arrays: dict[str, Any],
    path: Path,
) -> None:
    """Give a model on the meta device its parameters, float32 on the CPU.

    layout: gives the model's parameters, or views of them, by the names that the arrays have.
    arrays: tensors or numpy arrays; they are copied and taken out, so that there is little more
        than one copy of the weights at a time.
    path: of their file, for messages.

    Raises:
        UsageError: an array is missing, too many, of another shape or type, or not finite; the line
            names it.
    """
    shapes = {name: tuple(place.shape) for name, place in layout(model).items()}
    for name, shape in shapes.items():
        if name not in arrays:
            raise UsageError(f"{path}: {name} is missing, expected shape {shape}")
        if (got := tuple(arrays[name].shape)) != shape:
            raise UsageError(f"{path}: {name} has shape {got}, expected {shape}")
    if extra := [name for name in arrays if name not in shapes]:
        verb = f"and {len(extra) - 1} others have" if len(extra) > 1 else "has"
        shape = tuple(arrays[extra[0]].shape)
        raise UsageError(f"{path}: {extra[0]} of shape {shape} {verb} no place in the model")
    model.to_empty(device="cpu")
    for name, place in layout(model).items():
        value = arrays.pop(name)
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(value.astype(np.float32))
        if not value.is_floating_point():
            raise UsageError(f"{path}: {name} has type {value.dtype}, expected numbers")
        place.copy_(value)
        if not torch.isfinite(place).all():
            raise UsageError(f"{path}: {name} has values that are not finite")


def _views(module: nn.Module, path: str, kind: str, heads: int) -> Iterator[tuple[str, Tensor]]:
    """The arrays of one module of the transformer."""
    parameters = {name: value.detach() for name, value in module.named_parameters()}
    if kind == "attention.qkv":  # three modules there, kernels (in, heads, head width)
        weights = parameters["weight"].unflatten(0, (3, heads, -1)).permute(0, 3, 1, 2)
        biases = parameters["bias"].unflatten(0, (3, heads, -1))
        for part, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            yield f"{path}/{part}/kernel", weight
            yield f"{path}/{part}/bias", bias
        return
    weight = parameters["weight"]
    if isinstance(module, nn.Embedding):
        yield f"{path}/embedding", weight
        return
    if kind == "attention.out":  # a kernel (heads, head width, out)
        yield f"{path}/kernel", weight.unflatten(1, (heads, -1)).permute(1, 2, 0)
    elif isinstance(module, nn.Linear):
        yield f"{path}/kernel", weight.t()
    else:
        yield f"{path}/scale", weight
    yield f"{path}/bias", parameters["bias"]


def _numbered(module: nn.Module, path: str) -> Iterator[tuple[str, Tensor]]:
    """The arrays of the tokenizer's encoder, its decoder, or a residual block in them."""
    numbers: Counter[str] = Counter()
    waiting = list(module.children())
    while waiting:
        part = waiting.pop(0)
        if isinstance(part, nn.Sequential | nn.ModuleList):
            waiting = [*part, *waiting]
            continue
        kind = {nn.Conv2d: "Conv", nn.GroupNorm: "GroupNorm", ResBlock: "ResBlock"}[type(part)]
        place = f"{path}/{kind}_{numbers[kind]}"
        numbers[kind] += 1
        if isinstance(part, ResBlock):
            yield from _numbered(part, place)
            continue
        for name, parameter in part.named_parameters():
            value = parameter.detach()
            if name == "bias":
                yield f"{place}/bias", value
            elif kind == "Conv":
                yield f"{place}/kernel", value.permute(2, 3, 1, 0)
            else:
                yield f"{place}/scale", value
