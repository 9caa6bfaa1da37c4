"""`ismcore.bootstrap` and `FitResult.standard_error`: against closed forms of affine fits, on dependent rows, and in files."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest

import ismcore
from ismcore.judging.bootstrap import _counts

EXACT = {"model": ismcore.Affine(), "optimizer": ismcore.LBFGS(), "validation": 0, "dtype": "float64", "backend": "autograd"}
X = np.random.default_rng(0).gumbel(size=(300, 1)) * 3.0 + 10.0
POINTS = np.array([[5.0], [10.0], [20.0]])


def affine_scores(counts, x=X, points=POINTS):
    """-(y - m) / v of the rows with their counts, the minimiser in closed form."""
    mean = np.average(x, weights=counts)
    return -(points - mean) / np.average((x - mean) ** 2, weights=counts)


def test_standard_error_is_the_standard_deviation_over_weighted_minimisers():
    result = ismcore.bootstrap(X, resamples=8, seed=3, **EXACT)
    scores = [affine_scores(_counts(np.arange(300), 3, number)[:, None]) for number in range(8)]
    assert np.allclose(result.standard_error(POINTS), np.std(scores, axis=0, ddof=1), rtol=1e-5)
    assert np.allclose(result.score(POINTS), affine_scores(np.ones((300, 1))), rtol=1e-5)


def test_weights_of_the_rows_multiply_the_counts():
    weight = np.random.default_rng(1).uniform(0.5, 2.0, size=300)
    result = ismcore.bootstrap(X, resamples=4, sample_weight=weight, **EXACT)
    scores = [affine_scores((_counts(np.arange(300), 0, number) * weight)[:, None]) for number in range(4)]
    assert np.allclose(result.standard_error(POINTS), np.std(scores, axis=0, ddof=1), rtol=1e-5)


def test_standard_error_at_the_mean_is_that_of_the_mean_over_the_variance():
    result = ismcore.bootstrap(X, resamples=60, **EXACT)
    expected = X.std() / math.sqrt(300) / X.var()
    assert result.standard_error([[X.mean()]]).item() == pytest.approx(expected, rel=0.3)  # 3.3 standard errors of it


@pytest.mark.filterwarnings("ignore:rows depend on their neighbours", "ignore:rows nearly equal")
def test_rows_of_one_group_are_drawn_together():
    """Every row four times: the mean is that of 300 rows, not of 1200."""
    copied, groups = np.repeat(X, 4, axis=0), np.repeat(np.arange(300), 4)
    together = ismcore.bootstrap(copied + 1e-9 * np.arange(1200.0)[:, None], resamples=8, seed=3, groups=groups, **EXACT)
    alone = ismcore.bootstrap(X, resamples=8, seed=3, **EXACT)
    assert np.allclose(together.standard_error(POINTS), alone.standard_error(POINTS), rtol=1e-3)


def test_counts_are_a_resample_and_one_for_each_number():
    labels = np.array([0, 1, 1, 2, 3])
    drawn = [_counts(labels, 0, number) for number in range(50)]
    assert all(counts[1] == counts[2] for counts in drawn)
    assert all(counts[[0, 1, 3, 4]].sum() == 4 for counts in drawn)
    assert len({tuple(counts) for counts in drawn}) > 20


def test_the_fit_is_that_of_the_rows_and_members_warn_of_nothing():
    options = {"model": ismcore.MLP((4,), "tanh"), "backend": "autograd", "epochs": 5, "seed": 1}
    rows = np.random.default_rng(2).normal(size=(200, 2))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = ismcore.bootstrap(rows, resamples=2, **options)
    alone = ismcore.fit(rows, **options)
    assert np.array_equal(result.score(rows), alone.score(rows))
    assert {str(one.message) for one in said} <= set(alone.warnings)
    assert result.standard_error(rows).shape == (200, 2)
    assert np.all(result.standard_error(rows) > 0.0)


@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_standard_errors_agree_with_those_of_another_backend(backend):
    rows = np.random.default_rng(2).normal(size=(150, 3)) * [1.0, 10.0, 0.1]
    options = {"model": ismcore.Energy(ismcore.MLP((4,), "tanh")), "epochs": 3, "dtype": "float64", "resamples": 2}
    found, expected = (ismcore.bootstrap(rows, backend=name, **options) for name in (backend, "autograd"))
    assert np.allclose(found.standard_error(rows[:20]), expected.standard_error(rows[:20]), rtol=1e-6)


def test_members_come_back_from_a_file(tmp_path):
    result = ismcore.bootstrap(X, resamples=3, model=ismcore.MLP((4,), "tanh"), backend="autograd", epochs=3)
    result.save(tmp_path / "fit.safetensors")
    loaded = ismcore.load(tmp_path / "fit.safetensors")
    assert np.array_equal(loaded.standard_error(POINTS), result.standard_error(POINTS))
    assert not ismcore.fit(X, **EXACT).resamples


def test_members_of_a_file_that_are_not_of_the_fit_are_refused(tmp_path, monkeypatch):
    options = {"model": ismcore.MLP((4,), "tanh"), "backend": "autograd", "epochs": 3, "resamples": 2}
    result = ismcore.bootstrap(X, **options)
    other = ismcore.bootstrap(np.random.default_rng(1).normal(size=(100, 2)), **options)
    monkeypatch.setattr("ismcore.files.results.check_params", lambda model, params, d: params)
    replace(result, resamples=other.resamples).save(tmp_path / "fit.safetensors")
    with pytest.raises(ismcore.FileInvalid, match="2 columns, and the fit 1"):
        ismcore.load(tmp_path / "fit.safetensors")


def test_spread_of_members_is_a_line_of_the_check():
    result = ismcore.bootstrap(X, resamples=3, **EXACT)
    found = result.check(X + 1e-3, train=X)
    line = next(line for line in found.lines if line.name == "spread of resamples")
    variance = np.mean(result.standard_error(X + 1e-3) ** 2)
    assert line.statistic == pytest.approx(variance / np.mean(result.score(X + 1e-3) ** 2))


def test_what_cannot_be_is_refused():
    with pytest.raises(ismcore.OptionError, match=r"ismcore\.bootstrap"):
        ismcore.fit(X, **EXACT).standard_error(POINTS)
    for wrong in (1, 2.0, True):
        with pytest.raises(ismcore.OptionError, match="from 2"):
            ismcore.bootstrap(X, resamples=wrong)
    with pytest.raises(ismcore.OptionError, match="share"):
        ismcore.bootstrap(X, validation=X[:10])
