"""The transformer of maskgit.model.transformer as a function of its parameters.

Parameters come from the same files. Products are in float32 also where an accelerator would take
fewer bits by default, so that the logits are those of torch up to rounding.
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
from maskgit.jax.devices import replicate
from maskgit.model.config import TransformerConfig
from maskgit.model.transformer import LAYER_NORM_EPS
from maskgit.model.transformer import Transformer as TorchTransformer

Parameters = dict[str, Any]
FULL = jax.lax.Precision.HIGHEST


@dataclass(frozen=True)
class Transformer:
    """A configuration and the parameters, a copy of them on every local device."""

    config: TransformerConfig
    parameters: Parameters

    def __call__(self, tokens: np.ndarray | Array) -> Array:
        """tokens (B, 1+N) integers in [0, V), -1 for the mask too -> logits (B, 1+N, V) float32.

        Raises UsageError when the sequence is not 1+N long.
        """
        tokens = jnp.asarray(tokens)
        if tokens.ndim != 2 or tokens.shape[1] != 1 + self.config.num_tokens:
            raise UsageError(
                f"tokens must have shape (B, {1 + self.config.num_tokens}): the class and "
                f"{self.config.num_tokens} tokens; got {tuple(tokens.shape)}"
            )
        return _logits(self.config, self.parameters, tokens)


def load_transformer(path: str | Path, num_codes: int | None = None) -> Transformer:
    """A transformer from our folder or an official flax file.

    maskgit.checkpoints.load_transformer reads it; arguments and UsageErrors are the same.
    """
    return from_torch(checkpoints.load_transformer(path, num_codes))


def from_torch(model: TorchTransformer) -> Transformer:
    """The same network in JAX, with copies of the parameters."""
    state = model.state_dict()

    def copy(name: str) -> Array:
        # Matrices multiply from the right here: (in, out). Embeddings stay as they are.
        value = state[name].detach().cpu().numpy().astype(np.float32)
        turned = value.T if value.ndim == 2 and not name.endswith("embeddings.weight") else value
        return replicate(np.array(turned, order="C"))

    def affine(name: str) -> Parameters:
        return {"weight": copy(f"{name}.weight"), "bias": copy(f"{name}.bias")}

    parts = ("attention.qkv", "attention.out", "attention_norm", "mlp_in", "mlp_out", "mlp_norm")
    parameters = {
        "words": copy("word_embeddings.weight"),
        "positions": copy("position_embeddings.weight"),
        "embeddings_norm": affine("embeddings_norm"),
        "layers": [
            {part: affine(f"layers.{i}.{part}") for part in parts}
            for i in range(model.config.layers)
        ],
        "head_dense": affine("head_dense"),
        "head_norm": affine("head_norm"),
        "head_bias": copy("head_bias"),
    }
    return Transformer(model.config, parameters)


def hidden(config: TransformerConfig, parameters: Parameters, tokens: Array) -> Array:
    """The last layer's output: tokens (B, 1+N), -1 or V-1 for the mask -> (B, 1+N, width)."""
    tokens = jnp.where(tokens == -1, config.mask_id, tokens)
    x = parameters["words"][tokens] + parameters["positions"]
    x = _norm(parameters["embeddings_norm"], x)
    for layer in parameters["layers"]:
        x = _norm(layer["attention_norm"], x + _attention(config, layer, x))
        x = _norm(layer["mlp_norm"], x + _mlp(layer, x))
    return x


def head(parameters: Parameters, hidden: Array, entries: int) -> Array:
    """Logits of the first `entries` of the vocabulary: (..., width) -> (..., entries)."""
    x = _norm(parameters["head_norm"], _gelu(_dense(parameters["head_dense"], hidden)))
    words = parameters["words"][:entries]
    return jnp.matmul(x, words.T, precision=FULL) + parameters["head_bias"][:entries]


@partial(jax.jit, static_argnums=0)
def _logits(config: TransformerConfig, parameters: Parameters, tokens: Array) -> Array:
    return head(parameters, hidden(config, parameters, tokens), config.vocab_size)


def _dense(parameters: Parameters, x: Array) -> Array:
    return jnp.matmul(x, parameters["weight"], precision=FULL) + parameters["bias"]


def _gelu(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=True)


def _norm(parameters: Parameters, x: Array) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    scale = parameters["weight"] * jax.lax.rsqrt(variance + LAYER_NORM_EPS)
    return centred * scale + parameters["bias"]


def _attention(config: TransformerConfig, layer: Parameters, x: Array) -> Array:
    """Self-attention over all positions; one product gives queries, keys and values."""
    batch, length, width = x.shape
    size = width // config.heads
    qkv = _dense(layer["attention.qkv"], x).reshape(batch, length, 3, config.heads, size)
    query, key, value = qkv.transpose(2, 0, 3, 1, 4)
    scores = jnp.einsum("bhqd,bhkd->bhqk", query, key, precision=FULL) / np.float32(size**0.5)
    mixed = jnp.einsum("bhqk,bhkd->bhqd", jax.nn.softmax(scores), value, precision=FULL)
    return _dense(layer["attention.out"], mixed.transpose(0, 2, 1, 3).reshape(x.shape))


def _mlp(layer: Parameters, x: Array) -> Array:
    return _dense(layer["mlp_out"], _gelu(_dense(layer["mlp_in"], x)))
