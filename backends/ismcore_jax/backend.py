"""JAX under ismcore's contract: its own transformations for tier 0, one compiled loop with optax for the run."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import lru_cache
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from ismcore.backend import Backend, GenericSession, Session
from ismcore.backend.forks import is_forked
from ismcore.backend.processes import shared
from ismcore.calculus import ScoreFn, Tree
from ismcore.errors import BackendUnavailable, OptionError
from ismcore.objectives import LossInputs
from ismcore.ops import Array, Ops, Params
from ismcore.optimizers.state import TrainState
from ismcore.problem import Loss, Problem
from ismcore_jax.calculus import map_rows, vjp
from ismcore_jax.ops import JaxOps
from ismcore_jax.session import JaxSession
from ismcore_jax.sharing.mesh import JaxProcesses

__all__ = ["JaxBackend"]

UNROLLED = 16
"""Up to this many directions the products are unrolled in the program, which XLA runs fastest; beyond, they are a loop."""


ACCELERATOR_BLOCK_BYTES = 2**28
"""Blocks there only bound the memory: each should keep the device busy."""


class JaxBackend(Backend):
    """See `ismcore.backend.Backend`."""

    name = "jax"
    packages = ("jax", "jaxlib", "optax")
    compiles_for_shapes = True
    ops: Ops = JaxOps()  # type: ignore[assignment]  # the framework's signatures are overloaded

    @classmethod
    def devices(cls) -> tuple[str, ...]:
        """See `Backend.devices`."""
        return tuple(_name(device) for device in _devices())

    @classmethod
    def default_device(cls) -> str:
        """See `Backend.default_device`: what `jax.default_device` says, else JAX's first device."""
        chosen = jax.config.values["jax_default_device"]
        if isinstance(chosen, str):
            chosen = jax.devices(chosen)[0]
        return _name(jax.local_devices()[0] if chosen is None else chosen)

    def _resolve(self, device: object) -> str:
        """A device of JAX goes by the library's name of it: its own words for one are other ones in each release."""
        return super()._resolve(_name(device) if isinstance(device, jax.Device) and device in _devices() else device)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """64-bit types, full float32 products, broadcasting as in NumPy, and the device, for this thread.

        float32 runs too are inside the 64-bit scope: optax's bias correction computed in float32 misses the losses of the
        reference run by 1.7e-6.

        Raises:
            BackendUnavailable: JAX ran before this process was forked; its threads are not here, and it would wait for ever.
        """
        if is_forked("jax"):
            raise BackendUnavailable(
                "backend 'jax' cannot run in a process that was forked from one in which it ran: start processes by "
                "multiprocessing's 'spawn' or 'forkserver', or fork before the first fit; scores of saved results are safe"
            )
        with ExitStack() as stack:
            stack.enter_context(enable_x64())
            stack.enter_context(jax.default_device(self._jax_device))
            stack.enter_context(jax.numpy_rank_promotion("allow"))
            if self.precision == "highest":
                stack.enter_context(jax.default_matmul_precision("highest"))
            yield

    @property
    def _jax_device(self) -> jax.Device:
        return next(device for device in _devices() if _name(device) == self.device)

    @property
    def block_bytes(self) -> int:  # type: ignore[override]
        """See `Calculus.block_bytes`; with no calls to pay for, blocks as small as a core's own cache are fastest."""
        return 2**20 if self.device == "cpu" else ACCELERATOR_BLOCK_BYTES

    def asarray(self, array: np.ndarray, /) -> jax.Array:
        """See `Calculus.asarray`."""
        # of a copy, as JAX may share the memory of what it is given; jnp.array does the same in ten times the time
        placed: jax.Array = jax.device_put(np.array(array, dtype=self.dtype))
        return placed

    def asarrays(self, tree: Tree) -> Tree:
        """See `Backend.asarrays`; placed in one call, which takes half the time of one each, in the order given."""
        placed = jax.device_put({name: np.array(value, dtype=self.dtype) for name, value in tree.items()})
        return cast(Tree, {name: placed[name] for name in tree})

    def to_numpy(self, array: Array, /) -> np.ndarray:
        """See `Backend.to_numpy`."""
        return np.array(array)

    def value_and_grad(self, f: Callable[..., Array], /) -> Callable[..., tuple[Array, Params]]:
        """See `Backend.value_and_grad`."""
        return jax.value_and_grad(f)

    def loss_and_gradient(self, loss: Loss) -> Callable[[Params, Array, LossInputs], tuple[Array, Params]]:
        """See `Backend.loss_and_gradient`; compiled, once for all losses that differ in arrays alone."""
        return _compiled(self, loss.canonical())

    def loss(self, loss: Loss) -> Callable[[Params, Array, LossInputs], Array]:
        """See `Backend.loss`; compiled likewise."""
        return _compiled_loss(self, loss.canonical())

    def jvp(self, f: ScoreFn, x: Array, v: Array, /) -> tuple[Array, Array]:
        """See `Calculus.jvp`."""
        return jax.jvp(f, (x,), (v,))

    def vjp(self, f: ScoreFn, x: Array, /) -> tuple[Array, Callable[[Array], Array]]:
        """See `Calculus.vjp`."""
        return vjp(f, x)

    def map_rows(self, f: Callable[..., Array], /) -> Callable[..., Array]:
        """See `Calculus.map_rows`."""
        return map_rows(f)

    def jacobian_diagonal(self, f: ScoreFn, x: Array, /) -> tuple[Array, Array]:
        """See `Calculus.jacobian_diagonal`."""
        d = x.shape[1]
        if d <= UNROLLED:
            return super().jacobian_diagonal(f, x)
        psi, pull = self.vjp(f, x)

        def row(i: Array) -> Array:
            unit = jnp.zeros(d, x.dtype).at[i].set(1.0)
            return pull(jnp.broadcast_to(unit, x.shape))[:, i]

        return psi, jax.lax.map(row, jnp.arange(d)).T

    def sum_over_rows(self, f: Callable[[Params], Params], rows: Params, size: int) -> Params:
        """See `Calculus.sum_over_rows`; one loop in the program, whatever the number of blocks."""
        n = next(iter(rows.values())).shape[0]
        count = n // size
        if count < 2:
            return super().sum_over_rows(f, rows, size)  # type: ignore[no-any-return]
        blocks = {name: value[: count * size].reshape(count, size, *value.shape[1:]) for name, value in rows.items()}
        start = jax.tree.map(jnp.zeros_like, jax.eval_shape(f, {name: value[0] for name, value in blocks.items()}))

        def add(total: Params, part: Params) -> tuple[Params, None]:
            return jax.tree.map(jnp.add, total, f(part)), None

        total: Params
        total, _ = jax.lax.scan(add, start, blocks)
        if count * size < n:
            total = jax.tree.map(jnp.add, total, f({name: value[count * size :] for name, value in rows.items()}))
        return total

    def compiled(self, f: Callable[..., Any], /) -> Callable[..., Any]:
        """See `Backend.compiled`."""
        return jax.jit(f)

    def synchronize(self) -> None:
        """See `Backend.synchronize`."""
        _nothing(_zero(self._jax_device)).block_until_ready()

    def prepare(self, problem: Problem, state: TrainState) -> Session:
        """See `Backend.prepare`."""
        processes = cast("JaxProcesses | None", shared())
        if processes is not None and processes.platform != self._jax_device.platform:
            raise OptionError(f"the devices that share this fit are those of {processes.platform}, and not of {self.device}")
        if problem.compile == "off":
            return GenericSession(self, problem, state)
        return JaxSession(self, problem, state)


@lru_cache
def _zero(device: jax.Device) -> jax.Array:
    placed: jax.Array = jax.device_put(np.float32(0.0), device)
    return placed


@jax.jit
def _nothing(x: Array) -> Array:
    return x + 1.0


@lru_cache(maxsize=64)
def _compiled_loss(backend: JaxBackend, loss: Loss) -> Callable[..., Array]:
    return jax.jit(Backend.loss(backend, loss))


@lru_cache(maxsize=64)
def _compiled(backend: JaxBackend, loss: Loss) -> Callable[..., tuple[Array, Params]]:
    return jax.jit(Backend.loss_and_gradient(backend, loss))


def _devices() -> list[jax.Device]:
    """Those of this process: of others, arrays cannot be read."""
    accelerators = [device for device in jax.local_devices() if device.platform != "cpu"]
    return [*jax.local_devices(backend="cpu")[:1], *accelerators]


def _name(device: jax.Device) -> str:
    """The library's name of a device; JAX calls the CUDA platform "gpu"."""
    platform = {"gpu": "cuda"}.get(device.platform, device.platform)
    return "cpu" if platform == "cpu" else f"{platform}:{device.id}"


def enable_x64() -> AbstractContextManager[None]:
    """The scoped switch, which older versions have under `jax.experimental`."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)  # type: ignore[no-any-return]
    from jax.experimental import enable_x64  # type: ignore[attr-defined]

    return enable_x64()  # type: ignore[no-any-return]
