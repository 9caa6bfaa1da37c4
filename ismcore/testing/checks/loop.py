"""The core's training loop on the backend: held-out losses, and losses, gradients and states that are not finite."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from ismcore.errors import CallbackFailed
from ismcore.models import MLP, ScoreFunction
from ismcore.objectives import ImplicitScoreMatching
from ismcore.ops import Array, Ops, Params
from ismcore.testing.cases import OPTIMIZERS, TrainingCase
from ismcore.testing.checks.training import compare_states
from ismcore.testing.kit import check
from ismcore.testing.scenarios import WEIGHTS, Scenario, drawn, formula_of, scenario
from ismcore.testing.subject import CheckFailed, Subject, Training
from ismcore.training.events import STOP, FitEvent
from ismcore.training.loop import Loop, train, validation_loss
from ismcore.training.run_state import Plan, RunState

RATES = (0.05, 0.04, 0.03)


@cache
def held_out_cases() -> tuple[Scenario, ...]:
    """Weighted rows: by differentiation, and by a closed formula."""
    net = MLP((4,), "silu")
    return (
        replace(scenario("affine3"), id="affine3", row_weight=WEIGHTS),
        drawn("mlp", net, formula_of(net), 4, 3, ImplicitScoreMatching()),
    )


def _loop(subject: Subject, case: TrainingCase, plan: Plan, begun: RunState | None = None, **watched: Any) -> RunState:
    """What a run of the core's loop comes to, from its start or a state; the rows held out are those trained on."""
    engine, problem = subject.engine(), case.problem()
    loop = Loop(
        problem,
        plan,
        RunState(case.start().astype(subject.dtype)) if begun is None else begun,
        validation_loss=validation_loss(engine, replace(problem, row_weight=WEIGHTS)),
        **watched,
    )
    return train(engine, loop)


@check(held_out_cases)
def check_held_out_loss(subject: Subject, case: Scenario) -> float:
    """The loss of rows held out, by their weights, at the parameters of each epoch, and the events that tell of it."""
    training = TrainingCase(case.id, case, OPTIMIZERS["momentum"])
    plan = Plan(len(RATES), RATES, snapshot_epochs=(0, 1), patience=len(RATES))
    events: list[FitEvent] = []
    found = _loop(subject, training, plan, listeners=(events.append,), save=lambda state, force: "file" if force else "")
    held_out, right, state = replace(case, row_weight=WEIGHTS), [], training.start()
    for epoch in range(len(RATES)):
        _, state = training.train(RATES[epoch : epoch + 1], state)
        right.append(held_out.value_and_grad(state.params)[0])
    if found.status != "completed" or [event.kind for event in events][-1] != "end":
        raise CheckFailed(f"a run of {len(RATES)} epochs ends as {found.status!r}")
    validation = np.array([found.validation[epoch] for epoch in range(1, len(RATES) + 1)])
    tolerance = subject.tolerances.steps
    return max(
        subject.close(validation, right, tolerance, "the losses of rows held out", dtype="float64"),
        compare_states(subject, found.state, state, tolerance, f"after {len(RATES)} epochs of the loop"),
    )


def _far(subject: Subject) -> float:
    """A rate whose square overflows in the dtype."""
    return 1e200 if subject.dtype == "float64" else 1e30


@check()
def check_divergence_is_seen(subject: Subject) -> float:
    """A loss that overflows ends the run in the last state that was finite, however the steps are cut into chunks."""
    case = TrainingCase("diverges", scenario("affine3"), OPTIMIZERS["momentum"])
    rates = (0.05, _far(subject), 0.05, 0.05)
    found = _loop(subject, case, Plan(len(rates), rates, on_nonfinite="stop"))
    if found.status != "diverged" or np.isfinite(found.losses[-1]):
        raise CheckFailed(f"a loss that overflows ends a run as {found.status!r}, with the losses {found.losses}")
    _, right = case.train(rates[:2])
    return compare_states(subject, found.state, right, subject.tolerances.steps, "of a run that diverged")


@check()
def check_divergence_is_rolled_back(subject: Subject) -> float:
    """A run that diverges and is to go back does so to the last epoch that was finite, at half the rate, ten times at most."""
    case = TrainingCase("diverges", scenario("affine3"), OPTIMIZERS["momentum"])
    rates = (0.05, _far(subject), 0.05)
    found = _loop(subject, case, Plan(len(rates), rates, on_nonfinite="rollback"))
    begun = _loop(subject, case, Plan(1, rates[:1], on_nonfinite="rollback"))
    again = _loop(subject, case, Plan(len(rates), rates, on_nonfinite="rollback"), replace(begun, status=""))
    if (again.status, again.rollbacks, again.rollback_point and again.rollback_point.epoch) != ("diverged", 10, 1):
        raise CheckFailed(f"a run that goes on ends as {again.status!r} after {again.rollbacks} rollbacks")
    if (found.status, found.rollbacks, found.rate_factor) != ("diverged", 10, 0.5**10):
        raise CheckFailed(
            f"a run ends as {found.status!r} after {found.rollbacks} rollbacks, at {found.rate_factor} of its rate"
        )
    return 0.0


@check()
def check_update_that_overflows(subject: Subject) -> float:
    """An update that is not finite ends the run in the state before it, though the loss of that step is finite."""
    case = TrainingCase("diverges", scenario("affine3"), OPTIMIZERS["momentum"])
    rates = (0.05, 0.04, float(np.finfo(subject.dtype).max), 0.05)
    found = _loop(subject, case, Plan(len(rates), rates, on_nonfinite="stop"))
    if found.status != "diverged":
        raise CheckFailed(f"an update that overflows ends a run as {found.status!r}")
    _, right = case.train(rates[:2])
    return compare_states(subject, found.state, right, subject.tolerances.steps, "of a run whose update overflowed")


def _stops(event: FitEvent) -> object:
    return STOP if event.epoch else None


def _raises(event: FitEvent) -> object:
    if event.epoch:
        raise CallbackFailed("a listener that fails")
    return None


@check()
def check_runs_end(subject: Subject) -> float:
    """A run ends where a listener says so, where it is done, where held-out rows get worse, and where a listener raises."""
    case = TrainingCase("ends", scenario("affine3"), OPTIMIZERS["momentum"])
    away = Plan(8, (4.0,) * 8, patience=1)  # each step goes further beyond the minimum
    done = _loop(subject, case, Plan(1))
    found = {
        "interrupted": _loop(subject, case, Plan(8), listeners=(_stops,)).status,
        "early_stopped": _loop(subject, case, away).status,
        "completed": _loop(subject, case, Plan(1), replace(done, status=""), save=lambda state, force: "").status,
    }
    wrong = [f"{status!r}, not {right!r}" for right, status in found.items() if status != right]
    try:
        _loop(subject, case, Plan(8), listeners=(_raises,), save=lambda state, force: "")
    except CallbackFailed:
        pass
    else:
        wrong.append("a listener's error is lost")
    if wrong:
        raise CheckFailed(f"runs end as {'; '.join(wrong)}")
    return 0.0


@check()
def check_overflow_is_seen(subject: Subject) -> float:
    """Losses and states that are not finite are given as such, where the loss overflows, and where the gradient does too."""
    base, tiny = scenario("affine3"), TrainingCase("overflow", scenario("affine3"), OPTIMIZERS["momentum"])
    run = Training(subject, tiny)
    losses = run.run([0.05, _far(subject), 0.05, 0.05])
    if not np.isfinite(losses[:2]).all() or np.isfinite(losses[2:]).any():
        raise CheckFailed(f"losses of which the last two overflow are given as {losses}")
    far = float(np.finfo(subject.dtype).max) / 1e3
    params = {name: np.full_like(value, far) for name, value in base.params.items()}
    large = replace(base, params=params, x=base.x * 1024.0)
    run = Training(subject, replace(tiny, scenario=large))
    losses = run.run([0.05])
    if np.isfinite(losses).any() or run.state().finite:
        raise CheckFailed(f"a gradient that overflows leads to the loss {losses[0]} and a state that is finite")
    return 0.0


@check()
def check_interrupts_pass(subject: Subject) -> float:
    """A KeyboardInterrupt that is raised while a session works reaches the caller."""
    waves = scenario("waves")

    def interrupted(ops: Ops, params: Params, x: Array) -> Array:
        raise KeyboardInterrupt

    model = ScoreFunction(interrupted, waves.model.initial_params(0, 3))
    case = TrainingCase("interrupted", replace(waves, model=model), OPTIMIZERS["momentum"])
    try:
        Training(subject, case).run([0.05])
    except KeyboardInterrupt:
        return 0.0
    raise CheckFailed("a KeyboardInterrupt in a step is swallowed: who presses Ctrl-C waits for the end of the fit")
