"""The backend as a guest in a process: global state, and errors for what it does not offer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import numpy as np

import ismcore
from ismcore.backend.contract import DTYPES, Backend
from ismcore.errors import DeviceUnavailable, OptionError
from ismcore.plugins.lookup import registry
from ismcore.testing.cases import OPTIMIZERS, TrainingCase, training_cases
from ismcore.testing.globals import INHERITED, differences, snapshot
from ismcore.testing.kit import check
from ismcore.testing.scenarios import scenario
from ismcore.testing.subject import CheckFailed, NotDeclared, Subject, Training


@check()
def check_declarations(subject: Subject) -> float:
    """Name, dtypes, devices and products are there; equal requests give equal instances, which programs are cached by."""
    backend = subject.backend
    engine = subject.engine()
    faults = {
        "its name must be a string": isinstance(getattr(backend, "name", None), str),
        f"dtypes must be some of {', '.join(DTYPES)}": set(backend.dtypes) <= set(DTYPES) and bool(backend.dtypes),
        "the default device must be one of its devices": backend.default_device() in backend.devices(),
        "it must declare jvp, vjp or both": bool(subject.products),
        f"an instance must have the dtype {subject.dtype}": engine.dtype == subject.dtype,
        f"an instance must be on {subject.device}": engine.device in (subject.device, f"{subject.device}:0"),
        "two instances with the same options must be equal": engine == subject.engine(),
        "two equal instances must have one hash": hash(engine) == hash(subject.engine()),
        "instances of two precisions must differ": engine != backend(dtype=engine.dtype, precision="default"),
    }
    broken = [rule for rule, holds in faults.items() if not holds]
    if broken:
        raise CheckFailed("; ".join(broken))
    return 0.0


@contextmanager
def _unchanged(what: str) -> Iterator[None]:
    before = snapshot()
    yield
    changed = differences(before, snapshot())
    if changed:
        raise CheckFailed(f"{what} changed {'; '.join(changed)}")


@check(training_cases)
def check_global_state_is_left(subject: Subject, case: TrainingCase) -> float:
    """Constructing, evaluating and training leave the process as they found it."""
    subject.compute(case.scenario)  # what a framework sets up on first use is judged in a new process, below
    with _unchanged("constructing an instance"):
        subject.engine()
    with _unchanged("evaluating"):
        subject.compute(case.scenario)
    with _unchanged("training"):
        run = Training(subject, case)
        run.run([0.05, 0.05])
        run.state()
    return 0.0


@check()
def check_scope_restores(subject: Subject) -> float:
    """The scope restores what it set, when nested, when shared by two instances, and when an error passes through it."""
    engine = subject.engine()
    with _unchanged("a scope within a scope"), engine.scope(), engine.scope(), subject.engine().scope():
        pass
    with _unchanged("a scope that an error left"), suppress(ZeroDivisionError), engine.scope():
        raise ZeroDivisionError
    return 0.0


_FIRST_USE = """
import importlib, json, os, sys
found = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
from ismcore.testing.globals import differences, import_late_modules, snapshot, with_default_signals
with_default_signals()
for module in {before!r}:
    importlib.import_module(module)
import_late_modules()
from ismcore.testing.checks.process import use
before = snapshot()
use(getattr(importlib.import_module({module!r}), {name!r}), {device!r})
json.dump(differences(before, snapshot()), found)
found.close()
"""
"""Whatever is printed goes to standard error: standard output is for what is found."""


def use(backend: type[Backend], device: str) -> None:
    """Construct, evaluate and train once a dtype: what the check of first use runs in a process of its own."""
    case = training_cases()[0]
    for dtype in backend.dtypes:
        subject = Subject(backend, dtype, device)
        subject.compute(case.scenario)
        run = Training(subject, case)
        run.run([0.05, 0.05])
        run.state()


@cache
def _changed_by_first_use(before: tuple[str, ...], module: str, name: str, device: str) -> list[str]:
    code = _FIRST_USE.format(before=before, module=module, name=name, device=device)
    path = [os.path.abspath(folder) for folder in sys.path]
    environment = {**INHERITED.environ, "PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run(  # noqa: S603  (our own code, from this file)
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment, cwd=INHERITED.folder
    )
    if done.returncode:
        failure = CheckFailed(f"using it in a new process fails: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
        failure.add_note(done.stderr)
        raise failure
    return list(json.loads(done.stdout))


@check()
def check_first_use_leaves_global_state(subject: Subject) -> float:
    """In a new process, importing and using the backend changes nothing beyond what importing its framework does.

    The process inherits what was there before the backend was loaded here, so that what its import changes is seen.
    """
    backend = subject.backend
    module, name = backend.__module__, backend.__qualname__
    if module == "__main__" or getattr(sys.modules[module], name, None) is not backend:
        raise NotDeclared("the class cannot be imported by name in another process")
    info = registry().find(subject.name) if subject.name else None
    # Of a class that is not installed it is not known which framework it drives: there the import itself is not judged.
    changed = _changed_by_first_use(tuple(info.requires) if info else (module,), module, name, subject.device)
    if changed:
        raise CheckFailed(f"import and first use changed {'; '.join(changed)}")
    return 0.0


@check()
def check_front_door(subject: Subject) -> float:
    """`ismcore.evaluate` and `ismcore.fit` reach the backend by name, in the dtype asked for, and leave the process alone."""
    name, case = subject.name, scenario("affine3")
    if name is None:
        raise NotDeclared("the class was passed in as it is, and is not installed under a name")
    options: dict[str, Any] = {"backend": name, "dtype": subject.dtype, "device": subject.device}
    with _unchanged("evaluate"):
        found = ismcore.evaluate(case.model, case.params, case.x, case.objective, **options)
    # Four rows are few, and a fit says so.
    with warnings.catch_warnings(action="ignore", category=ismcore.IsmWarning), _unchanged("fit"):
        result = ismcore.fit(
            case.x,
            model=case.model,
            objective=case.objective,
            initial_params=case.params,
            optimizer=OPTIMIZERS["adam"],
            epochs=2,
            recipe="reference",
            progress=False,
            **options,
        )
    if (found.backend, found.dtype, result.backend, result.dtype) != (name, subject.dtype) * 2:
        raise CheckFailed(f"asked for {name} in {subject.dtype}, got {found.backend} in {found.dtype}")
    tolerance = subject.tolerances
    subject.typed(result.params["weight"], "the fitted weight")
    return max(
        subject.close(np.array(found.loss), case.answer.loss, tolerance.value, "evaluate's loss", dtype="float64"),
        subject.close(found.gradient, case.answer.gradient, tolerance.gradient, "evaluate's gradient in"),
        subject.close(result.history["loss"][:1], [case.answer.loss], tolerance.value, "fit's first loss", dtype="float64"),
    )


def _refused(subject: Subject, error: type[Exception], option: str, value: str) -> float:
    what, options = f"the {option} {value}", dict[str, Any](dtype=subject.dtype)
    options[option] = value
    try:
        subject.backend(**options)
    except error as raised:
        if value in str(raised):
            return 0.0
        raise CheckFailed(f"{what} is refused without being named: {raised}") from raised
    except Exception as raised:
        raise CheckFailed(f"{what} must raise {error.__name__}, not {type(raised).__name__}: {raised}") from raised
    raise CheckFailed(f"{what} is accepted in silence; it must raise {error.__name__}")


@check()
def check_unknown_dtype_is_refused(subject: Subject) -> float:
    """A dtype that is not declared raises OptionError, and is named."""
    return _refused(subject, OptionError, "dtype", "float16")


@check()
def check_unknown_device_is_refused(subject: Subject) -> float:
    """A device that is not there raises DeviceUnavailable, and is named."""
    return _refused(subject, DeviceUnavailable, "device", "nowhere:7")


@check()
def check_unknown_precision_is_refused(subject: Subject) -> float:
    """A precision that is none of the two raises OptionError, and is named."""
    return _refused(subject, OptionError, "precision", "sloppy")
