"""What a backend may leave to the core, its own or composed: the optional operations, and functions of single rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ismcore.backend.contract import Backend
from ismcore.ops import Array, Ops
from ismcore.testing.checks.derivatives import PRODUCTS
from ismcore.testing.kit import check
from ismcore.testing.subject import Subject

Curve = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Optional:
    """A function of the columns of x, (n, d), to (n, d) or (n,), that is built on an optional operation.

    Attributes:
        id: Its name in reports.
        apply: `apply(ops, x)`, as model code would write it.
        x: Where to look: numbers that float32 holds exactly.
        value: The function in NumPy.
        slope: 1^T J, the sum of the Jacobian's rows, row by row of x, (n, d).
        bend: The derivative in x of sum_n w_n . slope_n, w being `WEIGHT`; (n, d).
    """

    id: str
    apply: Callable[[Ops, Array], Array]
    x: np.ndarray
    value: Curve
    slope: Curve
    bend: Curve


def _weight(x: np.ndarray) -> np.ndarray:
    """Numbers of which no two are equal, in the shape of x."""
    return np.asarray(np.cos(1.0 + np.arange(x.size)).reshape(x.shape))


def _elementwise(id: str, apply: Callable[[Ops, Array], Array], points: Sequence[float], *curves: Curve) -> Optional:
    x = np.array(points).reshape(-1, 2)
    value, slope, second = curves
    return Optional(id, apply, x, value, slope, lambda z: _weight(z) * second(z))


def _softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def _logsumexp(z: np.ndarray) -> np.ndarray:
    largest = z.max(axis=1)
    return np.asarray(largest + np.log(np.exp(z - largest[:, None]).sum(axis=1)))


def _softmax_bend(z: np.ndarray) -> np.ndarray:
    """(diag p - p p^T) w, p the softmax."""
    p, w = _softmax(z), _weight(z)
    return np.asarray(p * w - p * (p * w).sum(axis=1, keepdims=True))


X = np.array([[0.5, -1.0, 0.25], [1.5, 0.125, -0.75], [-0.5, 2.0, 1.0], [0.0, 0.375, -1.25]])
WIDE = np.array([[400.0, -1000.0, 399.5], [-30.0, -29.0, -31.5], [1000.0, 998.0, -1000.0], [0.0, 0.0, 0.0]])
SMALL = (-0.75, -0.25, -0.125, -(2.0**-20), -(2.0**-40), 0.0, 2.0**-40, 2.0**-20, 0.125, 0.25, 3.0, 20.0)
PICKED = np.array([2, 0, 0, 1])


def _batched(ops: Ops, x: Array) -> Array:
    """X_n x_n of matrices X_n[i, j] = x_ni x_nj + x_nj^2: |x|^2 x_i + sum_j x_j^3."""
    rows, columns = x[:, :, None], x[:, None, :]
    return ops.matmul(rows * columns + columns * columns, rows)[:, :, 0]


def _batched_value(x: np.ndarray) -> np.ndarray:
    return np.asarray((x**2).sum(axis=1, keepdims=True) * x + (x**3).sum(axis=1, keepdims=True))


def _batched_slope(x: np.ndarray) -> np.ndarray:
    """The gradient of |x|^2 sum x + d sum x^3."""
    total, square = x.sum(axis=1, keepdims=True), (x**2).sum(axis=1, keepdims=True)
    return np.asarray(2.0 * x * total + square + 3.0 * x.shape[1] * x**2)


def _batched_bend(x: np.ndarray) -> np.ndarray:
    w = _weight(x)
    total, both = x.sum(axis=1, keepdims=True), (w * x).sum(axis=1, keepdims=True)
    return np.asarray(2.0 * w * total + 2.0 * both + 2.0 * x * w.sum(axis=1, keepdims=True) + 6.0 * x.shape[1] * w * x)


def _taken(x: np.ndarray) -> np.ndarray:
    return np.asarray(x[:, PICKED] ** 3)


_TIMES = np.bincount(PICKED).astype(float)

OPTIONAL = (
    _elementwise(
        "maximum",
        lambda ops, z: ops.maximum(ops.sin(z), z * z - 1.0),
        (-2.5, -1.0, -0.125, 0.25, 1.5, 3.0),
        lambda z: np.maximum(np.sin(z), z * z - 1.0),
        lambda z: np.where(np.sin(z) > z * z - 1.0, np.cos(z), 2.0 * z),
        lambda z: np.where(np.sin(z) > z * z - 1.0, -np.sin(z), 2.0),
    ),
    _elementwise(
        "maximum-number",
        lambda ops, z: ops.maximum(0.5, z * z) + ops.maximum(-z, -1.0),
        (-2.5, -0.5, -0.125, 0.25, 1.5, 3.0),
        lambda z: np.maximum(0.5, z * z) + np.maximum(-z, -1.0),
        lambda z: np.where(z * z > 0.5, 2.0 * z, 0.0) - (z < 1.0),
        lambda z: np.where(z * z > 0.5, 2.0, 0.0),
    ),
    _elementwise(
        "maximum-tie",
        lambda ops, z: ops.maximum(z, 3.0 * z) + z * z,
        (0.0, 0.0),
        np.zeros_like,
        lambda z: np.full_like(z, 2.0),
        lambda z: np.full_like(z, 2.0),
    ),
    Optional("logsumexp", lambda ops, x: ops.logsumexp(x, axis=1), X, _logsumexp, _softmax, _softmax_bend),
    Optional("logsumexp-far", lambda ops, x: ops.logsumexp(x, axis=1), WIDE, _logsumexp, _softmax, _softmax_bend),
    Optional(
        "logsumexp-first-axis",
        lambda ops, x: ops.logsumexp(ops.permute_dims(x, (1, 0)), axis=0),
        X,
        _logsumexp,
        _softmax,
        _softmax_bend,
    ),
    Optional(
        "take",
        lambda ops, x: ops.take(x * x * x, PICKED, axis=1),
        X,
        _taken,
        lambda x: 3.0 * _TIMES * x**2,
        lambda x: 6.0 * _TIMES * x * _weight(x),
    ),
    Optional(
        "take-first-axis",
        lambda ops, x: ops.permute_dims(ops.take(ops.permute_dims(x * x * x, (1, 0)), PICKED, axis=0), (1, 0)),
        X,
        _taken,
        lambda x: 3.0 * _TIMES * x**2,
        lambda x: 6.0 * _TIMES * x * _weight(x),
    ),
    Optional("matmul", _batched, X, _batched_value, _batched_slope, _batched_bend),
    _elementwise(
        "log1p",
        lambda ops, z: ops.log1p(z),
        SMALL,
        np.log1p,
        lambda z: 1.0 / (1.0 + z),
        lambda z: -1.0 / (1.0 + z) ** 2,
    ),
    _elementwise("expm1", lambda ops, z: ops.expm1(z), (-30.0, -6.0, *SMALL[:-1], 3.0), np.expm1, np.exp, np.exp),
    _elementwise(
        "stop_gradient",
        lambda ops, z: z * z * ops.stop_gradient(z),
        (-2.5, -1.0, -0.125, 0.25, 1.5, 3.0),
        lambda z: z**3,
        lambda z: 2.0 * z**2,
        lambda z: 2.0 * z,
    ),
)


def _slope(engine: Backend, op: Optional, x: Array, product: str) -> Array:
    """1^T J by a product: v^T J for v = 1, or by d products J e_j, whose sums over the outputs are its entries."""
    ops = engine.ops
    if product == "vjp":
        value, pull = engine.vjp(lambda z: op.apply(ops, z), x)
        return pull(engine.ones(value))
    columns = [PRODUCTS["jvp"](engine, lambda z: op.apply(ops, z), x, unit) for unit in engine.units(x)]
    return ops.stack([each if len(each.shape) == 1 else ops.sum(each, axis=1) for each in columns], axis=1)


@check(lambda: OPTIONAL)
def check_optional_op(subject: Subject, op: Optional) -> float:
    """An optional operation is right in value and two derivatives by each declared product, the backend's own or composed."""
    tolerance, worst = subject.tolerances, 0.0
    with subject.working() as engine:
        ops, x = engine.ops, engine.asarray(op.x)
        found = engine.to_numpy(engine.compiled(lambda z: op.apply(ops, z))(x))
        for product in subject.products:

            def weighted(params: Any, product: str = product) -> Array:
                return ops.sum(engine.asarray(_weight(op.x)) * _slope(engine, op, x + params["shift"], product))

            slope = engine.to_numpy(engine.compiled(partial(_slope, engine, op, product=product))(x))
            at = {"shift": engine.asarray(np.zeros_like(op.x))}
            _, gradient = engine.compiled(engine.value_and_grad(weighted))(at)
            bend = engine.to_numpy(gradient["shift"])
            worst = max(
                worst,
                subject.close(slope, op.slope(op.x), tolerance.gradient, f"derivative of {op.id} by {product}"),
                subject.close(bend, op.bend(op.x), tolerance.gradient, f"second derivative of {op.id} by {product}"),
            )
    return max(worst, subject.close(found, op.value(op.x), tolerance.value, op.id))


@check()
def check_small_arguments(subject: Subject) -> float:
    """`log1p` and `expm1` keep the digits of arguments near 0, as their names promise."""
    x = np.array([[2.0**-60, -(2.0**-40)], [2.0**-20, -(2.0**-10)]])
    with subject.working() as engine:
        at = engine.asarray(x)
        found = [engine.to_numpy(f(at)) for f in (engine.ops.log1p, engine.ops.expm1)]
    expected = [np.log1p(x), np.expm1(x)]
    return max(
        subject.close(one / x.astype(subject.dtype), right / x, subject.tolerances.value, f"{name}(x) / x near 0")
        for name, one, right in zip(("log1p", "expm1"), found, expected, strict=True)
    )


@check()
def check_map_rows(subject: Subject) -> float:
    """`map_rows` makes a function of batches of one of single rows, whose divergence and gradient are those of the batch.

    Of psi(x) = a x |x|^2 + b: the Jacobian's diagonal is a (|x|^2 + 2 x_i^2).
    """
    a, b, square = np.array(0.75), np.array([1.0, -2.0, 0.5]), (X**2).sum(axis=1, keepdims=True)
    with subject.working() as engine:
        ops = engine.ops

        def row(params: Any, x: Array, context: Array) -> Array:
            return params["a"] * x * ops.sum(x * x) + params["b"] * context[0]

        def total(params: Any, x: Array, context: Array) -> Array:
            psi, diagonal = engine.jacobian_diagonal(lambda z: engine.map_rows(row)(params, z, context), x)
            return ops.sum(psi) + ops.sum(diagonal)

        given = {"a": engine.asarray(a), "b": engine.asarray(b)}, engine.asarray(X), engine.asarray(X[:, :1])
        psi = engine.to_numpy(engine.compiled(engine.map_rows(row))(*given))
        value, gradient = engine.compiled(engine.value_and_grad(total))(*given)
        value, gradient = engine.to_numpy(value), {name: engine.to_numpy(slope) for name, slope in gradient.items()}
    parts = {"a": np.sum(X * square + square + 2.0 * X**2), "b": np.full(3, X[:, 0].sum())}
    expected = a * X * square + b * X[:, :1]
    return max(
        subject.close(psi, expected, subject.tolerances.value, "a function of rows"),
        subject.close(value, expected.sum() + a * np.sum(square + 2.0 * X**2), subject.tolerances.gradient, "its divergence"),
        subject.close(gradient, parts, subject.tolerances.gradient, "the gradient of a function of rows"),
    )
