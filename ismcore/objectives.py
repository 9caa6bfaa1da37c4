"""Objectives: what is minimised, written once over a backend's operations and derivatives.

An objective gives one term a row; the loss is their mean. Nothing else in the library knows a factor 1/2 or a sign.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np

from ismcore.calculus import Calculus, ScoreFn
from ismcore.errors import OptionError
from ismcore.ops import Array
from ismcore.problem import Params

__all__ = ["ImplicitScoreMatching", "Objective"]


class Objective(ABC):
    """A loss for score functions, as one term a row."""

    differentiates_in_x: bool
    """Whether the loss holds a derivative in x, so that training needs the score's second derivatives."""

    def constants(self) -> Params:
        """Numbers that enter the terms as arrays, so that changing them never recompiles a program."""
        return {}

    def canonical(self) -> "Objective":
        """The same for all objectives that one compiled program serves: those that differ in `constants` alone."""
        return self

    @abstractmethod
    def terms(self, calculus: Calculus, score_fn: ScoreFn, x: Array, constants: Params) -> Array:
        """The row terms, (n,), whose mean is the loss. `constants` are `constants()` as arrays of the framework."""


@dataclass(frozen=True)
class ImplicitScoreMatching(Objective):
    r"""Implicit score matching, plain or regularised.

        J_lambda(theta) = mean_n [ 1/2 |psi(x_n)|^2 + div psi(x_n) + lambda sum_i (d psi_i / d x_i (x_n))^2 ]

    With lambda = 0 this equals 1/2 E|psi - score|^2 up to a constant of the data (Hyvarinen 2005, theorem 1). The curvature
    penalty has no factor 1/2 (Kingma & LeCun 2010, equation 5, and the reference run). For samples in units u, psi is in
    1/u, J in 1/u^2, the penalty in 1/u^4 and lambda in u^2. J_lambda >= -d / (4 lambda); plain J has no lower bound on a
    finite sample, so a lower loss is not by itself a better fit.

    Args:
        curvature_weight: lambda, from 0.
        divergence: How the divergence is found: "nested", by the backend's nested differentiation, for any model; "auto",
            the cheapest exact way known for the model.

    Cost: the nested divergence takes d directional derivatives of the score.

    Example:
        >>> ismcore.ImplicitScoreMatching(curvature_weight=0.1)
        ImplicitScoreMatching(curvature_weight=0.1, divergence='auto')
    """

    curvature_weight: float = 0.0
    divergence: str = "auto"
    differentiates_in_x = True

    def __post_init__(self) -> None:
        weight = self.curvature_weight
        if isinstance(weight, bool) or not isinstance(weight, int | float | np.number) or not 0.0 <= weight < np.inf:
            raise OptionError(f"curvature_weight must be a finite number from 0, not {weight!r}")
        if self.divergence not in ("auto", "nested"):
            raise OptionError(f"divergence must be 'auto' or 'nested', not {self.divergence!r}")

    def constants(self) -> Params:
        """See `Objective.constants`."""
        return {"curvature_weight": np.asarray(self.curvature_weight)} if self.curvature_weight else {}

    def canonical(self) -> "ImplicitScoreMatching":
        """See `Objective.canonical`; the penalty is there or not."""
        return replace(self, curvature_weight=float(self.curvature_weight > 0.0))

    def terms(self, calculus: Calculus, score_fn: ScoreFn, x: Array, constants: Params) -> Array:
        """See `Objective.terms`."""
        psi, diagonal = calculus.jacobian_diagonal(score_fn, x)
        integrand = 0.5 * psi * psi + diagonal
        if "curvature_weight" in constants:
            integrand = integrand + constants["curvature_weight"] * diagonal * diagonal
        return calculus.ops.sum(integrand, axis=1)
