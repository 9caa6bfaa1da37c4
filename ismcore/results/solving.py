"""Exact minimisers, where the objective is quadratic in the parameters, and their standard errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ismcore.errors import ModelError
from ismcore.models import Model
from ismcore.objectives import Objective
from ismcore.ops import Params
from ismcore.results.evaluate import Evaluation, evaluate
from ismcore.samples.checks import as_samples, as_weights

__all__ = ["Solution", "solve"]

QUADRATIC = 1e-7
"""A quadratic's gradient vanishes at the solution up to about this, relative to its size at zero."""


@dataclass(frozen=True, eq=False)
class Solution:
    """The exact minimiser of a quadratic objective, in the samples' units.

    Attributes:
        params: The minimiser, by name.
        loss: The minimum.
        standard_errors: Of each parameter, in its shape: square roots of the covariance's diagonal.
        covariance: Of all parameters, flattened and in the order of their names, (p, p).
        model: The model: `evaluate(solution.model, solution.params, x)` works.
    """

    params: Params
    loss: float
    standard_errors: Params
    covariance: np.ndarray
    model: Model


def solve(model: Model, x: Any, objective: Objective | None = None, *, sample_weight: Any = None, **options: Any) -> Solution:
    """Minimise an objective that is quadratic in the parameters, by one linear system.

    Score matching is quadratic wherever the score is linear in its parameters: `Affine`, and polynomial or other
    linear families written as `ScoreFunction`, with implicit (also penalised), sliced, denoising or explicit objectives.

        H theta = -g,   covariance = H^-1 (sum_n w_n^2 g_n g_n^T) H^-1   (sandwich, White 1982)

    with g and H gradient and Hessian at zero, found by p + 1 gradients, g_n the row gradients at the solution, w_n = 1/n or
    the row weights. Nothing is standardised.

    Args:
        model: The family.
        x: Samples, (n, d) or (n,).
        objective: What to minimise; plain implicit score matching if None.
        sample_weight: Weight of each row, (n,), from 0; divided by their sum.
        **options: `backend`, `device` and `seed` of `ismcore.evaluate`; the dtype is float64.

    Raises:
        ModelError: The objective is not quadratic in this model's parameters, or does not determine them.

    Cost: 3 p + 2 evaluations of the loss, p the number of parameters, and p^3.

    Example:
        >>> found = ismcore.solve(ismcore.Affine(), [-2.0, 0.0, 2.0], backend="autograd")
        >>> round(float(found.params["weight"][0, 0]), 12)     # minus one over the variance, 8/3
        -0.375
    """
    samples = as_samples(x)
    n, d = samples.shape
    shapes = model.shapes(d)
    split = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])

    def named(theta: np.ndarray) -> Params:
        parts = np.split(theta, split[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}

    def at(theta: np.ndarray) -> Evaluation:
        return evaluate(model, named(theta), samples, objective, sample_weight=sample_weight, **options)

    p = int(split[-1])
    zero = at(np.zeros(p))
    start = _flat(zero.gradient)
    hessian = np.stack([_flat(at(unit).gradient) - start for unit in np.eye(p)], axis=1)
    hessian = 0.5 * (hessian + hessian.T)
    theta, inverse = _solved(model, hessian, start)
    end = at(theta)
    residual = np.abs(_flat(end.gradient)).max() / max(1e-300, np.abs(start).max(), np.abs(hessian * theta).max())
    if residual > QUADRATIC:
        raise ModelError(
            f"the objective is not quadratic in the parameters of {model!r}: after the linear solve its gradient is still "
            f"{residual:.1e} of its size; use ismcore.fit"
        )
    rows = _row_gradients(at, theta)
    weight = np.full(n, 1.0 / n) if sample_weight is None else as_weights(sample_weight, n)
    weighted = rows * weight[:, None]
    covariance = inverse @ (weighted.T @ weighted) @ inverse
    return Solution(named(theta), end.loss, named(np.sqrt(covariance.diagonal())), covariance, model)


def _flat(tree: Params) -> np.ndarray:
    return np.concatenate([np.ravel(value) for value in tree.values()])


def _solved(model: Model, hessian: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = np.sqrt(np.abs(hessian.diagonal()))
    scale[scale == 0.0] = 1.0
    values, vectors = np.linalg.eigh(hessian / np.outer(scale, scale))
    if values.min() <= 1e-13 * max(1.0, values.max()):
        raise ModelError(
            f"the samples do not determine the parameters of {model!r}, or the objective is not quadratic in them: the "
            f"scaled Hessian has an eigenvalue of {values.min():.1e}; use fewer parameters or ismcore.fit"
        )
    inverse = (vectors / values) @ vectors.T / np.outer(scale, scale)
    return -inverse @ gradient, inverse


def _row_gradients(at: Callable[[np.ndarray], Evaluation], theta: np.ndarray) -> np.ndarray:
    """Gradient of every row's term, (n, p): a central difference, which is exact for a quadratic whatever its step."""
    columns = []
    for k, value in enumerate(theta):
        step = np.zeros_like(theta)
        step[k] = max(1e-3, abs(value))
        columns.append((at(theta + step).terms - at(theta - step).terms) / (2.0 * step[k]))
    return np.stack(columns, axis=1)
