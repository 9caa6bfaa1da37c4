"""torch's own loop: the steps of NumPy's for every closed formula, and a compiled step that fails is taken eagerly."""

import numpy as np
import pytest
import torch
from ismcore_torch import step
from test_analytic_blocks import MODELS
from truth import SMALL_SAMPLE, relative_error

import ismcore
from ismcore.analytic import find_route
from ismcore.domains import Box
from ismcore.models.activations import ACTIVATIONS

pytestmark = pytest.mark.filterwarnings(*SMALL_SAMPLE)
N, D = 15, 5
X = np.random.default_rng(0).standard_normal((N, D))
SMOOTH = [name for name, activation in ACTIVATIONS.items() if activation.smooth]
WEIGHTS = {"plain": 0.0, "regularised": 0.3, "by column": (0.1, 0.0, 0.5, 0.2, 0.3)}
ROWS = {
    "alike": {},
    "weighted": {"sample_weight": np.linspace(0.0, 2.0, N)},
    "batches": {"batch_size": 4},  # 3 rows and 4
    "weighted batches": {"batch_size": 4, "sample_weight": np.linspace(0.0, 2.0, N)},
}
RULES = {
    "adam": {},
    "clipped, averaged": {"clip_norm": 0.5, "average_decay": 0.9},
    "momentum": {"optimizer": ismcore.SGD(0.01, 0.9)},
    "descent": {"optimizer": ismcore.SGD(0.01)},
}


def fit(backend, model, weight=0.0, epochs=6, **options):
    objective = ismcore.ImplicitScoreMatching(weight)
    return ismcore.fit(
        X, backend=backend, model=model, objective=objective, epochs=epochs, dtype="float64", recipe="reference",
        progress=False, **options,
    )  # fmt: skip


def assert_same_run(found, expected):
    assert relative_error(found.history["loss"], expected.history["loss"]) < 1e-11
    assert found.params.keys() == expected.params.keys()
    assert max(relative_error(found.params[name], value) for name, value in expected.params.items()) < 1e-11


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_torch_takes_the_steps_of_numpy_by_every_formula(model, weight, rows):
    assert_same_run(*(fit(backend, model, weight, **rows) for backend in ("torch", "autograd")))


@pytest.mark.parametrize("rows", [ROWS["alike"], ROWS["weighted batches"]], ids=["alike", "weighted batches"])
@pytest.mark.parametrize("activation", SMOOTH)
@pytest.mark.parametrize("wrap", [lambda net: net, ismcore.Energy], ids=["score", "energy"])
def test_torch_takes_the_steps_of_numpy_with_every_activation(wrap, activation, rows):
    assert_same_run(*(fit(backend, wrap(ismcore.MLP((4,), activation)), 0.3, **rows) for backend in ("torch", "autograd")))


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("divergence", ["analytic", "nested"])
def test_torch_updates_as_numpy_and_goes_on_to_the_same_bits(rule, divergence, tmp_path):
    options = {"recipe": "reference", "progress": False, "dtype": "float64", "batch_size": 4, **rule}
    options |= {"model": ismcore.MLP((4,), "tanh"), "objective": ismcore.ImplicitScoreMatching(0.3, divergence)}
    whole, numpys = (ismcore.fit(X, backend=backend, epochs=20, **options) for backend in ("torch", "autograd"))
    assert_same_run(whole, numpys)
    ismcore.fit(X, backend="torch", epochs=7, checkpoint=tmp_path / "run.ckpt", **options)
    resumed = ismcore.resume(tmp_path / "run.ckpt", X, epochs=20, progress=False)
    assert resumed.history["loss"].tobytes() == whole.history["loss"].tobytes()
    assert all(value.tobytes() == resumed.params[name].tobytes() for name, value in whole.params.items())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_many_rows_have_the_same_result_on_any_number_of_threads_which_is_left_as_it_was(count):
    x = np.random.default_rng(0).standard_normal((40_001, 3))

    def run(threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return ismcore.fit(x, backend="torch", epochs=3, recipe="reference", dtype="float64", progress=False)
        finally:
            assert torch.get_num_threads() == threads
            torch.set_num_threads(before)

    assert_same_run(run(count), run(4))


def test_a_step_that_cannot_be_compiled_is_taken_eagerly_with_a_warning(monkeypatch):
    def compile_nothing(f, **options):
        def fails(*at):
            raise RuntimeError("no compiler of C++ here") from OSError("g++: not found")

        return fails

    step._compiled.cache_clear()
    monkeypatch.setattr(torch, "compile", compile_nothing)
    eager = fit("torch", ismcore.MLP((4,)))
    with pytest.warns(RuntimeWarning, match=r"compiled step of torch failed: OSError: g\+\+: not found; the eager one") as told:
        found = fit("torch", ismcore.MLP((4,)), compile="on")
    step._compiled.cache_clear()
    assert [one.category for one in told if one.category is not ismcore.IsmWarning] == [RuntimeWarning]
    assert found.history["loss"].tobytes() == eager.history["loss"].tobytes()
    assert all(value.tobytes() == found.params[name].tobytes() for name, value in eager.params.items())


@pytest.mark.slow
@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("model", [ismcore.MLP((4,)), ismcore.Energy(ismcore.MLP((4, 3)))], ids=["mlp", "energy"])
def test_the_whole_step_is_one_graph_of_torch_s_compiler(model, monkeypatch):
    whole = torch.compile
    step._compiled.cache_clear()
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", lambda f, **options: whole(f, backend="eager", **options))
    found = fit("torch", model, 0.3, compile="on", **ROWS["weighted batches"], **RULES["clipped, averaged"])
    step._compiled.cache_clear()
    expected = fit("torch", model, 0.3, **ROWS["weighted batches"], **RULES["clipped, averaged"])
    assert relative_error(found.history["loss"], expected.history["loss"]) < 1e-12


def test_fits_of_a_kind_share_a_compiled_step_and_kinds_are_more_than_torch_keeps_for_one_function(monkeypatch):
    made = []
    step._compiled.cache_clear()
    monkeypatch.setattr(torch, "compile", lambda f, **options: made.append(f) or f)
    for width in range(1, 4):
        for rate, weight in ((0.1, 0.2), (0.3, 0.4)):
            fit("torch", ismcore.MLP((width,)), weight, epochs=2, optimizer=ismcore.Adam(rate), compile="on")
    step._compiled.cache_clear()
    assert len(made) == 3
    assert len({id(f.__code__) for f in made}) == 3


@pytest.mark.parametrize("hidden", [(6,), (6, 7), (6, 7, 5)], ids=str)
@pytest.mark.parametrize("weight", [0.0, 0.3], ids=["plain", "regularised"])
def test_with_weights_of_columns_the_cotangents_lie_row_by_row(monkeypatch, hidden, weight):
    model, x = ismcore.MLP(hidden), np.abs(X)
    route = type(find_route(model, D, trace=False, n=N))
    pullback, seen = route.pullback, []

    def recorded(self, ops, residuals, psi_bar, second_bar):
        seen.extend((psi_bar, second_bar))
        return pullback(self, ops, residuals, psi_bar, second_bar)

    monkeypatch.setattr(route, "pullback", recorded)
    objective = ismcore.ImplicitScoreMatching(weight, domain=Box((0.0, None, 0.0, 0.0, None), None, width=1.0))
    ismcore.evaluate(model, model.initial_params(0, D), x, objective, backend="torch")
    assert seen
    # tangents are made with them and lie like them, of (d, H, n) then with the columns last: half a step more
    assert all(bar.shape == (D, N) and bar.is_contiguous() for bar in seen)
