"""The noise of maskgit.sampling.noise in JAX: the same bits, whatever `jax_threefry_partitionable`
says.

`jax.random` orders the counters of a shape in one of two ways, depending on that setting and on the
version of JAX, so the generator is written out here; see maskgit.sampling.noise for its source.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

_PARITY = 0x1BD11BDA
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_TINY = 2.0**-126
_BELOW_ONE = 1.0 - 2.0**-24


def position_uniforms(seed: Array, sample_ids: Array, step: Array, num_positions: int) -> Array:
    """The noise of one decoding step: (B, 2, N) float32 in [0, 1).

    seed and step: uint32 scalars; sample_ids: (B,) uint32.
    maskgit.sampling.noise.position_uniforms gives the same bits and says what they are for.
    """
    zero = jnp.uint32(0)
    key = _threefry(zero, seed, zero, sample_ids)
    key = _threefry(*key, zero, step)
    counters = jnp.arange(2 * num_positions, dtype=jnp.uint32)
    x0, x1 = _threefry(key[0][:, None], key[1][:, None], zero, counters)
    mantissa = (x0 ^ x1) >> jnp.uint32(9)
    uniforms = mantissa.astype(jnp.int32).astype(jnp.float32) * jnp.float32(2.0**-23)
    return uniforms.reshape(-1, 2, num_positions)


def gumbel(u: Array) -> Array:
    """Standard Gumbel noise of uniforms in [0, 1], finite, as maskgit.sampling.noise.gumbel."""
    u = jnp.clip(u, jnp.float32(_TINY), jnp.float32(_BELOW_ONE))
    return -jnp.log(-jnp.log(u))


def _threefry(k0: Array, k1: Array, x0: Array, x1: Array) -> tuple[Array, Array]:
    """Twenty rounds of Threefry-2x32 on uint32 words; the four arguments broadcast."""
    keys = (k0, k1, k0 ^ k1 ^ jnp.uint32(_PARITY))
    x0, x1 = x0 + k0, x1 + k1
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = (x1 << jnp.uint32(distance)) | (x1 >> jnp.uint32(32 - distance))
            x1 = x1 ^ x0
        # After every four rounds the key goes in again, turned by one word, with a counter.
        x0 = x0 + keys[(group + 1) % 3]
        x1 = x1 + keys[(group + 2) % 3] + jnp.uint32(group + 1)
    return x0, x1
