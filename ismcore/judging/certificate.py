"""A lower bound of an unknown Fisher divergence, from rows that neither the fit nor a competitor has seen.

With J the loss of implicit score matching, row by row T(x) = 1/2 |psi(x)|^2 + div psi(x), and s the score of the rows' law,

    E T_psi = 1/2 E|psi - s|^2 - 1/2 E|s|^2                                   (Hyvarinen 2005, theorem 1)
    2 E[T_psi - T_phi] = E|psi - s|^2 - E|phi - s|^2 <= E|psi - s|^2          for every competitor phi

so that a lower confidence bound of the left side is one of the fit's Fisher divergence, however wrong the competitor is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ismcore.training.baseline import mean_and_error

__all__ = ["NORMAL", "Derivatives", "Gap", "gaps", "t_quantile"]

NORMAL = "normal law"
"""The name of that competitor."""
LEVEL = 0.05
"""The bound may exceed the truth in this share of draws; several competitors share it (Bonferroni)."""
POWER = 0.8
"""With this probability the smallest visible fault is found."""
SAME = 0.01
"""A competitor that is no further from the fit than this share of E|psi|^2 is the fit, and can show nothing of it."""


@dataclass(frozen=True)
class Derivatives:
    """Score and divergence of something at the judged rows, in standardised coordinates.

    On a domain with the weight h the score is sqrt(h_i) psi_i, and sum_i h_i d_i psi_i + psi_i d_i h_i takes the place of the
    divergence: what follows of the two is then of the weighted divergence E sum_i h_i (psi_i - s_i)^2.

    Attributes:
        psi: (m, d).
        divergence: (m,).
    """

    psi: np.ndarray
    divergence: np.ndarray

    @classmethod
    def of(cls, psi: np.ndarray, diagonal: np.ndarray, edges: tuple[np.ndarray, np.ndarray] | None) -> Derivatives:
        """Of a score and its Jacobian's diagonal, both (m, d); `edges` are h and its derivatives, where there is a domain."""
        if edges is None:
            return cls(psi, np.sum(diagonal, axis=1))
        h, slope = edges
        return cls(np.sqrt(h) * psi, np.sum(h * diagonal + slope * psi, axis=1))

    @property
    def terms(self) -> np.ndarray:
        """1/2 |psi|^2 + div psi, (m,)."""
        return np.asarray(0.5 * np.sum(self.psi**2, axis=1) + self.divergence)


@dataclass(frozen=True)
class Gap:
    """A fit against a competitor; without a unit, as coordinates are standardised.

    Attributes:
        competitor: Its name.
        estimate: 2 mean g, g = T_psi - T_phi: by how much the fit's Fisher divergence is above the competitor's.
        standard_error: Of it.
        quantile: q, of Student's t at 1 - 0.05 / K for K competitors.
        bound: estimate - q standard_error: at most the fit's Fisher divergence, with 95 % confidence for all competitors
            together. Below 0 it says nothing.
        visible: max(0, -estimate) + (q + 0.84) standard_error: a fit that is so much further from the score than the competitor
            is found out in four of five samples of rows, and a fault that both share never.
        telling: Whether a competitor that is not ahead says something of the fit: not the normal law, which is wrong where a
            fit matters, nor one that is nearly the fit itself, E|psi - phi|^2 <= 0.01 E|psi|^2.
    """

    competitor: str
    estimate: float
    standard_error: float
    quantile: float
    bound: float
    visible: float
    telling: bool


def gaps(
    fit: Derivatives, competitors: Mapping[str, Derivatives], labels: np.ndarray, weight: np.ndarray | None = None
) -> tuple[Gap, ...]:
    """The fit against each competitor, on rows of which those of one label, (m,), may depend on each other.

    Their weights, (m,), are of sum 1, or None where all weigh alike.
    """
    units = len(np.unique(labels if weight is None else labels[weight > 0.0]))
    q = t_quantile(1.0 - LEVEL / len(competitors), units - 1)
    square = float(np.average(np.sum(fit.psi**2, axis=1), weights=weight))
    found = []
    for name, other in competitors.items():
        mean, error = mean_and_error(2.0 * (fit.terms - other.terms), weight, labels)
        apart = float(np.average(np.sum((fit.psi - other.psi) ** 2, axis=1), weights=weight))
        visible = max(0.0, -mean) + (q + NormalDist().inv_cdf(POWER)) * error
        found.append(Gap(name, mean, error, q, mean - q * error, visible, name != NORMAL and apart > SAME * square))
    return tuple(found)


def t_quantile(p: float, degrees: int) -> float:
    """The quantile of Student's t, right to 1e-3 from 8 degrees on; infinite for none.

    Source: Abramowitz and Stegun (1964), 26.7.5, with z the normal quantile: z + (z^3 + z) / 4 v + (5 z^5 + 16 z^3 + 3 z) / 96
        v^2 + (3 z^7 + 19 z^5 + 17 z^3 - 15 z) / 384 v^3.
    """
    if degrees < 1:
        return math.inf
    z, v = NormalDist().inv_cdf(p), float(degrees)
    first, second = (z**3 + z) / 4.0, (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0
    third = (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0
    return z + first / v + second / v**2 + third / v**3
