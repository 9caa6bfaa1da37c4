"""The same again and again: equal bits, flat memory, and no more evaluations of the model than a derivative needs."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ismcore.models import ScoreFunction
from ismcore.objectives import ImplicitScoreMatching
from ismcore.ops import Array, Ops, Params
from ismcore.optimizers.rules import SGD
from ismcore.problem import Compile
from ismcore.testing import functions
from ismcore.testing.cases import OPTIMIZERS, TrainingCase
from ismcore.testing.checks.derivatives import PRODUCTS, V, W, X
from ismcore.testing.kit import check
from ismcore.testing.scenarios import Scenario, scenario
from ismcore.testing.subject import CheckFailed, Subject, Training, identical, run_at

CALLS, SETTLED, TRACED = 200, 50, 20
"""Calls; those after which nothing is to be set up any more; and those at the end whose memory is traced, which is slow."""
OBJECTS, BYTES = 100, 50_000
"""What may be left of the calls that count: less than one object, or 2500 bytes, a call."""


def _flat(repeat: Callable[[int], None], what: str) -> None:
    """Repeat something 200 times, and insist on flat memory from the 50th on: Python's objects, and what it and NumPy took.

    Raises:
        CheckFailed: It grows.
    """
    for k in range(SETTLED):
        repeat(k)
    objects = _objects()
    for k in range(SETTLED, CALLS - TRACED):
        repeat(k)
    objects = _objects() - objects
    size = _traced(repeat)
    if objects > OBJECTS:
        raise CheckFailed(f"{CALLS - TRACED - SETTLED} times {what} leave {objects} objects behind")
    if size > BYTES:
        raise CheckFailed(f"{TRACED} times {what} leave {size} bytes behind")


def _objects() -> int:
    gc.collect()
    return len(gc.get_objects())


def _traced(repeat: Callable[[int], None]) -> int:
    """Bytes that the last calls leave allocated in Python and NumPy."""
    begun = tracemalloc.is_tracing()
    if not begun:
        tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for k in range(CALLS - TRACED, CALLS):
            repeat(k)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        if not begun:
            tracemalloc.stop()


@check(lambda: (scenario("affine3-explicit"), scenario("mlp3-gelu")))
def check_two_hundred_calls(subject: Subject, case: Scenario) -> float:
    """Two hundred calls of one gradient give the same bits, and leave nothing behind."""
    with subject.working() as engine:
        problem = case.problem(SGD())
        loss_and_gradient = engine.compiled(engine.loss_and_gradient(problem.loss))
        first = run_at(engine, loss_and_gradient, problem, case)

        def again(k: int) -> None:
            found = run_at(engine, loss_and_gradient, problem, case)
            identical({"loss": first.loss, **first.gradient}, {"loss": found.loss, **found.gradient}, f"calls 1 and {k + 2}")

        _flat(again, "one gradient")
    return subject.close(first.gradient, case.answer.gradient, subject.tolerances.gradient, "the gradient in")


@check()
def check_gradients_stay(subject: Subject) -> float:
    """A gradient stays what it is when the next one is computed: it has memory of its own."""
    case = scenario("affine3-explicit")
    with subject.working() as engine:
        problem = case.problem(SGD())
        given, x = engine.asarrays(problem.inputs() | problem.draws(0)), engine.asarray(problem.x)
        for gradient_of in (engine.loss_and_gradient(problem.loss), engine.compiled(engine.loss_and_gradient(problem.loss))):
            first = gradient_of(engine.asarrays(case.params), x, given)[1]
            gradient_of(engine.asarrays({name: value + 1.0 for name, value in case.params.items()}), x, given)
            kept = {name: engine.to_numpy(value) for name, value in first.items()}
            error = subject.close(kept, case.answer.gradient, subject.tolerances.gradient, "a gradient before the next,")
    return error


@check()
def check_two_hundred_chunks(subject: Subject) -> float:
    """Two hundred chunks of one step leave nothing behind, and the same loss where the rate is 0."""
    run = Training(subject, TrainingCase("chunks", scenario("affine3-explicit"), OPTIMIZERS["momentum"]))
    first = run.run([0.0])

    def again(k: int) -> None:
        identical({"loss": first}, {"loss": run.run([0.0])}, f"chunks 1 and {k + 2}")

    _flat(again, "one chunk")
    return 0.0


class _Counted:
    """A score function and how often it was called: by a framework that traces, once a program."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, ops: Ops, params: Params, x: Array) -> Array:
        self.calls += 1
        return functions.WAVES.apply(ops, params, x)

    def during(self, call: Callable[[], Any]) -> int:
        """Calls of the function in a call of another."""
        before = self.calls
        call()
        return self.calls - before


@check()
def check_cost_of_derivatives(subject: Subject) -> float:
    """No derivative evaluates its function more than twice: `value_and_grad`, `jvp`, `vjp`, and each call of a pullback."""
    counted, params = _Counted(), scenario("waves").params
    found: dict[str, int] = {}
    with subject.working() as engine:
        at, x, v, w = engine.asarrays(params), *(engine.asarray(array) for array in (X, V, W))

        def f(points: Array) -> Array:
            return counted(engine.ops, at, points)

        gradient = engine.value_and_grad(lambda p: engine.ops.sum(w * counted(engine.ops, p, x)))
        found["value_and_grad"] = counted.during(lambda: gradient(at))
        if "jvp" in subject.products:
            found["jvp"] = counted.during(lambda: PRODUCTS["jvp"](engine, f, x, v))
        if "vjp" in subject.products:
            pulls: list[Any] = []
            found["vjp"] = counted.during(lambda: pulls.append(engine.vjp(f, x)[1]))
            found["a pullback"] = counted.during(lambda: pulls[0](v))
        d = x.shape[1]
        found["the diagonal, a dimension,"] = -(-counted.during(lambda: engine.jacobian_diagonal(f, x)) // (d + 1))
    dear = [f"{what} evaluates its function {calls} times" for what, calls in found.items() if calls > 2]
    if dear:
        raise CheckFailed("; ".join(dear))
    return 0.0


STEPS = 8


@check()
def check_cost_of_a_step(subject: Subject) -> float:
    """A session evaluates the model about as often as the plain loop over the backend's own gradient does, or traces it."""
    ways: tuple[Compile, ...] = ("auto", "off")
    calls: dict[str, int] = {}
    for compile in ways:
        calls[compile] = _calls_of_a_run(subject, compile)
    most = 1.5 * calls["off"] + 2
    if calls["auto"] > most:
        raise CheckFailed(f"{STEPS} steps evaluate the model {calls['auto']} times; the plain loop does {calls['off']} times")
    return 0.0


def _calls_of_a_run(subject: Subject, compile: Compile) -> int:
    """Calls of the model in so many steps, after those that a first chunk of as many needed to set the session up."""
    counted, waves = _Counted(), scenario("waves")
    case = replace(waves, model=ScoreFunction(counted, functions.WAVES.params), objective=ImplicitScoreMatching())
    run = Training(subject, TrainingCase("cost", case, OPTIMIZERS["momentum"]), compile=compile)
    run.run(np.zeros(STEPS))
    return counted.during(lambda: run.run(np.zeros(STEPS)))
