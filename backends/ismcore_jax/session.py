"""A whole run in JAX: one compiled program takes any number of steps, with optax, and gives the losses back as one array."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ismcore.backend import Backend, Session
from ismcore.errors import OptionError
from ismcore.models import Model
from ismcore.objectives import Objective
from ismcore.ops import Array
from ismcore.optimizers import SGD, Adam, Optimizer
from ismcore.problem import Params, Problem, Steps, TrainState
from ismcore.samples import Standardizer

__all__ = ["JaxSession"]

CAPACITY = 256
"""Steps that one call of the program can take; a fixed number, so that no other number of steps compiles it anew."""
DRAW_BYTES = 64 * 2**20
"""Where the objective draws, fewer, so that the draws of one call take about this much memory."""


class JaxSession(Session):
    """See `ismcore.backend.Session`."""

    def __init__(self, backend: Backend, problem: Problem, state: TrainState) -> None:
        self._backend = backend
        self._optimizer = problem.optimizer
        self._program = _program(backend, problem.model, problem.objective.canonical(), problem.optimizer.canonical())
        self._x = backend.asarray(problem.x)
        self._inputs = backend.asarrays(problem.inputs())
        drawn = sum(value.nbytes for value in problem.draws(0).values())
        self._capacity = max(1, min(CAPACITY, DRAW_BYTES // drawn)) if drawn else CAPACITY
        self._params = {name: backend.asarray(value) for name, value in state.params.items()}
        self._moments = _to_optax(backend, problem.optimizer, state)
        self._step = state.step
        self._names = tuple(state.params)

    def run(self, steps: Steps) -> np.ndarray:
        """See `Session.run`."""
        losses = []
        for start in range(0, steps.count, self._capacity):
            part = slice(start, min(start + self._capacity, steps.count))
            count = part.stop - start
            rates = jnp.asarray(_padded(steps.learning_rate[part], self._capacity))
            draws = self._backend.asarrays({k: _padded(value[part], self._capacity) for k, value in steps.draws.items()})
            self._params, self._moments, taken = self._program(
                self._params, self._moments, self._x, self._inputs, rates, draws, jnp.asarray(count)
            )
            losses.append(self._backend.to_numpy(taken)[:count].astype(np.float64))
        self._step += steps.count
        return np.concatenate(losses)

    def state(self) -> TrainState:
        """See `Session.state`."""
        # JAX returns dicts sorted by name; the order of the parameters is the model's
        params = {name: self._backend.to_numpy(self._params[name]) for name in self._names}
        return TrainState(self._step, params, *_from_optax(self._backend, self._optimizer, self._moments))


@lru_cache(maxsize=64)
def _program(
    backend: Backend, model: Model, objective: Objective, optimizer: Optimizer
) -> Callable[..., tuple[Params, Any, Array]]:
    """The compiled loop. Whatever may change without a new program (rates, inputs, draws, samples, steps) is an argument."""
    shell = Problem(model, objective, optimizer, np.empty((0, 0)), Standardizer.identity(0))
    loss_and_gradient = backend.loss_and_gradient(shell)
    rule = _transformation(optimizer)

    def run(params: Params, moments: Any, x: Array, inputs: Params, rates: Array, draws: Params, count: Array) -> Any:
        def step(k: Array, carry: Any) -> Any:
            params, moments, losses = carry
            given = {**inputs, **{name: value[k] for name, value in draws.items()}}
            loss, gradient = loss_and_gradient(params, x, given)
            direction, moments = rule.update(gradient, moments, params)
            params = jax.tree.map(lambda p, u: p - rates[k].astype(p.dtype) * u, params, direction)
            return params, moments, losses.at[k].set(loss)

        return jax.lax.fori_loop(0, count, step, (params, moments, jnp.zeros(len(rates), x.dtype)))

    return jax.jit(run, donate_argnums=(0, 1))


def _padded(array: np.ndarray, length: int) -> np.ndarray:
    """The array with zeros after it, so that a last, shorter call needs no program of its own."""
    return np.concatenate([array, np.zeros((length - len(array), *array.shape[1:]), array.dtype)])


def _transformation(optimizer: Optimizer) -> optax.GradientTransformation:
    """The optimiser without its learning rate, which is an argument of the program."""
    if isinstance(optimizer, Adam):
        return optax.scale_by_adam(optimizer.b1, optimizer.b2, optimizer.eps)
    if isinstance(optimizer, SGD):
        return optax.trace(optimizer.momentum) if optimizer.momentum else optax.identity()
    raise OptionError(f"backend 'jax' knows no optimiser {optimizer!r}")


def _to_optax(backend: Backend, optimizer: Optimizer, state: TrainState) -> Any:
    first, second = (
        {name: backend.asarray(value) for name, value in moment.items()} for moment in (state.first_moment, state.second_moment)
    )
    if isinstance(optimizer, Adam):
        return optax.ScaleByAdamState(jnp.asarray(state.step, jnp.int32), first, second)
    return optax.TraceState(first) if first else optax.EmptyState()


def _from_optax(backend: Backend, optimizer: Optimizer, moments: Any) -> tuple[Params, Params]:
    first: Params = {}
    second: Params = {}
    if isinstance(optimizer, Adam):
        first, second = moments.mu, moments.nu
    elif isinstance(optimizer, SGD) and optimizer.momentum:
        first = moments.trace
    as_numpy = backend.to_numpy
    return {name: as_numpy(value) for name, value in first.items()}, {n: as_numpy(v) for n, v in second.items()}
