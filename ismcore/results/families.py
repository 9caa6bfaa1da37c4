"""Families that `solve` solves, linear in their parameters: in parameters of one size, and with those of each row its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ismcore.backend.contract import Backend
from ismcore.backend.programs import score_on
from ismcore.calculus import Calculus
from ismcore.coordinates import Coordinates
from ismcore.errors import ModelError
from ismcore.models import Affine, Model, Standardized
from ismcore.models.base import refuse_context
from ismcore.objectives import Objective
from ismcore.ops import Array, Params
from ismcore.plugins.adoption import sample_context
from ismcore.samples.checks import check_spread

__all__ = ["Family", "affine", "in_scaled_parameters", "named"]

LINEAR = 1e-9
"""psi(a) + psi(b) - psi(0) is psi(a + b) up to about this share, of a score that is linear in its parameters."""


@dataclass(frozen=True, eq=False)
class Family:
    """A family that is linear in p parameters u, in coordinates in which they are of one size.

    Attributes:
        model: Takes x in the user's units, and `step` times u as its parameters.
        step: Unit of each parameter, (p,).
        output: Where the objective is separable the output psi_i that a parameter enters, (p,); else all 0.
        column: Parameters of different outputs and of one column are differentiated together, (p,).
        to_units: The parameters in the user's units are to_units u, (p, p).
        by_row: From u the family with parameters for each row, and these, the same for each row, by name, rows first.
    """

    model: Model
    step: np.ndarray
    output: np.ndarray
    column: np.ndarray
    to_units: np.ndarray
    by_row: Callable[[np.ndarray], tuple[Model, Params]]


def affine(x: np.ndarray, weight: np.ndarray, separable: bool) -> Family:
    """`Affine` of z = (x - mean) / scale: u are the weight (d, d) and bias (d,) of the score of z."""
    check_spread(x[weight > 0.0])
    n, d = x.shape
    units = Coordinates.standardizing(x, weight)
    shapes = Affine().shapes(d)
    folded = [Affine().in_units(named(unit, shapes), units)[1] for unit in np.eye(d * d + d)]
    output, column = np.repeat(np.arange(d), d), np.tile(np.arange(d), d)
    output, column = np.concatenate([output, np.arange(d)]), np.concatenate([column, np.full(d, d)])

    def by_row(theta: np.ndarray) -> tuple[Model, Params]:
        params = {name: np.broadcast_to(value, (n, *value.shape)) for name, value in named(theta, shapes).items()}
        return Standardized(_AffineByRow(), units), params

    return Family(
        Standardized(Affine(), units),
        np.ones(len(output)),
        output if separable else np.zeros_like(output),
        column if separable else np.arange(len(output)),
        np.stack([_flat(each) for each in folded], axis=1),
        by_row,
    )


def in_scaled_parameters(
    engine: Backend, model: Model, x: np.ndarray, objective: Objective, shapes: dict[str, tuple[int, ...]]
) -> Family:
    """A family in the user's units: parameter k counts in units of 1 / rms(s_i phi_ki), phi_k = psi(e_k) - psi(0).

    Raises:
        ModelError: The score is not linear in the parameters.
    """
    n, p = len(x), sum(int(np.prod(shape)) for shape in shapes.values())
    context = sample_context(objective, *x.shape)

    def score(theta: np.ndarray) -> np.ndarray:
        return score_on(engine, model, named(theta, shapes), x, context)

    zero = score(np.zeros(p))
    one, other = np.random.default_rng(0).normal(size=(2, p))
    parts = score(one), score(other), zero
    gap = np.abs(parts[0] + parts[1] - zero - score(one + other)).max()
    if not gap <= LINEAR * max(np.abs(part).max() for part in parts):
        raise ModelError(
            f"the objective is not quadratic in the parameters of {model!r}, whose score is not linear in them: "
            f"psi(a) + psi(b) - psi(0) and psi(a + b) differ by {gap:.1e}; use ismcore.fit"
        )
    deviation = x.std(axis=0)
    deviation = np.where(deviation > 0.0, deviation, 1.0)
    step = np.empty(p)
    for k, unit in enumerate(np.eye(p)):
        size = np.sqrt(np.mean(np.sum(((score(unit) - zero) * deviation) ** 2, axis=1)))
        step[k] = 1.0 / size if 0.0 < size < np.inf else 1.0

    def by_row(theta: np.ndarray) -> tuple[Model, Params]:
        return _ByRow(model, step, shapes), {"theta": np.broadcast_to(theta, (n, p))}

    return Family(model, step, np.zeros(p, dtype=int), np.arange(p), np.diag(step), by_row)


class _AffineByRow(Affine):
    """`Affine` whose rows have parameters of their own: weight (n, d, d), bias (n, d)."""

    def score(self, calculus: Calculus, params: Params, x: Array, context: Array | None = None) -> Array:
        refuse_context(self, context)
        return calculus.ops.sum(params["weight"] * x[:, None, :], axis=2) + params["bias"]


@dataclass(frozen=True, eq=False)
class _ByRow(Model):
    """A linear family whose rows have parameters of their own: psi_n(0) + sum_k theta_nk (psi_n(step_k e_k) - psi_n(0))."""

    model: Model
    step: np.ndarray
    named_shapes: dict[str, tuple[int, ...]]

    def shapes(self, d: int) -> dict[str, tuple[int, ...]]:
        return {"theta": (len(self.step),)}

    def initial_params(self, seed: int, d: int) -> Params:
        return {"theta": np.zeros(len(self.step))}

    def score(self, calculus: Calculus, params: Params, x: Array, context: Array | None = None) -> Array:
        def at(theta: np.ndarray) -> Array:
            return self.model.score(calculus, calculus.asarrays(named(theta, self.named_shapes)), x, context)

        zero = at(np.zeros(len(self.step)))
        psi = zero
        for k, unit in enumerate(np.diag(self.step)):
            psi = psi + params["theta"][:, k : k + 1] * (at(unit) - zero)
        return psi


def named(theta: np.ndarray, shapes: dict[str, tuple[int, ...]]) -> Params:
    """Parameters of these shapes by name, from all of them in a row, (p,)."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
    parts = np.split(theta, ends[:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def _flat(tree: Params) -> np.ndarray:
    return np.concatenate([np.ravel(value) for value in tree.values()])
