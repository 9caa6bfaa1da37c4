"""The yardstick of a fit: the normal law in closed form on the same held-out rows, and when a fit is told it is no better."""

import math
import warnings
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from saved_results import OWN as OWN_SAVED
from saved_results import RESULTS
from saved_results import path as golden
from truth import correlated

import ismcore
from ismcore.files.results import save
from ismcore.results.result import load
from ismcore.samples.normality import departure
from ismcore.samples.splitting import held_out_rows
from ismcore.training import baseline
from ismcore.training.baseline import LADDER, Baseline, NormalLaw

D = 3
X = correlated(n=100) * [1.0, 10.0, 0.1] + [5.0, -20.0, 0.3]
WEIGHT = np.random.default_rng(1).uniform(0.2, 2.0, size=100)
FEW = {"epochs": 3, "validation": 0.2, "model": ismcore.MLP((5,), "tanh"), "dtype": "float64", "backend": "autograd"}


def parts(weight=None, x=X, seed=0):
    """Training rows and held-out rows, standardised by the former's mean and standard deviation, and the weights of each."""
    out = held_out_rows(x, 0.2, seed).held_out
    given = np.ones(len(x)) if weight is None else weight
    trained, judging = (given[rows] / given[rows].sum() for rows in (~out, out))
    mean = np.average(x[~out], axis=0, weights=trained)
    scale = np.sqrt(np.average((x[~out] - mean) ** 2, axis=0, weights=trained))
    return (x[~out] - mean) / scale, trained, (x[out] - mean) / scale, judging, (mean, scale)


def normal_terms(z, weight, at):
    """1/2 |psi|^2 + div psi at each row of `at`, from mean and covariance by NumPy and an inverse."""
    mean = np.average(z, axis=0, weights=weight)
    precision = np.linalg.inv(np.cov(z.T, aweights=weight, bias=True))
    return np.array([0.5 * np.sum((precision @ (row - mean)) ** 2) - np.trace(precision) for row in at])


def fit_terms(result, at, mean, scale, step=1e-4):
    """The same of a fit, by central differences of its score in the samples' units."""

    def psi(z):
        return result.score(z * scale + mean) * scale

    slopes = [(psi(at + e) - psi(at - e))[:, i] / (2 * step) for i, e in enumerate(step * np.eye(at.shape[1]))]
    return 0.5 * np.sum(psi(at) ** 2, axis=1) + np.sum(slopes, axis=0)


# The numbers.


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["alike", "weighted"])
@pytest.mark.parametrize("standardize", [True, False])
def test_both_losses_are_those_of_the_held_out_rows_by_hand(weight, standardize):
    x = X if standardize else (X - X.mean(axis=0)) / [2.0, 7.0, 0.5]
    result = ismcore.fit(x, sample_weight=weight, standardize=standardize, **FEW)
    z, trained, at, judging, units = parts(weight, x)
    ours, law = fit_terms(result, at, *units), normal_terms(z, trained, at)
    found = result.baseline
    assert (found.rows, found.shrinkage) == (20, 0.0)
    assert found.loss == pytest.approx(judging @ law, rel=1e-10)
    assert found.fit_loss == pytest.approx(judging @ ours, rel=1e-6)
    assert found.difference == pytest.approx(judging @ (ours - law), rel=1e-6)
    if weight is None:
        assert found.standard_error == pytest.approx(np.std(ours - law, ddof=1) / math.sqrt(20), rel=1e-6)


MODELS = [
    ismcore.MLP((5,), "tanh"),
    ismcore.MLP((4, 3)),
    ismcore.Affine(),
    ismcore.Energy(ismcore.MLP((4,), "softplus")),
    ismcore.ResidualMLP(4, 1),
]


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_the_loss_of_the_fit_is_the_held_out_loss_that_chose_it(model, dtype):
    check_fit_loss(FEW | {"model": model, "dtype": dtype})


def test_it_is_so_on_every_backend(backend):
    """Of a model without closed formulas, which the backend has to differentiate."""
    check_fit_loss(FEW | {"model": ismcore.ResidualMLP(4, 1), "dtype": "float64", "backend": backend})


def check_fit_loss(options):
    result = ismcore.fit(X, objective=ismcore.ImplicitScoreMatching(), sample_weight=WEIGHT, **options)
    best = np.nanmin(result.history["validation_loss"])
    assert result.baseline.fit_loss == pytest.approx(best, rel=1e-4 if options["dtype"] == "float32" else 1e-10)


def test_weights_enter_the_standard_error_as_written():
    weight = np.array([0.5, 0.25, 0.25, 0.0])
    fit, normal = np.array([3.0, 1.0, -2.0, 99.0]), np.array([1.0, 2.0, -1.0, 0.0])
    found = baseline._paired(fit, normal, weight, 0.0)
    # g = 2, -1, -1: mean 1/2; squares 9/4 each; sum w^2 = 3/8
    assert (found.fit_loss, found.loss, found.difference) == (1.25, 0.75, 0.5)
    by_hand = (Fraction(1, 4) + Fraction(1, 8)) * Fraction(9, 4) / (1 - Fraction(3, 8))
    assert found.standard_error == pytest.approx(math.sqrt(by_hand), rel=1e-14)


def test_the_standard_error_is_that_of_repeated_draws():
    """Weights in two classes; 4000 draws, so the ratio of the two standard deviations is right to some 1.1 per cent."""
    rng, weight = np.random.default_rng(5), np.repeat([1.0, 3.0], 20) / 80.0
    found = [baseline._paired(terms, np.zeros(40), weight, 0.0) for terms in rng.normal(size=(4000, 40))]
    means, errors = ([getattr(each, name) for each in found] for name in ("difference", "standard_error"))
    assert np.std(means) == pytest.approx(math.sqrt(np.mean(np.square(errors))), rel=0.05)


def test_one_row_with_weight_is_no_comparison():
    assert baseline._paired(np.ones(2), np.zeros(2), np.array([1.0, 0.0]), 0.0) is None


# The law where rows are few.


@pytest.mark.parametrize("shrinkage", LADDER)
@pytest.mark.parametrize("n", [5, 12])
def test_a_left_out_row_is_judged_as_if_the_law_were_made_anew(shrinkage, n):
    rng = np.random.default_rng(n)
    x, weight = rng.normal(size=(n, D)) * [1.0, 2.0, 0.3], rng.dirichlet(np.full(n, 5.0))
    mean = weight @ x
    variances, directions = np.linalg.eigh((x - mean).T @ np.diag(weight) @ (x - mean))
    terms = []
    for i in range(n):
        rest = np.delete(np.arange(n), i)
        kept = weight[rest] / weight[rest].sum()
        covariance = np.cov(x[rest].T, aweights=kept, bias=True)
        covariance = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / D * np.eye(D)
        precision = np.linalg.inv(covariance)
        terms.append(0.5 * np.sum((precision @ (x[i] - kept @ x[rest])) ** 2) - np.trace(precision))
    found = baseline._left_out_loss((x - mean) @ directions, weight, variances, shrinkage)
    assert found == pytest.approx(weight @ terms, rel=1e-8)


@pytest.mark.parametrize(("n", "d"), [(2, 3), (3, 3), (4, 3), (8, 20), (25, 20)])
def test_there_is_a_law_of_however_few_rows(n, d):
    x = np.random.default_rng(d).normal(size=(n, d))
    law = NormalLaw.of(x)
    assert law.shrinkage in LADDER[:-1]
    assert np.all(law.variances > 0.0)
    assert np.isfinite(law.terms(x + 1.0)).all()
    covariance = np.cov(x.T, bias=True)
    shrunk = (1 - law.shrinkage) * covariance + law.shrinkage * np.trace(covariance) / d * np.eye(d)
    np.testing.assert_allclose((law.directions * law.variances) @ law.directions.T, shrunk, atol=1e-12)


def test_many_rows_are_not_shrunk_and_few_effective_ones_are():
    x = np.random.default_rng(0).normal(size=(400, 5))
    assert NormalLaw.of(x).shrinkage == 0.0
    few = np.r_[np.ones(8), np.full(392, 1e-9)]
    assert NormalLaw.of(x, few / few.sum()).shrinkage > 0.0


def test_a_direction_without_variance_has_score_0():
    x = np.random.default_rng(0).normal(size=(200, 2))
    plane = np.c_[x, x.sum(axis=1)]
    turn, _ = np.linalg.qr(np.c_[[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    np.testing.assert_allclose(NormalLaw.of(plane).terms(plane), NormalLaw.of(plane @ turn).terms(plane @ turn), rtol=1e-9)
    assert NormalLaw.of(plane).whitened(plane) is None


# Objectives other than the plain one.


@pytest.mark.parametrize("standardize", [True, False])
def test_for_denoising_the_law_is_blurred_alike(standardize):
    noise = 0.5
    options = FEW | {"objective": ismcore.DenoisingScoreMatching(noise), "standardize": standardize}
    found = ismcore.fit(X, **options).baseline
    z, _, at, _, (_, scale) = parts()
    width = np.full(D, noise) if standardize else noise / scale
    precision = np.linalg.inv(np.cov(z.T, bias=True) + np.diag(width**2))
    assert found.loss == pytest.approx(0.5 * np.mean(np.sum((at @ precision) ** 2, axis=1)) - np.trace(precision), rel=1e-10)


@pytest.mark.parametrize(
    "objective",
    [
        ismcore.ImplicitScoreMatching(0.1),
        ismcore.ImplicitScoreMatching(divergence=ismcore.Hutchinson(1)),
        ismcore.SlicedScoreMatching(1),
        ismcore.ExplicitScoreMatching(lambda x: -x),
    ],
    ids=["regularised", "estimated", "sliced", "explicit"],
)
def test_the_yardstick_is_the_plain_loss_whatever_was_minimised(objective):
    result = ismcore.fit(X, objective=objective, **FEW)
    _, _, at, judging, units = parts()
    assert result.baseline.fit_loss == pytest.approx(judging @ fit_terms(result, at, *units), rel=1e-6)
    assert result.baseline.loss == pytest.approx(ismcore.fit(X, **FEW).baseline.loss, rel=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"validation": 0},
        {"recipe": "reference", "validation": None},
        {
            "model": ismcore.NoiseConditional(ismcore.MLP((4,))),
            "objective": ismcore.NoiseConditionalScoreMatching((1.0, 0.1)),
        },
    ],
    ids=["none held out", "reference", "conditional"],
)
def test_where_nothing_can_be_compared_there_is_none(options):
    result = ismcore.fit(X, **(FEW | options))
    assert result.baseline is None
    assert "baseline" not in repr(result)


def test_of_very_many_columns_there_is_none(monkeypatch):
    monkeypatch.setattr(baseline, "MOST_COLUMNS", 2)
    assert ismcore.fit(X, **FEW).baseline is None


def test_a_network_that_has_no_derivative_in_x_has_none():
    def apply(ops, params, x):
        if hasattr(x, "_value"):  # what HIPS-autograd differentiates in
            raise TypeError("no derivative in x")
        return params["a"] * x

    model = ismcore.ScoreFunction(apply, {"a": np.array(-1.0)})
    options = FEW | {"model": model, "objective": ismcore.DenoisingScoreMatching(0.5)}
    assert ismcore.fit(X, **options).baseline is None


def test_many_rows_are_judged_in_part_and_in_blocks(monkeypatch):
    model = ismcore.ResidualMLP(4, 1)
    x = correlated(n=600)
    options = FEW | {"model": model, "epochs": 1}
    whole = ismcore.fit(x, **options).baseline
    monkeypatch.setattr(baseline, "BLOCK", 7 * D)
    blocks = ismcore.fit(x, **options).baseline
    assert (whole.rows, blocks.rows) == (120, 120)
    assert blocks.fit_loss == pytest.approx(whole.fit_loss, rel=1e-12)
    monkeypatch.setattr(baseline, "NUMBERS", 50 * D)
    monkeypatch.setattr(baseline, "FEWEST_ROWS", 10)
    part = ismcore.fit(x, **options).baseline
    assert part.rows == 50
    assert abs(part.loss - whole.loss) < 5 * math.sqrt(whole.rows / part.rows)
    assert part == ismcore.fit(x, **options).baseline


# Where it is found.


def test_it_is_a_line_of_the_result():
    result = ismcore.fit(X, **FEW)
    (line,) = [text for text in repr(result).splitlines() if text.startswith("  baseline ")]
    found = result.baseline
    assert f"normal law {found.loss:.6g}, fit {found.fit_loss:.6g} on 20 held-out rows" in line
    assert f"difference {found.difference:.3g} +- {found.standard_error:.2g}" in line


def test_a_file_gives_it_back(tmp_path):
    result = ismcore.fit(X, **FEW)
    save(result, tmp_path / "fit")
    found = load(tmp_path / "fit")
    assert isinstance(found.baseline, Baseline)
    assert found.baseline == result.baseline
    assert repr(found) == repr(result)


@pytest.mark.parametrize("name", RESULTS)
def test_a_file_from_before_has_none(name):
    assert load(golden(name), model=OWN_SAVED if name == "own" else None).baseline is None


@pytest.mark.parametrize("forged", ["-1.5 by a mile", {"loss": 1.0}, replace(ismcore.fit(X, **FEW).baseline, loss="low")])
def test_a_forged_one_is_refused(tmp_path, forged):
    save(replace(ismcore.fit(X, **FEW), baseline=forged), tmp_path / "fit")
    with pytest.raises(ismcore.FileInvalid, match=r"aseline"):
        load(tmp_path / "fit")


def test_a_run_gone_on_with_has_the_same(tmp_path, backend):
    options = FEW | {"epochs": 12, "backend": backend, "sample_weight": WEIGHT}
    whole = ismcore.fit(X, **options)
    stop = {"callbacks": [lambda event: ismcore.STOP if event.epoch >= 4 else None]}
    ismcore.fit(X, checkpoint=tmp_path / "run", **stop, **options)
    assert ismcore.load(tmp_path / "run").baseline is None
    for _ in range(2):  # the second time the run has ended already
        assert ismcore.resume(tmp_path / "run", X, sample_weight=WEIGHT).baseline == whole.baseline


def test_of_several_starts_it_is_that_of_the_best():
    options = FEW | {"restarts": 3, "objective": ismcore.ImplicitScoreMatching()}
    result = ismcore.fit(X, **options)
    losses = [start["validation_loss"] for start in result.restarts]
    assert len({round(loss, 6) for loss in losses}) == 3
    assert result.baseline.fit_loss == pytest.approx(min(losses), rel=1e-10)


# What is said.


def said(x, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = ismcore.fit(x, backend="autograd", **{"recipe": "single", **options})
    assert {str(one.message) for one in caught} == set(result.warnings)
    return [text for text in result.warnings if "the baseline" in text]


BIMODAL = ismcore.targets.GaussianMixture([0.5, 0.5], [[-3.0, 0.0], [3.0, 0.0]], [1.0, 1.0]).sample(1000, seed=3)
HEAVY = np.random.default_rng(4).standard_t(3.0, size=(1000, 3))


@pytest.mark.parametrize("x", [BIMODAL, HEAVY], ids=["bimodal", "heavy tails"])
@pytest.mark.parametrize("options", [{"epochs": 1}, {"optimizer": ismcore.Adam(30.0), "epochs": 20}], ids=["short", "rate"])
def test_a_fit_that_learned_nothing_of_it_is_told(x, options):
    (text,) = said(x, **options)
    assert "the samples are not normal: " in text


@pytest.mark.parametrize("x", [BIMODAL, HEAVY], ids=["bimodal", "heavy tails"])
def test_a_fit_that_is_better_is_not(x):
    assert not said(x)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_normal_samples_are_the_right_end(d):
    assert not said(np.random.default_rng(d).normal(3.0, 2.0, size=(500, d)))


def test_a_fit_of_normal_samples_that_went_wrong_is_told():
    (text,) = said(np.random.default_rng(0).normal(size=(500, 2)), optimizer=ismcore.Adam(30.0))
    assert text.startswith("the fit is worse than the normal law in closed form")
    assert "not normal" not in text


@pytest.mark.parametrize(
    ("difference", "error", "departs", "words"),
    [
        (-0.5, 0.1, True, ""),
        (-0.05, 0.1, True, "not clearly better"),
        (0.3, 0.1, True, "is worse"),
        (-0.05, 0.1, False, ""),
        (0.29, 0.1, False, ""),  # worse by 0.09 of the normal law's 1 beyond two standard errors
        (0.31, 0.1, False, "is worse"),
    ],
)
def test_the_limits_are_as_written(difference, error, departs, words):
    found = Baseline(-1.0, -1.0 + difference, difference, error, 100)
    text = baseline.in_words(found, departure(BIMODAL, None) if departs else None)
    assert bool(text) == bool(words)
    assert words in text


# Whether samples are normal.


@pytest.mark.parametrize("weight", [None, np.repeat([1.0, 3.0], 100) / 400.0], ids=["alike", "weighted"])
@pytest.mark.parametrize("d", [1, 4])
def test_deviates_of_normal_samples_are_standard(d, weight):
    """2000 draws of 200 rows: mean and standard deviation are known to some 0.022 and 0.016."""
    rng, n = np.random.default_rng(d), 200
    shares = np.full(n, 1.0 / n) if weight is None else weight
    signed = []
    for _ in range(2000):
        x = rng.normal(size=(n, d))
        away = x - shares @ x
        z = np.linalg.solve(np.linalg.cholesky((away.T * shares) @ away), away.T).T
        spread, lean = signed_deviates(z, shares)
        signed.append((spread, lean))
    spread, lean = np.array(signed).T
    assert np.mean(spread) == pytest.approx(0.0, abs=0.09)
    assert np.std(spread) == pytest.approx(1.0, abs=0.07)
    root = np.sqrt(np.mean(lean**2))
    assert root == pytest.approx(1.0, abs=0.07)


def signed_deviates(z, shares):
    from ismcore.samples.normality import _departures

    return [
        each.deviate * (-1.0 if "longer" in each.what else 1.0) for each in _departures(z, shares, 1 / (shares @ shares), "")
    ]


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda rng: rng.standard_t(3.0, size=(1000, 2)), "longer tails"),
        (lambda rng: rng.uniform(size=(1000, 2)), "shorter tails"),
        (lambda rng: rng.gumbel(size=(1000, 2)), "leans"),
        (lambda rng: np.c_[rng.normal(size=1000), rng.exponential(size=1000)], "column 1 leans"),
    ],
    ids=["t", "uniform", "gumbel", "one column"],
)
def test_what_departs_from_normal_is_named(draw, words):
    x = draw(np.random.default_rng(0))
    found = departure(x, NormalLaw.of(x).whitened(x))
    assert words in found.what
    assert found.deviate > 5.0


def test_units_and_copies_of_weight_0_do_not_matter():
    x = np.random.default_rng(0).gumbel(size=(200, 2))
    found = departure(x, NormalLaw.of(x).whitened(x))
    moved = x * [0.5, 20.0] + [1.0, 1e4]
    assert departure(moved, NormalLaw.of(moved).whitened(moved)).deviate == pytest.approx(found.deviate, rel=1e-6)
    more, weight = np.r_[x, 9.0 * x[:50]], np.r_[np.full(200, 0.005), np.zeros(50)]
    assert departure(more, NormalLaw.of(more, weight).whitened(more), weight).deviate == pytest.approx(found.deviate, rel=1e-9)


def test_of_a_handful_of_rows_nothing_is_said():
    x = np.r_[np.zeros(18), 1e6][:, None] + np.arange(19.0)[:, None]
    assert departure(x, None) is None
    assert departure(np.r_[x, x], None) is not None
