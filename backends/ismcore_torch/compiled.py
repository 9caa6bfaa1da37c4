"""A run whose whole step is compiled by torch: loss, gradient, clipping, update and average in one program."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch._inductor
from torch.fx.experimental.proxy_tensor import make_fx

from ismcore import analytic
from ismcore.backend import Backend, Session
from ismcore.errors import OptionError
from ismcore.models import Model
from ismcore.objectives import Objective
from ismcore.ops import Array
from ismcore.optimizers import SGD, Adam, Optimizer
from ismcore.problem import STATE_PARTS, Params, Problem, Steps, TrainState, take_rows
from ismcore.samples import Standardizer
from ismcore_torch.session import TorchSession, few_threads, is_small

__all__ = ["CompiledSession"]

AGREEMENT = {"float32": 1e-4, "float64": 1e-9}
"""Largest difference, relative to the largest magnitude, of the first compiled step from the eager one."""
SLOTS = 5
"""Steps of a small problem that one call takes, as a call costs about as much as such a step: 59 microseconds a step with one,
37 with five, 33 with ten. The compiler's time grows by 0.7 seconds with each."""


class CompiledSession(Session):
    """See `ismcore.backend.Session`; chosen by `compile="on"`.

    Compiling takes 4 to 30 seconds on a CPU and saves a tenth of a millisecond a step, so that it repays itself after some
    fifty thousand steps of a small network and hardly ever of a large one, which spends its time in products that are the same
    either way. On a GPU it replays the program as CUDA graphs. The first step is checked against the eager one; where it
    differs, or does not compile, a warning says so and the eager session goes on.

    A call takes a fixed number of steps, and those beyond the end of a chunk change nothing, so that the bits do not depend on
    how a run is cut into chunks.
    """

    def __init__(self, backend: Backend, problem: Problem, state: TrainState) -> None:
        self._backend, self._problem = backend, problem
        self._x = backend.asarray(problem.x)
        self._inputs = backend.asarrays(problem.inputs())
        trees = [backend.asarrays(getattr(state, part)) for part in STATE_PARTS]
        self._names = tuple(tuple(tree) for tree in trees)
        self._state = [value for tree in trees for value in tree.values()]
        self._step = state.step
        self._small = is_small(backend, problem, state)
        self._slots = SLOTS if self._small else 1
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
        return losses

    def _take(self, steps: Steps) -> np.ndarray:
        with few_threads(self._small), torch.no_grad():
            calls = -(-steps.count // self._slots)
            each = [self._backend.asarray(_constants(self._problem, self._step, steps))]
            if steps.rows is not None:
                each.append(torch.as_tensor(steps.rows, device=self._backend.device))
            each += self._backend.asarrays(steps.given).values()
            each = [self._in_calls(value, calls) for value in each]
            program = self._program(steps, [value[0] for value in each])
            losses = []
            for k in range(calls):
                found = program(*self._state, self._x, *self._inputs.values(), *(value[k] for value in each))
                if self._backend.device != "cpu":  # the program's next replay writes over what the last one returned
                    found = [value.clone() for value in found]
                taken, *self._state = found
                losses.append(taken)
            return self._backend.to_numpy(torch.cat(losses)).astype(np.float64)[: steps.count]

    def _in_calls(self, values: torch.Tensor, calls: int) -> torch.Tensor:
        """What belongs to single steps, (calls, slots, ...), with zeros after the last."""
        missing = calls * self._slots - len(values)
        padded = torch.cat([values, values.new_zeros((missing, *values.shape[1:]))])
        return padded.reshape(calls, self._slots, *values.shape[1:])

    def _program(self, steps: Steps, of_a_call: list[torch.Tensor]) -> Callable[..., Any]:
        problem = self._problem
        arrays = [*self._state, self._x, *self._inputs.values(), *of_a_call]
        return _compiled(
            self._backend,
            problem.model,
            problem.objective.canonical(),
            problem.optimizer.canonical(),
            tuple(sorted(problem.row_axes.items())),
            problem.clip_norm is not None,
            Layout(self._names, tuple(self._inputs), tuple(steps.given), steps.rows is not None, self._slots),
            tuple((tuple(array.shape), array.dtype) for array in arrays),
        )

    def _check(self, first: Steps) -> None:
        """Take the first step both ways, and go on eagerly where they differ."""
        before = self.state()
        eager = TorchSession(self._backend, self._problem, before)
        expected = eager.run(first)[0], eager.state()
        start = [value.clone() for value in self._state]
        try:
            (loss,) = self._take(first)
            gap = _difference(expected, (float(loss), replace(self.state(), step=before.step + 1)))
            fault = f"differs by {gap:.1e} from the eager one" if not gap <= AGREEMENT[self._backend.dtype] else ""
        except Exception as error:  # whatever torch's compiler or the machine's raises
            fault = f"failed: {_in_words(error)}"
        self._state, self._checked = start, True
        if fault:
            warnings.warn(f"the compiled step of torch {fault}; the eager one goes on", RuntimeWarning, stacklevel=2)
            self._eager = TorchSession(self._backend, self._problem, before)

    def state(self) -> TrainState:
        """See `Session.state`."""
        if self._eager is not None:
            return self._eager.state()
        return TrainState(self._step, *_trees(self._names, [self._backend.to_numpy(value) for value in self._state]))


def _in_words(error: BaseException) -> str:
    """What torch's compiler stumbled over: its own error wraps it."""
    while (inner := getattr(error, "inner_exception", None) or error.__cause__) is not None:
        error = inner
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no message'}"


def _difference(expected: tuple[float, TrainState], found: tuple[float, TrainState]) -> float:
    pairs = [(np.asarray(expected[0]), np.asarray(found[0]))]
    theirs, ours = expected[1].arrays(), found[1].arrays()
    pairs += [(theirs[name], ours[name]) for name in theirs]
    return float(max(np.max(np.abs(a - b)) / max(1.0, np.max(np.abs(a))) for a, b in pairs))


def _constants(problem: Problem, step: int, steps: Steps) -> np.ndarray:
    """What a step takes as numbers, (count, 5): rate, Adam's correction of v, the average's decay, the norm's limit, and 1."""
    optimizer, t = problem.optimizer, step + 1 + np.arange(steps.count)
    rate: Any = steps.learning_rate
    ones = np.ones(steps.count)
    correction: Any = ones
    if isinstance(optimizer, Adam):
        rate, correction = rate / (1.0 - optimizer.b1**t), 1.0 / (1.0 - optimizer.b2**t)
    decay = ones if steps.average_decay is None else steps.average_decay
    limit = ones if problem.clip_norm is None else np.full(steps.count, problem.clip_norm)
    return np.stack([rate, correction, decay, limit, ones], axis=1)


class Layout(NamedTuple):
    """What a call takes: names of the arrays in each part of the state, of inputs and of draws; batches or all rows; steps."""

    state: tuple[tuple[str, ...], ...]
    inputs: tuple[str, ...]
    given: tuple[str, ...]
    batches: bool
    slots: int

    def trees(self) -> tuple[tuple[str, ...], ...]:
        """Names of all arrays in their order."""
        each = ("constants", "rows") if self.batches else ("constants",)
        return (*self.state, ("x",), self.inputs, each, self.given)


def _trees(names: Iterable[tuple[str, ...]], values: Iterable[Any]) -> list[dict[str, Any]]:
    remaining = iter(values)
    return [{name: next(remaining) for name in tree} for tree in names]


@lru_cache(maxsize=16)
def _compiled(
    backend: Backend,
    model: Model,
    objective: Objective,
    optimizer: Optimizer,
    row_axes: tuple[tuple[str, int], ...],
    clips: bool,
    layout: Layout,
    arrays: tuple[tuple[tuple[int, ...], torch.dtype], ...],
) -> Callable[..., Any]:
    """A call's steps, compiled, as a pure function of arrays; once for all fits. See `ismcore.optimizers` for the equations.

    Traced and given to inductor as it is: torch.compile reads the Python code of every step, which takes three times as long,
    and checks at every call what the session holds fixed, which takes longer than a step.
    """
    problem = Problem(model, objective, optimizer, np.empty((0, 0)), Standardizer.identity(0))
    axes = dict(row_axes)
    if not isinstance(optimizer, Adam | SGD):
        raise OptionError(f"backend 'torch' knows no optimiser {optimizer!r}")
    loss_and_gradient = (
        analytic.loss_and_gradient(backend, problem) if analytic.supports(problem) else backend.loss_and_gradient(problem)
    )

    def step(state: list[Params], x: Array, inputs: Params, constants: Array) -> tuple[Array, list[Params]]:
        params, first, second, average = state
        rate, correction, decay, limit, taken = constants
        loss, gradient = loss_and_gradient(params, x, inputs)
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
        after = [params, first, second, average]
        kept = [
            {name: torch.where(taken > 0, new[name], value) for name, value in old.items()}
            for new, old in zip(after, state, strict=True)
        ]
        return loss.detach(), kept

    def steps(*values: Array) -> list[Array]:
        *state, whole, inputs, each, given = _trees(layout.trees(), values)
        losses = []
        for k in range(layout.slots):
            x, some = whole["x"], inputs
            if layout.batches:
                x, some = x[each["rows"][k]], take_rows(inputs, axes, each["rows"][k])
            loss, state = step(state, x, {**some, **{name: value[k] for name, value in given.items()}}, each["constants"][k])
            losses.append(loss)
        return [torch.stack(losses), *(value for tree in state for value in tree.values())]

    examples = [torch.zeros(shape, dtype=dtype, device=backend.device) for shape, dtype in arrays]
    options = {} if backend.device == "cpu" else {"triton.cudagraphs": True}
    program: Callable[..., Any] = torch._inductor.compile(make_fx(steps)(*examples), [*examples], options=options)
    return program
