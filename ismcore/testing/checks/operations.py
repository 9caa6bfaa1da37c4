"""Operations: values and three derivatives of the element-wise ones, transposes of those that move entries, broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ismcore.backend.contract import Backend
from ismcore.ops import Array
from ismcore.testing.checks.derivatives import PRODUCTS
from ismcore.testing.kit import check
from ismcore.testing.layouts import LAYOUT, SQUARE, Layout
from ismcore.testing.operations import BINARY, ELEMENTWISE, Binary, Elementwise
from ismcore.testing.subject import Subject


@check(lambda: ELEMENTWISE)
def check_op_value(subject: Subject, op: Elementwise) -> float:
    """An operation gives what NumPy gives, at 0, near it, in the middle and far out."""
    points = np.array(op.points)[:, None]
    with subject.working() as engine:
        found = engine.to_numpy(op.apply(engine.ops, engine.asarray(points)))
    return subject.close(found, op.value(points), subject.tolerances.value, op.id, at=points)


@check(lambda: ELEMENTWISE)
def check_op_derivative(subject: Subject, op: Elementwise) -> float:
    """Each declared product gives an operation's first derivative."""
    points = np.array(op.points)[:, None]
    with subject.working() as engine:
        x, one = engine.asarray(points), engine.asarray(np.ones_like(points))
        found = {
            product: engine.to_numpy(PRODUCTS[product](engine, lambda z: op.apply(engine.ops, z), x, one))
            for product in subject.products
        }
    tolerance, right = subject.tolerances.gradient, op.first(points)
    return max(subject.close(v, right, tolerance, f"derivative of {op.id}, by {k},", at=points) for k, v in found.items())


def _by_value_and_grad(
    subject: Subject, op: Elementwise, right: np.ndarray, order: str, nest: Callable[[Backend, str, Any, Any, Any], Array]
) -> float:
    """Error of the gradient in a shift of the points of a derivative that `nest` takes by each declared product."""
    points = np.array(op.points)[:, None]
    worst = 0.0
    with subject.working() as engine:
        x, one = engine.asarray(points), engine.asarray(np.ones_like(points))
        for product in subject.products:

            def slope(params: Any, product: str = product) -> Array:
                return engine.ops.sum(nest(engine, product, lambda z: op.apply(engine.ops, z + params["shift"]), x, one))

            _, gradient = engine.value_and_grad(slope)({"shift": engine.asarray(np.zeros_like(points))})
            what = f"{order} derivative of {op.id}, by {product},"
            found = engine.to_numpy(gradient["shift"])
            worst = max(worst, subject.close(found, right, subject.tolerances.gradient, what, at=points))
    return worst


def _once(engine: Backend, product: str, f: Any, x: Array, one: Array) -> Array:
    return PRODUCTS[product](engine, f, x, one)


def _twice(engine: Backend, product: str, f: Any, x: Array, one: Array) -> Array:
    return _once(engine, product, lambda z: _once(engine, product, f, z, one), x, one)


@check(lambda: ELEMENTWISE)
def check_op_second_derivative(subject: Subject, op: Elementwise) -> float:
    """An operation's second derivative: `value_and_grad` of each declared product."""
    return _by_value_and_grad(subject, op, op.second(np.array(op.points)[:, None]), "second", _once)


@check(lambda: ELEMENTWISE)
def check_op_third_derivative(subject: Subject, op: Elementwise) -> float:
    """An operation's third derivative: `value_and_grad` of each declared product of itself, as energies need it."""
    return _by_value_and_grad(subject, op, op.third(np.array(op.points)[:, None]), "third", _twice)


@check(lambda: LAYOUT)
def check_layout(subject: Subject, op: Layout) -> float:
    """An operation that moves, adds or pairs entries gives what NumPy gives, and a gradient that is its transpose."""
    size = int(np.prod(op.shape))
    array = ((np.arange(size) * 5 % 7 - 2.5) / 2.0).reshape(op.shape)
    right = op.expected(array)
    weight = np.cos(np.arange(right.size)).reshape(right.shape)
    with subject.working() as engine:
        m, w = engine.asarray(SQUARE), engine.asarray(weight)

        def f(params: Any) -> Array:
            y = op.apply(engine.ops, params["a"], m)
            return engine.ops.sum(w * y * (1.0 + 0.5 * y))

        found = engine.to_numpy(op.apply(engine.ops, engine.asarray(array), m))
        _, gradient = engine.value_and_grad(f)({"a": engine.asarray(array)})
        slope = engine.to_numpy(gradient["a"])
    units = np.eye(size).reshape(size, *op.shape)
    transpose = np.array([np.sum(weight * (1.0 + right) * op.expected(unit)) for unit in units]).reshape(op.shape)
    return max(
        subject.close(found, right, subject.tolerances.value, op.id),
        subject.close(slope, transpose, subject.tolerances.gradient, f"gradient through {op.id}"),
    )


A = np.array([[0.5, 1.5, -1.0], [2.0, 0.25, 0.75], [-0.5, 1.0, -2.0]])
B = np.array([[1.0, -0.5, 1.25], [0.5, 2.0, -1.0], [0.625, -1.5, 0.875]])
V = np.array([[1.0, -0.5, 2.0], [0.25, 1.0, -1.0], [-2.0, 0.5, 0.125]])
W = np.array([[0.5, 1.0, -1.0], [2.0, -0.25, 0.5], [1.0, 0.75, -1.5]])
PARTNERS = {"matrix": B, "row": B[0], "column": B[:, :1], "number": B[0, 0]}
"""What (3, 3) meets; square, so that an axis taken for the other shows."""


def _summed_to(array: Any, shape: tuple[int, ...]) -> np.ndarray:
    """An array (3, 3) summed over the axes along which one of the shape was broadcast to it."""
    full = np.broadcast_to(array, (3, 3))
    return {(3, 3): full, (3,): full.sum(axis=0), (3, 1): full.sum(axis=1, keepdims=True), (): full.sum()}[shape]


def _pair(subject: Subject, op: Binary, name: str, *, turned: bool) -> float:
    """Value, product and nested gradient of an operation where the samples are its first operand, or its second."""
    partner, at = PARTNERS[name], f"{op.id} of {'a ' + name if turned else 'a matrix'} and {'a matrix' if turned else 'a ' + name}"
    first, (faa, fab, fbb) = (f(partner, A) if turned else f(A, partner) for f in (op.first, op.second))
    right = op.value(partner, A) if turned else op.value(A, partner)
    fx, fxx = (first[1], fbb) if turned else (first[0], faa)
    tolerance, worst = subject.tolerances.gradient, 0.0
    with subject.working() as engine:
        x, v, w, ops = engine.asarray(A), engine.asarray(V), engine.asarray(W), engine.ops

        def f(params: Any, z: Array) -> Array:
            moved, other = z + params["shift"], params["partner"]
            return op.apply(ops, other, moved) if turned else op.apply(ops, moved, other)

        params = {"shift": engine.asarray(np.zeros((3, 3))), "partner": engine.asarray(partner)}
        value, plain = engine.value_and_grad(lambda p: ops.sum(w * f(p, x)))(params)
        plain = {k: engine.to_numpy(g) for k, g in plain.items()}
        slopes = {"shift": W * fx, "partner": _summed_to(W * (first[0] if turned else first[1]), partner.shape)}
        worst = max(
            subject.close(engine.to_numpy(value), np.sum(W * right), tolerance, f"a sum over {at}"),
            subject.close(plain, slopes, tolerance, f"the gradient of {at} in"),
        )
        nested = {"shift": W * V * fxx, "partner": _summed_to(W * V * fab, partner.shape)}
        for product in subject.products:
            along, g = engine.value_and_grad(
                lambda p, product=product: ops.sum(w * PRODUCTS[product](engine, lambda z: f(p, z), x, v))
            )(params)
            g = {k: engine.to_numpy(each) for k, each in g.items()}
            worst = max(
                worst,
                subject.close(engine.to_numpy(along), np.sum(W * V * fx), tolerance, f"{product} of {at}"),
                subject.close(g, nested, tolerance, f"the gradient of {product} of {at} in"),
            )
    return worst


@check(lambda: BINARY)
def check_broadcasting(subject: Subject, op: Binary) -> float:
    """An operation of two arrays is right in two derivatives, whichever is broadcast: the cotangent is summed over those axes."""
    return max(_pair(subject, op, name, turned=turned) for name in PARTNERS for turned in (False, True))


@check()
def check_where_keeps_the_other_branch_out(subject: Subject) -> float:
    """`where` takes nothing from the branch not taken: no NaN or infinity of it, in value or gradient."""
    x, other = np.array([[1.0, -1.0, 2.0, -0.5]]), np.array([[np.inf, 3.0, np.nan, -2.0]])
    with subject.working() as engine:
        rest = engine.asarray(other)

        def f(params: Any) -> Array:
            taken = params["x"]
            return engine.ops.sum(engine.ops.where(taken > 0.0, taken * taken, rest))

        value, gradient = engine.value_and_grad(f)({"x": engine.asarray(x)})
        value, slope = engine.to_numpy(value), engine.to_numpy(gradient["x"])
    return max(
        subject.close(value, np.array(6.0), subject.tolerances.value, "a sum over where"),
        subject.close(slope, np.where(x > 0.0, 2.0 * x, 0.0), subject.tolerances.gradient, "the gradient through where"),
    )
