"""How many floating-point operations the work takes: 2 m k n for a product of (m, k) and (k, n).

Two counts of the same decoding:

- done: what maskgit.decoding really computes. `Counted` listens to the transformer, and each
  forward tells how many images and how many masked positions it was for, rows that fill products
  up included.
- full: what the official loop computes, T forwards of every position with the head over the whole
  vocabulary.

Their ratio is what leaving out work saves, and a rate of `full` may lie above the matmul rate.
Softmax, normalisation and noise are counted in neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from maskgit.model.transformer import Transformer, TransformerConfig


def layer_flops(config: TransformerConfig, length: int, rows: int | None = None) -> int:
    """One layer of one image of `length` positions; after the attention of `rows` only."""
    width, rest = config.width, length if rows is None else rows
    attention = 2 * length * 3 * width**2 + 4 * length**2 * width
    return attention + 2 * rest * (width**2 + 2 * width * config.mlp)


def forward_flops(config: TransformerConfig, images: int, rows: int, entries: int) -> int:
    """One forward of so many images, the last layer and the head of `rows` positions in all.

    entries: of the vocabulary, for which the head gives logits.
    """
    length = 1 + config.num_tokens
    whole = layer_flops(config, length)
    # The last layer's part before the rows are picked, then what the rows need.
    last = images * layer_flops(config, length, 0)
    last += rows * (layer_flops(config, length, 1) - layer_flops(config, length, 0))
    head = 2 * rows * (config.width**2 + config.width * entries)
    return images * (config.layers - 1) * whole + last + head


def full_flops(config: TransformerConfig, images: int, steps: int) -> int:
    """The official loop's work: every position, the whole vocabulary, in each iteration."""
    rows = images * (1 + config.num_tokens)
    return steps * forward_flops(config, images, rows, config.vocab_size)


class Counted:
    """Context in which a transformer's forwards are counted.

    After it: `flops`, `forwards` (of one image each) and `rows` (positions the head was for).
    """

    def __init__(self, transformer: Transformer):
        self.transformer, self.config = transformer, transformer.config
        self.flops = self.forwards = self.rows = 0

    def __enter__(self) -> Counted:
        hidden: Callable[..., Any] = self.transformer.hidden
        code_logits: Callable[..., Any] = self.transformer.code_logits
        self._before = dict(self.transformer.__dict__)

        def counting_hidden(tokens: Any, positions: Any = None) -> Any:
            found = hidden(tokens, positions)
            rows = found.numel() // self.config.width
            self.forwards += len(tokens)
            self.flops += forward_flops(self.config, len(tokens), rows, 0)
            self.flops -= 2 * rows * self.config.width**2  # the head is counted where it runs
            return found

        def counting_head(states: Any) -> Any:
            rows = states.numel() // self.config.width
            width = self.config.width
            self.rows += rows
            self.flops += 2 * rows * (width**2 + width * self.config.num_codes)
            return code_logits(states)

        self.transformer.__dict__.update(hidden=counting_hidden, code_logits=counting_head)
        return self

    def __exit__(self, *unused: object) -> None:
        for name in ("hidden", "code_logits"):
            self.transformer.__dict__.pop(name)
            if name in self._before:
                self.transformer.__dict__[name] = self._before[name]


def sampling_flops(
    config: TransformerConfig, schedule: str, steps: int, images: int, classes: int
) -> int:
    """What decoding computes for images of so many classes, without the rows that only fill up."""
    from maskgit.schedules import mask_counts

    left = mask_counts(schedule, steps, config.num_tokens)
    total = forward_flops(config, classes, classes * config.num_tokens, config.num_codes)
    for step in range(1, steps):
        rows = left[step - 1]
        # An image with one token left waits for the last iteration.
        if rows > 1 or step == steps - 1:
            total += forward_flops(config, images, images * rows, config.num_codes)
    return total


def forward_bytes(config: TransformerConfig, images: int, length: int, size: int) -> int:
    """Bytes that one forward moves at the least, if every operation reads and writes memory once.

    length: positions of an image that are computed; size: of a number. The weights are read once
    whatever the images are.
    """
    width, mlp, rows = config.width, config.mlp, images * length
    layer = 4 * width**2 + 2 * width * mlp  # weights
    # In and out of: three projections, attention, its projection, the perceptron; then two sums
    # with their normalisations (two reads, one write each).
    layer += rows * (width + 3 * width + 3 * width + width + 2 * width + 2 * (width + mlp))
    layer += 2 * rows * 3 * width
    head = width**2 + width * config.num_codes + rows * (2 * width + config.num_codes)
    return size * (config.layers * layer + head)


def jax_flops(config: TransformerConfig, images: int, steps: int) -> int:
    """What maskgit.jax computes: every position, the codes only; batches of a power of two."""
    from maskgit.jax.devices import program_batch

    filled = program_batch(images, 2**30)
    rows = filled * (1 + config.num_tokens)
    body = steps * forward_flops(config, filled, rows, 0)
    body -= steps * 2 * rows * config.width**2
    grid = filled * config.num_tokens
    return body + steps * 2 * grid * (config.width**2 + config.width * config.num_codes)


def decoder_flops(preset: Any) -> int:
    """Pixels of one image from its tokens: the convolutions of the tokenizer's decoder."""
    import torch

    from maskgit.model.tokenizer import Tokenizer
    from maskgit.training.cost import count_flops

    with torch.device("meta"):
        model = Tokenizer(preset.tokenizer)
        codes = torch.zeros(1, preset.tokenizer.code_dim, *preset.grid)
    return int(count_flops(lambda: model.decoder(codes)))


def autoregressive_flops(config: TransformerConfig, images: int, rows: int) -> int:
    """All N steps with the cache; every step's products have `rows` rows (images, filled up)."""
    width, length = config.width, config.num_tokens
    products = config.layers * 2 * rows * (4 * width**2 + 2 * width * config.mlp)
    head = 2 * rows * (width**2 + width * config.num_codes)
    # Step i attends to i positions, the first to one.
    attention = config.layers * 4 * width * images * (length * (length + 1) // 2)
    return length * (products + head) + attention
