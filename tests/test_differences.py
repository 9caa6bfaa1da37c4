"""A network of torch whose training step is not that of its scores is refused, and one that is right never is."""

import threading

import ismcore_torch
import numpy as np
import pytest
import torch
from torch.nn import functional
from truth import SMALL_SAMPLE, correlated

import ismcore

pytestmark = pytest.mark.filterwarnings(
    *SMALL_SAMPLE, "ignore:.*training leaves (it as it is|them as they are):ismcore.IsmWarning"
)
X = correlated(n=50)
QUICK = {"epochs": 1, "validation": 0, "progress": False}


@pytest.fixture(autouse=True)
def _networks_of_one_seed():
    torch.manual_seed(0)


class Torch(torch.nn.Module):
    """A torch network whose forward pass is a function of it and x, over layers by name."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.step = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.step(self, x)


def linear(*sizes):
    return torch.nn.Linear(*sizes)


def parameter(*shape):
    return torch.nn.Parameter(torch.linspace(0.5, 1.5, int(np.prod(shape))).reshape(shape))


def two(forward, **layers):
    return Torch(forward, a=linear(3, 8), b=linear(8, 3), **layers)


class Hooked(torch.nn.Module):
    """A hook that closes over the module."""

    def __init__(self):
        super().__init__()
        self.gain, self.a, self.b = parameter(8), linear(3, 8), linear(8, 3)
        self.a.register_forward_hook(lambda module, inputs, output: output * self.gain)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))


class Pieces(torch.nn.Module):
    """A list of functions, one of which closes over a layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b = linear(3, 8), linear(8, 3)
        layer = self.b
        self.pieces = [torch.tanh, lambda h: functional.linear(h, layer.weight, layer.bias)]

    def forward(self, x):
        h = self.a(x)
        for piece in self.pieces:
            h = piece(h)
        return h


class Outside(torch.nn.Module):
    """Its weights are copied when it is made."""

    def __init__(self):
        super().__init__()
        self.a, self.b = linear(3, 8), linear(8, 3)
        self.copies = [p.detach().clone() for p in self.parameters()]

    def forward(self, x):
        w, c, v, e = (p.to(x.dtype) for p in self.copies)
        return torch.tanh(x @ w.T + c) @ v.T + e


class Halved(torch.autograd.Function):
    """A sine whose backward pass is half of what is right."""

    @staticmethod
    def forward(x):
        return torch.sin(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 0.5 * g * torch.cos(x)


def inferred(net, x):
    with torch.no_grad():
        angle = torch.atan2(x[:, :1], x[:, 1:2])
    return net.b(torch.tanh(net.a(x) + angle.sin()))


def scaled(net, x):
    h = net.a(x)
    return net.b(torch.tanh(h / (1.0 + h.pow(2).mean(1, keepdim=True)).data.sqrt()))


def own_slope(net, x):
    with torch.enable_grad():
        at = x.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(functional.softplus(net.a(at)).sum(), at, create_graph=True)
    return -slope


CUT_IN_X = {
    "an angle without a gradient": lambda: two(inferred),
    "a norm of a layer taken as data": lambda: two(scaled),
    "a score that is a slope at a detached x": lambda: Torch(own_slope, a=linear(3, 8)),
    "a wrong backward pass": lambda: two(lambda net, x: net.b(Halved.apply(net.a(x)))),
    "an energy with a term at a detached x": lambda: ismcore.Energy(
        Torch(lambda net, x: net.b(torch.tanh(net.a(x))).sum(1) + x.detach().square().sum(1), a=linear(3, 8), b=linear(8, 1))
    ),
    "an energy at a detached norm": lambda: ismcore.Energy(
        Torch(lambda net, x: net.b(torch.tanh(net.a(x / (1.0 + x.detach().square())))).sum(1), a=linear(3, 8), b=linear(8, 1))
    ),
}


@pytest.mark.parametrize("make", CUT_IN_X.values(), ids=CUT_IN_X)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_cut_off_from_x(make, dtype):
    with pytest.raises(ismcore.ModelError, match=r"differentiated.* to .*differences.*cut off \(detach"):
        ismcore.fit(X, model=make(), dtype=dtype, **QUICK)


def test_an_objective_without_a_derivative_in_x_takes_it_as_advised():
    # cut off from x alone; `scaled` is cut off from its parameters too, and refused for that from most starts
    cut = two(lambda net, x: net.b(torch.tanh(net.a(x.detach()))))
    result = ismcore.fit(X, model=cut, objective=ismcore.DenoisingScoreMatching(0.3), **QUICK)
    assert result.status == "completed"


def test_weights_that_are_copies_train_nothing():
    for options in ({}, {"objective": ismcore.DenoisingScoreMatching(0.3)}, {"allow_nonsmooth": True}):
        with pytest.raises(ismcore.ModelError, match=r"no parameter has any effect on the score \(a.weight, a.bias, b.weight"):
            ismcore.fit(X, model=Outside(), **QUICK, **options)
    detached = Torch(lambda net, x: x * functional.linear(x, net.a.weight.detach(), net.a.bias.data), a=linear(3, 3))
    with pytest.raises(ismcore.ModelError, match=r"no gradient of any parameter reaches the score \(a.weight"):
        ismcore.fit(X, model=detached, **QUICK)


@pytest.mark.parametrize(("make", "names"), [(Hooked, "gain"), (Pieces, "b.weight, b.bias")])
def test_a_copy_that_would_use_the_callers_tensors(make, names):
    net = make()
    for call in (lambda: ismcore.fit(X, model=net, **QUICK), lambda: ismcore.evaluate(net, None, X)):
        with pytest.raises(ismcore.ModelError, match=f"reaches {names} past its attributes, by a closure"):
            call()


def test_the_remedy_for_a_closure_works():
    class Method(Hooked):
        def __init__(self):
            super().__init__()
            self.a._forward_hooks.clear()
            self.a.register_forward_hook(self.scaled)

        def scaled(self, module, inputs, output):
            return output * self.gain

    net = Method()
    result = ismcore.fit(X, model=net, **QUICK)
    before, psi = net.gain.detach().numpy().copy(), result.score(X)
    assert np.abs(result.params["gain"] - before).max() > 0
    with torch.no_grad():
        net.gain.mul_(-3.0)
    assert np.array_equal(result.score(X), psi)


def test_a_gradient_that_is_not_the_losss_is_refused_by_name():
    def normed(net, x):
        return functional.linear(torch.tanh(net.a(x)), net.b.weight / net.b.weight.norm().detach(), net.b.bias)

    # four directions of the parameters are looked along: of 20 starts 19 are refused, with either objective
    for objective in (None, ismcore.DenoisingScoreMatching(0.3)):
        torch.manual_seed(0)
        with pytest.raises(ismcore.ModelError, match=r"another gradient than its loss, in b.weight: .*requires_grad_\(False\)"):
            ismcore.fit(X, model=two(normed), objective=objective, **QUICK)


class Flat(Halved):
    """A sine with the right slope, which says that it has no second derivative."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * torch.cos(x).detach()


def test_a_backward_pass_that_is_right_once_and_wrong_twice_is_refused():
    torch.manual_seed(0)
    flat = two(lambda net, x: net.b(Flat.apply(net.a(x))))
    with pytest.raises(ismcore.ModelError, match=r"another gradient than its loss, in a.weight"):
        ismcore.fit(X, model=flat, **QUICK)
    ismcore.fit(X, model=flat, objective=ismcore.DenoisingScoreMatching(0.3), **QUICK)  # takes it once


def test_the_remedy_for_an_energy_with_a_norm_works():
    # the third derivative of torch's LayerNorm is wrong (2.13): its backward pass takes mean and spread for constants
    with pytest.raises(ismcore.ModelError, match=r"another gradient than its loss, in 0.weight.*GroupNorm\(1, n\)"):
        ismcore.fit(X, model=ismcore.Energy(sequential(torch.nn.LayerNorm(6), torch.nn.Tanh(), out=1)), **QUICK)
    ismcore.fit(X, model=ismcore.Energy(sequential(torch.nn.GroupNorm(1, 6), torch.nn.Tanh(), out=1)), **QUICK)


def test_parts_that_are_not_trained_are_told_by_name():
    spare = ismcore.fit(X, model=two(lambda net, x: net.b(torch.tanh(net.a(x))), spare=linear(3, 3)), **QUICK)
    assert any("does not depend on spare.weight, spare.bias" in text for text in spare.warnings)
    held = ismcore.fit(X, model=two(lambda net, x: net.b(torch.tanh(net.a(x) * net.g.detach())), g=parameter(8)), **QUICK)
    assert any("no gradient reaches g," in text for text in held.warnings)


def heads(net, x):
    h = net.e(x[..., None])
    return net.o(h + net.m(h, h, h, need_weights=net.weights)[0])[..., 0]


def key_bias(net, x):
    h = net.e(x[..., None])
    weights = torch.softmax(net.q(h) @ net.k(h).transpose(1, 2), -1)
    return net.o(torch.tanh(weights @ net.v(h)))[..., 0]


def single(net, x):
    h = net.a(x).float()
    return net.b(torch.tanh(h * torch.rsqrt(h.square().mean(1, keepdim=True) + 1e-6)).to(x.dtype))


def sequential(*middle, out=3):
    return torch.nn.Sequential(linear(3, 6), *middle, linear(6, out))


def starting_at_zero():
    net = sequential(torch.nn.SiLU())
    torch.nn.init.zeros_(net[2].weight)
    torch.nn.init.zeros_(net[2].bias)
    return net


def frozen():
    net = sequential(torch.nn.SiLU())
    net[0].requires_grad_(False)
    return net


def sirens(net, x):
    return net.b(torch.sin(30.0 * net.m(torch.sin(10.0 * net.a(x)))))


def normal(net, x, validate=None):
    return -torch.distributions.MultivariateNormal(net.mean, net.covariance, validate_args=validate).log_prob(x)


RIGHT = {
    "group norm": lambda: sequential(torch.nn.GroupNorm(2, 6), torch.nn.Tanh()),
    "batch norm in evaluation mode": lambda: sequential(torch.nn.BatchNorm1d(6), torch.nn.Tanh()).eval(),
    "bias before a norm": lambda: Torch(
        lambda net, x: net.b(torch.tanh(functional.instance_norm(net.a(x[:, None]))).flatten(1)),
        a=torch.nn.Conv1d(1, 4, 2),
        b=linear(8, 3),
    ),
    "convolution": lambda: Torch(
        lambda net, x: net.b(torch.tanh(net.a(x[:, None]))).mean(1),
        a=torch.nn.Conv1d(1, 4, 3, padding=1),
        b=torch.nn.Conv1d(4, 2, 1),
    ),
    "attention": lambda: Torch(
        heads, e=linear(1, 8), o=linear(8, 1), m=torch.nn.MultiheadAttention(8, 2, batch_first=True), weights=False
    ),
    "attention with weights": lambda: Torch(
        heads, e=linear(1, 8), o=linear(8, 1), m=torch.nn.MultiheadAttention(8, 2, batch_first=True), weights=True
    ),
    "a bias of keys": lambda: Torch(key_bias, e=linear(1, 4), q=linear(4, 4), k=linear(4, 4), v=linear(4, 4), o=linear(4, 1)),
    "tied weights": lambda: Torch(lambda net, x: functional.linear(torch.tanh(net.a(x)), net.a.weight.T), a=linear(3, 8)),
    "recurrent": lambda: Torch(
        lambda net, x: net.o(net.g(x[..., None])[0])[..., 0], g=torch.nn.GRU(1, 5, batch_first=True), o=linear(5, 1)
    ),
    "frozen": frozen,
    "last layer zero": starting_at_zero,
    "a gate at zero": lambda: two(
        lambda net, x: net.gate * net.b(torch.tanh(net.a(x))) - x, gate=torch.nn.Parameter(torch.zeros(()))
    ),
    "siren": lambda: Torch(sirens, a=linear(3, 16), m=linear(16, 16), b=linear(16, 3)),
    "a constant": lambda: Torch(lambda net, x: net.c.expand(x.shape), c=parameter(3)),
    "no divergence": lambda: Torch(lambda net, x: x @ (net.w - net.w.T), w=parameter(3, 3)),
    "an energy's last bias": lambda: ismcore.Energy(sequential(torch.nn.Softplus(), out=1)),
    "a normal energy, only near symmetric": lambda: ismcore.Energy(
        Torch(normal, mean=parameter(3), covariance=torch.nn.Parameter(torch.eye(3)))
    ),
    "a normal energy that checks nothing": lambda: ismcore.Energy(  # as all do once torch.compile was used in the process
        Torch(lambda net, x: normal(net, x, False), mean=parameter(3), covariance=torch.nn.Parameter(2.0 * torch.eye(3) + 0.5))
    ),
}


def untrained(result):
    return [text for text in result.warnings if "training leaves" in text]


@pytest.mark.parametrize("make", RIGHT.values(), ids=RIGHT)
@pytest.mark.parametrize("options", [{}, {"dtype": "float64"}, {"standardize": False}], ids=["float32", "float64", "raw"])
def test_torch_that_is_right_passes_without_a_word(make, options):
    torch.manual_seed(0)
    assert not untrained(ismcore.fit(X, model=make(), **QUICK, **options))


def test_float32_inside_of_float64_passes():
    net = two(single)
    for options in ({"objective": ismcore.DenoisingScoreMatching(0.3)}, {"allow_nonsmooth": True}):
        assert not untrained(ismcore.fit(X, model=net, dtype="float64", **QUICK, **options))


def test_slopes_below_the_digits_of_a_float32_inside_pass():
    flat = two(lambda net, x: (1.0 + 1e-10 * net.b(torch.tanh(net.a(x)))).float().to(x.dtype))
    assert not untrained(ismcore.fit(X, model=flat, dtype="float64", **QUICK))


ATTENTION = {
    "encoder": lambda: Torch(
        lambda net, x: net.o(net.t(net.e(x[..., None])))[..., 0],
        e=linear(1, 8),
        o=linear(8, 1),
        t=torch.nn.TransformerEncoder(
            torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation="gelu", batch_first=True, norm_first=True),
            2,
            enable_nested_tensor=False,
        ),
    ),
    "heads": RIGHT["attention"],
    "bare": lambda: Torch(
        lambda net, x: net.o(functional.scaled_dot_product_attention(*net.q(torch.tanh(net.e(x[..., None]))).chunk(3, -1)))[
            ..., 0
        ],
        e=linear(1, 4),
        q=linear(4, 12),
        o=linear(4, 1),
    ),
}


def by_rows(net, x):
    """Loss, gradient and divergence from row-by-row Jacobians, attention by products and a softmax."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        jacobians = [torch.autograd.functional.jacobian(lambda r: net(r[None])[0], row, create_graph=True) for row in x]
        divergence = torch.stack([jacobian.trace() for jacobian in jacobians])
        loss = (0.5 * net(x).square().sum(1) + divergence).mean()
        slopes = torch.autograd.grad(loss, list(net.parameters()), materialize_grads=True)
    named = dict(zip(dict(net.named_parameters()), slopes, strict=True))
    return loss.item(), {name: value.numpy() for name, value in named.items()}, divergence.detach().numpy()


def kernels():
    held = torch.backends.cuda
    return held.flash_sdp_enabled(), held.mem_efficient_sdp_enabled(), held.cudnn_sdp_enabled(), held.math_sdp_enabled()


@pytest.mark.slow
@pytest.mark.parametrize("make", ATTENTION.values(), ids=ATTENTION)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_attention_is_differentiated_twice_by_each_route(make, training):
    torch.manual_seed(0)
    net, before = make().double().train(training), kernels()
    x = torch.tensor(X[:12])
    loss, gradient, divergence = by_rows(net, x)

    def near(found, right):
        assert np.abs(np.asarray(found) - right).max() < 1e-9

    at = ismcore.evaluate(net, None, X[:12])
    near(at.loss, loss)
    near(at.divergence, divergence)
    ours = ismcore_torch.implicit_score_matching(net, x)
    ours.backward()
    near(ours.item(), loss)
    near(ismcore_torch.divergence(net, x, differentiable=False), divergence)
    rate = {"optimizer": ismcore.SGD(1e-3, momentum=0.0), "recipe": "reference", "dtype": "float64", "standardize": False}
    for compile in ("auto", "off"):
        result = ismcore.fit(X[:12], model=net, epochs=1, progress=False, compile=compile, **rate)
        near(result.history["loss"][0], loss)
        for name, p in net.named_parameters():
            near((p.detach().numpy() - result.params[name]) / 1e-3, gradient[name])
    for name, p in net.named_parameters():
        near(at.gradient[name], gradient[name])
        near(np.zeros(p.shape) if p.grad is None else p.grad, gradient[name])
    ismcore.fit(X, model=net, epochs=2, progress=False).divergence(X)  # with validation
    assert kernels() == before


@pytest.mark.slow
def test_attention_compiles_in_ones_own_loop():
    torch.manual_seed(0)
    net, x = ATTENTION["bare"]().double(), torch.tensor(X[:12])
    compiled = torch.compile(lambda z: ismcore_torch.implicit_score_matching(net, z), backend="aot_eager", fullgraph=True)
    assert abs(compiled(x).item() - by_rows(net, x)[0]) < 1e-9


def test_threads_leave_the_kernels_as_they_were():
    before = kernels()
    entered, leave = threading.Event(), threading.Event()

    def first():
        with ismcore_torch.calculus.twice_differentiable():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait()
    with ismcore_torch.calculus.twice_differentiable():
        leave.set()
        thread.join()
        assert kernels() == (False, False, False, True)
    assert kernels() == before
