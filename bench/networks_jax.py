"""Networks of JAX for `bench/networks.py`: linen, NNX, Equinox, and functions of parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import equinox as eqx
import flax.linen as nn
import ismcore_jax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ismcore_jax.forms import path_name
from networks import Case

import ismcore

Function = Callable[[Any, jax.Array], jax.Array]


def made(make: Callable[[], Any]) -> Any:
    """Keys are in the networks."""
    return make()


def _wide(tree: Any) -> Any:
    """Floats in float64, as those of an evaluation in it are."""

    def wider(leaf: Any) -> Any:
        return jnp.asarray(leaf, jnp.float64) if eqx.is_inexact_array(leaf) else leaf

    return jax.tree.map(wider, tree)


def _apart(model: Any) -> tuple[Any, Function]:
    """The parameters that are trained, and the output for one row, (d,), as a function of them."""
    if isinstance(model, ismcore_jax.Trainable):
        return _part(model)
    if isinstance(model, ismcore.ScoreFunction):
        return _wide(model.params), lambda tree, row: model.apply(tree, row[None])[0]
    if isinstance(model, tuple):
        module, variables = model
        rest = _wide({name: value for name, value in variables.items() if name != "params"})
        return _wide(variables["params"]), lambda tree, row: module.apply({**rest, "params": tree}, row[None])[0]
    if isinstance(model, eqx.Module):
        params, static = eqx.partition(model, eqx.is_inexact_array)
        return _wide(params), lambda tree, row: eqx.combine(tree, static)(row)
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    return _wide(params), lambda tree, row: nnx.merge(graph, tree, _wide(rest), copy=True)(row[None])[0]


def _part(model: Any) -> tuple[Any, Function]:
    """The same of a `Trainable` that `part` made."""
    tree, output = _apart(model.model)
    spec = model.filter_spec
    if not isinstance(spec, eqx.Module):
        spec = jax.tree_util.tree_map_with_path(lambda path, leaf: model.filter_spec(path_name(path).split("."), leaf), tree)
    trained, frozen = eqx.partition(tree, spec)
    return trained, lambda part, row: output(eqx.combine(part, frozen), row)


def _score(model: Any) -> tuple[Any, Function]:
    """Parameters, and the score of one row."""
    if not isinstance(model, ismcore.Energy):
        return _apart(model)
    tree, energy = _apart(model.net)
    return tree, lambda tree, row: -jax.grad(lambda r: energy(tree, r).reshape(()))(row)


def _named(tree: Any) -> dict[str, np.ndarray]:
    return {path_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def parameters(model: Any) -> dict[str, np.ndarray]:
    with jax.enable_x64(True):
        return _named(_score(model)[0])


def right(model: Any, x: np.ndarray) -> tuple[float, dict[str, np.ndarray], np.ndarray]:
    """Forward mode, one row at a time; backward where a rule of the network's own allows only that."""

    def of(jacobian: Any) -> Any:
        tree, score = _score(model)

        def loss(tree: Any) -> tuple[jax.Array, jax.Array]:
            def row(at: jax.Array) -> tuple[jax.Array, jax.Array]:
                return score(tree, at), jnp.diagonal(jacobian(partial(score, tree))(at))

            psi, diagonal = jax.lax.map(row, jnp.asarray(x))
            return jnp.mean(0.5 * (psi**2).sum(1) + diagonal.sum(1)), diagonal

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(tree)

    with jax.enable_x64(True):
        try:
            (loss, diagonal), gradient = of(jax.jacfwd)
        except TypeError:
            (loss, diagonal), gradient = of(jax.jacrev)
        return float(loss), _named(gradient), np.asarray(diagonal)


def own_loss(model: Any, x: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
    with jax.enable_x64(True):
        tree, score = _score(model)

        def loss(tree: Any) -> jax.Array:
            return ismcore_jax.implicit_score_matching(jax.vmap(partial(score, tree)), jnp.asarray(x))

        value, gradient = jax.jit(jax.value_and_grad(loss))(tree)
        return float(value), _named(gradient)


def called(native: Any, x: np.ndarray) -> np.ndarray:
    points = jnp.asarray(x)
    if isinstance(native, tuple):
        first, tree = native
        variables = tree if isinstance(tree, dict) and "params" in tree else {"params": tree}
        return np.asarray(first.apply(variables, points) if isinstance(first, nn.Module) else first(tree, points))
    return np.asarray(jax.vmap(native)(points) if isinstance(native, eqx.Module) else native(points))


def part(words: str, net: Any) -> Any:
    """The parameters of a network whose path has these words, by a filter as its framework has it."""

    def has(path: Any, _: Any) -> bool:
        return words in (path_name(path) if isinstance(net, eqx.Module) else ".".join(map(str, path)))

    spec = jax.tree_util.tree_map_with_path(has, net) if isinstance(net, eqx.Module) else has
    return ismcore_jax.Trainable(net, spec)


def keys(seed: int = 0) -> Callable[[], jax.Array]:
    stream = iter(jax.random.split(jax.random.key(seed), 64))
    return lambda: next(stream)


# linen: a function (x) of layers made where they are called


class Linen(nn.Module):
    body: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return self.body(x)


def linen(body: Callable[[jax.Array], jax.Array], d: int = 3) -> tuple[nn.Module, Any]:
    """With all parameters moved a little, so that none is at a special place."""
    module = Linen(body)
    variables = module.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, jnp.ones((2, d)))
    key = jax.random.key(7)
    moved = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(key, leaf.shape, leaf.dtype), variables["params"])
    return module, {**variables, "params": moved}


def between(*middle: Callable[[], Any]) -> Callable[[jax.Array], jax.Array]:
    """Dense 3 -> 8, some steps, Dense 8 -> 3."""

    def body(x: jax.Array) -> jax.Array:
        h = nn.Dense(8)(x)
        for make in middle:
            h = make()(h)
        return nn.Dense(3)(h)

    return body


def tanh() -> Any:
    return jnp.tanh


def on_tokens(step: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """A step on x as a sequence of d tokens of 8 features, (n, d, 8)."""

    def body(x: jax.Array) -> jax.Array:
        h = nn.Dense(8)(x[..., None])
        return nn.Dense(1)(h + step(h))[..., 0]

    return body


def on_images(step: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """A step on x as images of 4 x 4, (n, 4, 4, 1)."""
    return lambda x: nn.Dense(16)(step(x.reshape(-1, 4, 4, 1)).reshape(len(x), -1))


def linen_attention(h: jax.Array, **options: Any) -> jax.Array:
    return nn.MultiHeadDotProductAttention(num_heads=2, deterministic=True)(h, h, **options)


class Block(nn.Module):
    @nn.compact
    def __call__(self, h: jax.Array, _: Any) -> tuple[jax.Array, None]:
        return h + jnp.tanh(nn.Dense(8)(h)), None


def linen_scan(h: jax.Array) -> jax.Array:
    return nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)()(h, None)[0]


def linen_remat(h: jax.Array) -> jax.Array:
    return nn.remat(Block)()(h, None)[0]


def sown(h: jax.Array) -> jax.Array:
    module = nn.module._context.module_stack[-1]
    module.sow("intermediates", "h", h)
    return jnp.tanh(h)


def tied(x: jax.Array) -> jax.Array:
    layer = nn.Dense(3)
    return layer(jnp.tanh(layer(jnp.tanh(layer(x)))))


LINEN = (
    Case("activations", "tanh", lambda: linen(between(tanh))),
    Case("activations", "softplus", lambda: linen(between(lambda: nn.softplus))),
    Case("activations", "gelu", lambda: linen(between(lambda: nn.gelu))),
    Case("activations", "relu", lambda: linen(between(lambda: nn.relu)), "refused: not smooth in x"),
    Case("norms", "LayerNorm", lambda: linen(between(nn.LayerNorm, tanh))),
    Case("norms", "RMSNorm", lambda: linen(between(nn.RMSNorm, tanh))),
    Case("norms", "GroupNorm", lambda: linen(between(lambda: nn.GroupNorm(2), tanh))),
    Case("norms", "WeightNorm", lambda: linen(between(lambda: nn.WeightNorm(nn.Dense(8)), tanh))),
    Case("norms", "BatchNorm, running mean", lambda: linen(between(lambda: nn.BatchNorm(use_running_average=True), tanh))),
    Case("norms", "BatchNorm, training", lambda: linen(between(lambda: nn.BatchNorm(False), tanh)), "refused: mixes the rows"),
    Case(
        "norms",
        "SpectralNorm, vectors not converged",
        lambda: linen(between(lambda: partial(nn.SpectralNorm(nn.Dense(8)), update_stats=False), tanh)),
        "refused: another gradient than its loss",
    ),  # it stops the gradient at a power iteration of the weights
    Case("random", "Dropout, deterministic", lambda: linen(between(tanh, lambda: nn.Dropout(0.5, deterministic=True)))),
    Case(
        "random",
        "Dropout, training",
        lambda: linen(between(tanh, lambda: nn.Dropout(0.5, deterministic=False))),
        "refused: draws random numbers",
    ),
    Case("attention", "MultiHeadDotProductAttention", lambda: linen(on_tokens(linen_attention))),
    Case(
        "attention", "causal mask", lambda: linen(on_tokens(lambda h: linen_attention(h, mask=nn.make_causal_mask(h[..., 0]))))
    ),
    Case(
        "convolutions",
        "Conv, avg_pool",
        lambda: linen(on_images(lambda h: nn.avg_pool(jnp.tanh(nn.Conv(4, (3, 3))(h)), (2, 2))), 16),
        d=16,
    ),
    Case(
        "convolutions",
        "Conv with strides, ConvTranspose",
        lambda: linen(
            on_images(lambda h: nn.ConvTranspose(1, (2, 2), strides=(2, 2))(jnp.tanh(nn.Conv(4, (2, 2), strides=2)(h)))), 16
        ),
        d=16,
    ),
    Case(
        "convolutions",
        "max_pool",
        lambda: linen(on_images(lambda h: nn.max_pool(jnp.tanh(nn.Conv(4, (3, 3))(h)), (2, 2))), 16),
        "refused: not smooth in x",
        d=16,
    ),
    Case(
        "recurrent", "RNN of LSTMCell", lambda: linen(on_tokens(lambda h: nn.RNN(nn.LSTMCell(8, param_dtype=jnp.float64))(h)))
    ),
    Case(
        "recurrent",
        "RNN of GRUCell, both ways",
        lambda: linen(
            on_tokens(lambda h: nn.Bidirectional(*(nn.RNN(nn.GRUCell(4, param_dtype=jnp.float64)) for _ in "ab"))(h))
        ),
    ),
    Case(
        "recurrent",
        "RNN of LSTMCell, carry in float32",
        lambda: linen(on_tokens(lambda h: nn.RNN(nn.LSTMCell(8))(h))),
        "refused: carry input and carry output must have equal types",
    ),
    Case("structure", "scan over layers", lambda: linen(between(lambda: linen_scan))),
    Case("structure", "remat", lambda: linen(between(lambda: linen_remat))),
    Case("structure", "sow", lambda: linen(between(lambda: sown))),
    Case("structure", "one layer thrice", lambda: linen(tied)),
    Case(
        "structure",
        "DenseGeneral",
        lambda: linen(lambda x: nn.DenseGeneral(3, axis=(-2, -1))(jnp.tanh(nn.DenseGeneral((2, 4))(x)))),
    ),
    Case("parts", "the last layer alone (Trainable)", lambda: part("Dense_1", linen(between(tanh)))),
    Case(
        "dtypes",
        "param_dtype bfloat16",
        lambda: linen(lambda x: nn.Dense(3, param_dtype=jnp.bfloat16)(jnp.tanh(nn.Dense(8, param_dtype=jnp.bfloat16)(x)))),
    ),
    Case(
        "dtypes",
        "dtype bfloat16",
        lambda: linen(lambda x: nn.Dense(3, dtype=jnp.bfloat16)(x)),
        "refused: fixed to bfloat16: let it follow its input",
    ),
    Case("energies", "(n, 1)", lambda: ismcore.Energy(linen(lambda x: nn.Dense(1)(nn.softplus(nn.Dense(8)(x)))))),
    Case(
        "energies",
        "(n,), LayerNorm",
        lambda: ismcore.Energy(linen(lambda x: nn.Dense(1)(nn.LayerNorm()(nn.softplus(nn.Dense(8)(x))))[:, 0])),
    ),
)


# NNX: named parts, and a function of them


class Nnx(nnx.Module):
    def __init__(self, body: Callable[[Any, jax.Array], jax.Array], **parts: Any) -> None:
        self.body = body
        for name, part in parts.items():
            setattr(self, name, part)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.body(self, x)


def linear(n_in: int, n_out: int, seed: int = 0) -> nnx.Linear:
    return nnx.Linear(n_in, n_out, rngs=nnx.Rngs(seed))


def nnx_between(*middle: Any) -> nnx.Module:
    steps = [jnp.tanh if step is tanh else step for step in middle]
    return nnx.Sequential(linear(3, 8), *steps, linear(8, 3, 1))


def nnx_tokens(step: Callable[[Any, jax.Array], jax.Array], **parts: Any) -> nnx.Module:
    def body(net: Any, x: jax.Array) -> jax.Array:
        h = net.embed(x[..., None])
        return net.out(h + step(net, h))[..., 0]

    return Nnx(body, embed=linear(1, 8), out=linear(8, 1, 1), **parts)


def nnx_attention(**options: Any) -> nnx.Module:
    return nnx_tokens(lambda net, h: net.m(h), m=nnx.MultiHeadAttention(2, 8, decode=False, rngs=nnx.Rngs(2), **options))


def exact_attention(query: Any, key: Any, value: Any, **_: Any) -> jax.Array:
    """nnx.dot_product_attention's softmax is always in float32."""
    logits = jnp.einsum("...qhd,...khd->...hqk", query, key) / np.sqrt(query.shape[-1])
    return jnp.einsum("...hqk,...khd->...qhd", jax.nn.softmax(logits), value)


def stacked_layers() -> nnx.Module:
    layers = nnx.vmap(lambda rngs: nnx.Linear(8, 8, rngs=rngs))(nnx.Rngs(3).fork(split=2))
    scan = nnx.scan(lambda h, layer: h + jnp.tanh(layer(h)), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    return Nnx(lambda net, x: net.b(scan(net.a(x), net.layers)), a=linear(3, 8), b=linear(8, 3, 1), layers=layers)


def low_rank() -> nnx.Module:
    first = nnx.LoRALinear(3, 8, lora_rank=2, rngs=nnx.Rngs(0))
    first.lora.lora_b[...] = 0.1 * jnp.ones((2, 8))
    return Nnx(lambda net, x: net.head(jnp.tanh(net.first(x))), first=first, head=linear(8, 3, 1))


def counting(net: Any, x: jax.Array) -> jax.Array:
    net.count[...] += 1
    return net.a(x)


def frozen_features() -> nnx.Module:
    features = nnx.Variable(jax.random.normal(jax.random.key(4), (3, 8)))
    return Nnx(lambda net, x: net.b(jnp.sin(x @ net.features[...])), features=features, b=linear(8, 3, 1))


NNX = (
    Case("activations", "tanh", lambda: nnx_between(tanh)),
    Case("norms", "LayerNorm", lambda: nnx_between(nnx.LayerNorm(8, rngs=nnx.Rngs(2)), tanh)),
    Case("norms", "RMSNorm", lambda: nnx_between(nnx.RMSNorm(8, rngs=nnx.Rngs(2)), tanh)),
    Case(
        "norms",
        "BatchNorm, running mean",
        lambda: nnx_between(nnx.BatchNorm(8, use_running_average=True, rngs=nnx.Rngs(2)), tanh),
    ),
    Case(
        "norms", "BatchNorm, training", lambda: nnx_between(nnx.BatchNorm(8, rngs=nnx.Rngs(2)), tanh), "refused: mixes the rows"
    ),
    Case("random", "Dropout, eval()", lambda: nnx_between(tanh, nnx.Dropout(0.5, deterministic=True, rngs=nnx.Rngs(2)))),
    Case(
        "random", "Dropout, training", lambda: nnx_between(tanh, nnx.Dropout(0.5, rngs=nnx.Rngs(2))), "refused: module.eval()"
    ),
    Case("attention", "MultiHeadAttention (softmax in float32)", nnx_attention, near=1e-5),
    Case("attention", "MultiHeadAttention, attention_fn of one's own", lambda: nnx_attention(attention_fn=exact_attention)),
    Case(
        "convolutions",
        "Conv",
        lambda: Nnx(
            lambda net, x: net.b(jnp.tanh(net.c(x.reshape(-1, 4, 4, 1))).reshape(len(x), -1)),
            c=nnx.Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)),
            b=linear(32, 16),
        ),
        d=16,
    ),
    Case(
        "recurrent",
        "RNN of GRUCell",
        lambda: nnx_tokens(
            lambda net, h: net.r(h, initial_carry=jnp.zeros((*h.shape[:-2], 8), h.dtype)),
            r=nnx.RNN(nnx.GRUCell(8, 8, rngs=nnx.Rngs(2))),
        ),
    ),
    Case(
        "recurrent",
        "RNN of GRUCell that draws its first carry",
        lambda: nnx_tokens(lambda net, h: net.r(h), r=nnx.RNN(nnx.GRUCell(8, 8, rngs=nnx.Rngs(2)))),
        "refused: initial_carry=",
    ),
    Case("structure", "scan over layers", stacked_layers),
    Case(
        "structure",
        "remat",
        lambda: Nnx(
            lambda net, x: nnx.remat(lambda net, x: net.b(jnp.tanh(net.a(x))))(net, x), a=linear(3, 8), b=linear(8, 3, 1)
        ),
    ),
    Case("structure", "one layer twice", lambda: Nnx(lambda net, x: net.a(jnp.tanh(net.a(x))), a=linear(3, 3))),
    Case(
        "structure",
        "a list of layers",
        lambda: Nnx(lambda net, x: net.layers[1](jnp.tanh(net.layers[0](x))), layers=nnx.List([linear(3, 8), linear(8, 3, 1)])),
    ),
    Case(
        "structure",
        "a variable that counts calls",
        lambda: Nnx(counting, a=linear(3, 3), count=nnx.Variable(jnp.zeros(()))),
        "refused: changes a variable of its own",
    ),
    Case("parts", "features as nnx.Variable", frozen_features),
    Case("parts", "LoRA, all of it", low_rank),
    Case("parts", "the LoRA parameters alone (Trainable)", lambda: part("lora.", low_rank())),
    Case("energies", "(n, 1)", lambda: ismcore.Energy(nnx.Sequential(linear(3, 8), nnx.softplus, linear(8, 1, 1)))),
)


# Equinox: named parts, and a function of them and one row


class Eqx(eqx.Module):
    parts: dict[str, Any]
    body: Callable[[Any, jax.Array], jax.Array] = eqx.field(static=True)

    def __call__(self, row: jax.Array) -> jax.Array:
        return self.body(self.parts, row)


def of_parts(body: Callable[[Any, jax.Array], jax.Array], **parts: Any) -> eqx.Module:
    return Eqx(parts, body)


def affine(n_in: int, n_out: int, seed: int = 0) -> eqx.nn.Linear:
    return eqx.nn.Linear(n_in, n_out, key=jax.random.key(seed))


def eqx_between(*middle: Any) -> eqx.Module:
    steps = [eqx.nn.Lambda(jnp.tanh) if step is tanh else step for step in middle]
    return eqx.nn.Sequential([affine(3, 8), *steps, affine(8, 3, 1)])


def eqx_step(step: Callable[[jax.Array], jax.Array]) -> eqx.Module:
    """Two linear layers and a step of one's own between them."""
    return of_parts(lambda net, row: net["b"](step(net["a"](row))), a=affine(3, 8), b=affine(8, 3, 1))


def eqx_mlp(out: Any = 3, activation: Any = jnp.tanh) -> eqx.Module:
    return eqx.nn.MLP(3, out, 8, 2, activation=activation, key=jax.random.key(0))


def eqx_tokens(step: Callable[[Any, jax.Array], jax.Array], **parts: Any) -> eqx.Module:
    def body(net: Any, row: jax.Array) -> jax.Array:
        h = jax.vmap(net["embed"])(row[:, None])
        return jax.vmap(net["out"])(h + step(net, h))[:, 0]

    return of_parts(body, embed=affine(1, 8), out=affine(8, 1, 1), **parts)


def gru(net: Any, h: jax.Array) -> jax.Array:
    def step(state: jax.Array, token: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = net["cell"](token, state)
        return state, state

    return jax.lax.scan(step, jnp.zeros(8, h.dtype), h)[1]


def eqx_ensemble() -> eqx.Module:
    members = eqx.filter_vmap(lambda key: eqx.nn.MLP(3, 3, 4, 1, activation=jnp.tanh, key=key))(
        jax.random.split(jax.random.key(0), 3)
    )
    call = eqx.filter_vmap(lambda member, row: member(row), in_axes=(eqx.if_array(0), None))
    return of_parts(lambda net, row: call(net["members"], row).mean(0), members=members)


def eqx_stacked() -> eqx.Module:
    layers = eqx.filter_vmap(lambda key: eqx.nn.Linear(8, 8, key=key))(jax.random.split(jax.random.key(3), 2))

    def body(net: Any, row: jax.Array) -> jax.Array:
        arrays, static = eqx.partition(net["layers"], eqx.is_array)
        h, _ = jax.lax.scan(lambda h, at: (h + jnp.tanh(eqx.combine(at, static)(h)), None), net["a"](row), arrays)
        return net["b"](h)

    return of_parts(body, a=affine(3, 8), b=affine(8, 3, 1), layers=layers)


@jax.custom_vjp
def right_rule(h: jax.Array) -> jax.Array:
    return jnp.sin(h)


right_rule.defvjp(lambda h: (jnp.sin(h), h), lambda h, g: (jnp.cos(h) * g,))


@jax.custom_vjp
def straight_through(h: jax.Array) -> jax.Array:
    return jnp.sin(h)


straight_through.defvjp(lambda h: (jnp.sin(h), None), lambda _, g: (g,))


@jax.custom_jvp
def called_back(h: jax.Array) -> jax.Array:
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(h.shape, h.dtype), h, vmap_method="broadcast_all")


called_back.defjvp(lambda primals, tangents: (called_back(*primals), jnp.cos(primals[0]) * tangents[0]))


def plain_callback(h: jax.Array) -> jax.Array:
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(h.shape, h.dtype), h, vmap_method="broadcast_all")


def while_loop(h: jax.Array) -> jax.Array:
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.tanh(c[1])), (0, h))[1]


EQUINOX = (
    Case("activations", "tanh, MLP", eqx_mlp),
    Case("activations", "relu, MLP", lambda: eqx_mlp(activation=jax.nn.relu), "refused: not smooth in x"),
    Case("norms", "LayerNorm", lambda: eqx_between(eqx.nn.LayerNorm(8), tanh)),
    Case("norms", "RMSNorm", lambda: eqx_between(eqx.nn.RMSNorm(8), tanh)),
    Case("norms", "GroupNorm", lambda: eqx_between(eqx.nn.GroupNorm(2, 8), tanh)),
    Case("norms", "BatchNorm", lambda: eqx_between(eqx.nn.BatchNorm(8, "batch", mode="ema"), tanh), "refused: use LayerNorm"),
    Case("random", "Dropout, inference", lambda: eqx_between(tanh, eqx.nn.Dropout(0.5, inference=True))),
    Case("random", "Dropout, training", lambda: eqx_between(tanh, eqx.nn.Dropout(0.5)), "refused: inference_mode"),
    Case(
        "attention",
        "MultiheadAttention",
        lambda: eqx_tokens(lambda net, h: net["m"](h, h, h), m=eqx.nn.MultiheadAttention(2, 8, key=jax.random.key(2))),
    ),
    Case(
        "attention",
        "RotaryPositionalEmbedding",
        lambda: eqx_tokens(
            lambda net, h: net["m"](net["r"](h), net["r"](h), h),
            m=eqx.nn.MultiheadAttention(2, 8, key=jax.random.key(2)),
            r=eqx.nn.RotaryPositionalEmbedding(8),
        ),
    ),
    Case(
        "convolutions",
        "Conv1d, AvgPool1d",
        lambda: of_parts(
            lambda net, row: net["l"](eqx.nn.AvgPool1d(2, 2)(jnp.tanh(net["c"](row[None]))).ravel()),
            c=eqx.nn.Conv1d(1, 4, 3, padding=1, key=jax.random.key(0)),
            l=affine(12, 6),
        ),
        d=6,
    ),
    Case(
        "convolutions",
        "Conv2d, ConvTranspose2d",
        lambda: of_parts(
            lambda net, row: net["t"](jnp.tanh(net["c"](row.reshape(1, 4, 4)))).ravel(),
            c=eqx.nn.Conv2d(1, 4, 2, stride=2, key=jax.random.key(0)),
            t=eqx.nn.ConvTranspose2d(4, 1, 2, stride=2, key=jax.random.key(1)),
        ),
        d=16,
    ),
    Case(
        "convolutions",
        "MaxPool1d",
        lambda: of_parts(
            lambda net, row: net["l"](eqx.nn.MaxPool1d(2, 2)(jnp.tanh(net["c"](row[None]))).ravel()),
            c=eqx.nn.Conv1d(1, 4, 3, padding=1, key=jax.random.key(0)),
            l=affine(12, 6),
        ),
        "refused: not smooth in x",
        d=6,
    ),
    Case("recurrent", "GRUCell by lax.scan", lambda: eqx_tokens(gru, cell=eqx.nn.GRUCell(8, 8, key=jax.random.key(2)))),
    Case("structure", "filter_vmap over an ensemble", eqx_ensemble),
    Case("structure", "scan over stacked layers", eqx_stacked),
    Case(
        "structure", "filter_checkpoint", lambda: of_parts(lambda net, row: eqx.filter_checkpoint(net["m"])(row), m=eqx_mlp())
    ),
    Case("structure", "filter_jit inside", lambda: of_parts(lambda net, row: eqx.filter_jit(net["m"])(row), m=eqx_mlp())),
    Case("structure", "loop of fixed length", lambda: eqx_step(lambda h: jax.lax.fori_loop(0, 3, lambda _, a: jnp.tanh(a), h))),
    Case("structure", "while_loop", lambda: eqx_step(while_loop), "refused: use lax.scan"),
    Case("own rules", "custom_vjp", lambda: eqx_step(right_rule)),
    Case(
        "own rules",
        "custom_vjp, straight through",
        lambda: eqx_step(straight_through),
        "refused: something else than its derivative",
    ),
    Case("own rules", "pure_callback", lambda: eqx_step(plain_callback), "refused: jax.custom_jvp"),
    Case("own rules", "pure_callback with custom_jvp", lambda: eqx_step(called_back)),
    Case(
        "own rules",
        "stop_gradient(x)",
        lambda: of_parts(lambda net, row: net["m"](jax.lax.stop_gradient(row)), m=eqx_mlp()),
        "refused: cut off",
    ),
    Case("parts", "the last layer alone (Trainable)", lambda: part("layers.2", eqx_mlp())),
    Case("energies", "scalar", lambda: ismcore.Energy(eqx_mlp("scalar", jax.nn.softplus))),
    Case(
        "energies",
        "ICNN",
        lambda: ismcore.Energy(
            of_parts(
                lambda net, row: jax.nn.softplus(
                    net["c"](row) + jax.nn.softplus(net["w"]) @ jax.nn.softplus(net["a"](row))
                ).sum(),
                a=affine(3, 8),
                c=affine(3, 4, 1),
                w=jax.random.normal(jax.random.key(2), (4, 8)),
            )
        ),
    ),
)


# functions of parameters


def function(apply: Callable[[Any, jax.Array], jax.Array], *shapes: tuple[int, ...]) -> ismcore.ScoreFunction:
    """apply(params, x) of parameters a, b, c, ... of these shapes."""
    draw = keys()
    params = {name: 0.5 * jax.random.normal(draw(), shape) for name, shape in zip("abcdef", shapes, strict=False)}
    return ismcore.ScoreFunction(apply, params, backend="jax")


def hidden(step: Callable[[jax.Array], jax.Array]) -> ismcore.ScoreFunction:
    return function(lambda p, x: step(x @ p["a"] + p["b"]) @ p["c"], (3, 8), (8,), (8, 3))


def rk4(p: Any, x: jax.Array) -> jax.Array:
    def slope(z: jax.Array) -> jax.Array:
        return jnp.tanh(z @ p["a"]) @ p["b"]

    def step(z: jax.Array, _: None) -> tuple[jax.Array, None]:
        k1 = slope(z)
        k2 = slope(z + 0.1 * k1)
        k3 = slope(z + 0.1 * k2)
        return z + 0.2 / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + slope(z + 0.2 * k3)), None

    return jax.lax.scan(step, x, None, length=3)[0]


def coupling(p: Any, x: jax.Array) -> jax.Array:
    """- log p of an affine coupling layer and a normal base."""
    h = jnp.tanh(x[:, :1] @ p["a"])
    log_scale, shift = jnp.tanh(h @ p["b"]), h @ p["c"]
    z = x[:, 1:] * jnp.exp(log_scale) + shift
    return 0.5 * (z**2).sum(1) + 0.5 * x[:, 0] ** 2 - log_scale.sum(1)


def mixture(p: Any, x: jax.Array) -> jax.Array:
    squares = ((x[:, None, :] - p["a"]) ** 2 * jnp.exp(p["b"])).sum(-1)
    return -jax.nn.logsumexp(jax.nn.log_softmax(p["c"]) - 0.5 * squares + 0.5 * p["b"].sum(-1), axis=-1)


def on_a_mesh(p: Any, x: jax.Array) -> jax.Array:
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("b",))
    spec = jax.sharding.PartitionSpec
    return jax.shard_map(lambda a, z: jnp.tanh(z @ a), mesh=mesh, in_specs=(spec(), spec()), out_specs=spec())(p["a"], x)


def covariance(p: Any, x: jax.Array) -> jax.Array:
    factor = jnp.linalg.cholesky(p["a"] @ p["a"].T + jnp.eye(3))
    return -jax.scipy.linalg.cho_solve((factor, True), jnp.sinh(x).T).T


FUNCTIONS = (
    Case("functions", "SIREN, w0 = 30", lambda: hidden(lambda h: jnp.sin(30.0 * h))),
    Case(
        "functions",
        "Fourier features",
        lambda: function(lambda p, x: jnp.concatenate([jnp.sin(x @ p["a"]), jnp.cos(x @ p["a"])], 1) @ p["b"], (3, 4), (8, 3)),
    ),
    Case("functions", "checkpoint", lambda: hidden(jax.checkpoint(jnp.tanh))),
    Case(
        "functions",
        "associative_scan",
        lambda: hidden(lambda h: jax.lax.associative_scan(lambda a, b: jnp.tanh(a + b), h, axis=1)),
    ),
    Case("functions", "cond on a constant", lambda: hidden(lambda h: jax.lax.cond(len(h) > 0, jnp.tanh, jnp.sin, h))),
    Case(
        "functions", "fft", lambda: hidden(lambda h: jnp.tanh(jnp.fft.irfft(jnp.fft.rfft(h, axis=1) * jnp.arange(5.0), axis=1)))
    ),
    Case("functions", "Runge-Kutta by scan", lambda: function(rk4, (3, 8), (8, 3))),
    Case("functions", "Cholesky factor of a covariance", lambda: function(covariance, (3, 3))),
    Case("functions", "shard_map on one device", lambda: function(on_a_mesh, (3, 3))),
    Case(
        "functions",
        "jax.nn.dot_product_attention (softmax in float32)",
        lambda: function(
            lambda p, x: jax.nn.dot_product_attention(*[(x[..., None, None] * p[k]) for k in "abc"])[..., 0, :].mean(-1),
            (4,),
            (4,),
            (4,),
        ),
        near=1e-5,
    ),
    Case("functions", "a float32 island", lambda: hidden(lambda h: jnp.sin(h.astype(jnp.float32)).astype(h.dtype)), near=1e-5),
    Case(
        "functions",
        "a branch of Python on values",
        lambda: hidden(lambda h: h if h.sum() > 0 else jnp.tanh(h)),
        "refused: lax.cond",
    ),
    Case("functions", "NumPy inside", lambda: hidden(lambda h: jnp.tanh(np.asarray(h))), "refused: use jax.numpy"),
    Case("functions", "softmax over rows", lambda: hidden(lambda h: jax.nn.softmax(h, axis=0)), "refused: mixes the rows"),
    Case("functions", "sort", lambda: hidden(lambda h: jnp.sort(h, axis=1)), "refused: not smooth in x"),
    Case(
        "functions",
        "parameters behind stop_gradient",
        lambda: function(lambda p, x: jnp.tanh(x @ jax.lax.stop_gradient(p["a"])), (3, 3)),
        "refused: cannot be trained",
    ),
    Case("densities", "coupling layer", lambda: ismcore.Energy(function(coupling, (1, 8), (8, 2), (8, 2)))),
    Case("densities", "mixture of normals", lambda: ismcore.Energy(function(mixture, (4, 3), (4, 3), (4,)))),
)


def _titled(kind: str, cases: tuple[Case, ...]) -> list[Case]:
    return [replace(case, family=f"{kind}: {case.family}") for case in cases]


CASES = (
    *_titled("linen", LINEN),
    *_titled("NNX", NNX),
    *_titled("Equinox", EQUINOX),
    *_titled("JAX", FUNCTIONS),
)
