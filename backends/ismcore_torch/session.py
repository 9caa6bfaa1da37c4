"""A whole run in torch: everything stays on the device, gradients by formula or double backward, updates by fused kernels."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from ismcore import analytic
from ismcore.backend import Backend, Session, SharedSetting, loss_function
from ismcore.calculus import Calculus, ScoreFn
from ismcore.errors import OptionError
from ismcore.ops import Array
from ismcore.optimizers import SGD, Adam
from ismcore.problem import STATE_PARTS, Params, Problem, Steps, TrainState, take_rows
from ismcore_torch.calculus import math_attention
from ismcore_torch.recorded import MANY, recorded_loss_and_gradient

__all__ = ["TorchSession", "few_threads", "has_kernels", "is_small"]


SMALL = 2_000_000
"""Below about this many multiplications a step a second thread costs more, in waiting, than it gives."""

_THREADS = SharedSetting("torch's threads", torch.get_num_threads, torch.set_num_threads, exclusive=False)


def is_small(backend: Backend, problem: Problem, state: TrainState) -> bool:
    """Whether a step is so short that what surrounds it counts: threads, calls."""
    arrays, n = state.params.values(), problem.batch_rows
    multiplications, widest = n * sum(value.size for value in arrays), n * max(max(value.shape, default=1) for value in arrays)
    return backend.device == "cpu" and multiplications < SMALL and widest < MANY


def few_threads(small: bool) -> AbstractContextManager[None]:
    """One thread for small problems, and afterwards as many as before."""
    return _THREADS.hold(1) if small else nullcontext()


def has_kernels() -> bool:
    """Whether this torch has the kernel of its fused Adam, which is not part of its public interface."""
    return hasattr(torch, "_fused_adam_")


class _DoubleBackward(Calculus):
    """The tape's own derivative: for small eager programs about twice as fast as torch.func, with the same results."""

    def __init__(self, backend: Backend) -> None:
        self.ops = backend.ops
        self.dtype = backend.dtype
        self._backend = backend

    def asarray(self, array: np.ndarray, /) -> Array:
        return self._backend.asarray(array)

    def vjp(self, f: ScoreFn, x: Array, /) -> tuple[Array, Callable[[Array], Array]]:
        at = x if x.requires_grad else x.detach().requires_grad_()
        with math_attention():
            psi = f(at)

        def pull(v: Array) -> Array:
            (product,) = torch.autograd.grad(psi, at, v, create_graph=True, materialize_grads=True)
            return product

        return psi, pull


def _loss_and_gradient(
    backend: Backend, problem: Problem, *, turned: bool = False
) -> Callable[[Params, Array, Params], tuple[Array, Params]]:
    """By the core's closed formulas (see there for `turned`), or by double backward on a tape."""
    if analytic.supports(problem):
        found = recorded_loss_and_gradient if backend.device == "cpu" else analytic.loss_and_gradient
        return found(backend, problem, turned=turned)
    loss_at = loss_function(_DoubleBackward(backend), problem)

    def taped(params: Params, x: Array, given: Params) -> tuple[Array, Params]:
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        loss = loss_at(leaves, x, given)
        if not loss.requires_grad:
            return loss, {name: torch.zeros_like(value) for name, value in leaves.items()}
        slopes = torch.autograd.grad(loss, tuple(leaves.values()), materialize_grads=True)
        return loss.detach(), dict(zip(leaves, slopes, strict=True))

    return taped


class TorchSession(Session):
    """See `ismcore.backend.Session`."""

    def __init__(self, backend: Backend, problem: Problem, state: TrainState) -> None:
        self._backend = backend
        self._problem = problem
        self._loss_and_gradient = _loss_and_gradient(backend, problem, turned=True)
        self._x = backend.asarray(problem.x)
        self._inputs = backend.asarrays(problem.inputs())
        self._row_axes = problem.row_axes
        self._across = analytic.across(problem)
        self._params, self._first, self._second, self._average = (
            backend.asarrays(_transposed(getattr(state, part), self._across)) for part in STATE_PARTS
        )
        self._seen = _transposed(self._params, self._across)
        # tensors, as torch takes three times as long for a tensor and a number
        self._one = backend.asarray(np.ones(()))
        self._limit = None if problem.clip_norm is None else backend.asarray(np.asarray(problem.clip_norm))
        self._step = state.step
        self._update = _update_rule(problem, self._params, self._first, self._second, state.step)
        self._small = is_small(backend, problem, state)

    def run(self, steps: Steps) -> np.ndarray:
        """See `Session.run`."""
        # held here as well as in each product, where it then costs a fifth
        held = math_attention() if self._problem.objective.differentiates_in_x else nullcontext()
        with few_threads(self._small), held:
            losses = self._take(steps)
        self._step += steps.count
        return self._backend.to_numpy(torch.stack(losses)).astype(np.float64)

    def _take(self, steps: Steps) -> list[torch.Tensor]:
        losses = []
        drawn = self._backend.asarrays(steps.given)
        rows = None if steps.rows is None else torch.as_tensor(steps.rows, device=self._backend.device)
        x, given = self._x, self._inputs
        for k, rate in enumerate(steps.learning_rate.tolist()):
            if rows is not None:
                x, given = self._x[rows[k]], take_rows(self._inputs, self._row_axes, rows[k])
            if drawn:
                given = {**given, **{name: value[k] for name, value in drawn.items()}}
            loss, gradient = self._loss_and_gradient(self._seen, x, given)
            self._update(self._clipped([gradient[name] for name in self._params]), rate)
            if steps.average_decay is not None:
                self._move_average(float(steps.average_decay[k]))
            losses.append(loss)
        return losses

    def _clipped(self, gradient: list[torch.Tensor]) -> list[torch.Tensor]:
        """See `ismcore.optimizers.clipped`; nothing is read back from the device."""
        if self._limit is None:
            return gradient
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradient)))
        return list(torch._foreach_mul(gradient, torch.where(norm > self._limit, self._limit / norm, self._one)))

    def _move_average(self, decay: float) -> None:
        means = list(self._average.values())
        torch._foreach_mul_(means, decay)
        torch._foreach_add_(means, [self._params[name] for name in self._average], alpha=1.0 - decay)

    def state(self) -> TrainState:
        """See `Session.state`."""
        trees = (self._params, self._first, self._second, self._average)
        turned = (_transposed(tree, self._across) for tree in trees)
        return TrainState(self._step, *({name: self._backend.to_numpy(v) for name, v in tree.items()} for tree in turned))


def _transposed(tree: Params, names: tuple[str, ...]) -> Params:
    return {name: value.T if name in names else value for name, value in tree.items()}


def _update_rule(
    problem: Problem, params: Params, first: Params, second: Params, step: int
) -> Callable[[list[torch.Tensor], float], None]:
    """The optimiser's step, (gradient, learning rate), on parameters and moments in place.

    For Adam it calls the kernel that `torch.optim.Adam(fused=True)` calls: one for all parameters. The optimiser object spends
    40 microseconds a step around it, and its first use imports torch._dynamo, one to two seconds.
    """
    optimizer, values = problem.optimizer, list(params.values())
    if isinstance(optimizer, Adam):
        constants: dict[str, Any] = {"beta1": optimizer.b1, "beta2": optimizer.b2, "eps": optimizer.eps, "weight_decay": 0.0}
        constants |= {"amsgrad": False, "maximize": False}
        moments = list(first.values()), list(second.values())
        taken, one = (torch.full((), float(k), dtype=torch.float32, device=values[0].device) for k in (step, 1))
        counts = [taken] * len(values)  # one count for all parameters

        def adam(gradient: list[torch.Tensor], rate: float) -> None:
            taken.add_(one)
            torch._fused_adam_(values, gradient, *moments, [], counts, lr=rate, **constants)

        return adam
    if not isinstance(optimizer, SGD):
        raise OptionError(f"backend 'torch' knows no optimiser {optimizer!r}")
    velocities = list(first.values())

    def sgd(gradient: list[torch.Tensor], rate: float) -> None:
        for k, value in enumerate(values):
            direction = velocities[k].mul_(optimizer.momentum).add_(gradient[k]) if velocities else gradient[k]
            value.add_(direction, alpha=-rate)

    return sgd
