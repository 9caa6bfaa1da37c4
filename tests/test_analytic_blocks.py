"""Closed formulas in blocks of rows: however the rows are cut, the same sums."""

import numpy as np
import pytest
from truth import relative_error

import ismcore
from ismcore.analytic import gradient

MODELS = {
    "one hidden": ismcore.MLP((4,), "silu"),
    "two hidden": ismcore.MLP((4, 3), "softplus"),
    "three hidden, narrower than d": ismcore.MLP((3, 2, 2), "gelu_tanh"),
    "energy, one hidden": ismcore.Energy(ismcore.MLP((4,), "gelu")),
    "energy, two hidden": ismcore.Energy(ismcore.MLP((4, 3), "tanh")),
}


@pytest.mark.parametrize("weight", [0.0, 0.3])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_gradient_in_blocks_of_two_rows_is_the_nested_one(model, weight, monkeypatch):
    monkeypatch.setattr(gradient, "_block_rows", lambda route, d, itemsize: 2)
    x = np.random.default_rng(0).standard_normal((7, 5))
    params = model.initial_params(1, 5)
    blocks, nested = (
        ismcore.evaluate(model, params, x, ismcore.ImplicitScoreMatching(weight, route), backend="autograd")
        for route in ("analytic", "nested")
    )
    assert relative_error(blocks.loss, nested.loss) < 1e-12
    assert max(relative_error(blocks.gradient[name], value) for name, value in nested.gradient.items()) < 1e-12
