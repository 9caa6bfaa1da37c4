"""What a planted fault is, and the backends that faults are planted in: a tape of its own for each, or HIPS-autograd."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

from ismcore_autograd.backend import AutogradBackend

from ismcore.backend import Backend, GenericSession

EXAMPLE = Path(__file__).parents[1] / "plugins" / "ismcore_tape" / "ismcore_tape"


@dataclass(frozen=True)
class Fault:
    """A backend that is wrong in one thing.

    Attributes:
        name: What it is called.
        words: What is wrong, in one line.
        check: The check of the kit that must fail on it, "" where none does.
        make: Gives the backend's class.
        dtype: In which it shows.
    """

    name: str
    words: str
    check: str
    make: Callable[[], type[Backend]]
    dtype: str = "float64"


Table = dict[str, Fault]


def fault(table: Table, check: str, *, dtype: str = "float64") -> Callable[[Callable[[], type[Backend]]], Any]:
    """Enter a function that gives a faulty backend into a table, under its name and words."""

    def enter(make: Callable[[], type[Backend]]) -> Any:
        table[make.__name__] = Fault(make.__name__, (make.__doc__ or "").strip(), check, make, dtype)
        return make

    return enter


def tape_fault(table: Table, check: str, *, dtype: str = "float64") -> Callable[[Callable[[Any], None]], Any]:
    """The same for a function that changes the module of a tape; the backend is the example's over that tape."""

    def enter(change: Callable[[Any], None]) -> Any:
        table[change.__name__] = Fault(
            change.__name__, (change.__doc__ or "").strip(), check, lambda: tape_backend(change), dtype
        )
        return change

    return enter


def session_fault(table: Table, check: str, *, dtype: str = "float64") -> Callable[[type[GenericSession]], Any]:
    """The same for a session: the backend is HIPS-autograd with this fast loop; its plain loop is right."""

    def enter(session: type[GenericSession]) -> Any:
        def prepare(self: Backend, problem: Any, state: Any) -> GenericSession:
            return (GenericSession if problem.compile == "off" else session)(self, problem, state)

        words = (session.__doc__ or "").strip()
        table[session.__name__] = Fault(
            session.__name__, words, check, lambda: type("Planted", (AutogradBackend,), {"prepare": prepare}), dtype
        )
        return session

    return enter


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tape_backend(change: Callable[[Any], None] = lambda tape: None) -> type[Backend]:
    """The example's backend over a copy of its tape, which the function may change."""
    tape = _load("ismcore_tape.tape", EXAMPLE / "tape.py")
    change(tape)
    package = ModuleType("ismcore_tape")
    package.tape = tape  # type: ignore[attr-defined]
    with patch.dict(sys.modules, {"ismcore_tape": package, "ismcore_tape.tape": tape}):
        backend = _load("ismcore_tape.backend", EXAMPLE / "backend.py")
    return backend.TapeBackend  # type: ignore[no-any-return]
