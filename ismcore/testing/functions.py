"""Score functions as a user would write them, over `Ops`, and their scores and Jacobians by hand, in NumPy."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ismcore.calculus import Calculus, ScoreFn
from ismcore.coordinates import Coordinates
from ismcore.models import ScoreFunction
from ismcore.objectives import LossInputs, Objective
from ismcore.ops import Array, Ops, Params

__all__ = [
    "COLUMNS",
    "CUBIC",
    "PAIRS",
    "STEERED",
    "WAVES",
    "Conditional",
    "columns_formula",
    "cubic_formula",
    "pairs_formula",
    "steered_formula",
    "waves_formula",
]

TIE = 1.0 / 16.0
"""Samples are whole eighths, so that none lies where the branches of `COLUMNS` meet."""


def _cubic(ops: Ops, params: Params, x: Array) -> Array:
    theta = params["theta"]
    return theta[0] + x * (theta[1] + x * (theta[2] + x * theta[3]))


def cubic_formula(params: Params, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score and Jacobian of `CUBIC`: psi(x) = a + b x + c x^2 + d x^3."""
    a, b, c, d = params["theta"]
    return a + b * x + c * x**2 + d * x**3, (b + 2.0 * c * x + 3.0 * d * x**2)[:, :, None]


def _waves(ops: Ops, params: Params, x: Array) -> Array:
    envelope = ops.exp(-0.5 * ops.sum(x * x, axis=1))
    return params["height"] * ops.reshape(envelope, (x.shape[0], 1)) * ops.sin(x @ ops.permute_dims(params["wave"], (1, 0)))


def waves_formula(params: Params, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score and Jacobian of `WAVES`: psi(x) = height exp(-|x|^2 / 2) sin(wave x)."""
    phase = x @ params["wave"].T
    envelope = params["height"] * np.exp(-0.5 * (x * x).sum(axis=1))
    inner = np.cos(phase)[:, :, None] * params["wave"] - np.sin(phase)[:, :, None] * x[:, None, :]
    return envelope[:, None] * np.sin(phase), envelope[:, None, None] * inner


def _columns(ops: Ops, params: Params, x: Array) -> Array:
    u, v = x[:, 0], x[:, 1]
    first = ops.where(u > v + TIE, ops.sqrt(1.0 + u * u * params["a"]), ops.log(2.0 + v * v) * params["b"])
    return ops.stack([first, ops.logaddexp(u, params["b"] * v)], axis=1)


def columns_formula(params: Params, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score and Jacobian of `COLUMNS`: two outputs made one by one."""
    (u, v), a, b = x.T, params["a"], params["b"]
    root, upper = np.sqrt(1.0 + a * u * u), u > v + TIE
    share = 1.0 / (1.0 + np.exp(b * v - u))
    first = np.where(upper, root, b * np.log(2.0 + v * v))
    psi = np.stack([first, np.log(np.exp(u) + np.exp(b * v))], axis=1)
    rows = [
        [np.where(upper, a * u / root, 0.0), np.where(upper, 0.0, 2.0 * b * v / (2.0 + v * v))],
        [share, (1.0 - share) * b],
    ]
    return psi, np.stack([np.stack(row, axis=1) for row in rows], axis=1)


def _pairs(ops: Ops, params: Params, x: Array) -> Array:
    n = x.shape[0]
    products = ops.reshape(x[:, :, None] * x[:, None, :], (n, 9))
    weights = ops.reshape(ops.permute_dims(params["tensor"], (1, 2, 0)), (9, 3))  # a cycle of three axes
    return products @ weights + params["z"] + params["m"] * x - params["a"] * x * x * x


def pairs_formula(params: Params, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score and Jacobian of `PAIRS`: psi_i(x) = sum_jk T_ijk x_j x_k + z_i + m_i x_i - a_i x_i^3."""
    tensor, m, a = params["tensor"], params["m"], params["a"]
    psi = np.einsum("ijk,nj,nk->ni", tensor, x, x) + params["z"] + m * x - a * x**3
    jacobian = np.einsum("ijk,nk->nij", tensor + tensor.transpose(0, 2, 1), x)
    return psi, jacobian + np.eye(3) * (m - 3.0 * a * x * x)[:, :, None]


def _steered(ops: Ops, params: Params, x: Array, context: Array) -> Array:
    return ops.tanh(x * params["slope"]) + context * params["pull"]


def steered_formula(params: Params, x: np.ndarray, context: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score and Jacobian of `STEERED`: psi(x; c) = tanh(slope x) + c pull, with one number c a row."""
    t = np.tanh(x * params["slope"])
    return t + context * params["pull"], np.eye(x.shape[1]) * ((1.0 - t * t) * params["slope"])[:, :, None]


@dataclass(frozen=True)
class Conditional(Objective):
    """An objective of a user's own that gives each row a context: mean_n 1/2 |psi(x_n; c_n)|^2 + div psi(x_n; c_n).

    Args:
        context: c, (n, 1).
    """

    context: np.ndarray = field(compare=False)
    differentiates_in_x = True
    row_axes: ClassVar[dict[str, int]] = {"context": 0}

    def inputs(self, x: np.ndarray, coordinates: Coordinates) -> LossInputs:
        """See `Objective.inputs`."""
        return {"context": self.context}

    def terms(self, calculus: Calculus, score_fn: ScoreFn, x: Array, inputs: LossInputs) -> Array:
        """See `Objective.terms`."""
        psi, diagonal = calculus.jacobian_diagonal(score_fn, x)
        return calculus.ops.sum(0.5 * psi * psi + diagonal, axis=1)


CUBIC = ScoreFunction(_cubic, {"theta": np.zeros(4)})
WAVES = ScoreFunction(_waves, {"height": 0.0, "wave": np.zeros((3, 3))})
COLUMNS = ScoreFunction(_columns, {"a": 0.0, "b": 0.0})
PAIRS = ScoreFunction(_pairs, {"z": np.zeros(3), "tensor": np.zeros((3, 3, 3)), "m": np.zeros(3), "a": np.zeros(3)})
"""Names in no order, three of one shape, and one with three axes of equal length."""
STEERED = ScoreFunction(_steered, {"slope": np.zeros(3), "pull": np.zeros(3)})
