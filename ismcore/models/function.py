"""A score function, or an energy, of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ismcore.calculus import Calculus
from ismcore.errors import ModelError
from ismcore.models.trees import Rebuild, as_array, flatten
from ismcore.models.user import Frame, UserModel
from ismcore.ops import Array, Params

__all__ = ["ScoreFunction"]


@dataclass(frozen=True, eq=False)
class ScoreFunction(UserModel):
    """A score function of the user's own.

    Args:
        apply: `apply(ops, params, x) -> (n, d)`, written over `ismcore.ops.Ops`, which runs on every backend; or, with a
            backend named, `apply(params, x)` in that backend's framework, where it may also take one row, (d,). Rows must be
            independent. A conditional score gets its context, (n, c), as a last argument. Inside of `ismcore.Energy` it
            returns an energy, (n,) or (n, 1), or one number for one row.
        params: Parameters to start from: a dict, or a tree of dicts, lists, tuples and dataclasses; in JAX, any pytree.
            `apply` gets such a tree; results name its leaves by their path, "layers.0.weight".
        backend: The backend whose framework `apply` is written in.

    Raises:
        ModelError: `apply` is not callable, or there are no parameters, or one is no array of numbers.

    Example:
        >>> def apply(ops, params, x):
        ...     return params["a"] * x
        >>> ismcore.ScoreFunction(apply, {"a": -1.0}).shapes(d=3)
        {'a': ()}
    """

    apply: Callable[..., Array]
    params: Any = field(repr=False)
    backend: str | None = None
    by_row: bool = field(default=False, kw_only=True, repr=False)
    """Whether `apply` takes one row, and `Calculus.map_rows` makes a batched function of it; found out on adoption."""
    kind = "ScoreFunction"
    title = "the function of a ScoreFunction"

    def __post_init__(self) -> None:
        if not callable(self.apply):
            raise ModelError(f"apply must be a function (ops, params, x) -> (n, d), not {self.apply!r}")
        if not self._tree[0]:
            raise ModelError("params must hold at least one array: without a parameter there is nothing to fit")

    @cached_property
    def _tree(self) -> tuple[dict[str, Any], Rebuild]:
        return flatten(self.params)

    @property
    def leaves(self) -> dict[str, Any]:
        """The parameters to start from by name, as they were given."""
        return dict(self._tree[0])

    def shapes(self, d: int) -> dict[str, tuple[int, ...]]:
        """See `Model.shapes`; they are those of the parameters given, whatever d is."""
        return {name: tuple(np.shape(value)) for name, value in self._tree[0].items()}

    def initial_params(self, seed: int, d: int) -> Params:
        """See `Model.initial_params`; a copy of the parameters given."""
        return {name: as_array(name, value) for name, value in self._tree[0].items()}

    def tree(self, params: Params) -> Any:
        """Flat parameters in the form that `apply` takes."""
        return self._tree[1](params)

    def output(self, calculus: Calculus, params: Params, x: Array, context: Array | None = None) -> Array:
        """What `apply` returns."""
        arguments = (self.tree(params), x) if context is None else (self.tree(params), x, context)
        if self.backend is None:
            return self.apply(calculus.ops, *arguments)
        apply = calculus.map_rows(self.apply) if self.by_row else self.apply
        return apply(*arguments)

    def native(self, engine: Calculus, params: Params, frame: Frame, into: Any = None) -> tuple[Callable[..., Any], Any]:
        """A function (params, x) in the engine's framework, and its tree of parameters; see `UserModel.native`."""
        refuse_into(self, into)
        return pair(engine.at, self._native_apply(engine), self.tree(engine.asarrays(params)), frame)

    def _native_apply(self, engine: Calculus) -> Callable[..., Array]:
        if self.backend is not None:
            return self.apply
        return lambda params, x, *context: self.apply(engine.ops, params, x, *context)


def pair(
    calculus_at: Callable[[Array], Calculus], apply: Callable[..., Array], tree: Any, frame: Frame
) -> tuple[Callable[..., Any], Any]:
    """A function (params, x, *context) that takes x in the user's units, and its parameters.

    Args:
        calculus_at: The calculus of an array's framework, dtype and place.
        apply: The function of x in the coordinates of the frame.
        tree: Its parameters.
        frame: How it is to be seen.
    """
    coordinates = frame.coordinates
    if coordinates is None:
        return apply, tree

    def in_units(params: Any, x: Array, *context: Array) -> Array:
        calculus = calculus_at(x)
        found = apply(params, coordinates.of(calculus, x), *context)
        return (coordinates.energy_of if frame.energy else coordinates.score_of)(calculus, x, found)

    return in_units, tree


def refuse_into(model: UserModel, into: Any) -> None:
    """Refuse to change in place what cannot be changed.

    Raises:
        ModelError: See above.
    """
    if into is not None:
        raise ModelError(f"the parameters of a {model.kind} cannot be changed in place; use what native() returns")
