"""A fit kept open: it goes on as one fit would, whatever moves, and compiles nothing anew."""

import threading

import jax
import numpy as np
import pytest
from truth import BACKENDS, marked

import ismcore

NET = ismcore.MLP((8,))
PLAIN = {"epochs": 20, "validation": 0, "batch_size": "all", "schedule": "constant", "recipe": "reference", "standardize": True}
X = np.random.default_rng(0).normal(size=(96, 3)) * [1.0, 2.0, 0.1] + 5.0


def open_fit(backend="autograd", **options):
    return ismcore.Refit(X, backend=backend, **{"model": NET, "dtype": "float64", **options})


def same(params, others, tolerance):
    return all(np.allclose(params[name], others[name], rtol=0.0, atol=tolerance) for name in params)


@pytest.mark.parametrize("backend", marked(BACKENDS))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_updates_on_the_same_samples_are_one_fit_to_the_bits(backend, dtype):
    whole = ismcore.fit(X, model=NET, backend=backend, dtype=dtype, **PLAIN)
    refit = open_fit(backend, dtype=dtype)
    losses = np.concatenate([refit.update(X, steps=13), refit.update(steps=7)])
    assert np.array_equal(losses, whole.history["loss"])
    assert same(refit.result().params, whole.params, 0.0)
    assert np.array_equal(refit.score(X), whole.score(X))
    assert np.array_equal(refit.result().history["loss"], losses)


@pytest.mark.parametrize("backend", marked(BACKENDS))
@pytest.mark.parametrize("n", [40, 130])
def test_another_number_of_rows_is_a_fit_of_them_from_there(backend, n):
    other = 1.3 * np.random.default_rng(1).normal(size=(n, 3)) + [5.0, 6.0, 7.0]
    # without moments, a fit from the parameters is the same as one that goes on
    refit = open_fit(backend, optimizer=ismcore.SGD(1e-3), standardize=False)
    refit.update(steps=5)
    begun = refit.result()
    losses = refit.update(other, steps=20)
    plain = PLAIN | {"standardize": False, "optimizer": ismcore.SGD(1e-3)}
    whole = ismcore.fit(other, model=NET, initial_params=begun.params, backend=backend, dtype="float64", **plain)
    assert np.allclose(losses, whole.history["loss"], rtol=1e-12)
    assert same(refit.result().params, whole.params, 1e-12)


def test_an_update_of_what_draws_nothing_begins_no_random_stream(monkeypatch):
    refit = open_fit()
    refit.update(X)
    begun = []
    monkeypatch.setattr("ismcore.problem.stream", lambda *name: begun.append(name))  # each takes as long as a short step
    refit.update(1.1 * X)
    assert not begun


def test_row_weights_are_those_of_a_fit():
    weight = np.random.default_rng(2).uniform(0.0, 1.0, len(X))
    whole = ismcore.fit(X, model=NET, backend="autograd", dtype="float64", sample_weight=weight, **PLAIN)
    first, later = open_fit(sample_weight=weight), open_fit(standardize=False)
    assert np.array_equal(first.update(steps=20), whole.history["loss"])
    plain = ismcore.fit(
        X, model=NET, backend="autograd", dtype="float64", sample_weight=weight, **PLAIN | {"standardize": False}
    )
    assert np.array_equal(later.update(X, steps=20, sample_weight=weight), plain.history["loss"])


def programs(run):
    """The programs that JAX compiles in it, by name; those that another thread still compiles are not its own."""
    heard, own = [], threading.get_ident()

    def hear(event, seconds, **about):
        if event.endswith("backend_compile_duration") and threading.get_ident() == own:
            heard.append(str(about))

    jax.monitoring.register_event_duration_secs_listener(hear)
    try:
        run()
    finally:
        jax.monitoring.unregister_event_duration_listener(hear)
    return heard


@pytest.mark.slow
def test_nothing_is_compiled_anew_when_samples_or_their_number_change(monkeypatch):
    monkeypatch.setattr("ismcore_jax.session._seen", set())  # those of other tests may empty the caches midway
    rng = np.random.default_rng(3)
    refit = open_fit("jax")
    refit.update(steps=2)
    assert not programs(lambda: refit.update(2.0 * X, steps=7))
    assert programs(lambda: refit.update(rng.normal(size=(70, 3)), steps=2))  # the one of 128 rows, once
    refit.score(X[:70])
    for n in (65, 100, 128, 96):
        assert not programs(lambda n=n: (refit.update(rng.normal(size=(n, 3)), steps=3), refit.score(rng.normal(size=(n, 3)))))


@pytest.mark.parametrize("backend", marked(BACKENDS))
def test_until_ends_at_the_norm_of_the_gradient(backend):
    refit = open_fit(backend, model=ismcore.Affine(), optimizer=ismcore.Adam(5e-2))
    taken = len(refit.update(steps=2000, until=1e-3))
    assert 0 < taken < 2000
    result = refit.result()
    gradient = ismcore.evaluate(*result.model.from_units(result.params, result.coordinates), result.coordinates(X)).gradient
    assert np.sqrt(sum((slope**2).sum() for slope in gradient.values())) <= 1e-3
    assert len(refit.update(steps=2000, until=1e-3)) == 0
    without = open_fit(backend, model=ismcore.Affine(), optimizer=ismcore.Adam(5e-2))
    assert np.allclose(without.update(steps=taken), result.history["loss"], rtol=1e-12)


def test_a_step_that_diverges_leaves_the_fit_as_it_was():
    refit = open_fit(optimizer=ismcore.SGD(1e-2))
    refit.update(steps=3)
    before = refit.result().params
    with pytest.raises(ismcore.Diverged, match="within 500 steps from step 3") as caught, np.errstate(all="ignore"):
        refit.update(1e150 * X, steps=500)
    assert same(caught.value.result.params, before, 0.0)
    assert (refit.steps, len(refit.update(steps=2))) == (3, 2)


@pytest.mark.slow
def test_scores_of_the_framework_s_own_arrays_stay_there():
    import torch

    for backend, asarray, own in (("torch", torch.tensor, torch.Tensor), ("jax", jax.numpy.asarray, jax.Array)):
        refit = ismcore.Refit(X, model=NET, backend=backend)
        refit.update(asarray(X.astype(np.float32)), steps=3)
        found = refit.score(asarray(X.astype(np.float32)))
        assert isinstance(found, own)
        assert np.allclose(np.asarray(found), refit.score(X), rtol=1e-3, atol=1e-3)


def test_what_needs_held_out_rows_or_a_whole_run_is_refused():
    with pytest.raises(ismcore.OptionError, match="as a whole"):
        open_fit(optimizer=ismcore.LBFGS())
    with pytest.raises(ismcore.OptionError, match="give a number"):
        open_fit(objective=ismcore.ImplicitScoreMatching(ismcore.CurvatureSearch()))
    with pytest.raises(ismcore.OptionError, match="steps must be"):
        open_fit().update(steps=0)
    with pytest.raises(ismcore.SamplesError, match="3 columns"):
        open_fit().update(X[:, :2])
    with pytest.raises(ismcore.SamplesError, match="at least two rows"):
        open_fit().update(X[:1])
    with pytest.raises(ismcore.SamplesError, match="column 1 of the samples is constant"):  # particles that have met
        open_fit().update(X * [1.0, 0.0, 1.0])


def test_of_moving_particles_the_score_follows():
    """Independent Ornstein-Uhlenbeck particles in the probability flow: their law stays normal, of a known variance."""
    x, h = np.random.default_rng(4).normal(size=(400, 2)) * 2.0, 0.05
    variance = x.var(axis=0)
    refit = ismcore.Refit(x, model=ismcore.Affine(), backend="autograd", dtype="float64", optimizer=ismcore.Adam(5e-2))
    refit.update(steps=300)
    for _ in range(20):
        x = x + h * (-x - refit.score(x))  # dx/dt = drift - score, of dX = -X dt + sqrt(2) dW
        refit.update(x, steps=25)
        variance = variance + 2.0 * h * (1.0 - variance) + h**2 * (variance - 2.0 + 1.0 / variance)
    assert np.allclose(x.var(axis=0), variance, rtol=0.02)
