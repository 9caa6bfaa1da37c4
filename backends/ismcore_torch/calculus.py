"""`ismcore.calculus.Calculus` on a caller's own tensors: their dtype, their device, their tape."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ismcore import Hutchinson
from ismcore.backend import SharedSetting
from ismcore.calculus import ScoreFn
from ismcore.errors import SamplesError
from ismcore.losses import CallerCalculus
from ismcore.ops import Array, Ops, Params
from ismcore_torch.ops import TorchOps

__all__ = [
    "ArrayCalculus",
    "Divergence",
    "Score",
    "Weight",
    "calculus_at",
    "in_transform",
    "is_recorded",
    "map_rows",
    "twice_differentiable",
    "value_and_grad",
    "vjp",
]

Score = Callable[[torch.Tensor], torch.Tensor]
Weight = float | Sequence[float] | torch.Tensor
Divergence = str | Hutchinson | torch.Tensor

_KERNELS = ("flash_sdp", "mem_efficient_sdp", "cudnn_sdp", "math_sdp")


def _kernels() -> tuple[bool, ...]:
    return tuple(getattr(torch.backends.cuda, f"{name}_enabled")() for name in _KERNELS)


def _set_kernels(enabled: tuple[bool, ...]) -> None:
    for name, value in zip(_KERNELS, enabled, strict=True):
        getattr(torch.backends.cuda, f"enable_{name}")(value)


# the flags hold for the CPU too; `sdpa_kernel` alone would leave them changed where two threads enter and leave it by turns
_ATTENTION = SharedSetting("torch's attention kernels", _kernels, _set_kernels, exclusive=False)


def _stance() -> Any:
    return torch._dynamo.eval_frame._stance


def _set_stance(stance: Any) -> None:
    with suppress(RuntimeError):  # inside of a compiled function, between two of its graphs, torch lets nobody set it
        torch._dynamo.eval_frame._set_stance(stance)


_UNCOMPILED = SharedSetting("torch's compiled functions", _stance, _set_stance, exclusive=False)


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Attention by products and a softmax, and compiled parts called uncompiled, as neither else has a second derivative.

    Afterwards all is as before. What is computed inside can be differentiated again, inside or later: the kernel is chosen
    when the function is called, not when its derivative is taken.
    """
    if torch.compiler.is_compiling():
        with sdpa_kernel(SDPBackend.MATH):
            yield
        return
    with ExitStack() as held:
        held.enter_context(_ATTENTION.hold((False, False, False, True)))
        if "torch._dynamo" in sys.modules:  # else nobody has compiled anything
            held.enter_context(_UNCOMPILED.hold(torch._dynamo.eval_frame.DynamoStance("force_eager")))
        yield


def in_transform() -> bool:
    """Whether torch.func or a compiler is at work here: torch's tape knows nothing of what they trace."""
    return torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None


def vjp(f: ScoreFn, x: Array, *, keep_graph: bool) -> tuple[Array, Callable[[Array], Array]]:
    """f(x) and the pullback v -> v^T J: see `ismcore.calculus.Calculus.vjp`.

    On the tape, which takes every network that `loss.backward()` takes (hooks, checkpoints, functions with a backward pass of
    their own); by torch.func where a transform of it, or a compiler, is at work already.

    Args:
        f: (n, d) -> (n, d) or (n,), rows independent.
        x: (n, d).
        keep_graph: Whether the results can be differentiated again on the tape, in x and in what f holds.
    """
    if in_transform():
        with twice_differentiable():
            psi, pull, *_ = torch.func.vjp(f, x)
        return psi, lambda v: pull(v)[0]
    with torch.inference_mode(False), torch.enable_grad(), twice_differentiable():
        # a node of its own: what f holds of x beside its argument is a constant here
        at = x.view_as(x) if x.requires_grad else (x.clone() if x.is_inference() else x.detach()).requires_grad_()
        psi = f(at)

    def pullback(v: Array) -> Array:
        if not psi.requires_grad:
            return torch.zeros_like(at)
        # a graph that is not kept on is kept all the same until the last product
        (product,) = torch.autograd.grad(psi, at, v, retain_graph=True, create_graph=keep_graph, materialize_grads=True)
        return product

    return psi if keep_graph else psi.detach(), pullback


def value_and_grad(f: Callable[..., Array], params: Params, *args: Any) -> tuple[Array, Params]:
    """f(params, *args), and its gradient in params: see `ismcore.backend.Backend.value_and_grad`, and `vjp` here."""
    if in_transform():
        gradient, value = torch.func.grad_and_value(f)(params, *args)
        return value, gradient
    keep_graph = _RECORDED.depth > 0 or any(value.requires_grad for value in params.values())
    leaves = {k: v.view_as(v) if v.requires_grad else v.detach().requires_grad_() for k, v in params.items()}
    _RECORDED.depth += 1
    try:
        with torch.enable_grad():
            value = f(leaves, *args)
            if not value.requires_grad:
                return value, {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
            slopes = torch.autograd.grad(value, tuple(leaves.values()), create_graph=keep_graph, materialize_grads=True)
    finally:
        _RECORDED.depth -= 1
    return value if keep_graph else value.detach(), dict(zip(leaves, slopes, strict=True))


class _Recorded(threading.local):
    """How many gradients in parameters are being taken in this thread, for which graphs of inner derivatives are kept."""

    depth = 0


_RECORDED = _Recorded()


def is_recorded() -> bool:
    """Whether a gradient in parameters is being taken around this call."""
    return _RECORDED.depth > 0


def map_rows(f: Callable[..., Array]) -> Callable[..., Array]:
    """See `ismcore.calculus.Calculus.map_rows`."""
    return lambda tree, *rows: torch.func.vmap(lambda *row: f(tree, *row))(*rows)


class ArrayCalculus(CallerCalculus[torch.Tensor]):
    """See `ismcore.losses.CallerCalculus`; nothing is compiled, moved or seeded, and no setting of the process changes."""

    ops: Ops = TorchOps()  # type: ignore[assignment]  # the framework's signatures are overloaded
    row_mapping = "torch.func.vmap"

    @staticmethod
    def is_own(value: object) -> bool:
        """See `CallerCalculus.is_own`."""
        return isinstance(value, torch.Tensor)

    def asarray(self, array: np.ndarray, /) -> torch.Tensor:
        """See `Calculus.asarray`; a tensor is taken too, and keeps its place in the caller's graph."""
        if isinstance(array, torch.Tensor):
            return array.to(dtype=self.like.dtype, device=self.like.device)
        if torch.compiler.is_compiling():  # a constant of the program, which `torch.tensor` would warn of as a tensor already
            return torch.as_tensor(array, dtype=self.like.dtype, device=self.like.device)
        return torch.tensor(array, dtype=self.like.dtype, device=self.like.device)

    def normal(self, shape: tuple[int, ...], /) -> torch.Tensor:
        """See `CallerCalculus.normal`; from torch's own generator for the device if there is none, as in `torch.randn`."""
        return torch.randn(shape, generator=self.source, dtype=self.like.dtype, device=self.like.device)

    def signs(self, shape: tuple[int, ...], /) -> torch.Tensor:
        """See `CallerCalculus.signs`."""
        return 2.0 * torch.randint(0, 2, shape, generator=self.source, dtype=self.like.dtype, device=self.like.device) - 1.0

    def norm(self, v: Array, /) -> Array:
        """See `CallerCalculus.norm`."""
        return torch.linalg.vector_norm(v, dim=-1, keepdim=True)

    def compute(self, quantity: Callable[[], Array], /) -> torch.Tensor:
        """See `CallerCalculus.compute`; a constant keeps no graph."""
        with nullcontext() if self.differentiable else torch.no_grad():
            value: torch.Tensor = quantity()
        return value

    def vjp(self, f: ScoreFn, x: Array, /) -> tuple[Array, Callable[[Array], Array]]:
        """See `Calculus.vjp`. `torch.func.jvp` is not offered: it fails under inductor on a linear layer (torch 2.13)."""
        return vjp(f, x, keep_graph=torch.is_grad_enabled())

    def map_rows(self, f: Callable[..., Array], /) -> Callable[..., Array]:
        """See `Calculus.map_rows`."""
        return map_rows(f)

    def jacobian_diagonal(self, f: ScoreFn, x: Array, /) -> tuple[Array, Array]:
        """See `Calculus.jacobian_diagonal`; one direction after the other, `chunk_size` rows at once."""
        if self.chunk_size is None or self.chunk_size >= x.shape[0]:
            return self._columns(f, x)
        blocks = [self._columns(f, points) for points in x.split(self.chunk_size)]
        return torch.cat([psi for psi, _ in blocks]), torch.cat([diagonal for _, diagonal in blocks])

    def _columns(self, f: ScoreFn, x: Array) -> tuple[Array, Array]:
        psi, pull = self.vjp(f, x)
        d = x.shape[1]
        if torch.is_grad_enabled():
            return psi, torch.stack([pull(_unit(i, x))[:, i] for i in range(d)], dim=1)
        # columns kept as views would keep whole products alive, and kept as copies would leave holes in the heap
        diagonal = torch.empty_like(psi)
        for i in range(d):
            diagonal[:, i] = pull(_unit(i, x))[:, i]
        return psi, diagonal


def _unit(i: int, x: torch.Tensor) -> torch.Tensor:
    unit = torch.zeros(x.shape[1], dtype=x.dtype, device=x.device)
    unit[i] = 1.0
    return unit.expand(x.shape)


def calculus_at(
    x: Any, generator: torch.Generator | None = None, differentiable: bool = True, chunk_size: int | None = None
) -> ArrayCalculus:
    """The calculus of the losses and derivatives at a caller's samples, which are taken as they are.

    Raises:
        SamplesError: They are no floating-point tensor (n, d) of at least one row and column.
    """
    if not isinstance(x, torch.Tensor) or x.ndim != 2 or 0 in x.shape or not x.dtype.is_floating_point:
        came = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, torch.Tensor) else type(x).__name__
        raise SamplesError(f"x must be a floating-point torch.Tensor of shape (n, d), not {came}; one column is x[:, None]")
    return ArrayCalculus(x, generator, differentiable, chunk_size)
