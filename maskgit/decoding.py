"""Iterative parallel decoding: from masked tokens to an image in a fixed number of iterations.

The loop of the official code (google-research/maskgit, libml/parallel_decode.py). In iteration
t = start..T-1, for every image on its own:

1. Sample every masked token from its softmax. Known tokens never change.
2. r = (t+1)/T; n = max(1, min(unknown - 1, floor(N0 * gamma(r)))) tokens will be masked again.
   N0 is the number of tokens unknown at the start, of this image.
3. confidence = log p(sampled) + choice_temperature * (1 - r) * Gumbel noise; known tokens +inf.
4. Mask again those whose confidence is strictly below the n-th (from 0) of the sorted ones.

The image is the unmasked sample of the last iteration.

A sample depends on (seed, sample id, class, known tokens, settings) and on nothing else. The noise
is counter-based, and two numbers per position and iteration suffice: one picks the token through
the cumulative distribution, one makes the Gumbel noise. What is left is the arithmetic: a matrix
product gives a row the same bits whatever the other rows are, except when there are few of them
(measured: one with oneDNN, up to 27 with MKL and many threads), so products here always have at
least `MIN_ROWS` rows, and those of masked positions a multiple of `ROW_MULTIPLE`. On a CPU in
float32 the tokens are then the same for any batch size and number of threads, which
tests/maskgit/test_decoding.py checks; on a GPU, or compiled (`maskgit.sampling.compiled`), this is
not promised. A GPU, and programs of fixed shape, run the form of this loop that never waits for the
device, `maskgit.sampling.fixed`; what follows is about the loop in this file.

Three savings are exact. Images that start fully masked share the first forward of their class. The
last layer and the head are computed at masked positions only. An image with one token left repeats
the same state until the last iteration, so the iterations between are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, overload

import torch
from torch import Tensor

from maskgit.model.config import TransformerConfig
from maskgit.model.linear import packed_weights
from maskgit.model.transformer import Transformer
from maskgit.sampling.arguments import Settings, State, Trace, begin, check_integer
from maskgit.sampling.draw import check_finite, draw, mask_least_confident
from maskgit.sampling.fixed import decode_fixed
from maskgit.sampling.noise import gumbel, position_uniforms

__all__ = ["Trace", "bytes_of_a_row", "generate", "mask_least_confident"]

MIN_ROWS = 64
ROW_MULTIPLE = 16
# Rows (images times sequence length) of one forward, when the caller names no batch size: on a CPU
# what stays in the caches, on a GPU what fills it, or half of its free memory.
CPU_ROWS = 2048
GPU_ROWS = 65536


@overload
def generate(
    transformer: Transformer, labels: Tensor, *, trace: Literal[True], **settings: Any
) -> Trace: ...
@overload
def generate(
    transformer: Transformer, labels: Tensor, *, trace: Literal[False] = False, **settings: Any
) -> Tensor: ...
def generate(  # type: ignore[misc]  # the overloads leave the other settings to this signature
    transformer: Transformer,
    labels: Tensor,
    *,
    steps: int,
    schedule: str = "cosine",
    choice_temperature: float = 4.5,
    sampling_temperature: float = 1.0,
    seed: int = 0,
    sample_ids: Tensor | None = None,
    tokens: Tensor | None = None,
    start: int = 0,
    batch_size: int | None = None,
    share_first: bool = True,
    trace: bool = False,
) -> Tensor | Trace:
    """Tokens of one image per label.

    transformer: on any device; dropout is off while this runs.
    labels: (B,) integers, class ids in [0, num_classes).
    steps: T >= 1, the number of iterations.
    schedule: a name of maskgit.schedules.
    choice_temperature: >= 0, times the Gumbel noise of the confidence (the paper's 4.5).
    sampling_temperature: > 0, divides the logits when a token is drawn. The confidence remains the
        probability at temperature 1. Not in the official code, which always uses 1.
    seed, sample_ids: integers in [0, 2**32) that name the noise of a sample; sample_ids (B,),
        by default 0..B-1. A sample does not depend on the others of the call.
    tokens: (B, N) integers, a partly known grid with the mask id (V-1) where unknown; images may
        differ in how many. By default everything is unknown.
    start: first iteration, in [0, steps): where in the schedule an edit begins.
    batch_size: most images in one forward, which costs memory and time and changes no token;
        by default about 2048 rows on a CPU; on a GPU 65536, or what half of its free memory holds.
    share_first: compute the first forward of fully masked images once for each class.
    trace: return a Trace of every iteration.

    Returns (B, N) int64 tokens in [0, num_codes) on the transformer's device, or the Trace, whose
    last tokens are the same. Raises UsageError for arguments outside the ranges above, and when
    the logits are not finite.
    """
    settings = Settings(steps, start, choice_temperature, sampling_temperature, seed, trace)
    settings.check()
    device = transformer.word_embeddings.weight.device
    state = begin(transformer.config, device, settings, schedule, labels, sample_ids, tokens)
    if batch_size is None:
        batch_size = max(1, _rows_of_a_forward(transformer) // (1 + transformer.config.num_tokens))
    check_integer("batch_size", batch_size, 1)

    with _evaluating(transformer):
        if device.type == "cuda" or transformer.program is not None:
            decode_fixed(transformer, settings, state, batch_size, share_first)
        else:
            _decode_exactly(transformer, settings, state, batch_size, share_first)
    return state.trace if trace else state.final


def bytes_of_a_row(config: TransformerConfig) -> int:
    """Most memory of one row of a forward and of the draw from it, in float32: the residual, its
    queries, keys and values, the perceptron's inside, logits, their exponentials and their sums."""
    return 4 * (4 * config.width + config.mlp + 4 * config.num_codes)


def _rows_of_a_forward(transformer: Transformer) -> int:
    device = transformer.word_embeddings.weight.device
    if device.type != "cuda":
        return CPU_ROWS
    free = torch.cuda.mem_get_info(device)[0]
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(GPU_ROWS, free // 2 // bytes_of_a_row(transformer.config))


def _decode_exactly(
    transformer: Transformer, settings: Settings, state: State, batch_size: int, share_first: bool
) -> None:
    """Decode all images of `state` into its `final` and trace, at masked positions only."""
    everything = torch.arange(len(state.labels), device=state.grid.device)
    shared = (state.grid == state.mask_id).all(dim=1) & share_first
    _first_iteration(transformer, settings, state, everything[shared], batch_size)
    for chunk in everything.split(batch_size):
        _iterate(transformer, settings, state, chunk[~shared[chunk]], settings.start)
        for step in range(settings.start + 1, settings.steps):
            _iterate(transformer, settings, state, chunk, step)


def _first_iteration(
    transformer: Transformer,
    settings: Settings,
    state: State,
    images: Tensor,
    batch_size: int,
) -> None:
    """The first iteration of fully masked `images`: one forward per class, one draw per image."""
    if not len(images):
        return
    codes, length = transformer.config.num_codes, state.grid.shape[1]
    for classes in state.labels[images].unique().split(batch_size):
        inputs = torch.full((len(classes), 1 + length), state.mask_id, device=classes.device)
        inputs[:, 0] = codes + classes
        everywhere = torch.arange(len(classes) * length, device=classes.device)
        logits = _code_logits(transformer, inputs, everywhere).view(len(classes), length, codes)
        for label, class_logits in zip(classes, logits, strict=True):
            members = images[state.labels[images] == label]
            noise = _noise(settings, state, members, settings.start)
            picks = noise[:, 0].T.contiguous()
            sampled, log_p = _sample(class_logits, picks, settings.sampling_temperature)
            _conclude(settings, state, members, settings.start, sampled.T, log_p.T, noise[:, 1])


def _iterate(
    transformer: Transformer, settings: Settings, state: State, images: Tensor, step: int
) -> None:
    """One iteration of the given images."""
    unknown = state.grid[images] == state.mask_id
    # With one token left an iteration masks that same token again, so only the last one matters.
    # A grid of one position has no cut-off above it, and the official loop then keeps the sample.
    repeats = not settings.trace and step < settings.steps - 1 and unknown.shape[1] > 1
    live = unknown.sum(dim=1) > (1 if repeats else 0)
    images, unknown = images[live], unknown[live]
    if not len(images):
        return
    inputs = torch.cat(
        ((transformer.config.num_codes + state.labels[images])[:, None], state.grid[images]), dim=1
    )
    positions = unknown.view(-1).nonzero().squeeze(1)
    logits = _code_logits(transformer, inputs, positions)
    noise = _noise(settings, state, images, step)
    picks = noise[:, 0].reshape(-1, 1)[positions]
    some_sampled, some_log_p = _sample(logits, picks, settings.sampling_temperature)
    # Known tokens stay, and no noise reaches their confidence.
    sampled, log_p = state.grid[images], torch.full_like(noise[:, 0], math.inf)
    sampled.view(-1)[positions] = some_sampled.squeeze(1)
    log_p.view(-1)[positions] = some_log_p.squeeze(1)
    _conclude(settings, state, images, step, sampled, log_p, noise[:, 1])


def _code_logits(transformer: Transformer, inputs: Tensor, positions: Tensor) -> Tensor:
    """Logits (M, num_codes) float32 at `positions (M,)`; `inputs` (n, 1+N) as for `hidden`.

    Rows are added and dropped again so that no product has too few (see the module's docstring).
    """
    wanted = len(positions)
    few = MIN_ROWS - inputs.numel()
    if few > 0:
        inputs = torch.cat((inputs, inputs[-1:].expand(-(-few // inputs.shape[1]), -1)))
    more = max(MIN_ROWS, -(-wanted // ROW_MULTIPLE) * ROW_MULTIPLE) - wanted
    positions = torch.cat((positions, positions[-1:].expand(more)))
    hidden = transformer.hidden(inputs, positions)
    return transformer.code_logits(hidden)[:wanted].float()


def _noise(settings: Settings, state: State, images: Tensor, step: int) -> Tensor:
    """Two uniforms (n, 2, N) per position: one for the token, one for the confidence."""
    ids = state.sample_ids[images]
    return position_uniforms(settings.seed, ids, step, state.grid.shape[1])


def _sample(logits: Tensor, picks: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Tokens and log-probabilities of `draw`. Raises UsageError when the logits are not finite."""
    tokens, log_p, total = draw(logits, picks, temperature)
    check_finite(total)
    return tokens, log_p


def _conclude(
    settings: Settings,
    state: State,
    images: Tensor,
    step: int,
    sampled: Tensor,
    log_p: Tensor,
    noise: Tensor,
) -> None:
    """End an iteration: mask the least confident again. sampled, log_p and noise are (n, N)."""
    iteration = step - settings.start
    confidence = log_p + settings.annealed(step) * gumbel(noise)
    masked = mask_least_confident(confidence, state.counts[images, iteration])
    state.final[images] = sampled
    state.grid[images] = sampled.masked_fill(masked, state.mask_id)
    if settings.trace:
        # Later iterations overwrite this for the images that still have unknown tokens.
        state.trace.tokens[iteration:, images] = sampled
        state.trace.masked[iteration, images] = masked
        state.trace.confidence[iteration, images] = confidence


@contextmanager
def _evaluating(transformer: Transformer) -> Iterator[None]:
    """Without dropout and gradients; afterwards the transformer is as before."""
    training = transformer.training
    transformer.eval()
    try:
        with torch.inference_mode(), packed_weights():
            yield
    finally:
        transformer.train(training)
