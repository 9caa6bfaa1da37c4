"""Derivatives of a score function of one's own: the Jacobian's diagonal, the divergence, and its estimate from probes."""

from __future__ import annotations

from typing import Any

import torch

from ismcore import losses
from ismcore_torch.calculus import Score, calculus_at

__all__ = ["divergence", "hutchinson_divergence", "jacobian_diagonal"]


def jacobian_diagonal(
    score_fn: Score,
    x: torch.Tensor,
    *,
    chunk_size: int | None = None,
    differentiable: bool = True,
) -> torch.Tensor:
    """The diagonal of the score's Jacobian at each row, d psi_i / d x_i (x_n), (n, d), in 1/[x]^2. Exact.

    Args:
        score_fn: The score, (n, d) -> (n, d), rows independent: batch normalisation in training mode is not, and its
            diagonal found so is wrong. A function of one row goes through `torch.func.vmap`.
        x: Samples, (n, d), of any floating-point dtype and device, in units [x].
        chunk_size: Most pairs of a row and a direction that are differentiated at once, which bounds the memory: about
            `chunk_size` times what `score_fn` and its gradient in x take for one row. It holds where no graph is kept; a
            graph holds all blocks, so for training split the batch and add gradients up. None takes all rows at once.
        differentiable: Whether the result can be differentiated again, in parameters or x. If not, no graph is kept.

    Raises:
        SamplesError: x is no floating-point tensor (n, d).
        ModelError: `score_fn` returns another shape than x.
        OptionError: `chunk_size` is no whole number from 1.

    Cost: d products of the Jacobian with a direction, each about one more evaluation of the score.

    Example:
        >>> import torch, ismcore_torch
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> ismcore_torch.jacobian_diagonal(lambda x: -x * x.sum(dim=1, keepdim=True), x).detach()
        tensor([[ -4.,  -5.],
                [-10., -11.]])
    """
    return losses.jacobian_diagonal(calculus_at(x, None, differentiable, chunk_size), score_fn)


def divergence(
    score_fn: Score,
    x: torch.Tensor,
    *,
    chunk_size: int | None = None,
    differentiable: bool = True,
) -> torch.Tensor:
    """The divergence of the score at each row, the sum of `jacobian_diagonal`, (n,), in 1/[x]^2. Exact.

    Arguments, errors and cost are those of `jacobian_diagonal`.

    Example:
        >>> import torch, ismcore_torch
        >>> ismcore_torch.divergence(lambda x: -x, torch.zeros(2, 3))
        tensor([-3., -3.])
    """
    return losses.divergence(calculus_at(x, None, differentiable, chunk_size), score_fn)


def hutchinson_divergence(
    score_fn: Score,
    x: torch.Tensor,
    *,
    n_probes: int = 1,
    probes: Any = "rademacher",
    generator: torch.Generator | None = None,
    differentiable: bool = True,
) -> torch.Tensor:
    """An unbiased estimate of the divergence, mean_v v^T J v with E[v v^T] = 1, (n,), in 1/[x]^2 (Hutchinson 1989).

    Args:
        score_fn: The score, (n, d) -> (n, d), rows independent.
        x: Samples, (n, d), in units [x].
        n_probes: How many probes m to draw for each row.
        probes: Their law, "rademacher" (exact for d = 1), "gaussian" or "sphere" (radius sqrt(d)), or the probes, (m, n, d).
        generator: What to draw from; torch's own for the device if None, as in `torch.randn`.
        differentiable: Whether the result can be differentiated again. If not, no graph is kept.

    Raises:
        SamplesError: x is no floating-point tensor (n, d).
        ModelError: `score_fn` returns another shape than x.
        OptionError: An unknown law, or probes of another shape.

    Cost: m products v^T J, whatever d is.

    Example:
        >>> import torch, ismcore_torch
        >>> ismcore_torch.hutchinson_divergence(lambda x: -2.0 * x, torch.zeros(2, 3))
        tensor([-6., -6.])
    """
    return losses.hutchinson_divergence(calculus_at(x, generator, differentiable), score_fn, n_probes, probes)
