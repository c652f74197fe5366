"""The noise of maskgit.sampling.noise in JAX: the same bits, whatever `jax_threefry_partitionable`
says and whichever generator is JAX's default.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

_TINY = 2.0**-126
_BELOW_ONE = 1.0 - 2.0**-24


def position_uniforms(seed: Array, sample_ids: Array, step: Array, num_positions: int) -> Array:
    """The noise of one decoding step: (B, 2, N) float32 in [0, 1).

    seed and step: uint32 scalars; sample_ids: (B,) uint32.
    maskgit.sampling.noise.position_uniforms gives the same bits and says what they are for.
    """
    # The setting orders the counters of a shape; it is what JAX does by default since 0.5.
    with jax.threefry_partitionable(True):
        key = jax.random.key(seed, impl="threefry2x32")

        def of_sample(sample_id: Array) -> Array:
            own = jax.random.fold_in(jax.random.fold_in(key, sample_id), step)
            return jax.random.uniform(own, (2, num_positions))

        return jax.vmap(of_sample)(sample_ids)


def gumbel(u: Array) -> Array:
    """Standard Gumbel noise of uniforms in [0, 1], finite, as maskgit.sampling.noise.gumbel."""
    u = jnp.clip(u, jnp.float32(_TINY), jnp.float32(_BELOW_ONE))
    return -jnp.log(-jnp.log(u))
