"""Networks on JAX that cannot be trained by score matching are refused, with the reason; kinks are counted."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax_modules import Linen, Nnx
from truth import correlated

import ismcore
from ismcore.plugins.probing import kinked_lines

X = correlated(n=40)


def norm(**options):
    return nn.Sequential([nn.Dense(6), nn.BatchNorm(**options), jnp.tanh, nn.Dense(3)])


class Count(nnx.Module):
    def __init__(self):
        self.layer, self.count = nnx.Linear(3, 3, rngs=nnx.Rngs(0)), nnx.Variable(jnp.zeros(()))

    def __call__(self, x):
        self.count[...] += 1
        return self.layer(x)


def equinox(activation=jnp.tanh, **options):
    return eqx.nn.MLP(3, options.get("out", 3), 6, 1, activation=activation, key=jax.random.key(0))


def equinox_with(layer):
    return eqx.nn.Sequential([eqx.nn.Linear(3, 3, key=jax.random.key(0)), layer])


class Bare(nn.Module):
    @nn.compact
    def __call__(self, x):
        return -x


JAX = {
    "linen batch norm": (
        lambda: norm(use_running_average=False),
        "BatchNorm in training mode.*mixes the rows.*running_average",
    ),
    "linen dropout": (
        lambda: nn.Sequential([nn.Dense(3), nn.Dropout(0.1, deterministic=False)]),
        "draws random numbers.*Dropout.*deterministic=True",
    ),
    "linen relu": (lambda: Linen((6, 3), "relu"), "not smooth in x: .* of 32 lines .*ReLU"),
    "linen rows minus their mean": (lambda: Linen((6, 3), act=lambda h: jnp.tanh(h - h.mean(0))), "mixes the rows"),
    "linen energy as score": (lambda: Linen((6, 1)), "an energy goes inside of ismcore.Energy"),
    "linen without parameters": (lambda: Bare(), "has no parameters, so there is nothing to fit"),
    "linen pair of something else": (lambda: (Linen((6, 3)), 3), r"a pair \(module, params\)"),
    "linen pair of other params": (
        lambda: (Linen((6, 3)), {"Dense_7": {"kernel": jnp.ones((3, 3))}}),
        "called on a batch of 7",
    ),
    "nnx batch norm": (
        lambda: Nnx([3, 6, 3], "tanh", nnx.Rngs(0), between=nnx.BatchNorm(6, rngs=nnx.Rngs(0))),
        "between is a BatchNorm.*mixes the rows.*eval",
    ),
    "nnx dropout": (
        lambda: Nnx([3, 6, 3], "tanh", nnx.Rngs(0), between=nnx.Dropout(0.1, rngs=nnx.Rngs(0))),
        "between is a Dropout in training mode.*random.*eval",
    ),
    "nnx counter": (Count, "changes a variable of its own .* Cannot mutate "),
    "equinox relu": (lambda: equinox(jax.nn.relu), "not smooth in x"),
    "equinox dropout": (lambda: equinox_with(eqx.nn.Dropout(0.1)), "Dropout in training mode.*inference_mode"),
    "equinox batch norm": (lambda: equinox_with(eqx.nn.BatchNorm(3, "batch", mode="ema")), "BatchNorm.*LayerNorm"),
    "equinox wrong outputs": (lambda: equinox(out=2), "one score a row"),
    "a function that mixes rows": (
        lambda: ismcore.ScoreFunction(lambda p, x: p["k"] * (x - x.mean(0)), {"k": 1.0}, backend="jax"),
        "mixes the rows",
    ),
    "a string in the tree": (
        lambda: ismcore.ScoreFunction(lambda p, x: p["k"] * x, {"k": 1.0, "name": "x"}, backend="jax"),
        "parameter 'name' must be an array",
    ),
    "a plain function": (lambda: lambda x: -x, "wrap a function of your own as ismcore.ScoreFunction"),
    "a plain function as energy": (lambda: ismcore.Energy(lambda x: x), "model must be"),
}


class Narrow(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, dtype=jnp.float32)(x)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "words"), JAX.values(), ids=JAX)
def test_jax(make, words):
    with pytest.raises(ismcore.ModelError, match=words):
        ismcore.fit(X, model=make(), epochs=1, progress=False, validation=0)


@pytest.mark.slow
def test_a_dtype_fixed_too_narrow():
    with pytest.raises(ismcore.ModelError, match=r"float32"):
        ismcore.fit(X, model=Narrow(), epochs=1, dtype="float64", progress=False)
    ismcore.fit(X, model=Narrow(), epochs=1, dtype="float32", progress=False)


@pytest.mark.parametrize("kind", [np.abs, lambda x: np.maximum(x, 0.01 * x), np.sign, lambda x: np.tanh(x) + np.abs(x)])
@pytest.mark.parametrize("levels", [16, 8])
def test_kinks_and_jumps_are_counted(kind, levels):
    x = np.random.default_rng(0).normal(size=(32, 3))
    assert kinked_lines(kind, x, levels, 1e-16 if levels == 16 else 1e-7) > 5
    for smooth in (np.tanh, np.sin, lambda x: x**3, np.exp, np.arctan):
        assert kinked_lines(smooth, x, levels, 1e-16 if levels == 16 else 1e-7) == 0


def test_the_device_of_the_network_is_the_default():
    from ismcore.coordinates import Coordinates
    from ismcore.models import Standardized
    from ismcore.plugins.adoption import device_for

    class Elsewhere(ismcore.ScoreFunction):
        device = "cuda:3"

    model = Elsewhere(lambda ops, p, x: p["k"] * x, {"k": 1.0})
    assert device_for(model, "auto") == "cuda:3"
    assert device_for(Standardized(ismcore.Energy(model), Coordinates.identity(3)), "auto") == "cuda:3"
    assert device_for(model, "cpu") == "cpu"
    assert device_for(ismcore.MLP(), "auto") == "auto"
