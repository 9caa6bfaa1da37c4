"""A run whose whole step is compiled by torch: loss, gradient, clipping, update and average in one program."""

import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ismcore import analytic
from ismcore.backend import Backend, Session
from ismcore.errors import OptionError
from ismcore.models import Model
from ismcore.objectives import Objective
from ismcore.ops import Array
from ismcore.optimizers import SGD, Adam, Optimizer
from ismcore.problem import STATE_PARTS, Params, Problem, Steps, TrainState, take_rows
from ismcore.samples import Standardizer
from ismcore_torch.session import TorchSession

__all__ = ["CompiledSession"]

AGREEMENT = {"float32": 1e-4, "float64": 1e-9}
"""Largest difference, relative to the largest magnitude, of the first compiled step from the eager one."""


class CompiledSession(Session):
    """See `ismcore.backend.Session`; chosen by `compile="on"`.

    Compiling takes 5 to 30 seconds on a CPU and saves a few tenths of a millisecond a step, so that it repays itself after some
    ten thousand steps of a small network and hardly ever of a large one, which spends its time in products that are the same
    either way. On a GPU it replays the program as CUDA graphs. The first step is checked against the eager one; where it
    differs, or does not compile, a warning says so and the eager session goes on.
    """

    def __init__(self, backend: Backend, problem: Problem, state: TrainState) -> None:
        self._backend, self._problem = backend, problem
        self._x = backend.asarray(problem.x)
        self._inputs = backend.asarrays(problem.inputs())
        self._trees: list[Params] = [backend.asarrays(getattr(state, part)) for part in STATE_PARTS]
        self._step = state.step
        self._program = _program(
            backend,
            problem.model,
            problem.objective.canonical(),
            problem.optimizer.canonical(),
            tuple(sorted(problem.row_axes.items())),
            problem.clip_norm is not None,
        )
        self._eager: TorchSession | None = None
        self._checked = False

    def run(self, steps: Steps) -> np.ndarray:
        """See `Session.run`."""
        if not self._checked and self._eager is None:
            self._check(steps.part(0, 1))
        if self._eager is not None:
            return self._eager.run(steps)
        losses = self._take(steps)
        self._step += steps.count
        return self._backend.to_numpy(torch.stack(losses)).astype(np.float64)

    def _take(self, steps: Steps) -> list[torch.Tensor]:
        losses = []
        drawn = self._backend.asarrays(steps.given)
        constants = self._backend.asarray(_constants(self._problem, self._step, steps))
        rows = None if steps.rows is None else torch.as_tensor(steps.rows, device=self._backend.device)
        for k in range(steps.count):
            given = {name: value[k] for name, value in drawn.items()}
            some = () if rows is None else (rows[k],)
            loss, *self._trees = self._program(*self._trees, self._x, self._inputs, given, constants[k], *some)
            if self._backend.device != "cpu":  # the program's next replay writes over what the last one returned
                loss, self._trees = loss.clone(), [{n: v.clone() for n, v in tree.items()} for tree in self._trees]
            losses.append(loss)
        return losses

    def _check(self, first: Steps) -> None:
        """Take the first step both ways, and go on eagerly where they differ."""
        before = self.state()
        eager = TorchSession(self._backend, self._problem, before)
        expected = eager.run(first)[0], eager.state()
        trees = [{name: value.clone() for name, value in tree.items()} for tree in self._trees]
        try:
            (loss,) = self._take(first)
            gap = _difference(expected, (float(loss), replace_step(self.state(), before.step + 1)))
            fault = f"differs by {gap:.1e} from the eager one" if not gap <= AGREEMENT[self._backend.dtype] else ""
        except Exception as error:  # whatever torch's compiler or the machine's raises
            fault = f"failed: {_in_words(error)}"
        self._trees, self._checked = trees, True
        if fault:
            warnings.warn(f"the compiled step of torch {fault}; the eager one goes on", RuntimeWarning, stacklevel=2)
            self._eager = TorchSession(self._backend, self._problem, before)

    def state(self) -> TrainState:
        """See `Session.state`."""
        if self._eager is not None:
            return self._eager.state()
        trees = ({name: self._backend.to_numpy(value) for name, value in tree.items()} for tree in self._trees)
        return TrainState(self._step, *trees)


def _in_words(error: BaseException) -> str:
    """What torch's compiler stumbled over: its own error wraps it."""
    while (inner := getattr(error, "inner_exception", None) or error.__cause__) is not None:
        error = inner
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no message'}"


def replace_step(state: TrainState, step: int) -> TrainState:
    """The state at another number of steps."""
    return TrainState(step, *(getattr(state, part) for part in STATE_PARTS))


def _difference(expected: tuple[float, TrainState], found: tuple[float, TrainState]) -> float:
    pairs = [(np.asarray(expected[0]), np.asarray(found[0]))]
    theirs, ours = expected[1].arrays(), found[1].arrays()
    pairs += [(theirs[name], ours[name]) for name in theirs]
    return float(max(np.max(np.abs(a - b)) / max(1.0, np.max(np.abs(a))) for a, b in pairs))


def _constants(problem: Problem, step: int, steps: Steps) -> np.ndarray:
    """What a step takes as numbers, (count, 4): its rate, Adam's correction of v, the average's decay, the norm's limit."""
    optimizer, t = problem.optimizer, step + 1 + np.arange(steps.count)
    rate: Any = steps.learning_rate
    correction: Any = np.ones(steps.count)
    if isinstance(optimizer, Adam):
        rate, correction = rate / (1.0 - optimizer.b1**t), 1.0 / (1.0 - optimizer.b2**t)
    decay = np.ones(steps.count) if steps.average_decay is None else steps.average_decay
    limit = np.full(steps.count, 1.0 if problem.clip_norm is None else problem.clip_norm)
    return np.stack([rate, correction, decay, limit], axis=1)


@lru_cache(maxsize=16)
def _program(
    backend: Backend,
    model: Model,
    objective: Objective,
    optimizer: Optimizer,
    row_axes: tuple[tuple[str, int], ...],
    clips: bool,
) -> Any:
    """One step, compiled, as a pure function of arrays; once for all fits. See `ismcore.optimizers` for the equations."""
    problem = Problem(model, objective, optimizer, np.empty((0, 0)), Standardizer.identity(0))
    axes = dict(row_axes)
    if not isinstance(optimizer, Adam | SGD):
        raise OptionError(f"backend 'torch' knows no optimiser {optimizer!r}")
    closed = analytic.supports(problem)
    loss_and_gradient = analytic.loss_and_gradient(backend, problem) if closed else backend.loss_and_gradient(problem)

    def step(
        params: Params, first: Params, second: Params, average: Params, x: Array, inputs: Params, given: Params,
        constants: Array, *rows: Array,
    ) -> tuple[Array, Params, Params, Params, Params]:  # fmt: skip
        rate, correction, decay, limit = constants[0], constants[1], constants[2], constants[3]
        if rows:
            x, inputs = x[rows[0]], take_rows(inputs, axes, rows[0])
        loss, gradient = loss_and_gradient(params, x, {**inputs, **given})
        if clips:
            norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(slope) for slope in gradient.values()]))
            scale = torch.where(norm > limit, limit / norm, torch.ones_like(norm))
            gradient = {name: slope * scale for name, slope in gradient.items()}
        direction = {name: gradient[name] for name in params}
        if isinstance(optimizer, Adam):
            first = {name: optimizer.b1 * m + (1.0 - optimizer.b1) * gradient[name] for name, m in first.items()}
            second = {name: optimizer.b2 * v + (1.0 - optimizer.b2) * gradient[name] ** 2 for name, v in second.items()}
            direction = {name: first[name] / (torch.sqrt(second[name] * correction) + optimizer.eps) for name in params}
        elif first:
            first = direction = {name: optimizer.momentum * u + gradient[name] for name, u in first.items()}
        params = {name: value - rate * direction[name] for name, value in params.items()}
        average = {name: decay * value + (1.0 - decay) * params[name] for name, value in average.items()}
        return loss.detach(), params, dict(first), second, average

    # on a GPU, as CUDA graphs
    mode: dict[str, Any] = {} if backend.device == "cpu" else {"mode": "reduce-overhead"}
    return torch.compile(step, fullgraph=True, dynamic=False, **mode)
