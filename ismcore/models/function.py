"""A score function, or an energy, of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ismcore.calculus import Calculus
from ismcore.errors import ModelError
from ismcore.models.base import Model
from ismcore.ops import Array
from ismcore.problem import Params

__all__ = ["ScoreFunction"]


@dataclass(frozen=True, eq=False)
class ScoreFunction(Model):
    """A score function of the user's own.

    Args:
        apply: `apply(ops, params, x) -> (n, d)`, written over `ismcore.ops.Ops`, which runs on every backend; or, with a
            backend named, `apply(params, x)` in that backend's framework. Rows must be independent. A conditional score
            gets its context, (n, c), as a last argument. Inside of `ismcore.Energy` it returns an energy, (n,) or (n, 1).
        params: Parameters to start from, by name.
        backend: The backend whose framework `apply` is written in.

    Raises:
        ModelError: `apply` is not callable, or there are no parameters.

    Example:
        >>> def apply(ops, params, x):
        ...     return params["a"] * x
        >>> ismcore.ScoreFunction(apply, {"a": -1.0}).shapes(d=3)
        {'a': ()}
    """

    apply: Callable[..., Array]
    params: Mapping[str, Any]
    backend: str | None = None

    def __post_init__(self) -> None:
        if not callable(self.apply):
            raise ModelError(f"apply must be a function (ops, params, x) -> (n, d), not {self.apply!r}")
        if not isinstance(self.params, Mapping) or not self.params:
            raise ModelError("params must be a dict with at least one array: without a parameter there is nothing to fit")

    def shapes(self, d: int) -> dict[str, tuple[int, ...]]:
        """See `Model.shapes`; they are those of the parameters given, whatever d is."""
        return {name: np.shape(value) for name, value in self.params.items()}

    def initial_params(self, seed: int, d: int) -> Params:
        """See `Model.initial_params`; a copy of the parameters given."""
        return {name: np.array(value, dtype=np.float64) for name, value in self.params.items()}

    def output(self, calculus: Calculus, params: Params, x: Array, context: Array | None = None) -> Array:
        """What `apply` returns."""
        arguments = (params, x) if context is None else (params, x, context)
        return self.apply(calculus.ops, *arguments) if self.backend is None else self.apply(*arguments)

    def score(self, calculus: Calculus, params: Params, x: Array, context: Array | None = None) -> Array:
        """See `Model.score`."""
        psi = self.output(calculus, params, x, context)
        if tuple(psi.shape) != tuple(x.shape):
            raise ModelError(f"apply must return one score a row, of shape {tuple(x.shape)}; it returned {tuple(psi.shape)}")
        return psi
