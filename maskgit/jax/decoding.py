"""maskgit.decoding in JAX: all iterations of a batch are one compiled program.

The arithmetic, the noise and the order of the steps are those of maskgit.decoding, so the tokens
are the same up to rounding of the logits (`python -m maskgit.jax.agreement` measures the share).
The number of iterations is an argument of the program, and the counts of the schedule are another,
so a sweep over T and the schedules compiles once. Images are spread over all local devices.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array

from maskgit.common.errors import UsageError
from maskgit.jax.devices import batches, program_batch, replicate, split
from maskgit.jax.noise import gumbel, position_uniforms
from maskgit.jax.transformer import FULL, Parameters, Transformer, head, hidden
from maskgit.model.config import TransformerConfig
from maskgit.sampling.arguments import Settings, begin, check_integer

# Rows (images times sequence length) of one forward on each device when no batch size is named.
CPU_ROWS = 2048
ACCELERATOR_ROWS = 65536
# Programs are compiled for a multiple of this many iterations and stop after those asked for.
ITERATIONS = 64
# Entries of a row in `_running_sums`.
RUN = 32


def generate(
    transformer: Transformer,
    labels: np.ndarray | torch.Tensor,
    *,
    steps: int,
    schedule: str = "cosine",
    choice_temperature: float = 4.5,
    sampling_temperature: float = 1.0,
    seed: int = 0,
    sample_ids: np.ndarray | torch.Tensor | None = None,
    tokens: np.ndarray | torch.Tensor | None = None,
    start: int = 0,
    batch_size: int | None = None,
) -> np.ndarray:
    """Tokens of one image per label: (B, N) int64 in [0, num_codes).

    Arguments, their ranges and the UsageErrors are those of maskgit.decoding.generate; arrays may
    be numpy or torch. batch_size: most images in one program over all devices, rounded up to a
    multiple of their number.
    """
    settings = Settings(steps, start, choice_temperature, sampling_temperature, seed, trace=False)
    settings.check()
    config = transformer.config
    state = begin(
        config,
        torch.device("cpu"),
        settings,
        schedule,
        _tensor(labels),
        None if sample_ids is None else _tensor(sample_ids),
        None if tokens is None else _tensor(tokens),
    )
    images, length = state.grid.shape
    if batch_size is None:
        rows = CPU_ROWS if jax.default_backend() == "cpu" else ACCELERATOR_ROWS
        # The nearest power of two: calls with fewer images are rounded up to one as well.
        batch_size = 2 ** round(math.log2(max(1, rows / (1 + length)))) * len(jax.local_devices())
    check_integer("batch_size", batch_size, 1)

    rounds = steps - start
    padded = -(-rounds // ITERATIONS) * ITERATIONS
    counts = np.zeros((images, padded), np.int32)
    counts[:, :rounds] = state.counts.numpy()
    annealed = np.zeros(padded, np.float32)
    annealed[:rounds] = [settings.annealed(step) for step in range(start, steps)]
    per_image = (
        state.labels.numpy().astype(np.int32),
        state.sample_ids.numpy().astype(np.uint32),
        state.grid.numpy().astype(np.int32),
        counts,
    )
    scalars = (np.int32(start), np.int32(rounds), np.uint32(seed), np.float32(sampling_temperature))
    common = replicate((annealed, *scalars))
    plain = sampling_temperature == 1.0

    results = []
    for picked in batches(images, program_batch(images, batch_size)):
        arrays = split(tuple(array[picked] for array in per_image))
        results.append(_decode(config, plain, transformer.parameters, *arrays, *common))
    if not all(bool(finite.all()) for _, finite in results):
        raise UsageError("the transformer's logits are not finite: its weights are damaged")
    finished = [np.asarray(final, np.int64) for final, _ in results]
    return np.concatenate([np.empty((0, length), np.int64), *finished])[:images]


def _tensor(values: Any) -> torch.Tensor:
    return values if isinstance(values, torch.Tensor) else torch.as_tensor(np.array(values))


@partial(jax.jit, static_argnums=(0, 1))
def _decode(
    config: TransformerConfig,
    plain: bool,
    parameters: Parameters,
    labels: Array,
    sample_ids: Array,
    grid: Array,
    counts: Array,
    annealed: Array,
    start: Array,
    rounds: Array,
    seed: Array,
    temperature: Array,
) -> tuple[Array, Array]:
    """All iterations of one batch: final tokens (B, N), and (B,) whether all was finite.

    plain: the sampling temperature is 1. labels, sample_ids (B,); grid (B, N) with the mask id
    where unknown; counts (B, rounds or more); annealed (rounds or more,), the choice temperatures.
    """
    mask_id, length = config.mask_id, grid.shape[1]
    classes = (config.num_codes + labels)[:, None]

    def iterate(i: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        grid, _, finite = carry
        unknown = grid == mask_id
        states = hidden(config, parameters, jnp.concatenate((classes, grid), axis=1))
        logits = head(parameters, states[:, 1:], config.num_codes)
        step = (start + i).astype(jnp.uint32)
        noise = position_uniforms(seed, sample_ids, step, length)
        drawn, log_p, total = _sample(logits, noise[:, 0], temperature, plain)
        finite = finite & (jnp.isfinite(total) | ~unknown).all(axis=1)
        # Known tokens stay, and no noise reaches their confidence.
        sampled = jnp.where(unknown, drawn, grid)
        confidence = log_p + annealed[i] * gumbel(noise[:, 1])
        confidence = jnp.where(unknown, confidence, jnp.inf)
        masked = mask_least_confident(confidence, counts[:, i])
        return jnp.where(masked, mask_id, sampled), sampled, finite

    everything_finite = jnp.ones(grid.shape[:1], bool)
    _, final, finite = jax.lax.fori_loop(0, rounds, iterate, (grid, grid, everything_finite))
    return final, finite


def _sample(
    logits: Array, picks: Array, temperature: Array, plain: bool
) -> tuple[Array, Array, Array]:
    """As maskgit.sampling.draw.draw, with one draw for each distribution.

    logits (B, N, K), picks (B, N) -> tokens (B, N) int32, their log-probabilities at temperature
    1, and the totals of the unnormalised distributions.
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    weights = jnp.exp(shifted)
    scaled = weights if plain else jnp.exp(shifted / temperature)
    cumulative = _cumulative(scaled)
    total = cumulative[..., -1] if plain else weights.sum(axis=-1)
    above = picks * cumulative[..., -1]
    tokens = (cumulative <= above[..., None]).sum(axis=-1, dtype=jnp.int32)
    chosen = jnp.take_along_axis(shifted, tokens[..., None], axis=-1)[..., 0]
    return tokens, chosen - jnp.log(total), total


def _cumulative(weights: Array) -> Array:
    """Cumulative sums of weights (..., K) in [0, 1], nearly as if each were rounded only once.

    torch adds in float64 here. Plain float32 sums would move the edges between the tokens about as
    much as the rounding of the logits does. So the weights are split into multiples of 2^-12, whose
    sums up to 4096 are exact in any order, and small rests.
    """
    coarse = jnp.floor(weights * jnp.float32(4096)) * jnp.float32(1 / 4096)
    return _running_sums(coarse) + _running_sums(weights - coarse)


def _running_sums(x: Array) -> Array:
    """jnp.cumsum over the last axis by products with triangles of ones, faster than XLA's on a CPU:
    within rows of `RUN` entries, and over the totals of the rows."""
    size = x.shape[-1]
    rows = -(-size // RUN)
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, rows * RUN - size)])
    x = x.reshape(*x.shape[:-1], rows, RUN)
    up_to, before = np.triu(np.ones((RUN, RUN), np.float32)), np.ones((rows, rows), np.float32)
    inside = jnp.matmul(x, up_to, precision=FULL)
    offsets = jnp.matmul(inside[..., -1], np.triu(before, 1), precision=FULL)
    return (inside + offsets[..., None]).reshape(*x.shape[:-2], rows * RUN)[..., :size]


def mask_least_confident(confidence: Array, counts: Array) -> Array:
    """Which positions to mask again: maskgit.decoding.mask_least_confident. (B, N), (B,)."""
    unknown = (confidence < jnp.inf).sum(axis=1)
    counts = jnp.clip(jnp.minimum(counts, unknown - 1), 1, confidence.shape[1] - 1)
    cut_off = jnp.take_along_axis(jnp.sort(confidence, axis=1), counts[:, None], axis=1)
    return confidence < cut_off
