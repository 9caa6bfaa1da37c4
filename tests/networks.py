"""One fully connected network as the users of each framework write it, with the weights of our `MLP`."""

from dataclasses import dataclass
from typing import Any

import autograd.numpy as anp
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax_modules import JAX_ACTIVATIONS, Linen, Nnx
from late import torch

import ismcore

TORCH_ACTIVATIONS = {
    "tanh": lambda: torch.nn.Tanh(),
    "sigmoid": lambda: torch.nn.Sigmoid(),
    "softplus": lambda: torch.nn.Softplus(threshold=40.0),
    "silu": lambda: torch.nn.SiLU(),
    "gelu": lambda: torch.nn.GELU(),
    "relu": lambda: torch.nn.ReLU(),
}


@dataclass(frozen=True)
class Network:
    """A network of a framework, and what its parameters are called there."""

    model: Any
    names: dict  # ours -> its own
    transposed: bool = False

    def ours(self, params):
        """Arrays by its own names, as arrays by ours."""
        found = {ours: np.asarray(params[own]) for ours, own in self.names.items()}
        return {name: value.T if self.transposed and value.ndim == 2 else value for name, value in found.items()}


def widths_of(params):
    weights = [value.shape for name, value in params.items() if name.endswith("weight")]
    return [weights[0][1], *(shape[0] for shape in weights)]


def torch_network(params, activation):
    layers, names = [], {}
    for number in range(len(params) // 2):
        weight, bias = params[f"layers.{number}.weight"], params[f"layers.{number}.bias"]
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
        layer.weight, layer.bias = (torch.nn.Parameter(torch.tensor(value)) for value in (weight, bias))
        names |= {f"layers.{number}.{which}": f"{len(layers)}.{which}" for which in ("weight", "bias")}
        layers += [layer, TORCH_ACTIVATIONS[activation]()]
    return Network(torch.nn.Sequential(*layers[:-1]), names)


def _kernels(params, prefix):
    return {
        f"layers.{number}.{which}": f"{prefix}{number}.{own}"
        for number in range(len(params) // 2)
        for which, own in (("weight", "kernel"), ("bias", "bias"))
    }


def linen_network(params, activation):
    tree = {}
    for number in range(len(params) // 2):
        weight, bias = params[f"layers.{number}.weight"], params[f"layers.{number}.bias"]
        tree[f"Dense_{number}"] = {"kernel": jnp.asarray(weight.T), "bias": jnp.asarray(bias)}
    return Network((Linen(tuple(widths_of(params)[1:]), activation), tree), _kernels(params, "Dense_"), True)


def nnx_network(params, activation):
    module = Nnx(widths_of(params), activation, nnx.Rngs(0), dtype=jnp.float64)
    for number, layer in enumerate(module.layers):
        layer.kernel[...] = jnp.asarray(params[f"layers.{number}.weight"].T)
        layer.bias[...] = jnp.asarray(params[f"layers.{number}.bias"])
    return Network(module, _kernels(params, "layers."), True)


def equinox_network(params, activation):
    fan_in, *hidden, out = widths_of(params)
    names = dict(zip(params, params, strict=True))
    layers = [eqx.nn.Linear(a, b, key=jax.random.key(0)) for a, b in zip((fan_in, *hidden), (*hidden, out), strict=True)]
    for number in range(len(layers)):
        values = jnp.asarray(params[f"layers.{number}.weight"]), jnp.asarray(params[f"layers.{number}.bias"])
        layers[number] = eqx.tree_at(lambda layer: (layer.weight, layer.bias), layers[number], values)
    if len(set(hidden)) == 1:
        mlp = eqx.nn.MLP(fan_in, out, hidden[0], len(hidden), activation=JAX_ACTIVATIONS[activation], key=jax.random.key(0))
        return Network(eqx.tree_at(lambda net: net.layers, mlp, tuple(layers)), names)
    steps = [step for layer in layers for step in (layer, eqx.nn.Lambda(JAX_ACTIVATIONS[activation]))][:-1]
    names = {
        name: name.replace(f".{number}.", f".{2 * number}.")
        for number in range(len(layers))
        for name in params
        if f".{number}." in name
    }
    return Network(eqx.nn.Sequential(steps), names)


def _function(params, activation, backend, product, tanh):
    """A function of one row, with its parameters as a list of dicts."""

    def apply(tree, x):
        *hidden, out = tree["layers"]
        for layer in hidden:
            x = tanh(product(layer["weight"], x) + layer["bias"])
        return product(out["weight"], x) + out["bias"]

    count = len(params) // 2
    layers = [{which: params[f"layers.{k}.{which}"] for which in ("weight", "bias")} for k in range(count)]
    assert activation == "tanh"
    return Network(ismcore.ScoreFunction(apply, {"layers": layers}, backend=backend), dict(zip(params, params, strict=True)))


NETWORKS = {
    "torch": torch_network,
    "linen": linen_network,
    "nnx": nnx_network,
    "equinox": equinox_network,
}
FUNCTIONS = {
    "jax-row": lambda params, activation: _function(params, activation, "jax", jnp.matmul, jnp.tanh),
    "torch-row": lambda params, activation: _function(params, activation, "torch", torch.matmul, torch.tanh),
    "autograd-row": lambda params, activation: _function(params, activation, "autograd", anp.dot, anp.tanh),
}
