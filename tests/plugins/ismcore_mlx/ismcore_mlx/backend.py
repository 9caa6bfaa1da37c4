"""MLX under ismcore's contract.

Float32 alone: in MLX's float64, exp, sin, cos, erf and sigmoid are good to 1e-7 (0.32). On the CPU alone, which is everywhere.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mlx.core as mx
import numpy as np

from ismcore.backend import Backend
from ismcore.calculus import ScoreFn
from ismcore.ops import Params

FAR = 15.0
"""Beyond, tanh is +-1 to float32's last digit."""


def _tanh(x: mx.array, /) -> mx.array:
    # the second derivative of MLX's own is not finite far out; here it is 0
    return mx.tanh(mx.clip(x, -FAR, FAR))


class MlxOps:
    """See `ismcore.ops.Ops`. Of what may be left out, `maximum`, `logsumexp` and `take` are composed by the core."""

    exp = staticmethod(mx.exp)
    log = staticmethod(mx.log)
    sqrt = staticmethod(mx.sqrt)
    abs = staticmethod(mx.abs)
    sin = staticmethod(mx.sin)
    cos = staticmethod(mx.cos)
    tanh = staticmethod(_tanh)
    erf = staticmethod(mx.erf)
    sigmoid = staticmethod(mx.sigmoid)
    logaddexp = staticmethod(mx.logaddexp)
    where = staticmethod(mx.where)
    sum = staticmethod(lambda x, /, *, axis=None: mx.sum(x, axis=axis))
    stack = staticmethod(lambda arrays, /, *, axis=0: mx.stack(arrays, axis=axis))
    concat = staticmethod(lambda arrays, /, *, axis=0: mx.concatenate(arrays, axis=axis))
    reshape = staticmethod(mx.reshape)
    broadcast_to = staticmethod(mx.broadcast_to)
    permute_dims = staticmethod(mx.transpose)
    matmul = staticmethod(mx.matmul)
    log1p = staticmethod(mx.log1p)
    expm1 = staticmethod(mx.expm1)
    stop_gradient = staticmethod(mx.stop_gradient)


class MlxBackend(Backend):
    """See `ismcore.backend.Backend`."""

    name = "mlx"
    dtypes = ("float32",)
    packages = ("mlx",)
    ops = MlxOps()

    @contextmanager
    def scope(self) -> Iterator[None]:
        """On the CPU, whatever the process has as its default."""
        with mx.stream(mx.cpu):
            yield

    def asarray(self, array: np.ndarray, /) -> mx.array:
        """See `Calculus.asarray`."""
        return mx.array(np.array(array, dtype=self.dtype))

    def to_numpy(self, array: mx.array, /) -> np.ndarray:
        """See `Backend.to_numpy`."""
        return np.array(array)

    def value_and_grad(self, f: Callable[..., mx.array], /) -> Callable[..., tuple[mx.array, Params]]:
        """See `Backend.value_and_grad`."""
        return mx.value_and_grad(f)

    def vjp(self, f: ScoreFn, x: mx.array, /) -> tuple[mx.array, Callable[[mx.array], mx.array]]:
        """See `Calculus.vjp`. MLX wants the cotangent together with f, which is therefore evaluated again by each product."""
        return f(x), lambda v: mx.vjp(f, [x], [v])[1][0]

    def jvp(self, f: ScoreFn, x: mx.array, v: mx.array, /) -> tuple[mx.array, mx.array]:
        """See `Calculus.jvp`."""
        (psi,), (product,) = mx.jvp(f, [x], [v])
        return psi, product

    def synchronize(self) -> None:
        """See `Backend.synchronize`."""
        mx.synchronize()
