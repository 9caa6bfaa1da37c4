"""Elementwise, increasing, smooth transforms of columns, t = f(u), with the derivatives that scores need.

If t = f(u) has the score psi(t), then u has the score f'(u) psi(f(u)) + (log f')'(u). Each is written once over `ismcore.ops`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from ismcore.ops import Array, Ops

__all__ = ["TRANSFORMS", "Asinh", "Transform"]


class Transform(ABC):
    """An increasing function f of each number for itself; arrays of any shape, without a unit."""

    @abstractmethod
    def forward(self, ops: Ops, u: Array) -> Array:
        """f(u)."""

    @abstractmethod
    def log_derivative(self, ops: Ops, u: Array) -> Array:
        """Log f'(u)."""

    @abstractmethod
    def slope(self, ops: Ops, u: Array) -> Array:
        """(log f')'(u)."""

    @abstractmethod
    def curvature(self, ops: Ops, u: Array) -> Array:
        """(log f')''(u)."""

    @abstractmethod
    def inverse(self, t: np.ndarray) -> np.ndarray:
        """The u with f(u) = t, in NumPy."""


class Asinh(Transform):
    """f(u) = asinh(u) = log(u + sqrt(1 + u^2)): nearly u up to 1, and sign(u) log(2 |u|) far out. For heavy tails.

    With h = sqrt(1 + u^2): log f' = -log h, (log f')' = -u / h^2, (log f')'' = (u^2 - 1) / h^4. No square overflows.
    """

    def forward(self, ops: Ops, u: Array) -> Array:
        """See `Transform.forward`."""
        size = _size(ops, u)
        found = ops.log(size + _hypotenuse(ops, u))
        return ops.where(u < 0.0, -found, found)

    def log_derivative(self, ops: Ops, u: Array) -> Array:
        """See `Transform.log_derivative`."""
        return -ops.log(_hypotenuse(ops, u))

    def slope(self, ops: Ops, u: Array) -> Array:
        """See `Transform.slope`."""
        h = _hypotenuse(ops, u)
        return -(u / h) / h

    def curvature(self, ops: Ops, u: Array) -> Array:
        """See `Transform.curvature`."""
        h = _hypotenuse(ops, u)
        return (u / h - 1.0 / h) * (u / h + 1.0 / h) / h / h

    def inverse(self, t: np.ndarray) -> np.ndarray:
        """See `Transform.inverse`."""
        return np.asarray(np.sinh(t))


def _size(ops: Ops, u: Array) -> Array:
    """|u|, with the derivative 1 at 0, where that of `ops.abs` is 0."""
    return ops.where(u < 0.0, -u, u)


def _hypotenuse(ops: Ops, u: Array) -> Array:
    """H = sqrt(1 + u^2) as m sqrt(1 + q^2), m = max(1, |u|) and q = min(1, |u|) / m."""
    size = _size(ops, u)
    m = ops.where(size > 1.0, size, 1.0)
    q = ops.where(size > 1.0, 1.0 / m, size)
    return m * ops.sqrt(1.0 + q * q)


TRANSFORMS: dict[str, Transform] = {"asinh": Asinh()}
"""By the names that `ismcore.fit(transform=...)` takes."""
