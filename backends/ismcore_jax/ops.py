"""`ismcore.ops.Ops` in JAX, with the slope of one function pinned."""

import jax
import jax.numpy as jnp
from jax.scipy.special import erf

__all__ = ["JaxOps"]


LARGE = 2**17
"""Entries of a matrix from which on XLA multiplies by its transpose sooner where that, or the other factor's, is copied first:
at 512 x 784 by a tenth of a whole step; at 128 x 128 the copy costs as much."""
FEW = 2**15
"""Arguments of the logistic function below which one thread takes less time than two, which have to wait for each other: by a
quarter of a step where there are 8,192."""


def _as_laid_out(array: jax.Array) -> jax.Array:
    """The array in memory of its own: XLA would undo the copy of a transpose."""
    copied: jax.Array = jax.lax.optimization_barrier(array)  # type: ignore[no-untyped-call]
    return copied


def _sigmoid(x: jax.Array, /) -> jax.Array:
    # XLA cuts the pass that 1 / (1 + exp(-x)) is part of between threads, however few the numbers are
    return 0.5 * jnp.tanh(0.5 * x) + 0.5 if x.size < FEW else jax.nn.sigmoid(x)


class JaxOps:
    """See `ismcore.ops.Ops`."""

    exp = staticmethod(jnp.exp)
    log = staticmethod(jnp.log)
    sqrt = staticmethod(jnp.sqrt)
    abs = staticmethod(lambda x, /: x * jnp.sign(x))  # the slope of JAX's own at 0 is 1
    sin = staticmethod(jnp.sin)
    cos = staticmethod(jnp.cos)
    tanh = staticmethod(jnp.tanh)
    erf = staticmethod(erf)
    sigmoid = staticmethod(_sigmoid)
    logaddexp = staticmethod(jnp.logaddexp)
    where = staticmethod(jnp.where)
    sum = staticmethod(jnp.sum)
    stack = staticmethod(jnp.stack)
    concat = staticmethod(jnp.concatenate)
    reshape = staticmethod(jnp.reshape)
    broadcast_to = staticmethod(jnp.broadcast_to)
    permute_dims = staticmethod(jnp.transpose)
    maximum = staticmethod(jnp.maximum)
    logsumexp = staticmethod(jax.nn.logsumexp)
    take = staticmethod(jnp.take)
    matmul = staticmethod(jnp.matmul)
    log1p = staticmethod(jnp.log1p)
    expm1 = staticmethod(jnp.expm1)
    stop_gradient = staticmethod(jax.lax.stop_gradient)

    @staticmethod
    def matmul_t(matrix: jax.Array, bar: jax.Array, /) -> jax.Array:
        """M^T bar: see `ismcore.analytic.routes.matmul_t`."""
        if matrix.size < LARGE:
            return matrix.T @ bar
        if bar.shape[1] * sum(matrix.shape) < matrix.size:  # the others are smaller
            return _as_laid_out(_as_laid_out(bar.T) @ matrix).T
        return _as_laid_out(matrix.T) @ bar
