"""Song & Ermon's system end to end: a noise-conditional fit, then annealed Langevin dynamics."""

import sys
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from truth import PLAIN, SMALL_SAMPLE, marked

import ismcore

pytestmark = pytest.mark.filterwarnings(*SMALL_SAMPLE, "ignore:along column 0 .* into clusters:ismcore.IsmWarning")

TARGET = ismcore.targets.GaussianMixture([0.3, 0.7], [[-2.0, 0.0], [2.0, 1.0]], [0.5, 0.3])
SCALES = tuple(np.geomspace(4.0, 0.05, 16))
MODEL = ismcore.NoiseConditional(ismcore.MLP((32, 32), "silu"))


def fit(backend, stages, **options):
    result, params = None, None
    for epochs, rate in stages:
        result = ismcore.fit(
            TARGET.sample(3000, seed=1),
            model=MODEL,
            objective=ismcore.NoiseConditionalScoreMatching(SCALES),
            optimizer=ismcore.Adam(rate),
            epochs=epochs,
            initial_params=params,
            seed=epochs,
            backend=backend,
            **{**PLAIN, **options},
        )
        params = result
    return result


@pytest.mark.slow
def test_samples_have_the_moments_and_mode_masses_of_exact_draws():
    result = fit("autograd", [(700, 5e-3), (300, 1e-3), (200, 2e-4)])
    drawn = ismcore.annealed_langevin(result, 2000, SCALES, steps=100, step_size=0.1, seed=2)
    exact = TARGET.sample(2000, seed=9)

    def statistics(x):
        return np.column_stack([x[:, 0] < 0.0, x, x**2, x[:, 0] * x[:, 1]])

    ours, theirs = statistics(drawn), statistics(exact)
    z = (ours.mean(axis=0) - theirs.mean(axis=0)) / np.sqrt((ours.var(axis=0) + theirs.var(axis=0)) / 2000)
    assert np.abs(z).max() < 4.0, z
    untrained = replace(result, params=MODEL.initial_params(0, 2))  # of standardised samples, as the result's are
    astray = statistics(ismcore.annealed_langevin(untrained, 2000, SCALES, steps=10, seed=2))
    assert np.abs(astray.mean(axis=0) - theirs.mean(axis=0)).max() > 1.0


@pytest.mark.parametrize("other", marked(("torch", "jax")))
def test_equal_seeds_draw_equal_samples_on_every_backend(other):
    result = fit("autograd", [(5, 1e-2)], dtype="float64")
    drawn, elsewhere = (
        ismcore.annealed_langevin(replace(result, backend=name), 50, SCALES[:4], steps=5, seed=3)
        for name in ("autograd", other)
    )
    np.testing.assert_allclose(elsewhere, drawn, rtol=0, atol=1e-10)
    again = ismcore.annealed_langevin(result, 50, SCALES[:4], steps=5, seed=4)
    assert np.abs(again - drawn).max() > 0.1


def test_one_step_is_song_and_ermon_s(backend):
    # With one scale and one step: z1 = s e0 + step/2 s^2 psi(s e0; s) + sqrt(step) s e1, then z1 + s^2 psi(z1; s)
    result = fit("autograd", [(3, 1e-2)], dtype="float64", standardize=False)
    s, step, n = 0.7, 0.2, 6

    def psi(z):
        h = np.concatenate([z, np.full((n, 1), np.log(s))], axis=1)
        for k in range(3):
            h = h @ result.params[f"layers.{k}.weight"].T + result.params[f"layers.{k}.bias"]
            h = h / (1.0 + np.exp(-h)) if k < 2 else h
        return h / s

    rng = ismcore.seeds.stream(5, "langevin")
    z = s * rng.standard_normal((n, 2))
    z = z + 0.5 * step * s**2 * psi(z) + np.sqrt(step) * s * rng.standard_normal((n, 2))
    at = replace(result, backend=backend)
    options = {"steps": 1, "step_size": step, "seed": 5}
    np.testing.assert_allclose(ismcore.annealed_langevin(at, n, [s], denoise=False, **options), z, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ismcore.annealed_langevin(at, n, [s], **options), z + s**2 * psi(z), rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.score(z, context=s), psi(z), rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.score(z, context=np.full((n, 1), s)), psi(z), rtol=0, atol=1e-12)


def test_samples_come_back_in_the_users_units():
    x = TARGET.sample(300, seed=1)
    options = {"model": MODEL, "objective": ismcore.NoiseConditionalScoreMatching(SCALES), "epochs": 3, "dtype": "float64"}
    plain, moved = (ismcore.fit(data, backend="autograd", **options) for data in (x, 100.0 * x + 7.0))
    drawn = [ismcore.annealed_langevin(result, 20, SCALES[:3], steps=3) for result in (plain, moved)]
    np.testing.assert_allclose(drawn[1], 100.0 * drawn[0] + 7.0, rtol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"noise_scales": [0.1, 1.0]}, "fall from the largest"),
        ({"noise_scales": []}, "fall"),
        ({"noise_scales": [1.0, -1.0]}, "positive"),
        ({"noise_scales": [1.0], "step_size": 0.0}, "positive"),
        ({"noise_scales": [1.0], "n": 0}, "n and steps"),
    ],
)
def test_unusable_arguments_are_refused(arguments, words):
    result = fit("autograd", [(1, 1e-2)])
    with pytest.raises(ismcore.OptionError, match=words):
        ismcore.annealed_langevin(result, **{"n": 5, **arguments})


@pytest.mark.parametrize("standardize", [True, False])
def test_langevin_dynamics_that_blow_up_say_at_which_step(standardize, backend):
    # psi = -g z / s^2: a step is z (1 - a g / 2), with g = 1 until a = step_size > 4, where it grows by a / 2 - 1
    model = ismcore.ScoreFunction(lambda ops, params, x, s: -params["g"] * x / (s * s), {"g": 1.0})
    objective = ismcore.NoiseConditionalScoreMatching((2.0, 1.0))
    result = ismcore.fit(
        TARGET.sample(100), model=model, objective=objective, epochs=1, standardize=standardize, backend=backend, validation=0
    )
    result = replace(result, params={"g": np.array(1.0)})
    calm = ismcore.annealed_langevin(result, 20, (2.0, 1.0), steps=200, step_size=1.0)
    assert np.isfinite(calm).all()
    with pytest.raises(
        ismcore.Diverged, match=r"step \d+, number \d+ at noise scale 2, .* smaller step_size than 24"
    ) as caught:
        ismcore.annealed_langevin(result, 20, (2.0, 1.0), steps=200, step_size=24.0)
    # by 11 a step: to 1e6 standard deviations in 5 or 6, to the end of float32 in 36 or 37
    assert caught.value.epoch in (range(5, 8) if standardize else range(35, 39))


def test_a_noise_conditional_score_needs_its_scale():
    result = fit("autograd", [(1, 1e-2)])
    with pytest.raises(ismcore.ModelError, match="needs a noise scale"):
        result.score([[0.0, 0.0]])
    with pytest.raises(ismcore.ModelError, match="takes no context"):
        ismcore.fit(TARGET.sample(50), model=ismcore.MLP(), objective=ismcore.NoiseConditionalScoreMatching(SCALES), epochs=1)


def touching_modes(n, seed=0):
    """0.3 N((-1.5, 0, 0), I) + 0.7 N((1.5, 0, 0), I), (n, 3), moved and scaled."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    x[:, 0] += np.where(rng.random(n) < 0.3, -1.5, 1.5)
    return x * [2.0, 0.1, 30.0] + [5.0, -1.0, 100.0]


SHORT = {"epochs": 60, "dtype": "float64", "seed": 1}


@pytest.mark.parametrize("model", [ismcore.Energy(ismcore.MLP((8,), "softplus")), ismcore.MLP((8,))], ids=["energy", "score"])
def test_draws_are_the_same_on_every_backend_after_two_hundred_steps(model):
    x = touching_modes(400)
    fitted = ismcore.fit(x, model=model, backend="autograd", **SHORT)
    found = []
    for name in ("autograd", "torch", "jax"):
        draws = replace(fitted, backend=name).sample(120, start=x, steps=150, thin=25, seed=3)
        assert draws.x.shape == (120, 3)
        found.append(draws.x / x.std(axis=0))
    np.testing.assert_allclose(found[1], found[0], atol=1e-10)
    np.testing.assert_allclose(found[2], found[0], atol=1e-10)


def test_chains_stand_on_a_grid_which_forgets_the_rounding_of_a_backend():
    x = touching_modes(100)
    fitted = ismcore.fit(x, model=ismcore.Affine(), backend="autograd", **SHORT)
    steps = fitted.coordinates(fitted.sample(100).x) * 2.0**24
    np.testing.assert_allclose(steps, np.round(steps), rtol=0.0, atol=1e-3)


@pytest.mark.slow
def test_draws_of_an_energy_are_those_of_the_fitted_law():
    x = np.concatenate([np.random.default_rng(0).normal(size=400) - 3.0, np.random.default_rng(1).normal(size=1200)]) * 7.0
    fitted = ismcore.fit(x, model=ismcore.Energy(ismcore.MLP((16,), "softplus")), backend="autograd", **SHORT)
    draws = fitted.sample(20_000, start=x, seed=1)
    grid = np.linspace(-80.0, 40.0, 4001)
    density = fitted.density(grid)
    mean = np.trapezoid(density * grid, grid)
    sd = np.sqrt(np.trapezoid(density * (grid - mean) ** 2, grid))
    share = np.trapezoid(density[grid < -12.0], grid[grid < -12.0])
    error = 4.0 / np.sqrt(draws.effective[0])
    assert 0.5 < draws.acceptance < 0.65
    assert abs(draws.x.mean() - mean) < error * sd
    assert abs(draws.x.std() / sd - 1.0) < error
    assert abs(np.mean(draws.x < -12.0) - share) < 4.0 * np.sqrt(share / draws.effective[0])
    assert len(np.asarray(draws)) == len(draws) == 20_000


@pytest.mark.slow
def test_draws_of_a_linear_score_are_normal_and_their_chains_agree():
    x = touching_modes(3000)
    draws = ismcore.fit(x, model=ismcore.Affine(), backend="autograd", **SHORT).sample(20_000, seed=2)
    np.testing.assert_allclose(draws.x.mean(axis=0), x.mean(axis=0), atol=0.05 * x.std(axis=0).max())
    np.testing.assert_allclose(draws.x.std(axis=0) / x.std(axis=0), 1.0, atol=0.03)
    assert draws.r_hat.max() < 1.05
    assert not draws.warnings
    assert draws.effective.min() > 2000.0


def test_chains_that_keep_the_shares_of_their_start_are_told():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(200, 1)) - 30.0, rng.normal(size=(800, 1)) + 30.0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = ismcore.fit(x, model=ismcore.Energy(ismcore.MLP((16,), "tanh")), backend="autograd", **SHORT)
    unseen = replace(fitted, modes=None)  # as of modes that only an oblique direction tells apart
    with pytest.warns(ismcore.IsmWarning, match="the chains disagree"):
        draws = unseen.sample(2000, start=x)
    assert draws.r_hat[0] > 1.5
    assert "chains disagree" in repr(draws)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 0}, "n must be"),
        ({"steps": 1.5}, "steps must"),
        ({"thin": True}, "thin must"),
        ({"step_size": -1.0}, "step_size"),
    ],
)
def test_options_of_sampling_are_checked(options, words):
    fitted = ismcore.fit(touching_modes(60), model=ismcore.Affine(), backend="autograd", **SHORT)
    with pytest.raises(ismcore.OptionError, match=words):
        fitted.sample(**{"n": 10, **options})


def test_a_score_that_is_of_no_law_is_told():
    fitted = ismcore.fit(touching_modes(60), model=ismcore.Affine(), backend="autograd", **SHORT)
    away = replace(fitted, params={**fitted.params, "weight": -fitted.params["weight"]})
    with pytest.warns(ismcore.IsmWarning, match="is that of no law"):
        away.sample(10, step_size=1.0)
    with pytest.raises(ismcore.Diverged, match="blew up in step 1 of"):
        away.sample(10, step_size=1e14)


def test_a_noise_conditional_fit_needs_no_ladder_and_its_draws_come_down_its_own():
    x = touching_modes(200)
    fitted = ismcore.fit(x, model=ismcore.NoiseConditional(ismcore.MLP((8,))), backend="autograd", epochs=60, seed=1)
    ladder = ismcore.noise_ladder(x)
    assert fitted.objective.noise_scales == ladder
    draws = fitted.sample(30, steps=10, seed=4)
    np.testing.assert_array_equal(draws.x, ismcore.annealed_langevin(fitted, 30, ladder, steps=10, seed=4))
    assert draws.chains == 30
    assert "annealed" in repr(draws)
    with pytest.raises(ismcore.OptionError, match="start from noise"):
        fitted.sample(30, start=x)
    free = ismcore.fit(x, model=ismcore.Affine(), backend="autograd", **SHORT)
    with pytest.raises(ismcore.OptionError, match="no ladder"):
        ismcore.annealed_langevin(free, 30)


@pytest.mark.slow
def test_chains_of_the_default_fit_stay_in_its_law():
    x = touching_modes(400)
    fitted = ismcore.fit(x, backend="autograd", epochs=20, dtype="float64")
    assert isinstance(fitted.model.inner, ismcore.models.Combination)
    draws = fitted.sample(3000, start=x, seed=1)
    np.testing.assert_allclose(draws.x.std(axis=0) / x.std(axis=0), 1.0, atol=0.1)
    assert draws.r_hat.max() < 1.1


def test_the_agreement_of_chains_is_known_of_a_few_draws():
    x = touching_modes(300)
    fitted = ismcore.fit(x, model=ismcore.Affine(), backend="autograd", **SHORT)
    few = fitted.sample(7, start=x)
    assert len(few) == few.chains == 7
    assert few.r_hat.max() < 1.1
    apart = replace(fitted, params={**fitted.params, "weight": 1e-9 * fitted.params["weight"]})
    with pytest.warns(ismcore.IsmWarning, match="still that of where the chains began"):
        apart.sample(1, start=x, steps=100, step_size=1e-3)


def test_draws_for_arviz_have_chains_draws_and_columns(monkeypatch):
    fitted = ismcore.fit(touching_modes(60), model=ismcore.Affine(), backend="autograd", **SHORT)
    draws = fitted.sample(250)
    assert (draws.each, draws.chains) == (3, 84)  # the last has one
    given = {}
    stand_in = SimpleNamespace(from_dict=lambda groups, dims, **options: given.update(groups["posterior"], dims=dims))
    monkeypatch.setitem(sys.modules, "arviz_base", stand_in)
    draws.to_arviz()
    np.testing.assert_array_equal(given["x"], draws.x[:249].reshape(83, 3, 3))
    assert given["dims"] == {"x": ["column"]}
    monkeypatch.setitem(sys.modules, "arviz_base", None)
    with pytest.raises(ismcore.errors.PlottingMissing, match=r"ismcore\[arviz\]"):
        draws.to_arviz()


def test_draws_for_arviz_are_a_tree_of_data():
    draws = ismcore.fit(touching_modes(60), model=ismcore.Affine(), backend="autograd", **SHORT).sample(200)
    assert dict(draws.to_arviz()["posterior"].sizes) == {"chain": 100, "draw": 2, "column": 3}
