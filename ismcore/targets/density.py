"""From a score in one dimension to a density, and how far a fit is from a known target."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ismcore.errors import DensityUnavailable, OptionError, SamplesError

__all__ = ["LogDensity", "density_error", "density_from_score", "fisher_divergence", "integrate_score", "log_sums"]

FARTHEST = 2.0**20
"""How far from 0 the real line is looked at, in standard deviations: the tail of a Cauchy law beyond it is 6e-7."""
FIRST_NODES, MOST_NODES = 2**12, 2**17
CONVERGED, TOLERATED = 1e-7, 1e-3
"""Change of the density, relative to its mode, between one grid and the next of half its steps: where the search ends, and
what is tolerated on the finest grid."""
CONVERGED_PART, TOLERATED_PART = 1e-4, 1e-2
"""The same of each of several regions, in which the density is of mass 1."""
PARTS = 256
"""Into so many equal ones an interval is parted where two regions meet: there the integrand has a step."""
OUTSIDE = 1e-3
"""Most of the mass, or of that of a region, that the ends of the line may hold."""
ROUNDING = 1e-6
"""How far beyond an end a point may lie by rounding, in steps of the grid."""


def density_from_score(score: Any, grid: Any, *, method: str = "trapezoid") -> np.ndarray:
    """The normalised density whose score is given on a grid in one dimension.

        log p(x_k) = sum_{j < k} (s_j + s_{j+1}) / 2 * (x_{j+1} - x_j) + constant,   normalised on the grid

    Args:
        score: s = (log p)' at the grid points, (m,), in 1/[x].
        grid: The points, (m,), increasing, at least two, in [x]. They must cover the density: what lies outside counts 0.
        method: "trapezoid", above, with an error of second order in the step; "rectangle",
            p_k = exp(sum_{j <= k} s_j h) / (h sum_k ...) with one step h, the rule of the reference tutorial, which is of
            first order and off by 4 % in L1 on the reference target even with its exact score.

    Returns:
        The density at the grid points, (m,), in 1/[x].

    Raises:
        OptionError: An unknown method, or "rectangle" on a grid with unequal steps.
        SamplesError: The grid does not increase, or the score is not finite or of another length.

    Example:
        >>> grid = np.linspace(-8.0, 8.0, 161)
        >>> p = ismcore.density_from_score(-grid, grid)         # the standard normal
        >>> round(float(p[80] * np.sqrt(2 * np.pi)), 4)
        1.0
    """
    points, values = np.asarray(grid, dtype=np.float64), np.asarray(score, dtype=np.float64)
    steps = np.diff(points)
    if points.ndim != 1 or len(points) < 2 or not np.all(steps > 0.0) or not np.all(np.isfinite(points)):
        raise SamplesError(f"the grid must be one-dimensional, finite and increasing; got shape {points.shape}")
    if values.shape != points.shape or not np.all(np.isfinite(values)):
        raise SamplesError(f"the score must be finite and of the grid's shape {points.shape}; got {values.shape}")
    if method == "trapezoid":
        log_p = np.concatenate([[0.0], np.cumsum(0.5 * (values[1:] + values[:-1]) * steps)])
        p = np.exp(log_p - log_p.max())
        return np.asarray(p / np.trapezoid(p, points))
    if method == "rectangle":
        if not np.allclose(steps, steps[0]):
            raise OptionError("method='rectangle' needs a grid with equal steps; use 'trapezoid'")
        log_p = np.cumsum(values) * steps[0]
        p = np.exp(log_p - log_p.max())
        return np.asarray(p / (p.sum() * steps[0]))
    raise OptionError(f"method must be 'trapezoid' or 'rectangle', not {method!r}")


@dataclass(frozen=True, eq=False)
class LogDensity:
    """A normalised log-density in one dimension on nodes z = sinh(t), with its slope there.

    Attributes:
        t: Nodes, (m,), with equal steps.
        log_p: log p(sinh t), (m,).
        slope: d log p(sinh t) / dt, (m,).
        change_in_part: Largest change of the density in a region, in which it is of mass 1, relative to its mode there, from
            the grid of twice the steps to this one; 0 where there is one region.
    """

    t: np.ndarray
    log_p: np.ndarray
    slope: np.ndarray
    change_in_part: float = 0.0

    def __call__(self, z: np.ndarray) -> np.ndarray:
        """The log-density at z, (n,), by cubic Hermite interpolation between the nodes; minus infinity beyond them.

        An end is met up to rounding.
        """
        t, h = np.arcsinh(z), self.t[1] - self.t[0]
        k = np.clip(np.searchsorted(self.t, t, side="right") - 1, 0, len(self.t) - 2)
        u = (t - self.t[k]) / h
        left, right = self.log_p[k], self.log_p[k + 1]
        slopes = u * (1.0 - u) ** 2 * h * self.slope[k] - u**2 * (1.0 - u) * h * self.slope[k + 1]
        inside = left + (3.0 - 2.0 * u) * u**2 * (right - left) + slopes
        return np.where((u >= -ROUNDING) & (u <= 1.0 + ROUNDING), inside, -np.inf)

    def log_masses(self, number: Callable[[np.ndarray], np.ndarray], count: int) -> np.ndarray:
        """Logarithms of the masses of regions of the line, (count,), which `number` numbers points z by, (m,) -> (m,).

        By the trapezoid rule, and where two regions meet by the midpoint rule in 256 parts of the interval, which count each to
        the region of its middle; the density there is interpolated.
        """
        h, at = self.t[1] - self.t[0], number(np.sinh(self.t))
        whole = at[1:] == at[:-1]
        width = 0.5 * h * (np.append(0.0, whole) + np.append(whole, 0.0))
        middles = np.sinh(self.t[:-1][~whole, None] + h * (np.arange(PARTS) + 0.5) / PARTS).ravel()
        z, log_p = np.append(np.sinh(self.t), middles), np.append(self.log_p, self(middles))
        width, at = np.append(width, np.full(len(middles), h / PARTS)), np.append(at, number(middles))
        some = width > 0.0
        log_mass = log_p[some] + 0.5 * np.log1p(z[some] ** 2) + np.log(width[some])
        return log_sums(log_mass, at[some], count)


def log_sums(values: np.ndarray, number: np.ndarray, count: int) -> np.ndarray:
    """Log sum exp of the values, (m,), of each of so many numbers, (count,); minus infinity of none."""
    found = np.full(count, -np.inf)
    for k in range(count):
        some = values[number == k]
        top = some.max(initial=-np.inf)
        if top > -np.inf:
            found[k] = top + np.log(np.exp(some - top).sum())
    return found


def integrate_score(
    score: Callable[[np.ndarray], np.ndarray],
    lower: float = -math.inf,
    upper: float = math.inf,
    number: Callable[[np.ndarray], np.ndarray] | None = None,
    count: int = 1,
) -> LogDensity:
    """The normalised density on the real line whose score is given as a function, in standardised coordinates.

        log p(z) = int_0^z s(u) du - log Z,   z = sinh(t), so that t in equal steps resolves the middle and reaches the tails

    by Simpson's rule in t, with steps that are halved until the density no longer changes.

    Args:
        score: s = (log p)', (m,) -> (m,), of a law of about unit scale around 0.
        lower: Where the law ends below, in the units of z; it need not fall to 0 there.
        upper: Where it ends above.
        number: Numbers of regions, (m,) -> (m,), in each of which the density is to be known, however little of it is there;
            None for one.
        count: How many regions.

    Raises:
        DensityUnavailable: The density does not fall off towards +-2^20; or a million nodes do not resolve it, or a region.

    Cost: 8,193 scores and twice that, four times that, ... until it has converged; at most half a million.

    Example:
        >>> p = integrate_score(lambda z: -z)               # the standard normal
        >>> round(float(np.exp(p(np.array([0.0]))[0]) * np.sqrt(2.0 * np.pi)), 9)
        1.0
    """
    farthest, ends = math.asinh(FARTHEST), np.array([lower, upper])
    reach = (max(math.asinh(lower), -farthest), min(math.asinh(upper), farthest))
    coarse, nodes = _on_grid(score, reach, FIRST_NODES), FIRST_NODES
    while True:
        nodes *= 2
        fine = _on_grid(score, reach, nodes)
        change, change_in_part = _change(coarse, fine), _change_in_part(coarse, fine, number, count)
        if (change < CONVERGED and change_in_part < CONVERGED_PART) or nodes >= MOST_NODES:
            break
        coarse = fine
    last = fine.log_p[[0, -1]]
    if number is not None:
        last = last - fine.log_masses(number, count)[number(np.sinh(fine.t[[0, -1]]))]
    with np.errstate(over="ignore"):
        beyond = np.where(np.isinf(ends), np.exp(last) * FARTHEST, 0.0)
    if not np.isfinite(fine.log_p).all() or not beyond.max() < OUTSIDE:
        raise DensityUnavailable(
            "the fitted score does not lead back to the samples from far away, so no constant normalises its density: fit with "
            "more rows or epochs, or use ismcore.density_from_score(result.score(grid)[:, 0], grid), which normalises on a grid"
        )
    if not change < TOLERATED:
        raise DensityUnavailable(
            f"the fitted density is too narrow for its range: with {nodes} nodes it still changes by {change:.1g} of its mode; "
            "fit with standardize=True, or use ismcore.density_from_score on a grid of your own"
        )
    if not change_in_part < TOLERATED_PART:
        raise DensityUnavailable(
            f"the fitted density is too narrow for its range in one of {count} modes, or much of it lies at a cut: with "
            f"{nodes} nodes it still changes by {change_in_part:.1g} there, and less than {TOLERATED_PART:g} is asked for; fit "
            "the rows of each by themselves"
        )
    return replace(fine, change_in_part=change_in_part)


def _change(coarse: LogDensity, fine: LogDensity) -> float:
    """Largest change of the density, relative to its mode, to a grid of half the steps."""
    return float(np.abs(np.exp(fine.log_p[::2]) - np.exp(coarse.log_p)).max() * np.exp(-fine.log_p.max()))


def _change_in_part(
    coarse: LogDensity, fine: LogDensity, number: Callable[[np.ndarray], np.ndarray] | None, count: int
) -> float:
    """The same of the density in each of several regions, which is of mass 1 there; infinite where no node lies in one."""
    if number is None:
        return 0.0
    at, parts, top = number(np.sinh(fine.t)), [], np.full(count, -np.inf)
    for line, there in ((coarse, at[::2]), (fine, at)):
        masses = line.log_masses(number, count)
        if not np.isfinite(masses).all():
            return math.inf
        parts.append(line.log_p - masses[there])
    before, after = parts
    np.maximum.at(top, at, after)
    with np.errstate(over="ignore"):
        return float(np.abs(np.exp(after[::2] - top[at[::2]]) - np.exp(before - top[at[::2]])).max())


def _on_grid(score: Callable[[np.ndarray], np.ndarray], reach: tuple[float, float], intervals: int) -> LogDensity:
    """The density on this many equal steps of t, each with its midpoint for Simpson's rule."""
    t = np.linspace(*reach, 2 * intervals + 1)
    slope = score(np.sinh(t)) * np.cosh(t)
    h = t[2] - t[0]
    steps = (slope[:-1:2] + 4.0 * slope[1::2] + slope[2::2]) * (h / 6.0)
    middle = int(
        np.argmin(np.abs(t[::2]))
    )  # from where the sums begin: from an end they would carry the rounding of the farthest tail along
    log_p = np.concatenate([-np.cumsum(steps[:middle][::-1])[::-1], [0.0], np.cumsum(steps[middle:])])
    log_p -= log_p.max()
    nodes, slope = t[::2], slope[::2]
    weight = np.exp(log_p) * np.cosh(nodes)
    return LogDensity(nodes, log_p - np.log(np.trapezoid(weight, nodes)), slope)


def fisher_divergence(score_fn: Callable[[np.ndarray], np.ndarray], target: Any, grid: Any) -> float:
    """E_p |psi - score|^2 under a one-dimensional target, by the trapezoid rule on a grid; no factor 1/2; in 1/[x]^2.

    Args:
        score_fn: The fitted score, (n, 1) -> (n, 1).
        target: Has `pdf` and `score`, such as `ismcore.targets.GaussianMixture`.
        grid: Points that cover the target, (m,), increasing.
    """
    points = np.asarray(grid, dtype=np.float64)[:, None]
    gap = np.sum((score_fn(points) - target.score(points)) ** 2, axis=1)
    return float(np.trapezoid(target.pdf(points) * gap, points[:, 0]))


def density_error(density: np.ndarray, target: Any, grid: Any) -> float:
    """L1 distance int |p - target| dx of a density on a grid from a one-dimensional target, by the trapezoid rule."""
    points = np.asarray(grid, dtype=np.float64)
    return float(np.trapezoid(np.abs(density - target.pdf(points[:, None])), points))
