"""A whole run in torch: everything stays on the device, and every update changes one vector of parameters in place."""

import warnings
from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import cast

import numpy as np
import torch

from ismcore import analytic
from ismcore.backend import Backend, Session, SharedSetting
from ismcore.backend.processes import rank_and_world
from ismcore.objectives import LossInputs
from ismcore.ops import Params
from ismcore.optimizers.rules import Adam
from ismcore.optimizers.state import STATE_PARTS, TrainState
from ismcore.problem import Problem, Steps, take_rows
from ismcore_torch.calculus import twice_differentiable
from ismcore_torch.step import Shapes, Tensors, compiled_step, eager_step, views

__all__ = ["TorchSession"]


SMALL, FEW = 2_000_000, 2**17
"""With fewer multiplications a step, and fewer numbers in an array with all rows, a second thread costs more than it gives."""

_THREADS = SharedSetting("torch's threads", torch.get_num_threads, torch.set_num_threads, exclusive=False)


class TorchSession(Session):
    """See `ismcore.backend.Session`.

    With `compile="on"` the step is one program of `torch.compile`, which takes seconds to make. Where that fails, as without a
    compiler of C++, a warning says why, and the step is taken call by call.
    """

    def __init__(self, backend: Backend, problem: Problem, state: TrainState) -> None:
        self._backend = backend
        self._transposed_names = analytic.transposed_weights(problem)
        trees = [_transposed(getattr(state, part), self._transposed_names) for part in STATE_PARTS]
        self._shapes: Shapes = tuple((name, np.shape(value)) for name, value in trees[0].items())
        self._vectors: Tensors = tuple(backend.asarray(_joined(tree, self._shapes)) for tree in trees)
        self._step = state.step
        arrays = self._vectors, self._shapes, self._transposed_names
        self._eager = eager_step(backend, problem, *arrays)
        self._compiled = compiled_step(backend, problem, *arrays) if problem.compile == "on" else None
        self.follow(problem)

    def follow(self, problem: Problem) -> bool:
        """See `Session.follow`."""
        self._problem = problem
        rank, world = rank_and_world()
        self._own = slice(rank, None, world) if world > 1 and not problem.is_dealt else None
        x, inputs = problem.x, problem.inputs()
        if self._own is not None and problem.batch_size is None:
            x, inputs = x[self._own], problem.inputs_of(self._own)
        self._x = self._backend.asarray(x)
        self._inputs = self._backend.asarrays(inputs)
        self._small = _is_small(self._backend, problem, self._shapes)
        return True

    def run(self, steps: Steps) -> np.ndarray:
        """See `Session.run`."""
        # nothing is recorded for a tape where the gradient takes none: a tenth of a small network's step
        closed = analytic.supports(self._problem.loss)
        # held here as well as in each product, where it then costs a fifth
        held = twice_differentiable() if self._problem.objective.differentiates_in_x and not closed else nullcontext()
        with self._few_threads(), torch.inference_mode(closed), held:
            losses = self._take(steps if self._own is None else steps.for_rows(self._own, self._problem.row_axes))
        self._step += steps.count
        return self._backend.to_numpy(torch.stack(losses)).astype(np.float64)

    def _few_threads(self) -> AbstractContextManager[None]:
        """One thread for small problems, and afterwards as many as before."""
        return _THREADS.hold(1) if self._small else nullcontext()

    def _take(self, steps: Steps) -> list[torch.Tensor]:
        losses = []
        drawn = self._backend.asarrays(steps.given)
        rows = None if steps.rows is None else torch.as_tensor(steps.rows, device=self._backend.device)
        x, given = self._x, self._inputs
        columns = [self._backend.asarray(column).unbind() for column in self._numbers(steps)]
        for k, numbers in enumerate(zip(*columns, strict=True)):
            if rows is not None:
                x, given = self._x[rows[k]], take_rows(self._inputs, self._problem.row_axes, rows[k])
            if drawn:
                given = cast(LossInputs, {**given, **{name: value[k] for name, value in drawn.items()}})
            losses.append(self._advance(x, given, numbers))
        return losses

    def _numbers(self, steps: Steps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What `Step` takes as numbers, (count,) each."""
        optimizer, ones = self._problem.optimizer, np.ones(steps.count)
        share = ones if steps.average_decay is None else 1.0 - steps.average_decay
        if not isinstance(optimizer, Adam):
            return steps.learning_rate, ones, share
        t = self._step + 1 + np.arange(steps.count)
        return steps.learning_rate / (1.0 - optimizer.b1**t), 1.0 / (1.0 - optimizer.b2**t), share

    def _advance(self, x: torch.Tensor, given: LossInputs, numbers: Tensors) -> torch.Tensor:
        if self._compiled is not None:
            try:
                return self._compiled(x, given, numbers)
            except Exception as error:  # whatever torch's compiler or the machine's raises
                why = f"the compiled step of torch failed: {_in_words(error)}; the eager one goes on"
                warnings.warn(why, RuntimeWarning, stacklevel=2)
                self._compiled = None
        return self._eager(x, given, numbers)

    def state(self) -> TrainState:
        """See `Session.state`."""
        # a vector is copied as a whole: a copy of each array takes a tenth of a small network's step
        vectors = (self._backend.to_numpy(vector) for vector in self._vectors)
        trees = (_transposed(views(vector, self._shapes), self._transposed_names) if len(vector) else {} for vector in vectors)
        return TrainState(self._step, *({name: np.asarray(value, order="C") for name, value in tree.items()} for tree in trees))


def _joined(tree: Params, shapes: Shapes) -> np.ndarray:
    """All arrays in one vector, (p,), in the order of the shapes; (0,) where there are none."""
    return np.concatenate([np.ravel(tree[name]) for name, _ in shapes]) if tree else np.empty(0)


def _transposed(tree: Params, names: tuple[str, ...]) -> Params:
    return {name: value.T if name in names else value for name, value in tree.items()}


def _is_small(backend: Backend, problem: Problem, shapes: Shapes) -> bool:
    """Whether a step on the CPU is so short that what surrounds it counts."""
    arrays, n = [shape for _, shape in shapes], problem.batch_rows
    multiplications, widest = n * sum(map(prod, arrays)), n * max(max(shape, default=1) for shape in arrays)
    return backend.device == "cpu" and multiplications < SMALL and widest < FEW


def _in_words(error: BaseException) -> str:
    """What torch's compiler stumbled over: its own error wraps it."""
    while (inner := getattr(error, "inner_exception", None) or error.__cause__) is not None:
        error = inner
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no message'}"
