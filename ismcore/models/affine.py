"""The affine score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ismcore.calculus import Calculus
from ismcore.coordinates import Coordinates
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

    def in_units(self, params: Params, coordinates: Coordinates) -> tuple[Model, Params]:
        """See `Model.in_units`; W / (scale scale^T) and b / scale - (W / (scale scale^T)) mean, in float64.

        A matrix A makes A^T W A of W, and A^T b of b. Behind a transform an affine score is none of x.
        """
        if coordinates.transform is not None:
            return super().in_units(params, coordinates)
        middle, scale, _ = coordinates.affine()
        weight, bias = np.asarray(params["weight"], dtype=np.float64), np.asarray(params["bias"], dtype=np.float64)
        if coordinates.matrix is not None:
            weight, bias = _between(coordinates.matrix, weight, bias)
        weight = weight / scale / scale[:, None]
        return self, {"weight": weight, "bias": bias / scale - weight @ middle}

    def from_units(self, params: Params, coordinates: Coordinates) -> tuple[Model, Params]:
        """See `Model.from_units`."""
        middle, scale, back = coordinates.affine()
        weight = np.asarray(params["weight"], dtype=np.float64) * scale * scale[:, None]
        bias = params["bias"] * scale + weight @ (middle / scale)
        if coordinates.matrix is not None:
            weight, bias = _between(back, weight, bias)
        return self, {"weight": weight, "bias": bias}


def _between(matrix: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """M^T W M and M^T b, of a matrix M, (d, d), or one that is diagonal, (d,)."""
    full = np.diag(matrix) if matrix.ndim == 1 else matrix
    return full.T @ weight @ full, full.T @ bias
