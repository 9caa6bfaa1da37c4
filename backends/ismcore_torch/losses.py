"""Score matching losses for training loops of one's own, in torch.

Each is the core's objective over the caller's own function and tensors: see `ismcore.objectives` for the mathematics. They
can be differentiated again, in reverse and forward mode, mapped by `torch.func.vmap`, and compiled: for training, compile the
whole of `torch.func.grad_and_value(loss)`, since torch refuses double backward through a module compiled by itself.
Parameters, buffers, `.grad` and random state stay as they are; what is drawn comes from `generator`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ismcore import Hutchinson
from ismcore.errors import OptionError
from ismcore.objectives import (
    DenoisingScoreMatching,
    ExplicitScoreMatching,
    ImplicitScoreMatching,
    Objective,
    SlicedScoreMatching,
)
from ismcore.problem import Params
from ismcore_torch.calculus import ArrayCalculus, checked_samples
from ismcore_torch.derivatives import graph
from ismcore_torch.draws import draws

__all__ = [
    "denoising_score_matching",
    "explicit_score_matching",
    "implicit_score_matching",
    "sliced_score_matching",
]

ScoreFunction = Callable[[torch.Tensor], torch.Tensor]

_EXACT = ImplicitScoreMatching(divergence="nested")
_ESTIMATED = ImplicitScoreMatching(divergence=Hutchinson())
_DENOISING = DenoisingScoreMatching(1.0)
_EXPLICIT = ExplicitScoreMatching(lambda x: x)


def implicit_score_matching(
    score_fn: ScoreFunction,
    x: torch.Tensor,
    curvature_weight: float | Sequence[float] | torch.Tensor = 0.0,
    divergence: str | Hutchinson | torch.Tensor = "nested",
    reduction: str = "mean",
    *,
    generator: torch.Generator | None = None,
    chunk_size: int | None = None,
    differentiable: bool = True,
) -> torch.Tensor:
    """Implicit score matching of a function of one's own, plain or with the curvature penalty.

        J_lambda = mean_n [ 1/2 |psi(x_n)|^2 + div psi(x_n) + sum_i lambda_i (d psi_i / d x_i (x_n))^2 ]

    No factor 1/2 on the penalty; in 1/[x]^2, lambda in [x]^2. Plain J has no lower bound on a finite sample.

    Args:
        score_fn: The score psi, (n, d) -> (n, d), rows independent; for an energy U it is -grad U. A piecewise-linear
            network (relu) has nothing to train here: its second derivative is zero.
        x: Samples, (n, d), in units [x].
        curvature_weight: lambda, from 0: one number, or one for each dimension. The values of a tensor are not checked.
        divergence: "nested", exact, by d products of the Jacobian; or an estimate from probes, by `ismcore.Hutchinson(...)` or
            from the probes themselves, (m, n, d).
            With lambda > 0 it needs two probes or more, and J_ii^2 is estimated by products of different ones. The estimate
            is made from v^T J; one from J v would differ in value, unless J is symmetric, not in expectation.
        reduction: "mean", "sum", or "none" for the term of each row, (n,).
        generator: What a `Hutchinson` draws from; torch's own if None.
        chunk_size: Bound on memory for the exact divergence; see `ismcore_torch.jacobian_diagonal`.
        differentiable: Whether the loss can be differentiated. If not, no graph is kept: for validation.

    Raises:
        SamplesError: x is no floating-point tensor (n, d).
        ModelError: `score_fn` returns another shape than x.
        OptionError: An option has a value that it cannot have.

    Source: Hyvarinen (2005); the penalty: Kingma & LeCun (2010).

    Example:
        >>> import torch, ismcore_torch
        >>> x = torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
        >>> ismcore_torch.implicit_score_matching(lambda x: -x, x, curvature_weight=0.25)
        tensor(-0.5000)
    """
    calculus = ArrayCalculus(checked_samples(x), chunk_size)
    given = calculus.curvature(curvature_weight)
    if isinstance(divergence, str) and divergence == "nested":
        return _loss(calculus, _EXACT, score_fn, given, reduction, differentiable)
    if not calculus.is_array(divergence) and not isinstance(divergence, Hutchinson):
        raise OptionError(f"divergence must be 'nested', ismcore.Hutchinson(...) or probes (m, n, d), not {divergence!r}")
    if chunk_size is not None:
        raise OptionError("chunk_size bounds the memory of the exact divergence; leave it out with an estimate")
    n_probes, probes = (divergence.n_probes, divergence.probes) if isinstance(divergence, Hutchinson) else (1, divergence)
    given["probes"] = calculus.probes(n_probes, probes, draws(generator, calculus.like))
    if "curvature_weight" in given and len(given["probes"]) < 2:
        raise OptionError("a curvature_weight with estimated divergence needs two probes or more: Hutchinson(n_probes=2)")
    return _loss(calculus, _ESTIMATED, score_fn, given, reduction, differentiable)


def sliced_score_matching(
    score_fn: ScoreFunction,
    x: torch.Tensor,
    *,
    n_probes: int = 1,
    probes: Any = "rademacher",
    variance_reduced: bool = True,
    reduction: str = "mean",
    generator: torch.Generator | None = None,
    differentiable: bool = True,
) -> torch.Tensor:
    """Sliced score matching of a function of one's own, with or without variance reduction.

        variance_reduced:  mean_n mean_v [ v^T J(x_n) v + 1/2 |psi(x_n)|^2 ]
        otherwise:         mean_n mean_v [ v^T J(x_n) v + 1/2 (v . psi(x_n))^2 ]

    E[v v^T] = 1, so both have the expectation of plain implicit score matching, in 1/[x]^2.

    Args:
        score_fn: The score psi, (n, d) -> (n, d), rows independent.
        x: Samples, (n, d), in units [x].
        n_probes: How many probes m to draw for each row.
        probes: Their law, "rademacher", "gaussian" or "sphere" (radius sqrt(d)), or the probes, (m, n, d).
        variance_reduced: Take the squared norm exactly.
        reduction: "mean", "sum", or "none" for the term of each row, (n,).
        generator: What to draw from; torch's own for the device if None, as in `torch.randn`.
        differentiable: Whether the loss can be differentiated. If not, no graph is kept: for validation.

    Raises:
        SamplesError: x is no floating-point tensor (n, d).
        ModelError: `score_fn` returns another shape than x.
        OptionError: An option has a value that it cannot have.

    Cost: m products v^T J, whatever d is.

    Source: Song, Garg, Shi & Ermon (2019).

    Example:
        >>> import torch, ismcore_torch
        >>> x = torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
        >>> ismcore_torch.sliced_score_matching(lambda x: -x, x, n_probes=2)
        tensor(-1.)
    """
    calculus = ArrayCalculus(checked_samples(x))
    given = {"probes": calculus.probes(n_probes, probes, draws(generator, calculus.like))}
    objective = SlicedScoreMatching(variance_reduced=variance_reduced)
    return _loss(calculus, objective, score_fn, given, reduction, differentiable)


def denoising_score_matching(
    score_fn: ScoreFunction,
    x: torch.Tensor,
    noise_scale: float | torch.Tensor,
    *,
    noise: Any = None,
    reduction: str = "mean",
    generator: torch.Generator | None = None,
    differentiable: bool = True,
) -> torch.Tensor:
    """Denoising score matching of a function of one's own, at noise scale s.

        mean_n 1/2 |psi(x_n + s e_n) + e_n / s|^2,   e_n standard normal

    Its minimiser is the score of the samples blurred by normal noise of standard deviation s. In 1/[x]^2, s in [x].

    Args:
        score_fn: The score psi, (n, d) -> (n, d). Any activation will do.
        x: Samples, (n, d), in units [x].
        noise_scale: s, positive: one number, or one for each row, (n, 1). The values of a tensor are not checked.
        noise: The e_n, (n, d), unscaled; drawn if None.
        reduction: "mean", "sum", or "none" for the term of each row, (n,).
        generator: What to draw from; torch's own for the device if None, as in `torch.randn`.
        differentiable: Whether the loss can be differentiated. If not, no graph is kept: for validation.

    Raises:
        SamplesError: x is no floating-point tensor (n, d).
        ModelError: `score_fn` returns another shape than x.
        OptionError: An option has a value that it cannot have.

    Source: Vincent (2011).

    Example:
        >>> import torch, ismcore_torch
        >>> x = torch.zeros(2, 3)
        >>> ismcore_torch.denoising_score_matching(lambda x: -x, x, noise_scale=0.5, noise=torch.ones(2, 3))
        tensor(3.3750)
    """
    calculus = ArrayCalculus(checked_samples(x))
    given = {"noise_scale": calculus.noise_scale(noise_scale), "noise": calculus.noise(noise, draws(generator, calculus.like))}
    return _loss(calculus, _DENOISING, score_fn, given, reduction, differentiable)


def explicit_score_matching(
    score_fn: ScoreFunction,
    x: torch.Tensor,
    target_score: torch.Tensor | ScoreFunction,
    *,
    reduction: str = "mean",
    differentiable: bool = True,
) -> torch.Tensor:
    """Half the Fisher divergence from a known score: mean_n 1/2 |psi(x_n) - target_score(x_n)|^2, in 1/[x]^2.

    Args:
        score_fn: The score psi, (n, d) -> (n, d).
        x: Samples, (n, d), in units [x].
        target_score: The score to match at x, (n, d), or a function in torch that gives it.
        reduction: "mean", "sum", or "none" for the term of each row, (n,).
        differentiable: Whether the loss can be differentiated. If not, no graph is kept: for validation.

    Raises:
        SamplesError: x is no floating-point tensor (n, d).
        ModelError: `score_fn` returns another shape than x.
        OptionError: The target has another shape than x, or the reduction is unknown.

    Source: Hyvarinen (2005), where it is the starting point.

    Example:
        >>> import torch, ismcore_torch
        >>> ismcore_torch.explicit_score_matching(lambda x: -x, torch.ones(2, 3), lambda x: -2.0 * x)
        tensor(1.5000)
    """
    calculus = ArrayCalculus(checked_samples(x))
    target = target_score(x) if callable(target_score) else target_score
    given = {"target_score": calculus.given("target_score", target, tuple(x.shape))}
    return _loss(calculus, _EXPLICIT, score_fn, given, reduction, differentiable)


def _loss(
    calculus: ArrayCalculus, objective: Objective, score_fn: ScoreFunction, given: Params, reduction: str, differentiable: bool
) -> torch.Tensor:
    with graph(differentiable):
        loss: torch.Tensor = calculus.loss(objective, score_fn, given, reduction)
    return loss
