"""Fully connected networks as users of flax write them; without torch, so that the tests of JAX alone need none."""

import math
from itertools import pairwise
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

JAX_ACTIVATIONS = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "silu": jax.nn.silu,
    "gelu": lambda z: 0.5 * z * (1.0 + jax.scipy.special.erf(z / math.sqrt(2.0))),
    "relu": jax.nn.relu,
}


class Linen(nn.Module):
    widths: tuple
    activation: str = "tanh"
    act: Any = None

    @nn.compact
    def __call__(self, x):
        *hidden, out = self.widths
        for width in hidden:
            x = (self.act or JAX_ACTIVATIONS[self.activation])(nn.Dense(width)(x))
        return nn.Dense(out)(x)


class Nnx(nnx.Module):
    def __init__(self, widths, activation, rngs, between=None, dtype=jnp.float32):
        self.layers = nnx.List([nnx.Linear(a, b, param_dtype=dtype, rngs=rngs) for a, b in pairwise(widths)])
        self.activation = activation
        self.between = between

    def __call__(self, x):
        *hidden, out = self.layers
        for layer in hidden:
            x = JAX_ACTIVATIONS[self.activation](layer(x))
            x = x if self.between is None else self.between(x)
        return out(x)
