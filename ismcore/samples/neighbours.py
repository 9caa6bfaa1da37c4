"""Distances from rows to their nearest neighbours: near-copies, and sets of fewer dimensions than columns.

With r_k the distance from a row to its k-th nearest, a density that is smooth on that scale in m dimensions has
(r_k / r_{k+1})^m ~ Beta(k, 1), whatever its value: E log(r_{k+1} / r_k) = 1 / (k m). For k = 1 this is the TwoNN estimate of m
(Facco, d'Errico, Rodriguez & Laio 2017, Scientific Reports 7:12140). Near-copies make r_k jump from their own scale to that of
the law at k = the copies of a row, less one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ismcore.samples.ties import distinct_rows

__all__ = ["Copies", "Neighbours", "neighbours", "rows_within"]

ROWS, DISTANCES = 6000, 500_000
"""At most so many rows, drawn by a fixed seed, are looked at, and so many distances between them."""
QUERIES = 400
"""From at most so many rows to all."""
NEAREST = 18
"""Neighbours of each."""
FEWEST, FEWEST_FOR_DIMENSION = 100, 300
"""Of fewer rows nothing is said."""
JUMP, BY_CHANCE = 2.0, 8.0
"""A jump at k counts where k E log(r_{k+1} / r_k) is JUMP + BY_CHANCE / sqrt(queries) times its mean over the other k, which
is 1 / m; independent rows of a score of laws come to 1.4 at 300 queries, clusters of a dozen rows to 2.1."""
SURELY_COPIES = 0.7
"""A dimension below this is none: copies of several scales."""
RANK = 1e-10
"""Columns whose correlation matrix has a smaller eigenvalue, of its largest, are not whitened: that is `dependence`."""
COLUMNS = 10
"""In more columns no dimension is told: all pairs of rows are about equally far apart."""


@dataclass(frozen=True)
class Copies:
    """Rows that nearly equal others.

    Attributes:
        share: Part of the rows that have one.
        radius: A distance between whitened rows, of covariance 1, that parts copies from other neighbours.
    """

    share: float
    radius: float


@dataclass(frozen=True)
class Neighbours:
    """What the nearest neighbours tell.

    Attributes:
        copies: Near-copies, if there are any.
        dimension: The intrinsic dimension, where it is below the number of columns.
    """

    copies: Copies | None = None
    dimension: float | None = None


def neighbours(x: np.ndarray, columns: np.ndarray | None = None) -> Neighbours:
    """Near-copies and the intrinsic dimension of samples (n, d), in some columns by number, none of them constant; all if None.

    Exact copies count once. The dimension is that of k = 1, 2, 3, and is said where it is clearly below d - 1/2, or a little
    less for d > 4, as the estimate then comes out low; not where rows are near-copies, or columns more than 10.

    Cost: 500,000 distances.

    Example:
        >>> angle = np.random.default_rng(0).uniform(0.0, 6.28, size=1000)
        >>> round(neighbours(np.c_[np.cos(angle), np.sin(angle)]).dimension)
        1
    """
    some = x if len(x) <= ROWS else x[np.random.default_rng(3).choice(len(x), ROWS, replace=False, shuffle=False)]
    some = some if columns is None else some[:, columns]
    some = distinct_rows(some)
    n, d = some.shape
    if n < FEWEST:
        return Neighbours()
    z = _whitened(some)
    if not np.isfinite(z).all():
        return Neighbours()
    r = _nearest(z)
    if len(r) < 20:
        return Neighbours()
    k = np.arange(1, NEAREST)
    growth = np.diff(np.log(r), axis=1)
    profile = k * growth.mean(axis=0)
    others = (profile.sum() - profile.max()) / (len(k) - 1)
    dimension = 1.0 / float(profile[:3].mean())
    if profile.max() > (JUMP + BY_CHANCE / math.sqrt(len(r))) * others or dimension < SURELY_COPIES:
        return Neighbours(copies=_copies(r, growth))
    low = n >= FEWEST_FOR_DIMENSION and 1 < d <= COLUMNS and dimension * (1.0 + 2.0 / math.sqrt(3 * len(r))) < _least(d)
    return Neighbours(dimension=dimension if low else None)


def _whitened(x: np.ndarray) -> np.ndarray:
    """Rows of mean 0 and covariance 1, (n, d), so that correlation looks like no lower dimension; or of variances 1 alone."""
    with np.errstate(all="ignore"):  # what overflows is refused when it is standardised
        z = np.asarray((x - x.mean(axis=0)) / x.std(axis=0))
        if z.shape[1] == 1 or not np.isfinite(z).all():
            return z
    values, vectors = np.linalg.eigh(z.T @ z / len(z))
    return np.asarray(z @ (vectors / np.sqrt(values))) if values[0] > RANK * values[-1] else z


def _least(d: int) -> float:
    """The estimate below which d columns are surely more than the set has dimensions."""
    return d - max(0.5, 0.3 * (d - 3)) if d <= 6 else 0.6 * d


def _nearest(z: np.ndarray) -> np.ndarray:
    """Distances of some rows to their nearest neighbours other than exact copies, increasing, (queries, NEAREST)."""
    n = len(z)
    order = np.random.default_rng(3).permutation(n)
    chosen = z[order[: int(np.clip(DISTANCES // n, 16, QUERIES))]]
    # |a|^2 + |b|^2 - 2 a b is quick and loses digits; it chooses candidates, whose distances are then computed anew.
    square = np.einsum("nd,nd->n", z, z)
    squared = square - 2.0 * (chosen @ z.T)
    wanted = min(n - 1, 2 * NEAREST)
    candidates = np.argpartition(squared, wanted, axis=1)[:, : wanted + 1]
    r = np.sqrt(((z[candidates] - chosen[:, None]) ** 2).sum(axis=2))
    r.sort(axis=1)
    exact = (r == 0.0).sum(axis=1)
    usable = exact + NEAREST <= r.shape[1]
    r, exact = r[usable], exact[usable]
    return np.take_along_axis(r, exact[:, None] + np.arange(NEAREST), axis=1)


def _copies(r: np.ndarray, growth: np.ndarray) -> Copies:
    """Near-copies, from distances (queries, NEAREST) and the growth of their logarithm."""
    weighted = growth * np.arange(1, NEAREST)
    at = np.argmax(weighted, axis=1)
    row = np.arange(len(r))
    inner, outer = r[row, at], r[row, at + 1]
    jump = weighted[row, at]
    sure = jump >= np.quantile(jump, 0.5)
    radius = float(np.exp(0.5 * (np.log(np.quantile(inner[sure], 0.9)) + np.log(np.quantile(outer[sure], 0.1)))))
    return Copies(float((r[:, 0] < radius).mean()), radius)


def rows_within(x: np.ndarray, radius: float) -> np.ndarray:
    """A number for each row, (n,), equal for rows that a chain of steps no longer than the radius joins.

    Args:
        x: Samples (n, d).
        radius: Between whitened rows, of covariance 1.

    Where one such group would hold more than a tenth of the rows, the radius is halved until none does.
    """
    z = _whitened(x)
    order = np.argsort(z[:, 0], kind="stable")
    ordered = z[order]
    for _ in range(60):
        group = np.empty(len(x), dtype=np.int64)
        group[order] = _joined(ordered, radius)
        if np.bincount(group).max() <= max(20, len(x) // 10):
            break
        radius *= 0.5
    return np.unique(group, return_inverse=True)[1].reshape(-1)


def _joined(ordered: np.ndarray, radius: float) -> np.ndarray:
    """Components of rows in the order of their first column, (n,): all pairs that are close in it are compared."""
    n = len(ordered)
    starts, ends = [], []
    for step in range(1, n):
        apart = ordered[step:] - ordered[:-step]
        near = np.flatnonzero(apart[:, 0] <= radius)
        if not len(near):
            break
        close = near[(apart[near] ** 2).sum(axis=1) <= radius**2]
        starts.append(close)
        ends.append(close + step)
    if not starts:
        return np.arange(n)
    first, second = np.concatenate(starts), np.concatenate(ends)
    group = np.arange(n)
    while True:
        least = np.minimum(group[first], group[second])
        before = group.copy()
        np.minimum.at(group, first, least)
        np.minimum.at(group, second, least)
        group = group[group]
        if np.array_equal(group, before):
            return group
