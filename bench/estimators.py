"""Estimators of the score that a fit has to beat: from rows (n, d) to a function of points (m, d) that gives scores (m, d).

All work on rows whitened by their own covariance, so that none depends on the units. The flow needs torch and zuko, which are
no dependencies: it is left out where they are not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

from ismcore.targets import fit_mixture

Array = np.ndarray
Score = Callable[[Array], Array]
BLOCK = 1000


class Whitening:
    """z = ((x - mean) / sd) A with A the symmetric root of the inverse correlation; score_x = score_z A / sd."""

    def __init__(self, x: Array) -> None:
        self.mean, self.sd = x.mean(axis=0), x.std(axis=0, ddof=1)
        values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(((x - self.mean) / self.sd).T)))
        values = np.maximum(values, 1e-10 * values.max())
        self.root = (vectors / np.sqrt(values)) @ vectors.T

    def __call__(self, x: Array) -> Array:
        return (x - self.mean) / self.sd @ self.root

    def score(self, of_z: Score) -> Score:
        def score(x: Array) -> Array:
            return np.vstack([of_z(self(x[i : i + BLOCK])) for i in range(0, len(x), BLOCK)]) @ self.root / self.sd

        return score


def square_distances(a: Array, b: Array) -> Array:
    return np.maximum(np.sum(a * a, axis=1)[:, None] - 2.0 * a @ b.T + np.sum(b * b, axis=1), 0.0)


def normal_law(x: Array) -> Score:
    """-(x - mean) times the inverse covariance."""
    return Whitening(x).score(lambda z: -z)


def kernel_density(x: Array) -> Score:
    """Score of a Gaussian kernel density, its width by the leave-one-out likelihood of 600 rows."""
    white = Whitening(x)
    z = white(x)
    n, d = z.shape
    widths = (4.0 / (d + 2) / n) ** (1.0 / (d + 4)) * np.geomspace(0.08, 2.0, 14)
    some = np.random.default_rng(0).permutation(n)[:600]
    away = square_distances(z[some], z)
    away[np.arange(len(some)), some] = np.inf  # the row itself

    def likelihood(h: float) -> float:
        return float(np.mean(np.log(np.maximum(np.exp(-away / 2.0 / h**2).sum(axis=1), 1e-300))) - d * np.log(h))

    h = max(widths, key=likelihood)

    def score(w: Array) -> Array:
        logs = -square_distances(w, z) / 2.0 / h**2
        share = np.exp(logs - logs.max(axis=1, keepdims=True))
        return (share / share.sum(axis=1, keepdims=True) @ z - w) / h**2

    return white.score(score)


def gaussian_mixture(x: Array) -> Score:
    """A mixture by BIC, as `FitResult.check` has it for a competitor, but of one component where BIC prefers that."""
    white = Whitening(x)
    found = fit_mixture(white(x), fewest=1)
    return normal_law(x) if found is None else white.score(found.score)


def spectral_stein(x: Array) -> Score:
    """Spectral Stein gradient estimator: RBF kernel of the median width, eigenvalues up to 99 % of their sum, 1000 rows.

    Source: Shi, Sun and Zhu (2018), ICML.
    """
    white = Whitening(x)
    z = white(x)
    z = z[np.random.default_rng(0).permutation(len(z))[:1000]]
    n, d = z.shape
    width = np.sqrt(np.median(square_distances(z[:300], z[:300])))
    kernel = np.exp(-square_distances(z, z) / 2.0 / width**2)
    values, vectors = (found[..., ::-1] for found in np.linalg.eigh(kernel))
    kept = int(np.searchsorted(np.cumsum(values) / values.sum(), 0.99)) + 1
    functions = np.sqrt(n) * vectors[:, :kept] / values[:kept]
    slopes = np.stack([(kernel @ (z[:, [i]] * functions) - z[:, [i]] * (kernel @ functions)) / width**2 for i in range(d)], 2)
    beta = -slopes.mean(axis=0)
    return white.score(lambda w: np.exp(-square_distances(w, z) / 2.0 / width**2) @ functions @ beta)


def flow(x: Array, steps: int = 600, splines: bool | None = None) -> Score:
    """Neural spline flow (None: where d <= 10) or masked autoregressive flow by zuko, stopped by a held-out fifth."""
    import torch
    import zuko

    torch.manual_seed(0)
    mean, sd = x.mean(axis=0), x.std(axis=0)
    z = torch.tensor((x - mean) / sd, dtype=torch.float32)
    n, d = z.shape
    order = torch.randperm(n)
    judging, rows = z[order[: n // 5]], z[order[n // 5 :]]
    splines = d <= 10 if splines is None else splines
    model = (zuko.flows.NSF if splines else zuko.flows.MAF)(d, transforms=3, hidden_features=(64, 64))
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    best = (np.inf, model.state_dict())
    for step in range(steps):
        loss = -model().log_prob(rows[torch.randint(len(rows), (256,))]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 25 == 24:
            with torch.no_grad():
                judged = float(-model().log_prob(judging).mean())
            if judged < best[0]:
                best = (judged, {name: value.clone() for name, value in model.state_dict().items()})
    model.load_state_dict(best[1])

    def score(points: Array) -> Array:
        q = torch.tensor((points - mean) / sd, dtype=torch.float32, requires_grad=True)
        return torch.autograd.grad(model().log_prob(q).sum(), q)[0].numpy() / sd

    return lambda points: np.vstack([score(points[i : i + BLOCK]) for i in range(0, len(points), BLOCK)])


RIVALS: dict[str, Callable[[Array], Score]] = {
    "normal law": normal_law,
    "kernel density": kernel_density,
    "mixture": gaussian_mixture,
    "Stein": spectral_stein,
}
if find_spec("zuko") and find_spec("torch"):
    RIVALS["flow"] = flow
