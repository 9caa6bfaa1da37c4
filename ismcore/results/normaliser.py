"""The constant that makes a density of an energy: by quadrature in two dimensions, by importance sampling in more."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ismcore.errors import DensityUnavailable
from ismcore.seeds import stream
from ismcore.targets import GaussianMixture, fit_mixture
from ismcore.targets.density import log_sums

__all__ = ["Normaliser", "by_importance", "by_quadrature"]

Energy = Callable[[np.ndarray], np.ndarray]
"""U of points in the coordinates of training, (m, d) -> (m,)."""
Number = Callable[[np.ndarray], np.ndarray]
"""Numbers of the regions that points lie in, (m, d) -> (m,)."""
REACH = 1e3
"""How far from 0 a plane is integrated over, in standard deviations."""
FIRST_NODES, MOST_NODES = 128, 1024
CONVERGED, TOLERATED = 1e-6, 1e-3
"""Change of log Z from one grid to the next of half its steps: where the search ends, and what is tolerated on the finest."""
CONVERGED_PART, TOLERATED_PART = 1e-4, 1e-2
"""The same of log Z_r of each of several regions: where two meet the integrand has a step."""
PARTS = 16
"""Into so many equal ones, a square number, cells of a grid are parted where two regions meet, and of each of these again so
many are counted to the regions: there the integrand has a step, which matters where a poor fit leaves much in a gap."""
WIDER = 1.3
"""Factor on the covariances of the proposal, so that its tails lie above those of the law."""
DRAWS = 20_000
FEWEST, FEWEST_PART = 1000.0, 100.0
"""Effective draws below which the constant is not known, and below which that of one of several regions is not."""
BLOCK = 2**14
"""So many energies are found at once."""


@dataclass(frozen=True)
class Normaliser:
    """log Z = log int exp(-U(x)) dx, and how well it is known.

    Attributes:
        value: log Z, in the units of the samples.
        standard_error: Of the value; that of quadrature is its change from a grid to the next finer one, in one dimension that
            of the density in a mode relative to its peak there, and 0 where there is one mode.
        effective: Effective number of draws, (sum w)^2 / sum w^2 with w the importance weights; infinite for quadrature. Where
            modes lie apart the weights are those of the law in which each has its share of the samples.
        parts: log Z_r = log int_r exp(-U(x)) dx over the region of each of `FitResult.modes`, in their order; the sum of their
            exponentials is Z. Empty where there is one mode. The standard error is then the largest of theirs.
    """

    value: float
    standard_error: float
    effective: float = math.inf
    parts: tuple[float, ...] = ()


def by_quadrature(
    energy: Energy, lower: np.ndarray, upper: np.ndarray, number: Number | None = None, count: int = 1
) -> Normaliser:
    """Log Z in two dimensions: z = sinh(t) in each, and equal steps of t, halved until log Z no longer changes.

    Args:
        energy: U.
        lower: Where the law ends below, in each dimension, (2,); minus infinity where it has no edge.
        upper: Where it ends above, (2,).
        number: Regions that have a part of Z each; None where there is one.
        count: How many regions.

    Raises:
        DensityUnavailable: exp(-U) does not fall off, or is too narrow for the finest grid, in all or in a region, or much of
            it lies at a cut between regions: log Z still changes by 1e-3, or log Z_r by 1e-2.

    Cost: 2^14 energies, then four times as many, ..., up to 2^20; and on each grid 16 more in each cell where regions meet, of
        which 256 points are numbered.
    """
    nodes, before = FIRST_NODES, np.full(count, np.nan)
    while True:
        parts, edge = _on_grid(energy, lower, upper, nodes, number, count)
        with np.errstate(invalid="ignore"):  # of a part that is not there
            change = np.abs(parts - before)
            in_all = abs(float(np.logaddexp.reduce(parts) - np.logaddexp.reduce(before)))
        if (in_all < CONVERGED and change.max() < CONVERGED_PART) or nodes >= MOST_NODES:
            break
        nodes, before = 2 * nodes, parts
    if not np.isfinite(np.logaddexp.reduce(parts)) or edge.max() > TOLERATED:
        raise DensityUnavailable(
            "the fitted energy does not rise far away from the samples, so no constant normalises it: fit with more rows or "
            "epochs"
        )
    if not in_all < TOLERATED:
        raise DensityUnavailable(f"the fitted density is too narrow for its range: log Z still changes by {in_all:.1g}")
    change[np.isnan(change)] = np.inf
    if not change.max() < TOLERATED_PART:
        raise DensityUnavailable(
            f"the fitted density is too narrow for its range in {_mode(change)}, or much of it lies at a cut: log Z of it "
            f"still changes by {change.max():.1g}, and less than {TOLERATED_PART:g} is asked for; fit the rows of each mode by "
            "themselves"
        )
    return _of_parts(parts, float(change.max()))


def _mode(worst: np.ndarray) -> str:
    """The mode with the largest of these numbers, (R,), in words."""
    return f"mode {int(np.argmax(worst)) + 1} of the {len(worst)} in result.modes"


def _of_parts(parts: np.ndarray, standard_error: float, effective: float = math.inf) -> Normaliser:
    value = float(np.logaddexp.reduce(parts))
    return Normaliser(value, standard_error, effective, tuple(parts.tolist()) if len(parts) > 1 else ())


def _on_grid(
    energy: Energy, lower: np.ndarray, upper: np.ndarray, nodes: int, number: Number | None, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Log Z_r by so many nodes in each of two dimensions, and the share of Z_r far out, where there is no edge, both (R,).

    By the midpoint rule, in finer cells where regions meet, of which each has the part that lies in it.
    """
    first, last = (np.clip(np.arcsinh(end), -math.asinh(REACH), math.asinh(REACH)) for end in (lower, upper))
    step = (last - first) / nodes
    t = first + (np.arange(nodes) + 0.5)[:, None] * step
    t = np.stack([np.repeat(t[:, 0], nodes), np.tile(t[:, 1], nodes)], axis=1)
    rows, columns = (slice(int(np.isinf(a)), -1 if np.isinf(b) else None) for a, b in zip(lower, upper, strict=True))
    outer = np.ones((nodes, nodes), dtype=bool)
    outer[rows, columns] = False
    far, at = outer.ravel(), _numbered(number, np.sinh(t))  # whether a cell lies far out, and its region
    meet = _where_regions_meet(at.reshape(nodes, nodes))
    finer, whole = _parted(t[meet], step), int(np.sum(~meet))
    t = np.concatenate([t[~meet], finer])
    log_mass = np.log(np.cosh(t)).sum(axis=1) + np.log(step).sum() - _energies(energy, np.sinh(t))
    parts, beyond = _sums(log_mass[:whole], at[~meet], far[~meet], count)
    log_mass, far = log_mass[whole:] - 2.0 * math.log(PARTS), np.repeat(far[meet], PARTS)
    for k in range(0, len(finer), BLOCK // PARTS):
        some = slice(k, k + BLOCK // PARTS)
        at = _numbered(number, np.sinh(_parted(finer[some], step / math.isqrt(PARTS))))
        more = _sums(np.repeat(log_mass[some], PARTS), at, np.repeat(far[some], PARTS), count)
        parts, beyond = np.logaddexp(parts, more[0]), np.logaddexp(beyond, more[1])
    with np.errstate(invalid="ignore"):  # of a part that is not there
        return parts, np.nan_to_num(np.exp(beyond - parts))


def _sums(log_mass: np.ndarray, at: np.ndarray, far: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of the masses of each region, and of what of them lies far out, both (count,)."""
    return log_sums(log_mass, at, count), log_sums(log_mass[far], at[far], count)


def _parted(t: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Middles, (PARTS m, 2), of the equal parts of cells of this size, (2,), around t, (m, 2)."""
    middles = (np.arange(math.isqrt(PARTS)) + 0.5) / math.isqrt(PARTS) - 0.5
    parts = np.stack(np.meshgrid(middles, middles), axis=-1).reshape(-1, 2)
    return np.asarray((t[:, None] + parts * step).reshape(-1, 2))


def _where_regions_meet(at: np.ndarray) -> np.ndarray:
    """Which cells of a grid, (n, n), have a neighbour of another number, (n^2,)."""
    found = np.zeros(at.shape, dtype=bool)
    for cells, numbers in ((found, at), (found.T, at.T)):
        differ = numbers[1:] != numbers[:-1]
        cells[1:] |= differ
        cells[:-1] |= differ
    return found.ravel()


def _numbered(number: Number | None, points: np.ndarray) -> np.ndarray:
    return np.zeros(len(points), dtype=np.int64) if number is None else number(points)


def _energies(energy: Energy, points: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        found = np.concatenate([energy(points[k : k + BLOCK]) for k in range(0, len(points), BLOCK)])
    return np.where(np.isnan(found), np.inf, found)


def by_importance(
    energy: Energy, draws: np.ndarray, seed: int, number: Number | None = None, shares: np.ndarray | None = None
) -> Normaliser:
    """Log Z in any dimension: the mean of exp(-U) / q over draws of q, a Gaussian mixture fitted to draws of the law itself.

    Where there are R regions the mixture is the sum of those fitted to the draws in each, with weights share_r / 2 + 1 / (2 R),
    so that a small one has as many components as it needs, and draws enough. The covariances of q are 1.3 times those of the
    mixture, and a tenth of it is a normal law four times as wide as all draws, so that the weights are bounded where exp(-U)
    falls off as fast.

    Args:
        energy: U.
        draws: Draws of the law, (m, d), with those in each region at any share.
        seed: Of the draws of q.
        number: Regions that have a part of Z each; None where there is one.
        shares: Of the law in each region, (R,); None where there is one.

    Raises:
        DensityUnavailable: Fewer than 1,000 of 20,000 draws are effective, or fewer than 100 in one of several regions.

    Cost: 20,000 energies, and the mixtures.

    Source: Owen (2013), Monte Carlo theory, methods and examples, chapter 9.
    """
    proposal = _proposal(draws, _numbered(number, draws), shares)
    if proposal is None:
        raise DensityUnavailable(f"too few draws of the fitted law, {len(draws)}, for a mixture in d = {draws.shape[1]}")
    wide = np.atleast_2d(np.cov(draws.T)) * 4.0
    weights = np.concatenate([0.9 * proposal.weights, [0.1]])
    means = np.concatenate([proposal.means, draws.mean(axis=0)[None]])
    covariances = np.concatenate([WIDER * proposal.covariances, wide[None]])
    mixture = GaussianMixture(weights, means, covariances)
    points = mixture.sample(DRAWS, seed=int(stream(seed, "normaliser").integers(2**31)))
    log_w = -_energies(energy, points) - mixture.log_pdf(points)
    at, count = _numbered(number, points), 1 if shares is None else len(shares)
    sums, squares = log_sums(log_w, at, count), log_sums(2.0 * log_w, at, count)
    there = np.isfinite(sums)
    each = np.zeros(count)  # effective draws in each region
    each[there] = np.exp(2.0 * sums[there] - squares[there])
    effective = 1.0 / float(np.sum((1.0 if shares is None else shares**2) / each)) if there.all() else 0.0
    few = f"of {DRAWS} draws of a mixture beside the fitted law in d = {draws.shape[1]} are effective"
    if count > 1 and not each.min() >= FEWEST_PART:
        raise DensityUnavailable(
            f"only {each.min():.0f} {few} in {_mode(-each)}, and {FEWEST_PART:.0f} are asked for: the constant of its density "
            "there is not known; fit the rows of each mode by themselves"
        )
    if not effective >= FEWEST:
        raise DensityUnavailable(
            f"only {effective:.0f} {few}, and {FEWEST:.0f} are asked for: the constant of its density is not known"
        )
    error = math.sqrt(max(0.0, float((1.0 / each).max()) - 1.0 / DRAWS))
    return _of_parts(sums - math.log(DRAWS), error, effective)


def _proposal(draws: np.ndarray, at: np.ndarray, shares: np.ndarray | None) -> GaussianMixture | None:
    """The mixtures of the draws in each region, joined; where one has too few, or all at one place, that of all draws."""
    if shares is None:
        return fit_mixture(draws, fewest=1)
    fitted = []
    for region in range(len(shares)):
        own = draws[at == region]
        spread = len(own) > 1 and np.linalg.matrix_rank(np.cov(own.T)) == draws.shape[1]
        fitted.append(fit_mixture(own, fewest=1) if spread else None)
    found = [(mixture, 0.5 * share + 0.5 / len(shares)) for mixture, share in zip(fitted, shares, strict=True) if mixture]
    if len(found) < len(shares):
        return fit_mixture(draws, fewest=1)
    return GaussianMixture(
        np.concatenate([weight * mixture.weights for mixture, weight in found]),
        np.concatenate([mixture.means for mixture, _ in found]),
        np.concatenate([mixture.covariances for mixture, _ in found]),
    )
