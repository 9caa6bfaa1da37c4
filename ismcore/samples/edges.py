"""Hard edges of a column: where its density ends without falling to 0, as that of a positive, bounded or wrapped variable.

Implicit score matching integrates by parts, E |psi - s|^2 / 2 = E[|psi|^2 / 2 + div psi] + const, which holds where p psi
vanishes at the edge of the support (Hyvarinen 2005, theorem 1). Where it does not, the loss, held-out too, rewards a
wall of psi at the edge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ismcore.domains import Box, Domain, Positive, Reals

__all__ = ["Edge", "auto_domain", "domain_of", "edges"]

OUTERMOST = 128
"""So many of the outermost values are looked at, or one in fifteen."""
ROWS = 10_000
"""At most so many rows, drawn by a fixed seed, are looked at."""
FEWEST = 800
"""Of fewer rows nothing is said: a normal's tail and an edge look alike there."""
LIMIT = 0.57
"""Mean place between that of a density that starts at once, 1/2, and of one that rises linearly, 2/3; nearer to the first, as a
blurred edge is none. Chosen on other laws and seeds than those of docs/diagnose.md."""
BEYOND = 8.0
"""An edge is looked for so many mean spacings beyond the outermost value: of 3000 flat densities one starts beyond."""


@dataclass(frozen=True)
class Edge:
    """An end of a column at which the density does not fall to 0.

    Attributes:
        column: Its number.
        value: The outermost value [x].
        lower: Whether it is the smallest, not the largest.
        end: Where the density is taken to end [x]: the roundest number from the outermost value to eight mean spacings beyond.
    """

    column: int
    value: float
    lower: bool
    end: float


def edges(x: np.ndarray, columns: np.ndarray) -> tuple[Edge, ...]:
    """The hard edges of some columns.

    With x_(1) <= ... <= x_(m) the m outermost values, the mean place

        U = mean_{1 < j < m} (x_(j) - x_(1)) / (x_(m) - x_(1))

    is 1/2 up to 1 / sqrt(12 (m - 2)) where the density starts at once and is flat, less where it falls from there, 2/3 where
    it rises linearly from 0, and more in a tail. U below 0.57 is an edge: 96 % of flat ones are found by 55 values (800 rows),
    and 99.6 % by 128 (1920 rows or more).

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
    found = []
    for j in columns:
        ends = np.partition(np.ascontiguousarray(x[:, j]), [m - 1, n - m])
        for lower, outermost in ((True, ends[:m]), (False, -ends[n - m :])):
            place = outermost - outermost.min()
            width = place.max()
            if width > 0.0 and (place.sum() - width) / ((m - 2) * width) < LIMIT:
                value, reach = float(outermost.min()), BEYOND * width / (m - 1)
                end = roundest(value - reach, value)
                found.append(Edge(int(j), value, True, end) if lower else Edge(int(j), -value, False, -end))
    return tuple(found)


def domain_of(found: Sequence[Edge], *samples: np.ndarray) -> Domain:
    """The domain that ends at the edges found, and holds all samples, (n, d) each.

    Example:
        >>> x = np.random.default_rng(0).exponential(size=(1000, 1))
        >>> domain_of(edges(x, np.array([0])), x)
        Positive(width=None)
    """
    d = samples[0].shape[1]
    lower, upper = [-math.inf] * d, [math.inf] * d
    for edge in found:
        columns = [x[:, edge.column] for x in samples]
        if edge.lower:
            lower[edge.column] = min(edge.end, *(float(column.min()) for column in columns))
        else:
            upper[edge.column] = max(edge.end, *(float(column.max()) for column in columns))
    if not found:
        return Reals()
    return Positive() if not any(lower) and min(upper) == math.inf else Box(tuple(lower), tuple(upper))


def auto_domain(found: Sequence[Edge], *samples: np.ndarray) -> tuple[Domain, str]:
    """See `domain_of`; and what was taken, in words."""
    domain = domain_of(found, *samples)
    if not found:
        return (
            domain,
            "domain='auto' found no hard edge of a column, and took the whole space; other edges it does not look for",
        )
    ends = ", ".join(f"column {e.column} {'from' if e.lower else 'to'} {e.value:.3g}" for e in found[:6])
    return domain, f"domain='auto' took {domain!r:.200}, by the hard edges of columns: {ends}{', ...' * (len(found) > 6)}"


def roundest(low: float, high: float) -> float:
    """The number from low to high with the fewest decimal digits, and of several of these the largest.

    Example:
        >>> roundest(-0.002, 0.0003), roundest(0.4991, 0.5007), roundest(359.2, 359.97)
        (0.0, 0.5, 359.9)
    """
    if low <= 0.0 <= high:
        return 0.0
    for power in range(math.ceil(math.log10(max(abs(low), abs(high)))), -320, -1):
        found = float(f"{math.floor(high / 10.0**power)}e{power}")
        if low <= found <= high:
            return found
    return high
