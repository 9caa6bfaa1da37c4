"""Hard edges of a column: where its density ends without falling to 0, as that of a positive, bounded or wrapped variable.

Implicit score matching integrates by parts, E |psi - s|^2 / 2 = E[|psi|^2 / 2 + div psi] + const, which holds where p psi
vanishes at the edge of the support (Hyvarinen 2005, theorem 1). Where it does not, the loss, held-out too, rewards a
wall of psi at the edge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["Edge", "edges"]

OUTERMOST = 64
"""So many of the outermost values are looked at, or one in fifteen."""
ROWS = 10_000
"""At most so many rows, drawn by a fixed seed, are looked at."""
FEWEST = 800
"""Of fewer rows nothing is said: a normal's tail and an edge look alike there."""
DEVIATES = 1.7
"""How many standard errors above 1/2 the mean place may lie; chosen on other laws than those of docs/diagnose.md."""


@dataclass(frozen=True)
class Edge:
    """An end of a column at which the density does not fall to 0.

    Attributes:
        column: Its number.
        value: The outermost value [x].
        lower: Whether it is the smallest, not the largest.
    """

    column: int
    value: float
    lower: bool


def edges(x: np.ndarray, columns: np.ndarray) -> tuple[Edge, ...]:
    """The hard edges of some columns.

    With x_(1) <= ... <= x_(m) the m outermost values, the mean place

        U = mean_{1 < j < m} (x_(j) - x_(1)) / (x_(m) - x_(1))

    is 1/2 up to 1 / sqrt(12 (m - 2)) where the density starts at once and is flat, less where it falls from there, 2/3 where
    it rises linearly from 0, and more in a tail. U below 1/2 + 1.7 standard errors is an edge: 95 % of flat ones are found.

    Args:
        x: Samples, (n, d).
        columns: Those to look at, by number; without atoms.

    Cost: two partial sorts a column.

    Example:
        >>> x = np.random.default_rng(0).exponential(size=(1000, 1))
        >>> [(edge.column, edge.lower) for edge in edges(x, np.array([0]))]
        [(0, True)]
    """
    x = x if len(x) <= ROWS else x[np.random.default_rng(5).choice(len(x), ROWS, replace=False, shuffle=False)]
    n = len(x)
    m = min(OUTERMOST, n // 15)
    if n < FEWEST:
        return ()
    limit = 0.5 + DEVIATES / math.sqrt(12.0 * (m - 2))
    found = []
    for j in columns:
        ends = np.partition(np.ascontiguousarray(x[:, j]), [m - 1, n - m])
        for lower, outermost in ((True, ends[:m]), (False, -ends[n - m :])):
            place = outermost - outermost.min()
            width = place.max()
            if width > 0.0 and (place.sum() - width) / ((m - 2) * width) < limit:
                found.append(Edge(int(j), float(outermost.min() if lower else -outermost.min()), lower))
    return tuple(found)
