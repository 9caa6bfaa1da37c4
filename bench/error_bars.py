"""How often an interval by `FitResult.standard_error` covers the true score; part of bench/check.py."""

from __future__ import annotations

import sys
from collections.abc import Iterable
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


def coverage_of(name: str, n: int, samples: int, backend: str, recipe: str) -> dict[str, Any]:
    """Share of coordinates of the true score, at 100 fresh rows of each sample, that psi +- 2.26 standard errors covers."""
    covered, errors, variances = [], [], []
    for sample in range(samples):
        x, _, y, s = draw(name, n, 1000 + sample)
        y, s = y[:POINTS], s[:POINTS]
        options = {"backend": backend, "recipe": recipe, "seed": sample, "progress": False}
        result = ismcore.bootstrap(x, resamples=RESAMPLES, **options)
        psi, error = result.score(y), result.standard_error(y)
        covered.append(float(np.mean(np.abs(psi - s) <= QUANTILE * error)))
        errors.append(relative_error(psi, s))
        variances.append(float(np.sum(error**2) / np.sum((psi - s) ** 2)))
    mean, error = mean_and_error(np.array(covered))
    found = {
        "law": name,
        "n": n,
        "samples": samples,
        "backend": backend,
        "recipe": recipe,
        "coverage": mean,
        "coverage error": error,
    }
    return found | {"error": float(np.median(errors)), "variance": float(np.median(variances))}


def coverages(samples: int, backend: str, recipe: str) -> Iterable[dict[str, Any]]:
    for name, n in CELLS:
        found = coverage_of(name, n, samples, backend, recipe)
        sys.stdout.write(f"{found}\n")
        sys.stdout.flush()
        yield found


def coverage_table(found: list[dict[str, Any]]) -> str:
    lines = [
        "| law, rows | recipe | samples | covered, % | standard error of that | error of the fit | variance / squared error |",
        "|---|---|---|---|---|---|---|",
    ]
    for f in found:
        spread = "" if f["samples"] < 2 else f"{100.0 * f['coverage error']:.1f}"
        name = f"{f['law']}, {f['n']} | {f['recipe']}"
        lines.append(
            f"| {name} | {f['samples']} | {100.0 * f['coverage']:.0f} | {spread} | {f['error']:.3f} | {f['variance']:.2f} |"
        )
    return "\n".join(lines)
