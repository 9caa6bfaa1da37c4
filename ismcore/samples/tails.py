"""Columns whose standard deviation is set by a few rows far out, and so is no unit for the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ismcore.coordinates import TO_NORMAL

__all__ = ["Tail", "tails"]

TIMES = 6.0
"""A standard deviation so many times what the quartiles tell is none to scale by; mixtures of width 1 : 20 come to 5.3."""
ROWS = 10_000
"""At most so many rows are looked at."""


@dataclass(frozen=True)
class Tail:
    """A column with heavy tails.

    Attributes:
        column: Its number.
        deviation: Its standard deviation [x].
        quartiles: Its interquartile range / 1.349 [x], which is the standard deviation of a normal law.
    """

    column: int
    deviation: float
    quartiles: float


def tails(x: np.ndarray, columns: np.ndarray, span: np.ndarray | None = None) -> tuple[Tail, ...]:
    """The columns, among those given by number, whose standard deviation is over 6 times their interquartile range / 1.349.

    Args:
        x: Samples, (n, d), in any units [x].
        columns: Those to look at.
        span: Largest less smallest value of each column, (d,), where it is known.

    Example:
        >>> tails(np.random.default_rng(0).standard_cauchy((1000, 1)), np.array([0]))[0].column
        0
    """
    n = len(x)
    some = x if n <= ROWS else x[np.random.default_rng(4).choice(n, ROWS, replace=False, shuffle=False)]
    quarters = [len(some) // 4, (3 * len(some)) // 4]
    lower, upper = np.partition(np.ascontiguousarray(some.T), quarters, axis=1)[:, quarters].T
    heavy = []
    with np.errstate(all="ignore"):  # what overflows is refused when it is standardised
        quartiles, span = (upper - lower) / TO_NORMAL, np.ptp(x, axis=0) if span is None else span
        for j in columns:
            if not span[j] > 2.0 * TIMES * quartiles[j] > 0.0:  # no standard deviation is above half of the span
                continue
            deviation = float(x[:, j].std())
            if TIMES * quartiles[j] < deviation < np.inf:
                heavy.append(Tail(int(j), deviation, float(quartiles[j])))
    return tuple(heavy)
