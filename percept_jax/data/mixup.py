"""Mixup: the weights with which examples are mixed, and their partners (Zhang et al. 2018, arXiv:1710.09412)."""

import jax
import jax.numpy as jnp
from jax import Array


def mixup_share(key: Array, alpha: Array | float) -> Array:
    """Returns the weight of an example when it is mixed with its partner (Zhang et al. 2018, arXiv:1710.09412): float32.

    This is max(w, 1 - w) for w from Beta(alpha, alpha). Every example is also the partner of another one, so the smaller weight
    would only swap the two; this way an example's own label keeps the larger weight.
    """
    # At 1e-30 the weight is already 0 or 1; 1e-39 would underflow to NaN.
    alpha = jnp.maximum(jnp.asarray(alpha, jnp.float32), 1e-30)
    share = jax.random.beta(key, alpha, alpha, (), jnp.float32)
    return jnp.maximum(share, 1 - share)


def mixup_shift(key: Array, batch: int) -> Array:
    """Returns the shift, int32, so that position p is mixed with (p + shift) % batch: 1 to batch - 1, or 0 in a batch of one."""
    return jax.random.randint(key, (), 1, batch, jnp.int32) if batch > 1 else jnp.int32(0)
