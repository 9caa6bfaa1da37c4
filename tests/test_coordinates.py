"""Shift and scale of the samples stay outside of the parameters, so that a score has the digits that its samples have."""

import numpy as np
import pytest
from own import own_score

import ismcore
from ismcore.targets.density import integrate_score

D = 3
RNG = np.random.default_rng(5)
Z = np.rint(RNG.normal(size=(120, D)) * 2.0**10) * 2.0**-10
"""Samples on a lattice so fine that they are as good as continuous, and that adding 2^k rounds nothing."""
AT = Z[:7] + 2.0**-5
PLAIN = {"epochs": 4, "validation": 0, "batch_size": "all", "progress": False}
MODELS = {
    "mlp": ismcore.MLP((5,), "tanh"),
    "residual": ismcore.ResidualMLP(6, 1),
    "energy": ismcore.Energy(ismcore.MLP((5,), "silu")),
    "affine": ismcore.Affine(),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("offset", [2.0**20, -(2.0**33)])
def test_a_shift_of_the_samples_shifts_the_float32_score(backend, model, offset, tmp_path):
    # plain gradient steps: those of Adam follow the rounding of a gradient that is 0, as a bias has on standardised samples
    options = {**PLAIN, "model": model, "backend": backend, "optimizer": ismcore.SGD(0.1), "snapshots": [2]}
    here, there = (ismcore.fit(x, **options) for x in (Z, Z + offset))
    # parameters in the samples' units, as an affine score has them, carry the rounding of the offset in float64
    tolerance = {"rtol": 2e-5, "atol": 2e-5 + 8 * np.finfo(float).eps * abs(offset)}
    there.save(tmp_path / "fit")
    for result in (there, ismcore.load(tmp_path / "fit")):
        np.testing.assert_allclose(result.score(AT + offset), here.score(AT), **tolerance)
        np.testing.assert_allclose(result.score(AT + offset, epoch=2), here.score(AT, epoch=2), **tolerance)
        np.testing.assert_allclose(result.jacobian_diagonal(AT + offset), here.jacobian_diagonal(AT), **tolerance)
        assert result.loss(Z + offset) == pytest.approx(here.loss(Z), abs=tolerance["atol"])
        wide = ismcore.evaluate(result.model, result.params, AT + offset, backend=backend)
        np.testing.assert_allclose(wide.score, here.score(AT), **tolerance)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("scale", [1e-60, 1e60])
def test_scores_in_units_that_float32_does_not_have(model, scale):
    here, there = (ismcore.fit(x, model=model, backend="autograd", **PLAIN) for x in (Z, scale * Z))
    np.testing.assert_allclose(there.score(scale * AT) * scale, here.score(AT), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(there.divergence(scale * AT) * scale * scale, here.divergence(AT), rtol=1e-4, atol=1e-4)
    assert all(np.isfinite(value).all() for value in there.params.values())


UNITS = {
    "offset of 1e12": (1e12, [1.0, 1.0, 1.0]),
    "units of 1e-60": (-3e4, [1e-60, 1e-60, 1e-60]),
    "units of 1e60": (0.0, [1e60, 1e60, 1e60]),
    "all at once": (1e12, [1e-60, 1.0, 1e60]),
}
"""Offsets in standard deviations, and standard deviations."""


def _relative_errors(result, at, mean, scale):
    """E |psi - s|^2 / E |s|^2 of score and divergence, for a normal law with independent columns."""
    z = (at - mean) / scale
    score, divergence = result.score(at) * scale + z, (result.jacobian_diagonal(at) * scale * scale).sum(axis=1) + D
    return np.mean(score**2) / np.mean(z**2), np.mean(divergence**2) / D**2


@pytest.mark.parametrize(("offset", "scale"), UNITS.values(), ids=UNITS)
def test_float32_is_as_good_as_float64_far_from_0_and_in_any_units(backend, offset, scale, tmp_path):
    scale = np.array(scale)
    mean = offset * scale
    z, fresh = (np.random.default_rng(seed).normal(size=(600, D)) for seed in (50, 51))
    x, at = z * scale + mean, fresh * scale + mean
    options = {"model": ismcore.MLP((16,)), "backend": backend, "epochs": 40, "validation": 0, "progress": False}
    narrow, wide = (ismcore.fit(x, dtype=dtype, **options) for dtype in ("float32", "float64"))
    narrow.save(tmp_path / "fit")
    limits = [1.5 * error for error in _relative_errors(wide, at, mean, scale)]
    assert limits[0] < 0.2
    for result in (narrow, ismcore.load(tmp_path / "fit")):
        assert all(found <= limit for found, limit in zip(_relative_errors(result, at, mean, scale), limits, strict=True))
    inside = ismcore.evaluate(narrow.model, narrow.params, at, backend=backend).score
    np.testing.assert_allclose(inside * scale, narrow.score(at) * scale, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("offset", "scale"), UNITS.values(), ids=UNITS)
def test_densities_far_from_0_and_in_any_units(backend, offset, scale):
    unit = scale[0]
    x = offset * unit + unit * np.random.default_rng(52).normal(size=600)
    options = {"model": ismcore.MLP((16,)), "backend": backend, "epochs": 60, "validation": 0, "progress": False}
    at = offset * unit + unit * np.linspace(-2.0, 2.0, 9)
    z = (at - offset * unit) / unit
    exact = -0.5 * z**2 - 0.5 * np.log(2.0 * np.pi) - np.log(unit)
    narrow, wide = (ismcore.fit(x, dtype=dtype, **options).log_density(at) - exact for dtype in ("float32", "float64"))
    assert np.mean(narrow**2) <= 1.5 * np.mean(wide**2) < 0.05


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (Z + 1e14, "constant but for the rounding of their mean: 0 .*, 1 .*, 2 "),
        (Z * 1e-160, "too wide or too narrow to standardise"),
        (Z * 1e160, "too wide or too narrow to standardise"),
    ],
    ids=["offset", "narrow", "wide"],
)
def test_beyond_what_float64_holds_an_error_says_so(x, words):
    with pytest.raises(ismcore.SamplesError, match=words):
        ismcore.fit(x, model=MODELS["mlp"], backend="autograd", **PLAIN)


def _native_score(backend, result, x):
    """The score that `native()` gives for x, float32 or float64, as NumPy."""
    found = result.native()
    score = (lambda points: found[0](found[1], points)) if isinstance(found, tuple) else found
    if backend == "torch":
        import torch

        return score(torch.tensor(x)).detach().numpy()
    if backend == "jax":
        import jax

        with jax.enable_x64(x.dtype == np.float64):
            return np.asarray(score(jax.numpy.asarray(x)))
    return score(x)


@pytest.mark.parametrize("own", [False, True], ids=["library", "own"])
@pytest.mark.parametrize("options", [{}, {"transform": "asinh"}, {"standardize": "whiten"}], ids=["plain", "asinh", "white"])
@pytest.mark.parametrize(("offset", "scale"), [(1e12, [1.0, 1e60, 1e-60]), (0.0, [1.0, 1.0, 1.0])])
def test_native_keeps_the_digits_of_float64_points(backend, own, options, offset, scale):
    scale = np.array(scale)
    x, at = Z * scale + offset * scale, AT * scale + offset * scale
    result = ismcore.fit(x, model=own_score(backend, D) if own else MODELS["mlp"], backend=backend, **PLAIN, **options)
    found = _native_score(backend, result, at)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found * scale, result.score(at) * scale, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("own", [False, True], ids=["library", "own"])
@pytest.mark.parametrize("offset", [2.0**13 + 1.0 / 3.0, 1e5])  # which float32 cannot hold to the digits that the samples have
def test_native_loses_no_digit_that_float32_points_have(backend, own, offset):
    points = (AT + offset).astype(np.float32)
    z = Z / Z.std(axis=0)
    result = ismcore.fit(z + offset, model=own_score(backend, D) if own else MODELS["mlp"], backend=backend, **PLAIN)
    found = _native_score(backend, result, points)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, result.score(points.astype(float)), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("own", [False, True], ids=["library", "own"])
def test_native_says_where_float32_points_are_too_coarse_or_none(backend, own):
    model = own_score(backend, D) if own else MODELS["mlp"]
    far = ismcore.fit(Z + 2.0**21, model=model, backend=backend, **PLAIN)
    with pytest.warns(ismcore.IsmWarning, match="points in float32 are too coarse: a column has its mean 2.*e.06 times"):
        _native_score(backend, far, (AT + 2.0**21).astype(np.float32))
    small = ismcore.fit(Z * [1.0, 1e-45, 1.0], model=model, backend=backend, **PLAIN)
    with pytest.raises(ismcore.SamplesError, match=r"float32 cannot hold points of column 1.*pass float64 points"):
        _native_score(backend, small, AT.astype(np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("own", [False, True], ids=["library", "own"])
@pytest.mark.parametrize("options", [{}, {"transform": "asinh", "standardize": "whiten"}], ids=["plain", "asinh, white"])
def test_a_native_torch_score_compiles_in_one_graph(own, options):
    import torch

    score = ismcore.fit(
        Z + 5.0, model=own_score("torch", D) if own else MODELS["mlp"], backend="torch", **PLAIN, **options
    ).native()
    at = torch.tensor(AT + 5.0, dtype=torch.float32)
    compiled = torch.compile(score, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(at), score(at))


def test_a_torch_network_that_comes_back_keeps_shift_and_scale_in_float64_when_it_is_moved():
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(D, 8), torch.nn.Tanh(), torch.nn.Linear(8, D))
    result = ismcore.fit(Z + 2.0**33, model=net, **PLAIN)
    at = torch.tensor(AT + 2.0**33)
    for module in (result.native(), result.native().float(), result.native().double()):
        np.testing.assert_allclose(module(at).detach(), result.score(at), rtol=2e-5, atol=2e-5)
    reloaded = result.native()
    reloaded.load_state_dict(result.native().state_dict())
    np.testing.assert_allclose(reloaded(at).detach(), result.score(at), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_jacobian_diagonal_is_the_slope_of_the_score(backend, model):
    result = ismcore.fit(5.0 * Z, model=model, backend=backend, **PLAIN, dtype="float64")
    h = 1e-4
    slopes = [(result.score(AT + h * e) - result.score(AT - h * e))[:, i] / (2 * h) for i, e in enumerate(np.eye(D))]
    np.testing.assert_allclose(result.jacobian_diagonal(AT), np.column_stack(slopes), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(result.divergence(AT), np.sum(slopes, axis=0), rtol=1e-6, atol=1e-8)


def _energies(kind):
    if kind == "library":
        return ismcore.Energy(ismcore.MLP((6,), "tanh"))
    import torch

    torch.manual_seed(0)
    return ismcore.Energy(torch.nn.Sequential(torch.nn.Linear(D, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)))


@pytest.mark.parametrize("kind", ["library", "torch module"])
@pytest.mark.parametrize("standardize", [True, False])
def test_the_score_is_minus_the_slope_of_the_energy(kind, standardize):
    x = Z * [1.0, 3.0, 0.5] + 2.0
    result = ismcore.fit(x, model=_energies(kind), **PLAIN, dtype="float64", standardize=standardize, snapshots=[1])
    h = 1e-5
    for epoch in (None, 1):
        slopes = [
            (result.energy(AT + h * e, epoch=epoch) - result.energy(AT - h * e, epoch=epoch)) / (2 * h) for e in np.eye(D)
        ]
        np.testing.assert_allclose(result.score(AT, epoch=epoch), -np.column_stack(slopes), rtol=1e-6, atol=1e-7)


def test_a_free_score_in_more_dimensions_has_no_energy_and_no_density():
    free = ismcore.fit(Z, model=MODELS["mlp"], backend="autograd", **PLAIN)
    with pytest.raises(ismcore.DensityUnavailable, match=r"gradient of nothing.*ismcore.Energy"):
        free.energy(AT)
    with pytest.raises(ismcore.DensityUnavailable, match="gradient of nothing"):
        free.density(AT)


# Densities in one dimension.


@pytest.mark.slow
def test_an_affine_fit_has_the_normal_density_at_any_points(backend):
    x = 40.0 + 0.3 * np.random.default_rng(6).normal(size=2000)
    result = ismcore.fit(x, model=ismcore.Affine(), backend=backend, **{**PLAIN, "epochs": 2000}, schedule="constant")
    mean, variance = x.mean(), x.var()
    for points in ([40.0], [40.0, 40.1], np.linspace(39.0, 41.0, 7), 40.2):
        exact = np.exp(-0.5 * (np.asarray(points) - mean) ** 2 / variance) / np.sqrt(2 * np.pi * variance)
        np.testing.assert_allclose(result.density(points), np.atleast_1d(exact), rtol=1e-3)
        np.testing.assert_allclose(result.energy(points), -np.log(np.atleast_1d(exact)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("score", "density"),
    [
        (lambda z: -2 * z / (1 + z * z), lambda z: 1 / (np.pi * (1 + z * z))),
        (lambda z: -(z - 9.0) / 1e-4, lambda z: np.exp(-0.5 * (z - 9.0) ** 2 / 1e-4) / np.sqrt(2 * np.pi * 1e-4)),
        (lambda z: -np.tanh(z), lambda z: 1 / (np.pi * np.cosh(z))),
    ],
    ids=["Cauchy", "narrow and far from the middle", "hyperbolic secant"],
)
def test_quadrature_of_scores_with_known_densities(score, density):
    z = np.array([-3.0, 0.0, 0.71, 8.99, 9.0, 9.013, 30.0])
    np.testing.assert_allclose(np.exp(integrate_score(score)(z)), density(z), rtol=2e-6, atol=1e-12)


@pytest.mark.parametrize(
    ("score", "words"),
    [(lambda z: np.ones_like(z), "does not lead back"), (lambda z: -1e-13 * z, "does not lead back")],
    ids=["no left tail", "wider than the line"],
)
def test_scores_that_nothing_normalises_are_refused(score, words):
    with pytest.raises(ismcore.DensityUnavailable, match=words):
        integrate_score(score)


def test_a_density_too_narrow_for_the_line_is_refused():
    with pytest.raises(ismcore.DensityUnavailable, match="too narrow"):
        integrate_score(lambda z: -(z - 9.0) / 1e-12)


def test_density_of_an_energy_is_exp_of_minus_it():
    z = np.random.default_rng(8).normal(size=600)
    x = z + 0.1 * z**3
    result = ismcore.fit(x, model=ismcore.Energy(ismcore.MLP((8,), "silu")), backend="autograd", **{**PLAIN, "epochs": 60})
    at = np.array([-2.0, 0.1, 3.0])
    energy, log_p = result.energy(at), result.log_density(at)
    np.testing.assert_allclose(log_p - log_p[0], energy[0] - energy, rtol=1e-4, atol=1e-4)
    grid = np.linspace(-60.0, 60.0, 20001)
    assert np.trapezoid(result.density(grid), grid) == pytest.approx(1.0, abs=1e-3)
