"""Mixtures of normal laws."""

from __future__ import annotations

from typing import Any

import numpy as np

from ismcore.errors import OptionError
from ismcore.samples.checks import as_samples
from ismcore.seeds import stream

__all__ = ["GaussianMixture"]


class GaussianMixture:
    """p(x) = sum_k w_k N(x; mu_k, Sigma_k), in any dimension, right in value and score however far from the means.

    Args:
        weights: w, (k,), positive; they are divided by their sum.
        means: mu, (k, d), or (k,) for d = 1, in units [x].
        covariances: Sigma in [x]^2: (k, d, d), or (k,) for Sigma_k = covariances[k] * identity.

    Raises:
        OptionError: Shapes that do not fit together, a weight that is not positive, a covariance that is not symmetric
            and positive definite.

    Example:
        >>> target = ismcore.targets.GaussianMixture([0.1, 0.9], [-3.0, 3.0], [1.0, 1.0])
        >>> round(float(target.score([[0.0]])[0, 0]), 12)
        2.4
    """

    def __init__(self, weights: Any, means: Any, covariances: Any) -> None:
        w = np.asarray(weights, dtype=np.float64)
        mu = np.asarray(means, dtype=np.float64)
        mu = mu[:, None] if mu.ndim == 1 else mu
        if w.ndim != 1 or mu.ndim != 2 or len(mu) != len(w):
            raise OptionError(f"weights (k,) and means (k, d) must go together; got {w.shape} and {np.shape(means)}")
        if not np.all(w > 0.0) or not np.all(np.isfinite(w)) or not np.all(np.isfinite(mu)):
            raise OptionError("weights must be positive, and weights and means finite")
        k, d = mu.shape
        sigma = np.asarray(covariances, dtype=np.float64)
        sigma = sigma[:, None, None] * np.eye(d) if sigma.shape == (k,) else sigma
        if sigma.shape != (k, d, d):
            raise OptionError(f"covariances must have shape {(k, d, d)} or {(k,)}; got {np.shape(covariances)}")
        if not np.allclose(sigma, sigma.transpose(0, 2, 1), rtol=1e-12, atol=0.0):
            raise OptionError("covariances must be symmetric")
        try:
            self._factor = np.linalg.cholesky(sigma)
        except np.linalg.LinAlgError:
            raise OptionError("covariances must be positive definite") from None
        self.weights, self.means, self.covariances = w / w.sum(), mu, sigma
        self._precision = np.linalg.inv(sigma)
        self._log_norm = np.log(self.weights) - np.log(np.diagonal(self._factor, axis1=1, axis2=2)).sum(axis=1)
        self._log_norm -= 0.5 * d * np.log(2.0 * np.pi)

    @property
    def d(self) -> int:
        """Dimension."""
        return int(self.means.shape[1])

    def _parts(self, x: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log p (n,); responsibilities (n, k); scores of the components (n, k, d)."""
        points = as_samples(x, d=self.d)
        gap = points[:, None, :] - self.means
        scores = -np.einsum("kij,nkj->nki", self._precision, gap)
        log_joint = self._log_norm + 0.5 * np.einsum("nki,nki->nk", scores, gap)
        peak = log_joint.max(axis=1, keepdims=True)
        joint = np.exp(log_joint - peak)
        total = joint.sum(axis=1, keepdims=True)
        return (peak + np.log(total))[:, 0], joint / total, scores

    def log_pdf(self, x: Any) -> np.ndarray:
        """Log p(x), (n,), for x of shape (n, d) or, with d = 1, (n,)."""
        return self._parts(x)[0]

    def pdf(self, x: Any) -> np.ndarray:
        """p(x), (n,), in 1/[x]^d; underflows to 0 far out, where `log_pdf` does not."""
        return np.asarray(np.exp(self.log_pdf(x)))

    def score(self, x: Any) -> np.ndarray:
        """Gradient of log p, (n, d), in 1/[x]: the components' scores, weighted by their responsibilities."""
        _, share, scores = self._parts(x)
        return np.asarray(np.einsum("nk,nki->ni", share, scores))

    def divergence(self, x: Any) -> np.ndarray:
        """Divergence of the score, the Laplacian of log p, (n,), in 1/[x]^2; without the Jacobians of `jacobian`.

        With responsibilities r_k and scores s_k of the components: sum_k r_k (|s_k|^2 - tr Sigma_k^-1) - |s|^2.
        """
        _, share, scores = self._parts(x)
        squares = np.sum(scores * scores, axis=2) - np.trace(self._precision, axis1=1, axis2=2)
        score = np.einsum("nk,nki->ni", share, scores)
        return np.asarray(np.sum(share * squares, axis=1) - np.sum(score * score, axis=1))

    def jacobian(self, x: Any) -> np.ndarray:
        """Jacobian of the score, the Hessian of log p, (n, d, d), in 1/[x]^2.

        With responsibilities r_k and scores s_k of the components: sum_k r_k (s_k - s)(s_k - s)^T - sum_k r_k Sigma_k^-1.
        """
        _, share, scores = self._parts(x)
        gap = scores - np.einsum("nk,nki->ni", share, scores)[:, None, :]
        spread = np.einsum("nk,nki,nkj->nij", share, gap, gap)
        return np.asarray(spread - np.einsum("nk,kij->nij", share, self._precision))

    def sample(self, n: int, seed: int = 0) -> np.ndarray:
        """Draw n samples, (n, d), from the stream "sample" of the seed."""
        rng = stream(seed, "sample")
        component = rng.choice(len(self.weights), size=n, p=self.weights)
        noise = rng.standard_normal((n, self.d))
        return np.asarray(self.means[component] + np.einsum("nij,nj->ni", self._factor[component], noise))
