"""Arrays in and out: values, dtypes, and whose memory it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ismcore.testing.cases import TrainingCase, training_cases
from ismcore.testing.kit import check
from ismcore.testing.scenarios import Scenario, scenario
from ismcore.testing.subject import CheckFailed, Subject, Training, identical


@dataclass(frozen=True, eq=False)
class Form:
    """An array in some shape, dtype and memory layout."""

    id: str
    make: Callable[[], np.ndarray]


def _frozen() -> np.ndarray:
    array = np.arange(6.0).reshape(2, 3)
    array.flags.writeable = False
    return array


FORMS = (
    Form("scalar", lambda: np.array(0.625)),
    Form("vector", lambda: np.arange(3.0)),
    Form("matrix", lambda: np.arange(15.0).reshape(5, 3) - 7.5),
    Form("float32", lambda: np.arange(6, dtype=np.float32).reshape(2, 3) / 8),
    Form("integer", lambda: np.arange(6).reshape(2, 3)),
    Form("columns-first", lambda: np.asfortranarray(np.arange(15.0).reshape(5, 3))),
    Form("strided", lambda: np.arange(40.0).reshape(8, 5)[::-2, ::2]),
    Form("read-only", _frozen),
)


@check(lambda: FORMS)
def check_round_trip(subject: Subject, form: Form) -> float:
    """An array that goes in comes out, in the working dtype, whatever its dtype and layout."""
    array = form.make()
    with subject.working() as engine:
        found = engine.to_numpy(engine.asarray(array))
    return subject.close(found, array, subject.tolerances.value, "the array")


@check()
def check_what_is_not_finite_goes_through(subject: Subject) -> float:
    """Infinities and NaN go in and come out as what they are."""
    array = np.array([np.inf, -np.inf, np.nan, 1.0])
    with subject.working() as engine:
        found = engine.to_numpy(engine.asarray(array))
    if not np.array_equal(found, array, equal_nan=True):
        raise CheckFailed(f"{array} goes in, and {found} comes out")
    return 0.0


@check()
def check_asarray_copies(subject: Subject) -> float:
    """`asarray` shares no memory with its argument, not even where dtype and layout are right, nor writes to it."""
    source, many = np.arange(4.0).astype(subject.dtype), np.ones((5000, 3)).astype(subject.dtype)
    with subject.working() as engine:
        engine.asarray(many)
        if not np.array_equal(many, np.ones((5000, 3))):
            raise CheckFailed("asarray writes to its argument of 5000 rows")
        array = engine.asarray(source)
        source[:] = -1.0
        found = engine.to_numpy(array)
    return subject.close(found, np.arange(4.0), subject.tolerances.value, "an array whose source was written to")


@check()
def check_to_numpy_copies(subject: Subject) -> float:
    """`to_numpy` gives a writable copy: writing to it reaches neither the array nor the next copy."""
    with subject.working() as engine:
        array = engine.asarray(np.arange(4.0))
        first = engine.to_numpy(array)
        if not first.flags.writeable:
            raise CheckFailed("to_numpy returns a read-only array, so no copy of its own")
        first[:] = -1.0
        found = engine.to_numpy(array)
    return subject.close(found, np.arange(4.0), subject.tolerances.value, "an array whose copy was written to")


@check()
def check_dtype_is_real(subject: Subject) -> float:
    """Computing keeps the digits of the dtype: a small addend survives in float64, and both dtypes stay what they are."""
    small = 2.0**-40 if subject.dtype == "float64" else 2.0**-20
    with subject.working() as engine:
        total = engine.to_numpy((engine.asarray(np.array(1.0)) + small) - 1.0)
        product = engine.value_and_grad(lambda params: ((params["p"] + 1.0) - 1.0) * (params["p"] + 1.0))
        value, gradient = product({"p": engine.asarray(np.array(small))})
        value, slope = engine.to_numpy(value), engine.to_numpy(gradient["p"])
    found = np.array([total / small, value / small, (slope - 1.0) / small])
    return subject.close(found, [1.0, 1.0 + small, 2.0], subject.tolerances.value, "what is left of a small addend")


@check(lambda: (scenario("affine3"), scenario("waves")))
def check_evaluation_leaves_inputs(subject: Subject, case: Scenario) -> float:
    """Evaluating writes to neither parameters nor samples."""
    params, x = {name: value.copy() for name, value in case.params.items()}, case.x.copy()
    subject.compute(case)
    identical({**case.params, "x": case.x}, {**params, "x": x}, "before and after evaluating, the inputs")
    return 0.0


@check(training_cases)
def check_training_leaves_inputs(subject: Subject, case: TrainingCase) -> float:
    """A session writes to neither the samples nor the state that it was given."""
    state = case.start().astype(subject.dtype)
    before = state.copy()
    run = Training(subject, case, state)
    run.run([0.1, 0.1])
    inputs = {"x": case.scenario.x, **before.arrays()}
    identical({"x": run.problem.x, **state.arrays()}, inputs, "before and after training, samples and the given state")
    return 0.0


@check(training_cases)
def check_state_is_a_copy(subject: Subject, case: TrainingCase) -> float:
    """What `state` returned is nobody else's: neither later steps change it, nor does writing to it change the run.

    Nor does writing to the state that the session began with.
    """
    state = case.start().astype(subject.dtype)
    plain = Training(subject, case, state)
    plain.run([0.1])
    kept, expected = plain.state(), plain.state().copy()
    plain.run([0.1])
    identical(kept.arrays(), expected.arrays(), "before and after a later step, returned states")
    begun = state.copy()
    watched = Training(subject, case, begun)
    _spoil(begun.arrays().values())
    watched.run([0.1])
    _spoil(watched.state().arrays().values())
    watched.run([0.1])
    found = watched.state().arrays()
    identical(found, plain.state().arrays(), "without and after writing to a given or returned state, runs")
    return 0.0


def _spoil(arrays: Iterable[np.ndarray]) -> None:
    for array in arrays:
        if array.flags.writeable:
            array[...] = np.nan
