"""Densities recovered from scores, against closed forms and the published rule."""

import math
from dataclasses import replace

import numpy as np
import pytest
from truth import array, replay

import ismcore
from ismcore.results.normaliser import MOST_NODES, by_quadrature
from ismcore.samples.gaps import Modes
from ismcore.targets.density import density_error, density_from_score, integrate_score

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


def exact_energy(d):
    """U = 5 - log [ 0.3 exp(-|x + m|^2 / 2) + 0.7 0.6^(-d/2) exp(-|x - m|^2 / 1.2) ], whose log Z is known."""

    def apply(ops, params, x):
        left = -0.5 * ops.sum((x + params["m"]) ** 2, axis=1) + np.log(0.3)
        right = -0.5 / 0.6 * ops.sum((x - params["m"]) ** 2, axis=1) + np.log(0.7) - 0.5 * d * np.log(0.6)
        return 5.0 - ops.logaddexp(left, right)

    return ismcore.Energy(ismcore.ScoreFunction(apply, {"m": np.array([1.5] + [0.0] * (d - 1))}))


def law(d):
    mean = np.array([1.5] + [0.0] * (d - 1))
    return ismcore.targets.GaussianMixture([0.3, 0.7], [-mean, mean], [1.0, 0.6])


KEEP = {"epochs": 1, "optimizer": ismcore.SGD(0.0), "standardize": False, "validation": 0, "dtype": "float64"}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["autograd", "torch", "jax"])
@pytest.mark.parametrize(("d", "allowed"), [(2, 1e-9), (3, 0.02), (10, 0.08)])
def test_the_normaliser_of_a_known_energy_is_found_with_its_error(d, allowed, backend):
    result = ismcore.fit(law(d).sample(600, seed=1), model=exact_energy(d), backend=backend, **KEEP)
    found = result.log_normaliser()
    away = found.value - (0.5 * d * np.log(2.0 * np.pi) - 5.0)
    assert abs(away) < allowed
    assert abs(away) < 4.0 * found.standard_error + 1e-9
    assert found.effective > 5000.0
    x = law(d).sample(5, seed=2)
    np.testing.assert_allclose(result.log_density(x), law(d).log_pdf(x), atol=abs(away) + 1e-9)


def test_a_density_in_the_plane_is_in_the_samples_units_and_the_same_at_any_points():
    x = law(2).sample(1500, seed=1) * [10.0, 0.01] + [5.0, 3.0]
    model = ismcore.Energy(ismcore.MLP((12,), "softplus"))
    result = ismcore.fit(x, model=model, backend="autograd", epochs=60, dtype="float64")
    first, second = np.linspace(-65.0, 75.0, 281), np.linspace(2.92, 3.08, 281)
    grid = np.stack(np.meshgrid(first, second, indexing="ij"), axis=-1)
    density = result.density(grid.reshape(-1, 2)).reshape(281, 281)
    mass = np.trapezoid(np.trapezoid(density, second, axis=1), first)
    assert mass == pytest.approx(1.0, abs=5e-3)
    np.testing.assert_allclose(result.density(grid[100, 100:102]), density[100, 100:102], rtol=1e-12)
    step = 1e-4 * np.array([10.0, 0.01])
    slope = [(result.log_density(x[:4] + e) - result.log_density(x[:4] - e)) / (2.0 * e.sum()) for e in np.diag(step)]
    np.testing.assert_allclose(np.transpose(slope), result.score(x[:4]), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:columns have such heavy tails:ismcore.IsmWarning")
def test_what_nothing_normalises_and_what_is_too_wide_is_refused():
    x = law(3).sample(200, seed=1)
    free = ismcore.fit(x, model=ismcore.MLP((4,)), backend="autograd", epochs=3)
    with pytest.raises(ismcore.DensityUnavailable, match=r"fit ismcore\.Energy|an ismcore\.Energy"):
        free.log_normaliser()

    def flat(ops, params, x):
        return 0.5 * ops.log(1.0 + ops.sum(params["a"] * x * x, axis=1))

    rising = ismcore.Energy(ismcore.ScoreFunction(flat, {"a": np.array([0.5])}))
    with pytest.raises(ismcore.DensityUnavailable, match="does not rise"):
        ismcore.fit(x[:, :2], model=rising, backend="autograd", **KEEP).density(x[:1, :2])

    def heavy(ops, params, x):
        return 26.0 * ops.log(1.0 + ops.sum(params["a"] * x * x, axis=1))  # of a t law of 2 degrees in 50 dimensions

    x = np.random.default_rng(0).standard_t(2.0, size=(800, 50))
    tails = ismcore.Energy(ismcore.ScoreFunction(heavy, {"a": np.array([0.5])}))
    with pytest.raises(ismcore.DensityUnavailable, match="are effective"):
        ismcore.fit(x, model=tails, backend="autograd", **KEEP).log_normaliser()


@pytest.mark.filterwarnings("ignore:too few rows:ismcore.IsmWarning")
def test_the_energy_nearest_to_a_score_has_its_gradient_part_and_can_be_saved(tmp_path):
    def swirling(ops, params, x):
        return ops.stack([-x[:, 0] - params["w"] * x[:, 1], params["w"] * x[:, 0] - x[:, 1]], axis=1)

    x = np.random.default_rng(0).normal(size=(600, 2))
    score = ismcore.fit(x, model=ismcore.ScoreFunction(swirling, {"w": np.array(0.5)}), backend="autograd", **KEEP)
    with pytest.warns(ismcore.IsmWarning, match="which is lost"):
        found = score.as_energy(x, model=ismcore.Energy(ismcore.MLP((16,), "softplus")), epochs=150)
    gradient = -x
    assert np.mean((found.score(x) - gradient) ** 2) < 0.05
    lost = [float(text.split(" by ")[1].split()[0]) for text in found.warnings if "lost" in text]
    assert lost == pytest.approx([0.2], abs=0.03)  # 0.25 / 1.25
    found.save(tmp_path / "energy")
    np.testing.assert_array_equal(ismcore.load(tmp_path / "energy").density(x[:3]), found.density(x[:3]))


def test_the_energy_of_a_librarys_network_comes_in_its_framework():
    import torch

    x = law(2).sample(100, seed=1) * [10.0, 0.01] + [5.0, 3.0]
    model = ismcore.Energy(ismcore.MLP((4,), "softplus"))
    result = ismcore.fit(x, model=model, backend="torch", epochs=2, dtype="float64")
    points = torch.tensor(x, requires_grad=True)
    energy = result.native(energy=True)(points)
    np.testing.assert_allclose(energy.detach(), result.energy(x), rtol=1e-12)
    slope = torch.autograd.grad(energy.sum(), points)[0]
    np.testing.assert_allclose(-slope, result.score(x), rtol=1e-9)
    free = ismcore.fit(x, model=ismcore.Affine(), backend="torch", epochs=2)
    with pytest.raises(ismcore.ModelError, match="see as_energy"):
        free.native(energy=True)


def test_what_no_gradient_has_of_a_score_is_measured():
    def swirling(ops, params, x):
        return ops.stack([-x[:, 0] - params["w"] * x[:, 1], params["w"] * x[:, 0] - x[:, 1]], axis=1)

    x = np.random.default_rng(0).normal(size=(100, 2))
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    score = ismcore.fit(x, model=ismcore.ScoreFunction(swirling, {"w": np.array(0.5)}), backend="autograd", **KEEP)
    assert score.asymmetry(x) == pytest.approx(2.0 * 0.25 / 1.25)  # J = -I + w R
    energy = ismcore.fit(x, model=ismcore.Energy(ismcore.MLP((4,), "softplus")), backend="autograd", **KEEP)
    assert energy.asymmetry(x) < 1e-20


def cut_at(c, shares, d):
    """Two modes, parted by the plane x_1 = c."""
    normal, centres = np.eye(1, d), np.zeros((2, d))
    centres[:, 0] = [c - 3.0, c + 3.0]
    return Modes(normal, np.array([c]), np.zeros(1, np.int64), np.array(shares), centres)


def beside_a_normal_law(log_f, c, d, shares=(0.9, 0.1)):
    """A fit of U = -log [ N(0, I) + f ], f beyond x_1 = c and 0 before it, whose modes are parted there."""

    def apply(ops, params, x):
        away = ops.where(x[:, 0] > c, 1.0, 0.0)
        left = -0.5 * ops.sum(x * x, axis=1) * params["a"] - 0.5 * d * np.log(2.0 * np.pi)
        return -ops.logaddexp(left, log_f(ops, x) * away - 1e4 * (1.0 - away))

    x = np.random.default_rng(0).normal(size=(300, d))
    model = ismcore.Energy(ismcore.ScoreFunction(apply, {"a": np.ones(1)}))
    result = ismcore.fit(x, model=model, backend="autograd", **KEEP)
    return replace(result, modes=cut_at(c, shares, d), kept=None)


def normal_at(mean, width, log_weight):
    """Log of a weight times the normal density N(mean, width^2 I)."""

    def log_f(ops, x):
        square = ops.sum((x - np.array(mean)) ** 2, axis=1) / width**2
        return log_weight - 0.5 * square - len(mean) * np.log(width * np.sqrt(2.0 * np.pi))

    return log_f


def test_a_small_mode_has_an_accuracy_of_its_own_on_a_line():
    def score_beside(width, log_weight):
        def score(z):
            left, right = -0.5 * z**2, log_weight - 0.5 * ((z - 12.0) / width) ** 2
            share = 1.0 / (1.0 + np.exp(np.clip(left - right, -700.0, 700.0)))
            return -(1.0 - share) * z - share * (z - 12.0) / width**2

        return score

    def number(z):
        return (z > 7.0).astype(np.int64)

    seen = integrate_score(score_beside(0.1, np.log(1e-7)), number=number, count=2)
    z = np.array([11.8, 12.0, 12.1])
    exact = -0.5 * ((z - 12.0) / 0.1) ** 2 - np.log(0.1 * np.sqrt(2.0 * np.pi))
    np.testing.assert_allclose(seen(z) - seen.log_masses(number, 2)[1], exact, atol=1e-3)
    integrate_score(score_beside(1e-3, np.log(1e-7)))  # the whole is known
    with pytest.raises(ismcore.DensityUnavailable, match=r"one of 2 modes, .* changes by .* less than 0\.01 is asked for"):
        integrate_score(score_beside(1e-3, np.log(1e-7)), number=number, count=2)


@pytest.mark.parametrize(("cut", "intervals"), [(0.3, 2**13), (4.0, 2**15), (12.0, 2**17)])
def test_regions_of_a_line_that_meet_where_the_density_is_not_0_have_their_masses(cut, intervals):
    def number(z):
        return (z > cut).astype(np.int64)

    found = integrate_score(lambda z: -z, number=number, count=2)
    exact = [0.5 * math.erfc(-cut / np.sqrt(2.0)), 0.5 * math.erfc(cut / np.sqrt(2.0))]
    assert found.log_masses(number, 2) == pytest.approx(np.log(exact), abs=2e-4)
    assert len(found.t) <= intervals + 1
    assert 0.0 < found.change_in_part < 2e-4


def test_a_small_mode_on_a_line_falls_off_by_itself():
    def score(z):  # -z up to the cut and beyond it -1 / z, of a tail whose mass is infinite
        return np.where(z < 5.0, -z, -1.0 / np.maximum(z, 1.0))

    def number(z):
        return (z > 5.0).astype(np.int64)

    integrate_score(score)  # the whole, of which 9e-5 lie beyond the cut up to 2^20
    with pytest.raises(ismcore.DensityUnavailable, match="does not lead back"):
        integrate_score(score, number=number, count=2)


@pytest.mark.slow
def test_a_small_mode_has_an_accuracy_of_its_own_in_the_plane():
    seen = beside_a_normal_law(normal_at([9.0, 0.0], 0.5, np.log(1e-5)), 6.0, 2)
    assert seen.log_normaliser().parts == pytest.approx([0.0, np.log(1e-5)], abs=1e-2)
    narrow = beside_a_normal_law(normal_at([9.0, 9.0], 0.01, np.log(1e-5)), 6.0, 2)
    assert replace(narrow, modes=None).log_normaliser().value == pytest.approx(0.0, abs=1e-3)
    for ask in (narrow.log_normaliser, lambda: narrow.density(np.zeros((1, 2)))):
        with pytest.raises(ismcore.DensityUnavailable, match=r"in mode 2 of the 2 .* changes by .* less than 0\.01 is"):
            ask()
    flat = beside_a_normal_law(lambda ops, x: np.log(1e-8) - 1e-9 * ops.sum(x * x, axis=1), 6.0, 2)
    assert np.isfinite(replace(flat, modes=None).log_normaliser().value)  # 2 % of it are far out
    with pytest.raises(ismcore.DensityUnavailable, match="does not rise far away"):
        flat.log_normaliser()


def test_a_region_that_is_cut_off_a_mode_has_its_part():
    result = beside_a_normal_law(lambda ops, x: -50.0 - ops.sum(x * x, axis=1), 4.0, 2)
    for angle in (0.0, 0.3):  # between the lines of the grid and across them
        normal = np.array([[np.cos(angle), np.sin(angle)]])
        found = replace(result, modes=replace(result.modes, normals=normal)).log_normaliser()
        assert found.parts[1] == pytest.approx(np.log(0.5 * math.erfc(4.0 / np.sqrt(2.0))), abs=1e-2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the samples have modes far apart:ismcore.IsmWarning")
def test_a_small_mode_has_effective_draws_of_its_own():
    seen = beside_a_normal_law(normal_at([9.0, 0.0, 0.0], 0.5, np.log(1e-3)), 5.0, 3)
    found = seen.log_normaliser()
    assert found.parts == pytest.approx([0.0, np.log(1e-3)], abs=4.0 * found.standard_error)
    few = replace(seen, modes=cut_at(5.0, (0.999, 0.001), 3)).log_normaliser()  # with less than a chain by its share
    assert few.parts == pytest.approx([0.0, np.log(1e-3)], abs=4.0 * few.standard_error)
    assert few.standard_error < 0.03
    none = replace(seen, modes=cut_at(1e3, (0.999, 0.001), 3))
    with pytest.raises(ismcore.DensityUnavailable, match=r"only \d+ of 20000 .* in mode \d of the 2 .* 100 are asked for"):
        none.log_density(np.zeros((1, 3)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:along .* into clusters:ismcore.IsmWarning")
@pytest.mark.parametrize(
    ("shape", "shares"), [((3, 2, 2), np.ones(12)), ((1, 1, 2, 2), [0.49, 0.33, 0.167, 0.013])], ids=["many", "small"]
)
def test_modes_in_space_are_known_however_many_or_small(shape, shares):
    law = ismcore.targets.GaussianMixture(shares, 10.0 * np.argwhere(np.ones(shape)), np.ones(len(shares)))

    def apply(ops, params, x):
        total = None
        for mean, weight in zip(law.means, law.weights, strict=True):
            part = np.log(weight) - 0.5 * ops.sum((x - params["one"] * mean) ** 2, axis=1)
            total = part if total is None else ops.logaddexp(total, part)
        return 0.5 * law.d * np.log(2.0 * np.pi) - total

    model = ismcore.Energy(ismcore.ScoreFunction(apply, {"one": np.ones(1)}))
    result = ismcore.fit(law.sample(4000, seed=1), model=model, backend="autograd", **KEEP)
    found, at = result.log_normaliser(), result.modes.number(law.means)
    assert np.array(found.parts)[at] == pytest.approx(np.log(law.weights), abs=4.0 * found.standard_error)
    assert found.standard_error < 0.04


@pytest.mark.slow
def test_regions_of_a_plane_are_numbered_in_blocks():
    corners, asked = np.arange(-15.0, 16.0, 6.0), []

    def energy(z):  # of 36 normal laws
        apart = [np.logaddexp.reduce(-0.5 * (z[:, k, None] - corners) ** 2, axis=1) for k in range(2)]
        return -apart[0] - apart[1]

    def number(z):
        asked.append(len(z))
        return np.digitize(z[:, 0], corners[:-1] + 3.0) * 6 + np.digitize(z[:, 1], corners[:-1] + 3.0)

    found = by_quadrature(energy, np.full(2, -np.inf), np.full(2, np.inf), number, 36)
    assert found.parts == pytest.approx(np.full(36, np.log(2.0 * np.pi)), abs=1e-2)
    assert max(asked) <= MOST_NODES**2
    assert sum(asked) > 2 * MOST_NODES**2  # in all


def test_what_has_no_constant_on_a_line_is_refused_of_scores_and_energies_alike():
    x = np.random.default_rng(0).normal(size=(100, 1))
    rising = ismcore.ScoreFunction(lambda ops, params, x: params["a"] * x, {"a": np.ones(1)})
    energy = ismcore.ScoreFunction(lambda ops, params, x: -0.5 * ops.sum(params["a"] * x * x, axis=1), {"a": np.ones(1)})
    for model in (rising, ismcore.Energy(energy)):
        result = ismcore.fit(x, model=model, backend="autograd", **KEEP)
        for ask in (result.log_normaliser, lambda result=result: result.density(x)):
            with pytest.raises(ismcore.DensityUnavailable, match="does not lead back"):
                ask()


def test_a_density_that_does_not_fall_to_0_at_an_edge_has_the_masses_of_its_modes():
    def apply(ops, params, x):
        right = -0.5 * (x[:, 0] - 30.0) ** 2 - 0.5 * np.log(2.0 * np.pi)
        return -ops.logaddexp(-params["a"] * x[:, 0], right) + np.log(2.0)

    rng = np.random.default_rng(0)
    x = rng.permutation(np.concatenate([rng.exponential(size=500), rng.normal(30.0, 1.0, 500)]))[:, None]
    model = ismcore.Energy(ismcore.ScoreFunction(apply, {"a": np.ones(1)}))
    with pytest.warns(ismcore.IsmWarning):
        result = ismcore.fit(x, model=model, domain=ismcore.domains.Positive(), backend="autograd", **KEEP)
    found = result.log_normaliser()
    assert np.exp(found.parts) == pytest.approx([0.5, 0.5], rel=1e-5)
    assert 0.0 < found.standard_error < 1e-4
    at = np.array([0.1, 30.0])
    exact = [0.5 * np.exp(-0.1), 0.5 / np.sqrt(2.0 * np.pi)]
    np.testing.assert_allclose(result.density(at), exact, rtol=1e-5)
