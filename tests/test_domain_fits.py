"""Fits on domains: the weighted objective, its closed-form floor, and what a fit says of its edges."""

from dataclasses import replace

import numpy as np
import pytest

import ismcore
from ismcore.cli.main import main
from ismcore.domains import Box, Halfspaces, Positive, Reals
from ismcore.training.truncated import TruncatedNormal

QUICK = {"backend": "autograd", "progress": False}
ORTHANT = Halfspaces(-np.eye(2), np.zeros(2))


def half_normal(n, d=1, seed=0):
    return np.abs(np.random.default_rng(seed).normal(size=(n, d)))


def weighted_error(result, x, score):
    """E h |psi - s|^2 / E h |s|^2."""
    h = result.objective.domain.weights(x)[0]
    return float(np.mean(h * (result.score(x) - score) ** 2) / np.mean(h * score**2))


@pytest.mark.parametrize("recipe", ["single", "default"])
def test_half_normal_has_its_score_up_to_the_edge(recipe):
    x, fresh = half_normal(2000), half_normal(5000, seed=1)
    result = ismcore.fit(x, domain=Positive(), recipe=recipe, epochs=60, **QUICK)
    assert weighted_error(result, fresh, -fresh) < 0.05
    assert result.coordinates.mean.tolist() == [0.0]
    assert not any("edge" in text for text in result.warnings)
    assert any("domain=Positive" in text for text in result.notes)


def test_without_a_domain_the_edge_is_a_warning():
    with pytest.warns(ismcore.IsmWarning, match=r"fit\(domain=.auto.\)"):
        ismcore.fit(half_normal(2000), recipe="single", epochs=2, **QUICK)


@pytest.mark.parametrize("domain", [Positive(0.7), Box((0.0, None), (None, 4.5), 0.9), ORTHANT.measured(half_normal(9, 2))])
def test_floor_minimises_the_objective_of_a_symmetric_affine_score(domain):
    x, w = half_normal(300, 2), np.random.default_rng(3).dirichlet(np.ones(300))
    law = TruncatedNormal.of(x, domain, w)
    np.testing.assert_allclose(law.weight, law.weight.T, rtol=1e-12)
    objective = ismcore.ImplicitScoreMatching(domain=domain)
    at = ismcore.evaluate(ismcore.Affine(), law.score_params(), x, objective, sample_weight=w, backend="autograd")
    assert at.loss == pytest.approx(w @ law.terms(x), rel=1e-12)
    np.testing.assert_allclose(at.gradient["weight"] + at.gradient["weight"].T, 0.0, atol=1e-11)
    np.testing.assert_allclose(at.gradient["bias"], 0.0, atol=1e-11)


def test_floor_of_an_exponential_law_is_its_rate():
    x = np.random.default_rng(0).exponential(0.5, size=(200_000, 1))
    law = TruncatedNormal.of(x, Positive(0.5))
    np.testing.assert_allclose(law.bias, [-2.0], atol=0.05)
    np.testing.assert_allclose(law.weight, [[0.0]], atol=0.05)


def test_scaling_the_samples_scales_the_score():
    x = half_normal(300, 2)
    options = {"recipe": "single", "epochs": 5, "dtype": "float64", **QUICK}
    one, other = (ismcore.fit(scale * x, domain=Positive(), **options) for scale in (1.0, 1024.0))
    np.testing.assert_allclose(other.score(1024.0 * x), one.score(x) / 1024.0, rtol=1e-9)


def test_an_edge_far_from_zero_is_kept():
    x = half_normal(300)
    options = {"recipe": "single", "epochs": 5, "dtype": "float64", **QUICK}
    near, far = (ismcore.fit(x + at, domain=Box(at, None), **options) for at in (0.0, 4096.0))
    assert far.coordinates.mean.tolist() == [4096.0]
    np.testing.assert_allclose(far.score(x + 4096.0), near.score(x), rtol=1e-6, atol=1e-6)


def test_whole_space_is_no_domain():
    x = np.random.default_rng(0).normal(size=(200, 2))
    options = {"recipe": "single", "epochs": 3, **QUICK}
    one, other = ismcore.fit(x, **options), ismcore.fit(x, domain=Reals(), **options)
    assert other.objective.domain is None
    np.testing.assert_array_equal(one.score(x), other.score(x))


@pytest.mark.parametrize("domain", [Positive(), Box((0.0, None), 9.0), ORTHANT], ids=["positive", "box", "halfspaces"])
def test_result_and_checkpoint_keep_the_domain(domain, tmp_path):
    x, path = half_normal(200, 2), tmp_path / "run.safetensors"
    options = {"recipe": "single", "dtype": "float64", "batch_size": 50, **QUICK}
    whole = ismcore.fit(x, domain=domain, epochs=6, schedule="constant", **options)
    ismcore.fit(x, domain=domain, epochs=3, schedule="constant", checkpoint=path, **options)
    resumed = ismcore.resume(path, x, epochs=6, progress=False)
    for name, value in whole.params.items():
        np.testing.assert_array_equal(resumed.params[name], value)
    whole.save(tmp_path / "fit.safetensors")
    loaded = ismcore.load(tmp_path / "fit.safetensors")
    assert loaded.objective == whole.objective
    assert loaded.objective.domain.width is not None
    assert loaded.loss(x) == whole.loss(x)


def test_loss_of_a_result_is_the_weighted_one():
    x = half_normal(200, 2)
    result = ismcore.fit(x, domain=Positive(), recipe="single", epochs=5, dtype="float64", validation=0, **QUICK)
    h, slope = result.objective.domain.weights(x)
    psi, diagonal, scale = result.score(x), result.jacobian_diagonal(x), result.coordinates.scale
    terms = (h * (0.5 * psi**2 + diagonal) + slope * psi) * scale**2  # as trained on: the columns are scaled
    assert result.loss(x) == pytest.approx(terms.sum(axis=1).mean(), rel=1e-9)


def test_check_judges_by_the_weighted_objective():
    x = half_normal(1000)
    good = ismcore.fit(x, domain=Positive(), recipe="single", model=ismcore.Affine(), epochs=40, **QUICK)
    found = good.check(half_normal(2000, seed=5))
    assert found.verdict != "fault found"
    assert [line.name for line in found.lines if line.fault] == []
    with pytest.raises(ismcore.SamplesError, match="outside of the domain"):
        good.check(np.random.default_rng(0).normal(size=(500, 1)))


def test_check_finds_a_wrong_score_on_a_domain():
    x = half_normal(1000)
    wrong = ismcore.fit(2.0 * x, domain=Positive(), recipe="single", model=ismcore.Affine(), epochs=40, **QUICK)
    assert wrong.check(half_normal(2000, seed=5)).verdict == "fault found"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"domain": "positive"}, "one of ismcore.domains"),
        ({"domain": Positive(), "standardize": "whiten"}, "leave one of the two away"),
        ({"domain": Positive(), "transform": "asinh"}, "leave one of the two away"),
        ({"domain": Positive(), "objective": ismcore.SlicedScoreMatching()}, "no form on a domain"),
        ({"domain": Positive(), "objective": ismcore.ImplicitScoreMatching(domain=Box(0.0, 9.0))}, "not that of the objective"),
        ({"domain": Box((0.0, 0.0, 0.0), None)}, "of 3"),
    ],
)
def test_what_does_not_go_with_a_domain_is_refused(options, words):
    with pytest.raises(ismcore.OptionError, match=words):
        ismcore.fit(half_normal(200, 2), recipe="single", epochs=1, **options, **QUICK)


def test_rows_outside_are_refused_wherever_samples_are_taken():
    x = np.r_[half_normal(100), [[-1.0]]]
    objective = ismcore.ImplicitScoreMatching(domain=Positive())
    with pytest.raises(ismcore.SamplesError, match="row 100"):
        ismcore.fit(x, domain=Positive(), **QUICK)
    with pytest.raises(ismcore.SamplesError, match="outside of the domain"):
        ismcore.fit(x[:50], validation=x[50:], objective=objective, **QUICK)
    with pytest.raises(ismcore.SamplesError, match="row 100"):
        ismcore.evaluate(ismcore.Affine(), None, x, objective, backend="autograd")


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("positive", Positive()),
        ("box:0,1.5", Box(0.0, 1.5)),
        ("box:0,", Box(0.0, None)),
        ('{"lower": [0, null], "upper": 3}', Box((0.0, None), 3.0)),
        ('{"A": [[-1, 0]], "b": [0]}', Halfspaces([[-1, 0]], [0])),
    ],
)
def test_domain_of_the_command_line(text, domain, tmp_path):
    data, out = tmp_path / "x.npy", tmp_path / "fit.safetensors"
    np.save(data, np.abs(half_normal(100, 2)).clip(0.0, 1.4))
    if text.startswith("{"):
        (tmp_path / "domain.json").write_text(text)
        text = str(tmp_path / "domain.json")
    command = ["fit", str(data), "--out", str(out), "--recipe", "single", "--epochs", "1", "--backend", "autograd", "--quiet"]
    assert main([*command, "--domain", text]) == 0
    found = ismcore.load(out).objective.domain
    assert replace(found, width=None) == domain


@pytest.mark.parametrize("text", ["negative", "box:1", "box:1,0", "box:a,b"])
def test_what_is_no_domain_on_the_command_line_is_refused(text, capsys):
    with pytest.raises(SystemExit):
        main(["fit", "x.npy", "--domain", text])
    assert "box:LOW,HIGH" in capsys.readouterr().err


def test_moving_samples_keep_to_the_domain_of_the_objective():
    x = half_normal(300)
    step = ismcore.Refit(
        x,
        model=ismcore.Affine(),
        objective=ismcore.ImplicitScoreMatching(domain=Positive()),
        backend="autograd",
        dtype="float64",
    )
    step.update(steps=2)
    step.update(1.1 * x, steps=2)
    assert step.result().objective.domain.width is not None
    with pytest.raises(ismcore.SamplesError, match="outside of the domain"):
        step.update(x - 1.0, steps=1)
