"""A whole run in NumPy: parameters and moments are parts of one vector each, which every update changes in place."""

from collections.abc import Callable
from typing import cast

import numpy as np

from ismcore.backend import Backend, Session
from ismcore.errors import OptionError
from ismcore.objectives import LossInputs
from ismcore.ops import Params
from ismcore.optimizers.rules import SGD, Adam
from ismcore.optimizers.state import TrainState
from ismcore.problem import Problem, Steps, take_rows

__all__ = ["AutogradSession"]


class AutogradSession(Session):
    """See `ismcore.backend.Session`."""

    def __init__(self, backend: Backend, problem: Problem, state: TrainState) -> None:
        self._backend = backend
        self._loss_and_gradient = backend.loss_and_gradient(problem.loss)
        self.follow(problem)
        self._dtype = np.dtype(backend.dtype)
        self._step = state.step
        like = state.params
        self._params, self._flat = _laid_out(like, like, self._dtype)
        self._gradient, self._slope = _laid_out(like, {}, self._dtype)
        self._first, first = _laid_out(like, state.first_moment, self._dtype)
        self._second, second = _laid_out(like, state.second_moment, self._dtype)
        self._average, self._mean = _laid_out(like, state.average, self._dtype)
        self._kept = [bool(tree) for tree in (state.first_moment, state.second_moment, state.average)]
        self._update = _update_rule(problem, self._flat, self._slope, first, second)

    def follow(self, problem: Problem) -> bool:
        """See `Session.follow`."""
        self._problem = problem
        self._x = self._backend.asarray(problem.x)
        self._inputs = self._backend.asarrays(problem.inputs())
        return True

    def run(self, steps: Steps) -> np.ndarray:
        """See `Session.run`."""
        losses = np.empty(steps.count)
        given_to_step = {name: np.asarray(value, dtype=self._dtype) for name, value in steps.given.items()}
        x, given = self._x, self._inputs
        for k, rate in enumerate(steps.learning_rate.tolist()):
            if steps.rows is not None:
                x, given = self._x[steps.rows[k]], take_rows(self._inputs, self._problem.row_axes, steps.rows[k])
            if given_to_step:
                given = cast(LossInputs, {**given, **{name: value[k] for name, value in given_to_step.items()}})
            loss, gradient = self._loss_and_gradient(self._params, x, given)
            losses[k] = loss
            for name, slope in gradient.items():
                self._gradient[name][...] = slope
            self._clip()
            self._step += 1
            self._update(rate, self._step)
            if steps.average_decay is not None:
                self._move_average(float(steps.average_decay[k]))
        return losses

    def _clip(self) -> None:
        """See `ismcore.optimizers.clipped`."""
        limit = self._problem.clip_norm
        if limit is not None:
            norm = float(np.sqrt(self._slope @ self._slope))
            if norm > limit:
                self._slope *= self._dtype.type(limit / norm)

    def _move_average(self, decay: float) -> None:
        self._mean *= decay
        self._mean += (1.0 - decay) * self._flat

    def state(self) -> TrainState:
        """See `Session.state`."""
        trees = (self._first, self._second, self._average)
        kept = (tree if is_kept else {} for tree, is_kept in zip(trees, self._kept, strict=True))
        return TrainState(self._step, *({name: value.copy() for name, value in tree.items()} for tree in (self._params, *kept)))


def _laid_out(like: Params, values: Params, dtype: np.dtype) -> tuple[Params, np.ndarray]:
    """One vector for arrays of these names and shapes, and the arrays as views of it; zero where there is no value."""
    bounds = np.cumsum([0, *(np.size(value) for value in like.values())])
    flat = np.zeros(bounds[-1], dtype=dtype)
    views = {
        name: flat[a:b].reshape(np.shape(value)) for (name, value), a, b in zip(like.items(), bounds, bounds[1:], strict=False)
    }
    for name, value in values.items():
        views[name][...] = value
    return views, flat


def _update_rule(
    problem: Problem, flat: np.ndarray, slope: np.ndarray, first: np.ndarray, second: np.ndarray
) -> Callable[[float, int], None]:
    """The optimiser's step, (learning rate, its number from 1), in place: the equations of `ismcore.optimizers`."""
    optimizer = problem.optimizer
    one, other = np.empty_like(flat), np.empty_like(flat)
    if isinstance(optimizer, Adam):

        def adam(rate: float, t: int) -> None:
            np.multiply(slope, 1.0 - optimizer.b1, out=one)
            np.multiply(first, optimizer.b1, out=first)
            np.add(first, one, out=first)
            np.multiply(slope, slope, out=one)
            np.multiply(one, 1.0 - optimizer.b2, out=one)
            np.multiply(second, optimizer.b2, out=second)
            np.add(second, one, out=second)
            np.multiply(second, 1.0 / (1.0 - optimizer.b2**t), out=one)
            np.sqrt(one, out=one)
            np.add(one, optimizer.eps, out=one)
            np.multiply(first, rate / (1.0 - optimizer.b1**t), out=other)
            np.divide(other, one, out=other)
            np.subtract(flat, other, out=flat)

        return adam
    if not isinstance(optimizer, SGD):
        raise OptionError(f"backend 'autograd' knows no optimiser {optimizer!r}")

    def sgd(rate: float, t: int) -> None:
        direction = slope
        if optimizer.momentum:
            np.multiply(first, optimizer.momentum, out=first)
            np.add(first, slope, out=first)
            direction = first
        np.multiply(direction, rate, out=one)
        np.subtract(flat, one, out=flat)

    return sgd
