"""`ismcore.calculus.Calculus` on a caller's own tensors: their dtype, their device, their tape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ismcore.calculus import Calculus, ScoreFn
from ismcore.errors import ModelError, OptionError, SamplesError
from ismcore.ops import Array, Ops
from ismcore_torch.ops import TorchOps

__all__ = ["ArrayCalculus", "checked_samples", "checked_score", "is_array"]


class ArrayCalculus(Calculus):
    """See `ismcore.calculus.Calculus`; nothing is compiled, moved or seeded, and no setting of the process changes.

    Args:
        like: Samples, (n, d), whose dtype and device all constants take.
        chunk_size: Most pairs of a row and a direction that the Jacobian's diagonal differentiates at once; all if None.

    Raises:
        OptionError: `chunk_size` is no whole number from 1.
    """

    ops: Ops = TorchOps()  # type: ignore[assignment]  # the framework's signatures are overloaded

    def __init__(self, like: torch.Tensor, chunk_size: int | None = None) -> None:
        if chunk_size is not None and (isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1):
            raise OptionError(f"chunk_size must be a whole number from 1, or None for all at once, not {chunk_size!r}")
        self.like = like
        self.dtype = str(like.dtype).removeprefix("torch.")
        self.chunk_size = chunk_size

    def asarray(self, array: np.ndarray, /) -> torch.Tensor:
        """See `Calculus.asarray`; a tensor is taken too, and keeps its place in the caller's graph."""
        if isinstance(array, torch.Tensor):
            return array.to(dtype=self.like.dtype, device=self.like.device)
        return torch.tensor(array, dtype=self.like.dtype, device=self.like.device)

    def vjp(self, f: ScoreFn, x: Array, /) -> tuple[Array, Callable[[Array], Array]]:
        """See `Calculus.vjp`. `torch.func.jvp` is not offered: it fails under inductor on a linear layer (torch 2.13)."""
        psi, pull, *_ = torch.func.vjp(f, x)
        return psi, lambda v: pull(v)[0]

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


def is_array(value: object) -> bool:
    """Whether it is an array of the framework or of NumPy."""
    return isinstance(value, torch.Tensor | np.ndarray)


def checked_samples(x: Any) -> torch.Tensor:
    """The samples, as they are.

    Raises:
        SamplesError: They are no floating-point tensor (n, d) of at least one row and column.
    """
    if not isinstance(x, torch.Tensor) or x.ndim != 2 or 0 in x.shape or not x.dtype.is_floating_point:
        came = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, torch.Tensor) else type(x).__name__
        raise SamplesError(f"x must be a floating-point torch.Tensor of shape (n, d), not {came}; one column is x[:, None]")
    return x


def checked_score(score_fn: Any) -> ScoreFn:
    """The score function, which refuses to return another shape than it was given.

    Raises:
        ModelError: It does, or is no function.
    """
    if not callable(score_fn):
        raise ModelError(f"score_fn must be a function (n, d) -> (n, d), not {score_fn!r}")

    def checked(points: Array) -> Array:
        psi = score_fn(points)
        if not isinstance(psi, torch.Tensor) or psi.shape != points.shape:
            came = f"shape {tuple(psi.shape)}" if isinstance(psi, torch.Tensor) else type(psi).__name__
            raise ModelError(
                f"score_fn must return the score of each row, of shape {tuple(points.shape)}, not {came}; "
                "wrap a function of one row by torch.func.vmap"
            )
        return psi

    return checked
