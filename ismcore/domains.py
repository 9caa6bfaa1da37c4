"""Domains of samples that end at an edge, and the weight that vanishes there.

Implicit score matching integrates by parts, which needs p psi -> 0 at the edge of the domain (Hyvarinen 2005, theorem 1). Where
a density does not fall to 0 there, a weight h that does takes its place (Hyvarinen 2007; Yu, Drton & Shojaie 2019; Liu,
Kanamori & Williams 2022): with h_i >= 0 the weight of output i, 0 at every edge that direction i meets,

    mean_n sum_i [ 1/2 h_i psi_i^2 + h_i d_i psi_i + psi_i d_i h_i ] = 1/2 E sum_i h_i (psi_i - s_i)^2 + a constant of the data.

The weight here is h = min(r, 1), with r the distance to the nearest edge in units of `width`: away from edges it is 1, where
the objective is plain implicit score matching. It is a function of the point alone, whatever coordinates it is written in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from ismcore.coordinates import Coordinates
from ismcore.errors import OptionError, SamplesError

__all__ = ["Box", "Domain", "Halfspaces", "Positive", "Reals"]

ROUNDING = 1e-9
"""A point outside by no more than this, in units of the width, is on the edge."""
NEAR = 0.1
"""An edge of the samples this near to one of the domain, in units of the width, is that one."""
End = float | tuple[float | None, ...] | None
"""Ends of the columns: one for all, or one for each, with None where there is no edge."""


Width = float | tuple[float, ...] | None
"""See `Domain`."""


class Domain(ABC):
    """Where samples can lie: a closed, convex set with flat edges.

    A domain is a frozen, hashable value of plain numbers, which a file holds field by field.

    Attributes:
        width: Distance from an edge at which the weight has risen to 1, in [x]: one number, or one for each column; None for
            a standard deviation of each column, as `measured` finds it, or where nothing is measured for 1.
        one_weight: Whether all outputs of a row have one weight; else each has its own.
    """

    width: Width
    one_weight: ClassVar[bool] = False

    @abstractmethod
    def check_columns(self, d: int) -> None:
        """Refuse samples of d columns where the domain has others.

        Raises:
            OptionError: See above.
        """

    @abstractmethod
    def nearest(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance r to the nearest edge, in units of `width`, and its gradient in x.

        Args:
            x: Points, (n, d), in [x].

        Returns:
            r, (n, d) where each column has its own, or (n, 1); infinite where there is no edge, and below 0 outside. And
            d r_i / d x_i, (n, d), in 1/[x].
        """

    @abstractmethod
    def in_coordinates(self, coordinates: Coordinates) -> Domain:
        """The same domain in coordinates z = A (x - m), A diagonal: its edges, and its width, as they are there.

        Raises:
            OptionError: The coordinates mix columns, or have a transform.
        """

    @abstractmethod
    def canonical(self) -> Domain:
        """The same for all domains that one compiled program serves: those that differ in `weights` alone."""

    @abstractmethod
    def origin(self, mean: np.ndarray) -> np.ndarray:
        """The point that is to become 0 of the coordinates to train in, (d,).

        An edge that is at 0 stays there; a column without an edge is shifted by its mean, given as `mean`, (d,).
        """

    @abstractmethod
    def covers(self, column: int, value: float, *, lower: bool) -> bool:
        """Whether the domain has an edge where a column's samples end, at the value, below or above."""

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Whether each row of x, (n, d), lies in the domain or on its edge: (n,)."""
        return np.asarray((self.nearest(x)[0] >= -ROUNDING).all(axis=1))

    def check(self, x: np.ndarray) -> None:
        """Refuse points outside.

        Raises:
            SamplesError: It names the first of the rows.
            OptionError: x has other columns than the domain.
        """
        self.check_columns(x.shape[1])
        rows = np.flatnonzero(~self.contains(x))
        if len(rows):
            point = ", ".join(f"{value:g}" for value in x[rows[0]][:5]) + ", ..." * (x.shape[1] > 5)
            raise SamplesError(
                f"{len(rows)} of {len(x)} rows lie outside of the domain {self!r}, the first is row {rows[0]}, ({point}): drop "
                "or mend them, or give a domain that holds them"
            )

    def distance(self, x: np.ndarray) -> np.ndarray:
        """The distance r of points x, (n, d), to the nearest edge, in units of `width`: see `nearest`."""
        return self.nearest(x)[0]

    def weights(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The weight h = min(r, 1), without a unit, and its derivatives.

        Args:
            x: Points, (n, d), in [x].

        Returns:
            h, (n, d), or (n, 1) for one weight a row; and d h_i / d x_i, (n, d), in 1/[x].

        Example:
            >>> h, slope = ismcore.domains.Positive(width=2.0).weights(np.array([[0.5], [3.0]]))
            >>> h[:, 0], slope[:, 0]
            (array([0.25, 1.  ]), array([0.5, 0. ]))
        """
        r, gradient = self.nearest(np.asarray(x, dtype=np.float64))
        return np.clip(r, 0.0, 1.0), np.where(r < 1.0, gradient, 0.0)

    def measured(self, x: np.ndarray, weight: np.ndarray | None = None) -> Self:
        """The domain with the standard deviation of each column of x, (n, d), as its width, where it has none yet.

        Args:
            x: Samples, in [x].
            weight: Row weights, (n,), of sum 1; None for 1/n each.

        Raises:
            SamplesError: A column is constant.
        """
        if self.width is not None:
            return self
        constant = np.flatnonzero(np.ptp(x, axis=0) == 0.0)
        if len(constant):
            raise SamplesError(
                f"column {constant[0]} of the samples is constant, so that no width follows: {self!r} needs width="
            )
        width = Coordinates.standardizing(x, weight).scale
        return replace(self, width=tuple(float(w) for w in width))  # type: ignore[type-var]  # all are dataclasses

    def _widths(self, d: int) -> np.ndarray:
        return np.ones(d) if self.width is None else np.broadcast_to(np.asarray(self.width), (d,))


class Columns(Domain):
    """Domains in which each column has ends of its own, whatever the others are, and each output a weight of its own."""

    @abstractmethod
    def ends(self, d: int) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends of the d columns, (d,) each, in [x]; infinite where there is no edge."""

    def check_columns(self, d: int) -> None:
        """See `Domain.check_columns`."""
        self.ends(d)
        _check_length(self, "width", self.width, d)

    def nearest(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Domain.nearest`."""
        (lower, upper), width = self.ends(x.shape[1]), self._widths(x.shape[1])
        below, above = x - lower, upper - x
        r = np.minimum(below, above) / width
        return r, np.where(np.isfinite(r), np.where(below <= above, 1.0, -1.0) / width, 0.0)

    def in_coordinates(self, coordinates: Coordinates) -> Box:
        """See `Domain.in_coordinates`."""
        middle, unit = _diagonal(coordinates)
        lower, upper = ((end - middle) / unit for end in self.ends(len(unit)))
        return Box(tuple(lower.tolist()), tuple(upper.tolist()), tuple((self._widths(len(unit)) / unit).tolist()))

    def canonical(self) -> Domain:
        """See `Domain.canonical`."""
        return Positive()

    def origin(self, mean: np.ndarray) -> np.ndarray:
        """See `Domain.origin`."""
        lower, upper = self.ends(len(mean))
        return np.where(np.isfinite(lower), lower, np.where(np.isfinite(upper), upper, mean))

    def covers(self, column: int, value: float, *, lower: bool) -> bool:
        """See `Domain.covers`: an end is where it is up to a tenth of a width."""
        given = [each for each in vars(self).values() if isinstance(each, tuple)]
        d = len(given[0]) if given else column + 1
        return bool(abs(self.ends(d)[0 if lower else 1][column] - value) <= NEAR * self._widths(d)[column])


@dataclass(frozen=True)
class Reals(Columns):
    """The whole space: no edge, and h = 1.

    Example:
        >>> ismcore.domains.Reals().weights(np.array([[-3.0, 2.0]]))
        (array([[1., 1.]]), array([[0., 0.]]))
    """

    width: ClassVar[Width] = None  # type: ignore[misc]  # nothing to measure

    def ends(self, d: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Columns.ends`."""
        return np.full(d, -np.inf), np.full(d, np.inf)

    def measured(self, x: np.ndarray, weight: np.ndarray | None = None) -> Reals:
        """See `Domain.measured`."""
        return self


@dataclass(frozen=True)
class Positive(Columns):
    """x_i >= 0 for every column i: h_i = min(x_i / width_i, 1).

    Args:
        width: See `Domain`.

    Raises:
        OptionError: A width that is not positive.

    Example:
        >>> ismcore.domains.Positive().contains(np.array([[1.0, 0.0], [1.0, -2.0]]))
        array([ True, False])
    """

    width: Width = None

    def __post_init__(self) -> None:
        _check_width(self)

    def ends(self, d: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Columns.ends`."""
        return np.zeros(d), np.full(d, np.inf)


@dataclass(frozen=True)
class Box(Columns):
    """lower_i <= x_i <= upper_i: h_i = min((x_i - lower_i) / width_i, (upper_i - x_i) / width_i, 1).

    Args:
        lower: One end for all columns, or one for each; None, or -infinity, where there is none.
        upper: Likewise.
        width: See `Domain`.

    Raises:
        OptionError: A lower end that is not below the upper one, or NaN; a width that is not positive.

    Example:
        >>> ismcore.domains.Box((0.0, -np.inf), 1.0)  # the second column ends above alone
        Box(lower=(0.0, None), upper=1.0, width=None)
    """

    lower: End
    upper: End
    width: Width = None

    def __post_init__(self) -> None:
        for name in ("lower", "upper"):
            object.__setattr__(self, name, _as_end(name, getattr(self, name)))
        _check_width(self)
        lengths = {len(end) for end in (self.lower, self.upper) if isinstance(end, tuple)}
        if len(lengths) > 1:
            raise OptionError(f"lower and upper ends of a box must be as many, not {self.lower!r} and {self.upper!r}")
        lower, upper = self.ends(max(lengths, default=1))
        if not (lower < upper).all():
            raise OptionError(f"each lower end of a box must be below the upper one, not {self.lower!r} and {self.upper!r}")

    def ends(self, d: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Columns.ends`."""
        _check_length(self, "lower", self.lower, d)
        _check_length(self, "upper", self.upper, d)
        return _filled(self.lower, -np.inf, d), _filled(self.upper, np.inf, d)


@dataclass(frozen=True)
class Halfspaces(Domain):
    """A x <= b, row by row: a polytope, a cone or a half space, with one weight for all outputs.

        h = min(r, 1),   r = min_k (b_k - a_k . x) / |width * a_k|

    which is the distance to the nearest face once each column is divided by its width.

    Args:
        A: Normals a_k of the faces, outwards, (k, d), in 1/[x].
        b: (k,).
        width: See `Domain`.

    Raises:
        OptionError: Other shapes, numbers that are not finite, a normal that is 0; a width that is not positive.

    Example:
        >>> triangle = ismcore.domains.Halfspaces([[-1, 0], [0, -1], [1, 1]], [0, 0, 1])
        >>> h, slope = triangle.weights(np.array([[0.1, 0.3]]))
        >>> h, slope
        (array([[0.1]]), array([[1., 0.]]))
    """

    A: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    width: Width = None
    one_weight: ClassVar[bool] = True

    def __post_init__(self) -> None:
        try:
            normals, b = np.asarray(self.A, dtype=np.float64), np.asarray(self.b, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise OptionError(f"A and b of half spaces must be numbers, (k, d) and (k,): {error}") from error
        if normals.ndim != 2 or not normals.size or b.shape != normals.shape[:1]:
            raise OptionError(f"A and b of half spaces must be (k, d) and (k,), not {normals.shape} and {b.shape}")
        if not (np.isfinite(normals).all() and np.isfinite(b).all() and normals.any(axis=1).all()):
            raise OptionError("A and b of half spaces must be finite, and no row of A can be 0")
        object.__setattr__(self, "A", tuple(tuple(row) for row in normals.tolist()))
        object.__setattr__(self, "b", tuple(b.tolist()))
        _check_width(self)

    def check_columns(self, d: int) -> None:
        """See `Domain.check_columns`."""
        if len(self.A[0]) != d:
            raise OptionError(f"the samples have {d} columns, and the half spaces are of {len(self.A[0])}")
        _check_length(self, "width", self.width, d)

    def nearest(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Domain.nearest`."""
        normals, width = np.array(self.A), self._widths(x.shape[1])
        size = np.linalg.norm(normals * width, axis=1)
        r = (np.array(self.b) - x @ normals.T) / size
        face = np.argmin(r, axis=1)
        return np.min(r, axis=1, keepdims=True), (0.0 - normals / size[:, None])[face]

    def in_coordinates(self, coordinates: Coordinates) -> Halfspaces:
        """See `Domain.in_coordinates`."""
        middle, unit = _diagonal(coordinates)
        normals = np.array(self.A)
        b = np.array(self.b) - normals @ middle
        return Halfspaces((normals * unit).tolist(), b.tolist(), tuple((self._widths(len(unit)) / unit).tolist()))

    def canonical(self) -> Domain:
        """See `Domain.canonical`."""
        return Halfspaces(((-1.0,),), (0.0,))

    def origin(self, mean: np.ndarray) -> np.ndarray:
        """See `Domain.origin`; 0 for a cone, whose edges meet there."""
        return mean if any(self.b) else np.zeros_like(mean)

    def covers(self, column: int, value: float, *, lower: bool) -> bool:
        """See `Domain.covers`; a face that is not across a column bounds it too, wherever."""
        return any(row[column] < 0.0 if lower else row[column] > 0.0 for row in self.A)


def _diagonal(coordinates: Coordinates) -> tuple[np.ndarray, np.ndarray]:
    """Middle and unit of x = middle + unit z, (d,) each."""
    middle, scale, inverse = coordinates.affine()
    if inverse.ndim == 2:
        raise OptionError("a domain keeps its edges where each column is scaled alone, and standardize='whiten' mixes them")
    return middle, scale * inverse


def _as_end(name: str, end: Any) -> End:
    """An end as plain numbers, with None for one that is infinite."""
    far = {"lower": -np.inf, "upper": np.inf}[name]
    given = [far if each is None else each for each in end] if np.iterable(end) else far if end is None else end
    try:
        values = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise OptionError(f"{name} must be one end for all columns, or one for each, not {end!r:.80}") from error
    if not values.size or not (np.isfinite(values) | (values == far)).all():
        raise OptionError(f"{name} ends of a box must be finite, or None or {far:g} where there is no edge, not {end!r:.80}")
    plain = [None if value == far else value for value in values.ravel().tolist()]
    return tuple(plain) if values.ndim else plain[0]


def _filled(end: End, far: float, d: int) -> np.ndarray:
    values = end if isinstance(end, tuple) else (end,) * d
    return np.array([far if value is None else value for value in values])


def _check_length(domain: Domain, name: str, value: End | Width, d: int) -> None:
    if isinstance(value, tuple) and len(value) != d:
        raise OptionError(f"the samples have {d} columns, and {name} of {domain!r:.80} is of {len(value)}")


def _check_width(domain: Domain) -> None:
    """Refuse a width that is none; a sequence becomes a tuple of plain numbers."""
    width: Any = domain.width
    if width is None:
        return
    try:
        values = np.asarray(width, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.array([np.nan])
    if values.ndim > 1 or not values.size or not ((values > 0.0) & np.isfinite(values)).all():
        raise OptionError(f"the width of a domain must be positive and finite, one number or one a column, not {width!r:.80}")
    object.__setattr__(domain, "width", tuple(values.tolist()) if values.ndim else float(values))
