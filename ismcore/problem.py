"""What a backend is given and gives back: the problem, the steps to take, the state. Frozen, and NumPy throughout."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ismcore.models import Model
    from ismcore.objectives import Objective
    from ismcore.optimizers import Optimizer

__all__ = ["Params", "Problem", "Steps", "TrainState"]

Params = dict[str, Any]
"""Parameters by name: NumPy arrays in the core, arrays of the framework inside a backend."""


@dataclass(frozen=True, eq=False)
class Problem:
    """One training problem.

    Attributes:
        model: Gives the score, psi(x; params).
        objective: Gives the loss.
        optimizer: Gives the update.
        x: Samples as the model sees them, (n, d), float64.
        compile: "auto": the backend's fastest way; "off": tier 0.
    """

    model: Model
    objective: Objective
    optimizer: Optimizer
    x: np.ndarray
    compile: str = "auto"


@dataclass(frozen=True, eq=False)
class Steps:
    """A run of consecutive optimiser steps.

    Attributes:
        learning_rate: One rate a step, (count,), float64.
    """

    learning_rate: np.ndarray

    @property
    def count(self) -> int:
        """Number of steps."""
        return len(self.learning_rate)


@dataclass(frozen=True, eq=False)
class TrainState:
    """All that training carries from one step to the next, in a form that any backend can go on from.

    Attributes:
        step: Steps taken so far.
        params: Parameters, as the model sees the (standardised) samples.
        first_moment: Running mean of the gradient (Adam's m, SGD's velocity); empty where the optimiser keeps none.
        second_moment: Running mean of the squared gradient (Adam's v); empty likewise.
    """

    step: int
    params: Params
    first_moment: Params = field(default_factory=dict)
    second_moment: Params = field(default_factory=dict)

    def astype(self, dtype: str) -> TrainState:
        """The same state with every array a copy of its own, in the dtype."""

        def cast(tree: Params) -> Params:
            return {name: np.array(value, dtype=dtype) for name, value in tree.items()}

        return replace(
            self,
            params=cast(self.params),
            first_moment=cast(self.first_moment),
            second_moment=cast(self.second_moment),
        )

    def copy(self) -> TrainState:
        """The same state with every array a copy of its own."""
        return self.astype(next(iter(self.params.values())).dtype.name)
