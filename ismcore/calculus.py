"""Differentiation as the core sees it: what a backend's derivatives must do, and what follows from them.

A score function here is batched, `f(x)` of shape (n, d) for x of shape (n, d), and its rows are independent: row i of f(x)
depends on row i of x alone. Then one product of all rows' Jacobians with one direction is a single call.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import numpy as np

from ismcore.ops import Array, NumpyOps, Ops, completed

__all__ = ["Calculus", "NumpyCalculus", "ScoreFn", "Tree"]

Tree = TypeVar("Tree", bound=Mapping[str, Any])
"""Arrays by name: parameters, or `ismcore.objectives.LossInputs`."""

ScoreFn = Callable[..., Array]
"""A batched function of x, (n, d) -> (n, d) or (n,), rows independent; a second argument is the context, (n, c)."""


class _Completed:
    """The attribute `ops` of a class, with what is optional: of the class as it was given, of an instance completed, once."""

    def __init__(self, given: Any) -> None:
        self.given = given

    def __get__(self, calculus: Any, owner: type) -> Any:
        if calculus is None:
            return self.given
        calculus.__dict__["ops"] = found = completed(self.given, calculus.constant)
        return found


class Calculus(ABC):
    """Operations and derivatives of one framework, for code that is to be differentiated again.

    A subclass gives `ops`, `asarray`, and at least one of `jvp` and `vjp`; everything else follows. Both must nest: their
    results are differentiable by whatever differentiates around them. `ops` is a class attribute or a
    property, and may leave out what is optional: it is completed, see `ismcore.ops`.
    """

    ops: Ops
    dtype: str
    device: str = "cpu"
    """Where its arrays are."""
    block_bytes: int = 4 * 2**20
    """What the closed formulas keep of a block of rows, between forward pass and pullback, takes about this much: it then
    stays in the cache. A device without such a cache wants larger blocks."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        given = cls.__dict__.get("ops")
        if isinstance(given, property):
            cls.ops = property(lambda self: completed(given.__get__(self), self.constant))  # type: ignore[assignment]
        elif given is not None:
            cls.ops = _Completed(given)  # type: ignore[assignment]

    def constant(self, x: Array, /) -> Array:
        """The value of x as a constant, where arrays hold values while they are differentiated; see `Ops.stop_gradient`."""
        raise NotImplementedError(f"{type(self).__name__} offers no stop_gradient")

    @abstractmethod
    def asarray(self, array: np.ndarray, /) -> Array:
        """An array of the framework, in the working dtype and on the device, which shares no memory with the argument."""

    def asarrays(self, tree: Tree) -> Tree:
        """`asarray` of every array, by name."""
        return cast(Tree, {name: self.asarray(value) for name, value in tree.items()})

    def at(self, x: Array, /) -> "Calculus":
        """This calculus in the dtype of an array of the framework, where it has that dtype."""
        return self

    def jvp(self, f: ScoreFn, x: Array, v: Array, /) -> tuple[Array, Array]:
        """f(x) and the product of each row's Jacobian with that row of v: (f(x), J v), both (n, d)."""
        raise NotImplementedError(f"{type(self).__name__} offers no jvp")

    def vjp(self, f: ScoreFn, x: Array, /) -> tuple[Array, Callable[[Array], Array]]:
        """f(x) and the pullback v -> v^T J, row by row, both (n, d). The pullback may be called many times."""
        raise NotImplementedError(f"{type(self).__name__} offers no vjp")

    def units(self, x: Array, /) -> list[Array]:
        """The d unit directions at every row of x: d arrays (n, d)."""
        return [self.ops.broadcast_to(self.asarray(row), tuple(x.shape)) for row in np.eye(x.shape[1])]

    def ones(self, values: Array, /) -> Array:
        """Ones in the shape of the values."""
        return self.ops.broadcast_to(self.asarray(np.ones(())), tuple(values.shape))

    def jacobian_diagonal(self, f: ScoreFn, x: Array, /) -> tuple[Array, Array]:
        """Score and the diagonal of its Jacobian: psi_i(x_n) and d psi_i / d x_i (x_n), both (n, d).

        Exact for every d, by d products with the unit directions: about d times the cost of f(x). The derivative of the
        summed outputs would be the column sums of the Jacobian, which equal the diagonal for d = 1 only.
        """
        d = x.shape[1]
        units = self.units(x)
        if self.offers("vjp") and (d > 1 or not self.offers("jvp")):
            psi, pull = self.vjp(f, x)
            rows = [pull(unit)[:, i] for i, unit in enumerate(units)]
            return psi, self.ops.stack(rows, axis=1)
        columns = []
        for i, unit in enumerate(units):
            psi, column = self.jvp(f, x, unit)
            columns.append(column[:, i])
        return psi, self.ops.stack(columns, axis=1)

    def jacobian(self, f: ScoreFn, x: Array, /) -> Array:
        """Jacobian of each row, [output, input]: d psi_i / d x_j (x_n), (n, d, d), by d products with the unit directions."""
        units = self.units(x)
        if self.offers("vjp"):
            pull = self.vjp(f, x)[1]
            return self.ops.stack([pull(unit) for unit in units], axis=1)
        return self.ops.stack([self.jvp(f, x, unit)[1] for unit in units], axis=2)

    def gradient(self, u: ScoreFn, x: Array, /) -> Array:
        """Gradient of each row's u, (n,), in that row of x: (n, d). Nests like the products do."""
        if self.offers("vjp"):
            values, pull = self.vjp(u, x)
            return pull(self.ones(values))
        return self.ops.stack([self.jvp(u, x, unit)[1] for unit in self.units(x)], axis=1)

    def map_rows(self, f: Callable[..., Array], /) -> Callable[..., Array]:
        """A function of batches made from one of single rows: f(tree, *row) -> (tree, *rows), the results stacked, (n, ...).

        Each row is (d,), or (c,) of a context. By default f is called n times.
        """

        def batched(tree: Any, *rows: Array) -> Array:
            return self.ops.stack([f(tree, *(each[i] for each in rows)) for i in range(rows[0].shape[0])])

        return batched

    def sum_over_rows(self, f: Callable[[dict[str, Any]], dict[str, Array]], rows: dict[str, Array], size: int) -> Any:
        """Sum of f over about equal blocks of at most `size` rows, array by array; every array in `rows` has the rows first."""
        n = next(iter(rows.values())).shape[0]
        size = -(-n // -(-n // size))
        total: dict[str, Array] | None = None
        for start in range(0, n, size):
            part = f({name: value[start : start + size] for name, value in rows.items()} if size < n else rows)
            total = part if total is None else {name: total[name] + value for name, value in part.items()}
        return total

    def offers(self, product: str, /) -> bool:
        """Whether the subclass gives "jvp" or "vjp"."""
        return getattr(type(self), product) is not getattr(Calculus, product)


class NumpyCalculus(Calculus):
    """NumPy without derivatives: for scores and samples where no framework is needed."""

    ops: Ops = NumpyOps()

    def __init__(self, dtype: str = "float64") -> None:
        self.dtype = dtype

    def asarray(self, array: np.ndarray, /) -> np.ndarray:
        """See `Calculus.asarray`."""
        return np.array(array, dtype=self.dtype)
