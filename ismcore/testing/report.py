"""Running the checks on a backend, and the report that comes out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from ismcore.backend import Backend
from ismcore.errors import OptionError
from ismcore.result import versions
from ismcore.testing.kit import Item, all_checks, all_items
from ismcore.testing.subject import CheckFailed, NotDeclared, Subject

__all__ = ["Report", "Row", "check_backend", "expected_reason", "run_item"]


@dataclass(frozen=True)
class Row:
    """One check on one of its cases.

    Attributes:
        check: The check's name.
        scenario: Id of the case; "" where the check has only one.
        status: "passed", "failed", "skipped" (the backend does not declare what the check is about) or "expected" (it failed,
            as `expected_failures` said).
        error: Worst error over tolerance; None where nothing was measured or the check stopped before.
        message: Why it failed or was skipped.
    """

    check: str
    scenario: str
    status: str
    error: float | None = None
    message: str = ""


@dataclass(frozen=True)
class Report:
    """What the checks found; prints as a table.

    Attributes:
        backend: The backend's name.
        dtype: The dtype that it was tested in.
        device: The device that it was tested on.
        rows: One a check and case.
        versions: Of Python, ismcore, NumPy and the framework.
        seconds: How long it took.
    """

    backend: str
    dtype: str
    device: str
    rows: tuple[Row, ...]
    versions: dict[str, str]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Row, ...]:
        """The rows that failed."""
        return tuple(row for row in self.rows if row.status == "failed")

    @property
    def worst(self) -> float:
        """Worst error over tolerance among the rows that passed."""
        return max((row.error for row in self.rows if row.error is not None and row.status == "passed"), default=0.0)

    def count(self, status: str) -> int:
        """Number of rows with this status."""
        return sum(row.status == status for row in self.rows)

    def by_check(self) -> dict[str, list[Row]]:
        """The rows of each check."""
        grouped: dict[str, list[Row]] = {}
        for row in self.rows:
            grouped.setdefault(row.check, []).append(row)
        return grouped

    def to_json(self) -> str:
        """The report as JSON; an error that is not finite becomes null."""
        return json.dumps({**asdict(self), "ok": self.ok, "worst": self.worst}, indent=1)

    def __str__(self) -> str:
        lines = [f"{'check':<46}{'cases':>6}  {'status':<9}{'error/tol':>10}"]
        for name, rows in self.by_check().items():
            status = next((s for s in ("failed", "expected", "passed") if any(r.status == s for r in rows)), "skipped")
            errors = [row.error for row in rows if row.error]
            error = f"{max(errors):.2g}" if errors else "-"
            note = rows[0].message if status == "skipped" else ""
            lines.append(f"{name:<46}{len(rows):>6}  {status:<9}{error:>10}  {note}".rstrip())
        lines += ["", *(f"FAILED {row.check}[{row.scenario}]: {row.message}" for row in self.failures)]
        verdict = ", ".join(f"{self.count(s)} {s}" for s in ("passed", "failed", "expected", "skipped") if self.count(s))
        lines.append(
            f"{self.backend} in {self.dtype} on {self.device}: {len(self.rows)} checks, {verdict}; "
            f"worst error {self.worst:.2g} of its tolerance; {self.seconds:.1f} s"
        )
        return "\n".join(lines)


def run_item(item: Item, subject: Subject, reason: str = "") -> Row:
    """Run one check on one case. With a reason it is expected to fail, and fails if it does not."""
    name, case = item.check.name, item.scenario
    try:
        error = item.run(subject)
    except NotDeclared as missing:
        return Row(name, case, "skipped", message=str(missing))
    except CheckFailed as failure:
        ratio = failure.error if np.isfinite(failure.error) else None
        return Row(name, case, "expected" if reason else "failed", ratio, reason or str(failure))
    except Exception as failure:
        message = f"{type(failure).__name__}: {failure}"
        return Row(name, case, "expected" if reason else "failed", message=reason or message)
    if reason:
        return Row(name, case, "failed", error, f"was expected to fail ({reason}), and passed: take it off the list")
    return Row(name, case, "passed", error)


def expected_reason(item: Item, expected_failures: Mapping[str, str]) -> str:
    """Why an item is expected to fail, given by the check's name or by name and case; "" where it is not."""
    return expected_failures.get(item.id) or expected_failures.get(item.check.name, "")


def check_backend(
    backend: str | type[Backend],
    *,
    dtype: str = "float64",
    device: str = "cpu",
    expected_failures: Mapping[str, str] | None = None,
    only: Iterable[str] = (),
) -> Report:
    """Run the conformance checks on a backend.

    Args:
        backend: The name that it is installed under, or its class.
        dtype: "float32" or "float64".
        device: One of its devices.
        expected_failures: Checks that are known to fail, as "check_name" or "check_name[case]", and why. Strict: one that
            passes is a failure.
        only: Names of the checks to run; all if empty.

    Raises:
        BackendUnavailable: There is no such backend, or it cannot be imported.
        OptionError: The dtype is unknown, or there is no check of a name given.

    Example:
        >>> report = check_backend("autograd", only=["check_vjp", "check_layout"])
        >>> report.ok, len(report.rows)
        (True, 13)
    """
    expected, chosen = dict(expected_failures or {}), set(only)
    known = {check.name for check in all_checks()} | {item.id for item in all_items()}
    unknown = [name for name in (*expected, *chosen) if name not in known]
    if unknown:
        raise OptionError(f"there is no check {unknown[0]!r}; the checks are {', '.join(check.name for check in all_checks())}")
    subject = Subject.of(backend, dtype, device)
    began = time.monotonic()
    rows = [
        run_item(item, subject, expected_reason(item, expected))
        for item in all_items()
        if not chosen or item.check.name in chosen
    ]
    return Report(
        subject.name or subject.backend.__name__,
        dtype,
        device,
        tuple(rows),
        versions(subject.backend.packages),
        time.monotonic() - began,
    )
