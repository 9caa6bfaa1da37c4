"""Loss and gradient of implicit score matching by the closed formulas: forward, cotangents, pullback, in blocks of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ismcore.analytic.choice import find_route
from ismcore.analytic.routes import FOLDED, Route, transposed
from ismcore.calculus import Calculus
from ismcore.errors import ModelError
from ismcore.memory import keep_freed_memory
from ismcore.objectives import ImplicitScoreMatching
from ismcore.ops import Array
from ismcore.problem import Params, Problem

__all__ = ["across", "block_rows", "loss", "loss_and_gradient", "supports"]


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


def across(problem: Problem) -> tuple[str, ...]:
    """Names of the weights that a session does well to keep transposed: see `Route.across`."""
    if not supports(problem):
        return ()
    return _route(problem, problem.batch_rows, problem.x.shape[1]).across


def loss_and_gradient(
    calculus: Calculus, problem: Problem, of_rows: int | None = None, *, turned: bool = False
) -> Callable[[Params, Array, Params], tuple[Array, Params]]:
    """The objective and its gradient as a function (params, x, given), for a problem that `supports` accepts.

    Only `ops`, `asarray` and `sum_over_rows` of the calculus are used: no derivative of the framework's.

    Args:
        calculus: Operations.
        problem: Model and objective.
        of_rows: How many rows there are, where x is only some of them, and its share of their mean is wanted.
        turned: Whether gradients of the weights that `across` names are given transposed, as the formula finds them.
    """
    keep_freed_memory()

    def of(params: Params, x: Array, given: Params) -> tuple[Array, Params]:
        route, folded, total = _total(calculus, problem, params, x, given, gradient=True, of_rows=of_rows)
        if folded is not None:
            for name, slope in route.unfold(calculus.ops, params, folded, total[FOLDED]).items():
                total[name] += slope
        turn = () if turned else route.across
        return total["loss"], {name: transposed(calculus.ops, total[name]) if name in turn else total[name] for name in params}

    return of


def loss(calculus: Calculus, problem: Problem) -> Callable[[Params, Array, Params], Array]:
    """The objective alone, as a function (params, x, given), for a problem that `supports` accepts."""

    def of(params: Params, x: Array, given: Params) -> Array:
        return _total(calculus, problem, params, x, given, gradient=False)[2]["loss"]

    return of


def block_rows(calculus: Calculus, problem: Problem, n: int, d: int) -> int:
    """How many rows of n make a block that stays in the cache."""
    return _block_rows(calculus, _route(problem, n, d), d)


def _total(
    calculus: Calculus,
    problem: Problem,
    params: Params,
    x: Array,
    given: Params,
    *,
    gradient: bool,
    of_rows: int | None = None,
) -> tuple[Route, Any, Params]:
    """The formula used, what it folded, and the sums over all rows: the loss and, if asked for, what `Route.pullback` gives."""
    objective, ops = problem.objective, calculus.ops
    assert isinstance(objective, ImplicitScoreMatching)  # noqa: S101  (our own bug otherwise)
    n, d = x.shape
    weighted = "row_weight" in given
    route = _route(problem, n, d)
    rows = {"x": x, **({"weight": given["row_weight"]} if weighted else {})}
    folded = route.fold(ops, params)

    def block(part: Params) -> Params:
        psi, second, residuals = route.forward(ops, params, folded, transposed(ops, part["x"]))
        weight = part["weight"] if weighted else 1.0 / (of_rows or n)
        value, psi_bar, second_bar = objective.cotangents(ops, psi, second, weight, given)
        found: Params = {"loss": value}
        if gradient:
            found |= route.pullback(ops, residuals, psi_bar, second_bar)
        return found

    return route, folded, calculus.sum_over_rows(block, rows, _block_rows(calculus, route, d))


def _route(problem: Problem, n: int, d: int) -> Route:
    assert isinstance(problem.objective, ImplicitScoreMatching)  # noqa: S101  (our own bug otherwise)
    route = find_route(problem.model, d, trace=not problem.objective.penalised, n=n)
    assert route is not None  # noqa: S101
    return route


def _block_rows(calculus: Calculus, route: Route, d: int) -> int:
    """How many rows make a block that keeps about as many bytes as the calculus says."""
    numbers = calculus.block_bytes // np.dtype(calculus.dtype).itemsize
    return max(numbers // route.numbers_a_row(d), route.least_rows(d))
