"""What a domain is, and the weight that vanishes at its edge."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np

from ismcore.coordinates import Coordinates
from ismcore.errors import OptionError, SamplesError

__all__ = ["Domain", "Width", "check_length", "check_width", "diagonal"]

ROUNDING = 1e-9
"""A point outside by no more than this, in units of the width, is on the edge."""
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


def diagonal(coordinates: Coordinates) -> tuple[np.ndarray, np.ndarray]:
    """Middle and unit of x = middle + unit z, (d,) each."""
    middle, scale, inverse = coordinates.affine()
    if inverse.ndim == 2:
        raise OptionError("a domain keeps its edges where each column is scaled alone, and standardize='whiten' mixes them")
    return middle, scale * inverse


def check_length(domain: Domain, name: str, value: object, d: int) -> None:
    """Refuse a value for each column where there are other columns than d."""
    if isinstance(value, tuple) and len(value) != d:
        raise OptionError(f"the samples have {d} columns, and {name} of {domain!r:.80} is of {len(value)}")


def check_width(domain: Domain) -> None:
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
