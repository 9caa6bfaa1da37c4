"""Densities, normalisers and draws of fits on domains; the domain that is chosen by the samples; steps that are reflected."""

import numpy as np
import pytest

import ismcore
from ismcore.domains import Box, Halfspaces, Positive, Reals
from ismcore.results.reflection import Steps
from ismcore.samples.edges import domain_of, edges, roundest
from ismcore.targets.density import integrate_score

TRIANGLE = Halfspaces([[-1.0, 0.0], [0.0, -1.0], [1.0, 1.0]], [0.0, 0.0, 1.0])
QUICK = {"epochs": 40, "validation": 0, "progress": False, "backend": "autograd", "dtype": "float64"}
ENERGY = ismcore.Energy(ismcore.MLP((8,), "softplus"))


def orthant(n, seed=0):
    z = np.random.default_rng(seed).normal(size=(8 * n, 2)) @ np.array([[1.0, 0.5], [0.0, 1.0]])
    return z[(z > 0.0).all(axis=1)][:n]


def triangle(n, seed=0):
    u = np.random.default_rng(seed).uniform(size=(n, 2))
    return np.where(u.sum(axis=1, keepdims=True) > 1.0, 1.0 - u, u)


# Densities.


@pytest.mark.parametrize(
    ("score", "ends", "density"),
    [
        (lambda z: -1.0 + 0.0 * z, (0.0, np.inf), lambda z: np.exp(-z)),
        (lambda z: 2.0 + 0.0 * z, (-np.inf, 1.5), lambda z: 2.0 * np.exp(2.0 * (z - 1.5))),
        (lambda z: 0.0 * z, (-1.0, 3.0), lambda z: 0.25 + 0.0 * z),
        (lambda z: 0.0 * z, (700.0, 701.0), lambda z: 1.0 + 0.0 * z),
    ],
    ids=["exponential", "upwards", "uniform", "far from 0"],
)
def test_a_density_between_ends_is_that_of_its_score(score, ends, density):
    p = integrate_score(score, *ends)
    inside = np.clip(ends[0] if np.isfinite(ends[0]) else ends[1] - 3.0, -1e3, 1e3) + np.array([0.0, 1e-9, 0.3, 0.9])
    np.testing.assert_allclose(np.exp(p(inside)), density(inside), rtol=1e-6)
    outside = np.array([end + side for end, side in zip(ends, (-0.1, 0.1), strict=True) if np.isfinite(end)])
    assert np.isneginf(p(outside)).all()


def test_a_density_that_grows_towards_no_end_is_refused_still():
    with pytest.raises(ismcore.DensityUnavailable, match="does not lead back"):
        integrate_score(lambda z: 1.0 + 0.0 * z, 0.0, np.inf)


@pytest.mark.parametrize("ends", [(0.0, None), (None, 5.0), (-1.0, 5.0)])
def test_a_fit_in_one_dimension_has_a_density_that_ends_at_its_edges(ends):
    box = Box(*ends)
    x = np.random.default_rng(1).exponential(size=3000)
    x = x[x < 5.0] if ends[0] == 0.0 else 5.0 - x[x < 6.0]
    result = ismcore.fit(x, domain=box, model=ismcore.MLP((8,)), **QUICK)
    lower, upper = -1.0 if ends[0] is None else ends[0], 9.0 if ends[1] is None else ends[1]
    grid = np.linspace(lower, upper, 8001) if ends[0] is not None else np.linspace(-12.0, upper, 8001)
    assert np.trapezoid(result.density(grid), grid) == pytest.approx(1.0, abs=5e-3)
    outside = [end + side for end, side in zip(ends, (-0.01, 0.01), strict=True) if end is not None]
    assert not result.density(outside).any()
    assert np.isposinf(result.energy(outside)).all()
    assert result.domain is not None


@pytest.mark.slow
def test_the_constant_of_an_energy_in_two_dimensions_is_that_of_the_domain(tmp_path):
    x = orthant(1500)
    result = ismcore.fit(x, domain=Positive(), model=ENERGY, **QUICK)
    found, step = result.log_normaliser(), 0.02
    axis = np.arange(step / 2, 7.0, step)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    assert np.exp(-result.energy(grid) - found.value).sum() * step**2 == pytest.approx(1.0, abs=1e-3)
    assert found.standard_error < 1e-3
    assert result.density([[-0.1, 1.0], [1.0, -0.1]]).tolist() == [0.0, 0.0]
    result.save(tmp_path / "fit")
    again = ismcore.load(tmp_path / "fit")
    assert again.domain == result.domain
    assert again.density(x[:5]).tobytes() == result.density(x[:5]).tobytes()


@pytest.mark.slow
def test_the_constant_of_an_energy_in_a_polytope_is_by_draws_in_it():
    result = ismcore.fit(triangle(1500), domain=TRIANGLE, model=ENERGY, **QUICK)
    found, step = result.log_normaliser(), 0.005
    axis = np.arange(step / 2, 1.0, step)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    mass = np.exp(-result.energy(grid) - found.value).sum() * step**2
    assert abs(mass - 1.0) < 4.0 * found.standard_error + 5e-3
    assert found.effective > 1000


def test_a_box_in_one_dimension_and_its_half_spaces_have_one_density():
    x = np.random.default_rng(2).exponential(size=1500)
    x = x[x < 2.0]
    model, at = ismcore.MLP((6,), "tanh"), np.array([-0.1, 0.0, 0.5, 2.0, 2.1])
    box = ismcore.fit(x, domain=Box(0.0, 2.0, 1.0), model=model, standardize=False, **QUICK)
    faces = ismcore.fit(x, domain=Halfspaces([[-1.0], [2.0]], [0.0, 4.0], 1.0), model=model, standardize=False, **QUICK)
    np.testing.assert_allclose(faces.density(at), box.density(at), rtol=1e-6)


# Draws.


@pytest.mark.parametrize("ends", [(0.0, np.inf), (-np.inf, 1.0), (-0.5, 0.7), (-np.inf, np.inf)])
def test_reflected_steps_are_of_the_density_that_they_say(ends):
    lower, upper = (None if np.isinf(end) else end for end in ends)
    steps = Steps(Box(lower, upper), 1)
    a, mean, rng = 0.4, 0.45, np.random.default_rng(3)
    drawn = steps.reflected(mean + np.sqrt(a) * rng.standard_normal((200_000, 1)))
    assert (drawn >= ends[0]).all()
    assert (drawn <= ends[1]).all()
    grid = np.linspace(max(ends[0], -4.0), min(ends[1], 5.0), 2001)
    q = np.exp(steps.log_density(grid[:, None], np.full((2001, 1), mean), a)) / np.sqrt(2.0 * np.pi * a)
    assert np.trapezoid(q, grid) == pytest.approx(1.0, abs=1e-6)
    for level in (0.2, 0.5, 0.8):
        below = np.trapezoid(q[grid <= np.quantile(grid, level)], grid[grid <= np.quantile(grid, level)])
        assert np.mean(drawn <= np.quantile(grid, level)) == pytest.approx(below, abs=4.0 * np.sqrt(0.25 / 200_000) + 2e-3)


def test_columns_are_reflected_each_at_its_own_ends():
    steps = Steps(Box((0.0, None, -1.0), (None, 2.0, 1.0)), 3)
    z = np.array([[-0.3, 2.5, 1.25], [0.4, -7.0, 6.5]])
    np.testing.assert_allclose(steps.reflected(z), [[0.3, 1.5, 0.75], [0.4, -7.0, -0.5]])
    assert steps.largest == 4.0


@pytest.mark.parametrize("name", ["exponential", "uniform", "orthant", "triangle"])
def test_draws_are_of_the_law_of_their_energy(name):
    """The energies are exact: parameters of an `Affine` score, so that draws that are not, are the sampler's."""
    rate = {"weight": np.zeros((1, 1)), "bias": np.array([-1.0])}
    laws = {
        "exponential": (Positive(1.0), rate, lambda n: np.random.default_rng(4).exponential(size=(n, 1))),
        "uniform": (
            Box(-1.0, 3.0, 1.0),
            {**rate, "bias": np.zeros(1)},
            lambda n: np.random.default_rng(4).uniform(-1, 3, (n, 1)),
        ),
        "orthant": (
            Positive(1.0),
            {"weight": -np.linalg.inv(np.array([[1.0, 0.5], [0.5, 1.25]])), "bias": np.zeros(2)},
            lambda n: orthant(n, 4),
        ),
        "triangle": (TRIANGLE, {"weight": np.zeros((2, 2)), "bias": np.zeros(2)}, lambda n: triangle(n, 4)),
    }
    domain, params, draw = laws[name]
    x = draw(20_000)
    options = {"model": ismcore.Affine(), "domain": domain, "initial_params": params, "standardize": False}
    result = ismcore.fit(x[:200], **{**QUICK, "epochs": 1}, **options, optimizer=ismcore.SGD(1e-12))
    found = result.sample(4000, steps=300, thin=12, seed=1)
    assert domain.contains(found.x).all()
    assert found.r_hat.max() < 1.1
    for power in (1, 2):
        spread = (x**power).std(axis=0) * np.sqrt(1.0 / found.effective + 1.0 / len(x))
        assert (np.abs((found.x**power).mean(axis=0) - (x**power).mean(axis=0)) < 4.0 * spread).all()
    share = np.mean(found.x[:, 0] < np.quantile(x[:, 0], 0.1))  # the tenth at the edge, where a wrong step is missed
    assert abs(share - 0.1) < 4.0 * np.sqrt(0.09 / found.effective[0])


def test_starts_outside_of_the_domain_are_refused():
    result = ismcore.fit(orthant(300), domain=Positive(), model=ENERGY, **{**QUICK, "epochs": 2})
    with pytest.raises(ismcore.SamplesError, match="outside of the domain"):
        result.sample(10, start=-orthant(20))


# The domain by the samples.


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (-0.002, 0.0003, 0.0),
        (0.4991, 0.5007, 0.5),
        (359.2, 359.97, 359.9),
        (-3.1425, -3.14, -3.14),
        (99.7, 100.1, 100.0),
        (-1.001, -0.999, -1.0),
        (1e-300, 1.01e-300, 1e-300),
        (0.1, np.nextafter(0.1, 1.0), 0.1),
    ],
)
def test_the_roundest_number(low, high, found):
    assert roundest(low, high) == found


def test_auto_takes_the_edges_of_columns_and_says_so():
    rng = np.random.default_rng(6)
    x = np.column_stack([rng.exponential(size=3000), rng.normal(size=3000), rng.uniform(-1.0, 3.0, 3000)])
    options = {**QUICK, "epochs": 2, "model": ismcore.MLP((4,))}
    result = ismcore.fit(x, domain="auto", **options)
    assert result.domain.lower == (0.0, None, -1.0)
    assert result.domain.upper == (None, None, 3.0)
    assert any("domain='auto' took Box" in text and "column 2 from -1" in text for text in result.notes)
    given = ismcore.fit(x, domain=Box((0.0, None, -1.0), (None, None, 3.0)), **options)
    assert given.score(x[:5]).tobytes() == result.score(x[:5]).tobytes()
    plain = ismcore.fit(x[:, 1], domain="auto", **options)
    assert plain.domain is None
    assert any("found no hard edge" in text for text in plain.notes)


def test_the_domain_of_edges_holds_all_samples():
    x = np.random.default_rng(7).uniform(0.2, 0.8, size=(2000, 1))
    found = edges(x, np.array([0]))
    assert domain_of(found, x) == Box((0.2,), (0.8,))
    assert domain_of(found, x, np.array([[0.95], [0.1]])) == Box((0.1,), (0.95,))
    assert domain_of((), x) == Reals()
    positive = np.random.default_rng(8).exponential(size=(2000, 2))
    assert domain_of(edges(positive, np.arange(2)), positive) == Positive()
    mixed = np.column_stack([positive[:, 0], np.random.default_rng(9).normal(size=2000)])
    assert domain_of(edges(mixed, np.arange(2)), mixed) == Box((0.0, None), (None, None))
