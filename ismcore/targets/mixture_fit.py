"""The mixture of normal laws of the greatest likelihood, by expectation maximisation."""

from __future__ import annotations

import numpy as np

from ismcore.seeds import stream
from ismcore.targets.mixture import GaussianMixture

__all__ = ["fit_mixture"]

COMPONENTS = (1, 2, 3, 4, 6, 8, 12, 16, 25)
"""Numbers of components that are tried, in one and two columns."""
FEW_COMPONENTS = (1, 2, 3, 4, 6)
"""And in more columns."""
RIDGE = 1e-5
"""Added to each variance of whitened samples, so that no component falls onto a row."""
ROUNDS, GAIN = 100, 1e-3
"""At most so many rounds, until one gains less log-likelihood a row."""
STARTS = 3
"""So many maxima are looked for with each number of components."""
ROWS = 10_000
"""At most so many rows, drawn by a fixed seed, are fitted."""


def fit_mixture(x: np.ndarray, fewest: int = 2, weight: np.ndarray | None = None) -> GaussianMixture | None:
    """The mixture of k normal laws with the lowest BIC; None where the rows are too few for the fewest of them.

    BIC = p log n - 2 log L with the p = k (d + 1)(d + 2) / 2 - 1 free parameters and the maximum L of the likelihood, which
    expectation maximisation from centres drawn by k-means++ finds locally. k is at most 25, or 6 for d > 2, and no
    more than rows allow: k d (d + 3) / 2 <= n.

    Args:
        x: Samples, (n, d), of some spread in each direction.
        fewest: The least k, so that a competitor of a normal law is another law.
        weight: Row weights w, (n,), of sum 1, for L = prod_i p(x_i)^(n w_i), n = 1 / sum_i w_i^2; 1/n if None.

    Source: Dempster, Laird and Rubin (1977), JRSS B 39:1-38; Schwarz (1978), Ann. Stat. 6:461-464; Arthur and Vassilvitskii
        (2007), SODA, for the centres.

    Cost: about k d^2 n operations a round, at most 100 rounds for each k, and three starts; n is 10,000 at most.

    Example:
        >>> x = GaussianMixture([0.3, 0.7], [-4.0, 4.0], [1.0, 1.0]).sample(2000, seed=1)
        >>> len(fit_mixture(x).weights)
        2
    """
    draws = stream(0, "mixture")
    shares = np.full(len(x), 1.0 / len(x)) if weight is None else weight
    if len(x) > ROWS:
        some = draws.choice(len(x), ROWS, replace=False)
        x, shares = x[some], shares[some] / shares[some].sum()
    n, d = 1.0 / float(shares @ shares), x.shape[1]
    mean, root = shares @ x, np.linalg.cholesky(np.atleast_2d(np.cov(x.T, aweights=shares)))
    z = np.linalg.solve(root, (x - mean).T).T
    found = []
    for k in COMPONENTS if d <= 2 else FEW_COMPONENTS:
        if k < fewest:
            continue
        if k * d * (d + 3) / 2 > n:
            break
        free = k * (d + 1) * (d + 2) / 2 - 1
        starts = (_maximised(z, n * shares, k, draws) for _ in range(STARTS))
        found += [(free * np.log(n) - 2.0 * log_likelihood, parts) for parts, log_likelihood in starts]
    if not found:
        return None
    weights, means, covariances = min(found, key=lambda pair: pair[0])[1]
    covariances = root @ covariances @ root.T
    return GaussianMixture(weights, means @ root.T + mean, (covariances + covariances.transpose(0, 2, 1)) / 2.0)


Parts = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Weights (k,), means (k, d) and covariances (k, d, d)."""


def _maximised(z: np.ndarray, counts: np.ndarray, k: int, draws: np.random.Generator) -> tuple[Parts, float]:
    """A local maximum of the likelihood of whitened samples z, (n, d), that count so often, (n,), and its logarithm."""
    n, d = counts.sum(), z.shape[1]
    share = counts[:, None] * np.eye(k)[_square_distances(z, _centres(z, counts, k, draws)).argmin(axis=1)]
    before = -np.inf
    for _ in range(ROUNDS):
        mass = share.sum(axis=0) + 1e-9
        means = share.T @ z / mass[:, None]
        away = z[:, None, :] - means
        covariances = np.einsum("nk,nki,nkj->kij", share, away, away, optimize=True) / mass[:, None, None]
        covariances += RIDGE * np.eye(d)
        joint = _log_joint(away, mass / mass.sum(), covariances)
        total = np.logaddexp.reduce(joint, axis=1)
        share, log_likelihood = counts[:, None] * np.exp(joint - total[:, None]), float(counts @ total)
        if log_likelihood - before < GAIN * n:
            break
        before = log_likelihood
    return (mass / mass.sum(), means, covariances), log_likelihood


def _centres(z: np.ndarray, counts: np.ndarray, k: int, draws: np.random.Generator) -> np.ndarray:
    """K rows, each further one drawn with odds of its squared distance from those before, times how often it counts."""
    centres = z[[draws.integers(len(z))]]
    while len(centres) < k:
        odds = counts * _square_distances(z, centres).min(axis=1)
        centres = np.vstack([centres, z[[draws.choice(len(z), p=odds / odds.sum())]]])
    return centres


def _square_distances(z: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.asarray(((z[:, None, :] - centres) ** 2).sum(axis=2))


def _log_joint(away: np.ndarray, weights: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """Log w_k N(z; mu_k, Sigma_k), (n, k), from z - mu_k, (n, k, d)."""
    factors = np.linalg.cholesky(covariances)
    scaled = np.linalg.solve(factors, away.transpose(1, 2, 0))  # (k, d, n)
    log_norm = np.log(weights) - np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    constant = 0.5 * away.shape[2] * np.log(2.0 * np.pi)
    return np.asarray(log_norm - constant - 0.5 * (scaled**2).sum(axis=1).T)
