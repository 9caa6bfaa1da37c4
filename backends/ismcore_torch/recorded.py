"""A loss and its gradient as the torch calls that they come to, recorded once: Python takes half of a small step."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from ismcore import analytic
from ismcore.backend import Backend
from ismcore.models import Model
from ismcore.objectives import Objective
from ismcore.ops import Array
from ismcore.optimizers import SGD
from ismcore.problem import Params, Problem
from ismcore.samples import Standardizer

__all__ = ["recorded_loss_and_gradient"]

LossAndGradient = Callable[[Params, Array, Params], tuple[Array, Params]]
Shapes = tuple[tuple[str, tuple[int, ...]], ...]

AFTER = 64
"""Steps before the calls are recorded, which takes as long as is gained in about as many steps."""
LONGEST = 2000
"""Calls; more of them are those of many blocks of rows, whose work outweighs Python."""
ARITHMETIC = frozenset(("add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "__rsub__"))


class _TooLong(Exception):
    """More calls than are worth recording."""


class _Recorder(TorchFunctionMode):
    """Writes down every call that gives a tensor. Numbers in arithmetic become tensors, which torch takes in half the time."""

    def __init__(self, dtype: torch.dtype, inputs: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.constants: dict[float, torch.Tensor] = {}
        self._dtype = dtype
        self._nodes: Any = WeakTensorKeyDictionary()  # weak: a step of many blocks must not keep them all
        for k, value in enumerate(inputs):
            self._nodes[value] = self.graph.placeholder(f"input_{k}")
        self._first = next(iter(self.graph.nodes))

    def finish(self, outputs: Iterable[torch.Tensor]) -> Callable[..., Any]:
        """The calls as a function of constants and inputs."""
        self.graph.output(tuple(self._nodes[value] for value in outputs))
        calls: Callable[..., Any] = fx.GraphModule(torch.nn.Module(), self.graph).forward
        return calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            if len(self.graph.nodes) > LONGEST:
                raise _TooLong
            numbers = func.__name__ in ARITHMETIC

            def argument(value: Any) -> Any:
                return self._argument(value, numbers)

            taken, named = fx.node.map_aggregate(args, argument), fx.node.map_aggregate(kwargs or {}, argument)
            self._nodes[found] = self.graph.call_function(func, taken, named)
        return found

    def _argument(self, value: Any, numbers: bool) -> Any:
        if isinstance(value, torch.Tensor):
            return self._nodes[value]  # a tensor from elsewhere would be frozen into the program: rather a KeyError
        if not numbers or not isinstance(value, float):
            return value
        if value not in self.constants:
            self.constants[value] = constant = torch.tensor(value, dtype=self._dtype)
            with self.graph.inserting_before(self._first):
                self._nodes[constant] = self.graph.placeholder(f"constant_{len(self.constants)}")
        return self._nodes[self.constants[value]]


class _Recorded:
    """The formulas until they have been called a few times, and then their calls, with the same bits."""

    def __init__(self, formulas: LossAndGradient) -> None:
        self._formulas = formulas
        self._replay: LossAndGradient | None = None
        self._taken = 0

    def __call__(self, params: Params, x: Array, given: Params) -> tuple[Array, Params]:
        if self._replay is None:
            self._taken += 1
            if self._taken <= AFTER:
                return self._formulas(params, x, given)
            self._replay = self._record(params, x, given)
        return self._replay(params, x, given)

    def _record(self, params: Params, x: Array, given: Params) -> LossAndGradient:
        recorder = _Recorder(x.dtype, (*params.values(), x, *given.values()))
        try:
            with recorder:
                loss, gradient = self._formulas(params, x, given)
        except _TooLong:
            return self._formulas
        calls, names = recorder.finish((loss, *gradient.values())), tuple(gradient)
        constants = tuple(recorder.constants.values())

        def replay(params: Params, x: Array, given: Params) -> tuple[Array, Params]:
            loss, *slopes = calls(*constants, *params.values(), x, *given.values())
            return loss, dict(zip(names, slopes, strict=True))

        return replay


def recorded_loss_and_gradient(backend: Backend, problem: Problem) -> LossAndGradient:
    """`ismcore.analytic.loss_and_gradient`, after some steps without the Python between torch's calls; on the CPU.

    What is recorded holds for all fits of the same model, objective and shapes, and takes some milliseconds.
    """
    found: list[LossAndGradient] = []

    def of(params: Params, x: Array, given: Params) -> tuple[Array, Params]:
        if not found:  # shapes of a batch are known here alone
            shapes = _shapes(params), tuple(x.shape), _shapes(given)
            found.append(_recorded(backend, problem.model, problem.objective.canonical(), *shapes))
        return found[0](params, x, given)

    return of


@lru_cache(maxsize=64)
def _recorded(
    backend: Backend, model: Model, objective: Objective, params: Shapes, x: tuple[int, ...], given: Shapes
) -> _Recorded:
    """One for all fits on arrays of these shapes."""
    shell = Problem(model, objective, SGD(), np.empty((0, 0)), Standardizer.identity(0))
    return _Recorded(analytic.loss_and_gradient(backend, shell))


def _shapes(tree: Params) -> Shapes:
    return tuple((name, tuple(value.shape)) for name, value in tree.items())
