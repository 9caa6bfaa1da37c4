import numpy as np
import pytest

import ismcore
from ismcore.targets import GaussianMixture

MIXTURE = GaussianMixture(
    [0.2, 0.5, 0.3],
    [[0.0, 1.0, -2.0], [2.0, -1.0, 0.0], [-3.0, 0.0, 1.0]],
    [np.eye(3), [[2.0, 0.7, 0.1], [0.7, 1.0, -0.2], [0.1, -0.2, 0.5]], 0.3 * np.eye(3)],
)
POINTS = np.random.default_rng(3).normal(scale=2.0, size=(7, 3))


def test_score_is_the_gradient_of_the_log_density():
    h = 1e-5
    slopes = [(MIXTURE.log_pdf(POINTS + h * e) - MIXTURE.log_pdf(POINTS - h * e)) / (2 * h) for e in np.eye(3)]
    np.testing.assert_allclose(MIXTURE.score(POINTS), np.stack(slopes, axis=1), rtol=0, atol=1e-8)


def test_jacobian_is_the_derivative_of_the_score():
    h = 1e-5
    columns = [(MIXTURE.score(POINTS + h * e) - MIXTURE.score(POINTS - h * e)) / (2 * h) for e in np.eye(3)]
    np.testing.assert_allclose(MIXTURE.jacobian(POINTS), np.stack(columns, axis=2), rtol=0, atol=1e-7)


def test_pdf_of_one_component_is_the_normal_density():
    sigma = np.array([[2.0, 0.5], [0.5, 1.0]])
    x = np.array([[0.3, -0.4], [1.0, 2.0]])
    gap = x - [1.0, 0.0]
    expected = np.exp(-0.5 * np.einsum("ni,ij,nj->n", gap, np.linalg.inv(sigma), gap))
    expected /= 2 * np.pi * np.sqrt(np.linalg.det(sigma))
    np.testing.assert_allclose(GaussianMixture([2.0], [[1.0, 0.0]], [sigma]).pdf(x), expected, rtol=1e-13)


def test_samples_have_the_mixture_s_moments():
    n = 200_000
    x = MIXTURE.sample(n, seed=1)
    mean = MIXTURE.weights @ MIXTURE.means
    centred = MIXTURE.means - mean
    covariance = np.einsum("k,kij->ij", MIXTURE.weights, MIXTURE.covariances)
    covariance += np.einsum("k,ki,kj->ij", MIXTURE.weights, centred, centred)
    np.testing.assert_allclose(x.mean(axis=0), mean, atol=6 * np.sqrt(covariance.diagonal().max() / n))
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.1)
    np.testing.assert_array_equal(MIXTURE.sample(5, seed=1), MIXTURE.sample(5, seed=1))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([0.5, 0.5], [0.0], [1.0, 1.0]), "go together"),
        (([0.5, 0.0], [0.0, 1.0], [1.0, 1.0]), "positive"),
        (([1.0], [[0.0, 0.0]], [[[1.0, 2.0], [2.0, 1.0]]]), "positive definite"),
        (([1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.2, 1.0]]]), "symmetric"),
        (([1.0], [0.0], [[1.0]]), "shape"),
    ],
)
def test_unusable_mixtures_are_refused(arguments, words):
    with pytest.raises(ismcore.OptionError, match=words):
        GaussianMixture(*arguments)
