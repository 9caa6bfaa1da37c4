"""Song & Ermon's system end to end: a noise-conditional fit, then annealed Langevin dynamics."""

from dataclasses import replace

import numpy as np
import pytest
from truth import PLAIN, SMALL_SAMPLE

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


def test_equal_seeds_draw_equal_samples_on_every_backend():
    result = fit("autograd", [(5, 1e-2)], dtype="float64")
    drawn = [
        ismcore.annealed_langevin(replace(result, backend=name), 50, SCALES[:4], steps=5, seed=3)
        for name in ("autograd", "torch", "jax")
    ]
    for other in drawn[1:]:
        np.testing.assert_allclose(other, drawn[0], rtol=0, atol=1e-10)
    again = ismcore.annealed_langevin(result, 50, SCALES[:4], steps=5, seed=4)
    assert np.abs(again - drawn[0]).max() > 0.1


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
