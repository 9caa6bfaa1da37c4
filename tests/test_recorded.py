"""What torch's session replays for small problems: the bits of the formulas themselves, recorded once for each shape."""

import numpy as np
import pytest
import torch
from ismcore_torch import recorded
from ismcore_torch.backend import TorchBackend
from test_analytic_blocks import MODELS

import ismcore
from ismcore import analytic
from ismcore.activations import ACTIVATIONS
from ismcore.analytic import gradient
from ismcore.problem import Problem
from ismcore.samples import Standardizer

N, D = 7, 5
SMOOTH = [name for name, activation in ACTIVATIONS.items() if activation.smooth]
WEIGHTS = {"plain": 0.0, "regularised": 0.3, "regularised by column": (0.1, 0.0, 0.5, 0.2, 0.3)}
ROW_WEIGHTS = {"alike": None, "weighted": np.arange(1.0, N + 1) / 28}


def assert_same_bits(model, weight, row_weight, dtype):
    """Replayed at two places, neither of them that of the recording."""
    backend = TorchBackend(dtype=dtype)
    problem = Problem(
        model, ismcore.ImplicitScoreMatching(weight), ismcore.Adam(), np.zeros((N, D)), Standardizer.identity(D), row_weight
    )
    with backend.scope(), torch.no_grad():
        replayed, formulas = (f(backend, problem) for f in (recorded.recorded_loss_and_gradient, analytic.loss_and_gradient))
        for seed in (1, 2):
            x = backend.asarray(np.random.default_rng(seed).standard_normal((N, D)))
            at = backend.asarrays(model.initial_params(seed, D)), x, backend.asarrays(problem.inputs())
            (loss, slopes), (expected, expected_slopes) = replayed(*at), formulas(*at)
            assert torch.isfinite(loss)
            assert torch.equal(loss, expected)
            assert slopes.keys() == expected_slopes.keys()
            assert all(torch.equal(slope, expected_slopes[name]) for name, slope in slopes.items())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("row_weight", ROW_WEIGHTS.values(), ids=ROW_WEIGHTS)
@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_replayed_gradient_has_the_bits_of_the_formula(model, weight, row_weight, dtype):
    assert_same_bits(model, weight, row_weight, dtype)


@pytest.mark.parametrize("activation", SMOOTH)
@pytest.mark.parametrize("wrap", [lambda net: net, ismcore.Energy], ids=["score", "energy"])
def test_replayed_gradient_has_the_bits_of_the_formula_for_every_activation(wrap, activation):
    assert_same_bits(wrap(ismcore.MLP((4,), activation)), 0.3, None, "float32")


def test_blocks_of_rows_are_recorded_one_after_the_other(monkeypatch):
    monkeypatch.setattr(gradient, "_block_rows", lambda route, d, numbers: 2)
    recorded._recorded.cache_clear()
    assert_same_bits(ismcore.MLP((4,), "silu"), 0.0, None, "float64")
    recorded._recorded.cache_clear()  # what was recorded in blocks serves nobody else


@pytest.mark.parametrize("options", [{}, {"batch_size": 16}, {"sample_weight": np.linspace(0.1, 1.0, 50)}], ids=str)
def test_a_second_fit_of_the_same_shapes_records_nothing(options):
    run = {"backend": "torch", "recipe": "reference", "progress": False, **options}
    x = np.random.default_rng(0).standard_normal((50, 3))
    ismcore.fit(x, epochs=3, **run)
    before = recorded._recorded.cache_info()
    ismcore.fit(x + 1.0, epochs=5, seed=4, optimizer=ismcore.Adam(0.1), **run)
    after = recorded._recorded.cache_info()
    assert before.currsize > 0
    assert (after.misses, after.currsize) == (before.misses, before.currsize)
    assert after.hits > before.hits


def test_a_tensor_from_outside_is_no_constant_of_the_program():
    stray = torch.ones(())
    recorder = recorded._Recorder(torch.float32)
    inner = torch.ones(())
    recorder.inputs([inner])
    with recorder, pytest.raises(KeyError):
        inner * stray
