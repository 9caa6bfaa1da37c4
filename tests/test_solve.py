"""Exact minimisers by a linear solve, against closed forms, and their standard errors, against known ones."""

import numpy as np
import pytest
from sklearn.datasets import load_iris
from test_closed_forms import cubic
from truth import array, correlated, read

import ismcore

RUN = ismcore.datasets.reference_run()


def test_affine_on_iris(backend):
    truth = read("closed_forms")["affine_iris"]
    found = ismcore.solve(ismcore.Affine(), load_iris().data, backend=backend)
    np.testing.assert_allclose(found.params["weight"], array(truth["A"]), rtol=1e-9)
    np.testing.assert_allclose(found.params["bias"], array(truth["c"]), rtol=1e-9)
    assert abs(found.loss - float(truth["J_min"])) < 1e-9


def test_cubic_on_the_reference_sample(backend):
    truth = read("closed_forms")["polynomial_degree_3_seed_sample"]
    model = ismcore.ScoreFunction(cubic, {"theta": np.zeros(4)})
    found = ismcore.solve(model, RUN.sample, backend=backend)
    np.testing.assert_allclose(found.params["theta"], array(truth["theta"]), rtol=1e-9)
    assert abs(found.loss - float(truth["J_min"])) < 1e-12


def test_the_penalised_minimum_is_where_the_gradient_vanishes(backend):
    x = correlated()
    objective = ismcore.ImplicitScoreMatching((0.5, 0.1, 2.0))
    found = ismcore.solve(ismcore.Affine(), x, objective, backend=backend)
    at = ismcore.evaluate(ismcore.Affine(), found.params, x, objective, backend=backend)
    assert max(np.abs(slope).max() for slope in at.gradient.values()) < 1e-10


def test_standard_errors_of_a_normal_sample_are_the_known_ones():
    # For N(0, 1): weight = -1 / v and bias = m / v, of variance 2 / n and 1 / n
    n = 50_000
    x = np.random.default_rng(0).standard_normal(n)
    found = ismcore.solve(ismcore.Affine(), x, backend="autograd")
    assert abs(found.standard_errors["weight"][0, 0] / np.sqrt(2 / n) - 1) < 0.03
    assert abs(found.standard_errors["bias"][0] / np.sqrt(1 / n) - 1) < 0.03


def test_standard_errors_of_a_series_are_those_of_its_blocks():
    """Of AR(1) with margins N(0, 1), to 1/n: bias m / v, of variance (1 + r) / (1 - r) / n, and weight -1 / v."""
    n, r = 50_000, 0.8
    steps = np.sqrt(1.0 - r * r) * np.random.default_rng(0).standard_normal(n)
    x = np.zeros(n)
    for k in range(1, n):
        x[k] = r * x[k - 1] + steps[k]
    found = ismcore.solve(ismcore.Affine(), x, backend="autograd")
    assert abs(found.standard_errors["bias"][0] / np.sqrt((1 + r) / (1 - r) / n) - 1) < 0.1
    assert abs(found.standard_errors["weight"][0, 0] / np.sqrt(2 * (1 + r * r) / (1 - r * r) / n) - 1) < 0.1
    assert "blocks of a series, and not over 50000 rows" in found.notes[0]
    shuffled = np.random.default_rng(1).permutation(x)
    apart = ismcore.solve(ismcore.Affine(), shuffled, backend="autograd")
    assert apart.notes == ()
    assert abs(apart.standard_errors["bias"][0] / np.sqrt(1 / n) - 1) < 0.03


@pytest.mark.parametrize("copies", [2, 3])
@pytest.mark.parametrize("labelled", [True, False])
def test_rows_of_one_group_count_once_in_standard_errors(backend, labelled, copies):
    once = correlated(n=400)
    x = np.repeat(once, copies, axis=0)
    order = np.random.default_rng(0).permutation(len(x))
    groups = np.repeat(np.arange(400), copies)[order] if labelled else None
    found = ismcore.solve(ismcore.Affine(), x[order], groups=groups, backend=backend)
    expected = ismcore.solve(ismcore.Affine(), once, backend=backend)
    for name, error in expected.standard_errors.items():
        np.testing.assert_allclose(found.standard_errors[name], np.sqrt(400 / 399) * error, rtol=1e-9)
    assert f"over 400 {'groups' if labelled else 'different rows'}, and not over {len(x)} rows" in found.notes[0]


def test_rounded_rows_count_each_and_that_is_said():
    x = np.round(correlated(n=2000)[:, :1], 1)
    (note,) = ismcore.solve(ismcore.Affine(), x, backend="autograd").notes
    assert "of 2000 rows equal an earlier one" in note
    assert "pass groups=" in note


def test_groups_of_one_row_change_nothing_and_wrong_ones_are_refused():
    x = correlated()
    found = ismcore.solve(ismcore.Affine(), x, groups=np.arange(len(x)), backend="autograd")
    np.testing.assert_array_equal(found.covariance, ismcore.solve(ismcore.Affine(), x, backend="autograd").covariance)
    with pytest.raises(ismcore.SamplesError, match="groups must be"):
        ismcore.solve(ismcore.Affine(), x, groups=np.zeros(len(x)), backend="autograd")


def test_row_weights_weigh_the_moments():
    x = correlated()
    weight = np.arange(1.0, len(x) + 1)
    found = ismcore.solve(ismcore.Affine(), x, sample_weight=weight, backend="autograd")
    mean = np.average(x, axis=0, weights=weight)
    covariance = np.cov(x.T, aweights=weight, ddof=0)
    np.testing.assert_allclose(found.params["weight"], -np.linalg.inv(covariance), rtol=1e-8)
    np.testing.assert_allclose(found.params["bias"], np.linalg.solve(covariance, mean), rtol=1e-8)


def test_what_is_not_quadratic_or_not_determined_is_refused():
    with pytest.raises(ismcore.ModelError, match=r"quadratic"):
        ismcore.solve(ismcore.MLP((3,)), RUN.sample[:50], backend="autograd")
    twice = ismcore.ScoreFunction(lambda ops, params, x: (params["a"] + params["b"]) * x, {"a": 0.0, "b": 0.0})
    with pytest.raises(ismcore.ModelError, match="do not determine"):
        ismcore.solve(twice, RUN.sample[:50], backend="autograd")


UNITS = np.array([1e-12, 1e-3, 1e12])
"""A scale for each of three columns."""


def in_units(errors, scale):
    return errors * np.multiply.outer(scale, scale)


@pytest.mark.parametrize("mean", [0.0, -3e4, 1e9])
def test_standard_errors_scale_with_the_columns(mean, backend):
    # SE(W_ij) of s x is SE(W_ij) / (s_i s_j); powers of 2 near the scales, so that scaling rounds nothing
    scale = 2.0 ** np.round(np.log2(UNITS))
    x = correlated(d=3) + mean
    here, there = (ismcore.solve(ismcore.Affine(), data, backend=backend) for data in (x - mean, scale * x))
    np.testing.assert_allclose(in_units(there.standard_errors["weight"], scale), here.standard_errors["weight"], rtol=1e-8)
    np.testing.assert_allclose(in_units(there.params["weight"], scale), here.params["weight"], rtol=1e-8, atol=1e-12)
    # b = -W m, whose error is that of W m where m is large
    np.testing.assert_allclose(there.params["bias"], -there.params["weight"] @ (scale * x).mean(axis=0), rtol=1e-6)


def test_the_covariance_is_the_sandwich_of_the_rows_by_hand(backend):
    # of one column: g_n = (psi_n x_n + 1, psi_n), H = [[mean x^2, mean x], [mean x, 1]], all weighted
    rng = np.random.default_rng(3)
    x, weight = 5.0 + 2.0 * rng.gamma(3.0, size=300), rng.random(300)
    found = ismcore.solve(ismcore.Affine(), x, sample_weight=weight, backend=backend)
    w = weight / weight.sum()
    psi = found.params["weight"][0, 0] * x + found.params["bias"][0]
    rows = w[:, None] * np.stack([psi * x + 1.0, psi], axis=1)
    inverse = np.linalg.inv([[w @ x**2, w @ x], [w @ x, 1.0]])
    np.testing.assert_allclose(found.covariance, inverse @ (rows.T @ rows) @ inverse, rtol=1e-7)
    np.testing.assert_allclose(found.standard_errors["weight"][0, 0] ** 2, found.covariance[0, 0], rtol=1e-12)


class Counted(ismcore.ImplicitScoreMatching):
    calls = 0

    def terms(self, *args):
        Counted.calls += 1
        return super().terms(*args)


def linear(ops, params, x):
    return params["a"] * x + params["b"] * x * x + params["c"]


@pytest.mark.parametrize(("d", "most"), [(1, 4), (4, 7)])
def test_the_objective_is_evaluated_at_most_p_plus_2_times(d, most):
    models = {ismcore.Affine(): most, ismcore.ScoreFunction(linear, {"a": 0.0, "b": 0.0, "c": np.zeros(d)}): d + 4}
    for model, allowed in models.items():
        Counted.calls = 0
        ismcore.solve(model, correlated(d=d), Counted(divergence="nested"), backend="autograd")
        assert 0 < Counted.calls <= allowed


@pytest.mark.parametrize(
    "objective",
    [
        ismcore.ImplicitScoreMatching((0.5, 0.0, 2.0)),
        ismcore.ImplicitScoreMatching(0.3, ismcore.Hutchinson(3)),
        ismcore.SlicedScoreMatching(4, variance_reduced=False),  # couples the outputs
        ismcore.SlicedScoreMatching(2),
        ismcore.DenoisingScoreMatching(0.3),
        ismcore.ExplicitScoreMatching(np.tanh),
    ],
    ids=repr,
)
def test_an_affine_score_and_the_same_as_a_function_have_one_solution(objective, backend):
    def affine(ops, params, x):
        return x @ ops.permute_dims(params["weight"], (1, 0)) + params["bias"]

    x = correlated(d=3)
    function = ismcore.ScoreFunction(affine, {"weight": np.zeros((3, 3)), "bias": np.zeros(3)})
    one, other = (ismcore.solve(model, x, objective, backend=backend, seed=2) for model in (ismcore.Affine(), function))
    for name in one.params:
        np.testing.assert_allclose(one.params[name], other.params[name], rtol=1e-8, atol=1e-10)
    at = ismcore.evaluate(ismcore.Affine(), one.params, x, objective, backend=backend, seed=2)
    assert abs(one.loss - at.loss) < 1e-10
    assert max(np.abs(slope).max() for slope in at.gradient.values()) < 1e-9
    np.testing.assert_allclose(one.covariance, other.covariance, rtol=1e-5, atol=1e-9 * np.abs(other.covariance).max())


def test_a_family_in_the_users_units_is_solved_in_any_unit_of_its_parameters(backend):
    # psi = a x + b x^3 of samples c x: a / c^2 and b / c^4
    def odd(ops, params, x):
        return params["a"] * x + params["b"] * x * x * x

    x = np.random.default_rng(0).normal(size=(400, 2))
    model = ismcore.ScoreFunction(odd, {"a": 0.0, "b": 0.0})
    right = ismcore.solve(model, x, backend=backend)
    for c in (2.0**-30, 2.0**30):
        found = ismcore.solve(model, c * x, backend=backend)
        for name, power in (("a", 2), ("b", 4)):
            np.testing.assert_allclose(found.params[name] * c**power, right.params[name], rtol=1e-9)
            np.testing.assert_allclose(found.standard_errors[name] * c**power, right.standard_errors[name], rtol=1e-8)


def test_what_cannot_be_solved_is_refused_for_its_true_reason():
    x = correlated(d=2)
    far = ismcore.ScoreFunction(cubic, {"theta": np.zeros(4)})
    bent = ismcore.ScoreFunction(lambda ops, params, x: ops.tanh(params["a"] * x), {"a": 1.0})
    cases = {
        "constant": (ismcore.Affine(), x * [1.0, 0.0] + 7.0, ismcore.SamplesError),
        "linearly dependent": (ismcore.Affine(), np.c_[x, x.sum(axis=1)], ismcore.ModelError),
        "not linear": (bent, x, ismcore.ModelError),
        "standard deviations from 0.*subtract the mean": (far, x[:, :1] + 1e9, ismcore.ModelError),
        "no minimum": (ismcore.Affine(), x, ismcore.ModelError),
    }

    class Upside(ismcore.ImplicitScoreMatching):
        def terms(self, *args):
            return -super().terms(*args)

    for words, (model, data, error) in cases.items():
        objective = Upside(divergence="nested") if words == "no minimum" else None
        with pytest.raises(error, match=words):
            ismcore.solve(model, data, objective, backend="autograd")
