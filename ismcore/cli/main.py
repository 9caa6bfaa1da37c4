"""The command `ismcore`. Results go to standard output, all else to standard error."""

from __future__ import annotations

import argparse
import atexit
import difflib
import io
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from ismcore import __version__
from ismcore.cli.benchmarks import add_bench
from ismcore.cli.files import AddCommand, Unheard, add_diagnose, add_inspect, add_score, complain, say
from ismcore.cli.fit import INTERRUPTED, Terminated, add_fit, add_resume
from ismcore.cli.new_backend import add_new_backend
from ismcore.cli.program_cache import keep_compiled_programs
from ismcore.cli.saved import add_check, add_plot, add_report, add_sample
from ismcore.errors import (
    BackendUnavailable,
    DeviceUnavailable,
    Diverged,
    FileInvalid,
    IsmError,
    IsmWarning,
    PlottingMissing,
)
from ismcore.fitting.hints import ADAM, HINTS, MODEL, OBJECTIVE
from ismcore.plugins.lookup import BackendStatus, backends, choose
from ismcore.plugins.printed import stdout_to_stderr

__all__ = ["main"]

OK, FAILED, BAD_INPUT, UNAVAILABLE, DIVERGED, FILE = range(6)

EXIT_CODES = """\
exit codes:
  0    all is well
  1    the check finds a fault, the demo misses the published losses, the doctor finds something wrong, or a bug in ismcore
  2    a wrong option, or data that no score can be fitted to
  3    the backend, the device or the plotting library is not there
  4    the fit diverged
  5    a file cannot be read or written
  130  interrupted, and what there was of a fit by then is written
  143  terminated, likewise; 129 by a hangup, 152 as the processor time was used up
"""

OF_A_PART = {ADAM: "--learning-rate", MODEL: "--model-hidden", OBJECTIVE: "--objective"}
OPTIONS = {
    **{word.replace("_", "-"): OF_A_PART.get(here) or "--" + here.strip("=").replace("_", "-") for word, here in HINTS.items()},
    **{"asinh": "--transform", "output": "--out", "file": "--out", "save": "--out", "format": "--json"},
}
"""Options, of which a command has some, by the words of other programs: those of the arguments of `fit`, and of files."""

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
        keep_compiled_programs()
    _open_closed_streams()
    options, unknown = _parser().parse_known_args(arguments)
    if unknown:  # said by the command's own parser, which knows its options
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if isinstance(sys.stdout, io.TextIOWrapper):  # the name of a file need not be text in the terminal's encoding, or in any
        sys.stdout.reconfigure(errors="backslashreplace")
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        with _warnings_in_a_line():
            code = _json_alone(command, options) if getattr(options, "json", False) else command(options)
        if arguments is None and getattr(options, "json", False):
            atexit.register(_rest_to_stderr)  # after what plugins registered, so called before it
        sys.stdout.flush()
    except Unheard as error:  # what was to be done is done and saved; only the words are lost
        _no_more_output()
        return error.code
    except BrokenPipeError:  # whoever read the output has gone, as in `ismcore backends | head -1`
        _no_more_output()
        return FILE
    except KeyboardInterrupt as interrupt:
        complain("terminated" if isinstance(interrupt, Terminated) else "interrupted")
        return interrupt.code if isinstance(interrupt, Terminated) else INTERRUPTED
    except (IsmError, OSError) as error:
        if options.debug:
            traceback.print_exc()
        complain(f"error: {_message(error)}")
        return next(code for kind, code in CODES if isinstance(error, kind))
    return code


def _open_closed_streams() -> None:
    """Have output go nowhere where there is none to go to: a service or `>&-` starts a process with streams closed."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # as long as the process lasts


def _no_more_output() -> None:
    """Have Python's last flush go nowhere, so that it does not fail again."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _json_alone(command: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Run a command whose standard output is to be JSON: what plugins and frameworks print there goes to standard error."""
    with stdout_to_stderr() as options.out_stream:
        return command(options)


def _rest_to_stderr() -> None:
    """Have what is printed as the process ends go to standard error."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


@contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Have every `IsmWarning` on standard error as the errors are, whatever the filters: none may end what is to be written."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
            if not issubclass(category, IsmWarning):
                others(message, category, *where, **more)
            else:
                complain(f"warning: {' '.join(str(message).split())}")

        warnings.simplefilter("always", IsmWarning)
        warnings.showwarning = show
        yield


def _message(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


class _Parser(argparse.ArgumentParser):
    """A parser that says which command, option or value of an option may be meant."""

    def error(self, message: str) -> NoReturn:
        value = re.match(r"argument \S+: invalid choice: '(.*?)' \(choose from (.*)\)", message)
        unknown = re.match(r"unrecognized arguments: (--[\w-]+)", message)
        close: list[str] = []
        if value is not None:
            close = difflib.get_close_matches(value[1].lower(), re.findall(r"[\w-]+", value[2]), 1)
        elif unknown is not None:
            word = unknown[1].removeprefix("--").replace("_", "-")
            known = [option for option in self._option_string_actions if option.startswith("--")]
            close = [OPTIONS[word]] if OPTIONS.get(word) in known else difflib.get_close_matches(unknown[1], known, 1)
        super().error(message + (f"; did you mean {close[0]!r}?" if close else ""))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="ismcore",
        description="Fit score functions, gradients of log-densities, to samples.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ismcore {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_command = partial(_add_command, commands)
    first = (_add_demo, add_diagnose, add_fit, add_resume)
    then = (add_check, add_plot, add_report, add_sample, add_score, add_inspect)
    for add in (*first, *then, _add_reports, add_bench, add_new_backend):
        add(add_command)
    return parser


def _add_command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
    parser.set_defaults(command=run, parser=parser)
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
