"""How often a fit is told that it is no better than the normal law, on normal samples and on others: for docs/training.md.

python bench/baseline.py                    # everything, about ten minutes on one core
python bench/baseline.py --draws 4 --tests 200
"""

import argparse
import math
import sys

import numpy as np

import ismcore
from ismcore.samples.normality import departure
from ismcore.training.baseline import NormalLaw

ROWS = (200, 1000, 5000)
SIZES = (1, 2, 5, 10)
WAYS = {"default": {}, "3 epochs": {"epochs": 3}, "rate 1": {"optimizer": ismcore.Adam(1.0)}}


class Law:
    """A law by its samples and its score, both of (n, d)."""

    def __init__(self, d, sample, score):
        self.d, self.sample, self.score = d, sample, score


def mixture(weights, means, covariances):
    law = ismcore.targets.GaussianMixture(weights, means, covariances)
    return Law(np.shape(means)[1], lambda n, rng: law.sample(n, int(rng.integers(2**31))), law.score)


def independent(d, draw, score):
    return Law(d, lambda n, rng: draw(rng, (n, d)), score)


def student(d, nu):
    def sample(n, rng):
        return rng.standard_normal((n, d)) / np.sqrt(rng.chisquare(nu, n) / nu)[:, None]

    return Law(d, sample, lambda x: -(nu + d) * x / (nu + np.sum(x * x, axis=1, keepdims=True)))


def bent(bend, scale):
    """x_1 ~ N(0, 1), x_2 | x_1 ~ N(bend (x_1^2 - 1), scale^2)."""

    def sample(n, rng):
        first, second = rng.standard_normal((2, n))
        return np.stack([first, bend * (first**2 - 1.0) + scale * second], axis=1)

    def score(x):
        rest = (x[:, 1] - bend * (x[:, 0] ** 2 - 1.0)) / scale**2
        return np.stack([-x[:, 0] + 2.0 * bend * x[:, 0] * rest, -rest], axis=1)

    return Law(2, sample, score)


def normal(d):
    """Correlated, of condition 20."""
    turn = np.linalg.qr(np.random.default_rng(d).standard_normal((d, d)))[0]
    spread = np.geomspace(1.0, 20.0, d) if d > 1 else np.ones(1)
    return mixture([1.0], np.zeros((1, d)), [(turn * spread) @ turn.T])


def circle():
    angle = 2.0 * np.pi * np.arange(40) / 40
    return mixture(np.full(40, 1 / 40), 2.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1), np.full(40, 0.04))


def modes(d, k):
    means = 2.5 * np.random.default_rng(k).standard_normal((k, d)) / math.sqrt(d / 2)
    return mixture(np.full(k, 1.0 / k), means, np.full(k, 0.5))


CHOSEN_ON = {
    "0.1 N(-3, 1) + 0.9 N(3, 1)": mixture([0.1, 0.9], [[-3.0], [3.0]], [1.0, 1.0]),
    "Student t, 3 degrees": student(1, 3.0),
    "a ring": circle(),
    "3 modes, d = 5": modes(5, 3),
}
"""The limits were chosen on these."""
REPORTED_ON = {
    "Laplace": independent(1, lambda rng, size: rng.laplace(size=size), lambda x: -np.sign(x)),
    "Gumbel": independent(1, lambda rng, size: rng.gumbel(size=size), lambda x: np.exp(-x) - 1.0),
    "a banana": bent(0.6, 0.5),
    "25 modes on a grid": mixture(
        np.full(25, 1 / 25), [(i, j) for i in range(-2, 3) for j in range(-2, 3)], np.full(25, 0.15**2)
    ),
    "logistic, d = 3": independent(3, lambda rng, size: rng.logistic(size=size), lambda x: -np.tanh(x / 2.0)),
    "Student t, 5 degrees, d = 5": student(5, 5.0),
    "4 modes, d = 10": modes(10, 4),
}


def interval(hits, draws):
    """A share in per cent with its Wilson interval at 95 %."""
    z, p = 1.96, hits / draws
    middle, half = p + z * z / (2 * draws), z * math.sqrt(p * (1 - p) / draws + z * z / (4 * draws * draws))
    low, high = (max(0.0, 100 * (middle + sign * half) / (1 + z * z / draws)) for sign in (-1, 1))
    return f"{hits} of {draws} ({low:.2g} to {high:.2g} %)"


def warned(result):
    return any("the baseline" in text for text in result.warnings)


def fitted(law, n, seed, options):
    """A fit to fresh rows, and its relative Fisher divergence on others over that of the normal law."""
    rng = np.random.default_rng([seed, n, law.d])
    x, fresh = law.sample(n, rng), law.sample(4000, rng)
    result = ismcore.fit(x, backend="autograd", seed=seed, progress=False, on_nonfinite="stop", **options)
    truth, of_normal = law.score(fresh), NormalLaw.of(x)
    plain = -((fresh - of_normal.mean) @ of_normal.directions * of_normal.precisions) @ of_normal.directions.T
    errors = [float(np.mean((found - truth) ** 2)) for found in (result.score(fresh), plain)]
    return result, errors[0] / errors[1]


def on_tests(draws):
    """The test of normality alone, on normal rows as many as a default fit trains on."""
    yield "| d | n | normal samples called not normal |\n|---|---|---|"
    total = 0
    for d in SIZES:
        for n in ROWS:
            rng, hits, law = np.random.default_rng([d, n]), 0, normal(d)
            for _ in range(draws):
                x = law.sample(round(0.8 * n), rng)
                hits += departure(x, NormalLaw.of(x).whitened(x)) is not None
            total += hits
            yield f"| {d} | {n} | {interval(hits, draws)} |"
    yield f"| all | | {interval(total, draws * len(SIZES) * len(ROWS))} |\n"


def on_normal_samples(draws):
    """Default fits of normal samples: a warning is a false alarm, whether or not the fit is worse than the normal law."""
    yield "| d | n | warned | error above the normal law's |\n|---|---|---|---|"
    total = 0
    for d in SIZES:
        for n in ROWS:
            fits = [fitted(normal(d), n, seed, {}) for seed in range(draws)]
            hits = sum(warned(result) for result, _ in fits)
            total += hits
            yield f"| {d} | {n} | {interval(hits, draws)} | {sum(ratio > 1.0 for _, ratio in fits)} of {draws} |"
    yield f"| all | | {interval(total, draws * len(SIZES) * len(ROWS))} | |\n"


def on_others(laws, draws):
    """Warned fits of those with an error above that of the normal law, with half of it or more, and with less."""
    yield "| law | n | fit | error above the normal law's: warned | 0.5 to 1 of it | below 0.5 |\n|---|---|---|---|---|---|"
    totals = np.zeros((3, 2), dtype=int)
    for name, law in laws.items():
        for n in ROWS[:2]:
            for way, options in WAYS.items():
                counts = np.zeros((3, 2), dtype=int)
                for seed in range(draws):
                    result, ratio = fitted(law, n, seed, options)
                    counts[0 if not ratio <= 1.0 else 1 if ratio > 0.5 else 2] += (1, warned(result))
                totals += counts
                cells = " | ".join(f"{hits} of {fits}" if fits else "" for fits, hits in counts)
                yield f"| {name} | {n} | {way} | {cells} |"
    yield "| all | | | " + " | ".join(interval(hits, fits) if fits else "" for fits, hits in totals) + " |\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=25, help="normal samples a cell; a fifth as many of the others")
    parser.add_argument("--tests", type=int, default=2000, help="draws a cell for the test of normality alone")
    parser.add_argument("--part", nargs="+", choices=("tests", "normal", "chosen", "reported"), help="all if not given")
    options = parser.parse_args()
    few = max(1, options.draws // 5)
    parts = {
        "tests": on_tests(options.tests),
        "normal": on_normal_samples(options.draws),
        "chosen": on_others(CHOSEN_ON, few),
        "reported": on_others(REPORTED_ON, few),
    }
    for part in options.part or parts:
        for row in parts[part]:
            sys.stdout.write(f"{row}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
