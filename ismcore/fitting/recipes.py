"""What the arguments of `ismcore.fit` stand for where they are left out, by recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from ismcore.models import MLP, Energy, Model
from ismcore.objectives import DenoisingScoreMatching, ImplicitScoreMatching, Objective
from ismcore.optimizers.rules import Adam, Optimizer
from ismcore.optimizers.schedules import Schedule
from ismcore.problem import Loss
from ismcore.samples.diagnosis import Diagnosis
from ismcore.samples.findings import ON_ATOMS
from ismcore.training.settings import Candidate

__all__ = ["DENOISING", "FOLDS", "MOST_IN_FOLDS", "RECIPES", "Recipe", "RecipeName", "candidates_of"]

RecipeName = Literal["default", "single", "reference"]
FOLDS, MOST_IN_FOLDS = 5, 10_000
"""Folds of a fit from the normal law on, and the most rows that are dealt into them; of more a share is held out once."""
FULL_LENGTH = 1000
"""Folds of more rows n take the root of this over n of the epochs."""
DENOISING = 0.2
"""Noise scale of the candidate that is trained by denoising, in coordinates of unit spread."""


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

    def epochs_of(self, folds: int, n: int, d: int) -> int:
        """Epochs, of several candidates in folds fewer with more rows, whose batches are more in an epoch."""
        return round(self.epochs * min(1.0, (FULL_LENGTH / n) ** 0.5)) if folds > 1 and d > 1 else self.epochs


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


def candidates_of(loss: Loss, folds: int, d: int, *, model: Any, objective: Any) -> tuple[Candidate, ...]:
    """What a fit in folds is tried with: the model that was named; or a network, an energy, and a network by denoising.

    In one dimension every score is the gradient of an energy: there it is two networks, one of sigmoid units, which has half
    the error on modes far apart, and twice that of the other on a skew-normal law. With one fold, which is for many rows, it
    is the network alone.

    Args:
        loss: Of the fit.
        folds: How many there are; 0 of one network, which has no candidates.
        d: Columns.
        model: That was named; None if none was.
        objective: That was named; None if none was.
    """
    if not folds:
        return ()
    if model is not None:
        return (Candidate("model", loss.model, loss.objective),)
    net = MLP(output_bias=False)
    network = Candidate("network", net, loss.objective)
    if folds == 1:
        return (network,)
    if d == 1:
        return (network, Candidate("sigmoid network", MLP(activation="sigmoid", output_bias=False), loss.objective))
    found = [network, Candidate("energy", Energy(net), loss.objective)]
    if objective is None and loss.objective.domain is None:  # noise goes over an edge
        found.append(Candidate("denoising network", net, DenoisingScoreMatching(DENOISING)))
    return tuple(found)
