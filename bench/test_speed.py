"""Seconds a step, warm, of ours and of the programs beside it. Every program is checked first, and their rounds alternate."""

from __future__ import annotations

import pytest
from measuring import thread_count
from programs import names
from rounds import RECORDING, recorded

import conftest
from ismcore import ImplicitScoreMatching
from ismcore.analytic import find_route


def pytest_generate_tests(metafunc):
    rows = [
        pytest.param(case, backend, dtype, program, id=f"{case.id}-{backend}-{dtype}-{program}".replace(" ", "_"))
        for case in conftest.cases(metafunc.config)
        for backend in conftest.backends(metafunc.config)
        for dtype in case.dtypes
        for program in names(case, backend)
    ]
    metafunc.parametrize(("case", "backend", "dtype", "program"), rows)


@pytest.mark.benchmark(timer=recorded)
def test_step(request, cells, device, case, backend, dtype, program):
    timed = cells(case, backend, dtype, program)
    benchmark = request.getfixturevalue("benchmark")
    benchmark.group = f"{case.id} {device} {dtype}"
    benchmark.extra_info.update(
        case=case.id,
        family=case.family,
        backend=backend,
        device=device,
        dtype=dtype,
        program=program,
        n=len(case.x),
        d=case.x.shape[1],
        hidden=getattr(case, "hidden", ()),
        curvature_weight=getattr(case.objective, "curvature_weight", None),
        route=route(case),
        first_seconds=timed.first,
        threads=thread_count(backend),
        unit="seconds a step, of a whole call" if case.whole else "seconds a step",
    )
    RECORDING.hand_over(benchmark, timed.steps)


def route(case):
    """The closed formula that ours takes, or that it differentiates."""
    objective = case.objective
    if not isinstance(objective, ImplicitScoreMatching):
        return "differentiation"
    found = find_route(case.model, case.x.shape[1], trace=not objective.penalised)
    return type(found).__name__ if found else "differentiation"
