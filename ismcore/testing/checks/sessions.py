"""Several sessions in one process: each trains its own problem, whatever was prepared before it or runs beside it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from ismcore.models import MLP, ScoreFunction
from ismcore.objectives import ImplicitScoreMatching, SlicedScoreMatching
from ismcore.testing import functions, oracle
from ismcore.testing.cases import LARGE_EPS, OPTIMIZERS, TrainingCase
from ismcore.testing.checks.training import compare_states, expected, follow
from ismcore.testing.kit import check
from ismcore.testing.scenarios import WEIGHTS, scenario
from ismcore.testing.subject import Subject, Training

RATES = [0.05, 0.05, 0.05]
ADAM, MOMENTUM = OPTIMIZERS["adam"], OPTIMIZERS["momentum"]


@dataclass(frozen=True, eq=False)
class Change:
    """What differs between a problem and the one prepared after it."""

    id: str
    make: Callable[[TrainingCase], TrainingCase]


def _scenario(case: TrainingCase, **changes: object) -> TrainingCase:
    return replace(case, scenario=replace(case.scenario, **changes))  # type: ignore[arg-type]


CHANGES = (
    Change("samples", lambda case: _scenario(case, x=case.scenario.x[::-1] * 0.5 + 0.25)),
    Change("columns", lambda case: _scenario(case, x=case.scenario.x[:, ::-1])),  # as many numbers, of the same sum
    Change("shape", lambda case: _scenario(case, x=case.scenario.x[:2])),
    Change("curvature-weight", lambda case: _scenario(case, objective=ImplicitScoreMatching(curvature_weight=0.125))),
    Change("no-penalty", lambda case: _scenario(case, objective=ImplicitScoreMatching())),
    Change("row-weight", lambda case: _scenario(case, row_weight=WEIGHTS)),
    Change("params", lambda case: _scenario(case, params={k: 0.5 * v for k, v in case.scenario.params.items()})),
    Change("optimizer-constants", lambda case: replace(case, optimizer=LARGE_EPS)),
    Change("optimizer", lambda case: replace(case, optimizer=MOMENTUM)),
)


@check(lambda: CHANGES)
def check_preparation_is_fresh(subject: Subject, change: Change) -> float:
    """A problem that differs in one thing from the one prepared before it is trained as it is, and so is the first, after."""
    first = TrainingCase("first", scenario("affine3"), ADAM)
    second = change.make(first)
    tolerance = subject.tolerances.gradient
    return max(follow(subject, case, RATES, tolerance) for case in (first, second, first))


@check()
def check_preparation_is_fresh_for_other_probes(subject: Subject) -> float:
    """Objectives that hold arrays of their own are equal where the arrays alone differ, and are not confused for that."""
    affine = scenario("affine3")
    probes = [np.roll(np.broadcast_to(affine.x, (1, *affine.x.shape)), k, axis=2) for k in range(2)]
    runs = [_scenario(TrainingCase("probes", affine, ADAM), objective=SlicedScoreMatching(probes=each)) for each in probes]
    return max(follow(subject, case, RATES, subject.tolerances.gradient) for case in (*runs, runs[0]))


@check()
def check_preparation_is_fresh_for_another_model(subject: Subject) -> float:
    """Models whose parameters and samples have equal shapes are not confused."""
    softplus = scenario("s3_softplus-reg0.1")
    tanh = replace(softplus, model=MLP((6,), "tanh"), formula=oracle.mlp("tanh"))
    cases = [TrainingCase("model", case, ADAM) for case in (softplus, tanh, softplus)]
    return max(follow(subject, case, RATES, subject.tolerances.gradient) for case in cases)


@check()
def check_preparation_is_fresh_for_another_function(subject: Subject) -> float:
    """Functions of the user's whose parameters have equal shapes are not confused."""
    waves = scenario("waves")

    def halved(params: dict[str, np.ndarray], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        psi, jacobian = functions.waves_formula(params, x)
        return 0.5 * psi, 0.5 * jacobian

    model = ScoreFunction(lambda ops, params, x: 0.5 * functions.WAVES.apply(ops, params, x), functions.WAVES.params)
    cases = [TrainingCase("function", case, MOMENTUM) for case in (waves, replace(waves, model=model, formula=halved))]
    return max(follow(subject, case, RATES, subject.tolerances.gradient) for case in cases)


@check()
def check_preparation_is_fresh_for_another_dtype(subject: Subject) -> float:
    """A run in one dtype does not decide the dtype of the next."""
    case = TrainingCase("dtype", scenario("affine3"), ADAM)
    others = [replace(subject, dtype=dtype) for dtype in subject.backend.dtypes if dtype in ("float32", "float64")]
    worst = 0.0
    for each in (*others, subject):
        worst = max(worst, follow(each, case, RATES, each.tolerances.steps))
    return worst


def _three_runs() -> list[TrainingCase]:
    base = scenario("affine3")
    return [TrainingCase(str(k), replace(base, x=base.x * (0.25 + 0.25 * k)), ADAM) for k in (1, 2, 3)]


@check()
def check_sessions_interleave(subject: Subject) -> float:
    """Sessions that take turns do not disturb each other: no state is the class's or the module's."""
    cases = _three_runs()
    runs = [Training(subject, case) for case in cases]
    losses = np.hstack([[run.run(RATES[:1]) for run in runs] for _ in range(3)])
    worst, tolerance = 0.0, subject.tolerances.gradient
    for case, run, found in zip(cases, runs, losses, strict=True):
        right, state = expected(case, tuple(RATES))
        error = subject.close(found, right, tolerance, f"the losses of session {case.id} of 3", dtype="float64")
        worst = max(worst, error, compare_states(subject, run.state(), state, tolerance, f"in session {case.id} of 3"))
    return worst


@check()
def check_sessions_in_threads(subject: Subject) -> float:
    """Sessions in three threads at once do what they do one after the other."""
    rates = RATES * 4
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(follow, subject, case, rates, subject.tolerances.steps) for case in _three_runs()]
        return max(run.result() for run in runs)
