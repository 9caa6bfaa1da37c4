"""Laws whose score is known exactly, by which estimates of it are judged: samplers, scores and cells of bench/quality.py.

    x, held_out, y, s = draw("banana", 1000, seed=0)    # rows to fit, rows to check by, rows to judge at, the score at those

`python bench/laws.py` checks every law by identities that its score must fulfil: E[s . x] = -d (Stein 1981), E|s|^2 = -E div s
(Fisher), with div s by central differences.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ismcore.targets import GaussianMixture

Array = np.ndarray
FRESH = 4000
_erfc = np.vectorize(math.erfc, otypes=[float])


@dataclass(frozen=True)
class Law:
    """A law with an exact score.

    Attributes:
        d: Dimension.
        sample: (n, generator) -> rows, (n, d).
        score: Gradient of the log-density at rows, (n, d), in 1/[x].
        edged: Whether its density ends at an edge without falling to 0, where the plain objective does not hold.
        kinked: Whether its score jumps, so that Fisher's identity has a mass that no difference sees.
    """

    d: int
    sample: Callable[[int, np.random.Generator], Array]
    score: Callable[[Array], Array]
    edged: bool = False
    kinked: bool = False


def mixture(weights, means, covariances) -> Law:
    """sum_k w_k N(mu_k, C_k), drawn from the caller's generator."""
    target = GaussianMixture(weights, means, covariances)

    def sample(n, rng):
        chosen, noise = rng.choice(len(target.weights), n, p=target.weights), rng.standard_normal((n, target.d))
        return target.means[chosen] + np.einsum("nij,nj->ni", np.linalg.cholesky(target.covariances)[chosen], noise)

    return Law(target.d, sample, target.score)


def normal(covariance) -> Law:
    return mixture([1.0], np.zeros((1, len(covariance))), [covariance])


def line(draw, score, **facts) -> Law:
    """A law of one column, by draws (n,) and the score of (n,)."""
    return Law(1, lambda n, rng: draw(n, rng)[:, None], lambda x: score(x[:, 0])[:, None], **facts)


def rotation(d: int, seed: int = 7) -> Array:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]


def rotated(law: Law, seed: int = 7) -> Law:
    q = rotation(law.d, seed)
    return Law(law.d, lambda n, rng: law.sample(n, rng) @ q.T, lambda x: law.score(x @ q) @ q.T, kinked=law.kinked)


def product(*factors: Law) -> Law:
    """Independent blocks of columns."""
    ends = np.cumsum([0] + [law.d for law in factors])
    blocks = [slice(*pair) for pair in pairwise(ends)]
    return Law(
        int(ends[-1]),
        lambda n, rng: np.hstack([law.sample(n, rng) for law in factors]),
        lambda x: np.hstack([law.score(x[:, block]) for law, block in zip(factors, blocks, strict=True)]),
    )


def correlated(d: int, seed: int = 3) -> Array:
    """A covariance of condition number 20."""
    q = rotation(d, seed)
    return q @ np.diag(np.geomspace(0.2, 4.0, d)) @ q.T


def student(nu: float, scale: Array) -> Law:
    """Multivariate t: -(nu + d) P x / (nu + x^T P x), P the inverse of the scale matrix."""
    d, precision, root = len(scale), np.linalg.inv(scale), np.linalg.cholesky(scale)

    def score(x):
        px = x @ precision
        return -(nu + d) * px / (nu + np.sum(px * x, axis=1, keepdims=True))

    return Law(d, lambda n, rng: rng.standard_normal((n, d)) @ root.T / np.sqrt(rng.chisquare(nu, (n, 1)) / nu), score)


def banana(bend: float = 0.6, sigma: float = 0.5) -> Law:
    """x_1 ~ N(0, 1), x_2 | x_1 ~ N(bend (x_1^2 - 1), sigma^2)."""

    def sample(n, rng):
        z = rng.standard_normal((n, 2))
        return np.c_[z[:, 0], bend * (z[:, 0] ** 2 - 1.0) + sigma * z[:, 1]]

    def score(x):
        r = (x[:, 1] - bend * (x[:, 0] ** 2 - 1.0)) / sigma**2
        return np.c_[-x[:, 0] + 2.0 * bend * x[:, 0] * r, -r]

    return Law(2, sample, score)


def funnel(d: int, sd: float = 1.5) -> Law:
    """V ~ N(0, sd^2), the other d - 1 columns given v ~ N(0, exp(v)) (Neal 2003)."""

    def sample(n, rng):
        v = sd * rng.standard_normal((n, 1))
        return np.hstack([v, np.exp(v / 2.0) * rng.standard_normal((n, d - 1))])

    def score(x):
        v, y = x[:, :1], x[:, 1:]
        square = np.sum(y * y, axis=1, keepdims=True)
        return np.hstack([-v / sd**2 - (d - 1) / 2.0 + 0.5 * np.exp(-v) * square, -y * np.exp(-v)])

    return Law(d, sample, score)


def curve(points: Array, sigma: float) -> Law:
    """Equal round components along a curve, (k, d)."""
    return mixture(np.ones(len(points)), points, np.full(len(points), sigma**2))


def circle(k: int = 160, part: float = 1.0) -> Array:
    angle = part * 2.0 * np.pi * np.linspace(0.0, 1.0, k, endpoint=False)
    return np.c_[np.cos(angle), np.sin(angle)]


def spiral(k: int = 200) -> Array:
    angle = 3.0 * np.pi * np.sqrt(np.linspace(0.03, 1.0, k))
    return 0.3 * angle[:, None] * np.c_[np.cos(angle), np.sin(angle)]


def normal_cdf(x: Array) -> Array:
    return 0.5 * _erfc(-x / math.sqrt(2.0))


def normal_pdf(x: Array) -> Array:
    return np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


def skew_normal(shape: float = 5.0) -> Law:
    delta = shape / math.hypot(1.0, shape)

    def draw(n, rng):
        u, v = rng.standard_normal((2, n))
        return delta * np.abs(u) + math.sqrt(1.0 - delta**2) * v

    return line(draw, lambda x: -x + shape * normal_pdf(shape * x) / np.maximum(normal_cdf(shape * x), 1e-300))


def checkerboard(sigma: float = 0.1) -> Law:
    """Uniform on eight squares of a 4 x 4 board, blurred by N(0, sigma^2 I)."""
    low = np.array([(i, j) for i in range(-2, 2) for j in range(-2, 2) if (i + j) % 2 == 0], dtype=float)

    def score(x):
        a = (x[:, None, :] - low) / sigma
        b = a - 1.0 / sigma
        mass = np.maximum(normal_cdf(a) - normal_cdf(b), 1e-300)
        share = np.prod(mass, axis=2)
        slopes = (normal_pdf(a) - normal_pdf(b)) / sigma / mass
        return np.einsum("nk,nki->ni", share, slopes) / share.sum(axis=1, keepdims=True)

    return Law(2, lambda n, rng: low[rng.integers(0, 8, n)] + rng.random((n, 2)) + sigma * rng.standard_normal((n, 2)), score)


def four_modes() -> Law:
    means = 2.5 * np.random.default_rng(2).standard_normal((4, 10)) / math.sqrt(5.0)
    return rotated(mixture([1.0, 1.0, 2.0, 2.0], means, [correlated(10, k) / 2.0 for k in range(4)]))


def moons() -> Law:
    half = circle(160, 0.5)
    return curve(np.vstack([half, [1.0, 0.5] - half]), 0.1)


def cross() -> Law:
    long = np.array([[4.0, 0.0], [0.0, 0.05]])
    return rotated(mixture([0.5, 0.5], np.zeros((2, 2)), [long, long[::-1, ::-1]]))


def logistic(x: Array) -> Array:
    return -np.tanh(x / 2.0)


LAWS: dict[str, Callable[[], Law]] = {
    "normal 1": lambda: normal([[1.0]]),
    "two modes": lambda: mixture([0.1, 0.9], [[-3.0], [3.0]], [1.0, 1.0]),
    "Laplace": lambda: line(lambda n, rng: rng.laplace(size=n), lambda x: -np.sign(x), kinked=True),
    "t5": lambda: student(5.0, np.eye(1)),
    "exponential": lambda: line(lambda n, rng: rng.exponential(size=n), lambda x: -np.ones_like(x), edged=True),
    "log-normal": lambda: line(
        lambda n, rng: np.exp(0.7 * rng.standard_normal(n)), lambda x: -1.0 / x - np.log(x) / (0.49 * x)
    ),
    "skew-normal": skew_normal,
    "narrow and wide": lambda: mixture([0.5, 0.5], [[0.0], [0.0]], [0.05**2, 1.0]),
    "ring": lambda: curve(2.0 * circle(), 0.2),
    "moons": moons,
    "checkerboard": checkerboard,
    "banana": banana,
    "grid of 25": lambda: mixture(np.ones(25), [(i, j) for i in range(-2, 3) for j in range(-2, 3)], np.full(25, 0.15**2)),
    "correlation .99": lambda: normal([[1.0, 0.99], [0.99, 1.0]]),
    "normal 5": lambda: normal(correlated(5)),
    "normal 10": lambda: normal(correlated(10)),
    "t5 in 5": lambda: student(5.0, correlated(5)),
    "four modes in 10": four_modes,
    "funnel in 10": lambda: funnel(10),
    "ring in 50": lambda: rotated(product(curve(2.0 * circle(), 0.3), normal(0.09 * np.eye(48)))),
}
"""Laws of the first set, on which defaults and limits were chosen."""

SECOND: dict[str, Callable[[], Law]] = {
    "Gumbel": lambda: line(lambda n, rng: rng.gumbel(size=n), lambda x: np.exp(-x) - 1.0),
    "three modes": lambda: mixture([0.2, 0.5, 0.3], [[-4.0], [0.0], [2.5]], [0.25, 1.0, 0.1]),
    "spiral": lambda: curve(spiral(), 0.25),
    "cross": cross,
    "t7 in 3": lambda: student(7.0, correlated(3, 11)),
    "normal 15": lambda: normal(correlated(15, 12)),
    "logistic in 8": lambda: rotated(Law(8, lambda n, rng: rng.logistic(size=(n, 8)), logistic), 13),
    "bananas in 6": lambda: rotated(product(banana(0.5, 0.7), banana(0.8, 0.6), banana(0.4, 0.8)), 14),
}
"""Laws of the second set, on which nothing was chosen."""

CELLS = (
    ("normal 1", 200), ("two modes", 1000), ("Laplace", 1000), ("t5", 1000), ("exponential", 1000), ("log-normal", 1000),
    ("skew-normal", 1000), ("narrow and wide", 5000), ("ring", 1000), ("moons", 1000), ("checkerboard", 5000), ("banana", 200),
    ("banana", 1000), ("grid of 25", 5000), ("correlation .99", 200), ("normal 5", 200), ("normal 10", 200),
    ("normal 10", 1000),
    ("t5 in 5", 1000), ("four modes in 10", 1000), ("funnel in 10", 1000), ("ring in 50", 1000),
)  # fmt: skip
SECOND_CELLS = (
    ("Gumbel", 1000), ("three modes", 2000), ("spiral", 2000), ("cross", 500), ("t7 in 3", 500), ("normal 15", 400),
    ("logistic in 8", 1000), ("bananas in 6", 1000),
)  # fmt: skip


def law_of(name: str) -> Law:
    return (LAWS | SECOND)[name]()


def draw(name: str, n: int, seed: int, *, held_out: int | None = None) -> tuple[Array, Array, Array, Array]:
    """Rows to fit, (n, d), rows held out, (n / 4, d) but at least 50, 4000 rows to judge at, and the score there.

    The generator is seeded by (seed, n, name), so that a cell is the same rows on every machine.
    """
    law, rng = law_of(name), np.random.default_rng([seed, n, *name.encode()])
    x, out, y = (law.sample(m, rng) for m in (n, held_out or max(50, n // 4), FRESH))
    return x, out, y, law.score(y)


def relative_error(psi: Array, s: Array) -> float:
    """E|psi - s|^2 / E|s|^2: 0 is exact, 1 is what psi = 0 gets; it has no unit."""
    return float(np.sum((psi - s) ** 2) / np.sum(s * s))


def deviates(law: Law, n: int = 20_000, step: float = 1e-5) -> tuple[float, float | None]:
    """Standard errors by which Stein's and Fisher's identities fail; None for Fisher's where it does not hold."""
    x = law.sample(n, np.random.default_rng(0))
    s = law.score(x)

    def deviate(rows: Array) -> float:
        return float(abs(rows.mean()) / (rows.std() / math.sqrt(n) + 1e-12))

    stein = deviate(np.sum(s * x, axis=1) + law.d)
    if law.edged or law.kinked:
        return stein, None
    shifts = step * np.eye(law.d)
    divergence = sum((law.score(x + e) - law.score(x - e))[:, i] / (2.0 * step) for i, e in enumerate(shifts))
    return stein, deviate(np.sum(s * s, axis=1) + divergence)


def main() -> None:
    """Check every law."""
    for name in LAWS | SECOND:
        stein, fisher = deviates(law_of(name))
        sys.stdout.write(f"{name:<18} Stein {stein:4.1f}  Fisher {'-' if fisher is None else f'{fisher:4.1f}'}\n")
        if max(stein, fisher or 0.0) > 4.5:
            raise SystemExit(f"{name}: the score is not that of the samples")


if __name__ == "__main__":
    main()
