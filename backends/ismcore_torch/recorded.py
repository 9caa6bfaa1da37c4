"""A loss and its gradient as the torch calls that they come to, recorded once.

Of a small step Python takes half. Of a large one, where many cores share it, caches do: see `parts`.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from operator import is_not
from typing import Any, NamedTuple

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
from ismcore_torch.parts import CannotLift, is_in_place, lift

__all__ = ["MANY", "recorded_loss_and_gradient"]

LossAndGradient = Callable[[Params, Array, Params], tuple[Array, Params]]
Shapes = tuple[tuple[str, tuple[int, ...]], ...]

AFTER = 64
"""Steps before the calls are recorded, which takes as long as is gained in about as many steps."""
LONGEST = 2000
"""Calls; more of them are those of many blocks of rows, whose work outweighs Python."""
ARITHMETIC = frozenset(("add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "__rsub__"))
PARTS, MANY, LEAST = 8, 2**17, 512
"""Parts of the rows that are computed at once, where an array with all rows has so many numbers, and a part so many rows. With
fewer numbers a second thread costs more, in waiting, than it gives."""
LOOKS = frozenset(("permute", "reshape", "expand", "__getitem__"))
"""Calls whose result, where it lies in an input's memory, stays what it is when the input's numbers change."""
BY_ROW = frozenset(("row_weight",))
"""Inputs with something for each row."""
WIDE = 2**15
"""Numbers; a result of so many is written where one that is no longer needed was, in the cache."""


def _subtracted_from(x: torch.Tensor, other: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
    return torch.sub(other, x, out=out)


PLACED: dict[str, Callable[..., torch.Tensor]] = {
    **{
        name: getattr(torch, name)
        for name in ("add", "addcmul", "sub", "mul", "div", "neg", "sum", "exp", "tanh", "sigmoid", "erf")
    },
    "matmul": torch.mm,
    "__rsub__": _subtracted_from,
}
"""By the name of a call, the one that writes the same numbers into `out=`: products of two matrices, sums along an axis."""
BY_NUMBER = frozenset(PLACED.values()) - {torch.sum, torch.mm}
"""Those that compute number by number."""


class _Program(NamedTuple):
    """Recorded calls.

    Attributes:
        constants: Their first arguments.
        views: (*constants, *inputs) -> views of the inputs.
        calls: (*constants, *inputs, *views) -> outputs.
    """

    constants: tuple[torch.Tensor, ...]
    views: Callable[..., Any]
    calls: Callable[..., Any]


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
            self._nodes[value] = node = self.graph.placeholder(f"input_{k}")
            node.meta |= {"ndim": value.ndim, "shape": tuple(value.shape)}
        self._first = next(iter(self.graph.nodes))

    def finish(self, outputs: Iterable[torch.Tensor], parts: int = 0, rows: Iterable[torch.Tensor] = ()) -> _Program:
        """The calls as a function of constants and inputs, or for parts of the rows at once; `rows` are inputs of one part."""
        self.graph.output(tuple(self._nodes[value] for value in outputs))
        if parts:
            for value in rows:
                self._nodes[value].meta["lifted"] = True
            lift(self.graph, parts)
        _place(self.graph, self._dtype)
        views = _views(self.graph)
        return _Program(tuple(self.constants.values()), _function(views), _function(self.graph))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            if len(self.graph.nodes) > LONGEST:
                raise _TooLong
            numbers = func.__name__ in ARITHMETIC

            def argument(value: Any) -> Any:
                return self._argument(value, numbers)

            taken, named = fx.node.map_aggregate(args, argument), fx.node.map_aggregate(kwargs or {}, argument)
            node = self.graph.call_function(func, taken, named)
            self._note_memory(node, func.__name__, found, [value for value in args if isinstance(value, torch.Tensor)])
            self._nodes[found] = node
        return found

    def _note_memory(self, node: fx.Node, name: str, found: torch.Tensor, args: Iterable[torch.Tensor]) -> None:
        """Which call made the memory that the result lies in, and how it lies in memory of its own that `_place` may choose."""
        node.meta |= {"ndim": found.ndim, "shape": tuple(found.shape)}
        memory = found.untyped_storage()._cdata
        shared = [value for value in args if value.untyped_storage()._cdata == memory]
        node.meta["maker"] = self._nodes[shared[0]].meta.get("maker") if shared else node
        known = name in PLACED and (found.ndim == 2 if name == "matmul" else found.ndim > 0)
        if known and not shared and found.dtype == self._dtype:
            node.meta["placed"] = PLACED[name]
            node.meta["layout"] = tuple(found.shape), found.stride()

    def _argument(self, value: Any, numbers: bool) -> Any:
        if isinstance(value, torch.Tensor):
            return self._nodes[value]  # a tensor from elsewhere would be frozen into the program: rather a KeyError
        if not numbers or not isinstance(value, float):
            return value
        if value not in self.constants:
            self.constants[value] = constant = torch.tensor(value, dtype=self._dtype, device="cpu")
            with self.graph.inserting_before(self._first):
                self._nodes[constant] = node = self.graph.placeholder(f"constant_{len(self.constants)}")
                node.meta["ndim"] = 0
        return self._nodes[self.constants[value]]


def _place(graph: fx.Graph, dtype: torch.dtype) -> None:
    """Give every wide result the memory of one that no later call needs, where there is such; the first ones get new memory.

    torch's allocator finds memory for each result anew, and goes through more of it than the cache holds: a fifth of a step in
    blocks of rows.
    """
    last: dict[Any, fx.Node] = {}
    for node in graph.nodes:
        for used in (node, *node.all_input_nodes):
            last[used.meta.get("maker")] = node
    over: dict[fx.Node, list[Any]] = {}
    for maker, node in last.items():
        over.setdefault(node, []).append(maker)
    start = next(node for node in graph.nodes if node.op != "placeholder")
    new: dict[str, Any] = {"dtype": dtype, "device": "cpu"}
    memory: dict[fx.Node, fx.Node] = {}
    free: dict[Any, list[fx.Node]] = {}
    for node in list(graph.nodes):
        if "layout" in node.meta and math.prod(node.meta["layout"][0]) >= WIDE:
            spare = free.setdefault(node.meta["layout"], [])
            own = next((maker for maker in over.get(node, ()) if _may_be_written_over(maker, node, memory)), None)
            if own is not None:
                over[node].remove(own)
                spare.append(memory[own])
            elif not spare:
                with graph.inserting_before(start):
                    spare.append(graph.call_function(torch.empty_strided, node.meta["layout"], new))
            node.target, memory[node] = node.meta["placed"], spare.pop()
            node.kwargs = {**node.kwargs, "out": memory[node]}
        for maker in over.get(node, ()):
            if maker in memory:
                free[maker.meta["layout"]].append(memory[maker])


def _may_be_written_over(maker: fx.Node, node: fx.Node, memory: dict[fx.Node, fx.Node]) -> bool:
    """Whether a call that computes number by number may write its result where one of its arguments is, which ends with it."""
    if maker not in memory or maker.meta["layout"] != node.meta["layout"] or node.meta["placed"] not in BY_NUMBER:
        return False
    seen = [value for value in node.all_input_nodes if value.meta.get("maker") is maker]
    return all(value is maker or is_in_place(getattr(value.target, "__name__", "")) for value in seen)


def _views(graph: fx.Graph) -> fx.Graph:
    """Take the calls that only look at inputs in another way out of the graph, into one whose results it is given."""
    found, views = fx.Graph(), []
    copies: dict[fx.Node, fx.Node] = {}
    last = next(reversed([node for node in graph.nodes if node.op == "placeholder"]))
    for node in list(graph.nodes):
        looks = getattr(node.target, "__name__", "") in LOOKS and node.meta["maker"] is None
        if looks or node.op == "placeholder":
            copies[node] = found.node_copy(node, copies.__getitem__)
        if looks:
            views.append(node)
    found.output(tuple(copies[node] for node in views))
    for k, node in enumerate(views):
        with graph.inserting_after(last):
            last = graph.placeholder(f"view_{k}")
        node.replace_all_uses_with(last)
    for node in reversed(views):
        graph.erase_node(node)
    return found


def _function(graph: fx.Graph) -> Callable[..., Any]:
    found: Callable[..., Any] = fx.GraphModule(torch.nn.Module(), graph).forward
    return found


def _record(
    formulas: LossAndGradient, params: Params, x: Array, given: Params, parts: int = 0, rows: Iterable[torch.Tensor] = ()
) -> _Program | None:
    """What the formulas call at a place, see `_Recorder.finish`; None where that is too much, or cannot be lifted."""
    recorder = _Recorder(x.dtype, (*params.values(), x, *given.values()))
    try:
        with recorder:
            loss, gradient = formulas(params, x, given)
        return recorder.finish((loss, *(gradient[name] for name in params)), parts, rows)
    except (_TooLong, CannotLift):
        return None


class _Replay:
    """A program for arrays that stay the same, step after step, while their numbers change: they are looked at once."""

    def __init__(self, program: _Program) -> None:
        self._program = program
        self._arrays: tuple[torch.Tensor, ...] = ()
        self._views: tuple[torch.Tensor, ...] = ()

    def __call__(self, *arrays: torch.Tensor) -> Any:
        constants, views, calls = self._program
        if not self._arrays or any(map(is_not, arrays, self._arrays)):
            self._arrays, self._views = arrays, views(*constants, *arrays)
        return calls(*constants, *arrays, *self._views)


@dataclass
class _Shared:
    """What all fits of the same shapes have in common.

    Attributes:
        taken: Steps.
        program: What was recorded, or None before, and where nothing could be.
        refused: Whether nothing can be recorded.
    """

    taken: int = 0
    program: _Program | None = None
    refused: bool = False


class _Recorded:
    """The formulas until they have been called a few times, and then their calls, with the same bits."""

    def __init__(self, formulas: LossAndGradient, shared: _Shared) -> None:
        self._formulas, self._shared = formulas, shared
        self._replay: _Replay | None = None

    def __call__(self, params: Params, x: Array, given: Params) -> tuple[Array, Params]:
        if self._replay is None:
            self._shared.taken += 1
            if self._shared.taken <= AFTER or self._shared.refused:
                return self._formulas(params, x, given)
            self._shared.program = self._shared.program or _record(self._formulas, params, x, given)
            if self._shared.program is None:
                self._shared.refused = True
                return self._formulas(params, x, given)
            self._replay = _Replay(self._shared.program)
        loss, *slopes = self._replay(*params.values(), x, *given.values())
        return loss, dict(zip(params, slopes, strict=True))


class _InParts:
    """The calls of the formulas for several parts of the rows at once, one block after the other.

    Args:
        formulas: The mean over all rows, as a sum over those that are given.
        blocks: Number of blocks.
        rows: Of each part of a block. What is left over after all blocks is computed by itself.
    """

    def __init__(self, formulas: LossAndGradient, shared: _Shared, blocks: int, rows: int) -> None:
        self._formulas, self._shared, self._blocks, self._rows = formulas, shared, blocks, rows
        self._replays: list[_Replay] = []
        self._cut_from: tuple[Array, ...] = ()
        self._cuts: list[tuple[Array, ...]] = []

    def __call__(self, params: Params, x: Array, given: Params) -> tuple[Array, Params]:
        if not self._replays and not self._shared.refused:
            self._shared.program = self._shared.program or self._record(params, x, given)
            self._shared.refused = self._shared.program is None
            if self._shared.program:
                self._replays = [_Replay(self._shared.program) for _ in range(self._blocks)]
        total: list[Any] = []
        if not self._cut_from or any(map(is_not, (x, *given.values()), self._cut_from)):
            self._cut_from, self._cuts = (x, *given.values()), [(rows, *own.values()) for rows, own in self._cut(x, given)]
        for replay, arrays in zip(self._replays, self._cuts, strict=False):
            found = replay(*params.values(), *arrays)
            total = list(torch._foreach_add(total, found) if total else found)
        count = self._rows * PARTS * len(self._replays)
        if count < x.shape[0]:
            rest = {name: value[count:] for name, value in given.items() if name in BY_ROW}
            loss, gradient = self._formulas(params, x[count:], {**given, **rest})
            found = [loss, *(gradient[name] for name in params)]
            total = list(torch._foreach_add(total, found) if total else found)
        return total[0], dict(zip(params, total[1:], strict=True))

    def _cut(self, x: Array, given: Params) -> list[tuple[Array, Params]]:
        """The blocks of rows, (parts, rows, d), and what is given for each."""
        shape = self._blocks, PARTS, self._rows
        count = math.prod(shape)
        # one column is a row turned, as for a product of strides 1 and 1 BLAS takes ten times as long
        cut = x[:count].view(*shape, x.shape[1]) if x.shape[1] > 1 else x[:count].view(*shape[:2], 1, self._rows).mT
        own = {name: value[:count].view(shape) for name, value in given.items() if name in BY_ROW}
        return [(cut[k], {**given, **{name: value[k] for name, value in own.items()}}) for k in range(self._blocks)]

    def _record(self, params: Params, x: Array, given: Params) -> _Program | None:
        rows, given = self._cut(x, given)[0]
        one, own = rows[0], {name: value[0] for name, value in given.items() if name in BY_ROW}
        return _record(self._formulas, params, one, {**given, **own}, PARTS, (one, *own.values()))


def recorded_loss_and_gradient(backend: Backend, problem: Problem, *, turned: bool = False) -> LossAndGradient:
    """`ismcore.analytic.loss_and_gradient` on the CPU, without the Python between torch's calls.

    A small step's are replayed after some steps, with the same bits; those of many rows, in parts, from the first step. What is
    recorded holds for all fits of the same model, objective and shapes, and takes some milliseconds.
    """
    found: list[LossAndGradient] = []

    def of(params: Params, x: Array, given: Params) -> tuple[Array, Params]:
        if not found:  # shapes of a batch are known here alone
            shapes = _shapes(params), tuple(x.shape), _shapes(given)
            found.append(_recorded(backend, problem.model, problem.objective.canonical(), turned, *shapes)())
        return found[0](params, x, given)

    return of


@lru_cache(maxsize=64)
def _recorded(
    backend: Backend, model: Model, objective: Objective, turned: bool, params: Shapes, x: tuple[int, ...], given: Shapes
) -> Callable[[], LossAndGradient]:
    """What makes a run's; what it records is one for all fits on arrays of these shapes."""
    shell, (n, d) = Problem(model, objective, SGD(), np.empty((0, 0)), Standardizer.identity(0)), x
    width = max(max(shape, default=1) for _, shape in params)
    blocks = -(-n // analytic.block_rows(backend, shell, n, d))
    rows = n // (blocks * PARTS)
    if n * width >= MANY and rows >= LEAST:
        return partial(_InParts, analytic.loss_and_gradient(backend, shell, n, turned=turned), _Shared(), blocks, rows)
    return partial(_Recorded, analytic.loss_and_gradient(backend, shell, turned=turned), _Shared())


def _shapes(tree: Params) -> Shapes:
    return tuple((name, tuple(value.shape)) for name, value in tree.items())
