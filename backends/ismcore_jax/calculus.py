"""`ismcore.calculus.Calculus` on a caller's own arrays: their dtype, their device, their trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ismcore import Hutchinson
from ismcore.calculus import ScoreFn
from ismcore.errors import IsmError, ModelError, SamplesError
from ismcore.losses import CallerCalculus
from ismcore.ops import Array, Ops
from ismcore_jax.ops import JaxOps
from ismcore_jax.reasons import reason

__all__ = ["ArrayCalculus", "Divergence", "Score", "Weight", "calculus_at", "map_rows", "vjp"]

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
        try:
            value: jax.Array = quantity()
        except Exception as error:  # whatever JAX raises of a function that it traces
            words = None if isinstance(error, IsmError) else reason(error)
            if words is None:
                raise
            raise ModelError(f"score_fn cannot be differentiated: {words}") from error
        return value if self.differentiable else jax.lax.stop_gradient(value)

    def vjp(self, f: ScoreFn, x: Array, /) -> tuple[Array, Callable[[Array], Array]]:
        """See `Calculus.vjp`."""
        return vjp(f, x)

    def as_samples(self, psi: Array, /) -> Array:
        """See `CallerCalculus.as_samples`."""
        return psi.astype(self.like.dtype)

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
            return psi, jnp.stack([pull(_unit(i, psi))[:, i] for i in range(d)], axis=1)
        return psi, jax.lax.map(lambda i: pull(_unit(i, psi))[:, i], jnp.arange(d)).T

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


def vjp(f: ScoreFn, x: Array, /) -> tuple[Array, Callable[[Array], Array]]:
    """f(x) and the pullback v -> v^T J: see `ismcore.calculus.Calculus.vjp`.

    JAX takes a cotangent only in the dtype of f(x), and under `jax.shard_map` only where it varies over the same axes of the
    mesh; a sum with zeros made of f(x) does so. A point that is the same on all devices would be given the sum of all devices'
    products: it is made one of each device's own.
    """
    psi, pull = jax.vjp(f, x)
    if _axes(psi) - _axes(x):
        psi, pull = jax.vjp(f, _varying(x, _axes(psi)))

    def product(v: Array) -> Array:
        if _axes(v) - _axes(psi):
            return vjp(f, _varying(x, _axes(psi) | _axes(v)))[1](v)
        return pull((v + jnp.zeros_like(psi)).astype(psi.dtype))[0]

    return psi, product


def _axes(array: Array) -> frozenset[str]:
    """Axes of the mesh that an array varies over inside of `jax.shard_map`."""
    kind = jax.typeof(array)
    return frozenset(getattr(getattr(kind, "manual_axis_type", None), "varying", getattr(kind, "vma", ())))


def _varying(x: Array, axes: frozenset[str]) -> Array:
    new = tuple(sorted(axes - _axes(x)))
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(x, new, to="varying")
    return getattr(jax.lax, "pvary")(x, new)  # noqa: B009  (its name before 0.8, which newer stubs do not have)


def _unit(i: Any, like: jax.Array) -> jax.Array:
    return jnp.broadcast_to((jnp.arange(like.shape[1]) == i).astype(like.dtype), like.shape)


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
