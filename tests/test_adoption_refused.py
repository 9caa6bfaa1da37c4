"""Networks of torch that cannot be trained by score matching are refused, with the reason, and stay as they are."""

import numpy as np
import pytest
import torch
from torch.nn import functional
from truth import correlated

import ismcore

X = correlated(n=40)


class Own(torch.nn.Module):
    """A torch network with a step of one's own in the middle."""

    def __init__(self, step, out=3):
        super().__init__()
        self.first, self.last, self.step = torch.nn.Linear(3, 6), torch.nn.Linear(6, out), step
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        return self.last(self.step(self.first(x)))


class Counting(Own):
    def forward(self, x):
        self.calls += 1
        return super().forward(x)


class Writing(Own):
    def forward(self, x):
        return super().forward(x.mul_(2.0))


class Wide(Own):
    def forward(self, x):
        return super().forward(x).double()


class Fixed(Own):
    def forward(self, x):
        return super().forward(x).float()


def sequential(*middle, out=3):
    return torch.nn.Sequential(torch.nn.Linear(3, 6), *middle, torch.nn.Linear(6, out))


TORCH = {
    "batch norm": (lambda: sequential(torch.nn.BatchNorm1d(6), torch.nn.Tanh()), "1 is a BatchNorm1d.*mixes the rows.*eval"),
    "batch norm without running mean": (
        lambda: sequential(torch.nn.BatchNorm1d(6, track_running_stats=False), torch.nn.Tanh()).eval(),
        "1 is a BatchNorm1d.*mixes the rows",
    ),
    "dropout": (lambda: sequential(torch.nn.Tanh(), torch.nn.Dropout(0.1)), "2 is a Dropout in training mode.*random.*eval"),
    "dropout of one's own": (lambda: Own(functional.dropout), "different scores for the same samples.*random"),
    "relu": (lambda: sequential(torch.nn.ReLU()), "1 is a ReLU.*piecewise linear.*softplus"),
    "relu of one's own": (lambda: Own(torch.relu), "not smooth in x: .* of 32 lines .*ReLU.*softplus"),
    "abs": (lambda: Own(torch.abs), "not smooth in x"),
    "leaky": (lambda: Own(lambda h: torch.tanh(functional.leaky_relu(h))), "not smooth in x"),
    "sorting": (lambda: Own(lambda h: torch.sort(h, dim=1).values), "not smooth in x"),
    "rows minus their mean": (lambda: Own(lambda h: torch.tanh(h - h.mean(0))), "mixes the rows.*other rows"),
    "attention over rows": (lambda: Own(lambda h: torch.softmax(h @ h.T, dim=1) @ h), "mixes the rows"),
    "row numbers": (lambda: Own(lambda h: h + torch.arange(len(h))[:, None]), "mixes the rows.*their place"),
    "row count": (lambda: Own(lambda h: torch.tanh(h) * len(h)), "mixes the rows.*size of the batch"),
    "a buffer that counts": (lambda: Counting(torch.tanh), "writes to its buffer 'calls'"),
    "spectral norm": (
        lambda: torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(3, 3)),
        r"writes to its buffer 'parametrizations.weight.0._u'",
    ),
    "in-place input": (lambda: Writing(torch.tanh), "writes to its input"),
    "too wide": (lambda: Wide(torch.tanh), "returns float64 for samples of float32.*pass dtype='float64'"),
    "wrong outputs": (
        lambda: sequential(torch.nn.Tanh(), out=2),
        r"one score a row, of shape \(64, 3\); it returned \(64, 2\)",
    ),
    "energy as score": (lambda: sequential(torch.nn.Tanh(), out=1), "an energy goes inside of ismcore.Energy"),
    "score as energy": (lambda: ismcore.Energy(sequential(torch.nn.Tanh())), "a score is a model as it is"),
    "wrong inputs": (lambda: torch.nn.Linear(4, 3), "called on a batch of 7 rows: RuntimeError.*one row at a time"),
    "two outputs": (lambda: Pair(), "returned a tuple"),
    "frozen": (lambda: sequential(torch.nn.Tanh()).requires_grad_(False), "requires a gradient, so there is nothing to fit"),
    "lazy": (lambda: torch.nn.Sequential(torch.nn.LazyLinear(3)), "without a shape yet; call it once"),
    "nan": (lambda: Own(lambda h: torch.log(-(h * h))), "NaN or infinite scores at 32 of 32"),
    "a class": (lambda: Own, "the class Own: make one"),
}


class Pair(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = sequential(torch.nn.Tanh())

    def forward(self, x):
        return self.net(x), None


@pytest.mark.parametrize(("make", "words"), TORCH.values(), ids=TORCH)
def test_torch(make, words):
    model = make()
    net = model.net if isinstance(model, ismcore.Energy) else model
    before = state(net)
    with pytest.raises(ismcore.ModelError, match=words):
        ismcore.fit(X, model=model, epochs=1, progress=False)
    assert state(net) == before


def state(net):
    """What must stay, as text."""
    held = net.state_dict() if isinstance(net, torch.nn.Module) and "Lazy" not in str(net) else {}
    training = [layer.training for layer in net.modules()] if isinstance(net, torch.nn.Module) else []
    random = torch.get_rng_state().numpy().tobytes(), str(np.random.get_state())  # noqa: NPY002
    return {name: value.numpy().tobytes() for name, value in held.items()}, training, random


def test_a_dtype_fixed_too_narrow():
    with pytest.raises(ismcore.ModelError, match=r"float32"):
        ismcore.fit(X, model=Fixed(torch.tanh), epochs=1, dtype="float64", progress=False)
    ismcore.fit(X, model=Fixed(torch.tanh), epochs=1, dtype="float32", progress=False)


@pytest.mark.parametrize("make", [lambda: sequential(torch.nn.ReLU()), lambda: Own(torch.relu)])
def test_kinks_are_let_through_on_request_or_where_no_derivative_is_taken(make):
    with pytest.raises(ismcore.ModelError):
        ismcore.fit(X, model=make(), epochs=1, progress=False)
    for options in ({"allow_nonsmooth": True}, {"objective": ismcore.DenoisingScoreMatching(0.5)}):
        result = ismcore.fit(X, model=make(), epochs=1, progress=False, **options)
        assert result.status == "completed"
        assert np.isfinite(result.score(X)).all()


SMOOTH = {
    "affine": lambda h: h,
    "steep softplus": lambda h: functional.softplus(h, beta=30.0),
    "torch's softplus beyond its threshold": lambda h: functional.softplus(10.0 * h),
    "elu": functional.elu,
    "silu": functional.silu,
    "sine": lambda h: torch.sin(5.0 * h),
    "cube": lambda h: h**3,
    "layer norm": lambda h: functional.layer_norm(h, (6,)),
    "softmax over columns": lambda h: torch.softmax(h, dim=1),
}


@pytest.mark.parametrize("step", SMOOTH.values(), ids=SMOOTH)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_smooth_networks_pass(step, dtype):
    result = ismcore.fit(X, model=Own(step), epochs=1, dtype=dtype, progress=False)
    assert result.status == "completed"
    assert np.isfinite(result.score(X)).all()
