"""Sliced score matching."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ismcore.calculus import Calculus, ScoreFn
from ismcore.coordinates import Coordinates
from ismcore.objectives.base import LossInputs, Objective
from ismcore.objectives.probes import Hutchinson, probe_products
from ismcore.ops import Array

__all__ = ["SlicedScoreMatching"]


@dataclass(frozen=True)
class SlicedScoreMatching(Objective):
    """Sliced score matching, with or without variance reduction (Song, Garg, Shi & Ermon 2019).

        variance_reduced:  mean_n mean_v [ v^T J(x_n) v + 1/2 |psi(x_n)|^2 ]
        otherwise:         mean_n mean_v [ v^T J(x_n) v + 1/2 (v . psi(x_n))^2 ]

    Probes have E[v v^T] = 1 (not unit length), so both have the expectation of plain implicit score matching: values are
    comparable with it, in 1/[x]^2.

    Args:
        n_probes: Probes a row, m.
        probes: "rademacher", "gaussian", "sphere" (radius sqrt(d)), or an array (m, n, d); see `Hutchinson`.
        variance_reduced: Take the squared norm exactly.

    Cost: m products of the Jacobian with a vector.

    Example:
        >>> ismcore.SlicedScoreMatching(n_probes=2, probes="sphere")
        SlicedScoreMatching(n_probes=2, probes='sphere', variance_reduced=True)
    """

    n_probes: int = 1
    probes: Any = field(default="rademacher", compare=False)
    variance_reduced: bool = True
    differentiates_in_x = True
    row_axes: ClassVar[dict[str, int]] = {"probes": 1}

    def __post_init__(self) -> None:
        source = self._source()
        object.__setattr__(self, "n_probes", source.n_probes)

    def _source(self) -> Hutchinson:
        return Hutchinson(self.n_probes, self.probes)

    @property
    def separable(self) -> bool:  # type: ignore[override]
        """See `Objective.separable`; (v . psi)^2 couples the outputs."""
        return self.variance_reduced

    def inputs(self, x: np.ndarray, coordinates: Coordinates) -> LossInputs:
        """See `Objective.inputs`."""
        return self._source().inputs(*x.shape)

    def draws(self, rng: np.random.Generator, n: int, d: int) -> LossInputs:
        """See `Objective.draws`."""
        return self._source().draws(rng, n, d)

    def canonical(self) -> SlicedScoreMatching:
        """See `Objective.canonical`."""
        return SlicedScoreMatching(self.n_probes, variance_reduced=self.variance_reduced)

    def terms(self, calculus: Calculus, score_fn: ScoreFn, x: Array, inputs: LossInputs) -> Array:
        """See `Objective.terms`."""
        ops, probes = calculus.ops, inputs["probes"]
        psi, products = probe_products(calculus, score_fn, x, probes)
        if self.variance_reduced:
            squares = [0.5 * ops.sum(psi * psi, axis=1)] * len(products)
        else:
            slices = [ops.sum(probes[k] * psi, axis=1) for k in range(len(products))]
            squares = [0.5 * s * s for s in slices]
        terms = [ops.sum(product, axis=1) + square for product, square in zip(products, squares, strict=True)]
        return sum(terms[1:], terms[0]) * (1.0 / len(terms))
