"""What the page of reproductions measures with is right: its closed forms, against brute force."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import reproduce


def test_collisions_are_the_sum_over_pairs():
    rng = np.random.default_rng(0)
    x, score = rng.normal(size=(2, 7, 3))
    right = np.zeros_like(x)
    for p in range(7):
        for q in range(7):
            z = x[p] - x[q]
            right[p] -= (z @ z * np.eye(3) - np.outer(z, z)) @ (score[p] - score[q]) / (24.0 * 7)
    assert np.allclose(reproduce.collisions(x, score), right)


@pytest.mark.parametrize("d", [3, 5])
def test_the_maxwellian_is_drawn_from_its_density_and_has_its_score(d):
    law, rng = reproduce.Maxwellian(d, reproduce.Maxwellian.start(d)), np.random.default_rng(1)
    x = law.sample(40_000, rng)
    assert np.allclose(np.cov(x.T), np.eye(d), atol=0.05)
    fourth = law.p * law.k**2 * d * (d + 2) + law.q * law.k**3 * d * (d + 2) * (d + 4)
    assert ((x**2).sum(axis=1) ** 2).mean() == pytest.approx(fourth, rel=0.03)
    step = 1e-5 * np.eye(d)
    for point in x[:3]:
        slopes = [np.log(law.pdf((point + e)[None])[0] / law.pdf((point - e)[None])[0]) / 2e-5 for e in step]
        assert np.allclose(law.score(point[None])[0], slopes, rtol=1e-5, atol=1e-5)
    proposal = np.sqrt(2.0) * rng.normal(size=(100_000, d))
    weight = np.exp(-(proposal**2).sum(axis=1) / 4.0) / (4.0 * np.pi) ** (d / 2.0)
    assert (law.pdf(proposal) / weight).mean() == pytest.approx(1.0, abs=0.02)


def test_a_causal_order_is_found_by_the_exact_diagonal():
    """Of x_1 = e_1, x_2 = sin 2 x_1 + e_2, x_3 = x_2^2 + e_3, standard normal noise: that of the last column is constant."""
    e = np.random.default_rng(2).normal(size=(3, 400))
    second = np.sin(2.0 * e[0]) + e[1]
    x = np.stack([second**2 + e[2], e[0], second], axis=1)

    def diagonal(left):
        if left.shape[1] == 2:  # the last column taken away
            first, second = left.T
            rest = second - np.sin(2.0 * first)
            return np.stack([-1.0 - 4.0 * np.cos(2.0 * first) ** 2 - 4.0 * rest * np.sin(2.0 * first), -np.ones(400)], axis=1)
        last, first, second = left.T
        of_first = diagonal(left[:, 1:])[:, 0]
        return np.stack([-np.ones(400), of_first, -1.0 - 4.0 * second**2 + 2.0 * (last - second**2)], axis=1)

    assert reproduce.ordered(x, diagonal) == [1, 2, 0]
    edges = np.zeros((3, 3), dtype=bool)
    edges[1, 2] = edges[2, 0] = True
    assert (reproduce.wrong_edges([1, 2, 0], edges), reproduce.wrong_edges([0, 2, 1], edges)) == (0, 2)


def test_the_stein_estimator_finds_the_diagonal_of_a_normal_law():
    x = np.random.default_rng(3).normal(size=(600, 2)) * [1.0, 0.7]
    middle = (x**2).sum(axis=1) < 1.0
    assert np.allclose(reproduce.stein_diagonal(x)[middle].mean(axis=0), [-1.0, -1.0 / 0.49], rtol=0.15)


def test_amari_index_is_0_for_a_scaled_permutation_and_1_at_most():
    assert reproduce.amari(np.array([[0.0, -3.0], [0.5, 0.0]])) == 0.0
    assert reproduce.amari(np.ones((3, 3))) == 1.0


def test_a_row_is_within_its_stated_error_or_says_no():
    assert reproduce.near("loss", 1.0, 1.05, 0.1)[-1] is True
    assert reproduce.near("loss", 1.0, 1.2, 0.1)[-1] is False
    text = reproduce.page({"normal": {"rows": [reproduce.near("loss", 1.0, 1.2, 0.1)], "seconds": 1.0, "backend": "torch"}})
    assert "| loss | 1 | 1.2 | 0.1 | NO |" in text
