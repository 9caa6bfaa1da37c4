"""`FitResult.check`: the bound of the Fisher divergence against closed forms, other lines, verdicts, and what is refused."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

import ismcore
from ismcore.calculus import NumpyCalculus
from ismcore.judging.certificate import Derivatives, gaps, t_quantile
from ismcore.judging.lines import antisymmetric_share
from ismcore.samples.splitting import HoldOut, batch_labels
from ismcore.targets import GaussianMixture, fit_mixture
from ismcore.training.baseline import mean_and_error

D = 3
ROOT = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [-0.3, 0.5, 1.2]])
PRECISION = np.linalg.inv(ROOT @ ROOT.T)
ALONE = np.arange(400)


def normal_rows(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, D)) @ ROOT.T


def affine_fit(weight, bias=(0.0, 0.0, 0.0), x=None):
    """A result whose score is weight x + bias."""
    start = {"weight": np.asarray(weight), "bias": np.asarray(bias)}
    options = {"backend": "autograd", "dtype": "float64", "epochs": 1, "optimizer": ismcore.SGD(1e-12), "validation": 0}
    rows = normal_rows(50, 9) if x is None else x
    return ismcore.fit(rows, model=ismcore.Affine(), initial_params=start, standardize=False, **options)


def line(found, name):
    return next(line for line in found.lines if line.name == name)


# The certificate.


def affine(weight, x):
    return Derivatives(x @ weight.T, np.full(len(x), np.trace(weight)))


def bounds(weight, draws=400, m=400):
    """Bounds of the divergence of weight x from the score -P x of N(0, P^-1), with the score itself as competitor."""
    rows = (normal_rows(m, seed) for seed in range(draws))
    return [gaps(affine(weight, x), {"score": affine(-PRECISION, x)}, ALONE)[0] for x in rows]


def test_the_gap_to_the_score_is_the_exact_divergence_of_an_affine_fit():
    weight = -PRECISION + np.array([[0.3, 0.1, 0.0], [-0.2, 0.0, 0.1], [0.0, 0.0, 0.4]])
    gap = weight + PRECISION
    exact = float(np.trace(gap @ ROOT @ ROOT.T @ gap.T))
    found = bounds(weight)
    estimates = np.array([one.estimate for one in found])
    assert abs(estimates.mean() - exact) < 4.0 * estimates.std() / math.sqrt(len(found))
    exceeded = sum(one.bound > exact for one in found)
    assert 4 <= exceeded <= 36  # 5 % of 400 draws, within 3.7 standard errors


def test_a_fit_that_is_the_score_is_found_wrong_at_the_level():
    wrong = -PRECISION * 1.1
    rows = (normal_rows(400, seed) for seed in range(400))
    found = [gaps(affine(-PRECISION, x), {"other": affine(wrong, x)}, ALONE)[0].bound > 0.0 for x in rows]
    assert sum(found) <= 36  # 5 % at most, as the competitor is the worse one


def test_several_competitors_share_the_level():
    x = normal_rows(400)
    fit, others = affine(-1.2 * PRECISION, x), {f"{k}": affine(-PRECISION, x) for k in range(5)}
    one, many = gaps(fit, {"0": others["0"]}, ALONE)[0], gaps(fit, others, ALONE)[0]
    assert many.estimate == one.estimate
    assert one.quantile == pytest.approx(1.6487, abs=1e-3)
    assert many.quantile == pytest.approx(2.3357, abs=1e-3)
    assert many.bound < one.bound


@pytest.mark.parametrize(
    ("p", "degrees", "expected"), [(0.95, 10, 1.8125), (0.975, 9, 2.2622), (0.99, 30, 2.4573), (0.95, 1e9, 1.6449)]
)
def test_quantile_of_students_t(p, degrees, expected):
    assert t_quantile(p, degrees) == pytest.approx(expected, abs=1e-3)


def test_standard_error_of_copies_is_that_of_the_originals():
    g = np.random.default_rng(0).normal(size=300)
    alone = mean_and_error(g)
    assert alone == pytest.approx((g.mean(), g.std(ddof=1) / math.sqrt(300)))
    assert mean_and_error(np.repeat(g, 4), clusters=np.repeat(np.arange(300), 4)) == pytest.approx(alone)
    assert mean_and_error(np.repeat(g, 4))[1] < 0.51 * alone[1]


def chain(n, correlation, seed):
    z = np.random.default_rng(seed).standard_normal(n)
    for i in range(1, n):
        z[i] = correlation * z[i - 1] + math.sqrt(1.0 - correlation**2) * z[i]
    return z


def test_blocks_of_a_chain_know_how_little_it_tells():
    """The mean of an AR(1) has the standard deviation sqrt((1 + r) / (1 - r) / n)."""
    chains = [chain(2000, 0.9, seed) for seed in range(60)]
    labels = batch_labels(chains[0][:, None], HoldOut("blocks", time=16), None)
    errors = [mean_and_error(z, clusters=labels)[1] for z in chains]
    assert np.median(errors) == pytest.approx(math.sqrt(19.0 / 2000.0), rel=0.2)


# The competitors.


def test_mixture_by_bic_finds_the_components_of_its_samples():
    target = GaussianMixture([0.2, 0.5, 0.3], [[-4.0, 0.0], [0.0, 3.0], [4.0, 0.0]], np.full(3, 0.5))
    found = fit_mixture(target.sample(3000, seed=3) * [1.0, 100.0])
    order = np.argsort(found.means[:, 0])
    assert np.allclose(found.weights[order], target.weights, atol=0.03)
    assert np.allclose(found.means[order] / [1.0, 100.0], target.means, atol=0.1)
    assert np.allclose(found.covariances[order] / np.outer([1.0, 100.0], [1.0, 100.0]), 0.5 * np.eye(2), atol=0.1)


def test_mixture_asks_for_rows():
    assert fit_mixture(normal_rows(15)) is None


def test_divergence_of_a_mixture_is_the_trace_of_its_jacobian():
    target = GaussianMixture([0.3, 0.7], [[0.0, 1.0, 2.0], [2.0, -1.0, 0.0]], [np.eye(3), 0.5 * np.eye(3) + 0.1])
    x = target.sample(20, seed=1)
    assert np.allclose(target.divergence(x), np.trace(target.jacobian(x), axis1=1, axis2=2), rtol=1e-12)


# The lines.


def test_the_antisymmetric_share_of_a_rotation_added_to_a_gradient():
    """J = -I + w R, R a quarter turn: |J - J^T|^2 = 8 w^2 and |J|^2 = 2 + 2 w^2."""
    w = 0.5
    jacobian = np.array([[-1.0, -w], [w, -1.0]])
    assert antisymmetric_share(np.stack([jacobian, jacobian])) == pytest.approx(2.0 * w**2 / (1.0 + w**2))
    assert antisymmetric_share(np.stack([-np.eye(2)])) == 0.0
    assert antisymmetric_share(np.zeros((3, 2, 2))) == 0.0


def test_the_jacobian_of_a_fit_is_by_output_and_input(backend):
    x = normal_rows(200) * [1.0, 10.0, 0.1]
    result = ismcore.fit(x, model=ismcore.MLP((5,), "tanh"), backend=backend, dtype="float64", epochs=2)
    points, step = x[:4], 1e-5 * np.array([1.0, 10.0, 0.1])
    slopes = [(result.score(points + e) - result.score(points - e)) / (2.0 * e.sum()) for e in np.diag(step)]
    assert np.allclose(result.jacobian(points), np.stack(slopes, axis=2), rtol=1e-6, atol=1e-6)
    assert np.allclose(np.einsum("nii->ni", result.jacobian(points)), result.jacobian_diagonal(points), rtol=1e-9)


class Differences(NumpyCalculus):
    """Jacobian products by central differences, exact for a quadratic."""

    def jvp(self, f, x, v, /):
        return f(x), (f(x + v) - f(x - v)) / 2.0


class Pullbacks(NumpyCalculus):
    def vjp(self, f, x, /):
        columns = [(f(x + e) - f(x - e)) / 2.0 for e in np.eye(x.shape[1])]
        return f(x), lambda v: np.stack([np.sum(v * column, axis=1) for column in columns], axis=1)


@pytest.mark.parametrize("calculus", [Differences(), Pullbacks()], ids=["jvp", "vjp"])
def test_the_jacobian_needs_one_kind_of_product(calculus):
    weight, x = np.arange(9.0).reshape(3, 3), normal_rows(4)
    expected = weight + 2.0 * x[:, :, None] * np.eye(3)
    assert np.allclose(calculus.jacobian(lambda points: points @ weight.T + points**2, x), expected)


def test_a_score_that_is_no_gradient_is_found():
    turn = np.array([[0.0, -0.6, 0.0], [0.6, 0.0, 0.0], [0.0, 0.0, 0.0]])
    result, train = affine_fit(-PRECISION + turn), normal_rows(800, 1)
    found = line(result.check(normal_rows(400), train=train), "asymmetry")
    jacobian = (-PRECISION + turn) * train.std(axis=0)[:, None] * train.std(axis=0)
    assert found.statistic == pytest.approx(np.sum((jacobian - jacobian.T) ** 2) / (2.0 * np.sum(jacobian**2)))
    assert found.fault


def test_norm_identity_fails_by_the_factor_of_the_score():
    """E|c s|^2 + E div c s = (c^2 - c) E|s|^2."""
    x, train = normal_rows(2000, 3), normal_rows(2000, 4)
    exact, twice = (line(affine_fit(-c * PRECISION).check(x, train=train), "norm identity") for c in (1.0, 2.0))
    assert abs(exact.statistic) < 3.0
    assert not exact.fault
    assert twice.fault
    assert "0.5" in twice.meaning


# Verdicts.


def test_a_wrong_fit_is_found_and_bounded_by_its_divergence():
    result = affine_fit(-1.5 * PRECISION)
    train = normal_rows(2000, 1)
    found = result.check(normal_rows(1000, 2), train=train)
    exact = 0.25 * np.trace(PRECISION @ np.diag(train.std(axis=0) ** 2))  # of the standardised coordinates
    assert found.verdict == "fault found"
    assert 0.5 * exact < found.at_least < exact * 1.05
    assert found.at_least_share == pytest.approx(0.2, abs=0.06)  # 0.25 E|s|^2, less what chance allows


def test_the_exact_score_is_never_called_good():
    found = affine_fit(-PRECISION).check(normal_rows(2000, 2), train=normal_rows(2000, 1))
    assert found.verdict == "no fault found"
    assert found.at_least == 0.0
    assert found.visible_share < 0.25
    assert "good" not in str(found)


def test_rows_without_training_rows_are_parted():
    result, x = affine_fit(-1.5 * PRECISION), normal_rows(2000, 2)
    found = result.check(x)
    assert found.verdict == "fault found"
    assert found.rows == 1000
    assert result.check(x, train=normal_rows(500, 1)).rows == 2000


def test_copies_in_groups_do_not_add_to_the_evidence():
    result, x, train = affine_fit(-1.15 * PRECISION), normal_rows(300, 8), normal_rows(2000, 1)
    groups = np.arange(300)
    alone = result.check(x, train=train)
    jitter = 1e-3 * np.random.default_rng(0).standard_normal((2400, D))
    copied = result.check(np.repeat(x, 8, axis=0) + jitter, train=train, groups=np.repeat(groups, 8))
    assert copied.independent == 300
    assert copied.visible == pytest.approx(alone.visible, rel=0.02)


def test_what_would_have_been_seen_is_not_for_the_normal_law_to_say():
    """The fit is that law, and their gap is known to be 0 without error: the mixture alone can see a fault."""
    train = normal_rows(500, 1)
    precision = np.linalg.inv(np.cov(train.T, bias=True))
    found = affine_fit(-precision, precision @ train.mean(axis=0)).check(normal_rows(40, 2), train=train)
    assert 0.1 < found.visible < math.inf


def test_few_rows_cannot_tell():
    found = affine_fit(-PRECISION).check(normal_rows(8, 2), train=normal_rows(500, 1))
    assert found.verdict == "cannot tell"
    assert "8 independent rows" in found.why


@pytest.mark.parametrize("name", ["hard edges", "discrete columns"])
def test_rows_without_a_judge_give_no_bound(name):
    rng = np.random.default_rng(0)
    x = rng.exponential(size=(3000, 1)) if name == "hard edges" else np.round(rng.normal(size=(3000, 1)), 1)
    result = affine_fit([[-1.0]], [0.0], x=rng.normal(size=(50, 1)))
    found = result.check(x[1500:], train=x[:1500])
    assert found.at_least == 0.0
    assert name in found.why
    assert line(found, name).fault == (name == "hard edges")
    assert found.verdict == ("fault found" if name == "hard edges" else "cannot tell")


def test_a_fit_of_ones_own_is_a_competitor():
    train, x = normal_rows(1000, 1), normal_rows(1000, 2)
    result, other = affine_fit(-1.5 * PRECISION), affine_fit(-PRECISION)
    found = result.check(x, train=train, competitors={"mine": other})
    assert line(found, "mine").fault
    with pytest.raises(ismcore.OptionError, match="'normal law'"):
        result.check(x, train=train, competitors={"normal law": other})
    assert not any(entry.fault for entry in other.check(x, train=train, competitors={"wrong": result}).lines)


def test_without_rows_the_result_says_what_it_knows_and_bounds_nothing():
    result = affine_fit(-PRECISION)
    assert result.check().verdict == "cannot tell"
    assert "check(x_new)" in result.check().why
    worse = replace(result, baseline=_baseline(difference=0.9, error=0.1))
    found = worse.check()
    assert found.verdict == "fault found"
    assert line(found, "normal law, held out").statistic == pytest.approx(9.0)
    assert "no bound" in line(found, "normal law, held out").meaning
    assert found.at_least == 0.0
    assert not any(entry.fault for entry in replace(result, baseline=_baseline(difference=0.0, error=0.0)).check().lines)


@pytest.mark.parametrize(("difference", "fault"), [(0.13, False), (0.17, True)])
def test_what_is_certain_is_a_fault_from_a_share_of_the_score_on(difference, fault):
    held_out = replace(affine_fit(-PRECISION), baseline=_baseline(difference, error=0.01))  # of E|score|^2 / 2 = 1
    assert line(held_out.check(), "normal law, held out").fault is fault
    x = normal_rows(20_000)
    stretched = affine_fit(-PRECISION * (1.0 + math.sqrt(difference)), x=x[:50])  # off by that share of E|score|^2
    found = stretched.check(x[10_000:], train=x[:10_000])
    assert line(found, "normal law").statistic > 10.0
    assert line(found, "normal law").fault is fault
    assert line(found, "norm identity").statistic > 10.0


@pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")
def test_an_edge_that_the_fit_knows_is_no_fault_of_it():
    x = np.random.default_rng(0).exponential(size=(2000, 1))
    plain, known = (
        ismcore.fit(x, model=ismcore.Affine(), backend="autograd", epochs=2, domain=domain)
        for domain in (None, ismcore.domains.Positive())
    )
    assert line(plain.check(x[:1000], train=x[1000:]), "hard edges").fault
    assert not line(known.check(x[:1000], train=x[1000:]), "hard edges").fault


def _baseline(difference, error):
    from ismcore.training.baseline import Baseline

    return Baseline(loss=-1.0, fit_loss=-1.0 + difference, difference=difference, standard_error=error, rows=100)


def test_a_check_prints_and_is_plain_data():
    found = affine_fit(-1.5 * PRECISION).check(normal_rows(500, 2), train=normal_rows(500, 1))
    text = str(found)
    assert text.startswith("fault found: ")
    assert max(map(len, text.splitlines())) <= 128
    assert all(entry.name in text and entry.name in found._repr_html_() for entry in found.lines)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["verdict"] == "fault found"
    assert json.loads(json.dumps(affine_fit(-PRECISION).check().to_dict(), allow_nan=False))["visible"] is None


# What is refused.


def test_rows_that_the_fit_has_seen_are_refused():
    x = normal_rows(300)
    with pytest.raises(ismcore.OptionError, match=r"those of train, .*has seen"):
        affine_fit(-PRECISION).check(x, train=np.vstack([x, normal_rows(100, 1)]))


@pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")
@pytest.mark.parametrize("part", [slice(0, 40), slice(None)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_fit_knows_its_own_rows(tmp_path, part, dtype):
    """A network that has learned its 60 rows by heart: on these rows no competitor would find what is wrong."""
    x, new = normal_rows(1060)[:60], normal_rows(1060)[60:]
    options = {"recipe": "single", "validation": 0, "epochs": 5, "dtype": dtype}
    ismcore.fit(x, backend="autograd", **options).save(tmp_path / "fit.safetensors")
    result = ismcore.load(tmp_path / "fit.safetensors")
    with pytest.raises(ismcore.OptionError, match=r"those of the fit, .*fit\(x, test=0.2\)"):
        result.check(x[part])
    with pytest.raises(ismcore.OptionError, match="those of the fit, "):
        result.check(np.vstack([x, new])[::-1], train=new)
    assert result.check(np.vstack([x[:20], new])).rows == 510


def test_rows_of_a_large_fit_are_known_by_those_that_it_keeps():
    x = normal_rows(5000)
    result = ismcore.fit(x, model=ismcore.Affine(), backend="autograd", epochs=1)
    assert len(result.kept) == 1000
    with pytest.raises(ismcore.OptionError, match="most of its rows among them"):
        result.check(x)


@pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")
def test_values_that_repeat_are_no_rows_that_the_fit_has_seen():
    x, new = (np.round(normal_rows(300, seed)[:, :1], 1) for seed in (0, 1))
    result = ismcore.fit(x, model=ismcore.Affine(), objective=ismcore.ImplicitScoreMatching(0.1), backend="autograd", epochs=1)
    assert "discrete columns" in result.check(new).why


def test_a_score_for_each_noise_scale_is_refused():
    objective = ismcore.NoiseConditionalScoreMatching((1.0, 0.1))
    model = ismcore.NoiseConditional(ismcore.MLP((4,)))
    result = ismcore.fit(normal_rows(100), model=model, objective=objective, backend="autograd", epochs=1, validation=0)
    with pytest.raises(ismcore.OptionError, match="each noise scale"):
        result.check(normal_rows(100, 1))


def test_arguments_without_rows_are_refused():
    with pytest.raises(ismcore.OptionError, match="go with rows"):
        affine_fit(-PRECISION).check(train=normal_rows(10))
    with pytest.raises(ismcore.SamplesError, match="3 columns"):
        affine_fit(-PRECISION).check(np.zeros((10, 2)))
    with pytest.raises(ismcore.SamplesError, match="at least 4 rows, and got 3"):
        affine_fit(-PRECISION).check(normal_rows(3))
