import math

import numpy as np
import pytest
from truth import SMALL_SAMPLE, correlated

import ismcore
from ismcore.calculus import NumpyCalculus
from ismcore.coordinates import Coordinates

X = correlated()
MODELS = (ismcore.MLP((7, 5), "tanh"), ismcore.Affine())


def score(model, params, x):
    return model.score(NumpyCalculus(), params, x)


def drawn(model, d, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape) for name, shape in model.shapes(d).items()}


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_in_units_gives_the_score_of_the_unstandardised_samples(model):
    mean, scale = np.array([1.0, -2.0, 0.5]), np.array([0.5, 3.0, 10.0])
    params = drawn(model, 3)
    user_model, user_params = model.in_units(params, Coordinates(mean, scale))
    expected = score(model, params, (X - mean) / scale) / scale
    np.testing.assert_allclose(score(user_model, user_params, X), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_from_units_inverts_in_units(model):
    mean, scale = np.array([1.0, -2.0, 0.5]), np.array([0.5, 3.0, 10.0])
    params = drawn(model, 3)
    user_model, user_params = model.in_units(params, Coordinates(mean, scale))
    back_model, back = user_model.from_units(user_params, Coordinates(mean, scale))
    assert back_model == model
    for name, value in params.items():
        np.testing.assert_allclose(back[name], value, rtol=1e-12, atol=1e-12)


def test_score_function_comes_back_wrapped_with_its_own_parameter_names():
    model = ismcore.ScoreFunction(lambda ops, params, x: params["a"] * ops.tanh(x), {"a": np.array([1.0, 2.0, 3.0])})
    mean, scale = X.mean(axis=0), X.std(axis=0)
    wrapped, params = model.in_units(model.initial_params(0, 3), Coordinates(mean, scale))
    assert list(params) == ["a"]
    np.testing.assert_allclose(score(wrapped, params, X), np.array([1, 2, 3]) * np.tanh((X - mean) / scale) / scale)


@pytest.mark.parametrize(
    ("activation", "gain"),
    [("sigmoid", 1.0), ("softplus", 1.0), ("silu", 1.0), ("gelu", 1.0), ("tanh", 5.0 / 3.0), ("relu", 2.0)],
)
def test_kaiming_uniform_fills_its_bounds(activation, gain):
    params = ismcore.MLP((400, 300), activation).initial_params(seed=5, d=4)
    bounds = {
        "layers.0.weight": math.sqrt(3.0 / 4) * gain,
        "layers.0.bias": math.sqrt(1 / 4),
        "layers.1.weight": math.sqrt(3.0 / 400) * gain,
        "layers.1.bias": math.sqrt(1 / 400),
        "layers.2.weight": math.sqrt(3.0 / 300),
        "layers.2.bias": math.sqrt(1 / 300),
    }
    assert params.keys() == bounds.keys()
    for name, bound in bounds.items():
        largest = np.abs(params[name]).max()
        # the largest of m uniform draws lies below the bound, by a fraction of about 1/m
        assert bound * (1 - 20 / params[name].size) <= largest <= bound, name


def test_glorot_uniform_fills_its_bounds_and_has_no_bias():
    params = ismcore.MLP((400,), "tanh", init="glorot_uniform").initial_params(seed=5, d=4)
    bound = math.sqrt(6.0 / 404)
    assert 0.99 * bound < np.abs(params["layers.0.weight"]).max() <= bound
    assert not params["layers.0.bias"].any()
    assert not params["layers.1.bias"].any()


@pytest.mark.filterwarnings(*SMALL_SAMPLE)
def test_the_network_of_no_arguments_is_that_of_the_default_fit():
    x = np.random.default_rng(0).normal(size=(40, 3))
    fitted = ismcore.fit(x, backend="autograd", recipe="single", epochs=1, progress=False).model.inner
    assert fitted == ismcore.MLP() == ismcore.MLP((64,), "silu")
    assert ismcore.NoiseConditional(ismcore.MLP((5, 5))).net.activation == fitted.activation


def test_equal_seeds_draw_equal_parameters():
    model = ismcore.MLP((5,))
    first, again, other = (model.initial_params(seed, 3) for seed in (4, 4, 5))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not any(np.array_equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    "options", [{"hidden": ()}, {"hidden": (0,)}, {"hidden": 2.5}, {"activation": "swish"}, {"init": "he"}], ids=str
)
def test_unknown_options_are_refused_with_the_valid_ones(options):
    with pytest.raises(ismcore.OptionError, match=r"must be"):
        ismcore.MLP(**options)


@pytest.mark.parametrize("model", [ismcore.MLP(), ismcore.Affine(), ismcore.Energy(ismcore.MLP())], ids=repr)
def test_a_context_is_never_ignored(model):
    with pytest.raises(ismcore.ModelError, match="takes no context"):
        model.score(NumpyCalculus(), model.initial_params(0, 3), X, np.ones((len(X), 1)))


@pytest.mark.filterwarnings(*SMALL_SAMPLE)
def test_a_conditional_function_gets_its_context(backend):
    model = ismcore.ScoreFunction(lambda ops, params, x, s: params["a"] * x / s, {"a": 2.0})
    objective = ismcore.NoiseConditionalScoreMatching((2.0, 4.0))
    result = ismcore.fit(X, model=model, objective=objective, backend=backend, epochs=1, standardize=False, dtype="float64")
    np.testing.assert_allclose(result.score(X, context=4.0), result.params["a"] * X / 4.0, rtol=1e-12)
