"""Measure, one process for each backend, and write the report: `ismcore bench`, or `python bench/run.py`."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import REPORTS

BUNDLED = {"cpu": ("autograd", "torch", "jax"), "cuda": ("torch", "jax")}
PARTS = ("reference", "wide", "n", "d", "d-penalised", "width", "depth", "options", "kit", "rivals", "memory", "cold")
COMPLETE, SOME_NOT_TIMED, UNAVAILABLE = 0, 1, 3


def parse(words):
    """The options of `ismcore bench`, which says what they mean."""
    parser = argparse.ArgumentParser(description="See `ismcore bench --help`.")
    add = parser.add_argument
    add("--backend", action="append")
    add("--device", default="cpu")
    add("--part", action="append", choices=PARTS)
    add("--smallest", action="store_true")
    add("--from", dest="files", action="append", type=Path, metavar="JSON")
    add("--out", type=Path, default=REPORTS, metavar="DIR")
    return parser.parse_args(words)


def missing():
    """Packages that the suite needs and that are not here."""
    return [name for name in ("pytest", "pytest_benchmark", "matplotlib") if importlib.util.find_spec(name) is None]


def measured(options, backend, file):
    """What one process with one backend wrote, or None where nothing was timed."""
    words = [f"--backend={backend}", f"--device={options.device}", *(f"--part={part}" for part in options.part or ())]
    words += ["--smallest"] * options.smallest
    suite = Path(__file__).parent
    pytest = [sys.executable, "-m", "pytest", str(suite), "-q", "--benchmark-quiet", f"--benchmark-json={file}", *words]
    # the command `ismcore` has JAX keep programs on disk: a first run here would depend on what was measured before
    alone = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    code = subprocess.run(pytest, cwd=suite.parent, stdout=sys.stderr, env=alone, check=False).returncode  # noqa: S603
    if code not in (COMPLETE, SOME_NOT_TIMED):
        sys.exit(f"pytest ended with code {code}; nothing was written")
    return json.loads(file.read_text()) if file.exists() and file.stat().st_size else None


def main(words=None):
    options = parse(words)
    if missing():
        sys.stderr.write(f"{', '.join(missing())} not installed: pip install -e '.[all,bench]'\n")
        return UNAVAILABLE
    if options.files:
        runs = [json.loads(file.read_text()) for file in options.files]
    else:
        with tempfile.TemporaryDirectory() as folder:
            backends = options.backend or BUNDLED[options.device.partition(":")[0]]
            found = [measured(options, backend, Path(folder) / f"{backend}.json") for backend in backends]
            runs = [run for run in found if run]
    if not runs:
        sys.stderr.write(f"nothing was timed on device {options.device!r}, and no report was written; pytest says why, above\n")
        return UNAVAILABLE
    from page import write  # matplotlib: not where nothing is drawn

    sys.stdout.write(f"{write(runs, options.out)}\n")
    return COMPLETE


if __name__ == "__main__":
    sys.exit(main())
