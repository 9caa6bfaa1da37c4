"""Loss and gradient of implicit score matching by the closed formulas: forward, cotangents, pullback, in blocks of rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ismcore.analytic.choice import find_route
from ismcore.analytic.routes import FOLDED, Route
from ismcore.calculus import Calculus
from ismcore.errors import ModelError
from ismcore.objectives import ImplicitScoreMatching
from ismcore.ops import Array
from ismcore.problem import Params, Problem

__all__ = ["loss", "loss_and_gradient", "supports"]

BLOCK_BYTES = 4 * 2**20
"""What a block of rows keeps between forward pass and pullback takes about this much: it then stays in the cache."""
BLOCK_PRODUCTS = 512
"""Each block multiplies at least this many vectors by the weights: thinner products, with a sum of gradients after each, cost
more than the cache gives."""


def supports(problem: Problem) -> bool:
    """Whether the problem is to be solved by closed formulas.

    Raises:
        ModelError: The objective demands them, and there are none for the model.
    """
    objective = problem.objective
    if not isinstance(objective, ImplicitScoreMatching) or objective.divergence not in ("auto", "analytic"):
        return False
    found = find_route(problem.model, 1, trace=not objective.penalised) is not None
    if objective.divergence == "analytic" and not found:
        raise ModelError(
            f"there are no closed formulas for {problem.model!r}: use divergence='auto' or 'nested' for this model"
        )
    return found


def loss_and_gradient(calculus: Calculus, problem: Problem) -> Callable[[Params, Array, Params], tuple[Array, Params]]:
    """The objective and its gradient as a function (params, x, given), for a problem that `supports` accepts.

    Only `ops`, `asarray` and `sum_over_rows` of the calculus are used: no derivative of the framework's.
    """
    objective = problem.objective
    assert isinstance(objective, ImplicitScoreMatching)  # noqa: S101  (our own bug otherwise)
    trace = not objective.penalised
    ops = calculus.ops

    def of(params: Params, x: Array, given: Params) -> tuple[Array, Params]:
        n, d = x.shape
        route = find_route(problem.model, d, trace=trace)
        assert route is not None  # noqa: S101
        weighted = "row_weight" in given
        rows = {"x": x, **({"weight": given["row_weight"]} if weighted else {})}
        folded = route.fold(ops, params)

        def block(part: Params) -> Params:
            psi, second, residuals = route.forward(ops, params, folded, part["x"])
            weight = part["weight"] if weighted else 1.0 / n
            loss, psi_bar, second_bar = objective.cotangents(ops, psi, second, weight, given)
            return {"loss": loss, **route.pullback(ops, params, part["x"], residuals, psi_bar, second_bar)}

        total = calculus.sum_over_rows(block, rows, _block_rows(route, d, np.dtype(calculus.dtype).itemsize))
        if folded is not None:
            for name, slope in route.unfold(ops, params, folded, total[FOLDED]).items():
                total[name] = total[name] + slope
        return total["loss"], {name: total[name] for name in params}

    return of


def loss(calculus: Calculus, problem: Problem) -> Callable[[Params, Array, Params], Array]:
    """The objective alone, as a function (params, x, given), for a problem that `supports` accepts."""
    objective = problem.objective
    assert isinstance(objective, ImplicitScoreMatching)  # noqa: S101  (our own bug otherwise)
    ops = calculus.ops

    def of(params: Params, x: Array, given: Params) -> Array:
        n, d = x.shape
        route = find_route(problem.model, d, trace=not objective.penalised)
        assert route is not None  # noqa: S101
        weighted = "row_weight" in given
        rows = {"x": x, **({"weight": given["row_weight"]} if weighted else {})}
        folded = route.fold(ops, params)

        def block(part: Params) -> Params:
            psi, second, _ = route.forward(ops, params, folded, part["x"])
            weight = part["weight"] if weighted else 1.0 / n
            return {"loss": objective.cotangents(ops, psi, second, weight, given)[0]}

        return calculus.sum_over_rows(block, rows, _block_rows(route, d, np.dtype(calculus.dtype).itemsize))["loss"]

    return of


def _block_rows(route: Route, d: int, itemsize: int) -> int:
    """How many rows make a block."""
    return max(BLOCK_BYTES // (itemsize * route.numbers_a_row(d)), -(-BLOCK_PRODUCTS // route.directions(d)))
