"""`python -m ismcore.testing NAME`: run the conformance checks on a backend and print the report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ismcore.errors import IsmError
from ismcore.testing.report import check_backend
from ismcore.testing.subject import TOLERANCES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 if every check passed, 1 if one failed, 2 if the backend could not be tested."""
    parser = argparse.ArgumentParser(prog="python -m ismcore.testing", description="Test a backend against the contract.")
    parser.add_argument("name", help="the name that the backend is installed under")
    parser.add_argument("--dtype", choices=list(TOLERANCES), help="default: float64, or what the backend declares")
    parser.add_argument("--device", default="cpu", help="one of the backend's devices (default: cpu)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report as JSON")
    options = parser.parse_args(arguments)
    try:
        report = check_backend(options.name, dtype=options.dtype, device=options.device)
    except IsmError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if options.json:
        options.json.write_text(report.to_json() + "\n", encoding="utf-8")
    sys.stdout.write(f"{report}\n")
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
