"""Recorded calls for several parts of the rows at once: every array that depends on rows has an axis of parts before its own.

torch cuts an array for its threads where it lies in memory. Of an array (units, rows) each thread has some units, and products
and sums over units read what another thread wrote: on cores that share no cache a step takes up to three times as long. Of an
array (parts, units, rows) each thread has some parts, and none reads another's.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

__all__ = ["CannotLift", "is_in_place", "lift"]

ALIKE = frozenset(
    "add add_ addcmul sub sub_ mul mul_ div div_ __rsub__ neg exp log sqrt abs sin cos tanh erf sigmoid softplus where".split()
)
"""Calls that compute number by number, and broadcast."""


class CannotLift(Exception):
    """A call that the closed formulas of this package do not make."""


def is_in_place(name: str) -> bool:
    """Whether a call of that name writes into its first argument."""
    return name.endswith("_") and not name.endswith("__")


def lift(graph: fx.Graph, parts: int) -> None:
    """Give what depends on a placeholder with meta["lifted"] a first axis of so many parts, and sum the outputs over it.

    Args:
        graph: Calls as `recorded` writes them down: meta["ndim"] is the number of axes of each array, meta["shape"] their
            lengths, and meta["layout"], where its memory may be chosen, its shape and strides.
        parts: Length of the axis.

    Raises:
        CannotLift: A call is not one of those that the closed formulas make.
    """
    for node in list(graph.nodes):
        with graph.inserting_before(node):
            if node.op == "output":
                node.args = (tuple(_summed(graph, value, parts) for value in node.args[0]),)
            elif node.op == "call_function" and any(map(_lifted, node.all_input_nodes)):
                node.meta["lifted"] = True
                if "layout" in node.meta:
                    node.meta["layout"] = _layout(parts, *node.meta["layout"])
                _lift_call(graph, node, parts)
    for node in list(graph.nodes):
        _add_in_the_product(graph, node)


def _lifted(value: Any) -> bool:
    return isinstance(value, fx.Node) and "lifted" in value.meta


def _layout(parts: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of an array of parts that lie one after the other, each as it lay alone."""
    return (parts, *shape), (1 + sum((length - 1) * step for length, step in zip(shape, strides, strict=True)), *strides)


def _summed(graph: fx.Graph, value: fx.Node, parts: int) -> fx.Node:
    """What all parts give together; each of them gives what depends on no row."""
    return (
        graph.call_function(torch.sum, (value, 0)) if _lifted(value) else graph.call_function(torch.mul, (value, float(parts)))
    )


def _viewed(graph: fx.Graph, value: fx.Node, call: Callable[..., Any], *args: Any) -> fx.Node:
    view = graph.call_function(call, (value, *args))
    view.meta["maker"] = value.meta.get("maker")
    return view


def _lift_call(graph: fx.Graph, node: fx.Node, parts: int) -> None:
    args: Any = node.args
    axis: Any = node.kwargs.get("dim")
    name = getattr(node.target, "__name__", "")
    if is_in_place(name) and not _lifted(args[0]):
        raise CannotLift(f"{name} adds parts of the rows to what all have in common")
    if _is_outer_product(node):
        _lift_product(graph, node, parts)
    elif name in ALIKE:
        node.args = tuple(_with_axes(graph, value, node.meta["ndim"]) for value in args)
    elif name == "matmul":
        _lift_product(graph, node, parts)
    elif name == "sum":
        node.kwargs = {"dim": tuple(range(1, args[0].meta["ndim"] + 1)) if axis is None else axis + 1}
    elif name == "permute":
        node.args = (args[0], (0, *(k + 1 for k in args[1])))
    elif name == "reshape":
        node.args = (args[0], (parts, *args[1]))
    elif name == "__getitem__":
        node.args = (args[0], (slice(None), *args[1]))
    else:
        raise CannotLift(f"{name} of parts of the rows")


def _is_outer_product(node: fx.Node) -> bool:
    """Whether a call multiplies a column that all parts have in common by a row of each: torch does so sooner as a product."""
    args: Any = node.args
    shapes: list[tuple[int, ...]] = [value.meta.get("shape", ()) if isinstance(value, fx.Node) else () for value in args]
    if getattr(node.target, "__name__", "") != "mul" or [len(shape) for shape in shapes] != [2, 2]:
        return False
    return not _lifted(args[0]) and _lifted(args[1]) and shapes[0][1] == shapes[1][0] == 1


def _add_in_the_product(graph: fx.Graph, node: fx.Node) -> None:
    """Let a product begin with what all parts have in common and is added to it: one pass over the result in place of two."""
    if getattr(node.target, "__name__", "") != "add_":
        return
    args: Any = node.args
    product, other = args
    if product.target is torch.bmm and len(product.users) == 1 and isinstance(other, fx.Node) and not _lifted(other):
        node.target, node.args = torch.baddbmm, (other, *product.args)
        if "layout" in product.meta:
            node.meta |= {"placed": torch.baddbmm, "layout": product.meta["layout"]}
        for later in graph.nodes:
            if later.meta.get("maker") is product:
                later.meta["maker"] = node
        graph.erase_node(product)


def _with_axes(graph: fx.Graph, value: Any, ndim: int) -> Any:
    """An array with axes of length 1 after the parts, if it has fewer than the result: shapes are compared from their ends."""
    if not _lifted(value) or value.meta["ndim"] == ndim:
        return value
    return _viewed(graph, value, torch.Tensor.__getitem__, (slice(None), *(None,) * (ndim - value.meta["ndim"])))


def _lift_product(graph: fx.Graph, node: fx.Node, parts: int) -> None:
    """A product of matrices or of a vector and a matrix, part by part."""
    args: Any = node.args
    if any(value.meta["ndim"] > 2 for value in args):
        raise CannotLift("a product of arrays for parts of the rows")
    vectors = [side for side, value in enumerate(args) if value.meta["ndim"] == 1]
    factors = list(args)
    for side in vectors:
        axes = (slice(None), None) if side else (None, slice(None))
        index = (slice(None), *axes) if _lifted(args[side]) else axes
        factors[side] = _viewed(graph, factors[side], torch.Tensor.__getitem__, index)
    for side, value in enumerate(args):
        if not _lifted(value):
            factors[side] = _viewed(graph, factors[side], torch.Tensor.expand, parts, -1, -1)
    node.target, node.args = torch.bmm, tuple(factors)
    if "layout" in node.meta:
        node.meta["placed"] = torch.bmm
    if vectors:
        product = graph.call_function(torch.bmm, node.args)
        node.target, node.args = torch.squeeze, (product, tuple(1 + side for side in vectors))
