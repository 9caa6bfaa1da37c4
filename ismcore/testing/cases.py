"""The table of training cases: scenarios, and how they are trained, whose steps the oracle takes too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from ismcore.models import MLP, Affine, Energy, Model
from ismcore.objectives import (
    DenoisingScoreMatching,
    ExplicitScoreMatching,
    Hutchinson,
    ImplicitScoreMatching,
    Objective,
    SlicedScoreMatching,
)
from ismcore.ops import Params
from ismcore.optimizers.rules import SGD, Adam, Optimizer
from ismcore.optimizers.state import TrainState
from ismcore.problem import Compile, Problem
from ismcore.testing import functions, losses, oracle
from ismcore.testing.scenarios import (
    BOX,
    CONTEXT,
    PLAIN,
    POLYTOPE,
    Scenario,
    distinct_probes,
    drawn,
    formula_of,
    scenario,
    target,
    variant,
)

__all__ = [
    "TrainingCase",
    "average_cases",
    "batch_cases",
    "clip_cases",
    "drawing_cases",
    "ragged",
    "training_cases",
    "weighted_cases",
]


@dataclass(frozen=True, eq=False)
class TrainingCase:
    """A scenario and how to train it, from the scenario's parameters.

    Attributes:
        id: Its name in reports.
        scenario: What is trained.
        optimizer: By what rule.
        batch_size: Most rows of a step; None for all.
        clip_norm: Longest gradient that is followed as it is; None for any.
        average: Whether a moving average of the parameters is kept; it begins at half the parameters, to be told from them.
    """

    id: str
    scenario: Scenario
    optimizer: Optimizer
    batch_size: int | None = None
    clip_norm: float | None = None
    average: bool = False

    def problem(self, compile: Compile = "auto") -> Problem:
        """The training problem."""
        problem = self.scenario.problem(self.optimizer, compile)
        return replace(problem, batch_size=self.batch_size, clip_norm=self.clip_norm, average=self.average)

    def start(self) -> TrainState:
        """The state before the first step, with arrays of its own."""
        state = self.optimizer.start({name: value.copy() for name, value in self.scenario.params.items()})
        if not self.average:
            return state
        return replace(state, average={name: 0.5 * value for name, value in self.scenario.params.items()})

    def decays(self, step: int, count: int) -> np.ndarray | None:
        """What each step from the given one keeps of the average, (count,): at step t (1 + t) / (4 + t)."""
        t = step + np.arange(count)
        return (1.0 + t) / (4.0 + t) if self.average else None

    def value_and_grad(self, params: Params, step: int) -> tuple[float, Params]:
        """Loss and gradient of a step at other parameters, by the oracle: of the rows that the core deals it."""
        problem, case = self.problem(), self.scenario
        if self.batch_size is not None:
            (rows,), (weight,) = problem.rows(step, 1)
            case = replace(case, x=case.x[rows], objective=losses.of_rows(case.objective, rows), row_weight=weight)
        return case.value_and_grad(params, problem.draws(step))

    def train(self, rates: Iterable[float], state: TrainState | None = None) -> tuple[np.ndarray, TrainState]:
        """Losses and state after steps at these rates, from the start or from a state, by the oracle."""
        return oracle.train(
            self.optimizer,
            self.start() if state is None else state,
            rates,
            self.value_and_grad,
            clip_norm=np.inf if self.clip_norm is None else self.clip_norm,
            decays=(lambda step: (1.0 + step) / (4.0 + step)) if self.average else None,
        )


OPTIMIZERS = {
    # An eps that is large enough for its place to matter, and constants that differ from everybody's defaults.
    "adam": Adam(learning_rate=0.05, b1=0.8, b2=0.99, eps=1e-3),
    "momentum": SGD(learning_rate=0.05, momentum=0.6),
}
LARGE_EPS = Adam(learning_rate=0.05, b1=0.8, b2=0.99, eps=0.5)


def _by_each_optimizer(case: Scenario, prefix: str = "", **told: Any) -> tuple[TrainingCase, ...]:
    """Training by every optimiser, and what else a step is told."""
    return tuple(TrainingCase(f"{prefix}{name}", case, optimizer, **told) for name, optimizer in OPTIMIZERS.items())


@cache
def training_cases() -> tuple[TrainingCase, ...]:
    """Every optimiser on two scenarios, and with all that a step can be told."""
    full = ragged(MLP((4,), "softplus"), oracle.mlp("softplus"), ImplicitScoreMatching(0.1), row_weight=RAGGED_WEIGHTS)
    return (
        *_by_each_optimizer(scenario("affine3"), "affine3-"),
        *_by_each_optimizer(scenario("s3_softplus-reg0.1"), "s3_softplus-reg0.1-"),
        *_by_each_optimizer(full, "full-", batch_size=3, clip_norm=CLIP_NORM["full"], average=True),
    )


RAGGED = 7
"""Rows, dealt three at a time: batches of two, two and three."""
RAGGED_WEIGHTS = np.array([0.25, 0.0, 0.125, 0.25, 0.0625, 0.0625, 0.25])
CLIP_NORM = {"full": 2.0, "clip": 4.25}
"""Some of the gradients of the cases are longer than this, and some are not."""


def ragged(model: Model, formula: oracle.Formula, objective: Objective, row_weight: np.ndarray | None = None) -> Scenario:
    """A scenario with more rows than a batch; its own answer is of no use, as no step sees all rows."""
    made = drawn("ragged", model, formula, RAGGED, 3, objective)
    return replace(made, row_weight=row_weight)


@cache
def batch_cases() -> tuple[TrainingCase, ...]:
    """Batches alone, with row weights, and with each of the arrays that an objective can hold, or draw, for each row."""
    noise = np.roll(distinct_probes(1, RAGGED, 3)[0], 1, axis=0)
    objectives: dict[str, tuple[Objective, np.ndarray | None]] = {
        "plain": (ImplicitScoreMatching(0.75), None),
        "row-weight": (ImplicitScoreMatching(0.75), RAGGED_WEIGHTS),
        "given-probes": (SlicedScoreMatching(probes=distinct_probes(2, RAGGED, 3)), None),
        "given-noise": (DenoisingScoreMatching(0.5, noise=noise), None),
        "target": (ExplicitScoreMatching(target), RAGGED_WEIGHTS),
        "drawn-noise": (DenoisingScoreMatching(0.5), None),
    }
    affine = (
        TrainingCase(name, ragged(Affine(), oracle.affine, objective, weight), OPTIMIZERS["momentum"], batch_size=3)
        for name, (objective, weight) in objectives.items()
    )
    steered = ragged(functions.STEERED, functions.steered_formula, functions.Conditional(CONTEXT), RAGGED_WEIGHTS)
    return (*affine, TrainingCase("context", steered, OPTIMIZERS["momentum"], batch_size=3))


@cache
def weighted_cases() -> tuple[TrainingCase, ...]:
    """Networks in batches of rows with weights, as the default fit has them: by each closed formula, penalised and not."""
    by_column = ImplicitScoreMatching((0.5, 0.0, 2.0))
    nets: dict[str, tuple[Model, Objective]] = {
        "mlp": (MLP((4,), "silu"), PLAIN),
        "mlp-by-column": (MLP((4,), "silu"), by_column),
        "mlp2": (MLP((3, 2), "tanh"), PLAIN),
        "mlp2-by-column": (MLP((2, 3), "tanh"), by_column),
        "mlp3": (MLP((2, 3, 3), "tanh"), PLAIN),
        "mlp3-penalised": (MLP((3, 3, 3), "tanh"), ImplicitScoreMatching(0.5)),
        "mlp-on-a-box": (MLP((4,), "silu"), ImplicitScoreMatching((0.5, 0.0, 2.0), domain=BOX)),
        "mlp2-on-a-polytope": (MLP((3, 2), "tanh"), ImplicitScoreMatching(domain=POLYTOPE)),
        "energy": (Energy(MLP((4,), "tanh")), PLAIN),
        "energy2-by-column": (Energy(MLP((3, 2), "tanh")), by_column),
    }
    return tuple(
        TrainingCase(id, ragged(model, formula_of(model), objective, RAGGED_WEIGHTS), OPTIMIZERS["momentum"], batch_size=3)
        for id, (model, objective) in nets.items()
    )


@cache
def clip_cases() -> tuple[TrainingCase, ...]:
    """Every optimiser, with gradients on both sides of the limit."""
    return _by_each_optimizer(scenario("affine3"), clip_norm=CLIP_NORM["clip"])


@cache
def average_cases() -> tuple[TrainingCase, ...]:
    """Every optimiser, with an average."""
    return _by_each_optimizer(scenario("affine3"), average=True)


@cache
def drawing_cases() -> tuple[TrainingCase, ...]:
    """One problem for each objective that draws anew at every step: probes, noise, or noise scales."""
    affine = scenario("affine3")
    drawn = {
        "probes": SlicedScoreMatching(n_probes=2, probes="gaussian", variance_reduced=False),
        "estimate": ImplicitScoreMatching(divergence=Hutchinson(n_probes=2)),
        "noise": DenoisingScoreMatching(noise_scale=0.5),
    }
    cases = [scenario("conditional3-tanh"), *(variant(affine, name, objective=objective) for name, objective in drawn.items())]
    return tuple(TrainingCase(case.id, case, OPTIMIZERS["adam"]) for case in cases)
