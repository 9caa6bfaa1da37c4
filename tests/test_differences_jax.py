"""A network on JAX or autograd whose training step is not that of its scores is refused, and one that is right never is."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from truth import SMALL_SAMPLE, correlated

import ismcore

pytestmark = pytest.mark.filterwarnings(
    *SMALL_SAMPLE, "ignore:.*training leaves (it as it is|them as they are):ismcore.IsmWarning"
)
X = correlated(n=50)
QUICK = {"epochs": 1, "validation": 0, "progress": False}


def untrained(result):
    return [text for text in result.warnings if "training leaves" in text]


class CutLinen(nn.Module):
    @nn.compact
    def __call__(self, x):
        h = nn.Dense(8)(x)
        return nn.Dense(3)(jnp.tanh(h) * jax.lax.stop_gradient(jnp.cos(h)))


class CutNnx(nnx.Module):
    def __init__(self):
        self.a, self.b = (nnx.Linear(*sizes, rngs=nnx.Rngs(0)) for sizes in ((3, 8), (8, 3)))

    def __call__(self, x):
        return self.b(jnp.tanh(self.a(x + jax.lax.stop_gradient(jnp.sin(x)))))


class ClosedNnx(CutNnx):
    def __init__(self):
        super().__init__()
        self.run = lambda x: self.b(jnp.tanh(self.a(x)))

    def __call__(self, x):
        return self.run(x)


class CutEquinox(eqx.Module):
    a: eqx.nn.Linear
    b: eqx.nn.Linear

    def __call__(self, row):
        return self.b(jnp.tanh(self.a(row)) / (1.0 + jax.lax.stop_gradient(jnp.square(row).sum())))


class HeldEquinox(eqx.Module):
    a: eqx.nn.Linear
    scale: jax.Array

    def __call__(self, row):
        return self.a(jnp.tanh(row * jax.lax.stop_gradient(self.scale)))


def equinox(kind, *more):
    keys = jax.random.split(jax.random.key(0), 2)
    return kind(*(eqx.nn.Linear(*sizes, key=key) for sizes, key in zip(((3, 8), (8, 3)), keys, strict=True)), *more)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (CutLinen, "differentiated in x to something else"),
        (CutNnx, "differentiated in x to something else"),
        (lambda: equinox(CutEquinox), "differentiated in x to something else"),
        (ClosedNnx, r"no parameter has any effect on the score \(a.bias, a.kernel, b.bias, b.kernel\)"),
    ],
    ids=["linen", "nnx", "equinox", "nnx closure"],
)
def test_jax_cut_off(make, words):
    with pytest.raises(ismcore.ModelError, match=words):
        ismcore.fit(X, model=make(), **QUICK)


class LinenAttention(nn.Module):
    @nn.compact
    def __call__(self, x):
        h = nn.LayerNorm()(nn.Dense(8)(x[..., None]))
        return nn.Dense(1)(h + nn.MultiHeadDotProductAttention(2)(h, h))[..., 0]


class FrozenNnx(CutNnx):
    def __init__(self):
        super().__init__()
        self.a.kernel = nnx.Variable(self.a.kernel[...])

    def __call__(self, x):
        return self.b(jnp.tanh(self.a(x)))


class Recurrent(eqx.Module):
    cell: eqx.nn.GRUCell
    last: eqx.nn.Linear

    def __call__(self, row):
        def step(h, value):
            h = self.cell(value, h)
            return h, None

        return self.last(jax.lax.scan(step, jnp.zeros(5), row[:, None])[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        LinenAttention,
        FrozenNnx,
        lambda: Recurrent(eqx.nn.GRUCell(1, 5, key=jax.random.key(0)), eqx.nn.Linear(5, 3, key=jax.random.key(1))),
        lambda: ismcore.Energy(eqx.nn.MLP(3, "scalar", 8, 1, jax.nn.softplus, key=jax.random.key(0))),
    ],
    ids=["linen attention", "nnx frozen", "equinox recurrent", "equinox energy"],
)
def test_jax_that_is_right_passes_without_a_word(make):
    assert not untrained(ismcore.fit(X, model=make(), **QUICK))


@pytest.mark.slow
def test_a_constant_of_jax_is_told():
    layer = eqx.nn.Linear(3, 3, key=jax.random.key(0))
    result = ismcore.fit(X, model=HeldEquinox(layer, jnp.ones(3)), **QUICK)
    assert [text[:27] for text in untrained(result)] == ["no gradient reaches scale, "]


def test_autograd_cut_off_from_x():
    import autograd.numpy as anp
    from autograd.tracer import getval

    def apply(params, x):
        return anp.tanh(anp.dot(x / (1.0 + getval(x) ** 2), params["w"]))

    with pytest.raises(ismcore.ModelError, match="differentiated in x to something else"):
        ismcore.fit(X, model=ismcore.ScoreFunction(apply, {"w": 0.5 * np.eye(3)}, backend="autograd"), **QUICK)
