"""Counter-based noise: the threefry2x32 generator of `jax.random`, bit for bit, on torch tensors.

Every random number is a pure function of a key and a counter, so the noise of a sample depends on
(seed, sample id, step, position) and on nothing else: not on the batch it is drawn in, the device,
the order of the calls or the number of workers. In JAX, whose default is since 0.5
`jax_threefry_partitionable=True` (the older layout of the counters gives other numbers), these are

    key = jax.random.fold_in(jax.random.fold_in(jax.random.PRNGKey(seed), sample_id), step)
    jax.random.uniform(key, (2, num_positions))     # the row of sample_id of position_uniforms()

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Threefry-2x32-20); how
seeds, `fold_in` and shapes become keys and counters is documented in `jax.random`.

Words are unsigned and 32 bits wide. The public functions give them as int64 in [0, 2**32); inside,
they travel as the int32 with the same bits, because torch has few operations on uint32 and because
int32 addition wraps, which is what the generator needs.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from functools import cache

import torch
from torch import Tensor

from maskgit.common.errors import UsageError

WORD = 2**32
_PARITY = 0x1BD11BDA
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
# The smallest normal float32, jax.random.gumbel's lower bound, and the largest float32 below 1.
_TINY = 2.0**-126
_BELOW_ONE = 1.0 - 2.0**-24


def prng_key(seed: int, device: torch.device | str = "cpu") -> Tensor:
    """The key of a seed, `jax.random.PRNGKey(seed)`: (2,) int64 words.

    Raises UsageError for a seed outside [0, 2**32): JAX silently drops the higher bits, so that
    two seeds would give the same noise.
    """
    return torch.tensor([0, _check_word("--seed", seed)], dtype=torch.int64, device=device)


def threefry2x32(key: Tensor, counters: Tensor) -> Tensor:
    """The block function: `counters (..., 2)` enciphered under `key (2,)` or `(..., 2)`.

    Both hold words in [0, 2**32) as int64 and broadcast; returns int64 words of the joint shape.
    """
    k, x = _narrow(key), _narrow(counters)
    return _widen(torch.stack(_threefry(k[..., 0], k[..., 1], x[..., 0], x[..., 1]), dim=-1))


def fold_in(key: Tensor, data: int | Tensor) -> Tensor:
    """`jax.random.fold_in`: a new key (..., 2) from `key (..., 2)` and words `data` (...)."""
    data = torch.as_tensor(data, dtype=torch.int64, device=key.device)
    return threefry2x32(key, torch.stack((torch.zeros_like(data), data), dim=-1))


def uniform(key: Tensor, count: int) -> Tensor:
    """`jax.random.uniform(key, (count,))` for each of the keys (..., 2): (..., count) float32.

    Values are k / 2**23 with 0 <= k < 2**23: in [0, 1), zero included, one not.
    """
    # The high 23 bits become the mantissa; int32 >> brings in sign bits, which the mask removes.
    mantissa = _random_words(_narrow(key), count).bitwise_right_shift_(9).bitwise_and_(0x7FFFFF)
    return mantissa.to(torch.float32).mul_(2.0**-23)


def position_uniforms(
    seed: int,
    sample_ids: Tensor,
    step: int,
    num_positions: int,
    device: torch.device | str | None = None,
) -> Tensor:
    """The noise of one decoding step: (B, 2, N) float32 in [0, 1), for `sample_ids (B,)` int64.

    Row i depends on (seed, sample_ids[i], step) alone and has the bits of the JAX lines in this
    module's docstring. `[:, 0]` picks the tokens, `[:, 1]` gives the confidence its Gumbel noise.
    The result is on `device`, by default that of `sample_ids`. Raises UsageError unless seed, step
    and every sample id are in [0, 2**32); checking the ids waits for a GPU only if they are on one.
    """
    step = _check_word("step", step)
    if sample_ids.ndim != 1 or sample_ids.dtype not in (torch.int64, torch.int32):
        got = f"{tuple(sample_ids.shape)} {sample_ids.dtype}"
        raise UsageError(f"sample_ids {got}: expected one dimension of int64")
    if sample_ids.numel() and not 0 <= int(sample_ids.min()) <= int(sample_ids.max()) < WORD:
        bad = sample_ids[(sample_ids < 0) | (sample_ids >= WORD)][0]
        raise UsageError(f"sample_ids {int(bad)}: expected integers from 0 to {WORD - 1}")
    ids = sample_ids.to(device=device or sample_ids.device, dtype=torch.int64)
    keys = fold_in(fold_in(prng_key(seed, ids.device), ids), torch.full_like(ids, step))
    return uniform(keys, 2 * num_positions).view(-1, 2, num_positions)


def loop_uniforms(
    seed: int, sample_ids: Tensor, start: int, steps: int, num_positions: int
) -> Tensor:
    """The noise of all iterations start..steps-1 in one go: (2, T', B, N) float32 in [0, 1).

    `[:, i, b]` has the bits of `position_uniforms(seed, sample_ids, start + i, N)[b]`. Nothing
    waits for a GPU here: the arguments have been checked before. Where Triton runs this is one
    launch, otherwise the operations of one iteration, on larger tensors.
    """
    if sample_ids.is_cuda and triton_runs():
        from maskgit.sampling import noise_kernel

        return noise_kernel.uniforms(seed, sample_ids, start, steps, num_positions)
    device = sample_ids.device
    keys = fold_in(prng_key(seed, device), sample_ids)
    keys = fold_in(keys, torch.arange(start, steps, device=device)[:, None])
    drawn = uniform(keys, 2 * num_positions)
    return drawn.view(*drawn.shape[:-1], 2, num_positions).movedim(2, 0)


@cache
def triton_runs() -> bool:
    """Whether Triton is installed and finds the C compiler that it builds its launcher with."""
    compilers = (os.environ.get("CC", ""), "gcc", "clang", "cc")
    found = any(shutil.which(name) for name in compilers if name)
    return found and importlib.util.find_spec("triton") is not None


def gumbel(u: Tensor) -> Tensor:
    """Standard Gumbel noise -log(-log(u)) of uniforms `u` in [0, 1], same shape; always finite.

    Zero is moved to the smallest normal float32, as jax.random.gumbel does, and one to the float32
    below it: the values are between -4.47 and 16.64.
    """
    return -torch.log(-torch.log(u.clamp(_TINY, _BELOW_ONE)))


def _check_word(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < WORD:
        raise UsageError(f"{name} {value!r}: expected an integer from 0 to {WORD - 1}")
    return value


def _narrow(words: Tensor) -> Tensor:
    """int64 words to the int32 of the same bits, without leaving the range of the conversion."""
    return torch.where(words >= WORD // 2, words - WORD, words).to(torch.int32)


def _widen(words: Tensor) -> Tensor:
    return words.to(torch.int64) & (WORD - 1)


def _random_words(key: Tensor, count: int) -> Tensor:
    """(..., count) int32: word i is the exclusive or of the two words of counter (0, i)."""
    high = torch.zeros((), dtype=torch.int32, device=key.device)
    low = torch.arange(count, dtype=torch.int32, device=key.device)
    x0, x1 = _threefry(key[..., 0:1], key[..., 1:2], high, low)
    return x0.bitwise_xor_(x1)


def _threefry(k0: Tensor, k1: Tensor, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
    """Twenty rounds of Threefry-2x32 on int32 words; the four arguments broadcast."""
    keys = (k0, k1, k0 ^ k1 ^ _PARITY)
    x1 = x1 + k1
    x0 = (x0 + k0).expand_as(x1).clone(memory_format=torch.contiguous_format)
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            x0 += x1
            # Rotate left; int32 >> is arithmetic, so the sign bits it brings in are cut off.
            low = (x1 >> (32 - distance)).bitwise_and_((1 << distance) - 1)
            x1 = x1.bitwise_left_shift_(distance).bitwise_or_(low).bitwise_xor_(x0)
        # After every four rounds the key goes in again, turned by one word, with a counter.
        x0 += keys[(group + 1) % 3]
        x1 += keys[(group + 2) % 3] + (group + 1)
    return x0, x1
