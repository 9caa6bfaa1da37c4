"""Rows that depend on their neighbours in the order given: Markov chains, time series, copies one after another.

A row held out at random then lies beside rows that are trained on, and a held-out loss is no judge. A table that is sorted by a
column or by class has neighbours that are alike too, and yet its rows are independent once they are shuffled: there, a row is
no closer to the next than to one some ten rows on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["Series", "series"]

ROWS, COLUMNS = 6000, 8
"""At most so many rows one after another, from the middle, and so many columns are looked at."""
FEWEST = 50
"""Of fewer rows nothing is said."""
CLEAR = 6.0
"""An autocorrelation must be so many times 1 / sqrt(n), its standard error for independent rows: there are many lags."""
STRONG = 0.2
"""And so large: less leaves a held-out loss a judge."""
FAR = 11
"""How many rows further on a row must be less alike, or n / 30; a prime, as series may have a period."""
CLOSER = 0.15
"""By at least this part."""
KEPT = 0.75
"""Share of the differences that is averaged, the smaller ones: borders between classes make the others large."""
SORTED = 0.03
"""A column is sorted, as a whole or in runs, where at most this share of its steps goes the other way."""
FORGOTTEN = 0.2
"""The correlation time is the first lag from which on no autocorrelation is above this."""


@dataclass(frozen=True)
class Series:
    """The dependence of rows on their neighbours.

    Attributes:
        column: The column that shows it most.
        lag: How many rows apart.
        correlation: That of the column's ranks, or of how far they are from the middle, at this lag.
        time: The correlation time, in rows.
    """

    column: int
    lag: int
    correlation: float
    time: int


def series(x: np.ndarray, columns: np.ndarray | None = None) -> Series | None:
    """Whether the rows of samples (n, d) depend on their neighbours in the order given; None if not, or if merely sorted.

    With z a column's ranks, scaled to mean 0 and variance 1, or their distances from the middle, so scaled,

        r_k = mean_i z_i z_{i+k},    T_k = mean of the smaller 75 % of |z_{i+k} - z_i|,

    rows depend on each other at lag k where r_k > max(0.2, 6 / sqrt(n)), which independent rows give at no lag, and where
    T_k < T_{k+h} (1 - max(0.15, 6 / sqrt(n))), h = 11. Of a sorted table, z = g(place) + noise with a smooth g, or one that
    jumps from class to class, the first holds and the second does not; the column that it is sorted by is left out.

    Args:
        x: Samples, (n, d), in any units.
        columns: The columns to look at, by number, of which the first 8 are; all if None.

    Cost: some sorts and Fourier transforms of 6000 rows of 8 columns.

    Example:
        >>> steps = np.random.default_rng(0).normal(size=(500, 2))
        >>> series(steps) is None, series(np.cumsum(steps, axis=0)).lag
        (True, 1)
    """
    n = min(len(x), ROWS)
    if n < FEWEST:
        return None
    start = (len(x) - n) // 2
    most, time = None, 0
    for j in (np.arange(x.shape[1]) if columns is None else columns)[:COLUMNS]:
        ranks = _ranks(x[start : start + n, j])
        if _is_sorted(ranks):
            continue
        for z in (ranks, np.abs(ranks)):
            seen = None if _is_sorted(z) else _dependence(z)
            if seen is not None:
                lag, correlation, forgotten = seen
                time = max(time, forgotten)
                if most is None or correlation > most.correlation:
                    most = Series(int(j), lag, correlation, 0)
    return None if most is None else Series(most.column, most.lag, most.correlation, time)


def _ranks(column: np.ndarray) -> np.ndarray:
    """Ranks, ties at their mean, from -1 to 1."""
    _, place, count = np.unique(column, return_inverse=True, return_counts=True)
    return np.asarray(((2.0 * np.cumsum(count) - count) / len(column) - 1.0)[place.reshape(-1)])


def _is_sorted(z: np.ndarray) -> bool:
    """Whether nearly all steps of a column go the same way; also one that never changes."""
    steps = np.diff(z)
    return bool(min((steps > 0.0).sum(), (steps < 0.0).sum()) <= SORTED * len(z))


def _dependence(z: np.ndarray) -> tuple[int, float, int] | None:
    """Lag, autocorrelation there and correlation time; None where rows do not depend on each other."""
    n = len(z)
    r = _autocorrelation(z)
    far = min(FAR, max(2, n // 30))
    strong = max(STRONG, CLEAR / math.sqrt(n))
    for lag in dict.fromkeys((1, 1 + int(np.argmax(r[1:])))):
        if r[lag] > strong and _apart(z, lag) < _apart(z, lag + far) * (1.0 - max(CLOSER, CLEAR / math.sqrt(n))):
            return lag, float(r[lag]), int(np.flatnonzero(r > FORGOTTEN)[-1]) + 1 if lag > 1 else _first_below(r)
    return None


def _first_below(r: np.ndarray) -> int:
    below = np.flatnonzero(r <= FORGOTTEN)
    return int(below[0]) if len(below) else len(r)


def _autocorrelation(z: np.ndarray) -> np.ndarray:
    """r_0 ... of a column, to a quarter of its length."""
    n = len(z)
    z = (z - z.mean()) / z.std()
    size = 1 << (n + n // 4).bit_length()
    spectrum = np.fft.rfft(z, size)
    return np.asarray(np.fft.irfft(spectrum.real**2 + spectrum.imag**2, size)[: n // 4] / n)


def _apart(z: np.ndarray, lag: int) -> float:
    """T_k of the docstring above."""
    apart = np.abs(z[lag:] - z[:-lag])
    kept = max(1, int(KEPT * len(apart)))
    return float(np.partition(apart, kept - 1)[:kept].mean())
