"""What a backend is given and gives back: the problem, the steps to take, the state. Frozen, and NumPy throughout."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ismcore.seeds import stream

if TYPE_CHECKING:
    from ismcore.models import Model
    from ismcore.objectives import Objective
    from ismcore.optimizers import Optimizer
    from ismcore.samples import Standardizer

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
        standardizer: Took the samples there from the user's units.
        row_weight: Weight of each row in the loss, (n,), positive or zero with sum 1; None for 1/n each.
        seed: Source of what the objective draws.
        compile: "auto": the backend's fastest way; "off": tier 0.
    """

    model: Model
    objective: Objective
    optimizer: Optimizer
    x: np.ndarray
    standardizer: Standardizer
    row_weight: np.ndarray | None = None
    seed: int = 0
    compile: str = "auto"

    def inputs(self) -> Params:
        """All arrays beside parameters and samples that enter the loss and stay the same."""
        found = dict(self.objective.inputs(self.x, self.standardizer))
        if self.row_weight is not None:
            found["row_weight"] = self.row_weight
        return found

    def draws(self, step: int) -> Params:
        """All arrays that are drawn anew for the evaluation of the loss at a step.

        Each step has a random stream of its own, so that how a run is cut into chunks, or stopped and gone on with, changes
        no draw.
        """
        return self.objective.draws(stream(self.seed, "draws", step), *self.x.shape)


@dataclass(frozen=True, eq=False)
class Steps:
    """A run of consecutive optimiser steps.

    Attributes:
        learning_rate: One rate a step, (count,), float64.
        draws: What the objective drew for each step: arrays whose first axis counts the steps, (count, ...).
    """

    learning_rate: np.ndarray
    draws: Params = field(default_factory=dict)

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
