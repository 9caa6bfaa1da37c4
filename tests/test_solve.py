"""Exact minimisers by a linear solve, against closed forms, and their standard errors, against known ones."""

import numpy as np
import pytest
from sklearn.datasets import load_iris
from test_closed_forms import cubic
from truth import array, correlated, read

import ismcore

RUN = ismcore.datasets.reference_run()


def test_affine_on_iris(backend):
    truth = read("closed_forms")["affine_iris"]
    found = ismcore.solve(ismcore.Affine(), load_iris().data, backend=backend)
    np.testing.assert_allclose(found.params["weight"], array(truth["A"]), rtol=1e-9)
    np.testing.assert_allclose(found.params["bias"], array(truth["c"]), rtol=1e-9)
    assert abs(found.loss - float(truth["J_min"])) < 1e-9


def test_cubic_on_the_reference_sample(backend):
    truth = read("closed_forms")["polynomial_degree_3_seed_sample"]
    model = ismcore.ScoreFunction(cubic, {"theta": np.zeros(4)})
    found = ismcore.solve(model, RUN.sample, backend=backend)
    np.testing.assert_allclose(found.params["theta"], array(truth["theta"]), rtol=1e-9)
    assert abs(found.loss - float(truth["J_min"])) < 1e-12


def test_the_penalised_minimum_is_where_the_gradient_vanishes(backend):
    x = correlated()
    objective = ismcore.ImplicitScoreMatching((0.5, 0.1, 2.0))
    found = ismcore.solve(ismcore.Affine(), x, objective, backend=backend)
    at = ismcore.evaluate(ismcore.Affine(), found.params, x, objective, backend=backend)
    assert max(np.abs(slope).max() for slope in at.gradient.values()) < 1e-10


def test_standard_errors_of_a_normal_sample_are_the_known_ones():
    # For N(0, 1): weight = -1 / v and bias = m / v, of variance 2 / n and 1 / n
    n = 50_000
    x = np.random.default_rng(0).standard_normal(n)
    found = ismcore.solve(ismcore.Affine(), x, backend="autograd")
    assert abs(found.standard_errors["weight"][0, 0] / np.sqrt(2 / n) - 1) < 0.03
    assert abs(found.standard_errors["bias"][0] / np.sqrt(1 / n) - 1) < 0.03


def test_row_weights_weigh_the_moments():
    x = correlated()
    weight = np.arange(1.0, len(x) + 1)
    found = ismcore.solve(ismcore.Affine(), x, sample_weight=weight, backend="autograd")
    mean = np.average(x, axis=0, weights=weight)
    covariance = np.cov(x.T, aweights=weight, ddof=0)
    np.testing.assert_allclose(found.params["weight"], -np.linalg.inv(covariance), rtol=1e-8)
    np.testing.assert_allclose(found.params["bias"], np.linalg.solve(covariance, mean), rtol=1e-8)


def test_what_is_not_quadratic_or_not_determined_is_refused():
    with pytest.raises(ismcore.ModelError, match=r"quadratic"):
        ismcore.solve(ismcore.MLP((3,)), RUN.sample[:50], backend="autograd")
    twice = ismcore.ScoreFunction(lambda ops, params, x: (params["a"] + params["b"]) * x, {"a": 0.0, "b": 0.0})
    with pytest.raises(ismcore.ModelError, match="do not determine"):
        ismcore.solve(twice, RUN.sample[:50], backend="autograd")
