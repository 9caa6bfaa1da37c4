"""Domains: edges, weights and their derivatives, and the same in other coordinates."""

import numpy as np
import pytest

import ismcore
from ismcore.coordinates import Coordinates
from ismcore.domains import Box, Halfspaces, Positive, Reals

INSIDE = np.random.default_rng(0).uniform(0.05, 0.45, size=(40, 2))
TRIANGLE = Halfspaces([[-1, 0], [0, -1], [1, 1]], [0, 0, 1])
DOMAINS = [Reals(), Positive(), Positive(0.2), Box(0.0, 0.5), Box((0.0, None), (0.6, 0.5), (0.1, 0.3)), TRIANGLE]


@pytest.mark.parametrize("domain", DOMAINS, ids=repr)
def test_slope_of_the_weight_is_its_derivative(domain):
    step = 1e-6
    h, slope = domain.weights(INSIDE)
    for i in range(2):
        move = step * np.eye(2)[i]
        before, after = (np.broadcast_to(domain.weights(INSIDE + sign * move)[0], (40, 2))[:, i] for sign in (-1, 1))
        np.testing.assert_allclose(slope[:, i], (after - before) / (2 * step), atol=1e-7)
    assert h.shape == ((40, 1) if domain.one_weight else (40, 2))
    assert ((h >= 0.0) & (h <= 1.0)).all()


@pytest.mark.parametrize("domain", [domain.measured(INSIDE) for domain in DOMAINS], ids=repr)
def test_weight_is_a_function_of_the_point_in_any_coordinates(domain):
    coordinates = Coordinates(np.array([0.3, -2.0]), np.array([0.1, 7.0]))
    h, slope = domain.weights(INSIDE)
    there, there_slope = domain.in_coordinates(coordinates).weights(coordinates(INSIDE))
    np.testing.assert_allclose(there, h, atol=1e-12)
    np.testing.assert_allclose(there_slope, slope * coordinates.scale, atol=1e-12)


@pytest.mark.parametrize("domain", DOMAINS[1:], ids=repr)
def test_weight_vanishes_at_the_edge_and_rows_outside_are_named(domain):
    edge = np.array([[0.0, 0.2], [0.1, 0.2]])
    assert domain.weights(edge)[0][0, 0] == 0.0
    domain.check(edge)
    with pytest.raises(ismcore.SamplesError, match=r"1 of 2 rows .* the first is row 1, \(-0.5, 0.2\)"):
        domain.check(np.array([[0.1, 0.2], [-0.5, 0.2]]))


def test_ends_that_are_infinite_have_no_edge():
    box = Box((0.0, -np.inf), (np.inf, np.inf))
    assert box == Box((0.0, None), (None, None))
    h, slope = box.weights(np.array([[0.5, -9.0]]))
    assert (h.tolist(), slope.tolist()) == ([[0.5, 1.0]], [[1.0, 0.0]])
    assert box.covers(0, 0.01, lower=True)
    assert not any((box.covers(0, 0.5, lower=True), box.covers(0, 9.0, lower=False), box.covers(1, -9.0, lower=True)))
    assert TRIANGLE.covers(0, 0.9, lower=False)
    assert box.origin(np.array([5.0, 6.0])).tolist() == [0.0, 6.0]


def test_width_is_a_standard_deviation_unless_it_is_given():
    x = np.array([[0.0, 1.0], [2.0, 5.0]])
    assert Positive().measured(x).width == (1.0, 2.0)
    assert Positive(3.0).measured(x).width == 3.0
    assert Positive().measured(x, np.array([0.5, 0.5])).width == (1.0, 2.0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Box(1.0, 1.0), "below the upper"),
        (lambda: Box((0.0, 0.0), (1.0, 1.0, 1.0)), "as many"),
        (lambda: Box(np.nan, 1.0), "finite"),
        (lambda: Box("a", 1.0), "one end"),
        (lambda: Box(np.inf, None), "finite"),
        (lambda: Positive(0.0), "positive"),
        (lambda: Positive("wide"), "positive"),
        (lambda: Halfspaces([[1, 0]], [0, 1]), r"\(k, d\) and \(k,\)"),
        (lambda: Halfspaces([[0, 0]], [1]), "no row of A"),
        (lambda: Halfspaces([["a"]], [1]), "numbers"),
        (lambda: TRIANGLE.check(np.zeros((3, 3))), "3 columns"),
        (lambda: Box((0.0, 0.0), None).check(np.ones((3, 3))), "3 columns"),
        (lambda: Positive((1.0, 1.0)).check(np.ones((3, 3))), "3 columns"),
        (lambda: Positive().in_coordinates(Coordinates.whitening(INSIDE)), "mixes them"),
    ],
)
def test_what_is_no_domain_is_refused(make, words):
    with pytest.raises(ismcore.OptionError, match=words):
        make()
