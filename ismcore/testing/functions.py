"""Score functions as a user would write them, over `Ops`, and their scores and Jacobians by hand, in NumPy."""

import numpy as np

from ismcore.models import ScoreFunction
from ismcore.ops import Array, Ops, Params

__all__ = ["COLUMNS", "CUBIC", "WAVES", "columns_formula", "cubic_formula", "waves_formula"]

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


CUBIC = ScoreFunction(_cubic, {"theta": np.zeros(4)})
WAVES = ScoreFunction(_waves, {"height": 0.0, "wave": np.zeros((3, 3))})
COLUMNS = ScoreFunction(_columns, {"a": 0.0, "b": 0.0})
