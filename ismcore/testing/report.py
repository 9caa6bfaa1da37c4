"""Running the checks on a backend, and the report that comes out."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from ismcore.backend.contract import Backend
from ismcore.errors import OptionError
from ismcore.results.result import versions
from ismcore.testing.catalogue import all_checks, all_items
from ismcore.testing.kit import Item
from ismcore.testing.subject import CheckFailed, NotDeclared, Subject

__all__ = ["Report", "Row", "check_backend", "expected_reason", "run_item"]

SHOWN = 5
"""Tracebacks that a printed report has at most, one for each place where something was raised; its JSON has all."""


QUICK = 12.0
"""What `--quick` gives as `within`; a case takes a few seconds at most."""


@dataclass(frozen=True)
class Row:
    """One check on one of its cases.

    Attributes:
        check: The check's name.
        scenario: Id of the case; "" where the check has only one.
        status: "passed", "failed", "skipped" (the backend does not declare what the check is about) or "expected" (it failed,
            as `expected_failures` said).
        error: Worst error over tolerance; None where nothing was measured or the check stopped before.
        message: Why it failed or was skipped; of an exception the type, the text and where it was raised.
        place: Where an exception was raised, as "file.py:12, in function"; "" where none was that the check did not foresee.
        traceback: Such an exception's traceback, from the check on, or that of another process; "" likewise.
    """

    check: str
    scenario: str
    status: str
    error: float | None = None
    message: str = ""
    place: str = ""
    traceback: str = ""

    @property
    def id(self) -> str:
        """Name of check and case; see `Item.id`."""
        return f"{self.check}[{self.scenario}]" if self.scenario else self.check


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
        left_out: Number of cases for which there was no time.
        printed: What the backend and its framework printed, where the command ran it.
    """

    backend: str
    dtype: str
    device: str
    rows: tuple[Row, ...]
    versions: dict[str, str]
    seconds: float
    left_out: int = 0
    printed: str = field(default="", repr=False)

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
        return self.text()

    def text(self, *, every_traceback: bool = False) -> str:
        """The table, what failed, and one traceback a place; or the traceback of every failure."""
        lines = [f"{'check':<46}{'cases':>6}  {'status':<9}{'error/tol':>10}"]
        for name, rows in self.by_check().items():
            status = next((s for s in ("failed", "expected", "passed") if any(r.status == s for r in rows)), "skipped")
            errors = [row.error for row in rows if row.error]
            error = f"{max(errors):.2g}" if errors else "-"
            note = rows[0].message if status == "skipped" else ""
            lines.append(f"{name:<46}{len(rows):>6}  {status:<9}{error:>10}  {note}".rstrip())
        lines += ["", *(f"FAILED {row.id}: {row.message}" for row in self.failures), *self._tracebacks(every_traceback)]
        verdict = ", ".join(f"{self.count(s)} {s}" for s in ("passed", "failed", "expected", "skipped") if self.count(s))
        verdict += f", {self.left_out} left out for want of time" if self.left_out else ""
        lines.append(
            f"{self.backend} in {self.dtype} on {self.device}: {len(self.rows)} checks, {verdict}; "
            f"worst error {self.worst:.2g} of its tolerance; {self.seconds:.1f} s"
        )
        return "\n".join(lines)

    def _tracebacks(self, every: bool) -> Iterator[str]:
        """The traceback of the first failure at each place, or of every failure, a line of its own before it."""
        places: dict[str, list[Row]] = {}
        for row in self.failures:
            if row.traceback and every:
                yield f"\n{row.id}\n{row.traceback.rstrip()}"
            elif row.traceback:
                places.setdefault(row.place or row.check, []).append(row)
        for place, rows in list(places.items())[:SHOWN]:
            yield f"\nat {place}: {len(rows)} failed; this is {rows[0].id}"
            yield rows[0].traceback.rstrip()
        if len(places) > SHOWN:
            yield f"\nand at {len(places) - SHOWN} more places: --json FILE has every traceback"
        if places:
            yield ""


def run_item(item: Item, subject: Subject, reason: str = "") -> tuple[Row, Exception | None]:
    """Run one check on one case. With a reason it is expected to fail, and fails if it does not.

    Returns:
        What came of it, and the exception of a check that failed.
    """
    name, case, failed = item.check.name, item.scenario, "expected" if reason else "failed"
    try:
        error = item.run(subject)
    except NotDeclared as missing:
        return Row(name, case, "skipped", message=str(missing)), None
    except CheckFailed as failure:
        ratio = failure.error if np.isfinite(failure.error) else None
        unforeseen = failure.__cause__ or getattr(failure, "__notes__", None)
        text = _traceback(failure) if unforeseen else ""
        return Row(name, case, failed, ratio, reason or str(failure), traceback=text), failure
    except Exception as failure:
        first, place = str(failure).strip().split("\n")[0][:300], _place(failure)
        message = reason or f"{type(failure).__name__}: {first} ({place})"
        return Row(name, case, failed, None, message, place, _traceback(failure)), failure
    if reason:
        message = f"was expected to fail ({reason}), and passed: take it off the list"
        return Row(name, case, "failed", error, message), None
    return Row(name, case, "passed", error), None


def _place(failure: Exception) -> str:
    """Where an exception was raised: file, line and function of the innermost call."""
    last = traceback.extract_tb(failure.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno}, in {last.name}"


def _traceback(failure: Exception) -> str:
    """The traceback, without the frames of `run_item` and `Item.run`, which are those of every check."""
    inner = failure.__traceback__
    for _ in range(2):
        inner = inner.tb_next if inner and inner.tb_next else inner
    return "".join(traceback.format_exception(type(failure), failure, inner))


def expected_reason(item: Item, expected_failures: Mapping[str, str]) -> str:
    """Why an item is expected to fail, given by the check's name or by name and case; "" where it is not."""
    return expected_failures.get(item.id) or expected_failures.get(item.check.name, "")


def check_backend(
    backend: str | type[Backend],
    *,
    dtype: str | None = None,
    device: str = "cpu",
    expected_failures: Mapping[str, str] | None = None,
    only: Iterable[str] = (),
    within: float | None = None,
) -> Report:
    """Run the conformance checks on a backend.

    Args:
        backend: The name that it is installed under, or its class.
        dtype: "float32" or "float64"; None for float64, or for float32 if the backend declares that alone.
        device: One of its devices.
        expected_failures: Checks that are known to fail, as "check_name" or "check_name[case]", and why. Strict: one that
            passes is a failure.
        only: The checks to run, as "check_name" or "check_name[case]", or as a pattern of these with `*`; all if empty.
        within: Seconds of processor time after which no further case begins, where every check has had its first; None for all.

    Raises:
        BackendUnavailable: There is no such backend, or it cannot be imported.
        OptionError: The dtype is unknown, or not declared by the backend, or there is no check of a name or a pattern given.

    Example:
        >>> report = check_backend("autograd", only=["check_vjp", "check_layout"])
        >>> report.ok, len(report.rows) > 50
        (True, True)
    """
    expected, items = dict(expected_failures or {}), _chosen(tuple(only), tuple(expected_failures or ()))
    subject = Subject.of(backend, dtype, device)
    began, spent = time.monotonic(), _processor_time()
    rows: dict[str, Row] = {}
    for turn, item in enumerate(items) if within is None else _in_turns(items):
        if within is not None and turn and _processor_time() - spent > within:
            break
        rows[item.id] = run_item(item, subject, expected_reason(item, expected))[0]
    return Report(
        subject.name or subject.backend.__name__,
        subject.dtype,
        device,
        tuple(rows[item.id] for item in items if item.id in rows),
        versions(subject.backend.packages),
        time.monotonic() - began,
        len(items) - len(rows),
    )


def _chosen(only: tuple[str, ...], expected: tuple[str, ...]) -> list[Item]:
    """The items that names and patterns are of, or all.

    Raises:
        OptionError: One is of none.
    """
    items = list(all_items())
    known = {check.name for check in all_checks()} | {item.id for item in items}
    by_word = {word: [item for item in items if _is_meant(item, word)] for word in only}
    unknown = [name for name in expected if name not in known] + [word for word, found in by_word.items() if not found]
    if unknown:
        raise OptionError(f"there is no check {unknown[0]!r}; the checks are {', '.join(check.name for check in all_checks())}")
    meant = {item.id for found in by_word.values() for item in found}
    return [item for item in items if not only or item.id in meant]


def _is_meant(item: Item, word: str) -> bool:
    """Whether a name is that of the check or of check and case, or a pattern fits one; brackets stand for themselves."""
    pattern = word.replace("[", "[[]")
    return fnmatchcase(item.id, pattern) or fnmatchcase(item.check.name, pattern)


def _in_turns(items: Iterable[Item]) -> list[tuple[int, Item]]:
    """Every check's first case, then every second one, ..., each with its turn from 0."""
    counts: dict[str, int] = {}
    turns = []
    for item in items:
        turns.append((counts.setdefault(item.check.name, 0), item))
        counts[item.check.name] += 1
    return sorted(turns, key=lambda turn: turn[0])


def _processor_time() -> float:
    """Seconds of this process and of those that it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
