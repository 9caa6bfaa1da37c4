"""A loss and its gradient as the torch calls that they come to, recorded once: Python takes half of a small step."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.overrides import TorchFunctionMode

from ismcore import analytic
from ismcore.backend import Backend
from ismcore.models import Model
from ismcore.objectives import Objective
from ismcore.ops import Array
from ismcore.optimizers import SGD
from ismcore.problem import Params, Problem
from ismcore.samples import Standardizer

__all__ = ["recorded_loss_and_gradient"]

Shapes = tuple[tuple[str, tuple[int, ...]], ...]

ARITHMETIC = frozenset(("add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "__rsub__"))


class _Recorder(TorchFunctionMode):
    """Writes down every call that gives a tensor. Numbers in arithmetic become tensors, which torch takes in half the time."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.constants: dict[float, torch.Tensor] = {}
        self._dtype = dtype
        self._nodes: dict[int, fx.Node] = {}
        self._kept: list[torch.Tensor] = []  # while a tensor lives, no other one has its id
        self._first: fx.Node | None = None

    def inputs(self, values: Iterable[torch.Tensor]) -> None:
        """Arguments of what is recorded, in their order; before anything else."""
        for value in values:
            node = self.graph.placeholder(f"input_{len(self._kept)}")
            self._first = self._first or node
            self._note(value, node)

    def outputs(self, values: Iterable[torch.Tensor]) -> None:
        """What it gives back."""
        self.graph.output(tuple(self._nodes[id(value)] for value in values))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            numbers = func.__name__ in ARITHMETIC

            def argument(value: Any) -> Any:
                return self._argument(value, numbers)

            taken, named = fx.node.map_aggregate(args, argument), fx.node.map_aggregate(kwargs or {}, argument)
            node = self.graph.call_function(func, taken, named)
            self._note(found, node)
        return found

    def _note(self, value: torch.Tensor, node: fx.Node) -> None:
        self._kept.append(value)
        self._nodes[id(value)] = node

    def _argument(self, value: Any, numbers: bool) -> Any:
        if isinstance(value, torch.Tensor):
            return self._nodes[id(value)]  # a tensor from elsewhere would be frozen into the program: rather a KeyError
        if not numbers or not isinstance(value, float):
            return value
        if value not in self.constants:
            self.constants[value] = constant = torch.tensor(value, dtype=self._dtype)
            with self.graph.inserting_before(self._first):
                self._note(constant, self.graph.placeholder(f"constant_{len(self.constants)}"))
        return self._nodes[id(self.constants[value])]


@lru_cache(maxsize=64)
def _recorded(
    backend: Backend, model: Model, objective: Objective, params: Shapes, x: tuple[int, ...], given: Shapes
) -> Callable[[Params, Array, Params], tuple[Array, Params]]:
    """The calls, for arrays of these shapes; once for all fits."""
    shell = Problem(model, objective, SGD(), np.empty((0, 0)), Standardizer.identity(0))
    examples = [
        {name: torch.zeros(shape, dtype=getattr(torch, backend.dtype)) for name, shape in tree} for tree in (params, given)
    ]
    points = torch.zeros(x, dtype=getattr(torch, backend.dtype))
    loss_and_gradient = analytic.loss_and_gradient(backend, shell)
    recorder = _Recorder(points.dtype)
    recorder.inputs((*examples[0].values(), points, *examples[1].values()))
    with recorder:
        loss, gradient = loss_and_gradient(examples[0], points, examples[1])
    recorder.outputs((loss, *gradient.values()))
    constants, names = tuple(recorder.constants.values()), tuple(gradient)
    calls = fx.GraphModule(torch.nn.Module(), recorder.graph).forward

    def replay(params: Params, x: Array, given: Params) -> tuple[Array, Params]:
        loss, *slopes = calls(*constants, *params.values(), x, *given.values())
        return loss, dict(zip(names, slopes, strict=True))

    return replay


def recorded_loss_and_gradient(backend: Backend, problem: Problem) -> Callable[[Params, Array, Params], tuple[Array, Params]]:
    """`ismcore.analytic.loss_and_gradient`, of the same bits, without the Python between torch's calls; on the CPU.

    What is recorded holds for all fits of the same model, objective and shapes, and takes a few milliseconds the first time: as
    long as sixty of the steps of the reference run.
    """
    found: list[Callable[[Params, Array, Params], tuple[Array, Params]]] = []

    def of(params: Params, x: Array, given: Params) -> tuple[Array, Params]:
        if not found:  # shapes of a batch are known here alone
            shapes = _shapes(params), tuple(x.shape), _shapes(given)
            found.append(_recorded(backend, problem.model, problem.objective.canonical(), *shapes))
        return found[0](params, x, given)

    return of


def _shapes(tree: Params) -> Shapes:
    return tuple((name, tuple(value.shape)) for name, value in tree.items())
