"""The constant that makes a density of an energy: by quadrature in two dimensions, by importance sampling in more."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ismcore.errors import DensityUnavailable
from ismcore.seeds import stream
from ismcore.targets import fit_mixture

__all__ = ["Normaliser", "by_importance", "by_quadrature"]

Energy = Callable[[np.ndarray], np.ndarray]
"""U of points in the coordinates of training, (m, d) -> (m,)."""
REACH = 1e3
"""How far from 0 a plane is integrated over, in standard deviations."""
FIRST_NODES, MOST_NODES = 128, 1024
CONVERGED, TOLERATED = 1e-6, 1e-3
"""Change of log Z from one grid to the next of half its steps: where the search ends, and what is tolerated on the finest."""
WIDER = 1.3
"""Factor on the covariances of the proposal, so that its tails lie above those of the law."""
DRAWS = 20_000
FEWEST = 500.0
"""Effective draws below which the constant is not known."""
BLOCK = 2**14
"""So many energies are found at once."""


@dataclass(frozen=True)
class Normaliser:
    """log Z = log int exp(-U(x)) dx, and how well it is known.

    Attributes:
        value: log Z, in the units of the samples.
        standard_error: Of the value; that of quadrature is its change from a grid to the next finer one.
        effective: Effective number of draws, (sum w)^2 / sum w^2 with w the importance weights; infinite for quadrature.
    """

    value: float
    standard_error: float
    effective: float = math.inf


def by_quadrature(energy: Energy, lower: np.ndarray, upper: np.ndarray) -> Normaliser:
    """Log Z in two dimensions: z = sinh(t) in each, and equal steps of t, halved until log Z no longer changes.

    Args:
        energy: U.
        lower: Where the law ends below, in each dimension, (2,); minus infinity where it has no edge.
        upper: Where it ends above, (2,).

    Raises:
        DensityUnavailable: exp(-U) does not fall off, or is too narrow for the finest grid.

    Cost: 2^14 energies, then four times as many, ...; at most 2^20.
    """
    nodes, before = FIRST_NODES, math.nan
    while True:
        value, edge = _on_grid(energy, lower, upper, nodes)
        change = abs(value - before)
        if change < CONVERGED or nodes >= MOST_NODES:
            break
        nodes, before = 2 * nodes, value
    if not math.isfinite(value) or edge > TOLERATED:
        raise DensityUnavailable(
            "the fitted energy does not rise far away from the samples, so no constant normalises it: fit with more rows or "
            "epochs"
        )
    if not change < TOLERATED:
        raise DensityUnavailable(f"the fitted density is too narrow for its range: log Z still changes by {change:.1g}")
    return Normaliser(value, change)


def _on_grid(energy: Energy, lower: np.ndarray, upper: np.ndarray, nodes: int) -> tuple[float, float]:
    """Log Z by so many nodes in each of two dimensions, and the share of the mass far out, where there is no edge."""
    first, last = (np.clip(np.arcsinh(end), -math.asinh(REACH), math.asinh(REACH)) for end in (lower, upper))
    step = (last - first) / nodes
    t = first + (np.arange(nodes) + 0.5)[:, None] * step
    z, log_weight = np.sinh(t), np.log(np.cosh(t)) + np.log(step)
    points = np.stack([np.repeat(z[:, 0], nodes), np.tile(z[:, 1], nodes)], axis=1)
    log_mass = (log_weight[:, :1] + log_weight[:, 1]).ravel() - _energies(energy, points)
    top = log_mass.max()
    mass = np.exp(log_mass - top).reshape(nodes, nodes)
    total = mass.sum()
    rows, columns = (slice(int(np.isinf(a)), -1 if np.isinf(b) else None) for a, b in zip(lower, upper, strict=True))
    return float(top + np.log(total)), float(1.0 - mass[rows, columns].sum() / total)


def _energies(energy: Energy, points: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        found = np.concatenate([energy(points[k : k + BLOCK]) for k in range(0, len(points), BLOCK)])
    return np.where(np.isnan(found), np.inf, found)


def by_importance(energy: Energy, draws: np.ndarray, seed: int) -> Normaliser:
    """Log Z in any dimension: the mean of exp(-U) / q over draws of q, a Gaussian mixture fitted to draws of the law itself.

    The covariances of q are 1.3 times those of the mixture, and a tenth of it is a normal law four times as wide as all draws,
    so that the weights are bounded where exp(-U) falls off as fast.

    Args:
        energy: U.
        draws: Draws of the law, (m, d).
        seed: Of the draws of q.

    Raises:
        DensityUnavailable: Fewer than 500 of 20,000 draws are effective.

    Cost: 20,000 energies, and the mixture.

    Source: Owen (2013), Monte Carlo theory, methods and examples, chapter 9.
    """
    proposal = fit_mixture(draws, fewest=1)
    if proposal is None:
        raise DensityUnavailable(f"too few draws of the fitted law, {len(draws)}, for a mixture in d = {draws.shape[1]}")
    wide = np.atleast_2d(np.cov(draws.T)) * 4.0
    weights = np.concatenate([0.9 * proposal.weights, [0.1]])
    means = np.concatenate([proposal.means, draws.mean(axis=0)[None]])
    covariances = np.concatenate([WIDER * proposal.covariances, wide[None]])
    mixture = type(proposal)(weights, means, covariances)
    points = mixture.sample(DRAWS, seed=int(stream(seed, "normaliser").integers(2**31)))
    log_w = -_energies(energy, points) - mixture.log_pdf(points)
    top = log_w.max()
    w = np.exp(log_w - top)
    effective = float(w.sum() ** 2 / (w @ w)) if np.isfinite(top) else 0.0
    if not effective >= FEWEST:
        raise DensityUnavailable(
            f"only {effective:.0f} of {DRAWS} draws of a mixture beside the fitted law in d = {draws.shape[1]} are effective, "
            f"and {FEWEST:.0f} are asked for: the constant of its density is not known"
        )
    value = float(top + np.log(w.mean()))
    return Normaliser(value, math.sqrt(max(0.0, 1.0 / effective - 1.0 / DRAWS)), effective)
