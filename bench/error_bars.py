"""How often an interval by `FitResult.standard_error` covers the true score; part of bench/check.py."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import numpy as np
from laws import draw, relative_error

import ismcore
from ismcore.judging.certificate import t_quantile
from ismcore.training.baseline import mean_and_error

CELLS = (
    ("two modes", 1000), ("t5", 1000), ("Gumbel", 1000), ("banana", 1000), ("moons", 1000), ("normal 5", 200),
    ("normal 10", 1000),
)  # fmt: skip
RESAMPLES, POINTS = 10, 100
QUANTILE = t_quantile(0.975, RESAMPLES - 1)


def coverage_of(name: str, n: int, sample: int, backend: str, recipe: str) -> dict[str, Any]:
    """Share of coordinates of the true score, at 100 fresh rows of a sample, that psi +- 2.26 standard errors covers."""
    x, _, y, s = draw(name, n, 1000 + sample)
    y, s = y[:POINTS], s[:POINTS]
    options = {"backend": backend, "recipe": recipe, "seed": sample, "progress": False}
    result = ismcore.bootstrap(x, resamples=RESAMPLES, **options)
    psi, error = result.score(y), result.standard_error(y)
    return {
        "law": name,
        "n": n,
        "sample": sample,
        "backend": backend,
        "recipe": recipe,
        "covered": float(np.mean(np.abs(psi - s) <= QUANTILE * error)),
        "error": relative_error(psi, s),
        "variance": float(np.sum(error**2) / np.sum((psi - s) ** 2)),
    }


def coverages(samples: int, backend: str, recipe: str, known: Sequence[dict[str, Any]] = ()) -> Iterable[list[dict[str, Any]]]:
    """What is known and one sample of one cell more, again and again: first a sample of every cell, then the next."""
    found = list(known)
    there = {(f["law"], f["n"], f["sample"], f["recipe"]) for f in found}
    for sample in range(samples):
        for name, n in CELLS:
            if (name, n, sample, recipe) not in there:
                found.append(coverage_of(name, n, sample, backend, recipe))
                sys.stdout.write(f"{found[-1]}\n")
                sys.stdout.flush()
                yield list(found)


def coverage_table(found: list[dict[str, Any]]) -> str:
    """A line for each cell and recipe: the mean of its samples' shares, and the standard error of that."""
    lines = [
        "| law, rows | recipe | samples | covered, % | standard error of that | error of the fit | variance / squared error |",
        "|---|---|---|---|---|---|---|",
    ]
    for recipe, (name, n) in product(dict.fromkeys(f["recipe"] for f in found), CELLS):
        some = [f for f in found if (f["law"], f["n"], f["recipe"]) == (name, n, recipe)]
        if not some:
            continue
        mean, error = mean_and_error(np.array([f["covered"] for f in some]))
        spread = "" if len(some) < 2 else f"{100.0 * error:.1f}"
        bias = [float(np.median([f[name] for f in some])) for name in ("error", "variance")]
        lines.append(
            f"| {name}, {n} | {recipe} | {len(some)} | {100.0 * mean:.0f} | {spread} | {bias[0]:.3f} | {bias[1]:.2f} |"
        )
    return "\n".join(lines)
