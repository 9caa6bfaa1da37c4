"""The table of operations: each with its value and its first two derivatives, known in closed form, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ismcore.ops import Array, Ops

__all__ = ["ELEMENTWISE", "LAYOUT", "Elementwise", "Layout"]

Curve = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Elementwise:
    """An element-wise function.

    Attributes:
        id: Its name in reports.
        apply: `apply(ops, z)`, as model code would write it.
        points: Where to look: numbers that float32 holds exactly.
        value: The function in NumPy.
        first: Its first derivative.
        second: Its second derivative.
    """

    id: str
    apply: Callable[[Ops, Array], Array]
    points: Sequence[float] | np.ndarray
    value: Curve
    first: Curve
    second: Curve


def _logistic(z: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))


def _bell(z: np.ndarray) -> np.ndarray:
    """First derivative of the logistic function."""
    return np.asarray(_logistic(z) * _logistic(-z))


def _softplus(z: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(z, 0.0) + np.log1p(np.exp(-abs(z))))


def _bump(z: np.ndarray) -> np.ndarray:
    return np.asarray(2.0 / math.sqrt(math.pi) * np.exp(-z * z))


def _sech2(z: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-2.0 * abs(z)) * (2.0 / (1.0 + np.exp(-2.0 * abs(z)))) ** 2)


NEAR = (-2.5, -1.0, -0.125, 0.25, 1.5, 3.0)
POSITIVE = (0.25, 0.5, 1.0, 2.5, 6.0, 20.0)
FAR = (-1000.0, -400.0, -30.0, 30.0, 400.0, 1000.0)
THRESHOLDS = (-39.0, -21.0, 16.0, 21.0, 31.0, 39.0)
"""Around the arguments where frameworks turn softplus into something simpler: 20 (torch) and beyond."""
MANY = np.arange(-(2**15), 2**15) / 1024.0
"""So many that a framework cuts them between threads, or takes another way."""

ELEMENTWISE = (
    Elementwise("exp", lambda ops, z: ops.exp(z), NEAR, np.exp, np.exp, np.exp),
    Elementwise("log", lambda ops, z: ops.log(z), POSITIVE, np.log, lambda z: 1.0 / z, lambda z: -1.0 / z**2),
    Elementwise("sqrt", lambda ops, z: ops.sqrt(z), POSITIVE, np.sqrt, lambda z: 0.5 * z**-0.5, lambda z: -0.25 * z**-1.5),
    Elementwise(
        "abs", lambda ops, z: ops.abs(z) * z, NEAR, lambda z: abs(z) * z, lambda z: 2.0 * abs(z), lambda z: 2.0 * np.sign(z)
    ),
    Elementwise("sin", lambda ops, z: ops.sin(z), NEAR, np.sin, np.cos, lambda z: -np.sin(z)),
    Elementwise("cos", lambda ops, z: ops.cos(z), NEAR, np.cos, lambda z: -np.sin(z), lambda z: -np.cos(z)),
    *(
        Elementwise(id, lambda ops, z: ops.tanh(z), points, np.tanh, _sech2, lambda z: -2.0 * np.tanh(z) * _sech2(z))
        for id, points in (("tanh", NEAR), ("tanh-far", FAR))
    ),
    *(
        Elementwise(id, lambda ops, z: ops.erf(z), points, np.vectorize(math.erf), _bump, lambda z: -2.0 * z * _bump(z))
        for id, points in (("erf", NEAR), ("erf-far", FAR))
    ),
    *(
        Elementwise(id, lambda ops, z: ops.sigmoid(z), points, _logistic, _bell, lambda z: -_bell(z) * np.tanh(0.5 * z))
        for id, points in (("sigmoid", NEAR), ("sigmoid-far", FAR), ("sigmoid-many", MANY))
    ),
    *(
        Elementwise(f"logaddexp{id}", lambda ops, z: ops.logaddexp(z, 0.0), points, _softplus, _logistic, _bell)
        for id, points in (("", NEAR), ("-thresholds", THRESHOLDS), ("-far", FAR), ("-many", MANY))
    ),
    Elementwise(
        "logaddexp-number-first",
        lambda ops, z: ops.logaddexp(0.5, z),
        NEAR,
        lambda z: 0.5 + _softplus(z - 0.5),
        lambda z: _logistic(z - 0.5),
        lambda z: _bell(z - 0.5),
    ),
    Elementwise(
        "where",
        lambda ops, z: ops.where(z > 0.5, ops.sin(z), z * z * z),
        NEAR,
        lambda z: np.where(z > 0.5, np.sin(z), z**3),
        lambda z: np.where(z > 0.5, np.cos(z), 3.0 * z**2),
        lambda z: np.where(z > 0.5, -np.sin(z), 6.0 * z),
    ),
    Elementwise(
        "where-number",
        lambda ops, z: ops.where(z > 0.5, z * z, 1.0),
        NEAR,
        lambda z: np.where(z > 0.5, z**2, 1.0),
        lambda z: np.where(z > 0.5, 2.0 * z, 0.0),
        lambda z: np.where(z > 0.5, 2.0, 0.0),
    ),
    Elementwise(
        "operators",
        lambda ops, z: -(2.0 - 1.0 / z) + (2 - z * z / 4.0),
        POSITIVE,
        lambda z: 1.0 / z - 0.25 * z**2,
        lambda z: -1.0 / z**2 - 0.5 * z,
        lambda z: 2.0 / z**3 - 0.5,
    ),
)


@dataclass(frozen=True, eq=False)
class Layout:
    """A linear function of a (2, 3) array that moves or adds entries: `apply(ops, a)`, the same in NumPy's own words."""

    id: str
    apply: Callable[[Ops, Array], Array]
    expected: Callable[[np.ndarray], np.ndarray]


LAYOUT = (
    Layout("sum", lambda ops, a: ops.sum(a), lambda a: a.sum()),
    Layout("sum-rows", lambda ops, a: ops.sum(a, axis=0), lambda a: a.sum(axis=0)),
    Layout("sum-columns", lambda ops, a: ops.sum(a, axis=1), lambda a: a.sum(axis=1)),
    Layout("stack", lambda ops, a: ops.stack([a[0], 2.0 * a[1]]), lambda a: np.array([a[0], 2.0 * a[1]])),
    Layout("stack-columns", lambda ops, a: ops.stack([a[:, 2], a[:, 0]], axis=1), lambda a: a[:, [2, 0]]),
    Layout("concat", lambda ops, a: ops.concat([a, 2.0 * a]), lambda a: np.vstack([a, 2.0 * a])),
    Layout("concat-columns", lambda ops, a: ops.concat([a, a[:, :1]], axis=1), lambda a: a[:, [0, 1, 2, 0]]),
    Layout("reshape", lambda ops, a: ops.reshape(a, (3, 2)), lambda a: a.ravel().reshape(3, 2)),
    Layout("broadcast_to", lambda ops, a: ops.broadcast_to(a[0], (4, 3)), lambda a: np.tile(a[0], (4, 1))),
    Layout("permute_dims", lambda ops, a: ops.permute_dims(a, (1, 0)), lambda a: a.T),
    Layout("index", lambda ops, a: a[1, 1:] - a[0, 0], lambda a: a[1, 1:] - a[0, 0]),
    Layout("new-axes", lambda ops, a: a[:, None, :] - a[1][None, :2, None], lambda a: a[:, None, :] - a[1, :2, None]),
    Layout("matmul", lambda ops, a: a @ ops.permute_dims(a[:1] * 0.0 + 1.0, (1, 0)), lambda a: a.sum(axis=1, keepdims=True)),
)
