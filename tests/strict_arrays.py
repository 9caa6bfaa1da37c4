"""A backend whose arrays do what the contract of backends/README.md names, and raise at anything else; under it, HIPS-autograd.

`StrictBackend` has arrays that `+=` changes, `FrozenBackend` such as it makes anew. Where both find the same numbers, no array
that was updated in place is looked at under another name.
"""

import math
import operator
from typing import ClassVar

import numpy as np
from autograd.tracer import isbox
from ismcore_autograd.backend import AutogradBackend
from ismcore_autograd.ops import AutogradOps

from ismcore.backend import Backend


class NotInContract(AssertionError):
    """The core asks of an array what the contract does not name."""


def insist(holds, what):
    if not holds:
        raise NotInContract(what)


def is_size(value):
    return type(value) is int and value >= 0


class Shape:
    """Sizes that can be counted, indexed by a number, and unpacked: what `tuple()` makes a tuple of, and no tuple."""

    __contains__ = __hash__ = None

    def __init__(self, sizes):
        self._sizes = tuple(sizes)

    def __len__(self):
        return len(self._sizes)

    def __iter__(self):
        return iter(self._sizes)

    def __getitem__(self, axis):
        insist(is_size(axis), f"shape[{axis!r}]")
        return self._sizes[axis]

    def __repr__(self):
        return f"Shape{self._sizes}"

    def __bool__(self):
        raise NotInContract("the truth value of a shape")

    def __eq__(self, other):
        raise NotInContract("a shape compared with ==")


class Condition:
    """What `<` and `>` give: good for `where` alone."""

    def __init__(self, value):
        self.value = value

    def __bool__(self):
        raise NotInContract("the truth value of a comparison")


class StrictArray:
    """See the module.

    Attributes:
        value: What it holds: an array of NumPy, or of HIPS-autograd where something differentiates.
        fresh: Whether it may be updated in place: an operator has just made it, and nothing has looked at its memory since.
    """

    mutable = True
    __array_ufunc__ = None  # NumPy's operators leave `array * strict` to ours, which refuses
    __iter__ = __hash__ = None

    def __init__(self, value, fresh=False):
        self.value, self.fresh = (value if isbox(value) else np.asarray(value)), fresh

    @property
    def shape(self):
        return Shape(self.value.shape)

    def __array__(self, *args, **kwargs):
        raise NotInContract("np.asarray of an array of the framework; `to_numpy` is there for that")

    def __bool__(self):
        raise NotInContract("the truth value of an array")

    def __eq__(self, other):
        raise NotInContract("==")

    def _operand(self, other, what):
        if isinstance(other, StrictArray):
            insist(self.value.dtype == other.value.dtype, f"{what} of {self.value.dtype} and {other.value.dtype}")
            return other.value
        insist(type(other) in (int, float), f"{what} with a {type(other).__name__}")
        return other

    def _updated(self, other, operation, what):
        right = self._operand(other, what)
        insist(not isbox(self.value) and not isbox(right), f"{what} where something differentiates")
        insist(self.fresh, f"{what} on what no operator has just made")
        insist(np.broadcast_shapes(np.shape(self.value), np.shape(right)) == self.value.shape, f"{what} that changes the shape")
        if not self.mutable:
            return type(self)(operation(self.value, right), fresh=True)
        operation(self.value, right, out=self.value)
        return self

    def __matmul__(self, other):
        insist(isinstance(other, StrictArray), f"@ with a {type(other).__name__}")
        right = self._operand(other, "@")
        insist(len(self.value.shape) == len(right.shape) == 2, f"@ of shapes {self.value.shape} and {right.shape}")
        return type(self)(self.value @ right, fresh=True)

    def __neg__(self):
        return type(self)(-self.value, fresh=True)

    def __lt__(self, other):
        return Condition(self.value < self._operand(other, "<"))

    def __gt__(self, other):
        return Condition(self.value > self._operand(other, ">"))

    def __getitem__(self, index):
        parts = index if type(index) is tuple else (index,)
        for part in parts:
            bounds = (part.start, part.stop) if isinstance(part, slice) else (part,)
            insist(all(bound is None or is_size(bound) for bound in bounds), f"[{part!r}]")
            insist(not isinstance(part, slice) or part.step is None, f"[{part!r}]")
        insist(sum(part is not None for part in parts) <= len(self.value.shape), f"{parts} of shape {self.value.shape}")
        self.fresh = False
        return type(self)(self.value[index])


def _arithmetic(operation, ufunc, sign):
    def forward(self, other):
        return type(self)(operation(self.value, self._operand(other, sign)), fresh=True)

    def backward(self, other):
        return type(self)(operation(self._operand(other, sign), self.value), fresh=True)

    def in_place(self, other):
        return self._updated(other, ufunc, f"{sign}=")

    return forward, backward, in_place


def _refused(self, other):
    raise NotInContract("/=, or another operator in place that the contract does not name")


for name, *how in (
    ("add", operator.add, np.add, "+"),
    ("sub", operator.sub, np.subtract, "-"),
    ("mul", operator.mul, np.multiply, "*"),
    ("truediv", operator.truediv, np.true_divide, "/"),
):
    for prefix, method in zip(("", "r", "i"), _arithmetic(*how), strict=True):
        setattr(StrictArray, f"__{prefix}{name}__", method)
StrictArray.__itruediv__ = StrictArray.__imatmul__ = _refused


class FrozenArray(StrictArray):
    """One that `x += y` makes anew."""

    mutable = False


def _taken(x, what):
    """What an array holds, which is then no longer fresh: an operation on its layout may give a view of it."""
    insist(isinstance(x, StrictArray), f"{what} of a {type(x).__name__}")
    x.fresh = False
    return x.value


def _check_shape(shape, what):
    insist(type(shape) is tuple and all(map(is_size, shape)), f"{what} to {shape!r}, no tuple of sizes")


def _check_axis(axis, rank, what):
    insist(is_size(axis) and axis < rank, f"{what} along axis {axis!r} of {rank}")


class StrictOps:
    """See `ismcore.ops.Ops`."""

    inner = AutogradOps()

    def __init__(self, array):
        self._array = array
        for name in ("exp", "log", "sqrt", "abs", "sin", "cos", "tanh", "erf", "sigmoid"):
            setattr(self, name, self._elementwise(name))

    def _elementwise(self, name):
        function = getattr(self.inner, name)

        def checked(x, /):
            insist(isinstance(x, StrictArray), f"{name} of a {type(x).__name__}")
            return self._array(function(x.value))

        return checked

    def _either(self, x1, x2, what):
        arrays = [x for x in (x1, x2) if isinstance(x, StrictArray)]
        insist(bool(arrays), f"{what} of two numbers")
        return [arrays[0]._operand(x, what) for x in (x1, x2)]

    def logaddexp(self, x1, x2, /):
        return self._array(self.inner.logaddexp(*self._either(x1, x2, "logaddexp")))

    def stop_gradient(self, x, /):
        return self._array(self.inner.stop_gradient(x.value))

    def where(self, condition, x1, x2, /):
        insist(isinstance(condition, Condition), f"where of a {type(condition).__name__}")
        for x in (x1, x2):
            if isinstance(x, StrictArray):
                x.fresh = False
        return self._array(self.inner.where(condition.value, *self._either(x1, x2, "where")))

    def sum(self, x, /, *, axis=None):
        value = _taken(x, "sum")
        if axis is not None:
            _check_axis(axis, len(value.shape), "sum")
        return self._array(self.inner.sum(value, axis=axis))

    def stack(self, arrays, /, *, axis=0):
        return self._array(self.inner.stack(self._listed(arrays, axis, 1, "stack"), axis=axis))

    def concat(self, arrays, /, *, axis=0):
        return self._array(self.inner.concat(self._listed(arrays, axis, 0, "concat"), axis=axis))

    def _listed(self, arrays, axis, more, what):
        insist(type(arrays) is list, f"{what} of a {type(arrays).__name__}")
        values = [_taken(x, what) for x in arrays]
        _check_axis(axis, len(values[0].shape) + more, what)
        return values

    def reshape(self, x, shape, /):
        _check_shape(shape, "reshape")
        value = _taken(x, "reshape")
        insist(math.prod(shape) == math.prod(value.shape), f"reshape of {value.shape} to {shape}")
        return self._array(self.inner.reshape(value, shape))

    def broadcast_to(self, x, shape, /):
        _check_shape(shape, "broadcast_to")
        return self._array(self.inner.broadcast_to(_taken(x, "broadcast_to"), shape))

    def permute_dims(self, x, axes, /):
        _check_shape(axes, "permute_dims")
        return self._array(self.inner.permute_dims(_taken(x, "permute_dims"), axes))


class StrictBackend(Backend):
    """See `ismcore.backend.Backend`."""

    name = "strict"
    packages = ("autograd",)
    array: ClassVar[type[StrictArray]] = StrictArray

    @property
    def ops(self):
        return StrictOps(self.array)

    @property
    def _inner(self):
        return AutogradBackend(self.dtype)

    def scope(self):
        return self._inner.scope()

    def asarray(self, array, /):
        insist(isinstance(array, np.ndarray | np.generic), f"asarray of a {type(array).__name__}")
        return self.array(np.array(array, dtype=self.dtype))

    def to_numpy(self, array, /):
        insist(isinstance(array, StrictArray), f"to_numpy of a {type(array).__name__}")
        return np.array(array.value)

    def _plain(self, f):
        return lambda x: f(self.array(x)).value

    def value_and_grad(self, f, /):
        def plain(params, *args):
            return f({name: self.array(value) for name, value in params.items()}, *args).value

        def both(params, *args):
            value, gradient = self._inner.value_and_grad(plain)({name: x.value for name, x in params.items()}, *args)
            return self.array(value), {name: self.array(slope) for name, slope in gradient.items()}

        return both

    def jvp(self, f, x, v, /):
        return tuple(map(self.array, self._inner.jvp(self._plain(f), x.value, v.value)))

    def vjp(self, f, x, /):
        psi, pull = self._inner.vjp(self._plain(f), x.value)
        return self.array(psi), lambda v: self.array(pull(v.value))


class FrozenBackend(StrictBackend):
    """One whose arrays cannot be changed."""

    array = FrozenArray


class ForwardBackend(FrozenBackend):
    """One that offers jvp alone."""

    vjp = Backend.vjp


class ReverseBackend(StrictBackend):
    """One that offers vjp alone."""

    jvp = Backend.jvp
