"""Closed formulas in blocks of rows: however the rows are cut and weighted, the same sums."""

import numpy as np
import pytest
from truth import SMALL_SAMPLE, relative_error

import ismcore
from ismcore import analytic
from ismcore.analytic import gradient
from ismcore.analytic.routes import matmul_t
from ismcore.calculus import NumpyCalculus
from ismcore.coordinates import Coordinates
from ismcore.plugins.lookup import load_backend
from ismcore.problem import Loss, Problem

MODELS = {
    "one hidden": ismcore.MLP((4,), "silu"),
    "two hidden": ismcore.MLP((4, 3), "softplus"),
    "two hidden, more units than rows": ismcore.MLP((9, 3), "silu"),
    "three hidden, wider than d": ismcore.MLP((7, 6, 8), "sigmoid"),
    "three hidden, narrower than d": ismcore.MLP((3, 2, 2), "gelu_tanh"),
    "energy, one hidden": ismcore.Energy(ismcore.MLP((4,), "gelu")),
    "energy, two hidden": ismcore.Energy(ismcore.MLP((4, 3), "tanh")),
    "energy, three hidden": ismcore.Energy(ismcore.MLP((4, 3, 5), "softplus")),
}


def test_blocks_are_about_equal():
    sizes = []
    NumpyCalculus().sum_over_rows(lambda rows: {"count": sizes.append(len(rows["x"])) or 0}, {"x": np.zeros(1000)}, 300)
    assert sizes == [250] * 4


@pytest.mark.parametrize("shape", [(5, 3), (600, 300)], ids=["small", "large"])
@pytest.mark.parametrize("columns", [2, 700], ids=["few", "many"])
def test_products_with_a_transpose_are_right_whatever_is_copied_for_them(shape, columns, backend):
    rng = np.random.default_rng(0)
    matrix, bar = rng.standard_normal(shape), rng.standard_normal((shape[0], columns))
    engine = load_backend(backend)(dtype="float64")
    with engine.scope():
        found = engine.to_numpy(matmul_t(engine.plain.ops, engine.asarray(matrix), engine.asarray(bar)))
    np.testing.assert_allclose(found, matrix.T @ bar, rtol=0, atol=1e-11)


@pytest.mark.parametrize("d", [1, 3])
def test_gradients_of_first_weights_are_given_transposed_where_that_is_asked(d, backend):
    model, x = ismcore.MLP((4,), "sigmoid"), np.random.default_rng(0).standard_normal((7, d))
    problem = Problem(Loss(model, ismcore.ImplicitScoreMatching(0.3)), ismcore.Adam(), x, Coordinates.identity(d))
    engine = load_backend(backend)(dtype="float64")
    with engine.scope():
        params, given = engine.asarrays(model.initial_params(1, d)), engine.asarrays(problem.inputs())
        (_, plain), (_, kept) = (
            analytic.loss_and_gradient(engine.plain, problem.loss, keep_transposed=keep_transposed)(
                params, engine.asarray(x), given
            )
            for keep_transposed in (False, True)
        )
    assert analytic.transposed_weights(problem) == ("layers.0.weight",)
    for name, slope in plain.items():
        other = engine.to_numpy(kept[name])
        assert np.array_equal(engine.to_numpy(slope), other.T if name == "layers.0.weight" else other)
    assert plain["layers.0.weight"].shape == (4, d)


@pytest.mark.filterwarnings(*SMALL_SAMPLE)
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_weights_that_a_session_keeps_transposed_come_back_as_others_lie(backend):
    x = np.random.default_rng(0).standard_normal((7, 3))
    result = ismcore.fit(x, backend=backend, model=ismcore.MLP((4,)), epochs=2, recipe="reference", progress=False)
    assert {name: value.shape for name, value in result.params.items()}["layers.0.weight"] == (4, 3)
    assert all(value.flags.c_contiguous for value in result.params.values())


SAMPLE_WEIGHTS = {"alike": None, "weighted": np.array([0.5, 2.0, 1.0, 0.0, 3.0, 1.5, 0.25])}


@pytest.mark.parametrize("sample_weight", SAMPLE_WEIGHTS.values(), ids=SAMPLE_WEIGHTS)
@pytest.mark.parametrize("weight", [0.0, 0.3, (0.1, 0.0, 0.5, 0.2, 0.3)], ids=["plain", "regularised", "regularised by column"])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_gradient_in_blocks_of_two_rows_is_the_nested_one(model, weight, sample_weight, monkeypatch):
    monkeypatch.setattr(gradient, "_block_rows", lambda calculus, route, d: 2)
    x = np.random.default_rng(0).standard_normal((7, 5))
    params = model.initial_params(1, 5)
    blocks, nested = (
        ismcore.evaluate(
            model,
            params,
            x,
            ismcore.ImplicitScoreMatching(weight, route),
            backend="autograd",
            sample_weight=sample_weight,
        )
        for route in ("analytic", "nested")
    )
    assert relative_error(blocks.loss, nested.loss) < 1e-12
    assert max(relative_error(blocks.gradient[name], value) for name, value in nested.gradient.items()) < 1e-12
