"""L-BFGS, by SciPy, over a backend's loss and gradient: for smooth problems of few parameters and all rows at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ismcore.backend.contract import Backend
from ismcore.errors import BackendMissing, OptionError
from ismcore.ops import Params
from ismcore.optimizers.rules import Optimizer
from ismcore.optimizers.state import TrainState
from ismcore.problem import Problem
from ismcore.training.loop import Loop, train
from ismcore.training.run_state import RunState

__all__ = ["LBFGS", "minimise", "optimise"]

GRADIENT_TOLERANCE = {"float64": 1e-9, "float32": 1e-5}
"""A run has converged where no entry of the gradient is larger: rounding leaves about a tenth of this."""


@dataclass(frozen=True)
class LBFGS(Optimizer):
    """L-BFGS (Liu & Nocedal 1989) as SciPy has it, one iteration an epoch; needs `pip install 'ismcore[lbfgs]'`.

    It sees all rows at every iteration, in float64 on the host, and takes no learning rate; it cannot be checkpointed, as the
    curvature that it has gathered is SciPy's own. It finds the steep steps at single samples that make plain implicit score
    matching unbounded sooner than other optimisers do, so hold rows out, or give a curvature weight.

    Args:
        memory: Pairs of steps and gradient changes that the approximate curvature is made of.

    Raises:
        OptionError: `memory` is no whole number from 1.
    """

    memory: int = 10
    learning_rate = 1.0
    runs_whole = True

    def __post_init__(self) -> None:
        if isinstance(self.memory, bool) or not isinstance(self.memory, int) or self.memory < 1:
            raise OptionError(f"memory must be a whole number from 1, not {self.memory!r}")

    def canonical(self) -> LBFGS:
        """See `Optimizer.canonical`."""
        return self

    def start(self, params: Params) -> TrainState:
        """See `Optimizer.start`."""
        return TrainState(0, params)

    def update(self, state: TrainState, gradient: Params, learning_rate: float) -> TrainState:
        """There is no single step: see `minimise`."""
        raise OptionError("L-BFGS runs as a whole, by ismcore.fit(optimizer=LBFGS()), not by single steps")


class _Ended(Exception):
    """The run is to end: raised out of SciPy's loop."""


def optimise(backend: Backend, loop: Loop) -> RunState:
    """Take the steps of a run until it has a status: `minimise` or `ismcore.training.train`, by the optimiser."""
    return minimise(backend, loop) if loop.problem.optimizer.runs_whole else train(backend, loop)


def minimise(backend: Backend, loop: Loop) -> RunState:
    """What `ismcore.training.train` does, by L-BFGS.

    Raises:
        BackendMissing: SciPy is not installed.
    """
    try:
        from scipy.optimize import minimize
    except ImportError as error:
        raise BackendMissing("optimizer=LBFGS() needs SciPy: pip install 'ismcore[lbfgs]'") from error
    run_state, plan, optimizer = loop.run_state, loop.plan, loop.problem.optimizer
    assert isinstance(optimizer, LBFGS)  # noqa: S101  (our own bug otherwise)
    function = _Function(backend, loop.problem, run_state.state)
    try:
        loop.begin()
        start = time.monotonic()
        if not run_state.status:
            options = {"maxiter": plan.epochs, "maxfun": 20 * plan.epochs, "maxcor": optimizer.memory, "ftol": 0.0}
            options["gtol"] = GRADIENT_TOLERANCE[backend.dtype]
            flat = function.flat(run_state.state.params)
            loss, _ = function(flat)

            def after(intermediate_result: Any) -> None:
                nonlocal loss
                loop.record(np.array([loss]), function.state(run_state.state.step + 1, intermediate_result.x))
                loss = float(intermediate_result.fun)
                loop.finish_chunk()
                if run_state.status:
                    raise _Ended

            try:
                found = minimize(function, flat, jac=True, method="L-BFGS-B", callback=after, options=options)
                _finish(loop, found)
            except _Ended:
                pass
            except FloatingPointError as error:
                loop.diverge(np.array([np.nan]), run_state.state, str(error))
        run_state.timings["run"] += time.monotonic() - start
        loop.notify("end")
    except Exception as error:
        loop.close(error)
        raise
    return run_state


def _finish(loop: Loop, found: Any) -> None:
    """SciPy ended by itself: at a minimum, or where no step leads further down."""
    validated = loop.validate()
    loop.run_state.status = "completed"
    if validated:
        loop.notify("validation")
    if not found.success:
        loop.run_state.warnings += (f"L-BFGS has not converged after {loop.run_state.epoch} iterations: {found.message}",)


class _Function:
    """The loss and its gradient as a function of one vector, float64."""

    def __init__(self, backend: Backend, problem: Problem, state: TrainState) -> None:
        self._backend, self._like = backend, state.params
        with backend.scope():
            self._x = backend.asarray(problem.x)
            self._given = backend.asarrays(problem.inputs() | problem.draws(0))
            self._loss_and_gradient: Callable[..., tuple[Any, Params]] = backend.loss_and_gradient(problem.loss)

    def __call__(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        with self._backend.scope():
            loss, gradient = self._loss_and_gradient(self._backend.asarrays(self._tree(flat)), self._x, self._given)
            value = float(self._backend.to_numpy(loss))
            slope = self.flat({name: self._backend.to_numpy(gradient[name]) for name in self._like})
        if not (np.isfinite(value) and np.isfinite(slope).all()):
            raise FloatingPointError(f"the loss is {value}, or its gradient not finite")
        return value, slope

    def flat(self, params: Params) -> np.ndarray:
        return np.concatenate([np.ravel(value) for value in params.values()]).astype(np.float64)

    def _tree(self, flat: np.ndarray) -> Params:
        bounds = np.cumsum([0, *(value.size for value in self._like.values())])
        parts = zip(self._like.items(), bounds[:-1], bounds[1:], strict=True)
        return {name: flat[a:b].reshape(value.shape).astype(value.dtype) for (name, value), a, b in parts}

    def state(self, step: int, flat: np.ndarray) -> TrainState:
        return TrainState(step, self._tree(flat))
