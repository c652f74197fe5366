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
not promised.

Three savings are exact. Images that start fully masked share the first forward of their class. The
last layer and the head are computed at masked positions only. An image with one token left repeats
the same state until the last iteration, so the iterations between are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from maskgit.common.errors import UsageError
from maskgit.model.config import TransformerConfig
from maskgit.model.linear import packed_weights
from maskgit.model.transformer import Transformer
from maskgit.sampling.noise import gumbel, position_uniforms, prng_key
from maskgit.schedules import mask_counts

MIN_ROWS = 64
ROW_MULTIPLE = 16
# Rows (images times sequence length) of one forward, when the caller names no batch size: on a CPU
# what stays in the caches, on a GPU what fills it, or half of its free memory.
CPU_ROWS = 2048
GPU_ROWS = 65536


@dataclass(frozen=True)
class Trace:
    """Every iteration of a decoding, in the order of the images given; T' = steps - start."""

    tokens: Tensor  # (T', B, N) int64, the sample of each iteration before masking
    masked: Tensor  # (T', B, N) bool, what is masked again after it
    confidence: Tensor  # (T', B, N) float32, +inf where the token was known


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
    settings = _Settings(steps, start, choice_temperature, sampling_temperature, seed, trace)
    settings.check()
    device = transformer.word_embeddings.weight.device
    state = _begin(transformer.config, device, settings, schedule, labels, sample_ids, tokens)
    images, length = state.grid.shape
    if batch_size is None:
        batch_size = max(1, _rows_of_a_forward(transformer) // (1 + length))
    _check_integer("batch_size", batch_size, 1)

    with _evaluating(transformer):
        everything = torch.arange(images, device=state.grid.device)
        shared = (state.grid == state.mask_id).all(dim=1) & share_first
        _first_iteration(transformer, settings, state, everything[shared], batch_size)
        for chunk in everything.split(batch_size):
            _iterate(transformer, settings, state, chunk[~shared[chunk]], start)
            for step in range(start + 1, steps):
                _iterate(transformer, settings, state, chunk, step)
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


@dataclass(frozen=True)
class _Settings:
    """What is the same for all images of a call."""

    steps: int
    start: int
    choice_temperature: float
    sampling_temperature: float
    seed: int
    trace: bool

    def check(self) -> None:
        _check_integer("steps", self.steps, 1)
        _check_integer("start", self.start, 0, self.steps - 1)
        for name, low in (("choice_temperature", ">= 0"), ("sampling_temperature", "> 0")):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value < math.inf or (value == 0 and low == "> 0"):
                raise UsageError(f"{name} {value!r}: expected a number {low}")
        prng_key(self.seed)

    def annealed(self, step: int) -> float:
        """The choice temperature of an iteration, 0 in the last; in float32 as officially."""
        ratio = np.float32(step + 1) / np.float32(self.steps)
        return float(np.float32(self.choice_temperature) * (np.float32(1.0) - ratio))


@dataclass
class _State:
    """The images of a call while they are decoded."""

    grid: Tensor  # (B, N) int64, the mask id where masked
    final: Tensor  # (B, N) int64, the latest sample, no position masked
    mask_id: int
    labels: Tensor  # (B,) int64, class ids
    sample_ids: Tensor  # (B,) int64
    counts: Tensor  # (B, T') int64, how many tokens to mask again after each iteration
    trace: Trace


def _first_iteration(
    transformer: Transformer,
    settings: _Settings,
    state: _State,
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
    transformer: Transformer, settings: _Settings, state: _State, images: Tensor, step: int
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
    if transformer.program is not None:
        return transformer.program(inputs, positions).float()
    wanted = len(positions)
    few = MIN_ROWS - inputs.numel()
    if few > 0:
        inputs = torch.cat((inputs, inputs[-1:].expand(-(-few // inputs.shape[1]), -1)))
    more = max(MIN_ROWS, -(-wanted // ROW_MULTIPLE) * ROW_MULTIPLE) - wanted
    positions = torch.cat((positions, positions[-1:].expand(more)))
    hidden = transformer.hidden(inputs, positions)
    return transformer.code_logits(hidden)[:wanted].float()


def _noise(settings: _Settings, state: _State, images: Tensor, step: int) -> Tensor:
    """Two uniforms (n, 2, N) per position: one for the token, one for the confidence."""
    ids = state.sample_ids[images]
    return position_uniforms(settings.seed, ids, step, state.grid.shape[1])


def _sample(logits: Tensor, picks: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Draw from each of R distributions by the inverse of its cumulative distribution.

    logits: (R, K) float32. picks: (R, m) float32 in [0, 1), one draw each.
    Returns (R, m) int64 tokens and their log-probabilities at temperature 1.

    The product of a pick below 1 and the total rounds to less than the total, so the first entry
    above it exists, and it is larger than the entry before: its token has a probability above 0.
    """
    shifted = logits - logits.amax(dim=1, keepdim=True)
    weights = shifted.exp()
    scaled = weights if temperature == 1.0 else (shifted / temperature).exp_()
    cumulative = scaled.cumsum(dim=1)
    total = cumulative[:, -1:] if temperature == 1.0 else weights.sum(dim=1, keepdim=True)
    if not bool(torch.isfinite(total).all()):
        raise UsageError("the transformer's logits are not finite: its weights are damaged")
    tokens = torch.searchsorted(cumulative, picks * cumulative[:, -1:], right=True)
    return tokens, shifted.gather(1, tokens) - total.log()


def _conclude(
    settings: _Settings,
    state: _State,
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


def mask_least_confident(confidence: Tensor, counts: Tensor) -> Tensor:
    """Which positions to mask again: (B, N) bool.

    confidence: (B, N) float, +inf where the token was known before.
    counts: (B,) int64, how many; at most the unknown tokens less one, and at least 1, are taken.

    Those strictly below the counts-th value (from 0) of the sorted confidences, so of equal values
    at the cut none is masked (the official mask_by_random_topk).
    """
    unknown = (confidence < math.inf).sum(dim=1)
    counts = torch.minimum(counts, unknown - 1).clamp(min=1, max=confidence.shape[1] - 1)
    cut_off = confidence.sort(dim=1).values.gather(1, counts[:, None])
    return confidence < cut_off


def _begin(
    config: TransformerConfig,
    device: torch.device,
    settings: _Settings,
    schedule: str,
    labels: Tensor,
    sample_ids: Tensor | None,
    tokens: Tensor | None,
) -> _State:
    """Check the images asked for and lay them out."""
    labels = _integers("labels", labels, (None,), device)
    _check_range("labels", labels, 0, config.num_classes - 1)
    images, length = len(labels), config.num_tokens
    if sample_ids is None:
        sample_ids = torch.arange(images, device=device)
    sample_ids = _integers("sample_ids", sample_ids, (images,), device)
    _check_range("sample_ids", sample_ids, 0, 2**32 - 1)
    if tokens is None:
        grid = torch.full((images, length), config.mask_id, device=device)
    else:
        grid = _integers("tokens", tokens, (images, length), device).clone()
        known = grid[grid != config.mask_id]
        _check_range("tokens", known, 0, config.num_codes - 1, f", or {config.mask_id} (the mask)")
    rounds = settings.steps - settings.start
    counts = torch.zeros((images, rounds), dtype=torch.int64)
    unknown = (grid == config.mask_id).sum(dim=1).cpu()
    for number in unknown.unique().tolist():
        if number:
            row = mask_counts(schedule, settings.steps, number, settings.start)
            counts[unknown == number] = torch.tensor(row, dtype=torch.int64)
    shape = (rounds, images, length) if settings.trace else (0, images, length)
    trace = Trace(
        tokens=grid.expand(shape).clone(),
        masked=torch.zeros(shape, dtype=torch.bool, device=device),
        confidence=torch.full(shape, math.inf, device=device),
    )
    state = _State(grid, grid.clone(), config.mask_id, labels, sample_ids, counts.to(device), trace)
    return state


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


def _check_integer(name: str, value: object, low: int, high: int | None = None) -> None:
    expected = f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{name} {value!r}: expected {expected}")
    if value < low or (high is not None and value > high):
        raise UsageError(f"{name} {value}: expected {expected}")


def _check_range(name: str, values: Tensor, low: int, high: int, also: str = "") -> None:
    bad = values[(values < low) | (values > high)]
    if len(bad):
        raise UsageError(f"{name} {int(bad[0])}: expected integers from {low} to {high}{also}")


def _integers(
    name: str, values: Tensor, shape: tuple[int | None, ...], device: torch.device
) -> Tensor:
    """The values as int64 on the device, if they are integers of that shape (None: any length)."""
    values = torch.as_tensor(values)
    wanted = str(shape).replace("None", "B")
    fits = values.ndim == len(shape) and all(
        size in (None, got) for size, got in zip(shape, values.shape, strict=True)
    )
    if not fits or values.is_floating_point() or values.dtype in (torch.bool, torch.complex64):
        got = f"{tuple(values.shape)} {values.dtype}"
        raise UsageError(f"{name} {got}: expected integers of shape {wanted}")
    return values.to(device=device, dtype=torch.int64)
