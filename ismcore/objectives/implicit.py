"""Implicit score matching, plain and regularised."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from ismcore.calculus import Calculus, ScoreFn
from ismcore.coordinates import Coordinates
from ismcore.domains import Domain
from ismcore.errors import OptionError
from ismcore.objectives.base import LossInputs, Objective, check_shape
from ismcore.objectives.probes import Hutchinson, probe_products
from ismcore.objectives.search import CurvatureSearch, is_weight
from ismcore.ops import Array, Ops

__all__ = ["Divergence", "ImplicitScoreMatching"]

Divergence = Literal["auto", "nested", "analytic"]
"""Exact ways to the divergence: see `ImplicitScoreMatching`."""


@dataclass(frozen=True)
class ImplicitScoreMatching(Objective):
    r"""Implicit score matching, plain or regularised.

        J_lambda(theta) = mean_n [ 1/2 |psi(x_n)|^2 + div psi(x_n) + sum_i lambda_i (d psi_i / d x_i (x_n))^2 ]

    On a domain with edges, with the weight h of `ismcore.domains`, which vanishes there (Hyvarinen 2007; Yu et al. 2019),

        J_h(theta) = mean_n sum_i [ 1/2 h_i psi_i^2 + h_i d_i psi_i + psi_i d_i h_i + lambda_i h_i (d_i psi_i)^2 ]

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
        domain: A `Domain` of `ismcore.domains`, for samples that end at an edge. `ismcore.fit(domain=...)` sets it.

    Raises:
        OptionError: A value is none of the above.

    Cost: the nested divergence takes d directional derivatives of the score; see `ismcore.analytic` for the formulas.

    Example:
        >>> ismcore.ImplicitScoreMatching(curvature_weight=0.1)
        ImplicitScoreMatching(curvature_weight=0.1, divergence='auto')
    """

    curvature_weight: Any = 0.0
    divergence: Divergence | Hutchinson = "auto"
    domain: Domain | None = None
    differentiates_in_x = True
    row_axes: ClassVar[dict[str, int]] = {"probes": 1, "edge_weight": 0, "edge_slope": 0}

    def __post_init__(self) -> None:
        weight = self.curvature_weight
        if isinstance(weight, str) and weight == "auto":
            weight = CurvatureSearch()
            object.__setattr__(self, "curvature_weight", weight)
        if isinstance(weight, np.ndarray) and not weight.shape:
            weight = weight.item()
            object.__setattr__(self, "curvature_weight", weight)
        if isinstance(weight, CurvatureSearch):
            weight = weight.weights
        elif isinstance(weight, list | tuple | np.ndarray):
            weight = tuple(float(w) for w in weight)
            object.__setattr__(self, "curvature_weight", weight)
        numbers = weight if isinstance(weight, tuple) else (weight,)
        if not numbers or not all(is_weight(w) for w in numbers):
            raise OptionError(
                f"curvature_weight must be finite and from 0, one number or one a dimension, or 'auto', not {weight!r}"
            )
        if self.divergence not in ("auto", "nested", "analytic") and not isinstance(self.divergence, Hutchinson):
            raise OptionError(
                f"divergence must be 'auto', 'nested', 'analytic' or ismcore.Hutchinson(...), not {self.divergence!r}"
            )
        if not isinstance(self.domain, Domain | None):
            raise OptionError(f"domain must be one of ismcore.domains, such as Positive(), not {self.domain!r}")
        penalised = any(float(w) > 0.0 for w in numbers)
        if isinstance(self.divergence, Hutchinson) and penalised and self.divergence.n_probes < 2:
            raise OptionError("a curvature_weight with estimated divergence needs Hutchinson(n_probes=2) or more")

    def __repr__(self) -> str:
        where = "" if self.domain is None else f", domain={self.domain!r}"
        return f"{type(self).__name__}(curvature_weight={self.curvature_weight!r}, divergence={self.divergence!r}{where})"

    @property
    def title(self) -> str:
        """See `Objective.title`."""
        penalised = rf"Regularised score matching, $\lambda$ = {self.curvature_weight:g}"
        return penalised if self.curvature_weight else "Implicit score matching"

    @property
    def search(self) -> CurvatureSearch | None:
        """See `Objective.search`."""
        return self.curvature_weight if isinstance(self.curvature_weight, CurvatureSearch) else None

    @property
    def least_curvature_weight(self) -> float:
        """See `Objective.least_curvature_weight`."""
        return float(np.min(self.curvature_weight))

    def with_curvature_weight(self, weight: float) -> ImplicitScoreMatching:
        """See `Objective.with_curvature_weight`."""
        return replace(self, curvature_weight=weight)

    @property
    def separable(self) -> bool:  # type: ignore[override]
        """See `Objective.separable`; (v^T J)_i of an estimate, squared, couples the outputs."""
        return not (self.penalised and isinstance(self.divergence, Hutchinson))

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

    @property
    def needs_divergence_alone(self) -> bool:
        """Whether the Jacobian's diagonal enters by its sum alone: neither a penalty nor a weight of each column's own."""
        return not self.penalised and (self.domain is None or self.domain.one_weight)

    def on(self, domain: Domain) -> ImplicitScoreMatching:
        """See `Objective.on`."""
        return replace(self, domain=domain)

    def standardized(self, coordinates: Coordinates) -> ImplicitScoreMatching:
        """See `Objective.standardized`: the domain is in the user's units."""
        return self if self.domain is None else replace(self, domain=self.domain.in_coordinates(coordinates))

    def inputs(self, x: np.ndarray, coordinates: Coordinates) -> LossInputs:
        """See `Objective.inputs`; a domain without a width is measured by these samples."""
        found: LossInputs = self.divergence.inputs(*x.shape) if isinstance(self.divergence, Hutchinson) else {}
        if self.penalised:
            weight = np.asarray(self.curvature_weight, dtype=np.float64)
            found["curvature_weight"] = weight if weight.ndim == 0 else check_shape("curvature_weight", weight, x.shape[1:])
        if self.domain is not None:
            self.domain.check_columns(x.shape[1])
            domain = self.domain if self.domain.width is not None else self.domain.measured(coordinates.inverse(x))
            found["edge_weight"], found["edge_slope"] = domain.in_coordinates(coordinates).weights(x)
        return found

    def draws(self, rng: np.random.Generator, n: int, d: int) -> LossInputs:
        """See `Objective.draws`."""
        return self.divergence.draws(rng, n, d) if isinstance(self.divergence, Hutchinson) else {}

    def canonical(self) -> ImplicitScoreMatching:
        """See `Objective.canonical`; the penalty is there or not, and so are weights, one a row or one a column."""
        route = self.divergence.canonical() if isinstance(self.divergence, Hutchinson) else self.divergence
        domain = None if self.domain is None else self.domain.canonical()
        return replace(self, curvature_weight=float(self.penalised), divergence=route, domain=domain)

    def terms(self, calculus: Calculus, score_fn: ScoreFn, x: Array, inputs: LossInputs) -> Array:
        """See `Objective.terms`."""
        if isinstance(self.divergence, Hutchinson):
            return self._estimated_terms(calculus, score_fn, x, inputs)
        psi, diagonal = calculus.jacobian_diagonal(score_fn, x)
        return self.row_terms(calculus.ops, psi, diagonal, inputs)

    @staticmethod
    def row_terms(ops: Ops, psi: Array, diagonal: Array, inputs: LossInputs) -> Array:
        """The terms, (n,), from score and Jacobian diagonal, both (n, d)."""
        integrand = 0.5 * psi * psi + diagonal
        if "curvature_weight" in inputs:
            integrand = integrand + inputs["curvature_weight"] * diagonal * diagonal
        return ops.sum(_on_domain(integrand, psi, inputs), axis=1)

    def cotangents(
        self, ops: Ops, psi: Array, second: Array, weight: Array | float, inputs: LossInputs, slope: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """Loss, and its derivatives in psi and in `second`: by formula, for `ismcore.analytic`, where samples are columns.

        With row weights w_n of sum 1, s the second quantity, and sum_i s_i the divergence s itself where there is no penalty:

            J       = sum_n w_n [1/2 |psi|^2 + sum_i s_i + sum_i lambda_i s_i^2]
            psi_bar = w psi
            s_bar   = w + 2 lambda w s              without a penalty: w

        On a domain w_n h_i takes the place of w_n, and J has sum_n w_n g . psi more, g_i = d_i h_i, and psi_bar w g: what
        stands in J of psi is 1/2 sum psi (psi_bar + w g).

        Args:
            ops: Operations.
            psi: Score, (d, n).
            second: Where there is no penalty the divergence, (n,), else the Jacobian diagonal, (d, n).
            weight: Weight of each row, (n,), or of all alike; on a domain w h, (n,) for a divergence, else (d, n) or (1, n).
            inputs: See `terms`.
            slope: On a domain w g, (d, n).

        Returns:
            J, (); psi_bar, (d, n); and s_bar, of the shape of `second`, which may be the weight itself.
        """
        psi_bar = psi * weight
        if slope is None:
            loss = 0.5 * ops.sum(psi * psi_bar)
        else:
            psi_bar += slope
            loss = 0.5 * ops.sum(psi * (psi_bar + slope))
        if "curvature_weight" not in inputs:
            # the derivative in `second` is the weight, as an array (n,) also where it is one number
            second_bar = weight + 0.0 * second if isinstance(weight, float) else weight
            return loss + ops.sum(second * weight), psi_bar, second_bar
        curvature_weight = inputs["curvature_weight"]
        if len(curvature_weight.shape):
            curvature_weight = curvature_weight[:, None]
        half_penalty_bar = (curvature_weight * weight) * second
        second_bar = half_penalty_bar + weight
        loss = loss + ops.sum(second * second_bar)
        second_bar += half_penalty_bar
        return loss, psi_bar, second_bar

    @staticmethod
    def _estimated_terms(calculus: Calculus, score_fn: ScoreFn, x: Array, inputs: LossInputs) -> Array:
        psi, products = probe_products(calculus, score_fn, x, inputs["probes"])
        m = len(products)
        total = sum(products[1:], products[0])
        integrand = 0.5 * psi * psi + total * (1.0 / m)
        if "curvature_weight" in inputs:
            # the mean over pairs of different, hence independent, probes: unbiased for J_ii^2
            squares = sum((p * p for p in products[1:]), products[0] * products[0])
            integrand = integrand + inputs["curvature_weight"] * (total * total - squares) * (1.0 / (m * (m - 1)))
        return calculus.ops.sum(_on_domain(integrand, psi, inputs), axis=1)


def _on_domain(integrand: Array, psi: Array, inputs: LossInputs) -> Array:
    """h_i f_i + psi_i d_i h_i, (n, d), of the terms f_i of each output where there is a weight h; else the f_i."""
    if "edge_weight" not in inputs:
        return integrand
    return inputs["edge_weight"] * integrand + inputs["edge_slope"] * psi
