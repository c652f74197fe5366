"""Decoding at fixed shapes: what a GPU runs, and the programs of `maskgit.sampling.compiled`.

The loop of `maskgit.decoding` with the same noise and the same arithmetic, arranged for a device
that must never wait for the processor that feeds it:

- Every iteration computes all positions of all images, so its shapes never change. Leaving out what
  is known already would save 1.1% of the work at T=8 (cosine, 256 tokens) and need a read of the
  masked positions in each iteration.
- Everything an iteration needs from outside lies on the device before the first one: the noise of
  all iterations, the choice temperatures, the numbers of tokens to mask, the classes of the batch.
- Nothing is read back in between. Whether the logits were finite is asked once, at the end.
- The first iteration of fully masked images computes one forward for each class of the batch.

On a CPU in float32 the tokens are those of the exact loop, which is the oracle in
tests/maskgit/sampling/test_fixed.py. That test also counts the operations of an iteration, on the
CPU and on a pretended GPU, and proves that none of them waits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from maskgit.model.transformer import Transformer
from maskgit.sampling.arguments import Settings, State
from maskgit.sampling.draw import check_finite, draw, mask_least_confident
from maskgit.sampling.noise import gumbel, loop_uniforms


@dataclass(frozen=True)
class Batch:
    """Some images of a call, all that their loop reads; B counts what fills a program up, too."""

    first: int  # the images are first..last-1 of the call
    last: int
    sequence: Tensor  # (B, 1+N) int64, the class and the tokens, masked where unknown
    picks: Tensor  # (T', B, N) float32, the uniforms that pick the tokens
    gumbels: Tensor  # (T', B, N) float32, what is added to the log-probabilities
    counts: Tensor  # (T', B) int64, how many tokens to mask again
    # The first forward of each class, and the class of each image; None where nothing is shared.
    class_sequence: Tensor | None = None  # (C, 1+N) int64
    which: Tensor | None = None  # (B,) int64 in [0, C)


Record = Callable[[int, Tensor, Tensor, Tensor], None]


def decode_fixed(
    transformer: Transformer,
    settings: Settings,
    state: State,
    batch_size: int,
    share_first: bool,
) -> None:
    """Decode all images of `state` into its `final` and, if one is wanted, its trace.

    batch_size: most images in one forward. Programs take 1, 2, 4, 8, ... images, and a batch is
        filled up to the next of these with copies of its last image.
    share_first: compute the first forward of fully masked images once for each class.

    Raises UsageError when the logits are not finite.
    """
    images = len(state.labels)
    steps = range(settings.start, settings.steps)
    annealed = torch.tensor([settings.annealed(step) for step in steps], device=state.grid.device)
    shares = _classes(transformer, state, batch_size) if share_first else {}
    totals = []
    for first in range(0, images, batch_size):
        last = min(first + batch_size, images)
        batch = _prepare(transformer, settings, state, first, last, annealed, shares.get(first))
        record = _recorder(state, first, last) if settings.trace else None
        sampled, total = loop(transformer, batch, settings.sampling_temperature, record)
        state.final[first:last] = sampled[: last - first]
        totals.append(total)
    if totals:
        check_finite(torch.stack(totals))


def loop(
    transformer: Transformer, batch: Batch, temperature: float, record: Record | None = None
) -> tuple[Tensor, Tensor]:
    """All iterations of a batch, in which nothing waits for the device.

    temperature: the sampling temperature. record: called with the number of each iteration, its
        tokens, what it masks and its confidences.

    Returns the tokens (B, N) and a number that is finite if and only if all logits were.
    """
    program: Callable[..., tuple[Tensor, ...]] = transformer.program or iterate
    sequence = batch.sequence
    sampled, finite = sequence[:, 1:], torch.zeros((), device=sequence.device)
    for i in range(len(batch.picks)):
        inputs, which = sequence, None
        if i == 0 and batch.class_sequence is not None:
            inputs, which = batch.class_sequence, batch.which
        if transformer.program is not None:
            # What a CUDA graph returned before may now be written again: `cat` has copied it.
            torch.compiler.cudagraph_mark_step_begin()
        grid, sampled, masked, confidence, total = program(
            transformer,
            inputs,
            which,
            sequence[:, 1:],
            batch.picks[i],
            batch.gumbels[i],
            batch.counts[i],
            temperature,
        )
        sequence = torch.cat((sequence[:, :1], grid), dim=1)
        finite = finite + total
        if record is not None:
            record(i, sampled, masked, confidence)
    return sampled, finite


def iterate(
    transformer: Transformer,
    inputs: Tensor,
    which: Tensor | None,
    grid: Tensor,
    picks: Tensor,
    gumbels: Tensor,
    counts: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One iteration at all positions; the steps 1 to 3 of `maskgit.decoding`.

    inputs: (C, 1+N) sequences of the forward. which: (B,) the one of each image, None for its own.
    grid: (B, N) tokens with the mask id where unknown. picks, gumbels: (B, N). counts: (B,).

    Returns the grid masked again, the tokens, what is masked (bool) and the confidences, all
    (B, N), and the sum of the distributions' sums, which shows whether the logits were finite.
    """
    mask_id = transformer.config.mask_id
    logits = transformer.forward_codes(inputs).float()
    if which is not None:
        logits = logits.index_select(0, which)
    drawn, log_p, total = draw(logits.flatten(0, 1), picks.reshape(-1, 1), temperature)
    known = grid != mask_id
    sampled = torch.where(known, grid, drawn.view_as(grid))
    confidence = (log_p.view_as(grid) + gumbels).masked_fill_(known, math.inf)
    masked = mask_least_confident(confidence, counts)
    return sampled.masked_fill(masked, mask_id), sampled, masked, confidence, total.sum()


def _prepare(
    transformer: Transformer,
    settings: Settings,
    state: State,
    first: int,
    last: int,
    annealed: Tensor,
    classes: tuple[Tensor, Tensor] | None,
) -> Batch:
    """Lay out the images first..last-1. annealed: (T',) choice temperatures of the iterations."""
    size, device = last - first, state.grid.device
    if transformer.program is not None:
        size = next_power_of_two(size)
    images = torch.arange(first, first + size, device=device).clamp_(max=last - 1)
    codes, length = transformer.config.num_codes, state.grid.shape[1]
    entries = (codes + state.labels[images])[:, None]
    picks, uniforms = loop_uniforms(
        settings.seed, state.sample_ids[images], settings.start, settings.steps, length
    )
    class_sequence = which = None
    if classes is not None:
        class_ids, which = classes
        class_sequence = torch.full((len(class_ids), 1 + length), state.mask_id, device=device)
        class_sequence[:, 0] = codes + class_ids
    return Batch(
        first,
        last,
        torch.cat((entries, state.grid[images]), dim=1),
        picks,
        annealed[:, None, None] * gumbel(uniforms),
        state.counts[images].T.contiguous(),
        class_sequence,
        which,
    )


def _classes(
    transformer: Transformer, state: State, batch_size: int
) -> dict[int, tuple[Tensor, Tensor]]:
    """By the first image of a batch: its classes (C,) and the index (B,) of each image's class.

    A batch is left out where an image has known tokens, or where nothing would be saved. The device
    is waited for here, once for the call.
    """
    labels, device = state.labels.cpu(), state.labels.device
    fresh = (state.grid == state.mask_id).all(dim=1).cpu()
    shares = {}
    for first in range(0, len(labels), batch_size):
        part = labels[first : first + batch_size]
        if not bool(fresh[first : first + batch_size].all()):
            continue
        classes, which = part.unique(return_inverse=True)
        if transformer.program is not None:
            which = fill_up(which)
            classes = fill_up(classes)
        if len(classes) < len(which):
            shares[first] = classes.to(device), which.to(device)
    return shares


def fill_up(values: Tensor) -> Tensor:
    """values (n,) and copies of the last, up to the next power of two."""
    more = next_power_of_two(len(values)) - len(values)
    return torch.cat((values, values[-1:].expand(more)))


def next_power_of_two(number: int) -> int:
    """The smallest power of two that is not below `number` >= 1."""
    return 1 << (number - 1).bit_length()


def _recorder(state: State, first: int, last: int) -> Record:
    """What writes the iterations of the images first..last-1 into the trace."""

    def record(i: int, sampled: Tensor, masked: Tensor, confidence: Tensor) -> None:
        size = last - first
        state.trace.tokens[i, first:last] = sampled[:size]
        state.trace.masked[i, first:last] = masked[:size]
        state.trace.confidence[i, first:last] = confidence[:size]

    return record
