"""Networks of torch that compute, copy, hold or hide in unusual ways: each route is right to 1e-9, or refuses by name."""

import copy
import os
import pickle
import socket
import subprocess
import sys
from functools import cache, partial

import ismcore_torch
import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint, checkpoint_sequential
from truth import SMALL_SAMPLE, correlated

import ismcore
import ismcore.fitting.checks

pytestmark = pytest.mark.filterwarnings(
    *SMALL_SAMPLE,
    "ignore:.*training leaves:ismcore.IsmWarning",
    "ignore:None of the inputs have requires_grad:UserWarning",
    "ignore:Full backward hook is firing:UserWarning",
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning",
    "ignore:.*jit.* is deprecated:DeprecationWarning",
    "ignore:Sparse CSR tensor support is in beta:UserWarning",
    "ignore:.*weight_norm` is deprecated:FutureWarning",
)
X = correlated(n=12)
QUICK = {"epochs": 1, "validation": 0, "progress": False}
RATE = 1e-3


@pytest.fixture(autouse=True)
def _networks_of_one_seed():
    torch.manual_seed(0)


class Net(torch.nn.Module):
    """A network whose forward pass is a function of it and what it is called with, over parts by name."""

    def __init__(self, step, **parts):
        super().__init__()
        self.step = step
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *arguments):
        return self.step(self, *arguments)


def linear(*sizes):
    return torch.nn.Linear(*sizes)


def two(step, **parts):
    return Net(step, a=linear(3, 6), b=linear(6, 3), **parts)


def by_rows(net, x):
    """Loss, gradient and Jacobian diagonal of a float64 network, by Jacobians of one row after the other."""
    rows = torch.tensor(x)
    jacobians = [torch.autograd.functional.jacobian(lambda r: net(r[None])[0], row, create_graph=True) for row in rows]
    diagonal = torch.stack([jacobian.diagonal() for jacobian in jacobians])
    loss = (0.5 * net(rows).square().sum(1) + diagonal.sum(1)).mean()
    named = {name: p for name, p in net.named_parameters() if p.requires_grad}
    slopes = torch.autograd.grad(loss, list(named.values()), materialize_grads=True)
    return loss.item(), {name: g.numpy() for name, g in zip(named, slopes, strict=True)}, diagonal.detach().numpy()


def by_differences(net, x, h=1e-4):
    """The same loss and Jacobian diagonal from values of the score alone."""
    units = np.eye(x.shape[1]) * h
    at = [net(torch.tensor(x + sign * e)).detach().numpy() for e in units for sign in (1.0, -1.0)]
    diagonal = np.stack([(at[2 * i] - at[2 * i + 1])[:, i] / (2 * h) for i in range(x.shape[1])], axis=1)
    psi = net(torch.tensor(x)).detach().numpy()
    return float((0.5 * (psi**2).sum(1) + diagonal.sum(1)).mean()), diagonal


def made(make):
    torch.manual_seed(0)
    return make()


def assert_each_route_is(make, loss, gradient, diagonal, near=1e-9):
    """Evaluate, one step of fit in both of its loops, the loss for one's own loop, and what is given back."""
    net = made(make)

    def close(found, right):
        assert np.abs(np.asarray(found) - right).max(initial=0.0) < near

    at = ismcore.evaluate(net, None, X)
    close(at.loss, loss)
    close(at.jacobian_diagonal, diagonal)
    close(at.terms.mean(), loss)
    assert set(at.gradient) == set(gradient)
    wide = made(make).double()
    ours = ismcore_torch.implicit_score_matching(wide, torch.tensor(X))
    ours.backward()
    close(ours.item(), loss)
    close(ismcore_torch.jacobian_diagonal(wide, torch.tensor(X), differentiable=False), diagonal)
    there = dict(wide.named_parameters())
    step = {"optimizer": ismcore.SGD(RATE, momentum=0.0), "recipe": "reference", "dtype": "float64", "standardize": False}
    start = {name: p.detach().double().numpy().copy() for name, p in net.named_parameters()}
    for compile in ("auto", "off"):
        once = ismcore.fit(X, model=net, epochs=1, progress=False, compile=compile, **step)
        close(once.history["loss"][0], loss)
        for name, right in gradient.items():
            close((start[name] - once.params[name]) / RATE, right)
    for name, right in gradient.items():
        close(at.gradient[name], right)
        close(np.zeros(right.shape) if there[name].grad is None else there[name].grad, right)
    result = ismcore.fit(correlated(n=60), model=net, epochs=2, progress=False)  # by the default, which validates
    points = torch.tensor(X, dtype=torch.float32)
    assert np.abs(result.native()(points).detach().numpy() - result.score(points)).max() < 1e-5
    for name, p in net.named_parameters():  # nothing of the caller's has changed
        assert np.array_equal(p.detach().double().numpy(), start[name])


class Swish(torch.autograd.Function):
    """Of the old style, without a `setup_context`; its backward pass can be differentiated."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return g * (s + x * s * (1 - s))


class Coupled(torch.autograd.Function):
    """A residual layer whose activations are computed again in the backward pass."""

    @staticmethod
    def forward(ctx, x, layer, *weights):
        ctx.layer = layer
        with torch.no_grad():
            ctx.save_for_backward(x)
            return torch.cat([x[:, :1], x[:, 1:] + layer(x[:, :1])], 1)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            kept = x[:, :1] if x.requires_grad else x[:, :1].detach().requires_grad_()
            weights = list(ctx.layer.parameters())
            slope, *rest = torch.autograd.grad(ctx.layer(kept), [kept, *weights], g[:, 1:], create_graph=True)
        return torch.cat([g[:, :1] + slope, g[:, 1:]], 1), None, *rest


def swish_and_square(x: torch.Tensor):
    return x * torch.sigmoid(1.3 * x) + 0.1 * x * x


@cache
def scripted_swish():
    return torch.jit.script(swish_and_square)  # deprecated, and in use all the same


def hooked():
    net = two(lambda net, x: net.b(torch.tanh(net.a(x))))
    net.a.register_full_backward_pre_hook(lambda module, slopes: None)
    return net


def offloaded(net, x):
    with torch.autograd.graph.save_on_cpu():
        return net.b(torch.tanh(net.a(x)))


def at_a_leaf(net, x):
    x.requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(functional.softplus(net.a(x)).sum(), x, create_graph=True)
    return -slope


def in_segments(net, x):
    layers = torch.nn.Sequential(net.a, torch.nn.Tanh(), net.m, torch.nn.SiLU(), net.b)
    return checkpoint_sequential(layers, 2, x, use_reentrant=False)


def nested(net, x):
    def outer(h):
        return net.b(torch.tanh(checkpoint(lambda z: net.m(torch.tanh(z)), h, use_reentrant=False)))

    return checkpoint(outer, net.a(x), use_reentrant=False)


def with_constants():
    net = two(lambda net, x: net.b(torch.tanh(net.a(x) * net.scales[net.places])))
    net.register_buffer("places", torch.tensor([0, 1, 2, 2, 1, 0]))
    net.register_buffer("scales", torch.tensor([0.5, 1.0, 2.0]))
    net.b = torch.nn.utils.parametrizations.spectral_norm(net.b)
    net.shift = torch.nn.Parameter(torch.ones(6), requires_grad=False)
    return net.eval()


def pruned():
    net = two(lambda net, x: net.b(torch.tanh(net.a(x))))
    prune.l1_unstructured(net.a, "weight", amount=0.3)
    torch.nn.utils.weight_norm(net.b)
    return net


def on_a_graph():
    net = two(lambda net, x: net.b(torch.tanh((net.edges @ net.a(x).T).T) + (net.loops.to(x.dtype) @ net.a(x).T).T))
    net.register_buffer("edges", (0.5 * (torch.rand(6, 6) < 0.4)).to_sparse_csr())
    net.loops, net.none = torch.eye(6).to_sparse(), torch.nn.Parameter(torch.zeros(0, 6))
    return net


RIGHT = {
    "a function of the old style": lambda: two(lambda net, x: net.b(Swish.apply(net.a(x)))),
    "a backward hook": hooked,
    "saved on the CPU": lambda: two(offloaded),
    "its own gradient at x made a leaf": lambda: Net(at_a_leaf, a=linear(3, 6)),
    "checkpointed in segments": lambda: two(in_segments, m=linear(6, 6)),
    "a checkpoint in a checkpoint": lambda: two(nested, m=linear(6, 6)),
    "layers computed again": lambda: Net(
        lambda net, x: net.b(Coupled.apply(net.a(x), net.m, *net.m.parameters())),
        a=linear(3, 3),
        b=linear(3, 3),
        m=torch.nn.Sequential(linear(1, 4), torch.nn.Tanh(), linear(4, 2)),
    ),
    "a scripted activation": lambda: two(lambda net, x: net.b(scripted_swish()(net.a(x)))),
    "integer buffers, a frozen parameter, spectral norm": with_constants,
    "a compiled part": lambda: two(
        lambda net, x: net.b(net.m(net.a(x))),
        m=torch.compile(torch.nn.Sequential(torch.nn.Tanh(), linear(6, 6)), backend="aot_eager"),
    ),
    "pruned, and weight_norm of the old kind": pruned,
    "edges of a graph, a sparse buffer and an attribute": on_a_graph,
    "mapped over rows in its forward pass": lambda: two(
        lambda net, x: torch.func.vmap(lambda row: net.b(torch.tanh(net.a(row))) * torch.exp(-row.square().sum() / 8))(x)
    ),
}


def plain_twin(name, net):
    """The same weights in a network without what is unusual, for the right values."""
    twins = {
        "checkpointed in segments": lambda net, x: net.b(functional.silu(net.m(torch.tanh(net.a(x))))),
        "a checkpoint in a checkpoint": lambda net, x: net.b(torch.tanh(net.m(torch.tanh(net.a(x))))),
        "layers computed again": lambda net, x: net.b(
            torch.cat([net.a(x)[:, :1], net.a(x)[:, 1:] + net.m(net.a(x)[:, :1])], 1)
        ),
        "a scripted activation": lambda net, x: net.b(swish_and_square(net.a(x))),
        "a compiled part": lambda net, x: net.b(net.m._orig_mod(net.a(x))),
    }
    if name not in twins:
        return net
    twin = copy.copy(net)
    twin.step = twins[name]
    return twin


@pytest.mark.parametrize("name", RIGHT)
def test_every_route_is_right(name):
    right = by_rows(plain_twin(name, made(RIGHT[name]).double()), X)
    loss, diagonal = by_differences(made(RIGHT[name]).double(), X)
    assert abs(loss - right[0]) < 1e-5
    assert np.abs(diagonal - right[2]).max() < 1e-5
    assert_each_route_is(RIGHT[name], *right)


def test_scripted_activations_stay_right_once_they_are_optimised():
    make = RIGHT["a scripted activation"]
    _, gradient, _ = by_rows(plain_twin("a scripted activation", made(make).double()), X)
    net = made(make)
    for _ in range(4):  # torch rewrites a scripted function in its first calls
        at = ismcore.evaluate(net, None, X)
        assert max(np.abs(at.gradient[name] - right).max() for name, right in gradient.items()) < 1e-9


def filtered(net, x):
    return net.b(torch.tanh(torch.fft.irfft(torch.fft.rfft(net.a(x)) * net.filter, n=6)))


def test_complex_and_integer_buffers_come_back_as_they_were():
    net = two(filtered)
    net.register_buffer("filter", torch.polar(torch.ones(4), torch.linspace(0.0, 1.0, 4)))
    net.register_buffer("steps", torch.tensor([3], dtype=torch.int16))
    for dtype in ("float32", "float64"):
        result = ismcore.fit(X, model=net, dtype=dtype, standardize=False, **QUICK)
        native = result.native()
        assert (native.filter.dtype, native.steps.dtype) == (torch.complex64, torch.int16)
        points = torch.tensor(X, dtype=getattr(torch, dtype))
        assert np.abs(native(points).detach().numpy() - result.score(X)).max() < (1e-5 if dtype == "float32" else 1e-6)


def test_what_is_given_back_shares_nothing():
    make = RIGHT["integer buffers, a frozen parameter, spectral norm"]
    result = ismcore.fit(X, model=made(make), standardize=False, **QUICK)
    before = result.score(X)
    first, second = result.native(), result.native()
    with torch.no_grad():
        for value in (*first.buffers(), *first.parameters()):
            value.zero_()
    assert np.array_equal(result.score(X), before)
    assert np.abs(second(torch.tensor(X, dtype=torch.float32)).detach().numpy() - before).max() < 1e-5


class Worn(torch.nn.Module):
    """Each copy of it gives something else."""

    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = gain

    def __deepcopy__(self, memo):
        return Worn(self.gain * 1.1)

    def forward(self, h):
        return self.gain * h


def test_a_network_that_does_not_copy_is_not_given_back():
    result = ismcore.fit(X, model=two(lambda net, x: net.b(net.worn(torch.tanh(net.a(x)))), worn=Worn()), **QUICK)
    with pytest.raises(ismcore.ModelError, match=r"cannot be given back: .* another score than the fit, by .*result.score"):
        result.native()


def test_results_are_copied_and_pickled_with_their_network():
    result = ismcore.fit(X, model=torch.nn.Sequential(linear(3, 6), torch.nn.Tanh(), linear(6, 3)), **QUICK)
    psi = result.score(X)
    for same in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):  # noqa: S301
        assert np.array_equal(same.score(X), psi)


def test_a_score_module_is_right_under_transforms_from_its_first_call():
    result = ismcore.fit(X, model=made(RIGHT["integer buffers, a frozen parameter, spectral norm"]), dtype="float64", **QUICK)
    module, points = ismcore_torch.module(result), torch.tensor(X)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda row: module(row[None])[0]))(points)
    diagonal = torch.diagonal(jacobians, dim1=1, dim2=2).detach().numpy()
    assert np.abs(diagonal - result.jacobian_diagonal(X)).max() < 1e-12
    slope = torch.autograd.functional.jacobian(lambda row: module(row[None])[0], points[0])
    assert np.abs(slope.diagonal().numpy() - diagonal[0]).max() < 1e-12


def test_a_score_module_keeps_its_parameters_until_its_backward_pass():
    # two modules of one result, called by turns, with a network that computes a part again in its backward pass
    result = ismcore.fit(X, model=made(RIGHT["checkpointed in segments"]), dtype="float64", standardize=False, **QUICK)
    first, second = ismcore_torch.module(result), ismcore_torch.module(result)
    with torch.no_grad():
        for p in second.parameters():
            p.mul_(2.0)
    alone = torch.autograd.grad(first(torch.tensor(X)).square().sum(), list(first.parameters()))
    psi = first(torch.tensor(X)).square().sum()
    second(torch.tensor(X))
    result.score(X)
    by_turns = torch.autograd.grad(psi, list(first.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(alone, by_turns, strict=True))


def llama_norm(net, x):
    h = net.a(x).float()
    return net.b(torch.tanh((h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)))


FLOAT32_INSIDE = {
    "norm": llama_norm,
    "sine": lambda net, x: net.b((3.0 * net.a(x).float()).sin().to(x.dtype)),
    "softmax": lambda net, x: net.b(torch.softmax(net.a(x), -1, dtype=torch.float32).to(x.dtype) + net.a(x)),
}


@pytest.mark.parametrize("name", FLOAT32_INSIDE)
def test_rounding_of_a_part_in_float32_is_no_kink(name):
    net = two(FLOAT32_INSIDE[name])
    for options in ({}, {"dtype": "float64"}):
        assert ismcore.fit(correlated(n=50), model=net, **QUICK, **options).status == "completed"
    loss, diagonal = by_differences(copy.deepcopy(net).double(), X, h=1e-3)
    at = ismcore.evaluate(net, None, X)
    assert abs(at.loss - loss) < 1e-2
    assert np.abs(at.jacobian_diagonal - diagonal).max() < 1e-2


@pytest.mark.parametrize("kink", [torch.relu, torch.abs, lambda h: functional.leaky_relu(h) + h.sin()])
def test_a_kink_beside_a_part_in_float32_is_one(kink):
    net = two(lambda net, x: llama_norm(net, x) + net.b(kink(net.a(x)).float().to(x.dtype)))
    with pytest.raises(ismcore.ModelError, match="not smooth in x"):
        ismcore.fit(correlated(n=50), model=net, **QUICK)


def test_rows_that_depend_on_each_other_are_refused_by_evaluate():
    centred = two(lambda net, x: net.b(torch.tanh(net.a(x - x.mean(0)))))
    one_row = two(lambda net, x: net.b(torch.tanh(net.a(x))) * torch.exp(-x.square().sum() / 8))
    for net in (centred, one_row):
        for call in (partial(ismcore.evaluate, net, None, X), partial(ismcore.fit, X, model=net, **QUICK)):
            with pytest.raises(
                ismcore.ModelError, match=r"mixes the rows of a batch.*mapped in its forward pass \(torch.func.vmap"
            ):
                call()


def test_evaluate_refuses_what_is_cut_off_and_looks_no_second_time(monkeypatch):
    cut = two(lambda net, x: net.b(torch.tanh(net.a(x / (1.0 + x.detach().square())))))
    with pytest.raises(ismcore.ModelError, match=r"differentiated in x to something else"):
        ismcore.evaluate(cut, None, X)
    assert np.isfinite(ismcore.evaluate(cut, None, X, allow_nonsmooth=True).loss)
    result = ismcore.fit(X, model=torch.nn.Sequential(linear(3, 6), torch.nn.Tanh(), linear(6, 3)), **QUICK)

    def looked(*_, **__):
        raise AssertionError("looked at once more")

    monkeypatch.setattr("ismcore.results.evaluate.probe_network", looked)
    monkeypatch.setattr(ismcore.fitting.checks, "probe_network", looked)
    assert np.isfinite(result.loss(X))
    for model in (ismcore.MLP((8,)), ismcore.Affine(), ismcore.Energy(ismcore.MLP((8,)))):  # the library's own
        ismcore.fit(X, model=model, backend="torch", **QUICK)
        ismcore.evaluate(model, None, X, backend="torch")


class Guessed(torch.nn.Module):
    """Its shift is drawn from the first batch that it sees, and a flag of Python's says that it was."""

    def __init__(self):
        super().__init__()
        self.shift, self.known = torch.nn.Parameter(torch.zeros(3)), False

    def forward(self, x):
        if self.training and not self.known:
            with torch.no_grad():
                self.shift.copy_(-x.mean(0))
            self.known = True
        return x + self.shift


def test_an_initialisation_from_data_is_refused_until_it_was_done():
    net = torch.nn.Sequential(Guessed(), linear(3, 6), torch.nn.Tanh(), linear(6, 3))
    with pytest.raises(ismcore.ModelError, match=r"sets its parameter '0.shift' .*call it once on your samples"):
        ismcore.fit(X, model=net, standardize=False, **QUICK)
    assert not net[0].known
    net(torch.tensor(X, dtype=torch.float32))
    result = ismcore.fit(X, model=net, standardize=False, optimizer=ismcore.SGD(1e-9), **QUICK)
    assert np.abs(result.params["0.shift"] + X.mean(0)).max() < 1e-5


def masked(register):
    net = torch.nn.Sequential(linear(3, 6), torch.nn.Tanh(), linear(6, 3))
    getattr(net[2].bias, register)(lambda g: None)
    return net


def hidden():
    net = two(lambda net, x: net.b(torch.tanh(net.a(x))))
    shift = net.b.bias.detach()  # another tensor, in the same memory
    net.step = lambda self, x: torch.tanh(self.a(x)) @ self.b.weight.T + shift
    return net


def half_made():
    net = torch.nn.Sequential(linear(3, 6), torch.nn.Tanh(), linear(6, 3))
    net[2] = torch.nn.Linear(6, 3, device="meta")
    return net


def made_late(net, x):
    if not hasattr(net, "table"):
        net.register_buffer("table", torch.ones(6))
    return net.b(torch.tanh(net.a(x) * net.table.to(x.dtype)))


def turned_once(net, x):
    if "turn" not in net.kept:
        net.kept["turn"] = torch.linalg.qr(net.a.weight[:3])[0]
    return net.b(torch.tanh(net.a(x @ net.kept["turn"])))


def gain_of_a_call(net, x):
    if net.training:
        net.gain = net.a.bias.exp()
    return net.b(torch.tanh(net.a(x)) * net.gain)


def called_before_evaluation():
    net = two(gain_of_a_call)
    net(torch.randn(4, 3))
    return net.eval()


def tied_by_memory():
    net = two(lambda net, x: net.b(torch.tanh(net.a(x))))
    net.b.weight.data = net.a.weight.data.T
    return net


def kept_positive(net, x):
    net.gain.data = net.gain.data.abs()
    return net.b(torch.tanh(net.a(x)) * net.gain)


def inferred_kernels(net, x):
    gaps = torch.cdist(x[:, None], net.c, p=2.0, compute_mode=net.mode)[:, 0]
    return net.l(torch.exp(-gaps.square()))


REFUSED = {
    "a hook after accumulation": (lambda: masked("register_post_accumulate_grad_hook"), r"hook on the gradient of '2.bias'.*"),
    "a hook on a gradient": (lambda: masked("register_hook"), r"hook on the gradient of '2.bias'.*parametrize"),
    "the caller's memory by another tensor": (hidden, "reaches b.bias past its attributes"),
    "a layer on the meta device": (half_made, r"on the device 'meta', where '2.weight' .*to_empty"),
    "a traced part": (
        lambda: two(
            lambda net, x: net.b(net.t(net.a(x))),
            t=torch.jit.trace(torch.nn.Sequential(torch.nn.Tanh(), linear(6, 6)), torch.zeros(2, 6)),
        ),
        r"t is scripted or traced.*pass the module that it was made from",
    ),
    "a buffer made late": (lambda: two(made_late), r"makes its buffer 'table' .*call it once on a batch"),
    "computed once from a weight": (
        lambda: two(turned_once, kept={}),
        r"keeps what it computed from its parameters at an earlier call, so.*anew in each forward pass",
    ),
    "computed once by the caller": (called_before_evaluation, r"an earlier call, in gain, so"),
    "what is left of the last call": (
        lambda: two(lambda net, x: net.__dict__.update(last=net.b(torch.tanh(net.a(x + net.last)))) or net.last, last=0.0),
        r"different scores for the same samples.*keeps something from one call to the next",
    ),
    "a parameter written to": (
        lambda: two(kept_positive, gain=torch.nn.Parameter(torch.ones(6))),
        r"writes to its parameter 'gain' when it is called.*parametrize",
    ),
    "tied by memory": (tied_by_memory, r"two parameters in one memory, 'a.weight' and 'b.weight'.*make them one"),
    "an array of NumPy": (lambda: two(lambda net, x: np.tanh(x.detach().numpy())), r"returned a numpy.ndarray"),
    "bfloat16 returned": (
        lambda: two(lambda net, x: net.b(torch.tanh(net.a(x))).bfloat16()),
        r"returns bfloat16 for samples of float(32|64).*let it follow its input$",
    ),
    "integers returned": (lambda: two(lambda net, x: net.a(x)[:, :3].long()), r"fixed to int64: let it follow its input$"),
    "DataParallel inside": (
        lambda: Net(lambda net, x: net.w(x), w=torch.nn.DataParallel(linear(3, 3))),
        r"w is a DataParallel, .*its .module",
    ),
    "reentrant checkpoints": (
        lambda: two(lambda net, x: net.b(checkpoint(torch.tanh, net.a(x), use_reentrant=True))),
        r"fails when it is differentiated.*use_reentrant=False\)",
    ),
    "distances without a second derivative": (
        lambda: Net(
            inferred_kernels, c=torch.nn.Parameter(torch.randn(5, 3)), l=linear(5, 3), mode="donot_use_mm_for_euclid_dist"
        ),
        r'_cdist.* is not implemented.*compute_mode="use_mm_for_euclid_dist"',
    ),
    "a function of the old style in a row": (
        lambda: Net(lambda net, r: net.w @ Swish.apply(r) @ net.w if r.ndim == 1 else None, w=torch.nn.Parameter(torch.eye(3))),
        r"must return one score a row|setup_context",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused_by_name(name):
    make, words = REFUSED[name]
    for call in (lambda net: ismcore.fit(X, model=net, **QUICK), lambda net: ismcore.evaluate(net, None, X)):
        with pytest.raises(ismcore.ModelError, match=words):
            call(make())


def test_distances_that_fail_on_a_small_batch_alone_are_refused_while_training():
    # 32 rows, which are looked at, take another kernel of torch's than the 12 that are trained on
    net = Net(
        inferred_kernels, c=torch.nn.Parameter(torch.randn(5, 3)), l=linear(5, 3), mode="use_mm_for_euclid_dist_if_necessary"
    )
    with pytest.raises(ismcore.ModelError, match=r'Net fails when it is differentiated.*"use_mm_for_euclid_dist"'):
        ismcore.fit(X, model=net, **QUICK)


def test_the_remedy_for_distances_works():
    make = partial(
        lambda: Net(inferred_kernels, c=torch.nn.Parameter(torch.randn(5, 3)), l=linear(5, 3), mode="use_mm_for_euclid_dist")
    )
    assert_each_route_is(make, *by_rows(made(make).double(), X))


def embedded(net, x, t):
    angles = t[:, None] * torch.tensor([1.0, 0.1]).to(x)[None]
    return net.b(torch.tanh(net.a(torch.cat([x, angles.sin(), angles.cos()], -1)))) / t[:, None]


def test_a_context_may_be_a_vector():
    conditional = {"objective": ismcore.NoiseConditionalScoreMatching([12.0, 3.0, 0.5])}
    net = Net(embedded, a=linear(7, 8), b=linear(8, 3))
    result = ismcore.fit(X, model=net, dtype="float64", **QUICK, **conditional, standardize=False)
    native, points = result.native(), torch.tensor(X)
    right = native(points, torch.full((len(X),), 0.5, dtype=torch.float64)).detach().numpy()
    assert np.abs(result.score(X, context=0.5) - right).max() < 1e-12
    at = ismcore.evaluate(net, None, X, ismcore.NoiseConditionalScoreMatching([1.0, 0.5]), context=0.5)
    rows = torch.tensor(X)
    jacobian = [
        torch.autograd.functional.jacobian(lambda r: copy.deepcopy(net).double()(r[None], torch.tensor([0.5]).to(r))[0], row)
        for row in rows
    ]
    assert np.abs(at.jacobian_diagonal - torch.stack([j.diagonal() for j in jacobian]).numpy()).max() < 1e-12
    swapped = Net(lambda net, t, x: embedded(net, x, t), a=linear(7, 8), b=linear(8, 3))
    with pytest.raises(ismcore.ModelError, match=r"called as \(x, t\): the samples first, t second, as \(n, 1\) or \(n,\)"):
        ismcore.fit(X, model=swapped, **QUICK, **conditional)


def test_tensors_that_are_plain_attributes_follow_the_dtype():
    net = two(lambda net, x: net.b(torch.tanh(net.a(x) @ net.waves)), waves=torch.randn(6, 6))
    for dtype in ("float32", "float64"):
        at = ismcore.evaluate(net, None, X, dtype=dtype)
        assert np.isfinite(at.jacobian_diagonal).all()
    assert net.waves.dtype == torch.float32


# losses in a loop of one's own


def loss_and_gradient(score, params, x):
    value = ismcore_torch.implicit_score_matching(score, x, 0.1)
    return value, torch.autograd.grad(value, params)


def test_what_a_score_holds_of_x_beside_its_argument_is_a_constant():
    w = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    for x in (torch.tensor(X), torch.tensor(X).requires_grad_()):
        found = ismcore_torch.divergence(lambda z, x=x: torch.tanh(z @ w) * x, x)
        right = ((1.0 - torch.tanh(x @ w) ** 2) * w.diagonal() * x).sum(1)
        assert torch.allclose(found, right, atol=1e-12)


@pytest.mark.parametrize("kind", [torch.int64, torch.complex128])
def test_scores_that_are_no_real_numbers_are_refused(kind):
    for loss in (ismcore_torch.implicit_score_matching, ismcore_torch.sliced_score_matching, ismcore_torch.divergence):
        with pytest.raises(ismcore.ModelError, match=f"floating point, not {kind}"):
            loss(lambda z: z.to(kind), torch.tensor(X))


def test_nothing_is_left_behind_by_the_losses():
    net = torch.nn.Sequential(linear(3, 6), torch.nn.Tanh(), linear(6, 3)).double()
    for x in (torch.tensor(X), torch.tensor(X).requires_grad_()):
        params = list(net.parameters())
        value, slopes = loss_and_gradient(net, params, x)
        assert x.grad is None
        assert all(p.grad is None for p in params)
        assert all(torch.isfinite(g).all() for g in slopes)
    with torch.inference_mode():
        inside = ismcore_torch.implicit_score_matching(net, torch.tensor(X), 0.1)
    with torch.no_grad():
        without = ismcore_torch.implicit_score_matching(net, torch.tensor(X), 0.1)
    assert not without.requires_grad
    assert inside.item() == without.item() == value.item()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_network_in_a_loop_of_ones_own(backend):
    net = torch.nn.Sequential(linear(3, 6), torch.nn.Tanh(), linear(6, 3)).double()
    params, x = list(net.parameters()), torch.tensor(X)
    value, slopes = loss_and_gradient(net, params, x)
    compiled = torch.compile(net, backend=backend)
    compiled(x)
    stance = torch._dynamo.eval_frame._stance
    found, there = loss_and_gradient(compiled, params, x)
    assert abs(found.item() - value.item()) < 1e-12
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(slopes, there, strict=True))
    assert torch._dynamo.eval_frame._stance == stance


LAZY = """
import torch, ismcore_torch
net = torch.nn.Sequential(torch.nn.LazyConv1d(4, 1), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.LazyLinear(3))
x = torch.randn(10, 3)
ismcore_torch.sliced_score_matching(lambda z: net(z[:, None]), x).backward()
assert all(p.grad is not None for p in net.parameters())
print("done")
"""


@pytest.mark.slow
def test_lazy_layers_take_their_shape_inside_of_a_loss():
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True)  # it was a segmentation fault
    assert done.stdout == "done\n", done.stderr


PARALLEL = """
import sys, torch, torch.distributed as dist, ismcore_torch
rank, port = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(3, 6), torch.nn.SiLU(), torch.nn.Linear(6, 3)).double()
x, v = torch.randn(2, 12, 3, dtype=torch.float64).unbind()
losses = {
    "exact": lambda f, x, v: ismcore_torch.implicit_score_matching(f, x, 0.1),
    "sliced": lambda f, x, v: ismcore_torch.sliced_score_matching(f, x, probes=v[None]),
}
rows = slice(6 * rank, 6 * rank + 6)
for name, loss in losses.items():
    right = torch.autograd.grad(loss(net, x, v), list(net.parameters()))
    for options in ({}, {"find_unused_parameters": True}):
        parallel = torch.nn.parallel.DistributedDataParallel(net, **options)
        for step in range(3):
            net.zero_grad(set_to_none=step != 1)
            loss(parallel, x[rows], v[rows]).backward()
            gap = max(float((p.grad - g).abs().max()) for p, g in zip(net.parameters(), right))
            assert gap < 1e-12, (name, options, step, gap)
dist.destroy_process_group()
print("done")
"""


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_the_whole_batch():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-c", PARALLEL]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([*command, str(r), port], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        for r in (0, 1)
    ]
    for rank in ranks:
        out, errors = rank.communicate(timeout=300)
        assert out == "done\n", errors
