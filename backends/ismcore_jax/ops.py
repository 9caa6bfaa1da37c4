"""`ismcore.ops.Ops` in JAX, which needs nothing pinned."""

import jax
import jax.numpy as jnp
from jax.scipy.special import erf

__all__ = ["JaxOps", "as_laid_out"]


LARGE = 2**17
"""Entries of a matrix from which on XLA multiplies by its transpose sooner where that is copied first: at 512 x 784 by a tenth
of a whole step; at 128 x 128 the copy costs as much."""


def as_laid_out(array: jax.Array) -> jax.Array:
    """The array in memory of its own: XLA would undo the copy of a transpose."""
    copied: jax.Array = jax.lax.optimization_barrier(array)  # type: ignore[no-untyped-call]
    return copied


class JaxOps:
    """See `ismcore.ops.Ops`."""

    exp = staticmethod(jnp.exp)
    log = staticmethod(jnp.log)
    sqrt = staticmethod(jnp.sqrt)
    abs = staticmethod(jnp.abs)
    sin = staticmethod(jnp.sin)
    cos = staticmethod(jnp.cos)
    tanh = staticmethod(jnp.tanh)
    erf = staticmethod(erf)
    sigmoid = staticmethod(jax.nn.sigmoid)
    logaddexp = staticmethod(jnp.logaddexp)
    where = staticmethod(jnp.where)
    sum = staticmethod(jnp.sum)
    stack = staticmethod(jnp.stack)
    concat = staticmethod(jnp.concatenate)
    reshape = staticmethod(jnp.reshape)
    broadcast_to = staticmethod(jnp.broadcast_to)
    permute_dims = staticmethod(jnp.transpose)

    @staticmethod
    def pulled(matrix: jax.Array, bar: jax.Array, /) -> jax.Array:
        """M^T bar: see `ismcore.analytic.routes.pulled`."""
        return (as_laid_out(matrix.T) if matrix.size >= LARGE else matrix.T) @ bar
