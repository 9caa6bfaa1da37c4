"""Domains with flat edges in any direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ismcore.coordinates import Coordinates
from ismcore.domains.base import Domain, Width, check_length, check_width, diagonal
from ismcore.errors import OptionError

__all__ = ["Halfspaces"]


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
        check_width(self)

    def check_columns(self, d: int) -> None:
        """See `Domain.check_columns`."""
        if len(self.A[0]) != d:
            raise OptionError(f"the samples have {d} columns, and the half spaces are of {len(self.A[0])}")
        check_length(self, "width", self.width, d)

    def nearest(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Domain.nearest`."""
        normals, width = np.array(self.A), self._widths(x.shape[1])
        size = np.linalg.norm(normals * width, axis=1)
        r = (np.array(self.b) - x @ normals.T) / size
        face = np.argmin(r, axis=1)
        return np.min(r, axis=1, keepdims=True), (0.0 - normals / size[:, None])[face]

    def in_coordinates(self, coordinates: Coordinates) -> Halfspaces:
        """See `Domain.in_coordinates`."""
        middle, unit = diagonal(coordinates)
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
