"""Exact minimisers on domains: against quadrature of laws whose parameters are known, closed forms, and published formulas."""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import ismcore
from ismcore.domains import Box, Halfspaces, Positive

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture(scope="module")
def exact():
    """The families of bench/exact.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCH)
        import exact

        yield exact
        del sys.modules["exact"]


def rate_family():
    return ismcore.ScoreFunction(lambda ops, p, x: -p["rate"] + 0.0 * x, {"rate": np.zeros(1)})


def nodes(*ends, count=24):
    """Nodes and weights of Gauss and Legendre, composite between the ends, where the weight h has its kinks."""
    z, w = np.polynomial.legendre.leggauss(count)
    pieces = [(0.5 * (b - a) * (z + 1.0) + a, 0.5 * (b - a) * w) for a, b in pairwise(ends)]
    return np.concatenate([x for x, _ in pieces]), np.concatenate([w for _, w in pieces])


def test_rate_of_an_exponential_is_the_closed_form_and_that_of_the_law():
    x = np.random.default_rng(1).exponential(2.0, size=700)
    found = ismcore.solve(rate_family(), x, domain=Positive(0.7), backend="autograd")
    h, slope = np.minimum(x / 0.7, 1.0), (x < 0.7) / 0.7
    assert found.params["rate"][0] == pytest.approx(slope.mean() / h.mean(), abs=1e-12)
    residual = found.params["rate"][0] * h - slope
    assert found.standard_errors["rate"][0] == pytest.approx(np.sqrt((residual**2).sum()) / h.mean() / 700, rel=1e-9)
    points, weight = nodes(0.0, 0.7, 8.0, 40.0, 90.0)
    law = ismcore.solve(rate_family(), points, domain=Positive(0.7), sample_weight=weight * np.exp(-points / 2.0))
    assert law.params["rate"][0] == pytest.approx(0.5, abs=1e-10)


PRECISION = np.array([[1.5, -0.4, 0.2], [-0.4, 1.0, 0.3], [0.2, 0.3, 2.0]])
MEAN = np.array([0.5, -0.3, 0.8])


def truncated_normal(n, seed):
    z = np.random.default_rng(seed).multivariate_normal(MEAN, np.linalg.inv(PRECISION), size=12 * n)
    return z[(z > 0.0).all(axis=1)][:n]


def test_truncated_normal_is_that_of_its_law_by_quadrature():
    axis, weight = nodes(0.0, 0.8, 3.0, 8.0, count=14)
    x = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    mass = np.einsum("i,j,k->ijk", weight, weight, weight).ravel()
    mass = mass * np.exp(-0.5 * np.einsum("ni,ij,nj->n", x - MEAN, PRECISION, x - MEAN))
    found = ismcore.solve(ismcore.Affine(), x, domain=Positive(0.8), sample_weight=mass, backend="autograd")
    np.testing.assert_allclose(found.params["weight"], -PRECISION, atol=1e-10)
    np.testing.assert_allclose(found.params["bias"], PRECISION @ MEAN, atol=1e-10)


@pytest.mark.parametrize("domain", [Positive(), Box(0.0, 9.0, 0.5), Halfspaces(-np.eye(3), np.zeros(3))], ids=repr)
def test_truncated_normal_solves_the_normal_equations_of_the_sample(backend, domain):
    x = truncated_normal(400, 2)
    found = ismcore.solve(ismcore.Affine(), x, domain=domain, backend=backend)
    h, slope = domain.measured(x).weights(x)
    h, phi = np.broadcast_to(h, x.shape), np.column_stack([x, np.ones(len(x))])
    for i in range(3):
        d_phi = np.eye(4)[i]
        g = (h[:, i : i + 1] * d_phi + slope[:, i : i + 1] * phi).mean(axis=0)
        inverse = np.linalg.inv((phi * h[:, i : i + 1]).T @ phi / len(x))
        theta = -inverse @ g
        np.testing.assert_allclose(np.append(found.params["weight"][i], found.params["bias"][i]), theta, atol=1e-10)
        rows = h[:, i : i + 1] * (phi * (phi @ theta)[:, None] + d_phi) + slope[:, i : i + 1] * phi
        errors = np.sqrt(np.diag(inverse @ (rows.T @ rows) @ inverse)) / len(x)
        given = np.append(found.standard_errors["weight"][i], found.standard_errors["bias"][i])
        np.testing.assert_allclose(given, errors, rtol=1e-7)


def test_standard_error_of_a_truncated_mean_is_the_published_one():
    # Yu, Drton & Shojaie (2019), as genscore's `varhat`: sigma^2 = 1 known, E[h^2 + h'^2] / E[h]^2 / n
    rng = np.random.default_rng(5)
    x = rng.normal(0.4, 1.0, size=60_000)
    x = x[x > 0.0]
    family = ismcore.ScoreFunction(lambda ops, p, x: p["mean"] - x, {"mean": np.zeros(1)})
    found = ismcore.solve(family, x, domain=Positive(1.0), backend="autograd")
    points, weight = nodes(0.0, 1.0, 4.0, 9.0)
    p = weight * np.exp(-0.5 * (points - 0.4) ** 2)
    p, h = p / p.sum(), np.minimum(points, 1.0)
    variance = (p @ (h**2 + (points < 1.0))) / (p @ h) ** 2
    assert found.standard_errors["mean"][0] == pytest.approx(np.sqrt(variance / len(x)), rel=0.02)
    assert abs(found.params["mean"][0] - 0.4) < 4.0 * found.standard_errors["mean"][0]


def test_dirichlet_is_that_of_its_law_by_quadrature(exact):
    alpha = np.array([1.5, 2.0, 3.5, 0.8])
    x, mass = dirichlet_nodes(alpha)
    found = ismcore.solve(exact.dirichlet(), x, exact.Simplex(), sample_weight=mass, backend="autograd")
    np.testing.assert_allclose(found.params["alpha"], alpha, atol=1e-10)


def dirichlet_nodes(alpha, count=12):
    """Nodes x, (m, 3), and weights of Gauss and Jacobi by breaking a stick: exact for polynomials of degree 23."""
    from scipy.special import roots_jacobi

    sticks = []
    for k in range(3):
        a, b = alpha[k], alpha[k + 1 :].sum()
        z, w = roots_jacobi(count, b - 1.0, a - 1.0)
        sticks.append((0.5 * (z + 1.0), w))
    v = np.stack(np.meshgrid(*(z for z, _ in sticks), indexing="ij"), axis=-1).reshape(-1, 3)
    mass = np.einsum("i,j,k->ijk", *(w for _, w in sticks)).ravel()
    rest = np.cumprod(1.0 - v, axis=1)
    return np.column_stack([v[:, 0], v[:, 1] * rest[:, 0], v[:, 2] * rest[:, 1]]), mass


def test_von_mises_and_fisher_is_that_of_its_law_and_the_closed_form(exact):
    b = np.array([0.5, -1.2, 2.0])
    height, weight = np.polynomial.legendre.leggauss(30)
    angle = 2.0 * np.pi * np.arange(40) / 40
    ring = np.sqrt(1.0 - height**2)
    x = np.stack([np.outer(ring, np.cos(angle)), np.outer(ring, np.sin(angle)), np.outer(height, np.ones(40))], axis=-1)
    x = x.reshape(-1, 3)
    mass = np.repeat(weight, 40) * np.exp(x @ b)
    found = ismcore.solve(exact.fisher(), x, exact.Sphere(), sample_weight=mass, backend="autograd")
    np.testing.assert_allclose(found.params["b"], b, atol=1e-10)
    rows = x[np.random.default_rng(3).choice(len(x), 500, p=mass / mass.sum())]
    found = ismcore.solve(exact.fisher(), rows, exact.Sphere(), backend="autograd")
    exact = np.linalg.solve(np.eye(3) - rows.T @ rows / 500, 2.0 * rows.mean(axis=0))
    np.testing.assert_allclose(found.params["b"], exact, atol=1e-10)


def test_an_edge_is_named_and_auto_takes_it():
    x = np.random.default_rng(6).exponential(size=5000)
    with pytest.warns(ismcore.IsmWarning, match="column 0 ends at a hard edge below, at 0.000"):
        plain = ismcore.solve(rate_family(), x, backend="autograd")
    assert abs(plain.params["rate"][0]) < 1e-9
    found = ismcore.solve(rate_family(), x, domain="auto", backend="autograd")
    assert abs(found.params["rate"][0] - 1.0) < 4.0 * found.standard_errors["rate"][0]
    assert "domain='auto' took Positive" in found.notes[0]
    given = ismcore.solve(rate_family(), x, domain=Positive(), backend="autograd")
    assert given.params["rate"].tobytes() == found.params["rate"].tobytes()
    normal = ismcore.solve(ismcore.Affine(), np.random.default_rng(7).normal(size=(2000, 2)), domain="auto")
    assert "found no hard edge" in normal.notes[0]


def test_domains_that_cannot_be_are_refused():
    x = np.random.default_rng(8).normal(size=100)
    with pytest.raises(ismcore.SamplesError, match="outside of the domain"):
        ismcore.solve(rate_family(), x, domain=Positive(), backend="autograd")
    with pytest.raises(ismcore.OptionError, match=r"domain must be 'auto' or one of ismcore.domains"):
        ismcore.solve(rate_family(), x, domain="positive", backend="autograd")
    with pytest.raises(ismcore.OptionError, match="has no form on a domain"):
        ismcore.solve(rate_family(), abs(x), ismcore.DenoisingScoreMatching(0.1), domain=Positive(), backend="autograd")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
def test_standard_errors_cover(exact, number):
    # 100 samples; 500 of each are in docs/domains-examples.md, where all shares are 93 to 97 %
    share, error, _ = exact.covered(exact.CASES[number], 100)
    assert abs(share - 0.95) < 0.02 + 3.0 * error
