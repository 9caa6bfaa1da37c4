"""Linear dependence of columns: found wherever it is exact up to rounding, in any unit and dtype, and nowhere else."""

import numpy as np
import pytest

import ismcore
from ismcore.samples.advice import warnings_for
from ismcore.samples.dependence import Dependence, dependence, resolution
from ismcore.samples.diagnosis import diagnosis_of


def free(n, d, seed=0):
    return np.random.default_rng(seed).gumbel(size=(n, d)) @ np.random.default_rng(seed + 1).normal(size=(d, d))


def mixed(n, seed=0):
    """Seven columns, of which the fifth is a combination of the first and the third."""
    x = free(n, 6, seed)
    return np.insert(x, 4, 3.0 * x[:, 0] - 0.25 * x[:, 2] + 1.0, axis=1)


def compositions(n, parts, seed=0):
    amounts = np.random.default_rng(seed).gamma(0.7, size=(n, parts)) + 0.01
    return amounts / amounts.sum(axis=1, keepdims=True)


SINGULAR = {
    "combination": (mixed(900), (0, 2, 4), 1),
    "in other units": ((mixed(900) + 1e3) * np.logspace(-12, 15, 7), (0, 2, 4), 1),
    "compositions": (compositions(700, 5), (0, 1, 2, 3, 4), 1),
    "beside a free column": (np.c_[free(700, 1), compositions(700, 4)], (1, 2, 3, 4), 1),
    "two pairs": (np.c_[free(400, 3), -2.0 * free(400, 3)[:, :2]], (0, 1, 3, 4), 2),
    "three of one": (free(400, 1) * [1.0, 0.5, 0.8], (0, 1, 2), 2),
    "classes in columns": (np.c_[np.eye(3)[np.random.default_rng(0).integers(0, 3, 300)], free(300, 2)], (0, 1, 2), 1),
    "float32": (mixed(900).astype(np.float32), (0, 2, 4), 1),
    "float32 compositions": (compositions(700, 20).astype(np.float32), tuple(range(20)), 1),
    "many rows": (mixed(30_000), (0, 2, 4), 1),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SINGULAR)
def test_dependent_columns_are_named_and_counted(name, dtype):
    x, columns, directions = SINGULAR[name]
    found = dependence(x.astype(np.float64), dtype)
    assert isinstance(found, Dependence)
    assert (found.columns, found.directions) == (columns, directions)
    assert 0.0 <= found.eigenvalue < 1e-12


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_columns_at_full_rank_are_not(dtype):
    for seed in range(100):
        d = 2 + seed % 11
        assert dependence(free(d + 2 + 3 * seed, d, seed), dtype) is None


def test_what_is_within_rounding_depends_on_the_dtype():
    noise = np.random.default_rng(9).normal(size=900)
    for size, expected in ((1e-4, (False, False)), (1e-8, (True, False)), (1e-17, (True, True))):
        x = mixed(900)
        x[:, 4] += size * noise
        assert tuple(dependence(x, dtype) is not None for dtype in ("float32", "float64")) == expected


def test_rounding_far_from_0_hides_no_correlation():
    x = free(2000, 2)
    x = np.c_[x[:, 0], x[:, 0] + 0.05 * x[:, 1]]
    assert dependence((x + 1e5).astype(np.float32).astype(np.float64), "float32") is None
    assert dependence(x + 1e12, "float32") is None


def test_rows_that_nobody_looked_at_count_too():
    x = np.concatenate([mixed(50_000), free(3, 7, 5)])
    assert dependence(x) is None
    assert dependence(x[:-3]) is not None


def test_few_rows_span_little_whatever_their_law():
    assert dependence(free(8, 7)) is None
    assert dependence(free(9, 7)) is None
    assert dependence(free(9, 1)) is None


def test_the_resolution_is_the_formula_s():
    x = np.array([[1.0 / 3.0, 0.0], [-1.0, 8.0]])
    scale = np.array([2.0 / 3.0, 4.0])
    eps, eps_64 = np.finfo(np.float32).eps, np.finfo(np.float64).eps
    expected = eps_64 * np.array([1.0, 8.0]) / scale + (eps + 8.0 * eps_64)
    np.testing.assert_allclose(resolution(x, "float32"), expected, rtol=1e-9)


@pytest.mark.parametrize("name", SINGULAR)
def test_no_modes_are_read_from_rounding(name):
    for dtype in ("float32", "float64"):
        gap = diagnosis_of(SINGULAR[name][0].astype(np.float64), dtype).gap
        assert gap is None or gap.high - gap.low > 1e-3


@pytest.mark.parametrize("parts", [2, 3, 4, 6])
def test_compositions_have_no_clusters_along_their_sum(parts):
    for seed in range(20):
        x = np.random.default_rng(seed).dirichlet(np.full(parts, 3.0), size=1500)
        assert diagnosis_of(x).gap is None


def test_modes_beside_dependent_columns_are_seen():
    x = np.random.default_rng(0).normal(size=(1000, 2))
    x[:500] += 5.5
    gap = diagnosis_of(np.c_[x, 2.0 * x]).gap
    assert gap is not None
    assert gap.share == pytest.approx(0.5, abs=0.01)


def test_dependent_columns_are_told_with_their_evidence():
    (text,) = warnings_for(mixed(900))
    assert "columns 0, 2, 4 are linearly dependent" in text
    assert f"{dependence(mixed(900)).eigenvalue:.2g}" in text
    assert "no density" in text
    assert "drop 1 of these columns" in text
    (text,) = warnings_for(SINGULAR["two pairs"][0])
    assert "in 2 directions" in text
    assert "drop 2" in text
    text = warnings_for(compositions(900, 30))[0]
    assert "and 18 more" in text


@pytest.mark.parametrize(("dtype", "told"), [("float32", True), ("float64", False)])
def test_a_fit_tells_of_what_its_dtype_does_not_resolve(dtype, told):
    x = mixed(900)
    x[:, 4] += 1e-8 * np.random.default_rng(9).normal(size=900)
    options = {"backend": "autograd", "model": ismcore.Affine(), "epochs": 2, "dtype": dtype}
    if told:
        with pytest.warns(ismcore.IsmWarning, match="linearly dependent"):
            ismcore.fit(x, **options)
    else:
        assert not [text for text in ismcore.fit(x, **options).warnings if "dependent" in text]
