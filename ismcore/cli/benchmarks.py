"""The command `bench`: it runs the suite of benchmarks, which is in the repository and not in the package."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from ismcore.cli.files import AddCommand
from ismcore.errors import OptionError

__all__ = ["add_bench"]


def add_bench(add_command: AddCommand) -> None:
    """Add `ismcore bench`."""
    parser = add_command("bench", _bench, "measure speed and memory beside programs by hand, and write tables and charts")
    parser.epilog = "One process for each backend. Needs a checkout of ismcore, installed as pip install -e '.[all,bench]'."
    add = parser.add_argument
    add("--suite", type=Path, default=Path("bench"), metavar="DIR", help="folder of the benchmarks (default: ./bench)")
    add("--backend", action="append", metavar="NAME", help="measure this one; may be repeated (default: the bundled ones)")
    add("--device", default="cpu", help="'cpu' or 'cuda' (default: %(default)s)")
    add("--part", action="append", help="of the suite, such as reference or memory; may be repeated (default: all of it)")
    add("--smallest", action="store_true", help="the smallest cells, one round each: whether the suite runs, not how fast")
    add(
        "--from",
        dest="files",
        action="append",
        type=Path,
        metavar="JSON",
        help="measure nothing, and report on what pytest --benchmark-json or an earlier report wrote; may be repeated",
    )
    add("--out", type=Path, metavar="DIR", help="folder for the report (default: 'reports' in that of the benchmarks)")


def _bench(options: argparse.Namespace) -> int:
    program = options.suite / "run.py"
    if not program.is_file():
        raise OptionError(
            f"there are no benchmarks in {str(options.suite)!r}: be in a checkout of ismcore, or name its bench by --suite"
        )
    words = [f"--device={options.device}", f"--out={options.out or options.suite / 'reports'}"]
    for option, values in (("backend", options.backend), ("part", options.part), ("from", options.files)):
        words += [f"--{option}={value}" for value in values or ()]
    words += ["--smallest"] * options.smallest
    return subprocess.run([sys.executable, str(program), *words], check=False).returncode  # noqa: S603  (the user's own checkout)
