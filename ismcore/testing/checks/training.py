"""Training sessions: what each step does, against optimisers written out in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from ismcore.objectives import ImplicitScoreMatching
from ismcore.optimizers.rules import SGD, Optimizer
from ismcore.optimizers.state import TrainState
from ismcore.testing import oracle
from ismcore.testing.cases import LARGE_EPS, OPTIMIZERS, TrainingCase, drawing_cases, training_cases
from ismcore.testing.kit import check
from ismcore.testing.scenarios import Scenario, all_scenarios, scenario
from ismcore.testing.subject import CheckFailed, Subject, Training, identical


def with_sessions() -> Sequence[Scenario]:
    """The scenarios that sessions are checked on."""
    return [case for case in all_scenarios() if case.session]


@cache
def expected(case: TrainingCase, rates: tuple[float, ...]) -> tuple[np.ndarray, TrainState]:
    """Losses and state after steps at these rates, by the oracle."""
    return case.train(rates)


def compare_states(subject: Subject, found: TrainState, right: TrainState, tolerance: float, when: str) -> float:
    """Worst error over tolerance of a state's parameters, moments and average.

    Raises:
        CheckFailed: It is too far off, or counts its steps wrongly.
    """
    if found.step != right.step:
        raise CheckFailed(f"the state {when} counts {found.step} steps, not {right.step}")
    return max(
        subject.close(found.params, right.params, tolerance, f"{when}, parameter"),
        subject.close(found.first_moment, right.first_moment, tolerance, f"{when}, first moment of"),
        subject.close(found.second_moment, right.second_moment, tolerance, f"{when}, second moment of"),
        subject.close(found.average, right.average, tolerance, f"{when}, average of"),
    )


def follow(
    subject: Subject, case: TrainingCase, rates: Sequence[float], tolerance: float, *, begun: int = 0, cut: int | None = None
) -> float:
    """Worst error over tolerance of a session's losses and state against the oracle's.

    Args:
        subject: The backend under test.
        case: What is trained, and how.
        rates: One learning rate a step.
        tolerance: Largest error; see `Subject.close`.
        begun: How many of the steps the oracle takes before the session begins.
        cut: The step before which the session's run is cut into two; None for one run.

    Raises:
        CheckFailed: It is too far off.
    """
    losses, right = expected(case, tuple(rates))
    run = Training(subject, case, expected(case, tuple(rates[:begun]))[1] if begun else None)
    cut = len(rates) if cut is None else cut
    found = np.concatenate([run.run(part) for part in (rates[begun:cut], rates[cut:]) if len(part)])
    when = f"after {begun} steps elsewhere and {cut - begun} + {len(rates) - cut} here"
    return max(
        subject.close(found, losses[begun:], tolerance, f"the losses {when}", dtype="float64"),
        compare_states(subject, run.state(), right, tolerance, when),
    )


PROBE = OPTIMIZERS["momentum"]
"""After its first step the velocity is the gradient itself."""


@cache
def _probed(subject: Subject, case: Scenario) -> tuple[np.ndarray, TrainState]:
    run = Training(subject, TrainingCase("probe", case, PROBE))
    return run.run([0.0]), run.state()


@check(with_sessions)
def check_session_objective(subject: Subject, case: Scenario) -> float:
    """A session minimises the objective that it was given: its loss, with the rate 0, is the objective at the start."""
    losses, state = _probed(subject, case)
    return max(
        subject.close(losses, [case.answer.loss], subject.tolerances.value, "the session's loss", dtype="float64"),
        subject.close(state.params, case.params, subject.tolerances.value, "after a step of rate 0, parameter"),
    )


@check(with_sessions)
def check_session_gradient(subject: Subject, case: Scenario) -> float:
    """A session follows the objective's gradient: momentum's velocity after one step is the gradient."""
    _, state = _probed(subject, case)
    return subject.close(state.first_moment, case.answer.gradient, subject.tolerances.gradient, "velocity of")


@check(training_cases)
def check_loss_is_before_update(subject: Subject, case: TrainingCase) -> float:
    """The loss of a step is the one before its update."""
    losses, _ = expected(case, (0.05, 0.05))
    found = Training(subject, case).run([0.05, 0.05])
    return subject.close(found, losses, subject.tolerances.gradient, "the losses of two steps", dtype="float64")


@check(training_cases)
def check_one_step(subject: Subject, case: TrainingCase) -> float:
    """One step leads to the right parameters and moments."""
    return follow(subject, case, [0.05], subject.tolerances.gradient)


@check(training_cases)
def check_twenty_steps(subject: Subject, case: TrainingCase) -> float:
    """Twenty steps follow the trajectory computed in NumPy."""
    return follow(subject, case, [case.optimizer.learning_rate] * 20, subject.tolerances.steps)


@check(drawing_cases)
def check_draws_of_each_step(subject: Subject, case: TrainingCase) -> float:
    """Each step takes the probes, noise or scales that were drawn for it, in whatever chunks the steps are taken."""
    return follow(subject, case, [0.05] * 6, subject.tolerances.steps, cut=4)


@check(lambda: training_cases()[:2])
def check_rate_of_each_step(subject: Subject, case: TrainingCase) -> float:
    """Each step takes the rate that it is given."""
    return follow(subject, case, list(0.1 * 0.7 ** np.arange(6)), subject.tolerances.steps)


def _variant(id: str, optimizer: Optimizer) -> TrainingCase:
    return TrainingCase(id, scenario("affine3"), optimizer)


@check()
def check_adam_bias_correction(subject: Subject) -> float:
    """Adam divides its moments by 1 - b^t, so that the first step is as long as the rate."""
    return follow(subject, _variant("bias-correction", OPTIMIZERS["adam"]), [0.01] * 3, subject.tolerances.gradient)


@check()
def check_adam_epsilon(subject: Subject) -> float:
    """Adam adds eps to the root of the second moment, not under it."""
    return follow(subject, _variant("large-eps", LARGE_EPS), [0.05] * 3, subject.tolerances.gradient)


@check(training_cases)
def check_chunks(subject: Subject, case: TrainingCase) -> float:
    """Twenty steps at once, and seven and then thirteen, give the same bits."""
    rates = [case.optimizer.learning_rate] * 20
    whole, parts = (Training(subject, case) for _ in range(2))
    one = whole.run(rates)
    other = np.concatenate([parts.run(rates[:7]), parts.run(rates[7:])])
    identical({"losses": one, **whole.state().arrays()}, {"losses": other, **parts.state().arrays()}, "20 and 7 + 13 steps")
    return 0.0


@check()
def check_session_follows(subject: Subject) -> float:
    """A session that says it follows samples that moved takes the steps of one prepared for them, to the bits."""
    case = next(case for case in training_cases() if case.batch_size is None)
    rates = [case.optimizer.learning_rate] * 3
    run = Training(subject, case)
    run.run(rates)
    state, problem = run.state(), run.problem
    weight = np.arange(1.0, problem.n + 1.0)
    moved = replace(problem, x=0.5 * problem.x, row_weight=weight / weight.sum())
    if not run.follow(moved):
        return 0.0
    prepared = Training(subject, case, state)
    prepared.prepare(moved, state)
    one, other = run.run(rates), prepared.run(rates)
    identical({"losses": one, **run.state().arrays()}, {"losses": other, **prepared.state().arrays()}, "followed and prepared")
    return 0.0


@check(training_cases)
def check_run_goes_on_from_elsewhere(subject: Subject, case: TrainingCase) -> float:
    """A run begun elsewhere goes on here: three steps in NumPy, then seventeen in the backend."""
    return follow(subject, case, [case.optimizer.learning_rate] * 20, subject.tolerances.steps, begun=3)


@check(training_cases)
def check_run_goes_on_elsewhere(subject: Subject, case: TrainingCase) -> float:
    """A run begun here goes on elsewhere: seventeen steps in the backend, then three in NumPy."""
    rates = (case.optimizer.learning_rate,) * 20
    run = Training(subject, case)
    run.run(rates[:17])
    _, found = case.train(rates[17:], run.state().astype("float64"))
    right = expected(case, rates)[1]
    return compare_states(
        subject, found.astype(subject.dtype), right, subject.tolerances.steps, "after 17 steps here, 3 elsewhere"
    )


@check(training_cases)
def check_tiers_agree(subject: Subject, case: TrainingCase) -> float:
    """The backend's own loop does what the plain one over its derivatives does."""
    rates, runs = [case.optimizer.learning_rate] * 5, []
    for compile in ("auto", "off"):
        run = Training(subject, case, compile=compile)
        runs.append((run.run(rates), run.state()))
    (fast, fast_state), (plain, plain_state) = runs
    tolerance = subject.tolerances.steps
    return max(
        subject.close(fast, plain, tolerance, "the losses of the fast loop", dtype="float64"),
        compare_states(subject, fast_state, plain_state, tolerance, "after 5 steps of the fast loop"),
    )


@check(training_cases)
def check_training_is_deterministic(subject: Subject, case: TrainingCase) -> float:
    """Training twice gives the same bits."""
    runs = [Training(subject, case) for _ in range(2)]
    first, second = ({"losses": run.run([0.05] * 5), **run.state().arrays()} for run in runs)
    identical(first, second, "two equal runs")
    return 0.0


CORNERS = np.array([[i, j, k] for i in (-1.0, 1.0) for j in (-1.0, 1.0) for k in (-1.0, 1.0)])
SHEAR = np.array([[1.0, 0.25, 0.0], [0.0, 1.0, -0.25], [0.0, 0.0, 1.0]])


@check()
def check_minimum_is_reached(subject: Subject) -> float:
    """Training an affine score ends at the exact minimiser, whatever the path."""
    optimizer = SGD(learning_rate=0.25, momentum=0.6)
    x = CORNERS @ SHEAR + [0.5, -0.25, 1.0]  # a covariance near 1, for which 200 steps are plenty
    curvature_weight = 0.125
    case = replace(scenario("affine3"), x=x, objective=ImplicitScoreMatching(curvature_weight))
    run = Training(subject, TrainingCase("minimum", case, optimizer))
    run.run([optimizer.learning_rate] * 200)
    right = oracle.affine_minimum(x, curvature_weight)
    return subject.close(run.state().params, right, subject.tolerances.steps, "after 200 steps, parameter")
