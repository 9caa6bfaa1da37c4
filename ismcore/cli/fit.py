"""The commands `fit` and `resume`, which end with a result on disk, also where they are interrupted."""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from ismcore.backend.contract import DTYPES
from ismcore.cli.choices import add_choices, model_of, number_or, objective_of
from ismcore.cli.files import AddCommand, add_data, check_apart, column, is_stdin, name_of, read, say
from ismcore.coordinates.transforms import TRANSFORMS
from ismcore.domains import Box, Domain, Halfspaces, Positive
from ismcore.errors import Diverged, OptionError
from ismcore.files.atomic import check_target
from ismcore.files.checkpoints import Checkpoint, read_checkpoint
from ismcore.files.results import save
from ismcore.fitting.fit import fit, resume
from ismcore.fitting.recipes import RECIPES
from ismcore.optimizers.rules import Adam
from ismcore.optimizers.schedules import SHAPES
from ismcore.results.result import FitResult
from ismcore.results.shown import made_of
from ismcore.samples.tables.parsed import some
from ismcore.samples.tables.reading import NUMPY, TEXT, Table, read_labels
from ismcore.training.events import STOP, FitEvent, Listener

__all__ = ["INTERRUPTED", "Terminated", "add_fit", "add_resume"]

INTERRUPTED = 130

DEFAULTS = {name: parameter.default for name, parameter in signature(fit).parameters.items()}
"""What `fit` does unless it is told otherwise."""

AS_GIVEN = [
    *"recipe ensemble backend epochs batch_size schedule transform domain".split(),
    *"validation patience test seed dtype device".split(),
]
"""Options that `fit` takes by the same name."""


ENDING = ("SIGTERM", "SIGHUP", "SIGXCPU")
"""Signals that end a process, and that tell beforehand: there is time to write what there is."""


class Terminated(KeyboardInterrupt):
    """Such a signal ended the process before there was anything to write; `code` is the exit code that a shell gives it."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def add_fit(add_command: AddCommand) -> None:
    """Add `ismcore fit DATA`."""
    parser = add_command("fit", _fit, "fit a network to the samples in a file, and write the result to another")
    add = parser.add_argument
    about_recipe = "what the options that are not given stand for (default: %(default)s)"
    add("--recipe", choices=sorted(RECIPES), default=DEFAULTS["recipe"], help=about_recipe)
    add("--ensemble", type=int, metavar="K", help="folds of a fit that starts at the normal law in closed form")
    add("--backend", default=DEFAULTS["backend"], help="a name that 'ismcore backends' shows, or 'auto' (default: %(default)s)")
    add_choices(parser)
    add("--epochs", type=int, metavar="N", help="passes over the samples, at most")
    add("--batch-size", type=number_or("all", int), metavar="N", help="most rows of a step, or 'all'")
    add("--learning-rate", type=float, metavar="R", help="of Adam")
    add("--schedule", choices=SHAPES, help="how the learning rate changes")
    add("--validation", type=float, metavar="S", help="share of the rows to hold out for validation; 0 for none")
    add(
        "--test",
        type=_test,
        metavar="S|N",
        help="share or number of rows to set aside for 'ismcore check'; the result holds them",
    )
    add("--patience", type=int, metavar="N", help="end after N epochs without a better held-out loss; 0 for never")
    add("--seed", type=int, default=DEFAULTS["seed"], metavar="N", help="source of all randomness (default: %(default)s)")
    about_dtype = "of parameters and computation (default: %(default)s)"
    add("--dtype", choices=DTYPES, default=DEFAULTS["dtype"], help=about_dtype)
    add("--no-standardize", action="store_true", help="train on the samples as they are, not shifted and scaled by column")
    add(
        "--transform",
        choices=sorted(TRANSFORMS),
        help="train behind it: log of positive columns, logit of those from 0 to 1, asinh for heavy tails",
    )
    about_domain = "ends of the samples: auto, positive, box:LOW,HIGH, or a JSON file with lower and upper, or A and b"
    add("--domain", type=_domain, metavar="D", help=about_domain)
    add("--checkpoint", type=Path, metavar="FILE", help="write the run there on the way, for 'ismcore resume'")
    _add_run(parser)


def add_resume(add_command: AddCommand) -> None:
    """Add `ismcore resume FILE DATA`."""
    parser = add_command("resume", _resume, "go on with a fit from its checkpoint, and write the result")
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="what 'ismcore fit --checkpoint' wrote; it goes on being written")
    add("--backend", help="another one than before")
    add("--epochs", type=int, metavar="N", help="another number of epochs in all")
    _add_run(parser)


def _add_run(parser: argparse.ArgumentParser) -> None:
    """Add what both commands take."""
    add_data(parser, "the result; DATA's name with .ismcore.safetensors, in this folder, if not given")
    add = parser.add_argument
    about_groups = "rows of one label are held out together: a column of DATA, by name or number, or a file with a label a row"
    add("--groups", metavar="COLUMN|FILE", help=about_groups)
    add("--device", default=DEFAULTS["device"], help="'cpu', 'cuda', 'cuda:1', ... or 'auto' (default: %(default)s)")
    add("--timeout", type=float, metavar="SECONDS", help="end after so long, and write what there is")
    about_rows = "write no rows of the samples into the result, for 'ismcore sample' to start at, nor on 'ismcore resume'"
    add("--no-rows", action="store_true", help=about_rows)
    loud = parser.add_mutually_exclusive_group()
    loud.add_argument("--progress", action="store_true", help="show progress, also where there is no terminal")
    loud.add_argument("--quiet", action="store_true", help="show no progress")


def _domain(text: str) -> Domain | str:
    """A domain: "auto"; "positive"; "box:LOW,HIGH", an end left empty where there is no edge; or a file of what makes one."""
    try:
        if text == "auto":
            return text
        if text == "positive":
            return Positive()
        if text.startswith("box:"):
            lower, upper = (float(end) if end.strip() else None for end in text[4:].split(","))
            return Box(lower, upper)
        given = json.loads(Path(text).read_text(encoding="utf-8"))
        return Halfspaces(**given) if "A" in given else Box(**given)
    except (OSError, ValueError, TypeError) as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither 'auto', 'positive', 'box:LOW,HIGH' nor a JSON file with lower and upper, or A and b: {error}"
        ) from None


def _test(text: str) -> float:
    """A number of rows, such as 100, or a share, such as 0.2."""
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a share of the rows, such as 0.2, nor a number of them"
        ) from None


def _read(options: argparse.Namespace) -> tuple[Table, np.ndarray | None]:
    """The samples, without a column that holds their groups unless `--columns` names it; and the groups."""
    given: str | None = options.groups
    if given is None:
        return read(options), None
    if os.sep in given or os.path.exists(given) or Path(given).suffix.lower() in (*NUMPY, *TEXT):
        table = read(options)
        return table, read_labels(given, table.n_read)[table.rows]
    label = column(given)
    table = read(options, label)
    return table, table.beside[label]


def _fit(options: argparse.Namespace) -> int:
    if options.test is not None and options.no_rows:
        raise OptionError("--test sets rows aside in the result, and --no-rows writes none into it: leave one of the two away")
    x, groups = _read(options)
    out = _target(options)
    if options.checkpoint is not None:
        check_apart(out, options.checkpoint, "--checkpoint")
        if options.checkpoint.exists():
            raise OptionError(
                f"{options.checkpoint} is there already: go on with it by 'ismcore resume {options.checkpoint} "
                f"{options.data}', remove it, or name another file"
            )

    def work(stop: Listener) -> FitResult:
        return fit(
            x,
            groups=groups,
            **_run_options(options, stop),
            **{name: getattr(options, name) for name in AS_GIVEN},
            model=model_of(options, x.x.shape[1]),
            objective=objective_of(options),
            optimizer=None if options.learning_rate is None else Adam(options.learning_rate),
            standardize=False if options.no_standardize else None,
            on_nonfinite="stop",
            checkpoint=None if options.checkpoint is None else Checkpoint(options.checkpoint, rows=not options.no_rows),
        )

    return _finish(work, x, out, options)


def _resume(options: argparse.Namespace) -> int:
    x, groups = _read(options)
    out = _target(options)
    check_apart(out, options.file, "the checkpoint")
    options.no_rows = options.no_rows or not read_checkpoint(options.file)[0].rows

    def work(stop: Listener) -> FitResult:
        more = _run_options(options, stop)
        chosen = {"backend": options.backend, "device": options.device, "epochs": options.epochs}
        checkpoint = Checkpoint(options.file, rows=not options.no_rows)
        return resume(options.file, x, groups=groups, checkpoint=checkpoint, **more, **chosen)

    return _finish(work, x, out, options)


def _target(options: argparse.Namespace) -> Path:
    """Where the result goes, checked before the work and not after it."""
    out: Path = options.out or Path(f"{name_of(options)}.ismcore.safetensors")
    check_target(out)
    if not is_stdin(options):
        check_apart(out, options.data, "the data")
    return out


def _run_options(options: argparse.Namespace, stop: Listener) -> dict[str, Any]:
    progress = True if options.progress else False if options.quiet else "auto"
    return {"callbacks": [stop], "timeout": options.timeout, "progress": progress}


def _finish(work: Callable[[Listener], FitResult], x: Table, out: Path, options: argparse.Namespace) -> int:
    """Do the work, write what came of it, and say so; the exit code."""
    with _terminable() as termination:
        result = work(termination)
        termination.hold()
        losses = result.history["loss"]
        if result.status == "diverged":
            bad = "the gradient or the update is not finite" if np.isfinite(losses[-1]) else f"the loss is {losses[-1]}"
            message = f"{bad} at epoch {len(losses)}: lower --learning-rate or give a larger --curvature-weight"
            raise Diverged(f"{message}; no result was written", epoch=len(losses), result=result)
        save(result, out, rows=not options.no_rows)
    summary = _summary(x, result, out)
    code = 128 + termination.received if termination.received else INTERRUPTED if result.status == "interrupted" else 0
    say(options, summary, _in_words(summary), done=code)
    return code


class _Termination:
    """A callback that ends the run once a signal that ends processes has come.

    Attributes:
        received: The number of the first such signal; 0 if none came.
    """

    def __init__(self) -> None:
        self.received = 0
        self._holding = False

    def __call__(self, event: FitEvent) -> object:
        return STOP if self.received else None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signals: the first one ends the run as Ctrl-C does, others change nothing."""
        first, self.received = not self.received, self.received or number
        if first and not self._holding:
            signal.raise_signal(signal.SIGINT)

    def hold(self) -> None:
        """From here on write what is due, whatever comes: Ctrl-C too is only noted, by the exit code of the result's status."""
        self._holding = True
        if _in_main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, lambda number, frame: None)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def _terminable() -> Iterator[_Termination]:
    """Have SIGTERM, SIGHUP (a lost connection) and SIGXCPU (no more processor time) do what Ctrl-C does.

    A handler that somebody else has put there stays, and so does ignoring one, as `nohup` has it. It is done by a SIGINT, which
    ends also what calls no callback; and by a callback, as a shell has a command in the background ignore SIGINT.

    Raises:
        Terminated: One came where Ctrl-C raises `KeyboardInterrupt`.
    """
    termination = _Termination()
    numbers = [getattr(signal, name) for name in ENDING if hasattr(signal, name)] if _in_main_thread() else []
    before = {number: signal.getsignal(number) for number in [*numbers, signal.SIGINT]}
    for number in numbers:
        if before[number] is signal.SIG_DFL:
            signal.signal(number, termination.handle)
    try:
        yield termination
    except KeyboardInterrupt as interrupt:
        if termination.received:
            raise Terminated(128 + termination.received) from interrupt
        raise
    finally:
        if _in_main_thread():
            for number, handler in before.items():
                if handler is not None:  # one that was not installed from Python, which Python cannot put back
                    signal.signal(number, handler)


def _summary(x: Table, result: FitResult, out: Path) -> dict[str, Any]:
    losses = result.history["loss"]
    validation = result.history.get("validation_loss", np.empty(0))
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
        "first_loss": float(losses[0]) if len(losses) else None,
        "last_loss": float(losses[-1]) if len(losses) else None,
        "held_out": result.held_out,
        "best_epoch": result.best_epoch,
        "baseline": None if result.baseline is None else str(result.baseline),
        "candidates": [{key: row[key] for key in ("name", "weight", "best_epoch") if key in row} for row in result.candidates],
        "best_validation_loss": float(np.nanmin(validation)) if np.isfinite(validation).any() else None,
        "seconds": float(result.timings["total"]),
        "status": result.status,
        "warnings": list(result.warnings),
        "notes": [*x.notes, *result.notes],
        "columns": list(x.columns),
        "file": str(out),
    }


def _in_words(summary: dict[str, Any]) -> str:
    sum_of = made_of(summary["candidates"])
    lines = [
        f"samples  n = {summary['n']}, d = {summary['d']}{': ' * bool(summary['columns'])}{some(summary['columns'])}",
        f"model    {summary['model']}",
        f"by       {summary['objective']}",
        f"backend  {summary['backend']} ({summary['backend_reason']}), {summary['dtype']} on {summary['device']}",
        *([f"made of  {sum_of}, {summary['seconds']:.1f} s"] if sum_of else _losses_in_words(summary)),
        *([] if summary["baseline"] is None else [f"baseline {summary['baseline']}"]),
        f"status   {summary['status'].replace('_', ' ')}",
        *(f"warning  {text.partition(': ')[0]}" for text in summary["warnings"]),
        *(f"note     {text}" for text in summary["notes"]),
        f"file     {summary['file']}",
    ]
    return "\n".join(lines) + "\n"


def _losses_in_words(summary: dict[str, Any]) -> list[str]:
    """Lines of the losses; a fit in folds has that of `baseline`, as each of its candidates has losses of its own."""
    first, last, best = (summary[name] for name in ("first_loss", "last_loss", "best_validation_loss"))
    loss = "" if first is None else f"{first:.6g} -> {last:.6g} in "
    held_out = (
        [] if best is None else [f"held out {best:.6g} by {summary['held_out']} rows, after {summary['best_epoch']} epochs"]
    )
    return [f"loss     {loss}{summary['epochs']} epochs, {summary['seconds']:.1f} s", *held_out]
