"""The truncated normal law in closed form: what a fit on a domain starts at, and is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ismcore.calculus import NumpyCalculus
from ismcore.domains import Domain
from ismcore.objectives import ImplicitScoreMatching, LossInputs
from ismcore.ops import Params

__all__ = ["MOST_TRUNCATED", "TruncatedNormal"]

MOST_TRUNCATED = 24
"""Of more columns there is none: its d (d + 3) / 2 parameters are solved for together."""
RANK = 1e-10
"""A direction of the parameters with a smaller share of the largest curvature is one that the rows do not determine."""


@dataclass(frozen=True, eq=False)
class TruncatedNormal:
    """A law with the score W x + b on a domain, W symmetric: that of a truncated normal law, or an exponential one.

    Attributes:
        weight: W, (d, d).
        bias: b, (d,).
        domain: Where the rows lie, in their coordinates.
    """

    weight: np.ndarray
    bias: np.ndarray
    domain: Domain
    name: ClassVar[str] = "truncated normal law"
    shrinkage: ClassVar[float] = 0.0

    @classmethod
    def of(cls, x: np.ndarray, domain: Domain, weight: np.ndarray | None = None) -> TruncatedNormal:
        """The law that minimises implicit score matching with the weight h of the domain, a linear solve.

        With f = (x, 1) and theta_i the i-th row of (W, b), J_h = sum_i [ 1/2 theta_i^T M_i theta_i + r_i . theta_i ],

            M_i = sum_n w_n h_i f f^T,    r_i = sum_n w_n [ h_i e_i + d_i h_i f ],

        in the d (d + 3) / 2 free parameters of a symmetric W and b.

        Args:
            x: Rows, (n, d).
            domain: In the coordinates of the rows.
            weight: w, (n,), of sum 1; None for 1/n each.

        Source: Liu, Kanamori & Williams (2022), JMLR 23:1-38, and Yu, Drton & Shojaie (2019), JMLR 20:1-70, for the minimiser.

        Cost: n d^2 for each output with a weight of its own, and d^6 / 8 for the solve.
        """
        n, d = x.shape
        shares = np.full(n, 1.0 / n) if weight is None else weight
        h, slope = domain.weights(x)
        f = np.concatenate([x, np.ones((n, 1))], axis=1)
        moments = np.zeros((d, d + 1, d, d + 1))
        linear = (slope * shares[:, None]).T @ f
        for i in range(d):
            each = shares * h[:, min(i, h.shape[1] - 1)]
            moments[i, :, i] = f.T @ (f * each[:, None])
            linear[i, i] += each.sum()
        free = _symmetric(d)
        a = free.T @ moments.reshape(d * (d + 1), -1) @ free
        values, vectors = np.linalg.eigh(a)
        inverse = np.divide(1.0, values, out=np.zeros_like(values), where=values > RANK * values[-1])
        found = (free @ (-(vectors * inverse) @ (vectors.T @ (free.T @ linear.ravel())))).reshape(d, d + 1)
        return cls(found[:, :d].copy(), found[:, d].copy(), domain)

    def score_params(self) -> Params:
        """The score as the parameters of an `ismcore.Affine`, float64."""
        return {"weight": self.weight, "bias": self.bias}

    def terms(self, x: np.ndarray) -> np.ndarray:
        """The term of J_h of each row, (n,)."""
        psi, diagonal = x @ self.weight.T + self.bias, np.broadcast_to(np.diagonal(self.weight), x.shape)
        h, slope = self.domain.weights(x)
        inputs: LossInputs = {"edge_weight": h, "edge_slope": slope}
        return np.asarray(ImplicitScoreMatching.row_terms(NumpyCalculus().ops, psi, diagonal, inputs))


def _symmetric(d: int) -> np.ndarray:
    """The matrix (d (d + 1), d (d + 3) / 2) that makes the rows (W, b) of the free parameters."""
    pairs = [(i, j) for i in range(d) for j in range(i, d)]
    found = np.zeros((d, d + 1, len(pairs) + d))
    for k, (i, j) in enumerate(pairs):
        found[i, j, k] = found[j, i, k] = 1.0
    found[np.arange(d), d, len(pairs) + np.arange(d)] = 1.0
    return found.reshape(d * (d + 1), -1)
