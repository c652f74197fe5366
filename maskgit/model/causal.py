"""The autoregressive transformer, the paper's baseline (rows "VQGAN" of Tables 1 and 5).

The layers and sizes of maskgit.model.transformer, with two changes: a position attends to itself
and to those before it only, and the head predicts the token that follows. The sequence is the
class and the tokens 0..N-2 in raster order; its outputs are the distributions of the tokens 0..N-1.

The vocabulary is [codes | classes]. There is no mask, and the head, tied to the word embeddings as
there, covers the codes only, because nothing else ever follows. For this baseline there is neither
official code nor an official file; VQGAN's own transformer is pre-norm and of another size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskgit.common.errors import UsageError
from maskgit.model.config import TransformerConfig
from maskgit.model.linear import linear
from maskgit.model.transformer import (
    LAYER_NORM_EPS,
    Attention,
    Layer,
    LinearGelu,
    _embedding,
    _initialise,
)


class Cache:
    """Keys and values of the positions read so far, for every layer, allocated once.

    keys and values: (layers, B, heads, N, width / heads), so that a layer's part is one block.
    """

    def __init__(self, config: TransformerConfig, images: int, like: Tensor) -> None:
        """For `images` images; type and device are those of `like`."""
        head = config.width // config.heads
        shape = (config.layers, images, config.heads, config.num_tokens, head)
        self.keys, self.values = like.new_empty(shape), like.new_empty(shape)
        self.length = 0  # positions that are filled

    @staticmethod
    def bytes_an_image(config: TransformerConfig) -> int:
        """Memory of one image in float32."""
        return 2 * 4 * config.layers * config.num_tokens * config.width


class CausalAttention(Attention):
    """Self-attention of every position over itself and those before it."""

    causal = True

    def step(self, x: Tensor, keys: Tensor, values: Tensor, position: int | Tensor) -> Tensor:
        """One new position of each image: x (R, width), of which the first B rows are images.

        keys, values: (B, heads, N, width / heads), filled before `position`; filled there by this.
        position: as (1,) int64 on the device all shapes are those of the whole cache, whatever the
            position is, so that one program serves all of them.
        Returns x and the attention, (R, width); the rows beyond B hold nothing of use.
        """
        images, width = len(keys), x.shape[1]
        qkv = self.qkv(x)[:images].view(images, 3, self.heads, width // self.heads)
        query, key, value = qkv.unbind(1)
        seen = None
        if isinstance(position, Tensor):
            keys.index_copy_(2, position, key[:, :, None])
            values.index_copy_(2, position, value[:, :, None])
            seen = (torch.arange(keys.shape[2], device=x.device) <= position)[None, None, None]
        else:
            keys[:, :, position], values[:, :, position] = key, value
            keys, values = keys[:, :, : position + 1], values[:, :, : position + 1]
        mixed = F.scaled_dot_product_attention(query[:, :, None], keys, values, attn_mask=seen)
        padded = x.new_zeros(x.shape)
        padded[:images] = mixed.reshape(images, width)
        return self.out(padded, x)


class CausalLayer(Layer):
    """The post-norm layer with causal attention."""

    attention: CausalAttention

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.attention = CausalAttention(config)

    def step(self, x: Tensor, keys: Tensor, values: Tensor, position: int | Tensor) -> Tensor:
        """As `CausalAttention.step`, of the whole layer, without dropout."""
        x = self.attention_norm(self.attention.step(x, keys, values, position))
        return self.mlp_norm(self.mlp_out(self.mlp_in(x), x))


class Autoregressive(nn.Module):
    """Predicts every token from the class and the tokens before it, in raster order."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.word_embeddings = _embedding(config.num_codes + config.num_classes, config.width)
        self.position_embeddings = _embedding(config.num_tokens, config.width)
        self.embeddings_norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(CausalLayer(config) for _ in range(config.layers))
        self.head_dense = LinearGelu(config.width, config.width)
        self.head_norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.head_bias = nn.Parameter(torch.zeros(config.num_codes))
        # Draws one position in a compiled program; see `maskgit.sampling.compiled`.
        self.program: Callable[..., tuple[Tensor, ...]] | None = None
        self.apply(_initialise)

    def hidden(self, labels: Tensor, tokens: Tensor, rows: Tensor | None = None) -> Tensor:
        """The last layer's output, before the head, with dropout in training.

        labels: (B,) int64 class ids. tokens: (B, L) int64 codes, the first L <= N-1 of the grid.
        rows: (M,) int64 of the B*(1+L), image after image; most of the last layer is then computed
            for those only. None means all.
        Returns (B, 1+L, width), or with rows (M, width). Row l of an image foresees token l.
        Raises UsageError for another shape.
        """
        most = self.config.num_tokens - 1
        if tokens.ndim != 2 or labels.shape != tokens.shape[:1] or tokens.shape[1] > most:
            raise UsageError(
                f"labels and tokens must have shapes (B,) and (B, L <= {most}); got "
                f"{tuple(labels.shape)} and {tuple(tokens.shape)}"
            )
        sequence = torch.cat(((self.config.num_codes + labels)[:, None], tokens), dim=1)
        positions = self.position_embeddings.weight[: sequence.shape[1]]
        x = self.dropout(self.embeddings_norm(self.word_embeddings(sequence) + positions))
        for layer in self.layers[:-1]:
            x = layer(x)
        return self.layers[-1](x, rows)

    def logits(self, hidden: Tensor) -> Tensor:
        """Head over the codes: (..., width) -> (..., num_codes)."""
        weight = self.word_embeddings.weight[: self.config.num_codes]
        return linear(self.head_norm(self.head_dense(hidden)), weight, self.head_bias)

    def forward(self, labels: Tensor, tokens: Tensor) -> Tensor:
        """Logits (B, 1+L, num_codes) of the tokens 0..L; arguments as in `hidden`."""
        return self.logits(self.hidden(labels, tokens))

    def step(self, entries: Tensor, cache: Cache) -> Tensor:
        """Read one more position of each image; the last layer's output there, without dropout.

        entries: (R,) int64, for the first position num_codes + class, then the token before; rows
            beyond the cache's B images are there to make products larger and hold any entry.
        cache: as left by the step before, `cache.length` positions long; one longer after this.
        Returns (R, width), of which the first B rows count. Raises UsageError when it is full.
        """
        position = cache.length
        if position >= self.config.num_tokens:
            raise UsageError(f"the cache is full: {position} positions of {position}")
        x = self.read(entries, cache.keys, cache.values, position)
        cache.length += 1
        return x

    def read(self, entries: Tensor, keys: Tensor, values: Tensor, position: int | Tensor) -> Tensor:
        """`step` with the parts of the cache; `position` as for `CausalAttention.step`."""
        x = self.word_embeddings(entries) + self.position_embeddings.weight[position]
        x = self.embeddings_norm(x)
        for layer, of_keys, of_values in zip(self.layers, keys, values, strict=True):
            x = cast(CausalLayer, layer).step(x, of_keys, of_values, position)
        return x
