"""Fits on domains: E h|psi - s|^2 / E h|s|^2 of default fits to laws with edges, with and without `domain=`; cost of a step.

    python bench/domains.py [--samples 3] [--write]

writes the tables of docs/domains.md between its marks.
"""

import argparse
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import ismcore
from ismcore.backend.contract import Backend
from ismcore.coordinates import Coordinates
from ismcore.domains import Box, Domain, Halfspaces, Positive
from ismcore.plugins.lookup import load_backend
from ismcore.problem import Loss, Problem

PAGE = Path(__file__).parents[1] / "docs" / "domains.md"
ROWS, FRESH = 3000, 20_000
PRECISION = np.linalg.inv(0.5 * np.eye(3) + 0.5)
TRIANGLE = Halfspaces([[-1, 0], [0, -1], [1, 1]], [0, 0, 1])


@dataclass(frozen=True)
class Law:
    """Draws (n, d), the score, the domain, and the largest error that is aimed at."""

    draw: object
    score: object
    domain: Domain
    aim: float


def kept(draw, domain):
    """Draws of a law, without those outside of a domain: (rng, n) -> (n, d)."""

    def drawn(rng, n):
        x = draw(rng, 60 * n)
        return x[domain.contains(x)][:n]

    return drawn


def orthant(rng, n):
    return rng.standard_normal((n, 3)) @ np.linalg.cholesky(0.5 * np.eye(3) + 0.5).T


LAWS = {
    "half-normal": Law(lambda rng, n: np.abs(rng.standard_normal((n, 1))), lambda x: -x, Positive(), 0.1),
    "exponential": Law(lambda rng, n: rng.exponential(size=(n, 1)), lambda x: -np.ones_like(x), Positive(), 0.1),
    "normal, cut at -1 and 1": Law(
        kept(lambda rng, n: rng.standard_normal((n, 1)), Box(-1.0, 1.0)), lambda x: -x, Box(-1.0, 1.0), 0.1
    ),
    "gamma(2)": Law(lambda rng, n: rng.gamma(2.0, size=(n, 1)), lambda x: 1.0 / x - 1.0, Positive(), 0.1),
    "beta(2, 2)": Law(lambda rng, n: rng.beta(2.0, 2.0, size=(n, 1)), lambda x: 1.0 / x - 1.0 / (1.0 - x), Box(0.0, 1.0), 0.1),
    "lognormal": Law(lambda rng, n: rng.lognormal(size=(n, 1)), lambda x: -(1.0 + np.log(x)) / x, Positive(), 0.1),
    "uniform": Law(lambda rng, n: rng.uniform(size=(n, 1)), np.zeros_like, Box(0.0, 1.0), 0.1),
    "normal on the orthant, d = 3": Law(kept(orthant, Positive()), lambda x: -x @ PRECISION, Positive(), 0.08),
    "normal on a triangle, d = 2": Law(
        kept(lambda rng, n: [0.3, 0.2] + 0.3 * rng.standard_normal((n, 2)), TRIANGLE),
        lambda x: -(x - [0.3, 0.2]) / 0.09,
        TRIANGLE,
        0.15,
    ),
}


def error(result: ismcore.FitResult, law: Law, domain: Domain, fresh: np.ndarray) -> float:
    """E h|psi - s|^2 / E h|s|^2 at fresh rows; E h|psi|^2 where the score is 0."""
    h, s = domain.weights(fresh)[0], law.score(fresh)
    size = np.mean(np.sum(h * s**2, axis=1))
    return float(np.mean(np.sum(h * (result.score(fresh) - s) ** 2, axis=1)) / (size or 1.0))


def quality(name: str, samples: int, backend: str) -> dict[str, list[float]]:
    """Errors of a default fit on the domain; and of one that is told of none, on the first of the samples."""
    law, found = LAWS[name], {"domain": [], "none": []}
    for seed in range(samples):
        x, fresh = law.draw(np.random.default_rng(seed), ROWS), law.draw(np.random.default_rng(1000 + seed), FRESH)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ismcore.IsmWarning)
            domain = law.domain.measured(x)
            options = {"backend": backend, "progress": False, "seed": seed}
            found["domain"].append(error(ismcore.fit(x, domain=law.domain, **options), law, domain, fresh))
            if not seed:
                found["none"].append(error(ismcore.fit(x, **options), law, domain, fresh))
    return found


def row_of(name: str, found: dict[str, list[float]]) -> str:
    on, off = (np.array(found[key]) for key in ("domain", "none"))
    return f"| {name} | {LAWS[name].aim:g} | {np.median(on):.2g} | {on.min():.2g} to {on.max():.2g} | {off[0]:.2g} |"


SHAPES = ((3, (64,)), (10, (64,)), (30, (64,)), (3, (64, 64)), (10, (64, 64)), (30, (64, 64)), (10, (32, 32, 32)))
BLOCKS, BLOCK_SECONDS = 40, 0.02


def step(engine: Backend, model: ismcore.MLP, objective: ismcore.ImplicitScoreMatching, x: np.ndarray) -> Callable[[], None]:
    """One loss and gradient, waited for."""
    problem = Problem(Loss(model, objective), ismcore.SGD(0.1), x, Coordinates.identity(x.shape[1]))
    arguments = engine.asarrays(model.initial_params(0, x.shape[1])), engine.asarray(x), engine.asarrays(problem.inputs())
    f = engine.compiled(engine.loss_and_gradient(problem.loss))

    def taken() -> None:
        f(*arguments)
        engine.synchronize()

    return taken


def seconds(steps: list[Callable[[], None]]) -> np.ndarray:
    """Processor time of one call of each step in blocks of calls, which take turns: (blocks, steps)."""
    for taken in steps * 3:
        taken()
    began = time.process_time()
    steps[0]()
    calls = max(1, int(BLOCK_SECONDS / (time.process_time() - began)))
    found = np.empty((BLOCKS, len(steps)))
    for block, k in np.ndindex(*found.shape):
        for _ in range(3):  # after a step of another size the heap has yet to grow
            steps[k]()
        began = time.process_time()
        for _ in range(calls):
            steps[k]()
        found[block, k] = (time.process_time() - began) / calls
    return found


def costs(backend: str) -> list[str]:
    """Time of a step by closed formulas on a domain, over that of the plain step and of the penalised one."""
    lines, engine = [], load_backend(backend)(dtype="float32")
    for d, hidden in SHAPES:
        x = np.abs(np.random.default_rng(0).standard_normal((1024, d)))
        objectives = (
            ismcore.ImplicitScoreMatching(),
            ismcore.ImplicitScoreMatching(domain=Halfspaces(-np.eye(d), np.zeros(d), 1.0)),
            ismcore.ImplicitScoreMatching(domain=Positive(1.0)),
            ismcore.ImplicitScoreMatching(0.1),
        )
        with engine.scope():
            plain, by_row, by_column, penalised = seconds([step(engine, ismcore.MLP(hidden), o, x) for o in objectives]).T
        pairs = ((by_row, plain), (by_column, plain), (penalised, plain), (by_column, penalised))
        ratios = " | ".join(f"{np.median(time / of):.2f}" for time, of in pairs)
        lines.append(f"| {backend} | {d}, {' x '.join(map(str, hidden))} | {1e6 * np.median(plain):.0f} | {ratios} |")
    return lines


def written(page: str, name: str, lines: list[str]) -> str:
    """The page with a table's rows anew."""
    return re.sub(rf"(<!-- {name} -->\n\|[^\n]*\n\|[-| ]*\n)(?:\|[^\n]*\n)*", lambda m: m[1] + "\n".join(lines) + "\n", page)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--backend", default="autograd")
    parser.add_argument("--laws", nargs="*", default=list(LAWS))
    parser.add_argument("--no-cost", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows = []
    for name in options.laws:
        rows.append(row_of(name, quality(name, options.samples, options.backend)))
        print(rows[-1], flush=True)  # noqa: T201
    cost = [] if options.no_cost else [line for backend in ("autograd", "torch", "jax") for line in costs(backend)]
    print("\n".join(cost))  # noqa: T201
    if options.write:
        text = PAGE.read_text(encoding="utf-8")
        for name, lines in (("errors", rows), ("cost", cost)):
            text = written(text, name, lines) if lines else text
        PAGE.write_text(text, encoding="utf-8")
