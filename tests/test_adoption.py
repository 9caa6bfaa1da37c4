"""Networks of torch, Flax and Equinox handed to `fit` and `evaluate` as they are, against golden vectors and our own MLP."""

import copy
import gc
import weakref
from collections import namedtuple
from dataclasses import dataclass

import equinox as eqx
import flax.linen as nn
import ismcore_autograd
import ismcore_jax
import ismcore_torch
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from autograd import elementwise_grad
from flax import nnx
from jax_modules import Linen, Nnx
from late import torch
from networks import FUNCTIONS, NETWORKS
from truth import SMALL_SAMPLE, correlated, golden, marked, relative_error

import ismcore
from ismcore.coordinates import Coordinates
from ismcore.models import Standardized
from ismcore.plugins.adoption import adopted

X = correlated(n=40)
PLAIN = {
    "objective": ismcore.ImplicitScoreMatching(curvature_weight=0.1),
    "optimizer": ismcore.Adam(0.01),
    "validation": 0,
    "schedule": "constant",
    "dtype": "float64",
    "progress": False,
}
CASES = {case.raw["id"]: case for case in (*golden("score"), *golden("energy"))}
MLP = ismcore.MLP((6,), "tanh")
START = MLP.initial_params(3, 3)


def network(kind, params=START, activation="tanh"):
    with jax.enable_x64(True):
        return (NETWORKS | FUNCTIONS)[kind](params, activation)


@pytest.fixture(params=marked(NETWORKS))
def kind(request):
    return request.param


def fit(model, **options):
    return ismcore.fit(X, model=model, **{**PLAIN, "epochs": 3, **options})


def called(native, x):
    """What a native model gives for NumPy rows."""
    if hasattr(native, "state_dict"):
        return native(torch.tensor(x)).detach().numpy()
    with jax.enable_x64(True):
        if isinstance(native, tuple):
            return np.asarray(native[0].apply({"params": native[1]}, jnp.asarray(x)))
        native = jax.vmap(native) if isinstance(native, eqx.Module) else native
        return np.asarray(native(jnp.asarray(x)))


def summary(network):
    """Everything of a torch module that a fit might change."""
    return {
        "state": {name: value.clone() for name, value in network.state_dict().items()},
        "grad": [None if value.grad is None else value.grad.clone() for value in network.parameters()],
        "requires_grad": [value.requires_grad for value in network.parameters()],
        "ids": [id(value) for value in network.parameters()],
        "training": [layer.training for layer in network.modules()],
        "random": torch.get_rng_state(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002  (the state that must stay)
    }


def assert_same(first, second):
    assert torch.equal(first.pop("random"), second.pop("random"))
    for name, value in first.pop("state").items():
        assert torch.equal(value, second["state"][name]), name
    del second["state"]
    for a, b in zip(first.pop("grad"), second.pop("grad"), strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)
    assert first == second


@pytest.mark.parametrize(("kind", "case"), [*marked(NETWORKS, ["s3_gelu"]), *marked(["torch", "nnx"], ["e2_silu"])])
def test_loss_and_gradient_are_the_golden_ones(kind, case):
    case = CASES[case]
    own = network(kind, case.params, case.raw["activation"])
    model = ismcore.Energy(own.model) if case.raw["kind"] == "energy" else own.model
    at = ismcore.evaluate(model, None, case.x, ismcore.ImplicitScoreMatching(0.75))
    assert relative_error(at.score, case.score) < 1e-12
    assert relative_error(at.loss, case.raw["loss"]["reg0.75"]) < 1e-12
    gradient = own.ours(at.gradient)
    for name, expected in case.gradient("reg0.75").items():
        assert relative_error(gradient[name], expected) < 1e-12


@pytest.mark.parametrize(("kind", "case"), [*((kind, "s3_tanh") for kind in FUNCTIONS), ("torch-row", "e2_tanh")])
def test_functions_of_one_row_over_nested_parameters(kind, case):
    case = CASES[case]
    own = network(kind, case.params)
    model = ismcore.Energy(own.model) if case.raw["kind"] == "energy" else own.model
    at = ismcore.evaluate(model, None, case.x, ismcore.ImplicitScoreMatching(0.75))
    assert relative_error(at.loss, case.raw["loss"]["reg0.75"]) < 1e-12
    for name, expected in case.gradient("reg0.75").items():
        assert relative_error(own.ours(at.gradient)[name], expected) < 1e-12


def test_the_same_fit_as_our_own_network(kind):
    own = network(kind)
    expected = fit(MLP, initial_params=START, standardize=False, backend="autograd", epochs=100)
    found = fit(own.model, standardize=False, epochs=100)
    np.testing.assert_allclose(found.history["loss"], expected.history["loss"], rtol=0, atol=1e-9)
    for name, value in own.ours(found.params).items():
        np.testing.assert_allclose(value, expected.params[name], rtol=0, atol=1e-9)


def test_the_same_fit_to_standardised_samples_in_batches(kind):
    mean, scale = X.mean(axis=0), X.std(axis=0)
    options = {"batch_size": 16, "average_decay": 0.9, "epochs": 8}
    expected = fit(Standardized(MLP, Coordinates(mean, scale)), initial_params=START, backend="autograd", **options)
    found = fit(network(kind).model, **options)
    np.testing.assert_allclose(found.history["loss"], expected.history["loss"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.score(X), expected.score(X), rtol=0, atol=1e-9)


def test_the_bare_network_comes_back_in_kind(kind):
    own = network(kind)
    result = fit(own.model, standardize=False)
    trained = result.native()
    assert type(trained) is type(own.model)
    np.testing.assert_allclose(called(trained, X), result.score(X), rtol=0, atol=1e-12)
    assert np.abs(called(own.model, X) - result.score(X)).max() > 1e-3


def test_a_standardised_one_takes_the_units_of_the_samples(kind):
    result = fit(network(kind).model)
    np.testing.assert_allclose(called(result.native(), X), result.score(X), rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings(*SMALL_SAMPLE)
@pytest.mark.parametrize("kind", marked(["torch", "equinox"]))
def test_an_energy_comes_back_as_an_energy(kind):
    energy_params = CASES["e5_tanh"].params
    x = correlated(n=20, d=5)
    result = ismcore.fit(x, model=ismcore.Energy(network(kind, energy_params).model), **PLAIN, epochs=3)
    trained = result.native()
    step = 1e-5 * np.eye(5)
    slopes = [(called(trained, x + s) - called(trained, x - s)).reshape(20) / 2e-5 for s in step]
    np.testing.assert_allclose(result.score(x), -np.stack(slopes, axis=1), rtol=1e-6, atol=1e-6)


def test_a_native_torch_model_is_differentiable_and_on_its_device():
    result = fit(network("torch").model)
    trained = result.native()
    assert {value.device.type for value in (*trained.parameters(), *trained.buffers())} == {"cpu"}
    assert {value.dtype for value in (*trained.parameters(), *trained.buffers())} == {torch.float64}
    x = torch.tensor(X, requires_grad=True)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: trained(row[None])[0]))(x)
    divergence = jacobian.diagonal(dim1=1, dim2=2).sum(dim=1)
    np.testing.assert_allclose(divergence.detach().numpy(), result.divergence(X), rtol=1e-10, atol=1e-12)
    trained(x).sum().backward()
    assert all(value.grad is not None for value in trained.parameters())
    assert x.grad is not None
    copy.deepcopy(trained).to(torch.float32)(x.detach().float())


@pytest.mark.slow
@pytest.mark.parametrize("kind", marked(["linen", "nnx", "equinox"]))
def test_a_native_jax_model_is_differentiable(kind):
    result = fit(network(kind).model)
    trained = result.native()
    with jax.enable_x64(True):
        f = trained if kind != "linen" else lambda x: trained[0].apply({"params": trained[1]}, x)
        jacobian = jax.vmap(jax.jacrev(f))(jnp.asarray(X))
    np.testing.assert_allclose(np.einsum("nii->n", jacobian), result.divergence(X), rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_training_in_place_is_asked_for():
    net = network("torch").model
    result = fit(net)
    before = summary(net)
    ids = before["ids"]
    inside = result.native(into=net)
    assert inside.inner is net
    assert summary(net)["ids"] == ids
    np.testing.assert_allclose(called(inside, X), result.score(X), rtol=1e-12, atol=1e-12)
    module = Nnx([3, 6, 3], "tanh", nnx.Rngs(8))
    bare = fit(network("nnx").model, standardize=False)
    assert bare.native(into=module) is module
    np.testing.assert_allclose(called(module, X), bare.score(X), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "into"),
    [("torch", "other"), ("torch", "net"), ("nnx", "other"), ("linen", "net"), ("equinox", "net")],
)
def test_in_place_refuses_what_is_no_such_module(kind, into):
    result = fit(network(kind).model)
    with pytest.raises(ismcore.ModelError, match=r"into=|in place"):
        result.native(into=torch.nn.Linear(3, 3) if into == "other" else into)


def test_nothing_of_the_callers_torch_module_changes():
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 6), torch.nn.BatchNorm1d(6), torch.nn.Dropout(0.5), torch.nn.Tanh(), torch.nn.Linear(6, 3)
    ).eval()
    net[0].bias.requires_grad_(False)
    net(torch.ones(2, 3)).sum().backward()
    before = summary(net)
    result = fit(net, epochs=5)
    result.native()(torch.tensor(X))
    assert_same(before, summary(net))
    assert "0.bias" not in result.params
    assert "1.running_mean" not in result.params
    trained = result.native().inner
    assert torch.equal(trained[0].bias, net[0].bias.double())
    assert not torch.equal(trained[0].weight, net[0].weight.double())


@pytest.mark.slow
def test_flax_pairs_come_back_as_pairs_and_modules_bound():
    module = Linen((6, 3))
    variables = module.init(jax.random.key(1), jnp.zeros((1, 3)))
    drawn = fit(module, dtype="float32", seed=4)
    again = fit(module, dtype="float32", seed=4)
    other = fit(module, dtype="float32", seed=5)
    np.testing.assert_array_equal(drawn.params["Dense_0.kernel"], again.params["Dense_0.kernel"])
    assert not np.array_equal(drawn.params["Dense_0.kernel"], other.params["Dense_0.kernel"])
    x = jnp.asarray(X, jnp.float32)
    np.testing.assert_allclose(drawn.native()(x), drawn.score(X), rtol=1e-5, atol=1e-5)
    _, inside = drawn.native().unbind()
    assert jax.tree.structure(inside) == jax.tree.structure(variables)
    for model in ((module, variables), (module, variables["params"]), module.bind(variables)):
        result = fit(model, dtype="float32")
        native = result.native()
        if isinstance(model, tuple):
            seen, tree = native
            assert isinstance(seen, nn.Module)
            assert jax.tree.structure(tree) == jax.tree.structure(model[1])
            tree = tree if "params" in tree else {"params": tree}
            np.testing.assert_allclose(seen.apply(tree, x), result.score(X), rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_allclose(native(x), result.score(X), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_constants_of_a_flax_module_stay_and_come_back():
    module = nn.Sequential([nn.Dense(6), nn.BatchNorm(use_running_average=True), nn.tanh, nn.Dense(3)])
    variables = module.init(jax.random.key(1), jnp.zeros((1, 3)))
    variables["batch_stats"]["layers_1"]["mean"] = jnp.full(6, 0.5)
    _, tree = fit((module, variables), dtype="float32").native()
    np.testing.assert_array_equal(tree["batch_stats"]["layers_1"]["mean"], np.full(6, 0.5, np.float32))


def test_a_score_module_of_torch_has_our_names_for_our_models_and_its_own_for_adopted_ones():
    for model in (ismcore.MLP((4,)), ismcore.Energy(ismcore.ResidualMLP(4, 1)), network("torch").model):
        result = fit(model, backend="torch")
        module = ismcore_torch.module(result)
        assert list(module.state_dict()) == list(result.params)
        x = torch.tensor(X, requires_grad=True)
        np.testing.assert_allclose(module(x).detach(), result.score(X), rtol=1e-12, atol=1e-12)
        module(x).square().sum().backward()
        assert all(p.grad is not None for name, p in module.named_parameters() if name != "output.bias")
    assert isinstance(fit(ismcore.MLP((4,)), backend="torch").native(), torch.nn.Module)


@pytest.mark.slow
def test_a_score_function_of_jax_is_a_pytree_of_its_parameters():
    for model in (MLP, network("equinox").model):
        result = fit(model, backend="jax")
        with jax.enable_x64(True):
            function, x = ismcore_jax.function(result), jnp.asarray(X)
            np.testing.assert_allclose(jax.jit(lambda f, x: f(x))(function, x), result.score(X), rtol=1e-12, atol=1e-12)
            gradient = jax.grad(lambda f, x=x: (f(x) ** 2).sum())(function)
        assert gradient.args[0].keys() == result.params.keys()
        assert np.abs(next(iter(gradient.args[0].values()))).max() > 0
    assert isinstance(fit(MLP, backend="jax").native(), jax.tree_util.Partial)


def test_a_score_function_of_autograd_is_differentiable():
    result = ismcore.fit(X[:, :1], model=MLP, backend="autograd", **PLAIN, epochs=3)
    function = ismcore_autograd.function(result)
    np.testing.assert_allclose(function(X[:, :1]), result.score(X[:, :1]), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(elementwise_grad(function)(X[:, :1])[:, 0], result.divergence(X[:, :1]), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(result.native()(X[:, :1]), result.score(X[:, :1]), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_a_model_of_one_framework_gives_no_module_of_another():
    with pytest.raises(ismcore.ModelError, match="written for backend 'jax'"):
        ismcore_torch.module(fit(network("equinox").model))
    with pytest.raises(ismcore.ModelError, match="written for backend 'torch'"):
        ismcore_jax.function(fit(network("torch").model))
    np.testing.assert_allclose(
        ismcore_torch.module(fit(MLP, backend="autograd"))(torch.tensor(X)).detach(), fit(MLP, backend="autograd").score(X)
    )


Pair = namedtuple("Pair", ["inner", "outer"])


@jax.tree_util.register_dataclass
@dataclass
class Layer:
    weight: np.ndarray
    bias: np.ndarray


def batched(params, x):
    inner, outer = params["layers"].inner, params["layers"].outer
    tanh = torch.tanh if hasattr(x, "detach") else jnp.tanh
    return params["scale"][0] * tanh(x @ inner.weight.T + inner.bias) @ outer[0]


TREE = {"layers": Pair(Layer(np.ones((4, 3)), np.arange(4.0)), [np.linspace(-1, 1, 12).reshape(4, 3)]), "scale": [2.0]}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_tree_of_parameters_comes_back_as_it_was(backend):
    result = fit(ismcore.ScoreFunction(batched, TREE, backend=backend), backend=backend)
    assert set(result.params) == {"layers.inner.weight", "layers.inner.bias", "layers.outer.0", "scale"}
    function, tree = result.native()
    assert isinstance(tree["layers"], Pair)
    assert isinstance(tree["layers"].inner, Layer)
    with jax.enable_x64(True):
        x = torch.tensor(X) if backend == "torch" else jnp.asarray(X)
        np.testing.assert_allclose(np.asarray(function(tree, x)), result.score(X), rtol=1e-12, atol=1e-12)
    bare, tree = fit(ismcore.ScoreFunction(batched, TREE, backend=backend), standardize=False).native()
    assert bare is batched


def test_a_portable_function_comes_back_in_the_backends_arrays(backend):
    model = ismcore.ScoreFunction(lambda ops, p, x: -p["a"]["k"] * ops.tanh(x), {"a": {"k": 2.0}})
    result = fit(model, backend=backend)
    assert list(result.params) == ["a.k"]
    function, tree = result.native()
    with jax.enable_x64(True):
        x = torch.tensor(X) if backend == "torch" else {"jax": jnp.asarray, "autograd": np.asarray}[backend](X)
        np.testing.assert_allclose(np.asarray(function(tree, x)), result.score(X), rtol=1e-12, atol=1e-12)


def test_equal_jax_networks_share_their_programs(kind):
    if kind == "torch":
        first, second = (adopted(network(kind).model, X) for _ in range(2))
        assert first.spec == second.spec
        return
    first, second = (adopted(network(kind).model, X) for _ in range(2))
    other = adopted(network(kind, MLP.initial_params(9, 3)).model, X)
    wider = adopted(network(kind, ismcore.MLP((7,)).initial_params(3, 3)).model, X)
    assert first == second == other
    assert len({first, second, other}) == 1
    assert first != wider


@pytest.mark.slow
def test_a_second_fit_of_a_network_traces_nothing_anew():
    traces = []

    def traced(h):
        traces.append(1)
        return jnp.tanh(h)

    for seed in range(3):
        fit(Linen((6, 3), act=traced), dtype="float32", seed=seed)
        traces.append(0)
    rounds = "".join(map(str, traces)).split("0")
    assert len(rounds[1]) == len(rounds[2]) <= 8  # drawing the start, looking at shapes and rows
    assert len(rounds[0]) > len(rounds[1])


@pytest.mark.slow
def test_constants_are_part_of_the_program():
    def model(value):
        norm = nnx.BatchNorm(6, rngs=nnx.Rngs(0), use_running_average=True)
        norm.mean[...] = jnp.full(6, value)
        return adopted(Nnx([3, 6, 3], "tanh", nnx.Rngs(0), between=norm), X)

    assert model(0.0) == model(0.0)
    assert model(0.0) != model(1.0)


class Tabled(eqx.Module):
    linear: eqx.nn.Linear
    table: dict = eqx.field(static=True)

    def __call__(self, x):
        return self.linear(x) * self.table["scale"]


@pytest.mark.slow
def test_a_network_with_parts_that_cannot_be_hashed_shares_nothing():
    table = {"scale": 1.0}
    model = Tabled(eqx.nn.Linear(3, 3, key=jax.random.key(0)), table)
    first = ismcore.evaluate(model, None, X, dtype="float32").score
    table["scale"] = 2.0
    np.testing.assert_allclose(ismcore.evaluate(model, None, X, dtype="float32").score, 2 * first, rtol=1e-6)
    assert adopted(model, X) != adopted(model, X)


def test_later_changes_of_the_module_do_not_reach_the_result():
    net = network("torch").model
    result = fit(net)
    score = result.score(X)
    with torch.no_grad():
        for value in net.parameters():
            value.fill_(3.0)
    net[1] = torch.nn.Sigmoid()
    np.testing.assert_array_equal(result.score(X), score)


def test_no_result_keeps_the_weights_of_the_module_it_came_from():
    net = network("torch").model
    result = fit(net)
    kept = weakref.ref(net[0].weight)
    del net
    gc.collect()
    assert kept() is None
    assert all(value.is_meta for value in result.model.inner.template.parameters())
    with pytest.raises(ismcore.ModelError, match="no parameters to start from"):
        fit(result.model.inner)
    fit(result.model.inner, initial_params=result.params)


def test_saved_results_are_loaded_with_the_network(kind, tmp_path):
    own = network(kind)
    result = fit(own.model)
    result.save(tmp_path / "fit")
    loaded = ismcore.load(tmp_path / "fit", model=own.model)
    np.testing.assert_array_equal(loaded.score(X), result.score(X))
    np.testing.assert_allclose(called(loaded.native(), X), result.score(X), rtol=1e-12, atol=1e-12)
    with pytest.raises(ismcore.ModelError, match=r"a (torch|flax|equinox)\S* of your own.*model="):
        ismcore.load(tmp_path / "fit")
    with pytest.raises(ismcore.ModelError, match="fit is of a"):
        ismcore.load(tmp_path / "fit", model=network("linen" if kind == "equinox" else "equinox").model)


@pytest.mark.filterwarnings(*SMALL_SAMPLE)
@pytest.mark.parametrize("kind", ["torch", pytest.param("linen", marks=pytest.mark.slow)])
def test_everything_of_the_loop_is_there_for_adopted_networks(kind, tmp_path):
    own = network(kind)
    seen = []
    options = {"validation": 0.25, "average_decay": 0.9, "batch_size": 16, "snapshots": [2], "clip_norm": 1.0}
    whole = fit(own.model, epochs=6, **options)
    part = fit(own.model, epochs=6, checkpoint=tmp_path / "run", callbacks=[stop_after(3, seen)], **options)
    assert part.status == "interrupted"
    gone_on = ismcore.resume(tmp_path / "run", X, model=own.model)
    assert seen
    np.testing.assert_array_equal(gone_on.history["loss"], whole.history["loss"])
    np.testing.assert_array_equal(gone_on.score(X), whole.score(X))
    assert np.isfinite(whole.history["validation_loss"]).any()
    assert whole.score(X, epoch=2).shape == X.shape


def stop_after(epoch, seen):
    def look(event):
        if event.epoch >= epoch:
            seen.append(event.epoch)
            return ismcore.STOP
        return None

    return look


def conditional_of_torch():
    class Conditional(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))

        def forward(self, x, s):
            return self.net(torch.cat([x, torch.log(s)], dim=1)) / s

    return Conditional()


class ConditionalLinen(nn.Module):
    @nn.compact
    def __call__(self, x, s):
        return nn.Dense(3)(nn.tanh(nn.Dense(8)(jnp.concatenate([x, jnp.log(s)], axis=1)))) / s


class ConditionalRow(eqx.Module):
    net: eqx.nn.MLP

    def __call__(self, x, s):
        return self.net(jnp.concatenate([x, jnp.log(s)])) / s


def conditional_row():
    return ConditionalRow(eqx.nn.MLP(4, 3, 8, 1, activation=jnp.tanh, key=jax.random.key(0)))


@pytest.mark.parametrize(
    "make", [conditional_of_torch, *(pytest.param(f, marks=pytest.mark.slow) for f in (ConditionalLinen, conditional_row))]
)
def test_a_noise_scale_is_the_networks_second_argument(make, tmp_path):
    model = make()
    options = {"objective": ismcore.NoiseConditionalScoreMatching((1.0, 0.3)), "dtype": "float32", "epochs": 5}
    result = fit(model, **options)
    near, far = result.score(X, context=0.3), result.score(X, context=1.0)
    assert np.abs(near - far).max() > 1e-3
    native, context = result.native(), np.full((len(X), 1), 0.3, np.float32)
    if make is conditional_of_torch:
        found = native(torch.tensor(X).float(), torch.tensor(context)).detach().numpy()
    else:
        native = jax.vmap(native) if isinstance(native, eqx.Module) else native
        found = native(jnp.asarray(X, jnp.float32), jnp.asarray(context))
    np.testing.assert_allclose(found, near, rtol=1e-4, atol=1e-5)
    result.save(tmp_path / "fit")
    np.testing.assert_array_equal(ismcore.load(tmp_path / "fit", model=model).score(X, context=0.3), near)


def test_an_energy_may_take_a_context():
    model = ismcore.Energy(ismcore.ScoreFunction(lambda p, x, s: (p["k"] * x**2).sum(1) / s[:, 0], {"k": 0.5}, backend="torch"))
    x, s = X[:4], np.arange(1.0, 5.0)[:, None]
    result = fit(model, objective=ismcore.NoiseConditionalScoreMatching((4.0,)), standardize=False)
    np.testing.assert_allclose(result.score(x, context=s), -2 * result.params["k"] * x / s, rtol=1e-12)


def test_shared_parameters_and_parametrizations_of_torch():
    layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(3, 3))
    net = torch.nn.Sequential(layer, torch.nn.Tanh(), layer)
    result = fit(net, standardize=False)
    assert set(result.params) == {"0.bias", "0.parametrizations.weight.original0", "0.parametrizations.weight.original1"}
    trained = result.native()
    assert trained[0] is trained[2]
    np.testing.assert_allclose(trained(torch.tensor(X)).detach(), result.score(X), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_short_floats_and_compiled_modules_are_taken():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)).to(torch.bfloat16)
    assert fit(net).params["0.weight"].dtype == np.float64
    assert list(fit(torch.compile(net, backend="eager")).params) == list(fit(net).params)
    module = Linen((4, 3))
    params = jax.tree.map(lambda v: v.astype(jnp.bfloat16), module.init(jax.random.key(0), jnp.zeros((1, 3)))["params"])
    assert fit((module, params)).params["Dense_0.kernel"].dtype == np.float64


def test_a_network_starts_at_parameters_given_by_name():
    params = {name: np.zeros_like(value) for name, value in adopted(network("torch").model, X).start.items()}
    assert np.abs(ismcore.evaluate(network("torch").model, params, X).score).max() == 0.0
    tensors = dict(network("torch").model.named_parameters())
    at = ismcore.evaluate(network("torch").model, tensors, X)
    np.testing.assert_array_equal(at.score, ismcore.evaluate(network("torch").model, None, X).score)
