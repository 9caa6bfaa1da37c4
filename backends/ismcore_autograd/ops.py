"""`ismcore.ops.Ops` in HIPS-autograd, with some functions pinned."""

from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.extend import defjvp, defvjp, primitive
from autograd.numpy.numpy_vjps import unbroadcast_f
from autograd.tracer import getval

from ismcore.ops import NumpyOps

__all__ = ["AutogradOps"]


_tanh = primitive(np.tanh)
# autograd's own derivative divides by cosh(x)^2, which overflows beyond |x| = 355.
defvjp(_tanh, lambda y, x: lambda g: g * (1.0 - y * y))
defjvp(_tanh, lambda g, y, x: g * (1.0 - y * y))


_sigmoid = primitive(NumpyOps.sigmoid)
defvjp(_sigmoid, lambda y, x: lambda g: g * (y * (1.0 - y)))
defjvp(_sigmoid, lambda g, y, x: g * (y * (1.0 - y)))


_erf = primitive(NumpyOps.erf)
# autograd's own erf needs SciPy, and has no forward mode.
_SLOPE = 2.0 / np.sqrt(np.pi).item()
defvjp(_erf, lambda y, x: lambda g: g * (_SLOPE * anp.exp(-x * x)))
defjvp(_erf, lambda g, y, x: g * (_SLOPE * anp.exp(-x * x)))


_logaddexp = primitive(NumpyOps.logaddexp)
# autograd's own value is NumPy's, which is ten times as slow
defvjp(
    _logaddexp,
    lambda y, x1, x2: unbroadcast_f(x1, lambda g: g * anp.exp(x1 - y)),
    lambda y, x1, x2: unbroadcast_f(x2, lambda g: g * anp.exp(x2 - y)),
)
defjvp(_logaddexp, lambda g, y, x1, x2: g * anp.exp(x1 - y), lambda g, y, x1, x2: g * anp.exp(x2 - y))


_select = primitive(np.where)
# autograd's own `where` sends float64 zeros back through a float32 graph.
defvjp(
    _select,
    None,
    lambda y, c, x1, x2: lambda g: _select(c, g, anp.zeros_like(g)),
    lambda y, c, x1, x2: lambda g: _select(c, anp.zeros_like(g), g),
)
defjvp(
    _select,
    None,
    lambda g, y, c, x1, x2: _select(c, g, anp.zeros_like(g)),
    lambda g, y, c, x1, x2: _select(c, anp.zeros_like(g), g),
)


def _broadcast_to(x: Any, shape: tuple[int, ...], /) -> Any:
    # autograd's own has no derivative where axes are added
    return anp.broadcast_to(anp.reshape(x, (1,) * (len(shape) - anp.ndim(x)) + anp.shape(x)), shape)


def _where(condition: Any, x1: Any, x2: Any) -> Any:
    shape = anp.broadcast_shapes(*(anp.shape(a) for a in (condition, x1, x2)))
    x1, x2 = (x if isinstance(x, int | float) else _broadcast_to(x, shape) for x in (x1, x2))
    return _select(condition, x1, x2)


_maximum = primitive(np.maximum)


def _share(y: Any, x: Any, other: Any) -> Any:
    """What of the derivative is that of x: all, half, or nothing; autograd's own is float64 in a float32 graph."""
    y, x, other = (getval(a) for a in (y, x, other))
    return ((x == y) / (1.0 + (other == y))).astype(y.dtype)


defvjp(
    _maximum,
    lambda y, x1, x2: unbroadcast_f(x1, lambda g: g * _share(y, x1, x2)),
    lambda y, x1, x2: unbroadcast_f(x2, lambda g: g * _share(y, x2, x1)),
)
defjvp(_maximum, lambda g, y, x1, x2: g * _share(y, x1, x2), lambda g, y, x1, x2: g * _share(y, x2, x1))


def _logsumexp(x: Any, /, *, axis: int) -> Any:
    # autograd's own needs SciPy; the derivative of the largest cancels
    largest = np.max(getval(x), axis=axis, keepdims=True)
    return anp.log(anp.sum(anp.exp(x - largest), axis=axis)) + np.squeeze(largest, axis)


class AutogradOps:
    """See `ismcore.ops.Ops`."""

    exp = staticmethod(anp.exp)
    log = staticmethod(anp.log)
    sqrt = staticmethod(anp.sqrt)
    abs = staticmethod(anp.abs)
    sin = staticmethod(anp.sin)
    cos = staticmethod(anp.cos)
    tanh = staticmethod(_tanh)
    erf = staticmethod(_erf)
    sigmoid = staticmethod(_sigmoid)
    logaddexp = staticmethod(_logaddexp)
    where = staticmethod(_where)
    sum = staticmethod(anp.sum)
    stack = staticmethod(anp.stack)
    concat = staticmethod(anp.concatenate)
    reshape = staticmethod(anp.reshape)
    broadcast_to = staticmethod(_broadcast_to)
    permute_dims = staticmethod(anp.transpose)
    maximum = staticmethod(_maximum)
    logsumexp = staticmethod(_logsumexp)
    take = staticmethod(lambda x, indices, /, *, axis: x[(slice(None),) * axis + (indices,)])
    matmul = staticmethod(anp.matmul)
    log1p = staticmethod(anp.log1p)
    expm1 = staticmethod(anp.expm1)
    stop_gradient = staticmethod(lambda x, /: getval(x))
