"""Every fault that is planted in a backend fails the check that names it; the page of the kit has them all."""

import functools
import re
from pathlib import Path

import pytest
from ismcore_autograd.backend import AutogradBackend
from planted import OWN, TRIAL, table
from planted.faults import tape_backend

from ismcore.testing import all_checks, check_backend

PAGE = (Path(__file__).parents[1] / "docs" / "conformance.md").read_text(encoding="utf-8")
ALL = {**TRIAL, **OWN}
TAPE = tape_backend()


@functools.cache
def control(check, tape, dtype):
    """What the check says of the backend in which nothing is planted."""
    return check_backend(TAPE if tape else AutogradBackend, dtype=dtype, only=[check])


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_planted_fault_fails_the_check_that_names_it(name):
    fault = ALL[name]
    backend = fault.make()
    report = check_backend(backend, dtype=fault.dtype, only=[fault.check])
    assert not report.ok, f"{fault.words} {fault.check} lets it pass"
    assert not any(row.message.startswith(("AttributeError", "TypeError", "NameError")) for row in report.failures), str(report)
    right = control(fault.check, not issubclass(backend, AutogradBackend), fault.dtype)
    assert {row.status for row in right.rows} == {"passed"}


def test_there_are_as_many_faults_of_ones_own_as_of_the_trial_and_more():
    assert len(TRIAL) >= 26
    assert len(OWN) >= 80
    assert not TRIAL.keys() & OWN.keys()
    assert {fault.check for fault in ALL.values()} <= {check.name for check in all_checks()}


def test_the_page_has_the_table_of_faults():
    assert table() in PAGE, "write it anew: cd tests && python -m planted"


def test_the_checks_that_the_page_names_exist():
    named = set(re.findall(r"`(check_\w+)`", PAGE)) - {"check_backend"}
    assert named <= {check.name for check in all_checks()}
