"""Each framework as its users write it: arrays, derivatives and plain networks, for the tests of losses in user loops."""

import math
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import autograd
import autograd.numpy as anp
import ismcore_autograd
import ismcore_jax
import ismcore_torch
import jax
import jax.numpy as jnp
import numpy as np
from ismcore_autograd.ops import AutogradOps
from late import torch


@dataclass(frozen=True)
class Framework:
    name: str
    losses: ModuleType
    tanh: Any
    activations: dict
    gradient: Any  # f -> gradient function in the first argument, a dict of arrays or an array
    value_and_grad: Any
    jvp: Any  # (f, params, tangents) -> (value, directional derivative)
    vmap: Any  # None where there is none

    def array(self, value, dtype="float64"):
        if self.name == "torch":
            return torch.tensor(np.asarray(value), dtype=getattr(torch, dtype))
        return jnp.asarray(value, dtype=dtype) if self.name == "jax" else np.array(value, dtype=dtype)

    def arrays(self, params, dtype="float64"):
        return {name: self.array(value, dtype) for name, value in params.items()}

    @staticmethod
    def numpy(value):
        return value.detach().numpy() if hasattr(value, "detach") else np.asarray(value)

    def net(self, params, x, activation):
        """The golden networks, layer by layer."""
        h = x
        depth = len(params) // 2
        for k in range(depth):
            h = h @ params[f"layers.{k}.weight"].T + params[f"layers.{k}.bias"]
            h = self.activations[activation](h) if k + 1 < depth else h
        return h

    def score(self, params, activation, kind="score"):
        if kind == "score":
            return lambda x: self.net(params, x, activation)
        return lambda x: -self.gradient(lambda points: self.net(params, points, activation).sum())(x)

    def random(self, seed=0):
        """The argument that losses draw from."""
        if self.name == "jax":
            return {"key": jax.random.key(seed)}
        generator = torch.Generator().manual_seed(seed) if self.name == "torch" else np.random.default_rng(seed)
        return {"generator": generator}


def _torch_value_and_grad(f):
    def swapped(*args):
        gradient, value = torch.func.grad_and_value(f)(*args)
        return value, gradient

    return swapped


def _autograd_jvp(f, params, tangents):
    names = list(params)
    shapes = [params[name].shape for name in names]
    sizes = [params[name].size for name in names]

    def flat(vector):
        parts, start = {}, 0
        for name, shape, size in zip(names, shapes, sizes, strict=True):
            parts[name] = anp.reshape(vector[start : start + size], shape)
            start += size
        return f(parts)

    def joined(arrays):
        return np.concatenate([arrays[name].ravel() for name in names])

    return autograd.make_jvp(flat)(joined(params))(joined(tangents))


def _autograd_gelu(z):
    return 0.5 * z * (1.0 + AutogradOps.erf(z * math.sqrt(0.5)))


def _autograd_gelu_tanh(z):
    return 0.5 * z * (1.0 + AutogradOps.tanh(math.sqrt(2.0 / math.pi) * (z + 0.044715 * z * z * z)))


def _autograd_sigmoid(z):
    return 0.5 * (1.0 + AutogradOps.tanh(0.5 * z))


@cache
def torch_framework():
    functional = torch.nn.functional
    return Framework(
        "torch",
        ismcore_torch,
        torch.tanh,
        {
            "sigmoid": torch.sigmoid,
            "tanh": torch.tanh,
            # above its default threshold of 20 torch's softplus is linear, which is off by 2e-9
            "softplus": lambda z: functional.softplus(z, threshold=40.0),
            "silu": functional.silu,
            "gelu": functional.gelu,
            "gelu_tanh": lambda z: functional.gelu(z, approximate="tanh"),
        },
        torch.func.grad,
        _torch_value_and_grad,
        lambda f, params, tangents: torch.func.jvp(f, (params,), (tangents,)),
        torch.func.vmap,
    )


JAX = Framework(
    "jax",
    ismcore_jax,
    jnp.tanh,
    {
        "sigmoid": jax.nn.sigmoid,
        "tanh": jnp.tanh,
        "softplus": jax.nn.softplus,
        "silu": jax.nn.silu,
        "gelu": lambda z: jax.nn.gelu(z, approximate=False),
        "gelu_tanh": jax.nn.gelu,
    },
    jax.grad,
    jax.value_and_grad,
    lambda f, params, tangents: jax.jvp(f, (params,), (tangents,)),
    jax.vmap,
)
AUTOGRAD = Framework(
    "autograd",
    ismcore_autograd,
    AutogradOps.tanh,
    {
        # HIPS-autograd's own tanh overflows in its derivative, and its erf has no forward mode
        "sigmoid": _autograd_sigmoid,
        "tanh": AutogradOps.tanh,
        "softplus": lambda z: anp.logaddexp(z, 0.0),
        "silu": lambda z: z * _autograd_sigmoid(z),
        "gelu": _autograd_gelu,
        "gelu_tanh": _autograd_gelu_tanh,
    },
    autograd.grad,
    autograd.value_and_grad,
    _autograd_jvp,
    None,
)
FRAMEWORKS = {"torch": torch_framework, "jax": lambda: JAX, "autograd": lambda: AUTOGRAD}
"""By name, each to be called for."""
