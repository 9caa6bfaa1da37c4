"""Steps of a chain that stay in a domain: reflected at the ends of columns, not taken over the faces of a polytope."""

from __future__ import annotations

import numpy as np

from ismcore.domains import Domain
from ismcore.domains.columns import Columns

__all__ = ["Steps"]

IMAGES = 8
"""Images of a point in each of two walls: of steps up to the distance between these, farther ones add less than exp(-100)."""


class Steps:
    """Proposals y = reflected(m + sqrt(a) e) in a domain, and their densities.

    Reflected at a lower end l and an upper end u, a point y comes from y itself and from its images, so that

        q(y | m) = prod_i sum_k [ N(y_i + 2 k (u_i - l_i); m_i, a) + N(2 l_i - y_i + 2 k (u_i - l_i); m_i, a) ],

    with k = 0 alone, and 2 u_i - y_i in the place of 2 l_i - y_i, where there is one end. By q the acceptance of a step is
    exact. Over the face of a polytope no step is taken, as the density is 0 there.

    Args:
        domain: In the coordinates of the chains; None for the whole space.
        d: Number of columns.
    """

    def __init__(self, domain: Domain | None, d: int) -> None:
        self._domain = domain
        columns = domain if isinstance(domain, Columns) else None
        self._lower, self._upper = (np.full(d, -np.inf), np.full(d, np.inf)) if columns is None else columns.ends(d)
        self._signs, self._offsets = _images(self._lower, self._upper)
        self.largest = float(np.min(self._upper - self._lower)) ** 2

    def contains(self, z: np.ndarray) -> np.ndarray:
        """Whether each point, (n, d), lies in the domain, (n,)."""
        return np.full(len(z), True) if self._domain is None else self._domain.contains(z)

    def reflected(self, z: np.ndarray) -> np.ndarray:
        """The points z, (n, d), back between the ends of their columns."""
        lower, upper = self._lower, self._upper
        below, above = np.isfinite(lower), np.isfinite(upper)
        with np.errstate(invalid="ignore"):  # in columns without ends, which are not taken
            width = upper - lower
            between = lower + (width - np.abs((z - lower) % (2.0 * width) - width))
            one = np.where(below, lower + np.abs(z - lower), upper - np.abs(upper - z))
        return np.where(below & above, between, np.where(below | above, one, z))

    def log_density(self, y: np.ndarray, mean: np.ndarray, a: float) -> np.ndarray:
        """Log q(y | mean) of the points, (n,), up to a constant."""
        images = self._signs * y[:, :, None] + self._offsets
        exponent = -((images - mean[:, :, None]) ** 2) / (2.0 * a)
        top = exponent.max(axis=2)
        return np.asarray(np.sum(top + np.log(np.sum(np.exp(exponent - top[:, :, None]), axis=2)), axis=1))


def _images(lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Signs and offsets, (d, k), of the images sign y + offset of a point; those that there are not lie at infinity."""
    each = []
    for low, high in zip(lower, upper, strict=True):
        if np.isfinite(low) and np.isfinite(high):
            shifts = 2.0 * (high - low) * np.arange(-IMAGES, IMAGES + 1)
            each.append([(1.0, shift) for shift in shifts] + [(-1.0, 2.0 * low + shift) for shift in shifts])
        else:
            ends = [end for end in (low, high) if np.isfinite(end)]
            each.append([(1.0, 0.0)] + [(-1.0, 2.0 * end) for end in ends])
    most = max(map(len, each))
    padded = np.array([images + [(0.0, np.inf)] * (most - len(images)) for images in each])
    return padded[:, :, 0], padded[:, :, 1]
