"""The closed set of array operations that models and objectives are written in, and its NumPy form.

Names and signatures are those of the array API standard (2024.12), plus `erf` and `sigmoid`, which the standard lacks. A
backend hands in its own `Ops`; the core never looks at an array's type. Besides them the core asks of an array::

    + - * /         with an array of the same dtype, or a Python number on either side; broadcasting; unary -
    < >             likewise; the result goes to `where` alone
    a @ b           of two matrices: of no vector and no batch
    x[...]          of numbers from 0, slices without a step between numbers from 0, and None
    x.shape         `tuple()` of it, `len()`, an index from 0, unpacking; its truth value is never asked
    += -= *=        which may change x or make a new array; see below

Seven functions may be left out, as plugins that are older than they do: `maximum`, `logsumexp`, `take`, `matmul`, `log1p`,
`expm1` and `stop_gradient`. `completed` composes them of the others; a framework's own are faster.

Axes are from 0, and shapes are tuples of ints without -1. In place the core updates only what an operator (+ - * / @, unary -),
`matmul_t` or `plus_product` has just made, of which no view was taken since (by an index, `where`, `sum` or an operation on its
layout), to its own shape, and only in the closed formulas, around which nothing differentiates. So `ops` may give views, and
arrays may be immutable. tests/strict_arrays.py holds the core to all this.

A backend's `Ops` may add two more, which the closed formulas then call: `matmul_t(matrix, bar)`, matrix^T @ bar as a new array,
where the framework multiplies by a transpose more slowly than need be; and `plus_product(x, factor, a, b)`, x + factor a b as a
new array, for arrays of one shape and a Python number, where it has one call for that.

The functions must be right in value and in the first three derivatives for arguments up to +-1000, at 0 too, where the slope of
`abs` is 0: see the stress cases in `tests/data/golden.json`. Where a framework's stock derivative overflows or loses digits
there, its backend pins a better one.
"""

import math
from collections.abc import Callable
from functools import reduce
from typing import Any, Protocol

import numpy as np

__all__ = ["OPTIONAL", "Array", "ComposedOps", "NumpyOps", "Ops", "Params", "completed"]

Array = Any
"""An array of whichever framework is at work; NumPy's own type is spelled `np.ndarray`."""

Params = dict[str, Any]
"""Parameters by name: NumPy arrays in the core, arrays of the framework inside a backend."""


class Ops(Protocol):
    """Array operations, differentiable in the framework that they belong to. All are element-wise unless said."""

    def exp(self, x: Array, /) -> Array: ...  # noqa: D102  (the standard defines them)
    def log(self, x: Array, /) -> Array: ...  # noqa: D102
    def sqrt(self, x: Array, /) -> Array: ...  # noqa: D102
    def abs(self, x: Array, /) -> Array: ...  # noqa: D102
    def sin(self, x: Array, /) -> Array: ...  # noqa: D102
    def cos(self, x: Array, /) -> Array: ...  # noqa: D102
    def tanh(self, x: Array, /) -> Array: ...  # noqa: D102

    def erf(self, x: Array, /) -> Array:
        """Error function, 2/sqrt(pi) int_0^x exp(-t^2) dt."""
        ...

    def sigmoid(self, x: Array, /) -> Array:
        """Logistic function, 1 / (1 + exp(-x))."""
        ...

    def logaddexp(self, x1: Array, x2: Array, /) -> Array:
        """Logarithm of exp(x1) + exp(x2); either argument may be a Python number."""
        ...

    def where(self, condition: Array, x1: Array, x2: Array, /) -> Array:
        """x1 where the condition holds, else x2; either may be a Python number."""
        ...

    def sum(self, x: Array, /, *, axis: int | None = None) -> Array:
        """Sum over one axis, or over all."""
        ...

    def stack(self, arrays: list[Array], /, *, axis: int = 0) -> Array: ...  # noqa: D102
    def concat(self, arrays: list[Array], /, *, axis: int = 0) -> Array: ...  # noqa: D102
    def reshape(self, x: Array, shape: tuple[int, ...], /) -> Array: ...  # noqa: D102
    def broadcast_to(self, x: Array, shape: tuple[int, ...], /) -> Array: ...  # noqa: D102
    def permute_dims(self, x: Array, axes: tuple[int, ...], /) -> Array: ...  # noqa: D102

    def maximum(self, x1: Array, x2: Array, /) -> Array:
        """The larger one, NaN where one is; either may be a Python number. Of equal ones each has half the derivative."""
        ...

    def logsumexp(self, x: Array, /, *, axis: int) -> Array:
        """Logarithm of the sum of exp(x) along an axis, which goes."""
        ...

    def take(self, x: Array, indices: np.ndarray, /, *, axis: int) -> Array:
        """The slices of x at places of an axis: whole numbers from 0, a NumPy array of shape (k,), any of them repeated."""
        ...

    def matmul(self, x1: Array, x2: Array, /) -> Array:
        """Products of matrices one by one: (b, n, k) and (b, k, m) to (b, n, m)."""
        ...

    def log1p(self, x: Array, /) -> Array: ...  # noqa: D102
    def expm1(self, x: Array, /) -> Array: ...  # noqa: D102

    def stop_gradient(self, x: Array, /) -> Array:
        """The same value, as a constant to whatever differentiates."""
        ...


OPTIONAL = ("maximum", "logsumexp", "take", "matmul", "log1p", "expm1", "stop_gradient")
"""What an `Ops` may leave out; see `ComposedOps`."""


class ComposedOps:
    """The optional functions of `Ops`, composed of the others of `ops`: right in value and derivatives, and slower than stock.

    Args:
        ops: Has the functions that are not optional.
        constant: x -> the same value as a constant, which no function of `Ops` can make of it.
    """

    def __init__(self, ops: Any, constant: Callable[[Array], Array]) -> None:
        self._ops = ops
        self._constant = constant

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_ops":  # a copy asks before there is anything
            raise AttributeError(name)
        return getattr(self._ops, name)

    def maximum(self, x1: Array, x2: Array, /) -> Array:
        """See `Ops.maximum`."""
        where = self._ops.where
        return where(x1 > x2, x1, where(x1 < x2, x2, 0.5 * x1 + 0.5 * x2))  # what is not comparable stays NaN

    def logsumexp(self, x: Array, /, *, axis: int) -> Array:
        """See `Ops.logsumexp`: m + log sum exp(x - m), m the largest; the derivative of m cancels."""
        shape = tuple(x.shape)
        along = (slice(None),) * axis
        largest = reduce(self.maximum, [x[(*along, k)] for k in range(shape[axis])])
        kept = self._ops.reshape(largest, (*shape[:axis], 1, *shape[axis + 1 :]))
        return largest + self._ops.log(self._ops.sum(self._ops.exp(x - kept), axis=axis))

    def take(self, x: Array, indices: np.ndarray, /, *, axis: int) -> Array:
        """See `Ops.take`; one slice after the other."""
        along = (slice(None),) * axis
        return self._ops.stack([x[(*along, int(i))] for i in indices], axis=axis)

    def matmul(self, x1: Array, x2: Array, /) -> Array:
        """See `Ops.matmul`; takes the memory of all b n k m terms."""
        return self._ops.sum(x1[:, :, :, None] * x2[:, None, :, :], axis=2)

    def log1p(self, x: Array, /) -> Array:
        """See `Ops.log1p`: log(1 + x), and near 0, where that loses digits, 2 artanh(x / (2 + x)) by its series."""
        y = x / (2.0 + x)
        square = y * y
        series = 1.0 / 15.0
        for k in (13, 11, 9, 7, 5, 3, 1):
            series = series * square + 1.0 / k
        near = self._ops.abs(x) < 0.25
        return self._ops.where(near, 2.0 * y * series, self._ops.log(1.0 + x))

    def expm1(self, x: Array, /) -> Array:
        """See `Ops.expm1`: tanh(x / 2) (exp(x) + 1)."""
        return self._ops.tanh(0.5 * x) * (self._ops.exp(x) + 1.0)

    def stop_gradient(self, x: Array, /) -> Array:
        """See `Ops.stop_gradient`."""
        return self._constant(x)


def completed(ops: Any, constant: Callable[[Array], Array]) -> Any:
    """The operations given, if they have all that `Ops` has; or with what they lack, composed: see `ComposedOps`."""
    lacking = [name for name in OPTIONAL if not hasattr(ops, name)]
    if not lacking:
        return ops
    found = ComposedOps(ops, constant)
    for name in OPTIONAL:
        if name not in lacking:
            setattr(found, name, getattr(ops, name))
    return found


_erf = np.frompyfunc(math.erf, 1, 1)


def _sigmoid(x: Array, /) -> Array:
    y = np.tanh(0.5 * x)  # 1 / (1 + exp(-x)) would warn of an overflow
    y *= 0.5
    y += 0.5
    return y


def _logaddexp(x1: Array, x2: Array, /) -> Array:
    # NumPy's own asks the C library number by number: ten times the time of these vectorised steps
    y = np.log1p(np.exp(-np.abs(x1 - x2)))
    y += np.maximum(x1, x2)
    return y


def _logsumexp(x: Array, /, *, axis: int) -> Array:
    largest = np.max(x, axis=axis, keepdims=True)
    return np.log(np.sum(np.exp(x - largest), axis=axis)) + np.squeeze(largest, axis)


def _sum(x: Array, /, *, axis: int | None = None) -> Array:
    return np.add.reduce(x, axis=axis)  # np.sum spends a microsecond on the way there


class NumpyOps:
    """`Ops` in plain NumPy, for scoring and sampling without a framework."""

    exp = staticmethod(np.exp)
    log = staticmethod(np.log)
    sqrt = staticmethod(np.sqrt)
    abs = staticmethod(np.abs)
    sin = staticmethod(np.sin)
    cos = staticmethod(np.cos)
    tanh = staticmethod(np.tanh)
    sigmoid = staticmethod(_sigmoid)
    logaddexp = staticmethod(_logaddexp)
    where = staticmethod(np.where)
    sum = staticmethod(_sum)
    stack = staticmethod(np.stack)
    concat = staticmethod(np.concatenate)
    reshape = staticmethod(lambda x, shape, /: x.reshape(shape))
    broadcast_to = staticmethod(np.broadcast_to)
    permute_dims = staticmethod(lambda x, axes, /: x.transpose(axes))
    maximum = staticmethod(np.maximum)
    logsumexp = staticmethod(_logsumexp)
    take = staticmethod(lambda x, indices, /, *, axis: np.take(x, indices, axis=axis))
    matmul = staticmethod(np.matmul)
    log1p = staticmethod(np.log1p)
    expm1 = staticmethod(np.expm1)
    stop_gradient = staticmethod(lambda x, /: x)

    @staticmethod
    def erf(x: np.ndarray, /) -> np.ndarray:
        """Error function; NumPy has none, the C library's is exact to the last digit."""
        x = np.asarray(x)
        return np.asarray(_erf(x), dtype=x.dtype)
