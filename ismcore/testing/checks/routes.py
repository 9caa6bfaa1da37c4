"""The ways to the exact divergence: the closed formulas on the backend's own operations, and nested differentiation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from ismcore.analytic import find_route, loss_and_gradient, transposed_weights
from ismcore.calculus import Calculus
from ismcore.models import MLP, Energy
from ismcore.objectives import ImplicitScoreMatching
from ismcore.objectives.implicit import Divergence
from ismcore.optimizers.rules import SGD
from ismcore.testing.kit import check
from ismcore.testing.scenarios import BOX, POLYTOPE, WEIGHTS, Scenario, drawn, formula_of, scenario, variant
from ismcore.testing.subject import CheckFailed, Subject, Tolerances, run_at

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
CURVATURE_WEIGHTS: dict[str, Any] = {"plain": 0.0, "by-column": (0.5, 0.0, 2.0)}


@cache
def weighted_routes() -> Sequence[Scenario]:
    """Every closed formula with row weights, one of them 0: no penalty, one weight a column, and for energies one for all.

    And on domains: with a weight of each column's own, and with one a row.
    """
    cases = [(f"{net}-{kind}", model, weight) for net, model in NETS.items() for kind, weight in CURVATURE_WEIGHTS.items()]
    cases += [(f"{net}-penalised", model, 0.5) for net, model in BENT.items()]
    cases += [("mlp3-flat-plain", MLP((4, 4, 4), "silu"), 0.0)]  # in two dimensions tangents cost less than units
    objectives = [(id, model, ImplicitScoreMatching(weight)) for id, model, weight in cases]
    objectives += [(f"{net}-box", model, ImplicitScoreMatching(domain=BOX)) for net, model in NETS.items()]
    objectives += [(f"{net}-polytope", model, ImplicitScoreMatching(domain=POLYTOPE)) for net, model in NETS.items()]
    objectives += [(f"{net}-box-penalised", NETS[net], ImplicitScoreMatching(0.5, domain=BOX)) for net in ("mlp", "energy2")]
    return [
        variant(
            drawn(id, model, formula_of(model), 4, 2 if "flat" in id else 3),
            "weighted",
            objective=objective,
            row_weight=WEIGHTS,
        )
        for id, model, objective in objectives
    ]


@check(weighted_routes)
def check_weighted_divergence(subject: Subject, case: Scenario) -> float:
    """Loss and gradient by every closed formula, with row weights, are right."""
    return _follows(subject, case, subject.tolerances)


@check(lambda: [case for case in weighted_routes() if case.id.startswith(("mlp-plain", "mlp2-by-column", "energy-plain"))])
def check_loss_alone(subject: Subject, case: Scenario) -> float:
    """The loss without its gradient, as of rows held out, follows the row weights."""
    with subject.working() as engine:
        problem = case.problem(SGD())
        given = engine.asarrays(problem.inputs())
        found = engine.to_numpy(engine.loss(problem.loss)(engine.asarrays(case.params), engine.asarray(problem.x), given))
    return subject.close(found, case.answer.loss, subject.tolerances.value, "the loss")


@check()
def check_transposed_gradients(subject: Subject) -> float:
    """A session may keep weights' gradients transposed, as the formulas find them: they are those of the weights."""
    (case,) = (case for case in weighted_routes() if case.id == "mlp-by-column-weighted")
    problem = case.problem(SGD())
    names = transposed_weights(problem)
    if not names or transposed_weights(scenario("affine3").problem(SGD())):
        raise CheckFailed(f"the weights to keep transposed are {names}")
    with subject.working() as engine:
        found = run_at(engine, loss_and_gradient(engine.plain, problem.loss, keep_transposed=True), problem, case)
    turned = {name: slope.T if name in names else slope for name, slope in found.gradient.items()}
    return subject.close(turned, case.answer.gradient, subject.tolerances.gradient, "the gradient in")


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
