"""Noise scales: contexts, units, ladders, and denoising whose variance stays bounded as the noise becomes small."""

import numpy as np
import pytest
from truth import SMALL_SAMPLE

import ismcore
from ismcore.seeds import stream

pytestmark = pytest.mark.filterwarnings(*SMALL_SAMPLE)

D = 3
MODEL = ismcore.NoiseConditional(ismcore.MLP((6,), "tanh"))
LADDER = ismcore.NoiseConditionalScoreMatching((1.5, 0.9, 0.4))
X = np.random.default_rng(5).normal(size=(40, D)) * [1.0, 3.0, 0.2] + 2.0


def fitted(x=X, objective=LADDER, **options):
    options = {"model": MODEL, "epochs": 2, "dtype": "float64", "backend": "autograd", "progress": False, **options}
    return ismcore.fit(x, objective=objective, **options)


def by_hand(params, z, s):
    """psi(z; s) and its Jacobian's diagonal."""
    first, last = params["layers.0.weight"], params["layers.1.weight"]
    h = np.tanh(np.c_[z, np.log(s)] @ first.T + params["layers.0.bias"])
    slope = np.einsum("ik,nk,ki->ni", last, 1.0 - h * h, first[:, :D])
    return (h @ last.T + params["layers.1.bias"]) / s, slope / s


def test_score_and_jacobian_are_those_at_the_context(backend):
    params = MODEL.initial_params(1, D)
    scales = np.linspace(0.3, 2.0, len(X))[:, None]
    for context, s in ((0.7, np.full((len(X), 1), 0.7)), (scales[:, 0], scales), (scales, scales)):
        psi, diagonal = by_hand(params, X, s)
        at = ismcore.evaluate(MODEL, params, X, backend=backend, context=context)
        np.testing.assert_allclose(at.score, psi, rtol=0, atol=1e-12)
        np.testing.assert_allclose(at.jacobian_diagonal, diagonal, rtol=0, atol=1e-12)
        np.testing.assert_allclose(at.terms, (0.5 * psi * psi + diagonal).sum(axis=1), rtol=0, atol=1e-12)
        assert abs(at.loss - at.terms.mean()) < 1e-12


def test_the_loss_of_a_noise_conditional_fit_draws_its_scales_or_takes_one(backend):
    result = fitted(backend=backend)
    z = result.coordinates(X)
    for context in (None, 0.8):
        drawn = LADDER.draws(stream(0, "draws", 0), *X.shape)
        s = drawn["noise_scale"] if context is None else np.full((len(X), 1), context)
        psi, _ = by_hand(result.params, z + s * drawn["noise"], s)
        right = 0.5 * np.sum((s * psi + drawn["noise"]) ** 2, axis=1).mean()
        assert abs(result.loss(X, context=context) - right) < 1e-12


def test_a_result_gives_divergence_and_jacobian_at_its_context(backend):
    result = fitted(backend=backend)
    _, diagonal = by_hand(result.params, result.coordinates(X), np.full((len(X), 1), 0.5))
    np.testing.assert_allclose(result.jacobian_diagonal(X, context=0.5), diagonal / result.coordinates.scale**2, rtol=1e-10)
    np.testing.assert_allclose(
        result.divergence(X, context=0.5), (diagonal / result.coordinates.scale**2).sum(axis=1), rtol=1e-9
    )


BAD = {
    "zero": (0.0, "positive finite number of float.*; context is 0 in row 0"),
    "one below zero": (np.r_[1.0, -2.0, np.ones(38)], "context is -2 in row 1"),
    "infinite": (np.inf, "positive finite"),
    "not a number": (np.full((40, 1), np.nan), "positive finite"),
    "too few": (np.ones(7), r"\(40,\) or \(40, 1\) for 40 points, not of shape \(7,\)"),
    "two columns": (np.ones((40, 2)), r"not of shape \(40, 2\)"),
    "text": ("wide", "must be numbers"),
}


@pytest.mark.parametrize(("context", "words"), BAD.values(), ids=BAD)
def test_a_context_that_is_no_noise_scale_is_refused(context, words):
    result = fitted()
    for call in (result.score, result.jacobian_diagonal, result.divergence, result.loss):
        with pytest.raises(ismcore.OptionError, match=words):
            call(X, context=context)
    with pytest.raises(ismcore.OptionError, match=words):
        ismcore.evaluate(MODEL, result.params, X, LADDER, backend="autograd", context=context)


@pytest.mark.parametrize("context", [1e-42, 2e-308, 1e39, 1e300])
def test_a_noise_scale_beyond_the_dtype_of_the_fit_is_refused(context):
    """It would be 0 or infinite there, and the score NaN."""
    result = ismcore.fit(X, model=MODEL, objective=LADDER, backend="autograd", epochs=2)
    for call in (result.score, result.jacobian_diagonal, result.loss):
        with pytest.raises(ismcore.OptionError, match=r"a positive finite number of float32; context is .* in row 0"):
            call(X, context=np.full(len(X), context))
    assert np.isfinite(result.score(X, context=1e-30)).all()


@pytest.mark.parametrize("scales", [0.5, "12", None, [[1.0, 0.5]]])
def test_a_ladder_that_is_no_sequence_of_numbers_is_refused(scales):
    with pytest.raises(ismcore.OptionError, match="noise_scales must be a sequence of numbers, not"):
        ismcore.NoiseConditionalScoreMatching(scales)


@pytest.mark.parametrize("counts", [{"n": 2.5}, {"n": 5, "steps": 2.5}, {"n": "5"}])
def test_draws_and_steps_are_whole_numbers(counts):
    with pytest.raises(ismcore.OptionError, match="n and steps must be whole numbers from 1, not"):
        ismcore.annealed_langevin(fitted(), **counts)


def test_a_model_without_context_refuses_one_though_its_loss_does_not_ask():
    with pytest.raises(ismcore.ModelError, match="takes no context"):
        ismcore.evaluate(ismcore.MLP((4,)), None, X, backend="autograd", context=1.0)


def test_another_context_than_a_noise_scale_may_be_negative(backend):
    model = ismcore.ScoreFunction(lambda ops, params, x, c: params["a"] * x * c[:, :1] + c[:, 1:], {"a": 2.0})
    context = np.stack([np.linspace(-1.0, 1.0, 40), np.zeros(40)], axis=1)
    at = ismcore.evaluate(model, None, X, backend=backend, context=context)
    np.testing.assert_allclose(at.score, 2.0 * X * context[:, :1], rtol=1e-12)


def test_a_ladder_in_the_samples_units_is_the_same_fit_as_one_relative_to_their_spread(backend):
    spread = np.sqrt(np.mean(X.var(axis=0)))
    wide = ismcore.NoiseConditionalScoreMatching(tuple(s * spread for s in LADDER.noise_scales), units="x")
    options = {"validation": 0, "backend": backend}
    relative, absolute = fitted(**options), fitted(objective=wide, **options)
    np.testing.assert_allclose(absolute.history["loss"], relative.history["loss"], rtol=1e-9)
    for name, value in relative.params.items():
        np.testing.assert_allclose(absolute.params[name], value, rtol=0, atol=1e-10)
    np.testing.assert_allclose(absolute.score(X, context=0.6 * spread), relative.score(X, context=0.6), rtol=1e-9)
    assert abs(absolute.loss(X) - relative.loss(X)) < 1e-9
    assert abs(absolute.loss(X, context=spread) - relative.loss(X, context=1.0)) < 1e-9
    drawn = [ismcore.annealed_langevin(result, 9, result.objective.noise_scales, steps=3) for result in (absolute, relative)]
    np.testing.assert_allclose(*drawn, rtol=1e-9)


def test_units_of_a_ladder_survive_a_file(tmp_path):
    objective = ismcore.NoiseConditionalScoreMatching((3.0, 1.0), units="x")
    result = fitted(objective=objective)
    result.save(tmp_path / "fit.safetensors")
    loaded = ismcore.load(tmp_path / "fit.safetensors")
    assert loaded.objective.units == "x"
    np.testing.assert_array_equal(loaded.score(X, context=2.0), result.score(X, context=2.0))


def test_a_ladder_from_the_samples_ends_at_their_distances():
    # on a grid of step h in the plane every nearest neighbour is at h, and the largest distance the diagonal
    h, side = 0.25, 12
    x = h * np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2)
    ladder = ismcore.noise_ladder(x)
    np.testing.assert_allclose([ladder[0], ladder[-1]], [h * (side - 1) * np.sqrt(2.0), h / np.sqrt(2.0)], rtol=1e-9)
    ratios = np.array(ladder[:-1]) / np.array(ladder[1:])
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-9)
    assert 1.0 < ratios[0] <= 1.5
    np.testing.assert_allclose(ismcore.noise_ladder(1e6 * x + 3.0), 1e6 * np.array(ladder), rtol=1e-6)
    np.testing.assert_allclose(ismcore.noise_ladder(x, units="spread"), np.array(ladder) / x.std(axis=0)[0], rtol=1e-9)
    assert len(ismcore.noise_ladder(x, 5)) == 5
    copies = np.repeat(x, 2, axis=0)
    np.testing.assert_allclose(ismcore.noise_ladder(copies), ladder, rtol=1e-9)  # a copy is no neighbour


def test_more_dimensions_take_a_finer_ladder():
    rng = np.random.default_rng(0)
    ratios = []
    for d in (2, 60, 400):
        ladder = ismcore.noise_ladder(rng.normal(size=(100, d)))
        ratios.append(ladder[0] / ladder[1])
    assert 1.5 >= ratios[0] > ratios[1] > ratios[2] > 1.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([1.0, 1.0, 2.0],), "three rows that differ"),
        (([1.0, 1.0],), "constant"),
        (([1.0, 2.0, 4.0], 1), "count must be"),
        (([1.0, 2.0, 4.0], 2.5), "count must be"),
    ],
)
def test_what_gives_no_ladder_is_refused(arguments, words):
    with pytest.raises(ismcore.IsmError, match=words):
        ismcore.noise_ladder(*arguments)
    with pytest.raises(ismcore.OptionError, match="units must be one of"):
        ismcore.noise_ladder([1.0, 2.0, 4.0], units="cm")
    with pytest.raises(ismcore.OptionError, match="units must be one of"):
        ismcore.NoiseConditionalScoreMatching((1.0,), units="cm")


def advice(objective, x=X, **options):
    with pytest.warns(ismcore.IsmWarning) if options.pop("warns", True) else pytest.MonkeyPatch.context():
        found = fitted(x, objective, **options).warnings
    return " ".join(text for text in found if "noise scale" in text)


def test_an_unfit_ladder_is_told_of():
    ladder = ismcore.NoiseConditionalScoreMatching
    assert "wider than the samples' spread, 1" in advice(ladder((700.0, 500.0, 300.0)))
    assert "pass units='x'" in advice(ladder((700.0, 500.0, 300.0)))
    assert "too short" in advice(ladder((0.3, 0.2)))
    assert "too short" in advice(ladder((3.0, 2.0), units="x"), 1e3 * X)
    wide = np.random.default_rng(0).normal(size=(300, 12))
    assert "too coarse" in advice(ladder((30.0, 1.0)), wide)
    for good in (ladder(ismcore.noise_ladder(wide), units="x"), ladder(ismcore.noise_ladder(wide, units="spread"))):
        assert advice(good, wide, warns=False) == ""
    assert advice(ladder((2.0, 1.0)), warns=False) == ""


def gradients(objective, n, draws=60):
    """Gradients of Affine's weight at -K, by seeds."""
    x = np.random.default_rng(0).normal(size=(n, D))
    params = {"weight": -np.eye(D), "bias": np.zeros(D)}
    found = [ismcore.evaluate(ismcore.Affine(), params, x, objective, backend="autograd", seed=k) for k in range(draws)]
    return np.array([each.gradient["weight"] for each in found])


def test_the_variance_of_denoising_stays_bounded_as_the_noise_becomes_small():
    # gradient of e^T J e in W is e e^T: a variance of 1 off the diagonal, 2 on it, and of 1/2 (W x)^2 none as s -> 0
    n = 200
    for s in (1e-1, 1e-3, 1e-5):
        variance = n * gradients(ismcore.DenoisingScoreMatching(s), n).var(axis=0)
        assert variance.mean() < 2.0 * 4.0 / 3.0  # 4/3 in expectation; 540 numbers, standard error about 0.1
        plain = n * gradients(ismcore.DenoisingScoreMatching(s, variance_reduced=False), n).var(axis=0)
        assert plain.mean() > 0.3 / s**2


def test_both_forms_of_denoising_have_one_expectation():
    x = np.random.default_rng(2).normal(size=(50_000, D))
    params = MODEL.net.initial_params(3, D)
    s = 0.6
    one, other = (
        ismcore.evaluate(MODEL.net, params, x, ismcore.DenoisingScoreMatching(s, variance_reduced=reduced), backend="autograd")
        for reduced in (True, False)
    )
    assert abs(one.loss - (other.loss - 0.5 * D / s**2)) < 5.0 * other.terms.std() / np.sqrt(len(x))
    for name, slope in one.gradient.items():
        np.testing.assert_allclose(slope, other.gradient[name], rtol=0, atol=0.03)


def test_denoising_by_a_tiny_noise_learns_the_score():
    a = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, -0.3, 0.5]])
    x = np.random.default_rng(0).normal(size=(4000, D)) @ a.T
    found = ismcore.solve(ismcore.Affine(), x, ismcore.DenoisingScoreMatching(1e-4), backend="autograd").params["weight"]
    right = -np.linalg.inv(a @ a.T)
    assert np.linalg.norm(found - right) < 0.1 * np.linalg.norm(right)


def test_noise_that_is_given_makes_the_plain_terms_unless_asked(backend):
    noise = np.random.default_rng(1).normal(size=X.shape)
    params = {"weight": np.diag([-1.0, -0.2, -3.0]), "bias": np.ones(D)}
    s = 0.3
    psi = [(X + sign * s * noise) @ params["weight"].T + 1.0 for sign in (1.0, -1.0)]
    plain = 0.5 * ((psi[0] + noise / s) ** 2).sum(axis=1)
    reduced = (0.25 * (psi[0] ** 2 + psi[1] ** 2) + (psi[0] - psi[1]) * noise / (2.0 * s)).sum(axis=1)
    for option, right in (({}, plain), ({"variance_reduced": True}, reduced)):
        objective = ismcore.DenoisingScoreMatching(s, noise, **option)
        found = ismcore.evaluate(ismcore.Affine(), params, X, objective, backend=backend)
        np.testing.assert_allclose(found.terms, right, rtol=1e-12)


def test_denoising_that_drowns_or_rounds_is_told_of():
    objective = ismcore.DenoisingScoreMatching
    options = {"model": ismcore.Affine(), "dtype": "float32"}
    assert "too small against the samples' spread" in advice(objective(0.01, variance_reduced=False), **options)
    assert "too small for float32" in advice(objective(1e-7), **options)
    assert advice(objective(1e-7), **{**options, "dtype": "float64"}, warns=False) == ""
    assert advice(objective(0.01), **options, warns=False) == ""
