"""What `fit`, `evaluate` and `compare` promise beside right numbers."""

import jax
import numpy as np
import pytest
from truth import PLAIN, correlated

import ismcore
from ismcore.coordinates import Coordinates

X = correlated(n=1024)
FEW = X[:48]


@pytest.mark.slow
def test_three_backends_agree_over_500_epochs_from_the_same_start():
    found = ismcore.compare(
        X, model=ismcore.MLP((16,), "sigmoid"), objective=ismcore.ImplicitScoreMatching(0.1), epochs=500, **PLAIN
    )
    assert len(found.differences) == 3
    assert all(row.loss < 1e-8 for row in found.differences)
    assert "autograd - torch" in str(found)
    histories = [result.history["loss"] for result in found.results.values()]
    assert all(len(history) == 500 for history in histories)
    assert all(history[-1] < history[0] for history in histories)


def test_compare_wants_two_different_backends():
    for names in (("jax",), ("jax", "jax")):
        with pytest.raises(ismcore.OptionError, match="two or more different"):
            ismcore.compare(FEW, backends=names, epochs=1)


def test_equal_arguments_give_equal_bits(backend):
    first, again = (ismcore.fit(FEW, **PLAIN, backend=backend, epochs=7, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.history["loss"], again.history["loss"])
    for name, value in first.params.items():
        np.testing.assert_array_equal(again.params[name], value)


def test_standardising_makes_the_fit_indifferent_to_units(backend):
    scale, shift = np.array([100.0, 1e-3, 7.0]), np.array([5.0, -1.0, 0.0])
    plain = ismcore.fit(FEW, **PLAIN, backend=backend, epochs=20, dtype="float64")
    scaled = ismcore.fit(FEW * scale + shift, **PLAIN, backend=backend, epochs=20, dtype="float64")
    np.testing.assert_allclose(scaled.history["loss"], plain.history["loss"], rtol=1e-9)
    np.testing.assert_allclose(scaled.score(FEW * scale + shift) * scale, plain.score(FEW), rtol=1e-7, atol=1e-9)


def test_objective_scales_as_the_inverse_square_of_the_unit(backend):
    # psi_c(x) = psi(x / c) / c for samples c x: J is divided by c^2, and so is lambda's part if lambda grows by c^2
    c, model = 3.0, ismcore.MLP((6,), "tanh")
    params = model.initial_params(0, 3)
    scaled_model, scaled = model.in_units(params, Coordinates(np.zeros(3), np.full(3, c)))
    here = ismcore.evaluate(model, params, FEW, ismcore.ImplicitScoreMatching(0.2), backend=backend)
    there = ismcore.evaluate(scaled_model, scaled, c * FEW, ismcore.ImplicitScoreMatching(0.2 * c * c), backend=backend)
    assert abs(there.loss - here.loss / c**2) < 1e-12


def test_regularised_objective_is_bounded_below(backend):
    # 1/2 s^2 >= 0 and t + lambda t^2 >= -1 / (4 lambda) for each of the d terms
    for seed in range(3):
        rng = np.random.default_rng(seed)
        params = {name: 3 * rng.normal(size=shape) for name, shape in ismcore.MLP((6,)).shapes(3).items()}
        for weight in (0.05, 0.5):
            at = ismcore.evaluate(ismcore.MLP((6,)), params, FEW, ismcore.ImplicitScoreMatching(weight), backend=backend)
            assert at.loss >= -3 / (4 * weight)


def test_result_s_score_and_divergence_are_those_of_evaluate(backend, dtype):
    result = ismcore.fit(FEW, **PLAIN, backend=backend, epochs=5, dtype=dtype)
    at = ismcore.evaluate(result.model, result.params, FEW, backend=backend, dtype=dtype)
    tolerance = {"float32": 2e-5, "float64": 1e-12}[dtype]
    np.testing.assert_allclose(result.score(FEW), at.score, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(result.divergence(FEW), at.divergence, rtol=tolerance, atol=tolerance)
    assert result.score(FEW).dtype == "float64"  # shift and scale are applied in it, whatever the network's dtype
    assert result.divergence(FEW).shape == (48,)


def test_loss_of_the_result_continues_its_history(backend):
    short, longer = (ismcore.fit(FEW, **PLAIN, backend=backend, epochs=n, dtype="float64") for n in (5, 6))
    assert abs(short.loss(FEW) - longer.history["loss"][5]) < 1e-12


def test_loss_of_a_result_knows_the_units_of_an_explicit_target():
    target = ismcore.targets.GaussianMixture([1.0], [[1.0, -2.0, 30.0]], [np.diag([1.0, 0.1, 9.0])])
    options = {**PLAIN, "backend": "autograd", "objective": ismcore.ExplicitScoreMatching(target.score), "dtype": "float64"}
    short, longer = (ismcore.fit(FEW, **options, epochs=n) for n in (5, 6))
    assert abs(short.loss(FEW) - longer.history["loss"][5]) < 1e-10 * longer.history["loss"][5]


def test_snapshots_are_the_parameters_after_that_many_epochs(backend):
    result = ismcore.fit(FEW, **PLAIN, backend=backend, epochs=30, snapshots=4, dtype="float64")
    assert list(result.snapshots) == [0, 10, 20, 30]
    ten = ismcore.fit(FEW, **PLAIN, backend=backend, epochs=10, dtype="float64")
    for name, value in ten.params.items():
        np.testing.assert_array_equal(result.snapshots[10][name], value)
        np.testing.assert_array_equal(result.snapshots[30][name], result.params[name])
    np.testing.assert_array_equal(result.score(FEW, epoch=10), ten.score(FEW))


def test_initial_params_are_in_the_samples_units(backend):
    model = ismcore.MLP((6,), "tanh")
    params = model.initial_params(11, 3)
    result = ismcore.fit(
        FEW, **PLAIN, backend=backend, model=model, initial_params=params, epochs=1, snapshots=[0], dtype="float64"
    )
    at = FEW[:5] + 0.3
    exact = ismcore.evaluate(model, params, at, backend="autograd").score
    np.testing.assert_allclose(result.score(at, epoch=0), exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "model", [ismcore.MLP((6,), "tanh"), ismcore.Energy(ismcore.MLP((6,), "tanh")), ismcore.Affine()], ids=repr
)
@pytest.mark.parametrize("given", ["result", "params"])
def test_a_fit_of_moved_samples_starts_at_the_score_that_it_is_given(model, given):
    options = {**PLAIN, "backend": "autograd", "dtype": "float64"}
    first = ismcore.fit(FEW, **options, model=model, epochs=7)
    moved = 30.0 + np.array([2.0, 0.1, 5.0]) * FEW[5:]
    start = {"initial_params": first} if given == "result" else {"initial_params": first.params, "model": first.model}
    second = ismcore.fit(moved, **options, **start, epochs=1, snapshots=[0])
    np.testing.assert_allclose(second.score(FEW, epoch=0), first.score(FEW), rtol=1e-10, atol=1e-12)


def test_the_reason_for_the_backend_is_in_the_result(monkeypatch):
    assert ismcore.fit(FEW, **PLAIN, epochs=1).backend_reason == "first of jax, torch, autograd that is ready"
    monkeypatch.setenv("ISMCORE_BACKEND", "autograd")
    result = ismcore.fit(FEW, **PLAIN, epochs=1)
    assert (result.backend, result.backend_reason) == ("autograd", "named by ISMCORE_BACKEND")
    assert ismcore.fit(FEW, **PLAIN, epochs=1, backend="torch").backend_reason == "named by the caller"


def test_result_records_how_it_came_about(backend):
    result = ismcore.fit(FEW, **PLAIN, backend=backend, epochs=2)
    assert (result.status, result.backend, result.device, result.dtype) == ("completed", backend, "cpu", "float32")
    assert {"python", "ismcore", "numpy", backend} <= result.versions.keys()
    assert result.timings.keys() == {"prepare", "run", "total"}
    assert "completed after 2 epochs" in repr(result)


def test_two_fits_in_two_threads_are_those_of_one(backend):
    from concurrent.futures import ThreadPoolExecutor

    def job(seed):
        return ismcore.fit(FEW, **PLAIN, backend=backend, epochs=10, seed=seed, dtype=("float32", "float64")[seed % 2])

    alone = [job(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(job, range(4)))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a.history["loss"], b.history["loss"])


def test_parameters_and_gradients_come_in_the_model_s_order(backend):
    names = list(ismcore.Affine().shapes(3))
    result = ismcore.fit(FEW, **PLAIN, model=ismcore.Affine(), backend=backend, epochs=2)
    assert list(result.params) == names
    assert list(ismcore.evaluate(result.model, result.params, FEW, backend=backend).gradient) == names


def test_no_snapshots_unless_asked_for():
    assert ismcore.fit(FEW, **PLAIN, backend="autograd", epochs=3).snapshots == {}
    result = ismcore.fit(FEW, **PLAIN, backend="autograd", epochs=3, snapshots=[2])
    assert list(result.snapshots) == [2]
    with pytest.raises(ismcore.OptionError, match=r"after epoch 1; kept: 2"):
        result.score(FEW, epoch=1)


@pytest.mark.slow
def test_a_second_fit_of_the_same_shapes_traces_and_compiles_nothing_in_jax():
    seen = []

    def hear(event, seconds, **about):
        seen.append(event)

    def fitted(x, **options):
        seen.clear()
        ismcore.fit(x, backend="jax", model=ismcore.MLP((5,), "tanh"), progress=False, **options)
        return [event for event in seen if "/compile/" in event]

    rng = np.random.default_rng(0)
    x, others = rng.normal(size=(2, 300, 3))
    jax.monitoring.register_event_duration_secs_listener(hear)
    try:
        assert fitted(x, epochs=30, objective=ismcore.ImplicitScoreMatching(0.1))
        assert not fitted(x, epochs=47, objective=ismcore.ImplicitScoreMatching(0.1))
        again = {"seed": 3, "objective": ismcore.ImplicitScoreMatching(0.7), "optimizer": ismcore.Adam(0.002)}
        assert not fitted(others, epochs=300, **again)
    finally:
        jax.monitoring.unregister_event_duration_listener(hear)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore", "error:the compiled step of torch:RuntimeWarning")  # the compiler warns of its own parts
@pytest.mark.parametrize("model", [ismcore.MLP((4,), "sigmoid"), ismcore.Energy(ismcore.MLP((4,), "tanh"))])
def test_torch_compiles_the_nested_route_too(model):
    options = {"objective": ismcore.ImplicitScoreMatching(0.1, divergence="nested"), "model": model, "dtype": "float64"}
    compiled, eager = (
        ismcore.fit(FEW, backend="torch", epochs=5, recipe="reference", compile=how, **options) for how in ("on", "auto")
    )
    np.testing.assert_allclose(compiled.history["loss"], eager.history["loss"], rtol=1e-12, atol=1e-12)
    for name, value in eager.params.items():
        np.testing.assert_allclose(compiled.params[name], value, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore", "error:the compiled step of torch:RuntimeWarning")
def test_torch_compiles_all_that_a_step_may_hold_and_its_bits_do_not_depend_on_chunks():
    options = {
        "batch_size": 16, "average_decay": 0.9, "clip_norm": 0.5, "optimizer": ismcore.SGD(0.01, 0.9), "dtype": "float64",
        "objective": ismcore.SlicedScoreMatching(2), "model": ismcore.MLP((4,), "sigmoid"), "epochs": 9, "recipe": "reference",
        "sample_weight": np.arange(1.0, len(FEW) + 1),
    }  # fmt: skip
    compiled, cut, eager = (
        ismcore.fit(FEW, backend="torch", compile=how, snapshots=snapshots, **options)
        for how, snapshots in (("on", []), ("on", [1, 4]), ("auto", []))
    )
    assert compiled.history["loss"].tobytes() == cut.history["loss"].tobytes()
    np.testing.assert_allclose(compiled.history["loss"], eager.history["loss"], rtol=1e-12, atol=1e-12)
    for name, value in eager.params.items():
        assert compiled.params[name].tobytes() == cut.params[name].tobytes()
        np.testing.assert_allclose(compiled.params[name], value, rtol=1e-10, atol=1e-12)
