"""Stairs: a column whose density is constant on cells of one width, as that of rounded values with uniform noise is.

Noise as wide as the rounding makes a law of discrete values continuous, and where the cells are narrow against its spread that
law is nearly the one before the rounding. Where they are wider, its score is 0 on each cell and a jump between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["Stairs", "is_coarse", "stairs"]

ROWS = 5000
"""At most so many rows, drawn by a fixed seed, are looked at."""
FEWEST = 4000
"""Of fewer rows nothing is said."""
WIDE, WIDEST = 1.2, 4.0
"""Cells of so many standard deviations are looked for; narrower ones do no harm: relative error 0.04 at 1.1, 0.02 at 0.9."""
CELLS = np.arange(-4, 6)
"""Bounds of the cells that may hold rows, in widths from that of the middle one."""
RARE, FEW = 0.02, 30
"""A cell counts from this part of the rows on, and so many of them."""
DEVIATES, SURELY_NOT = 1.63, 5.0
"""Kolmogorov's statistic of a cell's rows against the uniform law: the 1 % point, and one beyond which no bound is refined."""
JUMP = 1.5
"""Of two neighbouring cells that count one must have so many times the rows of the other: a uniform law has no stairs."""


@dataclass(frozen=True)
class Stairs:
    """A column of stairs.

    Attributes:
        column: Its number.
        step: Width of the cells [x].
        deviation: Standard deviation of the column [x].
    """

    column: int
    step: float
    deviation: float


def is_coarse(step: float, deviation: float) -> bool:
    """Whether uniform noise as wide as a step is too wide to undo a rounding to it.

    Args:
        step: Of the rounded column [x].
        deviation: Its standard deviation [x].

    It is where the step is wider than 1.2 standard deviations of their sum, of variance deviation^2 + step^2 / 12.
    """
    return step > WIDE * math.hypot(deviation, step / math.sqrt(12.0))


def stairs(x: np.ndarray, columns: np.ndarray) -> tuple[Stairs, ...]:
    """Columns that are constant on cells wider than 1.2 standard deviations.

    Of all lattices of cells, of width h and offset, the likeliest is taken, by sum_c n_c log(n_c / (n h)) with n_c the rows
    of a cell; in it each cell that counts must be uniform by Kolmogorov's test.

    Args:
        x: Samples, (n, d).
        columns: Those to look at, by number; without atoms.

    Cost: a sort and about 2000 binary searches a column.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> coarse = np.round(0.6 * rng.normal(size=(4000, 1)))
        >>> [round(found.step, 1) for found in stairs(coarse + rng.uniform(-0.5, 0.5, coarse.shape), np.array([0]))]
        [1.0]
    """
    if len(x) < FEWEST:
        return ()
    x = x if len(x) <= ROWS else x[np.random.default_rng(6).choice(len(x), ROWS, replace=False, shuffle=False)]
    found = []
    for j in columns:
        column = np.sort(x[:, j])
        deviation = float(column.std())
        step = _step((column - np.median(column)) / deviation) if 0.0 < deviation < math.inf else 0.0
        if step:
            found.append(Stairs(int(j), step * deviation, deviation))
    return tuple(found)


def _step(z: np.ndarray) -> float:
    """Width of the cells of a column, sorted and of standard deviation 1; 0.0 where it has none."""
    width, offset = _likeliest(z, np.geomspace(WIDE, WIDEST, 16), np.arange(-6, 6) / 12.0)
    if _departure(z, width, offset) > SURELY_NOT:
        return 0.0
    for reach in (0.08, 0.02, 0.004):
        around = reach * np.linspace(-1.0, 1.0, 13)
        width, offset = _likeliest(z, width * np.exp(around), offset + around)
    return float(width) if width >= WIDE and _departure(z, width, offset) <= DEVIATES else 0.0


def _likeliest(z: np.ndarray, widths: np.ndarray, offsets: np.ndarray) -> tuple[float, float]:
    """Width and offset, in widths, of the likeliest lattice whose cells hold all rows."""
    bounds = (offsets[:, None] + CELLS) * widths[:, None, None]
    counts = np.diff(np.searchsorted(z, bounds), axis=2)
    likelihood = np.sum(counts * np.log(np.maximum(counts, 1) / widths[:, None, None]), axis=2)
    likelihood[counts.sum(axis=2) < len(z)] = -np.inf
    at = np.unravel_index(np.argmax(likelihood), likelihood.shape)
    return float(widths[at[0]]), float(offsets[at[1]])


def _departure(z: np.ndarray, width: float, offset: float) -> float:
    """The largest of Kolmogorov's statistics sqrt(n_c) max |F_c - F| of the cells that count; infinite where they are alike."""
    bounds = (offset + CELLS) * width
    at = np.searchsorted(z, bounds)
    counts = np.diff(at)
    large = np.flatnonzero(counts >= max(FEW, RARE * len(z)))
    if len(large) < 2 or np.abs(np.diff(np.log(counts[large]))).max() < math.log(JUMP):
        return math.inf
    worst = 0.0
    for c in large:
        place = (z[at[c] : at[c + 1]] - bounds[c]) / width
        n = len(place)
        worst = max(worst, math.sqrt(n) * float(np.abs(place - (np.arange(n) + 0.5) / n).max()))
    return worst
