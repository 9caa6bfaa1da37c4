"""The command `ismcore`. Results go to standard output, all else to standard error."""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ismcore import __version__
from ismcore.cli.benchmarks import add_bench
from ismcore.cli.files import AddCommand, add_inspect, add_score, say
from ismcore.cli.fit import INTERRUPTED, TERMINATED, Terminated, add_fit, add_resume
from ismcore.cli.new_backend import add_new_backend
from ismcore.errors import BackendUnavailable, DeviceUnavailable, Diverged, FileInvalid, IsmError, IsmWarning, PlottingMissing
from ismcore.plugins.lookup import BackendStatus, backends, choose
from ismcore.plugins.printed import stdout_to_stderr

__all__ = ["main"]

OK, FAILED, BAD_INPUT, UNAVAILABLE, DIVERGED, FILE = range(6)

EXIT_CODES = """\
exit codes:
  0    all is well
  1    the demo does not meet the published losses, the doctor finds something wrong, or a bug in ismcore
  2    a wrong option, or data that no score can be fitted to
  3    the backend, the device or the plotting library is not there
  4    the fit diverged
  5    a file cannot be read or written
  130  interrupted, and what there was of a fit by then is written
  143  terminated, likewise
"""

CODES: tuple[tuple[type[Exception], int], ...] = (
    (BackendUnavailable, UNAVAILABLE),
    (DeviceUnavailable, UNAVAILABLE),
    (PlottingMissing, UNAVAILABLE),
    (Diverged, DIVERGED),
    (FileInvalid, FILE),
    (OSError, FILE),
    (IsmError, BAD_INPUT),
)
"""Exit code of each error that is no bug; the first that fits."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The words after `ismcore`; those of the process if None.

    Returns:
        The exit code; see `ismcore --help`. Only argparse raises SystemExit: 2 for wrong usage, 0 after help.
    """
    if arguments is None:
        _keep_compiled_programs()
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # the name of a file need not be text in the terminal's encoding, or in any
        sys.stdout.reconfigure(errors="backslashreplace")
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        with _warnings_in_a_line():
            code = _json_alone(command, options) if getattr(options, "json", False) else command(options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has gone, as in `ismcore backends | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FILE
    except KeyboardInterrupt as interrupt:
        terminated = isinstance(interrupt, Terminated)
        sys.stderr.write(f"ismcore: {'terminated' if terminated else 'interrupted'}\n")
        return TERMINATED if terminated else INTERRUPTED
    except (IsmError, OSError) as error:
        if options.debug:
            traceback.print_exc()
        sys.stderr.write(f"ismcore: error: {_message(error)}\n")
        return next(code for kind, code in CODES if isinstance(error, kind))
    return code


def _json_alone(command: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Run a command whose standard output is to be JSON: what plugins and frameworks print there goes to standard error."""
    options.said = io.StringIO()
    try:
        with stdout_to_stderr():
            return command(options)
    finally:
        sys.stdout.write(options.said.getvalue())


@contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Have every `IsmWarning` on standard error as the errors are, whatever the filters: none may end what is to be written."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
            if not issubclass(category, IsmWarning):
                others(message, category, *where, **more)
            elif sys.stderr is not None:
                with suppress(OSError):
                    sys.stderr.write(f"ismcore: warning: {' '.join(str(message).split())}\n")

        warnings.simplefilter("always", IsmWarning)
        warnings.showwarning = show
        yield


def _keep_compiled_programs() -> None:
    """Have JAX keep what it compiles for the next process, in the user's cache folder; `ISMCORE_CACHE=0` leaves it be.

    Only where this is a process of its own, and JAX has not been imported or told otherwise: its settings are the process's.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if os.environ.get("ISMCORE_CACHE") == "0" or "jax" in sys.modules or not os.path.isabs(base):
        return
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(base, "ismcore", "jax"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def _message(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ismcore",
        description="Fit score functions, gradients of log-densities, to samples.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ismcore {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_command = partial(_add_command, commands)
    for add in (_add_demo, add_fit, add_resume, add_score, add_inspect, _add_reports, add_bench, add_new_backend):
        add(add_command)
    return parser


def _add_command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
    parser.set_defaults(command=run)
    # Not overwriting what stands before the command, hence no default.
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
    return parser


def _add_demo(add_command: AddCommand) -> None:
    add = add_command("demo", _demo, "run the published reference fit and leave pictures and a report").add_argument
    about_backend = "a backend's name, 'auto', or 'all' for every one that is ready (default: %(default)s)"
    add("--backend", default="auto", help=about_backend)
    about_out = "folder for the files (default: %(default)s)"
    add("--out", type=Path, default=Path("ismcore-demo"), metavar="DIR", help=about_out)


def _demo(options: argparse.Namespace) -> int:
    from ismcore.cli.demo import run_demo

    report = run_demo(_demo_backends(options.backend), options.out, progress=True)
    met = bool(report["published_losses_met_within_1e-6"])
    sys.stdout.write(f"published losses met within 1e-6: {'yes' if met else 'no'}\nreport: {options.out / 'report.html'}\n")
    return OK if met else FAILED


def _demo_backends(name: str) -> list[str]:
    if name != "all":
        return [choose(name).name]
    bundled = ("autograd", "torch", "jax")
    ready = [status.name for status in backends() if status.status == "ready" and status.name in bundled]
    return ready or [choose("auto").name]  # which says why none is


def _add_reports(add_command: AddCommand) -> None:
    """Add `ismcore backends` and `ismcore doctor`."""
    for name, run, about in (
        ("backends", _backends, "list the backends, and why one is not ready"),
        ("doctor", _doctor, "examine the installation, and run a fit and a check on every backend"),
    ):
        add_command(name, run, about).add_argument("--json", action="store_true", help="print it as JSON")


def _backends(options: argparse.Namespace) -> int:
    found: list[BackendStatus] = backends()
    say(options, [asdict(status) for status in found], "".join(f"{status}\n" for status in found))
    return OK


def _doctor(options: argparse.Namespace) -> int:
    from ismcore.cli.doctor import examine

    found = examine()
    say(options, found.as_dict(), f"{found}\n")
    return OK if found.ok else FAILED
