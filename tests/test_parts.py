"""Many rows in torch, several parts of them at once: the sums that the formulas give for all of them."""

import numpy as np
import pytest
import torch
from ismcore_torch import parts, recorded
from ismcore_torch.backend import TorchBackend
from test_analytic_blocks import MODELS
from test_recorded import SMOOTH
from torch import fx
from truth import relative_error

import ismcore
from ismcore import analytic
from ismcore.problem import Problem
from ismcore.samples import Standardizer

ALL = {
    **MODELS,
    **{name: ismcore.MLP((4,), name) for name in SMOOTH},
    **{f"energy, {name}": ismcore.Energy(ismcore.MLP((4,), name)) for name in SMOOTH},
}
CUTS = {
    "one block": (16, 1, 2, False),
    "rows left over": (19, 1, 2, True),
    "blocks": (32, 2, 2, True),
    "blocks, and rows left over": (35, 2, 2, False),
}
"""Rows, blocks, rows of a part, and whether they are weighted."""


def in_parts(model, weight, n, d, row_weight, blocks, rows, dtype="float64"):
    """The formulas, their calls in parts, and a place."""
    backend = TorchBackend(dtype=dtype)
    problem = Problem(
        model, ismcore.ImplicitScoreMatching(weight), ismcore.Adam(), np.zeros((n, d)), Standardizer.identity(d), row_weight
    )
    formulas = analytic.loss_and_gradient(backend, problem)
    found = recorded._InParts(analytic.loss_and_gradient(backend, problem, n), recorded._Shared(), blocks, rows)

    def at(seed):
        x = np.random.default_rng(seed).standard_normal((n, d))
        return backend.asarrays(model.initial_params(seed, d)), backend.asarray(x), backend.asarrays(problem.inputs())

    return formulas, found, at


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize(("d", "wide"), [(1, recorded.WIDE), (3, 1)], ids=["1", "3, results placed"])
@pytest.mark.parametrize("weight", [0.0, 0.3], ids=["plain", "regularised"])
@pytest.mark.parametrize("model", ALL.values(), ids=ALL)
def test_parts_give_what_the_formulas_give(model, weight, d, wide, cut, monkeypatch):
    monkeypatch.setattr(recorded, "WIDE", wide)
    n, blocks, rows, weighted = cut
    row_weight = np.linspace(0.0, 2.0, n) / n if weighted else None
    formulas, found, at = in_parts(model, weight, n, d, row_weight, blocks, rows)
    for seed in (0, 1):  # recorded at the first
        (loss, gradient), (expected, slopes) = found(*at(seed)), formulas(*at(seed))
        assert relative_error(float(loss), float(expected)) < 1e-13
        assert gradient.keys() == slopes.keys()
        assert max(relative_error(gradient[name].numpy(), value.numpy()) for name, value in slopes.items()) < 1e-13


@pytest.mark.parametrize("why", ["a call that is not known", "too many calls"])
def test_formulas_that_cannot_be_recorded_are_left_as_they_are(why, monkeypatch):
    if why == "too many calls":
        monkeypatch.setattr(recorded, "LONGEST", 10)
    else:
        monkeypatch.setattr(parts, "ALIKE", parts.ALIKE - {"sigmoid"})
    formulas, found, at = in_parts(ismcore.MLP((4,), "sigmoid"), 0.3, 16, 3, None, 1, 2)
    for seed in (0, 1):
        (loss, gradient), (expected, slopes) = found(*at(seed)), formulas(*at(seed))
        assert torch.equal(loss, expected)
        assert all(torch.equal(gradient[name], value) for name, value in slopes.items())


@pytest.fixture
def few_are_many(monkeypatch):
    """As few rows as 16 are taken in parts."""
    monkeypatch.setattr(recorded, "MANY", 1)
    monkeypatch.setattr(recorded, "LEAST", 2)
    recorded._recorded.cache_clear()
    yield
    recorded._recorded.cache_clear()


@pytest.mark.parametrize("options", [{}, {"batch_size": 75}, {"average_decay": 0.9, "clip_norm": 0.5}], ids=str)
@pytest.mark.parametrize("weight", [None, np.linspace(0.0, 2.0, 150)], ids=["alike", "weighted"])
def test_fit_in_parts_takes_the_steps_of_another_backend(weight, options, few_are_many, monkeypatch):
    asked = []
    call = recorded._InParts.__call__
    monkeypatch.setattr(recorded._InParts, "__call__", lambda self, *at: asked.append(at) or call(self, *at))
    x = np.random.default_rng(0).standard_normal((150, 3))

    def losses(backend):
        return ismcore.fit(
            x, backend=backend, model=ismcore.MLP((4,), "silu"), objective=ismcore.ImplicitScoreMatching(0.3), epochs=40,
            sample_weight=weight, dtype="float64", recipe="reference", progress=False, **options,
        ).history["loss"]  # fmt: skip

    assert relative_error(losses("torch"), losses("autograd")) < 1e-9
    assert len(asked) == (40 * 2 if "batch_size" in options else 40)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_bits_do_not_depend_on_the_number_of_threads(count):
    x = np.random.default_rng(0).standard_normal((40_001, 3))

    def run(threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return ismcore.fit(
                x, backend="torch", model=ismcore.MLP((8,), "sigmoid"), epochs=5, recipe="reference", progress=False
            )
        finally:
            torch.set_num_threads(before)

    found, expected = run(count), run(4)
    assert np.array_equal(found.history["loss"], expected.history["loss"])
    assert all(np.array_equal(value, expected.params[name]) for name, value in found.params.items())


@pytest.mark.parametrize(
    ("n", "hidden", "d", "expected"),
    [
        (16_000, (8,), 1, recorded._Recorded),
        (17_000, (8,), 1, recorded._InParts),
        (1_000_000, (8,), 1, recorded._InParts),
        (100_000, (16,), 16, recorded._InParts),
        (512, (128, 128), 784, recorded._Recorded),
    ],
)
def test_rows_are_taken_in_parts_where_they_are_many_and_the_parts_long(n, hidden, d, expected):
    model, backend = ismcore.MLP(hidden, "sigmoid"), TorchBackend(dtype="float32")
    shapes = tuple((name, value.shape) for name, value in model.initial_params(0, d).items())
    assert recorded._recorded(backend, model, ismcore.ImplicitScoreMatching(), True, shapes, (n, d), ()).func is expected


def test_what_depends_on_no_row_is_there_once_for_each_part():
    graph = fx.Graph()
    x, scale = graph.placeholder("x"), graph.placeholder("scale")
    x.meta |= {"ndim": 2, "lifted": True}
    scale.meta["ndim"] = 1
    product = graph.call_function(torch.mul, (x, scale))
    total = graph.call_function(torch.sum, (product,))
    product.meta["ndim"], total.meta["ndim"] = 2, 0
    graph.output((total, scale))
    parts.lift(graph, 4)
    x, scale = torch.arange(24.0).view(4, 3, 2), torch.tensor([1.0, 10.0])
    found, scales = fx.GraphModule(torch.nn.Module(), graph)(x, scale)
    assert torch.equal(found, (x * scale).sum())
    assert torch.equal(scales, 4 * scale)


@pytest.mark.parametrize("used", ["once", "twice"])
def test_an_outer_product_and_what_is_added_to_it_are_one_call_unless_it_is_read_before(used, monkeypatch):
    monkeypatch.setattr(recorded, "WIDE", 1)

    def formulas(params, x, given):
        z = params["w"] * x
        before = torch.sum(z) if used == "twice" else torch.sum(x)
        z += params["b"][:, None]
        z *= z
        grown = torch.exp(x) * x
        return before, {"w": torch.sum(z, dim=1) + torch.sum(grown), "b": torch.sum(torch.exp(z), dim=1)}

    rows = torch.linspace(-1.0, 1.0, 10, dtype=torch.float64).reshape(2, 1, 5)
    params = {"w": torch.tensor([[0.5], [-1.0], [2.0]]).double(), "b": torch.tensor([0.25, 1.0, -0.5]).double()}
    one = rows[0]
    program = recorded._record(formulas, params, one, {}, 2, (one,))
    loss, *slopes = recorded._Replay(program)(*params.values(), rows)
    expected = [formulas(params, part, {}) for part in rows]
    torch.testing.assert_close(loss, sum(value for value, _ in expected), rtol=0, atol=1e-13)
    for name, slope in zip(params, slopes, strict=True):
        torch.testing.assert_close(slope, sum(found[name] for _, found in expected), rtol=0, atol=1e-13)
    called = {getattr(node.target, "__name__", "") for node in program.calls.__self__.graph.nodes}
    assert ("baddbmm" if used == "once" else "bmm") in called


def test_a_call_that_is_not_known_is_refused_rather_than_taken_for_another():
    graph = fx.Graph()
    x = graph.placeholder("x")
    x.meta |= {"ndim": 2, "lifted": True}
    found = graph.call_function(torch.cumsum, (x, 0))
    graph.output((found,))
    with pytest.raises(parts.CannotLift, match="cumsum"):
        parts.lift(graph, 8)
