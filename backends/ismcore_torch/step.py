"""One step in torch, call by call or compiled: loss, gradient, clipping, update and moving average."""

from collections.abc import Callable
from functools import lru_cache, partial
from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING, cast

import torch

from ismcore import analytic
from ismcore.backend import Backend
from ismcore.backend.processes import shared
from ismcore.errors import OptionError
from ismcore.objectives import LossInputs
from ismcore.ops import Array, Params
from ismcore.optimizers.rules import SGD, Adam, Optimizer
from ismcore.problem import Loss, Problem

if TYPE_CHECKING:
    from ismcore_torch.sharing import TorchProcesses

__all__ = ["Shapes", "Step", "compiled_step", "eager_step", "views"]

LossAndGradient = Callable[[Params, Array, LossInputs], tuple[Array, Params]]
Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Names and shapes of arrays, in the order in which they follow each other in one vector."""
Tensors = tuple[torch.Tensor, ...]
Step = Callable[[torch.Tensor, LossInputs, Tensors], torch.Tensor]
"""(x, inputs, numbers) -> the loss, (), before the step, which changes the run's vectors in place.

The vectors are those of `ismcore.problem.STATE_PARTS`, (p,) for p parameters, and (0,) where there is none. The numbers are
three tensors (), so that a compiled step takes others without being compiled again: the learning rate, over 1 - b1^t for Adam;
1 / (1 - b2^t); and the share of the new parameters in the moving average.
"""
Update = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], None]
"""(theta, first moment, second moment, gradient, rate, correction): the optimiser's equations, in place."""


def eager_step(backend: Backend, problem: Problem, vectors: Tensors, shapes: Shapes, transposed_names: tuple[str, ...]) -> Step:
    """The step of a problem, one torch call after the other.

    Args:
        backend: Operations and derivatives.
        problem: What is trained.
        vectors: The run's, see `Step`.
        shapes: Of the parameters as they lie in the vectors.
        transposed_names: Names of the weights that lie there transposed: see `ismcore.analytic.transposed_weights`.
    """
    step = _step(_loss_and_gradient(backend, problem.loss), problem.optimizer, problem.clip_norm, shapes)
    # made once, as views of a small network's parameters take a tenth of its step
    return partial(step, _params(vectors[0], shapes, transposed_names), vectors)


def compiled_step(
    backend: Backend, problem: Problem, vectors: Tensors, shapes: Shapes, transposed_names: tuple[str, ...]
) -> Step:
    """The same step by `torch.compile`: one program for all fits of a kind, which is made when it is first called."""
    loss, optimizer = problem.loss.canonical(), problem.optimizer.canonical()
    return partial(_compiled(backend, loss, optimizer, problem.clip_norm, shapes, transposed_names), vectors)


@lru_cache(maxsize=16)
def _compiled(
    backend: Backend,
    loss: Loss,
    optimizer: Optimizer,
    clip_norm: float | None,
    shapes: Shapes,
    transposed_names: tuple[str, ...],
) -> Callable[..., torch.Tensor]:
    step = _step(_loss_and_gradient(backend, loss), optimizer, clip_norm, shapes)

    def whole(vectors: Tensors, x: torch.Tensor, inputs: LossInputs, numbers: Tensors) -> torch.Tensor:
        return step(_params(vectors[0], shapes, transposed_names), vectors, x, inputs, numbers)

    # torch.compile keeps at most eight programs for one code object: each kind has its own
    whole.__code__ = whole.__code__.replace()
    compiled: Callable[..., torch.Tensor] = torch.compile(whole, fullgraph=True, dynamic=False)
    return compiled


def _loss_and_gradient(backend: Backend, loss: Loss) -> LossAndGradient:
    """By the core's closed formulas, whose weights lie transposed, or by the backend's differentiation."""
    closed = analytic.supports(loss)
    return analytic.loss_and_gradient(backend, loss, keep_transposed=True) if closed else backend.loss_and_gradient(loss)


def _step(
    loss_and_gradient: LossAndGradient, optimizer: Optimizer, clip_norm: float | None, shapes: Shapes
) -> Callable[..., torch.Tensor]:
    """A `Step` as a function of the vectors too, and of the parameters, which are views of the first."""
    update, processes = _update_rule(optimizer), cast("TorchProcesses | None", shared())

    def step(params: Params, vectors: Tensors, x: torch.Tensor, inputs: LossInputs, numbers: Tensors) -> torch.Tensor:
        theta, first, second, average = vectors
        rate, correction, share = numbers
        loss: torch.Tensor
        loss, slopes = loss_and_gradient(params, x, inputs)
        gradient = torch.cat([slopes[name].reshape(-1) for name, _ in shapes])
        if processes is not None:
            whole = processes.total(torch.cat([gradient, loss.reshape(1)]))
            gradient, loss = whole[:-1], whole[-1]
        if clip_norm is not None:
            gradient = _clipped(gradient, clip_norm)
        update(theta, first, second, gradient, rate, correction)
        if len(average):
            average.lerp_(theta, share)
        return loss

    return step


def _params(theta: torch.Tensor, shapes: Shapes, transposed_names: tuple[str, ...]) -> Params:
    return {name: value.T if name in transposed_names else value for name, value in views(theta, shapes).items()}


def views(vector: Array, shapes: Shapes) -> Params:
    """The arrays that a vector is made of, torch's or NumPy's, in its memory."""
    ends = accumulate(prod(shape) for _, shape in shapes)
    return {name: vector[end - prod(shape) : end].reshape(shape) for (name, shape), end in zip(shapes, ends, strict=True)}


def _clipped(gradient: torch.Tensor, clip_norm: float) -> torch.Tensor:
    """See `ismcore.optimizers.clipped`; nothing is read back from the device."""
    norm = torch.linalg.vector_norm(gradient)
    return torch.where(norm > clip_norm, gradient * (clip_norm / norm), gradient)


def _update_rule(optimizer: Optimizer) -> Update:
    """See `ismcore.optimizers` for the equations."""
    if isinstance(optimizer, Adam):
        b1, b2, eps = optimizer.b1, optimizer.b2, optimizer.eps

        def adam(
            theta: torch.Tensor, m: torch.Tensor, v: torch.Tensor, g: torch.Tensor, rate: torch.Tensor, correction: torch.Tensor
        ) -> None:
            m.lerp_(g, 1.0 - b1)
            v.mul_(b2).addcmul_(g, g, value=1.0 - b2)
            root = (v * correction).sqrt_().add_(eps)
            theta.addcmul_(m / root, rate, value=-1.0)

        return adam
    if not isinstance(optimizer, SGD):
        raise OptionError(f"backend 'torch' knows no optimiser {optimizer!r}")
    momentum = optimizer.momentum

    def sgd(
        theta: torch.Tensor, u: torch.Tensor, _: torch.Tensor, g: torch.Tensor, rate: torch.Tensor, correction: torch.Tensor
    ) -> None:
        direction = u.mul_(momentum).add_(g) if momentum else g
        theta.addcmul_(direction, rate, value=-1.0)

    return sgd
