"""What float32 can hold of points that are shifted and scaled."""

from __future__ import annotations

import warnings

import numpy as np

from ismcore.errors import IsmWarning, SamplesError

__all__ = ["beyond_float32", "check_float32", "in_two"]

FAR = 1.2e5
"""A mean so many scales from 0 leaves points in float32 two digits of where they lie among the samples."""
EPS = float(np.finfo(np.float32).eps)


def in_two(mean: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The number of the dtype that is nearest to each mean, and what is left, or None where nothing is."""
    with np.errstate(all="ignore"):  # beyond the range of the dtype nothing is asked of it
        nearest = mean.astype(dtype).astype(np.float64)
        rest = mean - nearest
    return nearest, rest if rest.any() else None


def beyond_float32(mean: np.ndarray, scale: np.ndarray) -> str | None:
    """The first column whose mean, scale or inverse scale float32 cannot hold, in words."""
    limits = np.finfo(np.float32)
    low, high = float(limits.tiny), float(limits.max)
    bad = np.flatnonzero((np.abs(mean) > high) | (scale < max(low, 1.0 / high)) | (scale > min(high, 1.0 / low)))
    return f"column {bad[0]}, of mean {mean[bad[0]]:.3g} and scale {scale[bad[0]]:.3g}, or their scores" if len(bad) else None


def check_float32(dtype: str, away: float, beyond: str | None) -> None:
    """See `Coordinates.check_dtype`.

    Args:
        dtype: The dtype, as it is named.
        away: How many scales the furthest mean lies from 0.
        beyond: See `beyond_float32`.

    Raises:
        SamplesError: A column is beyond the dtype.
    """
    if beyond is not None:
        what = f"{dtype} cannot hold points of {beyond}"
        raise SamplesError(f"{what}: pass float64 points, or divide the column before the fit")
    if away > FAR:
        text = (
            f"points in {dtype} are too coarse: a column has its mean {away:.2g} times its scale from 0, where "
            f"neighbouring numbers are {away * EPS:.1g} of a scale apart; pass float64 points, or subtract the mean "
            "before the fit"
        )
        warnings.warn(IsmWarning(text), stacklevel=3)
