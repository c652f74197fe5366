"""Stage 2: the bidirectional transformer that predicts masked tokens.

The network of the official code (google-research/maskgit, nets/maskgit_transformer.py), which is a
post-norm BERT without segments and pooling:

    embeddings   LayerNorm(word + position), then dropout
    each layer   x = LayerNorm(x + dropout(attention(x)));  x = LayerNorm(x + dropout(mlp(x)))
    head         dense, GELU, LayerNorm, product with the word embeddings (tied), one bias per entry

GELU is the tanh approximation, LayerNorm's epsilon 1e-12; weights start from a normal cut at two
standard deviations times 0.02, biases from 0. One difference in training only: flax drops the same
attention probabilities in every image and head of a batch, here each is drawn on its own.

The vocabulary is [codes | classes | mask]: code k is k, class c is num_codes + c, and the mask is
the last entry. A sequence is the class followed by the grid's tokens in raster order.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskgit.common.errors import UsageError
from maskgit.model.config import TransformerConfig
from maskgit.model.linear import linear, linear_gelu

LAYER_NORM_EPS = 1e-12
INIT_STD = 0.02


class Linear(nn.Linear):
    """nn.Linear with the product of maskgit.model.linear, and what is added to it."""

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        return linear(x, self.weight, self.bias, plus)


class LinearGelu(nn.Linear):
    """nn.Linear and the tanh GELU after it."""

    def forward(self, x: Tensor) -> Tensor:
        return linear_gelu(x, self.weight, self.bias)


class Attention(nn.Module):
    """Self-attention over all positions; one projection gives queries, keys and values."""

    causal = False  # True: over itself and those before it

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.dropout
        self.qkv = Linear(config.width, 3 * config.width)
        self.out = Linear(config.width, config.width)

    def forward(self, x: Tensor, rows: Tensor | None = None, plus: Tensor | None = None) -> Tensor:
        """x (B, S, width) -> the same; with `rows (M,)` of the B*S only those: (M, width).

        plus: of the result's shape, added to it.
        """
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        dtype = qkv.dtype
        if x.dtype == torch.bfloat16 and x.device.type == "cpu" and not torch.is_grad_enabled():
            qkv = qkv.float()  # faster on a CPU (benchmarks/NOTES.md), and more exact
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=self.causal,
        )
        mixed = mixed.transpose(1, 2).reshape(batch, length, width).to(dtype)
        return self.out(mixed if rows is None else mixed.view(-1, width)[rows], plus)


class Layer(nn.Module):
    """One post-norm layer: attention, then a two-layer perceptron, each added and normalised."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.mlp_in = LinearGelu(config.width, config.mlp)
        self.mlp_out = Linear(config.mlp, config.width)
        self.mlp_norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """As `Attention.forward`: after the attention, a position needs itself only."""
        kept = x if rows is None else x.view(-1, x.shape[-1])[rows]
        x = self.attention_norm(self._plus(kept, self.attention, x, rows))
        return self.mlp_norm(self._plus(x, self.mlp_out, self.mlp_in(x)))

    def _plus(self, x: Tensor, module: nn.Module, *inputs: Tensor | None) -> Tensor:
        """x + dropout(module(inputs)), in one pass where nothing is dropped."""
        if self.training:
            return x + self.dropout(module(*inputs))
        return module(*inputs, plus=x)


class Transformer(nn.Module):
    """Predicts every position's token from the class and the tokens known so far.

    `hidden` and the two heads `logits` and `code_logits` are separate, so that training computes
    the head at masked positions only, and decoding also leaves out the columns it would cut off.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.word_embeddings = _embedding(config.vocab_size, config.width)
        self.position_embeddings = _embedding(1 + config.num_tokens, config.width)
        self.embeddings_norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.head_dense = LinearGelu(config.width, config.width)
        self.head_norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.head_bias = nn.Parameter(torch.zeros(config.vocab_size))
        # A compiled `maskgit.sampling.fixed.iterate`, by `maskgit.sampling.compiled`.
        self.program: Callable[..., tuple[Tensor, ...]] | None = None
        self.apply(_initialise)

    def hidden(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """The last layer's output, before the head.

        tokens: (B, 1+N) int64 in [0, V); -1 also stands for the mask, as in the official code.
        positions: where in the grid it is wanted, (B, N) bool or (M,) int64 indices into the B*N;
            most of the last layer is then computed for those only. None means the whole sequence.
        Returns (B, 1+N, width), or with positions (M, width): image after image in raster order,
        or in the order of the indices. Raises UsageError when the sequence is not 1+N long.
        """
        if tokens.ndim != 2 or tokens.shape[1] != 1 + self.config.num_tokens:
            raise UsageError(
                f"tokens must have shape (B, {1 + self.config.num_tokens}): the class and "
                f"{self.config.num_tokens} tokens; got {tuple(tokens.shape)}"
            )
        tokens = tokens.masked_fill(tokens == -1, self.config.mask_id)
        x = self.word_embeddings(tokens) + self.position_embeddings.weight
        x = self.dropout(self.embeddings_norm(x))
        for layer in self.layers[:-1]:
            x = layer(x)
        return self.layers[-1](x, None if positions is None else self._rows(positions))

    def logits(self, hidden: Tensor) -> Tensor:
        """Head over the whole vocabulary: (..., width) -> (..., V)."""
        return linear(self._head(hidden), self.word_embeddings.weight, self.head_bias)

    def code_logits(self, hidden: Tensor) -> Tensor:
        """Head over the codes only, what sampling needs: (..., width) -> (..., num_codes)."""
        codes = self.config.num_codes
        return linear(
            self._head(hidden), self.word_embeddings.weight[:codes], self.head_bias[:codes]
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (B, 1+N) int64, as in `hidden` -> logits (B, 1+N, V)."""
        return self.logits(self.hidden(tokens))

    def forward_codes(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """Logits of the codes at the wanted positions of the grid; arguments as in `hidden`.

        Returns (B, N, num_codes), or with positions (M, num_codes).
        """
        hidden = self.hidden(tokens, positions)
        return self.code_logits(hidden[:, 1:] if positions is None else hidden)

    def _rows(self, positions: Tensor) -> Tensor:
        """Positions of the grid, as in `hidden`, to rows of the B*(1+N) with the classes."""
        if positions.dtype == torch.bool:
            positions = positions.reshape(-1).nonzero().squeeze(1)
        return positions + positions // self.config.num_tokens + 1

    def _head(self, hidden: Tensor) -> Tensor:
        return self.head_norm(self.head_dense(hidden))


def _embedding(rows: int, width: int) -> nn.Embedding:
    """Without nn.Embedding's own start, which on the meta device imports 900 modules."""
    return nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)


def _initialise(module: nn.Module) -> None:
    """Truncated normal (cut at 2 sd) times 0.02; biases 0 and LayerNorm scales 1."""
    if isinstance(module, nn.Linear | nn.Embedding) and not module.weight.is_meta:
        nn.init.trunc_normal_(module.weight, std=INIT_STD, a=-2 * INIT_STD, b=2 * INIT_STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
