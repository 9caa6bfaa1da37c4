"""Normalisers, draws and nearest energies of fits, measured on laws that are known: the tables of docs/sampling.md.

    python bench/sampling.py                 # all parts, half an hour on one core
    python bench/sampling.py normaliser      # one of: normaliser, errors, energies, free, nearest, annealed

Each part prints a table and raises where a bound that docs/sampling.md states is not kept.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from laws import Array, draw, law_of, relative_error

import ismcore
from ismcore.targets import GaussianMixture

KEEP = {"epochs": 1, "optimizer": ismcore.SGD(0.0), "standardize": False, "validation": 0, "dtype": "float64"}
"""A fit that leaves its parameters as they are: the energy is known, and the fit gives it the methods of a result."""
SINGLE = {"recipe": "single", "dtype": "float64"}
BOUNDS = {1: 0.005, 2: 0.01, 5: 0.03, 10: 0.08}
"""Largest error of log Z by dimension."""


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def hold(kept: bool, bound: str) -> None:
    if not kept:
        raise SystemExit(f"not kept: {bound}")


def mixtures(d: int) -> dict[str, GaussianMixture]:
    """Five mixtures in d dimensions, whose modes touch."""
    rng = np.random.default_rng(d)
    first, a = np.eye(1, d)[0], rng.normal(size=(d, d)) / math.sqrt(d)
    tilted = a @ a.T + 0.3 * np.eye(d)
    corners = 1.5 * rng.normal(size=(5, d)) / math.sqrt(d)
    return {
        "one, correlated": GaussianMixture([1.0], [3.0 + np.zeros(d)], [tilted]),
        "two that touch": GaussianMixture([0.3, 0.7], [-1.5 * first, 1.5 * first], [1.0, 0.6]),
        "three of unlike shape": GaussianMixture(
            [0.5, 0.3, 0.2], [0.0 * first, 2.0 * first, -2.0 * first], [np.eye(d), tilted, 0.5 * np.eye(d)]
        ),
        "narrow and wide": GaussianMixture([0.5, 0.5], [0.0 * first, 0.0 * first], [1.0, 0.35]),
        "five at random": GaussianMixture(np.ones(5), corners, np.full(5, 0.5)),
    }


def energy_of(law: GaussianMixture, constant: float = 5.0) -> ismcore.Energy:
    """U = constant - log p, so that log Z = -constant."""
    precisions = np.linalg.inv(law.covariances)
    heights = np.log(law.weights) - 0.5 * np.linalg.slogdet(law.covariances)[1] - 0.5 * law.d * math.log(2.0 * math.pi)

    def apply(ops, params, x):
        total = None
        for mean, precision, height in zip(law.means, precisions, heights, strict=True):
            away = x - params["one"] * mean
            part = height - 0.5 * ops.sum((away @ (params["one"] * precision)) * away, axis=1)
            total = part if total is None else ops.logaddexp(total, part)
        return constant - total

    return ismcore.Energy(ismcore.ScoreFunction(apply, {"one": np.ones(1)}))


def known(law: GaussianMixture, backend: str = "autograd") -> ismcore.FitResult:
    """A result whose energy is that of a law."""
    return ismcore.fit(law.sample(200, seed=1), model=energy_of(law), backend=backend, **KEEP)


def normaliser() -> None:
    """Error of log Z for five known energies in four dimensions."""
    say("| d | law | log Z less its value | reported error | effective draws |\n|---|---|---|---|---|")
    for d, bound in BOUNDS.items():
        for name, law in mixtures(d).items():
            found = known(law).log_normaliser()
            say(f"| {d} | {name} | {found.value + 5.0:+.2g} | {found.standard_error:.1g} | {found.effective:.0f} |")
            hold(abs(found.value + 5.0) <= bound, f"|log Z| within {bound} at d = {d}")
    for name, law in mixtures(50).items():
        try:
            found = known(law).log_normaliser()
        except ismcore.DensityUnavailable as error:
            say(f"| 50 | {name} | refused: {str(error)[:60]} | | |")
        else:
            say(f"| 50 | {name} | {found.value + 5.0:+.2g} | {found.standard_error:.1g} | {found.effective:.0f} |")


def errors(runs: int = 20) -> None:
    """Errors of log Z over their reported standard errors, over seeds and laws: root mean square, 1 if they are right."""
    say("| d | runs | rms of error over reported | largest |\n|---|---|---|---|")
    for d in (5, 10):
        ratios = []
        for law in mixtures(d).values():
            result = known(law)
            found = [result.log_normaliser(seed=seed) for seed in range(1, 1 + runs)]
            ratios += [(one.value + 5.0) / one.standard_error for one in found]
        rms = math.sqrt(np.mean(np.square(ratios)))
        say(f"| {d} | {len(ratios)} | {rms:.2f} | {np.abs(ratios).max():.1f} |")
        hold(0.7 <= rms <= 1.4, "error over reported error between 0.7 and 1.4")


def touching(n: int, seed: int) -> Array:
    """0.3 N((-1.5, 0), I) + 0.7 N((1.5, 0), 0.6 I), in units of (2, 30) and moved."""
    law = GaussianMixture([0.3, 0.7], [[-1.5, 0.0], [1.5, 0.0]], [1.0, 0.6])
    return law.sample(n, seed=seed) * [2.0, 30.0] + [5.0, 100.0]


def grid_over(x: Array, nodes: int = 801) -> Array:
    """Nodes of a square grid, (nodes^2, 2), over the rows and 60 % of their range beyond."""
    low, high = x.min(axis=0), x.max(axis=0)
    ends = zip(low - 0.6 * (high - low), high + 0.6 * (high - low), strict=True)
    return np.stack(np.meshgrid(*(np.linspace(*end, nodes) for end in ends), indexing="ij"), axis=-1).reshape(-1, 2)


def statistics(x: Array, cut: float) -> Array:
    """Columns, products of columns, and whether the first is below a cut: whose means are those to compare, (n, 6)."""
    return np.column_stack([x, x[:, 0] ** 2, x[:, 0] * x[:, 1], x[:, 1] ** 2, x[:, 0] < cut])


def deviates(draws: Array, each: int, exact: Array) -> Array:
    """Means of draws less exact ones, in standard errors from the spread of the chains' own means."""
    whole = len(draws) // each
    chains = draws[: whole * each].reshape(whole, each, -1).mean(axis=1)
    return (chains.mean(axis=0) - exact) / (chains.std(axis=0, ddof=1) / math.sqrt(whole))


def energies() -> None:
    """Draws of an energy on every backend: moments beside those of the fitted law by quadrature, and beside each other."""
    x = touching(2000, seed=1)
    model = ismcore.Energy(ismcore.MLP((16, 16), "softplus"))
    fitted = ismcore.fit(x, model=model, epochs=150, backend="autograd", **SINGLE)
    grid = grid_over(x)
    weight = fitted.density(grid)
    z = (grid - x.mean(axis=0)) / x.std(axis=0)
    cut = -0.3
    exact = np.average(statistics(z, cut), axis=0, weights=weight)
    say("| backend | draws | R-hat up to | effective from | means, products and share, in standard errors | from autograd's |")
    say("|---|---|---|---|---|---|")
    paths = {}
    for name in ("autograd", "torch", "jax"):
        at = replace(fitted, backend=name)
        draws = at.sample(20_000, start=x, seed=1)
        away = deviates(statistics((draws.x - x.mean(axis=0)) / x.std(axis=0), cut), draws.each, exact)
        paths[name] = at.sample(100, start=x, steps=200, thin=1, seed=3).x / x.std(axis=0)
        gap = float(np.abs(paths[name] - paths["autograd"]).max())
        row = (
            f"{len(draws)} | {draws.r_hat.max():.3f} | {draws.effective.min():.0f} | {' '.join(f'{one:+.1f}' for one in away)}"
        )
        say(f"| {name} | {row} | {gap:.1g} |")
        hold(float(np.abs(away).max()) <= 4.0, "moments and share within 4 standard errors")
        hold(gap <= 1e-10, "equal to 1e-10 after 201 steps")


def free() -> None:
    """Standard deviations of draws along the score of a free network and of the default fit, over those of the law."""
    say("| law | fit | seed | standard deviations over the law's | R-hat up to |\n|---|---|---|---|---|")
    found = []
    for name in ("ring", "banana", "two that touch"):
        law = law_of(name) if name in ("ring", "banana") else None
        for seed in range(3):
            sample = (
                mixtures(2)[name].sample if law is None else lambda n, seed, law=law: law.sample(n, np.random.default_rng(seed))
            )
            x, many = sample(2000, seed=seed), sample(100_000, seed=99)
            fitted = ismcore.fit(x, backend="torch", seed=seed, recipe="single")
            draws = fitted.sample(20_000, start=x, seed=seed)
            ratio = draws.x.std(axis=0) / many.std(axis=0)
            found += list(np.abs(ratio - 1.0))
            say(f"| {name} | {fitted.model!r} | {seed} | {ratio[0]:.3f} {ratio[1]:.3f} | {draws.r_hat.max():.3f} |")
    say(f"\nLargest {max(found):.1%}, median {np.median(found):.1%}.")
    hold(max(found) <= 0.08 and float(np.median(found)) <= 0.04, "within 8 %, 4 % in the median")


def nearest() -> None:
    """Relative error of `as_energy` beside that of the free network that it is nearest to."""
    say("| law | seed | free network | its energy | ratio | asymmetry | lost |\n|---|---|---|---|---|---|---|")
    for name in ("ring", "banana", "moons"):
        for seed in range(2):
            x, _, y, s = draw(name, 1000, seed=seed)
            fitted = ismcore.fit(x, backend="torch", seed=seed, recipe="single")
            energy = fitted.as_energy(x)
            errors = [relative_error(result.score(y), s) for result in (fitted, energy)]
            lost = next(text for text in (*energy.notes, *energy.warnings) if "is lost" in text)
            share = fitted.asymmetry(x[:200])
            say(f"| {name} | {seed} | {errors[0]:.3f} | {errors[1]:.3f} | {errors[1] / errors[0]:.2f} | {share:.2g} | {lost} |")
            hold(errors[1] <= 1.7 * errors[0], "error of the energy at most 1.7 times that of the network")


def accuracy(one: Array, other: Array, seed: int) -> float:
    """Held-out accuracy of gradient boosting that tells two samples apart, trained on half of both: 0.5 if it cannot."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    x, label = np.vstack([one, other]), np.repeat([0, 1], [len(one), len(other)])
    order = np.random.default_rng(seed).permutation(len(x))
    train, test = np.split(order, 2)
    fitted = HistGradientBoostingClassifier(random_state=seed).fit(x[train], label[train])
    return float(np.mean(fitted.predict(x[test]) == label[test]))


def annealed() -> None:
    """Two-sample test of draws of a noise-conditional fit on two moons, no ladder given, beside that of draws of the law."""
    say("| seed | fit against the law | law against the law |\n|---|---|---|")
    law, found = law_of("moons"), []
    for seed in range(3):
        rows, other, third = (law.sample(2000, np.random.default_rng([seed, k])) for k in range(3))
        fitted = ismcore.fit(rows, model=ismcore.NoiseConditional(ismcore.MLP((64, 64))), backend="torch", seed=seed)
        found.append(accuracy(fitted.sample(2000, seed=seed).x, other, seed))
        say(f"| {seed} | {found[-1]:.3f} | {accuracy(third, other, seed):.3f} |")
    hold(float(np.median(found)) <= 0.55, "right in at most 0.55, the median of three seeds")


PARTS: dict[str, Callable[[], None]] = {
    "normaliser": normaliser,
    "errors": errors,
    "energies": energies,
    "free": free,
    "nearest": nearest,
    "annealed": annealed,
}


def main(*names: str) -> None:
    """Run the parts named, or all."""
    warnings.simplefilter("ignore", ismcore.IsmWarning)
    for name in names or PARTS:
        say(f"\n{name}\n")
        PARTS[name]()


if __name__ == "__main__":
    main(*sys.argv[1:])
