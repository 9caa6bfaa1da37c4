"""A whole run in JAX: one compiled program takes any number of steps, with optax, and gives the losses back as one array."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh

from ismcore import analytic
from ismcore.backend import Backend, Session
from ismcore.backend.processes import shared
from ismcore.errors import OptionError
from ismcore.objectives import LossInputs
from ismcore.ops import Array, Params
from ismcore.optimizers.rules import SGD, Adam, Optimizer
from ismcore.optimizers.state import STATE_PARTS, TrainState
from ismcore.problem import Loss, Problem, Steps, take_rows
from ismcore_jax.sharing.mesh import OWN, SAME, JaxProcesses, total

__all__ = ["JaxSession"]

CAPACITY = 256
"""Steps that one call of the program can take; a fixed number, so that no other number of steps compiles it anew."""
DRAW_BYTES = 64 * 2**20
"""Where the objective draws, fewer, so that the draws of one call take about this much memory."""


SHAPES = 16
"""Numbers of rows and columns whose programs are kept, before all of JAX's caches are emptied."""
_seen: set[tuple[int, ...]] = set()


def _bound_caches(shape: tuple[int, ...]) -> None:
    """Empty JAX's caches once programs for many shapes are in them, which it keeps for good, at some megabytes each.

    A service that fits samples of ever other sizes would grow without end. Programs of the caller's own are compiled anew too,
    where they are used again: a second, beside the seconds that 16 shapes have taken.
    """
    _seen.add(shape)
    if len(_seen) > SHAPES:
        jax.clear_caches()  # type: ignore[no-untyped-call]
        _seen.clear()
        _seen.add(shape)


class JaxSession(Session):
    """See `ismcore.backend.Session`."""

    def __init__(self, backend: Backend, problem: Problem, state: TrainState) -> None:
        self._backend = backend
        self._optimizer = problem.optimizer
        self._transposed_names = analytic.transposed_weights(problem)
        self._sharing = cast("JaxProcesses | None", shared())
        self._program = _program(
            backend,
            problem.loss.canonical(),
            problem.optimizer.canonical(),
            tuple(sorted(problem.row_axes.items())),
            self._transposed_names,
            None if self._sharing is None else self._sharing.mesh,
        )
        self._clip_norm = () if problem.clip_norm is None else (np.asarray(problem.clip_norm, backend.dtype),)
        # NumPy's arrays: a compiled program places its arguments in a tenth of the time that jax.device_put takes for each
        params, first, second, average = (
            self._copied(_transposed(getattr(state, part), self._transposed_names)) for part in STATE_PARTS
        )
        carry = params, _to_optax(problem.optimizer, state.step, first, second), average
        # over a mesh as a call gives it back, or the second call would compile the program anew
        self._carry = carry if self._sharing is None else self._sharing.placed(carry, SAME)
        self._step = state.step
        self._names = tuple(state.params)
        self.follow(problem)
        if self._sharing is None:
            self._x, self._inputs = backend.asarray(problem.x), backend.asarrays(problem.inputs())

    def follow(self, problem: Problem) -> bool:
        """See `Session.follow`."""
        _bound_caches(problem.x.shape)
        # left to the program, which places them in a tenth of the time: they are seen by few calls before they move on
        if self._sharing is None:
            self._x = np.array(problem.x, dtype=self._backend.dtype, order="C")
            self._inputs = cast(LossInputs, self._copied(cast(Params, problem.inputs())))
        else:
            self._problem, self._is_compiled = problem, False
            self._x, self._inputs = self._sharing.placed(self._sharing.samples(problem, self._backend.dtype))
        size = problem.bytes_a_step()
        self._capacity = max(1, min(CAPACITY, DRAW_BYTES // size)) if size else CAPACITY
        return True

    def run(self, steps: Steps) -> np.ndarray:
        """See `Session.run`."""
        losses = []
        for start in range(0, steps.count, self._capacity):
            part = steps.part(start, start + self._capacity)
            taken = self._take(part) if self._sharing is None else self._take_together(part, self._sharing)
            losses.append(taken[: part.count].astype(np.float64))
        self._step += steps.count
        return np.concatenate(losses)

    def _take(self, steps: Steps) -> np.ndarray:
        """The losses of so many steps as one call takes, padded to the capacity."""
        return self._call(self._drawn(steps), np.asarray(steps.count))

    def _take_together(self, steps: Steps, sharing: JaxProcesses) -> np.ndarray:
        """The same by all processes: what may fail in one of them comes before all meet, as a sum cannot be left."""
        own = [self._drawn(part) for part in sharing.steps(steps, self._problem)]
        drawn, count = sharing.placed(jax.tree.map(lambda *arrays: np.stack(arrays), *own)), np.asarray(steps.count)
        if not self._is_compiled:
            self._program.lower(self._carry, self._x, self._inputs, self._clip_norm, drawn, count).compile()
            self._is_compiled = True
        return sharing.together(lambda: self._call(drawn, count))

    def _call(self, drawn: dict[str, Any], count: np.ndarray) -> np.ndarray:
        self._carry, taken = self._program(self._carry, self._x, self._inputs, self._clip_norm, drawn, count)
        return self._backend.to_numpy(taken)

    def _drawn(self, steps: Steps) -> dict[str, Any]:
        """All that belongs to single steps, padded to the capacity."""
        dtype = self._backend.dtype
        given = {name: _padded(value, self._capacity).astype(dtype, copy=False) for name, value in steps.given.items()}
        drawn: dict[str, Any] = {"given": given}
        for name in ("learning_rate", "average_decay", "rows"):
            value = getattr(steps, name)
            if value is not None:
                drawn[name] = _padded(value, self._capacity)
        return drawn

    def _copied(self, tree: Params) -> Params:
        """Arrays of our own: JAX may go on reading the memory of what it is given."""
        return {name: np.array(value, dtype=self._backend.dtype, order="C") for name, value in tree.items()}

    def state(self) -> TrainState:
        """See `Session.state`."""
        params, moments, average = self._carry
        first, second = _from_optax(self._optimizer, moments)
        return TrainState(self._step, *(self._ordered(tree) for tree in (params, first, second, average)))

    def _ordered(self, tree: Params) -> Params:
        """As NumPy arrays in the model's order: JAX returns dicts sorted by name."""
        found = {name: self._backend.to_numpy(tree[name]) for name in self._names if name in tree}
        return {name: np.asarray(value, order="C") for name, value in _transposed(found, self._transposed_names).items()}


@lru_cache(maxsize=64)
def _program(
    backend: Backend,
    loss: Loss,
    optimizer: Optimizer,
    row_axes: tuple[tuple[str, int], ...],
    transposed_names: tuple[str, ...],
    mesh: Mesh | None,
) -> jax.stages.Wrapped:
    """The compiled loop. Whatever may change without a new program (rates, inputs, draws, samples, steps) is an argument.

    Over a mesh, samples, inputs and what is drawn have a leading axis that counts its devices.
    """
    loss_and_gradient = (
        analytic.loss_and_gradient(backend, loss, keep_transposed=True) if transposed_names else backend.loss_and_gradient(loss)
    )
    rule = _transformation(optimizer)
    axes = dict(row_axes)

    def run(carry: Any, x: Array, inputs: LossInputs, clip_norm: tuple[Array, ...], drawn: dict[str, Any], count: Array) -> Any:
        def step(k: Array, carried: Any) -> Any:
            (params, moments, average), losses = carried
            at = jax.tree.map(lambda values: values[k], drawn)
            points, given = (x[at["rows"]], take_rows(inputs, axes, at["rows"])) if "rows" in at else (x, inputs)
            value, gradient = loss_and_gradient(_transposed(params, transposed_names), points, given | at["given"])
            if mesh is not None:
                value, gradient = _total(value, gradient)
            for limit in clip_norm:
                gradient, _ = optax.clip_by_global_norm(limit).update(gradient, optax.EmptyState())
            direction, moments = rule.update(gradient, moments, params)
            rate = at["learning_rate"]
            params = jax.tree.map(lambda p, u: p - rate.astype(p.dtype) * u, params, direction)
            if average:
                decay = at["average_decay"]
                average = jax.tree.map(
                    lambda a, p: decay.astype(p.dtype) * a + (1.0 - decay).astype(p.dtype) * p, average, params
                )
            return (params, moments, average), losses.at[k].set(value)

        return jax.lax.fori_loop(0, count, step, (carry, jnp.zeros(len(drawn["learning_rate"]), x.dtype)))

    return jax.jit(run if mesh is None else _over(mesh, run), donate_argnums=0)


def _total(value: Array, gradient: Params) -> tuple[Array, Params]:
    """Sums over all devices, of one vector: an array each would be a message each."""
    vector, parted = ravel_pytree((value, gradient))
    found: tuple[Array, Params] = parted(total(vector))
    return found


def _over(mesh: Mesh, run: Callable[..., Any]) -> Callable[..., Any]:
    """The loop on each device of a mesh with its own rows; each makes the same update of the same state."""

    def on_device(carry: Any, x: Array, inputs: LossInputs, clip_norm: Any, drawn: dict[str, Any], count: Array) -> Any:
        x, inputs, drawn = jax.tree.map(lambda array: array[0], (x, inputs, drawn))
        return run(carry, x, inputs, clip_norm, drawn, count)

    specs = (SAME, OWN, OWN, SAME, OWN, SAME)
    # without the check of what is the same on all devices, derivatives are those of each device alone, before the sum
    return jax.shard_map(on_device, mesh=mesh, in_specs=specs, out_specs=SAME, check_vma=False)


def _transposed(tree: Params, names: tuple[str, ...]) -> Params:
    return {name: value.T if name in names else value for name, value in tree.items()}


def _padded(array: np.ndarray, length: int) -> np.ndarray:
    """The array with zeros after it, so that a last, shorter call needs no program of its own."""
    return np.concatenate([array, np.zeros((length - len(array), *array.shape[1:]), array.dtype)])


def _transformation(optimizer: Optimizer) -> optax.GradientTransformation:
    """The optimiser without its learning rate, which is an argument of the program."""
    if isinstance(optimizer, Adam):
        return optax.scale_by_adam(optimizer.b1, optimizer.b2, optimizer.eps)
    if isinstance(optimizer, SGD):
        return optax.trace(optimizer.momentum) if optimizer.momentum else optax.identity()
    raise OptionError(f"backend 'jax' knows no optimiser {optimizer!r}")


def _to_optax(optimizer: Optimizer, step: int, first: Params, second: Params) -> Any:
    if isinstance(optimizer, Adam):
        return optax.ScaleByAdamState(np.asarray(step, np.int32), first, second)
    return optax.TraceState(first) if first else optax.EmptyState()


def _from_optax(optimizer: Optimizer, moments: Any) -> tuple[Params, Params]:
    if isinstance(optimizer, Adam):
        return moments.mu, moments.nu
    if isinstance(optimizer, SGD) and optimizer.momentum:
        return moments.trace, {}
    return {}, {}
