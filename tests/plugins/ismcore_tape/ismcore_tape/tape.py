"""Reverse mode on NumPy arrays. Pullbacks are written in recorded operations themselves, so derivatives nest to any depth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import count

import numpy as np

from ismcore.ops import NumpyOps

_clock = count()
_erf = np.frompyfunc(math.erf, 1, 1)


class Tensor:
    """An array, and how it was made: from which tensors, and how to pull a cotangent back to each. Operators are set below."""

    __array_ufunc__ = None  # NumPy's operators leave `array + tensor` to ours

    def __init__(
        self, value: np.ndarray, parents: Sequence[Tensor] = (), pullbacks: Sequence[Callable[..., Tensor]] = ()
    ) -> None:
        self.value, self.parents, self.pullbacks = np.asarray(value), parents, pullbacks
        self.time = next(_clock)  # parents are older than what is made of them

    shape = property(lambda self: self.value.shape)


def record(f: Callable[..., np.ndarray], *pullbacks: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An operation from a NumPy function and one pullback an operand: (g, y, *operands) -> cotangent of that operand.

    Operands that are no tensors become constants of the dtype of those that are.
    """

    def operation(*operands: object) -> Tensor:
        dtype = next(x.value.dtype for x in operands if isinstance(x, Tensor))
        parents = tuple(x if isinstance(x, Tensor) else Tensor(np.asarray(x, dtype)) for x in operands)
        return Tensor(f(*(x.value for x in parents)), parents, pullbacks)

    return operation


def pull(y: Tensor, g: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The product of the cotangent g with the Jacobian of y in each input, itself on the tape."""
    path = sorted(_ancestors(y), key=lambda x: x.time)
    reached = set(inputs)
    for x in path:
        if not reached.isdisjoint(x.parents):
            reached.add(x)
    cotangents = {y: g}
    for x in reversed([x for x in path if x in reached and x not in inputs]):
        for parent, pullback in zip(x.parents, x.pullbacks, strict=True):
            if parent in reached:
                share = pullback(cotangents[x], x, *x.parents)
                cotangents[parent] = cotangents[parent] + share if parent in cotangents else share
    return [cotangents[x] if x in cotangents else Tensor(np.zeros_like(x.value)) for x in inputs]


def _ancestors(y: Tensor) -> set[Tensor]:
    found, queue = {y}, [y]
    while queue:
        new = [parent for parent in queue.pop().parents if parent not in found]
        found.update(new)
        queue.extend(new)
    return found


def _fit(g: Tensor, x: Tensor) -> Tensor:
    """A cotangent in the shape of x, summed over the axes along which x was broadcast."""
    while len(g.shape) > len(x.shape):
        g = total(g, axis=0)
    for axis, length in enumerate(x.shape):
        if length == 1 != g.shape[axis]:
            g = reshape(total(g, axis=axis), (*g.shape[:axis], 1, *g.shape[axis + 1 :]))
    return g


copy = record(lambda x: x, lambda g, y, x: g)
add = record(np.add, lambda g, y, a, b: _fit(g, a), lambda g, y, a, b: _fit(g, b))
multiply = record(np.multiply, lambda g, y, a, b: _fit(g * b, a), lambda g, y, a, b: _fit(g * a, b))
subtract = record(np.subtract, lambda g, y, a, b: _fit(g, a), lambda g, y, a, b: _fit(-g, b))
divide = record(np.divide, lambda g, y, a, b: _fit(g / b, a), lambda g, y, a, b: _fit(-g * y / b, b))
matmul = record(np.matmul, lambda g, y, a, b: g @ transpose(b), lambda g, y, a, b: transpose(a) @ g)
transpose = record(np.transpose, lambda g, y, x: transpose(g))
negative = record(np.negative, lambda g, y, x: -g)
exp = record(np.exp, lambda g, y, x: g * y)
log = record(np.log, lambda g, y, x: g / x)
sqrt = record(np.sqrt, lambda g, y, x: g * 0.5 / y)
sin = record(np.sin, lambda g, y, x: g * cos(x))
cos = record(np.cos, lambda g, y, x: -g * sin(x))
tanh = record(np.tanh, lambda g, y, x: g * (1.0 - y * y))
absolute = record(np.abs, lambda g, y, x: g * np.sign(x.value))
erf = record(lambda x: np.asarray(_erf(x), x.dtype), lambda g, y, x: g * exp(-x * x) * (2.0 / math.sqrt(math.pi)))
sigmoid = record(NumpyOps.sigmoid, lambda g, y, x: g * y * (1.0 - y))
logaddexp = record(np.logaddexp, lambda g, y, a, b: _fit(g * exp(a - y), a), lambda g, y, a, b: _fit(g * exp(b - y), b))


def power(x: Tensor, exponent: float) -> Tensor:
    """X to the power of a number."""
    return record(lambda x: x**exponent, lambda g, y, x: g * exponent * x ** (exponent - 1))(x)


def where(condition: np.ndarray, x1: object, x2: object) -> Tensor:
    """See `ismcore.ops.Ops`."""
    return record(
        lambda a, b: np.where(condition, a, b),
        lambda g, y, a, b: _fit(where(condition, g, 0.0), a),
        lambda g, y, a, b: _fit(where(condition, 0.0, g), b),
    )(x1, x2)


def total(x: Tensor, *, axis: int | None = None) -> Tensor:
    """The sum; see `ismcore.ops.Ops`."""

    def pullback(g: Tensor, y: Tensor, x: Tensor) -> Tensor:
        kept = np.sum(x.value, axis=axis, keepdims=True).shape
        return broadcast_to(reshape(g, kept), x.shape)

    return record(lambda x: np.sum(x, axis=axis), pullback)(x)


def broadcast_to(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """See `ismcore.ops.Ops`."""
    return record(lambda x: np.broadcast_to(x, shape), lambda g, y, x: _fit(g, x))(x)


def reshape(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """See `ismcore.ops.Ops`."""
    return record(lambda x: np.reshape(x, shape), lambda g, y, x: reshape(g, x.shape))(x)


def permute_dims(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """See `ismcore.ops.Ops`."""
    back = tuple(int(axis) for axis in np.argsort(axes))
    return record(lambda x: np.transpose(x, axes), lambda g, y, x: permute_dims(g, back))(x)


def take(x: Tensor, index: object) -> Tensor:
    """x[index]."""
    return record(lambda x: x[index], lambda g, y, x: put(g, index, x.shape))(x)


def put(g: Tensor, index: object, shape: tuple[int, ...]) -> Tensor:
    """Zeros of the shape, with g added at the index: the transpose of `take`."""

    def scatter(g: np.ndarray) -> np.ndarray:
        zeros = np.zeros(shape, g.dtype)
        np.add.at(zeros, index, g)
        return zeros

    return record(scatter, lambda h, y, g: take(h, index))(g)


def concat(arrays: list[Tensor], *, axis: int = 0) -> Tensor:
    """See `ismcore.ops.Ops`."""
    ends = np.cumsum([x.shape[axis] for x in arrays])

    def part(start: int, end: int) -> Callable[..., Tensor]:
        index = (slice(None),) * (axis % len(arrays[0].shape)) + (slice(start, end),)
        return lambda g, y, *xs: take(g, index)

    pullbacks = (part(end - x.shape[axis], end) for x, end in zip(arrays, ends, strict=True))
    return record(lambda *xs: np.concatenate(xs, axis=axis), *pullbacks)(*arrays)


def stack(arrays: list[Tensor], *, axis: int = 0) -> Tensor:
    """See `ismcore.ops.Ops`."""
    shape = list(arrays[0].shape)
    shape.insert(axis % (len(shape) + 1), 1)
    return concat([reshape(x, tuple(shape)) for x in arrays], axis=axis)


def _compare(f: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda a, b: f(a.value, b.value if isinstance(b, Tensor) else b)


OPERATORS = {
    "__add__": add,
    "__radd__": add,
    "__sub__": subtract,
    "__rsub__": lambda a, b: subtract(b, a),
    "__mul__": multiply,
    "__rmul__": multiply,
    "__truediv__": divide,
    "__rtruediv__": lambda a, b: divide(b, a),
    "__matmul__": matmul,
    "__neg__": negative,
    "__pow__": power,
    "__getitem__": take,
    "__lt__": _compare(np.less),
    "__le__": _compare(np.less_equal),
    "__gt__": _compare(np.greater),
    "__ge__": _compare(np.greater_equal),
}
for _name, _operator in OPERATORS.items():
    setattr(Tensor, _name, _operator)
