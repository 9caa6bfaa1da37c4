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


PARAMS = {
    "z": np.array([1.0, -2.0, 0.5]),
    "scalar": np.array(3.0),
    "m": np.array([0.25, 0.0, -1.0]),
    "matrix": np.eye(2, 3) + 0.25,
    "a": np.array([-0.5, 0.0, 2.0]),
    "cube": (np.arange(27.0) * 4.0 % 11.0 - 5.0).reshape(3, 3, 3),
    "unused": np.ones(2),
    "large": np.arange(4900.0).reshape(70, 70) % 5.0 - 2.0,
    "last": np.array([4.0, 0.25, -0.75]),
}
"""Parameters of every shape, three axes among them; of equal shape in no sorted order; zeros; many numbers in one."""
CONSTANTS = {name: np.cos(1.0 + np.arange(value.size)).reshape(value.shape) for name, value in PARAMS.items()}


@check()
def check_value_and_grad(subject: Subject) -> float:
    """Value and gradient in parameters of every shape, each under its own name; one that does not matter has the gradient zero.

    f = sum over the parameters p but one of sum(c * p * (1 + p)), whose gradient is c (1 + 2 p). The dict that is passed in
    stays as it is.
    """
    used = [name for name in PARAMS if name != "unused"]
    with subject.working() as engine:
        ops, constants = engine.ops, engine.asarrays(CONSTANTS)

        def f(p: Any, c: Any) -> Array:
            return sum(
                (ops.sum(c[name] * p[name] * (1.0 + p[name])) for name in used[1:]), ops.sum(c["z"] * p["z"] * (1.0 + p["z"]))
            )

        at = engine.asarrays(PARAMS)
        before = list(at.items())
        value, gradient = engine.value_and_grad(f)(at, constants)
        if [(name, id(array)) for name, array in at.items()] != [(name, id(array)) for name, array in before]:
            raise CheckFailed("value_and_grad changed the dict of parameters that it was given")
        value, gradient = engine.to_numpy(value), {name: engine.to_numpy(slope) for name, slope in gradient.items()}
    slopes = {name: CONSTANTS[name] * (1.0 + 2.0 * p) * (name in used) for name, p in PARAMS.items()}
    right = sum(float(np.sum(CONSTANTS[name] * PARAMS[name] * (1.0 + PARAMS[name]))) for name in used)
    return max(
        subject.close(value, right, subject.tolerances.value, "the value"),
        subject.close(gradient, slopes, subject.tolerances.gradient, "the gradient in"),
    )


@check()
def check_functions_of_one_name(subject: Subject) -> float:
    """Two functions from one line of code, at the same parameters: each has its own value and gradient."""
    p = np.array([1.0, -0.5])
    worst = 0.0
    with subject.working() as engine:
        at = {"p": engine.asarray(p)}
        functions = [lambda params, k=k: engine.ops.sum(k * params["p"] * params["p"]) for k in (1.0, 3.0)]
        for k, f in zip((1.0, 3.0), functions, strict=True):
            value, gradient = engine.compiled(engine.value_and_grad(f))(at)
            worst = max(
                worst,
                subject.close(engine.to_numpy(value), k * np.sum(p * p), subject.tolerances.value, f"function {k:g}"),
                subject.close(engine.to_numpy(gradient["p"]), 2.0 * k * p, subject.tolerances.gradient, f"gradient of {k:g}"),
            )
    return worst


@check()
def check_gradient_that_is_not_finite(subject: Subject) -> float:
    """A gradient that overflows is not finite, and a large one is as large as it is: by that the core sees a fit diverge."""
    p = np.array([1.0, 2.0**100, 2.0**-20])
    with subject.working() as engine:
        scale = engine.asarray(np.array([2.0**100, 2.0**60, 1.0]))
        far = float(np.finfo(subject.dtype).max) / 2.0

        def f(params: Any) -> Array:
            return engine.ops.sum(scale * params["p"] * params["p"] * params["p"]) * far

        def g(params: Any) -> Array:
            return engine.ops.sum(scale * params["p"])

        _, gradient = engine.value_and_grad(f)({"p": engine.asarray(p)})
        _, large = engine.value_and_grad(g)({"p": engine.asarray(p)})
        found, far_out = engine.to_numpy(gradient["p"]), engine.to_numpy(large["p"])
    if np.isfinite(found[:2]).any():
        raise CheckFailed(f"a gradient that overflows is given as {found[:2]}")
    return subject.close(far_out / 2.0**60, [2.0**40, 1.0, 2.0**-60], subject.tolerances.gradient, "a large gradient")


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
            again = engine.jvp(f, x, v * 2.0**30)[1] * 2.0**-30
        else:
            psi, pull = engine.vjp(f, x)
            found, again = pull(v), pull(v * 2.0**30) * 2.0**-30  # linear in v, and exactly so along powers of 2
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
    """`vjp` gives f(x) and v^T J, for a Jacobian far from symmetric, as often as the pullback is called, linear in v."""
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


SIDES = {"one row": X[:1], "one column": X[:, :1], "square": X[:3], "as it is": X}


@check()
def check_gradient_of_energies(subject: Subject) -> float:
    """The gradient in x of u(x), one number a row, is right by each product, also for one row, one column and n = d.

    u(x) = sum_i sin(x_i) w_i, whose gradient is w cos(x), and the derivative in w of sum(v * gradient) is sum_n v cos(x). A
    pullback takes one number a row, times which it gives the gradient of that row.
    """
    worst = 0.0
    for name, x in SIDES.items():
        w, v = W[0, : x.shape[1]], V[: len(x), : x.shape[1]]
        for product in subject.products:
            with subject.by(product).working() as engine:
                points, weight = engine.asarray(x), engine.asarray(v)

                def along(params: Any, x: Array, engine: Backend = engine, weight: Array = weight) -> Array:
                    u = engine.gradient(lambda z: engine.ops.sum(engine.ops.sin(z) * params["w"], axis=1), x)
                    return engine.ops.sum(weight * u)

                value, gradient = engine.value_and_grad(along)({"w": engine.asarray(w)}, points)
                value, slope = engine.to_numpy(value), engine.to_numpy(gradient["w"])
                if product == "vjp":
                    constant, rows = engine.asarray(w), engine.asarray(v[:, 0])
                    pull = engine.vjp(lambda z, c=constant: engine.ops.sum(engine.ops.sin(z) * c, axis=1), points)[1]
                    pullback = engine.to_numpy(pull(rows))
                    right = v[:, :1] * w * np.cos(x)
                    worst = max(
                        worst, subject.close(pullback, right, subject.tolerances.value, f"the pullback of an energy, {name},")
                    )
            what = f"the gradient of an energy, {name}, by {product},"
            worst = max(
                worst,
                subject.close(value, np.sum(v * w * np.cos(x)), subject.tolerances.value, what),
                subject.close(slope, np.sum(v * np.cos(x), axis=0), subject.tolerances.gradient, f"{what} differentiated"),
            )
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
