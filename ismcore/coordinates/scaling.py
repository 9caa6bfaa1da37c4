"""How columns are shifted and scaled: by moments, by quartiles, or to a covariance I."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ismcore.coordinates.transforms import check_transforms
from ismcore.errors import OptionError, SamplesError

__all__ = ["FLAT", "SCALINGS", "TO_NORMAL", "Standardize", "check_options", "moments", "quartiles", "whitening"]

Standardize = bool | Literal["robust", "whiten"]
"""How columns are shifted and scaled: by mean and standard deviation, not at all, or as the name says."""
SCALINGS = ("robust", "whiten")

TO_NORMAL = 1.349
"""The interquartile range of a normal law, in standard deviations."""
FLAT = 1e-10
"""Least eigenvalue of a correlation matrix, relative to the largest, that is whitened: a smaller one is the rounding of 0."""


def check_options(standardize: object, transform: object) -> None:
    """Refuse names that are none of `Coordinates.by`.

    Raises:
        OptionError: See above; the message lists those that there are.
    """
    if not isinstance(standardize, bool) and not (isinstance(standardize, str) and standardize in SCALINGS):
        raise OptionError(f"standardize must be True, False, {' or '.join(map(repr, SCALINGS))}, not {standardize!r}")
    check_transforms(transform)


def moments(x: np.ndarray, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column of x, (n, d), with row weights (n,) of sum 1: (d,) each, in [x].

    Raises:
        SamplesError: See `Coordinates.standardizing`.
    """
    with np.errstate(all="ignore"):
        mean = np.average(x, axis=0, weights=weight)
        scale = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weight))
    _check_range(x, mean, scale)
    return mean, scale


def quartiles(x: np.ndarray, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Median and interquartile range / 1.349 of each column, or the standard deviation where that is 0: (d,) each, in [x].

    Raises:
        SamplesError: See `Coordinates.standardizing`.
    """
    lower, median, upper = _quantiles(x, weight, (0.25, 0.5, 0.75))
    scale = (upper / TO_NORMAL) - (lower / TO_NORMAL)
    flat = scale <= 0.0
    if flat.any():
        scale[flat] = moments(x[:, flat], weight)[1]
    _check_range(x, median, scale)
    return median, scale


def whitening(t: np.ndarray, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean m of rows t, (n, d), and A = C^-1/2 with C their covariance: (d,) and (d, d); see `Coordinates.whitening`."""
    shift = np.average(t, axis=0, weights=weight)
    share = np.full(len(t), 1.0 / len(t)) if weight is None else weight
    values, vectors = np.linalg.eigh((t - shift).T @ ((t - shift) * share[:, None]))
    roots = np.sqrt(np.maximum(values, FLAT * values.max()))
    return shift, np.asarray((vectors / roots) @ vectors.T)


def _check_range(x: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> None:
    limits = np.finfo(np.float64)
    # below this, the squares have lost digits
    bad = np.flatnonzero(~np.isfinite(scale) | ~np.isfinite(mean) | (scale < np.sqrt(limits.tiny / limits.eps)))
    if len(bad):
        raise SamplesError(
            f"column {bad[0]} of the samples spans {x[:, bad[0]].min():g} to {x[:, bad[0]].max():g}, which is too wide "
            "or too narrow to standardise in float64; rescale it first"
        )


def _quantiles(x: np.ndarray, weight: np.ndarray | None, levels: tuple[float, ...]) -> np.ndarray:
    """Quantiles of each column, (k, d), by linear interpolation; with weights, at the middle of each row's step of weight."""
    if weight is None:
        return np.asarray(np.quantile(x, levels, axis=0))
    found = []
    for column in x.T:
        order = np.argsort(column, kind="stable")
        order = order[weight[order] > 0.0]
        share = weight[order]
        found.append(np.interp(levels, np.cumsum(share) - 0.5 * share, column[order]))
    return np.stack(found, axis=1)
