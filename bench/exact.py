"""Do the standard errors of `ismcore.solve` cover on domains? Four families. Writes a part of docs/domains-examples.md.

    python bench/exact.py [SAMPLES]

An exponential rate, a normal law in the positive orthant (d = 3), a Dirichlet law (d = 4) and a law of von Mises and Fisher on
the sphere; the last two by objectives of their own, which the page derives.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import ismcore
from ismcore.domains import Positive
from ismcore.objectives import Objective

PAGE = Path(__file__).parents[1] / "docs" / "domains-examples.md"
BEGIN = "## How often standard errors cover\n"


class Sphere(Objective):
    """On the unit sphere: 1/2 |P psi|^2 + tr(P J) - (d - 1) x . psi, P = I - x x^T (Mardia, Kent & Laha 2016)."""

    differentiates_in_x = True

    def terms(self, calculus, score_fn, x, inputs):
        """See `Objective.terms`."""
        ops, d = calculus.ops, x.shape[1]
        psi, jacobian = score_fn(x), calculus.jacobian(score_fn, x)
        radial = ops.sum(psi * x, axis=1)
        projection = calculus.asarray(np.eye(d)) - x[:, :, None] * x[:, None, :]
        traced = ops.sum(ops.sum(projection * jacobian, axis=2), axis=1)
        return 0.5 * (ops.sum(psi * psi, axis=1) - radial * radial) + traced - (d - 1.0) * radial


class Simplex(Objective):
    """Of the first d - 1 parts of a whole, weighted by h_i = (x_i x_d)^2, which is 0 where a move of part i ends."""

    differentiates_in_x = True
    separable = True

    def terms(self, calculus, score_fn, x, inputs):
        """See `Objective.terms`."""
        psi, diagonal = calculus.jacobian_diagonal(score_fn, x)
        last = 1.0 - calculus.ops.sum(x, axis=1)[:, None]
        h, slope = x * x * last * last, 2.0 * x * last * (last - x)
        return calculus.ops.sum(h * (0.5 * psi * psi + diagonal) + slope * psi, axis=1)


def exponential() -> ismcore.ScoreFunction:
    """The score -rate."""
    return ismcore.ScoreFunction(lambda ops, p, x: -p["rate"] + 0.0 * x, {"rate": np.zeros(1)})


def fisher() -> ismcore.ScoreFunction:
    """The score b = kappa mu, of the density exp(b . x) on the sphere."""
    return ismcore.ScoreFunction(lambda ops, p, x: p["b"] + 0.0 * x, {"b": np.zeros(3)})


def dirichlet(d: int = 4) -> ismcore.ScoreFunction:
    """The score (alpha_i - 1) / x_i - (alpha_d - 1) / x_d of the first d - 1 parts, x_d = 1 - sum of them."""

    def score(ops, p, x):
        last = 1.0 - ops.sum(x, axis=1)[:, None]
        return (p["alpha"][: d - 1] - 1.0) / x - (p["alpha"][d - 1 :] - 1.0) / last

    return ismcore.ScoreFunction(score, {"alpha": np.ones(d)})


@dataclass(frozen=True)
class Case:
    """A family, how it is solved, samples of it, and the parameters that they have."""

    name: str
    model: Callable[[], object]
    options: dict[str, object]
    draw: Callable[[int, np.random.Generator], np.ndarray]
    true: dict[str, np.ndarray]
    rows: int


PRECISION = np.array([[1.5, -0.4, 0.2], [-0.4, 1.0, 0.3], [0.2, 0.3, 2.0]])
MEAN = np.array([0.5, -0.3, 0.8])
B = np.array([0.5, -1.2, 2.0])
ALPHA = np.array([1.5, 2.0, 3.5, 2.5])


def draw_normal(n: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of N(MEAN, PRECISION^-1) in the positive orthant."""
    z = rng.multivariate_normal(MEAN, np.linalg.inv(PRECISION), size=12 * n)
    return z[(z > 0.0).all(axis=1)][:n]


def draw_fisher(n: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of the density exp(B . x) on the sphere: the height along B by its distribution function, the rest uniform."""
    kappa = np.linalg.norm(B)
    u = rng.random(n)
    height = 1.0 + np.log(u + (1.0 - u) * np.exp(-2.0 * kappa)) / kappa
    around = rng.standard_normal((n, 3))
    around -= np.outer(around @ B, B) / kappa**2
    around /= np.linalg.norm(around, axis=1, keepdims=True)
    return np.outer(height, B / kappa) + np.sqrt(1.0 - height**2)[:, None] * around


CASES = (
    Case(
        "exponential, rate",
        exponential,
        {"domain": Positive()},
        lambda n, rng: rng.exponential(0.5, (n, 1)),
        {"rate": np.array([2.0])},
        500,
    ),
    Case(
        "normal in the positive orthant, d = 3",
        ismcore.Affine,
        {"domain": Positive()},
        draw_normal,
        {"weight": -PRECISION, "bias": PRECISION @ MEAN},
        2000,
    ),
    Case(
        "Dirichlet, d = 4",
        dirichlet,
        {"objective": Simplex()},
        lambda n, rng: rng.dirichlet(ALPHA, size=n)[:, :3],
        {"alpha": ALPHA},
        1000,
    ),
    Case("von Mises and Fisher, d = 3", fisher, {"objective": Sphere()}, draw_fisher, {"b": B}, 500),
)


def covered(case: Case, samples: int) -> tuple[float, float, float]:
    """Share of intervals +- 1.96 standard errors that hold the parameter, its standard error, and the mean of z = error / s.e.

    The parameters of a sample are not independent: the standard error of the share is over samples.
    """
    shares, z = [], []
    for k in range(samples):
        x = case.draw(case.rows, np.random.default_rng([2030, k, *case.name.encode()]))
        found = ismcore.solve(case.model(), x, backend="autograd", **case.options)
        gaps = [np.ravel((found.params[name] - true) / found.standard_errors[name]) for name, true in case.true.items()]
        z.append(np.concatenate(gaps))
        shares.append(np.mean(np.abs(z[-1]) < 1.96))
    return float(np.mean(shares)), float(np.std(shares) / np.sqrt(samples)), float(np.mean(z))


def main() -> None:
    """Measure, and write the part of the page."""
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    lines = ["| family | n | parameters | covered, % | mean of (estimate - truth) / s.e. |", "|---|---|---|---|---|"]
    for case in CASES:
        share, error, z = covered(case, samples)
        count = sum(true.size for true in case.true.values())
        lines.append(f"| {case.name} | {case.rows} | {count} | {100 * share:.1f} (s.e. {100 * error:.1f}) | {z:+.2f} |")
        print(lines[-1], flush=True)  # noqa: T201
    about = f"Made by `python bench/exact.py`: {samples} samples each, intervals of +- 1.96 standard errors; to be 92 to 98 %."
    head = PAGE.read_text().partition(BEGIN)[0]
    PAGE.write_text(f"{head}{BEGIN}\n{about}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
