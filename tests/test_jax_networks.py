"""Networks on JAX: what of them is trained, in which dtype and on which mesh, what is copied, and what is refused in words."""

import copy
import pickle
import subprocess
import sys
import textwrap

import equinox as eqx
import flax.linen as nn
import ismcore_jax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental import io_callback
from jax_modules import Linen, Nnx
from truth import correlated

import ismcore

pytestmark = pytest.mark.slow

X = correlated(n=40)
QUICK = {"epochs": 1, "progress": False, "validation": 0}


def mlp(activation=jnp.tanh, out=3):
    return eqx.nn.MLP(3, out, 6, 1, activation=activation, key=jax.random.key(0))


def linen():
    module = Linen((6, 3))
    return module, module.init(jax.random.key(1), jnp.zeros((1, 3)))


class Adapted(nnx.Module):
    """A layer with a low-rank correction, and a head."""

    def __init__(self):
        self.first = nnx.LoRALinear(3, 6, lora_rank=2, rngs=nnx.Rngs(0))
        self.first.lora.lora_b[...] = jnp.ones((2, 6))
        self.head = nnx.Linear(6, 3, rngs=nnx.Rngs(1))

    def __call__(self, x):
        return self.head(jnp.tanh(self.first(x)))


def function():
    params = {"w": jnp.ones((3, 3)) / 4.0, "b": jnp.zeros(3)}
    return ismcore.ScoreFunction(lambda p, x: jnp.tanh(x) @ p["w"] + p["b"], params, backend="jax")


def only(tree, where):
    return eqx.tree_at(where, jax.tree.map(lambda _: False, tree), replace=True)


PARTS = {
    "equinox tree": (mlp, lambda: only(mlp(), lambda m: m.layers[1].weight), {"layers.1.weight"}),
    "equinox functions": (mlp, lambda: lambda leaf: eqx.is_array(leaf) and leaf.ndim == 1, {"layers.0.bias", "layers.1.bias"}),
    "linen tree": (linen, lambda: {"Dense_0": False, "Dense_1": True}, {"Dense_1.kernel", "Dense_1.bias"}),
    "linen function": (linen, lambda: lambda path, value: path == ("Dense_0", "bias"), {"Dense_0.bias"}),
    "nnx type": (Adapted, lambda: nnx.LoRAParam, {"first.lora.lora_a", "first.lora.lora_b"}),
    "nnx path": (Adapted, lambda: nnx.PathContains("head"), {"head.kernel", "head.bias"}),
    "function": (function, lambda: {"w": False, "b": True}, {"b"}),
}


@pytest.mark.parametrize(("make", "spec", "names"), PARTS.values(), ids=PARTS)
def test_what_the_filter_selects_is_trained_with_the_gradient_of_the_whole(make, spec, names):
    part = ismcore.evaluate(ismcore_jax.Trainable(make(), spec()), None, X)
    whole = ismcore.evaluate(make(), None, X)
    assert part.gradient.keys() == names
    for name, value in part.gradient.items():
        np.testing.assert_allclose(value, whole.gradient[name], rtol=1e-12, atol=1e-12)
        assert np.abs(value).max() > 1e-3


@pytest.mark.parametrize("kind", ["equinox tree", "linen tree", "nnx type"])
def test_the_rest_of_the_network_comes_back_as_it_was(kind):
    make, spec, names = PARTS[kind]
    result = ismcore.fit(X, model=ismcore_jax.Trainable(make(), spec()), standardize=False, **QUICK)
    assert result.params.keys() == names
    before, after = (ismcore.evaluate(net, None, X, dtype="float32").gradient.keys() for net in (make(), result.native()))
    assert before == after
    own = {"equinox tree": lambda m: m.layers[0].weight, "linen tree": lambda m: m[1]["params"]["Dense_0"]["kernel"]}
    pick = own.get(kind, lambda m: m.first.kernel[...])
    np.testing.assert_array_equal(pick(result.native()), pick(make()))


@pytest.mark.parametrize(
    ("model", "spec", "words"),
    [
        (mlp, lambda leaf: False, "no parameters that the filter selects"),
        (mlp, {"layers": True}, r"eqx.partition\(module, filter_spec\)"),
        (linen, {"Dense_0": True}, "tree of booleans in the form of the parameters"),
        (lambda: Linen((6, 3)), {"Dense_0": True}, "no parameters yet to choose from|so none can be held"),
        (Adapted, nnx.BatchStat, "no parameters that the filter selects"),
        (lambda: 3, True, "not Trainable"),
    ],
)
def test_a_filter_that_does_not_fit_is_refused(model, spec, words):
    with pytest.raises(ismcore.ModelError, match=words):
        ismcore.evaluate(ismcore_jax.Trainable(model(), spec), None, X)


class Named(nn.Module):
    names: tuple

    @nn.compact
    def __call__(self, x):
        for name in self.names:
            x = jnp.tanh(nn.Dense(3, name=name)(x))
        return x


def test_a_layer_of_linen_may_have_any_name():
    module = Named(("inner", "mean", "scale", "energy", "network", "coordinates", "InUnits_0"))
    result = ismcore.fit(X, model=(module, module.init(jax.random.key(0), jnp.zeros((1, 3)))), **QUICK)
    native, variables = result.native()
    np.testing.assert_allclose(native.apply(variables, jnp.asarray(X, "float32")), result.score(X), rtol=1e-5, atol=1e-5)
    assert native.inner.names == module.names


def in_dtype(dtype):
    module = nn.Sequential([nn.Dense(6, dtype=dtype), jnp.tanh, nn.Dense(3, dtype=dtype)])
    return module, module.init(jax.random.key(1), jnp.zeros((1, 3)))


@pytest.mark.parametrize("divergence", ["nested", ismcore.Hutchinson(2)])
def test_losses_of_layers_in_half_precision_are_near_those_in_float32(divergence):
    x, key = jnp.asarray(X, "float32"), jax.random.key(2)

    def loss(dtype):
        module, variables = in_dtype(dtype)
        options = {"curvature_weight": 0.1, "divergence": divergence, "key": key}
        return jax.value_and_grad(lambda v: ismcore_jax.implicit_score_matching(lambda z: module.apply(v, z), x, **options))(
            variables
        )

    (right, slope), (half, half_slope) = loss(jnp.float32), loss(jnp.float16)
    assert half.dtype == right.dtype == jnp.float32
    assert 0.0 < abs(float(half - right)) < 5e-3
    for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(half_slope), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-2)


def test_a_network_that_leaves_the_dtype_of_the_samples_is_told_a_dtype_that_is_taken():
    half = in_dtype(jnp.float16)
    with pytest.raises(ismcore.ModelError, match=r"fixed to float16: let it follow its input \(Flax: dtype=None\)(\n|$)"):
        ismcore.fit(X, model=half, **QUICK)
    with pytest.raises(ismcore.ModelError, match=r"fixed to float32.*dtype='float32'"):
        ismcore.evaluate(in_dtype(jnp.float32), None, X, dtype="float64")


def with_step(step):
    return eqx.nn.Sequential([mlp(out=6), eqx.nn.Lambda(step), eqx.nn.Linear(6, 3, key=jax.random.key(5))])


def test_numbers_that_are_drawn_from_a_key_in_each_call_must_be_those_of_float32():
    # in 64-bit types, in which fits compute, jax.random gives other numbers of the same key
    with pytest.raises(ismcore.ModelError, match=r"in JAX's default dtype.*when it is built, or in float32"):
        ismcore.fit(X, model=with_step(lambda h: jnp.sin(h @ jax.random.uniform(jax.random.key(2), (6, 6)))), **QUICK)
    single = with_step(lambda h: jnp.sin(h @ jax.random.uniform(jax.random.key(2), (6, 6), jnp.float32).astype(h.dtype)))
    result = ismcore.fit(X, model=single, **QUICK)
    points = jnp.asarray(X, "float32")
    np.testing.assert_allclose(jax.vmap(result.native())(points), result.score(X), rtol=1e-4, atol=1e-4)


def test_complex_scores_are_refused_and_not_cut_to_their_real_part():
    with pytest.raises(ismcore.ModelError, match=r"returns complex64 .*let it follow its input"):
        ismcore.fit(X, model=with_step(lambda h: jnp.fft.fft(jnp.tanh(h))), **QUICK)


def test_a_part_in_half_precision_is_not_only_said_to_have_kinks():
    rounded = with_step(lambda h: jnp.tanh(h.astype(jnp.bfloat16)).astype(h.dtype))
    with pytest.raises(ismcore.ModelError, match=r"the rounding of a part in float16 or bfloat16.*full precision"):
        ismcore.fit(X, model=rounded, **QUICK)


def test_constants_of_float32_cost_no_digits_in_float64():
    module = nn.Sequential([nn.Dense(6), nn.BatchNorm(use_running_average=True), nn.tanh, nn.Dense(3)])
    variables = module.init(jax.random.key(1), jnp.zeros((1, 3)))
    variables["batch_stats"]["layers_1"]["var"] = jnp.linspace(0.3, 2.0, 6, dtype=jnp.float32)
    found = ismcore.evaluate((module, variables), None, X)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)
        jacobian = jax.vmap(jax.jacfwd(lambda row: module.apply(wide, row)))(jnp.asarray(X))
    np.testing.assert_allclose(found.jacobian_diagonal, np.einsum("nii->ni", jacobian), rtol=1e-13, atol=1e-13)


MESH = """
    import os
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    import jax, jax.numpy as jnp, numpy as np, ismcore, ismcore_jax
    from jax.sharding import Mesh, PartitionSpec as P

    jax.config.update("jax_enable_x64", True)
    mesh = Mesh(np.array(jax.devices()), ("b",))
    x = jax.random.normal(jax.random.key(1), (8, 3))
    probes = jax.random.normal(jax.random.key(3), (2, 8, 3))
    members = {"w": jax.random.normal(jax.random.key(2), (2, 3, 3)), "u": jnp.ones((2, 3))}
    one = jax.tree.map(lambda leaf: leaf[0], members)

    def loss(p, z, v):
        score = lambda at: jnp.sin(at @ p["w"]) * p["u"]
        return (
            ismcore_jax.implicit_score_matching(score, z, jnp.array([0.1, 0.0, 0.3]), chunk_size=4)
            + ismcore_jax.implicit_score_matching(score, z, 0.2, v)
            + ismcore_jax.sliced_score_matching(score, z, probes=v)
            + ismcore_jax.denoising_score_matching(score, z, 0.3, noise=v[0])
            + ismcore_jax.divergence(score, z).mean()
        )

    def near(found, right):
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)

    def over_devices(specs, out, f):
        return jax.jit(jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=out))

    split = over_devices((P(), P("b"), P(None, "b")), P(), lambda *at: jax.lax.pmean(loss(*at), "b"))
    near(jax.jit(jax.value_and_grad(split))(one, x, probes), jax.jit(jax.value_and_grad(loss))(one, x, probes))

    first = lambda tree: jax.tree.map(lambda leaf: leaf[0], tree)
    ensemble = over_devices((P("b"), P(), P()), P("b"), lambda p, z, v: loss(first(p), z, v)[None])
    near(ensemble(members, x, probes), jax.jit(jax.vmap(loss, (0, None, None)))(members, x, probes))

    sliced = lambda p, z, v: ismcore_jax.sliced_score_matching(lambda at: at @ p["w"], z, probes=v)
    estimate = over_devices((P(), P(), P("b")), P(), lambda *at: jax.lax.pmean(sliced(*at), "b"))
    near(estimate(one, x, probes), sliced(one, x, probes))
"""


def test_losses_on_a_mesh_are_those_of_one_device():
    """Rows on two devices; the members of an ensemble on two, with the rows on both; and only the probes on two."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(MESH)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("objective", [ismcore.ImplicitScoreMatching((0.1, 0.2, 0.3)), ismcore.DenoisingScoreMatching(0.3)])
def test_a_process_that_forbids_broadcasting_can_fit_and_keeps_its_rule(objective):
    with jax.numpy_rank_promotion("raise"):
        result = ismcore.fit(X, model=ismcore.MLP((4,)), objective=objective, backend="jax", **QUICK)
        assert np.isfinite(result.score(X)).all()
        with pytest.raises(ValueError, match="rank_promotion"):
            jnp.ones((2, 3)) + jnp.ones(3)


class Conditional(eqx.Module):
    net: eqx.nn.MLP

    def __call__(self, x, t):
        assert t.shape == ()
        return self.net(jnp.append(x, jnp.log(t)))


class ConditionalLinen(nn.Module):
    @nn.compact
    def __call__(self, x, t):
        return nn.Dense(3)(jnp.tanh(nn.Dense(6)(jnp.concatenate([x, jnp.log(t)[:, None]], axis=1))))


def test_a_context_of_one_number_may_come_without_its_axis():
    at, t = jnp.asarray(X, "float32"), jnp.linspace(0.2, 0.9, len(X))
    objective = ismcore.NoiseConditionalScoreMatching([10.0, 0.5])
    options = {**QUICK, "objective": objective, "standardize": False}
    net = Conditional(eqx.nn.MLP(4, 3, 6, 1, activation=jnp.tanh, key=jax.random.key(0)))
    result = ismcore.fit(X, model=net, **options)
    np.testing.assert_allclose(jax.vmap(result.native())(at, t), result.score(X, context=t), rtol=1e-5, atol=1e-5)
    result = ismcore.fit(X, model=ConditionalLinen(), **options)
    np.testing.assert_allclose(result.native()(at, t), result.score(X, context=t), rtol=1e-5, atol=1e-5)


class Shifted(nn.Module):
    @nn.compact
    def __call__(self, x):
        shift = self.param("shift", lambda key: -jnp.mean(x, axis=0))
        return nn.Dense(3)(jnp.tanh(x + shift))


def test_initialisers_that_look_at_the_rows_are_refused():
    with pytest.raises(ismcore.ModelError, match=r"draws shift from the rows.*module.init"):
        ismcore.fit(X, model=Shifted(), **QUICK)
    variables = Shifted().init(jax.random.key(0), X)
    ismcore.fit(X, model=(Shifted(), variables), **QUICK)


class Stepped(eqx.Module):
    """A layer and a step of one's own."""

    layer: eqx.nn.Linear
    step: object

    def __call__(self, row):
        return self.step(self.layer(row))


def stepped(step):
    return Stepped(eqx.nn.Linear(3, 3, key=jax.random.key(0)), step)


@jax.custom_vjp
def by_numpy(h):
    return jnp.tanh(h)


by_numpy.defvjp(lambda h: (jnp.tanh(h), h), lambda h, g: (np.asarray(g),))

FAULTS = {
    "loop to a value": (
        lambda h: jax.lax.fori_loop(0, jnp.int32(2.0 + 0.0 * h[0]), lambda k, a: jnp.tanh(a), h),
        "loops as often as values say.*lax.scan",
    ),
    "callback": (
        lambda h: io_callback(np.tanh, jax.ShapeDtypeStruct(h.shape, h.dtype), h),
        "calls Python while it runs.*custom_jvp",
    ),
    "no derivative": (
        lambda h: jax.scipy.special.gammainc(1.0 + h**2, jnp.ones(3)),
        "no derivative of its operation igamma_grad_a",
    ),
    "NumPy in a custom rule": (by_numpy, "to NumPy.*jax.numpy"),
    "branch": (lambda h: h if h[0] > 0 else jnp.tanh(h), "branches on values.*lax.cond"),
    "number": (lambda h: h * float(h[0]), "makes Python's numbers.*leave them arrays"),
    "mask": (lambda h: jnp.tanh(h[h > 0]), "size depends on values.*jnp.where"),
}


@pytest.mark.parametrize(("step", "words"), FAULTS.values(), ids=FAULTS)
def test_what_jax_cannot_differentiate_is_named_with_a_remedy(step, words):
    net = stepped(step)
    with pytest.raises(ismcore.ModelError, match=f"equinox.Module Stepped .*{words}"):
        ismcore.evaluate(net, None, X, dtype="float32")
    loss = jax.grad(lambda p: ismcore_jax.implicit_score_matching(lambda z: jax.vmap(stepped(step))(p * z), jnp.asarray(X)))
    with pytest.raises((ismcore.ModelError, NotImplementedError), match=f"score_fn .*{words}|igamma_grad_a"):
        loss(1.0)


def test_fit_names_what_cannot_be_differentiated_before_it_trains():
    with pytest.raises(ismcore.ModelError, match=r"equinox.Module Stepped .*loops as often as values say"):
        ismcore.fit(X, model=stepped(FAULTS["loop to a value"][0]), **QUICK)


class Picklable(eqx.Module):
    layer: eqx.nn.Linear
    activation: object

    def __call__(self, row):
        return self.layer(self.activation(row))


def picklable(activation=jax.nn.softplus):
    return Picklable(eqx.nn.Linear(3, 3, key=jax.random.key(0)), activation)


@pytest.mark.parametrize(
    "model",
    [picklable, lambda: Linen((6, 3), act=jax.nn.silu), lambda: Nnx([3, 6, 3], "tanh", nnx.Rngs(0)), linen],
    ids=["equinox", "linen drawn", "nnx", "linen pair"],
)
def test_results_are_copied_and_pickled_with_their_network(model):
    result = ismcore.fit(X, model=model(), **QUICK)
    for again in (copy.deepcopy(result), copy.copy(result), pickle.loads(pickle.dumps(result))):  # noqa: S301  (our own)
        np.testing.assert_array_equal(again.score(X), result.score(X))
        assert again.params.keys() == result.params.keys()
        assert again.model == result.model
        assert type(again.native()) is type(result.native())


def test_what_cannot_be_pickled_says_so_at_once_and_can_be_copied():
    result = ismcore.fit(X, model=picklable(lambda row: jnp.sin(row)), **QUICK)
    with pytest.raises(ismcore.ModelError, match=r"Picklable cannot be pickled.*lambda.*result.save"):
        pickle.dumps(result)
    np.testing.assert_array_equal(copy.deepcopy(result).score(X), result.score(X))


@pytest.mark.parametrize("dtype", ["float64", np.float64, np.dtype("float64"), jnp.float64, jnp.dtype("float64"), float])
def test_dtypes_and_devices_are_taken_as_objects(dtype):
    for device in ("cpu", jax.devices("cpu")[0], jnp.zeros(1).device):
        found = ismcore.evaluate(ismcore.MLP((4,)), None, X, backend="jax", dtype=dtype, device=device)
        assert (found.dtype, found.device) == ("float64", "cpu")
