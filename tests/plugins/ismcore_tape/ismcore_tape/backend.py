"""The tape under ismcore's contract."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np

from ismcore.backend import Backend
from ismcore.calculus import ScoreFn
from ismcore.ops import Params
from ismcore_tape import tape
from ismcore_tape.tape import Tensor


class TapeOps:
    """See `ismcore.ops.Ops`."""

    exp = staticmethod(tape.exp)
    log = staticmethod(tape.log)
    sqrt = staticmethod(tape.sqrt)
    abs = staticmethod(tape.absolute)
    sin = staticmethod(tape.sin)
    cos = staticmethod(tape.cos)
    tanh = staticmethod(tape.tanh)
    erf = staticmethod(tape.erf)
    sigmoid = staticmethod(tape.sigmoid)
    logaddexp = staticmethod(tape.logaddexp)
    where = staticmethod(tape.where)
    sum = staticmethod(tape.total)
    stack = staticmethod(tape.stack)
    concat = staticmethod(tape.concat)
    reshape = staticmethod(tape.reshape)
    broadcast_to = staticmethod(tape.broadcast_to)
    permute_dims = staticmethod(tape.permute_dims)


class TapeBackend(Backend):
    """See `ismcore.backend.Backend`."""

    name = "tape"
    packages = ("ismcore-tape",)
    ops = TapeOps()

    def scope(self) -> AbstractContextManager[None]:
        """No NumPy warning in a run: the training loop looks for what is not finite and says so itself."""
        return np.errstate(all="ignore")

    def asarray(self, array: np.ndarray, /) -> Tensor:
        """See `Calculus.asarray`."""
        return Tensor(np.array(array, dtype=self.dtype))

    def to_numpy(self, array: Tensor, /) -> np.ndarray:
        """See `Backend.to_numpy`."""
        return np.array(array.value)

    def value_and_grad(self, f: Callable[..., Tensor], /) -> Callable[..., tuple[Tensor, Params]]:
        """See `Backend.value_and_grad`."""

        def both(params: Params, *args: object) -> tuple[Tensor, Params]:
            copies = {name: tape.copy(value) for name, value in params.items()}
            value = f(copies, *args)
            one = Tensor(np.ones_like(value.value))
            return value, dict(zip(copies, tape.pull(value, one, list(copies.values())), strict=True))

        return both

    def vjp(self, f: ScoreFn, x: Tensor, /) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """See `Calculus.vjp`. The copy of x is on the tape too, so whatever differentiates around this call sees through."""
        here = tape.copy(x)
        psi = f(here)
        return psi, lambda v: tape.pull(psi, v, [here])[0]
