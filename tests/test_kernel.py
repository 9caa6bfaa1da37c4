"""The second yardstick of a fit, a kernel density estimate: its loss, and when a fit is told that it is poor."""

import itertools

import numpy as np
import pytest
from truth import correlated

import ismcore
from ismcore.models import MLP
from ismcore.training.kernel import kernel_terms

rng = np.random.default_rng
POOR = "the fit is poor beside a kernel density estimate"
QUICK = {"backend": "autograd", "progress": False, "recipe": "single"}


def log_density(x, z, weight, h):
    return np.log(np.sum(weight * np.exp(-0.5 * np.sum((x - z) ** 2, axis=1) / h**2)))


@pytest.mark.parametrize("weight", [np.ones(7), rng(1).uniform(0.1, 3.0, 7)], ids=["alike", "weighted"])
def test_the_terms_are_those_of_central_differences(weight):
    z, h, e = rng().normal(size=(7, 3)), 0.6, 1e-4
    points = rng(2).normal(size=(5, 3))
    for at, left_out in ((points, False), (z[:5], True)):
        found = kernel_terms(z, weight, at, h, left_out=left_out)
        for i, x in enumerate(at):
            rows = np.arange(7) != i if left_out else slice(None)
            up, here, down = (
                [log_density(x + sign * step, z[rows], weight[rows], h) for step in e * np.eye(3)] for sign in (1, 0, -1)
            )
            psi = (np.array(up) - down) / (2 * e)
            right = 0.5 * psi @ psi + np.sum(np.array(up) - 2 * np.array(here) + down) / e**2
            assert found[i] == pytest.approx(right, rel=1e-5, abs=1e-5)


def modes(k, d, gap, deviation):
    means = gap * np.array(list(itertools.product(range(k), repeat=d)), dtype=float)
    return ismcore.targets.GaussianMixture(np.full(len(means), 1 / len(means)), means, np.full(len(means), deviation**2))


MANY = {
    "16 modes, close": (modes(4, 2, 2.2, 0.3), 3000),
    "12 modes in a row": (modes(12, 1, 3.0, 0.25), 4000),
    "27 modes": (modes(3, 3, 4.0, 0.2), 4000),
}


@pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")
@pytest.mark.parametrize("name", MANY)
def test_a_fit_that_misses_modes_is_told_its_error_at_least(name):
    law, n = MANY[name]
    x, at = law.sample(n, seed=2), law.sample(4000, seed=3)
    result = ismcore.fit(x * 10.0, model=MLP((8,), "tanh"), epochs=60, **QUICK)
    (text,) = (text for text in result.warnings if text.startswith(POOR))
    least = float(text.partition("relative error is at least ")[2].partition(" ")[0])
    psi, right = 10.0 * result.score(10.0 * at), law.score(at)
    assert 0.25 < least <= np.mean((psi - right) ** 2) / np.mean(right**2) + 0.05  # three standard errors of 300 rows


@pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")
@pytest.mark.parametrize("weighted", [False, True])
def test_the_warning_is_of_the_fit_that_is_given_back(weighted):
    law = modes(2, 1, 3.0, 0.7)
    x = law.sample(2000, seed=0)
    weight = rng(0).uniform(0.2, 1.0, 2000) if weighted else None
    good = ismcore.fit(x, sample_weight=weight, **QUICK)
    assert not [text for text in good.warnings if text.startswith(POOR)]
    poor = ismcore.fit(x, sample_weight=weight, optimizer=ismcore.Adam(1e-4), epochs=3, **QUICK)
    assert [text for text in poor.warnings if text.startswith(POOR)]


def test_normal_samples_are_told_nothing():
    for n, d in ((300, 1), (1500, 2), (1500, 6)):
        result = ismcore.fit(rng(n).normal(size=(n, d)), model=ismcore.Affine(), optimizer=ismcore.LBFGS(), **QUICK)
        assert not [text for text in result.warnings if text.startswith(POOR)]


@pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")
@pytest.mark.parametrize("name", ["edges", "atoms", "curve", "denoising", "nothing held out", "few rows"])
def test_nothing_is_told_of_what_it_does_not_judge(name):
    law, options = modes(4, 1, 4.0, 0.4), {"model": ismcore.Affine(), "epochs": 3}
    x = law.sample(2000, seed=0)
    if name == "edges":
        x = np.c_[x, rng(1).random(2000)]
    elif name == "atoms":
        x = np.round(x)
    elif name == "curve":
        x = np.c_[x, x**2]
    elif name == "denoising":
        options["objective"] = ismcore.DenoisingScoreMatching(1.0)
    elif name == "nothing held out":
        options["validation"] = 0
    else:
        x = x[:200]
    assert not [text for text in ismcore.fit(x, **options, **QUICK).warnings if text.startswith(POOR)]


@pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")
def test_it_is_the_same_on_each_backend(backend):
    x = modes(5, 1, 4.0, 0.3).sample(1000, seed=0)
    (text,) = (
        text
        for text in ismcore.fit(x, epochs=3, dtype="float64", **{**QUICK, "backend": backend}).warnings
        if text.startswith(POOR)
    )
    (right,) = (text for text in ismcore.fit(x, epochs=3, dtype="float64", **QUICK).warnings if text.startswith(POOR))
    assert text == right


def test_correlated_columns_are_no_fault():
    result = ismcore.fit(correlated(n=1200), model=ismcore.Affine(), optimizer=ismcore.LBFGS(), **QUICK)
    assert result.warnings == ()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")
def test_a_fit_in_folds_is_told_too_and_one_that_has_the_modes_is_not():
    x = modes(5, 1, 4.0, 0.3).sample(1500, seed=0)
    options = {"backend": "autograd", "progress": False, "model": MLP((4,), "tanh"), "ensemble": 3}
    (text,) = (text for text in ismcore.fit(x, epochs=20, **options).warnings if text.startswith(POOR))
    assert "on 300 rows" in text
    good = ismcore.fit(np.random.default_rng(0).normal(size=(1500, 2)), backend="autograd", progress=False)
    assert not [text for text in good.warnings if text.startswith(POOR)]
