"""Ladders of noise scales: how to make one from the samples, and when one is too short or too coarse."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from ismcore.coordinates import Coordinates
from ismcore.errors import OptionError, SamplesError
from ismcore.samples.checks import as_samples, check_spread

__all__ = ["advice_on_ladder", "noise_ladder"]

ROWS = 2000
"""Distances are those of at most so many rows, drawn by a fixed seed."""
WIDEST_RATIO = 1.5
"""Largest ratio of two neighbouring scales, also in few dimensions, where their shells overlap at any ratio."""
OVERLAP = 0.5
"""Song & Ermon (2020), technique 2: so much of the mass of one scale's noise is to lie where the next one's does."""
COARSE = 0.05
"""A ladder whose scales overlap by less is called too coarse."""
WIDE = 1.5
"""A ladder whose smallest scale is a larger share of the spread is one of blurs alone."""
SHORT = 0.5
"""A ladder whose largest scale is a smaller share of the spread is called too short."""


def noise_ladder(x: Any, count: int | None = None, *, units: str = "x") -> tuple[float, ...]:
    """A geometric ladder of noise scales for `NoiseConditionalScoreMatching`, from the samples (Song & Ermon 2020).

    The largest scale is the largest distance of two rows (technique 1), so that chains that start from noise reach all of the
    samples. The smallest is the median distance of a row to its nearest neighbour, divided by sqrt(d): its noise is about as
    long as the gaps between rows, below which the samples say nothing. The number of scales is the least at which neighbours
    overlap by half (technique 2),

        Phi(sqrt(2 d) (r - 1) + 3 r) - Phi(sqrt(2 d) (r - 1) - 3 r) >= 0.5,   r the ratio of two neighbours, and r <= 1.5.

    Distances are those of columns divided by their standard deviations sd_i, times S, the root mean square of the sd_i: those
    in [x] where the columns spread alike.

    Args:
        x: Samples, (n, d) or (n,), in [x].
        count: How many scales, from 2; by default see above.
        units: "x", to be given on as `NoiseConditionalScoreMatching(..., units="x")`; or "spread", divided by S.

    Returns:
        The scales, from the largest to the smallest.

    Raises:
        SamplesError: The samples cannot be used: a column is constant, or fewer than three rows differ.
        OptionError: The count is no whole number from 2, or the units are unknown.

    Cost: the distances of at most 2,000 rows, which take 32 MB.

    Example:
        >>> ladder = ismcore.noise_ladder([0.0, 1.0, 4.0], 3)
        >>> [round(scale, 12) for scale in ladder]
        [4.0, 2.0, 1.0]
    """
    if units not in ("x", "spread"):
        raise OptionError(f"units must be one of spread, x, not {units!r}")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 2):
        raise OptionError(f"count must be a whole number from 2, not {count!r}")
    samples = as_samples(x)
    check_spread(samples)
    coordinates = Coordinates.standardizing(samples)
    n, d = samples.shape
    some = np.random.default_rng(0).choice(n, ROWS, replace=False, shuffle=False) if n > ROWS else slice(None)
    largest, smallest = _distances(coordinates(samples[some]))
    smallest = min(smallest / math.sqrt(d), largest / WIDEST_RATIO)
    unit = 1.0
    if units == "x":
        top = float(coordinates.scale.max())
        unit = top * float(np.sqrt(np.mean((coordinates.scale / top) ** 2)))
    if count is None:
        count = 1 + math.ceil(math.log(largest / smallest) / math.log(_ratio(d)))
    return tuple(float(scale) for scale in np.geomspace(largest * unit, smallest * unit, max(2, count)))


def _distances(z: np.ndarray) -> tuple[float, float]:
    """The largest distance of two rows, and the median of the distances to the nearest row that differs."""
    squares = np.sum(z * z, axis=1)
    found = squares[:, None] + squares - 2.0 * (z @ z.T)
    largest = float(np.sqrt(found.max()))
    # below this a square is the rounding of the sums that it comes from
    found[found <= 1e-12 * squares.max()] = np.inf
    nearest = np.sqrt(found.min(axis=1))
    nearest = nearest[np.isfinite(nearest)]
    if len(np.unique(z, axis=0)) < 3 or not len(nearest):
        raise SamplesError("a ladder of noise scales needs at least three rows that differ")
    return largest, float(np.median(nearest))


def _overlap(ratio: float, d: int) -> float:
    """Technique 2's Phi(sqrt(2 d) (r - 1) + 3 r) - Phi(sqrt(2 d) (r - 1) - 3 r): 1 for one and the same scale."""
    shift = math.sqrt(2.0 * d) * (ratio - 1.0)
    return 0.5 * (math.erf((shift + 3.0 * ratio) / math.sqrt(2.0)) - math.erf((shift - 3.0 * ratio) / math.sqrt(2.0)))


def _ratio(d: int) -> float:
    """The largest ratio up to `WIDEST_RATIO` at which neighbours overlap by `OVERLAP`, by bisection."""
    low, high = 1.0, WIDEST_RATIO
    if _overlap(high, d) >= OVERLAP:
        return high
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _overlap(middle, d) >= OVERLAP else (low, middle)
    return low


def advice_on_ladder(scales: tuple[float, ...], spread: float, d: int, *, standardized: bool, units: str) -> tuple[str, ...]:
    """What is wrong with a ladder, in words.

    Args:
        scales: The ladder.
        spread: Root mean square of the columns' standard deviations, in the units of the scales.
        d: Columns.
        standardized: Whether the samples were standardised for training.
        units: Those of the scales, see `NoiseConditionalScoreMatching`.
    """
    found = []
    largest, smallest = max(scales), min(scales)
    other = "; they are relative to it: for scales in the samples' units pass units='x'" * (units == "spread" and standardized)
    if smallest > WIDE * spread:
        found.append(
            f"the smallest of the noise scales, {smallest:g}, is wider than the samples' spread, {spread:.3g}, so that only a "
            f"blur of their law is learnt{other}; ismcore.noise_ladder(x) makes a ladder"
        )
    if largest < SHORT * spread:
        found.append(
            f"the noise scales are too short a ladder: the largest, {largest:g}, is narrower than the samples' spread, "
            f"{spread:.3g}, so that chains that start from its noise do not reach all of them{other}; begin at the largest "
            "distance of two rows, as ismcore.noise_ladder(x) does"
        )
    ordered = sorted(scales)
    ratio = max((high / low for low, high in pairwise(ordered)), default=1.0)
    if _overlap(ratio, d) < COARSE:
        found.append(
            f"the noise scales are too coarse a ladder: two neighbours differ by a factor of {ratio:.3g}, and in d = {d} "
            f"noise of the one hardly ever lies where that of the other does; take a factor of {_ratio(d):.3g} or less, as "
            "ismcore.noise_ladder(x) does"
        )
    return tuple(found)
