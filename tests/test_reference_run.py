"""The published run comes out on every backend, in both precisions, through either tier."""

import numpy as np
import pytest
from truth import array, relative_error, replay

import ismcore

RUN = ismcore.datasets.reference_run()


def refit(backend, dtype, **options):
    return ismcore.fit(
        RUN.sample,
        backend=backend,
        model=RUN.model,
        optimizer=RUN.optimizer,
        initial_params=RUN.initial_params,
        recipe="reference",
        dtype=dtype,
        epochs=500,
        **options,
    )


def test_published_losses(backend, dtype):
    result = refit(backend, dtype)
    assert result.dtype == dtype
    assert {value.dtype.name for value in result.params.values()} == {dtype}
    np.testing.assert_allclose(result.history["loss"][RUN.epochs - 1], RUN.losses, rtol=0, atol=1e-6)


def test_float64_replay(backend):
    truth = replay()
    result = refit(backend, "float64")
    for name, expected in truth["final_params_f64"].items():
        np.testing.assert_allclose(result.params[name], expected, rtol=0, atol=1e-9)
    grid = np.linspace(-10.0, 10.0, 200)
    np.testing.assert_allclose(result.score(grid)[:, 0], array(truth["score_pred_grid"]), rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.history["loss"][RUN.epochs - 1], array(truth["losses_f64_every25"]), atol=1e-9)
    assert abs(result.loss(RUN.sample) - float(truth["final_loss_after_500_updates_f64"])) < 1e-9


def test_initial_gradient(backend):
    truth = replay()
    start = ismcore.evaluate(RUN.model, RUN.initial_params, RUN.sample, backend=backend)
    assert abs(start.loss - float(truth["loss_init"])) < 1e-12
    for name, expected in truth["grad_init"].items():
        assert relative_error(start.gradient[name], expected) < 1e-11


@pytest.mark.parametrize("curvature_weight", [0.0, 0.1])
def test_fastest_loop_equals_tier_0(backend, curvature_weight):
    objective = ismcore.ImplicitScoreMatching(curvature_weight)
    fast, plain = (
        ismcore.fit(
            RUN.sample[:200],
            backend=backend,
            objective=objective,
            dtype="float64",
            epochs=25,
            compile=how,
            recipe="reference",
        )
        for how in ("auto", "off")
    )
    np.testing.assert_allclose(fast.history["loss"], plain.history["loss"], rtol=0, atol=1e-12)
    for name, value in plain.params.items():
        np.testing.assert_allclose(fast.params[name], value, rtol=0, atol=1e-11)
