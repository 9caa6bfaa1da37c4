"""`fit(test=)`: rows set aside before the fit, which `check()` judges by; and the spread of folds."""

from dataclasses import replace

import numpy as np
import pytest

import ismcore
from ismcore.errors import CheckpointMismatch, FileInvalid, OptionError
from ismcore.fitting.parting import parted, samples_of, share_to_set_aside
from ismcore.judging.certificate import Derivatives, gaps
from ismcore.judging.lines import folds_of
from ismcore.targets import GaussianMixture, fit_mixture

QUICK = {"backend": "autograd", "recipe": "single", "epochs": 5, "progress": False}


def bent(n: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, 2))
    return np.c_[x[:, 0], x[:, 0] ** 2 + 0.5 * x[:, 1]]


def rows_in(rows: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Where the rows are in x, all of them different."""
    at = {row.tobytes(): number for number, row in enumerate(x)}
    return np.array([at[row.tobytes()] for row in rows])


def other_than(rows: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.delete(x, rows_in(rows, x), axis=0)


@pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")
@pytest.mark.parametrize("options", [{}, {"recipe": "default", "epochs": 20}, {"validation": 0}, {"restarts": 2}])
def test_a_fit_is_that_of_the_rows_that_are_left(options: dict) -> None:
    x = bent(300)
    result = ismcore.fit(x, test=0.25, **(QUICK | options))
    left = other_than(result.test.x, x)
    assert len(left) == 225
    assert np.array_equal(result.test.fitted, left)
    assert np.array_equal(result.score(x), ismcore.fit(left, **(QUICK | options)).score(x))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")
def test_the_rows_set_aside_certify_and_stay_with_the_result(tmp_path) -> None:
    x = bent(1200)
    wrong = ismcore.fit(x, model=ismcore.Affine(), test=400, **(QUICK | {"epochs": 200}))
    found = wrong.check()
    assert found.verdict == "fault found"
    assert found.at_least_share > 0.3
    assert found.rows == found.independent == 400
    beside = ismcore.fit(wrong.test.fitted, model=ismcore.Affine(), test=wrong.test.x, **(QUICK | {"epochs": 200}))
    assert beside.check() == found
    assert wrong.check(wrong.test.x, train=wrong.test.fitted).at_least == pytest.approx(found.at_least, rel=1e-12)
    own = ismcore.fit(wrong.test.fitted, ensemble=2, **(QUICK | {"recipe": "default", "epochs": 5}))
    assert wrong.check(competitors={"folds": own}).lines[2].name == "folds"
    wrong.save(tmp_path / "fit.safetensors")
    assert ismcore.load(tmp_path / "fit.safetensors").check() == found


@pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")
def test_a_run_in_a_checkpoint_goes_on_with_the_same_rows_set_aside(tmp_path) -> None:
    x, fresh = bent(300), bent(80, 1)
    for number, (test, again) in enumerate([(0.2, None), (33, None), (fresh, fresh)]):
        path = tmp_path / f"{number}"
        whole = ismcore.fit(x, test=test, **QUICK)
        ismcore.fit(x, test=test, checkpoint=path, timeout=1e-6, **QUICK)
        found = ismcore.resume(path, x, test=again)
        assert np.array_equal(found.score(x), whole.score(x))
        assert np.array_equal(found.test.x, whole.test.x)
        assert np.array_equal(found.test.fitted, whole.test.fitted)
        if number == 0:
            whole.save(tmp_path / "saved")
    with pytest.raises(CheckpointMismatch, match="another test"):
        ismcore.resume(tmp_path / "2", x, test=fresh[::-1])
    with pytest.raises(CheckpointMismatch, match="another test"):
        ismcore.resume(tmp_path / "2", x)
    changed = x.copy()
    changed[rows_in(ismcore.load(tmp_path / "saved").test.x[:1], x)] += 1.0
    with pytest.raises(CheckpointMismatch, match="another test"):
        ismcore.resume(tmp_path / "0", changed)


@pytest.mark.parametrize("count", [1, 7, 100, 299])
def test_a_number_of_rows_is_that_number(count: int) -> None:
    x = bent(300)
    samples = samples_of(x, None, None, None, None)
    if count == 299:  # one row alone has no spread
        with pytest.raises(ismcore.errors.SamplesError):
            parted(samples, count, share_to_set_aside(count, 300), 0, "float32")
        return
    found = parted(samples, count, share_to_set_aside(count, 300), 3, "float32")
    assert (len(found.test.x), len(found.x)) == (count, 300 - count)


def test_rows_of_a_group_are_set_aside_together_and_count_as_one() -> None:
    x, groups = bent(600), np.arange(600) // 12
    found = parted(samples_of(x, None, None, groups, None), 0.3, 0.3, 0, "float32")
    aside, left = groups[rows_in(found.test.x, x)], groups[rows_in(found.x, x)]
    assert not set(aside) & set(left)
    assert len(aside) == 180
    assert found.test.labels.max() == 14
    assert np.array_equal(np.unique(found.groups), np.arange(35))


def test_of_a_chain_blocks_are_set_aside_apart_from_the_others() -> None:
    noise, x = np.random.default_rng(0).standard_normal((4000, 1)), np.zeros((4000, 1))
    for i in range(1, 4000):
        x[i] = 0.9 * x[i - 1] + noise[i]
    found = parted(samples_of(x, None, None, None, None), 0.2, 0.2, 0, "float32")
    aside, left = rows_in(found.test.x, x), rows_in(found.x, x)
    assert np.abs(aside[:, None] - left).min() > 5
    assert abs(len(aside) - 800) < 40
    assert 10 <= found.test.labels.max() + 1 < 200


def test_weights_of_rows_set_aside_are_those_of_repeated_rows() -> None:
    rng = np.random.default_rng(0)
    x, counts = rng.standard_normal((200, 2)), rng.integers(0, 4, 200)
    again, rows = np.repeat(np.arange(200), counts), np.arange(200)
    fit, other = Derivatives(-x, np.full(200, -2.0)), Derivatives(-1.2 * x, np.full(200, -2.4))
    weighted = gaps(fit, {"other": other}, rows, counts / counts.sum())[0]
    taken = [Derivatives(one.psi[again], one.divergence[again]) for one in (fit, other)]
    repeated = gaps(taken[0], {"other": taken[1]}, np.unique(again, return_inverse=True)[1])[0]
    assert weighted.bound == pytest.approx(repeated.bound, rel=1e-12)
    assert weighted.visible == pytest.approx(repeated.visible, rel=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")
def test_a_check_with_weights_is_of_the_weighted_law() -> None:
    rng = np.random.default_rng(0)
    x = 2.0 * rng.standard_normal((3000, 1))
    weight = np.exp(-3.0 * x[:, 0] ** 2 / 8.0)  # times N(0, 4) this is N(0, 1)
    result = ismcore.fit(x, sample_weight=weight, test=0.3, model=ismcore.Affine(), **(QUICK | {"epochs": 300}))
    assert result.params["weight"].item() == pytest.approx(-1.0, abs=0.2)
    assert result.check().verdict != "fault found"
    unweighted = result.check(result.test.x, train=result.test.fitted)
    assert unweighted.verdict == "fault found"
    assert unweighted.at_least_share > 0.3


@pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")
def test_a_check_with_weights_is_that_of_repeated_rows() -> None:
    x, counts = bent(600), np.random.default_rng(0).integers(0, 4, 600).astype(float)
    result = ismcore.fit(x, sample_weight=counts, test=0.4, model=ismcore.Affine(), **QUICK)
    test = result.test
    again, fitted = (
        np.repeat(np.arange(len(w)), np.rint(w / w[w > 0].min()).astype(int)) for w in (test.weight, test.fitted_weight)
    )
    repeated = replace(
        test, x=test.x[again], labels=test.labels[again], weight=None, fitted=test.fitted[fitted], fitted_weight=None
    )
    weighted, expected = result.check(), replace(result, test=repeated).check()
    assert weighted.independent == expected.independent
    for name in ("normal law", "norm identity"):
        one, other = (next(line for line in found.lines if line.name == name) for found in (weighted, expected))
        assert one.statistic == pytest.approx(other.statistic, rel=1e-9)


def test_a_mixture_knows_weights() -> None:
    x = GaussianMixture([0.5, 0.5], [-4.0, 4.0], [1.0, 1.0]).sample(2000, seed=1)
    weight = np.where(x[:, 0] < 0.0, 3.0, 1.0)
    found = fit_mixture(x, weight=weight / weight.sum())
    left = found.weights[found.means[:, 0] < 0.0].sum()
    assert left == pytest.approx(weight[x[:, 0] < 0.0].sum() / weight.sum(), abs=1e-3)
    equal = fit_mixture(x, weight=np.full(2000, 1 / 2000))
    assert np.allclose(equal.means, fit_mixture(x).means, rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("test", [0, -1, 300, 1.5, 0.0, True, "a", float("nan")])
def test_what_is_no_part_of_the_rows_is_refused(test: object) -> None:
    with pytest.raises((OptionError, ismcore.errors.SamplesError)):
        ismcore.fit(bent(300), test=test, **QUICK)


def test_resamples_cannot_each_set_other_rows_aside() -> None:
    with pytest.raises(OptionError, match="set other rows aside"):
        ismcore.bootstrap(bent(300), test=0.2, **QUICK)


OWN_ROWS = {
    "all": lambda x, new: x,
    "a part": lambda x, new: x[50:90][::-1],
    "more than all": lambda x, new: np.vstack([new, x]),
}


@pytest.mark.parametrize("which", OWN_ROWS)
def test_rows_that_the_fit_is_trained_on_do_not_judge_it(which) -> None:
    rows = OWN_ROWS[which](bent(300), bent(900)[300:])
    with pytest.raises(OptionError, match=r"most rows of test are rows of x too.*as in test=0\.2"):
        ismcore.fit(bent(300), test=rows, **QUICK)
    with pytest.warns(ismcore.IsmWarning, match=r"most rows of validation= are rows of x too.*as in validation=0\.2"):
        result = ismcore.fit(bent(300), validation=rows, **QUICK)
    assert any("validation= are rows of x" in text for text in result.warnings)


@pytest.mark.parametrize("argument", ["validation", "test"])
def test_other_rows_may_judge(argument) -> None:
    """With a few of the fit among them, or those that have no weight in it, or equal ones by rounding."""
    x, new = bent(300), bent(900)[300:]
    ismcore.fit(x, **(QUICK | {argument: np.vstack([new, x[:100]])[::2]}))
    ismcore.fit(x, sample_weight=np.arange(300) < 200.0, **(QUICK | {argument: x[200:]}))
    rounded = (np.round(rows, 1) for rows in (x[:, :1], new[:, :1]))
    with pytest.warns(ismcore.IsmWarning, match="discrete columns") as told:
        ismcore.fit(next(rounded), model=ismcore.Affine(), **(QUICK | {argument: next(rounded)}))
    assert not any("are rows of x too" in str(one.message) for one in told)


def test_rows_of_a_file_that_do_not_go_together_are_refused() -> None:
    found = parted(samples_of(bent(300), None, None, None, None), 0.2, 0.2, 0, "float32").test
    for wrong in ({"labels": found.labels[1:]}, {"x": found.x[:, :1]}, {"weight": np.zeros(60)}, {"labels": found.labels + 1}):
        with pytest.raises(FileInvalid, match="rows set aside"):
            ismcore.training.set_aside.SetAside(**(vars(found) | wrong)).check(2)


@pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")
@pytest.mark.parametrize("options", [{}, {"standardize": False}, {"model": ismcore.Energy(ismcore.MLP((8,))), "ensemble": 3}])
def test_the_spread_is_over_folds_whose_mean_is_the_fit(options: dict) -> None:
    x = bent(400)
    result = ismcore.fit(x, test=100, **(QUICK | {"recipe": "default", "epochs": 30} | options))
    scores = np.array([part.score(result.test.x) for part in folds_of(result)])
    assert len(scores) == options.get("ensemble", 5)
    assert np.allclose(scores.mean(axis=0), result.score(result.test.x), rtol=1e-4, atol=1e-4)
    scale = result.test.fitted.std(axis=0)
    expected = np.sum(scores.var(axis=0, ddof=1) * scale**2) / np.sum((scores.mean(axis=0) * scale) ** 2)
    line = next(line for line in result.check().lines if line.name == "spread of folds")
    assert line.statistic == pytest.approx(expected, rel=1e-3)
    assert line.statistic > 1e-4
    assert line.limit is None


@pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")
def test_one_network_has_no_folds() -> None:
    assert folds_of(ismcore.fit(bent(400), **QUICK)) == []
