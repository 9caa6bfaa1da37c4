"""Operations: values and three derivatives of the element-wise ones, transposes of those that move entries, broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

from ismcore.ops import Array, Ops, Params
from ismcore.testing.checks.derivatives import PRODUCTS
from ismcore.testing.kit import check
from ismcore.testing.layouts import LAYOUT, SQUARE, Layout
from ismcore.testing.operations import BINARY, ELEMENTWISE, Binary, Elementwise
from ismcore.testing.subject import Subject

ORDERS = ("value", "derivative", "second derivative", "third derivative")


def _curves(subject: Subject, op: Elementwise, orders: Sequence[str]) -> dict[str, np.ndarray]:
    """An operation at its points, and its derivatives there by each declared product, by one program.

    With P f the product of f with ones: the first is P f, the second the gradient of sum P f in a shift of the points, and the
    third that of P P f.
    """
    points = np.array(op.points)[:, None]
    with subject.working() as engine:
        one, zero = engine.asarray(np.ones_like(points)), {"shift": engine.asarray(np.zeros_like(points))}

        def along(product: str, f: Any, x: Array, times: int) -> Array:
            if times == 0:
                return f(x)
            return PRODUCTS[product](engine, lambda z: along(product, f, z, times - 1), x, one)

        def summed(params: Params, x: Array, product: str, times: int) -> Array:
            return engine.ops.sum(along(product, lambda z: op.apply(engine.ops, z + params["shift"]), x, times))

        def found(x: Array) -> Params:
            results = {"value": op.apply(engine.ops, x)} if "value" in orders else {}
            for product in subject.products:
                if "derivative" in orders:
                    results[f"derivative by {product}"] = along(product, lambda z: op.apply(engine.ops, z), x, 1)
                for times, order in enumerate(ORDERS[2:], 1):
                    if order in orders:
                        slope = engine.value_and_grad(lambda p, of=(product, times): summed(p, x, *of))
                        results[f"{order} by {product}"] = slope(zero)[1]["shift"]
            return results

        return {what: engine.to_numpy(value) for what, value in engine.compiled(found)(engine.asarray(points)).items()}


@lru_cache(maxsize=256)
def _all_curves(subject: Subject, op: Elementwise) -> dict[str, np.ndarray] | None:
    """All of an operation, which a framework that compiles does once; None where that raises, so that each is asked alone."""
    try:
        return _curves(subject, op, ORDERS)
    except Exception:
        return None


def _order(subject: Subject, op: Elementwise, order: str, right: Callable[[np.ndarray], np.ndarray], tolerance: float) -> float:
    points = np.array(op.points)[:, None]
    found = _all_curves(subject, op) or _curves(subject, op, [order])
    named = {what: value for what, value in found.items() if what.startswith(order)}
    return max(subject.close(value, right(points), tolerance, f"{op.id}, {what},", at=points) for what, value in named.items())


@check(lambda: ELEMENTWISE)
def check_op_value(subject: Subject, op: Elementwise) -> float:
    """An operation gives what NumPy gives, at 0, near it, in the middle and far out."""
    return _order(subject, op, "value", op.value, subject.tolerances.value)


@check(lambda: ELEMENTWISE)
def check_op_derivative(subject: Subject, op: Elementwise) -> float:
    """Each declared product gives the first derivative of an operation."""
    return _order(subject, op, "derivative", op.first, subject.tolerances.gradient)


@check(lambda: ELEMENTWISE)
def check_op_second_derivative(subject: Subject, op: Elementwise) -> float:
    """The second derivative of an operation: `value_and_grad` of each declared product."""
    return _order(subject, op, "second derivative", op.second, subject.tolerances.gradient)


@check(lambda: ELEMENTWISE)
def check_op_third_derivative(subject: Subject, op: Elementwise) -> float:
    """The third derivative of an operation: `value_and_grad` of each declared product of itself, as energies need it."""
    return _order(subject, op, "third derivative", op.third, subject.tolerances.gradient)


@dataclass(frozen=True, eq=False)
class _Numbers:
    """What a layout is applied to, the weights of what comes out, and the right answers."""

    array: np.ndarray
    weight: np.ndarray
    right: np.ndarray
    slope: np.ndarray


@cache
def _numbers(op: Layout) -> _Numbers:
    """For f = sum(w y (1 + y / 2)) of y = T a, whose gradient is the transpose of T at w (1 + y)."""
    size = int(np.prod(op.shape))
    array = ((np.arange(size) * 5 % 7 - 2.5) / 2.0).reshape(op.shape)
    right = op.expected(array)
    weight = np.cos(np.arange(right.size)).reshape(right.shape)
    units = np.eye(size).reshape(size, *op.shape)
    slope = np.array([np.sum(weight * (1.0 + right) * op.expected(unit)) for unit in units]).reshape(op.shape)
    return _Numbers(array, weight, right, slope)


def _moved(subject: Subject, layouts: Sequence[Layout]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of each layout the result, and the gradient through it, by one program."""
    with subject.working() as engine:
        m, ops = engine.asarray(SQUARE), engine.ops
        weights = {op.id: engine.asarray(_numbers(op).weight) for op in layouts}

        def total(params: Params) -> Array:
            parts = []
            for op in layouts:
                y = op.apply(ops, params[op.id], m)
                parts.append(ops.sum(weights[op.id] * y * (1.0 + 0.5 * y)))
            return sum(parts[1:], parts[0])

        def both(params: Params) -> tuple[Params, Params]:
            results = {op.id: op.apply(ops, params[op.id], m) for op in layouts}
            return results, engine.value_and_grad(total)(params)[1]

        results, slopes = engine.compiled(both)(engine.asarrays({op.id: _numbers(op).array for op in layouts}))
        return {op.id: (engine.to_numpy(results[op.id]), engine.to_numpy(slopes[op.id])) for op in layouts}


@lru_cache(maxsize=64)
def _all_moved(subject: Subject) -> dict[str, tuple[np.ndarray, np.ndarray]] | None:
    """Those of all layouts, which a framework that compiles does once; None where that raises, so that each is asked alone."""
    try:
        return _moved(subject, LAYOUT)
    except Exception:
        return None


@check(lambda: LAYOUT)
def check_layout(subject: Subject, op: Layout) -> float:
    """An operation that moves, adds or pairs entries gives what NumPy gives, and a gradient that is its transpose."""
    found, slope = (_all_moved(subject) or _moved(subject, [op]))[op.id]
    numbers = _numbers(op)
    return max(
        subject.close(found, numbers.right, subject.tolerances.value, op.id),
        subject.close(slope, numbers.slope, subject.tolerances.gradient, f"gradient through {op.id}"),
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
    return np.asarray({(3, 3): full, (3,): full.sum(axis=0), (3, 1): full.sum(axis=1, keepdims=True), (): full.sum()}[shape])


def _pairs(subject: Subject, op: Binary) -> dict[tuple[str, bool, str], tuple[np.ndarray, Params]]:
    """By partner, order and derivative: a sum, and its gradient in a shift of the samples and in the partner. One program."""
    with subject.working() as engine:
        x, v, w, ops = engine.asarray(A), engine.asarray(V), engine.asarray(W), engine.ops

        def f(params: Params, z: Array, turned: bool) -> Array:
            moved, other = z + params["shift"], params["partner"]
            return op.apply(ops, other, moved) if turned else op.apply(ops, moved, other)

        def summed(params: Params, turned: bool, way: str) -> Array:
            if way == "value":
                return ops.sum(w * f(params, x, turned))
            return ops.sum(w * PRODUCTS[way](engine, lambda z: f(params, z, turned), x, v))

        def all_of_them(given: dict[str, Params]) -> Any:
            return {
                (name, turned, way): engine.value_and_grad(lambda p, t=turned, w=way: summed(p, t, w))(params)
                for name, params in given.items()
                for turned in (False, True)
                for way in ("value", *subject.products)
            }

        shift = np.zeros((3, 3))
        given = {name: engine.asarrays({"shift": shift, "partner": partner}) for name, partner in PARTNERS.items()}
        found = engine.compiled(all_of_them)(given)
        return {
            key: (engine.to_numpy(value), {name: engine.to_numpy(slope) for name, slope in slopes.items()})
            for key, (value, slopes) in found.items()
        }


@check(lambda: BINARY)
def check_broadcasting(subject: Subject, op: Binary) -> float:
    """An operation of two arrays is right in two derivatives, whichever is broadcast: its cotangent is summed to its shape."""
    worst = 0.0
    for (name, turned, way), (value, slopes) in _pairs(subject, op).items():
        partner = PARTNERS[name]
        a, b = (partner, A) if turned else (A, partner)
        (fa, fb), (faa, fab, fbb) = op.first(a, b), op.second(a, b)
        fx, fp, fxx = (fb, fa, fbb) if turned else (fa, fb, faa)
        if way == "value":
            right, moved, other = W * op.value(a, b), W * fx, W * fp
        else:
            right, moved, other = W * V * fx, W * V * fxx, W * V * fab
        what = f"{way} of {op.id}, {'a ' + name + ' first' if turned else 'a ' + name + ' second'},"
        expected = {"shift": np.broadcast_to(moved, (3, 3)), "partner": _summed_to(other, partner.shape)}
        worst = max(
            worst,
            subject.close(value, np.sum(right), subject.tolerances.gradient, f"the sum over the {what}"),
            subject.close(slopes, expected, subject.tolerances.gradient, f"the gradient of the {what} in"),
        )
    return worst


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


FROM_THE_END: dict[str, tuple[Callable[[Ops, Array], Array], Callable[[np.ndarray], np.ndarray]]] = {
    "sum": (lambda ops, a: ops.sum(a, axis=-1), lambda a: a.sum(axis=-1)),
    "stack": (lambda ops, a: ops.stack([a, 2.0 * a], axis=-1), lambda a: np.stack([a, 2.0 * a], axis=-1)),
    "concat": (lambda ops, a: ops.concat([a, 2.0 * a], axis=-1), lambda a: np.concatenate([a, 2.0 * a], axis=-1)),
}


@check()
def check_axes_from_the_end(subject: Subject) -> float:
    """An axis counted from the end, which the core never asks for, is refused, or is NumPy's: never another in silence."""
    worst = 0.0
    for shape in ((2, 3), (2, 3, 3)):
        array = np.cos(np.arange(np.prod(shape))).reshape(shape)
        for name, (apply, expected) in FROM_THE_END.items():
            with subject.working() as engine:
                try:
                    found = engine.to_numpy(apply(engine.ops, engine.asarray(array)))
                except Exception:  # noqa: S112  (whatever it raises: it is not offered)
                    continue
            worst = max(worst, subject.close(found, expected(array), subject.tolerances.value, f"{name} along axis -1"))
    return worst
