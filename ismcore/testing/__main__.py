"""`python -m ismcore.testing NAME`: run the conformance checks on a backend and print the report."""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ismcore.errors import IsmError
from ismcore.plugins.printed import folded
from ismcore.testing.report import QUICK, check_backend
from ismcore.testing.subject import TOLERANCES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 if every check passed, 1 if one failed, 2 if the backend could not be tested."""
    options = _parser().parse_args(arguments)
    try:
        with _crashes_shown(), folded() as printed:
            report = check_backend(
                options.name,
                dtype=options.dtype,
                device=options.device,
                only=options.only,
                within=QUICK if options.quick else None,
            )
    except IsmError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    finally:
        if printed.text:
            sys.stderr.write(f"{printed}{'; --json FILE has them' * (options.json is None)}\n")
    report = replace(report, printed=printed.text)
    if options.json:
        options.json.write_text(report.to_json() + "\n", encoding="utf-8")
    sys.stdout.write(f"{report.text(every_traceback=options.traceback)}\n")
    return 0 if report.ok else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ismcore.testing", description="Test a backend against the contract.")
    add = parser.add_argument
    add("name", help="the name that the backend is installed under")
    add("--dtype", choices=list(TOLERANCES), help="default: float64, or what the backend declares")
    add("--device", default="cpu", help="one of the backend's devices (default: cpu)")
    about_only = (
        "run this check, this case of one (check_vjp, check_gradient[waves]), or those that a pattern with * fits; repeatable"
    )
    add("--only", action="append", default=[], metavar="PATTERN", help=about_only)
    add("--quick", action="store_true", help="every check on its first case, and more for 12 s of processor time")
    add("--traceback", action="store_true", help="the traceback of every exception, and not one for each place")
    add("--json", type=Path, metavar="FILE", help="also write the report as JSON, with every traceback and what was printed")
    return parser


@contextmanager
def _crashes_shown() -> Iterator[None]:
    """Have a process that dies in native code show where, although what is printed is kept until the end."""
    if faulthandler.is_enabled():
        yield
        return
    with os.fdopen(os.dup(2), "w") as file:
        faulthandler.enable(file)
        try:
            yield
        finally:
            faulthandler.disable()


if __name__ == "__main__":
    sys.exit(main())
