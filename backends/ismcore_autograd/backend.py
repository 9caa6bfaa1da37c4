"""HIPS-autograd under ismcore's contract: NumPy arrays, reverse and forward mode, a loop of updates in place."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import autograd
import autograd.numpy as anp
import numpy as np
from autograd.extend import defjvp, defvjp, primitive

from ismcore.backend import Backend, GenericSession, Session
from ismcore.calculus import Calculus, NumpyCalculus, ScoreFn
from ismcore.ops import Array, Ops, Params
from ismcore.optimizers.state import TrainState
from ismcore.problem import Problem
from ismcore_autograd.ops import AutogradOps
from ismcore_autograd.session import AutogradSession

__all__ = ["AutogradBackend"]


_tied = primitive(lambda y, x: y)
# autograd warns of a y that does not depend on x, as the derivative of a piecewise linear score; this one always does
defvjp(_tied, lambda value, y, x: lambda g: g, lambda value, y, x: lambda g: anp.zeros_like(x))
defjvp(_tied, lambda g, value, y, x: g, lambda g, value, y, x: anp.zeros_like(value))

_TRACING = threading.RLock()
"""HIPS-autograd numbers its traces on one stack for the whole process: two threads that trace at once mix theirs up."""


class AutogradBackend(Backend):
    """See `ismcore.backend.Backend`."""

    name = "autograd"
    packages = ("autograd",)
    ops: Ops = AutogradOps()

    def scope(self) -> AbstractContextManager[None]:
        """No NumPy warning in a run: the training loop looks for what is not finite and says so itself."""
        return np.errstate(all="ignore")

    def asarray(self, array: np.ndarray, /) -> np.ndarray:
        """See `Calculus.asarray`."""
        return np.array(array, dtype=self.dtype)

    def to_numpy(self, array: Array, /) -> np.ndarray:
        """See `Backend.to_numpy`."""
        return np.array(array)

    @property
    def plain(self) -> Calculus:
        """See `Backend.plain`; plain NumPy, without the look-ups of autograd's wrappers."""
        return NumpyCalculus(self.dtype)

    def value_and_grad(self, f: Callable[..., Array], /) -> Callable[..., tuple[Array, Params]]:
        """See `Backend.value_and_grad`."""

        def tied(params: Params, *args: Array) -> Array:
            return _tied(f(params, *args), next(iter(params.values())))

        together = autograd.value_and_grad(tied)

        def locked(*args: Array) -> tuple[Array, Params]:
            with _TRACING:
                return together(*args)  # type: ignore[no-any-return]

        return locked

    def jvp(self, f: ScoreFn, x: Array, v: Array, /) -> tuple[Array, Array]:
        """See `Calculus.jvp`."""
        with _TRACING:
            return autograd.make_jvp(lambda z: _tied(f(z), z))(x)(v)  # type: ignore[no-any-return]

    def vjp(self, f: ScoreFn, x: Array, /) -> tuple[Array, Callable[[Array], Array]]:
        """See `Calculus.vjp`."""
        with _TRACING:
            pull, psi = autograd.make_vjp(lambda z: _tied(f(z), z))(x)
        return psi, pull

    def prepare(self, problem: Problem, state: TrainState) -> Session:
        """See `Backend.prepare`."""
        if problem.compile == "off":
            return GenericSession(self, problem, state)
        return AutogradSession(self, problem, state)
