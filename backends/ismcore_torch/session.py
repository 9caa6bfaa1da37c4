"""A whole run in torch: parameters stay on the device, gradients by double backward, updates by torch.optim."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from ismcore import analytic
from ismcore.backend import Backend, Session, SharedSetting, loss_function
from ismcore.calculus import Calculus, ScoreFn
from ismcore.errors import OptionError
from ismcore.ops import Array
from ismcore.optimizers import SGD, Adam, Optimizer
from ismcore.problem import Params, Problem, Steps, TrainState, take_rows

__all__ = ["TorchSession"]


SMALL = 2_000_000
"""Below about this many multiplications a step a second thread costs more, in waiting, than it gives."""

_THREADS = SharedSetting("torch's threads", torch.get_num_threads, torch.set_num_threads, exclusive=False)


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
        psi = f(at)

        def pull(v: Array) -> Array:
            (product,) = torch.autograd.grad(psi, at, v, create_graph=True, materialize_grads=True)
            return product

        return psi, pull


def _loss_and_gradient(backend: Backend, problem: Problem) -> Callable[[Params, Array, Params], tuple[Array, Params]]:
    """By the core's closed formulas, or by double backward on a tape."""
    if analytic.supports(problem):
        return analytic.loss_and_gradient(backend, problem)
    loss_at = loss_function(_DoubleBackward(backend), problem)

    def taped(params: Params, x: Array, given: Params) -> tuple[Array, Params]:
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        loss = loss_at(leaves, x, given)
        slopes = torch.autograd.grad(loss, tuple(leaves.values()), materialize_grads=True)
        return loss.detach(), dict(zip(leaves, slopes, strict=True))

    return taped


class TorchSession(Session):
    """See `ismcore.backend.Session`."""

    def __init__(self, backend: Backend, problem: Problem, state: TrainState) -> None:
        self._backend = backend
        self._loss_and_gradient = _loss_and_gradient(backend, problem)
        self._x = backend.asarray(problem.x)
        self._inputs = backend.asarrays(problem.inputs())
        self._row_axes = problem.row_axes
        self._clip_norm = problem.clip_norm
        self._average = backend.asarrays(state.average)
        self._params = backend.asarrays(state.params)
        self._step = state.step
        multiplications = len(problem.x) * sum(value.size for value in state.params.values())
        self._small = backend.device == "cpu" and multiplications < SMALL
        self._keys = _moment_keys(problem.optimizer)
        self._optimizer = _torch_optimizer(problem.optimizer, list(self._params.values()))
        self._load(state)

    def run(self, steps: Steps) -> np.ndarray:
        """See `Session.run`."""
        with _THREADS.hold(1) if self._small else nullcontext():
            losses = self._take(steps)
        self._step += steps.count
        return self._backend.to_numpy(torch.stack(losses)).astype(np.float64)

    def _take(self, steps: Steps) -> list[torch.Tensor]:
        losses = []
        drawn = self._backend.asarrays(steps.given)
        rows = None if steps.rows is None else torch.as_tensor(steps.rows, device=self._backend.device)
        x, inputs = self._x, self._inputs
        for k in range(steps.count):
            if rows is not None:
                x, inputs = self._x[rows[k]], take_rows(self._inputs, self._row_axes, rows[k])
            loss, gradient = self._loss_and_gradient(self._params, x, {**inputs, **{name: v[k] for name, v in drawn.items()}})
            if self._clip_norm is not None:
                gradient = _clipped(gradient, self._clip_norm)
            for name, slope in gradient.items():
                self._params[name].grad = slope
            self._optimizer.param_groups[0]["lr"] = float(steps.learning_rate[k])
            self._optimizer.step()
            if steps.average_decay is not None:
                self._move_average(float(steps.average_decay[k]))
            losses.append(loss)
        return losses

    def _move_average(self, decay: float) -> None:
        average = list(self._average.values())
        torch._foreach_mul_(average, decay)
        torch._foreach_add_(average, list(self._params.values()), alpha=1.0 - decay)

    def state(self) -> TrainState:
        """See `Session.state`."""
        params = {name: self._backend.to_numpy(value) for name, value in self._params.items()}
        moments: list[Params] = [{}, {}]
        for key, moment in zip(self._keys, moments, strict=False):
            for name, parameter in self._params.items():
                kept = self._optimizer.state[parameter].get(key)
                moment[name] = self._backend.to_numpy(torch.zeros_like(parameter) if kept is None else kept)
        average = {name: self._backend.to_numpy(value) for name, value in self._average.items()}
        return TrainState(self._step, params, moments[0], moments[1], average)

    def _load(self, state: TrainState) -> None:
        """Put a portable state into the optimiser, so that a run begun elsewhere goes on here."""
        for moment, key in zip((state.first_moment, state.second_moment), self._keys, strict=False):
            for name, value in moment.items():
                self._optimizer.state[self._params[name]][key] = self._backend.asarray(value)
        if "exp_avg" in self._keys:
            for parameter in self._params.values():
                self._optimizer.state[parameter]["step"] = torch.tensor(float(state.step), device=self._backend.device)


def _clipped(gradient: Params, clip_norm: float) -> Params:
    """See `ismcore.optimizers.clipped`; nothing is read back from the device."""
    slopes = list(gradient.values())
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(slopes)))
    scale = torch.where(norm > clip_norm, clip_norm / norm, torch.ones_like(norm))
    return dict(zip(gradient, torch._foreach_mul(slopes, scale), strict=True))


def _moment_keys(optimizer: Optimizer) -> tuple[str, ...]:
    """Where torch keeps what the core calls first and second moment."""
    if isinstance(optimizer, Adam):
        return ("exp_avg", "exp_avg_sq")
    return ("momentum_buffer",) if isinstance(optimizer, SGD) and optimizer.momentum else ()


def _torch_optimizer(optimizer: Optimizer, parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
    rate: Any = optimizer.learning_rate
    if isinstance(optimizer, Adam):
        # fused: one kernel for all parameters, about a third of the time of the loop that is the default on a CPU
        betas = (optimizer.b1, optimizer.b2)
        return torch.optim.Adam(parameters, lr=rate, betas=betas, eps=optimizer.eps, fused=True)
    if isinstance(optimizer, SGD):
        return torch.optim.SGD(parameters, lr=rate, momentum=optimizer.momentum)
    raise OptionError(f"backend 'torch' knows no optimiser {optimizer!r}")
