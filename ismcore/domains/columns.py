"""Domains in which each column has ends of its own."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ismcore.coordinates import Coordinates
from ismcore.domains.base import Domain, Width, check_length, check_width, diagonal
from ismcore.errors import OptionError

__all__ = ["Box", "Columns", "Positive", "Reals"]

NEAR = 0.1
"""An edge of the samples this near to one of the domain, in units of the width, is that one."""
End = float | tuple[float | None, ...] | None
"""Ends of the columns: one for all, or one for each, with None where there is no edge."""


class Columns(Domain):
    """Domains in which each column has ends of its own, whatever the others are, and each output a weight of its own."""

    @abstractmethod
    def ends(self, d: int) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends of the d columns, (d,) each, in [x]; infinite where there is no edge."""

    def check_columns(self, d: int) -> None:
        """See `Domain.check_columns`."""
        self.ends(d)
        check_length(self, "width", self.width, d)

    def nearest(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Domain.nearest`."""
        (lower, upper), width = self.ends(x.shape[1]), self._widths(x.shape[1])
        below, above = x - lower, upper - x
        r = np.minimum(below, above) / width
        return r, np.where(np.isfinite(r), np.where(below <= above, 1.0, -1.0) / width, 0.0)

    def in_coordinates(self, coordinates: Coordinates) -> Box:
        """See `Domain.in_coordinates`."""
        middle, unit = diagonal(coordinates)
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
        check_width(self)

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
        check_width(self)
        lengths = {len(end) for end in (self.lower, self.upper) if isinstance(end, tuple)}
        if len(lengths) > 1:
            raise OptionError(f"lower and upper ends of a box must be as many, not {self.lower!r} and {self.upper!r}")
        lower, upper = self.ends(max(lengths, default=1))
        if not (lower < upper).all():
            raise OptionError(f"each lower end of a box must be below the upper one, not {self.lower!r} and {self.upper!r}")

    def ends(self, d: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Columns.ends`."""
        check_length(self, "lower", self.lower, d)
        check_length(self, "upper", self.upper, d)
        return _filled(self.lower, -np.inf, d), _filled(self.upper, np.inf, d)


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
