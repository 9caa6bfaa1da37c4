"""Elementwise, increasing, smooth transforms of columns, t = f(u), with the derivatives that scores need.

If t = f(u) has the score psi(t), then u has the score f'(u) psi(f(u)) + (log f')'(u). Each is written once over `ismcore.ops`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from ismcore.errors import OptionError
from ismcore.ops import Array, Ops

__all__ = [
    "TRANSFORMS",
    "Asinh",
    "ByColumn",
    "Log",
    "Logit",
    "Transform",
    "Transforms",
    "as_transforms",
    "check_transforms",
    "find",
    "in_words",
]


class Transform(ABC):
    """An increasing function f of each number for itself; arrays of any shape.

    Attributes:
        in_quartiles: Whether u is (x - median) / (interquartile range / 1.349), without a unit, as for "asinh"; else it is x.
        lower: f is of numbers above this.
        upper: f is of numbers below this.

    Example:
        >>> class Cubic(ismcore.Transform):  # f(u) = u + u^3
        ...     def forward(self, ops, u):
        ...         return u + u * u * u
        ...     def log_derivative(self, ops, u):
        ...         return ops.log(1.0 + 3.0 * u * u)
        ...     def slope(self, ops, u):
        ...         return 6.0 * u / (1.0 + 3.0 * u * u)
        ...     def curvature(self, ops, u):
        ...         return (6.0 - 18.0 * u * u) / (1.0 + 3.0 * u * u) / (1.0 + 3.0 * u * u)
        ...     def inverse(self, t):
        ...         root = 2.0 / np.sqrt(3.0)
        ...         return root * np.sinh(np.arcsinh(3.0 * t / root) / 3.0)
        >>> x = np.random.default_rng(0).normal(size=500)
        >>> result = ismcore.fit(x, transform=Cubic(), model=ismcore.Affine(), backend="autograd", epochs=2)
        >>> bool(np.allclose(result.coordinates.inverse(result.coordinates(x[:, None]))[:, 0], x))
        True
    """

    in_quartiles: bool = False
    lower: float = -math.inf
    upper: float = math.inf

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


Transforms = str | Transform | tuple[str | Transform | None, ...] | None
"""One transform of all columns, by name or itself, or one for each, None for none."""


@dataclass(frozen=True)
class Asinh(Transform):
    """f(u) = asinh(u) = log(u + sqrt(1 + u^2)): nearly u up to 1, and sign(u) log(2 |u|) far out. For heavy tails.

    With h = sqrt(1 + u^2): log f' = -log h, (log f')' = -u / h^2, (log f')'' = (u^2 - 1) / h^4. No square overflows.
    """

    in_quartiles = True

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


@dataclass(frozen=True)
class Log(Transform):
    """f(u) = log(u - lower), for positive columns: that of a lognormal law is normal.

    With a = u - lower: log f' = -log a, (log f')' = -1 / a, (log f')'' = 1 / a^2.

    The density of t is p(u) a, which vanishes at the edge whatever p does. The score that comes back divides by a: it is good
    where a density falls to 0 at its edge, and away from one where it does not.

    Args:
        lower: The end of the half line, in [x].

    Raises:
        OptionError: An end that is not finite.

    Example:
        >>> x = np.exp(np.random.default_rng(0).normal(size=1000))
        >>> result = ismcore.fit(x, transform="log", backend="autograd", model=ismcore.Affine(), epochs=20)
        >>> np.round(result.score([1.0]))                  # -(1 + log x) / x
        array([[-1.]])
    """

    lower: float = 0.0

    def __post_init__(self) -> None:
        _check_ends(self)

    def forward(self, ops: Ops, u: Array) -> Array:
        """See `Transform.forward`."""
        return ops.log(u - self.lower)

    def log_derivative(self, ops: Ops, u: Array) -> Array:
        """See `Transform.log_derivative`."""
        return -ops.log(u - self.lower)

    def slope(self, ops: Ops, u: Array) -> Array:
        """See `Transform.slope`."""
        return -1.0 / (u - self.lower)

    def curvature(self, ops: Ops, u: Array) -> Array:
        """See `Transform.curvature`."""
        return 1.0 / (u - self.lower) / (u - self.lower)

    def inverse(self, t: np.ndarray) -> np.ndarray:
        """See `Transform.inverse`."""
        with np.errstate(over="ignore"):
            return _inside(self, self.lower + np.exp(t))


@dataclass(frozen=True)
class Logit(Transform):
    """f(u) = log((u - lower) / (upper - u)), for columns between two ends.

    With a = u - lower, b = upper - u: log f' = log(upper - lower) - log a - log b, (log f')' = 1 / b - 1 / a, (log f')'' =
    1 / a^2 + 1 / b^2. See `Log` for what this does at the ends.

    Args:
        lower: The lower end, in [x].
        upper: The upper end, in [x].

    Raises:
        OptionError: Ends that are not finite, or the lower one not below the upper one.
    """

    lower: float = 0.0
    upper: float = 1.0

    def __post_init__(self) -> None:
        _check_ends(self)

    def forward(self, ops: Ops, u: Array) -> Array:
        """See `Transform.forward`."""
        return ops.log(u - self.lower) - ops.log(self.upper - u)

    def log_derivative(self, ops: Ops, u: Array) -> Array:
        """See `Transform.log_derivative`."""
        return math.log(self.upper - self.lower) - ops.log(u - self.lower) - ops.log(self.upper - u)

    def slope(self, ops: Ops, u: Array) -> Array:
        """See `Transform.slope`."""
        return 1.0 / (self.upper - u) - 1.0 / (u - self.lower)

    def curvature(self, ops: Ops, u: Array) -> Array:
        """See `Transform.curvature`."""
        a, b = u - self.lower, self.upper - u
        return 1.0 / a / a + 1.0 / b / b

    def inverse(self, t: np.ndarray) -> np.ndarray:
        """See `Transform.inverse`; from the nearer end."""
        tail = np.exp(-np.abs(t))
        part = (self.upper - self.lower) * (tail / (1.0 + tail))
        return _inside(self, np.where(t < 0.0, self.lower + part, self.upper - part))


def _check_ends(f: Transform) -> None:
    ends = (f.lower, f.upper)
    good = all(isinstance(end, int | float | np.number) and not math.isnan(end) for end in ends) and ends[0] < ends[1]
    if not (good and math.isfinite(ends[0]) and (isinstance(f, Log) or math.isfinite(ends[1]))):
        raise OptionError(f"ends of a transform must be finite numbers, the lower one below the upper one: {f!r:.80} cannot be")
    for name in vars(f):
        object.__setattr__(f, name, float(getattr(f, name)))  # equal transforms are equal in a file too


def _inside(f: Transform, u: np.ndarray) -> np.ndarray:
    """The numbers u, those that are rounded to an end or beyond moved to the next number inside."""
    return np.asarray(np.clip(u, np.nextafter(f.lower, np.inf), np.nextafter(f.upper, -np.inf)))


class _Identity(Transform):
    """f(u) = u."""

    def forward(self, ops: Ops, u: Array) -> Array:
        return u

    def log_derivative(self, ops: Ops, u: Array) -> Array:
        return 0.0 * u

    def slope(self, ops: Ops, u: Array) -> Array:
        return 0.0 * u

    def curvature(self, ops: Ops, u: Array) -> Array:
        return 0.0 * u

    def inverse(self, t: np.ndarray) -> np.ndarray:
        return t


class ByColumn(Transform):
    """A transform for each column, of arrays whose last axis is that of columns.

    Args:
        each: f_0, ..., f_(d-1).
    """

    def __init__(self, each: Sequence[Transform]) -> None:
        self._runs: list[tuple[Transform, slice]] = []
        start = 0
        for f, run in groupby(each):
            stop = start + len(list(run))
            self._runs.append((f, slice(start, stop)))
            start = stop

    def _of(self, method: str, ops: Ops, u: Array) -> Array:
        axis = len(u.shape) - 1
        along = (slice(None),) * axis
        return ops.concat([getattr(f, method)(ops, u[(*along, columns)]) for f, columns in self._runs], axis=axis)

    def forward(self, ops: Ops, u: Array) -> Array:
        """See `Transform.forward`."""
        return self._of("forward", ops, u)

    def log_derivative(self, ops: Ops, u: Array) -> Array:
        """See `Transform.log_derivative`."""
        return self._of("log_derivative", ops, u)

    def slope(self, ops: Ops, u: Array) -> Array:
        """See `Transform.slope`."""
        return self._of("slope", ops, u)

    def curvature(self, ops: Ops, u: Array) -> Array:
        """See `Transform.curvature`."""
        return self._of("curvature", ops, u)

    def inverse(self, t: np.ndarray) -> np.ndarray:
        """See `Transform.inverse`."""
        return np.concatenate([f.inverse(t[..., columns]) for f, columns in self._runs], axis=-1)


_IDENTITY = _Identity()
TRANSFORMS: dict[str, Transform] = {"asinh": Asinh(), "log": Log(), "logit": Logit()}
"""By the names that `ismcore.fit(transform=...)` takes."""


def find(transform: str | Transform | None) -> Transform:
    """The transform of that name, or itself; the identity for None."""
    if transform is None:
        return _IDENTITY
    return TRANSFORMS[transform] if isinstance(transform, str) else transform


def as_transforms(given: Any, d: int, names: tuple[str, ...] | None = None) -> Transforms:
    """What `fit(transform=...)` was given, as one transform for all columns, or a tuple of one for each.

    Args:
        given: A name, a transform, one of these or None for each of the d columns, or a mapping of columns, by number or name,
            to them; columns that it leaves out have none.
        d: Number of columns.
        names: Their names, (d,), if they have any.

    Raises:
        OptionError: An unknown name or column, or another number of columns.

    Example:
        >>> as_transforms({1: "log"}, 3)
        (None, 'log', None)
    """
    if isinstance(given, Mapping):
        each: list[Any] = [None] * d
        for column, f in given.items():
            each[_number(column, d, names)] = f
        given = tuple(each)
    elif isinstance(given, Iterable) and not isinstance(given, str):
        given = tuple(given)
    check_transforms(given, d)
    found: Transforms = given[0] if isinstance(given, tuple) and len(set(given)) == 1 else given
    return found


def _number(column: Any, d: int, names: tuple[str, ...] | None) -> int:
    """The number of a column that is given by number or name."""
    if names is not None and column in names:
        return names.index(column)
    if isinstance(column, int | np.integer) and not isinstance(column, bool) and 0 <= column < d:
        return int(column)
    known = f"0 to {d - 1}" + ("" if names is None else f", or {', '.join(map(repr, names[:20]))}")
    raise OptionError(f"transform has the column {column!r:.80}, and the samples have {known}")


def check_transforms(given: Any, d: int | None = None) -> None:
    """Refuse what is no `Transforms`, of d columns where their number is known.

    Raises:
        OptionError: See above; the message lists the names that there are.
    """
    each = given if isinstance(given, tuple) else (given,)
    for f in each:
        if f is not None and not isinstance(f, Transform) and not (isinstance(f, str) and f in TRANSFORMS):
            known = ", ".join(map(repr, TRANSFORMS))
            raise OptionError(f"transform must be None, {known} or an ismcore.Transform, or these by column, not {f!r:.80}")
    if isinstance(given, tuple) and (not given or len(given) != (len(given) if d is None else d)):
        raise OptionError(f"transform must have one entry for each of the {d} columns, not {len(given)}")


def in_words(transform: Transforms) -> str:
    """As a user would write it, such as {0: 'log', 2: 'asinh'}."""
    if isinstance(transform, tuple):
        return repr({column: f for column, f in enumerate(transform) if f is not None})
    return repr(transform)
