"""The table of element-wise operations: each with its value and its first three derivatives, known in closed form, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ismcore.ops import Array, Ops

__all__ = ["BINARY", "ELEMENTWISE", "Binary", "Elementwise"]

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
        third: Its third derivative.
    """

    id: str
    apply: Callable[[Ops, Array], Array]
    points: Sequence[float] | np.ndarray
    value: Curve
    first: Curve
    second: Curve
    third: Curve


def _logistic(z: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))


def _bell(z: np.ndarray) -> np.ndarray:
    """First derivative of the logistic function."""
    return np.asarray(_logistic(z) * _logistic(-z))


def _bell_slope(z: np.ndarray) -> np.ndarray:
    return np.asarray(-_bell(z) * np.tanh(0.5 * z))


def _softplus(z: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(z, 0.0) + np.log1p(np.exp(-abs(z))))


def _bump(z: np.ndarray) -> np.ndarray:
    return np.asarray(2.0 / math.sqrt(math.pi) * np.exp(-z * z))


def _sech2(z: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-2.0 * abs(z)) * (2.0 / (1.0 + np.exp(-2.0 * abs(z)))) ** 2)


def _zero(z: np.ndarray) -> np.ndarray:
    return np.zeros_like(z)


# All grids are of one length: a framework that compiles each operation for each shape compiles it once.
_TAIL = np.arange(13.0, 40.0)
_TINY = np.array([2.0**-4, 2.0**-10, 2.0**-20])
GRID = np.sort(
    np.concatenate([np.arange(-97, 98) / 8.0, [2.0**-6], *(s * part for s in (-1.0, 1.0) for part in (_TAIL, _TINY))])
)
"""Every eighth up to 12, 0 among them, small numbers, and every whole number up to 39: beyond 20 and 32 some frameworks turn
softplus into something simpler."""
POSITIVE = (2.0 ** np.arange(-20.0, 12.0)[:, None] * (1.0 + np.arange(8.0) / 8.0)).ravel()
"""Eight numbers an octave, from 1e-6 to 4000."""
FAR_POSITIVE = tuple(2.0**k for k in (-30, -27, -24, 20, 26, 30))
"""From 1e-9 to 1e9, as far as third derivatives, and what leads to them, are numbers of float32."""
MILD = (0.25, 0.5, 1.0, 2.5, 6.0, 20.0)
FAR = (-1000.0, -400.0, -80.0, 60.0, 400.0, 1000.0)
FAR_BELOW = (-1000.0, -400.0, -80.0, 40.0, 50.0, 60.0)
MANY = np.arange(-(2**15), 2**15) / 1024.0
"""So many that a framework cuts them between threads, or takes another way."""


ELEMENTWISE = (
    *(
        Elementwise(id, lambda ops, z: ops.exp(z), points, np.exp, np.exp, np.exp, np.exp)
        for id, points in (("exp", GRID), ("exp-far", FAR_BELOW))
    ),
    *(
        Elementwise(
            id, lambda ops, z: ops.log(z), points, np.log, lambda z: 1.0 / z, lambda z: -1.0 / z**2, lambda z: 2.0 / z**3
        )
        for id, points in (("log", POSITIVE), ("log-far", FAR_POSITIVE))
    ),
    *(
        Elementwise(
            id,
            lambda ops, z: ops.sqrt(z),
            points,
            np.sqrt,
            lambda z: 0.5 * z**-0.5,
            lambda z: -0.25 * z**-1.5,
            lambda z: 0.375 * z**-2.5,
        )
        for id, points in (("sqrt", POSITIVE), ("sqrt-far", FAR_POSITIVE))
    ),
    Elementwise("abs", lambda ops, z: ops.abs(z), GRID, np.abs, np.sign, _zero, _zero),
    Elementwise(
        "abs-times",
        lambda ops, z: ops.abs(z) * z,
        GRID,
        lambda z: abs(z) * z,
        lambda z: 2.0 * abs(z),
        lambda z: 2.0 * np.sign(z),
        _zero,
    ),
    *(
        Elementwise(f"sin{id}", lambda ops, z: ops.sin(z), points, np.sin, np.cos, lambda z: -np.sin(z), lambda z: -np.cos(z))
        for id, points in (("", GRID), ("-far", FAR))
    ),
    *(
        Elementwise(f"cos{id}", lambda ops, z: ops.cos(z), points, np.cos, lambda z: -np.sin(z), lambda z: -np.cos(z), np.sin)
        for id, points in (("", GRID), ("-far", FAR))
    ),
    *(
        Elementwise(
            f"tanh{id}",
            lambda ops, z: ops.tanh(z),
            points,
            np.tanh,
            _sech2,
            lambda z: -2.0 * np.tanh(z) * _sech2(z),
            lambda z: _sech2(z) * (4.0 - 6.0 * _sech2(z)),
        )
        for id, points in (("", GRID), ("-far", FAR))
    ),
    *(
        Elementwise(
            f"erf{id}",
            lambda ops, z: ops.erf(z),
            points,
            np.vectorize(math.erf),
            _bump,
            lambda z: -2.0 * z * _bump(z),
            lambda z: (4.0 * z * z - 2.0) * _bump(z),
        )
        for id, points in (("", GRID), ("-far", FAR))
    ),
    *(
        Elementwise(
            f"sigmoid{id}",
            lambda ops, z: ops.sigmoid(z),
            points,
            _logistic,
            _bell,
            _bell_slope,
            lambda z: _bell(z) * (1.0 - 6.0 * _bell(z)),
        )
        for id, points in (("", GRID), ("-far", FAR), ("-many", MANY))
    ),
    *(
        Elementwise(f"logaddexp{id}", lambda ops, z: ops.logaddexp(z, 0.0), points, _softplus, _logistic, _bell, _bell_slope)
        for id, points in (("", GRID), ("-far", FAR), ("-many", MANY))
    ),
    Elementwise(
        "logaddexp-number-first",
        lambda ops, z: ops.logaddexp(0.5, z),
        GRID,
        lambda z: 0.5 + _softplus(z - 0.5),
        lambda z: _logistic(z - 0.5),
        lambda z: _bell(z - 0.5),
        lambda z: _bell_slope(z - 0.5),
    ),
    Elementwise(
        "logaddexp-twice",
        lambda ops, z: ops.logaddexp(z, z),
        GRID,
        lambda z: z + math.log(2.0),
        np.ones_like,
        _zero,
        _zero,
    ),
    Elementwise(
        "where",
        lambda ops, z: ops.where(z > 0.5, ops.sin(z), z * z * z),
        GRID,
        lambda z: np.where(z > 0.5, np.sin(z), z**3),
        lambda z: np.where(z > 0.5, np.cos(z), 3.0 * z**2),
        lambda z: np.where(z > 0.5, -np.sin(z), 6.0 * z),
        lambda z: np.where(z > 0.5, -np.cos(z), 6.0),
    ),
    Elementwise(
        "where-number",
        lambda ops, z: ops.where(z > 0.5, z * z, 1.0),
        GRID,
        lambda z: np.where(z > 0.5, z**2, 1.0),
        lambda z: np.where(z > 0.5, 2.0 * z, 0.0),
        lambda z: np.where(z > 0.5, 2.0, 0.0),
        _zero,
    ),
    Elementwise(
        "where-less",
        lambda ops, z: ops.where(z < -0.25, 1.0, z * z),
        GRID,
        lambda z: np.where(z < -0.25, 1.0, z**2),
        lambda z: np.where(z < -0.25, 0.0, 2.0 * z),
        lambda z: np.where(z < -0.25, 0.0, 2.0),
        _zero,
    ),
    Elementwise(
        "operators",
        lambda ops, z: (2.0 - 1.0 / z) * (2 - z * z / 4.0) - (-z),
        MILD,
        lambda z: 4.0 - 0.5 * z**2 - 2.0 / z + 1.25 * z,
        lambda z: 1.25 - z + 2.0 / z**2,
        lambda z: -1.0 - 4.0 / z**3,
        lambda z: 12.0 / z**4,
    ),
)


@dataclass(frozen=True, eq=False)
class Binary:
    """A function of two arrays that are broadcast to one shape, and its partial derivatives.

    Attributes:
        id: Its name in reports.
        apply: `apply(ops, a, b)`, as model code would write it.
        value: The function in NumPy, f(a, b).
        first: (df/da, df/db).
        second: (d2f/da2, d2f/dadb, d2f/db2).
    """

    id: str
    apply: Callable[[Ops, Array, Array], Array]
    value: Callable[[np.ndarray, np.ndarray], np.ndarray]
    first: Callable[[np.ndarray, np.ndarray], tuple[Any, Any]]
    second: Callable[[np.ndarray, np.ndarray], tuple[Any, Any, Any]]


def _softmax_bell(a: np.ndarray, b: np.ndarray) -> tuple[Any, Any, Any]:
    bell = _bell(a - b)
    return bell, -bell, bell


BINARY = (
    Binary("add", lambda ops, a, b: a + b, lambda a, b: a + b, lambda a, b: (1.0, 1.0), lambda a, b: (0.0, 0.0, 0.0)),
    Binary("subtract", lambda ops, a, b: a - b, lambda a, b: a - b, lambda a, b: (1.0, -1.0), lambda a, b: (0.0, 0.0, 0.0)),
    Binary("multiply", lambda ops, a, b: a * b, lambda a, b: a * b, lambda a, b: (b, a), lambda a, b: (0.0, 1.0, 0.0)),
    Binary(
        "divide",
        lambda ops, a, b: a / b,
        lambda a, b: a / b,
        lambda a, b: (1.0 / b, -a / b**2),
        lambda a, b: (0.0, -1.0 / b**2, 2.0 * a / b**3),
    ),
    Binary(
        "logaddexp",
        lambda ops, a, b: ops.logaddexp(a, b),
        lambda a, b: b + _softplus(a - b),
        lambda a, b: (_logistic(a - b), _logistic(b - a)),
        _softmax_bell,
    ),
    Binary(
        "where-greater",
        lambda ops, a, b: ops.where(a > b, a * a, b * b * b),
        lambda a, b: np.where(a > b, a * a, b**3),
        lambda a, b: (np.where(a > b, 2.0 * a, 0.0), np.where(a > b, 0.0, 3.0 * b**2)),
        lambda a, b: (np.where(a > b, 2.0, 0.0), 0.0, np.where(a > b, 0.0, 6.0 * b)),
    ),
    Binary(
        "where-condition",
        lambda ops, a, b: ops.where(b > 0.75, a * a, b * b * b),
        lambda a, b: np.where(b > 0.75, a * a, b**3),
        lambda a, b: (np.where(b > 0.75, 2.0 * a, 0.0), np.where(b > 0.75, 0.0, 3.0 * b**2)),
        lambda a, b: (np.where(b > 0.75, 2.0, 0.0), 0.0, np.where(b > 0.75, 0.0, 6.0 * b)),
    ),
)
"""Functions of two arrays, over their broadcasting."""
