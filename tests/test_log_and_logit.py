"""Transforms with ends, and by column: log, logit and transforms of one's own, against closed forms and differences."""

import numpy as np
import pytest
from own import own_score

import ismcore
from ismcore.coordinates import Coordinates
from ismcore.coordinates.transforms import TRANSFORMS, as_transforms
from ismcore.ops import NumpyOps

D = 3
RNG = np.random.default_rng(7)
NORMAL = RNG.normal(size=(200, D)) @ np.array([[1.0, 0.5, 0.0], [0.0, 1.0, -0.4], [0.0, 0.0, 0.7]])
ENDS = ismcore.Logit(-2.0, 5.0)
MIXED = ("log", None, ENDS)
X = np.column_stack([np.exp(0.5 + 2.0 * NORMAL[:, 0]), 1e6 + 3.0 * NORMAL[:, 1], -2.0 + 7.0 / (1.0 + np.exp(-NORMAL[:, 2]))])
"""A positive column over ten orders of magnitude, one far from 0, and one between -2 and 5; they depend on each other."""
AT = X[:9]
QUICK = {"epochs": 3, "validation": 0, "batch_size": "all", "progress": False, "dtype": "float64", "backend": "autograd"}
MODELS = {"mlp": ismcore.MLP((5,), "tanh"), "energy": ismcore.Energy(ismcore.MLP((5,), "silu"))}


class Cubic(ismcore.Transform):
    """f(u) = u + u^3."""

    def forward(self, ops, u):
        return u + u * u * u

    def log_derivative(self, ops, u):
        return ops.log(1.0 + 3.0 * u * u)

    def slope(self, ops, u):
        return 6.0 * u / (1.0 + 3.0 * u * u)

    def curvature(self, ops, u):
        return (6.0 - 18.0 * u * u) / (1.0 + 3.0 * u * u) / (1.0 + 3.0 * u * u)

    def inverse(self, t):
        root = 2.0 / np.sqrt(3.0)
        return root * np.sinh(np.arcsinh(3.0 * t / root) / 3.0)


FUNCTIONS = {
    "log": (TRANSFORMS["log"], np.log, [1e-100, 0.3, 7.0, 1e100]),
    "log from -3": (ismcore.Log(-3.0), lambda u: np.log(u + 3.0), [-2.9999, 0.0, 1e9]),
    "logit": (TRANSFORMS["logit"], lambda u: np.log(u / (1.0 - u)), [1e-100, 0.25, 0.5, 0.999]),
    "logit from -2 to 5": (ENDS, lambda u: np.log((u + 2.0) / (5.0 - u)), [-1.999, 0.0, 4.99]),
    "cubic": (Cubic(), lambda u: u + u**3, [-4.0, 0.0, 0.5]),
}


def slope(f, u):
    """f'(u) = Im f(u + ih) / h, which cancels no digit (Squire & Trapp 1998)."""
    h = 1e-20 * np.where(u == 0.0, 1.0, np.abs(u))
    return f(u + 1j * h).imag / h


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_of_transforms(name):
    f, exact, points = FUNCTIONS[name]
    u = np.array(points)
    np.testing.assert_allclose(f.forward(NumpyOps, u), exact(u), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(f.log_derivative(NumpyOps, u), np.log(slope(exact, u)), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(f.slope(NumpyOps, u), slope(lambda v: f.log_derivative(NumpyOps, v), u), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(f.curvature(NumpyOps, u), slope(lambda v: f.slope(NumpyOps, v), u), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(f.inverse(f.forward(NumpyOps, u)), u, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("f", [ismcore.Log(), ismcore.Log(1e9), ismcore.Logit(), ENDS], ids=repr)
def test_what_comes_back_lies_inside_however_far_out_it_was(f):
    u = f.inverse(np.array([-1e4, -40.0, 0.0, 40.0, 1e4]))
    assert ((u > f.lower) & (u < f.upper) & np.isfinite(u)).all()


def lognormal(x, mean, precision):
    """Score, its diagonal and log-density of a law whose logarithm is normal."""
    gap = np.log(x) - mean
    g = -gap @ precision
    score = (g - 1.0) / x
    diagonal = (-np.diagonal(precision) - g + 1.0) / x**2
    constant = 0.5 * np.linalg.slogdet(precision)[1] - 0.5 * D * np.log(2.0 * np.pi)
    return score, diagonal, constant + 0.5 * np.sum(g * gap, axis=1) - np.log(x).sum(axis=1)


def test_a_normal_law_behind_log_is_lognormal():
    x = np.exp(NORMAL * [2.0, 0.1, 30.0] + [0.0, 5.0, -1.0])
    z = Coordinates.by("whiten", "log", x)
    precision = np.linalg.inv(np.cov(np.log(x).T, bias=True))
    score, diagonal, log_p = lognormal(x, np.log(x).mean(axis=0), precision)
    y = z.before_matrix
    np.testing.assert_allclose(z.score(x, -z(x)) * x, score * x, rtol=1e-8, atol=1e-8)
    matrix = z.matrix
    found = y.jacobian_diagonal(x, -z(x) @ matrix, np.broadcast_to(-np.diagonal(matrix.T @ matrix), x.shape))
    np.testing.assert_allclose(found * x**2, diagonal * x**2, rtol=1e-8, atol=1e-8)
    standard = -0.5 * (z(x) ** 2).sum(axis=1) - 0.5 * D * np.log(2.0 * np.pi)
    np.testing.assert_allclose(z.log_density(x, standard), log_p, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(z.inverse(z(x)), x, rtol=1e-8)


def test_a_normal_law_behind_logit_is_logit_normal():
    t = 1.5 * NORMAL[:, :1] + 0.5
    x = 1.0 / (1.0 + np.exp(-t))
    z = Coordinates(np.zeros(1), np.ones(1), "logit", np.array([0.5]), np.array([1.0 / 1.5]))
    exact = -(t - 0.5) / 2.25 / (x * (1.0 - x)) - 1.0 / x + 1.0 / (1.0 - x)
    np.testing.assert_allclose(z.score(x, -z(x)), exact, rtol=1e-9)


def test_a_lognormal_law_is_found_by_an_affine_score_behind_log():
    x = np.exp(np.random.default_rng(3).normal([1.0, -2.0, 0.0], [0.3, 1.0, 2.0], size=(2000, D)))
    options = {"model": ismcore.Affine(), "optimizer": ismcore.LBFGS(), "validation": 0, "dtype": "float64"}
    result = ismcore.fit(x, transform="log", backend="autograd", progress=False, **options)
    precision = np.linalg.inv(np.cov(np.log(x).T, bias=True))
    score, diagonal, _ = lognormal(x, np.log(x).mean(axis=0), precision)
    np.testing.assert_allclose(result.score(x) * x, score * x, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(result.divergence(x), diagonal.sum(axis=1), rtol=1e-4)


@pytest.mark.parametrize(("model", "standardize"), [(MODELS["mlp"], True), (MODELS["energy"], "whiten")], ids=MODELS)
def test_derivatives_of_a_fit_with_a_transform_for_each_column(model, standardize, tmp_path):
    options = {**QUICK, "model": model, "standardize": standardize}
    result = ismcore.fit(X, transform=MIXED, **options)
    width = np.minimum(np.abs(AT - [0.0, np.inf, -2.0]), np.abs(AT - [np.inf, np.inf, 5.0]))
    width[:, 1] = 3.0
    h = 1e-5 * width
    ends = [(AT + h * e, AT - h * e) for e in np.eye(D)]
    slopes = np.stack([(result.score(b) - result.score(a))[:, i] / (b - a)[:, i] for i, (b, a) in enumerate(ends)], axis=1)
    np.testing.assert_allclose(result.jacobian_diagonal(AT) * width**2, slopes * width**2, rtol=1e-6, atol=1e-6)
    full = np.diagonal(result.jacobian(AT), axis1=1, axis2=2)
    np.testing.assert_allclose(full * width**2, slopes * width**2, rtol=1e-6, atol=1e-6)
    wide = ismcore.evaluate(result.model, result.params, AT, backend="autograd")
    np.testing.assert_allclose(wide.score * width, result.score(AT) * width, rtol=1e-9, atol=1e-9)
    if model is MODELS["energy"]:
        fall = [-(result.energy(b) - result.energy(a)) / (b - a)[:, i] for i, (b, a) in enumerate(ends)]
        np.testing.assert_allclose(np.stack(fall, axis=1) * width, result.score(AT) * width, rtol=1e-6, atol=1e-6)
    result.save(tmp_path / "fit")
    again = ismcore.load(tmp_path / "fit")
    assert again.coordinates == result.coordinates
    assert again.score(AT).tobytes() == result.score(AT).tobytes()


@pytest.mark.parametrize("own", [False, True], ids=["library", "own"])
def test_a_native_score_is_behind_the_transforms_too(backend, own):
    options = {**QUICK, "backend": backend, "dtype": "float32"}
    result = ismcore.fit(X, transform=MIXED, model=own_score(backend, D) if own else MODELS["mlp"], **options)
    found = result.native()
    score = (lambda points: found[0](found[1], points)) if isinstance(found, tuple) else found
    if backend == "torch":
        import torch

        values = score(torch.tensor(AT)).detach().numpy()
    elif backend == "jax":
        import jax

        with jax.enable_x64(True):
            values = np.asarray(score(jax.numpy.asarray(AT)))
    else:
        values = score(AT)
    size = np.maximum(1.0, np.abs(result.score(AT)))
    np.testing.assert_allclose(values / size, result.score(AT) / size, rtol=2e-5, atol=2e-5)


def test_columns_are_named_by_number_or_name_and_left_out_ones_stay():
    names = ("income", "time", "share")
    assert as_transforms({"income": "log", 2: ENDS}, D, names) == MIXED
    assert as_transforms(list(MIXED), D) == MIXED
    assert as_transforms(["log"] * D, D) == "log"
    assert as_transforms({}, D) is None
    for given, words in (
        ({"wage": "log"}, "has the column 'wage', and the samples have 0 to 2, or 'income'"),
        ({3: "log"}, "has the column 3"),
        (["log"], "one entry for each of the 3 columns, not 1"),
        ([], "one entry for each of the 3 columns, not 0"),
        ({0: 2.0}, "by column, not 2.0"),
    ):
        with pytest.raises(ismcore.OptionError, match=words):
            as_transforms(given, D, names)


@pytest.mark.parametrize(
    ("kind", "ends"),
    [
        (ismcore.Log, (np.nan,)),
        (ismcore.Log, (-np.inf,)),
        (ismcore.Log, ("0",)),
        (ismcore.Logit, (1.0, 1.0)),
        (ismcore.Logit, (0, np.inf)),
    ],
)
def test_ends_that_cannot_be_are_refused(kind, ends):
    with pytest.raises(ismcore.OptionError, match="ends of a transform must be finite numbers"):
        kind(*ends)


def test_rows_outside_of_a_range_are_named():
    result = ismcore.fit(X, transform=MIXED, model=MODELS["energy"], **QUICK)
    bad = AT.copy()
    bad[4, 2], bad[6, 0] = 5.0, -1.0
    words = r"2 of 9 rows .* the first is row 4, with 5 in column 2, and Logit\(.*\) is of numbers from -2 to 5"
    for ask in (result.score, result.divergence, result.jacobian, result.loss):
        with pytest.raises(ismcore.SamplesError, match=words):
            ask(bad)
    with pytest.raises(ismcore.SamplesError, match=words):
        ismcore.evaluate(result.model, result.params, bad, backend="autograd")
    for given in ({"x": bad}, {"x": X[9:], "validation": bad}):
        with pytest.raises(ismcore.SamplesError, match="with 5 in column 2"):
            ismcore.fit(**given, transform=MIXED, model=MODELS["mlp"], **{k: v for k, v in QUICK.items() if k not in given})
    outside = np.isinf(result.energy(bad))
    assert outside.tolist() == [row in (4, 6) for row in range(9)]
    np.testing.assert_allclose(result.energy(bad)[~outside], result.energy(AT)[~outside])


def test_a_density_is_0_outside_and_its_integral_1():
    x = np.random.default_rng(4).gamma(3.0, 2.0, size=800)
    options = {**QUICK, "dtype": "float32", "epochs": 60}
    result = ismcore.fit(x, transform="log", model=ismcore.MLP((8,)), **options)
    grid = np.linspace(-3.0, 90.0, 30_001)
    p = result.density(grid)
    assert not p[grid <= 0.0].any()
    assert np.trapezoid(p, grid) == pytest.approx(1.0, abs=2e-3)
    assert (result.sample(50, start=x, steps=200).x > 0.0).all()


def test_a_transform_of_ones_own_is_trained_behind_and_in_no_file(tmp_path):
    result = ismcore.fit(NORMAL, transform={1: Cubic()}, model=MODELS["mlp"], **QUICK)
    h = 1e-5
    slopes = [(result.score(NORMAL + h * e) - result.score(NORMAL - h * e))[:, i] / (2 * h) for i, e in enumerate(np.eye(D))]
    np.testing.assert_allclose(result.jacobian_diagonal(NORMAL), np.column_stack(slopes), rtol=1e-6, atol=1e-6)
    with pytest.raises(ismcore.ModelError, match="a file cannot hold"):
        result.save(tmp_path / "fit")


def test_edges_and_tails_that_a_transform_takes_away_are_told_as_taken_away():
    x = np.random.default_rng(5).exponential(size=(2000, 2))
    behind = ismcore.fit(x, transform="log", model=MODELS["mlp"], **QUICK)
    assert any("behind which columns have no end" in text for text in behind.notes)
    assert not any("integrates by parts" in text for text in behind.warnings)
    with pytest.warns(ismcore.IsmWarning, match="hard|edge"):
        half = ismcore.fit(x, transform={0: "log"}, model=MODELS["mlp"], **QUICK)
    assert any("integrates by parts" in text for text in half.warnings)


def test_a_run_behind_transforms_by_column_is_gone_on_with_to_the_same_bits(tmp_path):
    def stop(event):
        return ismcore.STOP if event.kind == "validation" and event.epoch == 2 else None

    plain = {"backend": "autograd", "epochs": 5, "progress": False, "model": ismcore.MLP((4,)), "transform": MIXED}
    whole = ismcore.fit(X, **plain)
    ismcore.fit(X, **plain, checkpoint=tmp_path / "run", callbacks=[stop])
    found = ismcore.resume(tmp_path / "run", X)
    assert found.coordinates == whole.coordinates
    assert found.score(AT).tobytes() == whole.score(AT).tobytes()
    warm = ismcore.fit(X, **{**plain, "initial_params": whole, "snapshots": [0]})
    np.testing.assert_allclose(warm.score(AT, epoch=0), whole.score(AT), rtol=1e-12)
