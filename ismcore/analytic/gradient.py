"""Loss and gradient of implicit and denoising score matching by closed formulas: forward, cotangents, pullback, in blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ismcore.analytic.choice import find_route
from ismcore.analytic.memory import keep_freed_memory
from ismcore.analytic.routes import PRECOMPUTED, Route, copied_transpose, product, transposed
from ismcore.calculus import Calculus
from ismcore.errors import ModelError
from ismcore.models import Affine, Combination, Model, parted
from ismcore.objectives import DenoisingScoreMatching, ImplicitScoreMatching, LossInputs
from ismcore.ops import Array, Params
from ismcore.problem import Loss, Problem

__all__ = ["loss", "loss_and_gradient", "score_and_diagonal", "supports", "transposed_weights"]


def supports(loss: Loss) -> bool:
    """Whether the loss and its gradient are to be found by closed formulas.

    Raises:
        ModelError: The objective demands them, and there are none for the model.
    """
    objective = loss.objective
    if isinstance(objective, DenoisingScoreMatching):
        return loss.model.smooth and find_route(loss.model, 1, trace=True) is not None
    if not isinstance(objective, ImplicitScoreMatching) or objective.divergence not in ("auto", "analytic"):
        return False
    found = find_route(loss.model, 1, trace=objective.needs_divergence_alone) is not None
    if objective.divergence == "analytic" and not found:
        raise ModelError(f"there are no closed formulas for {loss.model!r}: use divergence='auto' or 'nested' for this model")
    return found


def transposed_weights(problem: Problem) -> tuple[str, ...]:
    """Names of the weights that a session does well to keep transposed: see `Route.transposed_weights`."""
    if not supports(problem.loss):
        return ()
    return _route(problem.loss, problem.batch_rows, problem.x.shape[1]).transposed_weights


def loss_and_gradient(
    calculus: Calculus, loss: Loss, *, keep_transposed: bool = False
) -> Callable[[Params, Array, LossInputs], tuple[Array, Params]]:
    """The loss and its gradient as a function (params, x, inputs), for a loss that `supports` accepts.

    Only `ops`, `asarray` and `sum_over_rows` of the calculus are used: no derivative of the framework's.

    Args:
        calculus: Operations.
        loss: Model and objective.
        keep_transposed: Whether gradients of the weights that `transposed_weights` names stay transposed, as the
            formula finds them.
    """
    keep_freed_memory()

    def value_and_gradient(params: Params, x: Array, inputs: LossInputs) -> tuple[Array, Params]:
        route, precomputed, total = _total(calculus, loss, params, x, inputs, gradient=True)
        if precomputed is not None:
            for name, slope in route.pullback_precomputed(calculus.ops, params, precomputed, total[PRECOMPUTED]).items():
                total[name] = total[name] + slope
        for name in () if keep_transposed else route.transposed_weights:
            total[name] = transposed(calculus.ops, total[name])
        return total["loss"], {name: total[name] for name in params}

    return value_and_gradient


def loss(calculus: Calculus, loss: Loss) -> Callable[[Params, Array, LossInputs], Array]:
    """The loss alone, as a function (params, x, inputs), for a loss that `supports` accepts."""

    def value(params: Params, x: Array, inputs: LossInputs) -> Array:
        return _total(calculus, loss, params, x, inputs, gradient=False)[2]["loss"]

    return value


def score_and_diagonal(calculus: Calculus, model: Model, params: Params, x: Array) -> tuple[Array, Array] | None:
    """Score and Jacobian diagonal of each row, both (n, d), block by block; None where there is no formula for the model."""
    if isinstance(model, Combination):
        return _sums(calculus, model, params, x)
    if isinstance(model, Affine):
        units = calculus.asarray(np.eye(x.shape[1]))
        return model.score(calculus, params, x), calculus.ops.sum(params["weight"] * units, axis=0) + 0.0 * x
    ops, (n, d) = calculus.ops, x.shape
    route = find_route(model, d, trace=False, n=n)
    if route is None:
        return None
    precomputed, size = route.precompute(ops, params), _block_rows(calculus, route, d)
    parts = [route.forward(ops, params, precomputed, transposed(ops, x[i : i + size]))[:2] for i in range(0, n, size)]
    psi, diagonal = (transposed(ops, ops.concat(list(values), axis=1)) for values in zip(*parts, strict=True))
    return psi, diagonal


def _sums(calculus: Calculus, model: Combination, params: Params, x: Array) -> tuple[Array, Array] | None:
    """Those of a weighted sum of models."""
    total: tuple[Array, Array] | None = None
    for k, (member, part) in enumerate(zip(model.members, parted(params, len(model.members)), strict=True)):
        found = score_and_diagonal(calculus, member, part, x)
        if found is None:
            return None
        psi, diagonal = (params["weights"][k] * value for value in found)
        total = (psi, diagonal) if total is None else (total[0] + psi, total[1] + diagonal)
    return total


def _total(
    calculus: Calculus,
    loss: Loss,
    params: Params,
    x: Array,
    inputs: LossInputs,
    *,
    gradient: bool,
) -> tuple[Route, Any, Params]:
    """The formula, what it precomputed, and sums over all rows: the loss and, if asked for, what `Route.pullback` gives."""
    objective, ops = _closed(loss), calculus.ops
    n, d = x.shape
    weighted = "row_weight" in inputs
    route = _route(loss, n, d)
    rows = {"x": x, **({"weight": inputs["row_weight"]} if weighted else {})}
    if isinstance(objective, DenoisingScoreMatching):
        rows["noise"] = inputs["noise"]
    on_domain = "edge_weight" in inputs
    if on_domain:
        rows |= {"edge_weight": inputs["edge_weight"], "edge_slope": inputs["edge_slope"]}
    precomputed = route.precompute(ops, params)
    base_second: Any = None  # torch's compiler reads what `block` encloses, also what it does not use
    if "base_weight" in inputs:
        base_second = ops.sum(inputs["base_diagonal"]) if route.trace else inputs["base_diagonal"][:, None]

    def block(part: Params) -> Params:
        points, weight = transposed(ops, part["x"]), part["weight"] if weighted else 1.0 / n
        target: Any = inputs
        if isinstance(objective, DenoisingScoreMatching):
            noise = transposed(ops, part["noise"])
            points, target, weight = objective.moved(ops, points, noise, weight, inputs["noise_scale"])
        psi, second, residuals = route.forward(ops, params, precomputed, points)
        if "base_weight" in inputs:  # in arrays of their own: the residuals may hold the model's
            psi, second = psi + (product(inputs["base_weight"], points) + inputs["base_bias"][:, None]), second + base_second
        slope = None
        if on_domain:  # copied: made with a view, the cotangents, and all tangents made with these, would lie like it
            slope = weight * copied_transpose(ops, part["edge_slope"])
            weight = weight * (part["edge_weight"][:, 0] if route.trace else copied_transpose(ops, part["edge_weight"]))
        value, psi_bar, second_bar = objective.cotangents(ops, psi, second, weight, target, slope)
        found: Params = {"loss": value}
        if gradient:
            found |= route.pullback(ops, residuals, psi_bar, second_bar)
        return found

    return route, precomputed, calculus.sum_over_rows(block, rows, _block_rows(calculus, route, d))


def _closed(loss: Loss) -> ImplicitScoreMatching | DenoisingScoreMatching:
    """The objective of a loss that `supports` accepts."""
    assert isinstance(loss.objective, ImplicitScoreMatching | DenoisingScoreMatching)  # noqa: S101  (our own bug otherwise)
    return loss.objective


def _route(loss: Loss, n: int, d: int) -> Route:
    objective = loss.objective
    trace = not isinstance(objective, ImplicitScoreMatching) or objective.needs_divergence_alone
    route = find_route(loss.model, d, trace=trace, n=n)
    assert route is not None  # noqa: S101
    return route


def _block_rows(calculus: Calculus, route: Route, d: int) -> int:
    """How many rows make a block that keeps about as many bytes as the calculus says."""
    numbers = calculus.block_bytes // np.dtype(calculus.dtype).itemsize
    return max(numbers // route.numbers_a_row(d), route.least_rows(d))
