"""What a fit is made of: candidates, weighed by out-of-fold loss, and the normal law unless the gain is significant.

Every row is judged by the member that has not seen it. The loss of a weighted sum of scores is quadratic in the weights w,

    J(w) = 1/2 w^T A w + b^T w,    A_kl = sum_i v_i [ psi_k(x_i) . psi_l(x_i) + 2 sum_j lambda_j D_kj(x_i) D_lj(x_i) ],
                                   b_k  = sum_i v_i div psi_k(x_i),

with v_i the weight of row i and D the diagonal of the Jacobian, so that the best w in [0, 1]^K is found in closed form. Without
the upper bound a candidate that is too flat, as denoising makes the score of a narrow ring, is stretched, off the rows too. On
a domain with the weight h the sums over outputs are weighted by it, and b_k has sum_j psi_kj d_j h_j more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from ismcore.calculus import NumpyCalculus
from ismcore.objectives import ImplicitScoreMatching, LossInputs, Objective
from ismcore.training.baseline import mean_and_error

__all__ = ["LEAST_GAIN", "OutOfFold", "Stack", "bounded_minimum", "stacked"]

LEAST_GAIN = 2.0
"""Standard errors by which the out-of-fold loss must be lower than the normal law's for a fit to leave it."""
RIDGE = 1e-3
"""Share of A's diagonal that is added to it: candidates that are nearly equal share their weight."""


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Scores and Jacobian diagonals at the rows that judge, each by a member that has not seen the row: both (m, d).

    On a domain `edges` holds its weight h there and the derivatives of it; see `LossInputs`.
    """

    psi: np.ndarray
    diagonal: np.ndarray
    edges: LossInputs = field(default_factory=LossInputs)

    @classmethod
    def joined(cls, parts: Sequence[tuple[np.ndarray, np.ndarray]], edges: LossInputs) -> OutOfFold:
        """One table of the tables of all folds."""
        psi, diagonal = (np.concatenate(values) for values in zip(*parts, strict=True))
        return cls(psi, diagonal, edges)

    def scaled(self, scale: np.ndarray) -> OutOfFold:
        """The table in coordinates divided by a scale, (d,)."""
        edges = self.edges.copy()
        if "edge_slope" in edges:
            edges["edge_slope"] = edges["edge_slope"] * scale
        return OutOfFold(self.psi * scale, self.diagonal * scale**2, edges)

    def terms(self, curvature_weight: np.ndarray) -> np.ndarray:
        """1/2 |psi|^2 + div psi + sum_j lambda_j D_j^2 at each row, (m,), or what takes its place on a domain."""
        inputs: LossInputs = {**self.edges, "curvature_weight": curvature_weight}
        return np.asarray(ImplicitScoreMatching.row_terms(NumpyCalculus().ops, self.psi, self.diagonal, inputs))


@dataclass(frozen=True, eq=False)
class Stack:
    """What is made of the candidates.

    Attributes:
        weights: Of the normal law and each candidate, (1 + K,).
        difference: Out-of-fold loss of the weighted sum less the normal law's, in the coordinates of training.
        standard_error: Of the difference.
        sum: Out-of-fold score and diagonal of the weighted sum.
    """

    weights: np.ndarray
    difference: float
    standard_error: float
    sum: OutOfFold

    @property
    def significant(self) -> bool:
        """Whether the weighted sum is better than the normal law by `LEAST_GAIN` standard errors.

        The normal law alone with another weight is none: what it gains is that the law of four fifths of the rows is too steep.
        """
        return bool(self.weights[1:].any()) and self.difference < -LEAST_GAIN * self.standard_error


def stacked(parts: Sequence[OutOfFold], weight: np.ndarray, objective: Objective, clusters: np.ndarray | None = None) -> Stack:
    """The weights of the normal law, which comes first, and the candidates after it; see the module.

    Args:
        parts: The normal law and the candidates.
        weight: v, (m,), of sum 1.
        objective: Gives lambda, where it has one.
        clusters: Labels, (m,), from 0, of rows that are not independent; None for none.
    """
    curvature = np.asarray(objective.curvature_weight if isinstance(objective, ImplicitScoreMatching) else 0.0)
    h, slope = parts[0].edges.get("edge_weight", 1.0), parts[0].edges.get("edge_slope", 0.0)
    share = np.sqrt(weight[:, None] * h)
    flat = [np.concatenate([share * p.psi, share * np.sqrt(2.0 * curvature) * p.diagonal], axis=1) for p in parts]
    a = np.array([[np.sum(one * other) for other in flat] for one in flat])
    b = np.array([weight @ np.sum(h * part.diagonal + slope * part.psi, axis=1) for part in parts])
    weights = bounded_minimum(a + RIDGE * np.diag(np.diag(a)), b)
    psi, diagonal = (sum(w * getattr(p, name) for w, p in zip(weights, parts, strict=True)) for name in ("psi", "diagonal"))
    found = OutOfFold(np.asarray(psi), np.asarray(diagonal), parts[0].edges)
    difference, error = mean_and_error(found.terms(curvature) - parts[0].terms(curvature), weight, clusters)
    return Stack(weights, difference, error, found)


def bounded_minimum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The w in [0, 1]^K of the lowest 1/2 w^T A w + b^T w, for A positive definite; every set of bounds it may meet is tried.

    Example:
        >>> bounded_minimum(np.eye(3), np.array([-0.5, 1.0, -3.0]))
        array([0.5, 0. , 1. ])
    """
    best, lowest = np.zeros(len(b)), 0.0
    for bounds in product((0.0, np.nan, 1.0), repeat=len(b)):
        w = np.array(bounds)
        free = np.isnan(w)
        if free.any():
            w[free] = np.linalg.solve(a[np.ix_(free, free)], -b[free] - a[np.ix_(free, ~free)] @ w[~free])
        value = 0.5 * float(w @ a @ w) + float(b @ w)
        if ((w >= 0.0) & (w <= 1.0)).all() and value < lowest:
            best, lowest = w, value
    return best
