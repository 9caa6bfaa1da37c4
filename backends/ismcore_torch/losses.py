"""Score matching losses for loops of one's own, in torch; `ismcore.losses` holds the mathematics and each argument."""

from numpy.typing import ArrayLike
from torch import Generator, Tensor

from ismcore import losses
from ismcore_torch.calculus import Divergence, Score, Weight, calculus_at

__all__ = ["denoising_score_matching", "explicit_score_matching", "implicit_score_matching", "sliced_score_matching"]


def implicit_score_matching(
    score_fn: Score,
    x: Tensor,
    curvature_weight: Weight = 0.0,
    divergence: Divergence = "nested",
    reduction: str = "mean",
    *,
    generator: Generator | None = None,
    chunk_size: int | None = None,
    differentiable: bool = True,
) -> Tensor:
    """Implicit score matching, plain or with the curvature penalty, in 1/[x]^2; lambda is `curvature_weight`, in [x]^2.

        J_lambda = mean_n [ 1/2 |psi(x_n)|^2 + div psi(x_n) + sum_i lambda_i (d psi_i / d x_i (x_n))^2 ]

    `score_fn` (n, d) -> (n, d), `x` (n, d), lambda () or (d,), `divergence` "nested", a `Hutchinson` drawn from `generator`,
    or probes (m, n, d); loss (), or (n,) by "none". Raises SamplesError, ModelError, OptionError; see `ismcore.losses`.
    """
    calculus = calculus_at(x, generator, differentiable, chunk_size)
    return losses.implicit_score_matching(calculus, score_fn, curvature_weight, divergence, reduction)


def sliced_score_matching(
    score_fn: Score,
    x: Tensor,
    *,
    n_probes: int = 1,
    probes: Tensor | ArrayLike = "rademacher",
    variance_reduced: bool = True,
    reduction: str = "mean",
    generator: Generator | None = None,
    differentiable: bool = True,
) -> Tensor:
    """Sliced score matching: mean_n mean_v [ v^T J(x_n) v + 1/2 |psi(x_n)|^2 ], in 1/[x]^2, of probes v with E[v v^T] = 1.

    Not `variance_reduced`: 1/2 (v . psi(x_n))^2. `score_fn` (n, d) -> (n, d), `x` (n, d), `probes` (m, n, d), or a law to draw
    from `generator`; loss (), or (n,) by "none". Raises SamplesError, ModelError, OptionError; see `ismcore.losses`.
    """
    calculus = calculus_at(x, generator, differentiable)
    return losses.sliced_score_matching(calculus, score_fn, n_probes, probes, variance_reduced, reduction)


def denoising_score_matching(
    score_fn: Score,
    x: Tensor,
    noise_scale: float | Tensor,
    *,
    noise: Tensor | ArrayLike | None = None,
    reduction: str = "mean",
    generator: Generator | None = None,
    differentiable: bool = True,
) -> Tensor:
    """Denoising score matching: mean_n 1/2 |psi(x_n + s e_n) + e_n / s|^2, e_n standard normal, in 1/[x]^2, s in [x].

    `score_fn` (n, d) -> (n, d), `x` (n, d), `noise_scale` s () or (n, 1), `noise` e (n, d), else drawn from `generator`;
    loss (), or (n,) by "none". Raises SamplesError, ModelError, OptionError; see `ismcore.losses`.
    """
    return losses.denoising_score_matching(calculus_at(x, generator, differentiable), score_fn, noise_scale, noise, reduction)


def explicit_score_matching(
    score_fn: Score, x: Tensor, target_score: Tensor | Score, *, reduction: str = "mean", differentiable: bool = True
) -> Tensor:
    """Half the Fisher divergence from a known score: mean_n 1/2 |psi(x_n) - target_score(x_n)|^2, in 1/[x]^2.

    `score_fn` (n, d) -> (n, d), `x` (n, d), `target_score` (n, d), or a function that gives it at x; loss (), or (n,) by
    "none". Raises SamplesError, ModelError, OptionError; see `ismcore.losses`.
    """
    return losses.explicit_score_matching(calculus_at(x, None, differentiable), score_fn, target_score, reduction)
