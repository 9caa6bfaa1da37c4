"""A second yardstick of a fit: a kernel density estimate of the training rows, judged by the same held-out rows.

A normal law is no yardstick where the samples have many modes. A kernel estimate follows any number of them in few dimensions,
and in many it is no better than a fit, and nothing is said.
"""

from __future__ import annotations

import math

import numpy as np

from ismcore.backend.contract import Backend
from ismcore.coordinates import Coordinates
from ismcore.errors import SamplesError
from ismcore.objectives import DenoisingScoreMatching, NoiseConditionalScoreMatching, Objective
from ismcore.ops import Params
from ismcore.problem import Problem
from ismcore.samples.diagnosis import Diagnosis
from ismcore.seeds import stream
from ismcore.training.baseline import compared_rows, mean_and_error, score_and_diagonal

__all__ = ["beside_kernel", "compare_with_kernel", "judges_fits", "kernel_terms"]

BANDWIDTHS = tuple(float(h) for h in np.geomspace(0.5, 0.005, 9))
"""Of standardised columns."""
ROWS, JUDGES, FEWEST = 3000, 300, 50
"""At most so many rows make the estimate and so many judge it, and neither are fewer than 50."""
CHOOSE = 150
"""So many of the former choose the bandwidth, each judged by the others."""
MISSED, DEVIATES = 0.25, 2.0
"""A fit is told where its relative error is above this by so many standard errors."""


def compare_with_kernel(
    engine: Backend, problem: Problem, held_out: Problem | None, params: Params, diagnosis: Diagnosis
) -> str:
    """A warning in words where a kernel density estimate is far better than a fit of one network; see `beside_kernel`.

    Args:
        engine: Where the fit ran.
        problem: What it was trained on.
        held_out: What its validation loss was computed on.
        params: The fitted parameters, in the coordinates of training.
        diagnosis: Of the samples.
    """
    if held_out is None or not judges_fits(problem.objective, diagnosis, min(problem.n, held_out.n)):
        return ""
    held_out = compared_rows(held_out)  # which the backend has a compiled program for
    derivatives = score_and_diagonal(engine, problem.model, params, held_out.x)
    if derivatives is None:
        return ""
    return beside_kernel(problem.x, problem.row_weight, held_out.x, held_out.row_weight, derivatives, held_out.seed)


def judges_fits(objective: Objective, diagnosis: Diagnosis, rows: int) -> bool:
    """Whether J is a measure and the rows are enough: not with atoms, hard edges, columns without a density, dependent rows.

    Nor of fits by denoising, which learn another law.
    """
    unjudged = diagnosis.has_atoms or diagnosis.edges or diagnosis.dependence or diagnosis.dimension is not None
    blurred = isinstance(objective, DenoisingScoreMatching | NoiseConditionalScoreMatching)
    return not unjudged and not blurred and objective.domain is None and rows >= FEWEST


def beside_kernel(
    x: np.ndarray,
    weight: np.ndarray | None,
    judges: np.ndarray,
    judging: np.ndarray | None,
    derivatives: tuple[np.ndarray, np.ndarray],
    seed: int,
) -> str:
    """A warning in words where a kernel density estimate of x, (n, d), is far better on the judges, (m, d); "" where not.

    With J the loss 1/2 |psi|^2 + div psi on the held-out rows, the Fisher divergence of a fit is E|s|^2 + 2 J, and that of the
    estimate is not negative, so that E|s|^2 >= -2 J_kernel: the relative error of the fit, E|psi - s|^2 / E|s|^2, is at least

        m = 1 - J / J_kernel,    J_kernel < 0,

    which is told where it is above 1/4 by two standard errors.

    Args:
        x: Rows of the estimate.
        weight: Of each, (n,), or None.
        judges: Rows that judge.
        judging: Weight of each, (m,), or None.
        derivatives: Score and Jacobian diagonal of the fit at the judges, both (m, d).
        seed: Of the rows that are drawn of many.

    Cost: about 5 million exponentials.
    """
    try:
        units = Coordinates.standardizing(x, weight)
    except SamplesError:  # not standardised for training either
        return ""
    rng = stream(seed, "kernel")
    some = rng.choice(len(judges), min(JUDGES, len(judges)), replace=False)
    rows = rng.choice(len(x), min(ROWS, len(x)), replace=False)
    with np.errstate(all="ignore"):
        psi, diagonal = derivatives[0][some] * units.scale, derivatives[1][some] * units.scale**2
        fit = np.sum(0.5 * psi * psi + diagonal, axis=1)
        weights = np.ones(len(rows)) if weight is None else weight[rows]
        z = units(x[rows])
        bandwidth = _bandwidth(z, weights)
        kernel = kernel_terms(z, weights, units(judges[some]), bandwidth)
    shares = np.ones(len(some)) if judging is None else judging[some]
    return _in_words(fit, kernel, shares / shares.sum(), bandwidth)


def kernel_terms(z: np.ndarray, weight: np.ndarray, at: np.ndarray, bandwidth: float, *, left_out: bool = False) -> np.ndarray:
    """1/2 |psi|^2 + div psi at points, (m,), of the density sum_j w_j N(x; z_j, h^2 I).

    With p_j the part of z_j in the density at x, m = sum_j p_j z_j and v = sum_j p_j |z_j - m|^2,

        psi(x) = (m - x) / h^2,    div psi(x) = v / h^4 - d / h^2.

    Args:
        z: Rows of the estimate, (n, d).
        weight: Of each, (n,).
        at: Points, (m, d).
        bandwidth: h.
        left_out: Points are the first m rows: each is left out of its own density.
    """
    squares = np.sum(z * z, axis=1)
    exponent = np.log(weight) - (0.5 * squares - at @ z.T) / bandwidth**2
    if left_out:
        exponent[np.arange(len(at)), np.arange(len(at))] = -np.inf
    part = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    part /= part.sum(axis=1, keepdims=True)
    mean = part @ z
    variance = part @ squares - np.sum(mean * mean, axis=1)
    psi = (mean - at) / bandwidth**2
    return np.asarray(0.5 * np.sum(psi * psi, axis=1) + variance / bandwidth**4 - z.shape[1] / bandwidth**2)


def _bandwidth(z: np.ndarray, weight: np.ndarray) -> float:
    """Of `BANDWIDTHS` the widest within a standard error of the lowest loss at some rows, each under that of the others."""
    shares = weight[:CHOOSE] / weight[:CHOOSE].sum()
    terms = np.array([kernel_terms(z, weight, z[:CHOOSE], h, left_out=True) for h in BANDWIDTHS])
    losses = np.where(np.isfinite(terms).all(axis=1), terms @ shares, math.inf)
    errors = np.sqrt((terms - losses[:, None]) ** 2 @ shares**2)
    best = int(np.argmin(losses))
    return BANDWIDTHS[int(np.argmax(losses <= losses[best] + errors[best]))]


def _in_words(fit: np.ndarray, kernel: np.ndarray, shares: np.ndarray, bandwidth: float) -> str:
    """A warning from the terms of each row under both, (m,), and the rows' weights, of sum 1."""
    loss, fit_loss = float(shares @ kernel), float(shares @ fit)
    if not (math.isfinite(loss) and math.isfinite(fit_loss)) or loss >= 0.0:
        return ""
    gap, error = mean_and_error(fit - (1.0 - MISSED) * kernel, shares)
    if not gap > DEVIATES * error:
        return ""
    return (
        f"the fit is poor beside a kernel density estimate of bandwidth {bandwidth:.2g} standard deviations: held-out loss "
        f"{fit_loss:.4g} against {loss:.4g} on {len(fit)} rows, so that its relative error is at least "
        f"{1.0 - fit_loss / loss:.2g} (the score 0 has 1); a larger model, more epochs or another learning rate may help"
    )
