"""The command `ismcore`: `demo`, `fit`, `backends` and `doctor`. Results go to standard output, all else to standard error."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from ismcore.activations import ACTIVATIONS
from ismcore.datafiles import read_samples
from ismcore.errors import BackendUnavailable, DeviceUnavailable, Diverged, FileInvalid, IsmError, OptionError, PlottingMissing
from ismcore.files import check_target
from ismcore.fitting import fit
from ismcore.models import MLP
from ismcore.objectives import ImplicitScoreMatching
from ismcore.optimizers import Adam
from ismcore.persistence import save
from ismcore.plugins import BackendStatus, backends, choose
from ismcore.result import FitResult

__all__ = ["main"]

OK, FAILED, BAD_INPUT, UNAVAILABLE, DIVERGED, FILE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130

EXIT_CODES = """\
exit codes:
  0    all is well
  1    the demo does not meet the published losses, the doctor finds something wrong, or a bug in ismcore
  2    a wrong option, or data that no score can be fitted to
  3    the backend, the device or the plotting library is not there
  4    the fit diverged
  5    a file cannot be read or written
  130  interrupted
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

DEFAULTS = {name: parameter.default for name, parameter in signature(fit).parameters.items()}
"""What `fit` does unless it is told otherwise."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The words after `ismcore`; those of the process if None.

    Returns:
        The exit code; see `ismcore --help`. Only argparse raises SystemExit: 2 for wrong usage, 0 after help.
    """
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        code = command(options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has gone, as in `ismcore backends | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FILE
    except KeyboardInterrupt:
        sys.stderr.write("ismcore: interrupted\n")
        return INTERRUPTED
    except (IsmError, OSError) as error:
        if options.debug:
            traceback.print_exc()
        sys.stderr.write(f"ismcore: error: {_message(error)}\n")
        return next(code for kind, code in CODES if isinstance(error, kind))
    return code


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
    parser.add_argument("--version", action="version", version=f"ismcore {version('ismcore')}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_fit(commands)
    _add_backends(commands)
    _add_doctor(commands)
    return parser


def _add_command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
    parser.set_defaults(command=run)
    # Not overwriting what stands before the command, hence no default.
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
    return parser


def _add_demo(commands: Any) -> None:
    parser = _add_command(commands, "demo", _demo, "run the published reference fit and leave pictures and a report")
    parser.add_argument(
        "--backend",
        default="auto",
        help="a backend's name, 'auto', or 'all' for every one that is ready (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("ismcore-demo"), metavar="DIR", help="folder for the files (default: %(default)s)"
    )


def _demo(options: argparse.Namespace) -> int:
    from ismcore.demo import run_demo

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


def _add_fit(commands: Any) -> None:
    parser = _add_command(commands, "fit", _fit, "fit a network to the samples in a file, and write the result to another")
    add = parser.add_argument
    add("data", type=Path, metavar="DATA", help=".npy, .npz, .csv, .tsv or .txt, one row a sample; .npz: its array 'x'")
    add(
        "--columns",
        type=_columns,
        metavar="LIST",
        help="columns to use, counted from 0, such as 0-10 or 0,2,5; all if not given",
    )
    add("--backend", default=DEFAULTS["backend"], help="a name that 'ismcore backends' shows, or 'auto' (default: %(default)s)")
    add(
        "--model-hidden",
        type=_widths,
        default=",".join(map(str, MLP.hidden)),
        metavar="LIST",
        help="widths of the hidden layers, such as 64,64 (default: %(default)s)",
    )
    add("--activation", choices=sorted(ACTIVATIONS), default=MLP.activation, help="of the hidden layers (default: %(default)s)")
    add(
        "--curvature-weight",
        type=float,
        default=ImplicitScoreMatching.curvature_weight,
        metavar="L",
        help="regularisation, from 0 (default: %(default)s)",
    )
    add("--epochs", type=int, default=DEFAULTS["epochs"], metavar="N", help="passes over the samples (default: %(default)s)")
    add("--learning-rate", type=float, default=Adam.learning_rate, metavar="R", help="of Adam (default: %(default)s)")
    add("--seed", type=int, default=DEFAULTS["seed"], metavar="N", help="source of all randomness (default: %(default)s)")
    add(
        "--dtype",
        choices=("float32", "float64"),
        default=DEFAULTS["dtype"],
        help="of parameters and computation (default: %(default)s)",
    )
    add("--device", default=DEFAULTS["device"], help="'cpu', 'cuda', 'cuda:1', ... or 'auto' (default: %(default)s)")
    add("--no-standardize", action="store_true", help="train on the samples as they are, not shifted and scaled by column")
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help="the result; DATA's name with .ismcore.safetensors, in this folder, if not given",
    )
    add("--json", action="store_true", help="print the summary as JSON")


def _columns(text: str) -> list[int]:
    columns: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", part.strip())
        between = range(int(found[1]), int(found[2] or found[1]) + 1) if found else range(0)
        if not between:
            raise argparse.ArgumentTypeError(f"{text!r} is no list of columns such as 0-10 or 0,2,5")
        columns.extend(between)
    return columns


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of widths such as 64,64") from None


def _fit(options: argparse.Namespace) -> int:
    out: Path = options.out or Path(f"{options.data.stem}.ismcore.safetensors")
    x = read_samples(options.data, columns=options.columns)
    check_target(out)  # before the work, not after it
    if out.exists() and out.samefile(options.data):
        raise OptionError(f"--out {out} would overwrite the data; name another file")
    result = fit(
        x,
        backend=options.backend,
        model=MLP(options.model_hidden, options.activation),
        objective=ImplicitScoreMatching(options.curvature_weight),
        optimizer=Adam(options.learning_rate),
        epochs=options.epochs,
        seed=options.seed,
        dtype=options.dtype,
        device=options.device,
        standardize=not options.no_standardize,
        on_nonfinite="stop",
    )
    losses = result.history["loss"]
    if result.status == "diverged":
        message = f"the loss is {losses[-1]} at epoch {len(losses)}: lower --learning-rate or give a --curvature-weight"
        raise Diverged(f"{message}; nothing was written", epoch=len(losses), result=result)
    save(result, out)
    summary = _summary(x, result, out)
    sys.stdout.write(json.dumps(summary, indent=2, allow_nan=False) + "\n" if options.json else _in_words(summary))
    return OK


def _summary(x: np.ndarray, result: FitResult, out: Path) -> dict[str, Any]:
    losses = result.history["loss"]
    return {
        "n": len(x),
        "d": result.d,
        "model": repr(result.model),
        "objective": repr(result.objective),
        "backend": result.backend,
        "backend_reason": result.backend_reason,
        "device": result.device,
        "dtype": result.dtype,
        "epochs": len(losses),
        "first_loss": float(losses[0]),
        "last_loss": float(losses[-1]),
        "seconds": float(result.timings["total"]),
        "status": result.status,
        "warnings": list(result.warnings),
        "file": str(out),
    }


def _in_words(summary: dict[str, Any]) -> str:
    lines = [
        "samples  n = {n}, d = {d}",
        "model    {model}",
        "backend  {backend} ({backend_reason}), {dtype} on {device}",
        "loss     {first_loss:.6g} -> {last_loss:.6g} in {epochs} epochs, {seconds:.1f} s",
    ]
    notes = [f"warning  {text}\n" for text in summary["warnings"]]
    return "".join(line.format(**summary) + "\n" for line in lines) + "".join(notes) + f"file     {summary['file']}\n"


def _add_backends(commands: Any) -> None:
    parser = _add_command(commands, "backends", _backends, "list the backends, and why one is not ready")
    parser.add_argument("--json", action="store_true", help="print the list as JSON")


def _backends(options: argparse.Namespace) -> int:
    found: list[BackendStatus] = backends()
    if options.json:
        sys.stdout.write(json.dumps([asdict(status) for status in found], indent=2) + "\n")
    else:
        sys.stdout.write("".join(f"{status}\n" for status in found))
    return OK


def _add_doctor(commands: Any) -> None:
    parser = _add_command(commands, "doctor", _doctor, "examine the installation, and run a fit and a check on every backend")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def _doctor(options: argparse.Namespace) -> int:
    from ismcore.doctor import examine

    found = examine()
    sys.stdout.write(json.dumps(found.as_dict(), indent=2, allow_nan=False) + "\n" if options.json else f"{found}\n")
    return OK if found.ok else FAILED
