"""What the arguments of `ismcore.fit` stand for where they are left out, by recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from ismcore.models import MLP, Model
from ismcore.objectives import ImplicitScoreMatching, Objective
from ismcore.optimizers.rules import Adam, Optimizer
from ismcore.optimizers.schedules import Schedule
from ismcore.samples.diagnosis import Diagnosis
from ismcore.samples.findings import ON_ATOMS

__all__ = ["RECIPES", "Recipe", "RecipeName"]

RecipeName = Literal["default", "single", "reference"]


@dataclass(frozen=True)
class Recipe:
    """What an argument of `fit` stands for where it is left out; measured in `docs/decisions`.

    Attributes:
        model: The network.
        objective: By what is known of the samples.
        patience: At least so many epochs, and a fifth of all; 0 for no end of it.
        full_batch_up_to: So many rows are taken all at once. Of more, batches of a 64th, but 128 to 1024 rows.
        floor: Whether the fit starts at the normal law, in folds, with several candidates.

    The others are as in `fit`.
    """

    model: Callable[[int], Model]
    objective: Callable[[Diagnosis], Objective]
    optimizer: Optimizer
    epochs: int
    schedule: Schedule
    standardize: bool
    validation: float
    patience: int
    clip_norm: float | None = None
    average_decay: float | None = None
    full_batch_up_to: int = 2**62
    floor: bool = False


def _bounded_objective(diagnosis: Diagnosis) -> Objective:
    return ImplicitScoreMatching(curvature_weight=ON_ATOMS if diagnosis.has_atoms else 0.0)


SINGLE = Recipe(
    model=lambda d: MLP(),
    objective=_bounded_objective,
    optimizer=Adam(1e-2),
    epochs=500,
    schedule=Schedule("cosine"),
    standardize=True,
    validation=0.2,
    patience=100,
    average_decay=0.999,
    full_batch_up_to=256,
)
RECIPES: dict[RecipeName, Recipe] = {
    "default": replace(SINGLE, optimizer=Adam(2e-2), epochs=300, patience=20, floor=True),
    "single": SINGLE,
    "reference": Recipe(
        model=lambda d: MLP((8,), "sigmoid"),
        objective=lambda diagnosis: ImplicitScoreMatching(),
        optimizer=Adam(1e-2),
        epochs=500,
        schedule=Schedule(),
        standardize=False,
        validation=0.0,
        patience=0,
    ),
}
