"""What only shows at size: many rows, wide layers, large parameters, many steps at once, and steps long after the first."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from ismcore.models import MLP, Affine
from ismcore.objectives import DenoisingScoreMatching, ExplicitScoreMatching, ImplicitScoreMatching
from ismcore.ops import Array
from ismcore.optimizers.rules import SGD, Adam
from ismcore.optimizers.state import TrainState
from ismcore.testing import oracle
from ismcore.testing.cases import OPTIMIZERS, RAGGED_WEIGHTS, TrainingCase, ragged
from ismcore.testing.checks.training import compare_states, follow
from ismcore.testing.kit import check
from ismcore.testing.scenarios import WEIGHTS, Scenario, drawn, formula_of, scenario, target, variant
from ismcore.testing.subject import Subject, Training, run_at

MANY_ROWS = 5000


def _many(small: Scenario) -> Scenario:
    """The scenario with 5000 rows: each of its own many times, one after the other, so that no part of them stands for all."""
    rows = np.arange(MANY_ROWS) * len(small.x) // MANY_ROWS
    weight = np.resize(np.arange(1.0, 8.0), MANY_ROWS)
    weight /= weight.sum()
    answer = variant(small, "many", row_weight=np.bincount(rows, weight)).answer
    return replace(small, id=f"{small.id}-many", x=small.x[rows], row_weight=weight, answer=answer)


@cache
def many_rows() -> tuple[Scenario, ...]:
    """An affine score, whose loss is differentiated, and a network of 64 units, for which there is a closed formula."""
    wide = MLP((64,), "silu")
    return (_many(scenario("affine3")), _many(drawn("wide", wide, formula_of(wide), 4, 3)))


@check(many_rows)
def check_many_rows(subject: Subject, case: Scenario) -> float:
    """Loss and gradient of 5000 rows, each with a weight of its own, are right."""
    tolerance = subject.tolerances.steps  # rounding errors of thousands of equal terms have equal signs
    with subject.working() as engine:
        problem = case.problem(SGD())
        found = run_at(engine, engine.compiled(engine.loss_and_gradient(problem.loss)), problem, case)
    return max(
        subject.close(found.loss, case.answer.loss, tolerance, "the loss"),
        subject.close(found.gradient, case.answer.gradient, tolerance, "the gradient in"),
    )


@check()
def check_wide_product(subject: Subject) -> float:
    """A product of matrices of more than 64 rows and columns keeps the digits of the dtype, and so do its cotangents."""
    a, b, g = (np.cos(k + np.arange(m * n)).reshape(m, n) for k, (m, n) in enumerate(((70, 64), (64, 65), (70, 65))))
    with subject.working() as engine:
        weight = engine.asarray(g)

        def f(params: Any) -> Array:
            return engine.ops.sum(weight * (params["a"] @ params["b"]))

        product = engine.to_numpy(engine.asarray(a) @ engine.asarray(b))
        _, slopes = engine.value_and_grad(f)(engine.asarrays({"a": a, "b": b}))
        slopes = {name: engine.to_numpy(slope) for name, slope in slopes.items()}
    return max(
        subject.close(product, a @ b, subject.tolerances.value, "the product"),
        subject.close(slopes, {"a": g @ b.T, "b": a.T @ g}, subject.tolerances.gradient, "the cotangent of"),
    )


def _wide(id: str, hidden: tuple[int, ...], objective: ImplicitScoreMatching) -> TrainingCase:
    model = MLP(hidden, "silu")
    case = replace(drawn(id, model, formula_of(model), 4, 3, objective), row_weight=WEIGHTS)
    return TrainingCase(id, case, OPTIMIZERS["momentum"])


@cache
def large_cases() -> tuple[TrainingCase, ...]:
    """Sessions on 5000 rows, on layers of 64 units, and on a parameter of 64 x 64."""
    affine = _many(scenario("affine3"))
    # each row with the same weight: its loss takes another way than that of weighted rows
    alike = replace(affine, id="rows", row_weight=None, x=affine.x + np.arange(MANY_ROWS)[:, None] / MANY_ROWS)
    square = drawn("square", Affine(), oracle.affine, 4, 64, ExplicitScoreMatching(target))
    return (
        TrainingCase("rows", alike, OPTIMIZERS["momentum"]),
        TrainingCase("rows-weighted", affine, OPTIMIZERS["momentum"]),
        _wide("units", (64,), ImplicitScoreMatching()),
        _wide("units-by-column", (8, 64), ImplicitScoreMatching((0.5, 0.0, 2.0))),
        TrainingCase("parameter", square, OPTIMIZERS["adam"]),
    )


@check(large_cases)
def check_large_sessions(subject: Subject, case: TrainingCase) -> float:
    """A session trains on all of many rows, all units of a wide layer, all numbers of a large parameter."""
    return follow(subject, case, (0.05, 0.02), subject.tolerances.steps)


LONG = 300


@cache
def long_cases() -> tuple[TrainingCase, ...]:
    """All that a step can be told, for 300 steps: rows, weights, draws, its own rate, its own decay."""
    full = ragged(Affine(), oracle.affine, ExplicitScoreMatching(target), RAGGED_WEIGHTS)
    noisy = ragged(Affine(), oracle.affine, DenoisingScoreMatching(0.5))
    return (
        TrainingCase("rows", full, OPTIMIZERS["momentum"], batch_size=3, average=True),
        TrainingCase("draws", noisy, Adam(learning_rate=0.05, b1=0.8, b2=0.999, eps=1e-2), average=True),
    )


@check(long_cases)
def check_three_hundred_steps(subject: Subject, case: TrainingCase) -> float:
    """Three hundred steps in one chunk: each takes its own rows, draws, rate and decay, to the last one."""
    rates = 0.02 * 0.5 ** (np.arange(LONG) * 4.0 / LONG)
    return follow(subject, case, tuple(rates.tolist()), subject.tolerances.steps)


@check()
def check_a_run_goes_on_after_a_thousand_steps(subject: Subject) -> float:
    """Steps from the thousandth on: Adam corrects its moments by the number of the step, whose draws they are."""
    case = replace(long_cases()[1], id="late", average=False)
    params = case.scenario.params
    first = {name: 0.25 * value for name, value in params.items()}
    second = {name: 0.5 + value * value for name, value in params.items()}
    begun = TrainState(1000, {name: value.copy() for name, value in params.items()}, first, second)
    rates = (0.05, 0.04, 0.03)
    losses, right = case.train(rates, begun)
    run = Training(subject, case, begun)
    found = run.run(rates)
    tolerance = subject.tolerances.steps
    return max(
        subject.close(found, losses, tolerance, "the losses from step 1000", dtype="float64"),
        compare_states(subject, run.state(), right, tolerance, "after 1003 steps"),
    )
