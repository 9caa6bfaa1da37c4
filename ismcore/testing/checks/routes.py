"""The ways to the exact divergence: the closed formulas on the backend's own operations, and nested differentiation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from ismcore.analytic import find_route
from ismcore.calculus import Calculus
from ismcore.models import MLP, Energy
from ismcore.objectives import ImplicitScoreMatching
from ismcore.objectives.implicit import Divergence
from ismcore.optimizers.rules import SGD
from ismcore.testing.kit import check
from ismcore.testing.scenarios import WEIGHTS, Scenario, drawn, formula_of, scenario, variant
from ismcore.testing.subject import Subject, Tolerances, run_at

ROUTES = (("e2_softplus-reg0.75", 0.75), ("e5_tanh-ism", 0.0), ("s2_tanh-reg0.75", 0.0), ("mlp3-sigmoid-deep", 0.0))
"""Model and curvature weight, one a family of formulas; sessions hold others: they take the formulas unasked."""


@cache
def by_route(route: Divergence) -> Sequence[Scenario]:
    """The scenarios of `ROUTES`, with the divergence by that route, and one with more rows than units."""
    return [*(_by(route, scenario(id), weight) for id, weight in ROUTES), _by(route, _twice(scenario("s2_tanh-reg0.75")), 0.75)]


def _twice(case: Scenario) -> Scenario:
    """The scenario with every row there twice: the means, of the terms and of their gradients, stay the same."""
    return replace(case, id=f"{case.id}-twice", x=np.tile(case.x, (2, 1)))


def _by(route: Divergence, case: Scenario, curvature_weight: float) -> Scenario:
    objective = ImplicitScoreMatching(curvature_weight, divergence=route)
    if case.objective == ImplicitScoreMatching(curvature_weight):
        return replace(case, objective=objective)  # of golden vectors, the answer stays theirs
    return variant(case, f"reg{curvature_weight}", objective=objective)


def _follows(subject: Subject, case: Scenario, tolerances: Tolerances) -> float:
    with subject.working() as engine:
        problem = case.problem(SGD())
        found = run_at(engine, engine.loss_and_gradient(problem.loss), problem, case)
    return max(
        subject.close(found.loss, case.answer.loss, tolerances.value, "the loss"),
        subject.close(found.gradient, case.answer.gradient, tolerances.gradient, "the gradient in"),
    )


@check(lambda: by_route("analytic"))
def check_analytic_divergence(subject: Subject, case: Scenario) -> float:
    """Loss and gradient by the core's closed formulas, run on the backend's own operations, are right."""
    return _follows(subject, case, subject.tolerances)


@check(lambda: by_route("nested")[2:3])
def check_nested_divergence(subject: Subject, case: Scenario) -> float:
    """Loss and gradient by nested differentiation are right where the closed formulas would be there too."""
    return _follows(subject, case, subject.tolerances)


NETS = {
    "mlp": MLP((5,), "silu"),
    "mlp2": MLP((4, 3), "gelu_tanh"),
    "mlp3": MLP((3, 3, 3), "gelu"),
    "mlp-narrow": MLP((2, 3, 3), "tanh"),
    "energy": Energy(MLP((4,), "silu")),
    "energy2": Energy(MLP((3, 3), "sigmoid")),
}
"""One a formula: with the curvature weights below all of them."""
BENT = {f"energy-{name}": Energy(MLP((4,), name)) for name in ("sigmoid", "tanh", "softplus", "gelu", "gelu_tanh", "relu")}
"""Energies take three derivatives of an activation."""
CURVATURE_WEIGHTS: dict[str, Any] = {"plain": 0.0, "penalised": 0.5, "by-column": (0.5, 0.0, 2.0)}


@cache
def weighted_routes() -> Sequence[Scenario]:
    """Every closed formula with row weights, one of them 0: with no penalty, with one, and with one weight a column."""
    cases = [(f"{net}-{kind}", model, weight) for net, model in NETS.items() for kind, weight in CURVATURE_WEIGHTS.items()]
    cases += [(f"{net}-penalised", model, 0.5) for net, model in BENT.items()]
    return [
        variant(drawn(id, model, formula_of(model), 4, 3), "weighted", objective=ImplicitScoreMatching(weight), row_weight=WEIGHTS)
        for id, model, weight in cases
    ]


@check(weighted_routes)
def check_weighted_divergence(subject: Subject, case: Scenario) -> float:
    """By every closed formula, with row weights: loss and gradient are right, and so is the loss alone, as held-out rows have it."""
    with subject.working() as engine:
        problem = case.problem(SGD())
        given = engine.asarrays(problem.inputs())
        alone = engine.to_numpy(engine.loss(problem.loss)(engine.asarrays(case.params), engine.asarray(problem.x), given))
    what = "the loss without its gradient"
    return max(
        _follows(subject, case, subject.tolerances), subject.close(alone, case.answer.loss, subject.tolerances.value, what)
    )


def _tiled(small: Scenario, dtype: str) -> Scenario:
    """The scenario with its rows repeated until they fill two blocks and the third of another, weighted, and its answer."""
    n, d = small.x.shape
    route = find_route(small.model, d, trace=False)
    assert route is not None  # noqa: S101  (our own bug otherwise)
    count = 7 * (Calculus.block_bytes // (np.dtype(dtype).itemsize * route.numbers_a_row(d))) // 3
    # Seven weights and four samples: every weight meets every sample, so that rows and weights out of step show.
    weight = np.resize(np.arange(1.0, 8.0), count)
    weight /= weight.sum()
    answer = variant(small, "blocks", row_weight=np.bincount(np.arange(count) % n, weight)).answer
    return replace(small, x=np.resize(small.x, (count, d)), row_weight=weight, answer=answer)


@check()
def check_row_blocks(subject: Subject) -> float:
    """More rows than are worked on at a time: `sum_over_rows` sums over every block, with the rows' own weights."""
    # some ten thousand terms are added up here, and rounding errors of equal ones have equal signs
    wide = Tolerances(subject.tolerances.steps, subject.tolerances.steps, subject.tolerances.steps)
    return _follows(subject, _tiled(_by("analytic", scenario("mlp3-sigmoid-deep"), 0.1), subject.dtype), wide)
