"""Sampling from the autoregressive baseline: one token after the other, in raster order.

A step reads the token before (first the class) and draws the next one. What the layers computed for
the positions before it is kept in a maskgit.model.causal.Cache, so that a step costs one position
and not the whole prefix.

A sample depends on (seed, sample id, class, known tokens, settings) and on nothing else. Its noise
is `position_uniforms(seed, sample_ids, 0, N)[:, 0]`: the uniform of raster position p picks token p
through the cumulative distribution. All come from step 0, because here a position is drawn once.
The other half, the confidence's in maskgit.decoding, is not used.

A step has one row per image. For the reason given in maskgit.decoding the rows of a CPU's products
are filled up to MIN_ROWS and a multiple of ROW_MULTIPLE, and attention computes each image alone:
in float32 the tokens are then the same for any batch size and number of threads. Without the cache
attention adds the same numbers in another order, so logits differ by rounding, and a token differs
where its uniform falls into that gap. tests/maskgit/sampling/test_autoregressive.py checks both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, overload

import torch
from torch import Tensor

from maskgit.decoding import MIN_ROWS, ROW_MULTIPLE
from maskgit.model.causal import Autoregressive, Cache
from maskgit.sampling.arguments import Trace, check_images, check_integer, check_temperature
from maskgit.sampling.compiled import check_mode, fixed_program
from maskgit.sampling.draw import check_finite, draw
from maskgit.sampling.fixed import fill_up
from maskgit.sampling.noise import position_uniforms

__all__ = ["Autoregressive", "generate_autoregressive"]

# Limits of a batch when the caller names none: bytes of the cache, and images.
CPU_LIMITS = (2**30, 256)
GPU_LIMITS = (2**33, 1024)


@overload
def generate_autoregressive(
    model: Autoregressive, labels: Tensor, *, trace: Literal[True], **settings: Any
) -> Trace: ...
@overload
def generate_autoregressive(
    model: Autoregressive, labels: Tensor, *, trace: Literal[False] = False, **settings: Any
) -> Tensor: ...
def generate_autoregressive(  # type: ignore[misc]  # as maskgit.decoding.generate
    model: Autoregressive,
    labels: Tensor,
    *,
    sampling_temperature: float = 1.0,
    seed: int = 0,
    sample_ids: Tensor | None = None,
    tokens: Tensor | None = None,
    batch_size: int | None = None,
    trace: bool = False,
) -> Tensor | Trace:
    """Tokens of one image per label, in N steps.

    model: on any device; dropout is off while this runs.
    labels: (B,) integers, class ids in [0, num_classes).
    sampling_temperature: > 0, divides the logits when a token is drawn.
    seed, sample_ids: integers in [0, 2**32) that name the noise of a sample; sample_ids (B,),
        by default 0..B-1. A sample does not depend on the others of the call.
    tokens: (B, N) integers, a partly known grid with the mask id (num_codes + num_classes) or -1
        where unknown. Known tokens stay, and those drawn after them in raster order take them into
        account; those before cannot, which is why this baseline continues images downwards only.
    batch_size: most images in one step, which changes no token; by default what keeps the cache
        below 1 GiB on a CPU and 8 GiB on a GPU.
    trace: return a Trace of the N steps instead: the grid after each step with the mask id where
        no token is known yet, these positions, and as confidence the log-probability of the token
        just drawn (temperature 1), +inf where one was known before and -inf where none is yet.

    Returns (B, N) int64 tokens in [0, num_codes) on the model's device, or the Trace, whose last
    tokens are the same. Raises UsageError for arguments outside the ranges above, and when the
    logits are not finite.
    """
    config, device = model.config, model.head_bias.device
    check_temperature("sampling_temperature", sampling_temperature)
    if tokens is not None:
        tokens = torch.as_tensor(tokens)
        tokens = tokens.masked_fill(tokens == -1, config.mask_id)
    labels, sample_ids, grid = check_images(config, device, labels, sample_ids, tokens)
    picks = position_uniforms(seed, sample_ids, 0, config.num_tokens)[:, 0]
    if batch_size is None:
        batch_size = _default_batch(model)
    check_integer("batch_size", batch_size, 1)

    record = _begin_trace(grid, config.mask_id) if trace else None
    totals = []
    everything = torch.arange(len(labels), device=device)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for images in everything.split(batch_size) if len(labels) else ():
                part = (images, record, sampling_temperature)
                totals.append(_complete(model, labels, grid, picks, *part))
            if totals:
                check_finite(torch.stack(totals))
    finally:
        model.train(training)
    return grid if record is None else record


def _complete(
    model: Autoregressive,
    labels: Tensor,
    grid: Tensor,
    picks: Tensor,
    images: Tensor,
    trace: Trace | None,
    temperature: float,
) -> Tensor:
    """Draw what is unknown in the given images of `grid`, in place, position by position.

    labels (B,), grid (B, N), picks (B, N) uniforms, images (b,) indices into the B: one batch.
    Nothing waits for a GPU between the positions, unless a trace is wanted. Returns a number that
    is finite if and only if all logits were.
    """
    codes, mask, count = model.config.num_codes, model.config.mask_id, len(images)
    program = model.program
    rows = images if program is None else fill_up(images)
    part, entries, part_picks = grid[rows], codes + labels[rows], picks[rows]
    cache = Cache(model.config, count, model.head_bias) if program is None else None
    finite = torch.zeros((), device=grid.device)
    for position in range(part.shape[1]):
        pick = part_picks[:, position, None]
        if program is not None:
            drawn, log_p, total = program(model, entries, position, pick, temperature)
        else:
            assert cache is not None
            logits = model.logits(model.step(_filled_up(entries), cache))[:count].float()
            drawn, log_p, total = draw(logits, pick, temperature)
        unknown = part[:, position] == mask
        entries = torch.where(unknown, drawn[:, 0], part[:, position])
        part[:, position] = entries
        finite = finite + total.sum()
        if trace is not None:
            trace.tokens[position, images] = part[:count]
            trace.masked[position, images] = part[:count] == mask
            unknown = unknown[:count]
            trace.confidence[position, images[unknown], position] = log_p[:count][unknown, 0]
            trace.confidence[position + 1 :, images[unknown], position] = math.inf
    grid[images] = part[:count]
    return finite


class PositionProgram:
    """Draws a position of every image by one compiled program, whatever the position is.

    Keys and values of all positions are kept, at addresses that never change, so that a CUDA graph
    may write to them. There is one such cache for each number of images, and these are powers of
    two, so that together they take less than twice the memory of the largest.
    """

    def __init__(self, compiled: Callable[..., tuple[Tensor, Tensor, Tensor]]) -> None:
        """compiled: `draw_position`, compiled for fixed shapes."""
        self._compiled = compiled
        self._caches: dict[int, Cache] = {}

    def __call__(
        self,
        model: Autoregressive,
        entries: Tensor,
        position: int,
        picks: Tensor,
        temperature: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `draw_position`, with the cache of so many images; valid until the next call."""
        cache = self._caches.get(len(entries))
        if cache is None:
            cache = self._caches[len(entries)] = _fixed_cache(model, len(entries))
        where = torch.full((1,), position, device=entries.device)
        torch.compiler.cudagraph_mark_step_begin()
        return self._compiled(model, entries, cache.keys, cache.values, where, picks, temperature)


def compile_positions(model: Autoregressive, mode: str) -> Autoregressive:
    """The same model, whose positions are all drawn by one program of fixed shape.

    mode: of `maskgit.sampling.compiled`; eager leaves the model as it is.

    Compiles at the first position of each power of two of images.

    Raises:
        UsageError: an unknown mode, or no C++ compiler here.
    """
    check_mode(mode)
    if mode != "eager":
        model.program = PositionProgram(fixed_program(draw_position, mode))
    return model


def draw_position(
    model: Autoregressive,
    entries: Tensor,
    keys: Tensor,
    values: Tensor,
    position: Tensor,
    picks: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Read one entry of each image and draw the token that follows, at fixed shapes.

    entries: (B,) int64 as for `Autoregressive.step`. keys, values: of a whole `Cache`, which are
    written to at `position`, (1,) int64. picks: (B, 1) float32.

    Returns what `maskgit.sampling.draw.draw` returns: (B, 1) tokens, log-probabilities and sums.
    """
    hidden = model.read(entries, keys, values, position)
    return draw(model.logits(hidden).float(), picks, temperature)


def _fixed_cache(model: Autoregressive, images: int) -> Cache:
    """A cache for CUDA graphs; what is not filled yet is zero, as attention multiplies by it."""
    cache = Cache(model.config, images, model.head_bias)
    for part in (cache.keys, cache.values):
        torch._dynamo.mark_static_address(part.zero_())
    return cache


def _filled_up(rows: Tensor) -> Tensor:
    """`rows (b,)` and on a CPU copies of the last, so that products have enough (see the top)."""
    if rows.device.type != "cpu":
        return rows
    wanted = max(MIN_ROWS, -(-len(rows) // ROW_MULTIPLE) * ROW_MULTIPLE)
    return torch.cat((rows, rows[-1:].expand(wanted - len(rows))))


def _begin_trace(grid: Tensor, mask_id: int) -> Trace:
    shape = (grid.shape[1], *grid.shape)
    confidence = torch.full(shape, math.inf, device=grid.device)
    return Trace(
        tokens=grid.expand(shape).clone(),
        masked=torch.zeros(shape, dtype=torch.bool, device=grid.device),
        confidence=confidence.masked_fill_(grid == mask_id, -math.inf),
    )


def _default_batch(model: Autoregressive) -> int:
    on_cpu = model.head_bias.device.type == "cpu"
    memory, most = CPU_LIMITS if on_cpu else GPU_LIMITS
    return max(1, min(most, memory // Cache.bytes_an_image(model.config)))
