"""Every objective in NumPy, from a score and its whole Jacobian: the papers' formulas, with nothing left to differentiate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np

from ismcore.domains import Halfspaces
from ismcore.objectives import (
    DenoisingScoreMatching,
    ExplicitScoreMatching,
    Hutchinson,
    ImplicitScoreMatching,
    LossInputs,
    NoiseConditionalScoreMatching,
    Objective,
    SlicedScoreMatching,
)
from ismcore.ops import Params
from ismcore.testing.functions import Conditional
from ismcore.testing.oracle import Formula

__all__ = ["affine_slopes", "loss", "of_rows"]


def loss(
    objective: Objective,
    formula: Formula,
    params: Params,
    x: np.ndarray,
    draws: LossInputs | None = None,
    row_weight: np.ndarray | None = None,
) -> complex:
    """The mean of the objective's terms, or their sum by row weights.

    Args:
        objective: Its own arrays and constants are read from itself, not from what it would give a backend.
        formula: Score and Jacobian.
        params: Parameters, which may be complex.
        x: Samples, (n, d).
        draws: What `Problem.draws` gave for the step.
        row_weight: Weight of each row, (n,).
    """
    terms = TERMS[type(objective)](objective, formula, params, x, draws or {})
    return complex(terms.mean() if row_weight is None else terms @ row_weight)


def affine_slopes(
    objective: Objective, params: Params, x: np.ndarray, draws: LossInputs | None = None, row_weight: np.ndarray | None = None
) -> Params | None:
    """The gradient of such a loss of the affine score psi = A x + b, by hand: for runs of many steps, and many parameters.

        implicit     A_bar = sum_n w_n psi_n x_n^T + sum_n w_n diag(1 + 2 lambda_i A_ii),   b_bar = sum_n w_n psi_n
        gaps         A_bar = sum_n w_n gap_n z_n^T,                                         b_bar = sum_n w_n gap_n

    where a gap is psi(z) less what it is to meet, as denoising and explicit score matching have it.

    Returns:
        The gradient, or None for an objective that is not here.
    """
    weight, bias = params["weight"], params["bias"]
    w = np.full((len(x), 1), 1.0 / len(x)) if row_weight is None else row_weight[:, None]
    if (
        isinstance(objective, ImplicitScoreMatching)
        and not isinstance(objective.divergence, Hutchinson)
        and objective.domain is None
    ):
        psi_bar = w * (x @ weight.T + bias)
        slope = 1.0 + 2.0 * np.asarray(objective.curvature_weight) * np.diag(weight)
        return {"weight": psi_bar.T @ x + w.sum() * np.diag(slope), "bias": psi_bar.sum(axis=0)}
    if isinstance(objective, ExplicitScoreMatching):
        pairs = [(1.0, x, objective.target_score(x))]
    elif isinstance(objective, DenoisingScoreMatching):
        s, e = objective.noise_scale, np.asarray((draws or {})["noise"] if objective.noise is None else objective.noise)
        signs = ((0.5, 1.0), (0.5, -1.0)) if objective.variance_reduced else ((1.0, 1.0),)
        pairs = [(share, x + sign * s * e, -sign * e / s) for share, sign in signs]
    else:
        return None
    bars = [(share * w * (z @ weight.T + bias - target), z) for share, z, target in pairs]
    return {"weight": sum(bar.T @ z for bar, z in bars), "bias": sum(bar.sum(axis=0) for bar, _ in bars)}


def of_rows(objective: Objective, rows: np.ndarray) -> Objective:
    """The objective for these rows alone: of the arrays that it was given, those that hold something for each row are cut."""
    if isinstance(objective, DenoisingScoreMatching) and objective.noise is not None:
        return replace(objective, noise=np.asarray(objective.noise)[rows])
    if isinstance(objective, SlicedScoreMatching) and not isinstance(objective.probes, str):
        return replace(objective, probes=np.asarray(objective.probes)[:, rows])
    if isinstance(objective, Conditional):
        return replace(objective, context=objective.context[rows])
    return objective


def _probes(given: Any, draws: LossInputs) -> np.ndarray:
    return np.asarray(draws["probes"] if isinstance(given, str) else given)


def _implicit(objective: Any, formula: Formula, params: Params, x: np.ndarray, draws: LossInputs) -> np.ndarray:
    """1/2 |psi|^2 + tr J + sum_i lambda_i J_ii^2, or with estimates of J_ii and of its square.

    On a domain h_i times each output's term, and psi_i d_i h_i more.
    """
    psi, jacobian = formula(params, x)
    diagonal = np.einsum("nii->ni", jacobian)
    squares = diagonal * diagonal
    if isinstance(objective.divergence, Hutchinson):
        v = _probes(objective.divergence.probes, draws)
        # v_i (J v)_i, which is v_i (v^T J)_i only where J is symmetric: which of the two a backend squares is its own choice
        estimates = v * np.einsum("nij,mnj->mni", jacobian, v)
        diagonal = estimates.mean(axis=0)
        pairs = [estimates[one] * estimates[other] for one, other in permutations(range(len(v)), 2)]
        squares = sum(pairs) / max(1, len(pairs))
    terms = 0.5 * psi * psi + diagonal + np.asarray(objective.curvature_weight) * squares
    if objective.domain is not None:
        h, slope = _edges(objective.domain, x)
        terms = h * terms + slope * psi
    return np.asarray(terms.sum(axis=1))


def _edges(domain: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """h_i = min(distances / width, 1) at each row and its derivative in x_i, both (n, d), number by number."""
    h, slope = np.ones_like(x), np.zeros_like(x)
    for n, i in np.ndindex(*x.shape):
        if isinstance(domain, Halfspaces):
            sizes = [math.hypot(*(a * w for a, w in zip(row, domain.width, strict=True))) for row in domain.A]  # type: ignore[arg-type]
            ends = [
                ((b - float(np.dot(row, x[n]))) / size, -row[i] / size)
                for row, b, size in zip(domain.A, domain.b, sizes, strict=True)
            ]
        else:
            (low,), (high,) = ([end[i]] for end in (domain.lower, domain.upper))
            width = domain.width[i]
            ends = [] if low is None else [((x[n, i] - low) / width, 1.0 / width)]
            ends += [] if high is None else [((high - x[n, i]) / width, -1.0 / width)]
        h[n, i], slope[n, i] = min([*ends, (1.0, 0.0)])
    return h, slope


def _sliced(objective: Any, formula: Formula, params: Params, x: np.ndarray, draws: LossInputs) -> np.ndarray:
    """The mean over probes of v.J v + 1/2 (v.psi)^2, or with 1/2 |psi|^2 if the variance is reduced."""
    psi, jacobian = formula(params, x)
    v = _probes(objective.probes, draws)
    slices = (psi * psi).sum(axis=1) if objective.variance_reduced else np.einsum("mni,ni->mn", v, psi) ** 2
    return np.asarray((np.einsum("mni,nij,mnj->mn", v, jacobian, v) + 0.5 * slices).mean(axis=0))


def _denoising(objective: Any, formula: Formula, params: Params, x: np.ndarray, draws: LossInputs) -> np.ndarray:
    """1/2 |psi(x + s e) + e / s|^2; or the mean of it for e and -e, less |e|^2 / (2 s^2)."""
    s, e = objective.noise_scale, draws["noise"] if objective.noise is None else np.asarray(objective.noise)
    if objective.variance_reduced:
        gaps = [formula(params, x + sign * s * e)[0] + sign * e / s for sign in (1.0, -1.0)]
        return np.asarray(sum(0.25 * (gap * gap - e * e / s**2) for gap in gaps).sum(axis=1))
    gap = formula(params, x + s * e)[0] + e / s
    return np.asarray(0.5 * (gap * gap).sum(axis=1))


def _noise_conditional(objective: Any, formula: Formula, params: Params, x: np.ndarray, draws: LossInputs) -> np.ndarray:
    """s^2 times the denoising term at each row's own s, which the score is told."""
    s, e = draws["noise_scale"], draws["noise"]  # the kit's samples are not standardised: of units "x" the unit is 1
    gap = formula(params, x + s * e, s)[0] + e / s
    return np.asarray(0.5 * s[:, 0] ** 2 * (gap * gap).sum(axis=1))


def _explicit(objective: Any, formula: Formula, params: Params, x: np.ndarray, draws: LossInputs) -> np.ndarray:
    """1/2 |psi - target|^2."""
    gap = formula(params, x)[0] - objective.target_score(x)
    return np.asarray(0.5 * (gap * gap).sum(axis=1))


def _conditional(objective: Any, formula: Formula, params: Params, x: np.ndarray, draws: LossInputs) -> np.ndarray:
    """1/2 |psi|^2 + tr J at each row's own context."""
    psi, jacobian = formula(params, x, objective.context)
    return np.asarray(0.5 * (psi * psi).sum(axis=1) + np.einsum("nii->n", jacobian))


TERMS: dict[type[Objective], Callable[[Any, Formula, Params, np.ndarray, LossInputs], np.ndarray]] = {
    ImplicitScoreMatching: _implicit,
    SlicedScoreMatching: _sliced,
    DenoisingScoreMatching: _denoising,
    NoiseConditionalScoreMatching: _noise_conditional,
    ExplicitScoreMatching: _explicit,
    Conditional: _conditional,
}
"""Terms, (n,), by the objective's type."""
