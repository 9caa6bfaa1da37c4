"""Implicit score matching, plain and regularised."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ismcore.calculus import Calculus, ScoreFn
from ismcore.errors import OptionError
from ismcore.objectives.base import Objective, check_shape
from ismcore.objectives.probes import Hutchinson, probe_products
from ismcore.ops import Array, Ops
from ismcore.problem import Params
from ismcore.samples import Standardizer

__all__ = ["CurvatureSearch", "ImplicitScoreMatching"]


@dataclass(frozen=True)
class CurvatureSearch:
    """A choice of the curvature weight by held-out rows: one fit for each weight, and the one that they judge best.

    Values of the regularised loss at different weights do not compare, so one loss judges all: by default the plain one, of
    rows with noise as wide as the step of a discrete column.

    Args:
        weights: What to try.
        folds: Parts that take turns in being held out, from 2; 0 for the rows that the fit holds out anyway.
        judge_weight: Curvature weight of the loss that judges; a positive one favours its like.

    Raises:
        OptionError: A value is none of these.
    """

    weights: tuple[float, ...] = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3)
    folds: int = 0
    judge_weight: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(self.weights))
        if not self.weights or not all(_is_weight(w) for w in (*self.weights, self.judge_weight)):
            raise OptionError(f"a search needs curvature weights that are finite and from 0, not {self.weights!r}")
        if isinstance(self.folds, bool) or not isinstance(self.folds, int) or self.folds < 0 or self.folds == 1:
            raise OptionError(f"folds must be a whole number from 2, or 0 for none, not {self.folds!r}")


@dataclass(frozen=True)
class ImplicitScoreMatching(Objective):
    r"""Implicit score matching, plain or regularised.

        J_lambda(theta) = mean_n [ 1/2 |psi(x_n)|^2 + div psi(x_n) + sum_i lambda_i (d psi_i / d x_i (x_n))^2 ]

    With lambda = 0 this equals 1/2 E|psi - score|^2 up to a constant of the data (Hyvarinen 2005, theorem 1). The curvature
    penalty has no factor 1/2 (Kingma & LeCun 2010, and the reference run). For samples in units u, psi is in
    1/u, J in 1/u^2, the penalty in 1/u^4 and lambda in u^2. J_lambda >= -sum_i 1 / (4 lambda_i); plain J has no lower bound
    on a finite sample, so a lower loss is not by itself a better fit.

    Args:
        curvature_weight: lambda, from 0: one number, or one for each dimension; or "auto" or a `CurvatureSearch`, by which
            `ismcore.fit` chooses it on held-out rows.
        divergence: How the divergence is found: "nested", by the backend's nested differentiation, for any model;
            "analytic", by the core's formulas, for the library's own networks; "auto", the cheapest exact way known for the
            model; or a `Hutchinson`, an estimate. Estimated with lambda > 0 it needs at least two probes, and the estimate
            of the penalty, a product of two independent ones, is unbiased but can be negative. It is made from v^T J where
            the backend offers vjp, else from J v: different numbers, unless J is symmetric, of one expectation.

    Raises:
        OptionError: A value is none of the above.

    Cost: the nested divergence takes d directional derivatives of the score; see `ismcore.analytic` for the formulas.

    Example:
        >>> ismcore.ImplicitScoreMatching(curvature_weight=0.1)
        ImplicitScoreMatching(curvature_weight=0.1, divergence='auto')
    """

    curvature_weight: Any = 0.0
    divergence: str | Hutchinson = "auto"
    differentiates_in_x = True
    row_axes: ClassVar[dict[str, int]] = {"probes": 1}

    def __post_init__(self) -> None:
        weight = self.curvature_weight
        if isinstance(weight, str) and weight == "auto":
            weight = CurvatureSearch()
            object.__setattr__(self, "curvature_weight", weight)
        if isinstance(weight, CurvatureSearch):
            weight = weight.weights
        elif isinstance(weight, list | tuple | np.ndarray):
            weight = tuple(float(w) for w in weight)
            object.__setattr__(self, "curvature_weight", weight)
        numbers = weight if isinstance(weight, tuple) else (weight,)
        if not numbers or not all(_is_weight(w) for w in numbers):
            raise OptionError(
                f"curvature_weight must be finite and from 0, one number or one a dimension, or 'auto', not {weight!r}"
            )
        if self.divergence not in ("auto", "nested", "analytic") and not isinstance(self.divergence, Hutchinson):
            raise OptionError(
                f"divergence must be 'auto', 'nested', 'analytic' or ismcore.Hutchinson(...), not {self.divergence!r}"
            )
        penalised = any(float(w) > 0.0 for w in numbers)
        if isinstance(self.divergence, Hutchinson) and penalised and self.divergence.n_probes < 2:
            raise OptionError("a curvature_weight with estimated divergence needs Hutchinson(n_probes=2) or more")

    @property
    def penalised(self) -> bool:
        """Whether there is a curvature penalty."""
        weight = self.curvature_weight
        if isinstance(weight, CurvatureSearch):
            raise OptionError(
                "a curvature_weight that is searched for has no value yet: only ismcore.fit chooses one; give a number"
            )
        # no NumPy: this is asked at every step, and torch's compiler takes NumPy's answer for one of its own
        return any(w > 0.0 for w in (weight if isinstance(weight, tuple) else (weight,)))

    def inputs(self, x: np.ndarray, standardizer: Standardizer) -> Params:
        """See `Objective.inputs`."""
        found: Params = self.divergence.inputs(*x.shape) if isinstance(self.divergence, Hutchinson) else {}
        if self.penalised:
            weight = np.asarray(self.curvature_weight, dtype=np.float64)
            found["curvature_weight"] = weight if weight.ndim == 0 else check_shape("curvature_weight", weight, x.shape[1:])
        return found

    def draws(self, rng: np.random.Generator, n: int, d: int) -> Params:
        """See `Objective.draws`."""
        return self.divergence.draws(rng, n, d) if isinstance(self.divergence, Hutchinson) else {}

    def canonical(self) -> ImplicitScoreMatching:
        """See `Objective.canonical`; the penalty is there or not."""
        route = self.divergence.canonical() if isinstance(self.divergence, Hutchinson) else self.divergence
        return replace(self, curvature_weight=float(self.penalised), divergence=route)

    def terms(self, calculus: Calculus, score_fn: ScoreFn, x: Array, given: Params) -> Array:
        """See `Objective.terms`."""
        if isinstance(self.divergence, Hutchinson):
            return self._estimated_terms(calculus, score_fn, x, given)
        psi, diagonal = calculus.jacobian_diagonal(score_fn, x)
        return self.row_terms(calculus.ops, psi, diagonal, given)

    @staticmethod
    def row_terms(ops: Ops, psi: Array, diagonal: Array, given: Params) -> Array:
        """The terms, (n,), from score and Jacobian diagonal, both (n, d)."""
        integrand = 0.5 * psi * psi + diagonal
        if "curvature_weight" in given:
            integrand = integrand + given["curvature_weight"] * diagonal * diagonal
        return ops.sum(integrand, axis=1)

    def cotangents(
        self, ops: Ops, psi: Array, second: Array, weight: Array | float, given: Params
    ) -> tuple[Array, Array, Array]:
        """Loss, and its derivatives in psi and in `second`: by formula, for `ismcore.analytic`, where samples are columns.

        Args:
            ops: Operations.
            psi: Score, (d, n).
            second: Where there is no penalty the divergence, (n,), else the Jacobian diagonal, (d, n).
            weight: Weight of each row, (n,), or of all alike.
            given: See `terms`.
        """
        half = psi * (0.5 * weight)
        terms = psi * half
        half += half
        if "curvature_weight" not in given:
            # the derivative in `second` is the weight, as an array (n,) also where it is one number
            return ops.sum(terms) + ops.sum(second * weight), half, weight + 0.0 * second
        curvature_weight = given["curvature_weight"]
        if curvature_weight.shape:
            curvature_weight = curvature_weight[:, None]
        bend = (curvature_weight * weight) * second
        rise = bend + weight
        terms += second * rise
        rise += bend
        return ops.sum(terms), half, rise

    @staticmethod
    def _estimated_terms(calculus: Calculus, score_fn: ScoreFn, x: Array, given: Params) -> Array:
        psi, products = probe_products(calculus, score_fn, x, given["probes"])
        m = len(products)
        total = sum(products[1:], products[0])
        integrand = 0.5 * psi * psi + total * (1.0 / m)
        if "curvature_weight" in given:
            # the mean over pairs of different, hence independent, probes: unbiased for J_ii^2
            squares = sum((p * p for p in products[1:]), products[0] * products[0])
            integrand = integrand + given["curvature_weight"] * (total * total - squares) * (1.0 / (m * (m - 1)))
        return calculus.ops.sum(integrand, axis=1)


def _is_weight(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float | np.number) and 0.0 <= float(value) < np.inf
