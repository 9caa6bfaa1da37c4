"""`ismcore.calculus.Calculus` on a caller's own arrays: their dtype, their trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import autograd
import autograd.numpy as anp
import numpy as np
from autograd.extend import notrace_primitive
from autograd.tracer import isbox

from ismcore import Hutchinson
from ismcore.calculus import ScoreFn
from ismcore.errors import SamplesError
from ismcore.losses import CallerCalculus
from ismcore.ops import Array, Ops
from ismcore_autograd.ops import AutogradOps

__all__ = ["ArrayCalculus", "Divergence", "Score", "Weight", "calculus_at"]

Score = Callable[[Array], Array]
Weight = float | Sequence[float] | Array
Divergence = str | Hutchinson | Array

_constant: Callable[[Array], Array] = notrace_primitive(lambda value: value)


class ArrayCalculus(CallerCalculus[Array]):
    """See `ismcore.losses.CallerCalculus`; nothing is seeded, and no setting of the process changes."""

    ops: Ops = AutogradOps()
    source_needed = "generator=np.random.default_rng(...)"

    @staticmethod
    def is_own(value: object) -> bool:
        """See `CallerCalculus.is_own`."""
        return bool(isbox(value))

    def asarray(self, array: np.ndarray, /) -> Array:
        """See `Calculus.asarray`; a traced array is taken too, and keeps its place in the caller's trace."""
        return array if isbox(array) else np.array(array, dtype=self.dtype)

    def normal(self, shape: tuple[int, ...], /) -> Array:
        """See `CallerCalculus.normal`."""
        return self.source.standard_normal(shape).astype(self.like.dtype)

    def signs(self, shape: tuple[int, ...], /) -> Array:
        """See `CallerCalculus.signs`."""
        return (2.0 * self.source.integers(0, 2, shape, dtype=np.int8) - 1.0).astype(self.like.dtype)

    def norm(self, v: Array, /) -> Array:
        """See `CallerCalculus.norm`."""
        return np.linalg.norm(v, axis=-1, keepdims=True)

    def compute(self, quantity: Callable[[], Array], /) -> Array:
        """See `CallerCalculus.compute`."""
        return quantity() if self.differentiable else _constant(quantity())

    def vjp(self, f: ScoreFn, x: Array, /) -> tuple[Array, Callable[[Array], Array]]:
        """See `Calculus.vjp`."""
        pull, psi = autograd.make_vjp(f)(x)
        return psi, pull

    def jacobian_diagonal(self, f: ScoreFn, x: Array, /) -> tuple[Array, Array]:
        """See `Calculus.jacobian_diagonal`; one direction after the other, `chunk_size` rows at once."""
        n = x.shape[0]
        if self.chunk_size is None or self.chunk_size >= n:
            return self._columns(f, x)
        blocks = [self._columns(f, x[top : top + self.chunk_size]) for top in range(0, n, self.chunk_size)]
        return anp.concatenate([psi for psi, _ in blocks]), anp.concatenate([diagonal for _, diagonal in blocks])

    def _columns(self, f: ScoreFn, x: Array) -> tuple[Array, Array]:
        psi, pull = self.vjp(f, x)
        return psi, anp.stack([_column(pull(_unit(i, x)), i) for i in range(x.shape[1])], axis=1)


def _column(product: Array, i: int) -> Array:
    # a view would keep the whole product alive
    return 1.0 * product[:, i]


def _unit(i: int, x: Array) -> np.ndarray:
    unit = np.zeros(x.shape[1], dtype=x.dtype)
    unit[i] = 1.0
    return np.broadcast_to(unit, x.shape)


def calculus_at(
    x: Any, generator: np.random.Generator | None = None, differentiable: bool = True, chunk_size: int | None = None
) -> ArrayCalculus:
    """The calculus of the losses and derivatives at a caller's samples, which are taken as they are.

    Raises:
        SamplesError: They are no floating-point array (n, d) of at least one row and column.
    """
    if not ArrayCalculus.is_array(x) or x.ndim != 2 or 0 in x.shape or x.dtype.kind != "f":
        came = f"{x.dtype} of shape {tuple(x.shape)}" if ArrayCalculus.is_array(x) else type(x).__name__
        raise SamplesError(f"x must be a floating-point array of shape (n, d), not {came}; one column is x[:, None]")
    return ArrayCalculus(x, generator, differentiable, chunk_size)
