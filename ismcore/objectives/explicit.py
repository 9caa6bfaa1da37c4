"""Explicit score matching, against a score that is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ismcore.calculus import Calculus, ScoreFn
from ismcore.coordinates import Coordinates
from ismcore.errors import OptionError
from ismcore.objectives.base import LossInputs, Objective, check_shape
from ismcore.ops import Array

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

    def inputs(self, x: np.ndarray, coordinates: Coordinates) -> LossInputs:
        """See `Objective.inputs`; the score of x is taken to the coordinates."""
        points = coordinates.inverse(x)
        target = check_shape("what target_score returns", self.target_score(points), x.shape)
        return {"target_score": coordinates.score_of_coordinates(points, target)}

    def standardized(self, coordinates: Coordinates) -> ExplicitScoreMatching:
        """See `Objective.standardized`."""

        def target_score(z: np.ndarray) -> np.ndarray:
            points = coordinates.inverse(z)
            return coordinates.score_of_coordinates(points, np.asarray(self.target_score(points)))

        return ExplicitScoreMatching(target_score)

    def terms(self, calculus: Calculus, score_fn: ScoreFn, x: Array, inputs: LossInputs) -> Array:
        """See `Objective.terms`."""
        gap = score_fn(x) - inputs["target_score"]
        return 0.5 * calculus.ops.sum(gap * gap, axis=1)
