"""`ismcore.ops.Ops` in JAX, which needs nothing pinned."""

import jax
import jax.numpy as jnp
from jax.scipy.special import erf

__all__ = ["JaxOps"]


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
