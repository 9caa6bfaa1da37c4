"""Coordinates against laws whose score is known before and behind them, and fits behind a transform, robust or whitened."""

import numpy as np
import pytest

import ismcore
from ismcore.coordinates import Coordinates

D = 3
MIX = np.array([[1.0, 0.5, 0.0], [0.0, 0.8, -0.4], [0.0, 0.0, 2.0]])
X = np.random.default_rng(11).standard_t(4, size=(400, D)) @ MIX * [1.0, 1e-6, 1e9] + [5.0, 0.0, -2e10]
AT = X[:9]
WEIGHT = np.random.default_rng(12).random(len(X))
WEIGHT /= WEIGHT.sum()
SPREAD = np.array([1.0, 1e-6, 1e9])
QUICK = {"epochs": 3, "validation": 0, "progress": False, "dtype": "float64"}


def cauchy_score(x):
    return -2.0 * x / (1.0 + x * x)


def student_score(x):
    return -3.0 * x / (2.0 + x * x)


def error(result, x, score):
    """E |psi - score|^2 / E |score|^2 over the rows of x."""
    exact = score(x)
    return np.mean((result.score(x) - exact) ** 2) / np.mean(exact**2)


# Closed forms. If u is Cauchy, t = asinh(u) has the density 1 / (pi cosh t) and the score -tanh t.


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.0), (-3.0, 1e-50), (1e11, 7.0)])
@pytest.mark.parametrize(("m", "a"), [(0.0, 1.0), (0.25, 0.5)])
def test_a_cauchy_law_behind_asinh_is_the_hyperbolic_secant(mean, scale, m, a):
    behind = Coordinates(np.array([mean * scale]), np.array([scale]), "asinh", np.array([m]), np.array([a]))
    x = scale * (mean + np.array([[-1e30], [-40.0], [-1.0], [0.0], [1e-9], [0.3], [2.0], [1e5]]))
    u = (x - mean * scale) / scale  # with the digits that x has left
    z, t, width = behind(x), np.arcsinh(u), 1.0 + u * u
    np.testing.assert_allclose(z, a * (t - m), rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(behind.inverse(z), x, rtol=1e-12, atol=1e-14 * scale)
    psi = -np.tanh(t) / a
    np.testing.assert_allclose(behind.score(x, psi), -2.0 * u / width / scale, rtol=1e-12, atol=1e-15 / scale)
    np.testing.assert_allclose(behind.score_of_coordinates(x[1:-1], behind.score(x, psi)[1:-1]), psi[1:-1], rtol=1e-11)
    slopes = -1.0 / np.cosh(np.clip(t, -300.0, 300.0)) ** 2
    exact = -2.0 * (1.0 / width - 2.0 * (u / width) ** 2)
    found = behind.jacobian_diagonal(x, a * psi, slopes) * scale * scale
    np.testing.assert_allclose(found, exact, rtol=1e-12, atol=1e-15)
    log_p = -np.log(np.pi * a) - np.logaddexp(t, -t)[:, 0] + np.log(2.0)
    np.testing.assert_allclose(behind.log_density(x, log_p), -np.log(np.pi * scale * width)[:, 0], rtol=1e-12, atol=1e-12)


def test_a_normal_law_in_whitened_coordinates_is_standard():
    white = Coordinates.whitening(X, WEIGHT)
    z = white(X)
    np.testing.assert_allclose(WEIGHT @ z, np.zeros(D), atol=1e-12)
    np.testing.assert_allclose(z.T @ (z * WEIGHT[:, None]), np.eye(D), atol=1e-10)
    mean, covariance = WEIGHT @ X, np.cov(X.T, aweights=WEIGHT, ddof=0)
    outer = np.outer(SPREAD, SPREAD)
    precision = np.linalg.inv(covariance / outer) / outer
    np.testing.assert_allclose(white.score(AT, -white(AT)) * SPREAD, -(AT - mean) @ precision * SPREAD, rtol=1e-9, atol=1e-9)
    gap = ((AT - mean) @ precision * (AT - mean)).sum(axis=1)
    determinant = np.linalg.slogdet(covariance / outer)[1] + 2.0 * np.log(SPREAD).sum()
    standard = -0.5 * (white(AT) ** 2).sum(axis=1)
    np.testing.assert_allclose(white.log_density(AT, standard), -0.5 * gap - 0.5 * determinant, rtol=1e-9, atol=1e-9)


def test_dependent_columns_are_whitened_to_what_they_are():
    x = np.column_stack([X[:, 0], X[:, 1], X[:, 0] + 1e6 * X[:, 1]])
    z = Coordinates.whitening(x)(x)
    values = np.linalg.eigvalsh(z.T @ z / len(z))
    np.testing.assert_allclose(values[1:], np.ones(2), rtol=1e-6)
    assert 0.0 <= values[0] < 1e-4  # the third direction holds rounding alone, and is not blown up to a unit


def test_a_robust_scale_is_the_deviation_of_a_normal_law_whatever_a_few_rows_are():
    x = np.random.default_rng(3).normal([2.0, -7.0], [3.0, 1e-9], size=(40_000, 2))
    plain = Coordinates.robust(x)
    np.testing.assert_allclose(plain.scale, [3.0, 1e-9], rtol=0.02)
    np.testing.assert_allclose(plain.mean, [2.0, -7.0], atol=0.05)
    x[:100] = 1e30
    np.testing.assert_allclose(Coordinates.robust(x).scale, plain.scale, rtol=0.02)
    weight = np.full(len(x), 1.0 / len(x))
    np.testing.assert_allclose(Coordinates.robust(x, weight).scale, Coordinates.robust(x).scale, rtol=1e-3)
    # of half the rows, by weight, as if they were alone
    half = (x[:, 0] < 2.0) / np.sum(x[:, 0] < 2.0)
    alone = Coordinates.robust(x[half > 0.0])
    np.testing.assert_allclose(Coordinates.robust(x, half).mean, alone.mean, atol=1e-3)
    np.testing.assert_allclose(Coordinates.robust(x, half).scale, alone.scale, rtol=1e-3)
    mostly_one = np.where(np.arange(1000) % 5 == 0, np.random.default_rng(4).normal(size=1000), 0.25)
    np.testing.assert_allclose(Coordinates.robust(mostly_one[:, None]).scale, mostly_one.std())


@pytest.mark.parametrize("standardize", [True, "robust", "whiten"])
def test_coordinates_that_never_shift_keep_a_cone(standardize):
    z = Coordinates.by(standardize, None, X).unshifted()
    assert not z(np.zeros((1, D))).any()
    np.testing.assert_allclose(z(3.0 * AT), 3.0 * z(AT), rtol=1e-13)
    with pytest.raises(ismcore.OptionError, match="cannot do without a shift"):
        Coordinates.by(standardize, "asinh", X).unshifted()


FORMS = {
    "plain": Coordinates.by(True, None, X),
    "robust": Coordinates.by("robust", None, X),
    "white": Coordinates.by("whiten", None, X),
    "white, moved": Coordinates.by("whiten", None, 2.0 * X - 7.0, WEIGHT),
    "asinh": Coordinates.by(True, "asinh", X),
    "asinh, white": Coordinates.by("whiten", "asinh", X),
}


@pytest.mark.parametrize("one", FORMS)
@pytest.mark.parametrize("other", FORMS)
def test_coordinates_relative_to_others_go_through_them(one, other):
    found = FORMS[one].relative_to(FORMS[other])
    if ("asinh" in one) != ("asinh" in other):
        assert found is None
    else:
        np.testing.assert_allclose(found(FORMS[other](AT)), FORMS[one](AT), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.zeros(2), np.array([1.0, 0.0])), "scale of coordinates must be positive"),
        ((np.zeros(2), np.ones(3)), r"scale of coordinates must be .* of shape \(2,\)"),
        ((np.zeros((2, 1)), np.ones(2)), "mean of coordinates"),
        ((np.zeros(0), np.zeros(0)), "mean of coordinates"),
        ((np.array([np.inf]), np.ones(1)), "mean of coordinates"),
        ((np.zeros(1), np.ones(1), "cosh"), "transform must be None, 'asinh', 'log', .*, not 'cosh'"),
        ((np.zeros(2), np.ones(2), ("log",)), "transform must have one entry for each of the 2 columns, not 1"),
        ((np.zeros(1), np.ones(1), None, [0.0]), "shift of coordinates"),
        ((np.zeros(2), np.ones(2), None, None, np.zeros(2)), "no inverse"),
        ((np.zeros(2), np.ones(2), None, None, np.ones((2, 2))), "no inverse"),
        ((np.zeros(2), np.ones(2), None, None, np.ones((2, 3))), r"matrix .* of shape \(2,\) or \(2, 2\)"),
    ],
)
def test_arrays_that_are_no_coordinates_are_refused(arguments, words):
    with pytest.raises(ismcore.OptionError, match=words):
        Coordinates(*arguments)


# Fits in them.

OPTIONS = {
    "asinh": {"transform": "asinh"},
    "asinh, white": {"transform": "asinh", "standardize": "whiten"},
    "asinh alone": {"transform": "asinh", "standardize": False},
    "white": {"standardize": "whiten"},
    "robust": {"standardize": "robust"},
}
MODELS = {
    "mlp": ismcore.MLP((5,), "tanh"),
    "residual": ismcore.ResidualMLP(6, 1),
    "energy": ismcore.Energy(ismcore.MLP((5,), "silu")),
    "affine": ismcore.Affine(),
}


def samples(options):
    return X / SPREAD if options.get("standardize") is False else X


@pytest.mark.parametrize(
    ("model", "options"),
    [(model, OPTIONS["asinh, white" if number % 2 else "asinh alone"]) for number, model in enumerate(MODELS.values())],
    ids=MODELS,
)
def test_derivatives_of_a_fit_in_other_coordinates(backend, model, options, tmp_path):
    x = samples(options)
    at, width = x[:9], x.std(axis=0)
    result = ismcore.fit(x, model=model, backend=backend, **QUICK, **options, snapshots=[1])
    h = 1e-5 * width
    ends = [(at + h * e, at - h * e) for e in np.eye(D)]
    slopes = np.stack([(result.score(b) - result.score(a))[:, i] / (2 * h[i]) for i, (b, a) in enumerate(ends)], axis=1)
    in_units = result.jacobian_diagonal(at) * width**2
    np.testing.assert_allclose(in_units, slopes * width**2, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(result.divergence(at), result.jacobian_diagonal(at).sum(axis=1), rtol=1e-12)
    wide = ismcore.evaluate(result.model, result.params, at, backend=backend)
    np.testing.assert_allclose(wide.score * width, result.score(at) * width, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(wide.jacobian_diagonal * width**2, in_units, rtol=1e-9, atol=1e-9)
    early = ismcore.evaluate(result.model, result.snapshots[1], at, backend=backend)
    np.testing.assert_allclose(early.score * width, result.score(at, epoch=1) * width, rtol=1e-9, atol=1e-9)
    if model is MODELS["energy"]:
        fall = [-(result.energy(b) - result.energy(a)) / (2 * h[i]) for i, (b, a) in enumerate(ends)]
        np.testing.assert_allclose(np.stack(fall, axis=1) * width, result.score(at) * width, rtol=1e-6, atol=1e-7)
    result.save(tmp_path / "fit")
    assert ismcore.load(tmp_path / "fit").score(at).tobytes() == result.score(at).tobytes()
    assert result.loss(x) == pytest.approx(ismcore.evaluate(*result._as_trained(), result.coordinates(x), backend=backend).loss)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_warm_start_on_moved_samples_begins_at_the_same_score(model, options):
    x = samples(options)
    moved, at = 1.5 * x[100:] + x.std(axis=0), x[:9]
    here = ismcore.fit(x, model=model, backend="autograd", **QUICK, **options)
    given = {**options, "backend": "autograd", "initial_params": here, "snapshots": [0]}
    there = ismcore.fit(moved, **QUICK, **given)
    width = x.std(axis=0)
    np.testing.assert_allclose(there.score(at, epoch=0) * width, here.score(at) * width, rtol=1e-7, atol=1e-7)
    by_name = ismcore.fit(moved, **QUICK, **{**given, "initial_params": here.params, "model": here.model})
    assert by_name.score(at, epoch=0).tobytes() == there.score(at, epoch=0).tobytes()
    if "transform" in options:
        with pytest.raises(ismcore.OptionError, match="behind 'asinh' cannot be taken to others"):
            ismcore.fit(moved, **QUICK, **{**given, "transform": None})


def test_a_network_of_ones_own_goes_on_from_its_score_on_moved_samples():
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(D, 6), torch.nn.Tanh(), torch.nn.Linear(6, D))
    for options in ({}, {"transform": "asinh"}):
        here = ismcore.fit(X, model=net, **QUICK, **options)
        there = ismcore.fit(X + SPREAD, initial_params=here, snapshots=[0], **QUICK, **options)
        np.testing.assert_allclose(there.score(AT, epoch=0) * SPREAD, here.score(AT) * SPREAD, rtol=1e-7, atol=1e-9)


def test_parameters_in_the_samples_units_are_none_behind_a_transform():
    start = ismcore.MLP((5,)).initial_params(0, D)
    with pytest.raises(ismcore.OptionError, match="none in coordinates behind transform='asinh'"):
        ismcore.fit(X, model=ismcore.MLP((5,)), initial_params=start, transform="asinh", backend="autograd", **QUICK)


@pytest.mark.filterwarnings("ignore:columns have such heavy tails:ismcore.IsmWarning")
def test_a_known_score_is_met_in_the_coordinates():
    x = np.random.default_rng(5).standard_cauchy((500, 1))
    objective = ismcore.ExplicitScoreMatching(cauchy_score)
    target = objective.inputs(np.arcsinh(x), Coordinates(np.zeros(1), np.ones(1), "asinh"))["target_score"]
    np.testing.assert_allclose(target, -np.tanh(np.arcsinh(x)), rtol=1e-9)
    options = {"transform": "asinh", "epochs": 300, "validation": 0, "progress": False, "backend": "autograd"}
    result = ismcore.fit(x, objective=objective, **options)
    assert error(result, x, cauchy_score) < 0.01
    assert result.loss(x) < 0.02


def test_a_density_behind_a_transform_is_that_of_its_score():
    x = 7.0 + 3.0 * np.random.default_rng(8).standard_t(2, 1500)
    result = ismcore.fit(x, transform="asinh", backend="autograd", progress=False)
    grid = 7.0 + 3.0 * np.sinh(np.linspace(-9.0, 9.0, 20_001))
    log_p = result.log_density(grid)
    assert np.trapezoid(np.exp(log_p), grid) == pytest.approx(1.0, abs=2e-3)
    middle = np.abs(grid - 7.0) < 50.0
    np.testing.assert_allclose(np.gradient(log_p, grid)[middle], result.score(grid)[middle, 0], rtol=1e-3, atol=1e-4)


def test_noise_in_the_samples_units_is_none_behind_a_transform():
    model = ismcore.NoiseConditional(ismcore.MLP((4,)))
    objective = ismcore.NoiseConditionalScoreMatching((1.0, 0.5), units="x")
    with pytest.raises(ismcore.OptionError, match="are none behind transform='asinh'"):
        ismcore.fit(X, model=model, objective=objective, transform="asinh", backend="autograd", **QUICK)


def test_samples_are_drawn_through_the_transform():
    model, objective = ismcore.NoiseConditional(ismcore.MLP((4,))), ismcore.NoiseConditionalScoreMatching((1.0, 0.7))
    options = {"model": model, "objective": objective, "backend": "autograd", "seed": 1, **QUICK}
    x = X / SPREAD
    behind = ismcore.fit(x, transform="asinh", **options)
    z = ismcore.fit(behind.coordinates(x), standardize=False, **options)
    drawn, plain = (ismcore.annealed_langevin(each, 50, (1.0, 0.7), steps=3) for each in (behind, z))
    np.testing.assert_allclose(drawn, behind.coordinates.inverse(plain), rtol=1e-9)


@pytest.mark.filterwarnings("ignore:columns have such heavy tails:ismcore.IsmWarning")
def test_a_robust_scale_is_taken_and_said_where_a_few_rows_set_the_deviation():
    x = np.random.default_rng(21).standard_cauchy((2000, 2)) * [1.0, 1e5]
    options = {**QUICK, "backend": "autograd"}
    found = {}
    for name, given in {"default": {}, "asked": {"standardize": True}, "asinh": {"transform": "asinh"}}.items():
        found[name] = ismcore.fit(x, **options, **given)
    words = {name: " ".join(result.warnings) for name, result in found.items()}
    noted = " ".join(found["asinh"].notes)
    assert found["default"].coordinates == Coordinates.robust(x)
    assert found["asked"].coordinates == Coordinates.standardizing(x)
    assert "were scaled by their interquartile range" in words["default"]
    assert 'fit(transform="asinh") trains behind' in words["asked"]
    assert "transform='asinh' was applied" in noted
    assert "tails" not in words["asinh"]
    normal = np.random.default_rng(22).normal(size=(2000, 2))
    assert ismcore.fit(normal, **options).coordinates == Coordinates.standardizing(normal)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:columns have such heavy tails:ismcore.IsmWarning")
def test_a_cauchy_law_is_learned_behind_asinh(backend):
    x, fresh = (np.random.default_rng(seed).standard_cauchy((5000, 1)) for seed in (31, 32))
    result = ismcore.fit(x, transform="asinh", backend=backend, progress=False, epochs=150)
    assert error(result, fresh, cauchy_score) <= 0.05
    assert any("heavy tails" in text for text in result.notes)


@pytest.mark.slow
@pytest.mark.parametrize("transform", [None, "asinh"])
def test_a_law_without_variance_is_learned(transform):
    fresh = np.random.default_rng(40).standard_t(2, (5000, 1))
    errors = []
    for seed in range(3):
        x = np.random.default_rng(41 + seed).standard_t(2, (1000, 1))
        result = ismcore.fit(x, transform=transform, backend="autograd", progress=False, seed=seed)
        errors.append(error(result, fresh, student_score))
    assert np.median(errors) <= 0.05


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"transform": "cosh"}, "transform must be None, 'asinh', 'log', .*, not 'cosh'"),
        ({"standardize": "median"}, "standardize must be True, False, 'robust' or 'whiten', not 'median'"),
        ({"standardize": np.zeros(3)}, "standardize must be"),
    ],
)
def test_names_that_there_are_not_are_refused(options, words):
    with pytest.raises(ismcore.OptionError, match=words):
        ismcore.fit(X, backend="autograd", **QUICK, **options)


class Table:
    """A data frame, as far as `fit` asks one."""

    def __init__(self, values, columns):
        self.values, self.columns = values, columns

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype=dtype)


def test_names_of_columns_and_a_run_id_stay_with_a_fit(tmp_path):
    options = {**QUICK, "backend": "autograd"}
    named = ismcore.fit(Table(X, ["a", "b", "ü"]), **options, checkpoint=tmp_path / "run")
    plain = ismcore.fit(Table(X, range(D)), **options)
    assert (named.feature_names, plain.feature_names) == (("a", "b", "ü"), None)
    assert named.run_id != plain.run_id
    assert len(named.run_id) == 32
    assert int(named.run_id, 16)
    named.save(tmp_path / "fit")
    resumed = ismcore.resume(tmp_path / "run", X, epochs=5)
    for again in (ismcore.load(tmp_path / "fit"), ismcore.load(tmp_path / "run"), resumed):
        assert (again.feature_names, again.run_id) == (named.feature_names, named.run_id)


@pytest.mark.parametrize("options", [{"transform": "asinh"}, {"standardize": "whiten"}, {"standardize": "robust"}])
def test_a_run_in_other_coordinates_is_gone_on_with_to_the_same_bits(options, tmp_path):
    def stop(event):
        return ismcore.STOP if event.kind == "validation" and event.epoch == 2 else None

    plain = {"backend": "autograd", "epochs": 5, "progress": False, "model": ismcore.MLP((4,))}
    whole = ismcore.fit(X, **plain, **options)
    ismcore.fit(X, **plain, **options, checkpoint=tmp_path / "run", callbacks=[stop])
    assert ismcore.load(tmp_path / "run").coordinates == whole.coordinates
    found = ismcore.resume(tmp_path / "run", X)
    assert found.score(AT).tobytes() == whole.score(AT).tobytes()
