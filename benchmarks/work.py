"""How many floating-point operations the work takes: 2 m k n for a product of (m, k) and (k, n).

Two counts of the same decoding:

- done: what maskgit.decoding really computes, as torch's own counter sees it (`counted`), rows that
  only fill products up included.
- full: what the official loop computes, T forwards of every position with the head over the whole
  vocabulary (`full_flops`).

Their ratio is what leaving out work saves, and a rate of `full` may lie above the matmul rate.
Softmax, normalisation and noise are counted in neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from maskgit.model.config import TransformerConfig
from maskgit.model.tokenizer import Tokenizer
from maskgit.model.transformer import Transformer
from maskgit.presets import Preset
from maskgit.schedules import mask_counts
from maskgit.training.cost import count_flops


def counted(model: Transformer, run: Callable[[], object]) -> tuple[int, int]:
    """(operations of one call of `run`, forwards of one image in it)."""
    forwards = 0

    def count(layer: Any, inputs: tuple[torch.Tensor, ...], output: object) -> None:
        nonlocal forwards
        forwards += len(inputs[0])

    hook = model.layers[0].register_forward_hook(count)
    try:
        with FlopCounterMode(display=False, custom_mapping=_onednn_products()) as counter:
            run()
    finally:
        hook.remove()
    return counter.get_total_flops(), forwards


def _onednn_products() -> dict[Any, Any]:
    """The product of maskgit.model.linear, which torch's counter does not know."""

    def flops(x: Any, *others: Any, out_shape: Any, **more: Any) -> int:
        return 2 * x[-1] * math.prod(out_shape)

    if not torch.backends.mkldnn.is_available():
        return {}
    return {torch.ops.mkldnn._linear_pointwise: flops}


def full_flops(config: TransformerConfig, images: int, steps: int) -> int:
    """The official loop's work: every position, the whole vocabulary, in each iteration."""
    with torch.device("meta"):
        model = Transformer(config)
        tokens = torch.zeros(images, 1 + config.num_tokens, dtype=torch.int64)
    return steps * int(count_flops(lambda: model(tokens)))


def jax_flops(config: TransformerConfig, images: int, steps: int) -> int:
    """What maskgit.jax computes: every position, the codes only; batches of a power of two."""
    from maskgit.jax.devices import program_batch  # jax would add to the memory of other cases

    with torch.device("meta"):
        model = Transformer(config)
        tokens = torch.zeros(program_batch(images, 2**30), 1 + config.num_tokens, dtype=torch.int64)
    return steps * int(count_flops(lambda: model.forward_codes(tokens)))


def decoder_flops(preset: Preset) -> int:
    """Pixels of one image from its tokens: the convolutions of the tokenizer's decoder."""
    with torch.device("meta"):
        model = Tokenizer(preset.tokenizer)
        codes = torch.zeros(1, preset.tokenizer.code_dim, *preset.grid)
    return int(count_flops(lambda: model.decoder(codes)))


def autoregressive_flops(config: TransformerConfig, images: int, rows: int) -> int:
    """All N steps with the cache; every step's products have `rows` rows (images, filled up)."""
    width, length = config.width, config.num_tokens
    layer = 2 * rows * (4 * width**2 + 2 * width * config.mlp)
    head = 2 * rows * (width**2 + width * config.num_codes)
    # Step i attends to i positions, the first to one.
    attention = config.layers * 4 * width * images * (length * (length + 1) // 2)
    return length * (config.layers * layer + head) + attention


def sampling_flops(
    config: TransformerConfig, schedule: str, steps: int, images: int, classes: int
) -> int:
    """What decoding computes for images of so many classes, without rows that only fill up.

    It equals `counted` (a test), for numbers of images that nobody could sample to count.
    """
    left = mask_counts(schedule, steps, config.num_tokens)
    total = forward_flops(config, classes, classes * config.num_tokens)
    for step in range(1, steps):
        rows = left[step - 1]
        # An image with one token left waits for the last iteration.
        if rows > 1 or step == steps - 1:
            total += forward_flops(config, images, images * rows)
    return total


def forward_flops(config: TransformerConfig, images: int, rows: int) -> int:
    """One forward of so many images, the last layer and the head of `rows` positions in all."""
    width, length = config.width, 1 + config.num_tokens
    attention = 2 * length * 3 * width**2 + 4 * length**2 * width  # of an image
    position = 2 * (width**2 + 2 * width * config.mlp)  # the rest of a layer
    head = 2 * (width**2 + width * config.num_codes)
    layers = config.layers * attention + (config.layers - 1) * length * position
    return images * layers + rows * (position + head)
