"""Closed formulas in blocks of rows: however the rows are cut and weighted, the same sums."""

import numpy as np
import pytest
from truth import relative_error

import ismcore
from ismcore.analytic import gradient
from ismcore.calculus import NumpyCalculus

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
