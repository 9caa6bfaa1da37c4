"""The list of checks: functions that carry their names, and the cases that each is run on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ismcore.testing.subject import Subject

__all__ = ["Check", "Item", "check"]

CheckFunction = Callable[..., float]
"""(subject) or (subject, case) -> worst error over tolerance, 0 where nothing is measured. Raises `CheckFailed`."""


@dataclass(frozen=True)
class Check:
    """One promise of the contract.

    Attributes:
        name: The function's name, "check_...".
        run: The function.
        cases: Gives the cases that it is run on, each with an `id`; None where there is only one.
    """

    name: str
    run: CheckFunction
    cases: Callable[[], Sequence[Any]] | None = None

    @property
    def about(self) -> str:
        """What it checks: the first line of its docstring."""
        return (self.run.__doc__ or "").splitlines()[0]


@dataclass(frozen=True, eq=False)
class Item:
    """A check on one of its cases: what a row of a report is about."""

    check: Check
    case: Any = None

    @property
    def scenario(self) -> str:
        """Id of the case; "" where the check has only one."""
        return "" if self.case is None else str(self.case.id)

    @property
    def id(self) -> str:
        """Name of check and case, as in "check_gradient[waves]"."""
        return f"{self.check.name}[{self.scenario}]" if self.scenario else self.check.name

    def run(self, subject: Subject) -> float:
        """Worst error over tolerance.

        Raises:
            CheckFailed: The backend breaks the promise.
            NotDeclared: It never made it.
        """
        return self.check.run(subject) if self.case is None else self.check.run(subject, self.case)


_CHECKS: dict[str, Check] = {}


def check(cases: Callable[[], Sequence[Any]] | None = None) -> Callable[[CheckFunction], CheckFunction]:
    """Put a function on the list; it stays an ordinary function."""

    def register(function: CheckFunction) -> CheckFunction:
        _CHECKS[function.__name__] = Check(function.__name__, function, cases)
        return function

    return register
