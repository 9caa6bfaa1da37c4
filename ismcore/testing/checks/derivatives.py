"""Derivatives: `value_and_grad`, the products, and products that nest in it and in themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ismcore.backend.contract import Backend
from ismcore.ops import Array
from ismcore.testing.kit import check
from ismcore.testing.subject import CheckFailed, Subject

Product = Callable[[Backend, Callable[[Array], Array], Array, Array], Array]

PRODUCTS: dict[str, Product] = {
    "jvp": lambda engine, f, x, v: engine.jvp(f, x, v)[1],
    "vjp": lambda engine, f, x, v: engine.vjp(f, x)[1](v),
}
"""J v and v^T J of a function, by the backend; the same where the Jacobian is diagonal."""


@check()
def check_value_and_grad(subject: Subject) -> float:
    """Value and gradient in parameters of every shape; one that does not matter has the gradient zero."""
    params = {
        "scalar": np.array(3.0),
        "vector": np.array([1.0, -2.0, 0.5]),
        "matrix": np.eye(2, 3) + 0.25,
        "unused": np.ones(2),
    }
    a, b = np.array([2.0, 0.5, -1.0]), np.arange(6.0).reshape(2, 3)
    with subject.working() as engine:
        ops = engine.ops

        def f(p: Any, a: Array, b: Array) -> Array:
            return p["scalar"] * p["scalar"] + ops.sum(p["vector"] * a) + ops.sum(p["matrix"] * p["matrix"] * b)

        at = {name: engine.asarray(value) for name, value in params.items()}
        value, gradient = engine.value_and_grad(f)(at, engine.asarray(a), engine.asarray(b))
        value, gradient = engine.to_numpy(value), {name: engine.to_numpy(slope) for name, slope in gradient.items()}
    m = params["matrix"]
    slopes = {"scalar": np.array(6.0), "vector": a, "matrix": 2.0 * m * b, "unused": np.zeros(2)}
    return max(
        subject.close(value, 9.0 + params["vector"] @ a + (m * m * b).sum(), subject.tolerances.value, "the value"),
        subject.close(gradient, slopes, subject.tolerances.gradient, "the gradient"),
    )


# psi(x) = sin(P x), row by row: its Jacobian diag(cos(P x)) P is as far from symmetric as P is.
P = np.array([[0.5, 2.0, -1.0], [-0.25, 0.125, 3.0], [1.5, -2.0, 0.75]])
X = np.array([[0.5, -1.0, 0.25], [1.5, 0.125, -0.75], [-0.5, 2.0, 1.0], [0.0, 0.375, -1.25]])
V = np.array([[1.0, -0.5, 2.0], [0.25, 1.0, -1.0], [-2.0, 0.5, 0.125], [1.0, 1.0, -0.5]])
W = np.array([[0.5, 1.0, -1.0], [2.0, -0.25, 0.5], [1.0, 0.75, -1.5], [-0.5, 1.0, 1.0]])
Z = X @ P.T

JACOBIAN = {"jvp": np.cos(Z) * (V @ P.T), "vjp": (V * np.cos(Z)) @ P}
"""J V and V^T J, row by row."""

NESTED = {
    # d/dP of sum_n W . (J V) and of sum_n W . (V^T J) = sum_n V . (J W)
    "jvp": (-W * np.sin(Z) * (V @ P.T)).T @ X + (W * np.cos(Z)).T @ V,
    "vjp": (-V * np.sin(Z) * (W @ P.T)).T @ X + (V * np.cos(Z)).T @ W,
}

SECOND = {
    # d/dx of the same two sums
    "jvp": (-W * np.sin(Z) * (V @ P.T)) @ P,
    "vjp": (-V * np.sin(Z) * (W @ P.T)) @ P,
}


def _sines(engine: Backend, p: Array) -> Callable[[Array], Array]:
    return lambda x: engine.ops.sin(x @ engine.ops.permute_dims(p, (1, 0)))


def _product(subject: Subject, product: str) -> float:
    subject.require(product)
    with subject.working() as engine:
        x, v, f = engine.asarray(X), engine.asarray(V), _sines(engine, engine.asarray(P))
        if product == "jvp":
            psi, found = engine.jvp(f, x, v)
            again = found
        else:
            psi, pull = engine.vjp(f, x)
            pull(x)
            found, again = pull(v), pull(v)
        psi, found, again = engine.to_numpy(psi), engine.to_numpy(found), engine.to_numpy(again)
    return max(
        subject.close(psi, np.sin(Z), subject.tolerances.value, f"f(x) from {product}"),
        subject.close(found, JACOBIAN[product], subject.tolerances.value, product),
        subject.close(again, JACOBIAN[product], subject.tolerances.value, f"{product}, called again,"),
    )


@check()
def check_jvp(subject: Subject) -> float:
    """`jvp` gives f(x) and J v, for a Jacobian that is far from symmetric."""
    return _product(subject, "jvp")


@check()
def check_vjp(subject: Subject) -> float:
    """`vjp` gives f(x) and v^T J, for a Jacobian that is far from symmetric, as often as the pullback is called."""
    return _product(subject, "vjp")


def _nests_under_gradient(subject: Subject, product: str) -> float:
    subject.require(product)
    with subject.working() as engine:
        x, v, w = engine.asarray(X), engine.asarray(V), engine.asarray(W)
        value, gradient = engine.value_and_grad(
            lambda params: engine.ops.sum(w * PRODUCTS[product](engine, _sines(engine, params["p"]), x, v))
        )({"p": engine.asarray(P)})
        value, slope = engine.to_numpy(value), engine.to_numpy(gradient["p"])
    return max(
        subject.close(value, np.sum(W * JACOBIAN[product]), subject.tolerances.value, f"a sum over {product}"),
        subject.close(slope, NESTED[product], subject.tolerances.gradient, f"the gradient of a sum over {product}"),
    )


@check()
def check_jvp_nests_under_value_and_grad(subject: Subject) -> float:
    """The gradient in parameters of a function of J v holds the mixed second derivatives."""
    return _nests_under_gradient(subject, "jvp")


@check()
def check_vjp_nests_under_value_and_grad(subject: Subject) -> float:
    """The gradient in parameters of a function of v^T J holds the mixed second derivatives."""
    return _nests_under_gradient(subject, "vjp")


@check()
def check_products_nest_in_themselves(subject: Subject) -> float:
    """The derivative in x of a function of J v, or of v^T J, holds the second derivatives in x."""
    if not subject.products:
        raise CheckFailed("declares neither jvp nor vjp: one of them is mandatory")
    worst = 0.0
    with subject.working() as engine:
        x, v, w, p = (engine.asarray(array) for array in (X, V, W, P))
        for product in subject.products:
            apply = PRODUCTS[product]

            def inner(points: Array, apply: Product = apply) -> Array:
                # Every output is the same sum of its row, so that J v of the outer product picks derivatives of that sum.
                row = engine.ops.sum(w * apply(engine, _sines(engine, p), points, v), axis=1)
                return engine.ops.stack([row, row, row], axis=1)

            slopes = [engine.to_numpy(apply(engine, inner, x, engine.asarray(np.tile(unit, (4, 1))))) for unit in np.eye(3)]
            # jvp along unit j gives column j of the Jacobian, vjp of unit i gives its row i; all rows of it are equal.
            found = np.stack([slope[:, 0] for slope in slopes], axis=1) if product == "jvp" else slopes[0]
            what = f"{product} of a sum over {product}"
            worst = max(worst, subject.close(found, SECOND[product], subject.tolerances.gradient, what))
    return worst


@check()
def check_undeclared_product(subject: Subject) -> float:
    """Each product that is not declared raises NotImplementedError, which names it."""
    with subject.working() as engine:
        x = engine.asarray(X)
        for product in set(PRODUCTS) - set(subject.products):
            try:
                PRODUCTS[product](engine, lambda z: z, x, x)
            except NotImplementedError as error:
                if product not in str(error):
                    raise CheckFailed(f"{product} is not declared, and the error does not name it: {error}") from error
            else:
                raise CheckFailed(f"{product} is not declared, and yet returns something")
    return 0.0
