"""The same fit on several backends, and how far apart they end."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from ismcore.errors import OptionError
from ismcore.fitting.fit import fit
from ismcore.plugins.lookup import choose, widest_dtype
from ismcore.results.result import FitResult
from ismcore.samples import html

__all__ = ["Comparison", "Difference", "compare"]


@dataclass(frozen=True)
class Difference:
    """Largest absolute differences between two fits.

    Attributes:
        first: One backend.
        second: The other.
        loss: Over all epochs of the history.
        params: Over all final parameters, in the samples' units.
        score: Over the scores at the samples, in 1/[x].
    """

    first: str
    second: str
    loss: float
    params: float
    score: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """One fit a backend, and the differences of every pair; prints as a table.

    Attributes:
        results: The fits by backend.
        differences: One entry a pair.
    """

    results: dict[str, FitResult]
    differences: tuple[Difference, ...]

    def __str__(self) -> str:
        lines = [f"{'backend':<24}{'final loss':>24}{'seconds':>12}"]
        for name, result in self.results.items():
            lines.append(f"{name:<24}{result.history['loss'][-1]:>24.15g}{result.timings['total']:>12.2f}")
        lines += ["", f"{'largest difference':<24}{'loss':>12}{'params':>12}{'score':>12}"]
        for row in self.differences:
            lines.append(f"{row.first + ' - ' + row.second:<24}{row.loss:>12.1e}{row.params:>12.1e}{row.score:>12.1e}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        fits = [(name, f"{fit.history['loss'][-1]:.15g}", fit.timings["total"]) for name, fit in self.results.items()]
        gaps = [(f"{row.first} - {row.second}", row.loss, row.params, row.score) for row in self.differences]
        return html.fragment(
            html.html_table(("backend", "final loss", "seconds"), fits),
            html.html_table(("backends", "loss", "params", "score"), gaps, "Largest differences"),
        )


def compare(
    x: Any, *, backends: tuple[str, ...] = ("autograd", "torch", "jax"), dtype: object = None, **options: Any
) -> Comparison:
    """Fit the same samples from the same start on each backend.

    Args:
        x: Samples, as for `fit`.
        backends: Two or more names.
        dtype: As for `fit`, but unless said float64, or float32 where one of them offers that alone: rounding alone drives
            long float32 fits apart.
        **options: Further arguments of `fit`.

    Raises:
        OptionError: Fewer than two backends, or the same one twice.
    """
    if len(backends) < 2 or len(set(backends)) != len(backends):
        raise OptionError(f"backends must name two or more different backends, not {backends!r}")
    if dtype is None:
        dtype = widest_dtype(*(choose(name).name for name in backends))
    results = {name: fit(x, backend=name, dtype=dtype, **options) for name in backends}
    scores = {name: result.score(x) for name, result in results.items()}

    def gap(a: np.ndarray, b: np.ndarray) -> float:
        length = min(len(np.atleast_1d(a)), len(np.atleast_1d(b)))
        return float(np.max(np.abs(np.atleast_1d(a)[:length] - np.atleast_1d(b)[:length])))

    rows = [
        Difference(
            a,
            b,
            loss=gap(results[a].history["loss"], results[b].history["loss"]),
            params=max(gap(value, results[b].params[name]) for name, value in results[a].params.items()),
            score=gap(scores[a], scores[b]),
        )
        for a, b in combinations(backends, 2)
    ]
    return Comparison(results, tuple(rows))
