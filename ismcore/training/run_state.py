"""What a run carries from step to step, and writes to a checkpoint; and how it is to go."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ismcore.errors import OptionError
from ismcore.ops import Params
from ismcore.optimizers.rules import Optimizer
from ismcore.optimizers.schedules import Schedule, as_schedule
from ismcore.optimizers.state import STATE_PARTS, TrainState
from ismcore.problem import Problem

__all__ = ["Best", "OnNonfinite", "Plan", "RollbackPoint", "RunState", "Status"]

Status = Literal["completed", "early_stopped", "interrupted", "timed_out", "diverged"]
"""How a run ended."""
OnNonfinite = Literal["raise", "stop", "rollback"]
"""What a run does where a loss, a gradient or a parameter is not finite."""


@dataclass(frozen=True)
class Plan:
    """How a run goes, beside the problem.

    Attributes:
        epochs: Passes over the samples.
        schedule: Factor on the optimiser's learning rate, or one learning rate an epoch.
        average_decay: Share of the moving average of the parameters that a step keeps, once warmed up; None for no average.
        on_nonfinite: "raise", "stop" or "rollback".
        patience: Epochs without a better held-out loss after which the run ends; 0 for never.
        judge_every: Epochs from one validation to the next; with "rollback" also from one rollback point to the next.
            Before the first there is one after epoch 1, 2, 4, ...: a small sample may be learned by heart as soon as that.
        snapshot_epochs: Epochs after which to keep the parameters; 0 is the start.
    """

    epochs: int
    schedule: Schedule | tuple[float, ...] = field(default_factory=Schedule)
    average_decay: float | None = None
    on_nonfinite: OnNonfinite = "raise"
    patience: int = 0
    judge_every: int = 1
    snapshot_epochs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("patience", 0), ("judge_every", 1)):
            if getattr(self, name) < least:
                raise OptionError(f"{name} must be a whole number from {least}, not {getattr(self, name)!r}")
        if isinstance(self.schedule, tuple):
            as_schedule(self.schedule, self.epochs)
        if self.average_decay is not None and not 0.0 < self.average_decay < 1.0:
            raise OptionError(f"average_decay must be in (0, 1), not {self.average_decay!r}")
        if not all(0 <= epoch <= self.epochs for epoch in self.snapshot_epochs):
            raise OptionError(f"snapshots must be after epochs from 0 to {self.epochs}, not {self.snapshot_epochs!r:.80}")

    def rates(self, problem: Problem, step: int, count: int) -> np.ndarray:
        """The learning rate of each step from the given one, (count,)."""
        at = step + np.arange(count)
        if isinstance(self.schedule, tuple):
            return np.asarray(self.schedule)[np.minimum(at // problem.batches, self.epochs - 1)]
        return problem.optimizer.learning_rate * self.schedule.factors(at, self.epochs * problem.batches)

    def validates(self, epoch: int) -> bool:
        """Whether the validation loss is computed after this epoch."""
        every = self.judge_every
        return epoch % every == 0 or epoch == self.epochs or (epoch < every and epoch & (epoch - 1) == 0)

    def next_validation(self, epoch: int) -> int:
        """The first epoch after this one at which it is."""
        regular = (epoch // self.judge_every + 1) * self.judge_every
        early = 1 << epoch.bit_length()  # the first power of 2 above it
        return min(self.epochs, regular, early if early < self.judge_every else regular)

    def decays(self, step: int, count: int) -> np.ndarray | None:
        """What each step keeps of the average, (count,): the decay, but (1 + t) / (10 + t) at step t while that is smaller."""
        if self.average_decay is None:
            return None
        t = step + np.arange(count)
        return np.minimum(self.average_decay, (1.0 + t) / (10.0 + t))


@dataclass(frozen=True, eq=False)
class Best:
    """The lowest validation loss so far, its epoch, and its parameters."""

    epoch: int
    loss: float
    params: Params


@dataclass(frozen=True, eq=False)
class RollbackPoint:
    """The state at the end of an epoch, from which a run goes on where a later step is not finite."""

    epoch: int
    state: TrainState


@dataclass(eq=False)
class RunState:
    """All that a run has come to; with problem and plan enough to go on with it.

    Attributes:
        state: The last state, finite in every number.
        losses: The mean loss of each epoch, over its batches, each before its own update.
        rates: The learning rate of each epoch's first step.
        open_losses: The loss of each step of the epoch in progress.
        validation: Held-out losses by epoch.
        best: The best of them.
        snapshots: Parameters by the number of epochs that led to them.
        rate_factor: Factor on the learning rate: a half for each rollback.
        rollbacks: How often the run rolled back.
        rollback_point: Where it would roll back to.
        status: How the run ended; "" as long as it has not.
        warnings: What happened on the way, in words.
        failure: What was not finite, where the run diverged.
        timings: Seconds spent in "prepare" and "run".
    """

    state: TrainState
    losses: np.ndarray = field(default_factory=lambda: np.empty(0))
    rates: np.ndarray = field(default_factory=lambda: np.empty(0))
    open_losses: np.ndarray = field(default_factory=lambda: np.empty(0))
    validation: dict[int, float] = field(default_factory=dict)
    best: Best | None = None
    snapshots: dict[int, Params] = field(default_factory=dict)
    rate_factor: float = 1.0
    rollbacks: int = 0
    rollback_point: RollbackPoint | None = None
    status: Status | Literal[""] = ""
    warnings: tuple[str, ...] = ()
    failure: str = ""
    timings: dict[str, float] = field(default_factory=lambda: {"prepare": 0.0, "run": 0.0})

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.losses)

    def check(self, plan: Plan, optimizer: Optimizer) -> None:
        """Refuse what no run by this plan comes to, as a file may claim it.

        Raises:
            OptionError: The message says what.
        """
        self._check_history(plan)
        wanted = {part for part in STATE_PARTS if getattr(optimizer.start(self.state.params), part)}
        for state in (self.state, *([] if self.rollback_point is None else [self.rollback_point.state])):
            has = {part for part in STATE_PARTS if getattr(state, part)}
            if has != wanted | ({"average"} if plan.average_decay is not None else set()):
                raise OptionError(f"its state holds {', '.join(sorted(has))}, which are not those of {optimizer!r}")
            if any(np.any(array < 0.0) for array in state.second_moment.values()):
                raise OptionError("its second moments, means of squares, are negative")
        if self.rollback_point is not None and not 0 <= self.rollback_point.epoch <= self.epoch:
            raise OptionError(f"it would roll back to epoch {self.rollback_point.epoch} of {self.epoch}")
        if not 0.0 < self.rate_factor <= 1.0 or self.rollbacks < 0:
            raise OptionError(f"its factor on the learning rate is {self.rate_factor}, after {self.rollbacks} rollbacks")
        if not self.timings.keys() >= {"prepare", "run"} or not all(0.0 <= took < math.inf for took in self.timings.values()):
            raise OptionError("its timings are not seconds of 'prepare' and 'run'")

    def _check_history(self, plan: Plan) -> None:
        done, begun = self.epoch, len(self.open_losses)
        if any(array.ndim != 1 or array.dtype.kind != "f" for array in (self.losses, self.rates, self.open_losses)):
            raise OptionError("its losses and rates are no lists of numbers")
        if not np.isfinite(self.losses).all() and self.status != "diverged":
            raise OptionError("its losses are not finite, and yet the run did not diverge")
        if done > plan.epochs or (begun and done == plan.epochs):
            raise OptionError(f"{done} epochs are done of {plan.epochs}")
        steps = self.state.step - begun
        # A run that diverged goes back to its last finite state, and keeps the losses of the epochs that were not.
        uneven = steps < done or (steps % done or begun >= max(steps // done, 1) if done else steps)
        if self.status != "diverged" and uneven:
            raise OptionError(f"{self.state.step} steps are no {done} epochs and {begun} steps of the next")
        epochs = list(self.validation)
        if epochs != sorted(set(epochs)) or not all(1 <= epoch <= done for epoch in epochs):
            raise OptionError("its validated epochs are not in order, or not done")
        # Members of a fit in folds begin at the normal law, which is their best until they are better, and is in no history.
        if self.best is not None and self.best.epoch and self.validation.get(self.best.epoch) != self.best.loss:
            raise OptionError(f"its best epoch, {self.best.epoch}, was not validated with that loss")
        if not all(0 <= epoch <= done for epoch in self.snapshots):
            raise OptionError("it holds a snapshot after an epoch that is not done")

    @property
    def params(self) -> Params:
        """The parameters to use: the best by held-out loss, or else the last."""
        return self.state.evaluation_params if self.best is None else self.best.params
