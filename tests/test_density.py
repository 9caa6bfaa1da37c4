"""Densities recovered from scores, against closed forms and the published rule."""

import numpy as np
import pytest
from truth import array, replay

import ismcore
from ismcore.density import density_error, density_from_score

GRID = np.linspace(-10.0, 10.0, 200)
TARGET = ismcore.datasets.reference_run().target
TRUE_SCORE = TARGET.score(GRID)[:, 0]


def test_the_true_score_gives_the_true_density():
    # by the formula of the mixture, not by the library's target
    pdf = (0.1 * np.exp(-0.5 * (GRID + 3) ** 2) + 0.9 * np.exp(-0.5 * (GRID - 3) ** 2)) / np.sqrt(2 * np.pi)
    found = density_from_score(TRUE_SCORE, GRID)
    assert np.trapezoid(np.abs(found - pdf), GRID) < 1e-3
    assert density_error(found, TARGET, GRID) == pytest.approx(np.trapezoid(np.abs(found - pdf), GRID), rel=1e-9)


def test_trapezoid_error_falls_with_the_square_of_the_step_and_rectangle_error_with_the_step():
    def error(method, points):
        grid = np.linspace(-10.0, 10.0, points)
        return density_error(density_from_score(TARGET.score(grid)[:, 0], grid, method=method), TARGET, grid)

    assert error("trapezoid", 201) / error("trapezoid", 401) == pytest.approx(4.0, rel=0.1)
    assert error("rectangle", 201) / error("rectangle", 401) == pytest.approx(2.0, rel=0.1)


def test_rectangle_rule_reproduces_the_tutorial():
    published = replay()
    found = density_from_score(array(published["score_pred_grid"]), GRID, method="rectangle")
    np.testing.assert_allclose(found, array(published["pdf_pred_seed_formula"]), rtol=0.0, atol=1e-12)


def test_rectangle_rule_is_four_percent_off_even_with_the_true_score():
    assert density_error(density_from_score(TRUE_SCORE, GRID, method="rectangle"), TARGET, GRID) == pytest.approx(
        0.04, abs=0.005
    )


@pytest.mark.parametrize("steep", [1.0, 300.0])
def test_uneven_grids_and_steep_scores(steep):
    # a linear score is integrated exactly by the trapezoid rule, whatever the steps
    grid = np.sort(np.random.default_rng(0).uniform(-6, 6, 400)) / np.sqrt(steep)
    found = density_from_score(-steep * grid, grid)
    exact = np.exp(-0.5 * steep * grid**2)
    np.testing.assert_allclose(found, exact / np.trapezoid(exact, grid), rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize(
    ("score", "grid", "method", "words"),
    [
        ([0.0, 0.0], [1.0, 0.0], "trapezoid", "increasing"),
        ([0.0], [1.0], "trapezoid", "increasing"),
        ([0.0, np.nan], [0.0, 1.0], "trapezoid", "finite"),
        ([[0.0], [0.0]], [0.0, 1.0], "trapezoid", r"\(2, 1\)"),
        ([0.0, 0.0, 0.0], [0.0, 1.0, 3.0], "rectangle", "equal steps"),
        ([0.0, 0.0], [0.0, 1.0], "simpson", "'trapezoid' or 'rectangle'"),
    ],
)
def test_unusable_scores_and_grids(score, grid, method, words):
    with pytest.raises((ismcore.SamplesError, ismcore.OptionError), match=words):
        density_from_score(score, grid, method=method)
