"""The affine score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ismcore.calculus import Calculus
from ismcore.models.base import Model, refuse_context
from ismcore.ops import Array, Params

__all__ = ["Affine"]


@dataclass(frozen=True)
class Affine(Model):
    """psi(x) = weight x + bias: the score of a normal law, whose weight is minus the inverse covariance.

    Parameters: `weight` (d, d) and `bias` (d,), both zero at the start. The minimiser of plain implicit score matching is
    known: weight = -K and bias = K m, with m the sample's mean and K the inverse of its covariance (divided by n).

    Example:
        >>> ismcore.Affine().shapes(d=2)
        {'weight': (2, 2), 'bias': (2,)}
    """

    def shapes(self, d: int) -> dict[str, tuple[int, ...]]:
        """See `Model.shapes`."""
        return {"weight": (d, d), "bias": (d,)}

    def initial_params(self, seed: int, d: int) -> Params:
        """See `Model.initial_params`; the objective is convex here, so there is nothing to draw."""
        return {name: np.zeros(shape) for name, shape in self.shapes(d).items()}

    def score(self, calculus: Calculus, params: Params, x: Array, context: Array | None = None) -> Array:
        """See `Model.score`."""
        refuse_context(self, context)
        return x @ calculus.ops.permute_dims(params["weight"], (1, 0)) + params["bias"]

    def in_units(self, params: Params, mean: np.ndarray, scale: np.ndarray) -> tuple[Model, Params]:
        """See `Model.in_units`; W / (scale scale^T) and b / scale - (W / (scale scale^T)) mean, in float64."""
        weight = np.asarray(params["weight"], dtype=np.float64) / scale / scale[:, None]
        return self, {"weight": weight, "bias": params["bias"] / scale - weight @ mean}

    def from_units(self, params: Params, mean: np.ndarray, scale: np.ndarray) -> tuple[Model, Params]:
        """See `Model.from_units`."""
        return self.in_units(params, -mean / scale, 1.0 / scale)
