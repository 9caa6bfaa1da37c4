"""Published and closed-form results beside ours, by one command: the page `docs/reproduction.md`.

    python bench/reproduce.py [--only NAME ...] [--backend NAME]

Every row is a number that somebody else published or that a formula gives, ours, and the error that is allowed between them,
which was stated before. Parts that are not run keep the rows of the last run, in `reports/reproduction.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from measuring import REPORTS, machine, versions

import ismcore

PAGE = Path(__file__).parents[1] / "docs" / "reproduction.md"
PARTS = {}
ABOUT = """# Published results beside ours

Written by `python bench/reproduce.py`, which takes some ten minutes; `--only NAME` runs a part. Each row has a number that was
published or that a formula gives, ours, and the error between them that was stated before the run.
"""


def part(title, about):
    """A part of the page: its function yields (quantity, published or closed form, ours, stated error, within it)."""

    def add(rows):
        PARTS[rows.__name__] = (title, about, rows)
        return rows

    return add


def near(what, right, found, error, digits=4):
    return what, f"{right:.{digits}g}", f"{found:.{digits}g}", f"{error:.2g}", bool(abs(found - right) <= error)


def below(what, bar, found):
    return what, f"below {bar:g}", f"{found:.3g}", "the bar", bool(found < bar)


@part("The reference run (R. Rosa, random_notes)", "A 1-8-1 sigmoid net, 500 epochs, the 20 losses that the tutorial prints.")
def tutorial(backend):
    run = ismcore.datasets.reference_run()
    options = {"recipe": "reference", "initial_params": run.initial_params, "optimizer": run.optimizer}
    result = ismcore.fit(run.sample, model=run.model, epochs=int(run.epochs[-1]), backend=backend, progress=False, **options)
    losses = result.history["loss"][run.epochs - 1]
    worst = int(np.argmax(np.abs(losses - run.losses)))
    yield near(f"loss at epoch {run.epochs[worst]}, the one farthest off", run.losses[worst], losses[worst], 1e-6, 7)
    yield near(f"loss at epoch {run.epochs[-1]}", run.losses[-1], losses[-1], 1e-6, 7)


@part(
    "The normal law (Hyvärinen 2005, section 3.1; with the penalty, Kingma & LeCun 2010)",
    "Score matching of a normal law is maximum likelihood, to rounding: psi(x) = -Sigma^-1 (x - m). With curvature weight "
    "lambda row i of the weight solves (Sigma + 2 lambda e_i e_i^T) a_i = -e_i.",
)
def normal(backend):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4)) + [1.0, 2.0, 3.0, 4.0]
    covariance = np.cov(x.T, bias=True)
    for weight in (0.0, 0.3):
        found = ismcore.solve(ismcore.Affine(), x, ismcore.ImplicitScoreMatching(weight), backend=backend).params["weight"]
        units = np.eye(4)
        right = np.stack([np.linalg.solve(covariance + 2.0 * weight * np.outer(e, e), -e) for e in units])
        yield near(f"largest entry's difference, lambda = {weight:g}", 0.0, float(np.abs(found - right).max()), 1e-10)


def amari(matrix):
    """Amari, Cichocki & Yang (1996): 0 for a scaled permutation, at most 1."""
    p, d = np.abs(matrix), len(matrix)
    rows, columns = p.sum(axis=1) / p.max(axis=1) - 1.0, p.sum(axis=0) / p.max(axis=0) - 1.0
    return float((rows.sum() + columns.sum()) / (2.0 * d * (d - 1.0)))


SCALE = np.pi / (2.0 * np.sqrt(3.0))
"""The logistic law of variance 1 has the score -2 c tanh(c u), with this c."""


def unmixed(x, backend):
    """W of p(x) = |det W| prod_i p0(w_i x), p0 logistic of variance 1: psi(x) = sum_i phi(w_i x) w_i."""

    def apply(ops, params, points):
        w = params["w"]
        return (-2.0 * SCALE * ops.tanh(SCALE * (points @ ops.permute_dims(w, (1, 0))))) @ w

    values, vectors = np.linalg.eigh(np.cov(x.T))
    start = (vectors / np.sqrt(values)) @ vectors.T
    options = {"recipe": "reference", "optimizer": ismcore.LBFGS(), "dtype": "float64", "progress": False}
    return ismcore.fit(x, model=ismcore.ScoreFunction(apply, {"w": start}), epochs=300, backend=backend, **options).params["w"]


def limit_of_unmixing():
    """n times the variance of W_12, in the limit, for W = I: (H^-1 V H^-1)_11 over (W_12, W_21), by quadrature.

    The term of a row is 1/2 |psi|^2 + div psi, with psi = W^T phi(W s), so that for W = [[1, a], [b, 1]]
    |psi|^2 = phi(u)^T W W^T phi(u) and div psi = sum_i |w_i|^2 phi'(u_i). Other sources
    do not enter, as all means are 0.
    """
    nodes = np.linspace(-16.0, 16.0, 1201)
    mass = SCALE / 2.0 / np.cosh(SCALE * nodes) ** 2
    mass = np.outer(mass, mass) / mass.sum() ** 2
    s = np.stack(np.meshgrid(nodes, nodes, indexing="ij"))

    def terms(a, b):
        w = np.array([[1.0, a], [b, 1.0]])
        tanh = np.tanh(SCALE * np.tensordot(w, s, 1))
        phi, slope, gram = -2.0 * SCALE * tanh, -2.0 * SCALE**2 * (1.0 - tanh**2), w @ w.T
        return 0.5 * (phi * np.tensordot(gram, phi, 1)).sum(axis=0) + np.tensordot(np.diag(gram), slope, 1)

    h = 1e-3
    ahead, behind = (terms(h, 0.0), terms(0.0, h)), (terms(-h, 0.0), terms(0.0, -h))
    gradient = [(one - other) / (2.0 * h) for one, other in zip(ahead, behind, strict=True)]
    mixed = (terms(h, h) - terms(h, -h) - terms(-h, h) + terms(-h, -h)) / (4.0 * h * h)
    curve = [(one + other - 2.0 * terms(0.0, 0.0)) / h**2 for one, other in zip(ahead, behind, strict=True)]
    hessian = np.array([[(mass * curve[0]).sum(), (mass * mixed).sum()], [(mass * mixed).sum(), (mass * curve[1]).sum()]])
    variance = np.array([[(mass * g * k).sum() for k in gradient] for g in gradient])
    inverse = np.linalg.inv(hessian)
    return float((inverse @ variance @ inverse)[0, 0])


def off_diagonal(product):
    """The off-diagonal entries of W A once rows are put in order and their signs made positive."""
    order = np.abs(product).argmax(axis=0)
    fixed = product[order] * np.sign(product[order, np.arange(len(order))])[:, None]
    return fixed[~np.eye(len(fixed), dtype=bool)]


@part(
    "Independent components (Hyvärinen 2005, section 3.2)",
    "Four logistic sources, an orthogonal mixing, 16 draws of each size; the model is unnormalised. Published: the estimate "
    "converges, so that its error falls as n^-1/2; the constant, n times the variance of an entry of W A, is a sandwich by "
    "quadrature. The error that is allowed is three standard errors.",
)
def components(backend):
    from sklearn.decomposition import FastICA

    sizes, repeats, d = (500, 2000, 8000), 16, 4
    ours, fast = np.empty((2, len(sizes), repeats))
    entries = []
    for i, n in enumerate(sizes):
        for k in range(repeats):
            rng = np.random.default_rng([n, k])
            mixing = np.linalg.qr(rng.normal(size=(d, d)))[0]
            x = rng.logistic(scale=np.sqrt(3.0) / np.pi, size=(n, d)) @ mixing.T
            product = unmixed(x, backend) @ mixing
            entries += [off_diagonal(product)] if n == sizes[-1] else []
            ours[i, k] = amari(product)
            fast[i, k] = amari(FastICA(whiten="unit-variance", random_state=0, max_iter=1000).fit(x).components_ @ mixing)
    logs, span = np.log(ours), np.log(sizes[-1] / sizes[0])
    error = np.sqrt((logs[-1].var(ddof=1) + logs[0].var(ddof=1)) / repeats) / span
    yield near("exponent of n in Amari's index", -0.5, float(logs[-1].mean() - logs[0].mean()) / span, 3.0 * error)
    limit, squares = limit_of_unmixing(), sizes[-1] * np.mean(np.square(entries), axis=1)
    error = squares.std(ddof=1) / np.sqrt(repeats)
    yield near(f"n times the variance of an entry, n = {sizes[-1]}", limit, float(squares.mean()), 3.0 * error)
    for n, one, other in zip(sizes, np.median(ours, axis=1), np.median(fast, axis=1), strict=True):
        yield f"median index, n = {n}; FastICA of scikit-learn beside it", f"{other:.3f}", f"{one:.3f}", "-", None


@part(
    "Efficiency lost with separation (Koehler, Heckett & Risteski 2022, arXiv:2210.00726)",
    "x of 1/2 N(-a, 1) + 1/2 N(a, 1), and the family p(x) exp(theta tanh x), true theta = 0: what tells the two modes' shares. "
    "n times the variance of the estimate is, in the limit, E (s F' + F'')^2 / (E F'^2)^2, with F = tanh and s the score, by "
    "quadrature; of maximum likelihood 1 / Var F. Ours: 400 samples of 4000 rows, by `ismcore.solve`; three standard errors.",
)
def efficiency(backend):
    n, repeats = 4000, 400
    grid = np.linspace(-14.0, 14.0, 20001)
    for a in (1.0, 2.0, 3.0):
        density = np.exp(-((grid - a) ** 2) / 2.0) + np.exp(-((grid + a) ** 2) / 2.0)
        density /= density.sum()
        f = np.tanh(grid)
        slope, curve, score = 1.0 - f**2, -2.0 * f * (1.0 - f**2), a * np.tanh(a * grid) - grid
        limit = (density @ (score * slope + curve) ** 2) / (density @ slope**2) ** 2
        likelihood = 1.0 / (density @ f**2)

        def apply(ops, params, x, a=a):
            bend = ops.tanh(x)
            return a * ops.tanh(a * x) - x + params["theta"] * (1.0 - bend * bend)

        model, found = ismcore.ScoreFunction(apply, {"theta": 0.0}), []
        for k in range(repeats):
            rng = np.random.default_rng([k, int(10 * a)])
            x = rng.normal(size=(n, 1)) + rng.choice([-a, a], size=(n, 1))
            found.append(float(ismcore.solve(model, x, backend=backend).params["theta"]))
        ours = n * np.var(found)
        yield near(f"a = {a:g}: n times the variance", limit, ours, 3.0 * np.sqrt(2.0 / repeats) * limit)
        yield near(
            f"a = {a:g}: over that of maximum likelihood",
            limit / likelihood,
            ours / likelihood,
            3.0 * np.sqrt(2.0 / repeats) * limit / likelihood,
        )


class Maxwellian:
    """The exact solution of the Landau equation with Maxwell molecules: (2 pi K)^(-d/2) exp(-x^2 / 2 K) (P + Q x^2)."""

    def __init__(self, d, t):
        self.d, self.k = d, 1.0 - np.exp(-(d - 1.0) * 2.0 * t / 24.0)
        self.p, self.q = ((d + 2.0) * self.k - d) / (2.0 * self.k), (1.0 - self.k) / (2.0 * self.k**2)

    @staticmethod
    def start(d):
        """The first tenth from which P is not negative."""
        return np.ceil(10.0 * np.log((d + 2.0) / 2.0) / (2.0 / 24.0 * (d - 1.0))) / 10.0

    def pdf(self, x):
        square = (x**2).sum(axis=1)
        return (2.0 * np.pi * self.k) ** (-self.d / 2.0) * np.exp(-square / (2.0 * self.k)) * (self.p + self.q * square)

    def score(self, x):
        return x * (-1.0 / self.k + 2.0 * self.q / (self.p + self.q * (x**2).sum(axis=1, keepdims=True)))

    def sample(self, n, rng):
        """A mixture of |x|^2 / K, chi-squared of d and of d + 2 degrees, in a direction at random."""
        degrees = np.where(rng.random(n) < self.p, self.d, self.d + 2)  # as E of P and of Q x^2 are P and Q K d = 1 - P
        directions = rng.normal(size=(n, self.d))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return directions * np.sqrt(self.k * rng.chisquare(degrees))[:, None]


def collisions(x, score):
    """dx_p/dt = -B mean_q A(x_p - x_q) (s_p - s_q), A(z) = |z|^2 I - z z^T, B = 1/24, by products of n x n matrices."""
    inner, mixed = x @ x.T, x @ score.T
    square, own = np.diag(inner), np.diag(mixed)
    distance = square[:, None] + square - 2.0 * inner
    along = mixed + mixed.T - own[:, None] - own
    away = along @ x - along.sum(axis=1, keepdims=True) * x
    return (distance @ score - distance.sum(axis=1, keepdims=True) * score + away) / (24.0 * len(x))


def distance_of_densities(x, law, rng, m=20_000):
    """The L2 distance of a kernel density estimate of x, bandwidth sd n^(-1 / (d + 4)), from the law, by m draws."""
    n, d = x.shape
    width = x.std(axis=0, ddof=1) * n ** (-1.0 / (d + 4.0))
    points = np.sqrt(1.5) * rng.normal(size=(m, d))
    weight = np.exp(-(points**2).sum(axis=1) / 3.0) / (3.0 * np.pi) ** (d / 2.0)
    found = np.empty(m)
    for part in np.array_split(np.arange(m), 20):
        gaps = (points[part, None, :] - x) / width
        found[part] = np.exp(-0.5 * np.einsum("mnd,mnd->mn", gaps, gaps)).sum(axis=1)
    found /= n * np.prod(width) * (2.0 * np.pi) ** (d / 2.0)
    return float(np.sqrt(np.mean((found - law.pdf(points)) ** 2 / weight)))


@part(
    "The Landau equation, d = 3 and 5 (test/landau.jl of GradientFlows.jl, Ilin)",
    "2000 particles, 100 time steps of 0.01, a network of 2 x 100, 25 steps of Adam(4e-4) a time step by `ismcore.Refit` "
    "after a fit to the exact first score, as in that benchmark; its bars are those of its test. Theirs is of E X itself, "
    "which is 0.04 and 0.05 in the mean for 2000 draws without any flow; ours is of what the flow adds. "
    "The bars ask little of the score itself: at the particles it is far off, as 2500 steps with curvature weight 0.05 learn "
    "some of the 2000 by heart, and the collisions average over all.",
)
def landau(backend):
    for d in (3, 5):
        rng, t, h = np.random.default_rng(d), Maxwellian.start(d), 0.01
        law = Maxwellian(d, t)
        x = first = law.sample(2000, rng)
        options = {"model": ismcore.MLP((100, 100), "tanh"), "backend": backend}
        exact, smooth = ismcore.ExplicitScoreMatching(law.score), ismcore.ImplicitScoreMatching(0.05)
        plain = {"recipe": "reference", "standardize": True, "epochs": 1500, "optimizer": ismcore.Adam(2e-3), "progress": False}
        begun = ismcore.fit(x, objective=exact, schedule="cosine", **options, **plain)
        refit = ismcore.Refit(x, initial_params=begun, objective=smooth, optimizer=ismcore.Adam(4e-4), **options)
        errors = []
        for k in range(100):
            x = x + h * collisions(x, refit.score(x))
            refit.update(x, steps=25)
            found, right = refit.score(x), Maxwellian(d, t + h * (k + 1)).score(x)
            errors.append(((found - right) ** 2).sum() / (right**2).sum())
        law = Maxwellian(d, t + 1.0)
        covariance = np.cov(x.T)
        yield below(f"d = {d}: L2 distance of densities", 0.05, distance_of_densities(x, law, rng))
        drift = float(np.linalg.norm(x.mean(axis=0) - first.mean(axis=0)))
        yield below(f"d = {d}: \\|E X\\|, drift from the first particles'", 0.05, drift)
        yield below(f"d = {d}: trace of the covariance, less d", 0.5, float(abs(np.trace(covariance) - d)))
        yield below(f"d = {d}: covariance less I, Frobenius", 0.5, float(np.linalg.norm(covariance - np.eye(d))))
        said = f"d = {d}: relative square error of the score at the particles, the worst and the last of 100"
        yield said, "-", f"{max(errors):.3g}, {errors[-1]:.3g}", "-", None


def additive_noise_model(d, n, rng):
    """Rows of a graph of d edges in the mean: functions of a Gaussian process of unit width, noise of variance U(0.4, 0.8)."""
    edges = np.triu(rng.random((d, d)) < 2.0 / (d - 1.0), 1)
    x = np.empty((n, d))
    for i in range(d):
        parents = x[:, np.flatnonzero(edges[:, i])]
        x[:, i] = np.sqrt(rng.uniform(0.4, 0.8)) * rng.normal(size=n)
        if parents.shape[1]:
            gaps = ((parents[:, None, :] - parents) ** 2).sum(axis=2)
            x[:, i] += np.linalg.cholesky(np.exp(-0.5 * gaps) + 1e-6 * np.eye(n)) @ rng.normal(size=n)
    order = rng.permutation(d)
    return x[:, order], edges[np.ix_(order, order)]


def stein_diagonal(x, ridge=0.001):
    """The Jacobian's diagonal by the second-order Stein estimator: Rolland et al. (2022), after Li & Turner (2018)."""
    gaps = np.sqrt(((x[:, None, :] - x) ** 2).sum(axis=2))
    width = np.median(gaps)
    kernel = np.exp(-(gaps**2) / (2.0 * width**2)) / width
    inverse = np.linalg.inv(kernel + ridge * np.eye(len(x)))
    first, second = np.empty_like(x), np.empty_like(x)
    for i, column in enumerate(x.T):
        gap = column[:, None] - column
        first[:, i] = -(gap * kernel).sum(axis=0) / width**2
        second[:, i] = ((gap**2 / width**4 - 1.0 / width**2) * kernel).sum(axis=0)
    return inverse @ second - (inverse @ first) ** 2


def ordered(x, diagonal):
    """From the last to the first: the leaf is the column whose diagonal of the score's Jacobian varies least."""
    left, order = list(range(x.shape[1])), []
    while len(left) > 1:
        order.append(left.pop(int(np.argmin(diagonal(x[:, left]).var(axis=0)))))
    return (order + left)[::-1]


def wrong_edges(order, edges):
    """Edges that go back in the order: its divergence from the graph."""
    place = np.argsort(order)
    return int(sum(place[i] > place[j] for i, j in np.argwhere(edges)))


@part(
    "Causal order by the Jacobian's diagonal (SCORE: Rolland et al. 2022)",
    "Their protocol: 10 variables, Erdos-Renyi graphs with 10 edges in the mean, Gaussian-process mechanisms, 1000 rows, 5 "
    "graphs. Edges against the order found, beside their own estimator of the diagonal, written out here; a random order has "
    "half of all edges wrong. Curvature weight and epochs were chosen on three other graphs.",
)
def causal_order(backend):
    options = {"recipe": "single", "epochs": 200, "backend": backend, "progress": False}
    objective = ismcore.ImplicitScoreMatching(0.1)

    def diagonal(x):
        return ismcore.fit(x, model=ismcore.MLP((64,)), objective=objective, **options).jacobian_diagonal(x)

    ours, stein, edges = [], [], []
    for k in range(5):
        x, graph = additive_noise_model(10, 1000, np.random.default_rng([7, k]))
        edges.append(int(graph.sum()))
        ours.append(wrong_edges(ordered(x, diagonal), graph))
        stein.append(wrong_edges(ordered(x, stein_diagonal), graph))
    error = np.std(np.subtract(ours, stein), ddof=1) / np.sqrt(len(ours))
    yield (
        f"wrong edges a graph, of {np.mean(edges):.1f}; standard error of the difference {error:.1f}",
        f"{np.mean(stein):.1f} (their estimator)",
        f"{np.mean(ours):.1f}",
        "not above theirs by two standard errors",
        bool(np.mean(ours) <= np.mean(stein) + 2.0 * error),
    )
    yield near("as a share of all edges", 0.0, float(np.sum(ours) / np.sum(edges)), 0.25)


def page(found):
    lines = [ABOUT]
    about = machine()
    used = ", ".join(f"{name} {number}" for name, number in versions().items())
    lines.append(f"Machine: {about['cores']} cores of {about['cpu']}. Versions: {used}.\n")
    for name, (title, words, _) in PARTS.items():
        if name not in found:
            continue
        lines += [
            f"## {title}\n",
            f"{words}\n",
            "| quantity | published, or closed form | ours | stated error | within |",
            "|---|---|---|---|---|",
        ]
        for what, right, ours, error, within in found[name]["rows"]:
            lines.append(f"| {what} | {right} | {ours} | {error} | {'-' if within is None else 'yes' if within else 'NO'} |")
        took = f"{found[name]['seconds']:.0f} s on backend {found[name]['backend']}"
        lines.append(f"\n`python bench/reproduce.py --only {name}`: {took}.\n")
    return "\n".join(lines).rstrip() + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--backend", default="jax")
    given = parser.parse_args()
    kept, found = REPORTS / "reproduction.json", {}
    for name in given.only:
        began = time.perf_counter()
        rows = []
        for row in PARTS[name][2](given.backend):
            rows.append(row)
            print(f"{name}: {row}", flush=True)  # noqa: T201
        found = json.loads(kept.read_text()) if kept.exists() else {}
        found[name] = {"rows": rows, "seconds": time.perf_counter() - began, "backend": given.backend}
        kept.write_text(json.dumps(found, indent=1) + "\n")
        PAGE.write_text(page(found))
    return int(not all(row[4] in (True, None) for one in found.values() for row in one["rows"]))


if __name__ == "__main__":
    sys.exit(main())
