"""Explicit score matching, against a score that is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ismcore.calculus import Calculus, ScoreFn
from ismcore.errors import OptionError
from ismcore.objectives.base import LossInputs, Objective, check_shape
from ismcore.ops import Array
from ismcore.samples.checks import Standardizer

__all__ = ["ExplicitScoreMatching"]


@dataclass(frozen=True)
class ExplicitScoreMatching(Objective):
    """Half the Fisher divergence from a known score: mean_n 1/2 |psi(x_n) - target_score(x_n)|^2, in 1/[x]^2.

    Args:
        target_score: NumPy function (n, d) -> (n, d) of samples in the user's units, such as
            `ismcore.targets.GaussianMixture(...).score`. It is called once, outside of the framework.

    Raises:
        OptionError: It is not callable, or returns another shape or values that are not finite.

    Source: Hyvarinen (2005), where it is the starting point.
    """

    target_score: Callable[[np.ndarray], Any] = field(compare=False)
    differentiates_in_x = False
    separable = True
    row_axes: ClassVar[dict[str, int]] = {"target_score": 0}

    def __post_init__(self) -> None:
        if not callable(self.target_score):
            raise OptionError(f"target_score must be a function (n, d) -> (n, d), not {self.target_score!r}")

    def inputs(self, x: np.ndarray, standardizer: Standardizer) -> LossInputs:
        """See `Objective.inputs`; the score of z = (x - mean) / scale is scale times the score of x."""
        target = self.target_score(standardizer.inverse(x))
        return {"target_score": check_shape("what target_score returns", target, x.shape) * standardizer.scale}

    def standardized(self, standardizer: Standardizer) -> ExplicitScoreMatching:
        """See `Objective.standardized`; the score of z = (x - mean) / scale is scale times the score of x."""
        return ExplicitScoreMatching(lambda z: np.asarray(self.target_score(standardizer.inverse(z))) * standardizer.scale)

    def terms(self, calculus: Calculus, score_fn: ScoreFn, x: Array, inputs: LossInputs) -> Array:
        """See `Objective.terms`."""
        gap = score_fn(x) - inputs["target_score"]
        return 0.5 * calculus.ops.sum(gap * gap, axis=1)
