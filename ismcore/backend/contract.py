"""The contract between the core and a backend: everything that an author of a backend must read.

The core owns the mathematics, as pure functions of `(calculus, params, x)`; a backend owns differentiation, compilation,
devices and the inner loop. NumPy arrays and frozen dataclasses cross the boundary, nothing else.

Tier 0, mandatory: `Backend` with arrays in and out, `ops`, `value_and_grad`, one of `jvp` and `vjp` that nests under it,
`synchronize` and `scope`. From these the core derives every objective and `GenericSession`, a plain training loop.
Tier 1, optional, same results: overriding `jacobian_diagonal`, and a `Session` of one's own that swallows the whole loop.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, cast, get_args

import numpy as np

from ismcore import analytic
from ismcore.calculus import Calculus
from ismcore.errors import DeviceUnavailable, OptionError, ScopeConflict
from ismcore.objectives import LossInputs
from ismcore.ops import Array, Params
from ismcore.optimizers.rules import averaged, clipped
from ismcore.optimizers.state import TrainState
from ismcore.problem import Loss, Problem, Steps, take_rows

__all__ = ["DTYPES", "Backend", "BackendInfo", "Dtype", "GenericSession", "Precision", "Session", "SharedSetting", "as_dtype"]

Dtype = Literal["float32", "float64"]
"""Of parameters and computation."""
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
Precision = Literal["highest", "default"]
"""How float32 products are rounded: see `Backend`."""
API = 1
"""Version of this contract, one more with every change of it; a plugin states the one that it was written for."""
OLDEST_API = 1
"""The oldest version whose plugins still work: a new member with a default leaves it where it is."""


def as_dtype(dtype: object) -> Dtype:
    """The name of a dtype: itself, or that of NumPy's or a framework's object for it; no framework is imported to know it.

    Raises:
        OptionError: It is none of `DTYPES`.

    Example:
        >>> as_dtype("float32"), as_dtype(np.float64), as_dtype(np.dtype("float32"))
        ('float32', 'float64', 'float32')
    """
    if isinstance(dtype, str):
        name = dtype
    else:
        # an np.dtype has a name, np.float64 and jnp.float64 are classes of that name, and torch.float64 prints as that
        name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype).rpartition(".")[2]
        name = "float64" if dtype is float else str(name)
    for known in DTYPES:
        if name == known:
            return known
    raise OptionError(f"dtype must be one of {', '.join(DTYPES)}, or an object of NumPy or a framework, not {dtype!r}")


@dataclass(frozen=True)
class BackendInfo:
    """What a plugin says of a backend before anything heavy is imported.

    Attributes:
        name: What users pass as `backend=`.
        load: Where its `Backend` subclass is, as "package.module:Class"; imported when the backend is first used.
        requires: Modules that must be installed for it to work.
        install: The command that installs them.
        api: Version of the contract that it was written for; from `OLDEST_API` to `API` all are taken.
        description: One line for `ismcore.backends()`.
    """

    name: str
    load: str
    requires: tuple[str, ...] = ()
    install: str = ""
    api: int = API
    description: str = ""


class Backend(Calculus):
    """A framework's derivatives and loop, bound to one dtype and one device.

    Constructing one allocates nothing on the device and changes no global state; `scope` holds whatever must be set while
    it works. The core enters the scope around every call that computes.

    Args:
        dtype: "float32" or "float64", see `as_dtype`; every array that `asarray` returns has it.
        device: One of `devices()`, or the framework's object for it, which prints as its name; or "auto": where the framework
            itself puts an array made without naming a device.
        precision: "highest": float32 products keep all their bits (no TF32), or "default": what the framework does.

    Raises:
        OptionError: The dtype or the precision is not one that this backend offers.
        DeviceUnavailable: There is no such device here.
    """

    name: ClassVar[str]
    dtype: Dtype
    dtypes: ClassVar[tuple[Dtype, ...]] = DTYPES
    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions belong in a result."""
    compiles_for_shapes: ClassVar[bool] = False
    """Whether a program is compiled for each number of rows: `ismcore.Refit` then pads them, so that one serves many."""

    def __init__(self, dtype: object = "float64", device: object = "auto", precision: Precision = "highest") -> None:
        self.dtype = as_dtype(dtype)
        if self.dtype not in self.dtypes:
            raise OptionError(f"dtype must be one of {', '.join(self.dtypes)} on backend {self.name!r}, not {self.dtype!r}")
        if precision not in ("highest", "default"):
            raise OptionError(f"precision must be 'highest' or 'default', not {precision!r}")
        self.precision = precision
        self.device = self._resolve(device)

    def _resolve(self, device: object) -> str:
        devices = self.devices()
        if not devices:
            raise DeviceUnavailable(f"backend {self.name!r} finds no device here on which it could compute")
        name = str(device)
        if name == "auto":
            return self.default_device()
        for candidate in (name, f"{name}:0", name.removesuffix(":0")):
            if candidate in devices:
                return candidate
        raise DeviceUnavailable(
            f"device {device!r} is not available to backend {self.name!r} here; it has {', '.join(devices)}"
        )

    def at(self, x: Array, /) -> Backend:
        """See `Calculus.at`; the contract asks no array for its dtype, and one that does not say is taken for the backend's."""
        dtype = str(getattr(x, "dtype", self.dtype)).rpartition(".")[2]
        return type(self)(dtype, self.device, self.precision) if dtype in self.dtypes and dtype != self.dtype else self

    def _key(self) -> tuple[object, ...]:
        return type(self), self.dtype, self.device, self.precision

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Backend) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    @classmethod
    def devices(cls) -> tuple[str, ...]:
        """Names of the devices present: "cpu", "cuda:0", ... Allocates nothing on them."""
        return ("cpu",)

    @classmethod
    def default_device(cls) -> str:
        """Where the framework puts an array when no device is named."""
        return cls.devices()[0]

    def scope(self) -> AbstractContextManager[None]:
        """Holds every global switch that the backend needs, and restores it on leaving; may be entered again inside."""
        return nullcontext()

    @abstractmethod
    def to_numpy(self, array: Array, /) -> np.ndarray:
        """A NumPy copy of an array, in its own dtype, free of any graph."""

    def constant(self, x: Array, /) -> Array:
        """See `Calculus.constant`: out through NumPy and in again. Where arrays are traced without values it cannot be."""
        return self.asarray(self.to_numpy(x))

    @abstractmethod
    def value_and_grad(self, f: Callable[..., Array], /) -> Callable[..., tuple[Array, Params]]:
        """(params, *args) -> (f(params, *args), its gradient in params), for a scalar f; same keys, shapes and dtype."""

    @property
    def plain(self) -> Calculus:
        """What the core's closed formulas compute with: the backend itself, or a plainer set of operations."""
        return self

    def loss_and_gradient(self, loss: Loss) -> Callable[[Params, Array, LossInputs], tuple[Array, Params]]:
        """The loss and its gradient, (params, x, inputs) -> (loss, gradient): by closed formulas where there are some."""
        if analytic.supports(loss):
            return analytic.loss_and_gradient(self.plain, loss)
        return self.value_and_grad(partial(loss.value, self))

    def loss(self, loss: Loss) -> Callable[[Params, Array, LossInputs], Array]:
        """The loss alone, (params, x, inputs) -> loss: the validation loss, on held-out samples."""
        if analytic.supports(loss):
            return analytic.loss(self.plain, loss)
        return partial(loss.value, self)

    def compiled(self, f: Callable[..., Any], /) -> Callable[..., Any]:
        """The same function of arrays, compiled where the framework does so for every function; by default as it is."""
        return f

    def synchronize(self) -> None:
        """Wait until the device has done all that it was given."""

    def prepare(self, problem: Problem, state: TrainState) -> Session:
        """A session that trains the problem from the state. Override for a faster loop with the same results."""
        return GenericSession(self, problem, state)


class Session(ABC):
    """A prepared training run: the state lives in the framework, on the device, until asked for."""

    @abstractmethod
    def run(self, steps: Steps) -> np.ndarray:
        """Take the steps; return each one's loss before its update, float64 of shape (steps.count,)."""

    @abstractmethod
    def state(self) -> TrainState:
        """The present state, as NumPy arrays of its own."""

    def follow(self, problem: Problem) -> bool:
        """Go on, from the present state, with the samples, row weights and inputs of a problem that is alike in all else.

        Returns:
            Whether it does. By default not: `ismcore.Refit` then prepares a session anew, from the state, which is right too.
        """
        return False

    def close(self) -> None:
        """End what works beside the caller, such as a thread that reads ahead; nothing is asked of it afterwards."""
        return


class GenericSession(Session):
    """Training over tier 0 alone: the backend's gradient, the core's optimiser, one step at a time.

    It is what `compile="off"` runs, and what a backend's own session is tested against.
    """

    def __init__(self, backend: Backend, problem: Problem, state: TrainState) -> None:
        self._backend = backend
        self._loss_and_gradient = backend.loss_and_gradient(problem.loss)
        self._state = state.astype(backend.dtype)
        self.follow(problem)

    def follow(self, problem: Problem) -> bool:
        """See `Session.follow`."""
        self._problem = problem
        self._x = problem.x.astype(self._backend.dtype)
        self._inputs = problem.inputs()
        self._all: tuple[Array, LossInputs] | None = None
        if problem.batch_size is None:
            self._all = self._backend.asarray(self._x), self._backend.asarrays(self._inputs)
        return True

    def run(self, steps: Steps) -> np.ndarray:
        """See `Session.run`."""
        losses = np.empty(steps.count)
        for k in range(steps.count):
            x, inputs = self._all or self._batch(steps, k)
            drawn = self._backend.asarrays({name: value[k] for name, value in steps.given.items()})
            given = cast(LossInputs, {**inputs, **drawn})
            loss, slopes = self._loss_and_gradient(self._backend.asarrays(self._state.params), x, given)
            losses[k] = float(self._backend.to_numpy(loss))
            gradient = {name: self._backend.to_numpy(value) for name, value in slopes.items()}
            self._update(gradient, steps, k)
        return losses

    def _batch(self, steps: Steps, k: int) -> tuple[Array, LossInputs]:
        assert steps.rows is not None  # noqa: S101  (the core's own bug otherwise)
        inputs = take_rows(self._inputs, self._problem.row_axes, steps.rows[k])
        return self._backend.asarray(self._x[steps.rows[k]]), self._backend.asarrays(inputs)

    def _update(self, gradient: Params, steps: Steps, k: int) -> None:
        gradient = clipped(gradient, self._problem.clip_norm)
        state = self._problem.optimizer.update(self._state, gradient, float(steps.learning_rate[k]))
        if steps.average_decay is not None:
            state = replace(state, average=averaged(state.average, state.params, float(steps.average_decay[k])))
        self._state = state

    def state(self) -> TrainState:
        """See `Session.state`."""
        return self._state.copy()


class SharedSetting:
    """A process-wide switch of a framework, held by reference count.

    Nested and concurrent holders of the same value share it; the last to leave restores what was found. A concurrent request
    for another value raises, since one of the two runs would silently compute with the wrong setting.

    Args:
        name: What the setting is called in an error.
        read: Returns the present value.
        write: Sets a value.
        exclusive: Whether results depend on the value; if not, a concurrent request for another one is let pass without it.
    """

    def __init__(self, name: str, read: Callable[[], Any], write: Callable[[Any], object], *, exclusive: bool = True) -> None:
        self._name, self._read, self._write, self._exclusive = name, read, write, exclusive
        self._lock = threading.Lock()
        self._holders = 0
        self._held: Any = None
        self._found: Any = None

    @contextmanager
    def hold(self, value: Any) -> Iterator[None]:
        """Set the value for as long as the context lasts.

        Raises:
            ScopeConflict: Another run holds a different value.
        """
        with self._lock:
            if self._exclusive and self._holders and value != self._held:
                raise ScopeConflict(
                    f"{self._name} is held at {self._held!r} by a run in progress, and this one needs {value!r}; "
                    "run them one after the other, or in two processes"
                )
            if not self._holders:
                self._found = self._read()
                self._held = value
                self._write(value)
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if not self._holders:
                    self._write(self._found)
