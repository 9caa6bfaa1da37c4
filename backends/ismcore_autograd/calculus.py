"""`ismcore.calculus.Calculus` on a caller's own arrays: their dtype, their trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import autograd
import autograd.numpy as anp
import numpy as np
from autograd.tracer import isbox

from ismcore.calculus import Calculus, ScoreFn
from ismcore.errors import ModelError, OptionError, SamplesError
from ismcore.ops import Array, Ops
from ismcore_autograd.ops import AutogradOps

__all__ = ["ArrayCalculus", "checked_samples", "checked_score", "is_array"]


class ArrayCalculus(Calculus):
    """See `ismcore.calculus.Calculus`; nothing is seeded, and no setting of the process changes.

    Args:
        like: Samples, (n, d), whose dtype all constants take.
        chunk_size: Most pairs of a row and a direction that the Jacobian's diagonal differentiates at once; all if None.

    Raises:
        OptionError: `chunk_size` is no whole number from 1.
    """

    ops: Ops = AutogradOps()

    def __init__(self, like: Array, chunk_size: int | None = None) -> None:
        if chunk_size is not None and (isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1):
            raise OptionError(f"chunk_size must be a whole number from 1, or None for all at once, not {chunk_size!r}")
        self.like = like
        self.dtype = str(like.dtype)
        self.chunk_size = chunk_size

    def asarray(self, array: np.ndarray, /) -> Array:
        """See `Calculus.asarray`; a traced array is taken too, and keeps its place in the caller's trace."""
        return array if isbox(array) else np.array(array, dtype=self.dtype)

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


def is_array(value: object) -> bool:
    """Whether it is an array of NumPy or a traced one."""
    return isbox(value) or isinstance(value, np.ndarray)


def checked_samples(x: Any) -> Array:
    """The samples, as they are.

    Raises:
        SamplesError: They are no floating-point array (n, d) of at least one row and column.
    """
    if not is_array(x) or x.ndim != 2 or 0 in x.shape or x.dtype.kind != "f":
        came = f"{x.dtype} of shape {tuple(x.shape)}" if is_array(x) else type(x).__name__
        raise SamplesError(f"x must be a floating-point array of shape (n, d), not {came}; one column is x[:, None]")
    return x


def checked_score(score_fn: Any) -> ScoreFn:
    """The score function, which refuses to return another shape than it was given.

    Raises:
        ModelError: It does, or is no function.
    """
    if not callable(score_fn):
        raise ModelError(f"score_fn must be a function (n, d) -> (n, d), not {score_fn!r}")

    def checked(points: Array) -> Array:
        psi = score_fn(points)
        if not is_array(psi) or psi.shape != points.shape:
            came = f"shape {tuple(psi.shape)}" if is_array(psi) else type(psi).__name__
            raise ModelError(f"score_fn must return the score of each row, of shape {tuple(points.shape)}, not {came}")
        return psi

    return checked
