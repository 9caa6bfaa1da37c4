"""The cross-backend matrix: backend x device x dtype x scenario x check, each cell against the outside answer.

`python -m ismcore.testing.matrix --out DIR` writes matrix.json, one entry a cell, and matrix.md: worst error over tolerance by
check and by scenario for each backend, device and dtype, or why a column did not run, and how far each pair is apart.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ismcore.errors import IsmError
from ismcore.ops import Params
from ismcore.plugins.lookup import backends, load_backend
from ismcore.testing.report import Report, Row, check_backend
from ismcore.testing.scenarios import all_scenarios, scored_scenarios
from ismcore.testing.subject import TOLERANCES, Subject

__all__ = ["Gap", "Matrix", "matrix"]

BUNDLED = ("autograd", "torch", "jax")


@dataclass(frozen=True)
class Gap:
    """Largest difference of two backends over all scenarios, relative to max(1, largest magnitude)."""

    first: str
    second: str
    device: str
    dtype: str
    score: float
    jacobian_diagonal: float
    loss: float
    gradient: float


@dataclass(frozen=True)
class Matrix:
    """What ran, what did not and why, and the pairwise differences.

    Attributes:
        reports: One a backend, device and dtype.
        absent: Why a backend did not run, by its name.
        gaps: One a pair of backends, device and dtype.
    """

    reports: tuple[Report, ...]
    absent: dict[str, str]
    gaps: tuple[Gap, ...]

    @property
    def cells(self) -> int:
        """Number of cells that ran: those that were skipped do not count."""
        return sum(row.status != "skipped" for report in self.reports for row in report.rows)

    def faults(self, minimum: int, require: Sequence[str]) -> list[str]:
        """Why the matrix is not good: failed cells, required backends that did not run, too few cells."""
        ran = {report.backend for report in self.reports}
        found = [
            f"{r.backend} {r.dtype} {row.check}[{row.scenario}]: {row.message}" for r in self.reports for row in r.failures
        ]
        found += [f"{name} did not run: {self.absent.get(name, 'unknown')}" for name in require if name not in ran]
        if self.cells < minimum:
            found.append(f"only {self.cells} cells ran, fewer than {minimum}")
        return found

    def to_json(self) -> str:
        """Every cell, as JSON."""
        cells = [
            {"backend": report.backend, "device": report.device, "dtype": report.dtype, **asdict(row)}
            for report in self.reports
            for row in report.rows
        ]
        found = {report.backend: report.versions for report in self.reports}
        gaps = [asdict(gap) for gap in self.gaps]
        return json.dumps({"versions": found, "absent": self.absent, "cells": cells, "pairwise": gaps}, indent=0)

    def to_markdown(self) -> str:
        """The tables."""
        return "\n".join([*self._head(), *self._table("check"), "", *self._table("scenario"), "", *self._pairwise(), ""])

    def _head(self) -> Iterator[str]:
        versions = {name: number for report in self.reports for name, number in report.versions.items()}
        yield "# Conformance matrix"
        yield ""
        yield f"{self.cells} cells ran. A number is the worst error over its tolerance, so that below 1 is right; `ok` measures"
        yield "nothing, or found no error at all; `-` does not apply. Made by `python -m ismcore.testing.matrix` with"
        yield f"{', '.join(f'{name} {number}' for name, number in versions.items())}."
        yield ""
        for dtype, allowed in TOLERANCES.items():
            yield f"- {dtype}: values {allowed.value:g}, gradients {allowed.gradient:g}, 20 steps {allowed.steps:g}, relative"
        yield from (f"- {name} did not run: {reason}" for name, reason in self.absent.items())
        yield ""

    def _table(self, key: str) -> Iterator[str]:
        columns = [f"{report.backend} {report.device} {report.dtype}" for report in self.reports]
        yield f"| {key} | {' | '.join(columns)} |"
        yield f"|---{'|---:' * len(columns)}|"
        names = list(dict.fromkeys(getattr(row, key) for report in self.reports for row in report.rows))
        for name in filter(None, names):
            cells = [_cell([row for row in report.rows if getattr(row, key) == name]) for report in self.reports]
            yield f"| {name} | {' | '.join(cells)} |"

    def _pairwise(self) -> Iterator[str]:
        yield "| largest difference | score | Jacobian diagonal | loss | gradient |"
        yield "|---|---:|---:|---:|---:|"
        for gap in self.gaps:
            numbers = " | ".join(f"{value:.1e}" for value in (gap.score, gap.jacobian_diagonal, gap.loss, gap.gradient))
            yield f"| {gap.first} - {gap.second}, {gap.device} {gap.dtype} | {numbers} |"


def _cell(rows: list[Row]) -> str:
    if any(row.status == "failed" for row in rows):
        return "FAILED"
    ran = [row for row in rows if row.status == "passed"]
    if not ran:
        return "-"
    worst = max((row.error or 0.0 for row in ran), default=0.0)
    return f"{worst:.1g}" if worst else "ok"


def matrix(names: Sequence[str] = (), dtypes: Sequence[str] = tuple(TOLERANCES)) -> Matrix:
    """Run every check on every backend that is ready, on each of its devices, in each of its dtypes.

    Args:
        names: Backends to run; all that are installed if empty.
        dtypes: Those to run in.
    """
    reports, absent = [], {}
    for status in backends():
        if names and status.name not in names:
            continue
        try:
            backend = load_backend(status.name)
        except IsmError as error:
            absent[status.name] = str(error)
            continue
        for device in backend.devices():
            for dtype in dtypes:
                if dtype in backend.dtypes:
                    reports.append(check_backend(status.name, dtype=dtype, device=device))
                else:
                    absent[f"{status.name} {dtype}"] = "the backend does not declare this dtype"
    columns = [(report.backend, report.device, report.dtype) for report in reports]
    pairs = [(one, other) for one, other in combinations(columns, 2) if one[1:] == other[1:]]
    return Matrix(tuple(reports), absent, tuple(_gap(one, other) for one, other in pairs))


def _gap(one: tuple[str, str, str], other: tuple[str, str, str]) -> Gap:
    first, second = (Subject.of(name, dtype, device) for name, device, dtype in (one, other))
    worst = dict.fromkeys(("score", "jacobian_diagonal", "loss", "gradient"), 0.0)
    pairs: list[tuple[Any, Any]] = [(first.evaluate(case), second.evaluate(case)) for case in all_scenarios()]
    pairs += [(first.field(case), second.field(case)) for case in scored_scenarios()]
    for a, b in pairs:
        for name, value in vars(a).items():
            worst[name] = max(worst[name], _difference(value, getattr(b, name)))
    device, dtype = one[1:]
    return Gap(one[0], other[0], device, dtype, **worst)


def _difference(one: np.ndarray | Params, other: np.ndarray | Params) -> float:
    if isinstance(one, dict):
        return max(_difference(value, other[name]) for name, value in one.items())
    return float(np.max(np.abs(one - other)) / max(1.0, np.max(np.abs(one))))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 if every cell is within its tolerance and enough of them ran."""
    parser = argparse.ArgumentParser(prog="python -m ismcore.testing.matrix", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("reports"), help="folder for matrix.json and matrix.md")
    parser.add_argument("--backends", nargs="*", default=[], help="backends to run (default: all that are installed)")
    parser.add_argument("--require", nargs="*", default=BUNDLED, help="backends without which the run fails")
    parser.add_argument("--min-cells", type=int, default=300, help="the run fails if fewer cells ran")
    options = parser.parse_args(arguments)
    found = matrix(options.backends)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "matrix.json").write_text(found.to_json() + "\n", encoding="utf-8")
    (options.out / "matrix.md").write_text(found.to_markdown(), encoding="utf-8")
    faults = found.faults(options.min_cells, options.require)
    sys.stdout.write("\n".join([*faults, f"{found.cells} cells, {len(faults)} faults, in {options.out}"]) + "\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
