"""`ismcore.calculus.Calculus` on a caller's own arrays: their dtype, their device, their trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ismcore import Hutchinson
from ismcore.calculus import ScoreFn
from ismcore.errors import SamplesError
from ismcore.losses import CallerCalculus
from ismcore.ops import Array, Ops
from ismcore_jax.ops import JaxOps

__all__ = ["ArrayCalculus", "Divergence", "Score", "Weight", "calculus_at", "map_rows"]

Score = Callable[[jax.Array], jax.Array]
Weight = float | Sequence[float] | jax.Array
Divergence = str | Hutchinson | jax.Array

UNROLLED = 16
"""Up to this many directions the products are unrolled in the program, which XLA runs fastest; beyond, they are a loop."""


def map_rows(f: Callable[..., Array]) -> Callable[..., Array]:
    """See `ismcore.calculus.Calculus.map_rows`."""
    return lambda tree, *rows: jax.vmap(lambda *row: f(tree, *row))(*rows)


class ArrayCalculus(CallerCalculus[jax.Array]):
    """See `ismcore.losses.CallerCalculus`; nothing is compiled, moved or seeded, and no setting of the process changes."""

    ops: Ops = JaxOps()  # type: ignore[assignment]  # the framework's signatures are overloaded
    row_mapping = "jax.vmap"
    source_needed = "key=jax.random.key(...), a new one for each step"

    @staticmethod
    def is_own(value: object) -> bool:
        """See `CallerCalculus.is_own`."""
        return isinstance(value, jax.Array)

    def asarray(self, array: np.ndarray, /) -> jax.Array:
        """See `Calculus.asarray`; an array of JAX's is taken too, and keeps its place in the caller's trace."""
        return jnp.asarray(array, dtype=self.like.dtype)

    def normal(self, shape: tuple[int, ...], /) -> jax.Array:
        """See `CallerCalculus.normal`."""
        return jax.random.normal(self.source, shape, self.like.dtype)

    def signs(self, shape: tuple[int, ...], /) -> jax.Array:
        """See `CallerCalculus.signs`."""
        signs: jax.Array = jax.random.rademacher(self.source, shape, self.like.dtype)
        return signs

    def norm(self, v: Array, /) -> Array:
        """See `CallerCalculus.norm`."""
        return jnp.linalg.norm(v, axis=-1, keepdims=True)

    def compute(self, quantity: Callable[[], Array], /) -> jax.Array:
        """See `CallerCalculus.compute`."""
        value: jax.Array = quantity()
        return value if self.differentiable else jax.lax.stop_gradient(value)

    def vjp(self, f: ScoreFn, x: Array, /) -> tuple[Array, Callable[[Array], Array]]:
        """See `Calculus.vjp`."""
        psi, pull = jax.vjp(f, x)
        return psi, lambda v: pull(v)[0]

    def map_rows(self, f: Callable[..., Array], /) -> Callable[..., Array]:
        """See `Calculus.map_rows`."""
        return map_rows(f)

    def jacobian_diagonal(self, f: ScoreFn, x: Array, /) -> tuple[Array, Array]:
        """See `Calculus.jacobian_diagonal`; in blocks of rows and directions if there is a `chunk_size`."""
        n, d = x.shape
        if self.chunk_size is None or self.chunk_size >= n * d:
            return self._columns(f, x)
        # each block computes the score anew, so a few directions share one; beyond that, many rows make fast products
        rows = max(1, min(n, self.chunk_size // min(d, 8)))
        count = n // rows
        whole = x[: count * rows].reshape(count, rows, d)
        psi, diagonal = jax.lax.map(lambda points: self._block(f, points), whole)
        psi, diagonal = psi.reshape(-1, d), diagonal.reshape(-1, d)
        if count * rows == n:
            return psi, diagonal
        last_psi, last_diagonal = self._block(f, x[count * rows :])
        return jnp.concatenate([psi, last_psi]), jnp.concatenate([diagonal, last_diagonal])

    def _columns(self, f: ScoreFn, x: Array) -> tuple[Array, Array]:
        """Score and diagonal, both (n, d), one direction after the other."""
        psi, pull = self.vjp(f, x)
        d = x.shape[1]
        if d <= UNROLLED:
            return psi, jnp.stack([pull(_unit(i, x))[:, i] for i in range(d)], axis=1)
        return psi, jax.lax.map(lambda i: pull(_unit(i, x))[:, i], jnp.arange(d)).T

    def _block(self, f: ScoreFn, x: Array) -> tuple[Array, Array]:
        """The same in blocks of directions, each of which forgets what it computed, and makes it anew when differentiated."""
        rows, d = x.shape
        size = max(1, min(d, (self.chunk_size or d) // rows))

        @jax.checkpoint
        def columns(points: Array, start: Array) -> Array:
            _, pull = self.vjp(f, points)
            # beyond the last direction the unit vector is zero, and so is its product
            return jax.vmap(lambda i: jnp.sum(pull(_unit(i, points)) * _unit(i, points), axis=1))(start + jnp.arange(size))

        found = jax.lax.map(lambda start: columns(x, start), jnp.arange(0, d, size))
        return jax.checkpoint(f)(x), found.reshape(-1, rows)[:d].T


def _unit(i: Any, x: jax.Array) -> jax.Array:
    return jnp.broadcast_to((jnp.arange(x.shape[1]) == i).astype(x.dtype), x.shape)


def calculus_at(
    x: Any, key: jax.Array | None = None, differentiable: bool = True, chunk_size: int | None = None
) -> ArrayCalculus:
    """The calculus of the losses and derivatives at a caller's samples, which are taken as they are.

    Raises:
        SamplesError: They are no floating-point array (n, d) of at least one row and column.
    """
    if not ArrayCalculus.is_array(x) or x.ndim != 2 or 0 in x.shape or not jnp.issubdtype(x.dtype, jnp.floating):
        came = f"{x.dtype} of shape {tuple(x.shape)}" if ArrayCalculus.is_array(x) else type(x).__name__
        raise SamplesError(f"x must be a floating-point array of shape (n, d), not {came}; one column is x[:, None]")
    return ArrayCalculus(jnp.asarray(x), key, differentiable, chunk_size)
