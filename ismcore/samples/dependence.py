"""Columns that are linearly dependent: a sample that lies in a hyperplane has no density, and its law no score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Dependence", "along", "dependence", "resolution"]

ROWS, NUMBERS = 5000, 1_000_000
"""Dependent columns are looked for in at most so many rows and numbers; what is found must hold in all rows."""

SQUARED = 1e-13
"""Rounding of an eigenvalue of a correlation matrix, for each of its columns."""

TAKES_PART = 100.0
"""A column takes part in a dependence where its coefficient is so many times what rounding leaves of it."""


@dataclass(frozen=True)
class Dependence:
    """Directions in which the standardised sample does not vary, up to rounding.

    Attributes:
        columns: Those that have a part in one of the directions, by number.
        directions: How many there are: d less the rank of the correlation matrix.
        eigenvalue: The smallest eigenvalue of the correlation matrix: the variance along the narrowest direction.
    """

    columns: tuple[int, ...]
    directions: int
    eigenvalue: float


def resolution(x: np.ndarray, dtype: str) -> np.ndarray:
    """How much of each column, (d,), in its standard deviations, is rounding: of the samples as given, and of training.

        eps_x max_n |x_nj| / s_j + (eps + 8 eps_64) max_n |x_nj - m_j| / s_j,

    m and s mean and standard deviation, eps that of the dtype, eps_64 that of float64, in which this is computed, and eps_x
    that of float32 where all numbers are float32's, or else of float64.

    Args:
        x: Samples (n, d), float64; no column is constant.
        dtype: "float32" or "float64", in which a fit computes.
    """
    with np.errstate(over="ignore"):
        given = "float32" if np.array_equal(x, x.astype(np.float32)) else "float64"
    mean, scale = x.mean(axis=0), x.std(axis=0)
    largest, farthest = np.abs(x).max(axis=0), np.abs(x - mean).max(axis=0)
    trained = np.finfo(dtype).eps + 8.0 * np.finfo(np.float64).eps
    return np.asarray((np.finfo(given).eps * largest + trained * farthest) / scale)


def dependence(x: np.ndarray, dtype: str = "float64") -> Dependence | None:
    """The linear dependence of a sample's columns up to rounding, or None where there is none.

    With z the standardised columns, v_k and s_k right singular vectors and values of z / sqrt(n), direction k counts where

        s_k <= |(v_kj r_j)_j|,   r the columns' `resolution`.

    Singular values of z and not eigenvalues of z^T z / n = C, as these lose all below 1e-16; the matrix C, which costs less,
    is asked first whether there can be any.

    Args:
        x: Samples (n, d), float64. Of d + 1 rows or fewer nothing is said: they span no more whatever their law.
        dtype: "float32" or "float64", in which a fit computes.

    Cost: d^2 of 5000 rows, and d^3; d of all rows where directions are found.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100, 3))
        >>> dependence(x), dependence(np.c_[x, x[:, 0] - x[:, 2]]).columns
        (None, (0, 2, 3))
    """
    n, d = x.shape
    if d == 1 or n <= d + 1:
        return None
    rows = min(n, max(2 * d + 2, min(ROWS, NUMBERS // d)))
    some = x if rows == n else x[np.random.default_rng(2).choice(n, rows, replace=False, shuffle=False)]
    with np.errstate(all="ignore"):  # what cannot be standardised is refused elsewhere
        mean, scale = some.mean(axis=0), some.std(axis=0)
        z = (some - mean) / scale
        z -= z.mean(axis=0)  # a mean far from 0 is rounded
        rounding = resolution(some, dtype)
    if not (np.isfinite(z).all() and np.isfinite(rounding).all()):
        return None
    if np.linalg.eigvalsh(z.T @ z / rows)[0] > d * SQUARED + rounding.max() ** 2:
        return None
    values, vectors = np.linalg.svd(np.linalg.qr(z, mode="r"))[1:]
    found = [v for s, v in zip(values / np.sqrt(rows), vectors, strict=True) if s <= along(v, rounding)]
    # Rows that were not looked at may lie elsewhere.
    found = [v for v in found if rows == n or np.std(((x - mean) / scale) @ v) <= along(v, rounding)]
    if not found:
        return None
    part = np.max([np.abs(v) > TAKES_PART * along(v, rounding) for v in found], axis=0)
    return Dependence(tuple(np.flatnonzero(part).tolist()), len(found), float(values[-1] ** 2 / rows))


def along(direction: np.ndarray, rounding: np.ndarray) -> float:
    """|(v_j r_j)_j|: what the rounding r of the columns, (d,), comes to along a direction v of the standardised ones, (d,)."""
    return float(np.linalg.norm(direction * rounding))
