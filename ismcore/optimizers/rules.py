"""Optimisers: their constants, and the update equations in NumPy that tier 0 runs and tier 1 is tested against."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ismcore.errors import OptionError
from ismcore.ops import Params
from ismcore.optimizers.state import TrainState

__all__ = ["SGD", "Adam", "Optimizer", "averaged", "clipped"]


class Optimizer(ABC):
    """An update rule. Instances are plain constants; what changes from step to step is in `TrainState`."""

    learning_rate: float
    runs_whole: ClassVar[bool] = False
    """Whether it takes a whole run over all rows at once, and no single steps; see `ismcore.lbfgs.optimise`."""

    def canonical(self) -> Optimizer:
        """The same for all that one compiled program serves: those that differ in the learning rate alone."""
        return replace(self, learning_rate=0.0)  # type: ignore[type-var]  # every optimiser is a dataclass

    @abstractmethod
    def start(self, params: Params) -> TrainState:
        """The state before the first step."""

    @abstractmethod
    def update(self, state: TrainState, gradient: Params, learning_rate: float) -> TrainState:
        """The state after one step along the gradient, at the given rate."""


def _between(name: str, value: float, low: float, high: float) -> None:
    if not (isinstance(value, int | float | np.number) and low <= value < high):
        raise OptionError(f"{name} must be a number in [{low}, {high}), not {value!r}")


def clipped(gradient: Params, clip_norm: float | None) -> Params:
    """The gradient g, or g * clip_norm / |g| where |g|, over all parameters together, is longer than clip_norm."""
    if clip_norm is None:
        return gradient
    norm = float(np.sqrt(sum(np.sum(g * g, dtype=g.dtype) for g in gradient.values())))
    if not norm > clip_norm:
        return gradient
    return {name: g * g.dtype.type(clip_norm / norm) for name, g in gradient.items()}


def averaged(average: Params, params: Params, decay: float) -> Params:
    """The moving average after one more step: decay * average + (1 - decay) * params."""
    return {name: decay * value + (1.0 - decay) * params[name] for name, value in average.items()}


def _zeros(params: Params) -> Params:
    return {name: np.zeros_like(value) for name, value in params.items()}


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1).

    m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  theta -= rate * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps),
    with eps outside of the square root, as torch and optax have it.
    """

    learning_rate: float = 1e-2
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        _between("learning_rate", self.learning_rate, 0.0, np.inf)
        _between("b1", self.b1, 0.0, 1.0)
        _between("b2", self.b2, 0.0, 1.0)
        _between("eps", self.eps, 0.0, np.inf)

    def start(self, params: Params) -> TrainState:
        """See `Optimizer.start`."""
        return TrainState(0, params, _zeros(params), _zeros(params))

    def update(self, state: TrainState, gradient: Params, learning_rate: float) -> TrainState:
        """See `Optimizer.update`."""
        t = state.step + 1
        params, first, second = {}, {}, {}
        for name, g in gradient.items():
            m = self.b1 * state.first_moment[name] + (1.0 - self.b1) * g
            v = self.b2 * state.second_moment[name] + (1.0 - self.b2) * (g * g)
            scale = np.sqrt(v / (1.0 - self.b2**t)) + self.eps
            params[name] = state.params[name] - learning_rate * (m / (1.0 - self.b1**t)) / scale
            first[name], second[name] = m, v
        return replace(state, step=t, params=params, first_moment=first, second_moment=second)


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent with heavy-ball momentum: u = momentum u + g;  theta -= rate * u (torch's and optax's form)."""

    learning_rate: float = 1e-2
    momentum: float = 0.0

    def __post_init__(self) -> None:
        _between("learning_rate", self.learning_rate, 0.0, np.inf)
        _between("momentum", self.momentum, 0.0, 1.0)

    def start(self, params: Params) -> TrainState:
        """See `Optimizer.start`."""
        return TrainState(0, params, _zeros(params) if self.momentum else {})

    def update(self, state: TrainState, gradient: Params, learning_rate: float) -> TrainState:
        """See `Optimizer.update`."""
        u = {name: self.momentum * state.first_moment[name] + g for name, g in gradient.items()} if self.momentum else {}
        direction = u or gradient
        params = {name: value - learning_rate * direction[name] for name, value in state.params.items()}
        return replace(state, step=state.step + 1, params=params, first_moment=u)
