"""The kit is itself tested: each wrong backend fails the check that names its fault, which the right one passes."""

import functools
import os

import numpy as np
import pytest
from ismcore_autograd.backend import AutogradBackend
from planted import OWN, TRIAL
from wrong_backends import FAULTS

from ismcore.testing import all_checks, check_backend

CASES = [pytest.param(words, *row, id=f"{words.replace(' ', '_')}-{row[1]}") for words, row in FAULTS.items()]
CAUGHT = {}


class FaultTable:
    """Prints fault, check and evidence at the end of the run."""

    def pytest_terminal_summary(self, terminalreporter):
        terminalreporter.section("conformance kit: fault, the check that catches it, what it says")
        for words, row in CAUGHT.items():
            case = f"{row.check}[{row.scenario}]" if row.scenario else row.check
            terminalreporter.write_line(f"{words:<56} {case}: {row.message[:120]}")


@pytest.fixture(scope="module", autouse=True)
def fault_table(request):
    plugins = request.config.pluginmanager
    if not plugins.has_plugin("ismcore-fault-table"):  # a worker that takes over the tests of another comes here more than once
        plugins.register(FaultTable(), "ismcore-fault-table")


@pytest.fixture
def restored():
    """What the leaking backends leave behind is taken away again."""
    import jax
    import torch

    errors, dtype, x64 = np.geterr(), torch.get_default_dtype(), jax.config.jax_enable_x64
    yield
    np.seterr(**errors)
    torch.set_default_dtype(dtype)
    jax.config.update("jax_enable_x64", x64)
    os.environ.pop("ISMCORE_WRONG_BACKEND", None)


@functools.cache
def right(check, dtype):
    """What the check says of the backend that the wrong ones derive from. conformance/test_autograd.py has all its checks."""
    return check_backend(AutogradBackend, dtype=dtype, only=[check])


@pytest.mark.slow
@pytest.mark.parametrize(("words", "wrong", "named"), CASES)
@pytest.mark.usefixtures("restored")
def test_wrong_backend_fails_the_check_that_names_its_fault(words, wrong, named):
    dtype = "float32" if named == "check_round_trip" else "float64"
    report = check_backend(wrong, dtype=dtype, only=[named])
    assert not report.ok, str(report)
    CAUGHT[words] = report.failures[0]
    assert not any(row.message.startswith(("AttributeError", "TypeError", "NameError")) for row in report.failures), str(report)
    assert {row.status for row in right(named, dtype).by_check()[named]} == {"passed"}


def test_there_is_a_fault_for_each_of_most_checks():
    named = {check for _, check in FAULTS.values()} | {fault.check for fault in (TRIAL | OWN).values()}
    assert named <= {check.name for check in all_checks()}
    assert len(FAULTS) >= 15
    assert len(named) >= 2 * len(all_checks()) // 3
