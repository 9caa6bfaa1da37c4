"""Losses for user loops: the laws of derivatives of any order, of chunks and probes, and what they leave alone."""

import ast
import contextlib
import importlib
import inspect
import subprocess
import sys

import ismcore_autograd
import ismcore_torch
import jax
import numpy as np
import pytest
from frameworks import AUTOGRAD, FRAMEWORKS, JAX, torch_framework
from late import torch
from truth import marked

import ismcore

N, D, H = 5, 3, 4
RNG = np.random.default_rng(3)
X = RNG.normal(size=(N, D))
PARAMS = {"w": RNG.normal(size=(H, D)), "b": RNG.normal(size=H), "u": RNG.normal(size=(D, H)), "c": RNG.normal(size=D)}
TANGENTS = {name: RNG.normal(size=value.shape) for name, value in PARAMS.items()}
PROBES = RNG.normal(size=(2, N, D))
NOISE = RNG.normal(size=(N, D))
WEIGHT = (0.1, 0.0, 0.7)


@pytest.fixture(params=marked(FRAMEWORKS))
def framework(request):
    with jax.enable_x64(True) if request.param == "jax" else contextlib.nullcontext():
        yield FRAMEWORKS[request.param]()


def score(fw, p):
    """psi = u tanh(w x + b) + c, whose Jacobian u diag(1 - tanh^2) w is not symmetric."""
    return lambda x: fw.tanh(x @ p["w"].T + p["b"]) @ p["u"].T + p["c"]


def constants(fw, at=None):
    return fw.array(X) if at is None else at, fw.array(PROBES), fw.array(NOISE)


def ours(fw, at=None):
    """Each loss as a function of the parameters, through the library."""
    x, probes, noise = constants(fw, at)
    lib = fw.losses
    return {
        "ism": lambda p: lib.implicit_score_matching(score(fw, p), x),
        "penalised": lambda p: lib.implicit_score_matching(score(fw, p), x, WEIGHT),
        "estimated": lambda p: lib.implicit_score_matching(score(fw, p), x, 0.3, probes),
        "ssm": lambda p: lib.sliced_score_matching(score(fw, p), x, probes=probes, variance_reduced=False),
        "ssm_vr": lambda p: lib.sliced_score_matching(score(fw, p), x, probes=probes),
        "dsm": lambda p: lib.denoising_score_matching(score(fw, p), x, 0.4, noise=noise),
        "esm": lambda p: lib.explicit_score_matching(score(fw, p), x, -x),
        "divergence": lambda p: (lib.divergence(score(fw, p), x) ** 2).sum(),
        "hutchinson": lambda p: (lib.hutchinson_divergence(score(fw, p), x, probes=probes) ** 2).sum(),
    }


def by_hand(fw, at=None):
    """The same with the Jacobian's products by formula: no derivative in x is taken by a framework."""
    x, probes, noise = constants(fw, at)
    lam = fw.array(WEIGHT)

    def slopes(p):
        t = fw.tanh(x @ p["w"].T + p["b"])
        return 1.0 - t * t

    def diagonal(p):
        return slopes(p) @ (p["w"] * p["u"].T)

    def products(p):
        return [v * (((v @ p["u"]) * slopes(p)) @ p["w"]) for v in (probes[0], probes[1])]

    def half(psi):
        return 0.5 * (psi * psi).sum(1)

    def estimated(p):
        a, b = products(p)
        return (half(score(fw, p)(x)) + (0.5 * (a + b) + 0.3 * a * b).sum(1)).sum() / N

    def ssm(p, *, reduced):
        psi = score(fw, p)(x)
        squares = [half(psi)] * 2 if reduced else [0.5 * (probes[k] * psi).sum(1) ** 2 for k in (0, 1)]
        return sum((q.sum(1) + s).sum() for q, s in zip(products(p), squares, strict=True)) / (2 * N)

    return {
        "ism": lambda p: (half(score(fw, p)(x)) + diagonal(p).sum(1)).sum() / N,
        "penalised": lambda p: (half(score(fw, p)(x)) + (diagonal(p) + lam * diagonal(p) ** 2).sum(1)).sum() / N,
        "estimated": estimated,
        "ssm": lambda p: ssm(p, reduced=False),
        "ssm_vr": lambda p: ssm(p, reduced=True),
        "dsm": lambda p: half(score(fw, p)(x + 0.4 * noise) + noise / 0.4).sum() / N,
        "esm": lambda p: half(score(fw, p)(x) + x).sum() / N,
        "divergence": lambda p: (diagonal(p).sum(1) ** 2).sum(),
        "hutchinson": lambda p: ((0.5 * sum(products(p))).sum(1) ** 2).sum(),
    }


LOSSES = tuple(by_hand(AUTOGRAD))


def together(losses, names=LOSSES):
    """One scalar, so that one compiled program serves all: any loss with a wrong derivative spoils it."""
    return lambda p: sum((k + 1.0) * losses[name](p) for k, name in enumerate(names))


def assert_close(fw, found, expected):
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_close(fw, found[name], value)
    else:
        np.testing.assert_allclose(fw.numpy(found), fw.numpy(expected), rtol=1e-12, atol=1e-12)


def squared_gradient(fw, f):
    """|gradient|^2 as a function of the parameters."""
    return lambda p: sum((g * g).sum() for g in fw.gradient(f)(p).values())


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_are_those_of_the_formula(framework, name):
    p = framework.arrays(PARAMS)
    value, gradient = framework.value_and_grad(ours(framework)[name])(p)
    expected, slopes = framework.value_and_grad(by_hand(framework)[name])(p)
    assert_close(framework, value, expected)
    assert_close(framework, gradient, slopes)


def test_gradient_in_the_samples_is_that_of_the_formula(framework):
    p, x = framework.arrays(PARAMS), framework.array(X)
    found = framework.gradient(lambda x: together(ours(framework, x))(p))(x)
    assert_close(framework, found, framework.gradient(lambda x: together(by_hand(framework, x))(p))(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own forward mode warns at its first use
@pytest.mark.parametrize("name", LOSSES)
def test_forward_mode_is_that_of_the_formula(framework, name):
    p, tangents = framework.arrays(PARAMS), framework.arrays(TANGENTS)
    _, found = framework.jvp(ours(framework)[name], p, tangents)
    _, expected = framework.jvp(by_hand(framework)[name], p, tangents)
    assert_close(framework, found, expected)


@pytest.mark.slow
def test_gradient_of_the_squared_gradient_is_that_of_the_formula(framework):
    p = framework.arrays(PARAMS)
    compiled = jax.jit if framework is JAX else lambda f: f

    def derived(losses):
        # JAX compiles each program: one of all losses is quicker there
        chosen = [together(losses)] if framework is JAX else [losses[name] for name in LOSSES]
        return [compiled(framework.gradient(squared_gradient(framework, f)))(p) for f in chosen]

    for found, expected in zip(derived(ours(framework)), derived(by_hand(framework)), strict=True):
        assert_close(framework, found, expected)


@pytest.mark.parametrize("name", marked(["torch", "jax"]))
def test_mapped_over_parameters_each_is_as_alone(name):
    fw = FRAMEWORKS[name]()
    with jax.enable_x64(True):
        scales = (1.0, -0.5)
        many = {key: fw.array(np.stack([s * value for s in scales])) for key, value in PARAMS.items()}
        for loss in LOSSES:
            values, gradients = fw.vmap(fw.value_and_grad(ours(fw)[loss]))(many)
            for k in range(len(scales)):
                value, gradient = fw.value_and_grad(by_hand(fw)[loss])({key: v[k] for key, v in many.items()})
                assert_close(fw, values[k], value)
                assert_close(fw, {key: g[k] for key, g in gradients.items()}, gradient)


@pytest.mark.slow
def test_jitted_equals_eager():
    with jax.enable_x64(True):
        p = JAX.arrays(PARAMS)
        value, gradient = jax.jit(jax.value_and_grad(together(ours(JAX))))(p)
        expected, slopes = jax.value_and_grad(together(by_hand(JAX)))(p)
        assert_close(JAX, value, expected)
        assert_close(JAX, gradient, slopes)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compilers warn of their own parts
@pytest.mark.parametrize(("compiler", "names"), [("aot_eager", LOSSES), ("inductor", ("penalised",))])
def test_compiled_whole_equals_eager(compiler, names):
    torch._dynamo.reset()
    fw = torch_framework()
    p = fw.arrays(PARAMS)
    compiled = torch.compile(torch.func.grad_and_value(together(ours(fw), names)), fullgraph=True, backend=compiler)
    gradient, value = compiled(p)
    slopes, expected = torch.func.grad_and_value(together(by_hand(fw), names))(p)
    assert_close(fw, value, expected)
    assert_close(fw, gradient, slopes)


@pytest.mark.filterwarnings("ignore")
def test_compiled_draws_are_drawn_anew():
    torch._dynamo.reset()
    x = torch.randn(200, D)
    loss = torch.compile(
        lambda x: ismcore_torch.sliced_score_matching(lambda q: -(x**2) * q, x, probes="gaussian"),
        fullgraph=True,
        backend="aot_eager",
    )
    assert loss(x) != loss(x)


@pytest.mark.parametrize("name", LOSSES)
def test_backward_leaves_everything_but_the_parameters_gradients_alone(name):
    fw = torch_framework()
    p = {key: value.requires_grad_() for key, value in fw.arrays(PARAMS).items()}
    before = torch.get_rng_state()
    loss = ours(fw)[name](p)
    assert all(value.grad is None for value in p.values())
    loss.backward()
    slopes = torch.func.grad(by_hand(fw)[name])(fw.arrays(PARAMS))
    for key, value in p.items():
        assert_close(fw, torch.zeros_like(value) if value.grad is None else value.grad, slopes[key])
    assert torch.equal(before, torch.get_rng_state())


def test_a_module_and_its_samples_stay_as_they_are():
    net = torch.nn.Sequential(torch.nn.Linear(D, H), torch.nn.Tanh(), torch.nn.BatchNorm1d(H).eval(), torch.nn.Linear(H, D))
    net.register_buffer("count", torch.zeros(2))
    net[0].weight.requires_grad_(False)
    net[0].bias.grad = torch.ones(H)
    x = torch.randn(N, D, generator=torch.Generator().manual_seed(0))

    def state():
        flags = [(m.training, type(m)) for m in net.modules()]
        tensors = [*net.parameters(), *net.buffers(), x]
        return flags, [(t.clone().detach(), t.requires_grad, t.grad, t._version) for t in tensors], torch.get_rng_state()

    before = state()
    ismcore_torch.implicit_score_matching(net, x, 0.1)
    ismcore_torch.implicit_score_matching(net, x, chunk_size=2, differentiable=False)
    draw = {"generator": torch.Generator().manual_seed(1)}
    ismcore_torch.sliced_score_matching(net, x, **draw)
    ismcore_torch.denoising_score_matching(net, x, 0.1, **draw)
    ismcore_torch.explicit_score_matching(net, x, -x)
    ismcore_torch.hutchinson_divergence(net, x, **draw)
    flags, tensors, random_state = state()
    assert flags == before[0]
    assert torch.equal(random_state, before[2])
    for (value, *rest), (old, *old_rest) in zip(tensors, before[1], strict=True):
        assert torch.equal(value, old)
        assert all(a is b or a == b for a, b in zip(rest, old_rest, strict=True))


def test_arrays_and_random_state_of_numpy_stay_as_they_are():
    x, state = X.copy(), np.random.get_state()[1].copy()  # noqa: NPY002  (the global generator is what must not be touched)
    psi = score(AUTOGRAD, PARAMS)
    ismcore_autograd.implicit_score_matching(psi, x, 0.1)
    ismcore_autograd.denoising_score_matching(psi, x, 0.1, generator=np.random.default_rng(0))
    assert np.array_equal(x, X)
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_tensors_on_another_device_meet_no_constant_of_the_cpu():
    """The meta device holds no numbers, but refuses to mix devices as CUDA does."""
    x = torch.empty(N, D, device="meta")
    net = torch.nn.Linear(D, D, device="meta")
    for loss in (
        ismcore_torch.implicit_score_matching(net, x, WEIGHT),
        ismcore_torch.implicit_score_matching(net, x, 0.1, ismcore.Hutchinson(2, "sphere"), chunk_size=None),
        ismcore_torch.sliced_score_matching(net, x, probes=PROBES),
        ismcore_torch.sliced_score_matching(net, x, probes=torch.tensor(PROBES)),
        ismcore_torch.denoising_score_matching(net, x, 0.1),
        ismcore_torch.divergence(net, x, chunk_size=2).sum(),
    ):
        assert loss.device.type == "meta"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_losses_have_the_dtype_of_the_samples(framework, dtype):
    if framework is AUTOGRAD and dtype == "bfloat16":
        dtype = "float16"
    x = framework.array(X, dtype)
    psi = score(framework, framework.arrays(PARAMS, dtype))
    lib, draw = framework.losses, framework.random()
    weight = np.asarray(WEIGHT, dtype=np.float64)
    for found in (
        lib.implicit_score_matching(psi, x, np.float64(0.1)),
        lib.implicit_score_matching(psi, x, weight, ismcore.Hutchinson(2), **draw),
        lib.sliced_score_matching(psi, x, probes="sphere", **draw),
        lib.denoising_score_matching(psi, x, np.float64(0.3), **draw),
        lib.explicit_score_matching(psi, x, -X),
        lib.divergence(psi, x, chunk_size=2),
    ):
        assert dtype in str(found.dtype)


@pytest.mark.parametrize("chunk_size", [1, 4, 10**6])
def test_chunks_change_no_value_and_no_gradient(framework, chunk_size):
    x, p = framework.array(X), framework.arrays(PARAMS)

    def loss(p, **kwargs):
        return framework.losses.implicit_score_matching(score(framework, p), x, 0.2, **kwargs)

    value, gradient = framework.value_and_grad(lambda p: loss(p, chunk_size=chunk_size))(p)
    expected, slopes = framework.value_and_grad(loss)(p)
    assert_close(framework, value, expected)
    assert_close(framework, gradient, slopes)
    assert_close(framework, loss(p, chunk_size=chunk_size, differentiable=False), expected)


def test_what_is_not_differentiable_is_a_constant(framework):
    x, p = framework.array(X), framework.arrays(PARAMS)
    lib = framework.losses

    def constant(p):
        psi = score(framework, p)
        held = lib.implicit_score_matching(psi, x, 0.1, differentiable=False)
        held = held + lib.divergence(psi, x, differentiable=False).sum()
        held = held + lib.hutchinson_divergence(psi, x, probes=PROBES, differentiable=False).sum()
        return held + lib.explicit_score_matching(psi, x, -x, differentiable=False) * (p["c"] ** 2).sum()

    gradient = framework.gradient(constant)(p)
    at = lib.explicit_score_matching(score(framework, p), x, -x)
    assert_close(framework, gradient["c"], 2.0 * p["c"] * at)
    assert_close(framework, gradient["w"], 0.0 * p["w"])


def test_evaluation_in_torch_keeps_no_graph():
    fw = torch_framework()
    p = {key: value.requires_grad_() for key, value in fw.arrays(PARAMS).items()}
    x = fw.array(X)
    expected = by_hand(fw)["ism"](p).detach()
    assert not ismcore_torch.implicit_score_matching(score(fw, p), x, differentiable=False).requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            for samples in (x, x.clone()):
                found = ismcore_torch.implicit_score_matching(score(fw, p), samples, chunk_size=2)
                assert not found.requires_grad
                assert_close(fw, found.clone(), expected)


@pytest.mark.parametrize("law", ["rademacher", "gaussian", "sphere"])
def test_drawn_probes_have_unit_second_moment_and_repeat_with_their_seed(framework, law):
    n, x = 4000, framework.array(np.zeros((4000, D)))
    matrix = framework.array(np.diag([1.0, 2.0, 3.0]) + 0.5)

    def estimate(seed):
        draw = framework.random(seed)
        found = framework.losses.hutchinson_divergence(lambda q: q @ matrix, x, n_probes=2, probes=law, **draw)
        return framework.numpy(found)

    first = estimate(0)
    assert abs(first.mean() - 7.5) < 6.0 * first.std() / np.sqrt(n)
    assert np.array_equal(first, estimate(0))
    assert not np.array_equal(first, estimate(1))
    alone = framework.losses.hutchinson_divergence(lambda q: 2.0 * q, x, probes=law, **framework.random())
    assert np.allclose(framework.numpy(alone), 6.0) == (law != "gaussian")


def test_drawn_noise_is_standard_normal_and_repeats_with_its_seed(framework):
    n = 4000
    x = framework.array(np.zeros((n, D)))

    def squares(seed):
        # of the score 0 at scale s the terms are |e|^2 / 2 s^2
        draw = framework.random(seed)
        terms = framework.losses.denoising_score_matching(lambda q: 0.0 * q, x, 0.5, reduction="none", **draw)
        return 0.5 * framework.numpy(terms)

    first = squares(0)
    for power, moment in ((1, D), (2, D * (D + 2))):  # of chi-squared with D degrees of freedom
        found = first**power
        assert abs(found.mean() - moment) < 6.0 * found.std() / np.sqrt(n)
    assert np.array_equal(first, squares(0))
    assert not np.array_equal(first, squares(1))


def test_scales_and_weights_may_be_arrays_to_differentiate_in(framework):
    x, p, noise = framework.array(X), framework.arrays(PARAMS), framework.array(NOISE)
    lib, psi = framework.losses, score(framework, framework.arrays(PARAMS))
    expected = (framework.numpy(lib.jacobian_diagonal(psi, x)) ** 2).sum() / N
    slope = framework.gradient(lambda weight: lib.implicit_score_matching(psi, x, weight))(framework.array(0.3))
    np.testing.assert_allclose(framework.numpy(slope), expected, rtol=1e-12)
    scale = framework.array(np.full((N, 1), 0.4))
    assert_close(framework, lib.denoising_score_matching(psi, x, scale, noise=noise), by_hand(framework)["dsm"](p))


def test_a_weight_without_axes_is_the_number(framework):
    x, psi = framework.array(X), score(framework, framework.arrays(PARAMS))
    found, expected = (framework.losses.implicit_score_matching(psi, x, weight) for weight in (np.array(0.3), 0.3))
    assert framework.numpy(found) == framework.numpy(expected)
    with pytest.raises(ismcore.OptionError, match="finite and from 0"):
        ismcore.ImplicitScoreMatching(np.array(-0.3))


def test_reductions(framework):
    x, psi = framework.array(X), score(framework, framework.arrays(PARAMS))
    terms, total, mean = (
        framework.numpy(framework.losses.implicit_score_matching(psi, x, 0.1, reduction=reduction))
        for reduction in ("none", "sum", "mean")
    )
    assert terms.shape == (N,)
    np.testing.assert_allclose(terms.sum(), total, rtol=1e-13)
    np.testing.assert_allclose(terms.mean(), mean, rtol=1e-13)


def test_a_hutchinson_brings_its_own_probes(framework):
    p, x = framework.arrays(PARAMS), framework.array(X)
    own = ismcore.Hutchinson(probes=PROBES)
    assert_close(
        framework,
        framework.losses.implicit_score_matching(score(framework, p), x, 0.3, own),
        by_hand(framework)["estimated"](p),
    )


def test_wrong_arguments_are_answered(framework):
    lib, x = framework.losses, framework.array(X)
    psi = score(framework, framework.arrays(PARAMS))
    whole = framework.array(np.ones((2, 2)))

    def ism(*args, **kwargs):
        return lib.implicit_score_matching(psi, x, *args, **kwargs)

    for wrong in (x[0], X.tolist(), framework.array(np.ones((0, 3)))):
        with pytest.raises(ismcore.SamplesError, match=r"shape \(n, d\)"):
            lib.implicit_score_matching(psi, wrong)
    with pytest.raises(ismcore.ModelError, match=r"of shape \(5, 3\), not shape \(5,\)"):
        lib.divergence(lambda q: q.sum(1), x)
    with pytest.raises(ismcore.ModelError, match="score_fn must be a function"):
        lib.divergence(3.0, x)
    for match, call in {
        "'mean', 'sum' or 'none'": lambda: ism(reduction="average"),
        "'nested', ismcore.Hutchinson": lambda: ism(divergence="exact"),
        "finite and from 0": lambda: ism(-1.0),
        "only ismcore.fit searches": lambda: ism("auto"),
        r"shape \(\) or \(3,\)|shape \(3,\)": lambda: ism((0.1, 0.2)),
        "chunk_size must be": lambda: ism(chunk_size=0),
        "chunk_size bounds": lambda: ism(0.0, ismcore.Hutchinson(), chunk_size=2, **framework.random()),
        "n_probes=2": lambda: ism(0.1, ismcore.Hutchinson(), **framework.random()),
        "rademacher, gaussian, sphere": lambda: lib.sliced_score_matching(psi, x, probes="signs", **framework.random()),
        r"\(m, 5, 3\)": lambda: lib.hutchinson_divergence(psi, x, probes=PROBES[0]),
        r"noise must have shape \(5, 3\)": lambda: lib.denoising_score_matching(psi, x, 0.1, noise=whole),
        "noise_scale must be a positive": lambda: lib.denoising_score_matching(psi, x, 0.0, noise=NOISE),
        r"target_score must have shape \(5, 3\)": lambda: lib.explicit_score_matching(psi, x, whole),
    }.items():
        with pytest.raises(ismcore.OptionError, match=match):
            call()
    if framework.name != "torch":
        with pytest.raises(ismcore.OptionError, match=r"pass (key|generator)="):
            lib.sliced_score_matching(psi, x)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_the_plugin_module_still_imports_no_framework(name):
    code = f"import sys, ismcore_{name}.plugin as p; print({name!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_score_is_called_and_differentiated_in_one_place(framework, monkeypatch):
    """So that what a framework needs around a derivative, such as a context manager, is put in one method."""
    calculus = importlib.import_module(f"{framework.losses.__name__}.calculus").ArrayCalculus
    psi, inside, calls = score(framework, framework.arrays(PARAMS)), [], []
    whole = calculus.compute

    def compute(self, quantity):
        inside.append(True)
        value = whole(self, quantity)
        inside.pop()
        return value

    def watched(x):
        calls.append(bool(inside))
        return psi(x)

    monkeypatch.setattr(calculus, "compute", compute)
    lib, x, draw = framework.losses, framework.array(X), framework.random()
    losses = {
        "implicit": lambda: lib.implicit_score_matching(watched, x, WEIGHT, chunk_size=2),
        "estimated": lambda: lib.implicit_score_matching(watched, x, 0.1, PROBES),
        "sliced": lambda: lib.sliced_score_matching(watched, x, **draw),
        "denoising": lambda: lib.denoising_score_matching(watched, x, 0.4, **draw),
        "explicit": lambda: lib.explicit_score_matching(watched, x, -X),
        "diagonal": lambda: lib.jacobian_diagonal(watched, x),
        "divergence": lambda: lib.divergence(watched, x, differentiable=False),
        "hutchinson": lambda: lib.hutchinson_divergence(watched, x, **draw),
    }
    for name, loss in losses.items():
        calls.clear()
        loss()
        assert calls, name
        assert all(calls), name


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_the_mathematics_of_the_losses_is_in_the_core_alone(name):
    """A backend's functions have a signature, a docstring, and a call; arithmetic, conditions and errors are the core's."""
    for part in ("losses", "derivatives"):
        source = inspect.getsource(importlib.import_module(f"ismcore_{name}.{part}"))
        functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
        assert {f.name for f in functions} == set(importlib.import_module(f"ismcore_{name}.{part}").__all__)
        for node in (node for f in functions for statement in f.body for node in ast.walk(statement)):
            assert not isinstance(node, ast.BinOp | ast.UnaryOp | ast.Compare | ast.If | ast.IfExp | ast.Raise | ast.For)
        assert part != "losses" or len(source.splitlines()) <= 80


def test_every_package_offers_the_same_losses(framework):
    names = {
        "denoising_score_matching",
        "divergence",
        "explicit_score_matching",
        "hutchinson_divergence",
        "implicit_score_matching",
        "jacobian_diagonal",
        "sliced_score_matching",
    }
    assert names <= set(framework.losses.__all__) <= set(dir(framework.losses))
    with pytest.raises(AttributeError, match="no attribute 'losss'"):
        framework.losses.losss  # noqa: B018
