"""Fits against exact minimisers, and the reference target against its exact score."""

import numpy as np
import pytest
from sklearn.datasets import load_iris
from truth import array, read

import ismcore

RUN = ismcore.datasets.reference_run()
SAMPLES = {"affine_seed_sample": RUN.sample, "affine_iris": load_iris().data}


@pytest.mark.filterwarnings("ignore:discrete columns:ismcore.IsmWarning")
@pytest.mark.parametrize("name", SAMPLES)
def test_affine_fit_reaches_the_exact_minimum(name, backend):
    x, truth = SAMPLES[name], read("closed_forms")[name]
    result = ismcore.fit(
        x,
        model=ismcore.Affine(),
        optimizer=ismcore.SGD(0.3, 0.9),
        epochs=800,
        dtype="float64",
        backend=backend,
        recipe="reference",
        standardize=True,
    )
    at = ismcore.evaluate(result.model, result.params, x, backend=backend)
    assert abs(at.loss - float(truth["J_min"])) < 1e-6
    np.testing.assert_allclose(result.params["weight"], array(truth["A"]), rtol=0, atol=1e-6)
    np.testing.assert_allclose(result.params["bias"], array(truth["c"]), rtol=0, atol=1e-6)


def cubic(ops, params, x):
    theta = params["theta"]
    return theta[0] + theta[1] * x + theta[2] * x * x + theta[3] * x * x * x


@pytest.mark.slow
def test_cubic_fit_reaches_the_exact_minimum(backend):
    truth = read("closed_forms")["polynomial_degree_3_seed_sample"]
    model = ismcore.ScoreFunction(cubic, {"theta": np.zeros(4)})
    result = ismcore.fit(
        RUN.sample,
        model=model,
        optimizer=ismcore.SGD(0.02, 0.95),
        epochs=2000,
        dtype="float64",
        backend=backend,
        recipe="reference",
        standardize=True,
    )
    at = ismcore.evaluate(result.model, result.params, RUN.sample, backend=backend)
    assert abs(at.loss - float(truth["J_min"])) < 1e-6
    exact = np.polynomial.Polynomial(array(truth["theta"]))
    np.testing.assert_allclose(result.score(RUN.sample), exact(RUN.sample), rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:discrete columns:ismcore.IsmWarning")
def test_penalised_affine_minimiser_solves_its_normal_equations(backend):
    # Row i of the minimiser solves (S + 2 lambda e_i e_i^T) a_i = -e_i for standardised samples with covariance S.
    weight = 0.3
    z = SAMPLES["affine_iris"]
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    result = ismcore.fit(
        z,
        model=ismcore.Affine(),
        objective=ismcore.ImplicitScoreMatching(weight),
        optimizer=ismcore.SGD(0.2, 0.9),
        epochs=800,
        dtype="float64",
        backend=backend,
        recipe="reference",
    )
    s = z.T @ z / len(z)
    rows = [np.linalg.solve(s + 2 * weight * np.outer(e, e), -e) for e in np.eye(4)]
    np.testing.assert_allclose(result.params["weight"], rows, rtol=0, atol=1e-9)
    assert np.abs(result.params["weight"] - result.params["weight"].T).max() > 0.1


def test_target_score_and_its_derivative():
    for point, (score, slope) in read("closed_forms")["target"]["score_points"].items():
        x = [[float(point)]]
        assert abs(RUN.target.score(x)[0, 0] - float(score)) < 1e-12
        assert abs(RUN.target.jacobian(x)[0, 0, 0] - float(slope)) < 1e-12


def test_target_fisher_information_by_quadrature():
    grid = np.linspace(-14.0, 14.0, 20001)
    zero = ismcore.targets.density.fisher_divergence(np.zeros_like, RUN.target, grid)
    assert abs(zero - float(read("closed_forms")["target"]["fisher_E_s2"])) < 1e-8
