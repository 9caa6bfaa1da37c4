"""Real tables and the reference sample: what bench/quality.py measures beside the laws of `laws`."""

from __future__ import annotations

import time
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
from estimators import RIVALS
from sklearn.datasets import load_digits, load_iris

import ismcore
from ismcore.coordinates import Coordinates
from ismcore.judging.competitors import derivatives_of
from ismcore.samples.tables.reading import read_samples
from ismcore.targets.density import fisher_divergence
from ismcore.training.baseline import NormalLaw, mean_and_error

RUN = ismcore.datasets.reference_run()
GRID = np.linspace(-15.0, 15.0, 6001)
WINE = Path(__file__).parents[1] / "tests" / "data" / "winequality-red.csv"
SCALES = (0.1, 0.4)
"""Noise scales of the denoising test, in standard deviations of the columns."""
DIGITS_NOISE = 2.0
NOISY = "digits, 64 pixels with noise 2"
BY_HAND = {"model": ismcore.MLP((64,), "sigmoid"), "optimizer": ismcore.Adam(0.03), "epochs": 500, "validation": 0}


class Law:
    """The normal law as an estimate: `score` of points, and the terms of the loss."""

    def __init__(self, z: np.ndarray) -> None:
        self._law = NormalLaw.of(z)

    def score(self, z: np.ndarray) -> np.ndarray:
        return self._law.score(z)

    def terms(self, z: np.ndarray) -> np.ndarray:
        return self._law.terms(z)


class Fit:
    """A fit as an estimate."""

    def __init__(self, z: np.ndarray, **options) -> None:
        self.result = ismcore.fit(z, progress=False, **options)

    def score(self, z: np.ndarray) -> np.ndarray:
        return self.result.score(z)

    def terms(self, z: np.ndarray) -> np.ndarray:
        return derivatives_of(self.result, z, Coordinates.identity(z.shape[1])).terms


@cache
def tables() -> dict[str, np.ndarray]:
    """Real tables, (n, d), each with what it is."""
    wine, digits = read_samples(WINE), load_digits().data
    centred = digits - digits.mean(axis=0)
    return {
        "red wine, 11 measurements": wine[:, :11],
        "iris": load_iris().data,
        "digits, 10 principal components": centred @ np.linalg.svd(centred, full_matrices=False)[2][:10].T,
    }


def split(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit and every tenth row to judge by, z-scored with the former; equal rows are taken once."""
    x = np.unique(x, axis=0)
    x = x[np.random.default_rng(0).permutation(len(x))]
    judging = np.arange(len(x)) % 10 == 0
    mean, scale = x[~judging].mean(axis=0), x[~judging].std(axis=0)
    return (x[~judging] - mean) / scale, (x[judging] - mean) / scale


def noise_left(score, z: np.ndarray, scale: float) -> np.ndarray:
    """E|y + s^2 psi(y) - z|^2 / (s^2 d) for y = z + s e at each row, (m,): 1 where none is removed; 40 draws of the noise."""
    noise = np.random.default_rng(1).standard_normal((40, *z.shape))
    y = (z + scale * noise).reshape(-1, z.shape[1])
    away = y + scale**2 * score(y) - np.tile(z, (40, 1))
    return np.mean(away.reshape(noise.shape) ** 2, axis=(0, 2)) / scale**2


def table_runs(seeds: int, recipes, backends, known):
    """Each estimate of each table: the gap of its loss to the normal law's, with its error, and the noise that it leaves."""
    for name, x in tables().items():
        z, judging = split(x)
        law = Law(z)
        atoms = ismcore.diagnose(z).has_atoms
        for estimator, backend, seed, estimate in estimates(name, z, law, seeds, recipes, backends, known):
            gap = estimate.terms(judging) - law.terms(judging)
            mean, error = mean_and_error(gap)
            left = {f"{scale:g}": float(np.mean(noise_left(estimate.score, judging, scale))) for scale in SCALES}
            size = {"n": len(z), "d": z.shape[1], "atoms": atoms}
            yield key("tables", name, seed, estimator, backend) | size | {"gap": mean, "gap error": error, "left": left}
    yield from noised_runs(seeds, recipes, backends, known)
    yield from digits_runs(seeds, recipes, backends, known)


def noised_runs(seeds: int, recipes, backends, known):
    """The noise that the score of rows with that noise leaves, which is the least there is: all estimates are of z + s e.

    With each the difference from the normal law's, by the same rows and noise, and the standard error of that over rows.
    """
    closed = [(name, "", 0) for name in RIVALS if name != "flow"]
    tasks = [*closed, *((recipe, backend, seed) for backend, recipe, seed in product(backends, recipes, range(seeds)))]
    for (name, x), scale in product(tables().items(), SCALES):
        z, judging = split(x)
        noised = z + scale * np.random.default_rng(2).standard_normal(z.shape)
        law = noise_left(RIVALS["normal law"](noised), judging, scale)
        for estimator, backend, seed in tasks:
            about = key("tables", f"{name}, with noise of {scale:g}", seed, estimator, backend)
            if tuple(about.values()) in known:
                continue
            options = {"backend": backend, "recipe": estimator, "seed": seed}
            score = Fit(noised, **options).score if backend else RIVALS[estimator](noised)
            left = noise_left(score, judging, scale)
            gap, error = mean_and_error(left - law)
            yield about | {"noise left": float(np.mean(left)), "noise gap": gap, "noise gap error": error}


def estimates(cell: str, z, law, seeds: int, recipes, backends, known):
    """Those of a table that are not known yet, the normal law first."""
    if tuple(key("tables", cell, 0, "normal law", "").values()) not in known:
        yield "normal law", "", 0, law
    for backend, recipe, seed in product(backends, recipes, range(seeds)):
        if tuple(key("tables", cell, seed, recipe, backend).values()) not in known:
            yield recipe, backend, seed, Fit(z, backend=backend, recipe=recipe, seed=seed)


def digits_runs(seeds: int, recipes, backends, known):
    """Digits, 64 pixels from 0 to 16 with noise of standard deviation 2: the squared error of y + 4 psi(y) from the digit.

    It is 16 times the Fisher divergence from the score of the noisy law, and a constant.
    """
    digits = load_digits().data
    digits = digits[np.random.default_rng(0).permutation(len(digits))]
    noisy = digits + DIGITS_NOISE * np.random.default_rng(2).standard_normal(digits.shape)
    judging = np.arange(len(digits)) % 4 == 0
    law = Law(noisy[~judging])
    for estimator, backend, seed, estimate in estimates(NOISY, noisy[~judging], law, seeds, recipes, backends, known):
        denoised = noisy[judging] + DIGITS_NOISE**2 * estimate.score(noisy[judging])
        error = float(np.mean(np.sum((denoised - digits[judging]) ** 2, axis=1)))
        yield key("tables", NOISY, seed, estimator, backend) | {"denoising error": error}


def key(part: str, cell: str, sample: int, estimator: str, backend: str) -> dict:
    return {"part": part, "cell": cell, "sample": sample, "estimator": estimator, "backend": backend}


def on_the_reference_sample(result) -> dict[str, float]:
    """Fisher divergence from the target's score, and the mass that the fitted density has left of 0 (exactly: 0.1)."""
    density, left = result.density(GRID), GRID <= 0.0
    divergence = fisher_divergence(result.score, RUN.target, GRID)
    return {"divergence": float(divergence), "mass": float(np.trapezoid(density[left], GRID[left]))}


def reference_runs(seeds: int, recipes, backends, known):
    """The published run, each recipe, and one by hand, on the 1024 samples of the reference run, and on others."""
    published = key("reference", "published sample", 0, "the published run", "autograd")
    if tuple(published.values()) not in known:
        about = {"recipe": "reference", "backend": "autograd", "dtype": "float64"}
        run = ismcore.fit(RUN.sample, initial_params=RUN.initial_params, **about)
        yield published | on_the_reference_sample(run) | {"seconds": 0.0}
    tasks = {recipe: {"recipe": recipe} for recipe in recipes} | {"the recipe below": BY_HAND}
    samples = {
        "published sample": lambda seed: RUN.sample,
        "other samples": lambda seed: RUN.target.sample(1024, seed=100 + seed),
    }
    for seed, backend, (name, options), (cell, sample) in product(range(seeds), backends, tasks.items(), samples.items()):
        about = key("reference", cell, seed, name, backend)
        if tuple(about.values()) not in known:
            start = time.process_time()
            result = ismcore.fit(sample(seed), backend=backend, seed=seed, progress=False, **options)
            yield about | on_the_reference_sample(result) | {"seconds": time.process_time() - start}
